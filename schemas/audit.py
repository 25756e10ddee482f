"""Judgement and Call: the audit of how a decision came about. Never read by business systems."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from schemas.wire import Wire

JUDGEMENT_SCHEMA = "headrace.judgement.v1"
CALL_SCHEMA = "headrace.call.v1"


class Judgement(Wire):
    """Published in the transaction of its decision: what was shown, what was answered, which rules fired.

    `features` are as the model was shown them, masks included. `raw_answer` is what came back, `answer` what validation made of
    it, `status` and `why` how asking ended (null where nothing was asked). `tiers` is the way to the answer, in order, `cache`
    whether a cache had it; then `call_id` is the call that it once came from.
    """

    schema_: str = Field(default=JUDGEMENT_SCHEMA, alias="schema")
    decision_id: str
    call_id: str | None = None
    position: int | None = None
    features: dict[str, Any] | None = None
    raw_answer: Any = None
    answer: dict[str, Any] | None = None
    rules: list[str] = Field(default_factory=list)
    proposed_outcome: str | None = None
    outcome: str | None = None
    cache: str | None = None
    tiers: list[str] = Field(default_factory=list)
    status: str | None = None
    why: str | None = None
    endpoint: str | None = None


MOST_TOKENS = 1 << 40
"""No request has as many tokens of one class: what says so was not counted."""
MOST_DIGITS = 9
"""Digits of a partition's number: it is one of 32 bits."""


def _tokens(count: int) -> int:
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError("not a number of tokens that a request can have")
    return count


def _cost(millionths: int | None) -> int | None:
    if millionths is not None and millionths < 0:
        raise ValueError("a cost is not below 0")
    return millionths


def _partitions(counts: dict[str, int]) -> dict[str, int]:
    for number, count in counts.items():
        if not (number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS and count >= 1):
            raise ValueError("to be partition numbers, each with 1 record or more")
    return counts


# Checked by functions, since a bound in the type would be one in the frozen schema.
TokenCount = Annotated[int, AfterValidator(_tokens)]
Cost = Annotated[int | None, AfterValidator(_cost)]
Counts = Annotated[dict[str, int], AfterValidator(_partitions)]


class Tokens(Wire):
    """Tokens by class, as the endpoint reported them."""

    input: TokenCount = 0
    cached_input: TokenCount = 0
    output: TokenCount = 0
    reasoning: TokenCount = 0


Purpose = Literal["decision", "canary"]
CallStatus = Literal["ok", "partial", "timeout", "unavailable", "limited", "rejected", "protocol", "refused", "cancelled"]


class Call(Wire):
    """One request to a model, published when it ends, whatever becomes of its outcomes. Times are RFC 3339.

    `worker` names one run of one process, `seq` counts its calls for this agent from 1 without a gap, `prev` is the SHA-256 in
    hex of the value of the call before it (null for the first), `unpublished` how many earlier ones the worker could not publish
    as far as it knew. `partitions` counts the records by source partition. `cost_micro` are millionths of `currency`
    by `price_table`, null where the price is not known: of the tokens reported, or of all that was reserved where the endpoint
    may bill a request that was cut off. So a call that is gone leaves a gap, whether or not a decision names it. `purpose`
    "canary" asked about one record once more, alone, to compare: no decision is made by it. `hedge_of` is the call whose request
    this one repeats since it was slow; the one of the two that came too late is "cancelled", and costs all that was reserved.
    """

    schema_: str = Field(default=CALL_SCHEMA, alias="schema")
    call_id: str
    agent: str
    attempt: int = 1
    hedge_of: str | None = None
    manifest: str | None = None
    endpoint: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    model_requested: str
    model_returned: str | None = None
    request_hash: str
    response_hash: str | None = None
    records: list[str] = Field(default_factory=list)
    nonce: str | None = None
    shuffle_seed: int | None = None
    status: CallStatus
    error: str | None = None
    finish_reason: str | None = None
    tokens_reserved: int = 0
    tokens: Tokens = Field(default_factory=Tokens)
    cost_micro: Cost = None
    currency: str | None = None
    price_table: str | None = None
    queued_at: str | None = None
    sent_at: str | None = None
    first_at: str | None = None
    done_at: str | None = None
    masking: str | None = None
    tenant: str | None = None
    partitions: Counts = Field(default_factory=dict)
    worker: str | None = None
    seq: int | None = None
    prev: str | None = None
    unpublished: int = 0
    purpose: Purpose = "decision"
