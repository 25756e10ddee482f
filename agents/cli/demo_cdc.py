"""headrace demo-cdc: the real chain on this machine, from a row in PostgreSQL to its decision and back."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from agents.settings import Settings
from schemas.errors import ConfigError

_WIDTH = 110
"""Columns where the output is no terminal."""


def demo_cdc(
    applications: Annotated[int, typer.Option(min=10, help="Loan applications in the table when the chain begins.")] = 40,
    latency: Annotated[str, typer.Option(help="How long the sandbox takes for an answer; see headrace sandbox.")] = "150ms",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Watch rows of PostgreSQL become decisions, and the decisions be written back into the rows.

    Starts PostgreSQL, Apache Kafka, Kafka Connect with Debezium, a model and a real worker; inserts, updates, deletes and
    moves rows and adds a column while it runs; shows that a write-back causes no second decision; ends with headrace verify.
    Needs Java 17, Maven and PostgreSQL on this machine. Ends with status 1 unless every change has its one outcome.
    """
    try:
        import psycopg  # noqa: F401  # an extra: without it the demo's own modules can not be imported
    except ImportError as error:
        raise ConfigError(f"demo-cdc needs psycopg ({error}): pip install 'headrace[cdc]'") from error
    from agents.demo.cdc import Options, run

    out = Console(width=None if sys.stdout.isatty() else _WIDTH)
    err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)
    options = Options(applications=applications, latency=latency, as_json=as_json)
    try:
        status = asyncio.run(run(options, Settings(), out, err))
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped; everything that was started has ended")
        raise typer.Exit(130) from None
    raise typer.Exit(status)
