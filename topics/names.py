"""What the engine's own topics and consumer groups are called. Sources and decision topics are named by the agents.

All of an agent's topics have as many partitions as its source: an outcome goes to the partition number of its record.
"""

from __future__ import annotations

MANIFESTS = "headrace.manifests"
"""The compacted topic of manifests, shared by all agents; its key is the manifest's hash."""


def dead_letters(agent: str) -> str:
    """The topic of records that could not be decided: `headrace.<agent>.dlq`."""
    return f"headrace.{agent}.dlq"


def receipts(agent: str) -> str:
    """The topic of receipts, one per commit: `headrace.<agent>.receipts`."""
    return f"headrace.{agent}.receipts"


def judgements(agent: str) -> str:
    """The audit of decisions, published with them: `headrace.<agent>.judgements`."""
    return f"headrace.{agent}.judgements"


def calls(agent: str) -> str:
    """The audit of model calls, published when they end: `headrace.<agent>.calls`."""
    return f"headrace.{agent}.calls"


def group(prefix: str, agent: str) -> str:
    """The consumer group of an agent: `<prefix>.<agent>`; the prefix is HEADRACE_GROUP_PREFIX, "headrace" by default."""
    return f"{prefix}.{agent}"
