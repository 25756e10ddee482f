"""Contenders as processes: started, watched through /proc, ended, and their last line of output read as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Contender:
    """One process. `result` waits for its end."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Any) -> None:
        self.name = name
        self._process = process
        self._log = log

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def ended(self) -> bool:
        """Whether it has left."""
        return self._process.returncode is not None

    def terminate(self) -> None:
        """SIGTERM: it drains and reports."""
        if not self.ended:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """At once."""
        if not self.ended:
            self._process.kill()

    async def told(self, timeout: float, line: str = "") -> dict[str, Any]:
        """Its next line, after it was given `line` if that is not empty. Raises RuntimeError as `result` does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if line:
            self._process.stdin.write(line.encode() + b"\n")
        try:
            said = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            said = b""
        if not said:
            raise RuntimeError(f"{self.name}: said nothing within {timeout:.0f} s\n{self.said()}")
        found: dict[str, Any] = json.loads(said)
        return found

    async def result(self, timeout: float) -> dict[str, Any]:
        """Its last line. Raises RuntimeError with what it said when it failed or took too long."""
        try:
            out, _ = await asyncio.wait_for(self._process.communicate(), timeout)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise RuntimeError(f"{self.name}: not done after {timeout:.0f} s\n{self.said()}") from None
        lines = out.decode().strip().splitlines()
        if self._process.returncode or not lines:
            raise RuntimeError(f"{self.name}: status {self._process.returncode}\n{self.said()}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def said(self) -> str:
        """The end of its standard error."""
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-15:])


@contextlib.asynccontextmanager
async def contender(module: str, given: dict[str, Any], python: Path | None = None) -> AsyncIterator[Contender]:
    """Run `tests.bench.contenders.MODULE`, or a module named in full, with a configuration; afterwards it has ended."""
    name = module if "." in module else f"tests.bench.contenders.{module}"
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            str(python or sys.executable), "-W", "ignore", "-m", name, json.dumps(given),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started = Contender(module, process, log)
        try:
            yield started
        finally:
            if not started.ended:
                started.kill()
                await process.wait()
