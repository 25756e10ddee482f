"""A key in what a server sends is hidden however it is escaped, and all else stays as it is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.chat.secret import Secret

KEY = "bce-v3/ALTAK-abcdefgh/0123456789abcdef+q=="
ascii_text = st.text(st.characters(min_codepoint=32, max_codepoint=126))


def written(text: str, ways: list[bool]) -> str:
    """`text` as a JSON string whose characters are escaped where `ways` says so."""
    body = ""
    for place, char in enumerate(text):
        escape = ways[place % len(ways)]
        plain = "\\/" if char == "/" and place % 2 else json.dumps(char)[1:-1]
        body += f"\\u{ord(char):04x}" if escape else plain
    return f'"{body}"'


@given(
    st.one_of(st.just(KEY), st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=8)),
    st.lists(st.booleans(), min_size=1, max_size=7), st.integers(0, 2), ascii_text, ascii_text,
)  # fmt: skip
@example(KEY, [False], 0, "", "")
@example(KEY, [True], 1, "\\", "\\")
@example("/ab\"cdef", [True, False], 2, "\\", "u")
def test_a_key_is_found_however_often_and_in_whatever_way_it_is_escaped(
    key: str, ways: list[bool], layers: int, before: str, after: str
) -> None:
    """JSON within JSON, each character as it is or escaped: with all layers decoded the key is not there."""
    text = written(before + key + after, ways)
    for _ in range(layers):
        text = json.dumps(text)
    text = Secret(key).hidden(text.encode()).decode()
    for _ in range(layers + 1):
        assert key not in text
        text = json.loads(text)
    assert key not in text


@given(st.text())
def test_what_has_no_key_stays_as_it_is(text: str) -> None:
    """Not a byte of it changes."""
    body = json.dumps(text).encode()
    assert Secret(KEY).hidden(body) == body
    assert Secret(None).hidden(body) == Secret("short").hidden(body) == body


@pytest.mark.parametrize("bait", ["\\", "\\\\u002", "b", "bce-v3\\", "\\u0062", "\\u005c", "ALTAK-abcdefgh/"])
def test_a_bait_costs_time_in_proportion(bait: str) -> None:
    """A body made of what the pattern begins with is gone through once; a quadratic search would take minutes."""
    started = time.process_time()
    Secret("/" + KEY).hidden(b"ALTAK-abcdefgh" + bait.encode() * (400_000 // len(bait)))
    assert time.process_time() - started < 20


def test_a_word_with_a_piece_of_the_key_is_hidden() -> None:
    """A code may be a part of the key; a word that shares less stays."""
    said = "(400, ALTAK-abcdefgh, my-ALTAK-x, invalid_api_key, ALTA)"
    assert Secret(KEY).unnamed(said) == "(400, [key], [key], invalid_api_key, ALTA)"
    assert Secret(None).unnamed(said) == said
