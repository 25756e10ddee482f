"""How many tokens a request will have, before it is sent: from its bytes, at the rate that this endpoint has reported so far.

A tokenizer would be exact for one vendor's models and wrong for all others; the endpoint's own `usage` is what is billed.
"""

from __future__ import annotations

_FIRST = 0.3
_WEIGHT = 0.2
_LEAST, _MOST = 0.05, 2.0


class TokenEstimate:
    """Tokens per byte, an exponentially weighted mean. Starts at 0.3, a little above English text, so that it errs upwards."""

    def __init__(self) -> None:
        self.per_byte = _FIRST

    def tokens(self, size: int) -> int:
        """The estimate for a request body of `size` bytes, 1 at least."""
        return max(1, round(size * self.per_byte))

    def learn(self, size: int, tokens: int) -> None:
        """A body of `size` bytes had so many tokens, by the endpoint's count; 0 is no count."""
        if size > 0 and tokens > 0:
            seen = min(_MOST, max(_LEAST, tokens / size))
            self.per_byte += _WEIGHT * (seen - self.per_byte)
