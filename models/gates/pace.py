"""Pace: an allowance of requests and of tokens that refills evenly. Pure; the time is an argument, in seconds.

Both servers there are accept an even pace: one that refills evenly, and one that gives out a whole minute's allowance at once.
"""

from __future__ import annotations

import math


class Pace:
    """`requests` and `tokens` a second, infinity for no limit, up to `seconds` of each saved (of requests at least one).

    What costs more than can be saved leaves when all is saved, into debt.
    """

    def __init__(self, requests: float, tokens: float, seconds: float, now: float) -> None:
        self.requests, self.tokens = requests, tokens
        self._seconds = seconds
        self._at = now
        self._most_requests = max(1.0, requests * seconds)
        self._most_tokens = tokens * seconds
        self._saved_requests = self._most_requests
        self._saved_tokens = self._most_tokens

    @property
    def saved(self) -> tuple[float, float]:
        """Requests and tokens at hand when last looked; negative: owed. Infinity where nothing limits."""
        return self._saved_requests, self._saved_tokens

    def wait(self, tokens: float, now: float, requests: float = 1.0) -> float:
        """Seconds until one request (or the last of `requests`) of so many tokens may leave; infinity where nothing refills."""
        self._refill(now)
        lacking = requests - self._saved_requests
        wait = 0.0
        if lacking > 1e-9:
            if not self.requests:
                return math.inf
            wait = lacking / self.requests
        lacking = min(tokens, self._most_tokens) if requests == 1.0 else tokens
        lacking -= self._saved_tokens
        if lacking > 1e-6:
            if not self.tokens:
                return math.inf
            wait = max(wait, lacking / self.tokens)
        return wait

    def take(self, tokens: float, now: float, requests: float = 1.0) -> None:
        """Take it, if need be into debt."""
        self._refill(now)
        self._saved_requests -= requests
        self._saved_tokens -= tokens

    def give_back(self, tokens: float, now: float, requests: float = 0.0) -> None:
        """What was reserved and not used, up to what can be saved; negative: more was used than reserved."""
        self._refill(now)
        self._saved_requests = min(self._most_requests, self._saved_requests + requests)
        self._saved_tokens = min(self._most_tokens, self._saved_tokens + tokens)

    def change(self, requests: float, tokens: float, now: float) -> None:
        """From now on another pace. What is owed stays owed; what is saved stays, up to what can be saved now."""
        self._refill(now)
        self.requests = requests
        self._most_requests = max(1.0, requests * self._seconds)
        self._saved_requests = min(self._saved_requests, self._most_requests)
        if math.isinf(self._saved_tokens) and not math.isinf(tokens):
            self._saved_tokens = 0.0
        self.tokens = tokens
        self._most_tokens = tokens * self._seconds
        self._saved_tokens = math.inf if math.isinf(tokens) else min(self._saved_tokens, self._most_tokens)

    def drain(self, now: float) -> None:
        """Forget what was saved: the endpoint has just said that there is nothing left."""
        self._refill(now)
        self._saved_requests = min(self._saved_requests, 0.0)
        if not math.isinf(self.tokens):
            self._saved_tokens = min(self._saved_tokens, 0.0)

    def trim(self, seconds: float, now: float) -> None:
        """Keep no more saved than so many seconds' worth, and one request."""
        self._refill(now)
        self._saved_requests = min(self._saved_requests, max(1.0, self.requests * seconds))
        if not math.isinf(self.tokens):
            self._saved_tokens = min(self._saved_tokens, self.tokens * seconds)

    def _refill(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            self._at = now
            self._saved_requests = min(self._most_requests, self._saved_requests + passed * self.requests)
            self._saved_tokens = min(self._most_tokens, self._saved_tokens + passed * self.tokens)
