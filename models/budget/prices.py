"""What a model costs: integer micro-units of a currency, from the settings or from a table (models/budget/price_table.py)."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Protocol

from schemas.audit import Tokens
from schemas.errors import ConfigError
from schemas.values import value

MICRO = 1_000_000
MTOK = 1_000_000
"""Prices are told for a million tokens."""


class Priced(Protocol):
    """What a model costs, by the time of a request."""

    def at(self, epoch_ms: int) -> Price:
        """The price of a request that ends at this time."""
        ...

    def bound(self, epoch_ms: int) -> Price:
        """A price that is not exceeded by that of any request which is sent at this time."""
        ...


@value
class Price:
    """Micro-units of `currency` for a million tokens of each class; `table` says where they are from.

    1 USD for a million tokens is 1,000,000 here, and one micro-unit for one token.
    """

    input: int
    cached_input: int
    output: int
    currency: str = "USD"
    table: str = "configured"

    def at(self, epoch_ms: int) -> Price:
        """It is the same at any time."""
        return self

    def bound(self, epoch_ms: int) -> Price:
        """It is the same at any time."""
        return self

    def cost(self, tokens: Tokens) -> int:
        """Micro-units for so many tokens, rounded up. Cached input is part of the input, reasoning part of the output."""
        cached = min(tokens.cached_input, tokens.input)
        whole = (tokens.input - cached) * self.input + cached * self.cached_input + tokens.output * self.output
        return -(-whole // MTOK)


def configured(given: Decimal, cached: Decimal | None, output: Decimal, currency: str) -> Price:
    """The price as settings have it, in units for a million tokens. Cached input costs as much as any where it has no price."""
    return Price(millionths(given), millionths(given if cached is None else cached), millionths(output), currency)


def millionths(units: Decimal) -> int:
    """Rounded up: a price below a millionth is not free."""
    return int((units * MICRO).to_integral_value(ROUND_CEILING))


def micro(amount: str, name: str) -> int:
    """Micro-units of an amount such as "12.50". Raises ConfigError, naming the setting, for what is no amount."""
    try:
        units = Decimal(amount)
    except ArithmeticError:
        units = Decimal(-1)
    if not units.is_finite() or units <= 0 or units > MICRO * MICRO:
        raise ConfigError(f"reading {name}: {amount!r} is no amount of money; write it like 12.50")
    return int(units * MICRO)
