"""Parsing what aiokafka's parser refuses: batches of records where the name of a header is no UTF-8.

aiokafka's own parser is in C, and raises for such a name with nothing of the batch handed over. So its answer is taken as long
as it has one, and what is left of a fetch is parsed again, in Python, from the batch on that it failed at. Everything else that
is wrong with a batch is told as before: a checksum that does not fit, a record that is not as long as it says.
"""

from __future__ import annotations

import struct
from typing import Any

from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py

_LENGTH = struct.Struct(">8xi")
"""The base offset, which does not matter here, and the length of what follows both; the same in every format."""
_OVERHEAD = _LENGTH.size
_MAGIC = _OVERHEAD + 4
_SHORTEST = _OVERHEAD + 14
"""A message of the oldest format with neither key nor value."""


class KeptRecords(MemoryRecords):
    """The batches of one fetch as aiokafka's parser sees them, with the bytes they come from and the number handed out."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data
        self.taken = 0

    def next_batch(self) -> Any:
        """The next batch, None behind the last."""
        self.taken += 1
        return super().next_batch()


class TolerantBatches:
    """The batches of one fetch again, without the first `skip` of them, parsed by `TolerantBatch`."""

    def __init__(self, data: bytes, skip: int) -> None:
        self._data = memoryview(data)
        self._at = 0
        for _ in range(skip):
            self._at = self._end()

    def _end(self) -> int:
        return self._at + _OVERHEAD + int(_LENGTH.unpack_from(self._data, self._at)[0])

    def has_next(self) -> bool:
        """Whether there is another whole batch; a fetch may end in the middle of one."""
        return len(self._data) - self._at >= _OVERHEAD and self._end() <= len(self._data)

    def next_batch(self) -> Any:
        """The next batch. Raises CorruptRecordException for one too short to be any."""
        end = self._end()
        batch = self._data[self._at : end]
        if len(batch) < _SHORTEST:
            raise CorruptRecordException(f"a batch of {len(batch)} bytes: it takes at least {_SHORTEST}")
        self._at = end
        magic = batch[_MAGIC]
        return TolerantBatch(batch) if magic >= 2 else LegacyRecordBatch(batch, magic)


class TolerantBatch(_DefaultRecordBatchPy):
    """A batch whose header names need not be UTF-8: bytes that are none come as lone surrogates (topics/header_names.py).

    Numbers are read by aiokafka's function in Python: the one in C reads on behind the end of a record that is cut short.
    """

    _pos: int

    def _read_msg(self) -> Any:
        buffer = self._buffer
        length, at = decode_varint_py(buffer, self._pos)
        end = at + length
        at += 1  # attributes: none are defined
        time_delta, at = decode_varint_py(buffer, at)
        offset_delta, at = decode_varint_py(buffer, at)
        key, at = self._bytes(at)
        value, at = self._bytes(at)
        count, at = decode_varint_py(buffer, at)
        if count < 0:
            raise CorruptRecordException(f"a record with {count} headers")
        headers = []
        for _ in range(count):
            name, at = self._bytes(at)
            if name is None:
                raise CorruptRecordException("a header without a name")
            content, at = self._bytes(at)
            headers.append((name.decode("utf-8", "surrogateescape"), content))
        if at != end:
            raise CorruptRecordException(f"a record of {length} bytes is {length + at - end} bytes long")
        self._pos = at
        timestamp = self.max_timestamp if self.timestamp_type == self.LOG_APPEND_TIME else self.first_timestamp + time_delta
        return _DefaultRecordPy(self.base_offset + offset_delta, timestamp, self.timestamp_type, key, value, headers)

    def _bytes(self, at: int) -> tuple[bytes | None, int]:
        size, at = decode_varint_py(self._buffer, at)
        if size < 0:
            return None, at
        if size > len(self._buffer) - at:
            raise CorruptRecordException(f"{size} bytes where {len(self._buffer) - at} are left")
        return bytes(self._buffer[at : at + size]), at + size


class TolerantRecords(PartitionRecords):
    """aiokafka's records of one partition and fetch, which go on where its parser stops at a header's name.

    Aborted transactions, control batches and positions stay with aiokafka's code: only where batches come from is changed, and
    the batch that failed begins again. Its records that were handed over already are below `next_fetch_offset`, thus passed over.
    """

    _records: Any
    _records_iterator: Any

    def __next__(self) -> Any:
        try:
            return next(self._records_iterator)
        except StopIteration:
            self._records_iterator = None  # as aiokafka does, against a cycle of references
            raise
        except (UnicodeDecodeError, CorruptRecordException) as error:
            kept = self._records
            if not (_of_a_name(error) and isinstance(kept, KeptRecords)):
                raise
        self._records = TolerantBatches(kept.data, kept.taken - 1)
        self._records_iterator = self._unpack_records()
        return next(self)


def _of_a_name(error: Exception) -> bool:
    """A text in a batch can only be the name of a header. aiokafka's parser in Python wraps the error, the one in C does not."""
    return isinstance(error, UnicodeDecodeError) or isinstance(error.__cause__, UnicodeDecodeError)
