"""headrace topics: what the agents need on the cluster, compared and brought about."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.output import emit_json, out, tell
from agents.engine.discover import Agent
from agents.engine.kafka import kafka_config
from agents.engine.topology import own_topics, registry_for
from agents.settings import Settings
from topics.admin import Plan
from topics.admin import apply as apply_plan
from topics.admin import plan as plan_topics

app = typer.Typer(no_args_is_help=True, help="Plan and create the topics that agents need. Nothing is ever deleted.")
Names = Annotated[list[str] | None, typer.Argument(help="Agents whose topics are meant; all of them when none is named.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def plan(agents: Names = None, as_json: AsJson = False) -> None:
    """Show what apply would do, and what it would leave to you. Changes nothing; ends with status 1 when there is work."""
    settings, chosen = _chosen(agents)
    found = asyncio.run(_plan(settings, chosen))
    _show(found, "apply would", as_json)
    raise typer.Exit(1 if found else 0)


@app.command()
def apply(agents: Names = None, as_json: AsJson = False) -> None:
    """Create what is missing, add partitions and settings to the topics that agents write. Repeating it changes nothing."""
    settings, chosen = _chosen(agents)

    async def run() -> Plan:
        found = await _plan(settings, chosen)
        await apply_plan(found, kafka_config(settings))
        return found

    _show(asyncio.run(run()), "done:", as_json)


def follows(agents: list[Agent]) -> dict[str, str]:
    """Logical name of each topic that an agent writes -> that of its source, whose partition numbers it keeps."""
    found: dict[str, str] = {}
    for agent in agents:
        own = [spec.name for spec in own_topics(agent.name, agent.reads) if spec.partitions == agent.reads.partitions]
        found |= dict.fromkeys([agent.writes.name, *own], agent.reads.name)
    return found


def _chosen(names: list[str] | None) -> tuple[Settings, list[Agent]]:
    settings = Settings()
    return settings, chosen_agents(found_agents(settings), names)


async def _plan(settings: Settings, agents: list[Agent]) -> Plan:
    registry = registry_for(agents, settings)
    for name in registry.unused_overrides():
        tell(f"HEADRACE_TOPICS names {name!r}, which no chosen agent uses")
    return await plan_topics(registry, kafka_config(settings), follows=follows(agents))


def _show(found: Plan, lead: str, as_json: bool) -> None:
    for note in found.notes:
        tell(f"note: {note}")
    if as_json:
        emit_json({"steps": [_step(s) for s in found.steps], "notes": list(found.notes)})
        return
    for step in found.steps:
        out.print(f"{lead} {step}", markup=False)
    if not found:
        out.print("The cluster has all topics as they should be.")


def _step(step: object) -> dict[str, object]:
    return {name: getattr(step, name) for name in ("action", "topic", "partitions", "configs", "was")}
