"""Texts as patterns know them: one character for one, so that places in a text stay what they are. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

_REMEMBERED: Final = 0x10000  # what is rarer is looked up again: a text must not fill the memory


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


class _Folded(_Plain):
    """The same, and small letters for capitals, a hyphen for an underscore and a minus."""

    def _of(self, code: int) -> str:
        plain = super()._of(code)
        small = plain.casefold()
        return "-" if plain in "_\u2212" else small if len(small) == 1 else plain


_PLAIN: Final = _Plain()
_FOLDED: Final = _Folded()


def plain(text: str) -> str:
    """`text` with digits, spaces and dashes of every script, and full-width forms, as in ASCII."""
    return text if text.isascii() else text.translate(_PLAIN)


def folded(text: str) -> str:
    """`plain(text)` in small letters, with hyphens for underscores: equal for two spellings of one identifier."""
    return text.lower().replace("_", "-") if text.isascii() else text.translate(_FOLDED)
