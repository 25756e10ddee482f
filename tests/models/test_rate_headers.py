"""Rate-limit headers are hints: what can not be true is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.gates.rate_headers import limits_hint, seconds, wait_hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("12", 12.0), ("1.5", 1.5), ("0", 0.0), ("2d", 172800.0),
     ("Tue, 24 Nov 2026 04:00:10 GMT", 10.0), ("1795492810", 10.0), ("1795492810000", 10.0)],
)  # fmt: skip
def test_durations_numbers_and_dates_are_read(text: str, expected: float) -> None:
    """Every form that an endpoint is known to write comes out in seconds."""
    assert seconds(text, 1795492800.0) == pytest.approx(expected)


@pytest.mark.parametrize("text", [None, "", "-1", "soon", "nan", "inf", "1e9", "6m0", "١٢", "9" * 100, "Tue, 99 Nov 2026"])
def test_garbage_is_no_hint(text: str | None) -> None:
    """What is no time is none, and raises nothing."""
    assert seconds(text, 1795492800.0) is None


_NAMES = [f"x-ratelimit-{a}{b}" for a in ("limit", "remaining", "reset") for b in ("", "-requests", "-tokens")]


@given(st.dictionaries(st.sampled_from(_NAMES), st.text()))
def test_no_header_ever_raises_or_gives_a_limit_that_is_not_positive(headers: dict[str, str]) -> None:
    """Headers are somebody's text: a hint is a positive number or nothing."""
    assert all(limit is None or limit > 0 for limit in limits_hint(headers))
    wait = wait_hint(headers)
    assert wait is None or wait >= 0


def _headers(limit: str, remaining: str, reset: str, what: str = "requests") -> dict[str, str]:
    return {f"x-ratelimit-limit-{what}": limit, f"x-ratelimit-remaining-{what}": remaining, f"x-ratelimit-reset-{what}": reset}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (_headers("600", "594", "600ms"), (10.0, None)),
        (_headers("60000", "30000", "30", "tokens"), (None, 1000.0)),
        ({"x-ratelimit-limit": "100, 100;w=60"}, (100 / 60, None)),
        ({"x-ratelimit-limit-requests": "10", "x-ratelimit-renewalperiod-requests": "10"}, (1.0, None)),
        (_headers("14400", "14370", "2m59.56s"), (None, None)),
        (_headers("14400", "14399", "6s"), (None, None)),
        (_headers("-1", "-1", "0"), (None, None)),
        (_headers("0", "0", "0"), (None, None)),
        ({"x-ratelimit-limit-requests": "600"}, (None, None)),
    ],
)
def test_a_limit_is_taken_only_where_it_can_be_one_a_minute(
    headers: dict[str, str], expected: tuple[float | None, float | None]
) -> None:
    """A limit a day under the same name, -1 and 0 are told apart from a limit a minute by how soon it comes back."""
    assert limits_hint(headers) == expected
