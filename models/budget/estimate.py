"""How many tokens a request will have, before it is sent: from its bytes, at the rate that this endpoint has reported so far.

A tokenizer would be exact for one vendor's models and wrong for all others; the endpoint's own `usage` is what is billed.
A rate limit is held by the mean: what one request has more, another has less. A budget's stop is not: it goes by a bound.
"""

from __future__ import annotations

import math

_FIRST = 0.3
_WEIGHT = 0.2
_LEAST, _MOST = 0.05, 2.0
_A_BYTE = 1.0
"""No tokenizer that works on bytes makes more tokens of a text than it has bytes."""
_MARGIN = 1.25
_FADES = 0.999


class TokenEstimate:
    """Tokens per byte, an exponentially weighted mean. Starts at 0.3, a little above English text, so that it errs upwards.

    `highest` is the highest rate of late: it fades by half in 700 requests, so that one odd count is not believed for ever.
    """

    def __init__(self) -> None:
        self.per_byte = _FIRST
        self.highest: float | None = None

    def tokens(self, size: int) -> int:
        """The estimate for a request body of `size` bytes, 1 at least."""
        return max(1, round(size * self.per_byte))

    def most(self, size: int, data: int) -> int:
        """What a request body of `size` bytes has at most, of which `data` are bytes of records.

        Records may be another kind of text than all before them, so each of their bytes is a token, or more where the endpoint
        has counted more. The rest is the same text in each request: a quarter above the highest rate of late, and not below
        what plain text has, since the rate may be that of records which have less. Before anything was counted all are records.
        """
        if self.highest is None:
            return max(self.tokens(size), math.ceil(size * _A_BYTE))
        rate = max(_FIRST, _MARGIN * self.highest)
        return max(self.tokens(size), math.ceil((size - data) * rate) + math.ceil(data * max(_A_BYTE, rate)))

    def learn(self, size: int, tokens: int) -> None:
        """A body of `size` bytes had so many tokens, by the endpoint's count; 0 is no count."""
        if size > 0 and tokens > 0:
            seen = min(_MOST, max(_LEAST, tokens / size))
            self.per_byte += _WEIGHT * (seen - self.per_byte)
            self.highest = max(seen, _FADES * (self.highest or 0.0))
