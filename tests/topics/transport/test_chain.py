"""The audit chain as the transport writes it on real brokers: across commits, owners, lost answers and receipts that are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.receipt import Receipt
from tests.support.transport import Echo, Site, make_site, running, until
from topics.chain import head, unpack, value_digest
from topics.dev_broker import LocalBroker
from topics.handover import Finished, Outbound, TopicPartition
from topics.record import RawRecord
from topics.transport import assignment
from topics.transport.read_back import Link, last_link
from topics.verify.links import Links


class Audited(Echo):
    """Two records an input: a decision and its judgement, on one topic for the sake of the test."""

    def __init__(self, out: str) -> None:
        super().__init__(out)
        self.answer = self._two

    def _two(self, record: RawRecord) -> Finished:
        decision = Outbound(self.out, record.key, record.value, (), "decision")
        return Finished((decision, Outbound(self.out, record.key, b"judged " + (record.value or b""), (), "audit")))


def promise(broker: LocalBroker) -> Any:
    """What the broker can keep."""
    return "exactly-once" if broker.transactions else "at-least-once"


async def run(site: Site, broker: LocalBroker, folder: Path, frontier: int, **feed: Any) -> None:
    """A worker that goes on until everything up to `frontier` is committed."""
    handler = Audited(site.out)
    async with running(site, handler, promise(broker), folder, feed=site.feed(**({"chained": True} | feed))) as app:
        await until(lambda: sum(app.runtime.stats.frontiers.values()) == frontier)


async def chain_of(site: Site) -> tuple[list[str], Links, list[Receipt]]:
    """What is wrong with the chain of partition 0, the links, and the receipts."""
    links, wrong, receipts = Links(), [], []
    for record in await site.read(site.receipts):
        receipt = Receipt.model_validate_json(record.value)
        wrong += [kind for kind, _ in links.add(record.offset, receipt, head(record.value), tolerant=False)[0]]
        receipts.append(receipt)
    return wrong, links, receipts


async def test_a_successor_continues_the_chain(broker: LocalBroker, tmp_path: Path) -> None:
    """Three owners after each other write one chain, whose digests are those of the records in the order of their log."""
    site = await make_site(broker.bootstrap, partitions=1)
    for turn in range(3):
        await site.produce(40, first=40 * turn)
        await run(site, broker, tmp_path / str(turn), 40 * (turn + 1))
    wrong, links, receipts = await chain_of(site)
    assert wrong == []
    assert (links.unchained, links.forks, links.dangling) == (0, 0, None)
    assert receipts[0].chain is not None
    assert receipts[0].chain.prev is None
    begins = [sum(2 * before.decisions for before in receipts[:n]) for n in range(len(receipts))]
    assert [r.chain.first for r in receipts if r.chain] == begins
    values = [r.value for r in await site.read(site.out)]
    for kind, judged in (("decisions", False), ("judgements", True)):
        digests = [d for r in receipts if r.chain for d in unpack(getattr(r.chain, kind), r.chain.width)]
        assert digests == [value_digest(v) for v in values if v.startswith(b"judged") is judged]


async def test_without_judgements_receipts_are_as_they_were(broker: LocalBroker, tmp_path: Path) -> None:
    """A worker that keeps no audit writes no chain; one that begins to continues from the last receipt all the same."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(20)
    await run(site, broker, tmp_path / "1", 20, chained=False)
    assert all(r.chain is None for r in (await chain_of(site))[2])
    await site.produce(20, first=20)
    await run(site, broker, tmp_path / "2", 40)
    wrong, links, receipts = await chain_of(site)
    assert wrong == []
    assert links.unchained > 0
    assert links.chained > 0
    assert next(r.chain.first for r in receipts if r.chain) == 0


async def test_the_end_of_a_chain_is_that_of_its_run(broker: LocalBroker, tmp_path: Path) -> None:
    """A replay has a chain of its own among the receipts of the live run."""
    site = await make_site(broker.bootstrap, partitions=1)
    await site.produce(10)
    await run(site, broker, tmp_path, 10)
    receipts = await site.read(site.receipts)
    connection, source = {"bootstrap_servers": broker.bootstrap}, TopicPartition(site.source, 0)
    found = await last_link(connection, site.receipts, source, "live")
    assert found is not None
    assert (found.tip.head, found.tip.count) == (head(receipts[-1].value), 20)
    assert await last_link(connection, site.receipts, source, "replay-1") is None


async def test_receipts_that_are_gone_hold_up_nobody(
    kafka: LocalBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the committed metadata knows of receipts that do not show, the worker waits a little, says so and goes on."""
    site = await make_site(kafka.bootstrap, partitions=1)
    await site.produce(20)
    await run(site, kafka, tmp_path / "1", 20)

    async def hidden(*_: Any) -> Link | None:
        return None

    monkeypatch.setattr(assignment, "last_link", hidden)
    monkeypatch.setattr(assignment, "_TIP_SECONDS", 0.3)
    await site.produce(20, first=20)
    await run(site, kafka, tmp_path / "2", 40)
    assert any("receipts, found is None" in r.getMessage() for r in caplog.records)
    wrong, _, _ = await chain_of(site)
    assert wrong == ["chain_fork"], "the new chain names no receipt, as the first one did"
