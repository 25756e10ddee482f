"""Scorer: answers for records, exactly one each, in order. Everything that decorates inference wraps this contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from schemas.audit import Call, Purpose
from schemas.values import value

A = TypeVar("A", bound=BaseModel)
Status = Literal["answered", "invalid", "missing", "refused", "timeout", "unavailable", "limited", "rejected", "budget"]


@value
class Question:
    """One record to be answered about. `decision_id` names it in audits; `features` is the only thing a model may see.

    `partition` is the source partition, which shares of limits and budgets go by. `shown` is what stands in a prompt in place of
    the features, where something masked them on their way: JSON values, cut to their limits. `purpose` is written into the Call:
    what is asked as a "canary" decides nothing.
    """

    decision_id: str
    features: BaseModel
    partition: int = 0
    shown: Mapping[str, Any] | None = None
    purpose: Purpose = "decision"


@value
class Answer(Generic[A]):
    """What came back about one record.

    `value` is there exactly if `status` is "answered". `raw` is what was said before validation, for the audit. `why` is
    for a person. `tier` says what kind of thing answered; `position` is the record's place in its call. `tiers` is the way there
    through a cascade, `cache` how a cache had it ("hit", or "shared" with a question asked at the same time), `endpoint` where
    the model is. `shown` are the features as the model saw them, where something masked them on their way. `stopped` says that
    nobody else may answer either, a fallback included: the record was kept from all who could.
    """

    status: Status
    value: A | None = None
    tier: Literal["model", "scorecard", "python"] = "model"
    why: str = ""
    raw: Any = None
    call_id: str | None = None
    position: int | None = None
    model_requested: str | None = None
    model_returned: str | None = None
    tiers: tuple[str, ...] = ()
    cache: Literal["hit", "shared"] | None = None
    endpoint: str | None = None
    shown: Mapping[str, Any] | None = None
    stopped: bool = False


class Scorer(Protocol):
    """Promise: as many answers as questions, in their order; never raises for a data fault, a limit or an outage.

    An exception that does leave is a defect or a configuration that can not work, and ends the process.
    """

    @property
    def name(self) -> str:
        """For a person and for metrics."""
        ...

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """Answer before `deadline` (seconds of the running loop's clock, `loop.time()`); what is late is a "timeout".

        Whoever overstays it by two seconds is cancelled, and all its answers are "timeout". It must not block the event loop:
        nothing else runs in it meanwhile, that guard included.
        """
        ...

    async def close(self) -> None:
        """Give connections back. Safe to call twice."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A Scorer that may be full. Whoever asks looks first: a question that is not asked yet has its whole deadline before it."""

    def room(self, coming: int = 0) -> bool:
        """Whether a call made now would leave soon, behind `coming` others on their way there (models/gates/arrival.py)."""
        ...

    def on_room(self, tell: Callable[[], None]) -> None:
        """Call `tell`, in the event loop, whenever there is room again. One listener: the last one given."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A Scorer that can tell how long a record will be in a prompt. It costs CPU: ask only where a limit needs it."""

    def weigh(self, features: BaseModel) -> int:
        """Prompt tokens of a record with these features, estimated; 0 where nobody knows. Never raises."""
        ...


CallSink = Callable[[Call], None]
"""Where a transport reports each request when it ends."""


ENVELOPE_TOKENS = 32
"""What a reply has around its answers."""
_NAMED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")


@dataclass(frozen=True, slots=True)
class Ask(Generic[A]):
    """A question for a language model: the type of the answer and the instructions.

    `answer` has enums and ranges only and always has a way to say that the information does not suffice. `prompt` is
    static (no record data): it is the byte-identical prefix of every call. `max_tokens` is per record. What is None is not sent;
    `extra` goes into the request body as it is, for what one vendor has. A parameter that an endpoint refuses by name is left
    out from then on (models/chat/dialect.py), and each Call says what was sent.
    """

    answer: type[A]
    prompt: str
    max_tokens: int = 160
    temperature: float | None = 0.0
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent beside model, messages, format and the limit of tokens, where the endpoint takes it."""
        named = {name: getattr(self, name) for name in _NAMED}
        return {name: given for name, given in named.items() if given is not None} | self.extra

    def reserved(self, records: int) -> int:
        """Output tokens that a request about so many records may use: the limit that it sets."""
        return self.max_tokens * records + ENVELOPE_TOKENS

    def fitting(self, tokens: int) -> int:
        """How many records may be asked about with so many output tokens reserved; 0 where that is too few for one."""
        return max(0, (tokens - ENVELOPE_TOKENS) // max(1, self.max_tokens))


def ignore(call: Call) -> None:
    """A CallSink for those who do not audit."""
