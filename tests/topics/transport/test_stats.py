"""The transport's statistics are read by the thread of a scrape while the event loop changes them."""

from __future__ import annotations

import sys
import threading

from topics.handover import TopicPartition
from topics.transport.stats import TransportStats


def test_lag_can_be_asked_for_while_partitions_come_and_go() -> None:
    """A scrape never fails because a partition was taken or lost in the middle of it."""
    stats = TransportStats()
    stop = threading.Event()
    raised: list[BaseException] = []

    def scrape() -> None:
        try:
            while not stop.is_set():
                stats.lag()
        except RuntimeError as exc:
            raised.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for _ in range(300):
            for number in range(64):
                stats.frontiers[TopicPartition("t", number)] = stats.ends[TopicPartition("t", number)] = number
            for number in range(64):
                del stats.frontiers[TopicPartition("t", number)], stats.ends[TopicPartition("t", number)]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not raised


def test_an_end_that_was_seen_is_not_unseen() -> None:
    """The embedded broker's answer can be low by a batch: what is known to be there stays known."""
    stats = TransportStats()
    tp = TopicPartition("t", 0)
    stats.frontiers[tp] = 3
    stats.saw_end(tp, 10)
    stats.saw_end(tp, 6)
    assert stats.lag() == {tp: 7}
    stats.saw_end(tp, 12)
    assert stats.lag() == {tp: 9}
