"""What a person sees while the demo runs: a live panel on a terminal, a line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agents.demo.ledger import Ledger, Seen
from agents.demo.metrics import quantile

_LINES_SECONDS = 3.0
_LATEST = 8
_RECENT = 500
"""How many of the latest latencies the shown quantile is over."""


class View:
    """Follows a ledger. `total` is the number of records the replay will send, `sent` gives how many it has."""

    def __init__(self, console: Console, ledger: Ledger, total: int, sent: Callable[[], int]) -> None:
        self._console = console
        self._ledger = ledger
        self._total = total
        self._sent = sent
        self._latest: deque[Seen] = deque(maxlen=_LATEST)
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._last_line = 0.0
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._panel, transient=True)

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def saw(self, seen: Seen) -> None:
        """A decision became visible."""
        self._latest.append(seen)
        self._latencies.append(seen.latency_ms)

    def tick(self) -> None:
        """Call now and then: where there is no terminal, this prints a line every few seconds."""
        now = time.monotonic()
        if self._console.is_terminal or now - self._last_line < _LINES_SECONDS:
            return
        self._last_line = now
        self._console.print(self._line(), markup=False, highlight=False)

    def _line(self) -> str:
        tally = self._ledger.tally()
        typical = quantile(self._latencies, 0.5)
        return (
            f"{time.monotonic() - self._started:5.1f} s: {self._sent()} of {self._total} sent, {tally['decisions']} decisions, "
            f"{tally['skips']} skips, {tally['dead_letters']} dead letters, {tally['model_calls']} calls"
            + (f", p50 {typical:.0f} ms" if typical is not None else "")
        )

    def _panel(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("agent", "sent", "decisions", "skipped", "dead letters", "calls"):
            table.add_column(name)
        for agent, account in self._ledger.accounts.items():
            outcomes = Counter(seen.decision.outcome or seen.decision.kind for seen in account.decisions)
            listed = ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
            table.add_row(
                agent, str(self._ledger.owed(agent)), listed, str(len(account.skipped)), str(len(account.dead_letters)),
                str(account.calls),
            )  # fmt: skip
        latest = [Text.from_markup(_short(seen), overflow="ellipsis") for seen in self._latest]
        return Group(Text(self._line(), style="bold"), table, *latest)


def _short(seen: Seen) -> str:
    d = seen.decision
    why = d.reasons[0].text if d.reasons else ""
    who = f"{escape(d.subject.type)} {escape(d.subject.id)}"
    return f"{who}: [bold]{escape(d.outcome or d.kind)}[/] [dim]{escape(why)} {seen.latency_ms:.0f} ms[/]"
