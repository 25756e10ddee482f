"""Collecting the facts of one source partition, and naming at once what one fact shows to be wrong.

Facts are pushed in this order: source records, receipts, late receipts, then decisions and dead letters in log order; so
every outcome is judged when it comes and nothing of it is kept but a few bits. `judge.py` says what only the whole shows.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.receipt import Receipt
from topics.verify.audit import Audit
from topics.verify.chain import Chain
from topics.verify.facts import Outcome, PartitionAccount, Scope
from topics.verify.source import CLOSED, DEAD, DECIDED, LATE, LOST, PARTED, SKIPPED, Source

MOST_PARTS = 1_000_000


@dataclass(slots=True)
class Claims:
    """What the receipts say, receipt by receipt: counts, and the ranges closed as (first, end, number of the receipt)."""

    at: array[int] = field(default_factory=lambda: array("q"))
    decisions: array[int] = field(default_factory=lambda: array("q"))
    dead_letters: array[int] = field(default_factory=lambda: array("q"))
    first: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    receipt: array[int] = field(default_factory=lambda: array("q"))

    def ranges(self, number: int, low: int) -> tuple[list[tuple[int, int]], int]:
        """The ranges that receipt `number` closed, given where the search may begin; and where the next one may."""
        high = low
        while high < len(self.receipt) and self.receipt[high] == number:
            high += 1
        return [(self.first[i], self.end[i]) for i in range(low, high)], high

    def closer(self, offset: int) -> int:
        """The number of the last receipt that closed `offset`, or -1."""
        for i in range(len(self.first) - 1, -1, -1):
            if self.first[i] <= offset < self.end[i]:
                return self.receipt[i]
        return -1


@dataclass(slots=True)
class Strays:
    """Outcomes whose source record was not read: it is gone, or was never there."""

    seen: set[tuple[int, int]] = field(default_factory=set)
    offsets: dict[int, list[int]] = field(default_factory=lambda: {DECIDED: [], DEAD: []})
    at: dict[int, list[int]] = field(default_factory=lambda: {DECIDED: [], DEAD: []})


class Side(NamedTuple):
    """Whose an outcome or a receipt is that is not of the agent, run and source that are verified."""

    agent: str
    run: str
    topic: str


@dataclass(slots=True)
class Counted:
    """Outcomes of one other side: where the first one lies, and how many there are."""

    at: int
    number: int = 0


class Ledger:
    """Collects the facts of one source partition."""

    def __init__(self, scope: Scope, anchor: str | None = None) -> None:
        self.scope = scope
        self.account = PartitionAccount(scope.topic, scope.partition)
        self.audit = Audit(scope, self.account, anchor)
        self.source = Source()
        self.chain = Chain()
        self.claims = Claims()
        self.strays = Strays()
        self.behind: list[tuple[int, int]] = []
        self.others: dict[tuple[int, Side], Counted] = {}
        self.receipted: set[Side] = set()
        self.first_outcome: dict[int, int] = {}
        self._newest: dict[int, int] = {}
        self._topics = {DECIDED: scope.decisions, DEAD: scope.dead_letters}

    # ---- input and receipts --------------------------------------------------------------------------------------------
    def add_source(self, offset: int, input_hash: str) -> None:
        """The next input record. Raises ValueError out of order."""
        self.source.add(offset, input_hash)

    def unreadable(self, topic: str, offset: int, detail: str) -> None:
        """A record of ours that can not be read as what its topic is for."""
        self.account.offend("unreadable", topic, self.scope.partition, offset, detail)

    def add_receipt(self, at: int, receipt: Receipt, head: str) -> None:
        """The next receipt, read at its own offset `at`; `head` is the SHA-256 of its value in hex."""
        scope, account = self.scope, self.account
        if not self._ours(at, receipt, head):
            return
        before = self.chain.frontier
        for kind, detail in self.chain.add(receipt):
            account.offend(kind, scope.receipts, scope.partition, at, detail)
        self.audit.receipt(at, receipt, head, tolerant=self.chain.tolerant)
        account.tally.receipts += 1
        account.promises.add(receipt.promise)
        number = len(self.claims.at)
        self.claims.at.append(at)
        self.claims.decisions.append(receipt.decisions)
        self.claims.dead_letters.append(receipt.dead_letters)
        for first, end in receipt.closed:
            self._close(at, receipt, number, first, end)
        for rule, ranges in receipt.skips.items():
            for first, end in ranges:
                self._skip(at, receipt, rule, first, end)
        for offset, part, rule in receipt.part_skips:
            self._skip_part(at, offset, part, rule)
        for first, end in receipt.lost:
            account.tally.lost += max(end - first, 0)
            self.source.mark(*self.source.between(first, end), LOST)
        self._passed(receipt.from_ if before is None else min(before, receipt.from_), receipt.to, at)

    def _ours(self, at: int, receipt: Receipt, head: str) -> bool:
        scope = self.scope
        if receipt.agent != scope.agent or receipt.run != scope.run:
            self._other(at, receipt, head)
            return False
        if receipt.topic != scope.topic:
            self._other(at, receipt, head)
            return False
        if receipt.partition != scope.partition:
            detail = f"receipt {receipt.seq} is about partition {receipt.partition}"
            self.account.offend("wrong_partition", scope.receipts, scope.partition, at, detail)
            return False
        return True

    def _other(self, at: int, receipt: Receipt, head: str) -> None:
        if receipt.agent == self.scope.agent:
            self.receipted.add(Side(receipt.agent, receipt.run, receipt.topic))
            self.audit.other(at, receipt, head)

    def _close(self, at: int, receipt: Receipt, number: int, first: int, end: int) -> None:
        account, source, claims = self.account, self.source, self.claims
        if end <= first:
            detail = f"receipt {receipt.seq} closes the empty range {first}-{end}"
            account.offend("receipt_range", self.scope.receipts, self.scope.partition, at, detail)
            return
        claims.first.append(first)
        claims.end.append(end)
        claims.receipt.append(number)
        low, high = source.between(first, end)
        if source.count(low, high, CLOSED) and not self.chain.tolerant:
            for index in source.where(low, high, CLOSED):
                detail = f"closed again by receipt {receipt.seq}"
                account.offend("closed_twice", self.scope.topic, self.scope.partition, source.offsets[index], detail)
        source.mark(low, high, CLOSED)

    def _skip(self, at: int, receipt: Receipt, rule: str, first: int, end: int) -> None:
        account, source, scope = self.account, self.source, self.scope
        if not any(a <= first and end <= b for a, b in receipt.closed):
            detail = f"receipt {receipt.seq} skips {first}-{end} by {rule}, which it does not close"
            account.offend("receipt_range", scope.receipts, scope.partition, at, detail)
        low, high = source.between(first, end)
        again = source.count(low, high, SKIPPED)
        account.skips[rule] += high - low - again
        if again and not self.chain.tolerant:
            for index in source.where(low, high, SKIPPED):
                account.offend("conflict", scope.topic, scope.partition, source.offsets[index], f"skipped again, by {rule}")
        source.mark(low, high, SKIPPED)

    def _skip_part(self, at: int, offset: int, part: int, rule: str) -> None:
        if not 0 <= part < MOST_PARTS:
            detail = f"part {part} of offset {offset} is skipped by {rule}: there is no such part"
            self.account.offend("receipt_range", self.scope.receipts, self.scope.partition, at, detail)
            return
        index = self.source.find(offset)
        if index >= 0:
            self.source.parts_of(index).skipped.add(part)

    def _passed(self, first: int, end: int, at: int) -> None:
        """Remember records that a frontier passed although no receipt had closed them yet."""
        low, high = self.source.between(first, end)
        if self.source.count(low, high, CLOSED) < high - low:
            self.behind += [(i, at) for i in self.source.where(low, high, CLOSED, False) if not self.source.marks[i] & LOST]

    def add_late_receipt(self, at: int, receipt: Receipt, head: str) -> None:
        """A receipt written while the outcomes were being read."""
        if receipt.agent != self.scope.agent:
            return
        if (receipt.topic, receipt.run) != (self.scope.topic, self.scope.run):
            self._other(at, receipt, head)
        else:
            self.audit.late(at, receipt)
            for first, end in receipt.closed:
                self.source.mark(*self.source.between(first, end), LATE)

    # ---- outcomes ------------------------------------------------------------------------------------------------------
    def add_decision(self, outcome: Outcome) -> None:
        """The next decision of the partition with the source's number."""
        if outcome.label is not None and outcome.agent == self.scope.agent:
            self.mislabelled(self.scope.decisions, outcome.at, outcome.label)
        self._add(outcome, DECIDED)

    def mislabelled(self, topic: str, at: int, detail: str) -> None:
        """A record whose key or headers are not what its body says."""
        self.account.offend("mislabelled", topic, self.scope.partition, at, detail)

    def ours(self, outcome: Outcome) -> bool:
        """Whether an outcome is of this agent, run and source: other runs of the agent share its topic."""
        scope = self.scope
        return (outcome.agent, outcome.topic) == (scope.agent, scope.topic) and outcome.run in (None, scope.run)

    def anchor(self, outcome: Outcome, kind: str, digest: bytes, content: int = 0) -> None:
        """The digest of an outcome that was added, and what stands for what it says, for the audit."""
        if self.ours(outcome):
            self.audit.found(kind, outcome.at, digest, outcome.id, content)
        elif outcome.agent == self.scope.agent:
            run = self.scope.run if outcome.run is None else outcome.run
            self.audit.stranger(kind, outcome.at, digest, run, outcome.topic)

    def add_dead_letter(self, outcome: Outcome) -> None:
        """The next dead letter of the partition with the source's number."""
        self._add(outcome, DEAD)

    def altered(self, outcome: Outcome) -> None:
        """A dead letter whose bytes do not have the hash that it names."""
        detail = f"the dead letter's value is not that of offset {outcome.offset}"
        self.account.offend("altered", self.scope.dead_letters, self.scope.partition, outcome.at, detail)

    def _add(self, outcome: Outcome, bit: int) -> None:
        scope, account, topic = self.scope, self.account, self._topics[bit]
        if not self.ours(outcome):
            side = Side(outcome.agent, scope.run if outcome.run is None else outcome.run, outcome.topic)
            self.others.setdefault((bit, side), Counted(outcome.at)).number += 1
            return
        if outcome.partition != scope.partition:
            detail = f"the outcome of {scope.topic}/{outcome.partition}@{outcome.offset} lies in partition {scope.partition}"
            account.offend("wrong_partition", topic, scope.partition, outcome.at, detail)
            return
        self.first_outcome.setdefault(bit, outcome.offset)
        expected = outcome.due_id(scope.run)
        if outcome.id != expected:
            detail = f"the outcome of offset {outcome.offset} has id {outcome.id[:40]}, its coordinates give {expected}"
            account.offend("id_mismatch", topic, scope.partition, outcome.at, detail)
        if not 0 <= outcome.part < outcome.parts <= MOST_PARTS:
            detail = f"the outcome of offset {outcome.offset} is part {outcome.part} of {outcome.parts}"
            account.offend("bad_part", topic, scope.partition, outcome.at, detail)
            return
        index = self.source.find(outcome.offset)
        first = self._stray(outcome, bit) if index < 0 else self._outcome(index, outcome, bit)
        if first and bit == DECIDED:
            self._order(outcome)

    def _stray(self, outcome: Outcome, bit: int) -> bool:
        key = (outcome.offset, outcome.part)
        if key in self.strays.seen:
            self._repeat(outcome, bit, same=True)
            return False
        self.strays.seen.add(key)
        self.strays.offsets[bit].append(outcome.offset)
        self.strays.at[bit].append(outcome.at)
        return True

    def _outcome(self, index: int, outcome: Outcome, bit: int) -> bool:
        """Note the outcome on its record. False if its part has one already."""
        source = self.source
        if not source.has_hash(index, outcome.input_hash):
            detail = f"input hash {outcome.input_hash[:16]}... is not that of the record at offset {outcome.offset}"
            self.account.offend("hash_mismatch", self._topics[bit], self.scope.partition, outcome.at, detail)
        marks = source.marks[index]
        if outcome.parts == 1 and not marks & PARTED:
            if marks & (DECIDED | DEAD):
                self._repeat(outcome, bit, same=bool(marks & bit))
                return False
            source.marks[index] = marks | bit
            return True
        return self._part(index, outcome, bit)

    def _part(self, index: int, outcome: Outcome, bit: int) -> bool:
        if self.source.marks[index] & (DECIDED | DEAD):
            detail = f"offset {outcome.offset} has an outcome as a whole and one as part {outcome.part} of {outcome.parts}"
            self.account.offend("bad_part", self._topics[bit], self.scope.partition, outcome.at, detail)
            return False
        parts = self.source.parts_of(index)
        if parts.count is None:
            parts.count = outcome.parts
        elif parts.count != outcome.parts:
            detail = f"offset {outcome.offset} has {outcome.parts} parts here and {parts.count} elsewhere"
            self.account.offend("bad_part", self._topics[bit], self.scope.partition, outcome.at, detail)
            return False
        mine, other = (parts.decided, parts.dead) if bit == DECIDED else (parts.dead, parts.decided)
        if outcome.part in mine or outcome.part in other:
            self._repeat(outcome, bit, same=outcome.part in mine)
            return False
        mine.add(outcome.part)
        return True

    def _repeat(self, outcome: Outcome, bit: int, same: bool) -> None:
        account, scope = self.account, self.scope
        account.tally.repeated += 1
        if not same:
            account.differ(self._topics[bit], outcome.at)
        if not self.chain.tolerant:
            kind = "repeated" if same else "conflict"
            detail = f"offset {outcome.offset} part {outcome.part} has an outcome already" + ("" if same else " of another kind")
            account.offend(kind, self._topics[bit], scope.partition, outcome.at, detail)

    def _order(self, outcome: Outcome) -> None:
        """Decisions of one key must come in the order of their records; a hash stands for the key, to bound memory."""
        order = self.scope.order
        if order == "none" or (order == "key" and outcome.key is None):
            return
        lane = hash(outcome.key) if order == "key" else 0
        newest = self._newest.get(lane, -1)
        if outcome.offset >= newest:
            self._newest[lane] = outcome.offset
            return
        self.account.tally.out_of_order += 1
        detail = f"the decision of offset {outcome.offset} came after that of offset {newest} of the same {order}"
        self.account.offend("out_of_order", self.scope.decisions, self.scope.partition, outcome.at, detail)
