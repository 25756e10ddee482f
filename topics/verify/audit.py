"""The audit of one source partition: the links between its receipts, and its records against the digests that they hold."""

from __future__ import annotations

from schemas.receipt import Receipt
from topics.chain import SHORT, value_digest
from topics.verify.anchors import Anchors
from topics.verify.facts import Edges, PartitionAccount, Scope
from topics.verify.links import KINDS, Links

DECISIONS, DEAD_LETTERS, JUDGEMENTS = KINDS


class Audit:
    """Collects what the chain says and what is there; `judge` writes it into the account.

    Pushed in the order of topics/verify/ledger.py. `anchor` is the head of the chain as somebody has kept it. A judgement does
    not say whose it is, so those of another run or of an earlier source topic are known by what their own receipts anchor.
    """

    def __init__(self, scope: Scope, account: PartitionAccount, anchor: str | None = None) -> None:
        self._scope = scope
        self._account = account
        self._links = Links()
        self._anchors = {kind: Anchors() for kind in KINDS}
        self._topics = {DECISIONS: scope.decisions, DEAD_LETTERS: scope.dead_letters, JUDGEMENTS: scope.judgements}
        self._anchor = anchor
        self._tolerant = False
        self._others: set[bytes] = set()
        self._of_others = 0
        self._others_unknown = False

    @property
    def chained(self) -> bool:
        """Whether any receipt has a chain."""
        return bool(self._links.chained)

    def receipt(self, at: int, receipt: Receipt, head: str, *, tolerant: bool) -> None:
        """The next receipt, and the SHA-256 of its value in hex."""
        wrong, digests = self._links.add(at, receipt, head, tolerant=tolerant)
        for kind, detail in wrong:
            self._offend(kind, self._scope.receipts, at, detail)
        if head == self._anchor:
            self._anchor = None
        if tolerant and not self._tolerant:
            self._tolerant = True
            for anchors in self._anchors.values():
                anchors.tolerate()
        for name, anchors in self._anchors.items():
            if digests is None:
                anchors.unknown()
            else:
                anchors.expect(digests[name], at)

    def late(self, at: int, receipt: Receipt) -> None:
        """A receipt written while the records were being read. What is wrong with it is for the next verification."""
        digests = Links().add(at, receipt, "", tolerant=True)[1]
        for name, anchors in self._anchors.items():
            if digests is None:
                anchors.unknown()
            else:
                anchors.late(digests[name], at)

    def other(self, receipt: Receipt) -> None:
        """A receipt of another run, or of an earlier source topic, whose judgements lie among ours.

        At least once a judgement may be there before its receipt, so what these anchor is then not all that may be theirs.
        """
        digests = Links().add(0, receipt, "", tolerant=True)[1]
        if digests is None or receipt.promise == "at-least-once":
            self._others_unknown = True
        if digests is not None:
            self._others.update(digest[:SHORT] for digest in digests[JUDGEMENTS])

    def found(self, kind: str, at: int, digest: bytes, id: str = "") -> None:
        """The next record of a topic."""
        self._anchors[kind].found(at, digest, id)

    def judgement(self, at: int, value: bytes, id: str) -> None:
        """The next judgement."""
        digest = value_digest(value)
        if digest[:SHORT] in self._others:
            self._of_others += 1
        else:
            self._anchors[JUDGEMENTS].found(at, digest, id)

    def erased(self, kind: str) -> None:
        """The next record of a topic is null: erased, or a tombstone that erases others."""
        self._anchors[kind].null()
        self._account.tally.tombstones += 1

    def nulls(self, kind: str) -> int:
        """The nulls met in a topic."""
        return self._anchors[kind].nulls

    def judge(self, edges: Edges) -> None:
        """Say what the whole shows."""
        account, links, scope = self._account, self._links, self._scope
        account.head = links.head
        where = f"{scope.topic}/{scope.partition}"
        if self._anchor is not None and not edges.receipts_trimmed:
            detail = f"no receipt has the hash {self._anchor[:16]}... that was the chain's head: it was rewritten or cut back"
            self._offend("anchor_lost", scope.receipts, None, detail)
        if links.dangling is not None and not edges.receipts_trimmed:
            detail = "the first receipt names one before it, and retention has removed none"
            self._offend("chain_break", scope.receipts, links.dangling, detail)
        if links.unchained:
            account.notes.append(f"{where}: {links.unchained} receipts carry no chain: only what others anchor could be checked")
        if links.forks:
            account.notes.append(f"{where}: the chain is forked {links.forks} times, where a commit was left half done")
        account.tally.forks = links.forks
        if not links.chained:
            return
        trimmed = {
            DECISIONS: (edges.decisions_trimmed, edges.decisions_compacted),
            DEAD_LETTERS: (edges.dead_letters_trimmed, edges.dead_letters_compacted),
            JUDGEMENTS: (edges.judgements_trimmed, edges.judgements_compacted),
        }
        for kind, anchors in self._anchors.items():
            if self._topics[kind]:
                self._kind(kind, anchors, *trimmed[kind], edges.receipts_trimmed)

    def _kind(self, kind: str, anchors: Anchors, trimmed: bool, compacted: bool, receipts_trimmed: bool) -> None:
        topic, tally, one = self._topics[kind], self._account.tally, kind.replace("_", " ").removesuffix("s")
        found = anchors.findings(trimmed=trimmed, compacted=compacted)
        tally.anchored += found.anchored
        tally.erased += found.erased
        tally.unanchored += found.loose + found.repeats + found.ahead
        if found.ahead:
            end = f"the end of {topic}/{self._scope.partition}"
            self._account.notes.append(f"{found.ahead} records at {end} are anchored by no receipt yet: a commit is under way, "
                                       "or was left half done")  # fmt: skip
        for at, receipt in found.changed:
            self._offend("changed", topic, at, f"this {one} is not the one that the receipt at offset {receipt} anchors")
        for receipt, number in found.removed:
            detail = f"{one} {number} of those that this receipt anchors is gone from {topic}/{self._scope.partition}"
            self._offend("removed", self._scope.receipts, receipt, detail)
        if kind == JUDGEMENTS:
            tally.unanchored += self._of_others
            if self._others_unknown or (self._others and receipts_trimmed):  # it may be one of theirs
                tally.unanchored += len(found.inserted)
                found.inserted.clear()
        for at in found.inserted:
            self._offend("inserted", topic, at, f"no receipt anchors this {one}")
        for at in found.moved:
            self._offend("moved", topic, at, f"this {one} stands behind others that were written after it")
        for at in found.doubled if kind == JUDGEMENTS else ():
            self._offend("repeated", topic, at, "this judgement is there already")

    def _offend(self, kind: str, topic: str, at: int | None, detail: str) -> None:
        self._account.offend(kind, topic, self._scope.partition, at, detail)
