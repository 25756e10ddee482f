"""One record that the endpoint refuses, or that spoils its reply, costs its neighbours nothing but a few requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from models.chat.chat import ChatScorer
from models.chat.refusals import IN_A_ROW as IN_A_ROW_ALONE
from models.chat.refusals import Refusals
from models.gates.breaker import IN_A_ROW
from models.gates.breaker_gate import BreakerGate
from schemas.audit import Call
from tests.support.scoring import ASK, chat, line_to, questions, soon, statuses


def judged(ids: Sequence[str]) -> str:
    """A valid answer under each id."""
    return orjson.dumps({"answers": [{"id": known, "risk": 1, "grade": "good"} for known in ids]}).decode()


USELESS: dict[str, Callable[[list[str]], str | None]] = {
    "prose": lambda ids: "I can not do that.",
    "unterminated": lambda ids: judged(ids)[:-1],
    "half a pair": lambda ids: judged(ids)[:-2] + ', {"id": "x", "note": "\\ud800"}]}',
    "no answers": lambda ids: '{"answers":[]}',
    "renumbered": lambda ids: judged([str(place) for place in range(len(ids))]),
    "duplicated": lambda ids: judged([*ids, *ids]),
    "no text": lambda ids: None,
}
"""Replies that answer nobody, though they are asked about many."""


def completion(content: str | None, *, refusal: str | None = None) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {"model": "poisoned", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


class Poisoned:
    """An endpoint that refuses every request in which a record of `bad` numbers is, in one of the ways endpoints do.

    Once it has refused one, `after` says of the next ones, by their numbers, whether they fail, and how.
    """

    def __init__(self, bad: set[int], way: str, after: Callable[[list[int]], str] = lambda numbers: "") -> None:
        self.bad, self.way = bad, way
        self.after = after
        self.asked: list[list[int]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """One chat request."""
        body = orjson.loads(await request.read())
        records = orjson.loads(body["messages"][1]["content"])["records"]
        numbers = [record["features"]["number"] for record in records]
        self.asked.append(numbers)
        if len(self.asked) > 1 and (how := self.after(numbers)):
            return await self._failed(how)
        if self.bad.isdisjoint(numbers):
            answers = [{"id": r["id"], "risk": r["features"]["number"], "grade": "good"} for r in records]
            return web.json_response(completion(orjson.dumps({"answers": answers}).decode()))
        if self.way in USELESS:
            return web.json_response(completion(USELESS[self.way]([record["id"] for record in records])))
        if self.way.isdecimal():
            return web.Response(text="<html>You don't have permission to access this resource.</html>", status=int(self.way))
        if self.way == "refusal":
            return web.json_response(completion("", refusal="I can not help with this."))
        code = "content_filter" if self.way == "filter" else "context_length_exceeded"
        return web.json_response({"error": {"message": "no", "code": code}}, status=400)

    async def _failed(self, how: str) -> web.Response:
        if how == "hang":
            await asyncio.sleep(30)
        if how == "quota":
            return web.json_response({"error": {"message": "no", "code": "insufficient_quota"}}, status=429)
        return web.json_response({"error": {"message": "no"}}, status=int(how), headers={"retry-after": "60"})


def reach(server: Poisoned) -> TestServer:
    """The endpoint behind a socket."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    return TestServer(app)


@pytest.mark.parametrize("way", ["refusal", "filter", "context"])
@pytest.mark.parametrize("bad", [{0}, {13}, {31}, {3, 17}, set(range(32))], ids=lambda bad: f"{len(bad)} bad, first {min(bad)}")
async def test_poison_is_isolated_and_each_healthy_record_is_decided_once(bad: set[int], way: str) -> None:
    """One poison in 32 costs 10 requests more and asks fewer than 3 n records; each neighbour is answered once, about itself."""
    server, calls = Poisoned(bad, way), list[Call]()
    async with reach(server) as running:
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


@pytest.mark.parametrize("way", USELESS)
@pytest.mark.parametrize("bad", [{0}, {13}, {3, 17}], ids=lambda bad: f"{len(bad)} bad, first {min(bad)}")
async def test_a_record_that_spoils_the_whole_reply_takes_nobodys_answer(bad: set[int], way: str) -> None:
    """What answers nobody is asked again in halves: each poison is found with 2 log2 n requests, each neighbour answered once."""
    server, calls = Poisoned(bad, way), list[Call]()
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")), calls)
        answers = await scorer.score(questions(32), soon(60))
        await scorer.close()
    assert [answer.status == "answered" for answer in answers] == [number not in bad for number in range(32)]
    assert {answers[number].status for number in bad} <= {"invalid", "missing"}
    answered = Counter(n for numbers in server.asked if bad.isdisjoint(numbers) for n in numbers)
    assert set(answered.values()) == {1}
    assert len(calls) <= 1 + 2 * len(bad) * math.log2(32)


@pytest.mark.parametrize("way", ["400", "403"])
async def test_a_record_that_a_firewall_refuses_takes_nobodys_answer_and_shuts_nobody_out(way: str) -> None:
    """A refusal without a reason is looked into by halves; asked alone again and again the record opens no breaker either."""
    server, calls = Poisoned({13}, way), list[Call]()
    async with reach(server) as running:
        gate = BreakerGate("there")
        scorer = chat(str(running.make_url("/v1")), calls, gates=[gate])
        answers = await scorer.score(questions(32), soon(60))
        assert len(calls) <= 1 + 2 * math.log2(32)
        for _ in range(IN_A_ROW):
            await scorer.score(questions(32)[13:14], soon(60))
        await scorer.close()
    assert statuses(answers) == ["rejected" if number == 13 else "answered" for number in range(32)]
    assert gate.breaker.state == "closed"


async def test_an_endpoint_that_forbids_everything_is_left_alone_after_a_few() -> None:
    """Three requests for a batch, and the sixth batch finds it shut."""
    server = Poisoned(set(range(8)), "403")
    async with reach(server) as running:
        gate = BreakerGate("there")
        scorer = chat(str(running.make_url("/v1")), gates=[gate])
        await scorer.score(questions(8), soon(60))
        assert len(server.asked) == 3
        for _ in range(5):
            await scorer.score(questions(8), soon(60))
        await scorer.close()
    assert (gate.breaker.state, gate.breaker.stats.why) == ("open", "rejected (403)")


@pytest.mark.parametrize(("records", "most"), [(32, 7), (3, 5), (2, 3), (1, 2)])
async def test_an_endpoint_that_answers_nobody_is_not_halved_to_the_last_record(records: int, most: int) -> None:
    """Two levels of halves that bring no answer are all."""
    server = Poisoned(set(range(records)), "prose")
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")))
        answers = await scorer.score(questions(records), soon(60))
        await scorer.close()
    assert statuses(answers) == ["invalid"] * records
    assert len(server.asked) == most


@pytest.mark.parametrize(
    ("way", "after", "status"),
    [
        ("filter", "503", "unavailable"), ("context", "503", "unavailable"), ("refusal", "quota", "limited"),
        ("filter", "429", "limited"), ("context", "hang", "timeout"), ("refusal", "hang", "timeout"),
    ],
)  # fmt: skip
async def test_who_could_not_be_asked_without_the_poison_is_not_taken_for_poison(way: str, after: str, status: str) -> None:
    """A batch was refused, and its halves meet an outage, a limit or the deadline: all have that, which another day cures."""
    server = Poisoned({3}, way, lambda numbers: after)
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")))
        answers = await scorer.score(questions(8), soon(0.5 if status != "unavailable" else 20))
        await scorer.close()
    found = set(statuses(answers))
    assert status in found
    assert found <= {status, "timeout"}  # the second half may have waited for the first to find out how to ask
    assert len(server.asked) > 1


async def test_who_was_refused_alone_stays_refused_whatever_becomes_of_the_others() -> None:
    """The poison is known in the end; those who were asked beside it and without it have what came of their own requests."""
    server = Poisoned({3}, "filter", lambda numbers: "" if 3 in numbers else "503")
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")))
        assert statuses(await scorer.score(questions(4), soon(20))) == ["unavailable"] * 3 + ["refused"]
        await scorer.close()


async def test_a_batch_whose_halves_were_never_asked_has_run_out_of_time() -> None:
    """The refusal came at the last moment: nobody knows whose fault it was, and the reason says both."""
    server = Poisoned({3}, "filter")
    async with reach(server) as running:
        until = soon(0.6)

        def late(call: Call) -> None:
            time.sleep(max(0.0, until - asyncio.get_running_loop().time()))

        line = line_to(str(running.make_url("/v1")))
        scorer = ChatScorer(ASK, line, agent="test", on_call=late)
        answers = await scorer.score(questions(8), until)
        await scorer.close()
    assert statuses(answers) == ["timeout"] * 8
    assert "no time was left to ask about fewer records" in answers[0].why
    assert len(server.asked) == 1


@pytest.mark.parametrize("way", ["refusal", "filter"])
async def test_an_endpoint_that_refuses_everything_is_not_halved_for_ever(way: str) -> None:
    """The first batch finds out; of the next ones one is tried by its halves, and the others cost one request each."""
    server = Poisoned(set(range(16)), way)
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")))
        await scorer.score(questions(16), soon(60))
        assert len(server.asked) == 31
        for _ in range(10):
            assert statuses(await scorer.score(questions(16), soon(60))) == ["refused"] * 16
        assert len(server.asked) <= 31 + 10 + 2 * 4  # four pauses are 30 s
        server.bad = {3}
        assert statuses(await scorer.score(questions(32)[16:], soon(60))) == ["answered"] * 16
        found = await scorer.score(questions(16), soon(60))
        await scorer.close()
    assert statuses(found) == ["refused" if number == 3 else "answered" for number in range(16)]


async def test_the_words_of_a_refusal_are_kept_for_a_record_that_was_refused_alone_only() -> None:
    """What a model says of a batch may quote any record of it: while halving rests, nobody's audit has it."""
    server = Poisoned(set(range(16)), "refusal")
    async with reach(server) as running:
        scorer = chat(str(running.make_url("/v1")))
        rounds = [await scorer.score(questions(16), soon(60)) for _ in range(3)]
        alone = await scorer.score(questions(1), soon(60))
        await scorer.close()
    words = "I can not help with this."
    assert [{answer.raw for answer in answers} for answers in (*rounds, alone)] == [{words}, {None}, {None}, {words}]
    assert [statuses(answers) for answers in rounds] == [["refused"] * 16] * 3


def test_halving_rests_longer_and_longer_until_somebody_is_answered() -> None:
    """After eight records refused alone one batch in each pause is halved; pauses double to a bound, and an answer ends them."""
    refusals = Refusals()
    for _ in range(IN_A_ROW_ALONE):
        assert refusals.may_halve(0.0)
        refusals.refused_alone()
    tried = [second for second in range(600) if refusals.may_halve(float(second))]
    assert tried == [0, 2, 6, 14, 30, 62, *range(122, 600, 60)]
    refusals.answered()
    assert refusals.may_halve(599.5)
    assert refusals.may_halve(599.5)
