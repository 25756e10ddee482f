"""The input records of one partition and what is known of each, in a few bytes a record: a million take about 30 MB.

Offsets of a log have gaps, so records are addressed by their index here. Marks are bits of one byte a record, and marking a
range is one `bytes.translate`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

DECIDED, DEAD, SKIPPED, CLOSED, LATE, LOST, PARTED, EXCUSED = (1 << bit for bit in range(8))
"""What is known of a record: a decision, a dead letter, a skip; closed by a receipt, or by one written meanwhile; called lost;
several parts (then its details are in `Source.parts`); its receipt's outcomes are not all there any more, and needn't be."""

_DIGEST = 16
_SETTING = {1 << bit: bytes(value | 1 << bit for value in range(256)) for bit in range(8)}
_TESTING = {1 << bit: bytes(value >> bit & 1 for value in range(256)) for bit in range(8)}


class Parts:
    """What is known of each part of a record with several subjects; `count` is None until an outcome has said it."""

    __slots__ = ("count", "dead", "decided", "skipped")

    def __init__(self) -> None:
        self.count: int | None = None
        self.decided: set[int] = set()
        self.dead: set[int] = set()
        self.skipped: set[int] = set()

    @property
    def known(self) -> set[int]:
        """The parts that have an outcome."""
        return self.decided | self.dead | self.skipped

    @property
    def missing(self) -> list[int]:
        """The parts without an outcome; where nothing has said how many there are, those below the highest known one."""
        known = self.known
        count = self.count if self.count is not None else max(known, default=-1) + 1
        return [part for part in range(count) if part not in known]


class Source:
    """The input records read from one partition, in offset order."""

    def __init__(self) -> None:
        self.offsets = array("q")
        self.marks = bytearray()
        self.parts: dict[int, Parts] = {}
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self.offsets)

    def add(self, offset: int, input_hash: str) -> None:
        """The next record. Raises ValueError when it is not after the one before, or the hash is not hexadecimal."""
        if self.offsets and offset <= self.offsets[-1]:
            raise ValueError(f"reading source: offset {offset} came after {self.offsets[-1]}")
        self._digests += bytes.fromhex(input_hash)[:_DIGEST]
        self.offsets.append(offset)
        self.marks.append(0)

    def find(self, offset: int) -> int:
        """The index of the record at `offset`, or -1."""
        index = bisect_left(self.offsets, offset)
        return index if index < len(self.offsets) and self.offsets[index] == offset else -1

    def between(self, first: int, end: int) -> tuple[int, int]:
        """The half-open range of indexes of the records in [first, end)."""
        low = bisect_left(self.offsets, first)
        return low, bisect_left(self.offsets, end, low)

    def has_hash(self, index: int, input_hash: str) -> bool:
        """Whether the record's input hash is this one (compared in its first 128 bits)."""
        at = index * _DIGEST
        return self._digests[at : at + _DIGEST].hex() == input_hash[: 2 * _DIGEST]

    def mark(self, low: int, high: int, bit: int) -> None:
        """Set a bit on the records at indexes [low, high)."""
        self.marks[low:high] = self.marks[low:high].translate(_SETTING[bit])

    def count(self, low: int, high: int, bit: int) -> int:
        """How many of the records at indexes [low, high) have the bit."""
        return self.marks[low:high].translate(_TESTING[bit]).count(1)

    def where(self, low: int, high: int, bit: int, value: bool = True) -> Iterator[int]:
        """The indexes in [low, high) of the records that have the bit (or have it not)."""
        tested = self.marks[low:high].translate(_TESTING[bit])
        wanted = int(value)
        at = tested.find(wanted)
        while at >= 0:
            yield low + at
            at = tested.find(wanted, at + 1)

    def parts_of(self, index: int) -> Parts:
        """The details of a record with several parts; marks it as one."""
        self.marks[index] |= PARTED
        return self.parts.setdefault(index, Parts())

    def sums(self, bit: int) -> array[int]:
        """Running totals of published outcomes, each part counted: element i is that of the records below index i.

        `bit` is DECIDED or DEAD.
        """
        numbers = array("I", iter(self.marks.translate(_TESTING[bit])))
        for index, parts in self.parts.items():
            numbers[index] = len(parts.decided if bit == DECIDED else parts.dead)
        return array("q", accumulate(numbers, initial=0))
