"""Engine: one running agent. It takes record lists, keeps keys in order, asks in micro-batches and hands outcomes back.

It implements topics.handover.Handler. Everything happens in one event loop; nothing here blocks and nothing here knows Kafka
or a vendor: the transport bounds what is held, the scorer meets its deadline or is left.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agents.engine.batch import Batcher
from agents.engine.duration import millis
from agents.engine.joins import Joins
from agents.engine.lanes import Lane, Lanes
from agents.engine.pipeline import Item, Pipeline, finished, ordered
from agents.engine.spec import DecisionAgent
from agents.engine.state import PartitionState
from agents.engine.turns import Turns
from models.contract import Answer, Ask, Paced, Question, Scorer, Weighing
from models.gates.arrival import Coming, on_arrival
from schemas.errors import FatalError, RecordTooLarge
from schemas.receipt import Position
from topics.handover import OwnedPartition, Slot, TopicPartition

Agent = DecisionAgent[Any, Any, Any]
CURABLE = frozenset({"timeout", "unavailable", "limited", "rejected", "budget"})
"""What an agent that waits for an answer waits out; the rest is about the record itself and would be the same next time."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
MOST_REJECTIONS = 12
"""About two minutes of asking again; then the record is decided without an answer."""
FALLBACK_SECONDS = 2.0
OVERSTAY_SECONDS = 2.0
"""How far past its deadline a scorer is waited for: it should say itself what is late, and knows more of it than we do."""


@dataclass(slots=True, eq=False)
class Record:
    """One handed record, until all its parts are finished. `since` is when it was handed over.

    `held` are lanes whose part of it has its outcome: what is behind them waits until the whole record is handed back, or it
    would overtake.
    """

    partition: OwnedPartition
    slot: Slot
    index: int
    items: list[Item]
    left: int
    since: float
    held: list[Lane[Entry]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Entry:
    """An item in its lane; `weight` in bytes, `tokens` in those of a prompt, None until somebody has weighed it.

    `attempts` were in vain so far; `rejections` are those among them that it was rejected in.
    """

    record: Record
    item: Item
    weight: int
    attempts: int = 0
    rejections: int = 0
    tokens: int | None = None


@dataclass(slots=True)
class Work:
    """What the engine holds for one owned partition."""

    partition: OwnedPartition
    state: PartitionState
    lanes: Lanes[Entry] = field(default_factory=Lanes)


class Purse(Protocol):
    """Knows what asking about a partition's records costs."""

    async def take(self, partition: OwnedPartition) -> None:
        """The partition is newly ours: find out what was spent on it."""
        ...

    def lose(self, tp: TopicPartition) -> None:
        """The partition is another's."""
        ...

    def spent(self, tp: TopicPartition) -> Mapping[str, int]:
        """What goes into its receipts: see topics.handover.Handler.spend."""
        ...


@dataclass(slots=True)
class EngineStats:
    """Counters of the engine itself; those of records and outcomes are the pipeline's."""

    batches: int = 0
    asked: int = 0
    in_flight: int = 0
    waited: int = 0
    unanswered: dict[str, int] = field(default_factory=dict)


class Engine:
    """One agent, running. `on_fatal` is told of a defect that must end the process; nothing is finished after it.

    `ready` is awaited before a partition is taken (reference tables), `positions` says how far those tables have been read.
    `owned` is told the part of all partitions that is ours, 0 to 1, whenever it changes. `purse` keeps the
    budget, where there is one.
    """

    def __init__(
        self, agent: Agent, pipeline: Pipeline, scorer: Scorer, *, on_fatal: Callable[[BaseException], None],
        fallback: Scorer | None = None, joins: Joins | None = None,
        ready: Callable[[TopicPartition], Awaitable[None]] | None = None,
        positions: Callable[[], Sequence[Position]] | None = None, owned: Callable[[float], None] | None = None,
        purse: Purse | None = None,
    ) -> None:  # fmt: skip
        self.agent = agent
        self.pipeline = pipeline
        self.stats = EngineStats()
        self._scorer = scorer
        self._fallback = fallback
        self._joins = joins
        self._on_fatal = on_fatal
        self._ready = ready
        self._positions = positions
        self._owned = owned
        self._purse = purse
        self._seconds = millis(agent.deadline) / 1000
        self._weighing = scorer if isinstance(scorer, Weighing) and agent.batch.prompt_tokens is not None else None
        self._batcher: Batcher[Entry] = Batcher(
            _bytes if self._weighing is None else self._weights,
            size=records_in_a_batch(agent), within=millis(agent.batch.within) / 1000, max_bytes=agent.batch.bytes,
            max_tokens=math.inf if agent.batch.prompt_tokens is None else agent.batch.prompt_tokens,
            reserve=min(self._seconds / 2, 1.0),
        )  # fmt: skip
        self._works: dict[TopicPartition, Work] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._waits: set[asyncio.Task[None]] = set()
        self._left: set[asyncio.Future[Any]] = set()
        self._turns = Turns()
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._paced = scorer if isinstance(scorer, Paced) else None
        if self._paced is not None:
            self._paced.on_room(self._on_timer)
        self._coming = Coming(self._soon)
        self._due: deque[Lane[Entry]] = deque()

    @property
    def scorer_name(self) -> str:
        """Who answers, for a person."""
        return self._scorer.name

    # ---- Handler: partitions -----------------------------------------------------------------------------------------
    async def take(self, partition: OwnedPartition) -> None:
        """Wait for the reference tables, then rebuild the state of the partition from the log."""
        if self._ready is not None:
            await self._ready(partition.tp)
        if self._purse is not None:
            await self._purse.take(partition)
        self.pipeline.dead_letter_bytes = partition.limit(self.pipeline.dead_letters)
        state = self.pipeline.new_state(partition.log_start)
        if state.horizon:
            async for records in partition.read_back(state.horizon):
                for record in records:
                    self.pipeline.replay(state, record)
                await asyncio.sleep(0)
        self._works[partition.tp] = Work(partition, state)
        self._tell_owned()

    def lose(self, tp: TopicPartition) -> None:
        """Forget the partition; answers in flight for it are thrown away when they come."""
        work = self._works.pop(tp, None)
        if work is not None:
            work.lanes.kill()
            self._batcher.purge()
            if self._purse is not None:
                self._purse.lose(tp)
            self._tell_owned()

    def _tell_owned(self) -> None:
        if self._owned is not None:
            self._owned(sum(1 / work.partition.topic_partitions for work in self._works.values()))

    def references(self) -> Sequence[Position]:
        """How far the reference tables have been read."""
        return self._positions() if self._positions is not None else ()

    def spend(self, tp: TopicPartition) -> Mapping[str, int]:
        """What asking about the partition's records has cost today."""
        return self._purse.spent(tp) if self._purse is not None else {}

    # ---- Handler: flow -----------------------------------------------------------------------------------------------
    def pause(self) -> None:
        """Start no new call."""
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Go on, with what was kept as well."""
        self._paused = False
        for work in self._works.values():
            for lane in list(work.lanes):
                if lane.idle:
                    self._advance(lane)
        self._pump()

    async def settle(self, timeout: float) -> int:
        """Wait for the calls in flight and deliver what they bring. Returns how many were left."""
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=timeout)
        return len(self._calls)

    async def close(self) -> None:
        """Cancel what still runs and close the scorers."""
        self.pause()
        tasks = [*self._calls, *self._waits]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._scorer.close()
        if self._fallback is not None:
            await self._fallback.close()

    def offer(self, slot: Slot) -> None:
        """Read the records of a slot in order; what has its outcome at once is finished at once."""
        partition, pipeline = slot.partition, self.pipeline
        work = self._works[partition.tp]
        work.state.log_start = partition.log_start  # retention may have overtaken us since the partition was taken
        now = asyncio.get_running_loop().time()
        for index, record in enumerate(slot.records):
            if partition.is_done(slot, index):
                pipeline.replay(work.state, record)
                continue
            items = pipeline.read(work.state, record)
            held = Record(partition, slot, index, items, len(items), now)
            weight = len(record.value or b"")
            for item in items:
                self._enter(work, Entry(held, item, weight), now)
        self._pump()

    # ---- lanes -------------------------------------------------------------------------------------------------------
    def _enter(self, work: Work, entry: Entry, now: float) -> None:
        item, lanes, pipeline = entry.item, work.lanes, self.pipeline
        key = pipeline.lane_key(item)
        # With joins, an item behind others is looked up when it is the head: the wait for their rows is then over.
        if item.settled is None and (self._joins is None or key not in lanes) and not pipeline.waits(item):
            pipeline.prepare(item)
        settled = item.settled
        if settled is not None and (not ordered(settled) or (key not in lanes and len(entry.record.items) == 1)):
            self._finish(entry)
            return
        lane = lanes.add(key, entry)
        if lane.idle:
            if settled is None and item.features is not None and len(lane.items) == 1:
                self._batcher.put(lane, now, now + self._seconds)
            else:
                self._advance(lane)
        elif lane.queued:
            self._batcher.grew(lane)

    def _advance(self, lane: Lane[Entry]) -> None:
        """Bring an idle lane on, and those that its records free: one after the other, however long the chain."""
        self._due.append(lane)
        if len(self._due) > 1:
            return  # the loop that is running takes it
        try:
            while self._due:
                if self._due[0].idle:
                    self._bring_on(self._due[0])
                self._due.popleft()
        finally:
            self._due.clear()  # only an exception leaves any, and it ends the engine

    def _bring_on(self, lane: Lane[Entry]) -> None:
        """Finish heads that have their outcome, wait for a join, or queue the head to be asked."""
        while lane.items:
            entry = lane.items[0]
            item = entry.item
            if item.settled is None and item.features is None:
                if self.pipeline.waits(item):
                    lane.busy = True
                    self._start(self._wait_for_join(lane, entry), self._waits)
                    return
                self.pipeline.prepare(item)
            if item.settled is None:
                now = asyncio.get_running_loop().time()
                self._batcher.put(lane, now, now + self._seconds)
                return
            lane.items.popleft()
            self._finish(entry)
            record = entry.record
            if record.left and not (lane.items and lane.items[0].record is record):
                lane.busy = True
                record.held.append(lane)
                return
        lane.home.tidy(lane)

    async def _wait_for_join(self, lane: Lane[Entry], entry: Entry) -> None:
        await self.pipeline.wait(entry.item, asyncio.get_running_loop().time() - entry.record.since)
        lane.busy = False
        if not lane.dead:
            self.pipeline.prepare(entry.item)
            self._advance(lane)
            self._pump()

    def _finish(self, entry: Entry) -> None:
        """Hand a record back once its last part is through, and free the lanes that waited for it."""
        record = entry.record
        record.left -= 1
        if record.left:
            return
        try:
            record.partition.finish(record.slot, record.index, finished(record.items))
        except RecordTooLarge as error:
            letter = self.pipeline.too_large(entry.item, error)
            record.partition.finish(record.slot, record.index, letter)
        for lane in record.held:
            lane.busy = False
            self._advance(lane)

    # ---- calls -------------------------------------------------------------------------------------------------------
    def _pump(self) -> None:
        """Send what is due while calls are allowed; arm the timer for the rest."""
        loop = asyncio.get_running_loop()
        while self._may_ask() and self._batcher.due(loop.time()):
            batch = self._batcher.take(self._askable)
            self.stats.in_flight += 1
            self._start(self._ask(batch, self._coming.start()), self._calls)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._batcher.flush_at()
        if at is not None and self._may_ask():
            self._timer = loop.call_at(at, self._on_timer)

    def _may_ask(self) -> bool:
        """Whether a call may start. One that would only queue at its endpoint waits here, where its deadline does not run yet."""
        if self._paused or self.stats.in_flight >= self.agent.in_flight:
            return False
        return self._paced is None or self._paced.room(self._coming.count)

    def _soon(self) -> None:
        """Look again whether a call may start, once what runs now is through."""
        asyncio.get_running_loop().call_soon(self._on_timer)

    def _on_timer(self) -> None:
        """A callback of the loop has nobody to raise to."""
        try:
            self._pump()
        except Exception as error:  # noqa: BLE001 - see _guarded
            self._on_fatal(error)

    def _askable(self, entry: Entry) -> bool:
        """Whether an item behind the head of its lane may be in the same call."""
        item = entry.item
        if item.settled is None and item.features is None and not self.pipeline.waits(item):
            self.pipeline.prepare(item)
        return item.settled is None and item.features is not None

    def _weights(self, entry: Entry) -> tuple[int, int]:
        """Bytes and prompt tokens. What has no features yet (behind others, or waiting for a join) has no tokens yet either."""
        if entry.tokens is None:
            features = entry.item.features
            if features is None or self._weighing is None:
                return entry.weight, 0
            entry.tokens = self._weighing.weigh(features)
        return entry.weight, entry.tokens

    async def _ask(self, batch: list[tuple[Lane[Entry], Entry]], arrived: Callable[[], None]) -> None:
        on_arrival(arrived)
        try:
            answers = await self._answers([entry for _, entry in batch])
        finally:
            self.stats.in_flight -= 1
            arrived()
        self._pump()  # the next call leaves before these answers are worked through
        async with self._turns:
            again, unanswered = self._conclude(batch, answers)
            if not unanswered:
                self._give_back(batch, again)
                return
        await self._fall_back(unanswered)
        self._give_back(batch, again)

    def _conclude(
        self, batch: list[tuple[Lane[Entry], Entry]], answers: Sequence[Answer[Any]]
    ) -> tuple[set[Lane[Entry]], list[tuple[Entry, Answer[Any]]]]:
        """Decide what can be decided. Returns the lanes that wait and ask again, and what the fallback has to answer, and why.

        What is `stopped` is for a person, where it is not waited for: the fallback may answer it as little as the model.
        """
        again: set[Lane[Entry]] = set()
        unanswered: list[tuple[Entry, Answer[Any]]] = []
        for (lane, entry), answer in zip(batch, answers, strict=True):
            if answer.status == "answered":
                self.pipeline.conclude(entry.item, answer)
                continue
            self.stats.unanswered[answer.status] = self.stats.unanswered.get(answer.status, 0) + 1
            if self.agent.on_no_answer == "wait" and _curable(answer.status, entry.rejections):
                entry.attempts += 1
                entry.rejections += answer.status == "rejected"
                again.add(lane)
            elif self.agent.on_no_answer == "fallback" and not answer.stopped:
                unanswered.append((entry, answer))
            else:
                self.pipeline.conclude(entry.item, answer)
        return again, unanswered

    async def _answers(self, entries: list[Entry]) -> Sequence[Answer[Any]]:
        """One answer each, within the agent's deadline.

        The deadline runs from here: time behind others, in Kafka or in memory, is the stream's backlog. Counted against a
        record it would turn a model that is merely slow into one that never answers (docs/decisions/deadline.md).
        """
        self.stats.batches += 1
        self.stats.asked += len(entries)
        return await self._score(self._scorer, self._questions(entries), self._seconds)

    def _questions(self, entries: list[Entry]) -> list[Question]:
        identify = self.pipeline.identify
        return [
            Question(identify(e.item), e.item.features, e.record.partition.tp.partition)
            for e in entries
            if e.item.features is not None
        ]

    async def _score(self, scorer: Scorer, questions: list[Question], seconds: float) -> Sequence[Answer[Any]]:
        """What a scorer says within `seconds`. One that overstays is left: it would hold its lanes, and every drain, for ever."""
        asked = asyncio.ensure_future(scorer.score(questions, asyncio.get_running_loop().time() + seconds))
        try:
            await asyncio.wait((asked,), timeout=seconds + OVERSTAY_SECONDS)
        finally:
            if not asked.done():
                asked.cancel()
                self._left.add(asked)  # an event loop alone holds tasks weakly
                asked.add_done_callback(self._forget)
        if not asked.done():
            return [Answer("timeout", why=f"{scorer.name} did not answer, nor say so at its deadline")] * len(questions)
        got = asked.result()
        if len(got) != len(questions):
            raise FatalError(f"asking {scorer.name}: {len(got)} answers to {len(questions)} questions")
        return got

    def _forget(self, left: asyncio.Future[Any]) -> None:
        """What a scorer that was left brings in the end is nobody's."""
        self._left.discard(left)
        if not left.cancelled():
            left.exception()

    async def _fall_back(self, unanswered: list[tuple[Entry, Answer[Any]]]) -> None:
        assert self._fallback is not None
        entries = [entry for entry, _ in unanswered]
        answers = await self._score(self._fallback, self._questions(entries), FALLBACK_SECONDS)
        for (entry, before), answer in zip(unanswered, answers, strict=True):
            # A decision by fallback says what it stands in for: an outage reads otherwise than a refusal or a budget.
            passed = f"{self._scorer.name}: {before.status}"
            why = "; ".join(filter(None, (f"{passed} ({before.why})" if before.why else passed, answer.why)))
            told = replace(answer, why=why, tiers=(*before.tiers, passed, *answer.tiers))
            self.pipeline.conclude(entry.item, told, fallback=True)

    def _give_back(self, batch: list[tuple[Lane[Entry], Entry]], again: set[Lane[Entry]]) -> None:
        """Finish what has its outcome, in order, and bring the lanes on; those of `again` keep their items and wait first."""
        lanes: dict[Lane[Entry], int] = {}
        kept: list[tuple[Lane[Entry], Entry]] = []
        for lane, entry in batch:
            if lane.dead:
                continue
            lanes[lane] = max(lanes.get(lane, 0), entry.attempts)
            # A part of a larger record goes back too: its lane waits for the rest of the record (see _bring_on).
            if lane in again or len(entry.record.items) > 1 or (kept and kept[-1][0] is lane):
                kept.append((lane, entry))
            else:
                self._finish(entry)
        for lane, entry in reversed(kept):
            lane.items.appendleft(entry)
        for lane, attempts in lanes.items():
            if lane in again:
                self.stats.waited += 1
                self._start(self._wait_for_model(lane, attempts), self._waits)
                continue
            lane.busy = False
            if lane.items:
                self._advance(lane)
            else:
                lane.home.tidy(lane)
        self._pump()

    async def _wait_for_model(self, lane: Lane[Entry], attempts: int) -> None:
        """Back off before the items of a lane are asked about again; `attempts` in vain so far."""
        await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempts - 1, 8)))
        lane.busy = False
        if not lane.dead:
            self._advance(lane)
            self._pump()

    def _start(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        group.add(task)
        task.add_done_callback(group.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, outcomes must not go on as if it had not happened
            self._on_fatal(error)


def _curable(status: str, rejections: int) -> bool:
    """Whether to wait. A rejection may be a key that somebody is about to renew, or this record's own content: not for ever."""
    return status in CURABLE and (status != "rejected" or rejections < MOST_REJECTIONS)


def records_in_a_batch(agent: Agent) -> int:
    """As many as a batch may have, and as have their reserved output within its limit; one at least."""
    batch = agent.batch
    if batch.output_tokens is None or not isinstance(agent.scorer, Ask):
        return batch.size
    return max(1, min(batch.size, agent.scorer.fitting(batch.output_tokens)))


def _bytes(entry: Entry) -> tuple[int, int]:
    return entry.weight, 0
