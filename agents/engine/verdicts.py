"""From an agent's verdict to the published decision: policy that no agent can lower, reasons checked, JSON and headers.

The body is built as a plain dict: tests hold it against schemas.decision.Decision, and building the model itself would cost
several times as much for each record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson
from pydantic import BaseModel

from agents.engine.duration import millis
from agents.engine.kept_answer import KeptAnswers
from agents.engine.spec import Context, DecisionAgent, Joined, Reason, Verdict, WindowView
from models.contract import Answer
from schemas.audit import JUDGEMENT_SCHEMA
from schemas.decision import SCHEMA, TYPE
from schemas.wire import rfc3339
from topics.handover import Outbound

Agent = DecisionAgent[Any, Any, Any]
NO_REVIEW = {"required": False, "why": None, "queue": None}
MOST_REASONS = 4
ASKED = frozenset({"model", "scorecard", "python", "fallback"})


def to_json(value: Any) -> Any:
    """What orjson can not write itself: exact decimals become strings, models dicts. Raises TypeError for anything else."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"writing a decision: {type(value).__name__} has no JSON form")


def dump(body: Any) -> bytes:
    """JSON with every integer exact: orjson refuses those beyond 64 bits, so a body that has one is written the slow way."""
    try:
        return orjson.dumps(body, default=to_json)
    except TypeError:
        return json.dumps(body, default=to_json, separators=(",", ":"), allow_nan=False).encode()


def features_hash(features: Mapping[str, Any]) -> str:
    """SHA-256 in hex of dumped features as compact JSON, the fields in alphabetical order.

    Of masked ones where a decision is published: a digest of the real ones beside the masked ones undoes them, since few
    values are left to try. Pseudonyms are keyed, so theirs gives away nothing.
    """
    return sha256(dump(dict(sorted(features.items())))).hexdigest()


@dataclass(frozen=True, slots=True)
class Site:
    """What is the same for every decision of one running agent."""

    manifest: str
    tenant: str = "default"
    run: str = "live"
    mode: str = "live"


@dataclass(slots=True)
class Origin:
    """Which part of which input record is decided; `input_hash` and `id` as in schemas/identity.py, `op` of a change."""

    id: str
    input_hash: str
    part: int
    parts: int
    received_ms: int
    op: str | None = None
    trace: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Ruled:
    """A verdict after the rules that no agent can lower."""

    verdict: Verdict
    outcome: str
    proposed: str
    overrides: list[str]
    review: dict[str, Any]
    reasons: list[dict[str, Any]]
    tier: str
    tier_why: str | None


class Rules:
    """The policy around an agent's own: no answer means review, a model alone does not do harm, reasons must hold."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._texts = {code: entry.text.get(agent.language, code) for code, entry in agent.reasons.items()}
        self.reasons_dropped = 0

    def apply(self, verdict: Verdict, features: BaseModel | None, tier: str, tier_why: str | None) -> Ruled:
        """Raises ValueError for an outcome that the agent did not declare: a defect of the agent, not of the record."""
        agent = self._agent
        if verdict.outcome not in agent.outcomes:
            raise ValueError(f"agent {agent.name} decided {verdict.outcome!r}, which is not among its outcomes")
        outcome, proposed = verdict.outcome, verdict.proposed or verdict.outcome
        overrides = list(verdict.overrides)
        review = verdict.review.model_dump() if verdict.review is not None else dict(NO_REVIEW)
        why = None
        by_rule = bool(verdict.overrides) and verdict.proposed not in (None, outcome)
        if tier == "none" and outcome != agent.review_outcome:
            why = "no-answer"
        elif tier in ASKED and not by_rule:
            if outcome in agent.adverse and not agent.adverse_alone:
                why = "adverse-needs-review"
            elif tier == "fallback" and outcome not in (agent.review_outcome, *agent.fallback_alone):
                why = "fallback-needs-review"
        if why is not None:
            outcome = agent.review_outcome
            overrides.append(why)
            review = {"required": True, "why": why, "queue": review["queue"]}
        reasons = [self._reason(r) for r in verdict.reasons if self._holds(r, features)][:MOST_REASONS]
        return Ruled(verdict, outcome, proposed, overrides, review, reasons, tier, tier_why)

    def _holds(self, reason: Reason, features: BaseModel | None) -> bool:
        entry = self._agent.reasons.get(reason.code)
        fits = entry is not None and (reason.feature is None or reason.feature in entry.features)
        if fits and entry is not None and entry.holds is not None:
            fits = features is not None and bool(entry.holds(features))
        self.reasons_dropped += not fits
        return fits

    def _reason(self, reason: Reason) -> dict[str, Any]:
        return {"code": reason.code, "text": self._texts[reason.code], "feature": reason.feature, "origin": reason.origin}


Masked = Callable[[BaseModel], Mapping[str, Any]]


def unmasked(features: BaseModel) -> Mapping[str, Any]:
    """Features as they are: nothing in them is marked."""
    return features.model_dump(mode="json")


class Writer:
    """Writes decisions and judgements of one agent as outbound records. `masked` makes of features what an audit may keep."""

    def __init__(self, agent: Agent, site: Site, *, judgements: str | None, masked: Masked = unmasked) -> None:
        self._agent = agent
        self._masked = masked
        self._answers = KeptAnswers(agent.answers, closed=masked is not unmasked)
        self._site = site
        self._judgements = judgements
        self._valid_ms = millis(agent.valid_for) if agent.valid_for else None
        scale = agent.scale
        self._scale = (
            {"meaning": scale.meaning, "min": scale.min, "max": scale.max, "higher_is": scale.higher_is} if scale else None
        )
        self._fixed = (
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_type", TYPE.encode()),
            ("ce_source", f"/headrace/{agent.name}".encode()),
            ("ce_dataschema", f"urn:headrace:schema:{SCHEMA}".encode()),
        )

    def kept(self, features: BaseModel | None, answer: Answer[Any] | None) -> Mapping[str, Any] | None:
        """What may be kept of the features: as they were shown, or as they would have been. None where there are none."""
        if answer is not None and answer.shown is not None:
            return answer.shown
        return None if features is None else self._masked(features)

    def headers(self, id: str, subject: str, at: str, trace: tuple[tuple[str, bytes], ...]) -> tuple[tuple[str, bytes], ...]:
        """CloudEvents 1.0 binary mode, and the trace context of the input record where it had one."""
        return (*self._fixed, ("ce_id", id.encode()), ("ce_subject", subject.encode()), ("ce_time", at.encode()), *trace)

    def decision(
        self, context: Context[Any], origin: Origin, ruled: Ruled | None, answer: Answer[Any] | None,
        kept: Mapping[str, Any] | None, decided_ms: int, kind: str = "decision",
    ) -> Outbound:  # fmt: skip
        """The decision as JSON, keyed by its subject. `ruled` None is a retraction; `kept` is hashed, if it is anything."""
        agent, source, verdict = self._agent, context.source, ruled.verdict if ruled else None
        event_ms = context.event_ms
        decided_at = rfc3339(decided_ms) or ""
        body = {
            "id": origin.id, "schema": SCHEMA, "kind": kind, "mode": self._site.mode, "run": self._site.run,
            "tenant": self._site.tenant, "agent": agent.name, "version": agent.version, "manifest": self._site.manifest,
            "subject": {"type": agent.subject_type, "id": context.subject},
            "part": origin.part, "parts": origin.parts,
            "source": {
                "topic": source.topic, "partition": source.partition, "offset": source.offset,
                "timestamp": rfc3339(source.timestamp_ms), "op": origin.op, "input_hash": origin.input_hash,
            },
            "inputs": [_input(name, found) for name, found in context.joins.items()],
            "window": _window(context.windows),
            "features_hash": features_hash(kept) if kept else None,
            "proposed_outcome": ruled.proposed if ruled else None,
            "outcome": ruled.outcome if ruled else None,
            "overrides": ruled.overrides if ruled else [],
            "review": ruled.review if ruled else NO_REVIEW,
            "missing": list(verdict.missing) if verdict else [],
            "score": verdict.score if verdict else None,
            "score_raw": None,
            "scale": self._scale if verdict is not None and verdict.score is not None else None,
            "calibration": agent.calibration,
            "reasons": ruled.reasons if ruled else [],
            "result": verdict.result if verdict else None,
            "tier": ruled.tier if ruled else "rule",
            "tier_why": ruled.tier_why if ruled else None,
            "model_requested": answer.model_requested if answer else None,
            "model_returned": answer.model_returned if answer else None,
            "call_id": answer.call_id if answer else None,
            "event_at": rfc3339(event_ms), "received_at": rfc3339(origin.received_ms), "decided_at": decided_at,
            "valid_until": rfc3339(event_ms + self._valid_ms) if self._valid_ms is not None else None,
        }  # fmt: skip
        value = dump(body)
        headers = self.headers(origin.id, context.subject, decided_at, origin.trace)
        return Outbound(agent.writes.topic, context.subject.encode(), value, headers, "decision")

    def judgement(
        self, context: Context[Any], origin: Origin, ruled: Ruled, answer: Answer[Any] | None, kept: Mapping[str, Any] | None,
        tiers: list[str],
    ) -> Outbound | None:  # fmt: skip
        """The audit of the same decision, with the features that are `kept`, or None where no judgements topic is kept.

        Its key is the decision's id: under a compacting policy a tombstone of that key erases it, and nothing else.
        """
        if self._judgements is None:
            return None
        body = {
            "schema": JUDGEMENT_SCHEMA, "decision_id": origin.id, "call_id": answer.call_id if answer else None,
            "position": answer.position if answer else None,
            "features": kept,
            "raw_answer": self._answers.raw(answer) if answer else None,
            "answer": self._answers.value(answer) if answer else None,
            "rules": ruled.overrides, "proposed_outcome": ruled.proposed, "outcome": ruled.outcome,
            "cache": answer.cache if answer else None, "tiers": _path(tiers, answer),
            "status": answer.status if answer else None, "why": (answer.why or None) if answer else None,
            "endpoint": answer.endpoint if answer else None,
        }  # fmt: skip
        return Outbound(self._judgements, origin.id.encode(), dump(body), (), "audit")


def _path(tiers: list[str], answer: Answer[Any] | None) -> list[str]:
    """The tiers in order, those inside a cascade among them; `tiers` ends with the one that decided."""
    if answer is None or not answer.tiers or not tiers:
        return tiers
    path = [*tiers[:-1], *answer.tiers]
    return path if path[-1] == tiers[-1] else [*path, tiers[-1]]


def _input(name: str, found: Joined) -> dict[str, Any]:
    return {
        "name": name, "topic": found.topic, "partition": found.partition, "offset": found.offset, "age_ms": found.age_ms,
        "status": found.status,
    }  # fmt: skip


def _window(windows: Mapping[str, WindowView]) -> dict[str, Any] | None:
    """The longest of the agent's windows: the slice that the features can have seen."""
    if not windows:
        return None
    view = min(windows.values(), key=lambda v: v.from_ms)
    samples = view.samples
    return {
        "name": view.name, "from": rfc3339(view.from_ms), "to": rfc3339(view.to_ms), "count": len(samples),
        "first_offset": samples[0].offset if samples else None, "last_offset": samples[-1].offset if samples else None,
        "truncated": view.truncated,
    }  # fmt: skip
