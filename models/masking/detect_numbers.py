"""Finds numbers that prove themselves by a check digit: IBANs, payment cards, national ids of persons. python-stdnum checks them.

Pure. A shape says where such a number may stand, the library whether it is one. Where a country's number has no check digit
(US, GB, IN) its usual way of being written has to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from stdnum import iban, luhn, numdb
from stdnum.at import vnr
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.ie import pps
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as za_idnr

from models.masking.detect import BEFORE_NUMBER, SEPARATOR, Span

Check = Callable[[str], bool]

# Found by its first digit, after two letters: digits are rare in texts, letters are not.
_IBAN: Final = re.compile(
    r"[0-9](?:(?<=[A-Za-z]{2}.)|(?<=[A-Za-z]{2}[\s.-].)|(?<=[A-Za-z]{2}\s\s.))"
    rf"(?={SEPARATOR}?[0-9](?:{SEPARATOR}?[A-Za-z0-9]){{11}})"
)
_IBAN_SIGN: Final = re.compile(r"[A-Za-z0-9]")
_NO_SIGN: Final = re.compile(r"[\s.-]")
_ENOUGH: Final = re.compile(r"\d(?:[\s./+-]{0,2}\d){5}")
_MIXED: Final = re.compile(r"[A-Za-z]\d{2}|\d{4}[A-Za-z]")
_CARD: Final = re.compile(
    rf"{BEFORE_NUMBER}(?<!\d-)(?=(\d{{13,19}}|\d{{4}}{SEPARATOR}\d{{4}}{SEPARATOR}\d{{4}}{SEPARATOR}\d{{1,7}}"
    rf"|\d{{4}}{SEPARATOR}\d{{6}}{SEPARATOR}\d{{4,5}})(?!\d))",
    re.ASCII,
)
_ISSUER: Final = re.compile(r"3[0-9]|[456]|2(?:2[0-9][0-9]|[3-6]|7[0-2])")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a number is written, and by whom: country -> whether it is one of theirs.

    `needs` is what a text holds that has such a number: most have none, and are looked at once instead of for each shape.
    """

    pattern: re.Pattern[str]
    checks: dict[str, Check]
    needs: re.Pattern[str]


def _shape(written: str, needs: re.Pattern[str] = _ENOUGH, **checks: Check) -> _Shape:
    return _Shape(
        re.compile(rf"(?<![A-Za-z]){BEFORE_NUMBER}(?:{written})(?![A-Za-z\d])", re.IGNORECASE | re.ASCII), checks, needs
    )


def _written_so(_: str) -> bool:
    return True


def _american(number: str) -> bool:
    digits = re.sub(r"[ .]", "-", number)
    return ssn.is_valid(digits) or itin.is_valid(digits)


_SHAPES: Final = (
    _shape(r"\d{9}", NL=bsn.is_valid, CA=sin.is_valid, PT=nif.is_valid),
    _shape(r"\d{3}([ -])\d{3}\1\d{3}", CA=sin.is_valid),
    _shape(r"\d{3}([- .])\d{2}\1\d{4}", US=_american),
    _shape(r"\d{10}", GB=nhs.is_valid, DK=cpr.is_valid, SE=personnummer.is_valid, AT=vnr.is_valid),
    _shape(r"\d{3}([ -])\d{3}\1\d{4}", GB=nhs.is_valid),
    _shape(r"\d{4} \d{6}", AT=vnr.is_valid),
    _shape(r"\d{6}[-+]\d{4}", DK=cpr.is_valid, SE=personnummer.is_valid),
    _shape(r"\d{8}-?\d{4}", SE=personnummer.is_valid),
    _shape(
        r"\d{11}", DE=idnr.is_valid, BE=nn.is_valid, PL=pesel.is_valid, NO=fodselsnummer.is_valid, TR=tckimlik.is_valid,
        BR=cpf.is_valid,
    ),
    _shape(r"\d{2}[ /]?\d{3}[ /]\d{3}[ /]?\d{3}", DE=idnr.is_valid),
    _shape(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", BE=nn.is_valid),
    _shape(r"\d{6} \d{5}", NO=fodselsnummer.is_valid),
    _shape(r"\d{3}\.\d{3}\.\d{3}-\d{2}", BR=cpf.is_valid),
    _shape(r"\d{4}([ -]?)\d{4}\1\d{4}", IN=aadhaar.is_valid),
    _shape(r"756([. ]?)\d{4}\1\d{4}\1\d{2}", CH=ahv.is_valid),
    _shape(r"\d{13}", RO=cnp.is_valid, ZA=za_idnr.is_valid),
    _shape(r"\d{6}-?\d{7}", KR=rrn.is_valid),
    _shape(r"[1-478]([ ]?)\d{2}\1\d{2}\1(?:\d{2}|2[AB])\1\d{3}\1\d{3}[ ]?\d{2}", FR=nir.is_valid),
    _shape(r"\d{17}[\dX]", CN=ric.is_valid),
    _shape(r"\d{8}[ -]?[A-Z]", ES=dni.is_valid),
    _shape(r"[XYZ][ -]?\d{7}[ -]?[A-Z]", ES=nie.is_valid),
    _shape(r"[A-Z]{6}[0-9L-V]{2}[A-Z][0-9L-V]{2}[A-Z][0-9L-V]{3}[A-Z]", _MIXED, IT=codicefiscale.is_valid),
    _shape(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Z]", FI=hetu.is_valid),
    _shape(r"\d{7}[A-W][A-IW]?", IE=pps.is_valid),
    _shape(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", MX=curp.is_valid),
    _shape(r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]([ ]?)\d{2}\1\d{2}\1\d{2}\1[A-D]", GB=_written_so),
    _shape(r"[A-Z]{3}[ABCFGHLJPT][A-Z]\d{4}[A-Z]", _MIXED, IN=pan.is_valid),
)  # fmt: skip

COUNTRIES: Final = tuple(sorted({country for shape in _SHAPES for country in shape.checks}))
"""Countries whose national ids are known here, as ISO 3166 codes."""


def ibans(text: str) -> Iterator[Span]:
    """IBANs, in groups or not, of the length that their country has, whatever stands before them."""
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        while not text[start + 1].isalpha():
            start -= 1
        length = _iban_length(text[start : start + 2].upper())
        end = _end_of(text, start, length) if length else None
        if end is not None and not text[end : end + 1].isdecimal() and _is_iban(text[start:end]):
            yield start, end


def _end_of(text: str, start: int, count: int) -> int | None:
    """Where `count` letters and digits from `start` on end."""
    for match in _IBAN_SIGN.finditer(text, start, start + 3 * count):
        count -= 1
        if not count:
            return match.end()
    return None


@cache
def _iban_length(country: str) -> int | None:
    """Of a country's IBANs, None where it has none. `country` is two letters."""
    structure = numdb.get("iban").info(country)[0][1].get("bban")
    return None if structure is None else 4 + sum(int(count) for count in re.findall(r"(\d+)!", structure))


def _is_iban(text: str) -> bool:
    number = _NO_SIGN.sub("", text).upper()
    # The check digits are looked at first: the rest is a search in a registry of countries.
    return (
        number.isalnum()
        and int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1
        and bool(iban.is_valid(number, check_country=False))
    )


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards that pass Luhn's check."""
    for match in _CARD.finditer(text) if _ENOUGH.search(text) else ():
        digits = _NO_SIGN.sub("", match[1])
        if match[1].count("\n") > 1:
            continue  # a column of a table, not one number that was wrapped
        if _ISSUER.match(digits) and len(digits) >= 13 and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield match.span(1)


class NationalIds:
    """National ids of the persons of these countries (COUNTRIES has those that are known)."""

    def __init__(self, countries: Collection[str]) -> None:
        self._shapes: dict[re.Pattern[str], list[tuple[re.Pattern[str], list[Check]]]] = {}
        for shape in _SHAPES:
            checks = [check for country, check in shape.checks.items() if country in countries]
            if checks:
                self._shapes.setdefault(shape.needs, []).append((shape.pattern, checks))

    def __call__(self, text: str) -> Iterator[Span]:
        """Where they stand."""
        for needs, shapes in self._shapes.items():
            for pattern, checks in shapes if needs.search(text) else ():
                yield from (match.span() for match in pattern.finditer(text) if any(check(match[0]) for check in checks))
