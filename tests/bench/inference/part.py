"""What a part of `make bench-inference` is: a module that measures something, shows it, and says what was expected of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rich.table import Table

from tests.bench.shared import Json

Say = Callable[[str], None]


class Part(Protocol):
    """One module. What `measure` finds stands in the whole result under the part's name, and is JSON."""

    async def measure(self, *, quick: bool, say: Say) -> Json:
        """Measure; `say` tells a person how far it is. `quick`: a short run that shows that it works and proves nothing."""
        ...

    def tables(self, found: Json) -> Sequence[Table]:
        """What it found, to be printed."""
        ...

    def expectations(self, found: Json) -> Sequence[Json]:
        """Rows of `at_most` and `at_least`."""
        ...


def at_most(name: str, measured: float, goal: float) -> Json:
    """A row: name, measured, goal and whether it holds."""
    return {"name": name, "measured": measured, "goal": f"<= {goal:g}", "holds": measured <= goal}


def at_least(name: str, measured: float, goal: float) -> Json:
    """A row: name, measured, goal and whether it holds."""
    return {"name": name, "measured": measured, "goal": f">= {goal:g}", "holds": measured >= goal}


def columns(title: str, *names: str) -> Table:
    """An empty table: the first column to the left, numbers to the right."""
    table = Table(title=title)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left")
    return table
