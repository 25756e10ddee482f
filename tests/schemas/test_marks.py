"""Marks on fields: found at any depth, and untrusted text is cut wherever it is."""

from __future__ import annotations

from typing import Annotated

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.marks import Protected, Untrusted, marked, marks


class Inner(BaseModel):
    """Below."""

    text: Annotated[str, Untrusted(max=3)]
    sex: Annotated[str | None, Protected("sex")] = None


class Outer(BaseModel):
    """Marks on a field, in an optional, in a list, in a nested model, and in the model itself again."""

    title: Annotated[str, Untrusted(max=2)]
    note: Annotated[str, Untrusted(max=4)] | None = None
    lines: list[Annotated[str, Untrusted(max=1)]] = []
    inner: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = {}
    again: Outer | None = None


def test_marks_are_found_at_every_depth() -> None:
    """A path leads to each mark; a model inside itself is walked once."""
    assert set(marks(Outer, Untrusted)) == {"title", "note", "lines", "inner.text", "by_name.text"}
    assert {path: mark.group for path, mark in marks(Outer, Protected).items()} == {"inner.sex": "sex", "by_name.sex": "sex"}
    assert marks(Outer, Untrusted)["lines"].max == 1


def test_marked_looks_at_the_fields_themselves_only() -> None:
    """The shallow form leaves out what is nested."""
    assert set(marked(Outer, Untrusted)) == {"title"}


@given(text=st.text(max_size=20))
def test_untrusted_text_is_cut_wherever_it_stands(text: str) -> None:
    """No field that is marked holds more than its limit once the model is built."""
    made = Outer(title=text, note=text, lines=[text], inner=(Inner(text=text),), by_name={"a": Inner(text=text)})
    assert made.title == text[:2]
    assert made.note == text[:4]
    assert made.lines == [text[:1]]
    assert made.inner[0].text == made.by_name["a"].text == text[:3]


def test_an_absent_text_stays_absent() -> None:
    """Only texts are cut; None is not made one."""
    assert Outer(title="ab").note is None
