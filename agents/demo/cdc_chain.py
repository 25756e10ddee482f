"""The real chain: PostgreSQL, Kafka Connect with Debezium, Apache Kafka; each a child process on loopback, stopped with us."""

from __future__ import annotations

import asyncio
import getpass
import http.client
import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from schemas.errors import BrokerError, ConfigError
from topics.dev_broker import ApacheKafka, free_port
from topics.local.apache import LOGGING, write_private
from topics.local.jars import Bundle, Say, gather, java, missing_java_tools, silent
from topics.local.process import Child, to_end

BUNDLES: tuple[Bundle, ...] = ("broker", "connect", "debezium-postgres")
PREFIX = "bank"
"""Debezium's topic prefix, and the name of the database: the table public.customer becomes the topic bank.public.customer."""
UNPRIVILEGED = "postgres"
"""PostgreSQL refuses to run as root; then this system user runs it, which its package brings along."""


def missing_cdc_tools(data_dir: Path | None = None) -> str | None:
    """What the chain needs and this machine lacks, as a sentence with the remedy; None when nothing is missing."""
    lack = missing_java_tools(data_dir, bundles=BUNDLES)
    if lack is not None:
        return lack
    if postgres_bin() is None:
        return "The database needs PostgreSQL's server, and there is no initdb here. On Debian: apt-get install postgresql"
    if os.geteuid() == 0 and not _has_user(UNPRIVILEGED):
        return f"PostgreSQL refuses to run as root, and there is no system user {UNPRIVILEGED}; run this as another user"
    if importlib.util.find_spec("psycopg") is None:
        return "Writing to PostgreSQL needs psycopg: pip install 'headrace[cdc]'"
    return None


def postgres_bin() -> Path | None:
    """The folder of PostgreSQL's server programs: of the newest version that Debian has, else where the path has them."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if path.parent.parent.name.isdigit()]
    if found:
        return max(found, key=lambda folder: int(folder.parent.name))
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


def _has_user(name: str) -> bool:
    import pwd

    return any(entry.pw_name == name for entry in pwd.getpwall())


class Postgres:
    """A PostgreSQL with one empty database and logical decoding, on loopback, with a password made for this run.

    All methods block. Raises BrokerError when it does not start.
    """

    def __init__(self) -> None:
        self.port = 0
        self._folder: Path | None = None
        self._child: Child | None = None
        self.user = UNPRIVILEGED if os.geteuid() == 0 else getpass.getuser()
        self.password = secrets.token_hex(16)

    @property
    def conninfo(self) -> str:
        """How psycopg reaches it; holds the password."""
        return f"host=127.0.0.1 port={self.port} user={self.user} password={self.password} dbname={PREFIX}"

    @property
    def pid(self) -> int:
        """Its process id. Raises BrokerError when it is not running."""
        if self._child is None:
            raise BrokerError("asking PostgreSQL for its process: it is not running")
        return self._child.pid

    def start(self) -> None:
        """Make a cluster in a folder of its own, start it and create the database."""
        programs = postgres_bin()
        assert programs is not None, "missing_cdc_tools was asked first"
        root = os.geteuid() == 0
        # A folder of its own, because the parent of any other may be closed to the user that it runs as.
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        secret = self._folder / "password"
        write_private(secret, self.password)
        if root:
            shutil.chown(self._folder, self.user, self.user)
            shutil.chown(secret, self.user, self.user)
        self._initdb(programs / "initdb", secret, user=self.user if root else None)
        secret.unlink()
        self.port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self._folder,
            "wal_level": "logical", "max_wal_senders": 4, "max_replication_slots": 4,
            "fsync": "off",  # this database ends with the demo; it is not what is shown to survive
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._child = Child(
            "PostgreSQL",
            [str(programs / "postgres"), "-D", str(self._folder / "data"), *options],
            log=self._folder / "postgres.log",
            cwd=self._folder,
            user=self.user if root else None,
        )
        self._child.wait_ready(self._answers, timeout=60)

    def stop(self) -> None:
        """End it and remove its folder. Safe to call twice."""
        if self._child is not None:
            self._child.stop(timeout=15, how=signal.SIGINT)  # its fast shutdown; SIGTERM would wait for clients
            self._child = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _initdb(self, program: Path, secret: Path, user: str | None) -> None:
        assert self._folder is not None
        data = str(self._folder / "data")
        command = [str(program), "-D", data, "-U", self.user, "-A", "scram-sha-256", "--pwfile", str(secret)]
        answer = subprocess.run(
            [*command, "--no-locale", "-E", "UTF8", "--no-sync"], cwd=self._folder, user=user,
            extra_groups=None if user is None else [], capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.returncode:
            raise BrokerError(f"starting PostgreSQL: initdb said {answer.stderr.strip()[-500:]}")

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.conninfo.replace(f"dbname={PREFIX}", "dbname=postgres"), autocommit=True) as link:
                link.execute(f"CREATE DATABASE {PREFIX}")
        except psycopg.OperationalError:
            return False
        return True


class Connect:
    """Kafka Connect in one process with Debezium's connector for PostgreSQL. All methods block."""

    def __init__(self, data_dir: Path, folder: Path, *, say: Say = silent) -> None:
        self._data_dir = data_dir
        self._folder = folder
        self._say = say
        self._child: Child | None = None
        self.port = 0

    def gather(self) -> None:
        """Fetch its jars and the connector's, once."""
        gather(self._data_dir, "connect", self._say)
        gather(self._data_dir, "debezium-postgres", self._say)

    def start(self, bootstrap: str, postgres: Postgres, tables: tuple[str, ...]) -> None:
        """Start capturing these tables ("public.customer"), until the connector runs. Raises BrokerError with its trace."""
        libs = gather(self._data_dir, "connect", self._say)
        plugins = self._folder / "plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        link = plugins / "debezium-postgres"
        if not link.exists():
            # Each plugin in a folder of its own, apart from Connect's jars: that is how Connect keeps class paths apart.
            link.symlink_to(gather(self._data_dir, "debezium-postgres", self._say).resolve())
        self.port = free_port()
        worker, connector = self._folder / "worker.properties", self._folder / "connector.properties"
        logging = self._folder / "log4j2.properties"
        _write(worker, self._worker(bootstrap, plugins))
        _write(connector, _connector(postgres, tables))
        write_private(logging, LOGGING)
        command = java()
        assert command is not None, "missing_cdc_tools was asked first"
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={logging}"]
        main = ["-cp", f"{libs}/*", "org.apache.kafka.connect.cli.ConnectStandalone", str(worker), str(connector)]
        self._child = Child("Kafka Connect", [command, *options, *main], log=self._folder / "connect.log", cwd=self._folder)
        self._child.wait_ready(self._running, timeout=120)

    def stop(self) -> None:
        """End it. Safe to call twice."""
        if self._child is not None:
            self._child.stop(timeout=20)
            self._child = None

    def _worker(self, bootstrap: str, plugins: Path) -> dict[str, str]:
        json_without_schema = {
            f"{part}.converter{suffix}": value
            for part in ("key", "value")
            for suffix, value in (("", "org.apache.kafka.connect.json.JsonConverter"), (".schemas.enable", "false"))
        }
        return {
            "bootstrap.servers": bootstrap,
            **json_without_schema,
            "offset.storage.file.filename": str(self._folder / "offsets"),
            "offset.flush.interval.ms": "1000",
            "plugin.path": str(plugins),
            "plugin.discovery": "service_load",
            "listeners": f"http://127.0.0.1:{self.port}",
            "topic.creation.enable": "true",
        }

    def _running(self) -> bool:
        """Whether the connector and its task run. Raises BrokerError when one has failed: it would not recover by itself."""
        status = self._ask(f"/connectors/{PREFIX}/status")
        if status is None:
            return False
        parts = [status["connector"], *status["tasks"]]
        for part in parts:
            if part["state"] == "FAILED":
                self.stop()
                raise BrokerError(f"starting Debezium: {part.get('trace', 'it failed without a reason')[:600]}")
        return len(parts) > 1 and all(part["state"] == "RUNNING" for part in parts)

    def _ask(self, path: str) -> Any:
        """GET on Connect's REST interface; None while it does not answer with success."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            link.request("GET", path)
            answer = link.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            link.close()


def _connector(postgres: Postgres, tables: tuple[str, ...]) -> dict[str, str]:
    return {
        "name": PREFIX,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": "127.0.0.1",
        "database.port": str(postgres.port),
        "database.user": postgres.user,
        "database.password": postgres.password,
        "database.dbname": PREFIX,
        "topic.prefix": PREFIX,
        "plugin.name": "pgoutput",
        "publication.autocreate.mode": "filtered",
        "table.include.list": ",".join(tables),
        "poll.interval.ms": "50",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "6",
    }


def _write(path: Path, values: Mapping[str, str]) -> None:
    write_private(path, "".join(f"{name}={value}\n" for name, value in values.items()))


class Chain:
    """PostgreSQL and Apache Kafka, and Kafka Connect once the tables are there. `async with` starts and stops it.

    Raises ConfigError where something is missing on this machine, BrokerError when a part does not start.
    """

    def __init__(self, data_dir: Path, *, say: Say = silent) -> None:
        self._data_dir = data_dir.resolve()
        self.folder = Path()
        self.say = say
        self.postgres = Postgres()
        self.kafka = ApacheKafka(self._data_dir, say=say)
        self.connect = Connect(self._data_dir, self.folder, say=say)

    async def capture(self, tables: tuple[str, ...]) -> None:
        """Start Kafka Connect with Debezium on these tables; the rows that are in them come first, as a snapshot."""
        self.say("Starting Kafka Connect with Debezium ...")
        await to_end(self.connect.start, self.kafka.bootstrap, self.postgres, tables)

    async def __aenter__(self) -> Self:
        lack = missing_cdc_tools(self._data_dir)
        if lack is not None:
            raise ConfigError(lack)
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-cdc-"))
        self.connect = Connect(self._data_dir, self.folder, say=self.say)
        try:
            await to_end(self.connect.gather)
            self.say("Starting PostgreSQL and Apache Kafka ...")
            # Both to their end, also when one fails: what has started must be there to be stopped.
            both = await asyncio.gather(to_end(self.postgres.start), to_end(self.kafka.start), return_exceptions=True)
            for failed in both:
                if isinstance(failed, BaseException):
                    raise failed
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        """Against the stream, so that none of them complains about the one before it."""
        await to_end(self.connect.stop)
        await asyncio.gather(to_end(self.postgres.stop), to_end(self.kafka.close))
        shutil.rmtree(self.folder, ignore_errors=True)
