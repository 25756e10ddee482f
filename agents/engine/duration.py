"""Durations as a person writes them: "250ms", "2s", "10m", "1h", "30d"."""

from __future__ import annotations

import re

from schemas.errors import ConfigError

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def millis(text: str) -> int:
    """Milliseconds. Raises ConfigError for anything else than a number and one of ms, s, m, h, d."""
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ConfigError(f"reading duration {text!r}: write a number and one of ms, s, m, h, d, such as 250ms or 2s")
    return round(float(found[1]) * _UNITS[found[2]])
