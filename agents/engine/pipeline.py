"""The way of one record, from bytes to outbound records: decode, state, when, joins, features, answer, decide, write.

Synchronous and without I/O: the running worker, `headrace agents try` and the benchmarks all go through here. A stage that
fails on a record gives that record a dead letter, never its neighbours.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from agents.engine.joins import Joins
from agents.engine.raised import Raised, Refused, described
from agents.engine.spec import Context, Coordinates, DecisionAgent, Joined, Order, Skip, Verdict, WindowView
from agents.engine.state import Fate, PartitionState
from agents.engine.verdicts import Masked, Origin, Rules, Site, Writer, unmasked
from models.contract import Answer
from schemas.change import Change
from schemas.dead_letter import Fault, Stage
from schemas.errors import RecordTooLarge
from schemas.event import Event
from schemas.identity import decision_id, input_hash
from schemas.reading import Reading
from topics.dead_letters import dead_letter
from topics.decode import decoder
from topics.decode.result import Control, Decoded, Result
from topics.handover import Finished
from topics.record import RawRecord

Agent = DecisionAgent[Any, Any, Any]
TRACE_HEADERS = ("traceparent", "tracestate")
PARTITION_LANE = "partition"
DELETE = Skip("delete")
EARLIEST_MS, LATEST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The times that RFC 3339 can write."""
NOT_IN_SUBJECT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""CloudEvents allows no control characters in ce_subject, UTF-8 no surrogates."""


def ordered(settled: Finished) -> bool:
    """Whether an outcome may not overtake: decisions of one subject; a skip or a dead letter is not part of their order."""
    return bool(settled.outbound) and settled.outbound[0].purpose == "decision"


@dataclass(slots=True)
class Item:
    """One part of one record on its way. `settled` is set once its outcome is known; until then it may hold features."""

    record: RawRecord
    value: Any
    subject: str
    part: int
    parts: int
    event_ms: int
    received_ms: int
    windows: Mapping[str, WindowView]
    joins: Mapping[str, Joined] | None = None
    context: Context[Any] | None = None
    features: BaseModel | None = None
    settled: Finished | None = None
    tiers: list[str] = field(default_factory=list)
    id: str = ""
    hash: str = ""


@dataclass(slots=True)
class Counts:
    """What became of records and parts; plain integers, read by the metrics when somebody asks."""

    records: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    skips: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    cleaned: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def add(table: dict[str, int], name: str, by: int = 1) -> None:
        """Count under a name."""
        table[name] = table.get(name, 0) + by


class Pipeline:
    """One agent's way of a record at one site. `wall_ms` is epoch milliseconds now, used for nothing but stamps."""

    def __init__(
        self, agent: Agent, site: Site, *, dead_letters: str, judgements: str | None, joins: Joins | None,
        wall_ms: Callable[[], int], dead_letter_bytes: int = 1_000_000,
        decode: Callable[[RawRecord], Result[Any]] | None = None, masked: Masked = unmasked,
    ) -> None:  # fmt: skip
        """`decode` replaces the decoder of the agent's topic, where values are there already (golden examples).

        `masked` makes of features what an audit may keep of them.
        """
        self.agent = agent
        self.counts = Counts()
        self.rules = Rules(agent)
        self._raised = Raised(agent)
        self._site = site
        self._joins = joins
        self._wall_ms = wall_ms
        self.dead_letters = dead_letters
        self.dead_letter_bytes = dead_letter_bytes
        self._writer = Writer(agent, site, judgements=judgements, masked=masked)
        self._decode: Callable[[RawRecord], Result[Any]] = decode or decoder(agent.reads)
        self._empty: Mapping[str, Joined] = {}

    # ---- reading -----------------------------------------------------------------------------------------------------
    def new_state(self, log_start: int) -> PartitionState:
        """Empty state of one source partition whose log begins at `log_start`."""
        return PartitionState(self.agent, self.agent.reads, log_start=log_start)

    def replay(self, state: PartitionState, record: RawRecord) -> None:
        """Feed a record to the state without deciding it: it has its outcome, or lies before the first one to decide."""
        result = self._decode(record)
        if isinstance(result, Decoded):
            for value in result.values:
                if isinstance(value, Change | Reading | Event):
                    with contextlib.suppress(Exception):  # it had its dead letter when it was read for the first time
                        self._feed(state, value, record)

    def read(self, state: PartitionState, record: RawRecord) -> list[Item]:
        """The parts of a record, each either settled already or ready for its joins. Never raises, never empty."""
        self.counts.records += 1
        try:
            result = self._decode(record)
        except Exception as error:  # noqa: BLE001 - a decoder is total; should one not be, its record still gets an outcome
            result = Fault("decode", "decoder-error", self._raised.describe(error))
        if isinstance(result, Fault):
            return [self._settled(record, 0, 1, self._bury(record, result))]
        if isinstance(result, Control):
            return [self._settled(record, 0, 1, self._skip(result.kind))]
        for rule in result.cleaned:
            Counts.add(self.counts.cleaned, rule)
        parts = len(result.values)
        if parts == 0:
            return [self._settled(record, 0, 1, self._skip("empty"))]
        return [self._part(state, record, value, part, parts) for part, value in enumerate(result.values)]

    def _part(self, state: PartitionState, record: RawRecord, value: Any, part: int, parts: int) -> Item:
        if isinstance(value, Fault):
            return self._settled(record, part, parts, self._bury(record, value, part, parts))
        if not isinstance(value, Change | Reading | Event):
            return self._settled(record, part, parts, self._skip(value.rule))
        try:
            subject, event_ms, fate = self._feed(state, value, record)
        except Exception as error:  # noqa: BLE001 - whatever an agent's function raises is a fault of this record only
            return self._settled(record, part, parts, self._bury(record, self._raised.fault("state", error), part, parts))
        if isinstance(fate, Skip):
            return self._settled(record, part, parts, self._skip(fate.rule))
        item = Item(record, value, subject, part, parts, event_ms, self._wall_ms(), fate.views)
        if isinstance(value, Change) and value.op == "d":
            try:
                item.settled = self._retract(item)
            except Exception as error:  # noqa: BLE001 - a time that can not be written, for one
                self.fail(item, "decide", error)
        return item

    def _feed(self, state: PartitionState, value: Any, record: RawRecord) -> tuple[str, int, Fate]:
        """Subject, event time, and what the state and `when` say: the same for the same record whenever it is fed."""
        agent = self.agent
        event_ms = value.event_ms if value.event_ms is not None else record.timestamp
        for field_name, at in (("event time", event_ms), ("record timestamp", record.timestamp)):
            if not EARLIEST_MS <= at <= LATEST_MS:
                raise Refused(Fault("state", "event-time-implausible", f"{at} ms lies outside the years 1 to 9999", field_name))
        subject = agent.subject(value)
        if not subject or NOT_IN_SUBJECT.search(subject) is not None:
            raise Refused(Fault("state", "invalid-subject", "it is empty or has control characters", "subject"))
        refused: Skip | None = None
        if isinstance(value, Change) and value.op == "d":
            refused = DELETE if agent.on_delete == "skip" else None
        elif agent.when is not None:
            said = agent.when(value)
            refused = said if isinstance(said, Skip) else None
        fate = state.feed(value, subject=subject, offset=record.offset, event_ms=event_ms, evaluable=refused is None)
        return subject, event_ms, refused if refused is not None and not isinstance(fate, Skip) else fate

    # ---- joins and features ------------------------------------------------------------------------------------------
    def lane_key(self, item: Item) -> str | None:
        """What this item may not overtake."""
        order = self.agent.order
        return item.subject if order is Order.KEY else PARTITION_LANE if order is Order.PARTITION else None

    def waits(self, item: Item) -> bool:
        """Try the joins without waiting. True where a row is still to be waited for; a join that fails settles the item."""
        if self._joins is None:
            item.joins = self._empty
            return False
        try:
            item.joins, complete = self._joins.now(item.value, item.event_ms)
        except Exception as error:  # noqa: BLE001 - see _part
            self.fail(item, "join", error)
            return False
        return not complete

    async def wait(self, item: Item, waited: float) -> None:
        """Wait for the rows that are missing, `waited` seconds less than the joins allow. Never raises."""
        assert self._joins is not None
        try:
            item.joins = await self._joins.wait(item.value, item.event_ms, waited)
        except Exception as error:  # noqa: BLE001 - see _part
            self.fail(item, "join", error)

    def prepare(self, item: Item) -> None:
        """Compute the features, or settle by skip or rule, unless a join has settled it. Needs `item.joins`. Never raises."""
        if item.settled is not None:
            return
        record = item.record
        where = Coordinates(record.topic, record.partition, record.offset, record.timestamp)
        joins = item.joins if item.joins is not None else self._empty
        context = item.context = Context(item.value, item.subject, where, item.event_ms, joins, item.windows)
        try:
            made = self.agent.features(context)
            if isinstance(made, Skip):
                item.settled = self._skip(made.rule)
            elif isinstance(made, Verdict):
                item.tiers.append("rule")
                item.settled = self._decided(item, made, None, "rule", None)
            else:
                item.features = made
        except Exception as error:  # noqa: BLE001 - see _part
            self.fail(item, "features", error)

    def identify(self, item: Item) -> str:
        """The id of the decision this item will have."""
        if not item.id:
            record = item.record
            item.hash = input_hash(record.value)
            item.id = decision_id(
                self.agent.name, record.topic, record.partition, record.offset, item.hash, item.part, self._site.run
            )
        return item.id

    # ---- answers -----------------------------------------------------------------------------------------------------
    def conclude(self, item: Item, answer: Answer[Any], *, fallback: bool = False) -> None:
        """Decide with what was answered, or that nothing was. Sets `item.settled`; never raises."""
        answered = answer.status == "answered"
        tier = "none" if not answered else "fallback" if fallback else answer.tier
        item.tiers.append(tier)
        why = answer.why or (None if answered else answer.status)
        try:
            assert item.context is not None
            verdict = self.agent.decide(item.context, item.features, answer)
            item.settled = self._decided(item, verdict, answer, tier, why)
        except Exception as error:  # noqa: BLE001 - see _part
            self.fail(item, "decide", error)

    def fail(self, item: Item, stage: Stage, error: Exception) -> None:
        """A stage raised on this item: a dead letter that says which and how."""
        item.settled = self._bury(item.record, self._raised.fault(stage, error), item.part, item.parts)

    def too_large(self, item: Item, error: RecordTooLarge) -> Finished:
        """What was to be published of a record does not fit its topic: the whole record becomes one dead letter."""
        return self._bury(item.record, Fault("publish", "record-too-large", described(error)))

    # ---- writing -----------------------------------------------------------------------------------------------------
    def _decided(self, item: Item, verdict: Verdict, answer: Answer[Any] | None, tier: str, why: str | None) -> Finished:
        assert item.context is not None
        ruled = self.rules.apply(verdict, item.features, tier, why)
        origin = self._origin(item)
        kept = self._writer.kept(item.features, answer)
        made = self._writer.decision(item.context, origin, ruled, answer, kept, self._wall_ms())
        audit = self._writer.judgement(item.context, origin, ruled, answer, kept, item.tiers)
        Counts.add(self.counts.outcomes, ruled.outcome)
        Counts.add(self.counts.tiers, tier)
        return Finished((made,) if audit is None else (made, audit))

    def _retract(self, item: Item) -> Finished:
        record = item.record
        where = Coordinates(record.topic, record.partition, record.offset, record.timestamp)
        context = Context(item.value, item.subject, where, item.event_ms)
        made = self._writer.decision(context, self._origin(item), None, None, None, self._wall_ms(), kind="retraction")
        Counts.add(self.counts.outcomes, "retraction")
        return Finished((made,))

    def _origin(self, item: Item) -> Origin:
        self.identify(item)
        headers = item.record.headers
        trace = tuple((k, v) for k, v in headers if k in TRACE_HEADERS) if headers else ()
        op = item.value.op if isinstance(item.value, Change) else None
        return Origin(item.id, item.hash, item.part, item.parts, item.received_ms, op, trace)

    def _skip(self, rule: str) -> Finished:
        Counts.add(self.counts.skips, rule)
        return Finished(skip=rule)

    def _bury(self, record: RawRecord, fault: Fault, part: int = 0, parts: int = 1) -> Finished:
        agent = self.agent
        hashed = input_hash(record.value)
        id = decision_id(agent.name, record.topic, record.partition, record.offset, hashed, part, self._site.run)
        Counts.add(self.counts.dead_letters, fault.reason)
        return Finished((dead_letter(
            record, fault=fault, agent=agent.name, version=agent.version, run=self._site.run, id=id, part=part, parts=parts,
            input_hash=hashed, at=self._wall_ms(), topic=self.dead_letters, max_bytes=self.dead_letter_bytes,
        ),))  # fmt: skip

    def _settled(self, record: RawRecord, part: int, parts: int, settled: Finished) -> Item:
        return Item(record, None, "", part, parts, record.timestamp, 0, {}, settled=settled)


def finished(items: Sequence[Item]) -> Finished:
    """What the parts of one record come to; where several rules skipped all of them, their names joined by "+"."""
    if len(items) == 1 and (only := items[0].settled) is not None:
        return only
    outbound = tuple(made for item in items if item.settled for made in item.settled.outbound)
    skips = tuple((item.part, item.settled.skip) for item in items if item.settled and item.settled.skip is not None)
    if not outbound:
        return Finished(skip="+".join(sorted({rule for _, rule in skips})))
    return Finished(outbound, None, skips)
