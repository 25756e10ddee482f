"""A hypothesis strategy for every valid answer of a model, made from its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel


def valid(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON-able data that the model accepts: every enum value, every length, both ends of every range."""
    schema = model.model_json_schema()
    return _of(schema, schema.get("$defs", {}))


def _of(node: Mapping[str, Any], defs: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in node:
        return _of(defs[node["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in node:
        return st.one_of([_of(member, defs) for member in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "const" in node:
        return st.just(node["const"])
    kind = node.get("type")
    if kind == "object":
        return st.fixed_dictionaries({name: _of(field, defs) for name, field in node["properties"].items()})
    if kind == "array":
        return st.lists(_of(node["items"], defs), min_size=node.get("minItems", 0), max_size=node["maxItems"])
    if kind == "integer":
        return st.integers(node["minimum"], node["maximum"])
    if kind == "number":
        return st.floats(node["minimum"], node["maximum"], allow_nan=False)
    if kind == "string":
        return st.text(max_size=node["maxLength"])
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    raise NotImplementedError(f"no strategy for {node}")
