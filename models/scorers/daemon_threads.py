"""DaemonThreads: runs functions that nobody can promise the end of. The process ends without them.

The threads of a concurrent.futures.ThreadPoolExecutor are waited for when the interpreter ends, whatever became of their pool: a
function that hangs would keep a process that has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

R = TypeVar("R")
_Work = tuple["Future[object]", Callable[[], object]]


class DaemonThreads:
    """At most `count` threads, begun as they are needed, that run what is submitted in its order."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._closed = False
        self._lock = Lock()

    def submit(self, function: Callable[[], R]) -> Future[R]:
        """What becomes of it: whatever the function raises is in there. Raises RuntimeError once closed."""
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed")
            self._work.put((future, function))  # type: ignore[arg-type]  # a future of anything, to whoever only sets it
            if len(self._threads) < self._count:
                # It has the queue only: what nobody holds any more can go, this one too.
                run = partial(_run, self._work)
                thread = Thread(target=run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def close(self) -> None:
        """Begin nothing more: what waits fails with RuntimeError. What runs is not waited for. Safe to call twice."""
        with self._lock:
            self._closed = True
            while (work := _next(self._work)) is not None:
                future, _ = work
                if future.set_running_or_notify_cancel():
                    future.set_exception(RuntimeError(f"{self._name} is closed"))
            for _ in self._threads:
                self._work.put(None)


def _next(waiting: SimpleQueue[_Work | None]) -> _Work | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _run(waiting: SimpleQueue[_Work | None]) -> None:
    while (work := waiting.get()) is not None:
        future, function = work
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  # whoever waits for it has it, an exit too: the thread goes on
                future.set_exception(error)
        del work, future, function  # nothing of a record stays until the next one
