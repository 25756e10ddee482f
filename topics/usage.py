"""What asking models took, added up from the audit of calls: one row for each day, agent, tenant, model and currency."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from schemas.audit import Call
from topics.tail import records_since

K = TypeVar("K")
V = TypeVar("V")
EVERY = 1000
_RUNS, _UNCHAINED = 10_000, 100_000
"""Runs of workers, and calls of none, that are remembered to know a repeat by."""


class Key(NamedTuple):
    """What a row is about. `day` is that of the call's end in UTC, `currency` None where no price was known."""

    day: str
    agent: str
    tenant: str | None
    model: str
    currency: str | None


@dataclass(slots=True)
class Spent:
    """Sums of one row: requests, records asked about in them, tokens as reported, cost in millionths of the currency.

    `unpriced` are the calls without a price. Tokens of a request that was cut off were not reported; its cost counts what was
    reserved for it. `canaries` are the calls made only to compare, `hedges` those that repeated one that was slow: both are among
    the calls, their records are not among the records.
    """

    calls: int = 0
    records: int = 0
    tokens_input: int = 0
    tokens_cached_input: int = 0
    tokens_output: int = 0
    tokens_reasoning: int = 0
    cost_micro: int = 0
    unpriced: int = 0
    canaries: int = 0
    hedges: int = 0


@dataclass(slots=True)
class Usage:
    """The table. `damaged` counts records that are no calls, `repeats` calls that were there before.

    A call is published at least once. Those of one run of a worker lie in one partition in the order of their numbers, so one
    whose number is not above the last one's is a repeat; one of no run is known by its id, among the latest 100,000 of them.
    """

    rows: dict[Key, Spent] = field(default_factory=dict)
    damaged: int = 0
    repeats: int = 0
    _runs: OrderedDict[tuple[str | None, str, str], int] = field(default_factory=OrderedDict)
    _ids: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def add(self, call: Call) -> None:
        """Count one call, unless it is a repeat. Those of one run in the order in which they lie in their partition."""
        if self._repeated(call):
            self.repeats += 1
            return
        day = (call.done_at or call.sent_at or "")[:10]
        key = Key(day, call.agent, call.tenant, call.model_requested, call.currency)
        spent = self.rows.setdefault(key, Spent())
        spent.calls += 1
        canary, hedge = call.purpose == "canary", call.hedge_of is not None
        spent.canaries += canary
        spent.hedges += hedge
        spent.records += 0 if canary or hedge else len(call.records)
        spent.tokens_input += call.tokens.input
        spent.tokens_cached_input += call.tokens.cached_input
        spent.tokens_output += call.tokens.output
        spent.tokens_reasoning += call.tokens.reasoning
        spent.cost_micro += call.cost_micro or 0
        spent.unpriced += call.cost_micro is None

    def _repeated(self, call: Call) -> bool:
        if call.worker is None or call.seq is None:
            known = call.call_id in self._ids
            _remember(self._ids, call.call_id, None, _UNCHAINED)
            return known
        run = (call.tenant, call.agent, call.worker)
        last = self._runs.get(run, 0)
        _remember(self._runs, run, max(last, call.seq), _RUNS)
        return call.seq <= last

    def costs(self) -> dict[str, int]:
        """Currency -> the sum of all rows in it, in millionths."""
        found: dict[str, int] = {}
        for key, spent in sorted(self.rows.items(), key=lambda row: row[0].currency or ""):
            if key.currency is not None:
                found[key.currency] = found.get(key.currency, 0) + spent.cost_micro
        return found


def _remember(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Put it last, and forget what was longest not heard of."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)


async def read_usage(
    client: Mapping[str, Any], topic: str, since: date, usage: Usage, progress: Callable[[int], None] = lambda count: None
) -> None:
    """Add the calls in `topic` that ended on `since` (UTC) or later. A topic that is not there has none.

    Raises BrokerError when the brokers stop answering.
    """
    start = datetime(since.year, since.month, since.day, tzinfo=UTC)
    count = 0
    async for record in records_since(client, topic, int(start.timestamp() * 1000)):
        count += 1
        if count % EVERY == 0:
            progress(count)
        try:
            call = Call.model_validate_json(record.value or b"")
        except ValidationError:
            usage.damaged += 1
            continue
        if (call.done_at or "") >= since.isoformat():
            usage.add(call)
