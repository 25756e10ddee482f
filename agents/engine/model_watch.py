"""Tells, in the worker's log, when the model gives no answers: at the start and whenever it begins.

The worker neither refuses to start nor ends for it, since a model may be away for a while; without this, only the decisions
would say so. Said seldom: a model that is away for an hour is asked a thousand times.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from agents.engine.log_repeats import Repeats
from models.contract import Answer, Question, Scorer
from models.probe import probe_model
from models.wrapper import Wrapper
from schemas.errors import ConfigError

log = logging.getLogger(__name__)
NO_ANSWERS = frozenset({"rejected", "unavailable", "limited"})
"""What the endpoint did to the request as a whole; a late, invalid or refused answer is about its records."""
AGAIN_SECONDS = 60.0
_TOP = __name__.partition(".")[0]


class ModelWatch:
    """Says each kind of trouble once in `AGAIN_SECONDS`, then with the number of those held back."""

    def __init__(self, repeats: Repeats | None = None) -> None:
        self._repeats = repeats or Repeats((_TOP,), seconds=AGAIN_SECONDS)

    def warn(self, text: str) -> None:
        """Log a warning, unless the same was logged a moment ago."""
        if log.isEnabledFor(logging.WARNING):
            record = log.makeRecord(log.name, logging.WARNING, __file__, 0, text, (), None)  # no arguments: no % is read
            if self._repeats.filter(record):
                log.handle(record)

    async def probe(self, base_url: str, api_key: str | None, model: str) -> None:
        """Look once whether the model can be asked, and warn where it can not. Never raises for what an endpoint does."""
        try:
            found = await probe_model(base_url, api_key, model, ask=False)
        except ConfigError:
            return  # the scorers were made from the same settings, and have said so
        for why in (found.refused, *found.doubts):
            if why is not None:
                self.warn(f"the model at {found.where}: {why}")


class Watched(Wrapper):
    """A Scorer that tells a watch when answers begin to be missing for a reason of the endpoint."""

    def __init__(self, inner: Scorer, agent: str, on_no_answer: str, watch: ModelWatch) -> None:
        super().__init__(inner)
        self._agent = agent
        self._otherwise = on_no_answer
        self._watch = watch

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        answers = await self._inner.score(questions, deadline)
        for answer in answers:
            if answer.status in NO_ANSWERS:
                why = answer.why if "HEADRACE_" in answer.why else f"{answer.why}; check HEADRACE_MODEL_BASE_URL"
                self._watch.warn(f"agent {self._agent}: the model {self.name} gives no answers ({self._otherwise}): {why}")
                break
        return answers
