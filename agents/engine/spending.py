"""What an agent's partitions have cost today, when a worker takes them: from their last receipts, and from the calls since.

A receipt says what had been settled when it was written; calls that ended after it are on the agent's topic of calls, and an
answer is used only once its call is there (models/recorded.py). What was under way when a worker was killed is in neither:
that much may be spent beyond the limit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from models.budget.budget import Budget, split
from schemas.audit import Call
from topics.handover import OwnedPartition, TopicPartition
from topics.tail import records_since
from topics.transport.read_back import last_receipt

log = logging.getLogger(__name__)
_CLOCKS_MS = 60_000
"""A broker may stamp records by a clock of its own: so much earlier is read, and what is too early is left out by the call's."""


class Spending:
    """Keeps `budget` in step with the partitions that are owned. `connection` are aiokafka's connection arguments.

    `damaged` counts records on the topic of calls that are none, or whose cost or partitions can not be: they cost nothing.
    """

    def __init__(
        self, budget: Budget, *, tenant: str, connection: Mapping[str, Any], receipts: str, calls: str, day: Callable[[], str]
    ) -> None:
        self._budget = budget
        self._prefix = f"{tenant}/"
        self._tenant = tenant
        self._connection = connection
        self._receipts, self._calls = receipts, calls
        self._day = day
        self.damaged = 0

    async def take(self, partition: OwnedPartition) -> None:
        """Read what the partition has cost today. Raises OutcomeUnknown or BrokerError while the brokers do not tell."""
        day, number = self._day(), partition.tp.partition
        last = await last_receipt(self._connection, self._receipts, partition.tp)
        told = last.spend.get(self._prefix + day) if last is not None else None
        midnight = f"{day}T00:00:00.000Z"
        since = midnight if last is None or told is None else max(last.at, midnight)
        spent, seen, damaged = told or 0, set[str](), self.damaged
        async for record in records_since(self._connection, self._calls, _epoch_ms(since) - _CLOCKS_MS):
            call = self._counted(record.value or b"", number, since, day)
            if call is not None and call.call_id not in seen:  # what is published at least once may be there twice
                seen.add(call.call_id)
                spent += split(call.cost_micro or 0, _counts(call))[number]
        if self.damaged > damaged:
            skipped = self.damaged - damaged
            log.warning("%d records on %s are no calls that a worker writes: what they say was spent is left out", skipped,
                        self._calls)  # fmt: skip
        self._budget.forget(day)
        self._budget.take(number, partition.topic_partitions, {day: spent})

    def _counted(self, value: bytes, number: int, since: str, day: str) -> Call | None:
        """The call, where it is one of this partition that no receipt has counted yet."""
        try:
            call = Call.model_validate_json(value)
        except ValidationError:
            self.damaged += 1
            return None
        done = call.done_at or ""
        ours = call.tenant == self._tenant and number in _counts(call)
        return call if ours and done[:10] == day and done >= since else None

    def lose(self, tp: TopicPartition) -> None:
        """The partition is another's."""
        self._budget.lose(tp.partition)

    def spent(self, tp: TopicPartition) -> Mapping[str, int]:
        """What goes into a receipt of the partition: `tenant/day` -> millionths, of today."""
        today = self._day()
        return {self._prefix + day: cost for day, cost in self._budget.spent(tp.partition, today).items()}


def _counts(call: Call) -> dict[int, int]:
    return {int(partition): count for partition, count in call.partitions.items()}


def utc_day() -> str:
    """Today in UTC, such as "2026-05-01"."""
    return datetime.now(UTC).date().isoformat()


def _epoch_ms(rfc3339: str) -> int:
    return int(datetime.fromisoformat(rfc3339).timestamp() * 1000)
