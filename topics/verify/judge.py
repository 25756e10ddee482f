"""What only the whole of a partition shows: records without outcome, outcomes without input, counts, offsets; and what nobody
can prove any more because retention or compaction has removed it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from topics.verify.facts import Edges, PartitionAccount
from topics.verify.ledger import Ledger
from topics.verify.source import CLOSED, DEAD, DECIDED, EXCUSED, LATE, LOST, SKIPPED, Parts

NO_RECEIPT = "their receipts were removed by retention, and they may have been skips"
NO_OUTCOME = "their decisions or dead letters were removed by retention or compaction"
NO_RUN = "the receipts of the run that these outcomes name were removed by retention"
NO_INPUT = "the input of these outcomes was removed by retention or compaction"

_PLAIN = {CLOSED | bit | more: bit for bit in (DECIDED, DEAD, SKIPPED) for more in (0, LATE, EXCUSED, LATE | EXCUSED)}
_IS_PLAIN = bytes(int(value in _PLAIN) for value in range(256))
_IS_PLAIN_OR_PENDING = bytes(int(value in _PLAIN or value in (0, LATE)) for value in range(256))


def judge(ledger: Ledger, edges: Edges) -> PartitionAccount:
    """Close the account of a partition. The ledger is used up."""
    return _Judge(ledger, edges).run()


class _Judge:
    def __init__(self, ledger: Ledger, edges: Edges) -> None:
        self.ledger = ledger
        self.edges = edges
        self.scope = ledger.scope
        self.source = ledger.source
        self.account = ledger.account
        self.chain = ledger.chain
        self.frontier = ledger.chain.frontier
        first = ledger.chain.first
        # Below this offset a record may have been closed by a receipt that retention has removed.
        self.unreceipted_below = -1
        if edges.receipts_trimmed:
            self.unreceipted_below = first.from_ + self.scope.span if first is not None else edges.source_end
            if first is None:
                self.frontier = edges.committed

    def run(self) -> PartitionAccount:
        account, chain = self.account, self.chain
        account.first = chain.first.from_ if chain.first else None
        account.frontier = chain.frontier
        account.committed = self.edges.committed
        self._counts()
        self._records()
        self._behind()
        self._strays()
        self._others()
        self._numbering()
        self._offsets()
        self._notes()
        self.ledger.audit.judge(self.edges)
        return account

    # ---- receipts against what was published -----------------------------------------------------------------------------
    def _counts(self) -> None:
        """Each receipt's counts against the outcomes of the ranges it closed."""
        claims = self.ledger.claims
        found = {bit: (self.source.sums(bit), sorted(self.ledger.strays.offsets[bit])) for bit in (DECIDED, DEAD)}
        bounds = {DECIDED: self._bound(DECIDED), DEAD: self._bound(DEAD)}
        low = 0
        for number, at in enumerate(claims.at):
            ranges, low = claims.ranges(number, low)
            for bit, claimed in ((DECIDED, claims.decisions[number]), (DEAD, claims.dead_letters[number])):
                there = self._published(ranges, *found[bit])
                if there == claimed or (self.chain.tolerant and there > claimed):
                    continue
                if there < claimed and number <= bounds[bit]:
                    for first, end in ranges:
                        self.source.mark(*self.source.between(first, end), EXCUSED)
                    continue
                what = "decisions" if bit == DECIDED else "dead letters"
                detail = f"the receipt counts {claimed} {what}, {there} are there for the ranges it closed"
                self._offend("count_mismatch", self.scope.receipts, at, detail)

    def _published(self, ranges: list[tuple[int, int]], sums: array[int], strays: list[int]) -> int:
        total = 0
        for first, end in ranges:
            low, high = self.source.between(first, end)
            total += sums[high] - sums[low] + bisect_left(strays, end) - bisect_left(strays, first)
        return total

    def _bound(self, bit: int) -> float:
        """The last receipt whose outcomes retention or compaction may have removed; -1 if that can be none.

        A log keeps its newer end, so the receipt of the first outcome that is left is the last that can be affected.
        """
        edges = self.edges
        decisions = bit == DECIDED
        erased = edges.decisions_erased if decisions else edges.dead_letters_erased
        if erased or (edges.decisions_compacted if decisions else edges.dead_letters_compacted):
            return float("inf")
        if not (edges.decisions_trimmed if decisions else edges.dead_letters_trimmed):
            return -1
        first = self.ledger.first_outcome.get(bit)
        if first is None or self.frontier is None:
            return float("inf")
        closer = self.ledger.claims.closer(first)
        return float("inf") if closer < 0 and first >= self.frontier else closer

    # ---- record by record ------------------------------------------------------------------------------------------------
    def _records(self) -> None:
        """Plain records (closed, one outcome) are counted in bulk; every other one is looked at."""
        tally, source = self.account.tally, self.source
        due = 0 if self.frontier is None else bisect_left(source.offsets, self.frontier)
        for value, bit in _PLAIN.items():
            number = source.marks.count(value)
            tally.records += number
            tally.decisions += number if bit == DECIDED else 0
            tally.dead_letters += number if bit == DEAD else 0
            tally.skips += number if bit == SKIPPED else 0
        above = source.marks[due:]
        tally.pending += above.count(0) + above.count(LATE)
        plain = source.marks[:due].translate(_IS_PLAIN) + above.translate(_IS_PLAIN_OR_PENDING)
        at = plain.find(0)
        while at >= 0:
            self._record(at)
            at = plain.find(0, at + 1)

    def _record(self, index: int) -> None:
        source, tally = self.source, self.account.tally
        marks, offset = source.marks[index], source.offsets[index]
        parts = source.parts.get(index)
        published = bool(marks & (DECIDED | DEAD)) or (parts is not None and bool(parts.decided or parts.dead))
        if not marks & CLOSED and (self.frontier is None or offset >= self.frontier):
            tally.pending += 1
            if published and not marks & LATE:
                self._unclosed(offset, waiting=True)
            return
        tally.records += 1
        tally.decisions += len(parts.decided) if parts else bool(marks & DECIDED)
        tally.dead_letters += len(parts.dead) if parts else bool(marks & DEAD)
        tally.skips += bool(marks & SKIPPED) or (parts is not None and not published and bool(parts.skipped))
        if marks & LOST:
            self._offend("false_loss", self.scope.topic, offset, "a receipt calls this record lost, and it is there")
        if published and marks & SKIPPED:
            self._both(offset, "the record was skipped by a receipt, and has a published outcome")
        if not marks & CLOSED and (published or marks & SKIPPED):
            self._unclosed(offset, waiting=False)
        if marks & (DECIDED | DEAD | SKIPPED):
            return
        if parts is not None and parts.known:
            self._parts(index, offset, parts)
        else:
            self._missing(index, offset)

    def _parts(self, index: int, offset: int, parts: Parts) -> None:
        if parts.skipped & (parts.decided | parts.dead):
            self._both(offset, "a part was skipped by a receipt, and has a published outcome")
        if parts.count is not None and max(parts.known) >= parts.count:
            detail = f"part {max(parts.known)} has an outcome, and the record has {parts.count} parts"
            self._offend("bad_part", self.scope.topic, offset, detail)
        missing = parts.missing
        if not missing:
            return
        if self._excused(index, offset):
            return
        self.account.tally.unaccounted += 1
        for part in missing:
            self._offend("missing_part", self.scope.topic, offset, f"part {part} of {parts.count or '?'} has no outcome")

    def _missing(self, index: int, offset: int) -> None:
        marks = self.source.marks[index]
        if self._excused(index, offset):
            return
        self.account.tally.unaccounted += 1
        if marks & LOST:
            return
        why = "closed by a receipt that does not skip it" if marks & CLOSED else f"below the frontier {self.frontier}"
        self._offend("missing", self.scope.topic, offset, f"no decision, no dead letter and no skip; {why}")

    def _excused(self, index: int, offset: int) -> bool:
        marks = self.source.marks[index]
        if marks & CLOSED and marks & EXCUSED:
            self.account.unprovable[NO_OUTCOME] += 1
            return True
        if not marks & CLOSED and offset < self.unreceipted_below:
            self.account.unprovable[NO_RECEIPT] += 1
            return True
        return False

    def _unclosed(self, offset: int, waiting: bool) -> None:
        """An outcome without a receipt. Before the next receipt that is the way of things where delivery is at least once."""
        if offset < self.unreceipted_below:
            return
        if waiting and self.chain.tolerant:
            self.account.tally.ahead += 1
            return
        self._offend("unreceipted", self.scope.topic, offset, "the record has an outcome, and no receipt has closed it")

    def _both(self, offset: int, detail: str) -> None:
        if self.chain.tolerant:
            self.account.differ(self.scope.topic, offset)
        else:
            self._offend("conflict", self.scope.topic, offset, detail)

    def _behind(self) -> None:
        for index, at in self.ledger.behind:
            offset = self.source.offsets[index]
            if self.source.marks[index] & CLOSED and offset >= self.unreceipted_below:
                detail = f"its frontier passed offset {offset}, which was closed only later"
                self._offend("frontier_ahead", self.scope.receipts, at, detail)

    # ---- outcomes without input --------------------------------------------------------------------------------------------
    def _strays(self) -> None:
        strays, scope, edges = self.ledger.strays, self.scope, self.edges
        for bit, topic in ((DECIDED, scope.decisions), (DEAD, scope.dead_letters)):
            for offset, at in zip(strays.offsets[bit], strays.at[bit], strict=True):
                if offset < edges.source_start or (edges.source_compacted and offset < edges.source_end):
                    self.account.unprovable[NO_INPUT] += 1
                else:
                    self._offend("foreign", topic, at, f"{scope.topic}/{scope.partition} has no record at offset {offset}")

    def _others(self) -> None:
        """Outcomes of another agent, run or source: a run that has receipts of its own is verified as itself, all else offends.

        A topic of decisions has one agent, as a topic of dead letters has, so no other agent can have written to it.
        """
        ledger, scope, account = self.ledger, self.scope, self.account
        for (bit, side), found in ledger.others.items():
            number, at = found.number, found.at
            topic = scope.decisions if bit == DECIDED else scope.dead_letters
            whose = f"the run {side.run} about the source topic {side.topic}"
            if side.agent != scope.agent:
                detail = f"{number} outcomes name the agent {side.agent}, which does not write here; this is the first of them"
                self._offend("foreign", topic, at, detail)
            elif side in ledger.receipted:
                account.notes.append(f"{number} outcomes of {whose} are not accounted for here: verify that run by itself")
            elif self.edges.receipts_trimmed:
                account.unprovable[NO_RUN] += number
            else:
                detail = f"{number} outcomes name {whose}, of which there are no receipts; this is the first of them"
                self._offend("foreign", topic, at, detail)

    # ---- numbering and offsets ---------------------------------------------------------------------------------------------
    def _numbering(self) -> None:
        first = self.chain.first
        if first is not None and first.seq > 1 and not self.edges.receipts_trimmed:
            detail = f"the first receipt has number {first.seq}, and retention has removed none"
            self._offend("receipt_gap", self.scope.receipts, self.ledger.claims.at[0], detail)

    def _offsets(self) -> None:
        edges, frontier, source = self.edges, self.chain.frontier, self.source
        committed = edges.committed
        if frontier is None and edges.receipts_trimmed:
            return
        if committed is not None:
            low, high = source.between(-1 if frontier is None else frontier, committed)
            unsettled = [i for i in source.where(low, high, CLOSED, False) if not source.marks[i] & (LATE | LOST)]
            if unsettled:
                offset = source.offsets[unsettled[0]]
                detail = f"the group has committed {committed}, and {len(unsettled)} records from here on have no receipt"
                self._offend("offset_ahead", self.scope.topic, offset, detail)
        for first, end in edges.done if not edges.receipts_trimmed else ():
            low, high = source.between(first, end)
            for index in source.where(low, high, CLOSED, False):
                if not source.marks[index] & LATE:
                    detail = "the commit's metadata calls the record done, and no receipt has closed it"
                    self._offend("done_ahead", self.scope.topic, source.offsets[index], detail)
        after = edges.committed_after
        if after is not None and frontier is not None and after < frontier and not self.chain.tolerant:
            detail = f"the group's offset is {after}, the last receipt ends at {frontier}: what lies between would come again"
            self._offend("offset_behind", self.scope.topic, after, detail)

    def _notes(self) -> None:
        edges, notes, where = self.edges, self.account.notes, f"{self.scope.topic}/{self.scope.partition}"
        if edges.source_start > 0:
            notes.append(f"{where}: input below offset {edges.source_start} is gone (retention) and is not accounted for")
        if edges.source_compacted:
            notes.append(f"{where}: the source is compacted, so input that was there may be missing by now")
        if edges.receipts_trimmed:
            first = self.chain.first
            notes.append(f"{where}: receipts {f'before number {first.seq} ' if first else ''}are gone (retention)")
        for gone, topic in (
            (edges.decisions_trimmed, self.scope.decisions),
            (edges.dead_letters_trimmed, self.scope.dead_letters),
        ):
            if gone:
                notes.append(f"{where}: older records of {topic} are gone (retention)")
        if edges.committed is None and self.chain.last is not None:
            notes.append(f"{where}: the group has no committed offset (it expires when nobody reads), so none was compared")

    def _offend(self, kind: str, topic: str, offset: int | None, detail: str) -> None:
        self.account.offend(kind, topic, self.scope.partition, offset, detail)
