"""What verification is told and what it says: facts read from topics, offenders, and the accounts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from schemas.identity import decision_id

MOST_EXAMPLES = 50
"""Offenders of one kind that are kept by name for each partition; the rest are only counted."""
MOST_DIFFERING = 10
"""Repeats that say something else which are kept by name for each partition."""

OrderKind = Literal["key", "partition", "none"]

OFFENCES: Mapping[str, str] = {
    "missing": "an input record below the frontier, or closed by a receipt, has no outcome",
    "missing_part": "a part of an input record has no outcome",
    "repeated": "the same outcome was published more than once although the promise is exactly once",
    "conflict": "one record was both skipped by a receipt and published, or has two different outcomes",
    "foreign": "an outcome names an input record that is not there, a run without receipts, or an agent that does not write here",
    "hash_mismatch": "an outcome names another input than the record at its offset",
    "id_mismatch": "an outcome's id is not the one its coordinates give",
    "bad_part": "an outcome's part numbers do not fit those of its siblings",
    "altered": "a dead letter does not hold the bytes of its input record",
    "wrong_partition": "an outcome or a receipt lies in another partition than its source",
    "out_of_order": "an outcome overtook an earlier record of the same key",
    "unreceipted": "an outcome is closed by no receipt",
    "receipt_gap": "receipts are not numbered without a gap",
    "receipt_break": "a receipt does not begin where the one before it ended",
    "receipt_range": "a receipt's ranges contradict each other",
    "closed_twice": "two receipts closed the same record although the promise is exactly once",
    "count_mismatch": "a receipt counts other decisions or dead letters than were published for the ranges it closed",
    "frontier_ahead": "a receipt's frontier passed a record that was closed only later",
    "offset_ahead": "the group's committed offset is ahead of the last receipt: records may never be decided",
    "offset_behind": "the group's committed offset is behind the last receipt although both are one transaction",
    "false_loss": "a receipt calls a range lost whose records are there",
    "done_ahead": "the commit's done ranges hold a record that no receipt closed",
    "chain_break": "a receipt does not name the one before it: a receipt was changed, removed or put in",
    "chain_fork": "two receipts continue the chain at one place although the promise is exactly once",
    "chain_count": "a receipt's digests do not fit what it counts",
    "anchor_lost": "the head of the chain that somebody kept is not in the chain",
    "changed": "a decision, a dead letter or a judgement is not the one that its receipt anchors",
    "removed": "a record that a receipt anchors is gone, and neither retention nor compaction took it",
    "inserted": "no receipt anchors a decision, a dead letter or a judgement",
    "moved": "a record does not stand where its commit wrote it",
    "mislabelled": "the key or a header of a decision or a judgement is not what its body says",
    "call_changed": "a model call is not the one that the next call of its worker names",
    "call_twice": "two calls of an agent that are no copies of each other have one call_id: one of them was put in",
    "call_gap": "calls of a worker are gone that it did not say it could not publish",
    "unreadable": "a record on a topic of ours can not be read as what the topic is for",
}  # fmt: skip
"""Every kind of offender, with what it means."""


class Outcome(NamedTuple):
    """A decision or a dead letter as far as it matters here. `at` is its own offset, `offset` that of its source record.

    `label` is a sentence on what of its key and headers its body does not say.
    """

    at: int
    id: str
    agent: str
    run: str | None
    topic: str
    partition: int
    offset: int
    input_hash: str
    part: int
    parts: int
    key: bytes | None = None
    call_id: str | None = None
    label: str | None = None

    def due_id(self, run: str) -> str:
        """The id that its coordinates give; `run` is that of an outcome that names none."""
        whose = run if self.run is None else self.run
        return decision_id(self.agent, self.topic, self.partition, self.offset, self.input_hash, self.part, whose)


@dataclass(frozen=True, slots=True)
class Offender:
    """One thing that is wrong, and where: `topic`, `partition`, `offset` are those of the record to look at."""

    kind: str
    topic: str
    partition: int
    offset: int | None
    detail: str

    def __str__(self) -> str:
        where = f"{self.topic}/{self.partition}" + (f"@{self.offset}" if self.offset is not None else "")
        return f"{self.kind} {where}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What one partition is verified as. `decisions`, `dead_letters`, `receipts` are topic names, and so is `judgements`, empty
    where they are not read.

    `span` bounds how far above its frontier a worker closes records (HEADRACE_HOLD_SPAN): where receipts were removed by
    retention, a skip further than this above the first one left can not have been theirs.
    """

    agent: str
    topic: str
    partition: int
    decisions: str
    dead_letters: str
    receipts: str
    run: str = "live"
    order: OrderKind = "key"
    span: int = 50_000
    judgements: str = ""


@dataclass(frozen=True, slots=True)
class Edges:
    """How much of each topic was there to be read.

    `source_start` is the first offset the source still held when reading ended. `*_trimmed`: retention has removed records
    (the log does not begin at 0), `*_compacted`: compaction may have removed any, `*_erased`: there are tombstones. `committed`
    is the group's offset read before the receipts, `committed_after` the one read after them, `done` the done ranges of the
    commit read before.
    """

    source_start: int = 0
    source_end: int = 0
    source_compacted: bool = False
    decisions_trimmed: bool = False
    decisions_compacted: bool = False
    dead_letters_trimmed: bool = False
    dead_letters_compacted: bool = False
    decisions_erased: bool = False
    dead_letters_erased: bool = False
    judgements_trimmed: bool = False
    judgements_compacted: bool = False
    receipts_trimmed: bool = False
    committed: int | None = None
    committed_after: int | None = None
    done: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class Tally:
    """The numbers of a partition or, summed, of an agent.

    `records` input records that are due an outcome, `decisions` and `dead_letters` published for them (each id once),
    `skips` records skipped, `unaccounted` due records without a complete outcome, `repeated` publications of an id beyond
    its first, `changed` repeats that say something else than the first, `pending` input records after the last receipt,
    `ahead` outcomes that are visible before their receipt (at least once only), `lost` offsets removed before they were
    read, `receipts` read. Of the audit chain: `anchored` records that have the digest which a receipt holds, `erased` whose
    digest stands and whose payload is gone, `unanchored` among receipts without a chain or repeats, `tombstones` met, `forks`.
    """

    records: int = 0
    decisions: int = 0
    dead_letters: int = 0
    skips: int = 0
    unaccounted: int = 0
    repeated: int = 0
    changed: int = 0
    out_of_order: int = 0
    lost: int = 0
    pending: int = 0
    ahead: int = 0
    receipts: int = 0
    anchored: int = 0
    erased: int = 0
    unanchored: int = 0
    tombstones: int = 0
    forks: int = 0

    def add(self, other: Tally) -> None:
        """Add another's numbers to these."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """Name -> number."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class PartitionAccount:
    """What verification found in one source partition. `unprovable`: reason -> number of records.

    `head` is the SHA-256 of the last receipt: whoever keeps it can tell later whether what it closed has been rewritten.
    """

    topic: str
    partition: int
    tally: Tally = field(default_factory=Tally)
    skips: Counter[str] = field(default_factory=Counter)
    promises: set[str] = field(default_factory=set)
    first: int | None = None
    frontier: int | None = None
    committed: int | None = None
    head: str | None = None
    offenders: list[Offender] = field(default_factory=list)
    offences: Counter[str] = field(default_factory=Counter)
    unprovable: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    differing: list[tuple[str, int]] = field(default_factory=list)

    def differ(self, topic: str, offset: int) -> None:
        """Count a record that says something else than the first with its id and, while there are few, keep where it lies."""
        self.tally.changed += 1
        if len(self.differing) < MOST_DIFFERING:
            self.differing.append((topic, offset))

    def offend(self, kind: str, topic: str, partition: int, offset: int | None, detail: str) -> None:
        """Count an offender and, while there are few of its kind, keep it."""
        self.offences[kind] += 1
        if self.offences[kind] <= MOST_EXAMPLES:
            self.offenders.append(Offender(kind, topic, partition, offset, detail))


@dataclass(slots=True)
class Account:
    """What verification found for one agent."""

    agent: str
    topic: str
    group: str
    partitions: list[PartitionAccount] = field(default_factory=list)
    calls: int = 0
    unprovable_calls: Counter[str] = field(default_factory=Counter)
    offenders: list[Offender] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def totals(self) -> Tally:
        """The numbers of all partitions together."""
        total = Tally()
        for partition in self.partitions:
            total.add(partition.tally)
        return total

    @property
    def skips(self) -> Counter[str]:
        """Rule -> records that it skipped."""
        return sum((p.skips for p in self.partitions), Counter[str]())

    @property
    def unprovable(self) -> Counter[str]:
        """Reason -> records that nothing can be said about any more."""
        return sum((p.unprovable for p in self.partitions), Counter(self.unprovable_calls))

    @property
    def offences(self) -> Counter[str]:
        """Kind -> number of offenders, those that are not kept by name included."""
        own = Counter(o.kind for o in self.offenders)
        return sum((p.offences for p in self.partitions), own)

    @property
    def promises(self) -> set[str]:
        """The promises under which the receipts were written."""
        return {promise for p in self.partitions for promise in p.promises}

    @property
    def all_offenders(self) -> list[Offender]:
        """Offenders kept by name, those of no partition first."""
        return [*self.offenders, *(o for p in self.partitions for o in p.offenders)]

    @property
    def ok(self) -> bool:
        """True when nothing offends. Losses, repeats and what is unprovable do not: see `strict_ok`."""
        return not self.offences

    @property
    def strict_ok(self) -> bool:
        """True when moreover nothing was lost, nothing changed in repetition and everything could be proven."""
        total = self.totals
        return self.ok and not total.lost and not total.changed and not self.unprovable
