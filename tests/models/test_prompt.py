"""The request for a batch."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from models.chat.dialect import Dialect, adapt
from models.chat.prompt import PromptBuilder, Unwritable, shown, size_of
from models.chat.strict_schema import strict_schema
from models.contract import Ask, Question
from models.sandbox.fill import fill
from schemas.errors import ConfigError
from schemas.marks import Untrusted
from tests.support.scoring import ASK, Judged, Shown, questions


class Inner(BaseModel):
    words: Annotated[str, Untrusted(max=3)]


class Wide(BaseModel):
    amount: Decimal
    day: date
    text: Annotated[str | None, Untrusted(max=5)] = None
    maybe: Annotated[str, Untrusted(max=4)] | None = None
    turns: Annotated[list[str], Untrusted(max=2)] = []
    each: list[Annotated[str, Untrusted(max=2)]] = []
    inner: Inner | None = None
    inners: dict[str, Inner] = {}
    free: str = ""


def test_untrusted_text_is_cut_wherever_it_is() -> None:
    """Marks hold on optional fields, lists, mappings and nested models; other text is left alone, numbers stay exact."""
    inner = Inner(words="abcdef")
    long = "abcdefgh"
    features = Wide(amount=Decimal("1.10"), day=date(2026, 1, 2), text=long, maybe=long, turns=["abc", "d"], each=["abc"],
                    inner=inner, inners={"x": inner}, free=long)  # fmt: skip
    assert shown(features) == {
        "amount": "1.10", "day": "2026-01-02", "text": "abcde", "maybe": "abcd", "turns": ["ab", "d"], "each": ["ab"],
        "inner": {"words": "abc"}, "inners": {"x": {"words": "abc"}}, "free": "abcdefgh",
    }  # fmt: skip


def test_masked_features_stand_in_place_of_the_record_s_own() -> None:
    """What a question shows is what is sent, unmasked features are in no byte of the request."""
    masked = Question("d", Shown(number=4711, note="Jane"), shown={"number": 1, "note": "[PERSON_1]"})
    body = PromptBuilder(ASK, "m").build([masked], Dialect()).body
    (record,) = orjson.loads(orjson.loads(body)["messages"][1]["content"])["records"]
    assert record["features"] == {"number": 1, "note": "[PERSON_1]"}
    assert b"4711" not in body
    assert b"Jane" not in body


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_the_prefix_is_byte_identical_and_the_records_are_data(notes: list[str]) -> None:
    """Whatever the records hold, what comes before them is the same bytes and they come back out as they went in."""
    builder = PromptBuilder(ASK, "m")
    plain = builder.build([Question("d", Shown(number=1))], Dialect())
    built = builder.build([Question("d", Shown(number=1, note=note)) for note in notes], Dialect())
    start = plain.body.index(b'{"role":"user"')
    assert built.body[:start] == plain.body[:start]
    body = orjson.loads(built.body)
    data = orjson.loads(body["messages"][1]["content"])
    assert [record["features"]["note"] for record in data["records"]] == [note[:20] for note in notes]
    assert [record["id"] for record in data["records"]] == list(built.ids)
    assert data["nonce"] == built.nonce
    assert body["max_tokens"] == built.reserved == 160 * len(notes) + 32


def test_every_request_has_a_nonce_and_ids_of_its_own() -> None:
    """What stands around the records can not be known to who wrote them: of many requests, no two share a nonce or an id."""
    built = [PromptBuilder(ASK, "m").build(questions(3), Dialect()) for _ in range(50)]
    assert len({request.nonce for request in built}) == 50
    assert all(len(request.nonce) == 16 and request.nonce not in request.ids for request in built)
    assert "tools" not in orjson.loads(built[0].body)


def test_integers_past_64_bits_are_sent_exactly_as_text() -> None:
    """A number that no JSON writer here can write as a number is sent as its digits, like a decimal."""
    body = PromptBuilder(ASK, "m").build([Question("d", Shown(number=10**30))], Dialect()).body
    assert str(10**30) in orjson.loads(body)["messages"][1]["content"]


class Raw(BaseModel):
    data: bytes


def test_features_that_can_not_be_written_are_named() -> None:
    """A record that can not be written as JSON is told by its place, so that the others can be sent without it."""
    asked = [*questions(2), Question("d", Raw(data=b"\xff")), *questions(1)]
    with pytest.raises(Unwritable) as caught:
        PromptBuilder(ASK, "m").build(asked, Dialect())
    assert caught.value.questions == [asked[2]]


def test_ids_differ_between_requests_and_tell_nothing() -> None:
    """Ids are minted anew for each request and are not made from decision ids."""
    builder = PromptBuilder(ASK, "m")
    first, second = builder.build(questions(200), Dialect()), builder.build(questions(200), Dialect())
    assert len(set(first.ids)) == len(set(second.ids)) == 200
    assert first.ids != second.ids
    assert b'"d1"' not in first.body


@pytest.mark.parametrize(
    ("dialect", "has", "lacks"),
    [
        (Dialect(), b'"json_schema"', b"max_completion_tokens"),
        (Dialect(format="json_object"), b'"type":"json_object"', b'"type":"json_schema"'),
        (Dialect(format="plain"), b"JSON Schema (Judged)", b"response_format"),
        (Dialect(limit="max_completion_tokens"), b'"max_completion_tokens":192', b'"max_tokens"'),
        (Dialect(without=frozenset({"temperature"})), b'"max_tokens":192', b'"temperature"'),
    ],
)
def test_each_dialect_says_what_its_endpoint_knows(dialect: Dialect, has: bytes, lacks: bytes) -> None:
    """A dialect changes how it is asked for JSON, how the limit is called, and whether a temperature is sent."""
    body = PromptBuilder(ASK, "m").build(questions(1), dialect).body
    assert orjson.loads(body)["model"] == "m"
    assert has in body
    assert lacks not in body


def test_extra_parameters_go_into_the_body_and_may_set_the_limit() -> None:
    """`extra` is sent as it is, and takes precedence over what we would have set."""
    ask = Ask(Judged, "p", extra={"seed": 7, "max_completion_tokens": 9, "temperature": 1})
    request = PromptBuilder(ask, "m").build(questions(2), Dialect())
    body = orjson.loads(request.body)
    assert (body["seed"], body["max_completion_tokens"], body["temperature"]) == (7, 9, 1)
    assert request.reserved == 9, "what the request may bring is what it says, whoever set it"
    assert "max_tokens" not in body


@pytest.mark.parametrize("name", [
    "model", "messages", "response_format", "stream", "stream_options", "n", "tools", "tool_choice", "functions", "function_call",
])  # fmt: skip
def test_extra_may_not_set_what_is_ours(name: str) -> None:
    """What alignment rests on can not be configured away."""
    with pytest.raises(ConfigError, match=name):
        PromptBuilder(Ask(Judged, "p", extra={name: 1}), "m")


@pytest.mark.parametrize("name", ["tools", "tool_choice", "functions", "web_search_options"])
def test_no_request_gives_the_model_tools(name: str) -> None:
    """A model that reads texts from outside can do nothing but answer: an Ask with tools is refused when it is made."""
    with pytest.raises(ConfigError, match=f"{name}, models get no tools"):
        PromptBuilder(Ask(Judged, "p", extra={name: []}), "m")


def test_an_endpoint_is_adapted_to_in_steps_that_end() -> None:
    """Each refusal takes one thing away; an endpoint that refuses everything is given up on."""
    dialect: Dialect | None = Dialect()
    seen = []
    sent = ("temperature", "top_p", "seed", "top_k")
    for param in ("max_tokens", "temperature", "response_format", "response_format", "top_k", "top_k"):
        assert dialect is not None
        dialect = adapt(dialect, {"param": param}, sent)
        seen.append(dialect)
    assert seen[4] == Dialect("plain", "max_completion_tokens", frozenset({"temperature", "top_k"}))
    assert seen[5] is None
    assert adapt(Dialect(), {"message": "unknown field json_schema"}, sent) == Dialect("json_object")
    assert adapt(Dialect(), {"message": "top_p is not supported"}, sent) == Dialect(without=frozenset({"top_p"}))
    assert adapt(Dialect(), {"message": "a seedy top_p2"}, sent) is None
    assert adapt(Dialect(), {"message": "no"}, sent) is None


def test_parameters_are_sent_as_the_agent_sets_them_and_left_out_where_they_were_refused() -> None:
    """What is None is not sent; `extra` takes precedence; a dialect without a parameter leaves it out, and the Call shows it."""
    ask = Ask(Judged, "p", temperature=None, top_p=0.9, seed=7, frequency_penalty=0.5, extra={"top_k": 5, "seed": 8})
    builder = PromptBuilder(ask, "m")
    wanted = {"top_p": 0.9, "frequency_penalty": 0.5, "seed": 8, "top_k": 5}
    refused = Dialect(without=frozenset({"top_k", "seed"}))
    for dialect, sent in ((Dialect(), wanted), (refused, {"top_p": 0.9, "frequency_penalty": 0.5})):
        body = orjson.loads(builder.build(questions(1), dialect).body)
        ours = {"model", "messages", "response_format", "max_tokens"}
        assert {name: given for name, given in body.items() if name not in ours} == sent
        assert builder.parameters(dialect) == {"response_format": "json_schema"} | sent


class Nested(BaseModel):
    kind: Literal["a", "b"]
    share: float = Field(ge=0, le=1)


class Rich(BaseModel):
    """A described answer."""

    nested: Nested = Field(description="told to the model")
    several: list[Nested] = Field(max_length=3)
    maybe: int | None = None


def objects(node: Any) -> list[dict[str, Any]]:
    found = [node] if isinstance(node, dict) and node.get("type") == "object" else []
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return found + [below for child in children for below in objects(child)]


def test_the_schema_is_strict_and_keeps_enums_ranges_and_descriptions() -> None:
    """Every object is closed with all its fields required, references are inlined, and what constrains a value stays."""
    schema = strict_schema(Rich)
    text = orjson.dumps(schema)
    for found in objects(schema):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])
    assert b"$ref" not in text
    assert b"$defs" not in text
    assert b'"default"' not in text
    for kept in (b'"maximum":1', b'"enum":["a","b"]', b"told to the model", b'"maxItems":3'):
        assert kept in text
    jsonschema.Draft202012Validator.check_schema(schema)


class HasId(BaseModel):
    id: str


class HasMap(BaseModel):
    scores: dict[str, int]


class Endless(BaseModel):
    next: Endless | None


class Empty(BaseModel):
    pass


@pytest.mark.parametrize(("answer", "why"), [(HasId, "id"), (HasMap, "free-form"), (Endless, "itself"), (Empty, "no fields")])
def test_an_answer_model_that_strict_mode_can_not_say_is_refused_at_start(answer: type[BaseModel], why: str) -> None:
    """What would only fail at the endpoint fails when the agent is made, and says which model and why."""
    with pytest.raises(ConfigError, match=rf"{answer.__name__}.*{why}"):
        strict_schema(answer)


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63) | st.text()))
def test_the_fallback_rule_fills_any_strict_schema_validly_and_always_alike(features: dict[str, Any]) -> None:
    """Without a rule the sandbox still gives answers that conform, equal for equal features."""
    item = strict_schema(Rich)["properties"]["answers"]["items"]
    filled = fill(item, features)
    jsonschema.validate(filled, item)
    assert fill(item, features) == filled


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_records_weigh_the_bytes_that_they_take_in_a_request(notes: list[str]) -> None:
    """Escapes included: what a batch is estimated at is what its request grows by."""
    asked = [Question(f"d{i}", Shown(number=i, note=note)) for i, note in enumerate(notes)]
    limited = Ask(Judged, "Judge.", extra={"max_tokens": 9})  # or the length of the reserved tokens' number would differ
    builder = PromptBuilder(limited, "m")
    grown = len(builder.build(asked, Dialect()).body) - len(builder.build([], Dialect()).body)
    assert sum(size_of(question.features) for question in asked) == grown + 1


def test_features_that_can_not_be_written_weigh_nothing() -> None:
    """They are never sent, and weighing them does not raise; what is written with substitutes weighs what is written."""

    class Odd(BaseModel):
        data: Any

    assert size_of(Odd(data=b"\xff")) == 0
    assert size_of(Odd(data=2**70)) == size_of(Odd(data=str(2**70)))
