"""An agent tried without Kafka: the running engine itself over records from a list, one outcome a record, in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from agents.engine.joins import Joins
from agents.engine.pipeline import Pipeline
from agents.engine.runtime import Engine
from agents.engine.spec import DecisionAgent
from agents.engine.verdicts import Masked, Site, unmasked
from models.contract import Scorer
from topics.handover import Finished, Outbound, Slot, TopicPartition
from topics.record import Raw
from topics.reference import Table

Agent = DecisionAgent[Any, Any, Any]
SLOT = 64
AHEAD = 1024
"""Records given to the engine before the first of them must have its outcome."""
DEAD_LETTER_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What one record came to. `decisions` and `judgements` are the JSON bodies, `dead_letters` the headers as text."""

    record: Raw
    kind: Literal["decision", "dead_letter", "skip"]
    rule: str | None
    decisions: Sequence[Mapping[str, Any]]
    judgements: Sequence[Mapping[str, Any]]
    dead_letters: Sequence[Mapping[str, str]]


@dataclass(slots=True)
class _Partition:
    """A partition that nobody else can own; finished records go to futures."""

    tp: TopicPartition
    start: int
    waiting: dict[int, asyncio.Future[Finished]]
    log_start: int = 0
    topic_partitions: int = 1
    dead: bool = False

    def finish(self, slot: Slot, index: int, outcome: Finished) -> None:
        self.waiting[slot.records[index].offset].set_result(outcome)

    def is_done(self, slot: Slot, index: int) -> bool:
        return False

    def limit(self, topic: str) -> int:
        return DEAD_LETTER_BYTES

    async def read_back(self, count: int) -> AsyncIterator[Sequence[Raw]]:
        return
        yield


@dataclass(frozen=True, slots=True)
class _Slot:
    records: Sequence[Raw]
    partition: _Partition


def numbered(records: Iterable[Raw]) -> list[Raw]:
    """The records with strictly increasing offsets per partition: a list typed by hand has none, or the same twice."""
    last: dict[tuple[str, int], int] = {}
    found = []
    for record in records:
        where = (record.topic, record.partition)
        offset = max(record.offset, last.get(where, -1) + 1)
        last[where] = offset
        stamped = record.timestamp or int(time.time() * 1000)
        found.append(replace(record, offset=offset, timestamp=stamped))
    return found


async def try_records(
    agent: Agent, records: Iterable[Raw], scorer: Scorer, *, tables: Mapping[str, Table] | None = None,
    fallback: Scorer | None = None, site: Site | None = None, masked: Masked = unmasked,
) -> AsyncIterator[TrialOutcome]:  # fmt: skip
    """One outcome a record, in their order. `tables` holds the rows of the agent's joins, by join name; `masked` as in Pipeline.

    The caller closes nothing: the scorers are closed when the records are through. A defect of the engine is raised.
    """
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    joins = Joins(agent, tables or {}) if agent.joins else None
    pipeline = Pipeline(
        agent, site or Site(manifest="trial"), dead_letters="dead-letters", judgements="judgements", joins=joins,
        wall_ms=lambda: int(time.time() * 1000), dead_letter_bytes=DEAD_LETTER_BYTES, masked=masked,
    )  # fmt: skip

    def fatal(error: BaseException) -> None:
        if not failed.done():
            failed.set_exception(error)

    engine = Engine(agent, pipeline, scorer, fallback=fallback, joins=joins, on_fatal=fatal)
    partitions: dict[tuple[str, int], _Partition] = {}
    everything = numbered(records)
    try:
        for first in range(0, len(everything), AHEAD):
            chunk = everything[first : first + AHEAD]
            for record in chunk:
                where = (record.topic, record.partition)
                if where not in partitions:
                    made = partitions[where] = _Partition(TopicPartition(*where), record.offset, {})
                    await engine.take(made)
                partitions[where].waiting[record.offset] = asyncio.get_running_loop().create_future()
            for where, partition in partitions.items():
                mine = [r for r in chunk if (r.topic, r.partition) == where]
                for i in range(0, len(mine), SLOT):
                    engine.offer(_Slot(mine[i : i + SLOT], partition))
            for record in chunk:
                waiting = partitions[record.topic, record.partition].waiting
                both: set[asyncio.Future[Any]] = {waiting[record.offset], failed}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
                yield _outcome(record, waiting.pop(record.offset).result())
    finally:
        if not failed.done():
            failed.cancel()
        await engine.close()


def _outcome(record: Raw, finished: Finished) -> TrialOutcome:
    def bodies(purpose: str) -> list[Outbound]:
        return [made for made in finished.outbound if made.purpose == purpose]

    decisions = [orjson.loads(made.value or b"null") for made in bodies("decision")]
    judgements = [orjson.loads(made.value or b"null") for made in bodies("audit")]
    dead = [
        {name: value.decode(errors="replace") for name, value in made.headers if name.startswith("headrace_")}
        for made in bodies("dead_letter")
    ]
    kind: Literal["decision", "dead_letter", "skip"] = "decision" if decisions else "dead_letter" if dead else "skip"
    return TrialOutcome(record, kind, finished.skip, decisions, judgements, dead)
