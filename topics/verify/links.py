"""The receipts of one partition as a chain of hashes: each names the one before it, so none can be changed or removed."""

from __future__ import annotations

from schemas.receipt import Receipt
from topics.chain import unpack
from topics.verify.chain import MOST_ENDS

Wrong = list[tuple[str, str]]
KINDS = ("decisions", "dead_letters", "judgements")
"""The names under which a chain holds digests."""


class Links:
    """Receipts in the order of their log, with the hash of each.

    Exactly once: each names the one before it in the log. At least once, a worker that was cut off may still write: so a receipt
    may name any earlier one, and the chain is then forked there, which is counted. Of two receipts with one number the first
    stands. Receipts older than the chain have no part in it, but the first that has one names the last of them.
    """

    def __init__(self) -> None:
        self.head: str | None = None
        self.chained = self.unchained = self.forks = 0
        self.dangling: int | None = None
        self._counts: dict[str | None, int | None] = {}

    def add(self, at: int, receipt: Receipt, head: str, *, tolerant: bool) -> tuple[Wrong, dict[str, list[bytes]] | None]:
        """What is wrong with the next receipt (kind and sentence), and the digests it holds; None where it has no chain."""
        wrong: Wrong = []
        first, found = self.head is None, None
        if receipt.chain is None:
            self.unchained += 1
            self._remember(head, None)
        else:
            self.chained += 1
            wrong, found = self._digests(receipt)
            prev = receipt.chain.prev
            if first:
                self.dangling = at if prev is not None else None
                self._counts[prev] = receipt.chain.first
            elif prev != self.head:
                wrong += self._elsewhere(receipt, prev, tolerant)
            count = self._counts.get(prev)
            if count is not None and count != receipt.chain.first:
                detail = f"receipt {receipt.seq} counts {receipt.chain.first} records before it, the one it names ends at {count}"
                wrong.append(("chain_count", detail))
            self._remember(head, receipt.chain.first + receipt.chain.count)
        self.head = head
        return wrong, found

    def _elsewhere(self, receipt: Receipt, prev: str | None, tolerant: bool) -> Wrong:
        if prev not in self._counts:
            detail = f"receipt {receipt.seq} names a receipt before it that is not there: one was changed, removed or put in"
            return [("chain_break", detail)]
        if tolerant:
            self.forks += 1
            return []
        return [("chain_fork", f"receipt {receipt.seq} continues an earlier receipt than the one before it")]

    def _remember(self, head: str, count: int | None) -> None:
        self._counts[head] = count
        if len(self._counts) > MOST_ENDS:
            del self._counts[next(iter(self._counts))]

    @staticmethod
    def _digests(receipt: Receipt) -> tuple[Wrong, dict[str, list[bytes]] | None]:
        chain = receipt.chain
        assert chain is not None
        try:
            found = {kind: unpack(getattr(chain, kind), chain.width) for kind in KINDS}
        except ValueError as error:
            return [("chain_count", f"receipt {receipt.seq} has {error}")], None
        if not chain.width:
            return [], None
        there = [len(found[kind]) for kind in KINDS]
        if sum(there) != chain.count or there[:2] != [receipt.decisions, receipt.dead_letters]:
            said = f"{receipt.decisions} decisions and {receipt.dead_letters} dead letters, {chain.count} records in all"
            return [("chain_count", f"receipt {receipt.seq} counts {said}; it has digests of {there}")], found
        return [], found
