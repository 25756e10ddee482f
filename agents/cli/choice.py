"""Which agents a command is about: those that were named, or all; a broken agent file stops no other agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from agents.engine.discover import Agent, Found, find
from agents.settings import Settings


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
