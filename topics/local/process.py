"""Child: a local server that writes to a log file, and that ends when we end, however we end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from schemas.errors import BrokerError

T = TypeVar("T")
WATCH = 'trap "" INT TERM HUP; read -r pid; read -r never; kill -s KILL -- "-$pid" 2>/dev/null'
"""What the watcher runs: it kills the child's process group when the pipe to us closes. That also happens on our SIGKILL, which
a signal handler can not see; and unlike Linux's parent-death signal it does not end the child together with the thread that
happened to start it."""

HOLD = 'read -r go || exit 1; exec "$0" "$@" </dev/null'
"""What the child runs first: it waits until its watcher is there. Were we killed between starting the two, it would end here."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on.

    It lies below the range that outgoing connections draw from: otherwise, while a broker restarts, a client that keeps
    knocking can be given that very port, and is then connected to itself.
    """
    for _ in range(200):
        port = random.randrange(20_000, 32_000)  # noqa: S311 - a port is no secret
        with socket.socket() as probe:
            # As the servers do: without it a port with closed connections still in TIME_WAIT looks taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise BrokerError("finding a free port: 200 ports between 20000 and 32000 are all taken")


def listening(port: int) -> bool:
    """True when something accepts connections on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Child:
    """A server process in a session of its own, so that Ctrl-C at the terminal reaches us and not it.

    All methods block; from a coroutine call them with `asyncio.to_thread`. `user` is the system user to run as.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                ["/bin/sh", "-c", HOLD, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                user=user,
                group=None if user is None else _group_of(user),
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        self._watcher = subprocess.Popen(  # noqa: S603 - a constant script
            ["/bin/sh", "-c", WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(f"{self.pid}\n".encode())
        self._watcher.stdin.flush()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed already; whoever asks will see that
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()

    @property
    def pid(self) -> int:
        """The process id of the server itself, to send signals to."""
        return self._process.pid

    @property
    def pids(self) -> tuple[int, int]:
        """The server and its watcher."""
        return self._process.pid, self._watcher.pid

    @property
    def running(self) -> bool:
        """Whether the server has not ended yet."""
        return self._process.poll() is None

    def output(self) -> str:
        """What it has written since this start."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready()`. Raises BrokerError with the end of its log if it ends first or takes longer than `timeout` s."""
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                status = self._process.returncode
                self.kill()
                raise BrokerError(f"starting {self.name}: it ended with status {status}; its last lines:\n{self.tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"starting {self.name}: not ready after {timeout:.0f} s; its last lines:\n{self.tail()}")
            time.sleep(0.03)

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        return "\n".join(self.output().splitlines()[-lines:])

    def stop(self, timeout: float = 20.0, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, after `timeout` seconds make it end. Returns its exit status; safe to call twice."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                # A stopped process would sleep through the request.
                self._process.send_signal(how)
                self._process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        return self.kill()

    def kill(self) -> int:
        """End it and its group at once (SIGKILL) and reap it. Returns its exit status; safe to call twice."""
        # The watcher goes first, while the process id can not have been given to anyone else.
        if self._watcher.poll() is None:
            self._watcher.kill()
            self._watcher.wait()
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


async def to_end(call: Callable[..., T], *arguments: object) -> T:
    """Run a blocking call in a thread, to its end: a cancellation is raised once the call is over.

    A start that goes on in its thread after a Ctrl-C would leave behind what nobody stops any more.
    """
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at: what it failed with gives way to the cancellation
        raise


def _group_of(user: str) -> int:
    import pwd  # not on every system, and needed only where a user is named

    return pwd.getpwnam(user).pw_gid
