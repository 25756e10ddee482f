"""Marks on the fields of a row or of an agent's features, read by the contract tests and by the prompt builder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from schemas.errors import ConfigError

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Protected:
    """`Annotated[str, Protected("sex")]`: kept for measuring groups, never a feature, never in a prompt."""

    group: str


@dataclass(frozen=True, slots=True)
class Untrusted:
    """`Annotated[str, Untrusted(max=4000)]`: free text from outside; cut to `max` characters, sent as data only.

    The cut is part of validation, so it also holds inside nested models and lists. Mark features, not rows: a marked
    column of a row is cut when it is decoded.
    """

    max: int = 4000

    def cut(self, value: Any) -> Any:
        """At most `max` characters of a text; anything else as it is."""
        return value[: self.max] if isinstance(value, str) else value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.cut, handler(source))


@dataclass(frozen=True, slots=True)
class Identifier:
    """`Annotated[str, Identifier("customer")]`: says who or what a record is about; a language model sees a pseudonym of it.

    For str, int and UUID, also optional and inside lists, mappings and nested models. `kind` (lower case letters, digits and
    hyphens) stands before the pseudonym: `customer-` and 16 hex digits. Equal values of one kind and tenant have equal
    pseudonyms; those of different kinds or tenants can not be linked. `decide`, scorecards and Python models see the value.
    """

    kind: str


IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What every server that takes images takes, as far as any is taken."""


@dataclass(frozen=True, slots=True)
class Image:
    """`Annotated[bytes | None, Image("image/png", max_bytes=500_000)]`: a picture that the model is shown beside the record.

    In JSON (hashes, audits, caches) its size and SHA-256 stand in place of it. One that is larger, or whose first bytes are not
    those of its type, makes its record invalid, and no other. `tokens` is what one image is taken to cost before the endpoint has
    counted; `detail` goes to the endpoint as it is. Raises ConfigError for a type that servers do not take.
    """

    type: str
    max_bytes: int = 4 * 1024 * 1024
    tokens: int = 1000
    detail: Literal["auto", "low", "high"] | None = None

    def __post_init__(self) -> None:
        if self.type not in IMAGE_TYPES:
            raise ConfigError(f"marking an image as {self.type!r}: give one of {', '.join(IMAGE_TYPES)}")
        if self.max_bytes < 1 or self.tokens < 1:
            raise ConfigError("marking an image: max_bytes and tokens start at 1")

    def digest(self, value: Any) -> Any:
        """What stands for it in JSON."""
        if not isinstance(value, bytes):
            return value
        return {"image": self.type, "bytes": len(value), "sha256": sha256(value).hexdigest()}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(self.digest, when_used="json-unless-none")
        return cast(CoreSchema, {**handler(source), "serialization": written})

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"contentMediaType": self.type, "description": f"at most {self.max_bytes} bytes"}


def marked(model: type[BaseModel], mark: type) -> dict[str, object]:
    """Field name -> the mark of that kind, for each field that carries one."""
    return {
        name: found
        for name, field in model.model_fields.items()
        for found in field.metadata
        if isinstance(found, mark)
    }


def marks(model: type[BaseModel], mark: type[M]) -> dict[str, M]:
    """Path -> the mark of that kind, at every depth: `turns.text` is the field `text` of each item of `turns`."""
    return dict(_walk_model(model, mark, "", ()))


def _walk_model(model: type[BaseModel], mark: type[M], prefix: str, above: tuple[type, ...]) -> Iterator[tuple[str, M]]:
    if model in above:
        return  # a model that contains itself: its marks have been seen
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield from ((path, found) for found in field.metadata if isinstance(found, mark))
        yield from _walk_type(field.annotation, mark, path, (*above, model))


def _walk_type(annotation: Any, mark: type[M], path: str, above: tuple[type, ...]) -> Iterator[tuple[str, M]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _walk_model(annotation, mark, f"{path}.", above)
        return
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        yield from ((path, found) for found in arguments[1:] if isinstance(found, mark))
        arguments = arguments[:1]
    for inner in arguments:
        yield from _walk_type(inner, mark, path, above)
