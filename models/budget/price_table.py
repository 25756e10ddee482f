"""The table of the genai-prices package (MIT), as installed: nothing is fetched.

It knows a provider by its address, so a gateway or a server of one's own has no price unless the settings give one: what is not
known is never guessed. Some models have prices that depend on the hour or begin on a day: those are looked up for each request.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any, Final

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, StartDateConstraint, TieredPrices

from models.budget.prices import Price, Priced, millionths

_HOUR_MS: Final = 3_600_000
_COUNTED = frozenset({"input_mtok", "cache_read_mtok", "output_mtok"})
_NOT_USED = frozenset({
    "cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount", "cache_image_read_mtok",
    "input_audio_mtok", "input_audio_hours", "audio_hours", "output_audio_mtok", "cache_audio_read_mtok", "input_video_mtok",
    "output_video_mtok", "output_image_mtok", "input_document_kpages", "input_annotated_document_kpages",
})  # fmt: skip
"""Parts for what our requests do not ask for; what writes to a prompt cache cost is told in docs/decisions/budget.md."""



class Changing:
    """The prices of a model of the table that change with the time. Some price holds at any time from its making on."""

    def __init__(self, model: ModelInfo, prices: dict[int, Price]) -> None:
        self._model, self._prices = model, prices

    def at(self, epoch_ms: int) -> Price:
        """The price of a request that ends at this time."""
        return self._prices[id(self._model.get_prices(datetime.fromtimestamp(epoch_ms / 1000, UTC)))]

    def bound(self, epoch_ms: int) -> Price:
        """The dearer of the prices of now and in an hour: no request takes longer, and no price holds for less."""
        now, soon = self.at(epoch_ms), self.at(epoch_ms + _HOUR_MS)
        return Price(
            max(now.input, soon.input), max(now.cached_input, soon.cached_input), max(now.output, soon.output), now.currency,
            now.table,
        )  # fmt: skip


def listed(model: str, base_url: str, at: datetime | None = None) -> Priced | None:
    """What the table says of a model at this address, from `at` (now) on; None where it knows neither.

    Prices in tiers count at their first. None as well where a price has a part that is not counted here: a Price without it
    would be too low.
    """
    try:
        provider, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    table = f"genai-prices {version('genai-prices')}: {provider.id}/{found.id}"
    prices: dict[int, Price] = {}
    for parts in _from(found, at or datetime.now(UTC)):
        price = _price(parts, table)
        if price is None:
            return None
        prices[id(parts)] = price
    return Changing(found, prices) if len(prices) > 1 else next(iter(prices.values()))


def uncounted(model: str, base_url: str, at: datetime | None = None) -> list[str]:
    """The parts for which `listed` has no price of a model that the table knows, as the table calls them."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return []
    return sorted({part for prices in _from(found, at or datetime.now(UTC)) for part in _uncounted(prices)})


def _from(model: ModelInfo, at: datetime) -> Iterator[Any]:
    """All prices that may hold at `at` or later: of those in force the last one counts, so a start that was ends those before."""
    if not isinstance(model.prices, list):
        yield model.prices
        return
    begun = [
        place for place, one in enumerate(model.prices)
        if one.constraint is None or (isinstance(one.constraint, StartDateConstraint) and one.constraint.active(at))
    ]  # fmt: skip
    yield from (one.prices for one in model.prices[max(begun, default=0) :])


def _price(parts: Any, table: str) -> Price | None:
    given, output = _first(parts, "input_mtok"), _first(parts, "output_mtok")
    if given is None or output is None or _uncounted(parts):
        return None
    cached = _first(parts, "cache_read_mtok")
    return Price(millionths(given), millionths(given if cached is None else cached), millionths(output), "USD", table)


def _uncounted(prices: Any) -> list[str]:
    parts = {name for name, price in vars(prices).items() if price} - _COUNTED - _NOT_USED
    usual = {"input_image_mtok": "input_mtok", "output_reasoning_mtok": "output_mtok"}
    return sorted(part for part in parts if part not in usual or (_first(prices, part) or 0) > (_first(prices, usual[part]) or 0))


def _first(prices: Any, name: str) -> Decimal | None:
    price = getattr(prices, name, None)
    return price.base if isinstance(price, TieredPrices) else price
