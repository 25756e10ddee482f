"""Calls that have one call_id and are not copies of each other: a decision that names it can not tell which one it means."""

from __future__ import annotations

from array import array
from collections.abc import Iterator


class Twins:
    """Push every call, then ask `found` once. Whoever a call is, is its worker and number; of one without a worker its digest.

    Hashes stand for texts, to bound memory: a million calls take about 30 MB.
    """

    def __init__(self) -> None:
        self._ids, self._selves, self._at = array("q"), array("q"), array("q")
        self._partitions = array("i")

    def add(self, call_id: str, self_: object, partition: int, at: int) -> None:
        """The next call: what it is known by, and where it lies."""
        self._ids.append(hash(call_id))
        self._selves.append(hash(self_))
        self._partitions.append(partition)
        self._at.append(at)

    def found(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Pairs of places (partition, offset): a call, and the first that was pushed with the same id and is another."""
        if len(set(self._ids)) == len(self._ids):
            return
        order = sorted(range(len(self._ids)), key=self._ids.__getitem__)  # stable: the first of an id comes first
        first, known = -1, set[int]()
        for index in order:
            if first < 0 or self._ids[first] != self._ids[index]:
                first, known = index, {self._selves[index]}
            elif self._selves[index] not in known:
                known.add(self._selves[index])
                yield self._place(index), self._place(first)

    def _place(self, index: int) -> tuple[int, int]:
        return self._partitions[index], self._at[index]
