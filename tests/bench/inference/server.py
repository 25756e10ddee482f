"""The sandbox in a process of its own: `async with serving(...) as served`.

Its configuration is that of SandboxConfig, but `changes` and `outages` as `headrace sandbox` takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from models.sandbox.schedule import parse_changes, parse_outages
from models.sandbox.server import Sandbox, SandboxConfig
from tests.bench.processes import ROOT


@dataclass(frozen=True, slots=True)
class Served:
    """A sandbox that answers. `started` is when its account's time began, by `time.monotonic()`, which all processes share."""

    base_url: str
    started: float


@contextlib.asynccontextmanager
async def serving(**config: Any) -> AsyncIterator[Served]:
    """A sandbox with this configuration, for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.inference.server", json.dumps(config), stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield Served(**json.loads(line))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def main() -> None:
    """Serve until standard input ends."""
    given = json.loads(sys.argv[1])
    given["changes"] = parse_changes(given.get("changes", ""))
    given["outages"] = parse_outages(given.get("outages", ""))
    started = time.monotonic()
    async with Sandbox(SandboxConfig(**given)) as sandbox:
        sys.stdout.write(json.dumps({"base_url": sandbox.base_url, "started": started}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
