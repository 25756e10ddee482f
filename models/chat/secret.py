"""Hides an API key in what a server sends, also where JSON escapes it: what is read ends in audits and answers.

It is for servers that quote what they were sent. One that means to give a key away can write it in ways that nobody undoes.
"""

from __future__ import annotations

import re
from typing import Final

_SHORTEST: Final = 8
"""A key that is shorter may be in any text by chance."""
_PIECE: Final = 6
"""So many characters of a key in a row are no chance in a word that a server sends."""
_HIDDEN: Final = "[key]"
_ESCAPABLE: Final = "/\""
"""What JSON may write with a backslash before it; all else it can only write as uXXXX after one."""
_RUN: Final = r"\\++(?:\\|u005[cC])*+"
_FIRST_RUN: Final = rf"(?<!\\)(?<!u005[cC]){_RUN}"
_ESCAPED_ASCII = re.compile(rb"u00[2-7]")
_WORD = re.compile(r"[A-Za-z0-9_.\-]+")


class Secret:
    """An API key, printable ASCII, or None: then, or where it is too short to be told from other text, nothing is hidden."""

    def __init__(self, key: str | None) -> None:
        self._key = key if key is not None and len(key) >= _SHORTEST else ""
        self._raw = self._key.encode()
        pieces = re.split(rf"[{re.escape(_ESCAPABLE)}]+", self._key)
        self._plain = max(pieces, key=len).encode()
        self._pattern = re.compile(_escaped(self._key).encode())

    def hidden(self, body: bytes) -> bytes:
        """`body` without the key, as it is or escaped, also within JSON that is itself a text of JSON. JSON stays JSON."""
        if not self._key:
            return body
        if self._key[0] not in _ESCAPABLE:  # else a backslash before it goes too, or what is left is no JSON
            body = body.replace(self._raw, _HIDDEN.encode())
        # The pattern is slow, and needed only where the part without a slash is there, or ASCII is escaped.
        if self._plain in body or _ESCAPED_ASCII.search(body):
            return self._pattern.sub(_HIDDEN.encode(), body)
        return body

    def unnamed(self, text: str) -> str:
        """`text` without the key, and without the words that have a piece of it."""
        if not self._key:
            return text
        return _WORD.sub(lambda word: _HIDDEN if self._shares(word[0]) else word[0], text.replace(self._key, _HIDDEN))

    def _shares(self, word: str) -> bool:
        return any(word[start : start + _PIECE] in self._key for start in range(len(word) - _PIECE + 1))


def _escaped(key: str) -> str:
    """A pattern for `key` with any number of backslashes where an escape has them. Linear: no run of them is looked at twice."""
    parts: list[str] = []
    for place, char in enumerate(key):
        run = _RUN if place else _FIRST_RUN
        digits = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(char):02x}")
        itself = (f"(?:{run})?+" if char in _ESCAPABLE else "") + re.escape(char)
        parts.append(f"(?:{itself}|{run}u00{digits})")
    return "".join(parts)
