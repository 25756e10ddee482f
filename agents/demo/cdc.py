"""The demo of the real chain: rows in PostgreSQL become decisions, and the decisions are written back into the rows."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agents.cli.topics import follows
from agents.cli.verify import verify_all
from agents.demo.answering import answering
from agents.demo.cdc_chain import Chain
from agents.demo.cdc_changes import Change, Database, Effect, changes, first
from agents.demo.cdc_tables import CAPTURED, create
from agents.demo.cdc_writeback import WriteBack, applied
from agents.demo.datasets import german_credit
from agents.demo.worker import WorkerProcess, merged_topics
from agents.engine.discover import Agent, discover, select
from agents.engine.kafka import kafka_config
from agents.engine.topology import registry_for
from agents.settings import Settings
from topics.admin import apply as apply_topics
from topics.admin import plan as plan_topics
from topics.verify.facts import Account
from topics.verify.report import lines, passed

AGENT = "credit-risk"
PLACES: dict[str, dict[str, object]] = {
    "loan-applications": {"physical": "bank.public.loan_application", "decimals": {"amount": 2}},
    "customers": {"physical": "bank.public.customer", "decimals": {"income": 2}},
}
"""HEADRACE_TOPICS: what Debezium calls the agent's topics, and the scale of numerics, which JSON without schemas leaves out."""
QUIET_SECONDS = 90.0
"""Waiting for the last outcomes ends when nothing has moved for so long."""
LATENCY = "150ms"


@dataclass(frozen=True, slots=True)
class Options:
    """How many applications there are at the start, how long the sandbox takes for an answer, and whether JSON is wanted."""

    applications: int = 40
    latency: str = LATENCY
    as_json: bool = False


@dataclass(slots=True)
class Report:
    """What was done in SQL, what came of it, and whether that is all of it."""

    expected: Effect = field(default_factory=Effect)
    counts: dict[str, int] = field(default_factory=dict)
    accounts: list[Account] = field(default_factory=list)
    undecided: int = 0
    worker_status: int = 0
    seconds: float = 0.0

    @property
    def skips(self) -> dict[str, int]:
        """Skipped records by rule, from the receipts."""
        return dict(self.accounts[0].skips)

    @property
    def second_decisions(self) -> int:
        """Decisions beyond those that the changes in SQL ask for: what write-backs would have caused."""
        return self.counts["decisions"] - self.expected.decisions

    @property
    def echoes(self) -> int:
        """Write-backs that came in again as changes and were skipped, because nothing watched had changed."""
        return self.skips.get("unwatched-change", 0) - self.expected.unwatched

    def complaints(self) -> list[str]:
        """What is not as it should be, for a person; empty when all is well."""
        totals, counts, expected = self.accounts[0].totals, self.counts, self.expected
        due = {
            "decisions": (counts["decisions"], expected.decisions),
            "retractions": (counts["retractions"], expected.retractions),
            "write-backs that came in again and were skipped": (self.echoes, counts["write_backs"]),
            "tombstones skipped": (self.skips.get("tombstone", 0), expected.tombstones),
            "amendments of withdrawn applications skipped": (self.skips.get("application-withdrawn", 0), expected.withdrawn),
            "input records": (totals.records, expected.records + counts["write_backs"]),
            "dead letters": (totals.dead_letters, 0),
            "open applications without a decision": (self.undecided, 0),
            "exit status of the worker": (self.worker_status, 0),
        }
        found = [f"{what}: {is_} and not {should}" for what, (is_, should) in due.items() if is_ != should]
        return found if passed(self.accounts) else [*found, "headrace verify found offenders"]

    def as_json(self) -> dict[str, Any]:
        """The last line of stdout."""
        totals = self.accounts[0].totals
        return {
            "ok": not self.complaints(), "records": totals.records, **self.counts, "dead_letters": totals.dead_letters,
            "skips": self.skips, "second_decisions": self.second_decisions, "unaccounted": totals.unaccounted,
            "repeated": totals.repeated, "out_of_order": totals.out_of_order, "undecided": self.undecided,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


async def run(options: Options, settings: Settings, out: Console, err: Console) -> int:
    """Run the demo. Returns the exit status: 0 if everything that was done in SQL ended in its outcome, once.

    Raises ConfigError where Java, Maven, PostgreSQL or psycopg is missing. Ctrl-C and SIGTERM end it and all it has started.
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(Chain(Path(settings.data_dir), say=lambda text: _say(err, text)))
        here = settled_at(settings, chain)
        db = await psycopg.AsyncConnection.connect(chain.postgres.conninfo, autocommit=True)
        stack.push_async_callback(db.close)
        report = await _play(options, here, chain, db, err)
        report.seconds = time.monotonic() - started
        await _show(report, db, out)
    if options.as_json:
        out.file.write(json.dumps(report.as_json()) + "\n")
        out.file.flush()
    return 1 if report.complaints() else 0


def settled_at(settings: Settings, chain: Chain) -> Settings:
    """These settings for the chain's own broker, where Debezium has chosen the names of the topics."""
    return settings.model_copy(update={
        "kafka": chain.kafka.bootstrap, "kafka_security": "PLAINTEXT", "data_dir": str(chain.folder),
        "topics": merged_topics(settings.topics, PLACES),
    })  # fmt: skip


def worker_env(settings: Settings) -> dict[str, str]:
    """What a worker process is told of these settings."""
    return {
        "HEADRACE_KAFKA": settings.kafka, "HEADRACE_KAFKA_SECURITY": settings.kafka_security,
        "HEADRACE_TOPICS": json.dumps(settings.topics), "HEADRACE_DATA_DIR": settings.data_dir,
    }  # fmt: skip


async def prepare(settings: Settings, agents: list[Agent]) -> int:
    """Create the agents' topics before Debezium would, with the right cleanup. Returns the partitions of the source."""
    registry, config = registry_for(agents, settings), kafka_config(settings)
    await apply_topics(await plan_topics(registry, config, follows=follows(agents)), config)
    return registry["loan-applications"].partitions


async def _play(options: Options, settings: Settings, chain: Chain, db: Database, err: Console) -> Report:
    rows, now_ms = german_credit().replay, int(time.time() * 1000)
    agents = select(discover(), [AGENT])
    report = Report()
    await create(db)
    await _do(first(rows, options.applications, now_ms), db, report, err)
    partitions = await prepare(settings, agents)
    await chain.capture(CAPTURED)
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(answering("sandbox", settings, options.latency))
        _say(err, f"Starting headrace worker {AGENT}; model: {model.says} ...")
        env = {**worker_env(settings), **model.env}
        worker = WorkerProcess(model.module, {AGENT: partitions}, env, chain.folder / "worker.log")
        stack.push_async_callback(worker.stop, 0.0)  # unless it has drained by then
        worker.start()
        await worker.ready()
        decisions = registry_for(agents, settings)[agents[0].writes.name].topic
        connection = {"bootstrap_servers": settings.kafka}
        subscriber = WriteBack(chain.postgres.conninfo, connection, decisions, say=lambda text: _say(err, text))
        stack.push_async_callback(subscriber.close)
        await subscriber.start()
        writing = asyncio.create_task(subscriber.run())
        stack.callback(writing.cancel)
        pulse = Pulse(worker, writing)
        # The snapshot is one moment of the database: what happens before it is no change. So it comes first.
        await _until_decided(db, report, pulse)
        for change in changes(rows, options.applications, now_ms):
            await _do(change, db, report, err)
            await asyncio.sleep(0.4)
        await _until_decided(db, report, pulse)
        await _until_closed(settings, agents, db, report, pulse)
        report.worker_status = await worker.stop(settings.drain_timeout + 20)
    report.counts = await applied(db)
    report.accounts = await verify_all(settings, agents)
    report.undecided = await _undecided(db)
    return report


@dataclass(slots=True)
class Pulse:
    """Whether those still live that the outcome depends on, and for how long nothing has moved."""

    worker: WorkerProcess
    writing: asyncio.Task[None]
    _last: object = None
    _moved: float = field(default_factory=time.monotonic)

    def beat(self, now: object) -> bool:
        """True while there is hope: `now` has changed within the limit. Raises what has ended the worker or the subscriber."""
        self.worker.check()
        if self.writing.done():
            self.writing.result()
        if now != self._last:
            self._last, self._moved = now, time.monotonic()
        return time.monotonic() - self._moved < QUIET_SECONDS


async def _do(change: Change, db: Database, report: Report, err: Console) -> None:
    _say(err, f"SQL: {change.title}")
    await change.run(db)
    report.expected += change.effect


async def _until_decided(db: Database, report: Report, pulse: Pulse) -> None:
    """Wait until as many decisions and retractions are in the database as the changes so far ask for."""
    expected = report.expected
    while pulse.beat(counts := await applied(db)):
        if counts["decisions"] >= expected.decisions and counts["retractions"] >= expected.retractions:
            return
        await asyncio.sleep(0.1)


async def _until_closed(settings: Settings, agents: list[Agent], db: Database, report: Report, pulse: Pulse) -> None:
    """Wait until the write-backs have come in again as changes and receipts have closed them, too."""
    while True:
        accounts = await verify_all(settings, agents)
        totals, counts = accounts[0].totals, await applied(db)
        due = report.expected.records + counts["write_backs"]
        if (totals.records >= due and not totals.pending) or not pulse.beat(totals.as_dict()):
            return
        await asyncio.sleep(0.5)


async def _undecided(db: Database) -> int:
    """Open applications whose row carries no decision."""
    row = await (
        await db.execute("SELECT count(*) FROM loan_application WHERE decision_id IS NULL AND status <> 'withdrawn'")
    ).fetchone()
    assert row is not None
    return int(row[0])


async def _show(report: Report, db: Database, out: Console) -> None:
    """Rows as the bank sees them now, what became of everything, and what headrace verify says."""
    cursor = await db.execute(
        "SELECT id, amount, duration_months, status, decision_score, decision_reasons FROM loan_application"
        " ORDER BY id IN (1, 2, 5, 6, 7, 90004) DESC, id LIMIT 10"
    )
    columns = ("id", "amount", "months", "status", "score", "reasons")
    table = Table(*columns, title="loan_application in PostgreSQL", title_justify="left")
    for row in await cursor.fetchall():
        table.add_row(*("" if value is None else escape(str(value)) for value in row))
    out.print(table)
    counts = report.counts
    out.print(
        f"{counts['decisions']} decisions and {counts['retractions']} retractions for {report.expected.records} changes in SQL; "
        f"{counts['write_backs']} written back, {report.echoes} of these came in again as changes and were skipped, "
        f"{report.second_decisions} caused a second decision.",
        highlight=False,
    )
    for account in report.accounts:
        for line in lines(account):
            out.print(line, markup=False, highlight=False)
    for complaint in report.complaints():
        out.print(f"NOT as it should be: {complaint}", markup=False, highlight=False)


def _say(err: Console, text: str) -> None:
    err.print(text, markup=False, highlight=False)


