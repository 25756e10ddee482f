"""What a model costs: integer micro-units of a currency, from a table that is kept up to date elsewhere or from the settings.

The table is that of the genai-prices package (MIT), as installed: nothing is fetched. It knows a provider by its address, so a
gateway or a server of one's own has no price unless the settings give one: what is not known is never guessed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from schemas.audit import Tokens
from schemas.errors import ConfigError
from schemas.values import value

MICRO = 1_000_000
MTOK = 1_000_000
"""Prices are told for a million tokens."""
_COUNTED = frozenset({"input_mtok", "cache_read_mtok", "output_mtok"})
_NOT_USED = frozenset({
    "cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount", "cache_image_read_mtok",
    "input_audio_mtok", "input_audio_hours", "audio_hours", "output_audio_mtok", "cache_audio_read_mtok", "input_video_mtok",
    "output_video_mtok", "output_image_mtok", "input_document_kpages", "input_annotated_document_kpages",
})  # fmt: skip
"""Parts for what our requests do not ask for; what writes to a prompt cache cost is told in docs/decisions/budget.md."""


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

    def cost(self, tokens: Tokens) -> int:
        """Micro-units for so many tokens, rounded up. Cached input is part of the input, reasoning part of the output."""
        cached = min(tokens.cached_input, tokens.input)
        whole = (tokens.input - cached) * self.input + cached * self.cached_input + tokens.output * self.output
        return -(-whole // MTOK)


def configured(given: Decimal, cached: Decimal | None, output: Decimal, currency: str) -> Price:
    """The price as settings have it, in units for a million tokens. Cached input costs as much as any where it has no price."""
    return Price(_micro(given), _micro(given if cached is None else cached), _micro(output), currency)


def listed(model: str, base_url: str, at: datetime | None = None) -> Price | None:
    """What the table says of a model at this address; None where it knows neither. Prices in tiers count at their first.

    None as well where the price has a part that is not counted here: a Price without it would be too low.
    """
    try:
        provider, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    prices = found.get_prices(at or datetime.now(UTC))
    given, output = _first(prices, "input_mtok"), _first(prices, "output_mtok")
    if given is None or output is None or _uncounted(prices):
        return None
    cached = _first(prices, "cache_read_mtok")
    table = f"genai-prices {version('genai-prices')}: {provider.id}/{found.id}"
    return Price(_micro(given), _micro(given if cached is None else cached), _micro(output), "USD", table)


def uncounted(model: str, base_url: str, at: datetime | None = None) -> list[str]:
    """The parts for which `listed` has no Price of a model that the table knows, as the table calls them."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return []
    return _uncounted(found.get_prices(at or datetime.now(UTC)))


def _uncounted(prices: Any) -> list[str]:
    parts = {name for name, price in vars(prices).items() if price} - _COUNTED - _NOT_USED
    usual = {"input_image_mtok": "input_mtok", "output_reasoning_mtok": "output_mtok"}
    return sorted(part for part in parts if part not in usual or (_first(prices, part) or 0) > (_first(prices, usual[part]) or 0))


def _first(prices: Any, name: str) -> Decimal | None:
    price = getattr(prices, name, None)
    return price.base if isinstance(price, TieredPrices) else price


def _micro(units: Decimal) -> int:
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
