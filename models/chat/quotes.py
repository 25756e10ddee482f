"""Quotes: what an endpoint's error says of its own, apart from what it repeats of the request.

Some endpoints quote the text that they do not like, others the whole request. A record that says "my api key" must not be taken
for an endpoint that says so: that would cost its neighbours their answers. Pure.

    three words in a row that stand so in a record    are quoted, whatever they are
    eight in a row that stand so in the request       are quoted too: our own prompt and parameters
    a single sign that a record has as well           may be either, so it is the caller's to decide
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from html import unescape
from typing import Any, Final

_WORD: Final = re.compile(r"[A-Za-z0-9_]+")
_ESCAPE: Final = re.compile(r"(?<!\\)\\++(?:u[0-9A-Fa-f]{4}|[nrtbf])")
"""Begins where a run of backslashes does, and takes all of it: from each of them on would be quadratic."""
_OF_RECORDS, _OF_REQUEST = 3, 8
_LONGEST_REQUEST: Final = 65_536
"""Bytes of a request's beginning that are looked at: what is no record, and fixed, stands there."""
_GAP: Final = "\n"
"""Stands where something was left out, and is in no sign."""


class Quotes:
    """What may be quoted of one request: `records` as they stand in it, and its `body`. Without either, nothing is."""

    def __init__(self, records: Sequence[Mapping[str, Any]] = (), body: bytes = b"") -> None:
        self._records, self._body = records, body

    def unquoted(self, message: str) -> str:
        """`message` without what it quotes."""
        text = _readable(message)
        spans = [(found.start(), found.end()) for found in _WORD.finditer(text)]
        words = [text[start:end].lower() for start, end in spans]
        quoted = _runs(words, self._said, _OF_RECORDS) | _runs(words, self._sent, _OF_REQUEST)
        return _without(text, [spans[place] for place in sorted(quoted)])

    def unsaid(self, message: str, signs: re.Pattern[str]) -> str:
        """`message` without those of its `signs` whose words stand in a record too."""
        found = [_whole(message, sign) for sign in signs.finditer(message)]
        return _without(message, [(start, end) for start, end in found if self._has(_words(message[start:end]))])

    def _has(self, words: list[str]) -> bool:
        return bool(words) and bool(_runs(words, self._said, len(words)))

    @cached_property
    def _said(self) -> list[str]:
        return [word for text in _texts(list(self._records)) for word in _words(text)]

    @cached_property
    def _sent(self) -> list[str]:
        return _words(self._body[:_LONGEST_REQUEST].decode(errors="replace"))


def _readable(text: str) -> str:
    return _ESCAPE.sub(lambda escape: " " * len(escape.group()), unescape(text))


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(_readable(text))]


def _texts(value: Any) -> Iterator[str]:
    """All that stands in a JSON value, names and numbers too, in its order."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield str(name)
            yield from _texts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)
    elif value is not None:
        yield str(value)


def _runs(words: list[str], source: list[str], length: int) -> set[int]:
    """Places of those of `words` that stand in `source` too, as part of `length` in a row."""

    def rows(some: list[str]) -> Iterator[tuple[str, ...]]:
        return zip(*(some[first:] for first in range(length)), strict=False)

    known = set(rows(words))
    if known:
        known.intersection_update(rows(source))
    return {start + step for start, row in enumerate(rows(words)) if row in known for step in range(length)}


def _whole(text: str, found: re.Match[str]) -> tuple[int, int]:
    """From the beginning of the first word in which it is to the end of the last one."""
    start, end = found.span()
    while start > 0 and _WORD.fullmatch(text[start - 1]):
        start -= 1
    while end < len(text) and _WORD.fullmatch(text[end]):
        end += 1
    return start, end


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    left: list[str] = []
    at = 0
    for start, end in spans:
        left += [text[at:start], _GAP]
        at = max(at, end)
    return "".join([*left, text[at:]])


NOTHING: Final = Quotes()
"""Of a request that is about no records."""
