"""What a fault may tell of the record it is about: nothing of a column that is Protected, little of any other.

A decoder marks whatever it takes from a record into a detail (`quoted` in faults.py). Where the topic's row has no protected
column the marks are taken off. Where it has some, what is marked stays only if the fault is of a column that is not protected
and holds none; texts that the row's own validators wrote never stay, since they can be about any column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from pydantic import AliasChoices, AliasPath, BaseModel

from schemas.dead_letter import Fault
from schemas.marks import Protected, marks
from topics.decode.faults import FOREIGN, MARKED
from topics.spec import TopicSpec

_ROWS = ("after", "before")
"""What stands before a column where a whole document is a text (topics/decode/mongo.py)."""


def teller(spec: TopicSpec[Any]) -> Callable[[Fault], Fault]:
    """How faults of this topic's records may leave the decoder. Faults without marks come back as they are."""
    row = spec.row
    hidden = {path.partition(".")[0] for path in marks(row, Protected)} if row is not None else set()
    if row is None or not hidden:
        return _open
    known = _names(row, spec.clean.rename)
    closed = {wire for wire, name in known.items() if name in hidden}
    return lambda fault: _veiled(fault, row, known, closed)


def _open(fault: Fault) -> Fault:
    return replace(fault, detail=MARKED.sub(r"\3", fault.detail)) if MARKED.search(fault.detail) else fault


def _veiled(fault: Fault, row: type[BaseModel], known: Mapping[str, str], closed: set[str]) -> Fault:
    first = fault.field.partition(".")[0] if fault.field else ""
    if first in known and first not in closed:
        detail = MARKED.sub(lambda found: found[2] if found[1] == FOREIGN else found[3], fault.detail)
        return replace(fault, detail=detail)
    return replace(fault, detail=MARKED.sub(r"\2", fault.detail), field=_declared(row, known, fault.field))


def _declared(row: type[BaseModel], known: Mapping[str, str], field: str | None) -> str | None:
    """The path without what a record may have put into it: the keys of a map inside a protected column, for one."""
    if not field:
        return field
    steps = field.split(".")
    lead = steps[:1] if steps[0] in _ROWS and steps[0] not in known else []
    steps = steps[len(lead) :]
    if not steps or steps[0] not in known:
        return ".".join((*lead, "*")) if lead and steps else field
    kept, models, names = [*lead], [row], known
    for step in steps:
        name = names.get(step)
        if name is None:
            if step.isdecimal():
                continue  # the place in a list
            break
        kept.append(step)
        infos = [m.model_fields[name] for m in models if name in m.model_fields]
        models = [inner for info in infos for inner in _models(info.annotation)]
        names = {wire: own for model in models for wire, own in _names(model, {}).items()}
    return ".".join(kept)


def _names(row: type[BaseModel], renamed: Mapping[str, str]) -> dict[str, str]:
    """Each name that a fault may give a column: its own, its aliases, what a rename rule takes; and the field's own name."""
    found = {name: name for name in row.model_fields}
    for name, info in row.model_fields.items():
        alias = info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias, info.alias]
        for choice in choices:
            wire = choice.path[0] if isinstance(choice, AliasPath) else choice
            if isinstance(wire, str):
                found[wire] = name
    return found | dict(renamed)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
