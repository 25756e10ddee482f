"""The manifest of an agent: everything that shapes its decisions besides their input, under a hash that decisions carry."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from agents.engine.spec import DecisionAgent
from models.chat.prompt import INSTRUCTIONS, PICTURED
from models.contract import Ask
from schemas.manifest import Manifest

Agent = DecisionAgent[Any, Any, Any]


def manifest_of(agent: Agent, *, models: Sequence[str], asking: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest as it is now. `models` are the names of those configured, the preferred first; empty where none is asked.

    `asking` is what else the settings say of how they are asked (agents/engine/inference.py).
    """
    ask = agent.scorer if isinstance(agent.scorer, Ask) else None
    batch = {name: limit for name, limit in asdict(agent.batch).items() if limit is not None}
    parameters: dict[str, Any] = {"model": models[0] if models else None, "batch": batch, "deadline": agent.deadline}
    if len(models) > 1:
        parameters["fallback_models"] = list(models[1:])
    parameters |= asking or {}
    if ask is not None:
        parameters["instructions"] = sha256((INSTRUCTIONS + PICTURED).encode()).hexdigest()[:16]
        parameters |= {"temperature": ask.temperature, "max_tokens": ask.max_tokens, **ask.parameters}
    policy = {
        "outcomes": list(agent.outcomes), "adverse": list(agent.adverse), "adverse_alone": agent.adverse_alone,
        "on_no_answer": agent.on_no_answer, "fallback_alone": list(agent.fallback_alone),
        "review_outcome": agent.review_outcome, "rules": dict(agent.rules),
        "numbers": {name: str(value) for name, value in agent.policy.items()},
    }  # fmt: skip
    return Manifest(
        agent=agent.name, version=agent.version, prompt=ask.prompt if ask else None,
        answer_schema=agent.answers.model_json_schema(), features_schema=agent.features_model.model_json_schema(),
        policy=policy, parameters=parameters, reasons={code: dict(entry.text) for code, entry in agent.reasons.items()},
        code_hash=code_hash(agent), calibration=agent.calibration,
    )  # fmt: skip


def code_hash(agent: Agent) -> str:
    """First 16 hex digits of the SHA-256 of the agent's own file: its functions are part of its policy."""
    module = sys.modules.get(agent.decide.__module__)
    file = getattr(module, "__file__", None) or inspect.getsourcefile(agent.decide)
    return sha256(Path(file).read_bytes()).hexdigest()[:16] if file else "unknown"
