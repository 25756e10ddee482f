"""The names that an answer's type declares. Any other name that came with an answer is a text of whoever answered.

Pure. Such a text may be a record's, so it is neither told in a reason nor kept in an audit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

UNKNOWN: Final = "(unknown)"
_LONGEST_INDEX: Final = 4  # of more digits is no place in a list, but the key of a mapping


@lru_cache(maxsize=256)
def names_of(answer: type[BaseModel]) -> frozenset[str]:
    """The names of all fields of an answer, those inside its fields too, and their aliases.

    Where pydantic has no JSON Schema for the type, those of the outermost fields.
    """
    found = set[str]()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            properties = node.get("properties")
            found.update(properties if isinstance(properties, dict) else ())
            node = list(node.values())
        for each in node if isinstance(node, list) else ():
            walk(each)

    try:
        walk(answer.model_json_schema())
        walk(answer.model_json_schema(by_alias=False, mode="serialization"))
    except (PydanticInvalidForJsonSchema, PydanticUserError):
        found.update(answer.model_fields)
    return frozenset(found)


def place(loc: Iterable[int | str], names: frozenset[str]) -> str:
    """Where in an answer something is wrong, as pydantic's `loc` says, in names of the type alone."""
    return ".".join(_part(part, names) for part in loc) or "answer"


def _part(part: int | str, names: frozenset[str]) -> str:
    if isinstance(part, int):
        return str(part) if len(str(part)) <= _LONGEST_INDEX else UNKNOWN
    return part if part in names else UNKNOWN
