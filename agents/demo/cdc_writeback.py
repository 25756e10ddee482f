"""The bank's subscriber: writes each decision back into its application's row, once, whatever crashes.

A decision and how far the subscriber has read are written in one SQL transaction; Kafka keeps no offset for it. So after a
crash it goes on exactly behind the last decision that is in the database, and none is applied twice or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.decision import Decision
from schemas.errors import BrokerError

STATUS = {"approve": "approved", "review": "in-review", "decline": "declined"}

START = "INSERT INTO decision_progress (topic, part, next_offset) VALUES (%s, %s, 0) ON CONFLICT DO NOTHING"
POSITION = "SELECT next_offset FROM decision_progress WHERE topic = %s AND part = %s"
ADVANCE = "UPDATE decision_progress SET next_offset = %s WHERE topic = %s AND part = %s AND next_offset = %s"
"""Takes effect only if nobody else has moved it: of two subscribers that run at once, one fails instead of both applying."""
FIRST = """
INSERT INTO decision (id, application_id, kind, outcome, tier, written_back, body)
VALUES (%(id)s, %(application)s, %(kind)s, %(outcome)s, %(tier)s, false, %(body)s) ON CONFLICT (id) DO NOTHING
"""
WRITE_BACK = """
UPDATE loan_application
   SET status = %(status)s, decision_id = %(id)s, decision_score = %(score)s, decision_reasons = %(reasons)s,
       decided_at = %(decided_at)s
 WHERE id = %(application)s AND status NOT IN ('withdrawn', 'paid-out')
"""
WRITTEN = "UPDATE decision SET written_back = true WHERE id = %s"


class WriteBack:
    """`start`, then `run` until cancelled, then `close`. `connection` is aiokafka's, `conninfo` psycopg's.

    A record that is no decision about an application changes no row; it is counted in `unreadable` and told to `say`.
    """

    def __init__(
        self, conninfo: str, connection: Mapping[str, Any], topic: str, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._conninfo = conninfo
        self._say = say
        self.unreadable = 0
        self._consumer = AIOKafkaConsumer(
            topic, **connection, isolation_level="read_committed", enable_auto_commit=False, auto_offset_reset="none",
            fetch_max_wait_ms=50,
        )  # fmt: skip
        self._db: psycopg.AsyncConnection[Any] | None = None
        self._next: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Take up where the database says that the last one stopped."""
        self._db = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        await self._consumer.start()
        for tp in self._consumer.assignment():
            await self._db.execute(START, (tp.topic, tp.partition))
            row = await (await self._db.execute(POSITION, (tp.topic, tp.partition))).fetchone()
            assert row is not None
            self._next[tp] = row[0]
            self._consumer.seek(tp, row[0])

    async def run(self) -> None:
        """Apply decisions as they come. Raises BrokerError when another subscriber moves the same progress."""
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=500)).items():
                await self.apply(tp, records)

    async def apply(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Apply the decisions of one partition, in order, and the progress behind them: one transaction, all or nothing."""
        assert self._db is not None, "start comes first"
        behind = records[-1].offset + 1
        async with self._db.transaction():
            for record in records:
                decision = self._read(record)
                if decision is not None:
                    await self._one(*decision, record.value)
            moved = await self._db.execute(ADVANCE, (behind, tp.topic, tp.partition, self._next[tp]))
            if moved.rowcount != 1:
                where = f"{tp.topic}/{tp.partition}"
                raise BrokerError(f"writing decisions back: another subscriber has moved the progress of {where}")
        self._next[tp] = behind

    def _read(self, record: Any) -> tuple[Decision, int] | None:
        """The decision and the number of its application; None for what is neither, which must not hold up what follows."""
        try:
            decision = Decision.model_validate_json(record.value or b"")
            return decision, int(decision.subject.id)
        except ValueError as error:
            self.unreadable += 1
            where = f"{record.topic}/{record.partition} offset {record.offset}"
            self._say(f"writing decisions back: {where} is no decision about an application ({type(error).__name__})")
            return None

    async def _one(self, decision: Decision, application: int, body: bytes) -> None:
        """The reader's rule for at-least-once delivery: the first decision with an id stands, a repeat changes nothing."""
        assert self._db is not None
        stands = await self._db.execute(FIRST, {
            "id": decision.id, "application": application, "kind": decision.kind, "outcome": decision.outcome,
            "tier": decision.tier, "body": body.decode(),
        })  # fmt: skip
        if stands.rowcount == 0 or decision.kind != "decision" or decision.outcome is None:
            return  # a repeat; or the retraction of a row that is gone
        updated = await self._db.execute(WRITE_BACK, {
            "status": STATUS.get(decision.outcome, decision.outcome), "id": decision.id, "score": decision.score,
            "reasons": " ".join(reason.text for reason in decision.reasons), "decided_at": decision.decided_at,
            "application": application,
        })  # fmt: skip
        if updated.rowcount:
            await self._db.execute(WRITTEN, (decision.id,))

    async def close(self) -> None:
        """Safe to call twice."""
        await self._consumer.stop()
        if self._db is not None:
            await self._db.close()
            self._db = None


async def applied(db: psycopg.AsyncConnection[Any]) -> dict[str, int]:
    """What the subscriber has done: decisions, retractions, and rows written back."""
    row = await (
        await db.execute(
            "SELECT count(*) FILTER (WHERE kind = 'decision'), count(*) FILTER (WHERE kind = 'retraction'),"
            " count(*) FILTER (WHERE written_back) FROM decision"
        )
    ).fetchone()
    assert row is not None
    return {"decisions": row[0], "retractions": row[1], "write_backs": row[2]}
