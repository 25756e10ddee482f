"""Progress of one source partition: the frontier, what is done above it, and how both are written in a commit's metadata.

Pure: no clock, no broker. Offsets of a log have gaps (compaction, transaction markers), so each record *covers* the offsets
from itself up to the next record of its list, the first one also those before it: the covers of all records read partition
the offset line. The frontier is the offset below which everything is done; it only moves forward.

The metadata is `1.SEQ.RUNS.CRC`: the commit's sequence number in 12 hex digits (a fixed width, or one more digit
could make a text too long that only the next commit can shorten), the done ranges above the frontier as varints
(gap, length, gap, length ...) in URL-safe base64, and a CRC-32 in hex over the frontier and both. The CRC ties the text to its
offset: an offset that a person moved with a tool carries no done ranges.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar
from zlib import crc32

Range = tuple[int, int]
"""Half-open range of offsets: [first, one past the last)."""
_MAX_VARINT_BITS = 63


@dataclass(frozen=True, slots=True)
class Mark:
    """What a commit's metadata says. `state` "damaged": there was something that is not ours or is not whole."""

    seq: int
    done: tuple[Range, ...]
    state: Literal["none", "ok", "damaged"]


def encode(frontier: int, seq: int, done: Iterable[Range]) -> str:
    """The metadata of a commit at `frontier`; `done` are sorted, disjoint ranges at or above it."""
    raw = bytearray()
    at = frontier
    for first, end in done:
        for number in (first - at, end - first):
            while number > 127:
                raw.append(number & 127 | 128)
                number >>= 7
            raw.append(number)
        at = end
    body = f"{seq:012x}.{urlsafe_b64encode(raw).decode().rstrip('=')}"
    return f"1.{body}.{_crc(frontier, body)}"


def decode(frontier: int, text: str) -> Mark:
    """What `text` says of a commit at `frontier`. Never raises: what can not be read is "damaged" and says nothing."""
    if not text:
        return Mark(0, (), "none")
    damaged = Mark(0, (), "damaged")
    fields = text.split(".")
    if len(fields) != 4 or fields[0] != "1" or not text.isascii():
        return damaged
    _, seq, runs, crc = fields
    if crc != _crc(frontier, f"{seq}.{runs}"):
        return damaged
    try:
        raw = urlsafe_b64decode(runs + "=" * (-len(runs) % 4))
        number = int(seq, 16)
    except ValueError:
        return damaged
    values = _varints(raw)
    if values is None or len(values) % 2 or number < 0:
        return damaged
    done = []
    at = frontier
    for gap, length in zip(values[::2], values[1::2], strict=True):
        if not length:
            return damaged
        done.append((at + gap, at + gap + length))
        at += gap + length
    return Mark(number, tuple(done), "ok")


def _crc(frontier: int, body: str) -> str:
    return f"{crc32(f'{frontier}.{body}'.encode()):08x}"


def _varints(raw: bytes) -> list[int] | None:
    values = []
    number = shift = 0
    for byte in raw:
        if shift > _MAX_VARINT_BITS:
            return None
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(number)
            number = shift = 0
    return None if shift else values


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Sorted, disjoint and not touching."""
    out: list[Range] = []
    for first, end in sorted(ranges):
        if out and first <= out[-1][1]:
            if end > out[-1][1]:
                out[-1] = (out[-1][0], end)
        elif end > first:
            out.append((first, end))
    return out


def without(whole: Range, holes: Iterable[Range]) -> list[Range]:
    """The parts of `whole` that lie in none of the sorted, disjoint `holes`."""
    out = []
    at, end = whole
    for first, last in holes:
        if last <= at or first >= end:
            continue
        if first > at:
            out.append((at, first))
        at = max(at, last)
    if at < end:
        out.append((at, end))
    return out


class Span:
    """One list of records as read: their offsets, and which of them are done.

    `flags[i]` is 1 for a record whose outcome is in a commit or in the one under way; `left` counts the others. `inherited`
    is there when an earlier owner has committed some of them.
    """

    __slots__ = ("begin", "end", "flags", "inherited", "left", "offsets")

    def __init__(self, begin: int, end: int, offsets: Sequence[int]) -> None:
        self.begin = begin
        self.end = end
        self.offsets = offsets
        self.left = len(offsets)
        self.flags = bytearray(self.left)
        self.inherited: bytes | None = None

    def cover(self, index: int) -> Range:
        """The offsets that the record at `index` stands for."""
        first = self.offsets[index] if index else self.begin
        return first, self.offsets[index + 1] if index + 1 < len(self.offsets) else self.end

    def done(self) -> Iterable[Range]:
        """Ranges that are done, in order."""
        return self.runs(self.flags) if self.left else ((self.begin, self.end),)

    def runs(self, flags: bytearray) -> Iterable[Range]:
        """The offsets that the records marked 1 in `flags` stand for, as ranges in order."""
        offsets = self.offsets
        index = flags.find(1)
        while index >= 0:
            until = flags.find(0, index)
            first = offsets[index] if index else self.begin
            if until < 0:
                yield first, self.end
                return
            yield first, offsets[until]
            index = flags.find(1, until)


S = TypeVar("S", bound=Span)
T = TypeVar("T")
Item = tuple[S, int, T]
"""One finished record: its span, its place in it, and its outcome."""


@dataclass(slots=True)
class Commit(Generic[S, T]):
    """One commit, from its first attempt until it is confirmed: what to publish and what to write."""

    items: list[Item[S, T]] = field(default_factory=list)
    lost: list[Range] = field(default_factory=list)
    start: int = 0
    frontier: int = 0
    seq: int = 0
    metadata: str = ""

    def closed(self) -> list[Range]:
        """The ranges whose outcome is in this commit; neither inherited ones nor lost ones."""
        flags: dict[int, tuple[S, bytearray]] = {}
        for span, index, _ in self.items:
            found = flags.get(id(span))
            if found is None:
                found = flags[id(span)] = span, bytearray(len(span.offsets))
            found[1][index] = 1
        return merge(run for span, marked in flags.values() for run in span.runs(marked))


class Progress(Generic[S, T]):
    """Bookkeeping of one partition for one owner. `frontier` is what is committed, `read` what will be read next."""

    def __init__(self, start: int, mark: Mark) -> None:
        self.frontier = start
        self.read = start
        self.seq = mark.seq
        self._done: list[Range] = list(mark.done)
        self.spans: deque[S | Span] = deque()
        self._waiting: list[Item[S, T]] = []
        self._lost: list[Range] = []
        self._commit: Commit[S, T] = Commit(start=start, frontier=start, seq=mark.seq)
        self.held_back = 0

    # ---- reading -------------------------------------------------------------------------------------------------
    def add(self, span: S) -> None:
        """The next records, in order: `span.begin` is `read`. Marks those that an earlier owner has committed."""
        if span.begin != self.read or span.end <= span.begin:
            raise ValueError(f"adding offsets [{span.begin}, {span.end}) to a partition read up to {self.read}")
        self.read = span.end
        self.spans.append(span)
        if not self._done:
            return
        for first, end in self._done:
            if first >= span.end:
                break
            for index, offset in enumerate(span.offsets):
                if first <= offset < end:
                    span.flags[index] = 1
        if 1 in span.flags:
            span.inherited = bytes(span.flags)
            span.left -= span.flags.count(1)
        self._done = [(first, end) for first, end in self._done if end > span.end]

    def lose(self, until: int) -> list[Range]:
        """The log begins at `until` now: what was not read before it never will be. Returns the ranges lost by that."""
        if until <= self.read:
            return []
        lost = without((self.read, until), self._done)
        self.spans.append(Span(self.read, until, ()))
        self.read = until
        self._done = [(first, end) for first, end in self._done if end > until]
        self._lost += lost
        return lost

    # ---- finishing -----------------------------------------------------------------------------------------------
    def finish(self, span: S, index: int, outcome: T) -> None:
        """The record has its outcome, to be written with a coming commit."""
        self._waiting.append((span, index, outcome))

    @property
    def waiting(self) -> int:
        """Outcomes that no confirmed commit holds."""
        return len(self._waiting) + len(self._commit.items)

    @property
    def dirty(self) -> bool:
        """True while there is something to commit."""
        return bool(self._waiting or self._lost or self._commit.items or self._commit.lost)

    @property
    def unconfirmed(self) -> bool:
        """True while an attempt has neither been confirmed nor found not to have happened."""
        return bool(self._commit.items or self._commit.lost)

    def take(self, limit: int, most: int = 5000) -> Commit[S, T] | None:
        """The next commit: up to `most` outcomes that wait, and what a failed attempt held; None when nothing fits.

        Holds back the highest offsets until the metadata fits `limit` bytes: the lowest always fit, since they extend
        the range that the frontier is about to swallow or one that is there already.
        """
        commit = self._commit
        if len(self._waiting) > most:
            # the lowest first: those held back for the metadata's sake go only once the ones below them went
            self._waiting.sort(key=_offset)
        new, self._waiting = self._waiting[:most], self._waiting[most:]
        self._mark(new, 1)
        frontier, runs = self._ranges()
        seq = self.seq + 1
        metadata = encode(frontier, seq, runs)
        if len(metadata) > limit:
            self._mark(new, 0)
            new.sort(key=_offset)
            fits = self._most(new, seq, limit)
            self._waiting = new[fits:] + self._waiting
            self.held_back += len(new) - fits
            new = new[:fits]
            self._mark(new, 1)
            frontier, runs = self._ranges()
            metadata = encode(frontier, seq, runs)
        commit.items += new
        commit.lost += self._lost
        self._lost = []
        if not commit.items and not commit.lost:
            return None
        commit.start, commit.frontier, commit.seq, commit.metadata = self.frontier, frontier, seq, metadata
        return commit

    def _most(self, new: list[Item[S, T]], seq: int, limit: int) -> int:
        """How many of the sorted outcomes fit."""

        def fits(count: int) -> bool:
            self._mark(new[:count], 1)
            ok = len(encode(*self._encodable(seq))) <= limit
            self._mark(new[:count], 0)
            return ok

        return _largest(len(new) - 1, fits)

    def _encodable(self, seq: int) -> tuple[int, int, list[Range]]:
        frontier, runs = self._ranges()
        return frontier, seq, runs

    def _mark(self, items: list[Item[S, T]], value: int) -> None:
        step = -1 if value else 1
        for span, index, _ in items:
            span.flags[index] = value
            span.left += step

    def _ranges(self) -> tuple[int, list[Range]]:
        """Frontier and done ranges above it, as the flags say now."""
        runs: list[Range] = []
        for span in self.spans:
            for first, end in span.done():
                if runs and runs[-1][1] >= first:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((first, end))
        for first, end in self._done:
            first = max(first, self.read)
            if runs and runs[-1][1] >= first:
                runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
            elif end > first:
                runs.append((first, end))
        frontier = self.frontier
        while runs and runs[0][0] <= frontier:
            frontier = max(frontier, runs.pop(0)[1])
        return frontier, runs

    def confirm(self) -> Commit[S, T]:
        """The commit under way has happened. Returns it."""
        commit, self._commit = self._commit, Commit()
        self.frontier, self.seq = commit.frontier, commit.seq
        return commit

    def release(self) -> list[S | Span]:
        """Forget and return the lists of records that lie below the frontier."""
        released = []
        while self.spans and not self.spans[0].left and self.spans[0].end <= self.frontier:
            released.append(self.spans.popleft())
        return released


def _offset(item: Item[S, T]) -> int:
    return item[0].offsets[item[1]]


def _largest(upper: int, ok: Callable[[int], bool]) -> int:
    """The largest number in [0, upper] for which `ok` holds, `ok(0)` taken to hold and to be monotone."""
    low, high = 0, max(upper, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if ok(middle):
            low = middle
        else:
            high = middle - 1
    return low
