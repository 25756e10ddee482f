"""Real worker processes on a real broker: start them, let faults strike, wait until all input has its outcome, verify."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.engine.topology import registry_for
from agents.settings import Settings
from schemas.receipt import Receipt
from tests.support.fault_worker import PARTITIONS, fault_agent
from tests.support.kafka import read_all
from topics import names
from topics.admin import apply, plan
from topics.connection import KafkaConfig
from topics.dev_broker import LocalBroker
from topics.ends import end_offsets
from topics.verify.facts import Account
from topics.verify.read import Target, verify_agent
from topics.verify.report import lines

ROOT = Path(__file__).resolve().parents[2]
RUNNING = "asking instant"
"""What a worker says of its agent when it starts."""
SESSION = 6.0
"""Seconds: the shortest session that Apache Kafka allows by default."""


class Member:
    """One worker process. Its output goes to a file that a failing test shows."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def calls(self, step: str) -> list[int]:
        """The amounts that it asked the model about (step "asked"), or had answered ("answered"), in order, repeats included."""
        lines = self.log.with_suffix(".calls").read_text(encoding="ascii").splitlines()
        return [int(amount) for line in lines for name, *amounts in [line.split()] if name == step for amount in amounts]

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    async def running(self, seconds: float = 90.0) -> None:
        """Wait until it is up: from then on SIGTERM drains it."""
        await until(lambda: RUNNING in self.said() or self.process.poll() is not None, seconds, f"start of {self.log}")
        assert RUNNING in self.said(), f"it ended with {self.process.returncode}:\n{self.said()[-3000:]}"

    async def ended(self, seconds: float = 90.0) -> int:
        """Its exit status, -N for a signal N."""
        await until(lambda: self.process.poll() is not None, seconds, f"end of {self.log}")
        assert self.process.returncode is not None
        return self.process.returncode

    async def stopped(self, seconds: float = 90.0) -> None:
        """Wait until SIGSTOP has taken hold."""
        await until(lambda: state(self.process.pid) == "T", seconds, f"stop of {self.log}")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


def state(pid: int) -> str:
    """The letter of a process's state, "T" when stopped; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, at most so long. Raises TimeoutError naming it."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        await asyncio.sleep(0.05)


@dataclass
class Fleet:
    """Workers of one agent with topics of its own."""

    broker: LocalBroker
    agent: str
    folder: Path
    delivery: str = "auto"
    members: list[Member] = field(default_factory=list)
    produced: int = 0

    @property
    def target(self) -> Target:
        """What to verify."""
        agent = self.agent
        return Target(
            agent, f"{agent}-in", f"{agent}-out", names.dead_letters(agent), names.receipts(agent),
            names.group("headrace", agent), judgements=names.judgements(agent), calls=names.calls(agent),
        )  # fmt: skip

    async def create(self) -> None:
        """Create every topic of the agent, as `headrace topics apply` does."""
        config = KafkaConfig(self.broker.bootstrap)
        specs = list(registry_for([fault_agent(self.agent)], Settings()))
        await apply(await plan(specs, config), config)

    async def produce(self, count: int, *, pause: float = 0.0) -> None:
        """Input of every kind: to be asked about, decided by rule, skipped, undecodable; twelve keys over all partitions."""
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all", request_timeout_ms=30_000)
        await producer.start()
        try:
            for _ in range(count):
                n = self.produced = self.produced + 1
                who = f"customer-{n % 12}"
                wish = "skip" if n % 17 == 0 else "rule" if n % 13 == 0 else ""
                value = b"{not json" if n % 29 == 0 else orjson.dumps({"who": who, "amount": n, "wish": wish})
                await producer.send(f"{self.agent}-in", value, who.encode(), partition=n % 12 % PARTITIONS)
                if pause:
                    await asyncio.sleep(pause)
        finally:
            await producer.stop()

    def start(self, *, fault: str = "", call_seconds: float = 0.02, hang: str = "") -> Member:
        """Start a worker, with a fault or without. `hang`: amounts, with spaces between, whose calls never end."""
        number = len(self.members)
        log = self.folder / f"worker-{number}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "FAULT"))}
        environment |= {
            "HEADRACE_KAFKA": self.broker.bootstrap, "HEADRACE_DELIVERY": self.delivery,
            "HEADRACE_SESSION_TIMEOUT": str(SESSION), "HEADRACE_REBALANCE_TIMEOUT": "8", "HEADRACE_DRAIN_TIMEOUT": "3",
            "HEADRACE_TRANSACTION_TIMEOUT": "20", "HEADRACE_DATA_DIR": str(self.folder / f"data-{number}"),
            "FAULT_AGENT": self.agent, "FAULT": fault, "FAULT_CALL_SECONDS": str(call_seconds),
            "FAULT_CALLS": str(log.with_suffix(".calls")), "FAULT_HANG": hang,
        }  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fault_worker"], cwd=ROOT, env=environment, stdout=out, stderr=out
            )
        member = Member(process, log)
        self.members.append(member)
        return member

    async def lag(self) -> int:
        """How many offsets of the source the group has not committed."""
        settings = {"bootstrap_servers": self.broker.bootstrap, "enable_auto_commit": False}
        tps = [TopicPartition(f"{self.agent}-in", n) for n in range(PARTITIONS)]
        ends = await end_offsets({"bootstrap_servers": self.broker.bootstrap}, tps)
        consumer = AIOKafkaConsumer(group_id=self.target.group, **settings)
        await consumer.start()
        try:
            return sum([ends[tp] - (await consumer.committed(tp) or 0) for tp in tps])
        finally:
            await consumer.stop()

    async def drained(self, seconds: float = 120.0) -> None:
        """Wait until the group has committed the end of every partition of the source."""
        limit = time.monotonic() + seconds
        while left := await self.lag():
            if time.monotonic() > limit:
                raise TimeoutError(f"after {seconds:.0f} s {left} records are left\n{self.logs()}")
            await asyncio.sleep(0.2)

    async def receipted(self, seconds: float = 90.0) -> None:
        """Wait until the first receipt is there: the group stands, and work is under way."""
        tps = [TopicPartition(self.target.receipts, n) for n in range(PARTITIONS)]
        limit = time.monotonic() + seconds
        while not any((await end_offsets({"bootstrap_servers": self.broker.bootstrap}, tps)).values()):
            if time.monotonic() > limit:
                raise TimeoutError(f"no receipt after {seconds:.0f} s\n{self.logs()}")
            await asyncio.sleep(0.2)

    async def closed(self) -> set[int]:
        """The amounts of the records that receipts have closed so far, those of transactions that are open now included."""
        found = [Receipt.model_validate_json(r.value or b"") for r in await read_all(self.broker.bootstrap, self.target.receipts)]
        inputs: dict[int, list[int]] = {n: [] for n in range(PARTITIONS)}
        for n in range(1, self.produced + 1):
            inputs[n % 12 % PARTITIONS].append(n)
        return {inputs[r.partition][at] for r in found for first, end in r.closed for at in range(first, end)}

    async def stop(self) -> None:
        """SIGTERM every worker that is there; each must drain and end with status 0."""
        running = [m for m in self.members if m.process.poll() is None]
        for member in running:
            member.signal(signal.SIGTERM)
        for member in running:
            assert await member.ended() == 0, member.said()[-3000:]

    async def verified(self) -> Account:
        """`headrace verify` finds every record that was produced, with one outcome each and nothing that offends."""
        account = await verify_agent({"bootstrap_servers": self.broker.bootstrap}, self.target)
        told = "\n".join(lines(account)) + self.logs()
        assert account.ok, told
        totals = account.totals
        assert (totals.records, totals.unaccounted, totals.pending, totals.lost) == (self.produced, 0, 0, 0), told
        assert totals.decisions + totals.dead_letters + totals.skips == self.produced, told
        assert min(totals.decisions, totals.dead_letters, totals.skips) > 0, told
        assert totals.anchored >= 2 * totals.decisions + totals.dead_letters, told
        return account

    def logs(self) -> str:
        """The last of what each worker has said."""
        return "".join(f"\n--- {m.log.name} (status {m.process.poll()})\n{m.said()[-2500:]}" for m in self.members)

    def close(self) -> None:
        """End whatever is still there."""
        for member in self.members:
            if member.process.poll() is None:
                member.signal(signal.SIGCONT)
                member.process.kill()
            member.process.wait()
