"""Placeholders of one record: what stands in its texts for what a model must not see, and the way back.

Pure. `[EMAIL_1]` is the first e-mail address found in a record, wherever in its texts it is, and means nothing in another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence


class Unmaskable(Exception):
    """A record that can not be masked. It must not be sent."""


class Placeholders:
    """The table of one record: values, and the tokens that stand for them. Those in `forged` are never given."""

    def __init__(self, forged: Collection[str] = ()) -> None:
        self._forged = forged
        self._tokens: dict[str, str] = {}
        self._words = set[str]()
        self._back: dict[str, str] = {}
        self._numbers = Counter[str]()

    def __bool__(self) -> bool:
        return bool(self._back)

    def pseudonym(self, token: str, value: str, *, in_texts: bool) -> None:
        """The record shows `token` for `value`; `in_texts`: also where a text has the value as a whole word."""
        self._back[token] = value
        if in_texts and value not in self._tokens:
            self._tokens[value] = token
            self._words.add(value)

    def add(self, kind: str, value: str) -> None:
        """Give `value` the next placeholder of its kind, unless something stands for it already; replace it wherever it is."""
        self._words.discard(value)
        if value not in self._tokens:
            token = self._next(kind)
            while token in self._forged:
                token = self._next(kind)
            self._tokens[value] = token
            self._back[token] = value

    def _next(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"[{kind}_{self._numbers[kind]}]"

    def put_in(self, text: str) -> str:
        """`text` with a token in place of each value, the longest first."""
        values = sorted(self._tokens, key=len, reverse=True)
        return _replaced(text, ((value, self._tokens[value], value in self._words) for value in values))

    def put_back(self, text: str) -> str:
        """`text` with each value in place of its token."""
        return _replaced(text, ((token, value, False) for token, value in self._back.items()))

    def named_in(self, text: str) -> bool:
        """Whether the text has any of the tokens."""
        return any(token in text for token in self._back)

    def check(self, texts: Iterable[str]) -> None:
        """Raises Unmaskable if a text still holds something that was to be replaced: put together, for example, by replacing."""
        values = [value for value in self._tokens if value not in self._words]
        if any(value in text for text in texts for value in values):
            raise Unmaskable("masking a record: what was found in a text is still there")


def _replaced(text: str, pairs: Iterable[tuple[str, str, bool]]) -> str:
    """Each first replaced by its second, the third says whether as whole words only. What was put in is not looked at again."""
    pieces: Sequence[str] = (text,)  # text, replacement, text ... text
    for old, new, words in pairs:
        if any(old in piece for piece in pieces[::2]):
            pieces = [
                part
                for place, piece in enumerate(pieces)
                for part in ((piece,) if place % 2 or old not in piece else _split(piece, old, new, words=words))
            ]
    return "".join(pieces)


def _split(piece: str, old: str, new: str, *, words: bool) -> Iterator[str]:
    start = at = 0
    while (at := piece.find(old, at)) >= 0:
        end = at + len(old)
        if words and (piece[:at][-1:].isalnum() or piece[end : end + 1].isalnum()):
            at += 1
            continue
        yield piece[start:at]
        yield new
        start = at = end
    yield piece[start:]
