"""Records of one topic against the digests that the receipts hold of them: what was changed, removed, put in or moved.

Exactly once, the log holds the digests' records in their order and nothing else. At least once it holds repeats as well: records
whose commit was never finished, under ids that were anchored by a later one. A million records take about 20 MB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from topics.chain import SHORT

_KEY = 16
"""Bytes of a digest that are compared."""
_CHEAP = 64
"""Digests looked for by going through all of them before an index is built: a trimmed log needs one look, a sound one none."""


class Odd(NamedTuple):
    """A record that no receipt anchors: its offset, its place among the digests, a hash of its id, and one of what it says."""

    at: int
    place: int
    name: int
    content: int


@dataclass(slots=True)
class Findings:
    """What matching came to. Offsets are of the records; `removed` are (offset of the receipt, number in it from 1).

    `erased` were taken by retention, compaction or a tombstone; `loose` lie among receipts without a chain; `repeats` are
    unanchored under an id that is anchored, `differing` those and anchored ones that say something else than the first with
    their id; `ahead` come after the last receipt.
    """

    anchored: int = 0
    erased: int = 0
    loose: int = 0
    repeats: int = 0
    ahead: int = 0
    changed: list[tuple[int, int]] = field(default_factory=list)
    removed: list[tuple[int, int]] = field(default_factory=list)
    inserted: list[int] = field(default_factory=list)
    moved: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    differing: list[int] = field(default_factory=list)


class Anchors:
    """The digests of one topic's partition in the order of the receipts, and which of them have been met.

    Push all digests first, then the records of the log in order, then ask `findings` once.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._met = bytearray()
        self._receipts = array("q")
        self._starts = array("q")
        self._loose: set[int] = set()
        self._due: int | None = None
        self._next = 0
        self._index: dict[bytes, int] | None = None
        self._looked = 0
        self._odd: list[Odd] = []
        self._nulls: list[int] = []
        self._moved: list[int] = []
        self._doubled: list[int] = []
        self._names: dict[int, int] | None = None
        self._differing: list[int] = []

    def __len__(self) -> int:
        return len(self._met)

    # ---- what is expected ------------------------------------------------------------------------------------------------
    def expect(self, digests: Iterable[bytes], receipt_at: int) -> None:
        """The digests of the next receipt, which lies at `receipt_at`."""
        self._starts.append(len(self._met))
        self._receipts.append(receipt_at)
        for digest in digests:
            self._keys += digest[:_KEY].ljust(_KEY, b"\0")
            self._met.append(0)

    def unknown(self) -> None:
        """The next receipt names no digests: records may lie here that nothing anchors."""
        self._loose.add(len(self._met))

    def late(self, digests: Iterable[bytes], receipt_at: int) -> None:
        """As `expect`, of a receipt written while the records were being read: they need not be there yet."""
        if self._due is None:
            self._due = len(self._met)
        self.expect(digests, receipt_at)

    def tolerate(self) -> None:
        """Delivery is at least once: remember the ids that are anchored."""
        self._names = {}

    # ---- what is found -----------------------------------------------------------------------------------------------------
    def found(self, at: int, digest: bytes, id: str = "", content: int = 0) -> None:
        """The next record of the log, at offset `at`. Id and content (a hash of what it says) matter only after `tolerate`."""
        place = self._next
        if not self._is(place, digest):
            place = self._find(digest)
            if place < 0:
                self._odd.append(Odd(at, self._next, hash(id), content))
                return
            if self._met[place]:
                self._doubled.append(at)
                return
            if place < self._next:
                self._moved.append(at)
        self._met[place] = 1
        self._next = max(self._next, place + 1)
        if self._names is not None and self._names.setdefault(hash(id), content) != content:
            self._differing.append(at)

    def null(self) -> None:
        """The next record of the log is a tombstone: what it erased, or what it stands for, may be gone."""
        self._nulls.append(self._next)

    @property
    def nulls(self) -> int:
        """Tombstones met."""
        return len(self._nulls)

    def _is(self, place: int, digest: bytes) -> bool:
        if place >= len(self._met):
            return False
        key = self._keys[place * _KEY : place * _KEY + _KEY]
        return key == digest[:_KEY] or key == _short(digest)

    def _find(self, digest: bytes) -> int:
        for key in (digest[:_KEY], _short(digest)):
            place = self._place(bytes(key))
            if place >= 0:
                return place
        return -1

    def _place(self, key: bytes) -> int:
        if self._index is None:
            self._looked += 1
            if self._looked <= _CHEAP:
                at = self._keys.find(key)
                while at % _KEY and at >= 0:
                    at = self._keys.find(key, at + 1)
                return at // _KEY if at >= 0 else -1
            self._index = {}
            for place in range(len(self._met) - 1, -1, -1):
                self._index[bytes(self._keys[place * _KEY : place * _KEY + _KEY])] = place
        return self._index.get(key, -1)

    # ---- what it comes to ------------------------------------------------------------------------------------------------
    def findings(self, *, trimmed: bool, compacted: bool) -> Findings:
        """What is wrong and what is excused. `trimmed`: the log does not begin at 0; `compacted`: any record may be gone."""
        out = Findings(anchored=self._met.count(1), doubled=self._doubled, moved=self._moved, differing=list(self._differing))
        due = len(self._met) if self._due is None else self._due
        kept = self._met.find(1)
        begin = (due if kept < 0 else kept) if trimmed else 0
        missing = {place for place in self._missing(0, due) if not self._elsewhere(place)}
        gone = set() if compacted else {place for place in missing if place >= begin}
        out.erased = len(missing) - len(gone)
        for place in self._nulls:
            if place in gone:
                out.erased += 1
                gone.remove(self._run_end(place, gone))
        free: dict[int, int] = {}
        for odd in self._odd:
            place = free.get(odd.place, odd.place)
            if self._names is not None and odd.name in self._names:
                out.repeats += 1
                if odd.content != self._names[odd.name]:
                    out.differing.append(odd.at)
            elif odd.place in self._loose:
                out.loose += 1
            elif place in gone:
                gone.remove(place)
                free[odd.place] = place + 1
                out.changed.append((odd.at, self._receipt(place)[0]))
            elif self._names is not None and odd.place >= due:
                out.ahead += 1
            else:
                out.inserted.append(odd.at)
        out.removed = [self._receipt(place) for place in sorted(gone)]
        if self._names is not None:
            out.repeats += len(out.doubled) + len(out.moved)
            out.doubled, out.moved = [], []
        return out

    def _missing(self, begin: int, due: int) -> Iterator[int]:
        place = self._met.find(0, begin, due)
        while place >= 0:
            yield place
            place = self._met.find(0, place + 1, due)

    def _elsewhere(self, place: int) -> bool:
        """A receipt written twice names a record twice, which need be there but once."""
        key = bytes(self._keys[place * _KEY : place * _KEY + _KEY])
        first = self._place(key)
        return first != place and first >= 0 and bool(self._met[first])

    @staticmethod
    def _run_end(place: int, gone: set[int]) -> int:
        """The last of the missing digests from `place` on: tombstones excuse from behind, changed records claim from before."""
        while place + 1 in gone:
            place += 1
        return place

    def _receipt(self, place: int) -> tuple[int, int]:
        number = bisect_right(self._starts, place) - 1
        return self._receipts[number], place - self._starts[number] + 1


def _short(digest: bytes) -> bytes:
    return digest[:SHORT].ljust(_KEY, b"\0")
