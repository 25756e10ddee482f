"""Goes through dumped features to the places that are marked, wherever in the model they are.

A model is read once, its marks become a Walk; what is done at each marked place is the caller's Visitor. Cutting
(models/masking/untrusted.py), reading texts and masking (models/masking/mask.py) are visitors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Annotated, Any, Protocol, Union, get_args, get_origin, is_typeddict

from pydantic import BaseModel, PlainSerializer, RootModel, WrapSerializer

from schemas.marks import Identifier, Untrusted


class Visitor(Protocol):
    """What becomes of the values at marked places."""

    def text(self, value: str, mark: Untrusted) -> str:
        """A text in a field marked Untrusted, also one inside a list or a mapping there."""
        ...

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        """A value of a field marked Identifier."""
        ...


_HARMLESS = (bool, int, float, Decimal)
Walk = Callable[[Any, Visitor], Any]
"""Changes a dump in place as the visitor says, and returns it. Raises TypeError for an Identifier that is none."""


@cache
def walk_of(model: type[BaseModel]) -> Walk | None:
    """The Walk over `model.model_dump(mode="json")`; None where nothing is marked."""
    if issubclass(model, RootModel):
        root = model.model_fields["root"]
        return _of(root.annotation, root.metadata)
    fields = _fields(model)
    return _by_name([fields]) if fields else None


@cache
def kinds_of(model: type[BaseModel]) -> frozenset[type]:
    """Which of the marks Untrusted and Identifier the model carries anywhere."""
    return frozenset(type(mark) for mark in _found(model, ()))


@cache
def identifier_kinds(model: type[BaseModel]) -> tuple[str, ...]:
    """The kinds of its Identifiers, sorted."""
    return tuple(sorted({mark.kind for mark in _found(model, ()) if isinstance(mark, Identifier)}))


def unseen(model: type[BaseModel]) -> list[str]:
    """What would let a marked value past a Walk, each a sentence that says what to change; none where every mark is found."""
    return list(_unseen(model, "", ()))


@cache
def _fields(model: type[BaseModel]) -> dict[str, Walk]:
    places = _places(model).items()
    return {name: walk for name, (annotation, metadata) in places if (walk := _of(annotation, metadata))}


def _by_name(fields: Sequence[dict[str, Walk]]) -> Walk:
    """A model, or one of several: then a field is masked if it would be in any of them, and once."""

    def walk_fields(value: Any, visitor: Visitor) -> Any:
        if isinstance(value, dict):
            for name in value:
                walk = next((each[name] for each in fields if name in each), None)
                if walk is not None:
                    value[name] = walk(value[name], visitor)
        return value

    return walk_fields


def _places(model: type[BaseModel]) -> dict[str, tuple[Any, Sequence[Any]]]:
    """Name in the dump -> annotation and metadata, computed fields included."""
    aliases = bool(model.model_config.get("serialize_by_alias"))
    found: dict[str, tuple[Any, Sequence[Any]]] = {}
    for name, field in model.model_fields.items():
        found[(field.serialization_alias if aliases else None) or name] = (field.annotation, field.metadata)
    for name, computed in model.model_computed_fields.items():
        found[(computed.alias if aliases else None) or name] = (computed.return_type, ())
    return found


def _of(annotation: Any, metadata: Sequence[Any]) -> Walk | None:
    mark = _first(metadata)
    if isinstance(mark, Identifier):
        return _identifiers(mark)
    if mark is not None:
        return _texts(mark)
    annotation = _unwrapped(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _of(arguments[0], arguments[1:])
    if origin in (Union, UnionType):
        members = [argument for argument in arguments if _is_marked(argument)]
        return _later(members) if len(members) > 1 and all(map(_is_fields, members)) else _chain(members)
    if _is_model(annotation):
        return _later([annotation]) if _is_marked(annotation) else None
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return _entries(_of(arguments[0], ()), _of(arguments[1], ()))
    if origin is tuple and Ellipsis not in arguments:
        return _places_of_tuple([_of(argument, ()) for argument in arguments])
    walk = _chain(arguments)
    return _each(walk) if walk else None


def _first(metadata: Sequence[Any]) -> Untrusted | Identifier | None:
    """An Identifier stands for the whole value, whatever else is said of the field."""
    marks = [mark for mark in metadata if isinstance(mark, Untrusted | Identifier)]
    return next((mark for mark in marks if isinstance(mark, Identifier)), marks[0] if marks else None)


def _unwrapped(annotation: Any) -> Any:
    """What a NewType or a `type` alias stands for."""
    while True:
        inner = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
        if inner is None or isinstance(annotation, type):
            return annotation
        annotation = inner


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_fields(annotation: Any) -> bool:
    """Whether it is dumped as a mapping of its fields."""
    return _is_model(annotation) and not issubclass(annotation, RootModel)


def _is_marked(annotation: Any) -> bool:
    return next(_found(annotation, ()), None) is not None


def _later(models: Sequence[type[BaseModel]]) -> Walk:
    """Looked up when used, so that a model may contain itself."""

    def walk_model(value: Any, visitor: Visitor) -> Any:
        walk = walk_of(models[0]) if len(models) == 1 else _by_name([_fields(model) for model in models])
        return value if walk is None else walk(value, visitor)

    return walk_model


def _chain(annotations: Sequence[Any]) -> Walk | None:
    """For each of them; no two may find the same value marked (`unseen` tells)."""
    walks = [walk for annotation in annotations if (walk := _of(annotation, ()))]
    if len(walks) <= 1:
        return walks[0] if walks else None

    def walk_all(value: Any, visitor: Visitor) -> Any:
        for walk in walks:
            value = walk(value, visitor)
        return value

    return walk_all


def _each(walk: Walk) -> Walk:
    def walk_each(value: Any, visitor: Visitor) -> Any:
        return [walk(member, visitor) for member in value] if isinstance(value, list) else value

    return walk_each


def _places_of_tuple(walks: Sequence[Walk | None]) -> Walk | None:
    if not any(walks):
        return None

    def walk_places(value: Any, visitor: Visitor) -> Any:
        if not isinstance(value, list) or len(value) != len(walks):
            return value
        return [member if walk is None else walk(member, visitor) for walk, member in zip(walks, value, strict=True)]

    return walk_places


def _entries(key: Walk | None, member: Walk | None) -> Walk | None:
    if key is None and member is None:
        return None

    def walk_entries(value: Any, visitor: Visitor) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            key(name, visitor) if key else name: member(inner, visitor) if member else inner for name, inner in value.items()
        }

    return walk_entries


def _texts(mark: Untrusted) -> Walk:
    def walk_texts(value: Any, visitor: Visitor) -> Any:
        if isinstance(value, str):
            return visitor.text(value, mark)
        if isinstance(value, list):
            return [walk_texts(member, visitor) for member in value]
        if isinstance(value, dict):
            return {walk_texts(name, visitor): walk_texts(member, visitor) for name, member in value.items()}
        return value

    return walk_texts


def _identifiers(mark: Identifier) -> Walk:
    def walk_identifiers(value: Any, visitor: Visitor) -> Any:
        if value is None:
            return None
        if isinstance(value, str | int) and not isinstance(value, bool):
            return visitor.identifier(value, mark)
        if isinstance(value, list):
            return [walk_identifiers(member, visitor) for member in value]
        if isinstance(value, dict):
            return {name: walk_identifiers(member, visitor) for name, member in value.items()}
        raise TypeError(f"an Identifier of kind {mark.kind} is a {type(value).__name__}")

    return walk_identifiers


def _found(annotation: Any, above: tuple[Any, ...], metadata: Sequence[Any] = ()) -> Iterator[Untrusted | Identifier]:
    mark = _first(metadata)
    if mark is not None:
        yield mark
        return
    annotation = _unwrapped(annotation)
    if _is_model(annotation):
        if annotation not in above:
            for inner, inner_metadata in _places(annotation).values():
                yield from _found(inner, (*above, annotation), inner_metadata)
        return
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        yield from _found(arguments[0], above, arguments[1:])
        return
    for argument in arguments:
        yield from _found(argument, above)


def _unseen(annotation: Any, path: str, above: tuple[Any, ...]) -> Iterator[str]:
    annotation = _unwrapped(annotation)
    if _is_model(annotation):
        if annotation not in above:
            yield from _unseen_model(annotation, path, (*above, annotation))
    elif is_dataclass(annotation) or is_typeddict(annotation) or hasattr(annotation, "_fields"):
        yield f"{path} is no pydantic model ({annotation.__name__}): make it one, marks are found in those only"
    else:
        origin, arguments = get_origin(annotation), get_args(annotation)
        marked = [argument for argument in arguments if _is_marked(argument)] if origin in (Union, UnionType) else []
        if len(marked) > 1 and not all(map(_is_fields, marked)):
            yield f"{path} carries marks in several members of a union: put one mark around the whole"
        for argument in arguments[:1] if origin is Annotated else arguments:
            if isinstance(argument, type) or get_args(argument) or hasattr(argument, "__value__"):
                yield from _unseen(argument, path, above)


def _unseen_model(model: type[BaseModel], path: str, above: tuple[Any, ...]) -> Iterator[str]:
    where = path or model.__name__
    decorators = model.__pydantic_decorators__
    if decorators.model_serializers:
        yield f"{where} has a model_serializer: leave it out, what it writes can not be masked field by field"
    if model.model_config.get("extra") == "allow":
        yield f'{where} allows extra fields: list them, and set extra="forbid"'
    for name, computed in model.model_computed_fields.items():
        if computed.return_type not in _HARMLESS and not _is_marked(computed.return_type):
            yield f"{where} computes {name}, maybe of what is marked: make it a field, or return something marked"
    serialized = {name for serializer in decorators.field_serializers.values() for name in serializer.info.fields}
    for name, (annotation, metadata) in _places(model).items():
        # By its name, since a type checker takes SerializeAsAny for something else than what stands in the metadata.
        if any(type(each).__name__ == "SerializeAsAny" for each in metadata):
            yield f"{where} has {name} as SerializeAsAny: name its type, what else a subclass has is marked by nobody"
        own = serialized & {name, "*"} or any(isinstance(each, PlainSerializer | WrapSerializer) for each in metadata)
        if own and any(_found(annotation, (), metadata)):
            yield f"{where} has a serializer for {name}: leave it out, a marked field is masked as it is"
        yield from _unseen(annotation, f"{path}.{name}" if path else name, above)


