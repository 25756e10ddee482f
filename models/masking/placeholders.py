"""Placeholders of one record: what stands in its texts for what a model must not see, and the way back.

Pure. `[EMAIL_1]` is the first e-mail address found in a record, wherever in its texts it is, and means nothing in another one.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from models.masking.occurrences import Occurrences, Span
from models.masking.plain import folded, places

_UNSPACED = 0x0E00
"""From here on most scripts (Thai, Chinese, Japanese) have no blanks between words."""


class Unmaskable(Exception):
    """A record that can not be masked. It must not be sent."""


class Placeholders:
    """The table of one record: values, and the tokens that stand for them. Those in `forged` are never given."""

    def __init__(self, forged: Collection[str] = ()) -> None:
        self._forged = forged
        self._tokens: dict[str, str] = {}
        self._spelled: dict[str, str] = {}
        self._words = set[str]()
        self._back: dict[str, str] = {}
        self._numbers = Counter[str]()
        self._found: tuple[Occurrences, Occurrences] | None = None
        self._named: Occurrences | None = None

    def __bool__(self) -> bool:
        return bool(self._back)

    def pseudonym(self, token: str, value: str, *, in_texts: bool) -> None:
        """The record shows `token` for `value`; `in_texts`: also where a text has the value as a whole word, however spelled.

        Capitals, marks, blanks, kinds of dashes and apostrophes make no difference there (`folded`, which must not be empty). The
        value itself is what is put back.
        """
        self._found = self._named = None
        self._back[token] = value
        if in_texts and value not in self._tokens:
            self._tokens[value] = token
            self._words.add(value)
            self._spelled.setdefault(folded(value), token)
            if not value.isascii():
                self._spelled.setdefault(folded(unicodedata.normalize("NFD", value)), token)

    def add(self, kind: str, value: str) -> None:
        """Give `value` the next placeholder of its kind, unless something stands for it already; replace it wherever it is."""
        self._found = None
        self._words.discard(value)
        if value not in self._tokens:
            self._tokens[value] = self._spelled.get(folded(value)) or self._given(kind, value)

    def _given(self, kind: str, value: str) -> str:
        token = self._next(kind)
        while token in self._forged:
            token = self._next(kind)
        self._named = None
        self._back[token] = value
        return token

    def _next(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"[{kind}_{self._numbers[kind]}]"

    def put_in(self, text: str) -> str:
        """`text` with a token in place of each value; values that overlap are one, for which there is a token of its own."""
        if not self._tokens:
            return text
        values, words = self._occurrences()
        spans = [*values.spans(text), *_in_text(text, words.spans(folded(text), _is_word))]
        return _replaced(text, ((start, end, self._token(text[start:end])) for start, end in _joined(spans)))

    def _occurrences(self) -> tuple[Occurrences, Occurrences]:
        """Of values that are replaced wherever they are, and of those that are replaced as words."""
        if self._found is None:
            values = [value for value in self._tokens if value not in self._words]
            self._found = Occurrences(values), Occurrences(self._spelled)
        return self._found

    def _token(self, value: str) -> str:
        token = self._tokens.get(value) or self._spelled.get(folded(value))
        if token is None:
            # Its parts are looked for already, so it is found wherever it is without being looked for.
            token = self._tokens[value] = self._given("LITERAL", value)
        return token

    def put_back(self, text: str) -> str:
        """`text` with each value in place of its token, in one pass."""
        spans = _first_ones(self._tokens_in(text))
        return _replaced(text, ((start, end, self._back[text[start:end]]) for start, end in spans))

    def named_in(self, text: str) -> bool:
        """Whether the text has any of the tokens."""
        return next(self._tokens_in(text), None) is not None

    def _tokens_in(self, text: str) -> Iterator[Span]:
        if self._named is None:
            self._named = Occurrences(self._back)
        return self._named.spans(text)

    def check(self, texts: Iterable[str]) -> None:
        """Raises Unmaskable if a text still holds something that was to be replaced: put together, for example, by replacing.

        A pseudonym of the record itself may be among what was replaced, where the text forged it, and stands where its value was.
        """
        values, _ = self._occurrences()
        for text in texts:
            if any(text[start:end] not in self._back for start, end in values.spans(text)):
                raise Unmaskable("what was found in a text is still there after masking")


def _is_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    if after and unicodedata.combining(after):
        return False  # the mark makes another letter of the last one
    return not any(sign.isalnum() and ord(sign) < _UNSPACED for sign in (before, after) if sign)


def _in_text(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Where these places of `folded(text)` are in `text`."""
    where: list[int] = []  # most texts name nobody, and need none
    for start, end in spans:
        where = where or places(text)
        yield where[start], where[end - 1] + 1


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """In order; those that overlap are one."""
    first, last = 0, 0
    for start, end in sorted(spans):
        if start < last:
            last = max(last, end)
        else:
            if last:
                yield first, last
            first, last = start, end
    if last:
        yield first, last


def _first_ones(spans: Iterable[Span]) -> Iterator[Span]:
    """In order, without those that overlap one before."""
    last = 0
    for start, end in sorted(spans):
        if start >= last:
            yield start, end
            last = end


def _replaced(text: str, replacements: Iterable[tuple[int, int, str]]) -> str:
    """What stands between each two places becomes the third. What was put in is not looked at again."""
    parts: list[str] = []
    done = 0
    for start, end, new in replacements:
        parts += (text[done:start], new)
        done = end
    return "".join((*parts, text[done:]))
