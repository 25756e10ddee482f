"""Texts as patterns know them: one character for one, so that places in a text stay what they are. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

_REMEMBERED: Final = 0x10000  # what is rarer is looked up again: a text must not fill the memory

_HYPHENS: Final = "_\u2212"
_APOSTROPHES: Final = "`\u00b4\u02b9\u02bc\u2018\u2019\u201b\u2032"


class _Plain(dict[int, str]):
    """For str.translate: digits, spaces and dashes of every script, and full-width forms, as in ASCII."""

    def __missing__(self, code: int) -> str:
        plain = self._of(code)
        if code < _REMEMBERED:
            self[code] = plain
        return plain

    def _of(self, code: int) -> str:
        sign, category = chr(code), unicodedata.category(chr(code))
        if category == "Nd":
            return str(unicodedata.decimal(sign))
        if category in ("Zs", "Pd"):
            return " " if category == "Zs" else "-"
        return chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else sign


class _Drawn(_Plain):
    """The same, and nothing for what is not drawn: soft hyphens, signs of no width, marks of direction."""

    def _of(self, code: int) -> str:
        return "" if unicodedata.category(chr(code)) == "Cf" else super()._of(code)


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
_FOLDED: Final = _Folded()


def plain(text: str) -> str:
    """`text` with digits, spaces and dashes of every script, and full-width forms, as in ASCII."""
    return text if text.isascii() else text.translate(_PLAIN)


def drawn(text: str) -> str:
    """The same without the signs that are not drawn (Unicode's category Cf); shorter than `text` if there are any."""
    return text if text.isascii() else text.translate(_DRAWN)


def drawn_places(text: str) -> list[int]:
    """For each character of `drawn(text)` the place in `text` that it is from."""
    return [at for at, sign in enumerate(text) if _DRAWN[ord(sign)]]


def folded(text: str) -> str:
    """Equal for two spellings of one identifier: capitals, marks, blanks, hyphens and apostrophes make no difference.

    Its characters are not those of `text` one by one: `places` says where each was.
    """
    small = text.lower().replace("_", "-").replace("`", "'") if text.isascii() else text.translate(_FOLDED)
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
