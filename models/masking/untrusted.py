"""Cuts the fields marked `Untrusted` in dumped features, wherever in the model they are, and reads their texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import BaseModel

from models.contract import Question
from models.masking.marked import walk_of
from schemas.marks import Identifier, Untrusted

Cut = Callable[[Any], Any]


class _Cutter:
    """Leaves at most the mark's `max` characters of each text."""

    def text(self, value: str, mark: Untrusted) -> str:
        return value[: mark.max]

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        return value


class _Reader:
    """Collects the texts, and leaves them as they are."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def text(self, value: str, mark: Untrusted) -> str:
        self.texts.append(value[: mark.max])
        return value

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        return value


_CUTTER = _Cutter()


@cache
def cutter(model: type[BaseModel]) -> Cut | None:
    """What cuts `model.model_dump(mode="json")` in place and returns it; None where nothing is marked.

    A marked field has each string in it cut to the mark's `max` characters, also inside lists, mappings, optional fields
    and nested models.
    """
    walk = walk_of(model)
    return None if walk is None else lambda value: walk(value, _CUTTER)


def untrusted_texts(question: Question) -> list[str]:
    """Every text of the question in a field marked Untrusted, as the model would see it: masked where it is masked."""
    walk = walk_of(type(question.features))
    if walk is None:
        return []
    reader = _Reader()
    # A warning about a value of another type would print it.
    shown = question.features.model_dump(mode="json", warnings="none") if question.shown is None else question.shown
    walk(shown, reader)
    return reader.texts
