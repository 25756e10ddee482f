"""Finds numbers that prove themselves by a check digit: IBANs, payment cards, national ids of persons. python-stdnum checks them.

Pure. A shape says where such a number may stand, the library whether it is one. Where a country's number has no check digit
(US, GB, IN) its usual way of being written has to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from stdnum import iban, luhn
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

from models.detect import Span

Check = Callable[[str], bool]

_IBAN_START: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_IBAN_GROUP: Final = re.compile(r"[ -]?[A-Za-z0-9]{1,30}")
_IBAN_LEAST, _IBAN_MOST = 15, 34
_ENOUGH: Final = re.compile(r"\d(?:[ ./+-]?\d){5}")
_MIXED: Final = re.compile(r"[A-Za-z]\d{2}|\d{4}[A-Za-z]")
_CARD: Final = re.compile(
    r"(?<![\w.,-])(?=((?:\d{13,19}|\d{4}([ -])\d{4}\2\d{4}\2\d{1,7}|\d{4}([ -])\d{6}\3\d{4,5}))(?![\w]))", re.ASCII
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a number is written, and by whom: country -> whether it is one of theirs.

    `needs` is what a text holds that has such a number: most have none, and are looked at once instead of for each shape.
    """

    pattern: re.Pattern[str]
    checks: dict[str, Check]
    needs: re.Pattern[str]


def _shape(written: str, needs: re.Pattern[str] = _ENOUGH, **checks: Check) -> _Shape:
    return _Shape(re.compile(rf"(?<![\w.])(?:{written})(?![\w])", re.IGNORECASE | re.ASCII), checks, needs)


def _written_so(_: str) -> bool:
    return True


_SHAPES: Final = (
    _shape(r"\d{9}", NL=bsn.is_valid, CA=sin.is_valid, PT=nif.is_valid),
    _shape(r"\d{3}([ -])\d{3}\1\d{3}", CA=sin.is_valid),
    _shape(r"\d{3}-\d{2}-\d{4}", US=lambda number: ssn.is_valid(number) or itin.is_valid(number)),
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
    """IBANs with or without spaces, of the length that their country has."""
    for match in _IBAN_START.finditer(text):
        end, length = match.end(), 4
        ends: list[int] = []
        while length < _IBAN_MOST and (group := _IBAN_GROUP.match(text, end)):
            end, length = group.end(), length + len(group[0].lstrip(" -"))
            if _IBAN_LEAST <= length <= _IBAN_MOST:
                ends.append(end)
        for end in reversed(ends):
            if _is_iban(text[match.start() : end]):
                yield match.start(), end
                break


def _is_iban(text: str) -> bool:
    number = text.replace(" ", "").replace("-", "").upper()
    # The check digits are looked at first: the rest is a search in a registry of countries.
    return int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1 and bool(
        iban.is_valid(number, check_country=False)
    )


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards that pass Luhn's check."""
    for match in _CARD.finditer(text) if _ENOUGH.search(text) else ():
        digits = re.sub("[ -]", "", match[1])
        if digits[0] in "23456" and len(digits) >= 13 and len(set(digits)) > 1 and luhn.is_valid(digits):
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
