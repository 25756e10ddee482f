"""ApacheKafka: one real broker on loopback (KRaft, broker and controller in one process), with its storage in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, Self

from schemas.errors import BrokerError, ConfigError
from topics.local.jars import Say, gather, java, missing_java_tools, silent
from topics.local.process import Child, free_port, to_end

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
READY = "Kafka Server started"
TAKEN = "Address already in use"
LOGGING = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
"""
"""Without a configuration log4j 2 logs errors only, and the line that says that the broker is ready is none."""


class ApacheKafka:
    """A local Apache Kafka. Stopped, killed and started again it keeps its port and its topics, until `close`.

    `folder` holds its storage, configuration and log; without one it gets a fresh one under `data_dir` that `close`
    removes. `protocol` is that of the client listener; `properties` are added to server.properties and win; `scram` are
    users (name -> password) that exist from the first boot, by SCRAM-SHA-512. All methods block; use `async with`, or
    `asyncio.to_thread`, inside a loop. Raises ConfigError when Java or Maven is missing, BrokerError when it does not start.
    """

    kind = "kafka"
    transactions = True

    def __init__(
        self,
        data_dir: Path,
        *,
        folder: Path | None = None,
        port: int | None = None,
        protocol: Protocol = "PLAINTEXT",
        properties: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
        java_options: Sequence[str] = ("-Xmx512m", "-XX:+UseSerialGC"),
        say: Say = silent,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._given = folder.resolve() if folder else None
        self._folder = self._given
        self._port = port
        self.port = port or 0
        self._controller = 0
        self._protocol = protocol
        self._properties = dict(properties or {})
        self._scram = dict(scram or {})
        self._java_options = tuple(java_options)
        self._say = say
        self._child: Child | None = None
        self._lock: IO[str] | None = None

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
        """The broker's process id, e.g. for SIGSTOP. Raises BrokerError when it was not started."""
        if self._child is None:
            raise BrokerError("asking Apache Kafka for its process: it is not running")
        return self._child.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """All processes that belong to it."""
        return () if self._child is None else self._child.pids

    @property
    def folder(self) -> Path:
        """Where its storage, configuration and log are."""
        if self._folder is None:
            parent = self._data_dir / "brokers"
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent)
            self._folder = Path(tempfile.mkdtemp(prefix="kafka-", dir=parent))
            self._lock = hold(self._folder)
        return self._folder

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.folder / "kafka.log"

    def start(self) -> None:
        """Start it (the first time: gather the jars, format the storage) and wait until it serves."""
        if self.running:
            raise BrokerError("starting Apache Kafka: it is running already")
        lack = missing_java_tools(self._data_dir)
        if lack is not None:
            raise ConfigError(f"starting Apache Kafka: {lack}")
        libs = gather(self._data_dir, "broker", self._say)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            try:
                self._lock = hold(self.folder)
            except BlockingIOError:
                raise ConfigError(
                    f"starting Apache Kafka: another broker is running in {self.folder}: use that one, or set HEADRACE_DATA_DIR"
                ) from None
        for attempt in (1, 2, 3):
            self._choose_ports()
            self._configure()
            self._format(libs)
            try:
                self._launch(libs)
                return
            except BrokerError as error:
                # Between choosing a port and listening on it another process may have taken it.
                if TAKEN not in str(error) or self._port is not None or attempt == 3:
                    raise
                self.port = self._controller = 0

    def stop(self) -> None:
        """End it in good order; its topics stay. Safe to call twice."""
        if self._child is not None:
            self._child.stop(timeout=30)
            self._child = None

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL); its topics stay. Safe to call twice."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """Stop it in good order and start it again on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it and remove its folder unless that was given. Safe to call twice."""
        if self._given is not None:
            self.stop()
            self._release()
            return
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._release()
        self.port, self._controller = self._port or 0, 0

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _choose_ports(self) -> None:
        self.port = self.port or free_port()
        while self._controller in (0, self.port):
            self._controller = free_port()

    def _configure(self) -> None:
        """Write server.properties, readable only by us: it may hold passwords."""
        protocol = self._protocol
        values = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self._controller}",
            "listeners": f"{protocol}://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": protocol,
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "storage"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "6",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "6",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Otherwise each first join of a group waits three seconds for company.
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            # After a crash the controller waits this long before it takes the same broker in again.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
        }
        if self._scram:
            name, password = next(iter(self._scram.items()))
            values["sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
            values["sasl.mechanism.inter.broker.protocol"] = "SCRAM-SHA-512"
            values[f"listener.name.{protocol.lower()}.scram-sha-512.sasl.jaas.config"] = (
                "org.apache.kafka.common.security.scram.ScramLoginModule required "
                f'username="{name}" password="{password}";'
            )
        values |= self._properties
        write_private(self.folder / "server.properties", "".join(f"{k}={v}\n" for k, v in values.items()))
        write_private(self.folder / "log4j2.properties", LOGGING)

    def _java(self, libs: Path, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        command = java()
        assert command is not None
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [command, *options, logging, "-cp", f"{libs}/*", *arguments]

    def _format(self, libs: Path) -> None:
        if (self.folder / "storage" / "meta.properties").exists():
            return
        # Formatting cut short leaves a folder that neither boots nor can be formatted.
        shutil.rmtree(self.folder / "storage", ignore_errors=True)
        # 22 characters of base64url, as `StorageTool random-uuid` gives; one JVM start less.
        cluster = "headrace-local-cluster"
        users = [w for name, pw in self._scram.items() for w in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={pw}]")]
        arguments = ["format", "-t", cluster, "-c", str(self.folder / "server.properties"), "--standalone", *users]
        command = self._java(libs, "kafka.tools.StorageTool", *arguments, options=("-Xmx256m", "-XX:TieredStopAtLevel=1"))
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603 - our own command
        if answer.returncode:
            said = [line for line in (answer.stdout + answer.stderr).splitlines() if not line.startswith("\tat ")]
            raise BrokerError("formatting the storage of Apache Kafka: " + "\n".join(said[:6]))

    def _launch(self, libs: Path) -> None:
        command = self._java(libs, "kafka.Kafka", str(self.folder / "server.properties"), options=self._java_options)
        child = Child("Apache Kafka", command, log=self.log, cwd=self.folder)
        try:
            child.wait_ready(lambda: READY in child.output(), timeout=90)
        except BrokerError:
            # Its last lines are about shutting down; what went wrong is above them.
            faults = [line for line in child.output().splitlines() if " ERROR " in line or "Exception: " in line]
            raise BrokerError("starting Apache Kafka: " + "\n".join(faults[:6] or [child.tail()])) from None
        self._child = child

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


def hold(folder: Path) -> IO[str]:
    """Mark a folder as in use, for as long as the file is open; that is at most as long as this process lives.

    Raises BlockingIOError where somebody else holds it.
    """
    lock = (folder / "in-use").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        lock.close()
        raise
    return lock


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that ended without doing so themselves: nobody holds those any more."""
    for mark in parent.glob("kafka-*/in-use"):
        with contextlib.suppress(OSError), mark.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
