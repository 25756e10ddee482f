"""Telling a story from records at hand: what is read near a decision, and what of everything there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from aiokafka import TopicPartition

from agents.cli.search import MOST_SAID, Copies, Sentences, outcome_in
from agents.cli.story import Story, Teller
from schemas.audit import Call, Judgement
from schemas.identity import decision_id, input_hash
from schemas.manifest import Manifest
from tests.support.simple_agent import Scripted, simple_agent
from topics import names
from topics.record import Raw, RawRecord
from topics.verify import parse
from topics.verify.find import MOST_LATE, Finder

NOW = 1_800_000_000_000
DAY = 86_400_000
AGENT = simple_agent(Scripted())
CALLS, JUDGEMENTS = names.calls(AGENT.name), names.judgements(AGENT.name)
MANIFEST = Manifest(agent=AGENT.name, version=1, code_hash="genuine")
ID = decision_id(AGENT.name, "in", 0, 0, input_hash(b""), 0, "live")


class AtHand(Finder):
    """A Finder over records at hand, one partition a topic; times are looked up as a broker does that keeps no index."""

    def __init__(self, records: Sequence[Raw]) -> None:
        super().__init__({}, None)
        self._records = records

    async def partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, 0)] if any(r.topic == topic for r in self._records) else []

    async def bounds(self, tp: TopicPartition) -> tuple[int, int]:
        return 0, 1 + max(r.offset for r in self._records if r.topic == tp.topic)

    async def since(self, tp: TopicPartition, ms: int) -> int:
        return min((r.offset for r in self._records if r.topic == tp.topic and r.timestamp >= ms), default=0)

    async def between(self, tp: TopicPartition, first: int, end: int) -> AsyncIterator[Sequence[RawRecord]]:
        yield [r for r in self._records if r.topic == tp.topic and first <= r.offset < end]


def call(at: int, **changes: Any) -> Raw:
    """A call about the decision's record, at this offset, made now unless it is changed."""
    timestamp = changes.pop("timestamp", NOW)
    base: dict[str, Any] = {
        "call_id": "c1", "agent": AGENT.name, "endpoint": "http://m", "model_requested": "m", "request_hash": "", "status": "ok",
        "records": [ID],
    }  # fmt: skip
    return Raw(CALLS, Call(**(base | changes)).model_dump_json(by_alias=True).encode(), offset=at, timestamp=timestamp)


def judgement(at: int = 0, **fields: Any) -> Raw:
    """A judgement of the decision."""
    value = Judgement(decision_id=ID, **fields).model_dump_json(by_alias=True).encode()
    return Raw(JUDGEMENTS, value, key=ID.encode(), offset=at, timestamp=NOW)


def decided(*headers: tuple[str, bytes]) -> Raw:
    """The decision's record, with these headers; it names the call c1 and the manifest below."""
    body = {
        "id": ID, "agent": AGENT.name, "version": 1, "run": "live", "part": 0, "parts": 1, "call_id": "c1",
        "manifest": MANIFEST.hash(), "subject": {"type": "t", "id": "s"}, "tier": "model", "received_at": "", "decided_at": "",
        "source": {"topic": "in", "partition": 0, "offset": 0, "input_hash": input_hash(b"")},
    }  # fmt: skip
    return Raw(AGENT.writes.topic, orjson.dumps(body), key=b"s", headers=headers, timestamp=NOW)


async def told(*records: Raw) -> Story:
    """The story of the decision among these records."""
    record = decided(("ce_id", ID.encode()))
    outcome = parse.decision(record)
    assert not isinstance(outcome, str)
    return await Teller(AtHand(records), "live").tell(Copies(AGENT, ID, [record], [outcome], dead=False))


async def test_of_a_cached_answer_the_calls_of_long_ago_are_read_as_well() -> None:
    """A call near the decision that has the id of the one which the cache names must not be taken for it."""
    calls = [call(0, timestamp=NOW - 30 * DAY, records=["another"]), call(1, model_requested="forged")]
    fresh, cached = await told(*calls, judgement()), await told(*calls, judgement(cache="hit"))
    assert [one["model_requested"] for one in fresh.calls] == ["forged"]
    assert sorted(one["model_requested"] for one in cached.calls) == ["forged", "m"]
    assert cached.place.verified is False


async def test_a_call_of_long_ago_is_found_where_none_is_near() -> None:
    """Retention keeps calls as long as it keeps them; it is said where it has not."""
    assert [one["call_id"] for one in (await told(call(0, timestamp=NOW - 30 * DAY))).calls] == ["c1"]
    assert any("call c1 is not in" in what for what in (await told(call(0, call_id="other", records=[]))).missing)


async def test_the_manifest_that_is_told_is_the_one_that_has_the_hash() -> None:
    """Whoever came first under its key; where none has it, that is said of the first."""
    forged = MANIFEST.model_copy(update={"code_hash": "forged"})
    key = MANIFEST.hash().encode()
    values = [manifest.model_dump_json(by_alias=True).encode() for manifest in (forged, MANIFEST)]
    both = [Raw(names.MANIFESTS, value, key, offset=at) for at, value in enumerate(values)]
    for records, code, matches in ((both, "genuine", True), (both[:1], "forged", False)):
        found = (await told(*records)).manifest
        assert found is not None
        assert (found["code_hash"], found["hash_matches"]) == (code, matches)


def test_a_decision_has_its_id_in_its_headers() -> None:
    """As verification reads it, a header that is not there says nothing wrong; nobody could be told it by its id."""
    assert not isinstance(outcome_in(decided(("ce_id", ID.encode())), AGENT.name, "live", dead=False), str)
    assert outcome_in(decided(), AGENT.name, "live", dead=False) == "its header ce_id is not what its body says"


async def test_records_that_are_late_in_a_row_end_the_search_and_few_do_not() -> None:
    """Nobody waits for the whole of a long log; and clocks that differ by a little are nothing to speak of."""
    tp = TopicPartition("t", 0)
    for late, expected in ((MOST_LATE - 1, ["first", "last"]), (MOST_LATE, ["first"])):
        log = [Raw("t", b"first", offset=0, timestamp=NOW)]
        log += [Raw("t", b"late", offset=1 + n, timestamp=NOW + DAY) for n in range(late)]
        log += [Raw("t", b"last", offset=1 + late, timestamp=NOW)]
        passed: Counter[TopicPartition] = Counter()
        found = [r.value async for r in AtHand(log).near(tp, NOW - 1, NOW + 1, passed)]
        assert found == [value.encode() for value in expected]
        assert passed[tp] == (late if "last" in expected else 0)
    log = [Raw("t", b"", offset=0, timestamp=NOW + 5_000), Raw("t", b"", offset=1, timestamp=NOW)]
    passed = Counter()
    assert len([r async for r in AtHand(log).near(tp, NOW - 1, NOW + 1, passed)]) == 1
    assert not passed


def test_sentences_are_said_once_and_no_more_than_can_be_read() -> None:
    """Whoever may append could give any number of reasons for one."""
    said = Sentences()
    for number in [*range(MOST_SAID), 0, *range(MOST_SAID, MOST_SAID + 3)]:
        said.add(f"s{number}")
    assert said.texts() == [*(f"s{n}" for n in range(MOST_SAID)), "and 3 more such records"]
