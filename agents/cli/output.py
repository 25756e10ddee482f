"""What commands print: results on stdout, progress and warnings on stderr, and with --json one object as the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

console = Console(stderr=True, highlight=False)
"""For progress, warnings and errors: whoever pipes a result away still sees them."""
out = Console(highlight=False, soft_wrap=True)
"""For results. Soft wrapping: a line that somebody may grep is never broken."""


def emit_json(body: Mapping[str, Any]) -> None:
    """One line of JSON on stdout; the last thing a command prints."""
    sys.stdout.write(json.dumps(body, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """A line for a person on stderr, never read as markup: it may quote what came from outside."""
    console.print(text, markup=False)


def fail(text: str) -> None:
    """A line on stderr that says what went wrong and what to change."""
    console.print("[bold red]error:[/] ", end="")
    console.print(text, markup=False, soft_wrap=True)
