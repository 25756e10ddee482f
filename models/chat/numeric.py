"""Which numbers a field of an answer may be, and which of these is nearest to a mean.

Pure. A field that has steps (whole numbers, `multiple_of`, `decimal_places`, `max_digits`) is reckoned in fractions: in floats
three tenths would be more than 0.3, and no decimal of one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DecimalSchema

_EXACT: Final = "exact"
_LIMITS: Final = (("ge", "minimum"), ("gt", "exclusiveMinimum"), ("le", "maximum"), ("lt", "exclusiveMaximum"),
                  ("multiple_of", "multipleOf"))  # fmt: skip
_MOST: Final = 1e300
"""What is beyond bounds nothing: no level between could be told."""
_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64 - 1
_DIGITS: Final = ("decimal_places", "max_digits")


def writable(whole: int) -> bool:
    """Whether JSON as it is written here can have this number."""
    return _LEAST_WHOLE <= whole <= _MOST_WHOLE


class ExactSchema(GenerateJsonSchema):
    """A JSON Schema that keeps what JSON Schema has no words for: the digits of a decimal, and its limits as they were given."""

    def decimal_schema(self, schema: DecimalSchema) -> JsonSchemaValue:
        """A number or a text, as ever; the number has the limits besides."""
        made = super().decimal_schema(schema)
        said: Mapping[str, Any] = {**schema}
        limits = {name: said[key] for key, name in _LIMITS if key in said} | {key: said[key] for key in _DIGITS if key in said}
        return {**made, "anyOf": [
            {**member, _EXACT: True, **limits} if member.get("type") == "number" else member for member in made["anyOf"]
        ]}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numbers:
    """All numbers from `low` to `high`, or where there is a `step` the multiples of it from `least` to `most` times.

    `unit` says that its bounds are 0 and 1.
    """

    low: float
    high: float
    unit: bool
    whole: bool
    exact: bool
    step: Fraction | None = None
    least: int = 0
    most: int = 0

    def nearest(self, mean: float) -> int | float | str:
        """As it stands in JSON. A decimal that no float is equal to is a text."""
        if self.step is None:
            return min(max(mean, self.low), self.high)
        found = self.step * min(max(round(Fraction(mean) / self.step), self.least), self.most)
        if self.whole:
            return int(found)
        close = float(found)
        if self.exact and not found and self.step.denominator > 1:
            return "0.0"  # the number 0.0 is read as 0, which has a digit before the point: it may have no room
        return _text(found) if self.exact and Fraction(repr(close)) != found else close

    def evenly(self, most: int) -> list[float]:
        """At most `most` numbers, from the lowest to the highest, in even steps."""
        if self.step is not None:
            steps = min(most - 1, self.most - self.least)
            low, all_ = self.step * self.least, self.step * (self.most - self.least)
            values = [low + all_ * place / steps for place in range(steps + 1)] if steps else [low]
            return [round(value) if self.whole else float(value) for value in values]
        return [self.low + (self.high - self.low) * place / (most - 1) for place in range(most)]


def numbers_of(*schemas: Mapping[str, Any]) -> Numbers | None:
    """What all of these JSON Schemas of one field allow together; None where a bound is absent, or nothing is between them,
    or a whole number between them has more than 64 bits.

    Constraints that pydantic checks after a validator stand beside the type, under their own names.
    """

    def said(*names: str) -> list[Fraction]:
        found = [schema[name] for schema in schemas for name in names if schema.get(name) is not None]
        return [Fraction(str(value)) for value in found if abs(value) <= _MOST]

    floors, ceilings = said("minimum", "ge"), said("maximum", "le")
    over, under = said("exclusiveMinimum", "gt"), said("exclusiveMaximum", "lt")
    if not floors + over or not ceilings + under:
        return None
    low, high = max(floors + over), min(ceilings + under)
    whole = any(schema.get("type") == "integer" for schema in schemas)
    exact = any(schema.get(_EXACT) for schema in schemas)
    largest = max(int(abs(bound)) - (bound.denominator == 1 and bound in over + under) for bound in (low, high))
    places, cap = _places(said("decimal_places"), said("max_digits"), largest)
    steps = [*said("multipleOf", "multiple_of"), *places, *([Fraction(1)] if whole else [])]
    unit = low == 0 and high == 1 and not whole
    if not steps:
        first, last = _inward(low, low in over, math.inf), _inward(high, high in under, -math.inf)
        return Numbers(first, last, unit, whole, exact) if first <= last else None
    step = _common(steps)
    if not step:
        return None
    least = math.floor(low / step) + 1 if low in over else math.ceil(low / step)
    most = math.ceil(high / step) - 1 if high in under else math.floor(high / step)
    if cap is not None:
        inside = math.ceil(cap / step) - 1
        least, most = max(least, -inside), min(most, inside)
    if least > most or (whole and not (writable(int(least * step)) and writable(int(most * step)))):
        return None
    return Numbers(float(least * step), float(most * step), unit, whole, exact, step, least, most)


def _places(places: list[Fraction], digits: list[Fraction], largest: int) -> tuple[list[Fraction], Fraction | None]:
    """The step that digits leave, if they do, and what a number has to be less than.

    Where the places are not said, there are as many as the digits of `largest`, which stand before the point, leave over.
    """
    if not digits:
        return ([Fraction(10) ** -int(min(places))] if places else []), None
    most = int(min(digits))
    before = len(str(largest)) if largest > 0 else 0
    kept = int(min(places)) if places else max(0, most - before)
    return [Fraction(10) ** -min(kept, most)], Fraction(10) ** max(0, most - kept)


def _common(steps: list[Fraction]) -> Fraction:
    """The least number that is a multiple of each."""
    return Fraction(math.lcm(*(step.numerator for step in steps)), math.gcd(*(step.denominator for step in steps)))


def _inward(bound: Fraction, is_open: bool, towards: float) -> float:
    """The outermost float that the bound allows."""
    near = float(bound)
    found = Fraction(repr(near))
    beyond = found < bound if towards > 0 else found > bound
    return math.nextafter(near, towards) if beyond or (is_open and found == bound) else near


def _text(number: Fraction) -> str:
    """The digits of a fraction that has an end."""
    places = 0
    while (number * 10**places).denominator != 1:
        places += 1
    digits = int(abs(number) * 10**places)
    return f"{Decimal((int(number < 0), tuple(map(int, str(digits))), -places)):f}"
