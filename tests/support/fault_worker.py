"""A real worker process that kills or stops itself at a named point: `python -m tests.support.fault_worker`.

Everything is the worker's own: settings from HEADRACE_*, Faust, transport, publisher, engine. Only the agent is a small one, its
scorer answers by itself after a moment, and a checkpoint sends this process a signal. Environment: FAULT_AGENT is the agent's
name (its topics are NAME-in and NAME-out); FAULT, where set, is POINT:SIGNAL:N, the N-th time that POINT is reached. FAULT_CALLS
is a file that gets a line for each call as it begins and as it ends; FAULT_HANG are amounts whose calls never end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from agents.engine.log_repeats import Repeats
from agents.engine.process import Worker
from agents.settings import Settings
from models.contract import Answer, Question
from tests.support.simple_agent import OrderAnswer, OrderFeatures, Purchase, Simple, simple_agent
from topics.publish.contract import CHECKPOINTS
from topics.spec import event_topic, out_topic

POINTS = ("call.before", "call.after", *CHECKPOINTS)
"""Where a fault can strike: around the call of the model, and at the transport's own checkpoints."""
PARTITIONS = 3
IN_FLIGHT = 4
"""Calls at the same time, each about up to four records."""


class Fault:
    """Sends this process a signal the `number`-th time that `point` is reached."""

    def __init__(self, text: str) -> None:
        point, _, rest = text.partition(":")
        name, _, number = rest.partition(":")
        if point and point not in POINTS:
            raise SystemExit(f"FAULT names no point: {point}")
        self._point = point
        self._signal = signal.Signals[name or "SIGKILL"]
        self._left = int(number or 1)

    def __call__(self, point: str) -> None:
        """Strike, if this is the place and the time."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            print(f"STRIKING {point} {self._signal.name}", flush=True)
            os.kill(os.getpid(), self._signal)


class Instant:
    """A Scorer that answers everything after `seconds`, but never a call about one of the amounts `hang`.

    `calls` gets a line "asked AMOUNT ..." or "answered AMOUNT ..." for each step of a call, written before the step is over:
    what a SIGKILL leaves there is what the model has seen.
    """

    name = "instant"

    def __init__(self, fault: Fault, seconds: float, calls: str, hang: frozenset[int] = frozenset()) -> None:
        self._fault = fault
        self._seconds = seconds
        self._hang = hang
        self._calls = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _note(self, step: str, amounts: Sequence[int]) -> None:
        os.write(self._calls, f"{step} {' '.join(map(str, amounts))}\n".encode())

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        amounts = [q.features.amount for q in questions if isinstance(q.features, OrderFeatures)]
        self._note("asked", amounts)
        self._fault("call.before")
        await asyncio.sleep(3600 if self._hang.intersection(amounts) else self._seconds)
        self._note("answered", amounts)
        self._fault("call.after")
        return [Answer("answered", self._answer(q), tier="python") for q in questions]

    @staticmethod
    def _answer(question: Question) -> OrderAnswer:
        assert isinstance(question.features, OrderFeatures)
        return OrderAnswer(risk=question.features.amount % 101, verdict="accept")

    async def close(self) -> None:
        """See models.contract.Scorer."""
        os.close(self._calls)


def fault_agent(name: str, scorer: Any = None) -> Simple:
    """The agent of this process, with topics of its own."""
    reads = event_topic(f"{name}-in", Purchase, partitions=PARTITIONS)
    writes = out_topic(f"{name}-out", partitions=PARTITIONS)
    return simple_agent(scorer, name=name, reads=reads, writes=writes, in_flight=IN_FLIGHT, deadline="120s")


async def main() -> int:
    """Run until a signal."""
    settings = Settings()
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    fault = Fault(os.environ.get("FAULT", ""))
    hang = frozenset(int(amount) for amount in os.environ.get("FAULT_HANG", "").split())
    seconds = float(os.environ.get("FAULT_CALL_SECONDS", "0.02"))
    agent = fault_agent(os.environ["FAULT_AGENT"], Instant(fault, seconds, os.environ["FAULT_CALLS"], hang))
    return await Worker([agent], settings, say=lambda line: print(line, flush=True), checkpoint=fault).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
