"""Calls as chains of their workers: what is gone shows, whether or not a decision names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from schemas.audit import Call, CallStatus
from topics.publish.call_chain import CallChain
from topics.record import Raw
from topics.verify import parse
from topics.verify.calls import MOST_RECENT, CallFact, Calls


def call(number: int, status: CallStatus = "ok", worker: str = "w") -> Call:
    """A call of its own."""
    call_id = f"c{number}" if worker == "w" else f"{worker}-c{number}"
    return Call(
        call_id=call_id, agent="a", endpoint="http://m", model_requested="m", request_hash="", status=status,
    )  # fmt: skip


def sealed(count: int, worker: str = "w", unpublished: int = 0) -> list[CallFact]:
    """The calls of one run of a worker as verification reads them; the third timed out, and no decision names it."""
    chain = CallChain(worker)
    values = [
        chain.seal(call(n, "timeout" if n == 2 else "ok", worker), unpublished if n == count - 1 else 0) for n in range(count)
    ]
    facts = [parse.call(Raw("t", value, offset=at)) for at, value in enumerate(values)]
    return [fact for fact in facts if isinstance(fact, CallFact)]


def wrong(calls: Sequence[CallFact], *, trimmed: bool = False) -> list[str]:
    """The kinds of what is wrong with a log of calls."""
    return [offence.kind for offence in judged(calls, trimmed=trimmed).wrong]


def judged(calls: Sequence[CallFact], *, trimmed: bool = False) -> Calls:
    """A log of calls, read to its end."""
    found = Calls()
    for one in calls:
        found.add(one)
    found.close(trimmed=trimmed)
    return found


def test_whole_chains_of_two_workers_are_sound() -> None:
    """Each worker counts for itself, and their calls may lie between each other's."""
    one, two = sealed(4, "w1"), sealed(4, "w2")
    assert wrong([x for pair in zip(one, two, strict=True) for x in pair]) == []


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_a_removed_call_leaves_a_gap(index: int) -> None:
    """Also one that timed out and that no decision names."""
    calls = sealed(5)
    del calls[index]
    assert wrong(calls) == ["call_gap"]


def test_a_gap_that_the_worker_owns_up_to_is_no_offence() -> None:
    """A broker that was away: the worker says in its later calls how many it could not publish."""
    calls = sealed(5, unpublished=1)
    del calls[1]
    assert wrong(calls) == []
    del calls[1]
    assert wrong(calls) == ["call_gap"]


def test_what_a_worker_says_right_after_a_gap_is_provable() -> None:
    """It explains the calls before the one that says it, as many as it says, and the beginning of a run as well."""
    calls = sealed(6)
    for first, last in ((0, 2), (2, 4)):
        log = [*calls[:first], *(one._replace(unpublished=last - first) for one in calls[last : last + 1]), *calls[last + 1 :]]
        found = judged(log)
        assert (found.wrong, found.late) == ([], 0)
        assert wrong([one._replace(unpublished=max(0, one.unpublished - 1)) for one in log]) == ["call_gap"]


def test_a_claim_that_comes_after_later_calls_can_not_be_proven() -> None:
    """A call that is appended with a large claim excuses what was removed before calls that are there: it fails strictly."""
    calls = sealed(9)
    forged = calls[8]._replace(unpublished=10**9, digest="ef" * 32)
    found = judged([calls[0], *calls[4:8], forged])
    assert (found.wrong, found.late) == ([], 3)
    assert judged([*calls[3:8], forged]).late == 3
    assert judged([*calls[3:8], forged], trimmed=True).late == 0


def test_a_claim_explains_no_gap_that_comes_after_it() -> None:
    """A worker can not know of calls that it has not made, and a call that it made has not more before it than its number."""
    calls = sealed(9)
    assert wrong([calls[0], calls[1]._replace(unpublished=10**9, digest="ef" * 32), *calls[4:]]) == ["call_gap"]


def test_a_number_that_is_long_past_is_no_repeat() -> None:
    """A producer sends its last batch again, not one from thousands of calls ago."""
    log = [CallFact(n, 0, f"c{n}", "w", n, f"d{n - 1}" if n > 1 else None, 0, f"d{n}") for n in range(1, MOST_RECENT + 10)]
    assert wrong(log) == []
    assert wrong([*log, log[4]._replace(digest="forged")]) == ["call_changed"]


def test_calls_without_a_worker_behind_chained_ones_can_not_be_proven() -> None:
    """Those of an older release lie before the chains of their partition; no worker writes one behind them."""
    loose = sealed(1)[0]._replace(worker=None, seq=0, call_id="x")
    chained = sealed(2)
    assert judged([loose, *chained]).strangers == 0
    assert judged([loose]).strangers == 0
    assert judged([*chained, loose]).strangers == 1
    assert judged([loose._replace(partition=1), *chained]).strangers == 1


def test_retention_excuses_a_beginning_and_no_middle() -> None:
    """Of a log that was cut at its beginning chains begin where they may."""
    calls = sealed(6)
    assert wrong(calls[2:], trimmed=True) == []
    assert wrong(calls[2:], trimmed=False) == ["call_gap"]
    assert wrong([*calls[2:3], *calls[4:]], trimmed=True) == ["call_gap"]


def test_a_changed_call_does_not_fit_the_next_one() -> None:
    """The one after it names the hash of what it was."""
    calls = sealed(4)
    calls[1] = calls[1]._replace(digest="ab" * 32)
    assert wrong(calls) == ["call_changed"]


def test_a_batch_that_was_sent_twice_is_a_repeat() -> None:
    """A producer that was not answered sends again: the same bytes are no offence, others under the same number are."""
    calls = sealed(4)
    assert wrong([*calls, *calls[2:]]) == []
    assert wrong([*calls, calls[2]._replace(digest="cd" * 32)]) == ["call_changed"]


@pytest.mark.parametrize("change", [{"worker": "w-forged", "seq": 1, "prev": None}, {"seq": 5}, {"worker": None, "seq": 0}])
@pytest.mark.parametrize("before", [False, True])
def test_a_call_id_that_another_call_has_as_well_offends(change: dict[str, Any], before: bool) -> None:
    """A run that somebody made up, a number behind the last, or no worker: the second of the two names the first."""
    calls = sealed(4)
    other = calls[2]._replace(**change, digest="ef" * 32, partition=9, at=77)
    found = judged([other, *calls] if before else [*calls, other])
    (twice,) = [one for one in found.wrong if one.kind == "call_twice"]
    assert (twice.partition, twice.at) == ((0, 2) if before else (9, 77))
    assert ("in partition 9 at offset 77" if before else "in partition 0 at offset 2") in twice.detail


def test_copies_of_a_call_are_no_twins() -> None:
    """Whatever a producer sends again, with a worker or from before there were any."""
    calls = sealed(2)
    loose = calls[0]._replace(worker=None, seq=0, call_id="old")
    assert wrong([loose, loose, *calls, *calls]) == []


def test_decisions_whose_call_is_gone_are_named() -> None:
    """The first decision that names a call stands for it."""
    found = Calls()
    for at, name in enumerate(("c0", "c9", "c9")):
        found.name(name, 1, at)
    for one in sealed(2):
        found.add(one)
    assert found.missing == [(1, 1)]


def test_calls_older_than_the_chain_are_counted() -> None:
    """A call without a worker is no member of any chain, and no offence."""
    fact = parse.call(Raw("t", call(1).model_dump_json(by_alias=True).encode()))
    assert isinstance(fact, CallFact)
    assert wrong([fact]) == []


def test_what_is_no_call_is_said() -> None:
    """Parsing is total."""
    assert "not a call" in str(parse.call(Raw("t", b"[]")))
