"""Calls added up from a real broker: since which time, which partitions, what is left out."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audit import Call, Tokens
from tests.support.kafka import create_topic, produce
from topics.dev_broker import LocalBroker
from topics.publish.call_chain import CallChain
from topics.tail import records_since
from topics.usage import Key, Usage, read_usage

TODAY = datetime.now(UTC)


def call(agent: str, *, days_ago: int = 0, cost: int | None = 5, model: str = "m") -> bytes:
    """One call of 10 tokens and 2 records."""
    made = Call(
        call_id=uuid.uuid4().hex, agent=agent, endpoint="e", model_requested=model, request_hash="h", status="ok",
        records=["a", "b"], tokens=Tokens(input=10, cached_input=4, output=3, reasoning=1), cost_micro=cost,
        tenant="t", currency="USD" if cost is not None else None, done_at=(TODAY - timedelta(days=days_ago)).isoformat(),
    )  # fmt: skip
    return made.model_dump_json(by_alias=True).encode()


@pytest.fixture
def topic() -> str:
    """A name of its own."""
    return f"calls-{uuid.uuid4().hex[:8]}"


async def test_rows_are_summed_over_partitions_and_days_kept_apart(kafka: LocalBroker, topic: str) -> None:
    """What is older than asked for is left out by its own time; what is no call is counted."""
    client = {"bootstrap_servers": kafka.bootstrap}
    await create_topic(kafka.bootstrap, topic, 2)
    await produce(kafka.bootstrap, topic, [(b"w", call("a")), (b"w", call("a", cost=None)), (b"w", b"no call")], partition=0)
    await produce(kafka.bootstrap, topic, [(b"v", call("a", cost=7)), (b"v", call("a", days_ago=3))], partition=1)
    found, told = Usage(), list[int]()
    await read_usage(client, topic, TODAY.date() - timedelta(days=1), found, told.append)
    assert found.damaged == 1
    assert {key: (spent.calls, spent.cost_micro, spent.unpriced) for key, spent in found.rows.items()} == {
        Key(TODAY.date().isoformat(), "a", "t", "m", "USD"): (2, 12, 0),
        Key(TODAY.date().isoformat(), "a", "t", "m", None): (1, 0, 1),
    }
    (priced,) = (spent for key, spent in found.rows.items() if key.currency)
    assert (priced.records, priced.tokens_input, priced.tokens_cached_input, priced.tokens_output) == (4, 20, 8, 6)
    assert found.costs() == {"USD": 12}


async def test_a_topic_that_is_not_there_or_ended_before_has_nothing(kafka: LocalBroker, topic: str) -> None:
    """No error for an agent that never asked, and nothing is created by looking."""
    client = {"bootstrap_servers": kafka.bootstrap}
    assert [record async for record in records_since(client, topic, 0)] == []
    await create_topic(kafka.bootstrap, topic, 1)
    await produce(kafka.bootstrap, topic, [(b"w", call("a"))])
    assert len([record async for record in records_since(client, topic, 0)]) == 1
    later = int((TODAY + timedelta(days=1)).timestamp() * 1000)
    assert [record async for record in records_since(client, topic, later)] == []


async def test_a_call_that_was_published_twice_is_counted_once(kafka: LocalBroker, topic: str) -> None:
    """A producer that was not answered sends its batch again, after which the run goes on; other runs are not concerned."""
    client = {"bootstrap_servers": kafka.bootstrap}
    await create_topic(kafka.bootstrap, topic, 2)
    one, two = CallChain("one", "t"), CallChain("two", "t")
    first = [(b"one", one.seal(Call.model_validate_json(call("a")))) for _ in range(5)]
    after = (b"one", one.seal(Call.model_validate_json(call("a"))))
    others = [(b"two", two.seal(Call.model_validate_json(call("a")))) for _ in range(3)]
    await produce(kafka.bootstrap, topic, [*first, *first[2:], others[0], after, *others[1:]], partition=0)
    lone = (b"x", call("a"))
    await produce(kafka.bootstrap, topic, [lone, (b"x", call("a")), lone], partition=1)
    found = Usage()
    await read_usage(client, topic, TODAY.date(), found)
    (spent,) = found.rows.values()
    assert (spent.calls, spent.records, spent.cost_micro, found.repeats, found.damaged) == (11, 22, 55, 4, 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3))))
def test_what_is_sent_again_is_never_counted_twice_and_nothing_else_is_left_out(steps: list[tuple[int, int]]) -> None:
    """Each run sends its next call, or the last few once more, in order."""
    usage, chains = Usage(), [CallChain(f"run {number}") for number in range(3)]
    sent: list[list[Call]] = [[], [], []]
    for run, back in steps:
        if back > 1:
            for repeat in sent[run][-back:]:
                usage.add(repeat)
        sent[run].append(Call.model_validate_json(chains[run].seal(Call.model_validate_json(call("a")))))
        usage.add(sent[run][-1])
    assert sum(spent.calls for spent in usage.rows.values()) == len(steps)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs and calls of none there were."""
    monkeypatch.setattr("topics.usage._RUNS", 3)
    monkeypatch.setattr("topics.usage._UNCHAINED", 4)
    usage = Usage()
    for number in range(50):
        one = Call.model_validate_json(call("a"))
        usage.add(one)
        usage.add(Call.model_validate_json(CallChain(f"run {number}").seal(one)))
    assert (len(usage._runs), len(usage._ids), usage.repeats) == (3, 4, 0)


def test_records_are_counted_once_however_often_they_were_asked_about_beside() -> None:
    """Comparisons and hedges are calls, cost and tokens; their records were counted with the call that they stand beside."""
    usage = Usage()
    for beside in ({}, {"purpose": "canary"}, {"hedge_of": "c"}):
        usage.add(Call.model_validate_json(call("a")).model_copy(update=beside))
    (spent,) = usage.rows.values()
    assert (spent.calls, spent.records, spent.canaries, spent.hedges, spent.cost_micro) == (3, 2, 1, 1, 15)
