"""headrace usage: what asking models took, by agent, tenant, model and day, from the audit of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.output import console, emit_json, out, tell
from agents.engine.discover import Agent
from agents.engine.kafka import kafka_config
from agents.settings import Settings
from topics import names
from topics.connection import probe
from topics.usage import Key, Spent, Usage, read_usage

DAYS = 7
HEADS = ("day", "agent", "tenant", "model", "calls", "records", "tokens in", "cached", "tokens out", "cost", "unpriced",
         "canary", "hedged")  # fmt: skip


def usage(
    agents: Annotated[list[str] | None, typer.Argument(help="Agents that are meant; all of them when none is named.")] = None,
    days: Annotated[int, typer.Option(min=1, help="How many days back, today included, in UTC.")] = DAYS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole table as one line of JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Bootstrap servers; else HEADRACE_KAFKA.")] = None,
) -> None:
    """Report tokens and cost by agent, tenant, model and day, from the topics of calls.

    Every request counts when it ended, whatever became of its records: repeated ones, those that timed out, and those of a
    worker that was killed afterwards. Cost is by the price list that each call names; a call whose price was not known is counted
    in "unpriced" and costs nothing here. "canary" and "hedged" are calls made to compare and to be quicker, whose records are not
    counted again. Topics keep calls for a week unless told otherwise.
    """
    settings = Settings() if kafka is None else Settings(kafka=kafka)
    chosen = chosen_agents(found_agents(settings), agents)
    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    found = asyncio.run(_read(settings, chosen, since, quiet=as_json))
    if as_json:
        emit_json(as_dict(found))
    elif found.rows:
        for line in _lines(found):
            out.print(line, markup=False)
    else:
        tell(f"no calls since {since.isoformat()}, in {', '.join(names.calls(agent.name) for agent in chosen)}")
    if found.damaged and not as_json:
        tell(f"{found.damaged} records are no calls and were left out")


async def _read(settings: Settings, agents: Sequence[Agent], since: date, *, quiet: bool) -> Usage:
    config = kafka_config(settings)
    await probe(config)
    client = {"bootstrap_servers": config.bootstrap, **config.aiokafka_kwargs()}
    with console.status("reading calls") as status:
        if quiet:
            status.stop()
        found = Usage()
        for agent in agents:
            topic = names.calls(agent.name)
            await read_usage(client, topic, since, found, lambda count, topic=topic: status.update(f"{topic}: {count} calls"))  # type: ignore[misc]
    return found


def as_dict(found: Usage) -> Mapping[str, object]:
    """The table as --json prints it: rows in order, and their sums by currency."""
    rows = [{**key._asdict(), **asdict(spent)} for key, spent in sorted(found.rows.items(), key=_order)]
    return {"rows": rows, "damaged": found.damaged, "cost_micro": found.costs()}


def _lines(found: Usage) -> Iterator[str]:
    """A table whose rows are never broken or cut: what a person reads here is often grepped."""
    rows = [HEADS, *(_cells(key, spent) for key, spent in sorted(found.rows.items(), key=_order))]
    total = ", ".join(f"{cost / 1e6:.6f} {currency}" for currency, cost in found.costs().items()) or "-"
    calls = sum(spent.calls for spent in found.rows.values())
    rows.append(("all", "", "", "", f"{calls:,}", "", "", "", "", total, "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{w}}" if place < 4 else f"{cell:>{w}}" for place, (cell, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _order(row: tuple[Key, Spent]) -> tuple[str, ...]:
    return tuple(part or "" for part in row[0])


def _cells(key: Key, spent: Spent) -> tuple[str, ...]:
    cost = "-" if key.currency is None else f"{spent.cost_micro / 1e6:.6f} {key.currency}"
    counts = spent.calls, spent.records, spent.tokens_input, spent.tokens_cached_input, spent.tokens_output
    told = spent.unpriced, spent.canaries, spent.hedges
    return (key.day, key.agent, key.tenant or "-", key.model, *(f"{n:,}" for n in counts), cost, *(f"{n:,}" for n in told))
