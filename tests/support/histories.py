"""Histories of one source partition as verification sees them, healthy until a test breaks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.identity import decision_id, input_hash
from schemas.receipt import Chain, Receipt
from topics.chain import Tip, chain, head, letter_digest, value_digest
from topics.handover import Outbound
from topics.verify.audit import DEAD_LETTERS, DECISIONS, JUDGEMENTS
from topics.verify.facts import Edges, Outcome, PartitionAccount, Scope
from topics.verify.judge import judge
from topics.verify.ledger import Ledger
from topics.verify.parse import content

SCOPE = Scope(
    "credit-risk", "loans", 2, "decisions", "headrace.credit-risk.dlq", "headrace.credit-risk.receipts",
    judgements="headrace.credit-risk.judgements",
)  # fmt: skip


def value_at(offset: int) -> bytes:
    """The bytes of the input record at an offset."""
    return b'{"offset": %d}' % offset


def value_of(outcome: Outcome) -> bytes:
    """The bytes of an outcome as a worker wrote them."""
    return b'{"id":"%s","at":%d}' % (outcome.id.encode(), outcome.at)


def body_of(receipt: Receipt) -> bytes:
    """The bytes of a receipt."""
    return receipt.model_dump_json(by_alias=True).encode()


@dataclass
class History:
    """What the topics hold about one partition. `commit` writes what a healthy worker writes."""

    scope: Scope = SCOPE
    promise: str = "exactly-once"
    source: list[tuple[int, str]] = field(default_factory=list)
    receipts: list[tuple[int, Receipt]] = field(default_factory=list)
    late: list[tuple[int, Receipt]] = field(default_factory=list)
    decisions: list[Outcome] = field(default_factory=list)
    dead_letters: list[Outcome] = field(default_factory=list)
    edges: Edges = field(default_factory=Edges)
    chained: bool = False
    judgements: list[tuple[int, bytes, str]] = field(default_factory=list)
    nulls: set[tuple[str, int]] = field(default_factory=set)
    other_values: dict[tuple[str, int], bytes] = field(default_factory=dict)
    anchor: str | None = None

    def read(self, *offsets: int) -> History:
        """Input records at these offsets."""
        self.source += [(offset, input_hash(value_at(offset))) for offset in offsets]
        return self

    def outcome(self, offset: int, *, at: int, part: int = 0, parts: int = 1, key: bytes | None = None, **rest: Any) -> Outcome:
        """A sound outcome of the record at `offset`, with fields replaced. Even offsets have one key, odd ones another."""
        scope = self.scope
        key = key or (b"odd" if offset % 2 else b"even")
        value_hash = input_hash(value_at(offset))
        made = decision_id(scope.agent, scope.topic, scope.partition, offset, value_hash, part, scope.run)
        fact = Outcome(at, made, scope.agent, scope.run, scope.topic, scope.partition, offset, value_hash, part, parts, key)
        return fact._replace(**rest)

    def decide(self, *offsets: int, **rest: Any) -> History:
        """Publish decisions."""
        for offset in offsets:
            self.decisions.append(self.outcome(offset, at=len(self.decisions), **rest))
        return self

    def bury(self, *offsets: int, **rest: Any) -> History:
        """Publish dead letters."""
        for offset in offsets:
            self.dead_letters.append(self.outcome(offset, at=len(self.dead_letters), **rest))
        return self

    def receipt(self, first: int, to: int, closed: Sequence[tuple[int, int]], **rest: Any) -> Receipt:
        """A receipt that continues the last one."""
        base: dict[str, Any] = {
            "agent": self.scope.agent, "version": 1, "run": self.scope.run, "promise": self.promise, "topic": self.scope.topic,
            "partition": self.scope.partition, "seq": len(self.receipts) + 1, "from_": first, "to": to, "closed": list(closed),
            "worker": "w", "at": "2026-11-23T12:00:00.000Z",
        }  # fmt: skip
        return Receipt(**(base | rest))

    def commit(
        self, first: int, to: int, *, decided: Sequence[int] = (), dead: Sequence[int] = (), skipped: Sequence[int] = (),
        **rest: Any,
    ) -> History:  # fmt: skip
        """What one commit writes: outcomes and the receipt that closes them."""
        begun = len(self.decisions), len(self.dead_letters), len(self.judgements)
        self.decide(*decided)
        self.bury(*dead)
        if self.chained:
            for offset in decided:
                at = len(self.judgements)
                self.judgements.append((at, b'{"judgement":%d}' % at, self.outcome(offset, at=0).id))
            rest["chain"] = self.chain(*begun)
        closed = [(o, o + 1) for o in sorted([*decided, *dead, *skipped])]
        skips = {"closed-loan": [(o, o + 1) for o in skipped]} if skipped else {}
        base: dict[str, Any] = {"closed": closed, "skips": skips, "decisions": len(decided), "dead_letters": len(dead)}
        made = self.receipt(first, to, **(base | rest))
        self.receipts.append((len(self.receipts), made))
        self.edges = replace(self.edges, committed=to, committed_after=to, source_end=self.source[-1][0] + 1)
        return self

    def chain(self, decisions: int, dead_letters: int, judgements: int) -> Chain:
        """The chain of a commit, from where each topic's records of it begin."""
        records = [Outbound("d", None, value_of(o), (), "decision") for o in self.decisions[decisions:]]
        records += [Outbound("j", None, value, (), "audit") for _, value, _ in self.judgements[judgements:]]
        records += [Outbound("q", None, value_of(o), (("h", b"v"),), "dead_letter") for o in self.dead_letters[dead_letters:]]
        last = self.receipts[-1][1] if self.receipts else None
        count = last.chain.first + last.chain.count if last is not None and last.chain is not None else 0
        return chain(records, Tip(head(body_of(last)) if last is not None else None, count), 1 << 19)

    def amend(self, number: int, **changes: Any) -> History:
        """Change fields of a receipt that was written."""
        at, receipt = self.receipts[number]
        self.receipts[number] = (at, receipt.model_copy(update=changes))
        return self

    def account(self) -> PartitionAccount:
        """Verify it, in the order in which topics/verify/read.py reads. Raises ValueError when `source` is not in order."""
        ledger = Ledger(self.scope, self.anchor)
        for offset, value_hash in self.source:
            ledger.add_source(offset, value_hash)
        for at, receipt in self.receipts:
            ledger.add_receipt(at, receipt, head(body_of(receipt)))
        for at, receipt in self.late:
            ledger.add_late_receipt(at, receipt, head(body_of(receipt)))
        for decision in self.decisions:
            if (DECISIONS, decision.at) in self.nulls:
                ledger.audit.erased(DECISIONS)
                continue
            ledger.add_decision(decision)
            value = self.other_values.get((DECISIONS, decision.at), value_of(decision))
            ledger.anchor(decision, DECISIONS, value_digest(value), content(value))
        for at, value, id in self.judgements:
            if (JUDGEMENTS, at) in self.nulls:
                ledger.audit.erased(JUDGEMENTS)
            else:
                value = self.other_values.get((JUDGEMENTS, at), value)
                ledger.audit.judgement(at, value, id, content(value))
        for dead_letter in self.dead_letters:
            ledger.add_dead_letter(dead_letter)
            value = self.other_values.get((DEAD_LETTERS, dead_letter.at), value_of(dead_letter))
            ledger.anchor(dead_letter, DEAD_LETTERS, letter_digest(value, (("h", b"v"),)))
        return judge(ledger, self.edges)


def healthy(**rest: Any) -> History:
    """Ten records in three commits: decisions, a dead letter, skips, and a record done above the frontier."""
    history = History(**rest).read(*range(10))
    history.commit(0, 4, decided=[0, 1], dead=[2], skipped=[3])
    history.commit(4, 5, decided=[4, 6])
    return history.commit(5, 8, decided=[5], skipped=[7])
