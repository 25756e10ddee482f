"""What an OpenAI-compatible endpoint understands, learned from its own 400 answers, one step at a time.

Servers differ in three places that matter here: how they can be held to JSON, what the limit on output tokens is called, and
which parameters of sampling may be set. A request starts with all of it; an endpoint that names the parameter it does not know
is asked the same thing without it, and remembered, for all agents that ask it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Format = Literal["json_schema", "json_object", "plain"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask one endpoint. Each `adapt` moves one way only, so adapting ends. `without` are parameters it does not take."""

    format: Format = "json_schema"
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    without: frozenset[str] = frozenset()


def adapt(dialect: Dialect, error: Mapping[str, Any], sent: Collection[str]) -> Dialect | None:
    """The dialect to try after a 400 whose body's `error` object is given; None if asking differently would not help.

    `sent` are the names of the parameters that may be left out. Looks at the `param` that OpenAI's servers send; where it is
    absent, at the parameter names in the message, because compatible servers often send nothing else.
    """
    param = error.get("param")
    text = param if isinstance(param, str) and param else str(error.get("message", ""))[:2000]
    if "max_tokens" in text and dialect.limit == "max_tokens":
        return replace(dialect, limit="max_completion_tokens")
    refused = next((name for name in sent if name not in dialect.without and _named(name, text)), None)
    if refused is not None:
        return replace(dialect, without=dialect.without | {refused})
    if any(name in text for name in ("response_format", "json_schema", "json_object")):
        if dialect.format == "json_schema":
            return replace(dialect, format="json_object")
        if dialect.format == "json_object":
            return replace(dialect, format="plain")
    return None


def _named(name: str, text: str) -> bool:
    """As a word of its own: "seed" is not in "seedy", nor "n" in anything."""
    return re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text) is not None
