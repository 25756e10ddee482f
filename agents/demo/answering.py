"""Who answers in the demo: the sandbox, a local model, the configured endpoint, or nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal

from agents.settings import Settings
from models.chat.probe import Probed, probe_model
from models.sandbox.limits import latency as read_latency
from models.sandbox.server import MODEL as SANDBOX_MODEL
from models.sandbox.server import Sandbox, SandboxConfig
from models.scorers.local import MODEL as LOCAL_MODEL
from models.scorers.local import LocalModel
from schemas.errors import ConfigError

_PATIENCE = {name: {"deadline": "120s", "batch_size": 4, "in_flight": 2} for name in ("credit-risk", "product-quality")}
"""A small model on two cores takes some eight seconds for eight records; the agents' own deadlines are meant for a service."""
Who = Literal["sandbox", "local", "configured", "scorecard"]


@dataclass(frozen=True, slots=True)
class Answering:
    """The worker's settings for it, and a line for a person. Secrets are in neither: the worker inherits them.

    `module` is what the worker process runs with `python -m`. After so many seconds of `patience` without any news nothing
    more is expected: longer than an agent waits for an answer.
    """

    env: Mapping[str, str]
    says: str
    module: tuple[str, ...] = ("agents.cli.main", "worker")
    patience: float = 45.0


async def check_configured(settings: Settings) -> Probed:
    """Ask the configured model once. Raises ConfigError where it will answer nothing."""
    if settings.model_base_url is None:
        raise ConfigError("using the configured model: HEADRACE_MODEL_BASE_URL is not set")
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
    found = await probe_model(settings.model_base_url, key, settings.model_name, ask=True, api=settings.model_api)
    if found.refused is not None:
        raise ConfigError(f"asking {settings.model_name} at {found.where}: {found.refused}")
    return found


async def check(who: Who, settings: Settings, latency: str) -> Probed | None:
    """Before anything is started: what can not work is refused, and a configured model is asked once. Raises ConfigError."""
    read_latency(latency, Random())  # noqa: S311  nothing is drawn from it
    return await check_configured(settings) if who == "configured" else None


@asynccontextmanager
async def answering(who: Who, settings: Settings, latency: str, where: str = "") -> AsyncIterator[Answering]:
    """Have it answer for as long as the context lasts; `where` names a configured one. Raises ConfigError where it can not."""
    if who == "configured":
        if settings.model_base_url is None:
            raise ConfigError("using the configured model: HEADRACE_MODEL_BASE_URL is not set")
        yield Answering({}, f"{settings.model_name} at {where or 'the configured endpoint'}")
    elif who == "scorecard":
        yield Answering({}, "none; each agent's own scorecard answers", ("agents.demo.scorecards",))
    elif who == "local":
        async with LocalModel() as local:
            env = {**_endpoint(local.base_url, LOCAL_MODEL), "HEADRACE_AGENTS": json.dumps(_PATIENCE)}
            yield Answering(env, f"{LOCAL_MODEL}, a real small model, on this machine", patience=150.0)
    else:
        async with Sandbox(SandboxConfig(latency=latency)) as sandbox:
            yield Answering(_endpoint(sandbox.base_url, SANDBOX_MODEL), f"the sandbox (no model; {latency} an answer)")


def _endpoint(base_url: str, model: str) -> dict[str, str]:
    # A key that is set for another endpoint is not for this one.
    return {"HEADRACE_MODEL_BASE_URL": base_url, "HEADRACE_MODEL_NAME": model, "HEADRACE_MODEL_API_KEY": "none-needed"}
