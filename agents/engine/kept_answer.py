"""What an audit keeps of an answer to a record whose features are masked.

A language model saw the record masked, and what it said is kept as it was said. A scorecard or a Python model saw it as it is:
of theirs numbers, truth values and the choices that the answer's type declares are kept, of any other text that there was one.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from agents.engine.leaves import leaves
from models.contract import Answer

TEXT: Final = "[TEXT]"
"""Stands for a text that is not kept."""


class KeptAnswers:
    """For answers of the type `answers`; `closed`: something in the features is masked."""

    def __init__(self, answers: type[BaseModel], *, closed: bool) -> None:
        self._closed = closed
        self._choices = frozenset(choice for leaf in leaves(answers) for choice in leaf.choices if isinstance(choice, str))

    def raw(self, answer: Answer[Any]) -> Any:
        """What was said before validation."""
        return answer.raw if self._as_said(answer) else self._told(answer.raw)

    def value(self, answer: Answer[Any]) -> dict[str, Any] | None:
        """What validation made of it, None where there is no valid answer; of a masked record's as it was said, masked."""
        value = answer.value
        if not isinstance(value, BaseModel):
            return None
        if answer.shown is not None and answer.tier == "model" and isinstance(answer.raw, Mapping):
            return {name: answer.raw[name] for name in type(value).model_fields if name in answer.raw}
        if self._as_said(answer):
            return value.model_dump(mode="json")
        return {name: self._told(each) for name, each in value.model_dump().items()}

    def _as_said(self, answer: Answer[Any]) -> bool:
        return not self._closed or (answer.tier == "model" and answer.shown is not None)

    def _told(self, said: Any) -> Any:
        if isinstance(said, Enum):
            said = said.value
        if said is None or isinstance(said, bool | int | float):
            return said
        if isinstance(said, Decimal):
            return str(said)
        if isinstance(said, Mapping):
            return {str(name): self._told(each) for name, each in said.items()}
        if isinstance(said, list | tuple):
            return [self._told(each) for each in said]
        return said if isinstance(said, str) and said in self._choices else TEXT
