"""`headrace explain` after a worker has worked: the story of a decision of each agent, from the topics of a real broker."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.cli.main import group, run
from agents.engine.discover import find, select
from agents.engine.process import Worker
from agents.engine.topology import registry_for
from agents.settings import ModelPrice, Settings
from models.quality.canary import Canary
from models.quality.flips import FlipMeter
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.kafka import create_topic, produce, read_all
from topics import names
from topics.dev_broker import EmbeddedBroker, LocalBroker

SECRET = "sk-never-to-be-seen-1234"
PROTECTED = ("divorced-and-fifty", "gender-unheard-of")
LOAN = {
    "id": 41, "customer_id": 7, "amount": 1169, "duration_months": 12, "purpose": "radio/television", "installment_rate": 4,
    "other_debtors": "none", "other_installment_plans": "none", "property": "real estate", "status": "submitted",
}  # fmt: skip
CUSTOMER = {
    "id": 7, "checking_account": "... < 0 DM", "savings": "... < 100 DM", "employment_since": "... >= 7 years",
    "credit_history": "existing credits paid back duly till now", "existing_credits": 1, "housing": "own", "income": 2500,
    "sanctioned": False, "personal_status_and_sex": PROTECTED[1], "age": 67, "foreign_worker": True,
}  # fmt: skip


def now() -> int:
    """Epoch milliseconds: a device whose clock is months away is not believed."""
    return time.time_ns() // 1_000_000


def change(row: dict[str, Any]) -> bytes:
    """A created row, as Debezium writes it without a schema."""
    source = {"connector": "postgresql", "name": "bank", "db": "bank", "schema": "public", "table": "t", "ts_ms": now(), "lsn": 1}
    return orjson.dumps({"op": "c", "before": None, "after": row, "source": source, "ts_ms": now()})


def reading() -> bytes:
    """A reading near its limits, so that the model is asked."""
    return orjson.dumps({
        "device": "mill-1", "ts": now(), "product": "p1", "variant": "L", "air_temperature": 300.0, "process_temperature": 308.7,
        "rotational_speed": 1300, "torque": 62.0, "tool_wear": 230,
    })  # fmt: skip


@dataclass
class Site:
    """A broker on which the two agents have worked. `ids`: agent -> ids of its decisions."""

    bootstrap: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    dead: str = ""


async def work(site: Site, folder: Path) -> None:
    """Run the real worker of both agents against the sandbox until all input has its outcome.

    The first answer that the sandbox gives is out of range, so one of the agents has to ask again.
    """
    agents = select(find().agents, ["credit-risk", "product-quality"])
    async with Sandbox(SandboxConfig(api_key=SECRET, schedule=("range",))) as model:
        settings = Settings(
            kafka=site.bootstrap, data_dir=str(folder), session_timeout=6, model_base_url=model.base_url,
            model_api_key=SECRET, model_name="sandbox/transparent-rules",
            model_price=ModelPrice(input=Decimal("0.25"), output=Decimal(2)),
        )  # fmt: skip
        for spec in registry_for(agents, settings):
            await create_topic(site.bootstrap, spec.topic, spec.partitions)
        await produce(site.bootstrap, "customers", [(b'{"id":7}', change(CUSTOMER))])
        await produce(site.bootstrap, "loan-applications", [(b'{"id":41}', change(LOAN))], partition=1)
        await produce(site.bootstrap, "loan-applications", [(b'{"id":42}', PROTECTED[0].encode())], partition=1)
        await produce(site.bootstrap, "machine-readings", [(b"mill-1", reading())], partition=2)
        worker = Worker(agents, settings, say=lambda line: None)
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(90):
                while sum(r.app.runtime.stats.outcomes for r in worker.running) < 3:
                    assert not task.done(), task.result()
                    await asyncio.sleep(0.1)
        finally:
            worker.stop()
        assert await asyncio.wait_for(task, 60) == 0
    for agent in agents:
        found = await read_all(site.bootstrap, agent.writes.topic)
        site.ids[agent.name] = [orjson.loads(r.value)["id"] for r in found]
    (letter,) = await read_all(site.bootstrap, names.dead_letters("credit-risk"))
    site.dead = dict(letter.headers)["headrace_id"].decode()


@pytest.fixture(scope="module")
def site(_mark_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker of its own, since the agents' topics have the names that they have."""
    with EmbeddedBroker() as broker:
        made = Site(broker.bootstrap)
        asyncio.run(work(made, tmp_path_factory.mktemp("worker")))
        yield made


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is known to the environment, as it is to a person's."""
    monkeypatch.setenv("HEADRACE_MODEL_API_KEY", SECRET)


def explained(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The story as JSON; neither the key nor a protected value is in it."""
    assert run(group(), ["explain", *arguments, "--kafka", site.bootstrap, "--json"]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    for never in (SECRET, *PROTECTED):
        assert never not in said.out + said.err
    told: dict[str, Any] = json.loads(said.out.splitlines()[-1])
    return told


@pytest.mark.parametrize("agent", ["credit-risk", "product-quality"])
def test_the_whole_story_of_a_decision_is_told(site: Site, agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Record, features, manifest, call, answers, outcome, receipt and the place in a chain that verifies."""
    (id,) = site.ids[agent]
    told = explained(site, capsys, id)
    assert (told["agent"], told["decision_id"], told["kind"], told["copies"]) == (agent, id, "decision", 1)
    assert told["missing"] == []
    assert told["source"]["there"]
    assert told["source"]["input_hash_matches"]
    assert told["manifest"]["hash_matches"]
    assert told["manifest"]["prompt"].startswith("You ")
    *lost, call = told["calls"]
    assert (call["call_id"], call["status"], call["seq"]) == (told["outcome"]["call_id"], "ok", 1 + len(lost))
    assert call["tokens"]["input"] > 0
    judgement = told["judgement"]
    assert judgement["features"]
    assert (judgement["status"], judgement["tiers"], judgement["position"]) == ("answered", ["model"], 0)
    assert set(judgement["answer"]) <= set(judgement["raw_answer"])
    assert judgement["outcome"] == told["outcome"]["outcome"]
    assert told["receipt"]["decisions"] == 1
    assert told["chain"]["number"] in (1, 2)  # the dead letter of its partition may have come first
    assert told["chain"]["verified"] is True


def test_calls_that_brought_nothing_are_told_too(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The call whose answer was out of range names the record as the second one does, and comes before it."""
    stories = [explained(site, capsys, id) for ids in site.ids.values() for id in ids]
    asked = sorted((story["calls"] for story in stories), key=len)
    assert [len(calls) for calls in asked] == [1, 2]
    first, second = asked[1]
    assert (first["status"], first["error"], second["prev"]) == ("partial", "1 invalid", link(first))
    assert first["records"] == second["records"]


def link(call: dict[str, Any]) -> str:
    """The hash that the next call of the same worker names: fields keep their order from the topic to the story."""
    return sha256(orjson.dumps(call)).hexdigest()


def test_rows_are_shown_and_protected_columns_are_not(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The application as it came, the customer that was joined, and no protected column of it."""
    told = explained(site, capsys, *site.ids["credit-risk"])
    assert told["source"]["record"]["after"]["amount"] == "1169"
    (joined,) = told["inputs"]
    assert (joined["status"], joined["there"], joined["record"]["after"]["income"]) == ("found", True, "2500")
    hidden = {name for name, value in joined["record"]["after"].items() if value == "(protected)"}
    assert hidden == {"personal_status_and_sex", "age", "foreign_worker"}


def test_the_story_is_readable(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads the same from top to bottom."""
    (id,) = site.ids["product-quality"]
    assert run(group(), ["explain", id, "--kafka", site.bootstrap]) == 0
    said = capsys.readouterr().out
    order = [f"decision {id} of product-quality", "record: machine-readings/2 offset 0", "window:", "features as shown:",
             "manifest ", "call ", "  request sha256 ", "record 1 of its call, answered by http://127.0.0.1:", "raw answer: ",
             "answer: ", "tiers: model", "rules: ", "outcome: ", "receipt 1 at offset 0",
             "audit chain: record 1 of the chain, verified"]  # fmt: skip
    starts = said.splitlines()
    places = [next(n for n, line in enumerate(starts) if line.startswith(text)) for text in order]
    assert places == sorted(places)
    assert SECRET not in said


def test_coordinates_are_a_shortcut(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """The decision's own coordinates, or those of its source record, lead to the same story without an id."""
    (id,) = site.ids["credit-risk"]
    whole = explained(site, capsys, id)
    for topic in ("loan-applications", "credit-risk-decisions"):
        assert explained(site, capsys, "--topic", topic, "--partition", "1", "--offset", "0") == whole
    assert run(group(), ["explain", "other", "--kafka", site.bootstrap, "--topic", "credit-risk-decisions", "--partition", "1",
                         "--offset", "0"]) == 1  # fmt: skip
    assert f"has the id {id}, not other" in capsys.readouterr().err


def test_a_dead_letter_has_a_story_too(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Why it was buried and where it is in the chain; not what it holds, for nobody could tell what that is."""
    told = explained(site, capsys, site.dead)
    assert (told["kind"], told["outcome"]["reason"], told["chain"]["verified"]) == ("dead letter", "invalid-json", True)
    assert told["source"]["record"].keys() == {"fault"}


@pytest.mark.parametrize("id", ["0" * 32, "no\x1b[2Jsuch"])
def test_an_unknown_id_is_said_with_what_to_do(site: Site, id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1, and no control character of the id reaches the terminal."""
    assert run(group(), ["explain", id, "--kafka", site.bootstrap]) == 1
    said = capsys.readouterr().err
    assert "no decision and no dead letter has the id" in said
    assert "--most" in said
    assert "\x1b[2J" not in said


@pytest.mark.parametrize("arguments", [[], ["x", "--topic", "t"], ["--partition", "1", "--offset", "2"]])
def test_what_is_left_out_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an id nor whole coordinates: status 2 before anything is asked of a broker."""
    assert run(group(), ["explain", *arguments]) == 2
    assert "--offset" in capsys.readouterr().err


def test_usage_adds_up_what_every_call_took(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """By agent, tenant, model and day, the call that was answered in vain among them; the cost is that of the tokens."""
    assert run(group(), ["usage", "--kafka", site.bootstrap, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {row["agent"]: row for row in told["rows"]}
    assert set(rows) == {"credit-risk", "product-quality"}
    calls = [call for ids in site.ids.values() for id in ids for call in explained(site, capsys, id)["calls"]]
    assert sum(row["calls"] for row in rows.values()) == len(calls) == 3
    assert sum(row["tokens_input"] for row in rows.values()) == sum(call["tokens"]["input"] for call in calls)
    assert told["cost_micro"] == {"USD": sum(call["cost_micro"] for call in calls)}
    for row in rows.values():
        assert (row["tenant"], row["model"], row["unpriced"]) == ("default", "sandbox/transparent-rules", 0)
        assert row["cost_micro"] >= (row["tokens_input"] * 250_000 + row["tokens_output"] * 2_000_000) // 1_000_000 > 0
    assert run(group(), ["usage", "--kafka", site.bootstrap, "credit-risk"]) == 0
    said = capsys.readouterr().out
    assert "credit-risk" in said
    assert "product-quality" not in said


def test_the_chain_verifies_and_names_what_was_put_in(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a real worker wrote verifies, also against heads kept earlier; a changed judgement is named, and a head that is lost.

    At least once a record behind the last receipt may be that of a commit which was left half done: it is only said.
    """
    verify = ["verify", "--kafka", site.bootstrap]
    assert run(group(), [*verify, "--json", "--strict"]) == 0
    told = json.loads((kept := capsys.readouterr().out).splitlines()[-1])
    assert (told["anchored"], told["erased"], told["unanchored"]) == (5, 0, 0)
    assert sum(agent["calls"] for agent in told["agents"]) == 3
    file = tmp_path / "heads.json"
    file.write_text(kept, encoding="utf-8")
    assert run(group(), [*verify, "--since", str(file)]) == 0
    asyncio.run(produce(site.bootstrap, names.judgements("credit-risk"), [(b"41", b'{"decision_id":"forged"}')], partition=1))
    receipts = asyncio.run(read_all(site.bootstrap, names.receipts("product-quality")))
    forged = [(receipts[0].key, receipts[0].value.replace(b'"decisions":1', b'"decisions":2'))]
    asyncio.run(produce(site.bootstrap, names.receipts("product-quality"), forged, partition=2))
    told["agents"][1]["partitions"][2]["head"] = "ab" * 32
    file.write_text(json.dumps(told), encoding="utf-8")
    capsys.readouterr()
    assert run(group(), [*verify, "--since", str(file)]) == 1
    said = capsys.readouterr().out
    assert "1 records at the end of headrace.credit-risk.judgements/1 are anchored by no receipt yet" in said
    assert "headrace.product-quality.receipts/2 offset 1: receipt 1 counts 2 decisions" in said
    assert "no receipt has the hash abababab" in said
    file.write_text("{}", encoding="utf-8")
    assert run(group(), [*verify, "--since", str(file)]) == 2


async def compare(site: Site, folder: Path, ids: Sequence[int]) -> None:
    """A worker whose model is asked about each of these loans in one batch and once more alone."""
    agents = select(find().agents, ["credit-risk"])
    async with Sandbox(SandboxConfig()) as model:
        settings = Settings(
            kafka=site.bootstrap, data_dir=str(folder), session_timeout=6, model_base_url=model.base_url,
            agents={"credit-risk": {"batch_within": "5s", "batch_size": len(ids)}},
        )  # fmt: skip
        for spec in registry_for(agents, settings):
            await create_topic(site.bootstrap, spec.topic, spec.partitions)
        await produce(site.bootstrap, "customers", [(b'{"id":7}', change(CUSTOMER))])
        loans = [(b'{"id":%d}' % id, change({**LOAN, "id": id})) for id in ids]
        await produce(site.bootstrap, "loan-applications", loans, partition=1)
        worker = Worker(agents, settings, say=lambda line: None)
        made = worker._inference.scorer
        canaries: list[Canary] = []

        def around(*given: Any, **named: Any) -> Canary:
            canaries.append(Canary(made(*given, **named), FlipMeter(16), share=1.0))
            return canaries[-1]

        worker._inference.scorer = around  # type: ignore[method-assign]  # as the worker composes it, and a canary around
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(90):
                while not canaries or canaries[0].meter.stats.compared < len(ids):
                    assert not task.done(), task.result()
                    await asyncio.sleep(0.1)
        finally:
            worker.stop()
        assert await asyncio.wait_for(task, 60) == 0
    site.ids["credit-risk"] = [
        orjson.loads(record.value)["id"] for record in await read_all(site.bootstrap, agents[0].writes.topic)
    ]


@pytest.mark.usefixtures("_mark_session")
def test_comparisons_are_told_apart_from_the_calls_that_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each decision names the call of its batch, the comparison is told beside it, and usage and the chain count it as one."""
    with EmbeddedBroker() as broker:
        site = Site(broker.bootstrap)
        asyncio.run(compare(site, tmp_path, [41, 42, 43]))
        assert len(site.ids["credit-risk"]) == 3
        for id in site.ids["credit-risk"]:
            told = explained(site, capsys, id)
            decisive, other = sorted(told["calls"], key=lambda call: -len(call["records"]))
            assert told["outcome"]["call_id"] == told["judgement"]["call_id"] == decisive["call_id"]
            assert (decisive["purpose"], len(decisive["records"])) == ("decision", 3)
            assert (other["purpose"], other["records"]) == ("canary", [id])
            assert run(group(), ["explain", id, "--kafka", site.bootstrap]) == 0
            said = capsys.readouterr().out
            assert said.count("the answer came from it") == said.count("to compare: alone, beside the batch") == 1
        assert run(group(), ["usage", "--kafka", site.bootstrap, "credit-risk", "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
        assert (row["calls"], row["records"], row["canaries"], row["hedges"]) == (4, 3, 3, 0)
        assert run(group(), ["verify", "credit-risk", "--kafka", site.bootstrap, "--json", "--strict"]) == 0
        (agent,) = json.loads(capsys.readouterr().out.splitlines()[-1])["agents"]
        assert agent["calls"] == 4


# ---- Apache Kafka as well ----------------------------------------------------------------------------------------------
FILE = """
from models.scorers.instant import NoModel
from tests.support.simple_agent import Purchase, simple_agent
from topics.spec import event_topic, out_topic

AGENT = simple_agent(NoModel(), name="NAME", reads=event_topic("NAME-in", Purchase), writes=out_topic("NAME-out"))
"""


def test_a_decision_without_a_model_is_explained_on_either_broker(
    broker: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transactions or not: an agent of a user's own file, its decision found by id and by its source record."""
    name = f"told-{uuid.uuid4().hex[:8]}"
    (tmp_path / "told.py").write_text(FILE.replace("NAME", name), encoding="utf-8")
    monkeypatch.setenv("HEADRACE_AGENTS_PATH", str(tmp_path))
    agents = select(find(tmp_path).agents, [name])

    async def go() -> str:
        settings = Settings(kafka=broker.bootstrap, data_dir=str(tmp_path / "data"), session_timeout=6)
        for spec in registry_for(agents, settings):
            await create_topic(broker.bootstrap, spec.topic, spec.partitions)
        records = [(b"a", orjson.dumps({"who": "a", "amount": n})) for n in range(3)]
        await produce(broker.bootstrap, f"{name}-in", records, partition=0)
        worker = Worker(agents, settings, say=lambda line: None)
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(90):
            while not worker.running or worker.running[0].app.runtime.stats.outcomes < 3:
                assert not task.done(), task.result()
                await asyncio.sleep(0.1)
        worker.stop()
        assert await asyncio.wait_for(task, 60) == 0
        found = await read_all(broker.bootstrap, f"{name}-out")
        id: str = orjson.loads(found[1].value)["id"]
        return id

    site = Site(broker.bootstrap)
    id = asyncio.run(go())
    told = explained(site, capsys, id, "--agent", name)
    assert told["source"]["record"] == {"subject": "", "row": {"who": "a", "amount": 1, "wish": ""}}
    assert (told["chain"]["verified"], told["judgement"]["decision_id"], told["calls"]) == (True, id, [])
    by_source = explained(site, capsys, "--agent", name, "--topic", f"{name}-in", "--partition", "0", "--offset", "1")
    assert by_source == told
    assert run(group(), ["verify", name, "--kafka", broker.bootstrap, "--strict"]) == 0
    asyncio.run(produce(broker.bootstrap, names.judgements(name), [(id.encode(), None)], partition=0))
    assert run(group(), ["verify", name, "--kafka", broker.bootstrap, "--strict"]) == 0, "a tombstone erases; it is no offence"
    asyncio.run(produce(broker.bootstrap, names.judgements(name), [(b"forged", b'{"decision_id":"forged"}')], partition=0))
    capsys.readouterr()
    exact = told["receipt"]["promise"] == "exactly-once"
    assert run(group(), ["verify", name, "--kafka", broker.bootstrap]) == int(exact)
    said = capsys.readouterr().out
    assert ("no receipt anchors this judgement" if exact else "are anchored by no receipt yet") in said
