"""The demo's own account: each outcome once, only of what this run sent, whatever order the news comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from agents.demo.drafts import Planned
from agents.demo.ledger import Channels, Ledger
from schemas.decision import Decision, Reason, Source, Subject
from schemas.receipt import Receipt
from schemas.wire import rfc3339
from topics.record import Raw

CHANNELS = Channels("credit-risk", "loans", "decisions", "dlq", "receipts", "calls")
BEGIN = 100
NOW_MS = 1_795_000_000_000


def _ledger() -> Ledger:
    return Ledger([CHANNELS], {("loans", 0): BEGIN})


def _planned(fault: str | None = None) -> Planned:
    return Planned("loan-applications", "application", "1", 1, b"k", b"v", 0.0, fault)


def _decision(offset: int, **changes: Any) -> Raw:
    decision = Decision(
        id=f"id-{offset}", agent="credit-risk", version=1, manifest="m", subject=Subject(type="loan", id="1"),
        source=Source(topic="loans", partition=0, offset=offset, timestamp=rfc3339(NOW_MS), input_hash="h"),
        outcome="approve", tier="model", received_at=rfc3339(NOW_MS) or "", decided_at=rfc3339(NOW_MS) or "",
    ).model_copy(update=changes)  # fmt: skip
    return Raw("decisions", decision.model_dump_json(by_alias=True).encode())


def _dead_letter(offset: int) -> Raw:
    said = {"topic": "loans", "partition": "0", "offset": str(offset), "id": f"id-{offset}", "reason": "not-json", "field": ""}
    return Raw("dlq", b"v", headers=tuple((f"headrace_{name}", text.encode()) for name, text in said.items()))


def _receipt(low: int, high: int, skips: dict[str, list[tuple[int, int]]] | None = None) -> Raw:
    receipt = Receipt.model_validate({
        "agent": "credit-risk", "version": 1, "promise": "exactly-once", "topic": "loans", "partition": 0, "seq": 1,
        "from": low, "to": high, "closed": [(low, high)], "skips": skips or {}, "worker": "w", "at": "now",
    })  # fmt: skip
    return Raw("receipts", receipt.model_dump_json(by_alias=True).encode())


def test_an_outcome_may_arrive_before_the_word_where_its_record_is() -> None:
    """A decision, a dead letter and a skip that overtake the producer's confirmation are counted once it is there."""
    ledger = _ledger()
    for record in (_decision(100), _dead_letter(101), _receipt(100, 103, {"boring": [(102, 103)]})):
        assert ledger.take(record, NOW_MS + 20) is None
    assert ledger.tally()["decisions"] == ledger.tally()["dead_letters"] == ledger.tally()["skips"] == 0
    for offset in (100, 101, 102):
        ledger.note(("loans", 0, offset), _planned("truncated" if offset == 101 else None))
    assert {k: v for k, v in ledger.tally().items() if v} == {"decisions": 1, "dead_letters": 1, "skips": 1}
    assert ledger.settled()


def test_a_decision_is_handed_back_with_its_latency() -> None:
    """Latency runs from the source record's own timestamp to the moment the decision became visible."""
    ledger = _ledger()
    ledger.note(("loans", 0, 100), _planned())
    seen = ledger.take(_decision(100), NOW_MS + 42.5)
    assert seen is not None
    assert seen.latency_ms == pytest.approx(42.5)
    assert seen.about.subject == "1"


def test_a_repeat_is_counted_apart() -> None:
    """The first decision with an id stands; the second is neither counted nor handed back."""
    ledger = _ledger()
    ledger.note(("loans", 0, 100), _planned())
    assert ledger.take(_decision(100), NOW_MS) is not None
    assert ledger.take(_decision(100, outcome="decline"), NOW_MS) is None
    account = ledger.accounts["credit-risk"]
    assert [seen.decision.outcome for seen in account.decisions] == ["approve"]
    assert account.again == 1


def test_what_came_before_this_run_is_not_counted() -> None:
    """Outcomes and skips of records below where this run began belong to somebody else."""
    ledger = _ledger()
    ledger.note(("loans", 0, 100), _planned())
    ledger.take(_decision(99), NOW_MS)
    ledger.take(_receipt(90, 100, {"boring": [(90, 100)]}), NOW_MS)
    assert not any(ledger.tally().values())
    assert not ledger.settled()


def test_nothing_is_settled_before_both_receipt_and_outcome_are_here() -> None:
    """A receipt without its decision, or a decision without its receipt, leaves the run open."""
    first, second = _ledger(), _ledger()
    for ledger in (first, second):
        ledger.note(("loans", 0, 100), _planned())
        assert not ledger.settled()
    first.take(_receipt(100, 101), NOW_MS)
    assert not first.settled()
    first.take(_decision(100), NOW_MS)
    assert first.settled()
    second.take(_decision(100), NOW_MS)
    assert not second.settled()


def test_broken_records_and_dead_letters_are_held_against_each_other() -> None:
    """A broken record that was decided and a sound one that was buried are both named."""
    ledger = _ledger()
    broken, sound = _planned("truncated"), _planned()
    ledger.note(("loans", 0, 100), broken)
    ledger.note(("loans", 0, 101), sound)
    ledger.take(_decision(100), NOW_MS)
    ledger.take(_dead_letter(101), NOW_MS)
    missed, buried = ledger.misburied()
    assert missed == [broken.bare()]
    assert [letter.about for letter in buried] == [sound.bare()]
    assert buried[0].reason == "not-json"
    assert buried[0].field is None


def test_tokens_are_summed_from_the_call_records() -> None:
    """What calls report is what the summary says, call by call."""
    ledger = _ledger()
    call = {"call_id": "c", "agent": "credit-risk", "endpoint": "e", "model_requested": "m", "request_hash": "h", "status": "ok"}
    for tokens in ({"input": 100, "output": 7}, {"input": 20, "output": 3}):
        ledger.take(Raw("calls", orjson.dumps({**call, "tokens": tokens})), NOW_MS)
    assert {k: v for k, v in ledger.tally().items() if v} == {"model_calls": 2, "tokens_input": 120, "tokens_output": 10}


def test_little_is_remembered_of_each_record() -> None:
    """What was sent is forgotten, of a decision the figures stay, and of each outcome the telling one stays whole."""
    ledger = _ledger()
    said = [{"code": "c", "text": "a reason"}]
    for offset in range(100, 103):
        ledger.note(("loans", 0, offset), replace(_planned(), values={"income": 1}))
        reasons = [Reason(**reason) for reason in said] if offset == 101 else []
        ledger.take(_decision(offset, score=float(offset), reasons=reasons, result={"product": "M1", "note": "x" * 1000}), NOW_MS)
    account = ledger.accounts["credit-risk"]
    assert all((p.key, p.value, p.values) == (None, None, None) for p in ledger.sent.values())
    assert [kept.decision.score for kept in account.decisions] == [100.0, 101.0, 102.0]
    assert all(kept.decision.result == {"product": "M1"} for kept in account.decisions)
    assert {outcome: seen.decision.id for outcome, seen in account.examples.items()} == {"approve": "id-101"}


def test_customers_are_not_owed_an_outcome() -> None:
    """Only records on an agent's source count; a joined row is looked up, not decided."""
    ledger = _ledger()
    ledger.note(("customers", 0, 5), Planned("customers", "customer", "7", 1, b"k", b"v", 0.0))
    assert ledger.owed("credit-risk") == 0
