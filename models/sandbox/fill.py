"""Fills any answer schema from a stable hash of the features: the sandbox's fallback where no transparent rule is registered."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson


def fill(schema: Mapping[str, Any], features: Any) -> Any:
    """A value that conforms to `schema`, equal for equal features. Says nothing about them: it exercises the plumbing only."""
    seed = sha256(orjson.dumps(features, option=orjson.OPT_SORT_KEYS)).digest()
    return _value(schema, seed, "")


def inlined(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with each `#/$defs/...` in its place, as clients that write schemas with pydantic alone send them.

    A definition that contains itself ends as one that allows everything: this is no validator.
    """
    defs = schema.get("$defs")
    if not isinstance(defs, Mapping):
        return schema

    def inline(part: Any, within: tuple[str, ...]) -> Any:
        if isinstance(part, Mapping):
            name = str(part.get("$ref", "")).removeprefix("#/$defs/")
            if name in defs:
                return {} if name in within else inline(defs[name], (*within, name))
            return {key: inline(member, within) for key, member in part.items() if key != "$defs"}
        return [inline(member, within) for member in part] if isinstance(part, list) else part

    found: Mapping[str, Any] = inline(schema, ())
    return found


def _value(schema: Mapping[str, Any], seed: bytes, path: str) -> Any:
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        choices = schema["enum"]
        return choices[_number(seed, path) % len(choices)]
    if schema.get("anyOf"):
        members = schema["anyOf"]
        return _value(next((member for member in members if member.get("type") != "null"), members[0]), seed, path)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind == "object":
        return {name: _value(field, seed, f"{path}.{name}") for name, field in schema.get("properties", {}).items()}
    if kind == "array":
        return [_value(schema.get("items", {}), seed, f"{path}[{i}]") for i in range(schema.get("minItems", 1))]
    return _scalar(kind, schema, seed, path)


def _scalar(kind: Any, schema: Mapping[str, Any], seed: bytes, path: str) -> Any:
    number = _number(seed, path)
    if kind == "boolean":
        return number % 2 == 0
    if kind == "integer":
        low, high = _bounds(schema, 1)
        return int(low) + number % (int(high) - int(low) + 1)
    if kind == "number":
        low, high = _bounds(schema, 0)
        # Strictly inside, so that an exclusive bound holds too.
        return round(low + (high - low) * (number % 9999 + 1) / 10_000, 4)
    if kind == "string":
        text = f"sandbox {number % 100_000:05d}"
        return text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), ".")
    return None


def _bounds(schema: Mapping[str, Any], step: int) -> tuple[float, float]:
    low = schema.get("minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else None)
    high = schema.get("maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else None)
    if low is None:
        low = 0 if high is None else min(0, high)
    return low, low + 100 if high is None else high


def _number(seed: bytes, path: str) -> int:
    return int.from_bytes(sha256(seed + path.encode()).digest()[:8])
