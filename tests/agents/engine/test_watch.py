"""The watchdog: silent while it must be, loud once and then seldom when a loop that should turn does not."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

import pytest

from agents.engine.watch import EVERY, REPEAT, PollWatch, Watching, patience
from topics.handover import TopicPartition
from topics.transport.stats import TransportStats

LIMIT = 15.0


@dataclass
class Loop:
    """A transport and a clock, both moved by hand."""

    stats: TransportStats = field(default_factory=lambda: TransportStats(owned={TopicPartition("t", 0)}))
    running: bool = True
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def go(loop: Loop, watch: PollWatch, seconds: float, *, polls: bool) -> None:
    """So many seconds, looked at in each, with or without a poll."""
    for _ in range(round(seconds / EVERY)):
        loop.now += EVERY
        if polls:
            loop.stats.last_poll = loop.now
        watch.look()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def watch(loop: Loop, caplog: pytest.LogCaptureFixture) -> PollWatch:
    caplog.set_level(logging.INFO)
    return PollWatch("credit-risk", loop, LIMIT, loop)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


def test_a_loop_that_turns_is_never_told_of(loop: Loop, watch: PollWatch, caplog: pytest.LogCaptureFixture) -> None:
    """Hours of polls, whether or not they bring anything, log nothing and show no age."""
    go(loop, watch, 4000, polls=True)
    assert caplog.records == []
    assert watch.silence() == 0


def test_a_loop_that_stands_is_told_once_and_then_seldom(loop: Loop, watch: PollWatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not before the limit; then at once, again after REPEAT seconds, and its end is told too."""
    go(loop, watch, 60, polls=True)
    go(loop, watch, LIMIT, polls=False)
    assert errors(caplog) == []
    assert watch.silence() == LIMIT
    go(loop, watch, 2, polls=False)
    assert len(errors(caplog)) == 1
    assert "agent credit-risk has not asked for records for 16 s, though it owns 1 partitions" in errors(caplog)[0]
    go(loop, watch, REPEAT - 10, polls=False)
    assert len(errors(caplog)) == 1
    go(loop, watch, 20, polls=False)
    assert len(errors(caplog)) == 2
    go(loop, watch, 2, polls=True)
    assert caplog.records[-1].getMessage() == "agent credit-risk asks for records again"
    assert watch.silence() == 0
    go(loop, watch, LIMIT + 2, polls=False)
    assert len(errors(caplog)) == 3, "a new silence is news"


def test_what_need_not_poll_is_not_silent(loop: Loop, watch: PollWatch, caplog: pytest.LogCaptureFixture) -> None:
    """A rebalance, a drain or a worker without partitions may last for as long as it likes; afterwards counting begins anew."""
    go(loop, watch, 10, polls=True)
    for change in ("running", "owned"):
        loop.running = change != "running"
        owned, loop.stats.owned = loop.stats.owned, loop.stats.owned if change != "owned" else set()
        go(loop, watch, 10 * LIMIT, polls=False)
        assert watch.silence() == 0
        loop.running, loop.stats.owned = True, owned
        go(loop, watch, LIMIT, polls=False)
        assert errors(caplog) == []
        assert watch.silence() < LIMIT, "the time in which it need not have polled does not count"
    go(loop, watch, 3, polls=False)
    assert len(errors(caplog)) == 1


def test_a_start_is_not_a_silence(loop: Loop, watch: PollWatch, caplog: pytest.LogCaptureFixture) -> None:
    """A process that never polled counts from when it should have begun, not from the clock's zero."""
    assert watch.silence() == 0
    watch.look()
    go(loop, watch, LIMIT, polls=False)
    assert errors(caplog) == []
    go(loop, watch, 2, polls=False)
    assert len(errors(caplog)) == 1


def test_a_process_that_was_stopped_is_given_time(loop: Loop, watch: PollWatch, caplog: pytest.LogCaptureFixture) -> None:
    """SIGSTOP and SIGCONT minutes later: the loop did not hang, nothing of the process ran."""
    go(loop, watch, 10, polls=True)
    loop.now += 600
    watch.look()
    assert errors(caplog) == []
    go(loop, watch, LIMIT, polls=False)
    assert errors(caplog) == []
    go(loop, watch, 2, polls=False)
    assert len(errors(caplog)) == 1, "it does hang"


def test_patience_is_half_a_session_and_never_short() -> None:
    """In seconds; a short session on a loaded machine gives no false alarm."""
    assert (patience(60), patience(6)) == (30, 10)


def test_the_thread_looks_until_it_is_stopped() -> None:
    """It looks by itself, whatever the loop does, and is gone after stop, which may be called twice or without a start."""
    looked = threading.Event()

    class Looked(PollWatch):
        def look(self) -> None:
            looked.set()

    loop = Loop()
    watching = Watching([Looked("a", loop, LIMIT, loop)])
    watching.start()
    assert looked.wait(60)
    watching.stop()
    watching.stop()
    assert not [t for t in threading.enumerate() if t.name == "headrace-watch"]
    Watching([]).stop()
