"""A real worker process that kills or stops itself at a named point: `python -m tests.support.fault_worker`.

Everything is the worker's own: settings from HEADRACE_*, Faust, transport, publisher, engine. Only the agent is a small one, its
scorer answers by itself after a moment, and a checkpoint sends this process a signal. Environment: FAULT_AGENT is the agent's
name (its topics are NAME-in and NAME-out); FAULT, where set, is POINT:SIGNAL:N, the N-th time that POINT is reached.
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
    """A Scorer that answers everything after `seconds`."""

    name = "instant"

    def __init__(self, fault: Fault, seconds: float) -> None:
        self._fault = fault
        self._seconds = seconds

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self._fault("call.before")
        await asyncio.sleep(self._seconds)
        self._fault("call.after")
        return [Answer("answered", self._answer(q), tier="python") for q in questions]

    @staticmethod
    def _answer(question: Question) -> OrderAnswer:
        assert isinstance(question.features, OrderFeatures)
        return OrderAnswer(risk=question.features.amount % 101, verdict="accept")

    async def close(self) -> None:
        """See models.contract.Scorer."""


def fault_agent(name: str, scorer: Any = None) -> Simple:
    """The agent of this process, with topics of its own."""
    reads = event_topic(f"{name}-in", Purchase, partitions=PARTITIONS)
    writes = out_topic(f"{name}-out", partitions=PARTITIONS)
    return simple_agent(scorer, name=name, reads=reads, writes=writes, in_flight=4, deadline="10s")


async def main() -> int:
    """Run until a signal."""
    settings = Settings()
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    fault = Fault(os.environ.get("FAULT", ""))
    agent = fault_agent(os.environ["FAULT_AGENT"], Instant(fault, float(os.environ.get("FAULT_CALL_SECONDS", "0.02"))))
    return await Worker([agent], settings, say=lambda line: print(line, flush=True), checkpoint=fault).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
