"""What may be shown of a record's value: the declared fields, those marked Protected named and not told."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from schemas.change import Change
from schemas.event import Event
from schemas.marks import Protected, marks
from schemas.reading import Reading

HIDDEN = "(protected)"


def shown(value: Any) -> dict[str, Any]:
    """A decoded value as JSON-able fields. Undeclared columns are not among them: nobody has said what they are."""
    if isinstance(value, Change):
        row = value.after if value.after is not None else value.before
        hidden = set(marks(type(row), Protected)) if row is not None else set()
        key = {name: HIDDEN if name in hidden else item for name, item in value.key.items()}
        return {"op": value.op, "key": key, "before": rowed(value.before), "after": rowed(value.after)}
    if isinstance(value, Reading):
        return {"device": value.device, "row": rowed(value.row)}
    if isinstance(value, Event):
        return {"subject": value.subject, "row": rowed(value.row)}
    return {}


def rowed(row: BaseModel | None) -> dict[str, Any] | None:
    """A row, with each field that is marked Protected, at any depth, hidden; a field without a value stays without."""
    if row is None:
        return None
    fields = row.model_dump(mode="json")
    for path in marks(type(row), Protected):
        _hide(fields, path.split("."))
    return fields


def _hide(fields: Any, path: list[str]) -> None:
    if isinstance(fields, list):
        for item in fields:
            _hide(item, path)
    elif isinstance(fields, dict):
        name, *rest = path
        if rest:
            # a path goes through the values of a mapping as it goes through the items of a list
            _hide(fields[name] if name in fields else list(fields.values()), rest if name in fields else path)
        elif fields.get(name) is not None:
            fields[name] = HIDDEN


def plain(value: Any) -> Any:
    """The same with every control and format character of its texts, but for line feeds, written out: what came from outside
    must not draw."""
    if isinstance(value, str):
        if value.isascii() and value.isprintable():
            return value
        return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else f"\\u{ord(c):04x}" for c in value)
    if isinstance(value, Mapping):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
