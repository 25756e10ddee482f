"""headrace broker: a broker on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from agents.cli.output import tell
from agents.settings import Settings
from schemas.errors import BrokerError, ConfigError
from topics.dev_broker import ApacheKafka, EmbeddedBroker, LocalBroker


def broker(
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Apache Kafka, which needs Java 17 and, the first time, Maven; else the embedded one.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9092,
) -> None:
    """Start a broker on 127.0.0.1, until Ctrl-C.

    The embedded broker is ready at once, keeps its topics in memory and has no transactions. Apache Kafka has them, and
    keeps its topics in HEADRACE_DATA_DIR from one start to the next.
    """
    chosen = port or None
    data_dir = Path(Settings().data_dir)
    server: LocalBroker
    if kafka:
        server = ApacheKafka(data_dir, folder=data_dir / "kafka", port=chosen, say=tell)
    else:
        server = EmbeddedBroker(data_dir / "embedded", port=chosen)
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        # The first one stops the broker in good order. The next one ends us, and the broker with us, should that take too long.
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_signal)
    with ExitStack() as running:
        try:
            running.enter_context(server)
        except OSError as error:
            at = error.filename if error.filename is not None else data_dir
            raise ConfigError(
                f"starting a broker with its files in {data_dir}: {at}: {error.strerror}; set HEADRACE_DATA_DIR to a folder "
                "that can be written"
            ) from error
        name = "Apache Kafka" if kafka else "The embedded broker"
        tell(f"{name} listens on {server.bootstrap}; its log is {server.log}. Ctrl-C stops it.")
        typer.echo(f"export HEADRACE_KAFKA={server.bootstrap}")
        sys.stdout.flush()  # a program that started us reads the address from a pipe
        while not stop.wait(0.5):
            if not server.running:
                raise BrokerError(f"running {name}: it ended by itself; its log is {server.log}")
