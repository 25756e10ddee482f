"""Whether the settings let agents start: `headrace worker` and `headrace agents check` ask here."""

from __future__ import annotations

from collections.abc import Sequence

from agents.cli.choice import check_overrides
from agents.engine.discover import Agent, Found
from agents.engine.inference import checked
from agents.engine.topology import tuned
from agents.settings import Settings


def check_settings(found: Found, agents: Sequence[Agent], settings: Settings) -> None:
    """Warn of variables that are no settings. Raises ConfigError for what a worker of `agents` refuses before it asks Kafka.

    That is a name that no agent or topic has, and what can not work for these agents together: they share an account.
    """
    check_overrides(found, settings)
    checked(settings, [tuned(agent, settings) for agent in agents])
