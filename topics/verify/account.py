"""The pure part of verification: all facts of one source partition in, its account with the offenders out."""

from __future__ import annotations

from topics.verify.facts import PartitionAccount, PartitionFacts, Scope
from topics.verify.judge import judge
from topics.verify.ledger import Ledger


def account_partition(scope: Scope, facts: PartitionFacts) -> PartitionAccount:
    """The account of one source partition. Raises ValueError when source records do not come in the order of their offsets."""
    ledger = Ledger(scope)
    for offset, input_hash in facts.source:
        ledger.add_source(offset, input_hash)
    for at, receipt in facts.receipts:
        ledger.add_receipt(at, receipt)
    for _, receipt in facts.late:
        ledger.add_late_receipt(receipt)
    for decision in facts.decisions:
        ledger.add_decision(decision)
    for dead_letter in facts.dead_letters:
        ledger.add_dead_letter(dead_letter)
    return judge(ledger, facts.edges)
