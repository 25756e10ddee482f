"""Metrics as a scrape sees them: of a running worker with joined tables, and of sources that have nothing to tell yet."""

from __future__ import annotations

import asyncio
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agents.engine.inference import Inference
from agents.engine.metrics import DEFINITIONS, TABLE_EVENTS, AgentCollector, AuditSource, ModelSource, ReferenceSource, merged
from agents.engine.model_watch import ModelWatch
from agents.engine.process import Worker
from agents.engine.spec import Join
from agents.engine.topology import registry_for
from agents.settings import Settings
from models.contract import Answer, Ask, Question
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.kafka import create_topic, produce
from tests.support.scoring import questions
from tests.support.simple_agent import OrderAnswer, Purchase, Scripted, Simple, order, simple_agent
from topics import names
from topics.dev_broker import LocalBroker, free_port
from topics.publish.side import SidePublisher
from topics.reference import ReferenceTable
from topics.spec import change_topic, event_topic, out_topic

Samples = dict[tuple[str, str], float]


class Stalled(Scripted):
    """Never answers."""

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        await asyncio.sleep(3600)
        return []


def joining(scorer: Any) -> Simple:
    """An agent of its own topics that joins a table."""
    stem = uuid.uuid4().hex[:8]
    people = change_topic(f"people-{stem}", Purchase, key=("who",), partitions=1)
    return simple_agent(
        scorer, name=f"simple-{stem}", reads=event_topic(f"orders-{stem}", Purchase, partitions=1),
        writes=out_topic(f"order-decisions-{stem}"), joins={"customer": Join(people, on=lambda event: event.row.who)},
        deadline="1h",
    )  # fmt: skip


def scraped(port: int, agent: str) -> Samples:
    """(name, the labels beside agent, in the order of their names, joined by commas) -> value, as Prometheus would parse it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("agent") == agent
            key = (sample.name.removeprefix("headrace_"), ",".join(value for _, value in sorted(labels.items())))
            assert key not in found, "a series is told once"
            found[key] = sample.value
    return found


async def until(there: Callable[[], bool], seconds: float = 120.0) -> None:
    limit = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < limit, "it did not happen in time"
        await asyncio.sleep(0.05)


async def test_a_worker_tells_of_its_tables_its_audits_and_its_polls(embedded: LocalBroker, tmp_path: Path) -> None:
    """Rows, deletes and bad records of a joined table are counted by join; a worker that is paused by its bounds, idle or
    draining goes on asking for records or shows no age."""
    agent = joining(Stalled())
    port = free_port()
    settings = Settings(
        kafka=embedded.bootstrap, data_dir=str(tmp_path), session_timeout=6, metrics_port=port, hold_records=4, drain_timeout=0.5
    )
    for spec in registry_for([agent], settings):
        await create_topic(embedded.bootstrap, spec.topic, spec.partitions)
    people = agent.joins["customer"].topic.topic
    row = b'{"op":"c","after":{"who":"%s","amount":1},"source":{}}'
    changes = [row % b"ann", row % b"bob", b"no json", b'{"op":"d","before":{"who":"bob","amount":1},"source":{}}']
    await produce(embedded.bootstrap, people, [(b'{"who":"bob"}' if b"bob" in c else b'{"who":"ann"}', c) for c in changes])
    worker = Worker([agent], settings, say=[].append, scorer_for=lambda agent: agent.scorer)  # type: ignore[arg-type,return-value]  # a Scorer, as the test made it
    task = asyncio.create_task(worker.run())
    try:
        await until(lambda: (bool(worker.running) and bool(worker.running[0].app.runtime.stats.owned)) or task.done())
        stats = worker.running[0].app.runtime.stats
        await _polls(stats, task)  # idle
        found = await asyncio.to_thread(scraped, port, agent.name)
        told = {event: found["reference_events_total", f"{event},customer"] for event in TABLE_EVENTS}
        assert told == {"rows": 2, "deletes": 1, "replayed": 0, "went-back": 0, "truncates": 0, "rebuilds": 0, "ahead": 0}
        assert found["reference_faults_total", "invalid-json,customer"] == 1
        assert {r: found["audit_records_total", r] for r in ("published", "dropped", "failed")} == {
            "published": 0, "dropped": 0, "failed": 0,
        }  # fmt: skip
        assert ("poll_age_seconds", "") in found
        await produce(embedded.bootstrap, agent.reads.topic, [(r.key, r.value) for r in (order(f"k{i}", i) for i in range(40))])
        await until(lambda: bool(stats.paused) or task.done())
        await _polls(stats, task)  # paused
        assert stats.paused
        watch, runtime = worker.running[0].watch, worker.running[0].app.runtime
        worker.stop()
        await until(lambda: not runtime.running)
        assert watch.silence() == 0
    finally:
        worker.stop()
        assert await asyncio.wait_for(task, 120) == 0


async def _polls(stats: Any, task: asyncio.Task[int]) -> None:
    """Return once records were asked for twice more."""
    for _ in range(2):
        before = stats.last_poll
        await until(lambda: stats.last_poll > before or task.done())  # noqa: B023 - awaited within the turn
        assert not task.done()


def test_a_scrape_before_the_start_finds_zeros(tmp_path: Path) -> None:
    """The metrics are served before the tables are opened: counters are there from the first scrape, at 0."""
    table = ReferenceTable(change_topic("people", Purchase, key=("who",)), {}, tmp_path)
    side = SidePublisher({})
    registry = CollectorRegistry()
    registry.register(AgentCollector({"a": [ReferenceSource({"customer": table}), AuditSource(side, names.calls("a"))]}))
    told = {(s.name, *s.labels.values()): s.value for family in registry.collect() for s in family.samples}
    assert told["headrace_reference_events_total", "a", "customer", "rebuilds"] == 0
    assert told["headrace_audit_records_total", "a", "dropped"] == 0
    assert not [name for name, *_ in told if name == "headrace_reference_faults_total"]


def test_an_agents_audits_are_its_own(tmp_path: Path) -> None:
    """Two agents share a producer, not its counts."""
    side = SidePublisher({}, limit=1)
    for _ in range(3):
        side.offer(names.calls("a"), None, b"")
    side.offer(names.calls("b"), None, b"")
    registry = CollectorRegistry()
    registry.register(AgentCollector({agent: [AuditSource(side, names.calls(agent))] for agent in "ab"}))
    assert registry.get_sample_value("headrace_audit_records_total", {"agent": "a", "result": "dropped"}) == 2
    assert registry.get_sample_value("headrace_audit_records_total", {"agent": "b", "result": "dropped"}) == 1


@pytest.mark.parametrize("definition", DEFINITIONS, ids=[d.name for d in DEFINITIONS])
def test_every_metric_keeps_the_conventions(definition: Any) -> None:
    """No suffix that the exporter adds, no label twice, and a sentence that tells what it is."""
    assert not definition.name.endswith("_total")
    assert len(set(definition.labels)) == len(definition.labels)
    assert "agent" not in definition.labels
    assert definition.help.endswith(".")


async def test_what_stands_before_a_model_is_told_for_each_agent_that_asks() -> None:
    """Nothing before the first request; then requests by result, what may be sent, and whether the endpoint is shut."""
    agent = simple_agent(Ask(OrderAnswer, "Judge."), name="asking")
    async with Sandbox(SandboxConfig(schedule=("429", "", "401"))) as server:
        inference = Inference(Settings(model_base_url=server.base_url), [agent], ModelWatch())
        source = ModelSource(inference, "asking")
        assert not list(source.samples())
        scorer = inference.scorer(agent, manifest="m", on_call=lambda call: None)
        for _ in range(3):
            await scorer.score(questions(1), asyncio.get_running_loop().time() + 60)
        await scorer.close()
    registry = CollectorRegistry()
    registry.register(AgentCollector({"asking": [source]}))
    where = (server.base_url, "gpt-5-mini")
    found = {(name, labels): value for name, labels, value in source.samples()}
    assert found["model_requests", (*where, "admitted")] == 3
    assert found["model_requests", (*where, "limited")] == 1
    assert found["model_requests", (*where, "refused")] == 1
    assert found["model_endpoint_shut", where] == 1
    assert found["model_requests_waiting", where] == 0
    assert found["model_requests_per_minute", where] > 0
    assert found["model_passed_on", where] == 0
    labels = {"agent": "asking", "endpoint": where[0], "model": where[1]}
    assert registry.get_sample_value("headrace_model_requests_total", labels | {"result": "limited"}) == 1


async def test_no_series_is_told_twice_where_a_model_is_configured_twice() -> None:
    """One model under two keys, the cheap one among the fallbacks too, and hedges: each series is there once, and adds up."""
    agent = simple_agent(Ask(OrderAnswer, "Judge."), name="asking")
    async with Sandbox(SandboxConfig()) as server:
        again, cheap = ({"base_url": server.base_url, "name": name, "api_key": "second"} for name in ("gpt-5-mini", "cheap"))
        settings = Settings.model_validate({
            "model_base_url": server.base_url, "model_api_key": "first", "model_fallbacks": [again, cheap], "model_cheap": cheap,
            "agents": {"asking": {"hedge": 0.1, "cascade": {"field": "risk", "cheap": [0, 100], "sample": 0}}},
        })  # fmt: skip
        inference = Inference(settings, [agent], ModelWatch())
        scorer = inference.scorer(agent, manifest="m", on_call=lambda call: None)
        await scorer.score(questions(1), asyncio.get_running_loop().time() + 60)
        await scorer.close()
    registry = CollectorRegistry()
    registry.register(AgentCollector({"asking": [ModelSource(inference, "asking")]}))
    told = [(s.name, *sorted(s.labels.items())) for family in registry.collect() for s in family.samples]
    assert len(told) == len(set(told))
    first = {"agent": "asking", "endpoint": server.base_url, "model": "gpt-5-mini"}
    lines = [opened for opened in inference.opened if opened.model.name == "gpt-5-mini" and opened.admission.used]
    limits = [opened.admission.core.concurrency.limit for opened in lines]
    assert registry.get_sample_value("headrace_model_concurrency", first) == sum(limits)
    assert registry.get_sample_value("headrace_model_requests_total", first | {"result": "admitted"}) == 1


def test_one_endpoint_that_is_shut_of_two_is_told_as_shut() -> None:
    """Keys of one endpoint share its series: it is 1 while any of them is shut, never 2, and the smaller batch is told."""
    where = ("http://127.0.0.1:9/v1", "m")
    shut, size = ("model_endpoint_shut", where), ("batch_size", where)
    assert merged([(*shut, 1.0), (*size, 4), (*shut, 1.0), (*size, 16)]) == {shut: 1.0, size: 4}
