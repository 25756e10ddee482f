"""The worker of the demo: a real `headrace worker` process, watched through its metrics as an SRE would."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import FatalError
from topics.dev_broker import free_port
from topics.local.process import Child

_START_SECONDS = 90.0
_LIMIT = aiohttp.ClientTimeout(total=2)


class WorkerProcess:
    """`start`, `ready`, `stop`. `module` is what `python -m` runs, `partitions` says for each agent how many source
    partitions there are to take."""

    def __init__(self, module: Sequence[str], partitions: Mapping[str, int], env: Mapping[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", *module, *partitions]
        self._partitions = dict(partitions)
        self._port = free_port()
        self._env = {**os.environ, **env, "HEADRACE_METRICS_PORT": str(self._port), "HEADRACE_METRICS_HOST": "127.0.0.1"}
        self._log = log
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Its process id. Raises LookupError before `start`."""
        if self._child is None:
            raise LookupError("the worker was not started")
        return self._child.pid

    def start(self) -> None:
        """Start the process; it ends with us, however we end."""
        self._child = Child("the worker", self._command, log=self._log, env=self._env)

    async def ready(self) -> None:
        """Wait until every agent owns all its partitions. Raises FatalError if the worker ends first, or takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        async with aiohttp.ClientSession(timeout=_LIMIT) as session:
            while True:
                self.check()
                taken = await self._taken(session)
                if all(taken.get(agent, 0) >= count for agent, count in self._partitions.items()):
                    return
                if loop.time() > deadline:
                    late = f"starting the worker: not ready after {_START_SECONDS:.0f} s; its last lines:"
                    raise FatalError(f"{late}\n{self.tail()}")
                await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raises FatalError with the worker's last lines if it has ended."""
        if self._child is not None and not self._child.running:
            raise FatalError(f"running the worker: it has ended; its last lines:\n{self.tail()}")

    async def stop(self, seconds: float) -> int:
        """Drain it (SIGTERM), after so many seconds end it. Returns its exit status, 0 for a clean drain. Safe to call twice."""
        if self._child is None:
            return 0
        return await asyncio.to_thread(self._child.stop, seconds)

    def kill(self) -> None:
        """End it at once. Safe to call twice."""
        if self._child is not None:
            self._child.kill()

    def tail(self) -> str:
        """The end of its log."""
        return self._child.tail() if self._child is not None else ""

    async def _taken(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """How many partitions each agent has taken, by its metrics; nothing while they are not served yet."""
        try:
            async with session.get(f"http://127.0.0.1:{self._port}/metrics") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return {
            sample.labels["agent"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "headrace_transport_events_total" and sample.labels.get("event") == "taken"
        }


Overrides = Mapping[str, Mapping[str, object]]


def merged_topics(configured: Overrides, hints: Overrides) -> dict[str, dict[str, object]]:
    """What the settings say of topics, on top of what the demo's own records need said."""
    return {name: {**hints.get(name, {}), **configured.get(name, {})} for name in {**hints, **configured}}
