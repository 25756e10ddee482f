"""Rate-limit headers as hints: what an endpoint says of its limits, and when it would have the next request. Pure.

What is known of them (all optional, all sometimes -1, 0 or left over from a proxy, so nothing here is more than a hint):
    OpenAI                          x-ratelimit-limit-requests: 600, -remaining-tokens: 149984, -reset-requests: 6m0s
    Azure OpenAI                    the same names, resets as a number of seconds, x-ratelimit-renewalperiod-requests in seconds
    Groq and others                 the same names, but requests are per day
    gateways (Kong, Envoy)          x-ratelimit-limit: 100, 100;w=60, after draft-ietf-httpapi-ratelimit-headers
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MOST = 1e9
"""A limit above it is somebody's way to write "none"."""
_MINUTE, _MOST_PERIOD = 60.0, 3600.0
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_PARTS.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)
_LONGEST = 64


def seconds(text: str | None, now: float | None = None) -> float | None:
    """Seconds out of `6m0s`, `120ms`, `12`, `1.5` or an HTTP date; None for anything else, negative numbers included.

    `now` is the time of day in seconds since 1970, needed for dates and for numbers that are such times themselves.
    """
    text = "" if text is None else text.strip()
    if not text or len(text) > _LONGEST:
        return None
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value >= 1e9:  # a time of day, in seconds or milliseconds
            value = value / 1000 if value >= 1e12 else value
            return None if now is None else max(0.0, value - now)
        return value
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    if now is None:
        return None
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def limits_hint(headers: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Limits (requests, tokens) a second that the headers name; None where they do not, or where it can not be one a minute."""
    bare = _limit(headers, "")
    requests = _limit(headers, "-requests")
    return (requests if requests is not None else bare), _limit(headers, "-tokens")


def wait_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait after a 429 without Retry-After: the reset of what has nothing remaining. None: nothing is said.

    For an allowance that refills evenly this is when it is full again, long after the next request could go: only where the whole
    of an allowance comes back at once is it the time to wait, so it is heeded only where a window is named.
    """
    waits = []
    for what in ("", "-requests", "-tokens"):
        if _count(headers.get(f"x-ratelimit-remaining{what}")) == 0 and _window(headers.get(f"x-ratelimit-limit{what}")):
            wait = seconds(headers.get(f"x-ratelimit-reset{what}"))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


def _limit(headers: Mapping[str, str], what: str) -> float | None:
    text = headers.get(f"x-ratelimit-limit{what}")
    limit = _count(text)
    if limit is None or not 0 < limit <= _MOST:
        return None
    period = _window(text) or seconds(headers.get(f"x-ratelimit-renewalperiod{what}"))
    if period:
        return limit / period if period <= _MOST_PERIOD else None
    return limit / _MINUTE if _a_minute(headers, what, limit) else None


def _a_minute(headers: Mapping[str, str], what: str, limit: float) -> bool:
    """Whether a limit without a period can be one a minute: what is missing from it must not take longer to come back.

    Refilled evenly, the part that is missing comes back in that part of the period; given out at once, within a period.
    """
    remaining = _count(headers.get(f"x-ratelimit-remaining{what}"))
    reset = seconds(headers.get(f"x-ratelimit-reset{what}"))
    if remaining is None or reset is None or remaining > limit:
        return False
    if reset > _MINUTE + 5:
        return False
    missing = (limit - remaining) / limit
    return missing > 0 and reset / missing <= 3 * _MINUTE


def _count(text: str | None) -> float | None:
    """The number that a header starts with; None for garbage and negatives."""
    first = "" if text is None else text.split(",", 1)[0].split(";", 1)[0].strip()
    return float(first) if _NUMBER.fullmatch(first) else None


def _window(text: str | None) -> float | None:
    """Seconds in `100, 100;w=60`."""
    found = re.search(r";\s*w=(\d{1,9})(?!\d)", text or "", re.ASCII)
    value = float(found[1]) if found else math.nan
    return value if value > 0 else None
