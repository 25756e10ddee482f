"""Alignment: by the minted ids and nothing else."""

from __future__ import annotations

import json
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict

from models.chat.align import align
from tests.support.scoring import Judged

IDS = [f"{number:06x}" for number in range(0xA00000, 0xA00008)]


SPOKEN = "\x1b[31mMr Miller <script>"


def _quoting(value: str) -> str:
    if value:
        raise ValueError(f"what is {value!r}")
    return value


def reply(*answers: Any) -> str:
    return json.dumps({"answers": answers})


def good(known: str, risk: int) -> dict[str, Any]:
    return {"id": known, "risk": risk, "grade": "good"}


KINDS = ("keep", "drop", "twice", "foreign", "renumber", "range", "type", "extra", "no-id", "number-id", "text")
mutations = st.sampled_from(KINDS)


@given(st.permutations(range(len(IDS))), st.lists(mutations, min_size=len(IDS), max_size=len(IDS)))
def test_any_mutation_gives_one_item_per_id_and_never_anothers_answer(order: list[int], kinds: list[str]) -> None:
    """Whatever a model does to its answers, each id has one item, and a value only if it was said under that id, once."""
    answers: list[Any] = []
    for place, kind in zip(order, kinds, strict=True):
        answer = good(IDS[place], place)
        said: dict[str, list[Any]] = {
            "keep": [answer],
            "drop": [],
            "twice": [answer, good(IDS[place], place + 50)],
            "foreign": [{**answer, "id": "f" * 6}],
            "renumber": [{**answer, "id": str(place)}],
            "range": [{**answer, "risk": 101}],
            "type": [{**answer, "risk": "7"}],
            "extra": [{**answer, "note": "ignored"}],
            "no-id": [{"risk": place, "grade": "good"}],
            "number-id": [{**answer, "id": place}],
            "text": ["nonsense"],
        }
        answers += said[kind]
    aligned = align(reply(*answers), IDS, Judged)
    assert len(aligned.items) == len(IDS)
    expected = dict(zip(order, kinds, strict=True))
    for place, item in enumerate(aligned.items):
        kind = expected[place]
        assert item.status == {"keep": "answered", "extra": "answered", "twice": "invalid", "range": "invalid",
                               "type": "invalid"}.get(kind, "missing")  # fmt: skip
        assert (item.value is not None) == (item.status == "answered")
        assert item.value is None or item.value.risk == place
    assert aligned.foreign == sum(kind in ("foreign", "renumber", "no-id", "number-id", "text") for kind in kinds)
    assert aligned.duplicates == kinds.count("twice")
    assert aligned.whole == all(kind in ("keep", "extra") for kind in kinds)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["answers", "id", "risk", "grade", "x"]), inner),
    max_leaves=20,
)


@given(st.one_of(st.text(), json_values.map(json.dumps), json_values.map(lambda value: json.dumps({"answers": value}))))
def test_any_text_gives_one_item_per_id(text: str) -> None:
    """Total: no text raises, and without a valid answer under an id nothing is answered."""
    aligned = align(text, IDS, Judged)
    assert len(aligned.items) == len(IDS)
    assert all(item.why for item in aligned.items if item.status != "answered")


def test_answers_keep_the_order_of_the_questions() -> None:
    """The order in which a model answers means nothing."""
    aligned = align(reply(*(good(known, place) for place, known in reversed(list(enumerate(IDS))))), IDS, Judged)
    assert [item.value.risk for item in aligned.items if item.value] == list(range(len(IDS)))


def test_renumbered_answers_are_all_lost() -> None:
    """Perfect JSON under ids of the model's own making answers nothing (seen on a real small model)."""
    aligned = align(reply(*(good(str(place + 1), place) for place in range(len(IDS)))), IDS, Judged)
    assert {item.status for item in aligned.items} == {"missing"}
    assert aligned.foreign == len(IDS)


@pytest.mark.parametrize("text", ["```json\n{}\n```", "```\n{}\n```", " ```JSON\n{}```\n"])
def test_one_fence_around_the_whole_reply_is_accepted(text: str) -> None:
    """A code fence around everything is a habit, not an answer gone wrong."""
    aligned = align(text.replace("{}", reply(good(IDS[0], 7))), IDS[:1], Judged)
    assert aligned.whole


@pytest.mark.parametrize("text", ["Sure! {}", "{} Anything else?", "```json\n{}\n``` done", "[{}]"])
def test_prose_around_the_json_is_not_guessed_at(text: str) -> None:
    """With prose around it, the reply is invalid as a whole: it is asked again, not searched."""
    aligned = align(text.replace("{}", reply(good(IDS[0], 7))), IDS[:1], Judged)
    assert aligned.items[0].status == "invalid"


def test_a_broken_reply_is_kept_for_one_record_alone() -> None:
    """Of a text about several nobody can tell whose it is: what is erased for one would stay with the others."""
    assert align("Sure! Miller, Smith", IDS[:1], Judged).items[0].raw == "Sure! Miller, Smith"
    assert [item.raw for item in align("Sure! Miller, Smith", IDS[:2], Judged).items] == [None, None]


def test_an_explanation_names_the_field_and_not_the_value() -> None:
    """`why` says where an answer is wrong without repeating what was said."""
    aligned = align(reply({"id": IDS[0], "risk": 4711, "grade": "secret words"}), IDS[:1], Judged)
    assert "risk" in aligned.items[0].why
    assert "grade" in aligned.items[0].why
    assert "4711" not in aligned.items[0].why
    assert "secret" not in aligned.items[0].why


class Strict(BaseModel):
    """An answer that takes no other field, has one in which the model names the keys, and a validator that quotes."""

    model_config = ConfigDict(extra="forbid")
    shares: dict[str, int] = {}
    word: Annotated[str, AfterValidator(_quoting)] = ""


@pytest.mark.parametrize("said", [{SPOKEN: 1}, {"shares": {SPOKEN: "x"}}, {"word": SPOKEN}])
def test_an_explanation_has_no_words_of_the_model(said: dict[str, Any]) -> None:
    """Neither a field that nobody asked for, nor a key, nor what a validator says of the value stands in it."""
    (item,) = align(reply({"id": IDS[0], **said}), IDS[:1], Strict).items
    assert item.status == "invalid"
    assert "Miller" not in item.why
    assert "\x1b" not in item.why
    assert item.why


def test_nesting_deeper_than_the_serialiser_spoils_one_item_only() -> None:
    """A reply may nest deeper than can be written again; its neighbour is kept."""
    deep = json.loads("[" * 300 + "]" * 300)
    aligned = align(reply({**good(IDS[0], 1), "x": deep}, good(IDS[1], 2)), IDS[:2], Judged)
    assert [item.status for item in aligned.items] == ["invalid", "answered"]


@pytest.mark.parametrize(
    "content",
    [
        '{"answers":[' + ",".join(['{"id":"z"}'] * 300) + "]}",
        '{"answers":[' + ",".join([f'{{"id":"{IDS[0]}"}}'] * 300) + "]}",
        '{"answers":[{"x":[' + "NaN," * 30_000 + "1]}]}",
        '{"answers":[{"x":[' + "1," * 30_000 + "NaN]}]}",
    ],
)
def test_a_reply_of_far_more_than_was_asked_is_invalid_as_a_whole(content: str) -> None:
    """It is not gone through: a server that sends it would cost everybody else's time."""
    aligned = align(content, IDS, Judged)
    assert {item.status for item in aligned.items} == {"invalid"}
    assert (aligned.foreign, aligned.duplicates) == (0, 0)


class Loose(BaseModel):
    """An answer whose text a number that is none could pass for."""

    text: str | None = None
    value: float | None = None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
@pytest.mark.parametrize("field", ["text", "value"])
def test_a_number_that_is_none_costs_its_own_record_the_answer(number: str, field: str) -> None:
    """JSON has no such number: the record is invalid whatever the field would take, the neighbour keeps its answer."""
    content = f'{{"answers": [{{"id": "a", "{field}": {number}}}, {{"id": "b", "value": 1.5, "text": "NaN"}}]}}'
    bad, good = align(content, ["a", "b"], Loose).items
    assert (bad.status, bad.why) == ("invalid", "a number of it is not finite")
    assert orjson.dumps(bad.raw)
    assert good.value == Loose(text="NaN", value=1.5)


WHOLE = '{"answers": [{"id": "a", "value": 1.0}]}'


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (f"<think>what else?</think>{WHOLE}", "answered"),
        (f"\n<think>\n\n</think>\n\n{WHOLE}", "answered"),
        (f"<think>a</think>\n```json\n{WHOLE}\n```", "answered"),
        (f"<think>{WHOLE}", "invalid"),
        (f"<think>{WHOLE}</think>", "invalid"),
        (f"so <think>a</think>{WHOLE}", "invalid"),
        (f"<think>a</think>so {WHOLE}", "invalid"),
        (f"<think>it says </think>{WHOLE}</think>{WHOLE}", "invalid"),
        (f"</think>{WHOLE}", "invalid"),
    ],
)
def test_only_a_whole_block_of_thoughts_before_all_else_is_dropped(content: str, status: str) -> None:
    """What is left has to be the answer and nothing else; a block that is open, late or broken by its content is no answer."""
    assert align(content, ["a"], Loose).items[0].status == status
