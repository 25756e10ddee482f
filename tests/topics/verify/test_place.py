"""The place of one decision in the chain of its partition, from the receipts of a healthy history that a test breaks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.histories import History, body_of, healthy, value_of
from topics.record import Raw
from topics.verify.place import Place, Placing


def records(history: History) -> list[Raw]:
    """The receipts as they lie on their topic."""
    return [Raw("receipts", body_of(receipt), offset=at) for at, receipt in history.receipts]


def placed(
    history: History, number: int, *, others: Sequence[bytes] = (), judgements: Sequence[bytes] = ()
) -> Place:
    """The place of decision `number` of a history, behind other copies."""
    decision = history.decisions[number]
    copies = [Raw("d", value) for value in [*others, value_of(decision)]]
    placing = Placing(decision.offset, "live", copies, [Raw("j", value) for value in judgements])
    for record in records(history):
        if placing.add(record):
            break
    return placing.place()


@pytest.mark.parametrize("number", range(5))
def test_each_decision_of_a_healthy_history_has_its_place(number: int) -> None:
    """Counted through the chain over its decisions, dead letters and judgements; the last receipt has nobody to vouch for it."""
    place = placed(healthy(chained=True), number)
    assert (place.verified, place.number) == (True, [1, 2, 6, 7, 10][number])
    assert bool(place.said) == (number == 4)


def test_the_receipt_has_to_name_one_that_is_there() -> None:
    """A receipt before it that was changed or put in: the one that it names is not there."""
    history = healthy(chained=True)
    history.amend(0, worker="somebody")
    place = placed(history, 2)
    assert place.verified is False
    assert place.said == ["its receipt names a receipt before it that is not there"]


def test_where_reading_began_with_its_receipt_nothing_is_said_of_the_one_before() -> None:
    """Those before it were not read, or retention took them."""
    history = healthy(chained=True)
    del history.receipts[0]
    assert (placed(history, 2).verified, placed(history, 2).said) == (True, [])


def test_the_next_receipt_has_to_name_its_receipt() -> None:
    """Exactly once nothing comes between them."""
    history = healthy(chained=True)
    del history.receipts[1]
    assert placed(history, 0).verified is False


@pytest.mark.parametrize("judgements", [[b"forged", b'{"judgement":0}'], [b'{"judgement":0}', b"forged"]])
def test_the_judgement_to_tell_is_the_anchored_one(judgements: list[bytes]) -> None:
    """Whoever came first."""
    place = placed(healthy(chained=True), 0, judgements=judgements)
    assert (place.verified, judgements[place.judgement]) == (True, b'{"judgement":0}')


def test_a_judgement_that_the_receipt_does_not_hold_does_not_verify() -> None:
    """The anchored one is gone, or was changed: the first there is, is told, and not as verified."""
    place = placed(healthy(chained=True), 0, judgements=[b"forged", b"other"])
    assert (place.verified, place.judgement) == (False, 0)
    assert "its receipt does not anchor its judgement: that was changed or put in" in place.said


def test_the_copy_to_tell_is_the_anchored_one() -> None:
    """Of a decision that a crash has written twice as of one that somebody has put before it."""
    place = placed(healthy(chained=True), 0, others=[b"forged", b"other"])
    assert (place.verified, place.outcome) == (True, 2)
    changed = healthy(chained=True)
    changed.decisions[0] = changed.decisions[0]._replace(at=99)
    assert (placed(changed, 0).verified, placed(changed, 0).outcome) == (False, 0)
