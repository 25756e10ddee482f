"""The sandbox's degradation with position: it judges those far down a batch worse than those at its top, if it is told to.

Real models do: answers in a long list drift with their place. This one does it in a way that is stated and repeatable: the first
`sound` records are judged as if each were alone; each bounded number of the n-th record behind them is off by up to n times
`points` per cent of its range, by a hash of the record's features and its place. So asking alone always gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class PositionNoise:
    """`sound` records at the top of a batch are judged well; behind them numbers are off by up to `points` per cent a place."""

    sound: int
    points: float

    def told(self, text: str, schema: Mapping[str, Any] | None, features: Sequence[Any]) -> str:
        """The content of a completion about records with these features, in their order; another content stays as it is."""
        try:
            answers = orjson.loads(text)["answers"]
            item = (schema or {})["properties"]["answers"]["items"]
            pairs = zip(answers, features, strict=True)
            worse = [self.degraded(answer, item, shown, place) for place, (answer, shown) in enumerate(pairs)]
        except (ValueError, KeyError, TypeError):
            return text
        return orjson.dumps({"answers": worse}).decode()

    def degraded(self, answer: Mapping[str, Any], schema: Mapping[str, Any], features: Any, place: int) -> dict[str, Any]:
        """The answer about the record at `place` (from 0) of a batch. `schema` is that of one answer."""
        behind = max(0, place - self.sound + 1)
        drawn = sha256(orjson.dumps([features, place], option=orjson.OPT_SORT_KEYS)).digest()
        off = (int.from_bytes(drawn[:4]) / 2**31 - 1) * behind * self.points / 100
        return {name: _moved(value, schema["properties"].get(name, {}), off) for name, value in answer.items()}


def _moved(value: Any, schema: Mapping[str, Any], off: float) -> Any:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(value, bool) or not isinstance(value, int | float) or low is None or high is None:
        return value
    moved = min(high, max(low, value + off * (high - low)))
    return round(moved) if isinstance(value, int) else moved
