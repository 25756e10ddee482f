"""The calls of one agent as chains, one for each run of a worker: what was changed or is gone, with or without a decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

MOST_RECENT = 4096
"""Calls of one worker that are remembered to know a repeat by: a producer that was not answered sends a batch again."""


class CallFact(NamedTuple):
    """A call as far as it matters here. `at` is its offset, `digest` the SHA-256 of its value in hex."""

    at: int
    partition: int
    call_id: str
    worker: str | None
    seq: int
    prev: str | None
    unpublished: int
    digest: str


@dataclass(slots=True)
class _Run:
    """One run of one worker."""

    seq: int = 0
    digest: str | None = None
    gone: int = 0
    began: int = 0
    unpublished: int = 0
    gap: CallFact | None = None
    recent: dict[int, str] = field(default_factory=dict)


class Wrong(NamedTuple):
    """An offence: kind, the partition and offset of the call to look at, and a sentence."""

    kind: str
    partition: int
    at: int | None
    detail: str


class Calls:
    """Push the calls of a partition in the order of its log. All calls of one worker lie in one partition."""

    def __init__(self) -> None:
        self.wrong: list[Wrong] = []
        self.calls = self.unchained = self.repeats = 0
        self._runs: dict[str, _Run] = {}
        self._named: dict[int, tuple[int, int]] = {}

    def name(self, call_id: str, partition: int, at: int) -> None:
        """A decision, at this place, names this call."""
        self._named.setdefault(hash(call_id), (partition, at))  # the hash: there may be a million of them

    def add(self, call: CallFact) -> None:
        """The next call of its partition."""
        self._named.pop(hash(call.call_id), None)
        if call.worker is None:
            self.unchained += 1
            return
        run = self._runs.setdefault(call.worker, _Run())
        if call.seq <= run.seq:
            if run.recent.get(call.seq) == call.digest:
                self.repeats += 1
            elif not run.recent or call.seq >= min(run.recent):
                self._offend(call, "call_changed", f"call {call.seq} of {call.worker} is there already, and says something else")
            return
        self.calls += 1
        if call.seq == run.seq + 1:
            if call.prev != run.digest:
                detail = f"call {call.seq} of {call.worker} does not name the one before it: that was changed, or this one"
                self._offend(call, "call_changed", detail)
        elif run.digest is None:
            run.began = call.seq - 1
        else:
            run.gone += call.seq - run.seq - 1
            run.gap = call
        run.seq, run.digest = call.seq, call.digest
        run.unpublished = max(run.unpublished, call.unpublished)
        run.recent[call.seq] = call.digest
        if len(run.recent) > MOST_RECENT:
            del run.recent[next(iter(run.recent))]

    def close(self, *, trimmed: bool) -> None:
        """Judge the gaps. `trimmed`: retention has removed calls, so chains need not begin at 1."""
        for worker, run in self._runs.items():
            gone = run.gone + (0 if trimmed else run.began)
            if gone > run.unpublished:
                near = f", the last before call {run.gap.seq}" if run.gap is not None else " at its beginning"
                detail = f"{gone} calls of {worker} are gone{near}; it could not publish {run.unpublished}"
                partition, at = (run.gap.partition, run.gap.at) if run.gap is not None else (0, None)
                self.wrong.append(Wrong("call_gap", partition, at, detail))

    @property
    def missing(self) -> list[tuple[int, int]]:
        """For each call that decisions name and that is not there, partition and offset of the first decision that does."""
        return list(self._named.values())

    def _offend(self, call: CallFact, kind: str, detail: str) -> None:
        self.wrong.append(Wrong(kind, call.partition, call.at, detail))
