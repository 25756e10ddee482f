"""Scrubber: where in a free text there is what a model has no business to see. Names of persons are not among it.

Pure. Each kind is found by a detector of its own; where two overlap, both are covered, under the kind that comes first.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from models.masking.detect import Span, addresses, credentials, emails, secrets
from models.masking.detect_numbers import COUNTRIES as ID_COUNTRIES
from models.masking.detect_numbers import NationalIds, cards, ibans
from models.masking.detect_phones import COUNTRIES as PHONE_COUNTRIES
from models.masking.detect_phones import Phones
from models.masking.plain import readings, trimmed
from schemas.errors import ConfigError

KINDS: Final = ("EMAIL", "PHONE", "IBAN", "CARD", "NATIONAL_ID", "IP", "CREDENTIALS", "SECRET", "CUT", "LITERAL")
"""What a placeholder may stand for. LITERAL is text that looked like a placeholder; CUT the end of a text that was cut there."""
DEFAULT_COUNTRIES: Final = ("AT", "BE", "CH", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IT", "NL", "NO", "PL", "PT", "SE", "US")

COUNTRIES: Final = frozenset((*ID_COUNTRIES, *PHONE_COUNTRIES))
"""Those of which anything is known: national ids, or phone numbers without their country code."""


_FORGED: Final = re.compile(rf"[\[【〔]\s{{0,3}}(?:{'|'.join(KINDS)})[\s_-]{{0,3}}\d{{1,9}}\s{{0,3}}[\]】〕]", re.IGNORECASE)
_GROUP: Final = re.compile(r"(?:[A-Za-z]{0,2}\d[A-Za-z0-9./()-]{0,7}|[+(]{1,2}\d{1,6}\)?|[A-Z]{4})\Z")
_TELLING: Final = re.compile(r"[@:/=]|\d(?:.{0,3}\d){2}|.{12}")
_LONGEST_TAIL: Final = 60


class Found(NamedTuple):
    """A place in a text, from `start` up to `end`, and what stands there."""

    start: int
    end: int
    kind: str


class Scrubber:
    """Finds what is of KINDS. Raises ConfigError for a country that nothing is known of.

    `countries` (ISO 3166) are those whose national ids, and whose phone numbers without a country code, are looked for.
    """

    def __init__(self, countries: Collection[str] = DEFAULT_COUNTRIES) -> None:
        unknown = sorted(set(countries) - COUNTRIES)
        if unknown:
            raise ConfigError(f"reading HEADRACE_MASKING_COUNTRIES: nothing is known of {', '.join(unknown)}; "
                              f"give some of {', '.join(sorted(COUNTRIES))}")  # fmt: skip
        self.countries = tuple(sorted(set(countries)))
        self._phones = Phones(self.countries)
        self._detectors: tuple[tuple[str, Callable[[str], Iterator[Span]]], ...] = (
            ("CREDENTIALS", credentials), ("SECRET", secrets), ("EMAIL", emails), ("IBAN", ibans), ("CARD", cards),
            ("NATIONAL_ID", NationalIds(self.countries)), ("IP", addresses),
        )  # fmt: skip

    def find(self, text: str, *, cut: bool = False, forged: re.Pattern[str] | None = None) -> list[Found]:
        """What is found, in order, without overlaps. `cut` says that the text went on, but was cut; `forged` is what else looks
        like ours.
        """
        patterns = [pattern for pattern in (_FORGED, forged) if pattern is not None]
        found: list[Found] = []
        for reading, where in readings(text):
            # As found in another reading: for phones, which are not looked for in what is something else.
            before = [Found(bisect_left(where, start), bisect_left(where, end), kind) for start, end, kind in found]
            more = self._found(reading, before, patterns, cut=cut)
            found += [Found(*trimmed(text, where[start], where[end - 1] + 1), kind) for start, end, kind in more]
        found = [each for each in found if each.start < each.end]
        return _joined(found) if len(found) > 1 else found

    def _found(self, text: str, before: list[Found], patterns: list[re.Pattern[str]], *, cut: bool) -> list[Found]:
        """What is found in it, beside what was found before."""
        found = [Found(*match.span(), "LITERAL") for pattern in patterns for match in pattern.finditer(text)]
        for kind, detector in self._detectors:
            found += [Found(start, end, kind) for start, end in detector(text)]
        # Phones last, and not in what is something else already: nothing looks as much like other numbers as they do.
        found += [Found(start, end, "PHONE") for start, end in self._phones(_without(text, [*before, *found]))]
        if cut and (start := _tail(text)) is not None:
            found.append(Found(start, len(text), "CUT"))
        return found


def _tail(text: str) -> int | None:
    """Where the last word of a text that was cut begins, with the groups of digits before it, if it may be part of something.

    The beginning of an address, a card, an IBAN or a key is not recognised by its form any more.
    """
    end = len(text.rstrip())
    start = max(text.rfind(space, 0, end) for space in " \n\t") + 1
    last = end
    while end - start < _LONGEST_TAIL and text[start - 1 : start] == " " and _GROUP.match(text[start:last]):
        start, last = text.rfind(" ", 0, start - 1) + 1, start - 1
    if last < end and not _GROUP.match(text[start:last]):
        start = last + 1
    return start if _TELLING.search(text, start) else None


def _without(text: str, found: list[Found]) -> str:
    """`text` with blanks where something was found; as long as it was."""
    parts: list[str] = []
    done = 0
    for start, end, _ in sorted(found):
        if end > done:
            parts += (text[done:start], "\n" * (end - max(start, done)))
            done = end
    return "".join((*parts, text[done:])) if parts else text


def _joined(found: list[Found]) -> list[Found]:
    """Without overlaps: what overlaps becomes one, of the kind that was found first."""
    joined: list[tuple[int, Found]] = []
    for rank, each in sorted(enumerate(found), key=lambda ranked: ranked[1][:2]):
        first, last = joined[-1] if joined else (0, Found(0, 0, ""))
        if each.start < last.end:
            kind = last.kind if first < rank else each.kind
            joined[-1] = min(first, rank), Found(last.start, max(last.end, each.end), kind)
        else:
            joined.append((rank, each))
    return [each for _, each in joined]
