"""DecisionAgent: all that a data team says about one agent, and the types its functions speak.

The functions of an agent are plain, synchronous and without side effects; they see values, never Kafka and never a model.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from models.contract import Answer, Ask, Scorer
from schemas.change import Change
from schemas.decision import Review
from schemas.errors import AgentError
from schemas.values import value
from topics.spec import TopicSpec

V = TypeVar("V")
F = TypeVar("F", bound=BaseModel)
A = TypeVar("A", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)


class Order(enum.Enum):
    """What may not overtake what: records of one subject, of one partition, or nothing."""

    KEY = "key"
    PARTITION = "partition"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Go:
    """Decide this record."""


@value
class Skip:
    """Do not decide this record; `rule` is one of the agent's `rules`, and the receipt records it."""

    rule: str


@value
class Reason:
    """A code out of the agent's catalogue and, if it speaks of one, the feature."""

    code: str
    feature: str | None = None
    origin: Literal["rule", "model", "scorecard"] = "rule"


@dataclass(frozen=True, slots=True)
class ReasonCode:
    """One entry of the catalogue. `holds` must be true of the features, or the reason is dropped and that is counted."""

    text: Mapping[str, str]
    features: tuple[str, ...] = ()
    holds: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """How to read an agent's score."""

    min: float
    max: float
    higher_is: str
    meaning: str = ""


@value
class Verdict:
    """What an agent's policy decided.

    `proposed` is what the tier alone would have decided, where a floor or rule named in `overrides` changed it. A verdict
    by rule (returned by `features`) names its rule in `overrides`. Every name is one of the agent's `rules`.
    """

    outcome: str
    score: float | None = None
    reasons: Sequence[Reason] = ()
    result: BaseModel | Mapping[str, Any] | None = None
    review: Review | None = None
    missing: Sequence[str] = ()
    proposed: str | None = None
    overrides: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Up to `size` records in one call, none waiting longer than `within` for company ("250ms", "2s").

    `bytes` are those of the source records. `prompt_tokens` are those of the records in the prompt (the instructions come on
    top), estimated at the tokens per byte that the endpoint has counted so far. `output_tokens` is what the reply may have: the
    limit that the request sets, Ask.max_tokens a record and a few around them. What reaches a limit leaves at once; a record that
    alone is past one is asked about alone.
    """

    size: int = 16
    within: str = "250ms"
    bytes: int = 256 * 1024
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """A row of a joined change topic. `on` gives its primary key (None: nothing to join).

    A row that is not there is waited for up to `wait`, in its key's lane; an older row than `max_age` is "stale".
    """

    topic: TopicSpec[Change[Any]]
    on: Callable[[Any], Any]
    wait: str = "0s"
    max_age: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """The last `span` of event time of one subject, at most `lookback` offsets of the partition back.

    `every`: at most one evaluation per subject and bucket of event time; other records are skipped by rule
    `window-cool-down`. The state at an offset is a function of the `lookback` offsets before it, so it is the same after
    a crash.

    `urgent`: what of a row (of the topic that is read) may not wait for its bucket's turn, as a text; None: nothing. Records of
    one subject and bucket that say the same text cool each other down, and nobody else: the first of each is evaluated at once,
    and takes no turn from the records without one. It must be a function of the row alone, like the agent's other functions.
    """

    span: str
    every: str | None = None
    lookback: int = 5000
    urgent: Callable[[Any], str | None] | None = None


@value
class Coordinates:
    """Where a record is: `timestamp_ms` is the broker's record time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@value
class Joined:
    """The row a join found, or that it found none."""

    status: Literal["found", "missing", "stale"]
    row: BaseModel | None = None
    topic: str = ""
    partition: int | None = None
    offset: int | None = None
    age_ms: int | None = None


class Sample(NamedTuple):
    """One record inside a window. A tuple: a window may hold thousands, and a frozen dataclass costs four times as much."""

    event_ms: int
    offset: int
    row: BaseModel


@value
class WindowView:
    """What a window holds at one record, oldest first, that record included. `truncated`: the log began later."""

    name: str
    from_ms: int
    to_ms: int
    samples: Sequence[Sample] = ()
    truncated: bool = False

    def rows(self, row: type[M]) -> list[M]:
        """The rows of that type, oldest first."""
        return [s.row for s in self.samples if isinstance(s.row, row)]

    def values(self, field_name: str) -> list[float]:
        """The numbers of one field, oldest first; samples without it are left out."""
        found = (getattr(s.row, field_name) for s in self.samples)
        return [float(v) for v in found if v is not None]

    def slope_per_minute(self, field_name: str) -> float | None:
        """Least-squares trend of one field per minute of event time; None below two points or without spread in time."""
        count, sum_t, sum_v, sum_tt, sum_tv = 0, 0.0, 0.0, 0.0, 0.0
        for sample in self.samples:
            value = getattr(sample.row, field_name)
            if value is not None:
                t = (sample.event_ms - self.to_ms) / 60_000  # from the window's end: sums of epoch times would lose digits
                v = float(value)
                count += 1
                sum_t += t
                sum_v += v
                sum_tt += t * t
                sum_tv += t * v
        spread = count * sum_tt - sum_t * sum_t
        if count < 2 or spread <= 1e-9 * count * sum_tt:
            return None
        return (count * sum_tv - sum_t * sum_v) / spread


@value
class Context(Generic[V]):
    """All that an agent's functions may look at. There is no clock in it: decisions repeat."""

    value: V
    subject: str
    source: Coordinates
    event_ms: int
    joins: Mapping[str, Joined] = field(default_factory=dict)
    windows: Mapping[str, WindowView] = field(default_factory=dict)

    def joined(self, name: str, row: type[M]) -> M | None:
        """The joined row of that name and type, or None where it is missing."""
        found = self.joins[name].row
        return found if isinstance(found, row) else None


@dataclass(frozen=True, slots=True)
class Example:
    """A golden example, run by the contract tests without Kafka and without a model.

    `value` is the row as JSON-able data, after cleaning; `joins` rows by join name (an absent one is missing); `history`
    earlier rows of the same subject, oldest first, `spacing` of event time apart, the value one `spacing` after the last.
    `before` makes it an update of that row. `answer` is what the model is taken to say (None: it said nothing). What must
    come out is `outcome`, or `skip`, the rule that must skip it; `reasons`, where given, are its codes in order, and
    `overrides` its rules.
    """

    title: str
    value: Mapping[str, Any]
    before: Mapping[str, Any] | None = None
    joins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    answer: Mapping[str, Any] | None = None
    outcome: str | None = None
    skip: str | None = None
    tier: str | None = None
    reasons: tuple[str, ...] | None = None
    overrides: tuple[str, ...] | None = None
    spacing: str = "60s"
    at_ms: int = 1_700_000_000_000


@dataclass(frozen=True)
class DecisionAgent(Generic[V, F, A]):
    """One agent: what it reads, what a model may see of it, who answers, and what is decided.

    `when` keeps a record from being decided, not from entering windows. `features` returns a Verdict to decide by rule,
    before anything is paid. `rules` is the closed list of what may be named by a Skip or in a Verdict's `overrides`, each
    with a sentence for a person; `policy` the numbers the rules use; both go into the manifest, so a decision says by
    which threshold it was made. `result_model` is the type of a verdict's `result`, for subscribers.

    `watch` fields of an update that did not change make it a skip `unwatched-change`. `on_delete` "retract" publishes a
    retraction for a deleted row. `adverse` outcomes that a model reaches by itself go to `review_outcome` unless
    `adverse_alone`. `on_no_answer`: "wait" asks until there is an answer, "review" and "fallback" call `decide` without
    one or with the answer of `fallback`. What a fallback decides goes to `review_outcome` too, except the outcomes in
    `fallback_alone`: an outage is no reason to approve by scorecard what a model was to look at. `deadline` runs from the moment
    a record is asked about. `valid_for` from event time.
    """

    name: str
    version: int
    reads: TopicSpec[V]
    writes: TopicSpec[Any]
    subject: Callable[[V], str]
    subject_type: str
    outcomes: tuple[str, ...]
    features: Callable[[Context[V]], F | Skip | Verdict]
    features_model: type[F]
    scorer: Ask[A] | Scorer
    decide: Callable[[Context[V], F, Answer[A]], Verdict]
    description: str = ""
    answer_model: type[A] | None = None
    when: Callable[[V], Go | Skip] | None = None
    watch: tuple[str, ...] = ()
    watch_lookback: int = 5000
    joins: Mapping[str, Join] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    on_delete: Literal["skip", "retract"] = "skip"
    scale: Scale | None = None
    reasons: Mapping[str, ReasonCode] = field(default_factory=dict)
    adverse: tuple[str, ...] = ()
    adverse_alone: bool = False
    review_outcome: str = "review"
    on_no_answer: Literal["wait", "review", "fallback"] = "review"
    fallback: Scorer | None = None
    fallback_alone: tuple[str, ...] = ()
    order: Order = Order.KEY
    batch: Batch = Batch()
    in_flight: int = 64
    deadline: str = "5s"
    valid_for: str | None = None
    language: str = "en"
    owner: str = ""
    calibration: str | None = None
    examples: Sequence[Example] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    result_model: type[BaseModel] | None = None

    @property
    def answers(self) -> type[A]:
        """The type of the answer, whoever gives it. Raises AgentError where neither `scorer` nor `answer_model` says it."""
        if isinstance(self.scorer, Ask):
            return self.scorer.answer
        if self.answer_model is None:
            raise AgentError(f"agent {self.name}: a scorer that is no Ask needs answer_model, the type of its answers")
        return self.answer_model
