"""Verification against histories with one seeded violation each: every kind is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.histories import SCOPE, History, healthy
from topics.verify.facts import MOST_EXAMPLES, OFFENCES, Edges

Break = Callable[[History], object]


def drop(facts: list[Any], index: int) -> None:
    """Take one fact out."""
    del facts[index]


def swap_decisions(h: History) -> None:
    """Let two decisions of one key change places in the log."""
    h.decisions[2], h.decisions[3] = h.decisions[3]._replace(at=2), h.decisions[2]._replace(at=3)


SEEDED: dict[str, tuple[Break, set[str]]] = {
    "a decision is missing": (lambda h: drop(h.decisions, 1), {"missing", "count_mismatch"}),
    "a dead letter is missing": (lambda h: drop(h.dead_letters, 0), {"missing", "count_mismatch"}),
    "a skip is not in its receipt": (lambda h: h.amend(2, skips={}), {"missing"}),
    "a decision is there twice": (lambda h: h.decide(4), {"repeated"}),
    "a record is decided and dead": (lambda h: h.bury(4), {"conflict"}),
    "a record is skipped and decided": (lambda h: h.decide(7), {"conflict", "count_mismatch"}),
    "a record is skipped by two rules": (
        lambda h: h.amend(2, skips={"a": [(7, 8)], "b": [(7, 8)]}), {"conflict"}),
    "a decision has no input": (lambda h: h.decide(77), {"foreign"}),
    "a decision names an unknown source topic": (lambda h: h.decide(4, topic="loans-old"), {"foreign"}),
    "a decision names a run that has no receipts": (lambda h: h.decide(4, run="live "), {"foreign"}),
    "a dead letter names a run that has no receipts": (lambda h: h.bury(4, run="replay"), {"foreign"}),
    "a decision names another agent": (lambda h: h.decide(4, agent="credit-risk2"), {"foreign"}),
    "a decision names another agent and its run": (lambda h: h.decide(4, agent="other", run="replay"), {"foreign"}),
    "a decision's key is not its subject": (
        lambda h: h.decisions.__setitem__(0, h.decisions[0]._replace(label="its key is not its subject's id")), {"mislabelled"}),
    "a decision is of other bytes": (
        lambda h: h.decisions.__setitem__(0, h.decisions[0]._replace(input_hash="ab" * 32)), {"hash_mismatch", "id_mismatch"}),
    "a decision's id is made up": (
        lambda h: h.decisions.__setitem__(0, h.decisions[0]._replace(id="made-up")), {"id_mismatch"}),
    "a decision lies in another partition": (
        lambda h: h.decisions.__setitem__(0, h.decisions[0]._replace(partition=3)),
        {"wrong_partition", "missing", "count_mismatch"}),
    "a decision overtook an earlier one of its key": (swap_decisions, {"out_of_order"}),
    "a receipt is missing": (
        lambda h: drop(h.receipts, 1), {"receipt_gap", "unreceipted"}),
    "the first receipt is missing": (lambda h: drop(h.receipts, 0), {"receipt_gap", "missing", "unreceipted"}),
    "a receipt does not begin where the last one ended": (lambda h: h.amend(2, from_=6), {"receipt_break"}),
    "a receipt goes back": (lambda h: h.amend(2, to=4), {"receipt_range"}),
    "a receipt is about another partition": (
        lambda h: h.amend(2, partition=1), {"wrong_partition", "unreceipted", "offset_ahead"}),
    "a receipt closes an empty range": (lambda h: h.amend(1, closed=[(4, 5), (6, 7), (9, 9)]), {"receipt_range"}),
    "a receipt skips what it does not close": (
        lambda h: h.amend(2, skips={"closed-loan": [(7, 9)]}), {"receipt_range"}),
    "a receipt counts too many decisions": (lambda h: h.amend(0, decisions=3), {"count_mismatch"}),
    "a receipt counts too few dead letters": (lambda h: h.amend(0, dead_letters=0), {"count_mismatch"}),
    "two receipts close one record": (
        lambda h: h.amend(2, closed=[(4, 6), (7, 8)]), {"closed_twice", "count_mismatch"}),
    "a frontier passes a record closed later": (
        lambda h: (h.amend(1, to=7), h.amend(2, from_=7)), {"frontier_ahead"}),
    "the committed offset is ahead": (
        lambda h: setattr(h, "edges", replace(h.edges, committed=10)), {"offset_ahead"}),
    "the committed offset is behind": (
        lambda h: setattr(h, "edges", replace(h.edges, committed=5, committed_after=5)), {"offset_behind"}),
    "the commit calls done what is not": (
        lambda h: setattr(h, "edges", replace(h.edges, done=((8, 9),))), {"done_ahead"}),
    "a range is called lost that is there": (lambda h: h.amend(2, lost=[(7, 8)]), {"false_loss"}),
    "an outcome has no receipt yet": (lambda h: h.decide(9), {"unreceipted"}),
    "a part number does not fit": (lambda h: h.decide(8, part=3, parts=2), {"bad_part"}),
}  # fmt: skip


def test_a_healthy_history_has_no_offender_and_adds_up() -> None:
    """Ten records, eight due: five decisions, a dead letter, two skips, and two records still to come."""
    account = healthy().account()
    assert account.offenders == []
    assert account.tally.as_dict() == {
        "records": 8, "decisions": 5, "dead_letters": 1, "skips": 2, "unaccounted": 0, "repeated": 0, "changed": 0,
        "out_of_order": 0, "lost": 0, "pending": 2, "ahead": 0, "receipts": 3, "anchored": 0, "erased": 0, "unanchored": 0,
        "tombstones": 0, "forks": 0,
    }  # fmt: skip
    assert account.skips == {"closed-loan": 2}
    assert (account.first, account.frontier, account.committed) == (0, 8, 8)


@pytest.mark.parametrize("title", SEEDED)
def test_each_seeded_violation_is_found_and_named(title: str) -> None:
    """One violation in an otherwise healthy history gives exactly the offences that it is."""
    breaking, expected = SEEDED[title]
    history = healthy()
    breaking(history)
    account = history.account()
    assert set(account.offences) == expected, account.offenders
    assert all(o.topic and o.partition == SCOPE.partition for o in account.offenders)


def test_every_kind_of_offence_is_seeded_somewhere() -> None:
    """No kind of offender is without a test that provokes it."""
    seeded = {kind for _, kinds in SEEDED.values() for kind in kinds}
    elsewhere = {"missing_part", "altered", "unreadable"}  # below, and in the tests of reading
    elsewhere |= {  # tests/topics/verify/test_audit.py and test_calls.py
        "chain_break", "chain_fork", "chain_count", "anchor_lost", "changed", "removed", "inserted", "moved", "call_changed",
        "call_gap", "call_twice",
    }  # fmt: skip
    assert seeded | elsewhere == set(OFFENCES)


@pytest.mark.parametrize("rest", [{"run": "replay"}, {"topic": "loans-of-last-year"}, {"run": "replay", "topic": "loans-2"}])
def test_a_run_with_receipts_of_its_own_is_no_offence(rest: dict[str, str]) -> None:
    """A replay writes to the topics of the live run: its outcomes are said, and are for a verification of that run."""
    history = healthy()
    history.receipts.insert(0, (9, history.receipt(0, 4, [(0, 4)], seq=1, **rest)))
    history.decide(0, 1, **rest)
    account = history.account()
    assert account.offenders == []
    assert [note for note in account.notes if note.startswith("2 outcomes of the run ")]
    history.decide(2, **(rest | {"run": "another"}))
    assert set(history.account().offences) == {"foreign"}


def test_the_receipts_of_a_run_that_retention_removed_prove_nothing() -> None:
    """Where receipts are gone, outcomes of a run without one may be a replay's: that can not be proven, and no offence."""
    history = healthy().decide(4, run="replay")
    history.edges = replace(history.edges, receipts_trimmed=True)
    account = history.account()
    assert (account.offenders, list(account.unprovable.values())) == ([], [1])


def test_a_missing_record_is_named_by_topic_partition_and_offset() -> None:
    """A person is told where to look, and the record counts as unaccounted."""
    history = healthy()
    drop(history.decisions, 1)
    account = history.account()
    missing = next(o for o in account.offenders if o.kind == "missing")
    assert (missing.topic, missing.partition, missing.offset) == ("loans", 2, 1)
    assert str(missing).startswith("missing loans/2@1: ")
    assert account.tally.unaccounted == 1


def test_many_offenders_are_counted_and_a_few_are_kept() -> None:
    """A topic that was lost as a whole does not fill memory with offenders."""
    history = History().read(*range(500)).commit(0, 500, decided=range(500))
    history.decisions.clear()
    account = history.account()
    assert account.offences["missing"] == account.tally.unaccounted == 500
    assert len([o for o in account.offenders if o.kind == "missing"]) == MOST_EXAMPLES


# ---- parts -----------------------------------------------------------------------------------------------------------------
def packed() -> History:
    """One record with three subjects: two decisions and a part skipped by a rule."""
    history = History().read(0, 1)
    history.decide(0, part=0, parts=3, key=b"a").decide(0, part=2, parts=3, key=b"c")
    return history.commit(0, 1, closed=[(0, 1)], decisions=2, part_skips=[(0, 1, "window-cool-down")])


def test_a_record_of_several_subjects_needs_an_outcome_for_each() -> None:
    """Decisions and part skips together make one accounted record."""
    account = packed().account()
    assert account.offenders == []
    assert (account.tally.records, account.tally.decisions, account.tally.unaccounted) == (1, 2, 0)


@pytest.mark.parametrize(
    ("breaking", "expected"),
    [
        (lambda h: h.amend(0, part_skips=[]), {"missing_part"}),
        (lambda h: h.decide(0, part=1, parts=3, key=b"b"), {"conflict", "count_mismatch"}),
        (lambda h: h.decide(0, part=2, parts=3, key=b"c"), {"repeated"}),
        (lambda h: h.bury(0, part=2, parts=3), {"conflict"}),
        (lambda h: h.decide(0, part=1, parts=2, key=b"b"), {"bad_part"}),
        (lambda h: h.amend(0, part_skips=[(0, 1, "r"), (0, 5, "r")]), {"bad_part"}),
        (lambda h: h.amend(0, part_skips=[(0, 1, "r"), (0, -1, "r")]), {"receipt_range"}),
    ],
)
def test_violations_inside_a_record_of_several_subjects(breaking: Break, expected: set[str]) -> None:
    """What is wrong with single parts is found as well."""
    history = packed()
    breaking(history)
    assert set(history.account().offences) == expected


def test_a_record_decided_as_a_whole_and_in_parts_offends() -> None:
    """A record has either one outcome or one for each of its parts."""
    history = healthy().decide(0, part=1, parts=2)
    assert set(history.account().offences) == {"bad_part"}


# ---- order -----------------------------------------------------------------------------------------------------------------
def test_order_is_asked_of_one_key_only() -> None:
    """Different keys may overtake each other, unless the agent promises the order of the partition."""
    history = History().read(0, 1)
    history.decide(1, key=b"b").decide(0, key=b"a").commit(0, 2, closed=[(0, 2)], decisions=2)
    assert history.account().offenders == []
    history.scope = replace(SCOPE, order="partition")
    assert set(history.account().offences) == {"out_of_order"}
    history.scope = replace(SCOPE, order="none")
    history.decisions = [d._replace(key=b"same") for d in history.decisions]
    assert history.account().offenders == []


# ---- at least once -----------------------------------------------------------------------------------------------------------
def crashed_between_receipt_and_commit() -> History:
    """A worker published and receipted 2 and 3, and died before its commit; the next one did both again, and 4."""
    history = History(promise="at-least-once").read(*range(6))
    history.commit(0, 2, decided=[0, 1])
    history.commit(2, 4, decided=[2, 3])
    return history.commit(2, 5, decided=[2, 3, 4], seq=2)


def test_at_least_once_counts_repeats_and_does_not_mind_them() -> None:
    """A crash repeats the last flush under the same ids: counted, no offence, and no breach of order."""
    account = crashed_between_receipt_and_commit().account()
    assert account.offenders == []
    assert (account.tally.records, account.tally.decisions, account.tally.repeated) == (5, 5, 2)
    assert account.promises == {"at-least-once"}


def test_at_least_once_numbering_begins_again_where_metadata_is_not_kept() -> None:
    """The embedded broker forgets a commit's metadata, so a new owner counts from one, at a position that is known."""
    history = History(promise="at-least-once").read(*range(6))
    history.commit(0, 2, decided=[0, 1]).commit(2, 4, decided=[2, 3])
    assert history.commit(4, 6, decided=[4, 5], seq=1).account().offenders == []
    history.amend(2, from_=3)
    assert set(history.account().offences) == {"receipt_break"}


def test_at_least_once_still_needs_every_number_in_between() -> None:
    """A receipt that follows none that is there is a gap under this promise too."""
    history = History(promise="at-least-once").read(*range(6))
    history.commit(0, 2, decided=[0, 1]).commit(2, 4, decided=[2, 3]).commit(4, 6, decided=[4, 5], seq=7)
    assert set(history.account().offences) == {"receipt_gap"}


def test_at_least_once_a_repeat_that_says_something_else_is_counted_as_changed() -> None:
    """Skipped in the receipt that stands, decided by the worker that died before: a reader keeps the first."""
    history = History(promise="at-least-once").read(0, 1, 2).decide(1)
    account = history.commit(0, 3, decided=[0], dead=[2], skipped=[1]).account()
    assert account.offenders == []
    assert account.tally.changed == 1
    assert account.differing == [("loans", 1)]


def test_at_least_once_outcomes_may_be_ahead_of_their_receipt() -> None:
    """Outcomes are confirmed before their receipt: a reader can meet them in between."""
    history = History(promise="at-least-once").read(*range(4)).commit(0, 2, decided=[0, 1]).decide(2)
    account = history.account()
    assert account.offenders == []
    assert (account.tally.ahead, account.tally.pending) == (1, 2)


def test_outcomes_whose_receipt_was_written_while_reading_are_no_offence() -> None:
    """A running worker commits while verification reads; the receipts written meanwhile explain what was seen."""
    history = healthy().decide(8)
    history.late.append((3, history.receipt(8, 9, [(8, 9)], decisions=1)))
    account = history.account()
    assert account.offenders == []
    assert account.tally.pending == 2


# ---- what nobody can prove any more ----------------------------------------------------------------------------------------
def test_input_that_retention_removed_makes_its_outcomes_unprovable() -> None:
    """Outcomes older than the source's log are counted as unprovable; without that retention they are foreign."""
    history = healthy()
    del history.source[:3]
    history.edges = replace(history.edges, source_start=3)
    account = history.account()
    assert account.offenders == []
    assert sum(account.unprovable.values()) == 3
    assert any("below offset 3" in note for note in account.notes)
    history.edges = replace(history.edges, source_start=2)
    assert set(history.account().offences) == {"foreign"}


def test_input_that_compaction_removed_makes_its_outcomes_unprovable() -> None:
    """In a compacted source a record may go that had an outcome."""
    history = healthy()
    del history.source[4]
    history.edges = replace(history.edges, source_compacted=True)
    account = history.account()
    assert account.offenders == []
    assert sum(account.unprovable.values()) == 1


def test_decisions_that_retention_removed_are_unprovable_up_to_the_first_one_left() -> None:
    """A log keeps its newer end: what is missing after the first decision that is left is missing for another reason."""
    history = healthy()
    del history.decisions[:1]
    history.edges = replace(history.edges, decisions_trimmed=True)
    account = history.account()
    assert account.offenders == []
    assert sum(account.unprovable.values()) == 1
    assert account.tally.unaccounted == 0
    history.decisions = [d for d in history.decisions if d.offset != 5]
    assert set(history.account().offences) == {"missing", "count_mismatch"}


def test_an_emptied_decision_topic_proves_nothing_and_accuses_nobody() -> None:
    """Where retention has removed every decision, all that were counted are unprovable; dead letters and skips still hold."""
    history = healthy()
    history.decisions.clear()
    history.edges = replace(history.edges, decisions_trimmed=True)
    account = history.account()
    assert account.offenders == []
    assert sum(account.unprovable.values()) == 5
    assert (account.tally.dead_letters, account.tally.skips) == (1, 2)


def test_receipts_that_retention_removed_make_skips_unprovable_within_the_span() -> None:
    """Without its receipt a record without outcome may have been skipped, but not further ahead than a worker reads."""
    history = healthy()
    del history.receipts[0]
    del history.decisions[0]
    history.edges = replace(history.edges, receipts_trimmed=True)
    account = history.account()
    assert account.offenders == []
    assert sum(account.unprovable.values()) == 2
    history.scope = replace(SCOPE, span=0)
    assert set(history.account().offences) == set()


def test_a_record_beyond_the_span_of_removed_receipts_must_be_closed() -> None:
    """Retention of receipts is no excuse for a record that only a later receipt can have closed."""
    history = healthy()
    del history.receipts[0]
    history.edges = replace(history.edges, receipts_trimmed=True)
    history.scope = replace(SCOPE, span=2)
    history.decisions = [d for d in history.decisions if d.offset != 6]
    assert set(history.account().offences) == {"missing", "count_mismatch"}


def test_without_receipts_nothing_is_due_and_a_commit_is_ahead() -> None:
    """An agent that never ran owes nothing; a group offset without any receipt says that records were passed over."""
    history = History().read(*range(4))
    account = history.account()
    assert account.offenders == []
    assert (account.tally.records, account.tally.pending) == (0, 4)
    history.edges = Edges(committed=3, committed_after=3, source_end=4)
    assert set(history.account().offences) == {"offset_ahead"}


def test_losses_are_counted_and_no_offence() -> None:
    """A range that retention removed before it was read is an alarm, not a broken promise of the worker."""
    history = History().read(5, 6)
    history.commit(5, 7, decided=[5, 6], lost=[(0, 5)], closed=[(0, 7)])
    account = history.account()
    assert account.offenders == []
    assert account.tally.lost == 5


# ---- any history -------------------------------------------------------------------------------------------------------------
@st.composite
def histories(draw: st.DrawFn) -> tuple[History, list[int]]:
    """A healthy history of any shape: gaps in the log, commits above the frontier, in any order that lanes allow."""
    gaps = draw(st.lists(st.integers(1, 3), min_size=1, max_size=40))
    offsets = [sum(gaps[:i]) for i in range(len(gaps))]
    history = History(scope=replace(SCOPE, order="none")).read(*offsets)
    rest, frontier = list(offsets), 0
    for _ in range(draw(st.integers(1, 8))):
        if not rest:
            break
        chosen = set(draw(st.lists(st.sampled_from(rest), min_size=1, max_size=12, unique=True)))
        kinds = {o: draw(st.sampled_from(["decided", "dead", "skipped"])) for o in sorted(chosen)}
        rest = [o for o in rest if o not in chosen]
        to = max(frontier, rest[0] if rest else offsets[-1] + 1)
        groups = {kind: [o for o, k in kinds.items() if k == kind] for kind in ("decided", "dead", "skipped")}
        history.commit(frontier, to, **groups)
        frontier = to
    return history, rest


@given(histories())
def test_any_healthy_history_is_accounted_for(drawn: tuple[History, list[int]]) -> None:
    """Whatever the gaps and the order of commits: no offender, each due record with one outcome, the others pending."""
    history, rest = drawn
    account = history.account()
    tally = account.tally
    assert account.offenders == []
    assert tally.records == len(history.source) - len(rest) == tally.decisions + tally.dead_letters + tally.skips
    assert (tally.pending, tally.unaccounted) == (len(rest), 0)


@given(histories(), st.data())
def test_any_single_fact_taken_away_or_doubled_is_noticed(drawn: tuple[History, list[int]], data: st.DataObject) -> None:
    """No outcome and no receipt of any history can vanish or appear twice without an offender (the last receipt, gone with
    all that it closed, is noticed by its outcomes or by the committed offset)."""
    history, _ = drawn
    facts: list[list[Any]] = [history.decisions, history.dead_letters, history.receipts]
    chosen = data.draw(st.sampled_from([f for f in facts if f]))
    index = data.draw(st.integers(0, len(chosen) - 1))
    if data.draw(st.booleans()):
        gone = chosen[index]
        del chosen[index]
        if chosen is history.receipts and index == len(chosen):
            only_skips_above = not gone[1].decisions and not gone[1].dead_letters and gone[1].to == gone[1].from_
            if only_skips_above:
                return  # this is what a history without that commit looks like
    else:
        chosen.append(chosen[index])
    assert history.account().offenders != []
