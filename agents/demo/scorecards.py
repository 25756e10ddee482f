"""`python -m agents.demo.scorecards AGENT...`: the usual worker, with each agent's own scorecard in the place of a model."""

from __future__ import annotations

import logging
import sys

import typer

from agents.cli.worker import run_loop
from agents.engine.discover import discover, select
from agents.engine.process import Worker
from agents.engine.topology import Agent
from agents.settings import Settings
from models.contract import Scorer
from schemas.errors import ConfigError


def scorecard_of(agent: Agent) -> Scorer:
    """The scorer that the agent declares for when no model answers. Raises ConfigError where it declares none."""
    if agent.fallback is None:
        raise ConfigError(f"running {agent.name} without a model: it declares no scorecard as its fallback")
    return agent.fallback


def main(names: list[str]) -> int:
    """Run the agents until a signal. Returns the exit status."""
    settings = Settings()
    logging.basicConfig(level=logging.WARNING)
    chosen = select(discover(), names)

    async def work() -> int:
        return await Worker(chosen, settings, say=lambda line: typer.echo(line, err=True), scorer_for=scorecard_of).run()

    return run_loop(work())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
