"""The receipts of one partition as a chain: numbered without a gap, each beginning where the one before it ended."""

from __future__ import annotations

from schemas.receipt import Receipt

MOST_ENDS = 65_536
"""Ends of earlier receipts that are remembered where delivery is at least once."""


class Chain:
    """Receipts in the order of their log.

    Exactly once: each follows the one before it, whatever happened. At least once: a worker that stopped between its receipt
    and its commit leaves a receipt that the next worker does not know, and one that was cut off may still write; so a receipt
    may follow any earlier one, and numbering starts again where the broker keeps no metadata with a commit.
    """

    def __init__(self) -> None:
        self.first: Receipt | None = None
        self.last: Receipt | None = None
        self.frontier: int | None = None
        self.tolerant = False
        self._ends: dict[tuple[int, int], None] = {}
        self._tos: dict[int, None] = {}

    def add(self, receipt: Receipt) -> list[tuple[str, str]]:
        """What is wrong with the next receipt: pairs of the kind of offence and a sentence."""
        wrong = []
        if receipt.to < receipt.from_:
            wrong.append(("receipt_range", f"receipt {receipt.seq} goes back from {receipt.from_} to {receipt.to}"))
        self.tolerant = self.tolerant or receipt.promise == "at-least-once"
        if self.last is None:
            self.first = receipt
        elif self.tolerant:
            wrong += self._follows_any(receipt)
        else:
            wrong += self._follows(self.last, receipt)
        self._remember(receipt)
        self.last = receipt
        self.frontier = receipt.to if self.frontier is None else max(self.frontier, receipt.to)
        return wrong

    @staticmethod
    def _follows(last: Receipt, receipt: Receipt) -> list[tuple[str, str]]:
        if receipt.seq == last.seq + 1 and receipt.from_ == last.to:
            return []
        if receipt.seq != last.seq + 1:
            return [("receipt_gap", f"receipt {receipt.seq} (from {receipt.from_}) follows receipt {last.seq} (to {last.to})")]
        return [("receipt_break", f"receipt {receipt.seq} begins at {receipt.from_}, the one before it ended at {last.to}")]

    def _follows_any(self, receipt: Receipt) -> list[tuple[str, str]]:
        if (receipt.seq - 1, receipt.from_) in self._ends:
            return []
        first = self.first
        begins_again = first is not None and receipt.from_ == first.from_ and receipt.seq <= max(first.seq, 1)
        if begins_again or (receipt.seq <= 1 and receipt.from_ in self._tos):
            return []
        if receipt.from_ in self._tos:
            return [("receipt_gap", f"no receipt {receipt.seq - 1} ended at {receipt.from_}, where receipt {receipt.seq} begins")]
        return [("receipt_break", f"receipt {receipt.seq} begins at {receipt.from_}, where no earlier one ended")]

    def _remember(self, receipt: Receipt) -> None:
        self._ends[receipt.seq, receipt.to] = None
        self._tos[receipt.to] = None
        if len(self._ends) > MOST_ENDS:
            del self._ends[next(iter(self._ends))]
        if len(self._tos) > MOST_ENDS:
            del self._tos[next(iter(self._tos))]
