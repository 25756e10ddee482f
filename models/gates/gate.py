"""Gate: what stands before every HTTP request to a model and learns how it ended: breaker, budget, admission.

    asking -> gate.enter(asking, deadline) -> the request leaves -> leave(ended)

A gate keeps its mechanism in a pure class that is given the time; the gate itself only waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from models.contract import Status
from schemas.audit import Tokens

End = Literal["served", "limited", "exhausted", "unavailable", "timeout", "rejected", "protocol", "cancelled", "unsent"]
"""How a request ended. "served" is any chat completion, whatever it says; "limited" is a 429 for the rate, "exhausted" one for
quota or billing; "rejected" any other 4xx (401, 403, 404, 400) or a redirect; "protocol" a 200 that is no completion;
"cancelled" left and was given up by us, for no fault of the endpoint; "unsent" did not leave, since a later gate or the deadline
forbade it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One request that is about to leave.

    `input_tokens` is an estimate, `most_input` a bound of them (0: the estimate is one), `output_tokens` the limit that the
    request sets. `partitions` counts its records by source partition. `again` says that the same request came back from a 429: it
    was first in line before, and is so still.
    """

    agent: str
    input_tokens: int
    output_tokens: int
    partitions: Mapping[int, int]
    again: bool = False
    most_input: int = 0

    @property
    def tokens(self) -> int:
        """What is reserved of a rate limit: input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def most(self) -> Tokens:
        """What is reserved of a budget: the most that the request may have, none of it cached."""
        return Tokens(input=max(self.input_tokens, self.most_input), output=self.output_tokens)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a request.

    `tokens` is what the endpoint reported; None where it reported nothing: a request that left then counts with all it had
    reserved. `seconds` from leaving to the end. `retry_after` in seconds. `headers` are the response's `x-ratelimit-*` headers,
    in lower case, as they came: hints that may be absent, 0 or -1. `status` is the HTTP status, where there was one. `cut_off`:
    the request was on its way when the connection failed, and may have been worked on. `about` are the decision ids of its
    records where it was forbidden (403) without a reason, so that one of them may be the cause; else nothing.
    """

    kind: End
    tokens: Tokens | None = None
    seconds: float = 0.0
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    cut_off: bool = False
    about: frozenset[str] = frozenset()


class Refused(Exception):
    """The request must not leave. `status` and `why` go into the answers.

    `short` are the source partitions that it is for, where it is for some of them only: without their records it may leave.
    """

    def __init__(self, status: Status, why: str, short: Collection[int] = ()) -> None:
        super().__init__(why)
        self.status: Status = status
        self.why = why
        self.short = frozenset(short)


Leave = Callable[[Ended], None]
"""Called exactly once for every entry, also when the request was cancelled."""


class Gate(Protocol):
    """Asked in the order given, told in reverse order."""

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Wait for a place until `deadline` (loop time). Raises Refused, or TimeoutError at the deadline."""
        ...
