"""headrace agents: list them, check them, try one on records from a file, without Kafka and without a model."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from pydantic import SecretStr

from agents.cli.choice import check_overrides, chosen_agents, found_agents
from agents.cli.lines import Line, Malformed, parse_lines
from agents.cli.startable import check_settings
from agents.engine.contract import check as problems_of
from agents.engine.discover import Found, Problem
from agents.engine.examples import differences
from agents.engine.inference import Inference
from agents.engine.joins import MemoryTable
from agents.engine.model_watch import ModelWatch
from agents.engine.spec import DecisionAgent
from agents.engine.topology import placed, tuned
from agents.engine.trial import TrialOutcome, try_records
from agents.settings import Settings
from models.contract import Ask, Scorer, ignore
from models.sandbox.server import MODEL, Sandbox
from schemas.change import Change
from schemas.dead_letter import Fault
from schemas.errors import ConfigError, DataFault
from topics.decode import decoder
from topics.decode.result import Decoded
from topics.record import Raw
from topics.spec import Registry

Agent = DecisionAgent[Any, Any, Any]
app = typer.Typer(no_args_is_help=True, help="List agents, check them, try one without Kafka.")


OF_THE_ENGINE = frozenset(
    {"deadline", "in_flight", "batch_size", "batch_within", "batch_prompt_tokens", "batch_output_tokens"}
)
"""What HEADRACE_AGENTS says of an agent that is so whoever answers; the rest is of models."""


class TryModel(StrEnum):
    """Who answers in a trial."""

    SCORECARD = "scorecard"
    SANDBOX = "sandbox"
    CONFIGURED = "configured"


@app.command("list")
def list_agents(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """What there is: what each agent reads, decides and writes, and who answers it.

    After the agents come the files that give none, each with what is wrong with it; then the status is 1.
    """
    found = found_agents(Settings())
    for agent in found.agents:
        told = _described(agent)
        if as_json:
            _print([told])
            continue
        joins = f", joins {', '.join(told['joins'])}" if told["joins"] else ""
        typer.echo(f"{told['name']} {told['version']}: {told['description']}")
        typer.echo(f"  reads {told['reads']}{joins}, writes {told['writes']}")
        typer.echo(f"  {' | '.join(told['outcomes'])}; asks {told['asks']}, without an answer: {told['on_no_answer']}")
    for problem in found.problems:
        if as_json:
            _print([_broken(problem)])
        else:
            typer.echo(f"broken: {problem}")
    if found.problems:
        raise typer.Exit(1)


def _broken(problem: Problem) -> dict[str, Any]:
    return {"broken": str(problem.path), "line": problem.line, "agent": problem.agent, "why": problem.why}


def _described(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "version": agent.version,
        "description": agent.description,
        "owner": agent.owner,
        "reads": agent.reads.name,
        "joins": [join.topic.name for join in agent.joins.values()],
        "writes": agent.writes.name,
        "outcomes": list(agent.outcomes),
        "asks": "a language model" if isinstance(agent.scorer, Ask) else agent.scorer.name,
        "on_no_answer": agent.on_no_answer,
    }


@app.command()
def check(names: Annotated[list[str] | None, typer.Argument(help="Agents to check; all when none is named.")] = None) -> None:
    """Hold agents against the contract and run their golden examples. Ends with status 1 where something is wrong.

    Every problem is told with its file. Where agents are named, other files that are broken are warned of only. What is set
    (HEADRACE_*) is checked as a worker of these agents does before it asks Kafka; a masking key need not be there.
    """
    settings = Settings()
    found = found_agents(settings)
    agents = chosen_agents(found, names) if names else found.agents
    problems = [_checked(found, agent) for agent in agents]
    sound = [agent for agent, count in zip(agents, problems, strict=True) if not count]
    wrong = sum(problems) + _misset(found, sound, settings)
    if not names:
        for problem in found.problems:
            typer.echo(f"broken: {problem}")
        wrong += len(found.problems)
    if wrong:
        raise typer.Exit(1)


def _checked(found: Found, agent: Agent) -> int:
    """Print what is wrong with one agent; how many problems that are."""
    try:
        problems = problems_of(agent)
        if not problems:  # examples of an agent that breaks the contract fail in ways that explain nothing
            problems = _differing(agent)
    except SystemExit:  # with status 0 it would look like success
        problems = ["its code exits (SystemExit), which would end a worker; let it raise an error"]
    typer.echo(f"{agent.name}: " + (f"{len(agent.examples)} examples, as they should be" if not problems else "not in order"))
    for problem in problems:
        typer.echo(f"  {found.paths[agent.name]}: {problem}")
    return len(problems)


def _misset(found: Found, agents: Sequence[Agent], settings: Settings) -> bool:
    """Whether a worker of the agents would not start with these settings; print why. A key that is not here is no mistake."""
    try:
        check_settings(found, agents, _with_key(settings))
    except ConfigError as error:
        typer.echo(f"settings: not in order\n  {error}")
        return True
    return False


def _differing(agent: Agent) -> list[str]:
    """What is wrong with the examples: each problem once, with the first example that has it."""
    titles: dict[str, list[str]] = {}
    for example in agent.examples:
        for said in differences(agent, example):
            titles.setdefault(said, []).append(example.title)
    more = {said: f" and {len(which) - 1} more" if len(which) > 1 else "" for said, which in titles.items()}
    return [f"example {which[0]!r}{more[said]}: {said}" for said, which in titles.items()]


@app.command("try")
def try_agent(
    name: Annotated[str, typer.Argument(help="The agent to try.")],
    model: Annotated[
        TryModel | None,
        typer.Option(help="Who answers: the agent's scorecard, the sandbox, or the configured model. "
                          "Without this the configured model where there is one, else the sandbox."),
    ] = None,
) -> None:  # fmt: skip
    """Decide the records on standard input, one JSON a line, and print one outcome a line as JSON. Needs no Kafka.

    A line is {"topic", "key", "value", "headers", "partition", "offset", "timestamp"}, all but value optional, or the bare
    value. What a configured model answers is paid for, and counts towards no budget.

    Rows of joined topics are taken in first, wherever they stand. A line that is no record has an outcome too; where
    no line is one, the command ends with status 1.
    """
    settings = Settings()
    found = found_agents(settings)
    chosen = chosen_agents(found, [name])[0]
    check_overrides(found, settings)
    agent = placed(tuned(chosen, settings), Registry(settings.topics))
    who = model or (TryModel.CONFIGURED if settings.model_base_url else TryModel.SANDBOX)
    lines = list(parse_lines(sys.stdin.buffer, agent.reads.topic))
    if not asyncio.run(_try(agent, lines, who, settings)):
        raise typer.Exit(1)


async def _try(agent: Agent, lines: Sequence[Line | Malformed], who: TryModel, settings: Settings) -> bool:
    """Whether there was anything to try: not where every line is malformed."""
    tables, records, told = _sorted_out(agent, lines)
    useful = not told or len(told) < len(lines)
    # All rows are there before the first record is read; nobody will bring another.
    agent = replace(agent, joins={n: replace(join, wait="0s") for n, join in agent.joins.items()})
    if who is TryModel.SANDBOX:
        typer.echo(f"answered by {MODEL}, which is no model", err=True)
        left_out = sorted(settings.agent(agent.name).model_fields_set - OF_THE_ENGINE)
        if left_out:
            typer.echo(f"left out of what HEADRACE_AGENTS says of {agent.name}: {', '.join(left_out)}", err=True)
    async with _scorer(agent, who, settings) as scorer:
        outcomes = try_records(agent, [line.record for line in records], scorer, tables=tables, fallback=agent.fallback)
        numbers = iter(line.number for line in records)
        async for outcome in outcomes:
            number = next(numbers)
            _print([told.pop(n) for n in sorted(told) if n < number])
            _print([_outcome(number, outcome)])
    _print([told[n] for n in sorted(told)])
    return useful


def _print(outcomes: Iterable[Mapping[str, Any]]) -> None:
    for outcome in outcomes:
        sys.stdout.write(orjson.dumps(outcome).decode() + "\n")
    sys.stdout.flush()


@asynccontextmanager
async def _scorer(agent: Agent, who: TryModel, settings: Settings) -> AsyncIterator[Scorer]:
    """Who answers. Raises ConfigError where that can not be."""
    if who is TryModel.SCORECARD:
        scorer = agent.fallback or (agent.scorer if not isinstance(agent.scorer, Ask) else None)
        if scorer is None:
            raise ConfigError(f"trying {agent.name}: it has no scorecard; declare fallback, or try --model sandbox")
        yield scorer
    elif who is TryModel.CONFIGURED:
        if settings.model_base_url is None:
            raise ConfigError(f"trying {agent.name}: no model is configured; set HEADRACE_MODEL_BASE_URL, or try --model sandbox")
        yield _asking(agent, settings)
    else:
        async with Sandbox() as sandbox:
            # Nothing of what is configured: a sandbox is asked in place of all of it.
            only = {"model_base_url": sandbox.base_url, "model_name": MODEL, "agents": {}}
            nothing = {"model_api_key": None, "model_fallbacks": (), "model_cheap": None, "moderation": None}
            yield _asking(agent, settings.model_copy(update={**only, **nothing}))


def _asking(agent: Agent, settings: Settings) -> Scorer:
    """As a worker would ask, and masked as there, under a key of the moment where none is set.

    But nothing is kept (the next trial may be of another prompt) and nothing held to a budget: no partition is there to carry it.
    """
    given = settings.agent(agent.name).model_copy(update={"cache": None, "budget": None, "budget_soft": None})
    settings = settings.model_copy(update={"agents": {agent.name: given}})
    return Inference(_with_key(settings), [agent], ModelWatch(), budgeted=False).scorer(agent, manifest="trial", on_call=ignore)


def _with_key(settings: Settings) -> Settings:
    """With a masking key of the moment where none is set."""
    if settings.masking_key is not None:
        return settings
    return settings.model_copy(update={"masking_key": SecretStr(secrets.token_hex(32))})


def _sorted_out(
    agent: Agent, lines: Sequence[Line | Malformed]
) -> tuple[dict[str, MemoryTable], list[Line], dict[int, dict[str, Any]]]:
    """Tables of the joined rows, the records to decide, and what is to be said of lines that are neither, by line."""
    tables = {name: MemoryTable(join.topic) for name, join in agent.joins.items()}
    joined: dict[str, list[str]] = {}
    for name, join in agent.joins.items():
        joined.setdefault(join.topic.topic, []).append(name)
    records: list[Line] = []
    told: dict[int, dict[str, Any]] = {}
    for line in lines:
        if isinstance(line, Malformed):
            told[line.number] = {"line": line.number, "kind": "malformed", "field": line.field, "why": line.why}
        elif line.record.topic in joined:
            fault = _take_in([tables[name] for name in joined[line.record.topic]], line.record)
            if fault is not None:
                told[line.number] = _faulty_row(line, fault)
        elif line.record.topic == agent.reads.topic:
            records.append(line)
        else:
            known = ", ".join((agent.reads.topic, *joined))
            why = f"{line.record.topic} is no topic of {agent.name}: it has {known}; HEADRACE_TOPICS can place them"
            told[line.number] = {"line": line.number, "kind": "malformed", "field": "topic", "why": why}
    return tables, records, told


def _take_in(tables: Sequence[MemoryTable], record: Raw) -> Fault | None:
    """Put a joined row into its tables, or say why that can not be."""
    for table in tables:
        result = decoder(table.spec)(record)
        if isinstance(result, Fault):
            return result
        for value in _values(result):
            if isinstance(value, Fault):
                return value
            if isinstance(value, Change):
                try:
                    table.put(value, partition=record.partition, offset=record.offset, timestamp=record.timestamp)
                except DataFault as error:
                    return error.fault
    return None


def _values(result: Any) -> Iterator[Any]:
    if isinstance(result, Decoded):
        yield from result.values


def _faulty_row(line: Line, fault: Fault) -> dict[str, Any]:
    return {
        "line": line.number, "kind": "malformed", "field": fault.field, "why": f"row of {line.record.topic}: {fault}",
    }  # fmt: skip


def _outcome(number: int, outcome: TrialOutcome) -> dict[str, Any]:
    """`decisions` and `dead_letters` have one entry a part of the record, usually one."""
    told: dict[str, Any] = {"line": number, "kind": outcome.kind}
    if outcome.rule is not None:
        told["rule"] = outcome.rule
    if outcome.decisions:
        told["decisions"] = list(outcome.decisions)
    if outcome.dead_letters:
        told["dead_letters"] = list(outcome.dead_letters)
    return told
