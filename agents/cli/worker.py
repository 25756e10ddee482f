"""headrace worker: run agents against Kafka until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.engine.discover import Found
from agents.engine.log_repeats import Repeats
from agents.engine.process import Worker
from agents.engine.topology import registry_for
from agents.settings import Settings, unknown_variables
from schemas.errors import ConfigError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def worker(
    agents: Annotated[list[str] | None, typer.Argument(help="Agents to run; all of them when none is named.")] = None,
) -> None:
    """Run agents: read their topics, ask, decide and publish, until SIGTERM or Ctrl-C drains it.

    Everything else is configured by HEADRACE_* (docs/settings.md). A second signal leaves at once; either way nothing is
    lost. Ends with status 1 after a fatal fault, with the offsets left where they are.
    """
    settings = Settings()
    logging.basicConfig(level=LEVELS[settings.log_level], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Repeats())
    found = found_agents(settings)
    chosen = chosen_agents(found, agents)
    check_overrides(found, settings)

    async def main() -> int:
        return await Worker(chosen, settings, say=lambda line: typer.echo(line, err=True)).run()

    tune_collector()
    raise typer.Exit(run_loop(main()))


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


def tune_collector() -> None:
    """Collect seldom, and never walk what was imported: records held for their commit are thousands of young objects, none of
    them a cycle, and walking them was a tenth of a record's CPU. What is freed by reference counting is freed as before."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is to be had; it spends less on each record than the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
