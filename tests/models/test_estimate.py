"""How many tokens a request will have: a mean for rate limits, a bound for budgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.budget.estimate import TokenEstimate


def test_before_anything_was_counted_the_bound_is_a_token_for_each_byte() -> None:
    """No tokenizer that works on bytes makes more; the estimate is that of plain text."""
    estimate = TokenEstimate()
    assert (estimate.tokens(1000), estimate.most(1000, 0)) == (300, 1000)


@given(
    rates=st.lists(st.floats(0.1, 1.5), min_size=1, max_size=60), size=st.integers(100, 100_000), part=st.floats(0, 1),
)  # fmt: skip
def test_what_was_seen_stays_below_the_bound(rates: list[float], size: int, part: float) -> None:
    """Requests whose tokens per byte are those of the last sixty, in whatever order and size, have no more than it says."""
    estimate = TokenEstimate()
    for rate in rates:
        estimate.learn(size, round(size * rate))
    data = int(part * size)
    assert estimate.most(size, data) >= max(round(size * rate) for rate in rates)
    assert estimate.most(size, data) >= estimate.tokens(size)


@given(
    learned=st.lists(st.tuples(st.integers(0, 50_000), st.floats(0.05, 0.4)), min_size=1, max_size=60),
    frame=st.integers(200, 20_000), plain=st.floats(0.1, 0.3), data=st.integers(0, 50_000), odd=st.floats(0, 1),
)  # fmt: skip
def test_records_of_another_kind_than_all_before_stay_below_the_bound(
    learned: list[tuple[int, float]], frame: int, plain: float, data: int, odd: float
) -> None:
    """A plain prompt with records at whatever rate, then records that have up to a token for each byte: hexadecimal, emoji."""
    estimate = TokenEstimate()
    for size, rate in learned:
        estimate.learn(frame + size, round(frame * plain + size * rate))
    assert estimate.most(frame + data, data) >= int(frame * plain + data * odd)


def test_one_odd_count_is_not_believed_for_ever() -> None:
    """An endpoint that once counts a thousand tokens a byte is not refused for good, and its bound comes back."""
    estimate = TokenEstimate()
    estimate.learn(1000, 1_000_000)
    assert estimate.most(1000, 500) <= 2500
    for _ in range(5000):
        estimate.learn(1000, 250)
    assert estimate.most(1000, 0) <= 330
    assert estimate.most(1000, 1000) == 1000
