"""Points in time as devices and publishers write them: seconds, milli-, micro-, nanoseconds or ISO 8601, and the clock check."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from schemas.dead_letter import Fault
from topics.decode.faults import Bad, short
from topics.decode.numbers import EXACT, check_decimal
from topics.decode.result import Skipped
from topics.spec import Clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MIN_US = -62_135_596_800_000_000
MAX_US = 253_402_300_799_999_999
"""The years 1 to 9999 in epoch microseconds: what a datetime can hold."""
MIN_MS, MAX_MS = MIN_US // 1000, MAX_US // 1000

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_TO_US: dict[str, tuple[int, int]] = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
IMPLAUSIBLE = "event-time-implausible"


def epoch_us(value: Any, unit: str, field: str) -> int:
    """Epoch microseconds of a timestamp. `unit` is "auto", "s", "ms", "us", "ns" or "iso". Raises Bad invalid-time.

    "auto" takes the magnitude: below 1e11 seconds (until the year 5138), below 1e14 milliseconds, below 1e17
    microseconds, else nanoseconds; text that is not a number is ISO 8601, taken as UTC where it names no offset.
    """
    if isinstance(value, str):
        text = value.strip()
        if unit == "iso" or len(text) > 40 or not NUMBER.fullmatch(text):
            return _iso_us(text, field)
        try:
            value = Decimal(text) if any(c in text for c in ".eE") else int(text)
        except InvalidOperation:  # an exponent of more than 18 digits
            raise Bad("invalid-time", "outside the years 1 to 9999", field) from None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or unit == "iso":
        raise Bad("invalid-time", f"{short(value)} is not a timestamp", field)
    size: int | Decimal
    if isinstance(value, Decimal):
        check_decimal(value, field)
        size = value.copy_abs()
    else:
        size = abs(value)
    if size >= 10**30:
        raise Bad("invalid-time", "outside the years 1 to 9999", field)
    if unit == "auto":
        unit = "s" if size < 10**11 else "ms" if size < 10**14 else "us" if size < 10**17 else "ns"
    times, by = _TO_US[unit]
    if isinstance(value, Decimal):
        return checked_us(int(EXACT.divide_int(EXACT.multiply(value, Decimal(times)), Decimal(by))), field)
    return checked_us(value * times // by, field)


def checked_us(micros: int, field: str) -> int:
    """`micros` itself. Raises Bad invalid-time outside the years that a datetime can hold."""
    if not MIN_US <= micros <= MAX_US:
        raise Bad("invalid-time", "outside the years 1 to 9999", field)
    return micros


def at(micros: int) -> datetime:
    """Epoch microseconds as an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=micros)


def _iso_us(text: str, field: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise Bad("invalid-time", f"{short(text)} is neither ISO 8601 nor a number", field) from None


def clock_check(clock: Clock | None) -> Callable[[int | None, int], Fault | Skipped | None]:
    """A check of event time (epoch ms, None: not known) against the broker's record time (epoch ms, <= 0: not known)."""
    if clock is None:
        return lambda event_ms, record_ms: None
    past, future, skip = clock.max_past_ms, clock.max_future_ms, clock.on_violation == "skip"

    def check(event_ms: int | None, record_ms: int) -> Fault | Skipped | None:
        if event_ms is None or record_ms <= 0 or -past <= event_ms - record_ms <= future:
            return None
        if skip:
            return Skipped(IMPLAUSIBLE)
        gap = event_ms - record_ms
        side = f"{gap} ms after" if gap > 0 else f"{-gap} ms before"
        return Fault("decode", IMPLAUSIBLE, f"event time lies {side} the broker's record time")

    return check
