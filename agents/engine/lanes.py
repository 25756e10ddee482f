"""Lanes: what has the same key leaves in the order in which it came; different keys know nothing of each other. Pure.

A lane is a queue with one owner at a time. Whoever takes items out of a lane holds it (`busy`) until it says that they are
finished; only then does the next item become the head. Records without a key get a lane of their own each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """The items of one key that have no outcome yet, oldest first.

    `counted` are the items, bytes and tokens that whoever has it queued counts of it.
    """

    __slots__ = ("busy", "counted", "dead", "home", "items", "key", "queued")

    def __init__(self, key: Hashable | None, home: Lanes[T]) -> None:
        self.key = key
        self.home = home
        self.items: deque[T] = deque()
        self.busy = False
        self.queued = False
        self.dead = False
        self.counted = 0, 0, 0

    @property
    def idle(self) -> bool:
        """Nobody holds its items and none waits to be taken: its head may be looked at."""
        return not (self.busy or self.queued or self.dead)


class Lanes(Generic[T]):
    """The lanes of one source partition."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane[T]] = {}
        self._single: set[Lane[T]] = set()

    def __contains__(self, key: Hashable | None) -> bool:
        """Whether an item of this key is still without outcome. Nothing shares the key None."""
        return key is not None and key in self._lanes

    def __iter__(self) -> Iterator[Lane[T]]:
        yield from self._lanes.values()
        yield from self._single

    def __len__(self) -> int:
        """Items without outcome, those held included only until they are taken out."""
        return sum(len(lane.items) for lane in self)

    def add(self, key: Hashable | None, item: T) -> Lane[T]:
        """Put an item behind the others of its key and return the lane. None is a key of its own each time."""
        if key is None:
            lane: Lane[T] = Lane(None, self)
            self._single.add(lane)
        else:
            found = self._lanes.get(key)
            if found is None:
                lane = self._lanes[key] = Lane(key, self)
            else:
                lane = found
        lane.items.append(item)
        return lane

    def tidy(self, lane: Lane[T]) -> None:
        """Forget a lane that is empty and held by nobody. Call after taking items out and after giving it back."""
        if lane.items or lane.busy:
            return
        if lane.key is None:
            self._single.discard(lane)
        elif self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def kill(self) -> None:
        """The partition is lost: nothing of it may be taken any more."""
        for lane in self:
            lane.dead = True
            lane.items.clear()
        self._lanes.clear()
        self._single.clear()
