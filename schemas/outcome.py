"""Outcome: feedback, what really happened to a decided subject. Read by learning jobs, written by people or systems."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from schemas.wire import Wire

SCHEMA = "headrace.outcome.v1"


class Outcome(Wire):
    """One observation. Names a decision by id, or a subject when the decision is not known."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    decision_id: str | None = None
    subject: str | None = None
    actor: str
    verdict: str | None = None
    value: Any = None
    reasons: list[str] = Field(default_factory=list)
    observed_at: str
    source: Literal["human", "system"]

    @model_validator(mode="after")
    def _names_something(self) -> Outcome:
        if self.decision_id is None and self.subject is None:
            raise ValueError("an outcome names a decision_id or a subject")
        return self
