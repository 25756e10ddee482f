"""Walk the fields of a pydantic model down to what they are made of, through optionals, lists and nested models."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place of a model. `path` is dotted; `kind` a plain type, Literal, or a container; `metadata` what annotates it."""

    path: str
    kind: Any
    metadata: tuple[Any, ...]
    choices: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The field's own name."""
        return self.path.rpartition(".")[2]

    def bound(self, *names: str) -> bool:
        """Whether a constraint of one of these names (ge, max_length ...) is declared."""
        return any(getattr(mark, name, None) is not None for mark in self.metadata for name in names)


def leaves(model: type[BaseModel]) -> Iterator[Leaf]:
    """Every leaf of the model. Containers are leaves themselves, before their items. A model in itself is walked once."""
    yield from _of_model(model, "", ())


def _of_model(model: type[BaseModel], prefix: str, above: tuple[type, ...]) -> Iterator[Leaf]:
    if model in above:
        return
    for name, field in model.model_fields.items():
        yield from _of_type(field.annotation, tuple(field.metadata), f"{prefix}{name}", (*above, model))


def _of_type(annotation: Any, metadata: tuple[Any, ...], path: str, above: tuple[type, ...]) -> Iterator[Leaf]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _of_type(arguments[0], (*metadata, *arguments[1:]), path, above)
    elif origin is Literal:
        yield Leaf(path, Literal, metadata, arguments)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(annotation, f"{path}.", above)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield Leaf(path, Literal, metadata, tuple(member.value for member in annotation))
    elif isinstance(origin, type) and issubclass(origin, Mapping | Collection):
        yield Leaf(path, origin, metadata)
        for inner in arguments:
            if inner is not Ellipsis:
                yield from _of_type(inner, (), path, above)
    elif arguments:  # a union: each member may be what the value is
        for inner in arguments:
            if inner is not NoneType:
                yield from _of_type(inner, metadata, path, above)
    else:
        yield Leaf(path, annotation, metadata)
