"""The bank's subscriber: each decision is applied once, in one transaction with its progress, whatever comes between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from schemas.decision import Decision, Reason, Source, Subject
from schemas.errors import BrokerError
from tests.support.kafka import create_topic, produce
from topics.dev_broker import ApacheKafka, EmbeddedBroker

psycopg = pytest.importorskip("psycopg")

from agents.demo import cdc_tables  # noqa: E402 - needs psycopg
from agents.demo.cdc_chain import Postgres  # noqa: E402 - needs psycopg
from agents.demo.cdc_writeback import ADVANCE, WriteBack, applied  # noqa: E402 - needs psycopg
from agents.demo.datasets import german_credit  # noqa: E402 - needs psycopg
from agents.demo.loans import application, customer  # noqa: E402 - needs psycopg

pytestmark = pytest.mark.cdc


@pytest.fixture(scope="module")
def postgres(cdc_tools: None) -> Iterator[Postgres]:
    """A PostgreSQL of this module."""
    server = Postgres()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def db(postgres: Postgres) -> AsyncIterator[Any]:
    """The bank's tables with applications 1 to 3, fresh for each test."""
    async with await psycopg.AsyncConnection.connect(postgres.conninfo, autocommit=True) as link:
        await link.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await cdc_tables.create(link)
        rows = german_credit().replay[:3]
        await cdc_tables.insert_customers(link, [customer(row, 100 + n) for n, row in enumerate(rows, 1)])
        await cdc_tables.insert_applications(link, [application(row, n, 100 + n, 0) for n, row in enumerate(rows, 1)])
        yield link


def decision(subject: object, outcome: str | None = "approve", *, id_: str = "d1", kind: str = "decision") -> bytes:
    """A decision as it is on the topic."""
    body = Decision(
        id=id_, kind=kind, agent="credit-risk", version=1, manifest="m",
        subject=Subject(type="loan-application", id=str(subject)), outcome=outcome, score=41.5, tier="model",
        source=Source(topic="bank.public.loan_application", partition=0, offset=7, input_hash="0"),
        reasons=[Reason(code="a", text="One."), Reason(code="b", text="Two.")],
        received_at="2026-11-23T10:00:00.000Z", decided_at="2026-11-23T10:00:01.000Z",
    )  # fmt: skip
    return body.model_dump_json(by_alias=True).encode()


@contextlib.asynccontextmanager
async def subscriber(postgres: Postgres, bootstrap: str, name: str, said: list[str] | None = None) -> AsyncIterator[WriteBack]:
    """A started subscriber."""
    found = WriteBack(postgres.conninfo, {"bootstrap_servers": bootstrap}, name, say=(said if said is not None else []).append)
    try:
        await found.start()
        yield found
    finally:
        await found.close()


async def run_until(found: WriteBack, done: Callable[[], Any], seconds: float = 20) -> None:
    """Let it run until `done()` is true."""
    task = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(seconds):
            while not await done():
                if task.done():
                    task.result()
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def one(db: Any, query: str) -> tuple[Any, ...]:
    """The only row of a query."""
    row: tuple[Any, ...] | None = await (await db.execute(query)).fetchone()
    assert row is not None
    return row


@pytest.fixture
async def name(embedded: EmbeddedBroker, topic: Callable[..., str]) -> str:
    """A decision topic of two partitions on the embedded broker."""
    return await create_topic(embedded.bootstrap, topic("decisions"), 2)


async def test_a_decision_is_written_into_its_row(db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str) -> None:
    """Status, id, score, reasons and time are in the application's row, the whole decision beside it, and the progress behind."""
    await produce(embedded.bootstrap, name, [(b"2", decision(2, "decline"))], partition=1)
    async with subscriber(postgres, embedded.bootstrap, name) as found:

        async def there() -> bool:
            return (await applied(db))["write_backs"] == 1

        await run_until(found, there)
    row = await one(db, "SELECT status, decision_id, decision_score, decision_reasons, decided_at IS NOT NULL"
                        " FROM loan_application WHERE id = 2")  # fmt: skip
    assert row == ("declined", "d1", Decimal("41.50"), "One. Two.", True)
    assert await one(db, "SELECT body ->> 'outcome' FROM decision") == ("decline",)
    assert await one(db, "SELECT next_offset FROM decision_progress WHERE part = 1") == (1,)
    assert await one(db, "SELECT count(*) FROM loan_application WHERE status = 'submitted'") == (2,)


async def test_a_crash_between_row_and_progress_undoes_both(
    db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str
) -> None:
    """The transaction is cut just before its commit: nothing of it stands, and a successor applies each decision once."""
    await produce(embedded.bootstrap, name, [(b"1", decision(1, id_="a")), (b"2", decision(2, id_="b"))], partition=0)
    await db.execute(
        "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.next_offset > 0 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$"
    )
    await db.execute("CREATE TRIGGER crash BEFORE UPDATE ON decision_progress FOR EACH ROW EXECUTE FUNCTION crash()")
    async with subscriber(postgres, embedded.bootstrap, name) as found:
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(found.run(), 20)
    assert await applied(db) == {"decisions": 0, "retractions": 0, "write_backs": 0}
    assert await one(db, "SELECT sum(next_offset) FROM decision_progress") == (0,)
    assert await one(db, "SELECT count(*) FROM loan_application WHERE decision_id IS NOT NULL") == (0,)
    await db.execute("DROP TRIGGER crash ON decision_progress")
    async with subscriber(postgres, embedded.bootstrap, name) as found:

        async def both() -> bool:
            return (await applied(db))["write_backs"] == 2

        await run_until(found, both)


async def test_a_restart_goes_on_behind_the_last_decision(
    db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str
) -> None:
    """A row that was changed by hand after its decision is not overwritten by a restart."""

    async def seen(count: int) -> bool:
        return (await applied(db))["decisions"] == count

    await produce(embedded.bootstrap, name, [(b"1", decision(1, id_="a"))], partition=0)
    async with subscriber(postgres, embedded.bootstrap, name) as found:
        await run_until(found, lambda: seen(1))
    await db.execute("UPDATE loan_application SET status = 'paid-out' WHERE id = 1")
    await produce(embedded.bootstrap, name, [(b"2", decision(2, id_="b"))], partition=0)
    async with subscriber(postgres, embedded.bootstrap, name) as found:
        await run_until(found, lambda: seen(2))
    assert await one(db, "SELECT status FROM loan_application WHERE id = 1") == ("paid-out",)


async def test_the_first_decision_with_an_id_stands(db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str) -> None:
    """A repeat of an older decision, as at-least-once delivery may bring it, does not put the row back."""
    older, newer = decision(1, "review", id_="a"), decision(1, "approve", id_="b")
    await produce(embedded.bootstrap, name, [(b"1", older), (b"1", newer), (b"1", older)], partition=0)
    async with subscriber(postgres, embedded.bootstrap, name) as found:

        async def read() -> bool:
            return await one(db, "SELECT next_offset FROM decision_progress WHERE part = 0") == (3,)

        await run_until(found, read)
    assert await one(db, "SELECT status FROM loan_application WHERE id = 1") == ("approved",)
    assert (await applied(db))["decisions"] == 2


async def test_what_is_no_decision_is_told_and_passed(db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str) -> None:
    """Garbage, a subject that is no number and a tombstone hold nothing up; a withdrawn or deleted row stays as it is."""
    await db.execute("UPDATE loan_application SET status = 'withdrawn' WHERE id = 3")
    records = [
        (b"?", b"garbage"), (b"?", decision("not a number", id_="x")), (b"?", None), (b"9", decision(9, id_="gone")),
        (b"3", decision(3, id_="w")), (b"1", decision(1, None, id_="r", kind="retraction")), (b"2", decision(2, id_="ok")),
    ]  # fmt: skip
    await produce(embedded.bootstrap, name, records, partition=0)
    said: list[str] = []
    async with subscriber(postgres, embedded.bootstrap, name, said) as found:

        async def read() -> bool:
            return await one(db, "SELECT next_offset FROM decision_progress WHERE part = 0") == (7,)

        await run_until(found, read)
        assert found.unreadable == 3
    assert f"{name}/0 offset 0 is no decision about an application" in said[0]
    assert await applied(db) == {"decisions": 3, "retractions": 1, "write_backs": 1}
    assert await one(db, "SELECT status FROM loan_application WHERE id = 3") == ("withdrawn",)


async def test_of_two_subscribers_one_fails(db: Any, postgres: Postgres, embedded: EmbeddedBroker, name: str) -> None:
    """Progress that somebody else has moved ends the one that comes second, with nothing of its own written."""
    async with subscriber(postgres, embedded.bootstrap, name) as found:
        await db.execute(ADVANCE, (5, name, 0, 0))
        await produce(embedded.bootstrap, name, [(b"1", decision(1))], partition=0)
        with pytest.raises(BrokerError, match=f"another subscriber has moved the progress of {name}/0"):
            await asyncio.wait_for(found.run(), 20)
    assert (await applied(db))["decisions"] == 0


@pytest.mark.kafka
async def test_an_aborted_decision_is_never_applied(
    db: Any, postgres: Postgres, kafka: ApacheKafka, topic: Callable[..., str]
) -> None:
    """Reading committed: of a transaction that is aborted and one that is committed only the latter reaches the row."""
    name = await create_topic(kafka.bootstrap, topic("decisions"))
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic("writer"))
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(name, decision(1, "decline", id_="aborted"), b"1", partition=0)
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(name, decision(1, "approve", id_="committed"), b"1", partition=0)
    finally:
        await producer.stop()
    async with subscriber(postgres, kafka.bootstrap, name) as found:

        async def there() -> bool:
            return (await applied(db))["decisions"] == 1

        await run_until(found, there)
    assert await one(db, "SELECT decision_id, status FROM loan_application WHERE id = 1") == ("committed", "approved")
