"""Wrapper: a Scorer around another one that passes on all that it does not change. What decorates inference starts from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from models.contract import Answer, Paced, Question, Scorer, Weighing


class Wrapper:
    """A Scorer, Paced and Weighing, around `inner`, which may be neither of the latter two. Subclasses override `score`.

    One that holds several scorers overrides the rest as well (models/routing/failover.py does without this class).
    """

    def __init__(self, inner: Scorer) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        """As of the scorer within."""
        return self._inner.name

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within."""
        return await self._inner.score(questions, deadline)

    def room(self, coming: int = 0) -> bool:
        """As the scorer within; one that is not paced always has room."""
        return not isinstance(self._inner, Paced) or self._inner.room(coming)

    def on_room(self, tell: Callable[[], None]) -> None:
        """As the scorer within; one that is not paced never tells."""
        if isinstance(self._inner, Paced):
            self._inner.on_room(tell)

    def weigh(self, features: BaseModel) -> int:
        """As the scorer within; 0 where that counts no tokens."""
        return self._inner.weigh(features) if isinstance(self._inner, Weighing) else 0

    async def close(self) -> None:
        """As the scorer within."""
        await self._inner.close()
