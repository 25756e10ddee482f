"""The worker as a process runs it: several agents beside each other, what is published, metrics, signals, Faust's own command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import orjson
import pytest

from agents.engine.process import Worker
from agents.engine.topology import own_topics, registry_for
from agents.settings import Settings
from models.contract import Answer, Ask, Question, Scorer
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.dead_letter import DeadLetter
from schemas.errors import ConfigError
from schemas.marks import Untrusted
from tests.support.front import Front
from tests.support.kafka import create_topic, produce, read_all
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Scripted, Simple, order, simple_agent
from topics import names
from topics.dev_broker import LocalBroker, free_port
from topics.spec import event_topic, out_topic

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "schemas" / "v1"


def unique_agent(scorer: Any, **changes: Any) -> Simple:
    """An agent whose topics no other test uses."""
    stem = uuid.uuid4().hex[:8]
    row = simple_agent(scorer).reads.row
    assert row is not None
    reads = event_topic(f"orders-{stem}", row, partitions=2)
    return simple_agent(scorer, name=f"simple-{stem}", reads=reads, writes=out_topic(f"order-decisions-{stem}"), **changes)


async def with_topics(broker: LocalBroker, settings: Settings, agents: Sequence[Simple]) -> None:
    for spec in registry_for(agents, settings):
        small = {"max_message_bytes": str(spec.max_message_bytes)} if spec.max_message_bytes < 1_000_000 else {}
        await create_topic(broker.bootstrap, spec.topic, spec.partitions, client=None, **small)


@contextlib.asynccontextmanager
async def running(agents: Sequence[Simple], settings: Settings, said: list[str]) -> AsyncIterator[Worker]:
    """A worker in this process, stopped and awaited at the end; its status must be 0."""

    def own(agent: Simple) -> Scorer:
        assert not isinstance(agent.scorer, Ask)
        return agent.scorer

    asks = any(isinstance(agent.scorer, Ask) for agent in agents)
    worker = Worker(agents, settings, say=said.append, scorer_for=None if asks else own)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        assert await asyncio.wait_for(task, 60) == 0


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        body: bytes = answer.read()
    return body.decode()


async def decisions(broker: LocalBroker, agent: Simple, wanted: int, seconds: float = 40.0) -> list[Any]:
    """The decisions of an agent once there are so many."""
    limit = time.monotonic() + seconds
    while True:
        found = await read_all(broker.bootstrap, agent.writes.topic)
        if len(found) >= wanted or time.monotonic() > limit:
            return found
        await asyncio.sleep(0.2)


@pytest.mark.kafka
async def test_a_stalled_agent_starves_no_other(kafka: LocalBroker, tmp_path: Path) -> None:
    """While one agent's model does not answer at all, the other agent of the same process decides everything of its own."""

    class Stalled(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            await asyncio.sleep(3600)
            return []

    stalled, quick = unique_agent(Stalled(), deadline="1h"), unique_agent(Scripted())
    settings = Settings(kafka=kafka.bootstrap, data_dir=str(tmp_path), drain_timeout=0.5, session_timeout=6)
    await with_topics(kafka, settings, [stalled, quick])
    for agent in (stalled, quick):
        await produce(kafka.bootstrap, agent.reads.topic, [(r.key, r.value) for r in (order(f"k{i}", i) for i in range(3000))])
    async with running([stalled, quick], settings, []) as worker:
        assert len(await decisions(kafka, quick, 3000)) == 3000
        held = {r.agent.name: r.app.runtime.stats for r in worker.running}[stalled.name]
        assert 0 < held.held_records <= 512 + 256, "the stalled agent holds no more than its bound and one fetched list"
        assert held.paused
    assert await read_all(kafka.bootstrap, stalled.writes.topic) == []


async def test_what_is_published_is_what_the_schemas_say(broker: LocalBroker, tmp_path: Path) -> None:
    """All that is published validates against schemas/v1, dead letters keep what came, and metrics count."""
    agent = unique_agent(Scripted())
    port = free_port()
    settings = Settings(kafka=broker.bootstrap, data_dir=str(tmp_path), session_timeout=6, metrics_port=port)
    await with_topics(broker, settings, [agent])
    records = [order("a", 150), order("b", wish="rule"), order("c", wish="skip")]
    await produce(broker.bootstrap, agent.reads.topic, [(r.key, r.value) for r in records])
    await produce(broker.bootstrap, agent.reads.topic, [(b"d", b"\xff{")], headers=[("trace", b"\x00\x01")])
    said: list[str] = []
    async with running([agent], settings, said) as worker:
        found = await decisions(broker, agent, 2)
        assert await until_read(broker.bootstrap, names.dead_letters(agent.name), 1) == 1
        await until(lambda: worker.running[0].app.runtime.stats.outcomes == 4, 40)
        (dead,) = await read_all(broker.bootstrap, names.dead_letters(agent.name))
        metrics = await asyncio.to_thread(scrape, port)
        manifest = worker.running[0].manifest.hash()
    checked = {
        "decision": found,
        "judgement": await read_all(broker.bootstrap, names.judgements(agent.name)),
        "receipt": await read_all(broker.bootstrap, names.receipts(agent.name)),
        "manifest": [r for r in await read_all(broker.bootstrap, names.MANIFESTS) if r.key == manifest.encode()],
    }
    for name, written in checked.items():
        schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
        assert written, name
        for record in written:
            jsonschema.validate(orjson.loads(record.value), schema)
    headers = dict(found[0].headers)
    body = orjson.loads(found[0].value)
    assert (headers["ce_specversion"], headers["content-type"]) == (b"1.0", b"application/json")
    assert headers["ce_id"].decode() == body["id"]
    assert (dead.key, dead.value, dict(dead.headers)["trace"]) == (b"d", b"\xff{", b"\x00\x01")
    told = {k.removeprefix("headrace_"): v.decode() for k, v in dead.headers if k.startswith("headrace_")}
    assert DeadLetter.model_validate(told).reason == "invalid-utf8"
    skips = [orjson.loads(r.value)["skips"] for r in checked["receipt"]]
    assert any("asked-to-skip" in rules for rules in skips)
    assert f'headrace_dead_letters_total{{agent="{agent.name}",reason="invalid-utf8"}} 1.0' in metrics
    assert any(line.startswith("promise: ") for line in said)


class Wish(OrderFeatures):
    """With a text that is moderated."""

    wish: Annotated[str, Untrusted(max=50)] = ""


async def test_moderation_that_is_away_is_counted_without_a_model_too(broker: LocalBroker, tmp_path: Path) -> None:
    """What the table of alarms goes by is there in the very case that it is for."""
    agent = unique_agent(
        Ask(OrderAnswer, "Judge."), features_model=Wish, features=lambda context: Wish(who="a", amount=1, wish="please")
    )
    port, away = free_port(), "http://127.0.0.1:9/v1"
    settings = Settings(
        kafka=broker.bootstrap, data_dir=str(tmp_path), session_timeout=6, metrics_port=port,
        agents={agent.name: {"moderate": True}}, moderation={"base_url": away, "name": "omni"},
    )  # fmt: skip
    await with_topics(broker, settings, [agent])
    await produce(broker.bootstrap, agent.reads.topic, [(r.key, r.value) for r in (order(f"k{n}") for n in range(5))])
    async with running([agent], settings, []):
        found = await decisions(broker, agent, 5)
        metrics = await asyncio.to_thread(scrape, port)
    assert {orjson.loads(record.value)["tier"] for record in found} == {"none"}
    assert f'headrace_records_moderated_total{{agent="{agent.name}",result="unanswered"}} 5.0' in metrics
    assert f'headrace_model_endpoint_shut{{agent="{agent.name}",endpoint="{away}",model="moderation"}}' in metrics


async def test_a_record_whose_decision_does_not_fit_becomes_a_dead_letter(kafka: LocalBroker, tmp_path: Path) -> None:
    """A decision too large for its topic poisons nothing: the record is a dead letter, its neighbours are decided."""
    agent = unique_agent(Scripted())
    small = {agent.writes.name: {"max_message_bytes": 4000}}
    settings = Settings(kafka=kafka.bootstrap, data_dir=str(tmp_path), session_timeout=6, topics=small)
    await with_topics(kafka, settings, [agent])
    records = [order("a"), order("x" * 5000), order("b")]
    await produce(kafka.bootstrap, agent.reads.topic, [(r.key, r.value) for r in records])
    async with running([agent], settings, []):
        found = await decisions(kafka, agent, 2)
    assert sorted(orjson.loads(r.value)["subject"]["id"] for r in found) == ["a", "b"]
    (dead,) = await read_all(kafka.bootstrap, names.dead_letters(agent.name))
    assert dict(dead.headers)["headrace_reason"] == b"record-too-large"
    assert dead.value == records[1].value


async def test_missing_topics_are_told_before_anything_is_read(broker: LocalBroker, tmp_path: Path) -> None:
    """Without its topics a worker ends at once and says which and what to do; it creates none by accident."""
    agent = unique_agent(Scripted())
    settings = Settings(kafka=broker.bootstrap, data_dir=str(tmp_path))
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"topics are missing.*{agent.writes.topic}.*headrace topics apply"):
            await Worker([agent], settings, say=print, scorer_for=lambda agent: Scripted()).run()


async def test_a_defect_ends_the_worker_and_commits_nothing_more(kafka: LocalBroker, tmp_path: Path) -> None:
    """A scorer that breaks its contract ends all agents with status 1; a sound worker then decides every record once."""

    class Broken(Scripted):
        async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
            if any(getattr(q.features, "amount", 0) == 77 for q in questions):
                raise RuntimeError("a defect")
            return await super().score(questions, deadline)

    agent = unique_agent(Scripted())
    settings = Settings(kafka=kafka.bootstrap, data_dir=str(tmp_path), session_timeout=6, drain_timeout=1)
    await with_topics(kafka, settings, [agent])
    await produce(kafka.bootstrap, agent.reads.topic, [(r.key, r.value) for r in (order(f"k{i}", i) for i in range(200))])
    broken = Worker([agent], settings, say=print, scorer_for=lambda agent: Broken(longest=0.01))
    assert await asyncio.wait_for(broken.run(), 60) == 1
    async with running([agent], settings, []):
        found = await decisions(kafka, agent, 200)
    assert sorted(orjson.loads(r.value)["score"] for r in found) == sorted(min(i, 100) for i in range(200))


async def test_no_agent_is_a_mistake_that_is_told() -> None:
    """A worker without agents says so."""
    with pytest.raises(ConfigError, match="no agent was chosen"):
        Worker([], Settings(), say=print)


# ---- as a process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(kafka: LocalBroker, tmp_path: Path) -> dict[str, str]:
    """product-quality on topics of its own, on Apache Kafka."""
    stem = uuid.uuid4().hex[:8]
    placed = {"machine-readings": {"physical": f"readings-{stem}", "partitions": 2}}
    placed["product-quality-decisions"] = {"physical": f"quality-{stem}", "partitions": 2}
    return os.environ | {
        "HEADRACE_KAFKA": kafka.bootstrap, "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_SESSION_TIMEOUT": "6",
        "HEADRACE_TOPICS": json.dumps(placed), "HEADRACE_GROUP_PREFIX": f"test-{stem}",
    }  # fmt: skip


@contextlib.contextmanager
def process(environment: dict[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is gone afterwards, whatever happened."""
    with log.open("wb") as out:
        started = subprocess.Popen([sys.executable, "-m", *command], env=environment, cwd=ROOT, stdout=out, stderr=out)
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()
            started.wait(20)


async def applied(environment: dict[str, str]) -> tuple[str, str]:
    """Create the topics; returns the source's and the decisions' names."""
    command = [sys.executable, "-m", "agents.cli.main", "topics", "apply", "product-quality"]
    done = await asyncio.to_thread(subprocess.run, command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    placed = json.loads(environment["HEADRACE_TOPICS"])
    return placed["machine-readings"]["physical"], placed["product-quality-decisions"]["physical"]


def reading(machine: str, minute: int) -> tuple[bytes, bytes]:
    """A reading near its limits, so that it is asked about."""
    at = int(time.time() * 1000) - 3_600_000 + minute * 60_000
    body = {
        "device": machine, "ts": at, "product": f"p{minute}", "variant": "L", "air_temperature": 300.0,
        "process_temperature": 308.7, "rotational_speed": 1300, "torque": 62.0, "tool_wear": 230,
    }  # fmt: skip
    return machine.encode(), orjson.dumps(body)


async def until_read(bootstrap: str, topic: str, wanted: int, seconds: float = 40.0) -> int:
    """How many records a topic has, once it has so many or the time is over."""
    limit = time.monotonic() + seconds
    while True:
        count = len(await read_all(bootstrap, topic))
        if count >= wanted or time.monotonic() > limit:
            return count
        await asyncio.sleep(0.3)


async def test_a_signal_drains_and_a_second_one_leaves_at_once(
    kafka: LocalBroker, environment: dict[str, str], tmp_path: Path
) -> None:
    """With a model that hangs: SIGTERM waits for it, a second ends the process, and the next worker decides all."""
    source, decided = await applied(environment)
    await produce(kafka.bootstrap, source, [reading(f"m{i}", i) for i in range(6)])
    log = tmp_path / "worker.log"
    async with Sandbox(SandboxConfig(latency="0ms", faults={"hang": 1.0})) as hanging:
        patient = {"product-quality": {"deadline": "10m"}}
        asks = environment | {"HEADRACE_MODEL_BASE_URL": hanging.base_url, "HEADRACE_AGENTS": json.dumps(patient)}
        with process(asks, log, "agents.cli.main", "worker", "product-quality") as worker:
            await until(lambda: hanging.meter.requests > 0, 40)
            worker.send_signal(signal.SIGTERM)
            await until(lambda: "draining" in log.read_text("utf-8"), 40)
            assert worker.poll() is None
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, 30) == 130  # one that had waited for its calls would end with 0
            assert "leaving at once with" in log.read_text("utf-8")
    async with Sandbox(SandboxConfig(latency="0ms")) as answering:
        asks = environment | {"HEADRACE_MODEL_BASE_URL": answering.base_url}
        with process(asks, tmp_path / "second.log", "agents.cli.main", "worker", "product-quality") as worker:
            assert await until_read(kafka.bootstrap, decided, 6) == 6
            worker.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(worker.wait, 60) == 0
    assert "drained: nothing was left in flight" in (tmp_path / "second.log").read_text("utf-8")
    verify = [sys.executable, "-m", "agents.cli.main", "verify", "product-quality", "--json"]
    done = await asyncio.to_thread(subprocess.run, verify, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def owned(port: int) -> int:
    """How many partitions a worker says that it reads; 0 while it says nothing."""
    with contextlib.suppress(OSError):
        return len(re.findall(r"^headrace_lag_records\{", scrape(port), re.MULTILINE))
    return 0


async def test_a_budget_holds_for_two_workers_although_one_is_killed_mid_call(
    kafka: LocalBroker, environment: dict[str, str], tmp_path: Path
) -> None:
    """By the model's own meter no more is spent than the stop and what the killed worker had under way; usage tells the rest."""
    source, decided = await applied(environment)
    budget, in_flight = 40_000, 2  # in tokens: one costs a millionth
    tuned = {"product-quality": {"budget": str(budget / 1_000_000), "batch_size": 4, "in_flight": in_flight, "deadline": "30s"}}
    command, ports, tenant = ("agents.cli.main", "worker", "product-quality"), (free_port(), free_port()), uuid.uuid4().hex
    async with Sandbox(SandboxConfig(latency="300ms")) as metered, Front(metered.base_url) as front:
        asks = environment | {
            "HEADRACE_MODEL_BASE_URL": front.base_url, "HEADRACE_AGENTS": json.dumps(tuned),
            "HEADRACE_MODEL_PRICE": '{"input": "1", "output": "1"}', "HEADRACE_TENANT": tenant,
        }  # fmt: skip
        one, other = (asks | {"HEADRACE_METRICS_PORT": str(port), "HEADRACE_MODEL_API_KEY": f"key-{port}"} for port in ports)

        def under_way() -> bool:
            return any(served.who == f"key-{ports[0]}" and time.time() - served.began > 0.05 for served in front.under_way)

        with (
            process(one, tmp_path / "first.log", *command) as first,
            process(other, tmp_path / "second.log", *command) as second,
        ):
            await until(lambda: all(owned(port) == 1 for port in ports), 60)
            await produce(kafka.bootstrap, source, [reading(f"m{i}", i % 50) for i in range(300)])
            await until(lambda: front.tokens > budget / 4, 60)
            await until(under_way, 20)
            first.kill()
            killed, at_kill = time.time(), len(front.log)
            assert await until_read(kafka.bootstrap, decided, 300, 90) == 300
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 60) == 0
        spent = metered.meter.input_tokens + metered.meter.output_tokens
    assert front.tokens == spent
    assert len(front.log) > at_kill, "the survivor asked on"
    calls = [orjson.loads(r.value) for r in await read_all(kafka.bootstrap, names.calls("product-quality"))]
    recorded = {call["request_hash"] for call in calls}
    lost = [served for served in front.log if served.digest not in recorded]
    assert 0 < len(lost) <= in_flight
    assert all(served.who == f"key-{ports[0]}" and served.began < killed for served in lost)
    assert budget / 2 < spent <= budget + sum(served.tokens for served in lost)
    written = [orjson.loads(r.value) for r in await read_all(kafka.bootstrap, decided)]
    assert {body["tier"] for body in written} == {"model", "fallback"}
    usage = [sys.executable, "-m", "agents.cli.main", "usage", "product-quality", "--json"]
    done = await asyncio.to_thread(subprocess.run, usage, env=asks, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    here = [row for row in orjson.loads(done.stdout)["rows"] if row["tenant"] == tenant]
    assert sum(row["cost_micro"] for row in here) == spent - sum(served.tokens for served in lost)


async def test_fausts_own_command_starts_one_agent(kafka: LocalBroker, environment: dict[str, str], tmp_path: Path) -> None:
    """`faust -A agents.engine.app worker` decides as headrace worker does, and ends with a signal."""
    source, decided = await applied(environment)
    await produce(kafka.bootstrap, source, [reading("m1", 1)])
    log = tmp_path / "faust.log"
    asks = environment | {"HEADRACE_FAUST_AGENT": "product-quality", "PYTHONWARNINGS": "ignore"}
    with process(asks, log, "faust", "-A", "agents.engine.app", "worker", "-l", "warn") as worker:
        assert await until_read(kafka.bootstrap, decided, 1) == 1, log.read_text("utf-8", "replace")
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 90)
    assert worker.returncode == 0, log.read_text("utf-8", "replace")


DEFECTIVE = '''
"""An agent whose scorer breaks its contract."""

import dataclasses

from agents.product_quality import AGENT as SOUND
from topics.spec import out_topic


class Defective:
    name = "defective"

    async def score(self, questions, deadline):
        raise RuntimeError("a defect")

    async def close(self):
        pass


AGENT = dataclasses.replace(
    SOUND, name="defective", scorer=Defective(), answer_model=SOUND.answers, writes=out_topic("defective-decisions")
)
'''


@pytest.mark.parametrize("command", [("agents.cli.main", "worker", "defective"), ("faust", "-A", "agents.engine.app", "worker")])
async def test_a_defect_ends_the_process_whoever_started_it(
    kafka: LocalBroker, environment: dict[str, str], tmp_path: Path, command: tuple[str, ...]
) -> None:
    """`headrace worker` and Faust's own command both end with a status other than 0, and nothing was decided."""
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "defective.py").write_text(DEFECTIVE, "utf-8")
    stem = uuid.uuid4().hex[:8]
    placed = json.loads(environment["HEADRACE_TOPICS"]) | {"defective-decisions": {"physical": f"defective-{stem}"}}
    runs = environment | {
        "HEADRACE_TOPICS": json.dumps(placed), "HEADRACE_AGENTS_PATH": str(folder), "HEADRACE_FAUST_AGENT": "defective",
        "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    apply = [sys.executable, "-m", "agents.cli.main", "topics", "apply", "defective"]
    done = await asyncio.to_thread(subprocess.run, apply, env=runs, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    await produce(kafka.bootstrap, placed["machine-readings"]["physical"], [reading("m1", 1)])
    log = tmp_path / "worker.log"
    with process(runs, log, *command) as worker:
        status = await asyncio.to_thread(worker.wait, 90)
    assert status not in (0, None), log.read_text("utf-8", "replace")[-2000:]
    assert await read_all(kafka.bootstrap, f"defective-{stem}") == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HEADRACE_AGENTS", '{"product-qualty": {"deadline": "3s"}}', "there is no agent product-qualty"),
        ("HEADRACE_AGENTS", '{"product-quality": {"dead_line": "3s"}}', "HEADRACE_AGENTS.product-quality.dead_line"),
        ("HEADRACE_AGENTS", '{"product-quality": {"dead_line": "3s"}}', "what can be set is deadline, in_flight"),
        ("HEADRACE_AGENTS", '{"product-quality": {"deadline": "soon"}}', "HEADRACE_AGENTS.product-quality.deadline"),
        ("HEADRACE_AGENTS", '{"product-quality": {"cache": "0s"}}', "HEADRACE_AGENTS.product-quality.cache"),
        ("HEADRACE_AGENTS", '{"product-quality": {"deadline": "0s"}}', "HEADRACE_AGENTS.product-quality.deadline"),
        ("HEADRACE_AGENTS", '{"product-quality": {"batch_output_tokens": 5}}', "for product-quality: batch_output_tokens is 5"),
        ("HEADRACE_AGENTS", '{"product-quality": {"moderate": true}}', "there is nobody to ask; set HEADRACE_MODERATION"),
        ("HEADRACE_DATA_DIR", "/dev/null", "set HEADRACE_DATA_DIR to a folder"),
        ("HEADRACE_AGENTS", '{"product-quality": {"budget": "0.0000001"}}', "HEADRACE_AGENTS.product-quality.budget"),
        ("HEADRACE_TOPICS", '{"machine-reading": {"physical": "x"}}', "no agent has a topic machine-reading"),
        ("HEADRACE_TOPICS", '{"machine-readings": {"physical": "../../etc/x"}}', "placing topic machine-readings: physical"),
        ("HEADRACE_TOPICS", '{"machine-readings": {"physical": "product-quality-decisions"}}', "is taken by"),
        ("HEADRACE_TOPICS", '{"machine-readings": {"max_depth": "deep"}}', "max_depth"),
        ("HEADRACE_MASKING_COUNTRIES", "[]", "HEADRACE_MASKING_COUNTRIES: Value error, it names no country"),
        ("HEADRACE_MASKING_KEY", "a" * 40, "one character repeated"),
        ("HEADRACE_MODEL_NAME", "", "HEADRACE_MODEL_NAME: Value error, it is empty"),
        ("HEADRACE_MODEL_BASE_URL", "http://127.0.0.1:9/v1/chat/completions", "without /chat/completions"),
        ("HEADRACE_TENANT", "a/b", "a name without slashes and control characters"),
        ("HEADRACE_TENANT", "", "a name without slashes and control characters"),
        ("HEADRACE_DRAIN_TIMEOUT", "-1", "greater than or equal to 0"),
        ("HEADRACE_COMMIT_GAP", "nan", "finite number"),
        ("HEADRACE_GROUP_PREFIX", "../x", "match pattern"),
    ],
)
def test_a_mistake_in_the_settings_is_told_before_anything_starts(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    """A typing mistake ends with status 2 and says what is wrong; it never passes in silence."""
    runs = os.environ | {"HEADRACE_KAFKA": f"127.0.0.1:{free_port()}", "HEADRACE_DATA_DIR": str(tmp_path)}
    runs |= {"HEADRACE_MODEL_BASE_URL": "http://127.0.0.1:9/v1", variable: value}
    command = [sys.executable, "-m", "agents.cli.main", "worker", "product-quality"]
    done = subprocess.run(command, env=runs, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


async def test_a_group_that_refuses_us_ends_the_worker(
    kafka: LocalBroker, environment: dict[str, str], tmp_path: Path
) -> None:
    """A session timeout that the broker does not allow is a fault that ends the process, not a wait for ever."""
    await applied(environment)
    log = tmp_path / "worker.log"
    refused = environment | {"HEADRACE_SESSION_TIMEOUT": "1"}
    with process(refused, log, "agents.cli.main", "worker", "product-quality") as worker:
        assert await asyncio.to_thread(worker.wait, 60) == 1
    assert "InvalidSessionTimeout" in log.read_text("utf-8", "replace")


async def until(condition: Any, seconds: float) -> None:
    """Wait for something, at most so long."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        await asyncio.sleep(0.05)


def test_the_engines_topics_fit_their_source() -> None:
    """Each has as many partitions as the source, and a dead letter of the largest input fits."""
    agent = simple_agent(Scripted())
    for spec in own_topics(agent.name, agent.reads):
        assert spec.partitions == agent.reads.partitions or spec.name == names.MANIFESTS
        if spec.name == names.dead_letters(agent.name):
            assert spec.max_message_bytes > agent.reads.max_message_bytes
