"""SingleFlight: of those who ask the same at the same time one asks, and the others wait for what it gets. Pure.

    lead(key) -> True: ask, then say how it ended: answered(key) or failed(key)
    lead(key) -> False: wait(key, waiter), until told, or leave(key, waiter)

A failure makes one of those who wait the next to ask, the one that can wait longest. If it fails as well, those whose
deadline is no later than its own have the same failure: they could not have done better.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


@dataclass(slots=True)
class _Flight(Generic[W]):
    """`deadline` is that of who asks now; `second`: it took over from one that failed. `waiting` has deadlines by waiter."""

    deadline: float
    second: bool = False
    waiting: dict[W, float] = field(default_factory=dict)


class SingleFlight(Generic[W]):
    """Who asks about which key, and who waits. Deadlines and `now` are on one clock; a key is any bytes."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[W]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def lead(self, key: bytes, deadline: float) -> bool:
        """Whether nobody asks this at present: then the caller does, and has to say how it ended."""
        if key in self._flights:
            return False
        self._flights[key] = _Flight(deadline)
        return True

    def wait(self, key: bytes, waiter: W, deadline: float) -> None:
        """Wait for what another gets. Raises KeyError where nobody asks."""
        self._flights[key].waiting[waiter] = deadline

    def leave(self, key: bytes, waiter: W) -> None:
        """Wait no longer."""
        if (flight := self._flights.get(key)) is not None:
            flight.waiting.pop(waiter, None)

    def answered(self, key: bytes) -> list[W]:
        """Whoever asked has the answer: all who wait share it."""
        return list(self._flights.pop(key).waiting)

    def failed(self, key: bytes, now: float, *, inherit: bool = True) -> tuple[list[W], W | None]:
        """Whoever asked has no answer: those who have to live with that, and who asks next, if anybody.

        The next one leads already. Whose time is up is told nothing. `inherit=False`: what happened says nothing about
        the others' chances (it was cancelled, or had no money), so none of them has to live with it.
        """
        flight = self._flights.pop(key)
        waiting = {waiter: deadline for waiter, deadline in flight.waiting.items() if deadline > now}
        heirs = [waiter for waiter, deadline in waiting.items() if inherit and flight.second and deadline <= flight.deadline]
        for waiter in heirs:
            del waiting[waiter]
        if not waiting:
            return heirs, None
        successor = max(waiting, key=waiting.__getitem__)
        self._flights[key] = _Flight(waiting.pop(successor), inherit or flight.second, waiting)
        return heirs, successor
