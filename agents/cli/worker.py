"""headrace worker: run agents against Kafka until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.startable import check_settings
from agents.engine.log_repeats import Repeats
from agents.engine.process import Worker
from agents.settings import Settings

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
    check_settings(found, chosen, settings)

    async def main() -> int:
        return await Worker(chosen, settings, say=lambda line: typer.echo(line, err=True)).run()

    tune_collector()
    raise typer.Exit(run_loop(main()))


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
