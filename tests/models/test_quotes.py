"""What an error says of its own is told from what it quotes."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.chat.dialect import Dialect
from models.chat.ladder import KNOWN_SECONDS, Ladder, Ladders
from models.chat.quotes import NOTHING, Quotes

SIGNS = re.compile("permission|authenti|api[ _-]?key", re.IGNORECASE)
word = st.text("abcdefgh_", min_size=1, max_size=6)
texts = st.lists(word, min_size=3, max_size=30).map(" ".join)


@given(texts, st.sampled_from([str, repr, ascii, json.dumps, str.upper, lambda text: text.replace(" ", "\\n")]))
def test_a_text_that_is_quoted_is_gone_and_the_rest_stands(text: str, quote: object) -> None:
    """Wherever it stands in a record, and however it is written in the message."""
    quotes = Quotes([{"number": 1}, {"deep": [{"note": text}]}])
    assert callable(quote)
    left = quotes.unquoted(f"REFUSED: {quote(text)}, SORRY")
    assert re.findall("[A-Za-z_]+", left) == ["REFUSED", "SORRY"]


@given(st.text(), st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none())))
def test_any_message_and_any_records_can_be_compared(message: str, records: list[dict[str, object]]) -> None:
    """Nothing is raised, and no word comes in that the message does not have."""
    quotes = Quotes(records, json.dumps(records).encode())
    left = quotes.unsaid(quotes.unquoted(message), SIGNS)
    assert set(re.findall(r"\w+", left)) <= set(re.findall(r"\w+", NOTHING.unquoted(message)))


def test_two_words_that_a_record_has_too_are_no_quote() -> None:
    """Two words in a row are what anybody may say."""
    assert Quotes([{"note": "not supported here"}]).unquoted("it is not supported") == "it is not supported"


@pytest.mark.parametrize(("message", "left"), [
    ("Permission denied", False), ("permissions denied", True), ("bad API key", False), ("bad api_key", True),
    ("unauthenticated", True), ("authentic", False), ("no key, no permission", False),
])  # fmt: skip
def test_a_sign_counts_unless_a_record_has_its_whole_words(message: str, left: bool) -> None:
    """Words are compared whole, and several in their order."""
    quotes = Quotes([{"permission": 1, "note": "the api key of an authentic"}])
    assert bool(SIGNS.search(quotes.unsaid(message, SIGNS))) is left


def test_ladders_are_few_where_the_endpoint_is_known_to_answer() -> None:
    """One level of them, and two otherwise; what is known is forgotten after a minute."""
    ladders = Ladders()
    unknown = [Ladder(True, True), Ladder(True, True), Ladder(False, True)]
    assert [ladders.ladder(Dialect(), level, 0.0) for level in range(3)] == unknown
    ladders.answered(Dialect(), 5.0)
    assert [ladders.ladder(Dialect(), level, 6.0) for level in range(2)] == [Ladder(True, False), Ladder(False, False)]
    assert [ladders.ladder(Dialect("plain"), level, 6.0) for level in range(3)] == unknown
    assert ladders.ladder(Dialect(), 0, 5.0 + KNOWN_SECONDS).doubtful


@pytest.mark.parametrize("text", ["\\" * 100_000, "\\u00" * 30_000, "&#x" * 30_000, "a" * 100_000, "a " * 50_000, "&" * 100_000])
def test_no_text_makes_comparing_long(text: str) -> None:
    """It is done in the event loop: time grows with the text, not with its square. A guard, with room for a slow machine."""
    before = time.process_time()
    quotes = Quotes([{"note": text}], json.dumps([text]).encode())
    quotes.unsaid(quotes.unquoted(f"I do not like {text[:2000]}: permission"), SIGNS)
    assert time.process_time() - before < 5
