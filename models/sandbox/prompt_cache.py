"""The sandbox's prompt cache: how much of a request's beginning an earlier request had, byte for byte, as providers count it.

Providers keep the work that the beginning of a prompt took. OpenAI's counts from 1,024 tokens on, in steps of 128; a byte that
differs ends it. Here it is the whole body that counts, since the sandbox counts tokens by the body's bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

LEAST, STEP = 1024, 128
"""In tokens."""
TOKEN_BYTES = 4
_MOST = 65_536


class PromptCache:
    """Remembers beginnings of requests, as hashes; what was not used for longest goes first."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def cached(self, body: bytes) -> int:
        """Tokens of the longest beginning that an earlier request had too; this one's beginnings are remembered."""
        shared, within = 0, True
        for count, mark in enumerate(_marks(body), start=1):
            within = within and mark in self._seen
            if within:
                shared = count
            self._seen[mark] = None
            self._seen.move_to_end(mark)
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        tokens = shared * STEP
        return tokens if tokens >= LEAST else 0

    def tell(self, completion: dict[str, Any], body: bytes) -> int:
        """Put the count into a completion's usage. Returns it."""
        tokens = self.cached(body)
        completion["usage"]["prompt_tokens_details"] = {"cached_tokens": tokens}
        return tokens


def _marks(body: bytes) -> Iterator[bytes]:
    """A hash for each beginning of whole steps, the shortest first."""
    digest, size = sha256(), STEP * TOKEN_BYTES
    for start in range(0, len(body) - size + 1, size):
        digest.update(body[start : start + size])
        yield digest.digest()
