"""What a contender measures of itself, from the first record it sees to the last one that the broker has confirmed."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any


class Meter:
    """CPU is user and system time of the whole process, all of its threads; start-up is not in it."""

    def __init__(self) -> None:
        self._started: tuple[float, float] | None = None
        self.first_at = 0.0

    @property
    def running(self) -> bool:
        """Whether the first record has come."""
        return self._started is not None

    def start(self) -> None:
        """The first record is here; later calls do nothing."""
        if self._started is None:
            self._started = (time.perf_counter(), time.process_time())
            self.first_at = time.time()

    def result(self, records: int, **more: Any) -> dict[str, Any]:
        """Seconds and microseconds of CPU a record so far."""
        if self._started is None or not records:
            return {"records": records, "seconds": 0.0, "cpu_us": 0.0, **more}
        wall, cpu = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        return {"records": records, "seconds": wall, "cpu_us": 1e6 * cpu / records, **more}


def tune_collector() -> None:
    """The garbage collector as Headrace's worker sets it, for every contender: none may win by that alone."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def configuration() -> dict[str, Any]:
    """What the bench asks of this process: one JSON object as the only argument."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def report(result: dict[str, Any]) -> None:
    """The last line of output, which the bench reads."""
    out = sys.__stdout__  # Faust's worker puts a logger in place of sys.stdout
    assert out is not None
    out.write(json.dumps(result) + "\n")
    out.flush()


def leave(result: dict[str, Any]) -> None:
    """Report and end at once: what a client does on its way out is not measured and must not fail the run."""
    report(result)
    os._exit(0)
