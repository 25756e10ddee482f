"""The JSON Schema of an answer model in the strict form that structured output asks for: closed objects, everything required."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas.errors import ConfigError

_DROPPED = ("title", "default", "examples")


def schema_name(answer: type[BaseModel]) -> str:
    """The name under which an answer model is sent: its class name, in the characters that endpoints accept."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", answer.__name__)[:64]


def strict_schema(answer: type[BaseModel], generator: type[GenerateJsonSchema] = GenerateJsonSchema) -> dict[str, Any]:
    """`{"answers": [{"id": ..., <fields of answer>}]}` as a strict JSON Schema, enums and ranges kept, references inlined.

    Raises ConfigError for an answer model that strict mode can not express: a field called `id`, a free-form mapping, a
    model that contains itself, or no fields at all.
    """
    source = answer.model_json_schema(mode="validation", by_alias=True, schema_generator=generator)
    where = answer.__name__
    item = _strict(source, source.get("$defs", {}), (), where)
    fields: dict[str, Any] = item.get("properties", {})
    if not fields:
        raise ConfigError(f"building the answer schema of {where}: it has no fields")
    if "id" in fields:
        raise ConfigError(f"building the answer schema of {where}: rename its field id, that name is ours")
    closed = {**item, "properties": {"id": {"type": "string"}, **fields}, "required": ["id", *fields]}
    return {
        "type": "object",
        "properties": {"answers": {"type": "array", "items": closed}},
        "required": ["answers"],
        "additionalProperties": False,
    }


def _strict(node: Mapping[str, Any], definitions: Mapping[str, Any], trail: tuple[str, ...], where: str) -> dict[str, Any]:
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        if name in trail:
            raise ConfigError(f"building the answer schema of {where}: {name} contains itself, which strict mode can not express")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _strict({**definitions[name], **beside}, definitions, (*trail, name), where)
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in _DROPPED or key == "$defs":
            continue
        if key == "properties":
            out[key] = {name: _strict(field, definitions, trail, f"{where}.{name}") for name, field in value.items()}
        elif key in ("items", "not") and isinstance(value, Mapping):
            out[key] = _strict(value, definitions, trail, where)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            # Strict mode knows anyOf only; a pydantic oneOf is a tagged union, whose members exclude each other anyway.
            out["anyOf" if key == "oneOf" else key] = [_strict(member, definitions, trail, where) for member in value]
        elif key != "discriminator":
            out[key] = value
    if out.get("type") == "object":
        if out.get("additionalProperties") not in (None, False) or "properties" not in out:
            raise ConfigError(f"building the answer schema of {where}: a free-form mapping; strict mode needs named fields")
        out["additionalProperties"] = False
        out["required"] = list(out["properties"])
    return out
