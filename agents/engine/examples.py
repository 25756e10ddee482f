"""Golden examples: an agent's own claims about itself, run through the pipeline without bytes, Kafka or a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from agents.engine.duration import millis
from agents.engine.joins import Joins, MemoryTable
from agents.engine.pipeline import Item, Pipeline
from agents.engine.returned import watched
from agents.engine.spec import DecisionAgent, Example
from agents.engine.verdicts import Site
from models.contract import Answer
from schemas.change import Change, SourcePosition
from schemas.event import Event
from schemas.reading import Reading
from topics.decode.result import Decoded, Result
from topics.record import Raw, RawRecord

Agent = DecisionAgent[Any, Any, Any]
_KEY = 1
"""The primary key of the examples' row where the row itself does not carry its key columns."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What an example came to: the body of its decision, or the rule that skipped it, or why it failed."""

    decision: Mapping[str, Any] | None = None
    skip: str | None = None
    failure: str | None = None


def show(agent: Agent, example: Example) -> Shown:
    """Run one example. Raises pydantic's ValidationError where its data does not fit the agent's models."""
    pipeline, item = prepared(agent, example)
    if item.settled is None:
        pipeline.conclude(item, _answer(agent, example))
    return shown(item)


def prepared(agent: Agent, example: Example) -> tuple[Pipeline, Item]:
    """The example as far as an answer is needed: `item.features` to ask about, or settled by skip or rule already."""
    values = _values(agent, example)
    tables = {name: MemoryTable(join.topic) for name, join in agent.joins.items()}
    for name, row in example.joins.items():
        spec = agent.joins[name].topic
        if spec.row is not None:
            source = SourcePosition(ts_ms=example.at_ms)
            tables[name].put(Change("r", _key(spec.key, row), spec.row.model_validate(row), source=source))
    # What is not given is missing: nobody will bring it while an example waits.
    agent = replace(agent, joins={name: replace(join, wait="0s") for name, join in agent.joins.items()})

    def decode(record: RawRecord) -> Result[Any]:
        return Decoded((values[record.offset],))

    pipeline = Pipeline(
        agent, Site(manifest="example"), dead_letters="dead-letters", judgements=None,
        joins=Joins(agent, tables) if agent.joins else None, wall_ms=lambda: example.at_ms, decode=decode,
    )  # fmt: skip
    state = pipeline.new_state(0)
    for offset in range(len(values) - 1):
        pipeline.replay(state, _record(agent, example, offset))
    item = pipeline.read(state, _record(agent, example, len(values) - 1))[0]
    if item.settled is None:
        pipeline.waits(item)
        pipeline.prepare(item)
    return pipeline, item


def differences(agent: Agent, example: Example) -> list[str]:
    """Where the example does not come out as it says; empty if it does."""
    wrong: list[str] = []
    came = show(watched(agent, wrong), example)
    if wrong:
        return list(dict.fromkeys(wrong))
    if came.failure is not None:
        return [came.failure]
    body = came.decision or {}
    said: dict[str, tuple[Any, Any]] = {"skip": (example.skip, came.skip), "outcome": (example.outcome, body.get("outcome"))}
    if example.tier is not None:
        said["tier"] = (example.tier, body.get("tier"))
    if example.reasons is not None:
        said["reasons"] = (list(example.reasons), [reason["code"] for reason in body.get("reasons", ())])
    if example.overrides is not None:
        said["overrides"] = (list(example.overrides), body.get("overrides"))
    return [f"{what} should be {wanted!r} and is {got!r}" for what, (wanted, got) in said.items() if wanted != got]


def _values(agent: Agent, example: Example) -> list[Any]:
    """The history and the value itself, as what the decoder would have made of them, oldest first."""
    spacing = millis(example.spacing)
    rows = [*example.history, example.value]
    times = [example.at_ms - spacing * back for back in range(len(rows) - 1, -1, -1)]
    made = [_value(agent, row, at_ms) for row, at_ms in zip(rows, times, strict=True)]
    model = agent.reads.row
    if example.before is not None and model is not None:
        made[-1] = replace(made[-1], op="u", before=model.model_validate(example.before))
    return made


def _value(agent: Agent, data: Mapping[str, Any], at_ms: int) -> Any:
    spec = agent.reads
    if spec.row is None:
        raise ValueError(f"agent {agent.name}: topic {spec.name} has no row model")
    row = spec.row.model_validate(data)
    if spec.kind == "change":
        source = SourcePosition(ts_ms=at_ms)
        return Change("c", _key(spec.key, data), row, source=source, event_ms=at_ms)
    if spec.kind == "reading":
        return Reading("example", row, at_ms)
    return Event(row, at_ms)


def _key(columns: tuple[str, ...], data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name, _KEY) for name in columns}


def _record(agent: Agent, example: Example, offset: int) -> Raw:
    return Raw(agent.reads.topic, b"{}", offset=offset, timestamp=example.at_ms)


def _answer(agent: Agent, example: Example) -> Answer[Any]:
    if example.answer is None:
        return Answer("timeout", why="the example gives no answer")
    return Answer("answered", agent.answers.model_validate(example.answer), raw=dict(example.answer))


def shown(item: Item) -> Shown:
    """What a settled item came to."""
    settled = item.settled
    if settled is None:
        return Shown(failure="it came to nothing")
    if settled.skip is not None:
        return Shown(skip=settled.skip)
    first = settled.outbound[0]
    if first.purpose == "dead_letter":
        headers = {name: value.decode(errors="replace") for name, value in first.headers}
        return Shown(failure=f"it became a dead letter: {headers.get('headrace_detail') or headers}")
    return Shown(decision=orjson.loads(first.value or b"null"))
