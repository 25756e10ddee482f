"""Properties of topics/progress.py: any order of finishing, any point of crashing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topics import progress
from topics.progress import Mark, Progress, Span, decode, encode, merge, without

ranges = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 10_000)), max_size=200)


def place(frontier: int, steps: list[tuple[int, int]]) -> tuple[progress.Range, ...]:
    """Sorted, disjoint ranges above a frontier from (gap, length) steps."""
    out = []
    at = frontier
    for gap, length in steps:
        out.append((at + gap, at + gap + length))
        at += gap + length
    return tuple(out)


@given(st.integers(0, 2**62), st.integers(0, 2**40), ranges)
def test_what_is_encoded_is_decoded(frontier: int, seq: int, steps: list[tuple[int, int]]) -> None:
    """Frontier, sequence number and ranges survive the commit's metadata."""
    done = place(frontier, steps)
    assert decode(frontier, encode(frontier, seq, done)) == Mark(seq, done, "ok")


@given(st.integers(0, 10**9), ranges, st.data())
def test_damage_is_seen(frontier: int, steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """One changed character, or another offset under the same text, gives a damaged mark and no done range."""
    text = encode(frontier, 7, place(frontier, steps))
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda c: c != text[at]))
    assert decode(frontier, text[:at] + char + text[at + 1 :]) == Mark(0, (), "damaged")
    assert decode(frontier + 1, text).state == "damaged"


@given(st.integers(0, 100), st.text(min_size=1))
def test_foreign_metadata_is_damage_not_an_exception(frontier: int, text: str) -> None:
    """What another program wrote there is never taken for ours."""
    assert decode(frontier, text).state == "damaged"


def test_no_metadata_is_no_damage() -> None:
    """An empty text says nothing and is not an alarm."""
    assert decode(5, "") == Mark(0, (), "none")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12), st.integers(0, 40), st.integers(0, 60))
def test_without_and_merge_agree_with_sets(pairs: list[tuple[int, int]], first: int, length: int) -> None:
    """Range arithmetic equals arithmetic on sets of offsets."""
    holes = merge((a, a + n) for a, n in pairs)
    inside = {o for a, b in holes for o in range(a, b)}
    assert inside == {o for a, n in pairs for o in range(a, a + n)}
    left = without((first, first + length), holes)
    assert {o for a, b in left for o in range(a, b)} == set(range(first, first + length)) - inside


class Model:
    """A log with gaps, what has been confirmed for each record, and an owner that may crash."""

    def __init__(self, rnd: random.Random, count: int, limit: int) -> None:
        self.rnd, self.limit, self.most = rnd, limit, rnd.choice([2, 7, 5000])
        at = rnd.randrange(5)
        self.log: list[int] = []
        for _ in range(count):
            at += 1 + (rnd.randrange(9) if rnd.random() < 0.2 else 0)
            self.log.append(at)
        self.closed: dict[int, int] = {}
        self.committed: tuple[int, str] = (0, "")
        self.frontier = 0
        self.open()

    def open(self) -> None:
        """A new owner: all it knows is the commit."""
        offset, text = self.committed
        mark = decode(offset, text)
        assert mark.state in ("ok", "none")
        self.progress: Progress[Span, int] = Progress(offset, mark)
        self.pending: list[tuple[Span, int]] = []

    def read(self) -> None:
        """Hand over the next few records, never one whose outcome is committed."""
        rest = [o for o in self.log if o >= self.progress.read][: self.rnd.randint(1, 20)]
        if not rest:
            return
        span = Span(self.progress.read, rest[-1] + 1, rest)
        self.progress.add(span)
        for index, offset in enumerate(rest):
            assert bool(span.flags[index]) == (offset in self.closed), "inherited exactly if committed"
            if not span.flags[index]:
                self.pending.append((span, index))

    def finish(self) -> None:
        """Finish a few records, in any order."""
        for _ in range(min(len(self.pending), self.rnd.randint(1, 12))):
            span, index = self.pending.pop(self.rnd.randrange(len(self.pending)))
            self.progress.finish(span, index, span.offsets[index])

    def commit(self, *, fail: bool = False) -> None:
        """Commit; a failed attempt keeps its outcomes for the next."""
        attempt = self.progress.take(self.limit, self.most)
        if attempt is None:
            return
        assert len(attempt.metadata) <= self.limit
        if fail:
            return
        assert attempt.seq == decode(*self.committed).seq + 1
        assert attempt.start == self.frontier <= attempt.frontier
        closed = {o for a, b in attempt.closed() for o in self.log if a <= o < b}
        assert closed == {offset for _, _, offset in attempt.items}, "closed ranges name exactly what is published"
        for _, _, offset in attempt.items:
            self.closed[offset] = self.closed.get(offset, 0) + 1
        self.committed = (attempt.frontier, attempt.metadata)
        self.frontier = attempt.frontier
        self.progress.confirm()
        self.progress.release()
        self.check()

    def check(self) -> None:
        """No offset counted done that was not finished, none lost, and the frontier contiguous."""
        offset, text = self.committed
        done = set()
        for first, end in decode(offset, text).done:
            assert first > offset
            done |= {o for o in self.log if first <= o < end}
        assert {o for o in self.log if o < offset} | done == set(self.closed)
        assert all(times == 1 for times in self.closed.values())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 300), st.sampled_from([32, 40, 64, 4096]))
def test_any_order_and_any_crash_point(seed: int, count: int, limit: int) -> None:
    """Whatever the order of finishing, failed commits and crashes: each record is closed once, and none is lost."""
    rnd = random.Random(seed)
    model = Model(rnd, count, limit)
    for _ in range(count):
        step = rnd.random()
        if step < 0.35:
            model.read()
        elif step < 0.75:
            model.finish()
        elif step < 0.9:
            model.commit(fail=rnd.random() < 0.2)
        elif step < 0.95:
            model.open()
    while len(model.closed) < count:
        model.read()
        model.finish()
        model.commit()
    while model.progress.dirty:
        model.commit()
    assert model.frontier == (model.log[-1] + 1 if model.log else 0)
    model.progress.release()
    assert not model.progress.spans


def test_the_metadata_is_bounded_by_holding_back_the_highest() -> None:
    """Every second record of many is finished: the commit fits, the rest waits, and all goes once the head is done."""
    progress_: Progress[Span, None] = Progress(0, Mark(0, (), "none"))
    span = Span(0, 20_000, range(20_000))
    progress_.add(span)
    for index in range(1, 20_000, 2):
        progress_.finish(span, index, None)
    first = progress_.take(4096)
    assert first is not None
    assert len(first.metadata) <= 4096
    assert progress_.held_back > 0
    assert first.items[-1][1] < 10_000
    progress_.confirm()
    assert progress_.take(4096) is None, "nothing more fits until a lower record is done"
    for index in range(0, 20_000, 2):
        progress_.finish(span, index, None)
    while (commit := progress_.take(4096)) is not None:
        assert len(commit.items) <= 5000
        progress_.confirm()
    assert progress_.frontier == 20_000
    assert not progress_.dirty
    assert len(progress_.release()) == 1
    assert not progress_.spans


def test_trimmed_input_is_lost_once_and_only_where_it_was_not_done() -> None:
    """Retention removed up to 50: what an earlier owner had done there is not lost, and the frontier passes it."""
    progress_: Progress[Span, None] = Progress(10, Mark(3, ((20, 30), (45, 60)), "ok"))
    assert progress_.lose(50) == [(10, 20), (30, 45)]
    assert progress_.lose(50) == []
    commit = progress_.take(4096)
    assert commit is not None
    assert commit.lost == [(10, 20), (30, 45)]
    assert (commit.start, commit.frontier, commit.seq) == (10, 60, 4)
    assert commit.closed() == []
    progress_.confirm()
    span = Span(50, 62, range(50, 62))
    progress_.add(span)
    assert [o for o in range(50, 62) if not span.flags[o - 50]] == [60, 61]


def test_a_list_that_does_not_follow_is_refused() -> None:
    """The same offset is never accepted twice."""
    progress_: Progress[Span, None] = Progress(10, Mark(0, (), "none"))
    with pytest.raises(ValueError, match="read up to 10"):
        progress_.add(Span(9, 12, [9, 10, 11]))
