"""What every contender shares: the records, the lean agent, its answers, and the work from bytes to one decision.

Imports nothing of Kafka's clients, so that the peer in a virtual environment of its own can import it too. The clock is fixed:
two contenders that decide the same records write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import orjson
from pydantic import BaseModel, Field

from agents.engine.manifests import manifest_of
from agents.engine.pipeline import Pipeline
from agents.engine.spec import Batch, Context, DecisionAgent, Scale, Verdict
from agents.engine.state import PartitionState
from agents.engine.verdicts import Site
from models.contract import Answer
from models.scorers.instant import InstantScorer
from schemas.change import Change
from topics.handover import Outbound
from topics.record import RawRecord
from topics.spec import change_topic, out_topic

PARTITIONS = 6
NOW_MS = 1_760_000_000_000
"""What every contender's wall clock shows, in epoch milliseconds."""
PURPOSES = ("car", "education", "furniture", "business")


class Application(BaseModel):
    """The row of the bench's change topic."""

    id: int
    customer_id: int
    amount: int
    term: int
    purpose: str
    income: int
    status: str


class Features(BaseModel):
    """What is asked about."""

    amount: int = Field(ge=0)
    term: int
    purpose: str
    income: int


class Risk(BaseModel):
    """What is answered."""

    risk: int = Field(ge=0, le=100)
    verdict: Literal["low", "high", "insufficient_information"]


Lean = DecisionAgent[Change[Application], Features, Risk]


def features(context: Context[Change[Application]]) -> Features:
    """Four fields of the row."""
    row = context.value.row
    return Features(amount=row.amount, term=row.term, purpose=row.purpose, income=row.income)


def assess(asked: Features) -> Risk:
    """The instant answer: instalment against income."""
    risk = min(100, 100 * asked.amount // (asked.term * asked.income))
    return Risk(risk=risk, verdict="high" if risk > 50 else "low")


def decide(context: Context[Change[Application]], asked: Features, answer: Answer[Risk]) -> Verdict:
    """The answer's word; without an answer, review."""
    if answer.value is None:
        return Verdict("review", missing=("answer",))
    return Verdict("approve" if answer.value.verdict == "low" else "review", score=answer.value.risk)


def lean_agent(
    source: str, decisions: str, *, size: int = 64, within: str = "2ms", in_flight: int = 64, deadline: str = "30s"
) -> Lean:
    """The agent of all measurements: no joins, no windows, one score."""
    return DecisionAgent(
        name="bench", version=1, reads=change_topic(source, Application, key=("id",), partitions=PARTITIONS),
        writes=out_topic(decisions, partitions=PARTITIONS), subject=lambda change: str(change.row.id),
        subject_type="application", outcomes=("approve", "review"), features=features, features_model=Features,
        scorer=InstantScorer(assess), answer_model=Risk, decide=decide, batch=Batch(size, within=within), in_flight=in_flight,
        deadline=deadline, scale=Scale(0, 100, higher_is="riskier"),
    )  # fmt: skip


def record(number: int) -> tuple[bytes, bytes, int]:
    """Key, value (about 400 bytes) and partition of the n-th change: a Debezium envelope without schemas."""
    row = {
        "id": number, "customer_id": number % 997, "amount": 500 + number * 37 % 19_500, "term": 6 + number % 54,
        "purpose": PURPOSES[number % 4], "income": 900 + number * 13 % 4000, "status": "submitted",
    }  # fmt: skip
    source = {
        "version": "3.6.3.Final", "connector": "postgresql", "name": "bank", "ts_ms": NOW_MS - 1000, "snapshot": "false",
        "db": "bank", "sequence": f'["{24_000_000 + number}","{24_000_100 + number}"]', "schema": "public",
        "table": "loan_application", "txId": 700 + number, "lsn": 24_000_100 + number, "xmin": None,
    }  # fmt: skip
    value = {"before": None, "after": row, "source": source, "op": "c", "ts_ms": NOW_MS - 900}
    return orjson.dumps({"id": number}), orjson.dumps(value), number % PARTITIONS


def records(count: int) -> Iterator[tuple[bytes, bytes, int]]:
    """The first `count` changes."""
    return map(record, range(count))


class Work:
    """The shared work, as a hand-written loop calls it: the engine's own pipeline, and the same answer."""

    def __init__(self, source: str, decisions: str, wall_ms: Callable[[], int] = lambda: NOW_MS) -> None:
        self.agent = lean_agent(source, decisions)
        site = Site(manifest=manifest_of(self.agent, models=()).hash())
        self._pipeline = Pipeline(
            self.agent, site, joins=None, judgements=None, dead_letters="headrace.bench.dlq", wall_ms=wall_ms
        )
        self._states: dict[int, PartitionState] = {}

    def __call__(self, raw: RawRecord) -> Outbound:
        """One record's decision. Records of a partition must come in order."""
        pipeline = self._pipeline
        state = self._states.get(raw.partition)
        if state is None:
            state = self._states[raw.partition] = pipeline.new_state(0)
        (item,) = pipeline.read(state, raw)
        pipeline.prepare(item)
        assert isinstance(item.features, Features)
        pipeline.conclude(item, Answer("answered", assess(item.features), "python", model_returned="instant"))
        assert item.settled is not None
        (made,) = item.settled.outbound
        return made


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


Json = dict[str, Any]
