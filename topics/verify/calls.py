"""The calls of one agent as chains, one for each run of a worker: what was changed or is gone, with or without a decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from topics.verify.twins import Twins

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
    """One run of one worker. `gone`: calls that are missing and that it has not owned up to; `began` those before its first.

    `late`, `late_began`: of the missing, those that it owned up to only after later calls had come.
    """

    seq: int = 0
    digest: str | None = None
    gone: int = 0
    began: int = 0
    late: int = 0
    late_began: int = 0
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
    """Push the calls of a partition in the order of its log. All calls of one worker lie in one partition.

    What a worker says that it could not publish explains the calls that are missing right before the one that says so. It may
    learn of a failure only after later calls: such a claim can not be told from a forged one that comes after the fact, so these
    are counted in `late`. `unchained` calls have no worker; `strangers` are those of them that no older release can have left:
    they lie behind chained ones in their partition, or in one without any although others have chains.
    """

    def __init__(self) -> None:
        self.wrong: list[Wrong] = []
        self.calls = self.unchained = self.repeats = self.late = 0
        self._loose: dict[int, int] = {}
        self._behind = 0
        self._chained: set[int] = set()
        self._runs: dict[str, _Run] = {}
        self._named: dict[int, tuple[int, int]] = {}
        self._twins = Twins()

    def name(self, call_id: str, partition: int, at: int) -> None:
        """A decision, at this place, names this call."""
        self._named.setdefault(hash(call_id), (partition, at))  # the hash: there may be a million of them

    def add(self, call: CallFact) -> None:
        """The next call of its partition."""
        self._named.pop(hash(call.call_id), None)
        self._twins.add(call.call_id, call.digest if call.worker is None else (call.worker, call.seq), call.partition, call.at)
        if call.worker is None:
            self.unchained += 1
            if call.partition in self._chained:
                self._behind += 1
            else:
                self._loose[call.partition] = self._loose.get(call.partition, 0) + 1
            return
        self._chained.add(call.partition)
        run = self._runs.setdefault(call.worker, _Run())
        if call.seq <= run.seq:
            if run.recent.get(call.seq) == call.digest:
                self.repeats += 1
            else:
                known = call.seq in run.recent
                why = "is there already, and says something else" if known else f"comes long after call {run.seq}"
                self._offend(call, "call_changed", f"call {call.seq} of {call.worker} {why}")
            return
        self.calls += 1
        if call.seq == run.seq + 1 and call.prev != run.digest:
            detail = f"call {call.seq} of {call.worker} does not name the one before it: that was changed, or this one"
            self._offend(call, "call_changed", detail)
        self._gap(run, call)
        run.seq, run.digest = call.seq, call.digest
        run.recent[call.seq] = call.digest
        if len(run.recent) > MOST_RECENT:
            del run.recent[next(iter(run.recent))]

    @staticmethod
    def _gap(run: _Run, call: CallFact) -> None:
        """Note what is missing before a call, less what the call says more than the last one that could not be published."""
        claim = min(call.unpublished, call.seq - 1)
        more = max(0, claim - run.unpublished)
        run.unpublished = max(run.unpublished, claim)
        gap = call.seq - run.seq - 1
        explained = min(gap, more)
        late = min(run.gone, more - explained)
        late_began = min(run.began, more - explained - late)
        run.gone, run.late = run.gone - late, run.late + late
        run.began, run.late_began = run.began - late_began, run.late_began + late_began
        if run.digest is None:
            run.began = gap - explained
        elif gap > explained:
            run.gone += gap - explained
            run.gap = call

    @property
    def strangers(self) -> int:
        """Calls without a worker that are not older than the chains."""
        return self._behind + (sum(n for p, n in self._loose.items() if p not in self._chained) if self._chained else 0)

    def close(self, *, trimmed: bool) -> None:
        """Judge the gaps and the twins. `trimmed`: retention has removed calls, so chains need not begin at 1."""
        for worker, run in self._runs.items():
            gone = run.gone + (0 if trimmed else run.began)
            self.late += run.late + (0 if trimmed else run.late_began)
            if gone:
                near = f", the last before call {run.gap.seq}" if run.gap is not None else " at its beginning"
                detail = f"{gone} calls of {worker} are gone{near}, beside those that it could not publish"
                partition, at = (run.gap.partition, run.gap.at) if run.gap is not None else (0, None)
                self.wrong.append(Wrong("call_gap", partition, at, detail))
        for (partition, at), first in self._twins.found():
            detail = f"another call, in partition {first[0]} at offset {first[1]}, has its call_id: one of the two was put in"
            self.wrong.append(Wrong("call_twice", partition, at, detail))

    @property
    def missing(self) -> list[tuple[int, int]]:
        """For each call that decisions name and that is not there, partition and offset of the first decision that does."""
        return list(self._named.values())

    def _offend(self, call: CallFact, kind: str, detail: str) -> None:
        self.wrong.append(Wrong(kind, call.partition, call.at, detail))
