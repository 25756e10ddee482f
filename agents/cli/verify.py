"""headrace verify: from the topics alone, was every input decided, buried or skipped exactly once?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.output import console, emit_json, out
from agents.engine.kafka import kafka_config
from agents.engine.topology import Agent, placed
from agents.settings import Settings
from topics import names
from topics.connection import probe
from topics.spec import Registry
from topics.verify.facts import Account
from topics.verify.read import Target, verify_agent
from topics.verify.report import as_dict, lines, passed

OFFENDED = 1
"""Exit status when something offends."""


def verify(
    agents: Annotated[list[str] | None, typer.Argument(help="Agents to verify; all of them when none is named.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole account as one line of JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Bootstrap servers; else HEADRACE_KAFKA.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also fail when input was lost to retention, when a repeat says something else "
                           "than the first, or when something can not be proven any more.")
    ] = False,
) -> None:  # fmt: skip
    """Account for every input record, from the topics alone: exactly one outcome each, and no outcome without input.

    Reads committed records and joins no group, so it may run beside workers at any time. Ends with status 1 and names the
    offenders by topic, partition and offset; repeats are counted, and offend only where the promise is exactly once. Input
    that retention removed before it was read is an alarm and no offence, and what retention or compaction has made unprovable
    is said: --strict fails on both.
    """
    settings = Settings() if kafka is None else Settings(kafka=kafka)
    chosen = chosen_agents(found_agents(settings), agents)
    accounts = asyncio.run(verify_all(settings, chosen, quiet=as_json))
    for account in accounts:
        for line in [] if as_json else lines(account):
            out.print(line, markup=False)
    if as_json:
        emit_json(as_dict(accounts, strict=strict))
    if not passed(accounts, strict=strict):
        raise typer.Exit(OFFENDED)


def target(agent: Agent, settings: Settings) -> Target:
    """What to verify of an agent, under the names that its topics have at this site."""
    here = placed(agent, Registry(settings.topics))
    return Target(
        agent=agent.name, source=here.reads.topic, decisions=here.writes.topic, dead_letters=names.dead_letters(agent.name),
        receipts=names.receipts(agent.name), group=names.group(settings.group_prefix, agent.name), run=settings.run,
        order=agent.order.value, span=settings.hold_span,
    )  # fmt: skip


async def verify_all(settings: Settings, agents: Sequence[Agent], *, quiet: bool = True) -> list[Account]:
    """The account of each agent. Raises ConfigError where the brokers or a source topic can not be reached."""
    config = kafka_config(settings)
    await probe(config)
    with console.status("verifying") as status:
        if quiet:
            status.stop()

        def say(topic: str, partition: int, records: int) -> None:
            status.update(f"verifying: {topic}/{partition}, {records} records")

        client = {"bootstrap_servers": config.bootstrap, **config.aiokafka_kwargs()}
        return [await verify_agent(client, target(agent, settings), progress=say) for agent in agents]
