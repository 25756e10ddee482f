"""CPU per record of every contender on the same records, interleaved, with the same output byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.processes import ROOT, contender
from tests.bench.shared import Json, spread
from tests.bench.topics import create, digest, fill

SOURCE = "bench.cost"
QUIX = ROOT / ".headrace" / "bench-venv"
REQUIREMENTS = Path(__file__).with_name("requirements-quix.txt")


@dataclass(frozen=True)
class Kind:
    """One contender: its module, what it is given, and whether it publishes."""

    name: str
    title: str
    module: str
    given: dict[str, str]


KINDS = (
    Kind("alone", "shared work alone (decode, features, decision; no Kafka)", "alone", {}),
    Kind("headrace-transactional", "(a) Headrace, transactional", "headrace", {"delivery": "exactly-once"}),
    Kind("hand-send-transactional", "(b) aiokafka by hand, transactional, send", "handwritten",
         {"delivery": "transactional", "build": "send"}),
    Kind("hand-batch-transactional", "(b) aiokafka by hand, transactional, create_batch", "handwritten",
         {"delivery": "transactional", "build": "batch"}),
    Kind("headrace-at-least-once", "(a) Headrace, at least once", "headrace", {"delivery": "at-least-once"}),
    Kind("hand-send-plain", "(b) aiokafka by hand, plain, send", "handwritten", {"delivery": "plain", "build": "send"}),
    Kind("hand-batch-plain", "(b) aiokafka by hand, plain, create_batch", "handwritten", {"delivery": "plain", "build": "batch"}),
    Kind("quixstreams", "(d) quixstreams 3.28, at least once", "quix", {}),
    Kind("faust", "(c) stock Faust agent", "stock_faust", {}),
)  # fmt: skip


def quix_python() -> Path:
    """The peer's own virtual environment, made from pinned, hashed requirements the first time."""
    python, done = QUIX / "bin" / "python", QUIX / ".done"
    wanted = REQUIREMENTS.read_text()
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", str(QUIX)], check=True)
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "-q",
                "install",
                "--require-hashes",
                "-r",
                str(REQUIREMENTS),
            ],
            check=True,
        )
        done.write_text(wanted)
    return python


async def measure(bootstrap: str, data_dir: Path, *, count: int, repeats: int, say: Callable[[str], None]) -> Json:
    """`repeats` rounds over all contenders. Raises AssertionError when two differ in what they decided."""
    await fill(bootstrap, SOURCE, count)
    python = quix_python()
    runs: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in KINDS}
    digests: dict[str, str] = {}
    for turn in range(repeats):
        for kind in KINDS:
            decisions = f"bench.cost.{kind.name}.{turn}"
            given = {
                "bootstrap": bootstrap, "source": SOURCE, "decisions": decisions, "count": count, "data_dir": str(data_dir),
                "group": decisions, **kind.given,
            }  # fmt: skip
            if kind.name != "alone":
                await create(bootstrap, decisions)
            async with contender(kind.module, given, python if kind.module == "quix" else None) as process:
                found = await process.result(timeout=90.0)
            runs[kind.name].append(found)
            say(f"{turn + 1}/{repeats} {kind.title}: {found['cpu_us']:.1f} us CPU, {found['records'] / found['seconds']:.0f}/s")
            if turn == 0 and kind.name != "alone":
                digests[kind.name] = await digest(bootstrap, decisions, count)
    assert len(set(digests.values())) == 1, f"the contenders decided differently: {digests}"
    return {"records": count, "repeats": repeats, "digest": next(iter(digests.values())), **summary(runs)}


def summary(runs: dict[str, list[dict[str, Any]]]) -> Json:
    """Spread of CPU per record, and of the ratios round by round: rounds share their neighbours' noise."""
    cpu = {name: [found["cpu_us"] for found in all_found] for name, all_found in runs.items()}
    rate = {name: spread([f["records"] / f["seconds"] for f in all_found]) for name, all_found in runs.items()}
    pairs = {
        "transactional / hand send": ("headrace-transactional", "hand-send-transactional"),
        "transactional / hand batch": ("headrace-transactional", "hand-batch-transactional"),
        "at least once / hand send": ("headrace-at-least-once", "hand-send-plain"),
        "at least once / hand batch": ("headrace-at-least-once", "hand-batch-plain"),
        "transactional / quixstreams": ("headrace-transactional", "quixstreams"),
        "faust / transactional": ("faust", "headrace-transactional"),
    }
    shared = cpu["alone"]
    ratios = {name: spread([a / b for a, b in zip(cpu[x], cpu[y], strict=True)]) for name, (x, y) in pairs.items()}
    beyond = {
        name: spread([(a - s) / (b - s) for a, b, s in zip(cpu[x], cpu[y], shared, strict=True)])
        for name, (x, y) in pairs.items()
    }
    transactions = [found["records"] / found["commits"] for found in runs["headrace-transactional"]]
    return {
        "cpu_us": {name: spread(values) for name, values in cpu.items()}, "rate": rate, "ratios": ratios,
        "ratios_beyond_shared_work": beyond, "records_per_transaction": spread(transactions),
    }  # fmt: skip
