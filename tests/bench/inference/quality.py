"""Part `quality`: what a decision costs in batches, beside how often it comes out otherwise than alone, on labelled data.

The sandbox judges by open rules and gets worse down a batch in a way that is stated (models/sandbox/position.py): its flips show
that what is measured is seen, not what a model does. With BENCH_LOCAL=1 in the environment a real one of 135 million parameters
is asked too, about few records; its answers are poor, batches or not.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from agents.demo.metrics import auc
from models.budget.price_table import listed
from models.chat.chat import ChatScorer
from models.chat.dialect import Dialect
from models.chat.line import Line
from models.chat.prompt import PromptBuilder
from models.contract import Answer, Ask, CallSink, Question, Scorer, ignore
from models.quality.canary import Canary
from models.quality.flips import FlipMeter, same
from models.sandbox.position import PositionNoise
from models.sandbox.prompt_cache import LEAST, TOKEN_BYTES
from models.sandbox.server import Sandbox, SandboxConfig
from models.scorers import local
from schemas.audit import Call, Tokens
from tests.bench.inference.labelled import Labelled, credit, quality
from tests.bench.inference.part import Say, at_least, at_most, columns
from tests.bench.shared import Json

MODEL, ADDRESS = "gpt-5-mini", "https://api.openai.com/v1"
"""Whose prices are taken. Nothing is asked there."""
SIZES = (1, 4, 8, 16, 32)
NOISE = PositionNoise(sound=4, points=2.0)
FLIP_LIMIT, SHARE, WINDOW = 0.05, 0.2, 100
DEADLINE = 600.0
LOCAL_SIZES, LOCAL_RECORDS, LOCAL_SECONDS = (1, 4, 8), 8, 60.0
"""The last for each call: what has no answer by then is told as unanswered."""


async def measure(*, quick: bool, say: Say) -> Json:
    """Both agents at every batch size, with both prompts; the order of a batch; the canary over time; a local model if wanted."""
    count = 64 if quick else 480
    data = [credit(count), await quality(count)]
    found: Json = {"prompts": [], "sizes": [], "noise": {"sound": NOISE.sound, "points": NOISE.points}}
    for records in data:
        for name, ask in _prompts(records).items():
            found["prompts"].append({"agent": records.name, "prompt": name, **_prefix(ask)})
            found["sizes"] += await _sizes(records, name, ask, say)
    found["order"] = await _orders(data[0], batches=40 if quick else 400)
    found["canary"] = await _over_time(data[0], decisions=3_000 if quick else 30_000)
    found["local"] = await _local(data[0], say) if os.environ.get("BENCH_LOCAL") else None
    return found


class _Nothing(BaseModel):
    """Features of a record that has none: what differs between two such requests is what differs always."""


# ---- batch sizes ---------------------------------------------------------------------------------------------------------------


def _prompts(records: Labelled) -> dict[str, Ask[Any]]:
    """The agent's prompt as it is, and one with labelled examples, which is long enough for a provider's cache."""
    examples = "\n".join(("\n\nExamples, features and what happened:", *records.examples))
    return {"as it is": records.ask, "with examples": replace(records.ask, prompt=records.ask.prompt + examples)}


def _prefix(ask: Ask[Any]) -> Json:
    """The bytes that two requests about different records have in common from the start, and tokens by four bytes each."""
    build = PromptBuilder(ask, MODEL).build
    one, other = (build([Question(name, _Nothing())], Dialect()).body for name in ("a", "b"))
    shared = next(place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return {"prefix_bytes": shared, "prefix_tokens": shared // TOKEN_BYTES, "cacheable": shared // TOKEN_BYTES >= LEAST}


async def _sizes(records: Labelled, prompt: str, ask: Ask[Any], say: Say) -> list[Json]:
    alone: Sequence[Answer[Any]] = ()
    rows = []
    for size in SIZES:
        async with Sandbox(SandboxConfig(position_noise=NOISE, prompt_cache=True)) as server:
            scorer = _asking(ask, server.base_url)
            answers = await _ask_all(scorer, records.questions, size)
            await scorer.close()
            meter = server.meter
            used = Tokens(input=meter.input_tokens, cached_input=meter.cached_tokens, output=meter.output_tokens)
            requests = meter.requests
        alone = alone or answers
        row = {"agent": records.name, "prompt": prompt, "size": size, **_row(records, answers, alone, used, requests)}
        rows.append(row)
        say(f"quality, {records.name}, prompt {prompt}, {size} a call: flips {row['flips']:.3f}, {row['cost']:.1f} micro-USD")
    return rows


def _row(records: Labelled, answers: Sequence[Answer[Any]], alone: Sequence[Answer[Any]], used: Tokens, requests: int) -> Json:
    """What came of one pass over the records, per decision."""
    priced = listed(MODEL, ADDRESS)
    assert priced is not None
    price = priced.at(time.time_ns() // 1_000_000)
    decided = sum(answer.status == "answered" for answer in answers)
    ranked = auc((answer.value.risk, bad) for answer, bad in zip(answers, records.bad, strict=True) if answer.value is not None)
    return {
        "decisions": decided,
        "requests": requests / decided,
        "input": used.input / decided,
        "cached": used.cached_input / decided,
        "output": used.output / decided,
        "cost": price.cost(used) / decided,
        "cost_uncached": price.cost(used.model_copy(update={"cached_input": 0})) / decided,
        "price_table": price.table,
        **_flips(answers, alone),
        "auc": ranked.value,
        "auc_error": ranked.error,
    }


def _flips(answers: Sequence[Answer[Any]], alone: Sequence[Answer[Any]]) -> Json:
    """How many of those answered both times were answered otherwise than alone."""
    pairs = [(a.value, b.value) for a, b in zip(answers, alone, strict=True) if a.value is not None and b.value is not None]
    return {"compared": len(pairs), "flips": sum(not same(a, b) for a, b in pairs) / max(1, len(pairs))}


def _asking(
    ask: Ask[Any], base_url: str, *, chance: Callable[[], float] = random.random, on_call: CallSink = ignore
) -> Scorer:
    return ChatScorer(ask, Line(base_url, None, MODEL, chance=chance), agent="bench", on_call=on_call)


async def _ask_all(
    scorer: Scorer, questions: Sequence[Question], size: int, seconds: float = DEADLINE
) -> list[Answer[Any]]:
    """All of them, `size` a call, one call after the other."""
    answers: list[Answer[Any]] = []
    for start in range(0, len(questions), size):
        answers += await scorer.score(questions[start : start + size], asyncio.get_running_loop().time() + seconds)
    return answers


# ---- the order of a batch ------------------------------------------------------------------------------------------------------


async def _orders(records: Labelled, *, batches: int, size: int = 16) -> list[Json]:
    """Flips by the record's place in its source batch, in one fixed order and shuffled anew for each call.

    A `chance` that is always the same draws the same order for each batch: so each place of the source has its position for
    ever, as without shuffling.
    """
    orders: dict[str, Callable[[], float]] = {"one fixed order": lambda: 0.5, "shuffled for each call": random.random}
    found = []
    for name, chance in orders.items():
        async with Sandbox(SandboxConfig(position_noise=NOISE)) as server:
            scorer = _asking(records.ask, server.base_url, chance=chance)
            alone = await _ask_all(scorer, records.questions, 1)
            flipped = [0] * size
            for batch in range(batches):
                places = [(batch * size + place) % len(records.questions) for place in range(size)]
                answers = await _ask_all(scorer, [records.questions[place] for place in places], size)
                for place, answer in enumerate(answers):
                    one = alone[places[place]].value
                    flipped[place] += answer.value is None or one is None or not same(answer.value, one)
            await scorer.close()
        shares = [count / batches for count in flipped]
        found.append({"order": name, "batches": batches, "mean": sum(shares) / size, "least": min(shares), "most": max(shares)})
    return found


# ---- the canary over time ------------------------------------------------------------------------------------------------------


async def _over_time(records: Labelled, *, decisions: int, size: int = 32, steps: int = 10) -> list[Json]:
    """Batch size, flips that the canary saw and flips there really were, over so many decisions asked for in batches of 32."""
    async with Sandbox(SandboxConfig(position_noise=NOISE)) as server:
        inner = _asking(records.ask, server.base_url)
        alone = await _ask_all(inner, records.questions, 1)
        meter = FlipMeter(size, limit=FLIP_LIMIT, window=WINDOW)
        canary = Canary(inner, meter, share=SHARE)
        rows: list[Json] = []
        asked = 0
        for step in range(steps):
            begun, compared, flipped = server.meter.requests, meter.stats.compared, meter.stats.flipped
            flips, count = 0, 0
            while asked < decisions * (step + 1) // steps:
                places = [(asked + place) % len(records.questions) for place in range(size)]
                batch = [replace(records.questions[place], decision_id=f"{asked + n}") for n, place in enumerate(places)]
                answers = await canary.score(batch, asyncio.get_running_loop().time() + DEADLINE)
                kept = _flips(answers, [alone[place] for place in places])
                flips += round(kept["flips"] * kept["compared"])
                count += kept["compared"]
                asked += size
            seen = meter.stats.compared - compared
            rows.append(
                {
                    "decisions": asked, "size": meter.size, "compared": seen, "flips": flips / max(1, count),
                    "flips_seen": (meter.stats.flipped - flipped) / max(1, seen), "shrunk": meter.stats.shrunk,
                    "grown": meter.stats.grown, "requests": (server.meter.requests - begun) / max(1, count),
                }
            )  # fmt: skip
        await canary.close()
    return rows


# ---- a real model --------------------------------------------------------------------------------------------------------------


async def _local(records: Labelled, say: Say) -> Json:
    """A few records asked of a small real model, alone and in batches. What it left out, or had no time for, has no answer."""
    reason = local.missing()
    if reason is not None:
        say(f"quality: the local model is left out: {reason}")
        return {"left_out": reason, "rows": []}
    few = replace(records, questions=records.questions[:LOCAL_RECORDS], bad=records.bad[:LOCAL_RECORDS])
    rows: list[Json] = []
    server: AbstractAsyncContextManager[local.LocalModel] = local.LocalModel()
    async with server as model:
        alone: Sequence[Answer[Any]] = ()
        for size in LOCAL_SIZES:
            calls = list[Call]()
            scorer = _asking(few.ask, model.base_url, on_call=calls.append)
            started = time.monotonic()
            answers = await _ask_all(scorer, few.questions, size, LOCAL_SECONDS)
            await scorer.close()
            alone = alone or answers
            decided = sum(answer.status == "answered" for answer in answers)
            tokens = [sum(getattr(call.tokens, name) for call in calls) for name in ("input", "cached_input", "output")]
            rows.append(
                {
                    "size": size, "records": len(answers), "answered": decided, "requests": len(calls), "input": tokens[0],
                    "cached": tokens[1], "output": tokens[2], "seconds": time.monotonic() - started, **_flips(answers, alone),
                }
            )  # fmt: skip
            say(f"quality, local model, {size} a call: {decided} of {len(answers)} answered, {rows[-1]['seconds']:.0f} s")
    return {"model": local.MODEL, "rows": rows}


# ---- what is shown -------------------------------------------------------------------------------------------------------------


def tables(found: Json) -> Sequence[Table]:
    """Prompts; costs and flips by batch size; the order of a batch; the canary over time; the local model where it was asked."""
    prompts = columns(
        f"What is byte for byte the same in all requests; {TOKEN_BYTES} bytes to a token, {LEAST} tokens are the least cached",
        "agent, prompt", "bytes", "tokens", "cached by providers",
    )  # fmt: skip
    for row in found["prompts"]:
        cached = "yes" if row["cacheable"] else "no, too short"
        prompts.add_row(f"{row['agent']}, {row['prompt']}", f"{row['prefix_bytes']:,}", f"{row['prefix_tokens']:,}", cached)
    shown = [prompts, _costs(found), _order(found), _canary(found)]
    if found["local"] is not None and found["local"]["rows"]:
        shown.append(_locals(found["local"]))
    return shown


def _costs(found: Json) -> Table:
    noise = found["noise"]
    table = columns(
        f"A decision by batch size, prices of {found['sizes'][0]['price_table']}; the sandbox's answers are sound for the first "
        f"{noise['sound']} of a batch, then off by up to {noise['points']:g} % a place",
        "agent, prompt, records a call", "requests", "input", "cached", "output", "USD for 1,000", "uncached", "flips", "AUC",
    )  # fmt: skip
    for row in found["sizes"]:
        ranked = "" if row["auc"] is None else f"{row['auc']:.3f} ± {row['auc_error']:.3f}"
        tokens = (f"{row[name]:,.0f}" for name in ("input", "cached", "output"))
        costs = (f"{row[name] / 1000:.4f}" for name in ("cost", "cost_uncached"))
        name = f"{row['agent']}, {row['prompt']}, {row['size']}"
        table.add_row(name, f"{row['requests']:.3f}", *tokens, *costs, f"{row['flips']:.3f}", ranked)
    return table


def _order(found: Json) -> Table:
    table = columns(
        "Flips at 16 a call by the record's place in its source batch", "order of a batch", "mean", "best place", "worst place"
    )
    for row in found["order"]:
        table.add_row(row["order"], *(f"{row[name]:.3f}" for name in ("mean", "least", "most")))
    return table


def _canary(found: Json) -> Table:
    table = columns(
        f"The canary: {SHARE:.0%} of records asked alone too, flips held at {FLIP_LIMIT:.0%}, batches of 32 wanted",
        "decisions", "records a call at the end", "compared", "flips seen", "flips there were", "requests a decision",
    )  # fmt: skip
    for row in found["canary"]:
        shares = (f"{row[name]:.3f}" for name in ("flips_seen", "flips", "requests"))
        table.add_row(f"{row['decisions']:,}", str(row["size"]), f"{row['compared']:,}", *shares)
    return table


def _locals(found: Json) -> Table:
    table = columns(
        f"{found['model']}, a real model of 135 million parameters, whose answers are poor: a few loans",
        "records a call", "answered", "requests", "input", "cached", "output", "seconds", "compared", "flips",
    )  # fmt: skip
    for row in found["rows"]:
        counts = (f"{row[name]:,}" for name in ("requests", "input", "cached", "output"))
        table.add_row(
            str(row["size"]), f"{row['answered']} of {row['records']}", *counts, f"{row['seconds']:.0f}", str(row["compared"]),
            f"{row['flips']:.2f}",
        )  # fmt: skip
    return table


def expectations(found: Json) -> Sequence[Json]:
    """No threshold for what a model does in batches: that it is noticed is expected, and that no place of a batch fares worse."""
    last = found["canary"][-1]
    fixed, shuffled = found["order"]
    return [
        at_most("flips in batches as the canary left them, share", last["flips"], 1.5 * FLIP_LIMIT),
        at_least("worst place of a batch, flips in a fixed order / shuffled", fixed["most"] / max(1e-9, shuffled["most"]), 1.5),
    ]
