"""The audit chain of a source partition: each receipt names its records by digest, and the receipt before it by hash.

Nothing is written into the records themselves, so they stay as their schemas freeze them and may be erased: the receipts, which
hold no payload, carry the digests on. Both sides of it, the transport and verification, take the rules from here.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from schemas.receipt import Chain
from topics.handover import Outbound

WHOLE = 32
"""Bytes of a SHA-256."""
SHORT = 8
"""Bytes of each digest that are kept where whole ones do not fit: 64 bits, against chance and not against a patient forger."""
_NULL = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the chain of one source partition ends: the hash of its last receipt (None before the first), and its records."""

    head: str | None = None
    count: int = 0


def head(value: bytes) -> str:
    """The head of the chain up to and including the receipt with this value."""
    return sha256(value).hexdigest()


def value_digest(value: bytes | None) -> bytes:
    """The digest of a decision or a judgement."""
    return sha256(value or b"").digest()


def letter_digest(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    """The digest of a dead letter, whose headers say as much as its value.

    It is of each header's name and content in order, then of the value, each preceded by its length as four bytes, most
    significant first; ff ff ff ff stands for a content or value that is null.
    """
    hashed = sha256()
    for name, content in headers:
        for field in (name.encode(errors="surrogateescape"), content):
            hashed.update(_NULL if field is None else len(field).to_bytes(4, "big") + field)
    hashed.update(_NULL if value is None else len(value).to_bytes(4, "big") + value)
    return hashed.digest()


def chain(records: Sequence[Outbound], tip: Tip, room: int) -> Chain:
    """The chain's part of the receipt of a commit of `records`. `room` bounds the digests, in bytes of base64."""
    decisions: list[bytes] = []
    dead_letters: list[bytes] = []
    judgements: list[bytes] = []
    for record in records:
        if record.purpose == "dead_letter":
            dead_letters.append(letter_digest(record.value, record.headers))
        else:
            (decisions if record.purpose == "decision" else judgements).append(sha256(record.value or b"").digest())
    count = len(records)
    width = next((width for width in (WHOLE, SHORT) if count * width * 4 // 3 + 12 <= room), 0)
    return Chain.model_construct(
        prev=tip.head, first=tip.count, count=count, width=width, decisions=_pack(decisions, width),
        dead_letters=_pack(dead_letters, width), judgements=_pack(judgements, width),
    )  # fmt: skip


def _pack(digests: Sequence[bytes], width: int) -> str:
    return b64encode(b"".join(digests if width == WHOLE else [digest[:width] for digest in digests])).decode()


def unpack(text: str, width: int) -> list[bytes]:
    """The digests in one of a chain's texts. Raises ValueError for what is no base64, or not of whole digests."""
    if width not in (WHOLE, SHORT, 0):
        raise ValueError(f"digests of {width} bytes")
    try:
        raw = b64decode(text, validate=True)
    except NotBase64 as error:
        raise ValueError(f"digests that are no base64: {error}") from error
    if len(raw) % width if width else raw:
        raise ValueError(f"{len(raw)} bytes of digests of {width} bytes each")
    return [raw[at : at + width] for at in range(0, len(raw), width)] if width else []
