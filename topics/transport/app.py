"""make_app: a Faust app whose agent receives lists of records of one feed and hands them to a Handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import faust
from faust.app.base import BootStrategy
from faust.sensors import Monitor
from faust.transport.drivers import TRANSPORTS

from schemas.errors import FatalError
from topics.handover import Feed, Handler
from topics.publish.at_least_once import AtLeastOnce
from topics.publish.contract import Checkpoint, Promise, Publishing, no_checkpoint
from topics.publish.transactional import Transactional
from topics.transport.assignment import Assignment
from topics.transport.membership import Membership
from topics.transport.partition import RecordSlot

SCHEME = "headrace"
TRANSPORTS.aliases[SCHEME] = "topics.transport.consumer:Transport"


class Connection(Protocol):
    """How to reach Kafka; topics/connection.py has it. Secrets stay inside."""

    @property
    def bootstrap(self) -> str:
        """host:port separated by commas."""
        ...

    def aiokafka_kwargs(self) -> dict[str, Any]:
        """Security settings as aiokafka names them."""
        ...


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `rebalance` is how long the group waits for a member to drain before it goes on without it."""

    session: float
    heartbeat: float
    rebalance: float
    request: float


class _ListTopic(faust.Topic):
    """A topic whose messages carry a list of raw records: nothing is decoded here, so nothing can be acknowledged by it."""

    async def decode(self, message: Any, *, propagate: bool = False) -> Any:
        """An event around the list as it is."""
        return self._create_event(None, message.value, {}, message=message)


class _SlimMonitor(Monitor):
    """Counts nothing per record: the transport has its own statistics."""

    def on_message_in(self, tp: Any, offset: int, message: Any) -> None:
        """Only what Faust itself reads."""
        self.tp_read_offsets[tp] = offset

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> None:
        """Nothing."""

    def on_stream_event_out(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class _ConsumerOnly(BootStrategy):
    """No Faust producer (publishers have their own) and no web server (it would listen on 0.0.0.0, without a guard)."""

    enable_kafka_producer = False
    enable_web = False


class FeedApp(faust.App):
    """One agent's Faust app. `runtime` knows its partitions and statistics; `runtime.fail(exc)` ends it."""

    BootStrategy = _ConsumerOnly
    feed: Feed
    connection: dict[str, Any]
    times: Times
    runtime: Assignment

    def group_refusal(self) -> BaseException | None:
        """Why the group will never have us (a session timeout it does not allow, no right to it), or None.

        aiokafka keeps such an error for whoever fetches next; a member without partitions never fetches. Reads
        `_coordinator._pending_exception` of aiokafka 0.14.
        """
        thread = getattr(self.consumer, "_thread", None)
        consumer = getattr(thread, "_consumer", None)
        found = getattr(getattr(consumer, "_coordinator", None), "_pending_exception", None)
        return found if isinstance(found, BaseException) else None


def make_app(
    feed: Feed,
    handler: Handler,
    *,
    kafka: Connection,
    delivery: Promise,
    data_dir: str | Path,
    session_timeout: float = 30.0,
    rebalance_timeout: float | None = None,
    transaction_timeout: float = 60.0,
    commit_timeout: float = 20.0,
    limits: Mapping[str, int] | None = None,
    on_fatal: Callable[[BaseException], None] | None = None,
    checkpoint: Checkpoint = no_checkpoint,
) -> FeedApp:
    """A Faust app for one agent; run it with `mode.Worker`, as part of a parent service, or `faust -A ... worker`.

    `delivery` is a promise that the broker can keep: topics/connection.py's probe tells what it can. `limits` are the
    outbound topics' sizes in bytes for certain; without them `feed.limits` count until the broker has told its own, before
    the first partition is taken. `on_fatal` is called once with the exception that ended the agent; the app crashes after
    it, and nothing is committed any more. Times are seconds.
    """
    connection = {"bootstrap_servers": kafka.bootstrap, **kafka.aiokafka_kwargs()}
    rebalance = rebalance_timeout if rebalance_timeout is not None else feed.drain_seconds + 15.0
    app: FeedApp = FeedApp(
        feed.group,
        broker=f"{SCHEME}://{kafka.bootstrap}",
        store="memory://",
        datadir=str(data_dir),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=64,
        broker_session_timeout=session_timeout,
        broker_request_timeout=max(40.0, session_timeout + 1.0),
        broker_rebalance_timeout=rebalance,
        broker_commit_interval=60.0,
        Monitor=_SlimMonitor,
    )
    app.feed = feed
    app.connection = connection
    app.times = Times(
        session=session_timeout,
        heartbeat=min(3.0, session_timeout / 6),
        rebalance=rebalance,
        request=max(15.0, rebalance + 5.0),
    )

    def fatal(exc: BaseException) -> None:
        if on_fatal is not None:
            on_fatal(exc)
        app.add_future(_crash(app, exc))

    sizes = dict(limits if limits is not None else feed.limits)
    membership = Membership(
        lambda: app.consumer._thread._ensure_consumer(), lambda: app.consumer._thread.thread_loop, timeout=commit_timeout
    )
    publishing: Publishing
    if delivery == "exactly-once":
        publishing = Transactional(
            connection,
            feed.group,
            limits=sizes,
            timeout=commit_timeout,
            transaction_timeout=transaction_timeout,
            checkpoint=checkpoint,
        )
    else:
        publishing = AtLeastOnce(connection, membership, limits=sizes, timeout=commit_timeout, checkpoint=checkpoint)
    app.runtime = Assignment(
        feed, handler, publishing, membership, connection=connection, limits=sizes, ask_limits=limits is None,
        on_fatal=fatal, checkpoint=checkpoint,
    )  # fmt: skip
    app.on_rebalance_complete.connect(app.runtime.on_assigned)
    topic = _ListTopic(app, topics=[feed.source], key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name=f"headrace-{feed.agent}")
    async def receive(stream: Any) -> None:
        """Hands over what Faust delivers. No exception leaves this loop, or Faust would restart it and skip a list."""
        async for event in stream.noack().events():
            slot: RecordSlot = event.value
            if app.runtime.running:
                app.runtime.offer(slot)  # during a rebalance it stays registered, and is offered when it is over

    return app


async def _crash(app: FeedApp, exc: BaseException) -> None:
    """Let Faust's worker end the process with a status that is not 0."""
    await asyncio.sleep(0)
    await app.crash(exc if isinstance(exc, Exception) else FatalError(repr(exc)))
