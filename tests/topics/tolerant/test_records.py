"""Batches made by hand: names of any bytes are read, and in all else the answer is the one of aiokafka's parser."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from tests.support.header_names import ABORT, COMMIT, Foreign, batch_of, marker, sealed, seen
from topics.tolerant.consumer import with_names
from topics.tolerant.records import KeptRecords, TolerantBatch, TolerantBatches, TolerantRecords

ROOT = Path(__file__).resolve().parents[3]
BAD = Foreign(b"k", b"v", ((b"fine", b"1"), (b"\xff\xfe\x80", b"2"), (b"fine", None)))
GOOD = Foreign(b"key", b"value", (("naïve".encode(), b"x"), (b"", b"")))
HEADERS = st.lists(st.tuples(st.binary(max_size=6), st.none() | st.binary(max_size=9)), max_size=3)
BYTES = st.none() | st.binary(max_size=30)
ANY = st.lists(st.builds(Foreign, BYTES, BYTES, HEADERS), min_size=1, max_size=6)
VALID = st.text(max_size=5).map(str.encode)
PLAIN = st.builds(Foreign, BYTES, BYTES, st.lists(st.tuples(VALID, BYTES), max_size=3))


def parsed(
    data: bytes,
    fetch: int = 0,
    aborted: Sequence[tuple[int, int]] = (),
    *,
    kind: Any = TolerantRecords,
    memory: Any = KeptRecords,
) -> list[Any]:
    """What a consumer that asked for `fetch` is given of a fetch's bytes."""
    tp = TopicPartition("t", 0)
    return list(kind(tp, memory(data), list(aborted), fetch, None, None, True, READ_COMMITTED))


def test_aiokafka_alone_gives_nothing_of_such_a_batch() -> None:
    """Why this is here: its parser raises, and hands over not even the records before."""
    with pytest.raises(UnicodeDecodeError):
        parsed(batch_of([GOOD, BAD, GOOD]), kind=PartitionRecords, memory=MemoryRecords)


@given(st.lists(st.tuples(ANY, st.booleans()), min_size=1, max_size=4), st.integers(0, 20))
def test_names_of_any_bytes_are_read_with_their_neighbours(batches: list[tuple[list[Foreign], bool]], fetch: int) -> None:
    """Each record from the offset asked for comes once, in order, with its key, value and headers byte for byte."""
    data, expected = b"", list[Any]()
    fetch %= len(batches[0][0])  # a broker begins with the batch that holds what is asked for
    for records, gzip in batches:
        data += batch_of(records, len(expected), gzip=gzip)
        expected += [(len(expected) + at, *record.read) for at, record in enumerate(records)]
    assert [(r.offset, *seen(r)) for r in parsed(data, fetch)] == expected[fetch:]


@given(st.lists(PLAIN, min_size=1, max_size=5), st.integers(0, 1 << 40), st.booleans())
def test_it_reads_valid_batches_as_aiokafka_does(records: list[Foreign], first: int, gzip: bool) -> None:
    """The parser that reads again differs in nothing from the one that reads first."""
    data = batch_of(records, first, gzip=gzip)
    told = [
        [(r.offset, r.timestamp, r.timestamp_type, *seen(r)) for r in kind(data)] for kind in (DefaultRecordBatch, TolerantBatch)
    ]
    assert told[0] == told[1]


def test_the_time_of_the_log_is_kept() -> None:
    """In a topic whose times are the broker's, every record of the batch has the batch's."""
    data = bytearray(batch_of([BAD, BAD]))
    data[22] |= 8
    assert [(r.timestamp, r.timestamp_type) for r in parsed(sealed(bytes(data)))] == [(1001, 1), (1001, 1)]


def test_aborted_transactions_stay_hidden_around_such_a_batch() -> None:
    """Parsing again neither shows an aborted record, nor hides or repeats what came before it."""
    data = b"".join([
        batch_of([GOOD], 0, transactional=True, producer=7), marker(COMMIT, 1, 7),
        batch_of([GOOD], 2),
        batch_of([GOOD, BAD], 3, transactional=True, producer=7),
        batch_of([BAD, GOOD, BAD], 5),
        marker(ABORT, 8, 7),
        batch_of([BAD], 9, transactional=True, producer=7), marker(COMMIT, 10, 7),
    ])  # fmt: skip
    assert [r.offset for r in parsed(data, aborted=[(7, 3)])] == [0, 2, 5, 6, 7, 9]


def test_batches_of_the_old_format_around_it_are_read() -> None:
    """A log that was written before headers existed goes on with newer batches (aiokafka's parser in C knows no such mixture)."""
    old = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    old.append(0, 5, b"old", b"1")
    message = bytes(old.build())
    data = message + batch_of([BAD], 1) + struct.pack(">q", 2) + message[8:]
    batches = TolerantBatches(data, 0)
    found = [
        (r.offset, r.key) for batch in iter(lambda: batches.next_batch() if batches.has_next() else None, None) for r in batch
    ]
    assert found == [(0, b"old"), (1, b"k"), (2, b"old")]


def test_a_fetch_that_ends_within_a_batch() -> None:
    """The piece at the end is left to the next fetch."""
    assert [r.offset for r in parsed(batch_of([BAD, GOOD]) + batch_of([GOOD], 2)[:-1])] == [0, 1]


@pytest.mark.parametrize("at", [0, 1])
def test_a_wrong_checksum_is_told_as_before(at: int) -> None:
    """In the batch with the name itself, and in one behind it: no record of the corrupt batch is handed over."""
    batches = [batch_of([BAD]), batch_of([GOOD], 1)]
    batches[at] = batches[at][:-1] + b"\x7f"
    records = TolerantRecords(TopicPartition("t", 0), KeptRecords(b"".join(batches)), [], 0, None, None, True, READ_COMMITTED)
    assert [next(records).offset for _ in range(at)] == [0] * at
    with pytest.raises(CorruptRecordException, match="CRC"):
        next(records)


HUGE = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
"""The greatest size that can be written."""


@pytest.mark.parametrize(
    "record",
    [
        b"\x12\0\0\0\2k\2v\0?",  # a byte more than its fields
        b"\x10\0\0\0\2k\2v\2",  # a header less than it counts
        b"\x10\0\0\0\2k\2v\1",  # a negative number of headers
        b"\x14\0\0\0\2k\2v\2\1\1",  # a header without a name
        b"\x10\0\0\0\2k\6v\0",  # a value longer than what is left
        b"\x1e\0\0\0\2k" + HUGE,
        b"\x22\0\0\0\2k\2v" + HUGE,  # headers without end
        b"\x7e\0\0\0\2k\2v\0",  # longer than the batch
        b"\1\0\0\0\2k\2v\0",  # of a negative length
        b"\x10\0\0\0\2k\2v\0?",  # a byte behind the last record
    ],
)
def test_a_record_that_is_not_as_it_says_is_corrupt(record: bytes) -> None:
    """Neither an exception that nobody expects, nor a record made of what is not its own."""
    head = batch_of([Foreign(b"k", b"v")])[:61]
    assert [(r.key, r.value) for r in TolerantBatch(head + b"\x10\0\0\0\2k\2v\0")] == [(b"k", b"v")]
    with pytest.raises(CorruptRecordException):
        list(TolerantBatch(head + record))


@given(st.integers(61, 200), st.integers(0, 255))
def test_any_wrong_byte_is_survived(at: int, byte: int) -> None:
    """Whichever byte is wrong under a fitting checksum: the batch is refused as corrupt or read, and nothing else."""
    data = bytearray(batch_of([GOOD, BAD, GOOD]))
    data[61 + (at - 61) % (len(data) - 61)] = byte
    try:
        assert len(parsed(sealed(bytes(data)))) <= 3
    except CorruptRecordException:
        pass


def test_a_batch_shorter_than_any_is_corrupt() -> None:
    """A length that can not be ends the reading instead of going on for ever."""
    with pytest.raises(CorruptRecordException):
        parsed(batch_of([BAD]) + struct.pack(">qi", 1, 3) + b"abc")


def test_it_works_where_aiokafka_has_no_extension() -> None:
    """aiokafka's parser in Python, its own fallback, tells of such a name as of a corrupt record: it is read all the same."""
    code = (
        "import sys; from aiokafka import TopicPartition; from topics.tolerant.records import KeptRecords, TolerantRecords\n"
        "data = KeptRecords(sys.stdin.buffer.read())\n"
        "found = list(TolerantRecords(TopicPartition('t', 0), data, [], 0, None, None, True, 1))\n"
        "print(type(data).__mro__[1].__name__, [r.offset for r in found], ascii(found[1].headers[1][0]))"
    )
    environment = os.environ | {"AIOKAFKA_NO_EXTENSIONS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        input=batch_of([GOOD, BAD, GOOD]),
        capture_output=True,
        check=True,
    )
    assert told.stdout.decode().strip() == r"_MemoryRecordsPy [0, 1, 2] '\udcff\udcfe\udc80'"


def test_an_aiokafka_that_has_changed_is_refused() -> None:
    """A name that the function does not use would change nothing, silently."""
    with pytest.raises(RuntimeError, match="does not use Records"):
        with_names(parsed, Records=object)
