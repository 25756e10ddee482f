"""headrace sandbox: an OpenAI-compatible server without a model, to try agents on."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer

from models.sandbox.faults import FAULTS, parse_faults
from models.sandbox.profiles import PROFILES
from models.sandbox.schedule import parse_changes, parse_outages
from models.sandbox.server import MODEL, Sandbox, SandboxConfig
from schemas.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on. Other than loopback, it needs --api-key.")] = "127.0.0.1",
    latency: Annotated[
        str, typer.Option(help="Per answer: 200ms, uniform 100ms-300ms, or lognormal:MEDIAN:SIGMA such as lognormal:200ms:0.5.")
    ] = "50ms",
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests a minute; past it 429 with Retry-After.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens a minute; past it 429 with Retry-After.")] = None,
    by_the_minute: Annotated[
        bool, typer.Option("--by-the-minute", help="Give limits out whole each minute; else they refill evenly.")
    ] = False,
    reserved: Annotated[
        bool, typer.Option("--reserved", help="A request costs all the output tokens it allows; else those that it used.")
    ] = False,
    foreign: Annotated[float, typer.Option(min=0, max=1, help="The part of the limits that another client takes.")] = 0.0,
    headers: Annotated[bool, typer.Option(help="Tell limits and waits in headers, as OpenAI does.")] = True,
    changes: Annotated[
        str, typer.Option(help="SECOND:FACTOR separated by commas: from that second so many times the limits, such as 40:0.5.")
    ] = "",
    outages: Annotated[
        str, typer.Option(help="BEGIN-END:KIND in seconds, separated by commas: 503, refused or hang, such as 60-120:refused.")
    ] = "",
    faults: Annotated[str, typer.Option(help=f"NAME=PROBABILITY separated by commas. Names: {', '.join(FAULTS)}.")] = "",
    api_key: Annotated[
        str | None, typer.Option(envvar="HEADRACE_SANDBOX_API_KEY", show_envvar=True, help="Accept requests with this key only.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of latency and faults.")] = 0,
    profile: Annotated[
        str, typer.Option(help=f"Refuse what this server refuses, in its words: {', '.join(PROFILES)}. Default: nothing.")
    ] = "",
    context: Annotated[
        int | None, typer.Option(min=1, help="Input tokens past which a request is refused, or cut where the profile cuts.")
    ] = None,
    poison: Annotated[
        str | None, typer.Option(help="A word: a request with a record in which it stands is refused by a content filter.")
    ] = None,
) -> None:
    """Serve chat completions by transparent rules, with set latency, rate limits and faults, until Ctrl-C.

    It is no model, and says so in the model name of every answer. Nothing that it is sent is logged.
    """
    try:
        if host not in LOOPBACK and api_key is None:
            raise ConfigError(f"starting the sandbox on {host}: set --api-key, everybody on the network could use it")
        config = SandboxConfig(
            host=host, port=port, api_key=api_key, latency=latency, rpm=rpm, tpm=tpm, faults=parse_faults(faults), seed=seed,
            profile=profile, context=context, poison=poison,
            window="by the minute" if by_the_minute else "evenly", charges="reserved" if reserved else "used", foreign=foreign,
            headers=headers, changes=parse_changes(changes), outages=parse_outages(outages),
        )  # fmt: skip
        asyncio.run(_serve(config))
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


async def _serve(config: SandboxConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Sandbox(config) as server:
        key = "the key given" if config.api_key else "not needed"
        typer.echo(f"The sandbox listens on {server.base_url} as {MODEL} (API key: {key}). Ctrl-C stops it.\n")
        typer.echo(f"export HEADRACE_MODEL_BASE_URL={server.base_url}\nexport HEADRACE_MODEL_NAME={MODEL}")
        if config.api_key:
            typer.echo("export HEADRACE_MODEL_API_KEY=...")
        sys.stdout.flush()  # a program that started it reads the address from a pipe
        await stop.wait()
    meter = server.meter
    typer.echo(f"\n{meter.requests} requests, {meter.records} records, {meter.input_tokens + meter.output_tokens} tokens")
