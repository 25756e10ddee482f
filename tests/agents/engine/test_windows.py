"""Windows against their definition: a slow model that looks at the whole log, and rebuilds at every point of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.engine.spec import Sample, Window
from agents.engine.windows import Observed, WindowSet
from schemas.errors import ConfigError


class Row(BaseModel):
    """A measurement; `n` tells the records of a test apart."""

    n: int


URGENT = (None, None, "hot", "hot", "cold")


def why(window: Window, rec: Rec) -> str | None:
    """What of this record is urgent for this window."""
    return window.urgent(rec.row) if window.urgent is not None else None


@dataclass(frozen=True)
class Rec:
    """One record of a generated log."""

    offset: int
    subject: str
    event_ms: int
    evaluable: bool
    row: Row


@st.composite
def logs(draw: st.DrawFn) -> list[Rec]:
    """Logs with gaps, several subjects, several parts an offset, late records, equal times."""
    steps = draw(
        st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from("ab"), st.integers(-40, 40), st.booleans() | st.just(True)),
            max_size=40,
        )
    )
    out: list[Rec] = []
    offset, clock = 0, 1000
    for n, (gap, subject, drift, evaluable) in enumerate(steps):
        offset += gap
        clock += drift
        out.append(Rec(offset, subject, clock, evaluable, Row(n=n)))
    return out


windows_st = st.dictionaries(
    st.sampled_from(["short", "long", "third"]),
    st.builds(
        Window,
        span=st.sampled_from(["1ms", "20ms", "100ms"]),
        every=st.sampled_from([None, "15ms", "60ms"]),
        lookback=st.integers(0, 12),
        urgent=st.sampled_from([None, lambda row: URGENT[row.n % 5]]),
    ),
    min_size=1,
)


def observe(state: WindowSet, rec: Rec, log_start: int = 0) -> Observed:
    """Feed one record."""
    return state.observe(rec.subject, rec.offset, rec.event_ms, rec.row, log_start=log_start, evaluable=rec.evaluable)


def by_definition(windows: dict[str, Window], log: list[Rec], at: int) -> dict[str, list[Sample]] | None:
    """The samples of each window at record `at`, from its whole past; None for a cool-down."""
    me = log[at]
    past = [r for r in log[: at + 1] if r.subject == me.subject]
    out: dict[str, list[Sample]] = {}
    for name, window in windows.items():
        cut = [r for r in past if r.offset >= me.offset - window.lookback]
        if window.every is not None and me.evaluable:
            every = int(window.every[:-2])
            mine = (me.event_ms // every, why(window, me))
            if any(r.evaluable and (r.event_ms // every, why(window, r)) == mine for r in cut if r is not me):
                return None
        span = int(window.span[:-2])
        inside = sorted((r for r in cut if me.event_ms - span < r.event_ms <= me.event_ms), key=lambda r: r.event_ms)
        out[name] = [Sample(r.event_ms, r.offset, r.row) for r in inside]
    return out


@given(windows_st, logs())
def test_views_and_cool_down_are_what_the_definition_says(windows: dict[str, Window], log: list[Rec]) -> None:
    """At every record of any log the windows hold exactly the records that their definition names, oldest first."""
    state = WindowSet(windows)
    for at, rec in enumerate(log):
        expected = by_definition(windows, log, at)
        got = observe(state, rec)
        assert got.cool_down == (expected is None)
        if expected is not None:
            assert {name: list(view.samples) for name, view in got.views.items()} == expected
            assert all(v.to_ms == rec.event_ms and v.samples[-1].offset == rec.offset for v in got.views.values())


@given(windows_st, logs())
def test_a_view_is_the_same_whenever_it_is_looked_at(windows: dict[str, Window], log: list[Rec]) -> None:
    """A view that is first looked at after the whole log went by shows what it held at its record."""
    state = WindowSet(windows)
    kept = [observe(state, rec) for rec in log]
    for at, got in enumerate(kept):
        expected = by_definition(windows, log, at)
        assert {n: list(v.samples) for n, v in got.views.items()} == (expected or {})


@given(windows_st, logs())
def test_memory_is_bounded_by_the_lookback(windows: dict[str, Window], log: list[Rec]) -> None:
    """Nothing is held that lies further back, in offsets, than the longest lookback."""
    state = WindowSet(windows)
    for at, rec in enumerate(log):
        observe(state, rec)
        assert len(state) == sum(r.offset >= rec.offset - state.lookback for r in log[: at + 1])


def test_a_million_offsets_of_one_subject_hold_one_lookback() -> None:
    """The lists behind the samples shrink as well, not only their count."""
    state = WindowSet({"w": Window("1m", lookback=100)})
    row = Row(n=0)
    for offset in range(20_000):
        state.observe("a", offset, offset, row, log_start=0)
    log = state._logs["a"]
    assert len(state) == 101
    assert len(log.entries) <= 2 * 101 + 1


@pytest.mark.parametrize(
    ("offset", "log_start", "truncated"),
    [(5, 0, False), (5, 1, True), (15, 5, False), (15, 6, True), (10, 0, False), (10, 1, True), (99, 89, False), (99, 90, True)],
)
def test_a_window_says_when_the_log_began_after_its_slice(offset: int, log_start: int, truncated: bool) -> None:
    """Truncated means that offsets which the slice names were gone before the partition was read."""
    state = WindowSet({"w": Window("1m", lookback=10)})
    view = state.observe("a", offset, 0, Row(n=0), log_start=log_start).views["w"]
    assert view.truncated is truncated


def test_a_late_record_sees_its_own_past_and_later_ones_see_it_in_its_place() -> None:
    """Event time orders the samples; a late record does not see what happened after it."""
    state = WindowSet({"w": Window("100ms")})
    seen = [
        [s.event_ms for s in state.observe("a", offset, event_ms, Row(n=offset), log_start=0).views["w"].samples]
        for offset, event_ms in enumerate([1000, 1050, 1020, 1060])
    ]
    assert seen == [[1000], [1000, 1050], [1000, 1020], [1000, 1020, 1050, 1060]]


def test_a_record_that_can_not_be_evaluated_leaves_its_bucket_to_the_next() -> None:
    """A reading that `when` refuses must not cool down the one that it would let pass."""
    state = WindowSet({"w": Window("10m", every="1m")})
    assert not state.observe("a", 0, 60_000, Row(n=0), log_start=0, evaluable=False).cool_down
    assert not state.observe("a", 1, 60_001, Row(n=1), log_start=0).cool_down
    assert state.observe("a", 2, 60_002, Row(n=2), log_start=0).cool_down
    assert not state.observe("b", 3, 60_002, Row(n=3), log_start=0).cool_down


def test_what_is_urgent_does_not_wait_and_takes_no_turn_from_the_rest() -> None:
    """Each urgent text has a bucket of its own: its first record is evaluated at once, its repeats are not."""
    state = WindowSet({"w": Window("10m", every="1m", urgent=lambda row: URGENT[row.n])})
    cooled = [state.observe("a", offset, 60_000 + offset, Row(n=n), log_start=0).cool_down
              for offset, n in enumerate([2, 0, 1, 3, 4, 0])]  # fmt: skip
    assert cooled == [False, False, True, True, False, True]
    assert not state.observe("a", 9, 120_000, Row(n=2), log_start=0).cool_down, "the next minute has buckets of its own"


def test_an_urgent_function_that_raises_leaves_the_windows_as_they_were() -> None:
    """The record becomes a dead letter; the next one sees windows and buckets without it."""

    def urgent(row: Row) -> str | None:
        if row.n == 0:
            raise ValueError("no")
        return None

    state = WindowSet({"w": Window("10m", every="1m", urgent=urgent)})
    with pytest.raises(ValueError, match="no"):
        state.observe("a", 0, 60_000, Row(n=0), log_start=0)
    seen = state.observe("a", 1, 60_001, Row(n=1), log_start=0)
    assert not seen.cool_down
    assert [s.offset for s in seen.views["w"].samples] == [1]


@pytest.mark.parametrize("window", [Window("0s"), Window("1m", every="0ms"), Window("1m", lookback=-1), Window("soon")])
def test_a_window_that_can_not_be_is_refused_when_it_is_made(window: Window) -> None:
    """A configuration that could never hold anything fails at start, not at the first record."""
    with pytest.raises(ConfigError):
        WindowSet({"w": window})
