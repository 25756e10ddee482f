"""An event loop whose time is virtual: it jumps to the next timer as soon as nothing else is to do. Minutes take seconds.

Sockets are real: what is sent over loopback within the process is there at once, so client and server may both live in the loop
and talk HTTP. What is given to the loop's executor runs at once, in the loop. Nothing else that runs in a thread or in another
process may be waited for: all timers would be over before it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Given = TypeVarTuple("Given")


class _Selector(selectors.DefaultSelector):
    """Looks for what is there, and lets the time pass that it would have waited."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(5)  # nobody waits for a time: something of a thread, or nothing will ever happen
        self.passed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 1000."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds."""
        return 1000.0 + self._virtual.passed

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Given], T], *args: *Given) -> asyncio.Future[T]:
        """Without a thread: while one ran, no time would stand still (the client of the endpoint looks up its platform so)."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # it is for whoever waits
            done.set_exception(error)
        return done

    def skip(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as on a machine that is busy with something else."""
        self._virtual.passed += seconds


def run(what: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(what)
