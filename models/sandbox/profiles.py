"""Profiles of the sandbox: what real servers refuse, in their own words and bodies, and what they add to their completions.

Each imitates one server as far as it concerns a client that sends chat requests for JSON; where each was read is in
docs/models.md. They score nothing: the answers are the sandbox's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import ConfigError

Request = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered with an error. `more` are further members of the error object."""

    message: str
    status: int = 400
    code: str | int | None = None
    param: str | None = None
    type: str | None = "invalid_request_error"
    more: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[[Request], Refusal | None]


def _openai_body(refusal: Refusal) -> dict[str, Any]:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code, **refusal.more}
    return {"error": error}


def _openai_overflow(tokens: int, context: int) -> Refusal:
    message = f"This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} tokens."
    return Refusal(message, code="context_length_exceeded", param="messages")


@dataclass(frozen=True, slots=True)
class Profile:
    """How one server behaves. `overflow` gets the request's tokens and the context; `cuts`: it shortens the request instead.

    `filtered` is what its content filter says, None where there is none.
    """

    checks: tuple[Check, ...] = ()
    body: Callable[[Refusal], dict[str, Any]] = _openai_body
    overflow: Callable[[int, int], Refusal] = _openai_overflow
    cuts: bool = False
    filtered: Refusal | None = field(default_factory=lambda: Refusal("The request was filtered.", code="content_filter"))
    adds: Callable[[dict[str, Any]], dict[str, Any]] = lambda completion: completion

    def refuses(self, request: Request) -> Refusal | None:
        """The first thing that this server would not take."""
        return next((refusal for check in self.checks if (refusal := check(request)) is not None), None)


# ---- what they refuse -----------------------------------------------------------------------------------------------------
_OPENAI_KNOWN = frozenset({
    "model", "messages", "response_format", "max_tokens", "max_completion_tokens", "temperature", "top_p", "presence_penalty",
    "frequency_penalty", "seed", "stop", "n", "logprobs", "top_logprobs", "logit_bias", "user", "metadata", "store",
    "reasoning_effort", "service_tier", "verbosity", "safety_identifier", "prompt_cache_key", "tools", "tool_choice", "stream",
})  # fmt: skip


def _unknown(request: Request) -> Refusal | None:
    name = next((name for name in request if name not in _OPENAI_KNOWN), None)
    return None if name is None else Refusal(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def _reasoning(request: Request) -> Refusal | None:
    if "max_tokens" in request:
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return Refusal(message, code="unsupported_parameter", param="max_tokens")
    for name in ("temperature", "top_p"):
        if request.get(name, 1) != 1:
            said = f"Unsupported value: '{name}' does not support {request[name]} with this model."
            return Refusal(f"{said} Only the default (1) value is supported.", code="unsupported_value", param=name)
    for name in ("presence_penalty", "frequency_penalty"):
        if name in request:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return Refusal(message, code="unsupported_parameter", param=name)
    return None


def _most_output(most: int, message: str, **more: Any) -> Check:
    def check(request: Request) -> Refusal | None:
        asked = request.get("max_completion_tokens", request.get("max_tokens", 0))
        return Refusal(message.format(asked=asked, most=most), **more) if asked > most else None

    return check


def _format(request: Request) -> str:
    return str((request.get("response_format") or {}).get("type", "text"))


def _says_json(request: Request) -> bool:
    return any("json" in str(message.get("content")).lower() for message in request["messages"])


def _deepseek(request: Request) -> Refusal | None:
    if _format(request) == "json_schema":
        return Refusal("This response_format type is unavailable now", code="invalid_request_error")
    if _format(request) == "json_object" and not _says_json(request):
        message = "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
        return Refusal(message, code="invalid_request_error")
    return None


def _deepseek_old(request: Request) -> Refusal | None:
    if _format(request) == "json_schema":
        message = (
            "Failed to deserialize the JSON body into the target type: response_format: response_format.type `json_schema` "
            "is unavailable now at line 1 column 12440"
        )
        return Refusal(message, 422, code="invalid_request_error")
    return None


def _dashscope(request: Request) -> Refusal | None:
    code = "invalid_parameter_error"
    if request.get("enable_thinking") is not False:
        return Refusal("parameter.enable_thinking must be set to false for non-streaming calls", code=code)
    if _format(request) == "json_object" and not _says_json(request):
        message = (
            "<400> InternalError.Algo.InvalidParameter: 'messages' must contain the word 'json' in some form, to use "
            "'response_format' of type 'json_object'."
        )
        return Refusal(message, code=code)
    return None


def _qianfan(request: Request) -> Refusal | None:
    if request.get("temperature") == 0:
        return Refusal("temperature must be in (0, 1.0]", code="invalid_argument")
    return None


def _llamacpp(request: Request) -> Refusal | None:
    declared = (request.get("response_format") or {}).get("json_schema") or {}
    if '"pattern"' in str(declared).replace("'", '"'):
        return Refusal("Failed to initialize samplers: failed to parse grammar", code=400)
    return None


# ---- how they write it ----------------------------------------------------------------------------------------------------
def _flat_body(refusal: Refusal) -> dict[str, Any]:
    return {"object": "error", "message": refusal.message, "type": "BadRequestError", "param": None, "code": refusal.status}


def _bare_body(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"code": refusal.status, "message": refusal.message, "type": refusal.type, **refusal.more}}


def _with_request_id(refusal: Refusal) -> dict[str, Any]:
    return _openai_body(refusal) | {"request_id": "sandbox"}


def _qianfan_body(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"code": refusal.code, "message": refusal.message, "type": refusal.type}, "id": "as-sandbox"}


def _vllm_overflow(tokens: int, context: int) -> Refusal:
    return Refusal(
        f"This model's maximum context length is {context} tokens. However, you requested {tokens} tokens. Please reduce the "
        "length of the messages or completion.", code=400,
    )  # fmt: skip


def _llamacpp_overflow(tokens: int, context: int) -> Refusal:
    message = f"request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
    return Refusal(message, type="exceed_context_size_error", more={"n_prompt_tokens": tokens, "n_ctx": context})


def _ollama_overflow(tokens: int, context: int) -> Refusal:
    inner = _bare_body(_llamacpp_overflow(tokens, context))
    return Refusal(str(inner).replace("'", '"'), type="api_error")


# ---- what they add to a completion ----------------------------------------------------------------------------------------
def _thinks(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """With what the model thought in a member of its own, where an answer may be drafted that is not the answer."""

    def add(completion: dict[str, Any]) -> dict[str, Any]:
        choice = completion["choices"][0]
        message = {**choice["message"], name: 'Let me see: {"answers": []} would be too short.'}
        return {**completion, "choices": [{**choice, "message": message}]}

    return add


def _without_details(completion: dict[str, Any]) -> dict[str, Any]:
    usage = {name: count for name, count in completion["usage"].items() if not name.endswith("_details")}
    return {**completion, "usage": usage}


def _vllm_adds(completion: dict[str, Any]) -> dict[str, Any]:
    usage = {**_without_details(completion)["usage"], "prompt_tokens_details": None}
    return _thinks("reasoning_content")({**completion, "usage": usage, "prompt_logprobs": None})


def _azure_adds(completion: dict[str, Any]) -> dict[str, Any]:
    choice = {**completion["choices"][0], "content_filter_results": _SAFE}
    return {**completion, "choices": [choice], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}]}


def _llamacpp_adds(completion: dict[str, Any]) -> dict[str, Any]:
    return _thinks("reasoning_content")(_without_details(completion)) | {"timings": {"prompt_n": 1, "predicted_n": 1}}


_SAFE: Mapping[str, Any] = {kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")}
_AZURE_FILTERED = Refusal(
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt "
    "and retry.", code="content_filter", param="prompt", type=None,
    more={
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {**_SAFE, "violence": {"filtered": True, "severity": "medium"}},
        },
    },
)  # fmt: skip
_TOO_MUCH_OUTPUT = (
    "max_tokens is too large: {asked}. This model supports at most {most} completion tokens, whereas you provided {asked}."
)

PROFILES: Mapping[str, Profile] = {
    "openai": Profile((_unknown, _most_output(16_384, _TOO_MUCH_OUTPUT, param="max_tokens"))),
    "openai-reasoning": Profile((_unknown, _reasoning)),
    "azure": Profile((_unknown,), filtered=_AZURE_FILTERED, adds=_azure_adds),
    "deepseek": Profile(
        (_deepseek, _most_output(8192, "Invalid max_tokens value, the valid range of max_tokens is [1, {most}]",
                                 code="invalid_request_error")),
        filtered=Refusal("Content Exists Risk", code="invalid_request_error"), adds=_thinks("reasoning_content"),
    ),
    "deepseek-old": Profile((_deepseek_old,), filtered=Refusal("Content Exists Risk", code="invalid_request_error")),
    "dashscope": Profile(
        (_dashscope, _most_output(8192, "<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, {most}]",
                                  code="invalid_parameter_error")),
        body=_with_request_id,
        overflow=lambda tokens, context: Refusal(
            f"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, {context}]",
            code="invalid_parameter_error"),
        filtered=Refusal("Input data may contain inappropriate content.", code="data_inspection_failed",
                         type="data_inspection_failed"),
        adds=_without_details,
    ),
    "qianfan": Profile(
        (_qianfan,), body=_qianfan_body,
        overflow=lambda tokens, context: Refusal("Prompt tokens too long", code="tokens_too_long"),
        filtered=Refusal("the content of the request is not safe", 403, code="messages_unsafe", type="access_denied"),
        adds=_without_details,
    ),
    "vllm": Profile(body=_flat_body, overflow=_vllm_overflow, filtered=None, adds=_vllm_adds),
    "ollama": Profile(
        overflow=_ollama_overflow, cuts=True, filtered=None, adds=lambda reply: _thinks("reasoning")(_without_details(reply)),
    ),
    "llamacpp": Profile((_llamacpp,), body=_bare_body, overflow=_llamacpp_overflow, filtered=None, adds=_llamacpp_adds),
}  # fmt: skip
"""Name -> the server it imitates. Without one the sandbox takes everything, and writes errors as OpenAI does."""


def profile(name: str) -> Profile:
    """Raises ConfigError for an unknown name; "" is the plain sandbox."""
    if name and name not in PROFILES:
        raise ConfigError(f"choosing a sandbox profile: {name!r} is none of {', '.join(PROFILES)}")
    return PROFILES[name] if name else Profile()
