"""What the transport counts, for metrics and for tests.

Written by the main event loop, read by a scrape's thread as well. Nothing here locks: a number is read whole, and a reader
copies a dict before it walks over it, since the loop may change it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from topics.handover import TopicPartition


@dataclass(slots=True)
class TransportStats:
    """Counters only grow; the rest is as it is now.

    `taken`, `kept`, `fenced`, `recovered` (unknown outcomes found out), `retaken`, `dropped` count partitions;
    `outcomes_dropped` outcomes that were answered but whose partition was lost before they could be published;
    `lost_offsets` offsets that retention removed before they were read; `damaged_metadata` commits whose metadata was not
    readable; `log_restarts` logs that ended below the committed position; `held_back` outcomes that waited for room in the
    metadata; `pauses` by reason: "records", "bytes", "span", "metadata". `waiting` are assigned partitions without their
    counterpart in an outbound topic, and which topic that is. `commit_seconds_sum` over `commits` is a commit's mean latency.
    """

    commits: int = 0
    outcomes: int = 0
    commit_seconds_sum: float = 0.0
    commit_seconds_max: float = 0.0
    commit_failures: int = 0
    taken: int = 0
    kept: int = 0
    fenced: int = 0
    recovered: int = 0
    retaken: int = 0
    dropped: int = 0
    outcomes_dropped: int = 0
    lost_offsets: int = 0
    damaged_metadata: int = 0
    log_restarts: int = 0
    held_back: int = 0
    too_large: int = 0
    pauses: Counter[str] = field(default_factory=Counter)
    held_records: int = 0
    held_bytes: int = 0
    metadata_bytes_max: int = 0
    owned: set[TopicPartition] = field(default_factory=set)
    paused: set[TopicPartition] = field(default_factory=set)
    waiting: dict[TopicPartition, str] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    frontiers: dict[TopicPartition, int] = field(default_factory=dict)
    left_at_drain: int = 0
    """Calls that were still in flight when the last drain ran out of time."""
    last_poll: float = 0.0
    """`loop.time()` when records were last asked for: what a watchdog looks at."""

    def lag(self) -> dict[TopicPartition, int]:
        """Offsets between the frontier and the end of the log as last seen, per owned partition. From any thread."""
        ends, frontiers = self.ends.copy(), self.frontiers.copy()
        return {tp: max(0, ends.get(tp, frontier) - frontier) for tp, frontier in frontiers.items()}

    def saw_end(self, tp: TopicPartition, offset: int) -> None:
        """The log reaches up to here at least. An answer below what is known is the embedded broker's, by up to a batch."""
        self.ends[tp] = max(offset, self.ends.get(tp, 0))
