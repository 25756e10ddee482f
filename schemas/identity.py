"""How records and decisions are named. Both rules can be repeated in any language from what is on the topics."""

from __future__ import annotations

from hashlib import sha256


def input_hash(value: bytes | None) -> str:
    """SHA-256 of the raw record value in hex; of the empty string for a tombstone."""
    return sha256(value or b"").hexdigest()


def decision_id(agent: str, topic: str, partition: int, offset: int, value_hash: str, part: int, run: str) -> str:
    """First 32 hex digits of the SHA-256 over the seven values joined by line feeds, in this order.

    The agent's version is not in it: a rolling upgrade gives the same record the same decision id.
    """
    text = f"{agent}\n{topic}\n{partition}\n{offset}\n{value_hash}\n{part}\n{run}"
    return sha256(text.encode()).hexdigest()[:32]
