"""Reads the body of a chat completion. Nothing in it is believed before its type was looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from schemas.audit import Tokens
from schemas.errors import ModelProtocolError, ModelUnavailable

_LONGEST_NAME, _LONGEST_REFUSAL = 200, 500
_NO_NAME = re.compile(r"[^\w./:@ -]", re.ASCII)
_GATEWAY_TOKENS = 10_000
"""What a chat template, or a prompt that a gateway puts before ours, may add."""
_MOST_OUTPUT = 1_000_000


@dataclass(frozen=True, slots=True)
class Beside:
    """What was said of one record where the text only stands for it: `raw` for audits, and why it is no answer if it is none."""

    raw: Any
    fault: Literal["invalid", "refused"] | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """The parts of a chat completion that count. `refused` and `cut` say why `content` may not be the whole answer.

    `content` is empty where the model said nothing, or called a tool instead: what one record's text can bring about is no fault
    of the endpoint.

    `beside` has by id what was said of a record, where `content` was made from it (models/chat/decisions.py).

    What a model thought (`reasoning_content`, `reasoning`) is no part of its answer, and is not read.
    """

    content: str
    model: str | None
    finish_reason: str | None
    refused: str | None
    tokens: Tokens
    beside: Mapping[str, Beside] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        """Whether the reply ran into its limit of output tokens."""
        return self.finish_reason == "length"


def read_completion(body: bytes) -> Completion:
    """The completion in a response body with status 200.

    Raises ModelProtocolError for anything that is not a chat completion (a web page, `{}`, truncated JSON, wrong types), and
    ModelUnavailable for an error object sent with status 200, as gateways do.
    """
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ModelProtocolError(f"reading a completion: the body ({len(body)} bytes) is not JSON") from None
    if not isinstance(reply, dict):
        raise ModelProtocolError("reading a completion: the body is not a JSON object")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        if isinstance(reply.get("error"), dict):
            raise ModelUnavailable("reading a completion: the endpoint sent an error with status 200")
        raise ModelProtocolError("reading a completion: it has no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ModelProtocolError("reading a completion: its choice has no message")
    finish, refusal = name_in(choice.get("finish_reason")), _text(message.get("refusal"))
    refused = refusal or ("content filter" if finish == "content_filter" else None)
    content = _content(message.get("content"))
    if content is None:
        if refused is None and finish != "length":
            raise ModelProtocolError("reading a completion: the content of its message is no text")
        content = ""
    return Completion(content, name_in(reply.get("model")), finish, refused, read_usage(reply.get("usage")))


def credible(tokens: Tokens, size: int) -> Tokens | None:
    """What an endpoint counted for a request whose body has `size` bytes; None where it counted nothing, or what can not be.

    Believing the absurd would drain an allowance for hours or a budget at once; nothing believed, a request counts with all that
    it had reserved. No request has no input, and a token has a byte at least, images (in base64) many more.
    """
    if 0 < tokens.input <= size + _GATEWAY_TOKENS and tokens.output <= _MOST_OUTPUT:
        return tokens
    return None


def billed(completion: Completion, tokens: Tokens | None, reserved: int) -> Tokens | None:
    """What counts of credible `tokens`: with all the output that was `reserved` where the model wrote and nobody counted it."""
    wrote = bool(completion.content) or completion.cut
    return tokens.model_copy(update={"output": reserved}) if tokens is not None and wrote and not tokens.output else tokens


def read_usage(usage: Any) -> Tokens:
    """Tokens by class; what is absent or no count is 0, so a missing usage is visible as no tokens, never as a guess.

    Output that is not counted by itself is what the total has above the input.
    """
    if not isinstance(usage, dict):
        return Tokens()
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    given = _count(usage, "prompt_tokens")
    return Tokens(
        input=given,
        cached_input=_count(prompt, "cached_tokens"),
        output=_count(usage, "completion_tokens") or (max(0, _count(usage, "total_tokens") - given) if given else 0),
        reasoning=_count(completion, "reasoning_tokens"),
    )


def _content(value: Any) -> str | None:
    """Text as a string, or as the list of typed parts that some servers send; "" without any, None for another type."""
    if value is None:
        return ""
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return value if isinstance(value, str) else None


def name_in(value: Any) -> str | None:
    """A name that an endpoint gives, such as a model's, bounded and in plain characters: it goes into decisions."""
    return _NO_NAME.sub("_", value[:_LONGEST_NAME]) if isinstance(value, str) and value else None


def _text(value: Any) -> str | None:
    return value[:_LONGEST_REFUSAL] if isinstance(value, str) and value else None


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
