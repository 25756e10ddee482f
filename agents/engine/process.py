"""One worker process: a Faust app for each agent, started together, drained together, ended together.

One consumer group an agent, so each lags, scales and rolls by itself. When one agent fails for good, all stop, nothing more is
committed and the process ends with status 1. The first SIGTERM or SIGINT drains, the second leaves at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mode import Service
from prometheus_client import CollectorRegistry, start_http_server

from agents.engine.inference import Inference, checked
from agents.engine.joins import Joins
from agents.engine.kafka import kafka_config
from agents.engine.manifests import manifest_of
from agents.engine.metrics import AgentCollector, AuditSource, EngineSource, ModelSource, ReferenceSource, Source, TransportSource
from agents.engine.model_watch import ModelWatch
from agents.engine.pipeline import Pipeline
from agents.engine.runtime import Engine
from agents.engine.spec import DecisionAgent
from agents.engine.spending import Spending, utc_day
from agents.engine.topology import own_topics, placed, tuned
from agents.engine.verdicts import Site
from agents.engine.watch import PollWatch, Watching, patience
from agents.settings import Settings
from models.contract import Ask, Scorer
from schemas.audit import Call
from schemas.errors import ConfigError, FatalError
from schemas.manifest import Manifest
from topics import names
from topics.admin import plan
from topics.connection import BrokerFacts, KafkaConfig, probe
from topics.handover import Bounds, Feed, TopicPartition
from topics.publish.call_chain import CallChain
from topics.publish.contract import Checkpoint, Promise, no_checkpoint
from topics.publish.side import SidePublisher
from topics.reference import ReferenceTable
from topics.spec import Registry
from topics.transport.app import make_app
from topics.transport.read_back import last_receipt

Agent = DecisionAgent[Any, Any, Any]
log = logging.getLogger(__name__)
LEAVE_AT_ONCE = 130
STUCK = 1
AFTER_DRAIN = 15.0
"""Seconds that a stop may take beside the drain itself: leaving the group, closing producers."""
READ_AGAIN = "whoever takes their partitions next reads what is not committed again"
Say = Callable[[str], None]
Ready = Callable[[TopicPartition], Awaitable[None]]


@dataclass(slots=True)
class Running:
    """One agent of this process."""

    agent: Agent
    engine: Engine
    app: Any
    tables: dict[str, ReferenceTable]
    watch: PollWatch
    manifest: Manifest


class Worker:
    """The agents of one process. Build it inside the running loop, then `run`.

    `scorer_for` replaces how an agent's scorer is made (tests, benchmarks); `checkpoint` is called at the transport's named
    points, `wall_ms` gives epoch milliseconds for the stamps of decisions. `say` is told in a line what a person wants to
    know: which promise holds, what a drain left.
    """

    def __init__(
        self, agents: Sequence[Agent], settings: Settings, *, say: Say, checkpoint: Checkpoint = no_checkpoint,
        scorer_for: Callable[[Agent], Scorer] | None = None, audit: bool = True,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        if not agents:
            raise ConfigError("starting a worker: no agent was chosen; headrace agents list names them")
        self._agents = [tuned(agent, settings) for agent in agents]
        self._settings = settings
        self._say = say
        self._checkpoint = checkpoint
        self._scorer_for = scorer_for
        self._audit = audit
        self._wall_ms = wall_ms
        self._config: KafkaConfig = kafka_config(settings)
        self._connection = {"bootstrap_servers": self._config.bootstrap, **self._config.aiokafka_kwargs()}
        self._side = SidePublisher(self._connection)
        self._registry = Registry(settings.topics)
        self._stop = asyncio.Event()
        self._fatal: BaseException | None = None
        self._follows: list[asyncio.Task[None]] = []
        self._model = ModelWatch()
        self._inference = Inference(settings, self._agents, self._model)
        self._probing: list[asyncio.Task[None]] = []
        self._watching = Watching(())
        self._left: set[str] = set()
        self.running: list[Running] = []

    # ---- life --------------------------------------------------------------------------------------------------------
    async def run(self) -> int:
        """Run until a signal or a fatal fault. Returns the exit status: 0 after a drain, 1 after a fatal fault."""
        self._check_settings()
        self._build_all(await probe(self._config, transactional_id=f"{self._settings.group_prefix}.probe"))
        await self._check_topics()
        self._listen()
        server = self._serve_metrics()
        try:
            with self._signals():
                watch = asyncio.create_task(self._watch())
                starting = asyncio.create_task(self._start())
                try:
                    await self._until_stopped(starting)
                finally:
                    with self._guarded():
                        watch.cancel()
                        await _abandoned(starting)
                        await self._shut_down()
        finally:
            if server is not None:
                server.shutdown()
                server.server_close()
        if self._fatal is not None:
            self._say(f"ended by a fatal fault, nothing is lost, offsets stay where they are: {self._fatal!r}")
            return 1
        left = sum(r.app.runtime.stats.left_at_drain for r in self.running)
        self._say(f"drained: {left} calls in flight were left, {READ_AGAIN}" if left else "drained: nothing was left in flight")
        return 0

    def stop(self) -> None:
        """Begin to drain, as the first signal does."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """A defect that must end the process: stop all agents, commit nothing more."""
        if self._fatal is not None:
            return
        self._fatal = error
        log.critical("ending the worker: %r", error, exc_info=error)
        for r in self.running:
            r.app.runtime.fail(error)
        self._stop.set()

    async def _watch(self) -> None:
        """Faust marks a crashed app and waits for somebody to look."""
        while True:
            for r in self.running:
                refusal = r.app.group_refusal()
                if refusal is not None:
                    self.fail(FatalError(f"joining group {self._settings.group_prefix}.{r.agent.name}: {refusal!r}"))
                if r.app.crashed:
                    reason = r.app.crash_reason
                    self.fail(reason if isinstance(reason, BaseException) else FatalError(f"agent {r.agent.name} crashed"))
            await asyncio.sleep(0.2)

    async def _start(self) -> None:
        await self._begin()
        await asyncio.gather(*(r.app.start() for r in self.running))

    async def _until_stopped(self, starting: asyncio.Task[None]) -> None:
        """Until a stop, which does not wait for the start: a group may be joined slowly, and a broker that is away is never."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
            await stopping
        finally:
            stopping.cancel()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Around a whole stop: where it does not come to its end the process leaves. In a thread: the loop may be stuck."""
        limit = self._settings.drain_timeout + AFTER_DRAIN
        self._left = {r.agent.name for r in self.running}

        def leave() -> None:
            # Something does not let go. What is not committed will be read again, by whoever is next.
            names = ", ".join(sorted(self._left)) or "the worker"
            self._say(f"stopping {names} took longer than {limit:.0f} s: leaving at once, {READ_AGAIN}")
            os._exit(STUCK)

        guard = threading.Timer(limit, leave)
        guard.daemon = True
        guard.start()
        try:
            yield
        finally:
            guard.cancel()

    async def _shut_down(self) -> None:
        self._watching.stop()
        await asyncio.gather(*(self._stopped(r) for r in self.running))
        await self._end()

    async def _stopped(self, r: Running) -> None:
        try:
            await r.app.stop()
        except Exception as error:  # noqa: BLE001 - the others are to be stopped all the same
            log.warning("stopping agent %s: %r", r.agent.name, error)
        self._left.discard(r.agent.name)

    async def _check_topics(self) -> None:
        """Raises ConfigError naming the topics that are not there; a broker that creates them by itself would do it wrongly."""
        found = await plan(self._registry, self._config)
        missing = sorted(step.topic for step in found.steps if step.action == "create")
        if missing:
            raise ConfigError(
                f"starting a worker: topics are missing at {self._settings.kafka}: {', '.join(missing)}; "
                "headrace topics apply creates them"
            )
        for step in found.steps:
            self._say(f"topics differ from what the agents declare, headrace topics apply would: {step}")

    async def _begin(self) -> None:
        """What stands beside the Faust apps: audit records, manifests, reference tables."""
        self._watching = Watching([r.watch for r in self.running])
        self._watching.start()
        self._probe_models()
        await self._side.start()
        for r in self.running:
            body = r.manifest.model_dump_json(by_alias=True).encode()
            await self._side.send(names.MANIFESTS, r.manifest.hash().encode(), body)
        for r in self.running:
            for table in r.tables.values():
                await table.start()
                self._follows.append(asyncio.create_task(self._follow(table)))

    async def _follow(self, table: ReferenceTable) -> None:
        """A table that can no longer be read must not go on answering with old rows."""
        try:
            await table.run()
        except Exception as error:  # noqa: BLE001 - whatever ended it ends the worker
            self.fail(error)

    def _probe_models(self) -> None:
        """Look beside the work whether the models can be asked: it is said in the log, and nothing waits for it."""
        if self._scorer_for is None and any(self._inference.asks(r.agent) for r in self.running):
            self._probing = [
                asyncio.create_task(
                    self._model.probe(model.base_url, model.api_key, model.name, model.api, model.setting),
                    name=f"probe of {model.where}",
                )
                for model in self._inference.asked
            ]

    async def _end(self) -> None:
        for probing in self._probing:
            probing.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)
        self._watching.stop()
        for r in self.running:
            await r.engine.close()
            await asyncio.gather(*(table.stop() for table in r.tables.values()), return_exceptions=True)
        await self._side.stop()
        dropped, failed = self._side.dropped.total(), self._side.failed.total()
        if dropped or failed:
            self._say(f"audit of calls: {dropped} dropped, {failed} failed")

    def faust_app(self) -> Any:
        """The one agent's Faust app, for Faust's own command line, which then owns signals and the loop."""
        self._check_settings()
        self._build_all(asyncio.run(probe(self._config, transactional_id=f"{self._settings.group_prefix}.probe")))
        (only,) = self.running
        worker = self

        class Beside(Service):
            async def on_start(self) -> None:
                await worker._begin()

            async def on_stop(self) -> None:
                await worker._end()

        only.app.add_dependency(Beside(loop=only.app.loop, beacon=only.app.beacon))
        return only.app

    @contextlib.contextmanager
    def _signals(self) -> Any:
        loop = asyncio.get_running_loop()

        def on_signal(name: str) -> None:
            if self._stop.is_set():
                calls = sum(r.engine.stats.in_flight for r in self.running)
                held = sum(r.app.runtime.stats.held_records for r in self.running)
                self._say(f"{name}: leaving at once with {calls} calls in flight and {held} records held, {READ_AGAIN}")
                os._exit(LEAVE_AT_ONCE)
            self._say(f"{name}: draining, at most {self._settings.drain_timeout:.0f} s; again to leave at once")
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number.name)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _check_settings(self) -> None:
        """What is wrong whatever Kafka says is told before it is asked. Raises ConfigError."""
        folder = Path(self._settings.data_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"making the folder {folder}: {error.strerror}; set HEADRACE_DATA_DIR to a folder that can be written to"
            ) from error
        if self._scorer_for is None:
            checked(self._settings, self._agents)

    # ---- parts -------------------------------------------------------------------------------------------------------
    def _promise(self, facts: BrokerFacts) -> Promise:
        wanted, where = self._settings.delivery, self._settings.kafka
        if wanted == "exactly-once" and not facts.transactions:
            raise ConfigError(
                f"starting a worker: no transactions at {where}: {facts.why_no_transactions}; "
                "HEADRACE_DELIVERY=at-least-once does without"
            )
        if wanted == "auto" and facts.forbidden:
            # The promise must not depend on a right that somebody forgot to give.
            raise ConfigError(
                f"starting a worker: {facts.why_no_transactions}; grant it, or accept repeats: HEADRACE_DELIVERY=at-least-once"
            )
        transactions = facts.transactions and wanted != "at-least-once"
        promise: Promise = "exactly-once" if transactions else "at-least-once"
        why = "in transactions" if transactions else facts.why_no_transactions or "as configured"
        self._say(f"promise: {promise} ({why}), {where}")
        return promise

    def _build_all(self, facts: BrokerFacts) -> None:
        promise = self._promise(facts)
        self.running = [self._build(agent, self._registry, promise) for agent in self._agents]

    def _build(self, agent: Agent, registry: Registry, promise: Promise) -> Running:
        settings = self._settings
        agent = placed(agent, registry)
        models = [model.name for model in self._inference.models] if self._inference.asks(agent) else []
        manifest = manifest_of(agent, models=models, asking=self._inference.described(agent))
        key = manifest.hash()
        folder = Path(settings.data_dir) / "tables" / agent.name
        tables = {
            name: ReferenceTable(join.topic, self._connection, folder / name) for name, join in agent.joins.items()
        }
        joins = Joins(agent, tables) if tables else None
        judgements = names.judgements(agent.name) if self._audit else None
        pipeline = Pipeline(
            agent, Site(manifest=key, tenant=settings.tenant, run=settings.run), joins=joins, judgements=judgements,
            dead_letters=names.dead_letters(agent.name), wall_ms=self._wall_ms, masked=self._inference.kept(agent),
        )  # fmt: skip
        scorer = self._scorer_for(agent) if self._scorer_for is not None else self._scorer(agent, key)
        engine = Engine(
            agent, pipeline, scorer, fallback=agent.fallback, joins=joins, on_fatal=self.fail,
            ready=self._tables_ready(agent, tables) if tables else None,
            positions=lambda: [p for table in tables.values() for p in table.positions()],
            owned=self._inference.owned(agent), purse=self._purse(agent),
        )  # fmt: skip
        app = make_app(
            self._feed(agent), engine, kafka=self._config, delivery=promise, data_dir=Path(settings.data_dir),
            session_timeout=settings.session_timeout, rebalance_timeout=settings.rebalance_timeout,
            transaction_timeout=settings.transaction_timeout,
            checkpoint=self._checkpoint, on_fatal=self.fail,
        )  # fmt: skip
        watch = PollWatch(agent.name, app.runtime, patience(settings.session_timeout), time.monotonic)  # asyncio's own clock
        return Running(agent, engine, app, tables, watch, manifest)

    def _purse(self, agent: Agent) -> Spending | None:
        budget = self._inference.budgets.get(agent.name) if self._inference.asks(agent) else None
        if budget is None:
            return None
        return Spending(
            budget, tenant=self._settings.tenant, connection=self._connection, receipts=names.receipts(agent.name),
            calls=names.calls(agent.name), day=utc_day,
        )  # fmt: skip

    def _tables_ready(self, agent: Agent, tables: dict[str, ReferenceTable]) -> Ready:
        """Tables must have reached their end at start, and whatever the partition's last owner had read when it decided."""

        async def ready(tp: TopicPartition) -> None:
            last = await last_receipt(self._connection, names.receipts(agent.name), tp)
            for table in tables.values():
                table.require(last.references if last is not None else ())
            await asyncio.gather(*(table.ready() for table in tables.values()))

        return ready

    def _scorer(self, agent: Agent, manifest: str) -> Scorer:
        topic = names.calls(agent.name)
        chain = CallChain(f"{socket.gethostname()}:{os.getpid()}:{time.time_ns():x}", self._settings.tenant)

        def record(call: Call) -> None:
            self._side.offer(topic, chain.key, chain.seal(call, self._side.unpublished(topic)))

        return self._inference.scorer(agent, manifest=manifest, on_call=record, recorded=lambda: self._side.settled(topic))

    def _feed(self, agent: Agent) -> Feed:
        settings = self._settings
        # What is in flight, as much waiting for its commit, and the next round: more would only age beyond its deadline.
        held = min(settings.hold_records, max(512, 4 * agent.in_flight * agent.batch.size))
        return Feed(
            agent=agent.name, version=agent.version, group=names.group(settings.group_prefix, agent.name),
            source=agent.reads.topic, receipts=names.receipts(agent.name),
            outbound=(agent.writes.topic, names.dead_letters(agent.name), names.judgements(agent.name)),
            bounds=Bounds(
                records=held, bytes=settings.hold_bytes, span=settings.hold_span, metadata=settings.commit_metadata_bytes
            ),
            limits=_limits(agent), chained=self._audit,
            run=settings.run, worker=f"{socket.gethostname()}:{os.getpid()}", commit_gap=settings.commit_gap,
            drain_seconds=settings.drain_timeout,
        )  # fmt: skip

    def _listen(self) -> None:
        for r in self.running:
            if isinstance(r.agent.scorer, Ask) and self._scorer_for is None and self._settings.model_base_url is None:
                self._say(
                    f"WARNING {r.agent.name}: no model is configured, every record that needs one ends without an answer "
                    f"({r.agent.on_no_answer}); set HEADRACE_MODEL_BASE_URL"
                )
            self._say(f"{r.agent.name}: {r.agent.reads.topic} -> {r.agent.writes.topic}, asking {r.engine.scorer_name}")

    def _sources(self, r: Running) -> tuple[Source, ...]:
        audits = AuditSource(self._side, names.calls(r.agent.name))
        common = EngineSource(r.engine), TransportSource(r.app.runtime.stats), r.watch, ReferenceSource(r.tables), audits
        return (*common, ModelSource(self._inference, r.agent.name)) if isinstance(r.agent.scorer, Ask) else common

    def _serve_metrics(self) -> Any:
        port = self._settings.metrics_port
        if port is None:
            return None
        registry = CollectorRegistry()
        registry.register(AgentCollector({r.agent.name: self._sources(r) for r in self.running}))
        host = self._settings.metrics_host
        try:
            server, _ = start_http_server(port, addr=host, registry=registry)
        except OSError as error:  # gaierror is one
            raise ConfigError(
                f"serving metrics at {host}:{port}: {error.strerror}; set HEADRACE_METRICS_PORT and HEADRACE_METRICS_HOST to an "
                "address that is free"
            ) from error
        self._say(f"metrics: http://{host}:{port}/metrics")
        return server


def _limits(agent: Agent) -> dict[str, int]:
    return {spec.topic: spec.max_message_bytes for spec in (agent.writes, *own_topics(agent.name, agent.reads))}


async def _abandoned(task: asyncio.Task[None]) -> None:
    """Cancel it and wait for its end, whatever that is: it is the stop that counts now."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and task.exception() is not None:
        log.info("starting ended by the stop: %r", task.exception())
