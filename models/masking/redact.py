"""Redact: a language model sees records masked (models/masking/mask.py), and what it says is put back before anybody reads it.

The outermost Scorer around a model: a cache, a cascade and the audit within know masked records only, and `decide` outside
real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.contract import Answer, Question, Scorer
from models.masking.mask import Mask, Masked
from models.masking.placeholders import Unmaskable
from models.wrapper import Wrapper


class Redact(Wrapper):
    """A Scorer around `inner`. A record that can not be masked is answered "invalid", and nothing of it is sent.

    With `stops` it is `stopped` as well: a moderation within has not seen it, so nobody may answer in its place.

    `unmasked` counts those. `Answer.value` is put back, `Answer.raw` stays as it was said, `Answer.shown` is what was seen.
    """

    def __init__(self, inner: Scorer, mask: Mask, *, stops: bool = False) -> None:
        self.unmasked = 0
        super().__init__(inner)
        self._mask = mask
        self._stops = stops

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in its order."""
        masked = [self._masked(question) for question in questions]
        sent = [
            replace(question, shown=found.shown)
            for question, found in zip(questions, masked, strict=True)
            if isinstance(found, Masked)
        ]
        answered = iter(await self._inner.score(sent, deadline) if sent else ())
        return [_put_back(next(answered), found) if isinstance(found, Masked) else found for found in masked]

    def _masked(self, question: Question) -> Masked | Answer[Any]:
        try:
            return self._mask.mask(question.features)
        except Exception as error:  # noqa: BLE001  # whatever it is: what is not masked must not leave
            self.unmasked += 1
            # Nothing was shown: an audit must not take the features themselves for what was.
            why = str(error) if isinstance(error, Unmaskable) else type(error).__name__
            return Answer("invalid", why=f"the features can not be masked ({why})", shown={}, stopped=self._stops)


def _put_back(answer: Answer[Any], masked: Masked) -> Answer[Any]:
    if answer.value is None:
        return replace(answer, shown=masked.shown)
    try:
        return replace(answer, value=masked.put_back(answer.value), shown=masked.shown)
    except Exception as error:  # noqa: BLE001  # an agent's validator, or a text that grew too long: one record's fault
        why = f"the answer does not fit its model any more once what was masked is put back ({type(error).__name__})"
        return replace(answer, status="invalid", value=None, why=why, shown=masked.shown)
