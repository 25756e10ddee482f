"""Every exception of the SDK has its place, and every body is read without belief."""

from __future__ import annotations

import inspect

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import _exceptions as sdk

from models.chat.completion import read_completion
from models.chat.failures import (
    PLACES,
    BadImage,
    Exhausted,
    Filtered,
    Overflow,
    Unexplained,
    cut_off,
    error_body,
    muted,
    place,
    retry_after,
)
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

REQUEST = httpx2.Request("POST", "http://h/v1/chat/completions")
CLASSES = sorted(
    {
        found
        for module in (openai, sdk)
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__.startswith("openai") and not found.__name__.startswith("_")
    },
    key=lambda found: found.__name__,
)


@pytest.mark.parametrize("found", CLASSES)
def test_every_exception_of_the_sdk_has_its_place(found: type[Exception]) -> None:
    """A new exception class of the SDK fails here until somebody decides what it means."""
    assert found in PLACES


def status_error(status: int, body: object = None, **headers: str) -> openai.APIStatusError:
    client = openai.OpenAI(api_key="sk-secret", base_url="http://h/v1")
    try:
        return client._make_status_error(
            "Incorrect API key provided: sk-secret", body=body, response=httpx2.Response(status, request=REQUEST, headers=headers)
        )
    finally:
        client.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ModelRejected) for status in (307, 401, 404)),
        *((status, Unexplained) for status in (400, 403, 422)),
        *((status, ModelUnavailable) for status in (408, 409, 500, 529)),
        (429, ModelLimited),
    ],
)
def test_a_status_decides_its_place_and_shows_no_key(status: int, kind: type[ModelError]) -> None:
    """The status decides, and what the server wrote (it may quote the key) is not repeated."""
    error = place(status_error(status, {"error": {"message": "sk-secret and the prompt"}}))
    assert type(error) is kind
    assert "secret" not in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"code": "insufficient_quota"}, Exhausted),
        (429, {"type": "insufficient_quota", "code": None}, Exhausted),
        (402, {"message": "Insufficient Balance"}, Exhausted),
        (400, {"code": "Arrearage"}, Exhausted),
        (400, {"code": "context_length_exceeded"}, Overflow),
        (400, {"code": "tokens_too_long"}, Overflow),
        (400, {"code": 400, "message": "This model's maximum context length is 6048 tokens."}, Overflow),
        (400, {"message": "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"}, Overflow),
        (400, {"message": "max_tokens must be at least 1, got -186."}, Overflow),
        (400, {"type": "exceed_context_size_error", "code": 400}, Overflow),
        (500, {"type": "exceed_context_size_error", "code": 500}, Overflow),
        (413, {}, Overflow),
        (400, {"code": "content_filter"}, Filtered),
        (400, {"code": "data_inspection_failed"}, Filtered),
        (400, {"code": "invalid_prompt", "type": "invalid_request_error"}, Filtered),
        (403, {"code": "messages_unsafe"}, Filtered),
        (400, {"code": "invalid_request_error", "message": "Content Exists Risk"}, Filtered),
        (400, {"detail": "Content Exists Risk"}, Filtered),
        (400, {"code": "invalid_image_format"}, BadImage),
        (403, {"code": "image_generation_denied"}, ModelRejected),
        (500, {"message": "the context length of this"}, ModelUnavailable),
        (403, {"message": "blocked"}, Unexplained),
        (403, {"type": "permission_error"}, ModelRejected),
        (403, {"code": "model_not_found", "message": "Project p does not have access to model m"}, ModelRejected),
        (403, {"message": "Your API key may not do this"}, ModelRejected),
        (400, {"code": "invalid_value", "param": "messages[1].content"}, Unexplained),
        (400, {"code": "invalid_value", "param": "seed"}, ModelRejected),
        (422, {"message": "invalid content"}, Unexplained),
        (422, {"message": "m", "param": "seed"}, ModelRejected),
        (422, {"code": "model_not_found"}, ModelRejected),
        (422, {"detail": [{"loc": ["body", "messages", 1, "content"], "msg": "unsafe", "input": "my api key"}]}, Unexplained),
        (422, {"detail": [{"loc": ["body", "input", 1], "msg": "unsafe"}, {"loc": ["body", "seed"], "msg": "x"}]}, Unexplained),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "Input should be a valid integer"}]}, ModelRejected),
        (422, {"detail": [{"loc": ["header", "authorization"], "msg": "Field required"}]}, ModelRejected),
        (422, {"detail": [{"msg": "your API key"}]}, ModelRejected),
        (422, {"detail": [{"loc": "body", "msg": None, "input": "my api key"}]}, Unexplained),
        (422, {"detail": "your API key"}, ModelRejected),
        (422, {"detail": ["unsafe"]}, Unexplained),
        (422, {"detail": []}, Unexplained),
    ],
)
def test_a_code_decides_where_the_status_is_not_enough(status: int, error: dict[str, object], kind: type[ModelError]) -> None:
    """Quota, context, filter and image share their status with other things, and are said in many ways."""
    assert type(place(status_error(status, {"error": error}))) is kind


def test_the_text_of_an_error_is_its_status_alone() -> None:
    """What the server wrote stays readable for the transport, and is in no text that a traceback shows."""
    error = status_error(401, {"error": {"message": "Incorrect API key provided: sk-secret"}})
    assert "sk-secret" in str(error_body(error))
    assert (str(muted(error)), error.status_code) == ("status 401", 401)


def test_only_what_looks_like_a_code_is_repeated() -> None:
    """A code or param that is a sentence, or is no text at all, is left out of the message."""
    error = place(status_error(400, {"error": {"code": "unsupported_value", "param": "you sent: sk-secret", "message": "x"}}))
    assert "(400, unsupported_value)" in str(error)


@pytest.mark.parametrize(("status", "worked_on"), [(429, False), (500, False), (502, False), (504, True), (524, True)])
def test_a_gateway_that_gave_up_waiting_had_passed_the_request_on(status: int, worked_on: bool) -> None:
    """So it may be billed, though no answer came; what was refused is not."""
    cause = status_error(status, {})
    error = place(cause)
    error.__cause__ = cause
    assert cut_off(error) is worked_on


@pytest.mark.parametrize(
    "error", [ValueError("x"), UnicodeDecodeError("utf-8", b"", 0, 1, ""), OSError("x"), openai.OpenAIError("x")]
)
def test_anything_else_has_a_place_too(error: Exception) -> None:
    """What the SDK lets through unwrapped does not leave as it is."""
    assert isinstance(place(error), ModelProtocolError | ModelUnavailable)
    assert error_body(error) == {}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_a_hint_that_may_be_anything(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds or a date are understood; anything else is no hint."""
    assert retry_after(httpx2.Headers(headers)) == seconds


NAMES = ("choices", "message", "content", "usage", "prompt_tokens", "model", "error", "finish_reason", "refusal")
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=25,
)


bodies = anything.map(orjson.dumps) | anything.map(lambda v: orjson.dumps({"choices": [{"message": v}], "usage": v}))


@given(bodies | st.binary(max_size=50))
def test_any_body_is_a_completion_or_a_model_error(body: bytes) -> None:
    """No body raises anything else, and what is read has the types it says."""
    try:
        completion = read_completion(body)
    except (ModelProtocolError, ModelUnavailable):
        return
    assert isinstance(completion.content, str)
    assert completion.tokens.input >= 0
