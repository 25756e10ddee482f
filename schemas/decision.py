"""Decision: what a business system subscribes to. Version 1; JSON Schema in schemas/v1/decision.json."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from schemas.wire import Wire

SCHEMA = "headrace.decision.v1"
TYPE = "io.headrace.decision.v1"


class Subject(Wire):
    """Whom or what the decision is about."""

    type: str
    id: str


class Source(Wire):
    """The input record; `timestamp` is the broker's record time."""

    topic: str
    partition: int
    offset: int
    timestamp: str | None = None
    op: str | None = None
    input_hash: str


class Input(Wire):
    """A joined row that was used: its coordinates, its age, and whether it was found."""

    name: str
    topic: str
    partition: int | None = None
    offset: int | None = None
    age_ms: int | None = None
    status: Literal["found", "missing", "stale"]


class WindowUsed(Wire):
    """The slice of the stream that the features saw. Times are event times."""

    name: str
    from_: str | None = Field(default=None, alias="from")
    to: str | None = None
    count: int
    first_offset: int | None = None
    last_offset: int | None = None
    truncated: bool = False


class Review(Wire):
    """Whether a person must look, why, and in which queue."""

    required: bool = False
    why: str | None = None
    queue: str | None = None


class ScaleUsed(Wire):
    """How to read the score."""

    meaning: str
    min: float
    max: float
    higher_is: str


class Reason(Wire):
    """One ranked reason out of the agent's closed catalogue."""

    code: str
    text: str
    feature: str | None = None
    origin: Literal["rule", "model", "scorecard"] = "rule"


Tier = Literal["rule", "model", "scorecard", "python", "fallback", "none"]


class Decision(Wire):
    """One decision about one subject of one input record.

    `id` is reproducible (schemas/identity.py): where delivery is at least once, the first decision with an id stands.
    `proposed_outcome` is what the tier proposed, `outcome` what stands after the rules named in `overrides`.
    `tier` "none" means that nothing answered in time; `tier_why` says what happened. Exact decimals are JSON strings.
    `features_hash` is the SHA-256 in hex of the judgement's `features`, masked where those are: compact JSON, its fields in
    alphabetical order; null where no features were made, or they could not be masked.
    """

    id: str
    schema_: str = Field(default=SCHEMA, alias="schema")
    kind: Literal["decision", "retraction"] = "decision"
    mode: Literal["live", "shadow", "replay"] = "live"
    run: str = "live"
    tenant: str = "default"
    agent: str
    version: int
    manifest: str
    subject: Subject
    part: int = 0
    parts: int = 1
    source: Source
    inputs: list[Input] = Field(default_factory=list)
    window: WindowUsed | None = None
    features_hash: str | None = None
    proposed_outcome: str | None = None
    outcome: str | None = None
    overrides: list[str] = Field(default_factory=list)
    review: Review = Field(default_factory=Review)
    missing: list[str] = Field(default_factory=list)
    score: float | None = None
    score_raw: float | None = None
    scale: ScaleUsed | None = None
    calibration: str | None = None
    reasons: list[Reason] = Field(default_factory=list, max_length=4)
    result: dict[str, Any] | None = None
    tier: Tier
    tier_why: str | None = None
    model_requested: str | None = None
    model_returned: str | None = None
    call_id: str | None = None
    event_at: str | None = None
    received_at: str
    decided_at: str
    valid_until: str | None = None
