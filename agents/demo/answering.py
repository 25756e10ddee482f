"""Who answers in the demo: the sandbox, a local model, the configured endpoint, or nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from agents.settings import Settings
from models.local import MODEL as LOCAL_MODEL
from models.local import LocalModel
from models.sandbox import MODEL as SANDBOX_MODEL
from models.sandbox import Sandbox, SandboxConfig
from schemas.errors import ConfigError

Who = Literal["sandbox", "local", "configured", "scorecard"]


@dataclass(frozen=True, slots=True)
class Answering:
    """The worker's settings for it, and a line for a person. Secrets are in neither: the worker inherits them.

    `module` is what the worker process runs with `python -m`.
    """

    env: Mapping[str, str]
    says: str
    module: tuple[str, ...] = ("agents.cli.main", "worker")


@asynccontextmanager
async def answering(who: Who, settings: Settings, latency: str) -> AsyncIterator[Answering]:
    """Have it answer for as long as the context lasts. Raises ConfigError where it can not."""
    if who == "configured":
        if settings.model_base_url is None:
            raise ConfigError("using the configured model: HEADRACE_MODEL_BASE_URL is not set")
        yield Answering({}, f"{settings.model_name} at {settings.model_base_url}")
    elif who == "scorecard":
        yield Answering({}, "none; each agent's own scorecard answers", ("agents.demo.scorecards",))
    elif who == "local":
        async with LocalModel() as local:
            yield Answering(_endpoint(local.base_url, LOCAL_MODEL), f"{LOCAL_MODEL}, a real small model, on this machine")
    else:
        async with Sandbox(SandboxConfig(latency=latency)) as sandbox:
            yield Answering(_endpoint(sandbox.base_url, SANDBOX_MODEL), f"the sandbox (no model; {latency} an answer)")


def _endpoint(base_url: str, model: str) -> dict[str, str]:
    # A key that is set for another endpoint is not for this one.
    return {"HEADRACE_MODEL_BASE_URL": base_url, "HEADRACE_MODEL_NAME": model, "HEADRACE_MODEL_API_KEY": "none-needed"}
