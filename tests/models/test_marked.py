"""Marks are found wherever in the features they are, and what hides one is told of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, RootModel, SerializeAsAny, computed_field, model_serializer

from models.contract import Question
from models.masking.marked import identifier_kinds, kinds_of, unseen, walk_of
from models.masking.untrusted import untrusted_texts
from schemas.marks import Identifier, Untrusted

Text = Annotated[str, Untrusted(max=50)]
Customer = Annotated[str, Identifier("customer")]
Account = NewType("Account", int)


class Upper:
    """A visitor that shows where it was."""

    def text(self, value: str, mark: Untrusted) -> str:
        """Texts in capitals."""
        return value.upper()

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        """Identifiers as their kind."""
        return f"<{mark.kind}>"


class Line(BaseModel):
    text: Text
    kept: str = "kept"


class Other(BaseModel):
    text: Text
    who: Customer


class Lines(RootModel[list[Line]]):
    pass


class Tree(BaseModel):
    name: Text
    below: list[Tree] = []


class Everything(BaseModel):
    plain: str = "kept"
    text: Text | None = "a"
    maybe: Annotated[str | None, Untrusted()] = "b"
    lines: tuple[Line, ...] = (Line(text="c"),)
    by_name: dict[str, Line] = {"kept": Line(text="d")}
    keyed: dict[Customer, int] = {"C-1": 1}
    open: Annotated[dict[str, list[str]], Untrusted()] = {"e": ["f"]}
    pair: tuple[Customer, int] = ("C-1", 7)
    either: Line | Other = Other(text="g", who="C-1")
    root: Lines = Lines([Line(text="h")])
    tree: Tree = Tree(name="i", below=[Tree(name="j")])
    account: Annotated[Account, Identifier("account")] = Account(4711)
    ids: list[Annotated[UUID, Identifier("device")]] = [UUID(int=1)]
    both: Annotated[str, Untrusted(), Identifier("both")] = "k"
    none: Annotated[int | None, Identifier("customer")] = None

    @computed_field  # type: ignore[prop-decorator]  # as pydantic has it
    @property
    def head(self) -> Text:
        """A text that is made of others."""
        return "l"


def test_every_mark_is_found_wherever_it_is() -> None:
    """In optional and computed fields, containers, keys, unions, root models and models in themselves; all else stays."""
    walk = walk_of(Everything)
    assert walk is not None
    assert walk(Everything().model_dump(mode="json"), Upper()) == {
        "plain": "kept", "text": "A", "maybe": "B", "lines": [{"text": "C", "kept": "kept"}],
        "by_name": {"kept": {"text": "D", "kept": "kept"}}, "keyed": {"<customer>": 1}, "open": {"E": ["F"]},
        "pair": ["<customer>", 7], "either": {"text": "G", "who": "<customer>"}, "root": [{"text": "H", "kept": "kept"}],
        "tree": {"name": "I", "below": [{"name": "J", "below": []}]}, "account": "<account>", "ids": ["<device>"],
        "both": "<both>", "none": None, "head": "L",
    }  # fmt: skip
    assert identifier_kinds(Everything) == ("account", "both", "customer", "device")
    assert kinds_of(Everything) == {Untrusted, Identifier}
    assert unseen(Everything) == []


def test_texts_are_read_as_the_model_would_see_them() -> None:
    """Those of the masked record where there is one, cut otherwise; identifiers are no texts."""
    features = Other(text="said", who="C-1")
    assert untrusted_texts(Question("d", features)) == ["said"]
    assert untrusted_texts(Question("d", features, shown={"text": "masked", "who": "x"})) == ["masked"]


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    text: Text = Field(serialization_alias="t")


def test_a_field_that_is_dumped_under_another_name_is_found_there() -> None:
    """An alias does not hide a mark."""
    walk = walk_of(Aliased)
    assert walk is not None
    assert walk(Aliased(text="a").model_dump(mode="json"), Upper()) == {"t": "A"}


class Unmarked(BaseModel):
    number: int


def test_a_model_without_marks_has_no_walk() -> None:
    """There is nothing to do for it."""
    assert walk_of(Unmarked) is None
    assert not kinds_of(Unmarked)


@dataclass
class Data:
    text: Text


class HasData(BaseModel):
    marked: Text
    data: Data


class Serialized(BaseModel):
    text: Text

    @model_serializer
    def write(self) -> dict[str, Any]:
        """Under a name that nobody knows."""
        return {"other": self.text}


class FieldWritten(BaseModel):
    text: Annotated[Text, PlainSerializer(lambda text: {"said": text})]


class Computed(BaseModel):
    text: Text

    @computed_field  # type: ignore[prop-decorator]  # as pydantic has it
    @property
    def copy_of(self) -> str:
        """The text, past its mark."""
        return self.text


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: Text


class Anybody(BaseModel):
    text: Text
    line: SerializeAsAny[Line]


class Twice(BaseModel):
    either: list[Line] | list[Other]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (HasData, "data is no pydantic model"), (Serialized, "model_serializer"), (FieldWritten, "a serializer for text"),
        (Computed, "computes copy_of"), (Extra, "allows extra fields"), (Anybody, "line as SerializeAsAny"),
        (Twice, "several members of a union"),
    ],
)  # fmt: skip
def test_what_would_hide_a_marked_value_is_told(model: type[BaseModel], why: str) -> None:
    """Each way round a mark is named in a sentence."""
    (problem,) = unseen(model)
    assert why in problem
