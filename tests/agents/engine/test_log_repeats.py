"""The brake on repeated log messages."""

from __future__ import annotations

import logging

from agents.engine.log_repeats import MOST_KINDS, Repeats


class Log:
    """A handler with the brake on it, and a clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.brake = Repeats(clock=lambda: self.now)

    def say(self, message: str, *arguments: object, name: str = "aiokafka.conn", level: int = logging.ERROR) -> None:
        """Log a message as a library would."""
        record = logging.LogRecord(name, level, __file__, 1, message, arguments, None)
        if self.brake.filter(record):
            self.lines.append(record.getMessage())


def test_a_repeated_message_passes_once_and_is_counted() -> None:
    """Hundreds of alike messages become one, and the next one after ten seconds says how many there were."""
    log = Log()
    for n in range(400):
        log.say("Unable connect to node with id %s: %s", n, "refused 100%")
    log.now = 10.0
    log.say("Unable connect to node with id %s: %s", 7, "refused 100%")
    assert log.lines == [
        "Unable connect to node with id 0: refused 100%",
        "Unable connect to node with id 7: refused 100% (and 399 like it)",
    ]


def test_kinds_are_told_apart() -> None:
    """Another text, another level and another logger are other news."""
    log = Log()
    log.say("a %s", 1)
    log.say("b %s", 1)
    log.say("a %s", 1, level=logging.WARNING)
    log.say("a %s", 1, name="aiokafka.cluster")
    assert len(log.lines) == 4


def test_our_own_messages_are_never_held_back() -> None:
    """What Headrace itself says is not repeated by accident."""
    log = Log()
    for _ in range(3):
        log.say("taking partition", name="topics.transport.assignment")
    assert len(log.lines) == 3


def test_memory_is_bounded() -> None:
    """Messages whose text is different each time do not pile up."""
    log = Log()
    for n in range(3 * MOST_KINDS):
        log.say(f"text {n}")
    assert len(log.brake._kinds) == MOST_KINDS
