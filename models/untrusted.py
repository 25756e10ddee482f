"""Cuts the fields marked `Untrusted` in dumped features, wherever in the model they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from schemas.marks import Untrusted

Cut = Callable[[Any], Any]


@cache
def cutter(model: type[BaseModel]) -> Cut | None:
    """What cuts `model.model_dump(mode="json")` in place and returns it; None where nothing is marked.

    A marked field has each string in it cut to the mark's `max` characters, also inside lists, mappings, optional fields
    and nested models.
    """
    fields = {name: cut for name, field in model.model_fields.items() if (cut := _of(field.annotation, field.metadata))}
    if not fields:
        return None

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            for name, cut in fields.items():
                if name in value:
                    value[name] = cut(value[name])
        return value

    return apply


def _of(annotation: Any, metadata: Sequence[Any]) -> Cut | None:
    mark = next((found for found in metadata if isinstance(found, Untrusted)), None)
    if mark is not None:
        return _limit(mark.max)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        return _chain([cut for argument in arguments if (cut := _of(argument, ()))])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _later(annotation)
    members = [cut for argument in arguments if (cut := _of(argument, ()))]
    return _each(_chain(members)) if members else None


def _later(model: type[BaseModel]) -> Cut:
    """Looked up when used, so that a model may contain itself."""

    def apply(value: Any) -> Any:
        cut = cutter(model)
        return value if cut is None else cut(value)

    return apply


def _chain(cuts: Sequence[Cut]) -> Cut | None:
    if not cuts:
        return None
    if len(cuts) == 1:
        return cuts[0]

    def apply(value: Any) -> Any:
        for cut in cuts:
            value = cut(value)
        return value

    return apply


def _each(cut: Cut | None) -> Cut | None:
    if cut is None:
        return None

    def apply(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(member) for member in value]
        if isinstance(value, dict):
            return {key: cut(member) for key, member in value.items()}
        return value

    return apply


def _limit(most: int) -> Cut:
    def apply(value: Any) -> Any:
        if isinstance(value, str):
            return value[:most]
        if isinstance(value, list):
            return [apply(member) for member in value]
        if isinstance(value, dict):
            return {key: apply(member) for key, member in value.items()}
        return value

    return apply
