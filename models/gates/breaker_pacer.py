"""BreakerPacer: admission's room, but for what an endpoint that comes back can not take yet.

Whoever is refused by a breaker has no answer. While the endpoint is out that is what the agent wants to know at once; when it is
coming back it is not: what is not asked yet waits a moment, with its whole deadline before it, and is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from models.gates.gate import Gate


class BreakerPacer:
    """A models.chat.line.Pacer over the two gates of a line. To be used in one event loop.

    Whoever was told no by it is told when a place behind the breaker is free or its state is another; when a pause is over, all
    who asked meanwhile are told, since they may wait for another model that is slower to come back.
    """

    def __init__(self, breaker: BreakerGate, admission: AdmissionGate) -> None:
        self.breaker, self.admission = breaker, admission
        self._tell: dict[str, Callable[[], None]] = {}
        self._waiting: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        breaker.on_left(self._say)

    @property
    def gates(self) -> tuple[Gate, Gate]:
        """Both, in the order in which a request passes them."""
        return self.breaker, self.admission

    def room(self, agent: str, coming: int = 0) -> bool:
        """Whether a request of this agent would pass the breaker, behind `coming` others of it, and leave soon.

        While the breaker is open it is as admission says: what is asked then is answered at once.
        """
        if self.breaker.closed():
            return self.admission.room(agent, coming)
        there = coming < self.breaker.places()
        if not there or self.breaker.open():
            self._waiting.add(agent)
            self._arm()
        return there and self.admission.room(agent, coming)

    def on_room(self, agent: str, tell: Callable[[], None]) -> None:
        """Call `tell`, in the event loop, when there is room again after `room` said no. One listener for each agent."""
        self._tell[agent] = tell
        self.admission.on_room(agent, tell)

    def share(self, agent: str, fraction: float) -> None:
        """The part of the account's limits that the agent may have, 0 to 1."""
        self.admission.share(agent, fraction)

    def quiet(self, seconds: float) -> bool:
        """Whether admission has not had to let less through for so long."""
        return self.admission.quiet(seconds)

    def _arm(self) -> None:
        loop, until = asyncio.get_running_loop(), self.breaker.breaker.until
        if self.breaker.open() and until > loop.time() and self._timer is None:
            self._timer = loop.call_at(until, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._say()

    def _say(self) -> None:
        if self._waiting:
            told = [tell for agent in self._waiting if (tell := self._tell.get(agent)) is not None]
            self._waiting.clear()
            for tell in told:
                asyncio.get_running_loop().call_soon(tell)
