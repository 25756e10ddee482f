"""The audit chain of a partition against histories with one seeded violation each, erasure, crashes, older receipts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.receipt import Receipt
from tests.support.histories import History, body_of, healthy, value_of
from topics.chain import SHORT, Tip, chain, head, letter_digest, unpack, value_digest
from topics.handover import Outbound
from topics.verify.anchors import Anchors
from topics.verify.audit import DEAD_LETTERS, DECISIONS, JUDGEMENTS
from topics.verify.facts import MOST_DIFFERING, Account, PartitionAccount
from topics.verify.report import lines

Break = Callable[[History], object]


def chained(**rest: Any) -> History:
    """The healthy history, with judgements and a chain."""
    return healthy(chained=True, **rest)


def drop(facts: list[Any], index: int) -> None:
    """Take one fact out, as whoever rewrites a topic does: what follows moves up."""
    del facts[index]


def swap(facts: list[Any], one: int, other: int) -> None:
    """Let two records change places."""
    facts[one], facts[other] = facts[other], facts[one]


def relink(history: History, number: int, **chain_changes: Any) -> None:
    """Change fields of the chain of a receipt."""
    receipt = history.receipts[number][1]
    assert receipt.chain is not None
    history.amend(number, chain=receipt.chain.model_copy(update=chain_changes))


def forge(history: History) -> None:
    """Put in a receipt that names the one before it rightly, between the first and the second."""
    first = history.receipts[0][1]
    assert first.chain is not None
    link = first.chain.model_copy(update={"prev": head(body_of(first)), "first": first.chain.count, "count": 0} | dict.fromkeys(
        (DECISIONS, DEAD_LETTERS, JUDGEMENTS), ""))  # fmt: skip
    forged = history.receipt(first.to, first.to, [], seq=first.seq, chain=link)
    history.receipts.insert(1, (9, forged))


CHAIN_KINDS = {
    "chain_break", "chain_fork", "chain_count", "anchor_lost", "changed", "removed", "inserted", "moved", "repeated",
}  # fmt: skip
SEEDED: dict[str, tuple[Break, set[str]]] = {
    "a decision was changed": (lambda h: h.other_values.update({(DECISIONS, 1): b"{}"}), {"changed"}),
    "a judgement was changed": (lambda h: h.other_values.update({(JUDGEMENTS, 0): b"{}"}), {"changed"}),
    "a dead letter was changed": (lambda h: h.other_values.update({(DEAD_LETTERS, 0): b"x"}), {"changed"}),
    "the last judgement was changed": (lambda h: h.other_values.update({(JUDGEMENTS, 4): b"{}"}), {"changed"}),
    "a judgement was removed": (lambda h: drop(h.judgements, 2), {"removed"}),
    "the last judgement was removed": (lambda h: drop(h.judgements, 4), {"removed"}),
    "a decision was removed": (lambda h: drop(h.decisions, 1), {"removed"}),
    "judgements changed places": (lambda h: swap(h.judgements, 1, 3), {"moved"}),
    "a judgement was put in": (lambda h: h.judgements.insert(2, (9, b'{"judgement":9}', "x")), {"inserted"}),
    "a judgement was appended": (lambda h: h.judgements.append((5, b'{"judgement":9}', "x")), {"inserted"}),
    "a judgement is there twice": (lambda h: h.judgements.append(h.judgements[1]), {"repeated"}),
    "a receipt was changed": (lambda h: h.amend(1, worker="other"), {"chain_break"}),
    "a receipt was removed": (lambda h: drop(h.receipts, 1), {"chain_break", "inserted"}),
    "the first receipt was removed": (lambda h: drop(h.receipts, 0), {"chain_break", "inserted"}),
    "receipts changed places": (lambda h: swap(h.receipts, 0, 1), {"chain_break", "chain_fork", "moved"}),
    "a receipt was put in": (forge, {"chain_fork"}),
    "a receipt counts other digests than it has": (lambda h: relink(h, 2, count=7), {"chain_count"}),
    "a receipt begins at another count": (lambda h: relink(h, 2, first=7), {"chain_count"}),
    "a receipt's digests are no base64": (lambda h: relink(h, 2, decisions="*"), {"chain_count"}),
    "a kept head is not there": (lambda h: setattr(h, "anchor", "ab" * 32), {"anchor_lost"}),
}  # fmt: skip


def of_the_chain(account: PartitionAccount) -> set[str]:
    """The kinds of offence that the chain itself shows."""
    return set(account.offences) & CHAIN_KINDS


def test_a_healthy_chain_anchors_every_record() -> None:
    """Five decisions, five judgements and a dead letter are as their receipts say; the head is the hash of the last receipt."""
    history = chained()
    account = history.account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.erased, account.tally.unanchored, account.tally.forks) == (11, 0, 0, 0)
    assert account.head == head(body_of(history.receipts[-1][1]))


@pytest.mark.parametrize("title", SEEDED)
def test_each_seeded_violation_of_the_chain_is_found(title: str) -> None:
    """One violation in an otherwise healthy history gives the offences of the chain that it is."""
    breaking, expected = SEEDED[title]
    history = chained()
    breaking(history)
    account = history.account()
    assert of_the_chain(account) == expected, account.offenders


def test_the_offender_is_named_by_the_record_to_look_at() -> None:
    """A changed judgement is named by its offset and its receipt's, a removed one by the receipt and its number in it."""
    history = chained()
    history.other_values[JUDGEMENTS, 3] = b"{}"
    drop(history.judgements, 0)
    found = {(o.kind, o.topic.rpartition(".")[2], o.offset): o.detail for o in history.account().offenders}
    assert found == {
        ("changed", "judgements", 3): "this judgement is not the one that the receipt at offset 1 anchors",
        ("removed", "receipts", 0):
            "judgement 1 of those that this receipt anchors is gone from headrace.credit-risk.judgements/2",
    }


def test_a_head_that_was_kept_is_found_again() -> None:
    """An earlier head stays in the chain while it only grows."""
    history = chained()
    history.anchor = head(body_of(history.receipts[1][1]))
    assert history.account().offenders == []


# ---- erased payloads -------------------------------------------------------------------------------------------------------
def test_payloads_replaced_by_null_are_said_and_no_offence() -> None:
    """Of an erased judgement the digest stands in its receipt: the chain holds, and the erasure is counted."""
    history = chained()
    history.nulls |= {(JUDGEMENTS, 1), (JUDGEMENTS, 2)}
    account = history.account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.erased, account.tally.tombstones) == (9, 2, 2)


def test_a_tombstone_does_not_excuse_what_it_does_not_stand_for() -> None:
    """One null at the end of the log erases nothing before it: a judgement that is gone elsewhere was removed."""
    history = chained()
    drop(history.judgements, 1)
    history.judgements.append((5, b"", ""))
    history.nulls.add((JUDGEMENTS, 5))
    assert of_the_chain(history.account()) == {"removed"}


@pytest.mark.parametrize("compacted", [False, True])
def test_retention_and_compaction_erase_without_offence(compacted: bool) -> None:
    """Retention takes the older judgements, compaction any: what is left still has its digest."""
    history = chained()
    del history.judgements[:2]
    history.edges = replace(history.edges, judgements_trimmed=not compacted, judgements_compacted=compacted)
    account = history.account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.erased) == (9, 2)


def test_retention_does_not_excuse_a_hole() -> None:
    """Retention takes a log's beginning: a judgement that is gone from its middle was removed."""
    history = chained()
    del history.judgements[3], history.judgements[0]
    history.edges = replace(history.edges, judgements_trimmed=True)
    account = history.account()
    assert of_the_chain(account) == {"removed"}
    assert account.tally.erased == 1


def test_a_changed_record_is_found_beside_erased_ones() -> None:
    """Compaction excuses what is gone, not what is there and says something else."""
    history = chained()
    history.other_values[JUDGEMENTS, 2] = b"{}"
    history.edges = replace(history.edges, judgements_compacted=True)
    assert of_the_chain(history.account()) == {"inserted"}


# ---- older receipts, crashes -----------------------------------------------------------------------------------------------
def test_receipts_older_than_the_chain_are_accepted_and_said() -> None:
    """The first receipt with a chain names the last one without; what those closed is counted as outside the chain."""
    history = healthy()
    history.chained = True
    history.read(10).commit(8, 10, decided=[8, 9])
    account = history.account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.unanchored) == (4, 6)
    assert any("3 receipts carry no chain" in note for note in account.notes)


def test_a_history_without_any_chain_is_as_it_was() -> None:
    """Where no judgements are kept nothing is asked of the chain."""
    assert healthy().account().tally.anchored == 0


def crashed(history: History) -> History:
    """A worker published and receipted 2 and 3 and died before its commit; the next one did both again, under other bytes."""
    history.read(*range(6)).commit(0, 2, decided=[0, 1])
    history.commit(2, 4, decided=[2, 3])
    again = history.receipts[-1][1]
    history.commit(2, 4, decided=[2, 3])
    return history.amend(2, seq=again.seq)


def test_a_commit_repeated_after_a_crash_goes_on_from_the_last_receipt() -> None:
    """The successor names the last receipt of the log, whoever wrote it, so a repeat is no fork."""
    account = crashed(History(promise="at-least-once", chained=True)).account()
    assert account.offenders == []
    assert (account.tally.forks, account.tally.anchored) == (0, 12)


def test_a_receipt_of_a_worker_that_was_cut_off_forks_the_chain() -> None:
    """At least once two receipts may name the same one; the fork is counted, and exactly once it offends."""
    for promise, kinds in (("at-least-once", set()), ("exactly-once", {"chain_fork"})):
        history = chained(promise=promise)
        forge(history)
        account = history.account()
        assert of_the_chain(account) == kinds
        assert account.tally.forks == (promise == "at-least-once")


def test_outcomes_whose_receipt_never_came_are_repeats_of_those_that_have_one() -> None:
    """At least once a crash leaves decisions that nothing anchors; under an id that a later one anchors they are repeats."""
    history = History(promise="at-least-once", chained=True).read(*range(4))
    history.decide(0, 1)
    history.judgements += [(i, b"lost %d" % i, history.outcome(i, at=0).id) for i in (0, 1)]
    history.commit(0, 2, decided=[0, 1])
    account = history.account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.unanchored) == (4, 4)


def test_at_least_once_a_record_under_an_id_of_its_own_was_put_in() -> None:
    """Repeats are excused by their id, and by nothing else."""
    history = chained(promise="at-least-once")
    history.judgements.insert(1, (9, b"forged", "made-up"))
    assert of_the_chain(history.account()) == {"inserted"}


def test_a_removed_judgement_is_found_at_least_once_too() -> None:
    """What a receipt anchors has to be there under either promise."""
    history = chained(promise="at-least-once")
    drop(history.judgements, 2)
    assert of_the_chain(history.account()) == {"removed"}


def test_a_late_receipt_anchors_what_was_written_meanwhile() -> None:
    """Verification beside a worker: what came after the receipts were read is anchored by those that came late."""
    history = chained()
    history.commit(8, 10, decided=[8, 9])
    late = history.receipts.pop()
    history.late.append(late)
    history.edges = replace(history.edges, committed=8, committed_after=10)
    account = history.account()
    assert of_the_chain(account) == set()
    assert account.tally.anchored == 15


# ---- judgements of others ----------------------------------------------------------------------------------------------------
def shared(promise: str = "exactly-once", **of_another: Any) -> History:
    """The healthy history behind the commits of another run or source: one receipts topic, one of judgements."""
    mine = chained()
    other = chained(scope=replace(mine.scope, **of_another), promise=promise)
    ahead = [(at, value + b"of another", id) for at, value, id in other.judgements]
    records = [Outbound("j", None, value, (), "audit") for _, value, _ in ahead]
    link = chain(records, Tip(), 1 << 19)
    receipt = other.receipt(0, 8, [(0, 8)], chain=link)
    mine.receipts.insert(0, (9, receipt))
    mine.judgements[:0] = [(at + 5, value, id) for at, value, id in ahead]
    return mine


@pytest.mark.parametrize("of_another", [{"run": "rescore"}, {"topic": "loans-of-last-year"}])
def test_judgements_of_another_run_or_source_are_theirs(of_another: dict[str, str]) -> None:
    """An agent whose source topic was renamed, or that has a second run, keeps its judgements in one topic: none was put in."""
    account = shared(**of_another).account()
    assert account.offenders == []
    assert (account.tally.anchored, account.tally.unanchored) == (11, 5)


@pytest.mark.parametrize("of_another", [{"run": "rescore"}, {"topic": "loans-of-last-year"}])
def test_a_judgement_that_no_run_anchors_was_put_in_among_them(of_another: dict[str, str]) -> None:
    """That others write to the topic excuses what their receipts anchor and nothing else."""
    history = shared(**of_another)
    history.judgements.insert(3, (99, b"forged", "x"))
    assert of_the_chain(history.account()) == {"inserted"}


def no_digests(history: History) -> None:
    """The other run's receipt is older than the chain."""
    history.receipts[0] = (9, history.receipts[0][1].model_copy(update={"chain": None}))


def receipts_gone(history: History) -> None:
    """Retention has removed receipts."""
    history.edges = replace(history.edges, receipts_trimmed=True)


@pytest.mark.parametrize(("losing", "number"), [(no_digests, 6), (receipts_gone, 1)])
def test_a_judgement_that_may_be_anothers_can_not_be_proven(losing: Break, number: int) -> None:
    """Without the digests of another run a judgement may be its own: that is no offence, and fails strictly."""
    history = shared(run="rescore")
    history.judgements.insert(3, (99, b"whose", "x"))
    losing(history)
    account = history.account()
    assert (of_the_chain(account), sum(account.unprovable.values())) == (set(), number)


@pytest.mark.parametrize("promise", ["exactly-once", "at-least-once"])
def test_a_forged_receipt_of_another_run_does_not_hide_a_forged_judgement(promise: str) -> None:
    """A receipt of another run excuses the judgements that it names and no other, whatever it promises."""
    history = shared(promise, run="rescore")
    history.judgements.append((99, b"forged", "x"))
    assert of_the_chain(history.account()) == {"inserted"}


@pytest.mark.parametrize("changes", [{"prev": "ab" * 32}, {"count": 9}])
def test_a_chain_of_another_run_that_does_not_hold_excuses_nothing(changes: dict[str, Any]) -> None:
    """One that names no receipt that is there, or counts what it does not hold, is named, and so are the judgements it names."""
    history = shared(run="rescore")
    relink(history, 0, **changes)
    account = history.account()
    assert of_the_chain(account) == {"chain_break" if "prev" in changes else "chain_count", "inserted"}
    assert account.offences["inserted"] == 5


def test_a_second_receipt_of_another_run_has_to_continue_its_chain() -> None:
    """One that was put in behind the run's own names none of its receipts: nothing that it names is excused."""
    history = shared(run="rescore")
    link = chain([Outbound("j", None, b"forged", (), "audit")], Tip("cd" * 32, 5), 1 << 19)
    theirs = history.receipts[0][1]
    history.receipts.append((20, theirs.model_copy(update={"seq": 2, "from_": 8, "chain": link, "decisions": 0})))
    history.judgements.append((99, b"forged", "x"))
    assert {"chain_break", "inserted"} <= of_the_chain(history.account())


def test_decisions_of_another_run_are_those_that_its_receipts_anchor() -> None:
    """A replay's decisions are accepted, and one that was put in under its run is not."""
    history = chained()
    theirs = history.outcome(0, at=50, run="rescore")
    link = chain([Outbound("d", None, value_of(theirs), (), "decision")], Tip(), 1 << 19)
    history.receipts.insert(0, (9, history.receipt(0, 1, [(0, 1)], seq=1, run="rescore", decisions=1, chain=link)))
    history.decisions.append(theirs)
    assert history.account().offenders == []
    history.decisions.append(theirs._replace(at=51, id="made-up"))
    assert of_the_chain(history.account()) == {"inserted"}


@pytest.mark.parametrize(("again", "changed"), [(b'{"outcome":"approve","at":2}', 0), (b'{"outcome":"decline","at":2}', 1)])
@pytest.mark.parametrize("kind", [DECISIONS, JUDGEMENTS])
def test_a_repeat_that_says_something_else_is_counted_as_changed(kind: str, again: bytes, changed: int) -> None:
    """At least once a record may come twice with another time in it; with another outcome it fails strictly."""
    history = History(promise="at-least-once", chained=True).read(*range(4))
    history.decide(0)
    history.judgements.append((0, b"{}", history.outcome(0, at=0).id))
    for name in (DECISIONS, JUDGEMENTS):
        history.other_values[name, 0] = b'{"outcome":"approve","at":1}'
    history.commit(0, 1, decided=[0])
    anchored = b'{"outcome":"approve","at":3}'
    history.other_values |= {(DECISIONS, 1): anchored, (JUDGEMENTS, 1): anchored, (kind, 0): again}
    receipt = history.receipts[0][1]
    records = [Outbound("d", None, anchored, (), "decision"), Outbound("j", None, anchored, (), "audit")]
    history.receipts[0] = (0, receipt.model_copy(update={"chain": chain(records, Tip(), 1 << 19)}))
    account = history.account()
    assert (account.offenders, account.tally.changed) == ([], changed)
    assert account.differing == [(history.scope.decisions if kind == DECISIONS else history.scope.judgements, 0)] * changed


def test_a_judgement_that_was_written_before_the_anchored_one_is_named() -> None:
    """At least once it may be a repeat, so it is no offence; it fails strictly, and a person is told where it lies."""
    history = History(promise="at-least-once", chained=True).read(0)
    history.commit(0, 1, decided=[0])
    ours = history.judgements.pop()
    history.judgements += [(0, b'{"answer":"forged"}', ours[2]), (1, *ours[1:])]
    found = Account("credit-risk", "loans", "g", [history.account()])
    assert (found.ok, found.strict_ok) == (True, False)
    assert any("note: " in line and "headrace.credit-risk.judgements/2 offset 0" in line for line in lines(found))


def test_of_many_differing_repeats_a_few_are_named_and_the_rest_counted() -> None:
    """A note stays a line that can be read."""
    account = PartitionAccount("loans", 2)
    for at in range(MOST_DIFFERING + 3):
        account.differ("judgements", at)
    (note,) = [line for line in lines(Account("a", "loans", "g", [account])) if "note: " in line]
    assert note.endswith(f"judgements/2 offset {MOST_DIFFERING - 1}, and 3 more")


# ---- digests ---------------------------------------------------------------------------------------------------------------
def test_digests_are_of_what_a_subscriber_reads() -> None:
    """A decision's digest is the SHA-256 of its value; that of a dead letter moves with each of its headers."""
    assert value_digest(b"{}").hex() == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    letters: list[tuple[bytes | None, list[tuple[str, bytes | None]]]] = [
        (b"v", [("a", b"b")]), (b"v", [("ab", b"")]), (b"v", [("a", None)]), (None, [("a", b"b")]), (b"v", []),
    ]  # fmt: skip
    assert len({letter_digest(value, headers) for value, headers in letters}) == len(letters)


@pytest.mark.parametrize(("room", "width"), [(1 << 19, 32), (400, 8), (50, 0)])
def test_digests_are_cut_where_whole_ones_do_not_fit(room: int, width: int) -> None:
    """A commit of very many records keeps 8 bytes of each, or none, rather than a receipt that the broker refuses."""
    records = [Outbound("d", None, b"%d" % n, (), "decision") for n in range(20)]
    made = chain(records, Tip("ab" * 32, 7), room)
    assert (made.width, made.first, made.count, made.prev) == (width, 7, 20, "ab" * 32)
    assert len(made.decisions) <= room
    assert unpack(made.decisions, width) == [value_digest(b"%d" % n)[:width] for n in range(20) if width]


def test_short_digests_are_matched() -> None:
    """Eight bytes of a digest find their record, changed ones do not."""
    anchors = Anchors()
    anchors.expect([value_digest(b"a")[:SHORT], value_digest(b"b")[:SHORT]], 0)
    anchors.found(0, value_digest(b"a"))
    anchors.found(1, value_digest(b"x"))
    found = anchors.findings(trimmed=False, compacted=False)
    assert (found.anchored, found.changed, found.removed) == (1, [(1, 0)], [])


def test_a_chain_survives_json() -> None:
    """What a worker writes is what verification reads."""
    receipt = chained().receipts[1][1]
    assert Receipt.model_validate_json(body_of(receipt)) == receipt


# ---- any history -------------------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 4), max_size=12), st.data())
def test_edits_of_a_log_are_counted_exactly(sizes: list[int], data: st.DataObject) -> None:
    """Whatever is removed, put in or changed in a log: as many offences as edits, and none without."""
    anchors, log = Anchors(), []
    for number, size in enumerate(sizes):
        values = [b"%d-%d" % (number, n) for n in range(size)]
        anchors.expect([value_digest(v) for v in values], number)
        log += values
    kept = [data.draw(st.sampled_from(["keep", "keep", "drop", "change", "add"])) for _ in log]
    at = 0
    for number, (value, what) in enumerate(zip(log, kept, strict=True)):
        if what == "drop":
            continue
        anchors.found(at, value_digest(value if what != "change" else b"other %d" % number))
        at += 1
        if what == "add":
            anchors.found(at, value_digest(b"new %d" % number))
            at += 1
    found = anchors.findings(trimmed=False, compacted=False)
    assert found.anchored == kept.count("keep") + kept.count("add")
    assert len(found.changed) + len(found.removed) == kept.count("drop") + kept.count("change")
    assert len(found.changed) + len(found.inserted) == kept.count("change") + kept.count("add")
    assert not found.moved
    assert not found.doubled
