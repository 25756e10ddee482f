"""One record that the endpoint refuses costs its neighbours nothing but a few requests."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from schemas.audit import Call
from tests.support.scoring import chat, questions, soon, statuses


def completion(content: str, *, refusal: str | None = None) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {"model": "poisoned", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


class Poisoned:
    """An endpoint that refuses every request in which a record of `bad` numbers is, in one of the ways endpoints do."""

    def __init__(self, bad: set[int], way: str) -> None:
        self.bad, self.way = bad, way
        self.asked: list[list[int]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """One chat request."""
        body = orjson.loads(await request.read())
        records = orjson.loads(body["messages"][1]["content"])["records"]
        numbers = [record["features"]["number"] for record in records]
        self.asked.append(numbers)
        if self.bad.isdisjoint(numbers):
            answers = [{"id": r["id"], "risk": r["features"]["number"], "grade": "good"} for r in records]
            return web.json_response(completion(orjson.dumps({"answers": answers}).decode()))
        if self.way == "refusal":
            return web.json_response(completion("", refusal="I can not help with this."))
        code = "content_filter" if self.way == "filter" else "context_length_exceeded"
        return web.json_response({"error": {"message": "no", "code": code}}, status=400)


@pytest.mark.parametrize("way", ["refusal", "filter", "context"])
@pytest.mark.parametrize("bad", [{0}, {13}, {31}, {3, 17}, set(range(32))], ids=lambda bad: f"{len(bad)} bad, first {min(bad)}")
async def test_poison_is_isolated_and_each_healthy_record_is_decided_once(bad: set[int], way: str) -> None:
    """One poison in 32 costs 10 requests more and asks fewer than 3 n records; each neighbour is answered once, about itself."""
    server, calls = Poisoned(bad, way), list[Call]()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    async with TestServer(app) as running:
        scorer = chat(str(running.make_url("/v1")), calls)
        answers = await scorer.score(questions(32), soon(60))
        await scorer.close()
    status = "invalid" if way == "context" else "refused"
    assert statuses(answers) == [status if number in bad else "answered" for number in range(32)]
    assert [answer.value.risk for answer in answers if answer.value] == [n for n in range(32) if n not in bad]
    answered = Counter(n for numbers in server.asked if bad.isdisjoint(numbers) for n in numbers)
    assert set(answered.values()) <= {1}
    if len(bad) == 1:
        assert len(calls) - 1 <= 10
        assert sum(map(len, server.asked)) <= 3 * 32
    assert len(calls) <= 2 * 32 - 1
    assert len(calls) <= 1 + 2 * len(bad) * math.log2(32)
