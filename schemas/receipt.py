"""Receipt: what one commit closed. From receipts, decisions and dead letters alone every input can be accounted for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.wire import Wire

SCHEMA = "headrace.receipt.v1"
Range = tuple[int, int]
"""Half-open range of offsets: [first, one past the last)."""


class Position(Wire):
    """How far a reference table had been read when the receipt was written."""

    name: str
    topic: str
    partition: int
    offset: int


class Chain(Wire):
    """What ties a receipt to the records of its commit and to the receipts before it (docs/decisions/audit-chain.md).

    `prev` is the SHA-256, in hex, of the value of the receipt before this one in the log of the same source partition and run;
    null for the first. So the SHA-256 of a receipt's own value is the head of the chain up to it, and there is no field for it.
    `first` is how many records the chain held before, `count` how many this commit adds. The others are base64: the first
    `width` bytes of each record's SHA-256 one after the other, in the order of their log. That of a decision or a judgement is
    of its value, that of a dead letter of its headers and value as `topics.chain.letter_digest` writes them. `width` is 32; less
    only where a commit has so many records that its receipt would not fit, 0 where not even 8 bytes of each did.
    """

    prev: str | None
    first: int
    count: int
    width: int = 32
    decisions: str = ""
    dead_letters: str = ""
    judgements: str = ""


class Receipt(Wire):
    """One commit of one source partition.

    `from`/`to` are the frontier before and after: every offset below `to` has its outcome. `seq` counts commits of the
    partition without a gap. `closed` are the ranges whose outcome is in this commit (above or below the frontier),
    `skips` the part of them that a named rule skipped, `part_skips` single parts [offset, part, rule] of records with
    several subjects, `lost` ranges that retention removed before they were read. `decisions` and `dead_letters` count the
    records published with it. `spend` is what asking about the partition has cost by `tenant/day` (UTC), in millionths of its
    calls' currency: today's, where the agent has a budget. `chain` is null where no judgements are kept, and in receipts older
    than it.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    agent: str
    version: int
    run: str = "live"
    promise: Literal["exactly-once", "at-least-once"]
    topic: str
    partition: int
    seq: int
    from_: int = Field(alias="from")
    to: int
    closed: list[Range] = Field(default_factory=list)
    skips: dict[str, list[Range]] = Field(default_factory=dict)
    part_skips: list[tuple[int, int, str]] = Field(default_factory=list)
    lost: list[Range] = Field(default_factory=list)
    decisions: int = 0
    dead_letters: int = 0
    references: list[Position] = Field(default_factory=list)
    spend: dict[str, int] = Field(default_factory=dict)
    worker: str
    at: str
    chain: Chain | None = None
