"""Partition state: the rules against their definition, and the same fates after a crash at any point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.engine.spec import DecisionAgent, Skip, Window
from agents.engine.state import COOLED_DOWN, DUPLICATE, UNWATCHED, Fate, PartitionState, Passed
from schemas.change import Change
from schemas.errors import AgentError
from schemas.reading import Reading
from topics.spec import TopicSpec


class Loan(BaseModel):
    """A row with two watched columns and one that a write-back changes."""

    id: int
    amount: int | None = 0
    text: str | None = ""
    status: str = ""


class Temp(BaseModel):
    """A measurement."""

    celsius: float


def agent(**fields: Any) -> DecisionAgent[Any, Any, Any]:
    """The few fields of an agent that its partition state reads."""
    base: dict[str, Any] = {"name": "a", "watch": (), "watch_lookback": 10, "windows": {}}
    return cast("DecisionAgent[Any, Any, Any]", SimpleNamespace(**(base | fields)))


def loans(**fields: Any) -> TopicSpec[Any]:
    """A change topic."""
    return TopicSpec(name="loans", kind="change", row=Loan, key=("id",), **fields)


def readings(**fields: Any) -> TopicSpec[Any]:
    """A reading topic."""
    return TopicSpec(name="readings", kind="reading", row=Temp, **fields)


def rule(fate: Fate) -> str | None:
    """The rule that skipped, or None."""
    return fate.rule if isinstance(fate, Skip) else None


@dataclass
class Feeder:
    """Feeds changes one offset after the other."""

    state: PartitionState
    offset: int = 0
    fates: list[str | None] = field(default_factory=list)

    def __call__(self, op: Any, amount: int | None = 0, *, skip: int = 0, subject: str = "1", **more: Any) -> str | None:
        self.offset += skip
        after = None if op == "d" else Loan(id=1, amount=amount, **{k: more.pop(k) for k in ("text", "status") if k in more})
        change = Change(op=op, key={"id": 1}, after=after, **more)
        fate = self.state.feed(change, subject=subject, offset=self.offset, event_ms=self.offset)
        self.offset += 1
        return rule(fate)


WATCH = ("amount", "text")


def watching(**fields: Any) -> Feeder:
    """A feeder of an agent that watches amount and text."""
    return Feeder(PartitionState(agent(watch=WATCH, **fields), loans()))


def test_a_write_back_is_an_unwatched_change_with_and_without_the_row_before() -> None:
    """Writing the status back never decides again, whichever replica identity the table has."""
    feed = watching()
    assert feed("c", 5) is None
    assert feed("u", 5, status="approved") == "unwatched-change"
    assert feed("u", 5, status="paid", before=Loan(id=1, amount=5, status="approved")) == "unwatched-change"
    assert feed("u", 6, before=Loan(id=1, amount=5)) is None
    assert feed("u", 7) is None


def test_the_row_before_wins_over_what_was_seen() -> None:
    """What the source says the row was is believed over a memory that may miss a change that failed to decode."""
    feed = watching()
    assert feed("c", 5) is None
    assert feed("u", 5, before=Loan(id=1, amount=4)) is None


def test_an_update_of_a_row_not_seen_within_the_lookback_is_decided() -> None:
    """Not knowing what a row was is no reason to skip it."""
    feed = watching(watch_lookback=3)
    assert feed("u", 5) is None
    assert feed("u", 5, skip=2) == "unwatched-change"
    assert feed("u", 5, skip=3) is None


def test_an_unwatched_change_renews_what_is_known() -> None:
    """The lookback runs from the last row of the subject, decided or not."""
    feed = watching(watch_lookback=3)
    feed("c", 5)
    assert [feed("u", 5, skip=2, status=str(n)) for n in range(5)] == ["unwatched-change"] * 5


def test_a_snapshot_reads_a_row_again_without_deciding_again() -> None:
    """An incremental snapshot of rows that were just seen is skipped, of others it is decided."""
    feed = watching()
    assert feed("r", 5) is None
    assert feed("r", 5) == "unwatched-change"
    assert feed("r", 6) is None
    assert feed("r", 6, subject="2") is None


def test_an_insert_is_always_a_change_and_a_delete_forgets_the_row() -> None:
    """A row that was deleted and came back is a new row, equal values or not."""
    feed = watching()
    assert feed("c", 5) is None
    assert feed("c", 5) is None
    assert feed("d") is None
    assert feed("u", 5) is None
    assert feed("d") is None
    assert feed("r", 5) is None


def test_a_column_that_was_not_sent_has_not_changed() -> None:
    """An unchanged TOAST column is absent from an update; once it is sent again it counts as a change."""
    feed = watching()
    hidden: dict[str, Any] = {"unavailable": frozenset({"text"})}
    assert feed("c", 5, text="long") is None
    assert feed("u", 5, text=None, **hidden) == "unwatched-change"
    assert feed("u", 5, text=None, **hidden) == "unwatched-change"
    assert feed("u", 6, text=None, **hidden) is None
    assert feed("u", 6, text="other") is None
    assert feed("u", 6, text=None, before=Loan(id=1, amount=6, text="other"), **hidden) == "unwatched-change"


def test_one_watched_column_that_was_not_sent_is_no_change_even_of_an_unknown_row() -> None:
    """The source says itself that nothing watched has changed."""
    feed = Feeder(PartitionState(agent(watch=("text",)), loans()))
    assert feed("u", 5, text=None, unavailable=frozenset({"text"})) == "unwatched-change"


def test_without_watch_every_update_is_a_change() -> None:
    """The rule acts only where an agent declares it."""
    feed = Feeder(PartitionState(agent(), loans()))
    assert [feed("c", 5), feed("u", 5), feed("u", 5)] == [None] * 3


def test_repeats_are_skipped_within_reach_and_count_as_seen() -> None:
    """The id of a repeat is as new as any other: it holds off a third one that lies out of the first one's reach."""
    feed = Feeder(PartitionState(agent(), loans(dedupe=3)))
    assert feed("u", 1, event_id="x") is None
    assert feed("u", 1, event_id="x", skip=2) == "duplicate"
    assert feed("u", 1, event_id="x", skip=2) == "duplicate"
    assert feed("u", 1, event_id="x", skip=3) is None
    assert [feed("u", n, event_id="") for n in range(3)] == [None] * 3


def test_a_duplicate_does_not_enter_a_window() -> None:
    """A measurement that was sent twice is one sample."""
    state = PartitionState(agent(windows={"w": Window("1m")}), readings(dedupe=10))
    for offset, event_id in enumerate(["a", "a", "b"]):
        reading = Reading("m", Temp(celsius=1), 1000, event_id)
        fate = state.feed(reading, subject="m", offset=offset, event_ms=1000)
    assert isinstance(fate, Passed)
    assert [s.offset for s in fate.views["w"].samples] == [0, 2]


def test_what_retention_takes_from_a_running_owner_is_missing_from_its_windows_too() -> None:
    """Offsets 2 to 4 were lost unread: later windows over them say so as a successor's do; what was read before does not."""
    spec = agent(windows={"w": Window("1h", lookback=4)})

    def truncated(state: PartitionState, offset: int) -> bool:
        reading = Reading(device="d", row=Temp(celsius=1.0), event_ms=offset, event_id=str(offset))
        fate = state.feed(reading, subject="d", offset=offset, event_ms=offset)
        assert isinstance(fate, Passed)
        return fate.views["w"].truncated

    running = PartitionState(spec, readings())
    assert not truncated(running, 0)
    running.log_start = 5
    assert not truncated(running, 1), "it was handed over late, but read before the loss"
    successor = PartitionState(spec, readings(), log_start=5)
    for offset in range(5, 12):
        assert truncated(running, offset) == truncated(successor, offset) == (offset < 9)
    running.log_start = 3
    assert running.log_start == 5


def test_parts_of_one_record_are_told_apart_by_their_ids() -> None:
    """Several devices in one record are several readings; one that occurs twice in it is one."""
    state = PartitionState(agent(windows={"w": Window("1m", every="1s")}), readings(dedupe=10))
    fates = [
        rule(state.feed(Reading(d, Temp(celsius=1), 5, d + "5"), subject=d, offset=7, event_ms=5)) for d in ("a", "b", "a", "c")
    ]
    assert fates == [None, None, "duplicate", None]


def test_an_unwatched_change_takes_no_bucket_but_is_a_sample() -> None:
    """A status written back within the minute must not swallow the change of amount that follows."""
    state = PartitionState(agent(watch=WATCH, windows={"w": Window("10m", every="1m", lookback=4)}), loans())
    feed = Feeder(state)
    feed("c", 5)
    assert feed("u", 5, skip=3, status="approved") == "unwatched-change"
    fate = state.feed(Change("u", {"id": 1}, Loan(id=1, amount=6)), subject="1", offset=5, event_ms=5)
    assert isinstance(fate, Passed)
    assert [s.offset for s in fate.views["w"].samples] == [4, 5]


def test_watching_a_field_that_is_not_there_is_refused() -> None:
    """A typing mistake in `watch` would make every update a skip."""
    with pytest.raises(AgentError, match="amuont"):
        PartitionState(agent(watch=("amuont",)), loans())


def test_an_agent_without_state_needs_nothing_read_back() -> None:
    """The horizon is what the agent's own rules look at."""
    assert PartitionState(agent(), loans()).horizon == 0
    assert PartitionState(agent(), loans(dedupe=7)).horizon == 7
    assert PartitionState(agent(watch=WATCH), loans(dedupe=7)).horizon == 17
    assert PartitionState(agent(windows={"w": Window("1m", lookback=30)}), readings(dedupe=7)).horizon == 37
    gated = agent(watch=WATCH, windows={"w": Window("1m", lookback=30, every="1s")})
    assert PartitionState(gated, loans(dedupe=7)).horizon == 47


URGENT: st.SearchStrategy[Callable[[Any], str | None] | None] = st.sampled_from(
    [None, lambda row: "much" if row.amount else None]
)
Step = tuple[int, str, int, int, str, int, bool, bool]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from("ab"),
        st.integers(-40, 40),
        st.integers(0, 6),
        st.sampled_from("rcuuuud"),
        st.integers(0, 1),
        st.booleans(),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=60,
)


def change_log(steps: list[Step]) -> list[tuple[int, str, int, Change[Loan], bool]]:
    """Generated (offset, subject, event_ms, change, evaluable)."""
    out = []
    offset, clock = 0, 1000
    for gap, subject, drift, event_id, op, amount, hidden, evaluable in steps:
        offset += gap
        clock += drift
        after = None if op == "d" else Loan(id=1, amount=amount, text=None if hidden else "t")
        gone = frozenset({"text"}) if hidden else frozenset()
        event = f"e{event_id}" if event_id else ""
        change = Change(cast("Any", op), {"id": 1}, after, event_id=event, unavailable=gone)
        out.append((offset, subject, clock, change, evaluable))
    return out


@given(
    STEPS,
    st.integers(0, 200),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from([(), ("amount",), WATCH]),
    st.lists(
        st.tuples(st.sampled_from(["10ms", "90ms"]), st.sampled_from([None, "20ms"]), st.integers(0, 8), URGENT), max_size=2
    ),
)
def test_after_a_crash_anywhere_every_later_record_has_the_same_fate_and_the_same_windows(
    steps: list[Step],
    crash: int,
    dedupe: int,
    watch_lookback: int,
    watch: tuple[str, ...],
    windows: list[tuple[str, str | None, int, Callable[[Any], str | None] | None]],
) -> None:
    """A state rebuilt from the horizon before the crash goes on as the one that never crashed, record by record."""
    made = {str(n): Window(*fields) for n, fields in enumerate(windows)}
    spec = agent(watch=watch, watch_lookback=watch_lookback, windows=made)
    whole = PartitionState(spec, loans(dedupe=dedupe))
    rebuilt = PartitionState(spec, loans(dedupe=dedupe))
    for offset, subject, event_ms, change, evaluable in change_log(steps):
        call: dict[str, Any] = {"subject": subject, "offset": offset, "event_ms": event_ms, "evaluable": evaluable}
        expected = whole.feed(change, **call)
        if offset < crash - whole.horizon:
            continue
        got = rebuilt.feed(change, **call)
        if offset >= crash:
            assert got == expected


@given(STEPS, st.integers(0, 6), st.integers(0, 6), st.integers(0, 8))
def test_memory_is_bounded_by_the_lookbacks(steps: list[Step], dedupe: int, watch_lookback: int, lookback: int) -> None:
    """What is held is at most the records of the lookbacks, whatever the stream."""
    spec = agent(watch=WATCH, watch_lookback=watch_lookback, windows={"w": Window("1m", "20ms", lookback)})
    state = PartitionState(spec, loans(dedupe=dedupe))
    log = change_log(steps)
    most = [0, 0, 0]
    for at, (offset, subject, event_ms, change, _) in enumerate(log):
        state.feed(change, subject=subject, offset=offset, event_ms=event_ms)
        near = [sum(o >= offset - reach for o, *_ in log[: at + 1]) for reach in (dedupe, watch_lookback, lookback)]
        # a repeat or a delete is not shown to every part, which then trims at the next record that it is shown
        most = [max(pair) for pair in zip(most, near, strict=True)]
        held = [len(state._seen or ()), len(state._watched or ()), len(state._windows)]
        assert all(h <= m for h, m in zip(held, most, strict=True))


def test_a_long_stream_holds_no_more_than_its_lookbacks() -> None:
    """After many times the lookback every part of the state holds its lookback, not the stream."""
    state = PartitionState(
        agent(watch=WATCH, watch_lookback=50, windows={"w": Window("1m", "10ms", 70)}), loans(dedupe=30)
    )
    for offset in range(5000):
        change = Change("u", {"id": offset}, Loan(id=offset, amount=offset), event_id=str(offset))
        state.feed(change, subject=str(offset % 400), offset=offset, event_ms=offset)
    assert len(state) == 31 + 51 + 71


def test_the_rules_are_named_as_the_receipts_name_them() -> None:
    """Receipts and their readers depend on these names."""
    assert [s.rule for s in (DUPLICATE, UNWATCHED, COOLED_DOWN)] == ["duplicate", "unwatched-change", "window-cool-down"]
