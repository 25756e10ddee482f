"""Which agents a command is about: those that were named, or all; a broken agent file stops no other agent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from agents.engine.discover import Agent, Found, find
from agents.engine.topology import registry_for
from agents.settings import Settings, unknown_variables
from schemas.errors import ConfigError


def found_agents(settings: Settings) -> Found:
    """The agents that come with Headrace and those of HEADRACE_AGENTS_PATH, and the files that give none."""
    return find(Path(settings.agents_path) if settings.agents_path else None)


def chosen_agents(found: Found, names: Sequence[str] | None) -> list[Agent]:
    """The agents of these names, all where none is given. Files that are broken and not meant are warned of on stderr.

    Raises AgentError where a name is not there or its file is broken, and for all agents where any file is broken: one that
    is left out in silence is a loss.
    """
    agents = found.chosen(names or [])
    for problem in found.problems:
        typer.echo(f"warning: broken agent file {problem}", err=True)
    return agents


def check_overrides(found: Found, settings: Settings) -> None:
    """Raises ConfigError for a setting of an agent or topic that does not exist: a typing mistake must not pass in silence.

    While an agent file is broken it is a warning: the setting may be of the agent that could not be loaded.
    """
    for name, meant in unknown_variables(os.environ).items():
        hint = f"; did you mean {meant}?" if meant else "; docs/settings.md lists all"
        typer.echo(f"warning: {name} is no setting{hint}", err=True)  # no refusal: it may be one of another version
    names = sorted(agent.name for agent in found.agents)
    unknown = sorted(set(settings.agents) - set(names))
    if unknown:
        _refuse(found, f"reading HEADRACE_AGENTS: there is no agent {', '.join(unknown)}; there are {', '.join(names)}")
    registry = registry_for(found.agents, settings)
    unused = registry.unused_overrides()
    if unused:
        known = ", ".join(sorted(spec.name for spec in registry))
        _refuse(found, f"reading HEADRACE_TOPICS: no agent has a topic {', '.join(unused)}; topics are {known}")


def _refuse(found: Found, why: str) -> None:
    if not found.problems:
        raise ConfigError(why)
    typer.echo(f"warning: {why}; it may be of an agent file that is broken", err=True)
