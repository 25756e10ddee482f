"""Keyed pseudonyms: the same value of the same kind and tenant is always the same word, and says nothing without the key."""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import Final

from schemas.errors import ConfigError

DIGITS: Final = 16
"""Hex digits of a pseudonym."""
_SHORTEST = 32
_KEPT = 4096


class Pseudonyms:
    """The pseudonyms of one tenant. Raises ConfigError for a secret that could be guessed.

    Each kind has a key of its own, HMAC-SHA256 of tenant and kind under the secret. So equal values of two kinds, or of two
    tenants, can not be linked, and a tenant's pseudonyms do not change when another one comes. `key_id` names the secret for
    this tenant without giving it away.
    """

    def __init__(self, secret: str, tenant: str) -> None:
        if len(secret) < _SHORTEST:
            raise ConfigError(f"reading HEADRACE_MASKING_KEY: it has {len(secret)} characters, give {_SHORTEST} random ones")
        self._secret = secret.encode()
        self._tenant = tenant
        self._keys: dict[str, bytes] = {}
        self.key_id = self._derived("key id", "").hex()[:8]
        self._of = lru_cache(_KEPT)(self._make)

    def of(self, kind: str, value: str | int) -> str:
        """`kind-` and 16 hex digits. A number has the pseudonym of its digits."""
        return self._of(kind, str(value))

    def _make(self, kind: str, value: str) -> str:
        key = self._keys.get(kind) or self._keys.setdefault(kind, self._derived("kind", kind))
        # Half a surrogate pair is no text, but may stand in one: it has to have a pseudonym all the same.
        digest = hmac.digest(key, value.encode("utf-8", "surrogatepass"), "sha256")
        return f"{kind}-{digest.hex()[:DIGITS]}"

    def _derived(self, purpose: str, name: str) -> bytes:
        """No two of the parts can be moved into each other: none holds the separator, which is no character."""
        parts = ("headrace pseudonym 1", self._tenant, purpose, name)
        return hmac.digest(self._secret, b"\xff".join(part.encode() for part in parts), "sha256")
