"""A contender and its server, each in a process of its own: the server starts when the contender has imported what it needs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.inference.server import serving
from tests.bench.processes import ROOT
from tests.bench.shared import Json


async def run(
    module: str, given: Json, server: dict[str, Any], python: Path | None, timeout: float, starting: asyncio.Semaphore
) -> tuple[Json, Json]:
    """(What the contender reports, the sandbox's meter). Raises RuntimeError with what the contender said when it failed.

    `starting` is held while processes start: what imports much takes the machine from those that are measured.
    """
    with tempfile.TemporaryFile() as log:
        await starting.acquire()
        held = True
        process = await asyncio.create_subprocess_exec(
            str(python or sys.executable), "-W", "ignore", "-m", f"tests.bench.inference.{module}", json.dumps(given),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            async with asyncio.timeout(timeout):
                said = await process.stdout.readline()
                if said.strip() != b"ready":
                    raise RuntimeError(f"{module}: {said.decode()!r}")
                async with serving(**server) as served:
                    starting.release()
                    held = False
                    process.stdin.write(json.dumps({"base_url": served.base_url, "started": served.started}).encode() + b"\n")
                    await process.stdin.drain()
                    out = (await process.stdout.read()).decode().strip().splitlines()
                    meter = await read_meter(served.base_url)
            if await process.wait() or not out:
                raise RuntimeError(f"{module} ended with status {process.returncode}")
            return json.loads(out[-1]), meter
        except (TimeoutError, RuntimeError) as error:
            log.seek(0)
            raise RuntimeError(f"{given}: {error!r}\n{log.read().decode(errors='replace')[-2000:]}") from None
        finally:
            if held:
                starting.release()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def read_meter(base_url: str) -> Json:
    """What the sandbox counted."""
    async with aiohttp.ClientSession() as session, session.get(base_url.replace("/v1", "/sandbox/meter")) as reply:
        found: Json = await reply.json()
        return found
