"""A foreign producer's header names that are no UTF-8, against real workers: a dead letter, and nothing stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.support.fleet import Fleet
from tests.support.header_names import Foreign, produce_foreign
from tests.support.kafka import read_all
from topics.dev_broker import LocalBroker

pytestmark = pytest.mark.faults
NAME = b"\xff\xfe\\x41\x80"
ESCAPED = r"\xff\xfe\\x41\x80"
BESIDE = [(b"trace", b"1"), (b"", b""), (b"headrace_none", None), (b"trace", b"\xff")]


def purchase(amount: int, *headers: tuple[bytes, bytes | None]) -> Foreign:
    """An input that is decided unless a header forbids it."""
    return Foreign(b"customer-0", orjson.dumps({"who": "customer-0", "amount": amount, "wish": ""}), headers)


async def test_it_becomes_a_dead_letter_and_its_neighbours_are_decided(
    broker: LocalBroker, topic: Callable[..., str], tmp_path: Path
) -> None:
    """Before a worker starts and while it runs, within one batch with others, and after a restart that finds it first."""
    fleet = Fleet(broker, topic("foreign"), tmp_path)
    await fleet.create()
    batch = [
        purchase(9001, *BESIDE), purchase(9002, *BESIDE, (NAME, b"\x00\xff")), purchase(9003),
        Foreign(b"\xff", None, [(b"\x80", None)]), purchase(9004),
    ]  # fmt: skip
    try:
        starts = []

        async def send() -> None:
            starts.append(await produce_foreign(broker.bootstrap, f"{fleet.agent}-in", batch))
            fleet.produced += len(batch)

        await fleet.produce(60)
        await send()
        await fleet.start().running()
        await fleet.produce(30)
        await fleet.drained()
        await send()
        await fleet.drained()
        await fleet.stop()
        await send()
        await fleet.start().running()
        await fleet.drained()
        await fleet.stop()
        account = await fleet.verified()
        assert (account.totals.repeated, account.totals.out_of_order) == (0, 0)
        letters = {}
        for record in await read_all(broker.bootstrap, fleet.target.dead_letters):
            told = dict(record.headers)
            if told["headrace_reason"] == b"invalid-header-name":
                letters[int(told["headrace_offset"])] = record
                assert told["headrace_stage"] == b"decode"
        assert sorted(letters) == [at for first in starts for at in (first + 1, first + 3)]
        for first in starts:
            whole, bare = letters[first + 1], letters[first + 3]
            assert (whole.key, whole.value) == (batch[1].key, batch[1].value)
            assert whole.headers[:5] == (*((n.decode(), v) for n, v in BESIDE), (ESCAPED, b"\x00\xff"))
            assert (bare.key, bare.value, bare.headers[0]) == (b"\xff", None, (r"\x80", None))
            assert [dict(r.headers)["headrace_escaped_headers"] for r in (whole, bare)] == [b"4", b"0"]
    finally:
        fleet.close()
