"""Failover: several models in the order in which they are preferred; who gives no answer is followed by the next.

Only what the endpoint did counts: it was not there, late, out of quota, or it refused key, path or request. An answer that is
invalid or a refusal is about the record, and would be bought twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import BaseModel

from models.contract import Answer, Paced, Question, Scorer, Weighing

ELSEWHERE: Final = frozenset({"unavailable", "timeout", "limited", "rejected"})
"""Statuses after which another endpoint may do better."""
SHARE = 2 / 3
"""Part of the time left that an endpoint gets while there is another behind it, so that this one has time as well."""


@dataclass(slots=True)
class Candidate:
    """One model. `where` names model and endpoint for a person; `available` says whether a request made now would pass its
    breaker; `trying` whether it is coming back and has all that it may have for now, so that it is waited for where nobody else
    is there; `passed_on` counts its questions that were then asked elsewhere.
    """

    scorer: Scorer
    where: str
    available: Callable[[], bool] = field(default=lambda: True)
    trying: Callable[[], bool] = field(default=lambda: False)
    passed_on: int = 0


class Failover:
    """A Scorer over `candidates`, the preferred first. An answer that came from another says why in `why` and `tiers`."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        if not candidates:
            raise ValueError("a failover needs somebody to ask")
        self.candidates = tuple(candidates)

    @property
    def name(self) -> str:
        """Of the preferred one."""
        return self.candidates[0].scorer.name

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """One answer per question in order, before `deadline` (loop time)."""
        clock = asyncio.get_running_loop().time
        found: list[Answer[Any]] = []
        asked = list(range(len(questions)))
        for place, candidate in enumerate(self.candidates):
            last = place == len(self.candidates) - 1
            now = clock()
            until = deadline if last else now + (deadline - now) * SHARE
            answers = await candidate.scorer.score([questions[index] for index in asked], until)
            if not found:
                found = list(answers)
            else:
                for index, answer in zip(asked, answers, strict=True):
                    found[index] = self._after(found[index], answer, place)
            asked = [index for index in asked if found[index].status in ELSEWHERE]
            if not asked or last or clock() >= deadline:
                break
            candidate.passed_on += len(asked)
        return found

    def _after(self, before: Answer[Any], answer: Answer[Any], place: int) -> Answer[Any]:
        """The answer of the candidate at `place`, with what became of the one before it."""
        where = self.candidates[place - 1].where
        passed = f"{where} gave no answer ({before.status}{f': {before.why}' if before.why else ''})"
        why = f"{answer.why}; before that, {passed}" if answer.why else passed
        # A budget that is short for the next one only is not why there is no answer: the one before may be back soon.
        status = before.status if answer.status == "budget" else answer.status
        return replace(answer, status=status, why=why, tiers=(*before.tiers, f"{where}: {before.status}", *answer.tiers))

    def room(self, coming: int = 0) -> bool:
        """Whether the first that answers at present has room; where none does, asking tells so at once, unless one comes back.

        Those before it are asked as well: whoever is told no is then told when one of them is back.
        """
        for candidate in self.candidates:
            there = not isinstance(candidate.scorer, Paced) or candidate.scorer.room(coming)
            if candidate.available():
                return there
        return not any(candidate.trying() for candidate in self.candidates)

    def on_room(self, tell: Callable[[], None]) -> None:
        """See models.contract.Paced."""
        for candidate in self.candidates:
            if isinstance(candidate.scorer, Paced):
                candidate.scorer.on_room(tell)

    def weigh(self, features: BaseModel) -> int:
        """By the count of the first that answers at present; 0 where that counts no tokens."""
        asked = next((candidate for candidate in self.candidates if candidate.available()), self.candidates[0])
        return asked.scorer.weigh(features) if isinstance(asked.scorer, Weighing) else 0

    async def close(self) -> None:
        """Close all."""
        for candidate in self.candidates:
            await candidate.scorer.close()
