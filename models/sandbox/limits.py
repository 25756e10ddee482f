"""Rate limits and latency of the sandbox, as providers have them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Protocol

from schemas.errors import ConfigError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


class Allowance(Protocol):
    """Requests or tokens that an account may use; `per_minute` is the limit as of now."""

    per_minute: float

    @property
    def left(self) -> int:
        """What a request may still cost now."""
        ...

    @property
    def reset(self) -> float:
        """Seconds until all of it is there again."""
        ...

    def wait(self, cost: float) -> float:
        """Seconds until `cost` may be taken; 0.0 if at once."""
        ...

    def take(self, cost: float) -> None:
        """Take `cost`, if need be into debt."""
        ...

    def change(self, per_minute: float) -> None:
        """From now on another limit; what is left shrinks or grows alike."""
        ...


class Bucket:
    """A per-minute allowance enforced continuously: it refills `per_minute / 60` a second and holds `burst` seconds of it.

    One request may cost more than the bucket holds; it then waits for a full bucket and leaves a debt.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float], burst: float = 1.0) -> None:
        self.per_minute = _positive(per_minute)
        self._burst = burst
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

    def change(self, per_minute: float) -> None:
        """From now on another limit; what is left shrinks or grows alike."""
        self._refill()
        factor = _positive(per_minute) / self.per_minute
        self.per_minute, self._rate = per_minute, per_minute / 60
        self._most = max(1.0, self._rate * self._burst)
        self._level = min(self._most, self._level * factor)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Minute:
    """A per-minute allowance that is given out whole at each minute's start; what was not used by then is gone, debt as well.

    The first minute starts `phase` seconds from now. Of the minute before it the part that is left is given, as if it had been
    used evenly until now: so what is admitted until a minute's end is never more than the limit times the time.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float], phase: float = 0.0) -> None:
        self.per_minute = _positive(per_minute)
        self._clock = clock
        self._next = clock() + phase % 60
        self._level = per_minute * (phase % 60) / 60

    @property
    def left(self) -> int:
        """What a request may still cost now."""
        self._refill()
        return max(0, int(self._level))

    @property
    def reset(self) -> float:
        """Seconds until the next minute."""
        self._refill()
        return self._next - self._clock()

    def wait(self, cost: float) -> float:
        """Seconds until `cost` may be taken: none, or until the next minute. What costs more than that waits for all of it."""
        self._refill()
        return 0.0 if self._level >= min(cost, self.per_minute) else self._next - self._clock()

    def take(self, cost: float) -> None:
        """Take `cost`, if need be into debt."""
        self._refill()
        self._level -= cost

    def change(self, per_minute: float) -> None:
        """From now on another limit; what is left of this minute shrinks or grows alike."""
        self._refill()
        self._level *= _positive(per_minute) / self.per_minute
        self.per_minute = per_minute

    def _refill(self) -> None:
        behind = self._clock() - self._next
        if behind >= 0:
            self._next += 60 * (1 + behind // 60)
            self._level = self.per_minute


def _positive(per_minute: float) -> float:
    if per_minute <= 0:
        raise ConfigError(f"limiting the sandbox to {per_minute} a minute: the limit must be positive")
    return per_minute


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
