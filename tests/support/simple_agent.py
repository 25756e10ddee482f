"""A small agent over plain JSON events, and scorers to drive the engine with: for tests of the engine, not of any agent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from agents.engine.spec import Batch, Context, DecisionAgent, Order, ReasonCode, Scale, Skip, Verdict
from models.contract import Answer, Question
from schemas.event import Event
from topics.record import Raw
from topics.spec import event_topic, out_topic


class Purchase(BaseModel):
    """The row: whose it is, how much, and what the test wants of it."""

    who: str
    amount: int
    wish: str = ""


class OrderFeatures(BaseModel):
    """What is asked about."""

    who: str
    amount: int = Field(ge=0)
    wish: str = ""


class OrderAnswer(BaseModel):
    """What is answered."""

    risk: int = Field(ge=0, le=100)
    verdict: Literal["accept", "refuse", "insufficient_information"]


Simple = DecisionAgent[Event[Purchase], OrderFeatures, OrderAnswer]


def features(context: Context[Event[Purchase]]) -> OrderFeatures | Skip | Verdict:
    """Skips, rules and failures on demand: `wish` says which."""
    row = context.value.row
    if row.wish == "skip":
        return Skip("asked-to-skip")
    if row.wish == "rule":
        return Verdict("refuse", overrides=("asked-for-rule",))
    if row.wish == "raise-features":
        raise ValueError("features were asked to fail")
    return OrderFeatures(who=row.who, amount=row.amount, wish=row.wish)


def decide(context: Context[Event[Purchase]], features: OrderFeatures, answer: Answer[OrderAnswer]) -> Verdict:
    """What was answered; without an answer, review."""
    if features.wish == "raise-decide":
        raise RuntimeError("decide was asked to fail")
    if answer.value is None:
        return Verdict("review", missing=("answer",))
    said = {"accept": "accept", "refuse": "refuse", "insufficient_information": "review"}[answer.value.verdict]
    return Verdict(said, score=answer.value.risk)


def simple_agent(scorer: Any, **changes: Any) -> Simple:
    """The agent, with whatever the test wants otherwise."""
    settings: dict[str, Any] = {
        "name": "simple", "version": 1, "reads": event_topic("orders", Purchase), "writes": out_topic("order.decision.v1"),
        "subject": lambda event: event.row.who, "subject_type": "customer", "outcomes": ("accept", "refuse", "review"),
        "features": features, "features_model": OrderFeatures, "scorer": scorer, "answer_model": OrderAnswer,
        "decide": decide, "order": Order.KEY, "batch": Batch(4, within="5ms"), "in_flight": 8, "deadline": "2s",
        "scale": Scale(0, 100, higher_is="riskier"), "rules": {"asked-to-skip": "a test", "asked-for-rule": "a test"},
        "reasons": {"big": ReasonCode({"en": "A large amount"}, ("amount",), lambda f: f.amount > 100)},
    }  # fmt: skip
    return DecisionAgent(**(settings | changes))


def order(who: str, amount: int = 1, wish: str = "", offset: int = 0) -> Raw:
    """One record."""
    return Raw("orders", orjson.dumps({"who": who, "amount": amount, "wish": wish}), who.encode(), offset=offset, timestamp=1)


class Scripted:
    """A Scorer that answers through a function after a random wait, and remembers what it was asked and how much at once."""

    name = "scripted"

    def __init__(
        self, say: Callable[[OrderFeatures], Answer[OrderAnswer]] | None = None, *, longest: float = 0.0, seed: int = 0
    ) -> None:
        self._say = say or (lambda f: Answer("answered", OrderAnswer(risk=min(f.amount, 100), verdict="accept")))
        self._longest = longest
        self._random = random.Random(seed)
        self.batches: list[list[OrderFeatures]] = []
        self.most = self.now = 0
        self.closed = 0

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        asked = [q.features for q in questions if isinstance(q.features, OrderFeatures)]
        self.batches.append(asked)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self._longest:
                await asyncio.sleep(self._random.random() * self._longest)
        finally:
            self.now -= 1
        return [self._say(f) for f in asked]

    async def close(self) -> None:
        """See models.contract.Scorer."""
        self.closed += 1
