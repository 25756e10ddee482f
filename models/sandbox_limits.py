"""Rate limits and latency of the sandbox, as providers have them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

from schemas.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


class Bucket:
    """A per-minute allowance enforced continuously: it refills `per_minute / 60` a second and holds `burst` seconds of it.

    One request may cost more than the bucket holds; it then waits for a full bucket and leaves a debt.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float], burst: float = 1.0) -> None:
        if per_minute <= 0:
            raise ConfigError(f"limiting the sandbox to {per_minute} a minute: the limit must be positive")
        self.per_minute = per_minute
        self._rate = per_minute / 60
        self._most = max(1.0, self._rate * burst)
        self._level = self._most
        self._clock = clock
        self._at = clock()

    @property
    def left(self) -> int:
        """What a request may still cost now."""
        self._refill()
        return max(0, int(self._level))

    def wait(self, cost: float) -> float:
        """Seconds until `cost` may be taken; 0.0 if at once."""
        self._refill()
        return max(0.0, (min(cost, self._most) - self._level) / self._rate)

    def take(self, cost: float) -> None:
        """Take `cost`, if need be into debt."""
        self._refill()
        self._level -= cost

    @property
    def reset(self) -> float:
        """Seconds until the bucket is full."""
        self._refill()
        return max(0.0, (self._most - self._level) / self._rate)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


MOST_SIGMA = 5.0
"""Past it a lognormal latency is minutes as often as microseconds."""


def latency(text: str, chance: random.Random) -> Callable[[], float]:
    """Seconds per answer out of a spec: `200ms`, uniform `100ms-300ms`, or `lognormal:200ms:0.5` (median, sigma).

    Raises ConfigError.
    """
    wrong = ConfigError(f"reading latency {text!r}: write 200ms, 100ms-300ms (the lower first) or lognormal:200ms:0.5")
    kind, _, rest = text.partition(":")
    if kind == "lognormal":
        median, _, sigma = rest.partition(":")
        try:
            middle, spread = math.log(max(1e-6, _seconds(median))), float(sigma or "0.5")
        except ValueError:
            raise wrong from None
        if not 0 <= spread <= MOST_SIGMA:
            raise wrong
        return lambda: chance.lognormvariate(middle, spread)
    low, _, high = text.partition("-")
    try:
        least, most = _seconds(low), _seconds(high or low)
    except ValueError:
        raise wrong from None
    if least > most:
        raise wrong
    return lambda: chance.uniform(least, most)


def _seconds(text: str) -> float:
    """Raises ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
