"""What an audit keeps of an answer to a record whose features are masked.

A language model saw the record masked, and what it said is kept as it was said. A scorecard or a Python model saw it as it is:
of theirs numbers, truth values and the choices that the answer's type declares are kept, of any other text that there was one.
Names are texts too: those of the type's fields and choices are kept, and those of a scorecard's table, which its author wrote.
What stands under any other name is dropped: `[TEXT]` says how many there were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from agents.engine.leaves import leaves
from models.chat.field_names import names_of
from models.contract import Answer

TEXT: Final = "[TEXT]"
"""Stands for a text that is not kept."""


class KeptAnswers:
    """For answers of the type `answers`; `closed`: something in the features is masked."""

    def __init__(self, answers: type[BaseModel], *, closed: bool) -> None:
        self._closed = closed
        self._choices = frozenset(choice for leaf in leaves(answers) for choice in leaf.choices if isinstance(choice, str))
        self._names = names_of(answers) if closed else frozenset[str]()

    def raw(self, answer: Answer[Any]) -> Any:
        """What was said before validation."""
        if self._as_said(answer):
            return answer.raw
        return self._told(answer.raw, None if answer.tier == "scorecard" else self._names)

    def value(self, answer: Answer[Any]) -> dict[str, Any] | None:
        """What validation made of it, None where there is no valid answer; of a masked record's as it was said, masked."""
        value = answer.value
        if not isinstance(value, BaseModel):
            return None
        if answer.shown is not None and answer.tier == "model" and isinstance(answer.raw, Mapping):
            return {name: answer.raw[name] for name in type(value).model_fields if name in answer.raw}
        if self._as_said(answer):
            return value.model_dump(mode="json")
        # A subclass of the type has fields of its own, and its author named them as well.
        return self._named(value.model_dump(), self._names | names_of(type(value)))

    def _as_said(self, answer: Answer[Any]) -> bool:
        return not self._closed or (answer.tier == "model" and answer.shown is not None)

    def _told(self, said: Any, names: Collection[str] | None) -> Any:
        """What is kept of it; all names are where `names` is None."""
        if isinstance(said, Enum):
            said = said.value
        if said is None or isinstance(said, bool | int | float):
            return said
        if isinstance(said, Decimal):
            return str(said)
        if isinstance(said, Mapping):
            return self._named(said, names)
        if isinstance(said, list | tuple):
            return [self._told(each, names) for each in said]
        return said if isinstance(said, str) and said in self._choices else TEXT

    def _named(self, said: Mapping[Any, Any], names: Collection[str] | None) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        dropped = 0
        for key, each in said.items():
            name = str(key.value if isinstance(key, Enum) else key)
            if names is None or name in names or name in self._choices:
                kept[name] = self._told(each, names)
            else:
                dropped += 1
        return kept | {TEXT: dropped} if dropped else kept
