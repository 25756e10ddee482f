"""Makes the Scorer of an agent: an Ask becomes a chat transport, anything else is a Scorer already."""

from __future__ import annotations

from typing import Any

from models.chat import ChatScorer
from models.contract import Ask, CallSink, Scorer, ignore
from models.instant import NoModel
from models.line import Line


def resolve(
    scorer: Ask[Any] | Scorer,
    *,
    base_url: str | None,
    api_key: str | None = None,
    model: str,
    agent: str,
    on_call: CallSink = ignore,
    concurrency: int = 64,
    manifest: str | None = None,
) -> Scorer:
    """The Scorer to use. Without a `base_url` an Ask is answered "unavailable", and the agent's `on_no_answer` decides.

    Raises ConfigError for an Ask, URL or key that can not work.
    """
    if not isinstance(scorer, Ask):
        return scorer
    if base_url is None:
        return NoModel()
    line = Line(base_url, api_key, model, connections=concurrency)
    return ChatScorer(scorer, line, agent=agent, on_call=on_call, manifest=manifest)
