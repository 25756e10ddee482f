"""Halving: which records are asked about again in fewer at once, where one record's text may have cost all of them the answer.

Pure. A refusal, a cut reply, or a batch that does not fit is halved until the halves are answered. Where it can not be known
whether a record or the endpoint is at fault, going on is what has to be earned:

    one half is answered    the endpoint is sound, so the other half is halved: one poison in n costs 2 log2(n) requests more
    neither half is         after `most` such levels in a row that is all

With nothing answered at all, level after level, a batch costs 1 + 2 + 4 requests at `most` = 2, and 1 + 2 at `most` = 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Places of questions that one request asks about.

    Halves of one batch share their `family`. `unproven` counts the levels in a row, this one included, that were made in doubt
    without any answer in the family.
    """

    places: list[int]
    family: object = field(default_factory=object)
    unproven: int = 0


def parts(places: list[int], most: int | None) -> list[list[int]]:
    """`places` in as few and as equal parts as have at most `most` each; one part where nothing bounds them."""
    if most is None or len(places) <= most:
        return [places]
    count = -(-len(places) // most)
    ends = [len(places) * part // count for part in range(count + 1)]
    return [places[begin:end] for begin, end in pairwise(ends)]


def halved(group: Group, rest: list[int]) -> list[Group]:
    """Those of `rest`, the places that are still without an answer, in two groups; none where there is only one record."""
    return _halves(rest, group.unproven) if len(group.places) > 1 else []


def halved_in_doubt(group: Group, rest: list[int], sound: bool, most: int) -> list[Group]:
    """The same, unless `most` levels have brought nothing. `sound`: somebody of the group's family was answered."""
    unproven = 0 if sound else group.unproven
    return _halves(rest, unproven + 1) if len(group.places) > 1 and unproven < most else []


def _halves(places: list[int], unproven: int) -> list[Group]:
    middle, family = (len(places) + 1) // 2, object()
    return [Group(half, family, unproven) for half in (places[:middle], places[middle:]) if half]
