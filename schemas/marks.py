"""Marks on the fields of a row or of an agent's features, read by the contract tests and by the prompt builder."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Protected:
    """`Annotated[str, Protected("sex")]`: kept for measuring groups, never a feature, never in a prompt."""

    group: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """`Annotated[str, Untrusted(max=4000)]`: free text from outside; cut to `max` characters, sent as data only."""

    max: int = 4000


def marked(model: type[BaseModel], mark: type) -> dict[str, object]:
    """Field name -> the mark of that kind, for each field that carries one."""
    return {
        name: found
        for name, field in model.model_fields.items()
        for found in field.metadata
        if isinstance(found, mark)
    }
