"""Keyed pseudonyms: who can link what."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.masking.pseudonym import Pseudonyms
from schemas.errors import ConfigError

SECRET = "a secret of the tests, 32 or more"
OURS = Pseudonyms(SECRET, "ours")


@given(st.text(st.characters()) | st.integers())
def test_a_pseudonym_is_stable_and_links_nothing_beyond_its_kind_tenant_and_key(value: str | int) -> None:
    """The same for the same value, kind, tenant and key, as words of equal form; another one if any of them differs."""
    found = OURS.of("customer", value)
    assert re.fullmatch("customer-[0-9a-f]{16}", found)
    assert found == Pseudonyms(SECRET, "ours").of("customer", value)
    others = [OURS.of("account", value), Pseudonyms(SECRET, "theirs").of("customer", value),
              Pseudonyms(SECRET + "!", "ours").of("customer", value)]  # fmt: skip
    assert len({digest.rpartition("-")[2] for digest in (found, *others)}) == 4
    assert found != value


@given(st.text(max_size=6), st.text(max_size=6))
def test_different_values_have_different_pseudonyms(first: str, second: str) -> None:
    """Two values are linked only if they are equal."""
    assert (OURS.of("k", first) == OURS.of("k", second)) == (first == second)


def test_no_tenant_and_kind_can_be_written_as_another() -> None:
    """The boundary between the parts of a key can not be moved."""
    first, second = Pseudonyms(SECRET, "a").of("kindx", "v"), Pseudonyms(SECRET, "akind").of("x", "v")
    assert first[-16:] != second[-16:]


def test_a_number_is_linked_with_its_digits() -> None:
    """A key is a number in one table and a text in another."""
    assert OURS.of("customer", 4711) == OURS.of("customer", "4711")


def test_the_key_is_named_without_giving_it_away() -> None:
    """Eight hex digits that differ by key and tenant and are no part of a pseudonym."""
    assert re.fullmatch("[0-9a-f]{8}", OURS.key_id)
    assert OURS.key_id == Pseudonyms(SECRET, "ours").key_id
    assert len({OURS.key_id, Pseudonyms(SECRET, "theirs").key_id, Pseudonyms(SECRET + "!", "ours").key_id}) == 3
    assert OURS.key_id not in OURS.of("customer", "")


def test_a_secret_that_could_be_guessed_is_refused_and_not_repeated() -> None:
    """The error names the setting and never the secret."""
    with pytest.raises(ConfigError, match="HEADRACE_MASKING_KEY") as caught:
        Pseudonyms("hunter2", "ours")
    assert "hunter2" not in str(caught.value)
