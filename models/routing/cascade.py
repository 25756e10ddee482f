"""Cascade: a scorecard answers what is clear, a cheap model most of the rest, and a strong one what neither is certain of.

A tier whose answer lies inside its band (models/routing/band.py), or says that its information does not suffice, is followed by
the next one, about those records only; so is a tier that gives no answer. An uncertain answer never stands because the next model
is away: such a record has no answer, and the agent says what follows. Only where its partition has reached the budget's soft
limit, the cheap model's answer stands, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

from models.contract import Answer, Paced, Question, Scorer, Weighing
from models.routing.band import CERTAIN, Band, Region, TierStats, band_of, number, region, says_insufficient
from models.routing.failover import SHARE
from schemas.errors import ConfigError

THRIFTY = "the soft limit of the budget is reached: the cheaper model's answer stands"
_WHOLE = 2**32


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier before the strong model. Between the two numbers of `band`, both included, its answers are uncertain."""

    scorer: Scorer
    band: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Rung:
    """A tier as it is asked. `band` None: it is the last one, and what it says stands."""

    scorer: Scorer
    called: str
    band: Band | None
    stats: TierStats


@dataclass(slots=True)
class _Way:
    """Of one question. `kept` is a certain answer that was sampled, `spare` an uncertain one for where money does not reach;
    `last` what answered before, for the comparison.
    """

    question: Question
    tiers: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    kept: Answer[Any] | None = None
    spare: tuple[_Rung, Answer[Any]] | None = None
    last: tuple[_Rung, Region, Any] | None = None
    answer: Answer[Any] | None = None


def _never(question: Question) -> bool:
    return False


class Cascade:
    """A Scorer over a scorecard, a cheap model (either may be absent, not both) and the `strong` one.

    `name` is the bounded number of the `answer` model that bands are about. `share` of what a tier is certain of, chosen by the
    decision's id so that a repeat chooses the same, is asked of the next tier too, and the better tier's answer is used.
    `thrifty` says of which questions the strong model may not be asked; without a cheap model it changes nothing. With `spare`
    the cheap model's answer stands as well where the budget did not let the strong one be asked.
    `insufficient` says whether an answer says that its information does not suffice; `away` whether the strong model is out, so
    that nothing waits for it. `where` heads the ConfigError that is raised for what can not work.
    """

    def __init__(
        self, answer: type[BaseModel], strong: Scorer, *, field: str, scorecard: Tier | None = None, cheap: Tier | None = None,
        share: float = 0.02, thrifty: Callable[[Question], bool] = _never, spare: bool = False,
        insufficient: Callable[[Any], bool] = says_insufficient, away: Callable[[], bool] = lambda: False,
        where: str = "making a cascade",
    ) -> None:  # fmt: skip
        if scorecard is None and cheap is None:
            raise ConfigError(f"{where}: there is nobody to ask before the strong model; name a scorecard or a cheap model")
        if not 0 <= share <= 1:
            raise ConfigError(f"{where}: the share that is sampled is {share!r}, it has to be between 0 and 1")
        rungs = []
        if scorecard is not None:
            band = band_of(answer, field, scorecard.band, f"{where}: scorecard")
            rungs.append(_Rung(scorecard.scorer, "scorecard", band, TierStats("scorecard")))
        if cheap is not None:
            band = band_of(answer, field, cheap.band, f"{where}: cheap model")
            rungs.append(_Rung(cheap.scorer, cheap.scorer.name, band, TierStats("cheap")))
        self._rungs = (*rungs, _Rung(strong, strong.name, None, TierStats("strong")))
        self._field, self._share = field, share
        self._thrifty = thrifty if cheap is not None else _never
        self._spare = spare
        self._insufficient, self._away = insufficient, away
        self._escalated = 0
        self._held_back = False
        self._tell: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """Of the strong model."""
        return self._rungs[-1].scorer.name

    @property
    def stats(self) -> Sequence[TierStats]:
        """By tier, in the order in which they are asked."""
        return [rung.stats for rung in self._rungs]

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """One answer per question in order, before `deadline` (loop time); the certain wait for the uncertain beside them."""
        clock = asyncio.get_running_loop().time
        ways = [_Way(question) for question in questions]
        asked = ways
        for rung in self._rungs:
            if not asked:
                break
            now = clock()
            if rung is not self._rungs[0] and now >= deadline:
                late: Answer[Any] = Answer("timeout", why=f"no time was left to ask {rung.called}")
                asked = [way for way in asked if self._silent(rung, way, late)]
                continue
            until = deadline if rung.band is None else now + (deadline - now) * SHARE
            answers = await self._ask(rung, [way.question for way in asked], until)
            rung.stats.asked += len(asked)
            asked = [way for way, answer in zip(asked, answers, strict=True) if self._goes_on(rung, way, answer)]
        return [way.answer for way in ways if way.answer is not None]

    async def _ask(self, rung: _Rung, questions: Sequence[Question], until: float) -> Sequence[Answer[Any]]:
        if rung.band is not None:
            return await rung.scorer.score(questions, until)
        self._escalated += 1
        try:
            return await rung.scorer.score(questions, until)
        finally:
            self._escalated -= 1
            if self._held_back and not self._escalated:
                self._held_back = False
                if self._tell is not None:
                    self._tell()

    # ---- what follows from an answer -----------------------------------------------------------------------------------
    def _goes_on(self, rung: _Rung, way: _Way, answer: Answer[Any]) -> bool:
        """Whether the next tier is to be asked; if not, `way.answer` is set."""
        way.tiers += answer.tiers
        if answer.status != "answered" or answer.value is None:
            rung.stats.unanswered += 1
            return self._silent(rung, way, answer)
        if way.last is not None:
            before, where, value = way.last
            before.stats.compare(where, self._field, value, answer.value)
        if rung.band is None:
            rung.stats.certain += 1
            return self._stands(way, answer, f"{rung.called}: {self._number(answer)}")
        where = region(answer.value, self._field, rung.band, self._insufficient)
        way.last = (rung, where, answer.value)
        return self._certain(rung, way, answer) if where in CERTAIN else self._uncertain(rung, way, answer, where)

    def _certain(self, rung: _Rung, way: _Way, answer: Answer[Any]) -> bool:
        rung.stats.certain += 1
        told = f"{rung.called}: {self._number(answer)}"
        certain = f"{rung.called} is certain: {self._field} {self._number(answer)} is outside {rung.band}"
        if not self._sampled(rung, way.question) or not self._may_follow(rung, way.question):
            way.why.append(certain)
            return self._stands(way, answer, told)
        rung.stats.sampled += 1
        way.kept = answer
        way.tiers.append(f"{told}, sampled")
        way.why.append(f"{certain}, and was sampled")
        return True

    def _uncertain(self, rung: _Rung, way: _Way, answer: Answer[Any], where: Region) -> bool:
        rung.stats.uncertain += 1
        if where == "insufficient":
            told, why = f"{rung.called}: insufficient", f"{rung.called} says that its information is insufficient"
        else:
            inside = f"{self._number(answer)} in {rung.band}"
            told, why = f"{rung.called}: {inside}", f"{rung.called} is not certain: {self._field} {inside}"
        way.why.append(why)
        if self._may_follow(rung, way.question):
            way.tiers.append(told)
            if self._spare and rung.stats.tier == "cheap":
                way.spare = rung, answer
            return True
        rung.stats.spared += 1
        way.why.append(THRIFTY)
        return self._stands(way, answer, told)

    def _silent(self, rung: _Rung, way: _Way, answer: Answer[Any]) -> bool:
        """No answer: a certain one from before stands; else the next tier is asked, or there is none."""
        way.tiers.append(f"{rung.called}: {answer.status}")
        silent = f"{rung.called} gave no answer ({answer.status}{f': {answer.why}' if answer.why else ''})"
        if way.kept is not None:
            way.why.append(silent)
            way.answer = replace(way.kept, tiers=tuple(way.tiers), why=_joined(*way.why, way.kept.why))
            return False
        if answer.status == "budget" and way.spare is not None:
            cheap, spared = way.spare
            cheap.stats.spared += 1
            way.answer = replace(spared, tiers=tuple(way.tiers), why=_joined(*way.why, silent, THRIFTY, spared.why))
            return False
        if rung.band is not None and self._may_follow(rung, way.question):
            way.why.append(silent)
            return True
        way.answer = replace(answer, tiers=tuple(way.tiers), why=_joined(answer.why, *way.why))
        return False

    def _stands(self, way: _Way, answer: Answer[Any], told: str) -> bool:
        way.tiers.append(told)
        way.answer = replace(answer, tiers=tuple(way.tiers), why=_joined(*way.why, answer.why))
        return False

    def _may_follow(self, rung: _Rung, question: Question) -> bool:
        """Whether the tier after this one may be asked; the strong one only where money is not short."""
        return rung is not self._rungs[-2] or not self._thrifty(question)

    def _sampled(self, rung: _Rung, question: Question) -> bool:
        drawn = sha256(f"cascade {rung.stats.tier} {question.decision_id}".encode("utf-8", "replace")).digest()
        return int.from_bytes(drawn[:4], "big") < self._share * _WHOLE

    def _number(self, answer: Answer[Any]) -> str:
        found = number(answer.value, self._field)
        return "no number" if found is None else f"{found:g}"

    # ---- the rest of the contract --------------------------------------------------------------------------------------
    def room(self, coming: int = 0) -> bool:
        """Whether the first model has room; while questions are with the strong one, whether that has room too.

        The strong model is asked little: its pace must not hold up what never gets there. But what it can not take in time must
        not pile up before it either. Nobody waits for one that is out: what the first model is certain of goes on meanwhile.
        """
        strong = self._rungs[-1].scorer
        if not _room(self._first_model(), coming):
            return False
        if not self._escalated or _room(strong) or self._away():
            return True
        self._held_back = True
        return False

    def on_room(self, tell: Callable[[], None]) -> None:
        """See models.contract.Paced."""
        self._tell = tell
        for rung in self._rungs:
            if isinstance(rung.scorer, Paced):
                rung.scorer.on_room(tell)

    def weigh(self, features: BaseModel) -> int:
        """By the count of the first model; 0 where that counts no tokens."""
        model = self._first_model()
        return model.weigh(features) if isinstance(model, Weighing) else 0

    def _first_model(self) -> Scorer:
        return next(rung.scorer for rung in self._rungs if rung.stats.tier != "scorecard")

    async def close(self) -> None:
        """Close all tiers."""
        for rung in self._rungs:
            await rung.scorer.close()


def _room(scorer: Scorer, coming: int = 0) -> bool:
    return not isinstance(scorer, Paced) or scorer.room(coming)


def _joined(*said: str) -> str:
    return "; ".join(part for part in said if part)
