"""headrace verify: from the topics alone, was every input decided, buried or skipped exactly once?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.masked import plain
from agents.cli.output import console, emit_json, out
from agents.engine.kafka import kafka_config
from agents.engine.topology import Agent, placed
from agents.settings import Settings
from schemas.errors import ConfigError
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
    since: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What --json printed earlier: the chain must still hold every head in it, "
                                  "or it was rewritten or cut back since.")
    ] = None,
) -> None:  # fmt: skip
    """Account for every input record, from the topics alone: exactly one outcome each, and no outcome without input.

    Reads committed records and joins no group, so it may run beside workers at any time. Ends with status 1 and names the
    offenders by topic, partition and offset; repeats are counted, and offend only where the promise is exactly once. Input
    that retention removed before it was read is an alarm and no offence, and what retention or compaction has made unprovable
    is said: --strict fails on both.

    Receipts hold a digest of each decision, dead letter and judgement and the hash of the receipt before: what was changed,
    removed, put in or moved since is named. Payloads that were erased are said and offend nobody. Keep the output of --json in a
    place that those who can write to the topics can not write to, and give it to --since: a chain that was rewritten as a whole
    shows only beside a head that was kept.
    """
    anchors = _heads(since) if since is not None else {}
    settings = Settings() if kafka is None else Settings(kafka=kafka)
    chosen = chosen_agents(found_agents(settings), agents)
    accounts = asyncio.run(verify_all(settings, chosen, anchors, quiet=as_json))
    for account in accounts:
        for line in [] if as_json else lines(account):
            # What a forged record says must neither draw on the terminal nor write lines of its own.
            out.print(plain(line).replace("\n", "\\n"), markup=False)
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
        judgements=names.judgements(agent.name), calls=names.calls(agent.name),
    )  # fmt: skip


def _heads(file: Path) -> dict[str, dict[int, str]]:
    """Agent -> partition -> head, from what an earlier verification printed. Raises ConfigError for anything else."""
    try:
        told = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
        return {
            agent["agent"]: {p["partition"]: p["head"] for p in agent["partitions"] if p["head"] is not None}
            for agent in told["agents"]
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"reading {file}: not what headrace verify --json prints: {error!r}") from error


async def verify_all(
    settings: Settings, agents: Sequence[Agent], anchors: Mapping[str, Mapping[int, str]] | None = None, *, quiet: bool = True
) -> list[Account]:
    """The account of each agent; `anchors` are heads of the chain by agent and partition.

    Raises ConfigError where the brokers or a source topic can not be reached.
    """
    config = kafka_config(settings)
    await probe(config)
    with console.status("verifying") as status:
        if quiet:
            status.stop()

        def say(topic: str, partition: int, records: int) -> None:
            status.update(f"verifying: {topic}/{partition}, {records} records")

        client = {"bootstrap_servers": config.bootstrap, **config.aiokafka_kwargs()}
        kept = anchors or {}
        return [
            await verify_agent(client, target(agent, settings), progress=say, anchors=kept.get(agent.name)) for agent in agents
        ]
