"""What is asked of an answer type in probabilities, and what probabilities make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, create_model

from agents.credit_risk import RiskAnswer
from agents.product_quality import QualityAnswer
from models.chat.align import align
from models.chat.questions import MOST_LEVELS, Unbelievable, fields_of
from schemas.errors import ConfigError


class Colour(Enum):
    """A closed list of its own class."""

    RED = "red"
    BLUE = "blue"


class Full(BaseModel):
    """A field of each kind that can be asked, and two that keep their default."""

    sure: bool
    colour: Colour
    maybe: Optional[Literal["a", "b"]]  # noqa: UP045  # the older spelling is a form that agents use too
    grade: Literal[1, 2, 3]
    tags: list[Literal["x", "y", "z"]] = Field(max_length=2)
    share: float = Field(ge=0, le=1)
    over: float = Field(gt=0, lt=1)
    risk: int = Field(ge=0, le=100)
    few: int = Field(gt=0, lt=5)
    money: Decimal = Field(ge=-5, le=5)
    even: int = Field(ge=1, le=99, multiple_of=2)
    always: Literal["fixed"]
    price: Decimal = Field(ge=0, le=1, decimal_places=2)
    points: Decimal | None = Field(gt=0, le=100, max_digits=4, decimal_places=1)
    digits: Decimal = Field(gt=-1, lt=1, max_digits=3)
    odd: Annotated[Decimal | None, Field(ge=-3, le=7, multiple_of=0.3, decimal_places=1)]
    fine: Decimal = Field(ge=0, le=1, decimal_places=25)
    close: Decimal = Field(ge=Decimal("0.12345678901234567891"), le=2)
    tenths: float = Field(ge=0, le=0.3, multiple_of=0.1)
    checked: Annotated[int, AfterValidator(lambda value: value), Field(ge=5, lt=90, multiple_of=7)]
    cents: Annotated[Decimal, Field(ge=0, le=9), AfterValidator(lambda value: value), Field(decimal_places=2)]
    some: list[Literal["x", "y", "z"]] = Field(min_length=2, max_length=2)
    members: frozenset[Literal["x", "y"]] = Field(min_length=1)
    text: str = "nothing said"
    unbounded: int = 7


FIELDS = {field.name: field for field in fields_of(Full)}
probabilities = st.floats(0, 1)


@st.composite
def told(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """An answer to each question that could be believed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, field in FIELDS.items():
        answers: list[dict[str, Any]] = []
        for asked in field.questions:
            if asked.kind == "predicate":
                answers.append({"probability": draw(probabilities)})
                continue
            weights = [draw(st.integers(1, 1000)) for _ in asked.options]
            key = "value" if asked.kind == "choice" else "label"
            rows = [{key: option, "probability": w / sum(weights)} for option, w in zip(asked.options, weights, strict=True)]
            best = asked.options[weights.index(max(weights))]
            answers.append({"probabilities": rows} | ({"choice": best} if asked.kind == "choice" else {}))
        found[name] = answers
    return found


@given(told())
def test_whatever_is_believed_makes_an_answer_of_the_type(said: Mapping[str, list[dict[str, Any]]]) -> None:
    """Probabilities that can be give a value inside every bound, and what is not asked keeps its default."""
    values = {name: field.value(said[name]) for name, field in FIELDS.items()}
    answer = Full.model_validate_json(orjson.dumps(values), strict=True)
    assert answer.text == "nothing said"
    assert answer.unbounded == 7
    assert answer.sure == (said["sure"][0]["probability"] >= 0.5)
    assert answer.share == said["share"][0]["probability"]
    assert answer.colour.value == said["colour"][0]["choice"]


def answered(kind: Any, **rows: float) -> Any:
    """What a field of this kind is, made from these probabilities, after the check that every answer goes through."""
    made: type[BaseModel] = create_model("Made", it=(kind, ...))
    (field,) = fields_of(made)
    (one, *_) = field.questions
    said: list[dict[str, Any]] = [{"probability": p} for p in rows.values()]
    if one.kind == "score":
        # Between the lowest and the highest level, as far as is said.
        told = dict.fromkeys(one.options, 0.0) | {one.options[0]: 1 - rows["p"], one.options[-1]: rows["p"]}
        said = [{"probabilities": [{"label": label, "probability": p} for label, p in told.items()]}]
    (item,) = align(orjson.dumps({"answers": [{"id": "a", "it": field.value(said)}]}).decode(), ["a"], made).items
    assert item.value is not None, item.why
    return item.value.it  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "likely", "value"), [
    (Annotated[Decimal, Field(ge=0, le=1, decimal_places=2)], 0.8731, "0.87"),
    (Annotated[Decimal, Field(ge=0, le=1, decimal_places=0)], 0.8731, "1"),
    (Annotated[Decimal, Field(gt=0, lt=1, decimal_places=2)], 1.0, "0.99"),
    (Annotated[Decimal, Field(ge=0, le=1, max_digits=3)], 0.8731, "0.87"),
    (Annotated[Decimal, Field(ge=0, lt=100, max_digits=4)], 0.123456, "12.34"),
    (Annotated[Decimal, Field(ge=0, le=100, max_digits=4, decimal_places=2)], 1.0, "99.99"),
    (Annotated[Decimal, Field(ge=0, le=5, multiple_of=0.25, decimal_places=1)], 0.33, "1.5"),
    (Annotated[Decimal, Field(ge=0, le=2**60, decimal_places=20)], 0.3, None),
    (Annotated[float, Field(ge=0, le=0.3, multiple_of=0.1)], 1.0, "0.3"),
    (Annotated[int, Field(ge=5, le=90, multiple_of=7)], 1.0, "84"),
    (Annotated[int, Field(ge=0, lt=2**64)], 1.0, str(2**64 - 1)),
    (Annotated[int, Field(ge=-(2**63), le=0)], 0.0, str(-(2**63))),
])  # fmt: skip
def test_a_number_is_rounded_to_what_its_field_allows(kind: Any, likely: float, value: str | None) -> None:
    """Decimal places, digits and multiples, within the bounds, as an answer that passes the check."""
    assert value is None or str(answered(kind, p=likely)) in (value, f"{value}.0")
    assert answered(kind, p=1 / 3) is not None


def test_a_list_has_as_many_members_as_it_has_to_have() -> None:
    """The most probable ones, also where none is probable, and no more than it may have."""
    some, several = Annotated[list[Literal["a", "b", "c"]], Field(min_length=1)], list[Literal["a", "b", "c"]]
    assert answered(some, a=0.1, b=0.3, c=0.2) == ["b"]
    assert answered(some, a=0.6, b=0.3, c=0.7) == ["c", "a"]
    assert answered(Annotated[several, Field(min_length=2, max_length=2)], a=0.6, b=0.8, c=0.7) == ["b", "c"]
    assert answered(several, a=0.1, b=0.3, c=0.2) == []


@pytest.mark.parametrize("kind", [
    Annotated[list[Literal["a", "b"]], Field(min_length=3)],
    Annotated[list[Literal["a", "b"]], Field(min_length=2, max_length=1)],
    Annotated[int, Field(ge=1, le=6, multiple_of=7)],
    Annotated[Decimal, Field(gt=0, lt=Decimal("0.01"), decimal_places=2)],
    Annotated[Decimal, Field(ge=10, le=99, max_digits=1)],
    Annotated[float, Field(gt=1, lt=1)],
    Annotated[float, Field(ge=0, le=math.inf)],
    Annotated[int, Field(ge=0, le=10**400)],
    Annotated[int, Field(ge=0, le=2**64)],
    Annotated[int, Field(gt=-(2**63) - 2, le=0)],
    Literal[1, 2**70],
])  # fmt: skip
def test_a_field_that_no_value_fits_is_refused_at_the_start(kind: Any) -> None:
    """By its name, and not at every record; with a default it keeps that. Nor is one whose value could not be written."""
    odd: type[BaseModel] = create_model("Odd", sure=(bool, ...), rest=(kind, ...))
    with pytest.raises(ConfigError, match=r"Odd: its field rest can not be asked.*some value keeps all its limits"):
        fields_of(odd)
    assert [field.name for field in fields_of(create_model("Odd", sure=(bool, ...), rest=(kind, None)))] == ["sure"]


BOUNDS = st.decimals(-1000, 1000, places=3)


def test_a_decimal_without_room_before_its_point_can_be_zero() -> None:
    """One digit and one place: 0.0 fits, 0 does not."""
    kind = Annotated[Decimal, Field(ge=0, le=Decimal("0.1"), max_digits=1, decimal_places=1)]
    assert answered(kind, p=0.0) == 0
    assert answered(kind, p=1.0) == Decimal("0.1")


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_a_decimal_that_is_accepted_can_be_answered_whatever_is_said(data: st.DataObject) -> None:
    """Any bounds, places, digits and multiple: refused at the start, or every probability makes an answer that is valid."""
    low, high = sorted((data.draw(BOUNDS), data.draw(BOUNDS)))
    limits: dict[str, Any] = {data.draw(st.sampled_from(["ge", "gt"])): low, data.draw(st.sampled_from(["le", "lt"])): high}
    limits |= {"decimal_places": data.draw(st.none() | st.integers(0, 6)), "max_digits": data.draw(st.none() | st.integers(1, 8))}
    limits["multiple_of"] = data.draw(st.none() | st.sampled_from([Decimal(text) for text in ("0.05", "0.3", "7", "1.25")]))
    kind: Any = Annotated[Decimal, Field(**{name: limit for name, limit in limits.items() if limit is not None})]
    try:
        fields = fields_of(create_model("Made", it=(kind, ...)))
    except ConfigError:
        return
    if fields[0].questions:
        answered(kind, p=data.draw(probabilities))


@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_what_is_no_probability_is_never_believed(name: str, data: st.DataObject) -> None:
    """One probability that is none, or of the wrong type, takes the field its value."""
    said = data.draw(told())[name]
    if not said:
        return
    bad = data.draw(st.sampled_from([-0.01, 1.01, 1e300, math.nan, math.inf, -math.inf, "0.5", None, True, [0.5]]))
    one = said[0]
    if "probability" in one:
        one["probability"] = bad
    else:
        one["probabilities"][-1]["probability"] = bad
    with pytest.raises(Unbelievable):
        FIELDS[name].value(said)


@given(st.lists(probabilities, min_size=11, max_size=11))
def test_a_score_is_the_mean_of_its_levels_or_not_believed(likely: list[float]) -> None:
    """Levels whose probabilities add up to 1 give their mean, rounded; others give nothing."""
    labels = FIELDS["risk"].questions[0].options
    said = [{"probabilities": [{"label": label, "probability": p} for label, p in zip(labels, likely, strict=True)]}]
    total = math.fsum(likely)
    if abs(total - 1) > 0.02:
        with pytest.raises(Unbelievable):
            FIELDS["risk"].value(said)
    else:
        mean = math.fsum(float(label) * p for label, p in zip(labels, likely, strict=True)) / total
        assert FIELDS["risk"].value(said) == round(mean)


def choice(value: Any, **likely: Any) -> list[dict[str, Any]]:
    """What a choice of a colour may look like."""
    return [{"choice": value, "probabilities": [{"value": one, "probability": p} for one, p in likely.items()]}]


@pytest.mark.parametrize("said", [
    choice("green", red=0.5, blue=0.5), choice("red", red=0.1, blue=0.9), choice(True, red=0.5, blue=0.5),
    choice("red", red=1.0), choice("red", red=0.9, blue=0.05, green=0.05), choice("red", red=0.5, blue=0.2),
    choice("red", red=0.5, green=0.5),
    [{"choice": "red"}], [{"choice": "red", "probabilities": [7]}],
])  # fmt: skip
def test_a_choice_that_can_not_be_is_not_believed(said: list[dict[str, Any]]) -> None:
    """No option of ours, not the most probable one, or probabilities that are not those of our options."""
    with pytest.raises(Unbelievable):
        FIELDS["colour"].value(said)
    assert FIELDS["colour"].value(choice("red", red=0.9, blue=0.1)) == "red"


def test_the_strongest_members_of_a_list_come_first_and_no_more_than_fit() -> None:
    """Options from 0.5 on, in the order of their probability, cut to the most that the type allows."""
    assert FIELDS["tags"].value([{"probability": p} for p in (0.6, 0.9, 0.7)]) == ["y", "z"]
    assert FIELDS["tags"].value([{"probability": p} for p in (0.1, 0.5, 0.49)]) == ["y"]


def test_levels_are_few_and_reach_from_bound_to_bound() -> None:
    """Each whole number where there are few, else eleven steps."""
    assert FIELDS["few"].questions[0].options == ("1", "2", "3", "4")
    assert FIELDS["risk"].questions[0].options == tuple(str(n) for n in range(0, 101, 10))
    assert all(len(asked.options) <= MOST_LEVELS for asked in FIELDS["money"].questions)


@pytest.mark.parametrize("answer", [RiskAnswer, QualityAnswer])
def test_the_agents_here_can_be_asked_and_can_still_say_that_they_do_not_know(answer: type[BaseModel]) -> None:
    """All fields of the agents' answers are asked, "sufficient" and "insufficient" among them."""
    fields = fields_of(answer)
    assert {field.name for field in fields} == set(answer.model_fields)
    asked = [question for field in fields for question in field.questions]
    assert any("sufficient" in question.text or "insufficient" in question.options for question in asked)


class Inner(BaseModel):
    """Nested."""

    x: bool


@pytest.mark.parametrize("kind", [str, int, float, Inner, list[str], list[Inner]])
def test_a_required_field_that_can_not_be_asked_is_named_with_what_to_do(kind: Any) -> None:
    """The error names the type and the field."""
    odd: type[BaseModel] = create_model("Odd", sure=(bool, ...), rest=(kind, ...))
    with pytest.raises(ConfigError, match=r"Odd: its field rest .* HEADRACE_MODEL_API"):
        fields_of(odd)
