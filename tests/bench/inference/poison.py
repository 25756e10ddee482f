"""Part `poison`: one record in 32 that the model, or its content filter, refuses together with all that stand beside it.

Headrace halves a refused batch; the peer is instructor, which sends the whole of it again. Requests and records are counted by a
front before the sandbox (tests/support/front.py), which refuses whatever holds the poison.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from rich.table import Table

from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question
from models.sandbox.server import Sandbox
from tests.bench.inference.environment import environment
from tests.bench.inference.part import Say, at_most, columns
from tests.bench.inference.work import POISON, PROMPT, Judged, poisoned
from tests.bench.processes import contender
from tests.bench.shared import Json
from tests.support.front import Front, Served, Way

SIZE = 32
RETRIES = 3
WAYS: dict[Way, str] = {"refusal": "refusal of the model", "filter": "400 of a content filter"}
PEER = "tests.bench.inference.instructors_poison"


async def measure(*, quick: bool, say: Say) -> Json:
    """A batch for each place of the poison, refused in both ways, by Headrace and by the peer."""
    places = (0, 13, SIZE - 1) if quick else range(SIZE)
    python = environment("instructor")
    rows = []
    for way in get_args(Way):
        async with Sandbox() as server, Front(server.base_url, poison=[POISON], way=way) as front:
            answered = await _headrace(front.base_url, places)
            rows.append({"who": "Headrace", "way": way, **_account(front.log, answered, places)})
            front.log.clear()
            given = {"base_url": front.base_url, "places": list(places), "size": SIZE, "retries": RETRIES}
            async with contender(PEER, given, python) as process:
                result = await process.result(timeout=240.0)
            peer = f"instructor, max_retries={RETRIES}"
            rows.append({"who": peer, "way": way, **_account(front.log, result["answered"], places)})
        for row in rows[-2:]:
            say(f"poison, {WAYS[way]}, {row['who']}: {row['requests']:.1f} requests, {row['decided']:.1f} of {SIZE - 1} decided")
    return {"size": SIZE, "places": len(places), "rows": rows}


async def _headrace(base_url: str, places: Sequence[int]) -> list[int]:
    """How many records of each batch were answered."""
    scorer = ChatScorer(Ask(Judged, PROMPT), Line(base_url, "headrace", "bench"), agent="bench")
    answered = []
    for place in places:
        asked = [Question(f"{place}-{number}", record) for number, record in enumerate(poisoned(SIZE, place))]
        answers = await scorer.score(asked, asyncio.get_running_loop().time() + 60)
        answered.append(sum(answer.status == "answered" for answer in answers))
    await scorer.close()
    return answered


def _account(log: Sequence[Served], answered: Sequence[int], places: Sequence[int]) -> Json:
    """Per batch. `twice` are answers about healthy records beyond one for each batch in which they stood."""
    given = Counter(str(record) for served in log if not served.poisoned for record in served.records)
    due = Counter(str(record.model_dump()) for place in places for record in poisoned(SIZE, place))
    return {
        "requests": len(log) / len(places),
        "record_asks": sum(len(served.records) for served in log) / len(places),
        "tokens": sum(served.tokens for served in log) / len(places),
        "decided": sum(answered) / len(places),
        "fewest_decided": min(answered),
        "twice": sum((given - due).values()),
    }


def tables(found: Json) -> Sequence[Table]:
    """One."""
    table = columns(
        f"One poison in {found['size']}, mean over {found['places']} places of it in the batch", "refused how, asked by whom",
        "requests", "records asked", "tokens", f"decided of {found['size'] - 1}", "answered twice",
    )  # fmt: skip
    for row in found["rows"]:
        numbers = (f"{row['requests']:.1f}", f"{row['record_asks']:.0f}", f"{row['tokens']:,.0f}", f"{row['decided']:.1f}")
        table.add_row(f"{WAYS[row['way']]}, {row['who']}", *numbers, str(row["twice"]))
    return [table]


def expectations(found: Json) -> Sequence[Json]:
    """Of Headrace, in the worse of the two ways."""
    ours = [row for row in found["rows"] if row["who"] == "Headrace"]
    return [
        at_most("one poison in 32: requests more than one", max(row["requests"] for row in ours) - 1, 10),
        at_most("one poison in 32: records asked / records", max(row["record_asks"] for row in ours) / found["size"], 3),
        at_most("one poison in 32: healthy records not decided", found["size"] - 1 - min(r["fewest_decided"] for r in ours), 0),
        at_most("one poison in 32: healthy records answered twice", max(row["twice"] for row in ours), 0),
    ]
