"""All topics of a site: what the chosen agents read, join and write, and what the engine itself writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agents.engine.contract import limits
from agents.engine.spec import DecisionAgent
from agents.settings import Settings
from schemas.errors import ConfigError
from topics import names
from topics.spec import Registry, TopicSpec, out_topic

Agent = DecisionAgent[Any, Any, Any]


def tuned(agent: Agent, settings: Settings) -> Agent:
    """The agent with what HEADRACE_AGENTS says of it; what concerns models is read by agents/engine/inference.py.

    Raises ConfigError, naming the key, for what the contract would refuse in the agent's file.
    """
    given = settings.agent(agent.name)
    batch = replace(
        agent.batch, size=given.batch_size or agent.batch.size, within=given.batch_within or agent.batch.within,
        prompt_tokens=given.batch_prompt_tokens or agent.batch.prompt_tokens,
        output_tokens=given.batch_output_tokens or agent.batch.output_tokens,
    )  # fmt: skip
    found = replace(agent, batch=batch, in_flight=given.in_flight or agent.in_flight, deadline=given.deadline or agent.deadline)
    own = limits(agent)
    wrong = [problem.replace("batch.", "batch_") for problem in limits(found) if problem not in own]
    if wrong:
        raise ConfigError(f"reading HEADRACE_AGENTS for {agent.name}: {'; '.join(wrong)}")
    return found


def placed(agent: Agent, registry: Registry) -> Agent:
    """The agent with its topics as this site has placed them; registers them and the engine's own."""
    reads = registry.add(agent.reads)
    joins = {name: replace(join, topic=registry.add(join.topic)) for name, join in agent.joins.items()}
    writes = registry.add(matching(agent.writes, reads))
    for spec in own_topics(agent.name, reads):
        registry.add(spec)
    return replace(agent, reads=reads, joins=joins, writes=writes)


def matching(spec: TopicSpec[Any], source: TopicSpec[Any]) -> TopicSpec[Any]:
    """An outbound topic with at least the partitions of its source: an outcome keeps the partition number of its input."""
    return replace(spec, partitions=max(spec.partitions, source.partitions))


def own_topics(agent: str, source: TopicSpec[Any]) -> list[TopicSpec[Any]]:
    """Dead letters, receipts, judgements and calls of one agent."""
    week, month, keep = 7 * 86_400_000, 30 * 86_400_000, -1
    rows = [
        (names.dead_letters(agent), month, "input records that could not be decided, byte for byte"),
        (names.receipts(agent), keep, "what each commit closed; headrace verify reads it"),
        (names.judgements(agent), month, "what was shown and answered, one a decision"),
        (names.calls(agent), week, "each request to a model, with its tokens"),
    ]
    made = [out_topic(n, retention_ms=r, description=d, owner="headrace", partitions=source.partitions) for n, r, d in rows]
    # A dead letter is its source record plus headers: what fits the source must fit here.
    made[0] = replace(made[0], max_message_bytes=source.max_message_bytes + 65_536)
    manifests = out_topic(names.MANIFESTS, partitions=1, cleanup="compact", retention_ms=keep, owner="headrace",
                          description="what a manifest hash in a decision resolves to")  # fmt: skip
    return [*made, manifests]


def registry_for(agents: Sequence[Agent], settings: Settings) -> Registry:
    """Every topic of these agents, placed as the settings say. Raises TopicError where two specs share a name."""
    registry = Registry(settings.topics)
    for agent in agents:
        placed(agent, registry)
    return registry
