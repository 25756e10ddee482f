"""The failure table: each signal of an endpoint, and what is done about it, over real HTTP through the gates and the failover.

A row says what the main endpoint does to its requests in turn, and what comes of a batch of three records. Requests are counted
at both endpoints, by their own meters. A read timeout is not tried again at the same endpoint: a hang takes its whole share of
the deadline, and what is left is the next one's. The last test fails where a fault of the sandbox, or a signal of the table,
has no row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from agents.engine.log_repeats import Repeats
from agents.engine.model_watch import ModelWatch, Watched
from agents.engine.trial import try_records
from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.prices import Price
from models.chat.chat import ChatScorer
from models.contract import Answer, Question
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker import State
from models.gates.breaker_gate import BreakerGate
from models.quality.canary import Canary
from models.quality.flips import FlipMeter
from models.routing.failover import Candidate, Failover
from models.sandbox import rules as sandbox_rules
from models.sandbox.faults import FAULTS
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import ASK, Judged, Shown, chat, line_to, questions, soon, statuses
from tests.support.simple_agent import OrderAnswer, order, simple_agent

PASSING = "connect error, 5xx, 529, 408, 409"
LATE = "read timeout"
RATE = "429 rate"
QUOTA = "429 quota or billing"
REFUSED_KEY = "401, 404, 403 with a reason"
UNEXPLAINED = "400, 403, 422 without a reason"
SCHEMA = "400 schema not supported"
TOO_LONG = "context overflow, finish_reason=length"
REFUSED = "refusal or content filter"
WRONG = "bad JSON, missing, foreign or duplicate ids"
GIVEN_UP = "deadline or budget reached"
NOT_A_COMPLETION = "200 that is no completion"
REJECTED = "any other 4xx, a redirect"
HARMLESS = "nothing that matters"
SIGNALS = (
    PASSING, LATE, RATE, QUOTA, REFUSED_KEY, SCHEMA, TOO_LONG, REFUSED, WRONG, GIVEN_UP, NOT_A_COMPLETION, REJECTED, UNEXPLAINED,
    HARMLESS,
)  # fmt: skip

Spent = Literal["nothing", "reported", "reserved"]


@dataclass(frozen=True)
class Row:
    """What the main endpoint does, and what comes of it.

    `calls` are the statuses of the Calls to it, in order, `spent` what each costs (one for all, where one is given). `elsewhere`
    says how many records the spare endpoint decided; `answers` the statuses. `asked` is how often a record was asked about, in
    requests that came to a completion. `alarm`: the worker's log says that the model gives no answers.
    """

    signal: str
    name: str
    calls: Sequence[str]
    spent: Sequence[Spent]
    schedule: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    answers: Sequence[str] = ("answered",) * 3
    elsewhere: int = 0
    breaker: State = "closed"
    limited: int = 0
    asked: int | None = None
    alarm: bool = False
    seconds: float = 20.0


def once(signal: str, faults: Sequence[str], first: str, spent: Spent, **more: Any) -> list[Row]:
    """Rows for faults that pass: the request is sent again and answered."""
    return [Row(signal, f"{fault} once", (first, "ok"), (spent, "reported"), (fault,), **more) for fault in faults]


ROWS = [
    *once(PASSING, ("500", "502", "503", "529", "408", "409", "error-200"), "unavailable", "nothing"),
    *once(PASSING, ("reset", "reset-body", "gzip"), "unavailable", "reserved"),
    Row(PASSING, "5xx for good: a third try is the last, then the next endpoint", ("unavailable",) * 3, ("nothing",) * 3,
        ("500", "503", "529"), elsewhere=3, alarm=True),
    Row(LATE, "no answer", ("timeout",), ("reserved",), ("hang",), elsewhere=3, seconds=1.2),
    Row(LATE, "no end of the answer", ("timeout",), ("reserved",), ("stall",), elsewhere=3, seconds=1.2),
    Row(LATE, "a byte at a time", ("timeout",), ("reserved",), ("drip",), elsewhere=3, seconds=1.2),
    Row(RATE, "with a hint", ("limited", "limited", "ok"), ("nothing", "nothing", "reported"), ("429", "429"), limited=2),
    Row(RATE, "without one", ("limited", "ok"), ("nothing", "reported"), ("rate",), limited=1),
    Row(RATE, "no attempt is charged for it", ("limited", "limited", "unavailable", "unavailable", "ok"),
        ("nothing",) * 4 + ("reported",), ("429", "429", "500", "500"), limited=2),
    Row(QUOTA, "429 with its code", ("limited",), ("nothing",), ("quota",), elsewhere=3, breaker="open", alarm=True),
    Row(QUOTA, "402", ("limited",), ("nothing",), ("402",), elsewhere=3, breaker="open", alarm=True),
    *(Row(REFUSED_KEY, fault, ("rejected",), ("nothing",), (fault,), elsewhere=3, breaker="open", alarm=True)
      for fault in ("401", "404", "echo")),
    *(Row(REJECTED, fault, ("rejected",), ("nothing",), (fault,), elsewhere=3, alarm=True) for fault in ("307",)),
    *(Row(UNEXPLAINED, f"{fault} once: halves are answered", ("rejected", "ok", "ok"), ("nothing", "reported", "reported"),
          (fault,), asked=3) for fault in ("400", "403", "422")),
    *(Row(UNEXPLAINED, f"{fault} for both halves too", ("rejected",) * 3, ("nothing",) * 3, (fault,) * 3, elsewhere=3, alarm=True)
      for fault in ("400", "403", "422", "charset")),
    Row(SCHEMA, "json_object is", ("rejected", "ok"), ("nothing", "reported"), config={"rejects": frozenset({"json_schema"})}),
    Row(SCHEMA, "nor json_object", ("rejected", "rejected", "ok"), ("nothing", "nothing", "reported"),
        config={"rejects": frozenset({"json_schema", "json_object"})}),
    *(Row(TOO_LONG, f"{fault} once: halves fit", ("rejected", "ok", "ok"), ("nothing", "reported", "reported"), (fault,), asked=3)
      for fault in ("context", "413", "image")),
    Row(TOO_LONG, "a record that is too long alone", ("rejected",) * 5, ("nothing",) * 5, config={"context": 100},
        answers=("invalid",) * 3),
    Row(TOO_LONG, "reply cut at its limit", ("partial", "ok", "ok"), ("reported",) * 3, ("length",), asked=6),
    Row(REFUSED, "by the model, once", ("refused", "ok", "ok"), ("reported",) * 3, ("refusal",), asked=6),
    Row(REFUSED, "by a filter behind the model", ("refused", "ok", "ok"), ("reported",) * 3, ("content_filter",), asked=6),
    Row(REFUSED, "by a filter before the model", ("refused", "ok", "ok"), ("nothing", "reported", "reported"), ("filter",),
        asked=3),
    *once(NOT_A_COMPLETION, ("html", "empty", "truncated", "huge", "no-choices"),
          "protocol", "reserved"),
    Row(NOT_A_COMPLETION, "twice: the endpoint is as good as not there", ("protocol",) * 2, ("reserved",) * 2,
        ("html", "no-choices"), elsewhere=3, alarm=True),
    *(Row(WRONG, f"{fault}: all are asked again, in halves", ("partial", "ok", "ok"), ("reported",) * 3, (fault,), asked=6)
      for fault in ("bad-json", "prose", "epilogue", "think-open", "no-list", "renumbered", "null-content", "tool-calls")),
    *(Row(WRONG, f"{fault}: the one is asked again", ("partial", "ok"), ("reported",) * 2, (fault,), asked=4)
      for fault in ("missing", "foreign", "duplicate", "range", "negative", "vast", "types", "nan", "infinity")),
    Row(WRONG, "one that is wrong again stays so", ("partial",) * 2, ("reported",) * 2, ("nan", "infinity"), asked=4,
        answers=("answered", "answered", "invalid")),
    *(Row(HARMLESS, fault, ("ok",), ("reported",), (fault,), asked=3) for fault in ("fence", "think", "reordered", "swapped")),
    *(Row(HARMLESS, f"{fault} is not believed", ("ok",), ("reserved",), (fault,), asked=3)
      for fault in ("usage-absent", "usage-negative", "usage-absurd")),
]  # fmt: skip


class Rig:
    """A main endpoint and a spare one, each behind breaker, budget and admission, as agents/engine/inference.py has them."""

    def __init__(self, main: str, spare: str) -> None:
        self.calls: list[Call] = []
        price = Price(1_000_000, 1_000_000, 1_000_000)
        self.budget = Budget(10**12)
        self.budget.take(0, 1, {})
        self.breaker, self.admission = BreakerGate(main), AdmissionGate(Limits(rpm=600_000))
        gates = (self.breaker, BudgetGate({"test": self.budget}, price, lambda: "2026-01-01"), self.admission)
        line = line_to(main, gates=gates, pacer=self.admission, price=price, model="main")
        scorer = ChatScorer(ASK, line, agent="test", on_call=self.calls.append)
        watched = Watched(scorer, "test", "asking the spare", ModelWatch(Repeats((), seconds=0.0)))
        first = Candidate(watched, "main", self.breaker.available)
        self.scorer = Failover([first, Candidate(chat(spare, model="spare"), "spare")])

    async def score(self, asked: Sequence[Question], seconds: float) -> Sequence[Answer[Any]]:
        """The answers, everything closed afterwards."""
        try:
            return await self.scorer.score(asked, soon(seconds))
        finally:
            await self.scorer.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.signal}: {row.name}")
async def test_each_signal_has_its_action(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    """Requests, calls and what they cost, answers, who gave them, breaker, admission and alarm are as the row says."""
    caplog.set_level(logging.WARNING)
    async with Sandbox(SandboxConfig(schedule=tuple(row.schedule), **row.config)) as main, Sandbox() as spare:
        rig = Rig(main.base_url, spare.base_url)
        answers = await rig.score(questions(3), row.seconds)
    assert sorted(statuses(answers)) == sorted(row.answers)
    assert [call.status for call in rig.calls] == list(row.calls)
    assert [spent(call) for call in rig.calls] == list(row.spent)
    assert main.meter.requests == len(row.calls)
    assert spare.meter.records == row.elsewhere
    assert sum(answer.model_requested == "spare" for answer in answers) == row.elsewhere
    assert (rig.breaker.breaker.state, rig.admission.stats.limited) == (row.breaker, row.limited)
    assert row.asked is None or main.meter.records == row.asked
    assert ("gives no answers" in caplog.text) == row.alarm
    assert rig.admission.stats.in_flight == rig.admission.stats.reserved_tokens == 0
    assert all(answer.why for answer in answers if answer.status != "answered")


def spent(call: Call) -> str:
    """What a Call costs, at one micro-unit a token: nothing, what the endpoint reported, or at least all that was reserved."""
    if call.cost_micro == 0:
        return "nothing"
    assert call.cost_micro is not None
    reported = call.tokens.input + call.tokens.output
    return "reported" if call.cost_micro == reported else "reserved" if call.cost_micro > call.tokens_reserved else "less"


async def test_nobody_listening_is_a_connect_error_that_costs_nothing() -> None:
    """Three tries, none of them billed, then the next endpoint."""
    async with Sandbox() as gone:
        pass
    async with Sandbox() as spare:
        rig = Rig(gone.base_url, spare.base_url)
        answers = await rig.score(questions(3), 20)
    assert [(call.status, spent(call)) for call in rig.calls] == [("unavailable", "nothing")] * 3
    assert {answer.model_requested for answer in answers} == {"spare"}


async def test_what_keeps_failing_opens_the_breaker_and_then_sends_nothing() -> None:
    """Five failures in a row: the next batch is answered elsewhere without a request to the one that fails."""
    async with Sandbox(SandboxConfig(faults={"503": 1.0})) as main, Sandbox() as spare:
        rig = Rig(main.base_url, spare.base_url)
        for _ in range(2):
            await rig.scorer.score(questions(3), soon(20))
        assert (main.meter.requests, rig.breaker.breaker.state) == (5, "open")
        answers = await rig.score(questions(3), 20)
    assert main.meter.requests == 5
    assert {answer.model_requested for answer in answers} == {"spare"}


@pytest.mark.parametrize("by_model", [True, False], ids=["by the model", "by a filter"])
async def test_a_poisoned_record_is_refused_alone(by_model: bool) -> None:
    """Sixteen records, one with a word that the endpoint does not like: its neighbours are each decided once."""
    asked = questions(16)
    asked[5] = Question("d5", Shown(number=5, note="verboten"))
    async with Sandbox(SandboxConfig(poison="verboten", poison_refusal=by_model)) as main, Sandbox() as spare:
        rig = Rig(main.base_url, spare.base_url)
        answers = await rig.score(asked, 20)
    assert [answer.status == "refused" for answer in answers] == [number == 5 for number in range(16)]
    assert statuses(answers).count("answered") == 15
    assert main.meter.requests == 1 + 2 * 4
    assert (spare.meter.requests, rig.breaker.breaker.state) == (0, "closed")


@pytest.mark.parametrize("cuts", [False, True], ids=["refused", "cut without a word"])
async def test_a_batch_past_the_context_is_divided_until_it_fits(cuts: bool) -> None:
    """Whether the server refuses it or silently answers for a part of it, every record is answered, each once."""
    async with Sandbox(SandboxConfig(context=700, cuts=cuts)) as main, Sandbox() as spare:
        rig = Rig(main.base_url, spare.base_url)
        answers = await rig.score([Question(f"d{n}", Shown(number=n, note="x" * 20)) for n in range(96)], 20)
    assert statuses(answers) == ["answered"] * 96
    assert {answer.model_requested for answer in answers} == {"main"}
    assert main.meter.requests < 48


async def test_swapped_ids_are_taken_as_they_are_and_only_the_canary_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records' answers under each other's ids are valid in every respect; asked alone, the same records answer otherwise."""
    monkeypatch.setitem(sandbox_rules.RULES, "Judged", lambda shown: {"risk": 90 * (shown["number"] % 2), "grade": "good"})
    calls: list[Call] = []
    async with Sandbox(SandboxConfig(schedule=("swapped",))) as server:
        canary = Canary(chat(server.base_url, calls), FlipMeter(2), share=1.0)
        answers = await canary.score(questions(2), soon(20))
        while canary._asking:
            await next(iter(canary._asking))
        await canary.close()
    assert [answer.value for answer in answers] == [Judged(risk=90, grade="good"), Judged(risk=0, grade="good")]
    assert calls[0].status == "ok"
    assert (canary.meter.stats.compared, canary.meter.stats.flipped) == (2, 2)


async def test_past_the_deadline_the_scorecard_answers_and_the_decision_says_so() -> None:
    """The agent's fallback decides, the decision has tier and reason, and an outcome that it may not give alone is reviewed."""

    class Scorecard:
        name = "scorecard"

        async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[OrderAnswer]]:
            said = OrderAnswer(risk=1, verdict="accept")
            return [Answer("answered", said, tier="scorecard", why="by the scorecard")] * len(asked)

        async def close(self) -> None:
            pass

    agent = simple_agent(ASK, answer_model=OrderAnswer, on_no_answer="fallback", fallback=Scorecard(), deadline="400ms")
    async with Sandbox(SandboxConfig(faults={"hang": 1.0})) as server:
        (came,) = [o async for o in try_records(agent, [order("a")], chat(server.base_url), fallback=Scorecard())]
    (decision,) = came.decisions
    assert decision["tier"] == "fallback"
    assert decision["tier_why"] == "m: timeout (no answer before the deadline); by the scorecard"
    assert came.judgements[0]["tiers"] == ["m: timeout", "fallback"]
    assert (decision["proposed_outcome"], decision["outcome"]) == ("accept", "review")


def test_every_fault_and_every_signal_has_a_row() -> None:
    """A fault that is added to the sandbox, or a signal to the table, has to say here what is done about it."""
    shown = {fault for row in ROWS for fault in row.schedule}
    assert sorted(set(FAULTS) - shown) == []
    assert sorted(set(SIGNALS) - {row.signal for row in ROWS}) == [GIVEN_UP]  # has a test of its own, through the engine
