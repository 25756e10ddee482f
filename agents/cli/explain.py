"""headrace explain: the whole story of one decision, from its record to its place in the audit chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.masked import plain
from agents.cli.output import console, emit_json, fail, out
from agents.cli.search import Copies, Search
from agents.cli.story import Story, Teller
from agents.engine.discover import Agent
from agents.engine.kafka import kafka_config
from agents.settings import Settings
from schemas.errors import ConfigError
from topics.connection import probe
from topics.verify.find import Finder, finder

UNKNOWN = 1
"""Exit status when there is no such decision."""
MOST = 1_000_000
WIDE = 110
"""Characters of a line of JSON for a person."""


def explain(
    decision_id: Annotated[str | None, typer.Argument(help="The decision's `id`; it may be a dead letter's.")] = None,
    agent: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Look only among its own; may be repeated.")] = None,
    topic: Annotated[
        str | None, typer.Option(help="With --partition and --offset: where the decision, the dead letter or its source record "
                                 "lies. Then the id may be left out, and nothing is searched for.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="See --topic.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="See --topic.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Offsets of each partition that are searched, from the newest back.")] = MOST,
    as_json: Annotated[bool, typer.Option("--json", help="Print the story as one line of JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Bootstrap servers; else HEADRACE_KAFKA.")] = None,
) -> None:  # fmt: skip
    """Tell how one decision came about: record, joined rows, window, features, calls, answers, rules, outcome, receipt, chain.

    Everything is read from the topics, committed records only. Columns marked Protected are named and not told. Whatever
    retention or an erasure has taken is said. Ends with status 1 where no decision and no dead letter has the id.
    """
    place = _place(topic, partition, offset)
    if decision_id is None and place is None:
        raise ConfigError("explaining: name a decision's id, or where it lies with --topic, --partition and --offset")
    settings = Settings() if kafka is None else Settings(kafka=kafka)
    agents = chosen_agents(found_agents(settings), agent)
    story, why = asyncio.run(_explain(settings, agents, decision_id, place, most, quiet=as_json))
    if story is None:
        fail(why)
        raise typer.Exit(UNKNOWN)
    if as_json:
        emit_json(story.as_dict())
        return
    for line in lines(story):
        out.print(line.replace("\n", "\\n"), markup=False)


def _place(topic: str | None, partition: int | None, offset: int | None) -> tuple[str, int, int] | None:
    if topic is None and partition is None and offset is None:
        return None
    if topic is None or partition is None or offset is None:
        raise ConfigError("explaining: --topic, --partition and --offset go together")
    return topic, partition, offset


async def _explain(
    settings: Settings, agents: list[Agent], id: str | None, place: tuple[str, int, int] | None, most: int, *, quiet: bool
) -> tuple[Story | None, str]:
    config = kafka_config(settings)
    await probe(config)
    client = {"bootstrap_servers": config.bootstrap, **config.aiokafka_kwargs()}
    async with finder(client) as found:
        with console.status("looking") as status:
            if quiet:
                status.stop()
            watch = asyncio.create_task(_watch(found, status.update))
            try:
                search = Search(found, agents, settings)
                copies, why = await _copies(search, id, place, most)
                doubts = search.passed.texts()
                if copies is None:
                    return None, "; ".join([why, *doubts])
                return await Teller(found, settings.run).tell(copies, doubts), ""
            finally:
                watch.cancel()


async def _copies(search: Search, id: str | None, place: tuple[str, int, int] | None, most: int) -> tuple[Copies | None, str]:
    if place is not None:
        copies, why = await search.at(*place)
        if copies is not None and id not in (None, copies.id):
            return None, f"the outcome there has the id {copies.id}, not {id}"
        return copies, why
    assert id is not None
    why = (
        f"no decision and no dead letter has the id {plain(id)} among the newest {most} offsets of each partition; search more "
        "with --most, name the agent with --agent if its file lies elsewhere (HEADRACE_AGENTS_PATH), or say where it lies with "
        "--topic, --partition and --offset (of the decision or of its source record); retention may have removed it"
    )
    return await search.find(id, most), why


async def _watch(found: Finder, say: Any) -> None:
    while True:
        await asyncio.sleep(0.3)
        say(f"looking: {found.read} records")


# ---- for a person ----------------------------------------------------------------------------------------------------
def lines(story: Story) -> Iterator[str]:
    """The story as lines of text."""
    told = story.as_dict()
    body, at = told["outcome"], told["at"]
    yield f"{told['kind']} {told['decision_id']} of {told['agent']}, at {_where(at)}"
    if told["copies"] > 1:
        yield f"  written {told['copies']} times (at least once); readers take the first with its id"
    yield from _source(told)
    for one in told["inputs"]:
        yield from _input(one)
    if body.get("window"):
        yield from _block("window", body["window"])
    if told["kind"] == "dead letter":
        yield f"buried: {body.get('stage')}: {body.get('reason')}" + (f" at {body['field']}" if body.get("field") else "")
        yield from _block("detail", body.get("detail"))
    else:
        yield from _judged(told)
    yield from _closed(told)
    for what in told["missing"]:
        yield f"missing: {what}"
    for what in told["doubts"]:
        yield f"doubt: {what}"


def _source(told: Mapping[str, Any]) -> Iterator[str]:
    source = told["source"]
    if not source["there"]:
        yield f"record: {_where(source)}, gone"
        return
    yield f"record: {_where(source)}" + ("" if source["input_hash_matches"] else ", and it is NOT the one that was decided")
    yield from _block("  says", source.get("record"))


def _input(one: Mapping[str, Any]) -> Iterator[str]:
    there = "" if one.get("offset") is None else f", {_where(one)}" + ("" if one.get("there") else ", gone")
    yield f"joined {one['name']}: {one['status']}{there}"
    yield from _block("  says", one.get("record"))


def _judged(told: Mapping[str, Any]) -> Iterator[str]:
    body, judgement, manifest = told["outcome"], told["judgement"] or {}, told["manifest"]
    yield from _block("features as shown", judgement.get("features"))
    yield f"manifest {body.get('manifest')}: version {body.get('version')}" + (
        f", code {manifest['code_hash']}" + ("" if manifest["hash_matches"] else ", and it is NOT what its hash says")
        if manifest else ""
    )  # fmt: skip
    if manifest:
        yield from _block("  prompt", manifest.get("prompt"))
        yield from _block("  policy", manifest.get("policy"))
        yield from _block("  parameters", manifest.get("parameters"))
    for call in told["calls"]:
        yield from _call(call, body.get("call_id"))
    if judgement.get("position") is not None:
        yield f"record {judgement['position'] + 1} of its call, answered by {judgement.get('endpoint') or 'no endpoint'}"
    yield from _block("raw answer", judgement.get("raw_answer"))
    yield from _block("answer", judgement.get("answer"))
    if judgement.get("status") not in (None, "answered"):
        yield f"no answer: {judgement['status']}" + (f", {judgement['why']}" if judgement.get("why") else "")
    tiers = " > ".join(judgement.get("tiers") or [str(body.get("tier"))])
    cache = f", cache {judgement['cache']}" if judgement.get("cache") else ""
    yield f"tiers: {tiers}{cache}" + (f" ({body['tier_why']})" if body.get("tier_why") else "")
    yield f"rules: {', '.join(judgement.get('rules') or body.get('overrides') or []) or 'none fired'}"
    yield f"outcome: {body.get('outcome')} (proposed {body.get('proposed_outcome')}), score {body.get('score')}"
    if (body.get("review") or {}).get("required"):
        yield f"  review: {body['review'].get('why')}"
    for reason in body.get("reasons") or []:
        yield f"  reason {reason['code']} ({reason['origin']}): {reason['text']}"


def _model(call: Mapping[str, Any]) -> str:
    """Who was asked and where, and who says to have answered where that is another name."""
    asked, returned = call.get("model_requested"), call.get("model_returned")
    other = f", answered as {returned}" if returned and returned != asked else ""
    return f"{asked} at {call.get('endpoint')}{other}"


def _call(call: Mapping[str, Any], decisive: str | None) -> Iterator[str]:
    mark = ", the answer came from it" if call.get("call_id") == decisive else ""
    if call.get("purpose") == "canary":
        mark = ", to compare: alone, beside the batch; nothing is decided by it"
    tokens = call.get("tokens") or {}
    yield f"call {call.get('call_id')}: {call.get('status')}, attempt {call.get('attempt')}, {_model(call)}{mark}"
    yield (
        f"  {len(call.get('records') or [])} records, {tokens.get('input', 0)} tokens in and {tokens.get('output', 0)} out, "
        f"queued {call.get('queued_at')}, sent {call.get('sent_at')}, done {call.get('done_at')}"
    )
    if call.get("masking"):
        yield f"  masked by {call['masking']}"
    if call.get("shuffle_seed") is not None:
        yield f"  order of its records by seed {call['shuffle_seed']}, nonce {call.get('nonce')}"
    yield f"  request sha256 {call.get('request_hash')}, response {call.get('response_hash')}"
    if call.get("hedge_of"):
        yield f"  hedge of {call['hedge_of']}"
    if call.get("cost_micro") is not None:
        yield f"  cost {call['cost_micro']} micro {call.get('currency')} ({call.get('price_table')})"
    yield from _block("  parameters", call.get("parameters"))
    if call.get("error"):
        yield f"  {call['error']}"


def _closed(told: Mapping[str, Any]) -> Iterator[str]:
    receipt, chain = told["receipt"], told["chain"]
    if receipt is not None:
        yield (
            f"receipt {receipt['seq']} at offset {told['receipt_offset']}: closed {receipt['from']} to {receipt['to']}, "
            f"{receipt['decisions']} decisions, {receipt['promise']}, by {receipt['worker']} at {receipt['at']}"
        )
    state = {None: "not checked", True: "verified", False: "DOES NOT VERIFY"}[chain["verified"]]
    number = f"record {chain['number']} of the chain, " if chain["number"] is not None else ""
    yield f"audit chain: {number}{state}"
    for sentence in chain["said"]:
        yield f"  {sentence}"


def _where(told: Mapping[str, Any]) -> str:
    return f"{told.get('topic')}/{told.get('partition')} offset {told.get('offset')}"


def _block(title: str, value: Any) -> Iterator[str]:
    """A value on the line of its title where it is short, on lines of its own where it is not; nothing for nothing."""
    if value is None or value in ({}, [], ""):
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    indent = " " * (len(title) - len(title.lstrip()) + 2)
    if len(text) <= WIDE or not isinstance(value, Mapping | list | str):
        yield f"{title}: {text}"
    elif isinstance(value, Mapping):
        yield f"{title}:"
        for name, item in value.items():
            yield from _block(f"{indent}{name}", item)
    else:
        yield f"{title}:"
        for item in value.splitlines() if isinstance(value, str) else value:
            yield indent + (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False))
