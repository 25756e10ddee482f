"""`headrace demo`: everything started, replayed, watched, drained, verified and told, in one place and in this order."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.cli.output import emit_json
from agents.cli.topics import follows
from agents.cli.verify import verify_all
from agents.demo.answering import Answering, Who, answering, check
from agents.demo.baseline import credit_card, milling_card
from agents.demo.compare import CreditComparison, QualityComparison, compare_credit, compare_quality
from agents.demo.datasets import Credit, Milling, german_credit, milling
from agents.demo.ledger import Channels, Ledger, Seen
from agents.demo.live import View
from agents.demo.loans import HINTS
from agents.demo.plan import Plan, build
from agents.demo.replay import Replay
from agents.demo.summary import Report, Verified, readable, show
from agents.demo.watch import Watch
from agents.demo.worker import WorkerProcess, merged_topics
from agents.engine.discover import discover, select
from agents.engine.kafka import kafka_config
from agents.engine.topology import Agent, registry_for
from agents.settings import Settings
from schemas.errors import ConfigError
from topics import names
from topics.admin import apply
from topics.admin import plan as plan_topics
from topics.connection import KafkaConfig, probe
from topics.dev_broker import EmbeddedBroker
from topics.spec import Registry

AGENTS = ("credit-risk", "product-quality")
_TELL_SECONDS = 3.0
MOST_RECORDS = 100_000
"""Of one demo: some two kilobytes of each are kept for the summary, and the embedded broker keeps all topics in memory."""
LATENCY = "lognormal:150ms:0.4"
"""Of the sandbox: some hundred milliseconds with a tail, as hosted models have it."""

_OWN_BROKER: dict[str, Any] = {"kafka_security": "PLAINTEXT", "delivery": "auto", "session_timeout": 4.0}
"""Settings towards the embedded broker, whatever those towards somebody's Kafka are. It makes a join wait half the session
timeout: a shorter one would start sooner, and lose the group on a machine that is busy for a moment."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line. `kafka` None starts the embedded broker; `rate` is records a second."""

    records: int = 1000
    rate: float = 40.0
    kafka: str | None = None
    model: Who = "sandbox"
    latency: str = LATENCY
    keep: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """What a running demo stands on."""

    options: Options
    settings: Settings
    config: KafkaConfig
    agents: list[Agent]
    registry: Registry
    promise: str
    folder: Path
    started: float

    @property
    def connection(self) -> dict[str, Any]:
        """aiokafka's connection arguments."""
        return {"bootstrap_servers": self.config.bootstrap, **self.config.aiokafka_kwargs()}

    def channels(self) -> list[Channels]:
        """The agents' topics by their names on the broker."""
        return [
            Channels(
                a.name, self.registry[a.reads.name].topic, self.registry[a.writes.name].topic,
                names.dead_letters(a.name), names.receipts(a.name), names.calls(a.name),
            )
            for a in self.agents
        ]  # fmt: skip


async def run(options: Options, settings: Settings, out: Console, err: Console) -> int:
    """Run the demo. Returns the exit status: 0 if every record is accounted for. Raises HeadraceError where it can not run.

    People read `err` while it runs and `out` at the end. Ctrl-C and SIGTERM end it and everything that it has started.
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    started = time.monotonic()
    # Before anything is started: with a model that refuses, nothing would be shown but records without an answer.
    probed = await check(options.model, settings, options.latency)
    for doubt in probed.doubts if probed is not None else ():
        err.print(f"warning: the model: {doubt}", markup=False, highlight=False)
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(_stage(options, settings, err, started))
        where = probed.where if probed is not None else ""
        model = await stack.enter_async_context(answering(options.model, stage.settings, options.latency, where))
        err.print(f"model: {model.says}", markup=False, highlight=False)
        report = await _replay(stage, model, out, err)
        show(report, out)
        if options.as_json:
            emit_json(report.as_json())
        if options.keep:
            await _keep(stage, err)
    return 0 if report.ok() else 1


def _folder() -> Path:
    """A fresh folder. Raises ConfigError where none can be made."""
    try:
        return Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    except OSError as error:
        raise ConfigError(f"making a folder for the demo: {error.strerror}; set TMPDIR to one that can be written") from error


@asynccontextmanager
async def _stage(options: Options, settings: Settings, err: Console, started: float) -> AsyncIterator[Stage]:
    """A broker, ours or the one that was named, with all topics; and a folder for logs and tables, gone at the end."""
    folder = _folder()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if options.kafka is None:
            broker = await stack.enter_async_context(EmbeddedBroker(folder))
            changed = {**_OWN_BROKER, "kafka": broker.bootstrap}
        else:
            changed = {"kafka": options.kafka}
        topics = merged_topics(settings.topics, HINTS)
        settings = settings.model_copy(update={**changed, "data_dir": str(folder), "topics": topics})
        agents = select(discover(), list(AGENTS))
        registry = registry_for(agents, settings)
        config = kafka_config(settings)
        facts = await probe(config)
        if facts.transactions and settings.delivery != "at-least-once":
            promise = "exactly once, in transactions"
        else:
            promise = "at least once, " + ("as configured" if facts.transactions else "the broker has no transactions")
        await apply(await plan_topics(registry, config, follows=follows(agents)), config)
        where = "the embedded broker (memory only)" if options.kafka is None else "Kafka"
        err.print(f"broker: {where} at {settings.kafka}; {promise}", markup=False, highlight=False)
        yield Stage(options, settings, config, agents, registry, promise, folder, started)


async def _replay(stage: Stage, model: Answering, out: Console, err: Console) -> Report:
    """Start the worker, replay, wait for every outcome, drain, verify, compare."""
    credit, data = german_credit(), milling()
    channels = stage.channels()
    async with AsyncExitStack() as stack:
        watch = Watch(stage.connection, (t for c in channels for t in c.outbound), (c.source for c in channels))
        stack.push_async_callback(watch.close)
        await watch.start()
        ledger = Ledger(channels, watch.ends)
        partitions = {c.agent: sum(1 for topic, _ in watch.ends if topic == c.source) for c in channels}
        worker = WorkerProcess(model.module, partitions, _worker_env(stage, model), stage.folder / "worker.log")
        # However this ends, the worker does too; on a Kafka of somebody's own it may leave its groups in good order first.
        stack.push_async_callback(worker.stop, 0.0 if stage.options.kafka is None else 5.0)
        worker.start()
        places = {spec.name: spec.topic for spec in stage.registry}
        replay = await stack.enter_async_context(Replay(stage.connection, places, ledger.note))
        plan = _plan(stage, credit, data)
        await _ahead(plan, replay, err)
        await worker.ready()
        err.print(f"worker: process {worker.pid}, ready after {time.monotonic() - stage.started:.1f} s", highlight=False)
        clock = await _follow(stage, plan, replay, watch, worker, ledger, err, model.patience)
        await _drain(stage, worker, err)
        verified = await _verify(stage)
    # In a thread: fitting and comparing take seconds, and a signal is heeded at once.
    credited, qualities = await asyncio.to_thread(_compare, ledger, credit, data)
    _show_examples(ledger, out)
    return Report(
        ledger=ledger,
        verified=verified,
        credit=credited,
        quality=qualities,
        model=stage.options.model,
        promise=stage.promise,
        seconds=clock.seconds,
        first_decision=clock.first_decision,
    )


def _compare(ledger: Ledger, credit: Credit, data: Milling) -> tuple[CreditComparison, QualityComparison]:
    readings = [p.row for p in ledger.sent.values() if p.what == "reading" and p.fault is None]
    return (
        compare_credit(ledger.accounts["credit-risk"].decisions, credit, credit_card(credit)),
        compare_quality(ledger.accounts["product-quality"].decisions, readings, data, milling_card(data)),
    )


async def _ahead(plan: Plan, replay: Replay, err: Console) -> None:
    """Write the customers of long standing, and say so now and then: there may be many."""
    writing = asyncio.create_task(replay.ahead(plan))
    try:
        while not (await asyncio.wait((writing,), timeout=_TELL_SECONDS))[0]:
            err.print(f"replay: {replay.written} customers written, before the clock starts", highlight=False)
        writing.result()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


@dataclass(slots=True)
class Clock:
    """Seconds: of the replay until the last outcome, and from the start of the command to the first decision."""

    seconds: float = 0.0
    first_decision: float | None = None


async def _follow(
    stage: Stage, plan: Plan, replay: Replay, watch: Watch, worker: WorkerProcess, ledger: Ledger, err: Console, patience: float
) -> Clock:
    """Replay while watching, until every record has its outcome, or there was no news for `patience` seconds."""
    clock = Clock()
    began = news = time.monotonic()
    with View(err, ledger, plan.counted, lambda: replay.sent) as view:

        def saw(seen: Seen) -> None:
            view.saw(seen)
            if clock.first_decision is None:
                clock.first_decision = time.monotonic() - stage.started
                err.print(f"first decision after {clock.first_decision:.1f} s: ", readable(seen), highlight=False)

        def take(record: Any, now_ms: float) -> None:
            nonlocal news
            news = time.monotonic()
            seen = ledger.take(record, now_ms)
            if seen is not None:
                saw(seen)

        watch.listen(take)
        sending = asyncio.create_task(replay.timed(plan))
        try:
            while not (sending.done() and ledger.settled()):
                await asyncio.sleep(0.05)
                watch.check()
                worker.check()
                view.tick()
                if sending.done():
                    sending.result()
                    if time.monotonic() - news > patience:
                        break
                else:
                    news = time.monotonic()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    clock.seconds = time.monotonic() - began
    return clock


async def _drain(stage: Stage, worker: WorkerProcess, err: Console) -> None:
    """SIGTERM, as an orchestrator would; says what the worker said if it did not end cleanly."""
    began = time.monotonic()
    status = await worker.stop(stage.settings.drain_timeout + 40)
    if status == 0:
        err.print(f"worker: drained in {time.monotonic() - began:.1f} s", highlight=False)
    else:
        err.print(f"worker: ended with status {status}; its last lines:\n{worker.tail()}", markup=False, highlight=False)


async def _verify(stage: Stage) -> Verified:
    """What `headrace verify` would say now, over all agents."""
    accounts = await verify_all(stage.settings, stage.agents)
    totals = [account.totals for account in accounts]
    return Verified(
        unaccounted=sum(t.unaccounted for t in totals),
        repeated=sum(t.repeated for t in totals),
        out_of_order=sum(t.out_of_order for t in totals),
        complaints=[f"{account.agent}: {offender}" for account in accounts for offender in account.all_offenders],
    )


def _plan(stage: Stage, credit: Credit, data: Milling) -> Plan:
    """Ids begin at 1 on a broker of our own; elsewhere they follow the clock, so that a second demo adds to the first."""
    now_ms = int(time.time() * 1000)
    first_id = 1 if stage.options.kafka is None else now_ms // 1000 * 1000
    return build(credit, data, stage.options.records, rate=stage.options.rate, start_ms=now_ms, first_id=first_id)


def _worker_env(stage: Stage, model: Answering) -> dict[str, str]:
    """The worker's HEADRACE_*, beside those it inherits."""
    own = _OWN_BROKER if stage.options.kafka is None else {}
    return {
        **{f"HEADRACE_{name.upper()}": str(value) for name, value in own.items()},
        "HEADRACE_KAFKA": stage.settings.kafka,
        "HEADRACE_TOPICS": json.dumps(stage.settings.topics),
        "HEADRACE_DATA_DIR": str(stage.folder),
        **model.env,
    }


def _show_examples(ledger: Ledger, out: Console) -> None:
    """One decision of each outcome, agent by agent: the one that has most to say."""
    out.rule("[bold]A few decisions", align="left")
    for agent, account in ledger.accounts.items():
        out.print(f"[bold underline]{agent}[/]")
        for outcome in sorted(account.examples):
            out.print(readable(account.examples[outcome]), highlight=False)


async def _keep(stage: Stage, err: Console) -> None:
    """Leave the broker and its topics running until Ctrl-C or SIGTERM, and say how to look at them."""
    if stage.options.kafka is not None:
        err.print("The topics stay on your Kafka.")
        return
    err.print("The broker and its topics stay until Ctrl-C. From another terminal:", highlight=False)
    err.print(f"  export HEADRACE_KAFKA={stage.settings.kafka}", highlight=False)
    if stage.settings.topics:
        # Without it the other terminal would read the demo's decimals and names as this installation has them.
        topics = shlex.quote(json.dumps(stage.settings.topics))
        err.print(f"  export HEADRACE_TOPICS={topics}", markup=False, highlight=False, soft_wrap=True)
    err.print("  headrace verify\n  headrace topics plan\n  headrace explain DECISION_ID", highlight=False)
    for spec in stage.registry:
        err.print(f"  {spec.topic}: {spec.description or spec.kind}", markup=False, highlight=False)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        # Being stopped is how this is meant to end: the demo's own status stands.
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
