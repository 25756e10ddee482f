"""Line: one model behind one endpoint, shared by every agent of a process that asks it.

It holds what belongs to the endpoint and not to the question: connections, the gates before each request, what the endpoint was
found to understand, how its tokens relate to bytes.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from models.budget.estimate import TokenEstimate
from models.budget.prices import Priced
from models.chat.endpoint import Endpoint
from models.chat.scout import Scout
from models.gates.gate import Gate
from models.gates.retry_budget import RetryBudget
from models.gates.slots import Slots

Api = Literal["chat", "decisions"]
"""What an endpoint is asked by: chat completions, or questions that are answered in probabilities."""


class Pacer(Protocol):
    """The gate among a line's gates that says how much may be asked, for each agent."""

    def room(self, agent: str, coming: int = 0) -> bool:
        """Whether a request of this agent would leave soon, behind `coming` others of it that are on their way."""
        ...

    def on_room(self, agent: str, tell: Callable[[], None]) -> None:
        """Call `tell`, in the event loop, when there is room again."""
        ...

    def quiet(self, seconds: float) -> bool:
        """Whether it has not had to let less through for so many seconds."""
        ...

    def share(self, agent: str, fraction: float) -> None:
        """From now on the agent may have this part of the account's limits, 0 to 1."""
        ...


class Line:
    """The model `model` at `base_url`. Raises ConfigError for what can not be a URL or a key.

    `gates` stand before each request in this order; without any, `connections` bounds the requests in flight. `pacer` is the one
    of them, if any, that knows how full the line is. `price` is what its tokens cost, where that is known. `scout` and `tokens`
    learn from the answers how it is to be asked and how it counts; `limited_at` is when the last 429 came, in loop time;
    `setting` as for an Endpoint; `api` is what it is asked by. A line is closed when the last who `hold` it has let go.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str,
        *,
        gates: Sequence[Gate] = (),
        pacer: Pacer | None = None,
        price: Priced | None = None,
        connections: int = 64,
        setting: str | None = None,
        api: Api = "chat",
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.model = model
        self.api = api
        self.endpoint = Endpoint(base_url, api_key, connections=connections, clock=clock, setting=setting)
        self.gates: tuple[Gate, ...] = tuple(gates) or (Slots(connections, chance),)
        self.pacer = pacer
        self.price = price
        self._retries: RetryBudget | None = None
        self.scout = Scout()
        self.tokens = TokenEstimate()
        self.limited_at = -math.inf
        self.clock, self.chance = clock, chance
        self._holders = 0

    def retries(self, now: float) -> RetryBudget:
        """How often what failed may be sent again, by all that ask this model. `now` in loop time."""
        if self._retries is None:
            self._retries = RetryBudget(now)
        return self._retries

    @property
    def retry_budget(self) -> RetryBudget | None:
        """What `retries` gave, or None before anybody asked for it."""
        return self._retries

    @property
    def where(self) -> str:
        """The endpoint, without credentials."""
        return self.endpoint.where

    def hold(self) -> None:
        """One more uses it."""
        self._holders += 1

    async def close(self) -> None:
        """One less uses it; the last closes the connections."""
        self._holders -= 1
        if self._holders <= 0:
            await self.endpoint.close()
