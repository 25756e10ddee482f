"""What a fault tells of a record whose row has protected columns: the field and the reason, never the value."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.dead_letter import Fault
from schemas.marks import Protected
from topics.decode import decoder
from topics.decode.result import Decoded
from topics.record import Raw
from topics.spec import Clean, Range, change_topic, event_topic, reading_topic

SECRET = "zq7-kept-9"
NUMBER = 7_391_846


class Person(BaseModel):
    """A model inside a row, with a protected field of its own."""

    sex: Annotated[Literal["male", "female"], Protected("sex")] = "male"
    notes: dict[str, int] = {}


class Applicant(BaseModel):
    """A row in which nearly everything a decoder can complain about is protected."""

    model_config = ConfigDict(extra="forbid")
    id: int = 0
    amount: Decimal = Decimal(0)
    age: Annotated[int | None, Protected("age")] = None
    born: Annotated[date | None, Protected("age"), Field(validation_alias=AliasChoices("born", "geboren"))] = None
    income: Annotated[float | None, Protected("income")] = None
    foreign: Annotated[bool | None, Protected("nationality")] = None
    faith: Annotated[str | None, Protected("religion"), Field(pattern="^[a-c]$")] = None
    groups: Annotated[dict[str, int], Protected("groups")] = {}
    person: Person = Person()
    people: list[Person] = []

    @field_validator("amount")
    @classmethod
    def quotes(cls, amount: Decimal, info: Any) -> Decimal:
        """A validator that tells what it should not: values of the columns before it are in `info`."""
        if amount == 13:
            raise ValueError(f"an unlucky amount \x03 for {SECRET}")
        return amount

    @model_validator(mode="after")
    def consistent(self) -> Applicant:
        """Another one, about the whole row."""
        if self.age == NUMBER:
            raise ValueError(f"nobody is {self.age}")
        assert self.id != 13, f"no such person: {SECRET}"
        return self


CLEAN = Clean(rename={"einkommen": "income"}, ranges={"age": Range(0, 150), "income": Range(0, 1_000_000)})
EVENTS = event_topic("applicants", Applicant, clean=Clean(ranges={"income": Range(0, 1_000_000)}))
SPECS = [
    EVENTS,
    change_topic("applicants", Applicant, key=("id",), clean=CLEAN),
    reading_topic("applicants", Applicant, clean=CLEAN, clock=None),
]


def faults(spec: Any, value: bytes, **rest: Any) -> list[Fault]:
    """The faults of one record, also those of single elements."""
    found = decoder(spec)(Raw("applicants", value, **rest))
    return [each for each in (found.values if isinstance(found, Decoded) else (found,)) if isinstance(each, Fault)]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "not a number": ({"age": SECRET}, "age"),
    "past its range": ({"income": NUMBER}, "income"),
    "not a date": ({"geboren": SECRET}, "born"),
    "not a boolean": ({"foreign": SECRET}, "foreign"),
    "a boolean for a number": ({"age": True}, "age"),
    "no match": ({"faith": SECRET}, "faith"),
    "a number for a text": ({"faith": NUMBER}, "faith"),
    "a key and a value of a protected map": ({"groups": {SECRET: SECRET}}, "groups"),
    "a text for a protected map": ({"groups": SECRET}, "groups"),
    "nested": ({"person": {"sex": SECRET}}, "person.sex"),
    "beside a protected value": ({"person": {"sex": "male", "notes": {SECRET: SECRET}}}, "person.notes"),
    "in a list": ({"people": [{}, {"sex": SECRET}]}, "people.sex"),
    "a text for a parent": ({"person": SECRET}, "person"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_protected_column_is_named_and_its_value_is_not(case: str) -> None:
    """Whatever is wrong with it, and however deep it lies: field and reason are told, the value nowhere."""
    row, field = BAD[case]
    (fault,) = faults(EVENTS, orjson.dumps(row))
    assert fault.field == field
    assert fault.reason in ("invalid-field", "out-of-range", "invalid-time")
    assert SECRET not in str(fault)
    assert str(NUMBER) not in str(fault)
    assert fault.detail, "the reason is told in words all the same"
    assert fault.detail.isprintable(), "no mark is left over"


def test_a_boolean_is_not_told_either() -> None:
    """A flag that is there or not is a protected value too."""
    (fault,) = faults(EVENTS, b'{"age": true}')
    assert "true" not in fault.detail
    assert fault.detail == "(not shown) is not a number"


@pytest.mark.parametrize("row", [{"amount": 13}, {"age": NUMBER}, {"id": 13}])
def test_what_a_validator_writes_is_not_told(row: dict[str, Any]) -> None:
    """A validator's text can be about any column, whichever it is put down to, and can try to end its own mark."""
    (fault,) = faults(EVENTS, orjson.dumps(row))
    assert fault.reason == "invalid-field"
    assert SECRET not in str(fault)
    assert str(NUMBER) not in str(fault)
    assert "_error" in fault.detail, "the kind of error is told"


def test_an_open_column_is_quoted_as_before() -> None:
    """Beside protected columns, a person still sees what was wrong with the others."""
    (fault,) = faults(EVENTS, b'{"amount": "many"}')
    assert (fault.field, fault.detail) == ("amount", "'many' is not a number")


SHAPES: list[tuple[Any, str]] = [(spec, value) for spec in SPECS for value in (f'"{SECRET}"', str(NUMBER))]
SHAPES += [(SPECS[1], f'{{"op": "{SECRET}", "after": 1}}'), (SPECS[1], f'{{"op": "c", "after": "{SECRET}"}}')]
SHAPES += [(SPECS[2], f'["{SECRET}"]'), (SPECS[2], f'[{{"n": "{SECRET}"}}]')]
SHAPES += [(SPECS[2], f'[{{"n": "age", "u": "x", "vs": "{SECRET}"}}]')]


@pytest.mark.parametrize(("spec", "value"), SHAPES, ids=[f"{spec.kind} {value}" for spec, value in SHAPES])
def test_a_record_of_another_shape_is_not_quoted(spec: Any, value: str) -> None:
    """Where no column can be made out, anything in the record may be a protected value."""
    found = faults(spec, value.encode(), key=b"7")
    assert found
    assert all(SECRET not in str(fault) and str(NUMBER) not in str(fault) for fault in found)


def test_a_document_inside_a_text_hides_its_keys_too() -> None:
    """MongoDB's documents name a path before any column is known: it goes no deeper than the row model does."""
    spec = change_topic("applicants", Applicant, key=("id",))
    source = {"connector": "mongodb", "db": "d", "collection": "c", "ts_ms": 1}
    inner = orjson.dumps({"groups": {SECRET: {"$numberInt": SECRET}}}).decode()
    (fault,) = faults(spec, orjson.dumps({"op": "c", "source": source, "after": inner}))
    assert SECRET not in str(fault)
    assert fault.field == "after.groups"


@given(
    st.sampled_from(SPECS),
    st.dictionaries(
        st.sampled_from([*Applicant.model_fields, "geboren", "einkommen", "device", "ts", "metrics", "unknown"]),
        st.recursive(
            st.sampled_from([SECRET, f"\x01x\x1f{SECRET}\x03", NUMBER, NUMBER + 0.5, None, True]),
            lambda to: st.lists(to, max_size=2) | st.dictionaries(st.sampled_from([SECRET, "sex", "notes"]), to, max_size=2),
            max_leaves=4,
        ),
        max_size=4,
    ),
)  # fmt: skip
def test_no_record_gets_a_secret_into_a_fault_of_a_protected_column(spec: Any, row: dict[str, Any]) -> None:
    """A secret in any shape, in any column: a fault that names no open column never quotes it, nor any of its marks."""
    body = {"op": "c", "after": row, "source": {}} if spec.kind == "change" else row
    for fault in faults(spec, orjson.dumps(body), key=b"7"):
        assert fault.detail.isprintable()
        if (fault.field or "").split(".")[0] not in ("id", "amount"):
            assert SECRET not in fault.detail
            assert str(NUMBER) not in fault.detail


class Machine(BaseModel):
    """A row without protected columns."""

    rpm: int = 0


def test_a_row_without_protected_columns_is_told_as_before() -> None:
    """No marks, and the short quote that a person needs to find the producer."""
    (fault,) = faults(event_topic("machines", Machine), b'{"rpm": "fast"}')
    assert fault.detail == "'fast' is not a number"
    found = faults(reading_topic("machines", Machine, clock=None), b'[{"device": "m1", "rpm": "fast"}, 7]')
    assert [f.detail for f in found] == ["'fast' is not a number", "7 is not a reading"]
