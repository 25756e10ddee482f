"""aiokafka's producer as we use it: started with a deadline, fed whole batches, dropped without flushing.

The only file that touches its private parts; they are listed at `discard` and `died_fenced`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from schemas.errors import BrokerError, Fenced, OutcomeUnknown, RecordTooLarge
from topics.handover import Outbound
from topics.publish.contract import Limits
from topics.publish.sizes import BATCH_OVERHEAD, DEFAULT_LIMIT, record_size

log = logging.getLogger(__name__)
MAX_BATCH = 524_288
"""Bytes of a batch. A partition has one batch in flight: a commit of several waits for each of them in turn."""
_FENCING = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
)
_DISCARD_SECONDS = 3.0


def classify(exc: Exception, doing: str) -> Exception:
    """The place of an exception in our tree. Whatever the broker or the network raised and is not clear is OutcomeUnknown.

    Anything else (a TypeError, say) is a defect and comes back as it is: trying again would not help.
    """
    if isinstance(exc, BrokerError) or not isinstance(exc, kafka_errors.KafkaError | OSError):
        return exc
    if isinstance(exc, _FENCING):
        return Fenced(f"{doing}: another producer has taken over")
    if isinstance(exc, kafka_errors.MessageSizeTooLargeError):
        return RecordTooLarge(f"{doing}: the broker refuses a batch for its size; is max.message.bytes lower than configured?")
    return OutcomeUnknown(f"{doing}: {exc!r}")


async def start(settings: Mapping[str, Any], timeout: float) -> Any:
    """A started producer. With a transactional id, everybody who had it before is fenced by then. Raises as `classify`."""
    producer = AIOKafkaProducer(
        **{
            "linger_ms": 0,
            "max_batch_size": MAX_BATCH,
            "request_timeout_ms": 8000,
            "retry_backoff_ms": 20,
            **settings,
        }
    )
    try:
        await asyncio.wait_for(producer.start(), timeout)
    except BaseException as exc:
        await discard(producer)
        if isinstance(exc, Exception):
            raise classify(exc, "starting a producer") from exc
        raise
    return producer


async def discard(producer: Any) -> None:
    """Drop a producer without flushing: `stop()` would send what is buffered, even after the partition was lost.

    Uses `_closed`, `_sender._sender_task` and `_txn_manager._transaction_waiter` of aiokafka 0.14. The sender is cancelled
    twice: the first time only makes it wait for its own tasks.
    """
    producer._closed = True
    sender = producer._sender
    task = sender._sender_task if sender is not None else None
    manager = producer._txn_manager
    waiter = manager._transaction_waiter if manager is not None else None
    if waiter is not None:
        waiter.add_done_callback(_seen)
    if task is not None:
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.2)
        if not task.done():
            task.cancel()
        task.add_done_callback(_seen)
    try:
        await asyncio.wait_for(producer.client.close(), _DISCARD_SECONDS)
    except Exception as exc:  # noqa: BLE001  whatever closing a connection raises, nobody can do anything about it
        log.debug("closing a producer's connection: %r", exc)


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at a result nobody waits for, or the loop logs it."""
    if not future.cancelled():
        future.exception()


def died_fenced(producer: Any) -> bool:
    """True when the producer's own task ended because another has taken its transactional id."""
    task = producer._sender._sender_task
    return bool(task is not None and task.done() and not task.cancelled() and isinstance(task.exception(), _FENCING))


async def send(producer: Any, records: Sequence[Outbound], partition: int, limits: Limits) -> None:
    """Send all, in order within each topic, and wait until each batch is confirmed. Raises what aiokafka raises.

    Batches are built here: half the CPU of `producer.send`. Every future is awaited, since `commit_transaction` succeeds
    although a batch failed.

    The topic with the fewest records goes first: behind several full batches its partition would be added to the transaction, and
    its batch sent, by requests of their own.
    """
    by_topic: dict[str, list[Outbound]] = {}
    for record in records:
        by_topic.setdefault(record.topic, []).append(record)
    confirmed: list[asyncio.Future[Any]] = []
    try:
        for topic, group in sorted(by_topic.items(), key=lambda one: len(one[1])):
            await _send_topic(producer, topic, group, partition, limits.get(topic, DEFAULT_LIMIT), confirmed)
    except BaseException:
        for future in confirmed:
            # not waited for: of a producer that was discarded meanwhile they never come
            future.add_done_callback(_seen)
        raise
    results = await asyncio.gather(*confirmed, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _send_topic(
    producer: Any, topic: str, records: list[Outbound], partition: int, limit: int, confirmed: list[asyncio.Future[Any]]
) -> None:
    # A batch closes itself at MAX_BATCH; only a topic that takes less makes us count what a record adds.
    counted = limit < MAX_BATCH
    batch = producer.create_batch()
    used = BATCH_OVERHEAD
    for record in records:
        if counted:
            size = record_size(record.key, record.value, record.headers)
            if used > BATCH_OVERHEAD and used + size > limit:
                batch = await _hand_over(producer, batch, topic, partition, confirmed)
                used = BATCH_OVERHEAD
            used += size
        if not _append(batch, record):
            batch = await _hand_over(producer, batch, topic, partition, confirmed)
            if not _append(batch, record):
                size = record_size(record.key, record.value, record.headers)
                raise RecordTooLarge(f"publishing to {topic}: a record of {size} bytes does not go into an empty batch")
    batch.close()
    confirmed.append(await producer.send_batch(batch, topic, partition=partition))


def _append(batch: Any, record: Outbound) -> bool:
    """False when the batch is full."""
    added = batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
    return added is not None


async def _hand_over(producer: Any, batch: Any, topic: str, partition: int, confirmed: list[asyncio.Future[Any]]) -> Any:
    """Send a full batch; the next one, empty."""
    batch.close()
    confirmed.append(await producer.send_batch(batch, topic, partition=partition))
    return producer.create_batch()
