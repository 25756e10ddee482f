"""The audit of one source partition: the links between its receipts, and its records against the digests that they hold."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from schemas.receipt import Receipt
from topics.chain import SHORT, WHOLE, value_digest
from topics.verify.anchors import Anchors
from topics.verify.facts import Edges, PartitionAccount, Scope
from topics.verify.links import KINDS, Links

DECISIONS, DEAD_LETTERS, JUDGEMENTS = KINDS
NOBODY = "no digest says whose these judgements are: the receipts of another run are gone, have no digests, or came at least once"


@dataclass(slots=True)
class Beside:
    """The receipts of one other run or earlier source topic, as a chain of their own: what it names excuses while it holds.

    `blind`: some of its receipts name no digests. `judgements` are the offsets of those that it names.
    """

    links: Links = field(default_factory=Links)
    holds: bool = True
    tolerant: bool = False
    blind: bool = False
    digests: dict[str, set[bytes]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    judgements: array[int] = field(default_factory=lambda: array("q"))

    def names(self, kind: str, digest: bytes) -> bool:
        """Whether one of its receipts holds this digest, whole or short."""
        known = self.digests[kind]
        return digest[:WHOLE] in known or digest[:SHORT] in known


class Audit:
    """Collects what the chain says and what is there; `judge` writes it into the account.

    Pushed in the order of topics/verify/ledger.py. `anchor` is the head of the chain as somebody has kept it. A judgement does
    not say whose it is, so those of another run or of an earlier source topic are known by what their own receipts anchor, as
    long as those are a chain that holds. Whether another run is right about its input is for a verification of that run.
    """

    def __init__(self, scope: Scope, account: PartitionAccount, anchor: str | None = None) -> None:
        self._scope = scope
        self._account = account
        self._links = Links()
        self._anchors = {kind: Anchors() for kind in KINDS}
        self._topics = {DECISIONS: scope.decisions, DEAD_LETTERS: scope.dead_letters, JUDGEMENTS: scope.judgements}
        self._anchor = anchor
        self._tolerant = False
        self._others: dict[tuple[str, str], Beside] = {}
        self._strangers: list[tuple[str, int]] = []

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

    def other(self, at: int, receipt: Receipt, head: str) -> None:
        """The next receipt of another run, or of an earlier source topic, whose records lie among ours."""
        beside = self._others.setdefault((receipt.run, receipt.topic), Beside())
        beside.tolerant = beside.tolerant or receipt.promise == "at-least-once"
        wrong, digests = beside.links.add(at, receipt, head, tolerant=beside.tolerant)
        for kind, detail in wrong:
            beside.holds = False
            self._offend(kind, self._scope.receipts, at, f"of the run {receipt.run} about {receipt.topic}: {detail}")
        beside.blind = beside.blind or digests is None
        for kind, known in beside.digests.items():
            known.update(digests[kind] if digests is not None else ())

    def found(self, kind: str, at: int, digest: bytes, id: str = "", content: int = 0) -> None:
        """The next record of a topic. `content` stands for what it says, where delivery is at least once."""
        self._anchors[kind].found(at, digest, id, content)

    def stranger(self, kind: str, at: int, digest: bytes, run: str, topic: str) -> None:
        """The next decision or dead letter of another run or source topic: its own receipts are to name it.

        At least once it may be there before its receipt, or have none, so nothing can be said of it here.
        """
        beside = self._others.get((run, topic))
        if beside is not None and not (beside.tolerant or beside.blind or beside.names(kind, digest)):
            self._strangers.append((kind, at))

    def judgement(self, at: int, value: bytes, id: str, content: int = 0) -> None:
        """The next judgement."""
        digest = value_digest(value)
        for beside in self._others.values():
            if beside.holds and beside.names(JUDGEMENTS, digest):
                beside.judgements.append(at)
                return
        self._anchors[JUDGEMENTS].found(at, digest, id, content)

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
        put_in = self._beside(edges)
        if not links.chained:
            return
        trimmed = {
            DECISIONS: (edges.decisions_trimmed, edges.decisions_compacted),
            DEAD_LETTERS: (edges.dead_letters_trimmed, edges.dead_letters_compacted),
            JUDGEMENTS: (edges.judgements_trimmed, edges.judgements_compacted),
        }
        for kind, anchors in self._anchors.items():
            if self._topics[kind]:
                self._kind(kind, anchors, *trimmed[kind], shared=self._nobodys(edges))
        for at in put_in:
            self._offend("inserted", scope.judgements, at, "only a receipt anchors this judgement whose chain does not hold")

    def _beside(self, edges: Edges) -> list[int]:
        """Judge the chains of other runs. The judgements that only one which does not hold names, after all."""
        account, scope = self._account, self._scope
        put_in: list[int] = []
        for (run, topic), beside in self._others.items():
            whose = f"the run {run} about the source topic {topic}"
            dangling = None if edges.receipts_trimmed else beside.links.dangling
            if dangling is not None:
                detail = f"the first receipt of {whose} names one before it, and retention has removed none"
                self._offend("chain_break", scope.receipts, dangling, detail)
                put_in += beside.judgements
            elif beside.judgements:
                account.tally.unanchored += len(beside.judgements)
                number = len(beside.judgements)
                account.notes.append(f"{number} judgements are anchored by receipts of {whose}: verify that run by itself")
        for kind, at in self._strangers:
            if not edges.receipts_trimmed:
                one = kind.replace("_", " ").removesuffix("s")
                self._offend("inserted", self._topics[kind], at, f"no receipt of the run that it names anchors this {one}")
        return put_in

    def _nobodys(self, edges: Edges) -> bool:
        """Whether a judgement that nothing anchors may be one of another run all the same."""
        others = self._others.values()
        gone = edges.receipts_trimmed and bool(others)
        return gone or any(beside.blind or (beside.tolerant and self._tolerant) for beside in others)

    def _kind(self, kind: str, anchors: Anchors, trimmed: bool, compacted: bool, *, shared: bool) -> None:
        topic, tally, one = self._topics[kind], self._account.tally, kind.replace("_", " ").removesuffix("s")
        found = anchors.findings(trimmed=trimmed, compacted=compacted)
        tally.anchored += found.anchored
        tally.erased += found.erased
        for at in found.differing:
            self._account.differ(topic, at)
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
        if kind == JUDGEMENTS and found.inserted and shared:
            tally.unanchored += len(found.inserted)
            # not cleared, so that --strict fails: a forged receipt may be all that makes it possible
            self._account.unprovable[NOBODY] += len(found.inserted)
            found.inserted.clear()
        for at in found.inserted:
            self._offend("inserted", topic, at, f"no receipt anchors this {one}")
        for at in found.moved:
            self._offend("moved", topic, at, f"this {one} stands behind others that were written after it")
        for at in found.doubled if kind == JUDGEMENTS else ():
            self._offend("repeated", topic, at, "this judgement is there already")

    def _offend(self, kind: str, topic: str, at: int | None, detail: str) -> None:
        self._account.offend(kind, topic, self._scope.partition, at, detail)
