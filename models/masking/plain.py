"""Texts as patterns know them: one character for one, so that places in a text stay what they are. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

_REMEMBERED: Final = 0x10000  # what is rarer is looked up again: a text must not fill the memory

FILLERS: Final = "\u115f\u1160\u3164\uffa0"
"""Letters of Hangul that look like a blank."""
IGNORABLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What Unicode calls default ignorable, for a set of a pattern: nothing is drawn for it, and a model reads it all the same."""
_FORMATS: Final = (
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
)
"""The rest of Unicode's category Cf."""
_CONTROLS: Final = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
"""Its category Cc without white space."""
UNSEEN: Final = re.compile(f"[{_CONTROLS}{IGNORABLE}{_FORMATS}]")
"""A sign for which nothing is drawn."""
_JOINING: Final = "\u00ad\u200c\u200d"
"""Soft hyphen and the two joiners: they stand inside a word, all others may as well stand between two."""

_HYPHENS: Final = "_\u2212"
_APOSTROPHES: Final = "`\u00b4\u02b9\u02bc\u2018\u2019\u201b\u2032"


class _Plain(dict[int, str]):
    """For str.translate: digits, spaces (fillers too) and dashes of every script, and full-width forms, as in ASCII."""

    def __missing__(self, code: int) -> str:
        plain = self._of(code)
        if code < _REMEMBERED:
            self[code] = plain
        return plain

    def _of(self, code: int) -> str:
        sign, category = chr(code), unicodedata.category(chr(code))
        if category == "Nd":
            return str(unicodedata.decimal(sign))
        if category == "Pd":
            return "-"
        if category == "Zs" or sign in FILLERS:
            return " "
        return chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else sign


class _Drawn(_Plain):
    """The same, and nothing for what is not drawn: soft hyphens, signs of no width, marks of direction, fillers, controls."""

    def _of(self, code: int) -> str:
        return "" if UNSEEN.match(chr(code)) else super()._of(code)


class _Joined(_Plain):
    """The same as plain, and nothing for what stands inside a word."""

    def _of(self, code: int) -> str:
        return "" if chr(code) in _JOINING else super()._of(code)


class _Folded(_Drawn):
    """The same, small letters for capitals, marks after their letter, one kind of hyphen and apostrophe.

    It may be several characters for one, or none.
    """

    def _of(self, code: int) -> str:
        plain = super()._of(code)
        if not plain:
            return ""
        if plain in _HYPHENS:
            return "-"
        if plain in _APOSTROPHES:
            return "'"
        # A syllable of Hangul is not taken apart: half of one is another syllable.
        return plain.casefold() if 0xAC00 <= code <= 0xD7A3 else unicodedata.normalize("NFD", plain.casefold())


_PLAIN: Final = _Plain()
_DRAWN: Final = _Drawn()
_JOINED: Final = _Joined()
_FOLDED: Final = _Folded()


def plain(text: str) -> str:
    """`text` with digits, spaces and dashes of every script, and full-width forms, as in ASCII."""
    return text if text.isascii() else text.translate(_PLAIN)


def readings(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """What a text may be meant to say, with the place in `text` of each character: itself, as `plain`, unless a sign is UNSEEN.

    Such a sign may stand in the middle of a value, or be all that parts one from the next. So the text comes without them, then
    without those only that stand inside a word, where it has others too, and then with all of them.
    """
    if UNSEEN.search(text):
        yield _read(text, _DRAWN)
        joined = _read(text, _JOINED)
        if len(joined[0]) < len(text) and any(UNSEEN.match(sign) for sign in set(text) - set(_JOINING)):
            yield joined
    yield plain(text), range(len(text))


def _read(text: str, table: _Plain) -> tuple[str, list[int]]:
    return text.translate(table), [at for at, sign in enumerate(text) if table[ord(sign)]]


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The place without what is not drawn at its ends."""
    while start < end and UNSEEN.match(text, start):
        start += 1
    while start < end and UNSEEN.match(text, end - 1):
        end -= 1
    return start, end


def folded(text: str) -> str:
    """Equal for two spellings of one identifier: capitals, marks, blanks, hyphens and apostrophes make no difference.

    Its characters are not those of `text` one by one: `places` says where each was.
    """
    seen = text.isascii() and not UNSEEN.search(text)
    small = text.lower().replace("_", "-").replace("`", "'") if seen else text.translate(_FOLDED)
    return " ".join(small.split())


def places(text: str) -> list[int]:
    """For each character of `folded(text)` the place in `text` that it is from."""
    found: list[int] = []
    blank = -1
    for at, sign in enumerate(text):
        for small in _FOLDED[ord(sign)]:
            if small.isspace():
                blank = at if blank < 0 else blank
                continue
            if blank >= 0 and found:
                found.append(blank)
            blank = -1
            found.append(at)
    return found
