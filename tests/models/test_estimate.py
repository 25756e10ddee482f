"""How many tokens a request will have: a mean for rate limits, a bound for budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.estimate import TokenEstimate


def test_before_anything_was_counted_the_bound_is_a_token_for_each_byte() -> None:
    """No tokenizer that works on bytes makes more; the estimate is that of plain text."""
    estimate = TokenEstimate()
    assert (estimate.tokens(1000), estimate.most(1000)) == (300, 1000)


@given(rates=st.lists(st.floats(0.1, 1.5), min_size=1, max_size=60), size=st.integers(100, 100_000))
def test_what_was_seen_stays_below_the_bound(rates: list[float], size: int) -> None:
    """Requests whose tokens per byte are those of the last sixty, in whatever order and size, have no more than it says."""
    estimate = TokenEstimate()
    for rate in rates:
        estimate.learn(size, round(size * rate))
    assert estimate.most(size) >= max(round(size * rate) for rate in rates)
    assert estimate.most(size) >= estimate.tokens(size)


def test_one_odd_count_is_not_believed_for_ever() -> None:
    """An endpoint that once counts a thousand tokens a byte is not refused for good, and its bound comes back."""
    estimate = TokenEstimate()
    estimate.learn(1000, 1_000_000)
    assert estimate.most(1000) <= 2500
    for _ in range(5000):
        estimate.learn(1000, 250)
    assert estimate.most(1000) <= 330
