"""Manifest: what a `manifest` hash in a decision resolves to. Compacted topic, key = the hash."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from pydantic import Field

from schemas.wire import Wire

SCHEMA = "headrace.manifest.v1"


class Manifest(Wire):
    """Everything that shapes an agent's decisions besides its input."""

    schema_: str = Field(default=SCHEMA, alias="schema")
    agent: str
    version: int
    prompt: str | None = None
    answer_schema: dict[str, Any] | None = None
    features_schema: dict[str, Any] | None = None
    policy: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    reasons: dict[str, dict[str, str]] = Field(default_factory=dict)
    code_hash: str
    calibration: str | None = None

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the JSON body."""
        return sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()[:16]
