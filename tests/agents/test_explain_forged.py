"""`headrace explain` where somebody has appended to the topics: what the receipt holds is told, and the rest is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from agents.cli.main import group, run
from agents.engine.discover import find, select
from agents.engine.process import Worker
from agents.engine.topology import registry_for
from agents.settings import Settings
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.identity import decision_id, input_hash
from tests.agents.test_explain import CUSTOMER, LOAN, change
from tests.support.kafka import create_topic, produce, read_all
from topics import names
from topics.dev_broker import EmbeddedBroker

AGENT = "credit-risk"
INPUT = "loan-applications"
DECISIONS = "credit-risk-decisions"
JUDGEMENTS, CALLS, DEAD = names.judgements(AGENT), names.calls(AGENT), names.dead_letters(AGENT)
FAR = 4_102_444_800_000
"""A time of somebody's own: the year 2100."""
PARTITIONS = {51: 0, 52: 0, 53: 2, 54: 2, 55: 1, 56: 0, 57: 2}
"""Loan -> its partition."""


@dataclass
class Forged:
    """A broker on which one agent has worked, asking about each loan alone; some had been there before it."""

    bootstrap: str
    ids: dict[int, str] = field(default_factory=dict)
    decisions: dict[int, ConsumerRecord] = field(default_factory=dict)


async def put(
    site: Forged, topic: str, partition: int, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]] = (),
    at: int | None = None,
) -> None:  # fmt: skip
    """Append a record, at a time of one's own if need be."""
    producer = AIOKafkaProducer(bootstrap_servers=site.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers), timestamp_ms=at)
    finally:
        await producer.stop()


async def work(site: Forged, folder: Path) -> None:
    """Let the real worker decide all loans. Ids can be computed as soon as the input is there, so forgeries may come first."""
    agents = select(find().agents, [AGENT])
    async with Sandbox(SandboxConfig()) as model:
        settings = Settings(
            kafka=site.bootstrap, data_dir=str(folder), session_timeout=6, model_base_url=model.base_url,
            model_name="sandbox/transparent-rules", agents={AGENT: {"batch_size": 1}},
        )  # fmt: skip
        for spec in registry_for(agents, settings):
            await create_topic(site.bootstrap, spec.topic, spec.partitions)
        await produce(site.bootstrap, "customers", [(b'{"id":7}', change(CUSTOMER))])
        for loan, partition in PARTITIONS.items():
            value = change({**LOAN, "id": loan, "amount": 1000 + loan})
            (offset,) = await produce(site.bootstrap, INPUT, [(b'{"id":%d}' % loan, value)], partition=partition)
            site.ids[loan] = decision_id(AGENT, INPUT, partition, offset, input_hash(value), 0, settings.run)
        await produce(site.bootstrap, INPUT, [(b'{"id":9}', b"no json")], partition=1)
        await put(site, JUDGEMENTS, 0, site.ids[51].encode(), orjson.dumps(judgement(site.ids[51])))
        await put(site, JUDGEMENTS, 1, b"k", b"{}", at=FAR)
        for partition in range(3):
            await put(site, CALLS, partition, b"k", b"{}", at=FAR)
        await before(site)
        worker = Worker(agents, settings, say=lambda line: None)
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(90):
                while sum(r.app.runtime.stats.outcomes for r in worker.running) < len(PARTITIONS) + 1:
                    assert not task.done(), task.result()
                    await asyncio.sleep(0.1)
        finally:
            worker.stop()
        assert await asyncio.wait_for(task, 60) == 0
    loans = {id: loan for loan, id in site.ids.items()}
    for record in await read_all(site.bootstrap, DECISIONS):
        site.decisions[loans[orjson.loads(record.value)["id"]]] = record  # of several the last: the worker's


async def before(site: Forged) -> None:
    """A decision of loan 57 that says something else, with the id, the key and the headers that it has to have."""
    (record,) = [r for r in await read_all(site.bootstrap, INPUT) if r.key == b'{"id":57}']
    body = {
        "id": site.ids[57], "agent": AGENT, "version": 1, "manifest": "none", "subject": {"type": "loan", "id": "57"},
        "source": {"topic": INPUT, "partition": 2, "offset": record.offset, "input_hash": input_hash(record.value)},
        "part": 0, "parts": 1, "tier": "rule", "outcome": "approve", "received_at": "", "decided_at": "",
    }  # fmt: skip
    headers = [("ce_id", site.ids[57].encode()), ("ce_subject", b"57")]
    await put(site, DECISIONS, 2, b"57", orjson.dumps(body), headers)


def judgement(id: str) -> dict[str, Any]:
    """What nobody was shown and nobody answered."""
    return {"schema": "x", "decision_id": id, "features": {"forged": "by append"}, "answer": {"risk": 1}, "status": "answered"}


@pytest.fixture(scope="module")
def site(_mark_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forged]:
    """A broker of its own; each test forges at the cost of another loan."""
    with EmbeddedBroker() as broker:
        made = Forged(broker.bootstrap)
        asyncio.run(work(made, tmp_path_factory.mktemp("worker")))
        yield made


def told(site: Forged, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The story as JSON; a person's text of it is written without an error as well."""
    story: dict[str, Any] = {}
    for form in ([], ["--json"]):
        capsys.readouterr()
        assert run(group(), ["explain", *arguments, "--kafka", site.bootstrap, *form]) == 0, capsys.readouterr().err
    story = json.loads(capsys.readouterr().out.splitlines()[-1])
    return story


def untold(site: Forged, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said where there is no story."""
    capsys.readouterr()
    assert run(group(), ["explain", *arguments, "--kafka", site.bootstrap]) == 1
    return capsys.readouterr().err


def verified(site: Forged, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What verification says."""
    capsys.readouterr()
    run(group(), ["verify", AGENT, "--kafka", site.bootstrap, *arguments])
    return capsys.readouterr().out


# ---- judgements ------------------------------------------------------------------------------------------------------------
def test_the_judgement_that_is_told_is_the_one_that_the_receipt_holds(
    site: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that somebody wrote before the worker did is said and not told, and verification names it."""
    story = told(site, capsys, site.ids[51])
    assert "forged" not in story["judgement"]["features"]
    assert story["chain"]["verified"] is True
    other = f"{JUDGEMENTS}/0 offset 0"
    assert any(other in said and "another judgement" in said for said in story["chain"]["said"])
    assert other in verified(site, capsys)
    assert not any("judgement" in said for said in told(site, capsys, site.ids[52])["chain"]["said"])


# ---- copies ----------------------------------------------------------------------------------------------------------------
def test_a_first_copy_that_says_something_else_than_the_anchored_one_does_not_verify(
    site: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readers take the first with an id: that it is not the one the receipt holds has to be seen."""
    story = told(site, capsys, site.ids[57])
    assert (story["copies"], story["outcome"]["outcome"]) == (2, "review"), story["doubts"]
    assert story["at"]["offset"] == site.decisions[57].offset
    assert story["chain"]["verified"] is False
    assert any("the first of its copies" in said and "something else" in said for said in story["chain"]["said"])


# ---- labels ----------------------------------------------------------------------------------------------------------------
def test_a_decision_under_the_id_of_another_is_passed_over(site: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    """Headers are in no digest: the story is of the decision whose body has the id, and says what was passed over."""
    other = site.decisions[52]
    for id in (site.ids[53], "f" * 32):
        headers = [(name, id.encode() if name == "ce_id" else value) for name, value in other.headers]
        asyncio.run(put(site, other.topic, other.partition, other.key, other.value, headers))
    story = told(site, capsys, site.ids[53])
    assert story["outcome"]["subject"]["id"] == "53"
    assert story["at"] == {"topic": DECISIONS, "partition": 2, "offset": site.decisions[53].offset}
    assert story["chain"]["verified"] is True
    passed = untold(site, capsys, "f" * 32)
    assert "no decision and no dead letter has the id" in passed
    assert "its header ce_id is not what its body says" in passed
    place = ["--topic", DECISIONS, "--partition", "0"]
    records = [r for r in asyncio.run(read_all(site.bootstrap, DECISIONS)) if r.partition == 0]
    assert "its header ce_id is not what its body says" in untold(site, capsys, *place, "--offset", str(records[-1].offset))


def test_a_copy_under_another_key_or_in_another_partition_is_passed_over(
    site: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rules are those of verification."""
    record = site.decisions[53]
    asyncio.run(put(site, record.topic, 2, b"nobody", record.value, record.headers))
    asyncio.run(put(site, record.topic, 1, record.key, record.value, record.headers))
    story = told(site, capsys, site.ids[53])
    assert (story["copies"], story["at"]["offset"]) == (1, record.offset)
    doubts = "\n".join(story["doubts"])
    assert "its key is not its subject's id" in doubts
    assert "its source is in partition 2" in doubts


def test_a_dead_letter_under_an_id_that_its_coordinates_do_not_give_is_passed_over(
    site: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its digest covers its headers, and yet it would have been told under any id."""
    (letter,) = asyncio.run(read_all(site.bootstrap, DEAD))
    headers = [(name, b"e" * 32 if name == "headrace_id" else value) for name, value in letter.headers]
    asyncio.run(put(site, letter.topic, letter.partition, letter.key, letter.value, headers))
    assert "its id is not the one that its coordinates give" in untold(site, capsys, "e" * 32)
    assert told(site, capsys, dict(letter.headers)["headrace_id"].decode())["chain"]["verified"] is True


# ---- calls -----------------------------------------------------------------------------------------------------------------
def test_a_call_id_that_two_calls_have_is_said_and_does_not_verify(
    site: Forged, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another worker's call under the id of the decisive one: both are told, and verification offends."""
    call_id = orjson.loads(site.decisions[54].value)["call_id"]
    (call,) = [
        r for r in asyncio.run(read_all(site.bootstrap, CALLS)) if orjson.loads(r.value).get("call_id") == call_id
    ]
    asyncio.run(put(site, CALLS, call.partition, call.key, call.value))  # a producer's repeat
    assert told(site, capsys, site.ids[54])["chain"]["verified"] is True
    forged = {**orjson.loads(call.value), "model_requested": "forged", "worker": "w-forged", "seq": 1, "prev": None}
    asyncio.run(put(site, CALLS, 0, b"w-forged", orjson.dumps(forged)))
    story = told(site, capsys, site.ids[54])
    assert sorted(one["model_requested"] == "forged" for one in story["calls"]) == [False, True]
    assert story["chain"]["verified"] is False
    assert any(call_id in said and f"{CALLS}/0 offset 1" in said for said in story["chain"]["said"])
    assert "call_twice" in verified(site, capsys)
    assert told(site, capsys, site.ids[52])["chain"]["verified"] is True


# ---- times -----------------------------------------------------------------------------------------------------------------
def test_a_record_with_a_time_of_its_own_hides_nothing(site: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies behind one of the year 2100 is found, and it is said that one was passed."""
    story = told(site, capsys, site.ids[55])
    assert story["judgement"]["decision_id"] == site.ids[55]
    assert not any("gone" in what for what in story["missing"])
    assert any(f"1 records of {JUDGEMENTS}/1" in said and "times of their own" in said for said in story["doubts"])


# ---- what does not fit -----------------------------------------------------------------------------------------------------
def test_what_does_not_fit_its_topic_is_a_sentence(site: Forged, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls, judgements, manifests and decisions that are none, but name the decision, end no story."""
    id, record = site.ids[56], site.decisions[56]
    body = orjson.loads(record.value)
    odd: list[Any] = [
        {"call_id": "c", "records": [id], "tokens": [1]}, {"call_id": "c", "records": 5, "x": id}, {"call_id": [id]}, [id],
    ]  # fmt: skip
    manifest = body["manifest"]

    async def append() -> None:
        for one in odd:
            await put(site, CALLS, 1, b"k", orjson.dumps(one))
        await put(site, JUDGEMENTS, 0, id.encode(), orjson.dumps({"decision_id": id, "position": "x", "tiers": 5}))
        for value in (b"[]", b'{"agent":5}'):
            await put(site, names.MANIFESTS, 0, manifest.encode(), value)
        for changes in ({"source": {**body["source"], "partition": "x"}}, {"reasons": 5}, {"inputs": [5]}, {"received_at": 5}):
            await put(site, record.topic, 0, record.key, orjson.dumps({**body, **changes}), record.headers)

    asyncio.run(append())
    story = told(site, capsys, id)
    assert (story["copies"], story["chain"]["verified"]) == (1, True)
    assert story["manifest"]["hash_matches"] is True
    missing = "\n".join(story["missing"])
    assert missing.count("not a call") == len(odd)
    assert missing.count("not a judgement") == 1
    assert "\n".join(story["doubts"]).count("not a decision") >= 1
