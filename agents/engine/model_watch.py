"""Tells, in the worker's log, when the model gives no answers: at the start and whenever it begins.

The worker neither refuses to start nor ends for it, since a model may be away for a while; without this, only the decisions
would say so. Said seldom: a model that is away for an hour is asked a thousand times.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from agents.engine.log_repeats import KIND, Repeats
from models.chat.line import Api
from models.chat.probe import probe_model
from models.contract import Answer, Question, Scorer
from models.wrapper import Wrapper
from schemas.errors import ConfigError

log = logging.getLogger(__name__)
NO_ANSWERS = frozenset({"rejected", "unavailable", "limited", "budget"})
"""What was done to the request as a whole; a late, invalid or refused answer is about its records."""
AGAIN_SECONDS = 60.0
_TOP = __name__.partition(".")[0]


class ModelWatch:
    """Says each kind of trouble once in `AGAIN_SECONDS`, then with the number of those held back."""

    def __init__(self, repeats: Repeats | None = None) -> None:
        self._repeats = repeats or Repeats((_TOP,), seconds=AGAIN_SECONDS)

    def warn(self, text: str, kind: str | None = None) -> None:
        """Log a warning, unless one of the same kind was logged a moment ago; a text is a kind of its own unless one is given."""
        if log.isEnabledFor(logging.WARNING):
            record = log.makeRecord(log.name, logging.WARNING, __file__, 0, text, (), None)  # no arguments: no % is read
            if kind is not None:
                setattr(record, KIND, kind)
            if self._repeats.filter(record):
                log.handle(record)

    async def probe(
        self, base_url: str, api_key: str | None, model: str, api: Api = "chat", setting: str | None = None
    ) -> None:
        """Look once whether the model can be asked, and warn where it can not. Never raises for what an endpoint does."""
        try:
            found = await probe_model(base_url, api_key, model, ask=False, api=api, setting=setting)
        except ConfigError:
            return  # the scorers were made from the same settings, and have said so
        for why in (found.refused, *found.doubts):
            if why is not None:
                self.warn(f"the model at {found.where}: {why}")


class Watched(Wrapper):
    """A Scorer that tells a watch when answers are missing for a reason of endpoint or budget, and when they come again.

    `who` is said not to answer, in place of "the model NAME", and `setting` is where it was configured, if not as the first
    model. Only answers whose `why` begins with `said` are told of: around something that answers itself, for others who are
    watched within (models/guardrails/moderation.py).
    """

    def __init__(
        self, inner: Scorer, agent: str, on_no_answer: str, watch: ModelWatch, *, who: str | None = None, said: str = "",
        setting: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self._setting = setting or "HEADRACE_MODEL_BASE_URL"
        self._who = who or f"the model {inner.name}"
        self._said = said
        self._agent = agent
        self._otherwise = on_no_answer
        self._away = False
        self._watch = watch

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        answers = await self._inner.score(questions, deadline)
        lacking = next((one for one in answers if one.status in NO_ANSWERS and one.why.startswith(self._said)), None)
        if lacking is not None:
            self._away = True
            self._watch.warn(
                f"agent {self._agent}: {self._who} gives no answers ({self._otherwise}): {self._advised(lacking)}",
                f"{self._agent} {self._who} {lacking.status}",
            )
        elif self._away and any(answer.status == "answered" for answer in answers):
            self._away = False
            self._watch.warn(f"agent {self._agent}: {self._who} answers again", f"{self._agent} {self._who} again")
        return answers

    def _advised(self, answer: Answer[Any]) -> str:
        """Why there is no answer, and the setting to look at."""
        if "HEADRACE_" in answer.why:
            return answer.why
        look = "raise `budget` in HEADRACE_AGENTS" if answer.status == "budget" else f"check {self._setting}"
        return f"{answer.why}; {look}"
