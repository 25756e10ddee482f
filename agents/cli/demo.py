"""headrace demo: real events become decisions, on this machine, in a minute."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from agents.demo.answering import Who
from agents.demo.run import LATENCY, MOST_RECORDS, Options, run
from agents.settings import Settings

INTERRUPTED = 130
_WIDTH = 110
"""Columns where the output is no terminal: a pipe has no width, and 80 would break the tables."""


def demo(
    records: Annotated[int, typer.Option(
            min=1, max=MOST_RECORDS,
            help="Records that the agents read; customers' rows come on top. The demo and its broker keep them in memory.",
        )] = 1000,
    rate: Annotated[float, typer.Option(min=0.1, help="Records a second.")] = 40.0,
    kafka: Annotated[
        str | None, typer.Option(metavar="BOOTSTRAP", help="Use this Kafka, host:port, in place of the embedded broker.")
    ] = None,
    model: Annotated[
        Who,
        typer.Option(
            help="Who answers: the sandbox; a small local model (extra local-model); the endpoint configured by "
            "HEADRACE_MODEL_*; or the scorecard alone."
        ),
    ] = "sandbox",
    latency: Annotated[str, typer.Option(help="How long the sandbox takes for an answer; see headrace sandbox.")] = LATENCY,
    keep: Annotated[bool, typer.Option(help="Leave broker and topics running at the end, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Watch loan applications and machine readings become decisions.

    Starts a broker, a model, and a real worker process; replays labelled public data as row changes and telemetry; ends with
    what became of every record and how the decisions compare with what really happened. Ends with status 1 unless every record
    is accounted for.
    """
    options = Options(records=records, rate=rate, kafka=kafka, model=model, latency=latency, keep=keep, as_json=as_json)
    out = Console(width=None if sys.stdout.isatty() else _WIDTH)
    err = Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)
    try:
        status = asyncio.run(run(options, Settings(), out, err))
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped; everything that was started has ended")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(status)
