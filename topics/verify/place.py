"""The place of one decision in the audit chain, and whether it holds there: the receipt that closed it and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.receipt import Receipt
from topics.chain import head, letter_digest, unpack, value_digest
from topics.record import RawRecord
from topics.verify import parse
from topics.verify.links import KINDS


@dataclass(slots=True)
class Place:
    """Where a decision stands. `number` counts the records of the chain from 1; None outside it.

    `verified` None means that nothing could be checked: the receipt has no chain, or there is no receipt. `said` are sentences.
    `outcome` and `judgement` are the places, among those that were given, of the ones to tell: what the receipt anchors, else the
    first.
    """

    receipt: Receipt | None = None
    at: int | None = None
    number: int | None = None
    verified: bool | None = None
    said: list[str] = field(default_factory=list)
    outcome: int = 0
    judgement: int = 0

    def fault(self, sentence: str) -> None:
        """Something that keeps it from being verified."""
        self.verified = False
        self.said.append(sentence)


class Placing:
    """Pushed the receipts of one source partition and run in log order until it has found enough.

    `outcomes` are the copies of the decision or dead letter (several only where delivery is at least once), `judgements` those
    of its judgement. The first receipt that anchors a copy is the one; else the first that closed the source record.
    """

    def __init__(self, offset: int, run: str, outcomes: Sequence[RawRecord], judgements: Sequence[RawRecord]) -> None:
        self._offset = offset
        self._run = run
        self._digests = {
            KINDS[0]: [value_digest(r.value) for r in outcomes],
            KINDS[1]: [letter_digest(r.value, r.headers) for r in outcomes],
            KINDS[2]: [value_digest(r.value) for r in judgements],
        }
        self._wants_judgement = bool(judgements)
        self._heads: set[str] = set()
        self._found: tuple[RawRecord, Receipt, int | None] | None = None
        self._prev_known: bool | None = None
        self._next: Receipt | None = None

    def add(self, record: RawRecord) -> bool:
        """The next record of the receipts topic. True when the receipt after the one that is looked for has been seen."""
        receipt = parse.receipt(record)
        if isinstance(receipt, str) or receipt.run != self._run:
            return False
        anchored = self._number(receipt)
        closes = any(first <= self._offset < end for first, end in receipt.closed)
        if anchored is not None and (self._found is None or self._found[2] is None):
            self._take(record, receipt, anchored)
        elif closes and self._found is None:
            self._take(record, receipt, None)
        elif self._found is not None and self._next is None:
            self._next = receipt
        self._heads.add(head(record.value or b""))
        return self._next is not None and self._found is not None and self._found[2] is not None

    def _take(self, record: RawRecord, receipt: Receipt, number: int | None) -> None:
        self._found, self._next = (record, receipt, number), None
        prev = receipt.chain.prev if receipt.chain is not None else None
        self._prev_known = True if prev is None else prev in self._heads if self._heads else None

    def _number(self, receipt: Receipt) -> int | None:
        """The place of a copy among the records of a receipt, counted through the chain; None where it holds none."""
        digests = self._unpacked(receipt)
        before = 0
        for kind in KINDS[:2]:
            width = receipt.chain.width if receipt.chain is not None else 0
            wanted = {digest[:width] for digest in self._digests[kind]}
            for index, digest in enumerate(digests[kind]):
                if digest in wanted and receipt.chain is not None:
                    return receipt.chain.first + before + index + 1
            before += len(digests[kind])
        return None

    @staticmethod
    def _unpacked(receipt: Receipt) -> dict[str, list[bytes]]:
        chain = receipt.chain
        if chain is None:
            return {kind: [] for kind in KINDS}
        try:
            return {kind: unpack(getattr(chain, kind), chain.width) for kind in KINDS}
        except ValueError:
            return {kind: [] for kind in KINDS}

    def place(self) -> Place:
        """What was found."""
        if self._found is None:
            return Place(said=["no receipt closes its source record: it is not committed yet, or receipts were removed"])
        record, receipt, number = self._found
        place = Place(receipt, record.offset, number)
        if receipt.chain is None:
            place.said.append("its receipt carries no chain: it is older than the chain, or no judgements were kept")
            return place
        wrong = []
        if number is None:
            wrong.append("its receipt does not anchor it: it was changed, or it is a repeat whose commit was never finished")
        place.outcome = min(self._anchored(receipt, *KINDS[:2]), default=0)
        judged = self._anchored(receipt, KINDS[2])
        place.judgement = min(judged, default=0)
        if self._wants_judgement and not judged:
            wrong.append("its receipt does not anchor its judgement: that was changed or put in")
        if self._prev_known is False:
            wrong.append("its receipt names a receipt before it that is not there")
        mine = head(record.value or b"")
        if self._next is None:
            place.said.append("its receipt is the last one: only a head that was kept can vouch for it")
        elif self._next.chain is None or self._next.chain.prev != mine:
            (place.said if receipt.promise == "at-least-once" else wrong).append("the next receipt does not name its receipt")
        place.verified = not wrong
        place.said += wrong
        return place

    def _anchored(self, receipt: Receipt, *kinds: str) -> set[int]:
        """The places, among those that were given, of the records that a receipt anchors."""
        width = receipt.chain.width if receipt.chain is not None else 0
        digests = {kind: set(found) for kind, found in self._unpacked(receipt).items()}
        return {
            index for kind in kinds for index, digest in enumerate(self._digests[kind]) if digest[:width] in digests[kind]
        }
