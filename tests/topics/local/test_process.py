"""Child processes: they end with their parent however it ends, and a failing start says why."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.errors import BrokerError
from tests.support import leaks
from topics.local.process import Child, free_port, listening, to_end

PARENT = """
import sys, time
from pathlib import Path
from topics.local.process import Child
child = Child("sleeper", ["sleep", "600"], log=Path(sys.argv[1]))
print(*child.pids, flush=True)
time.sleep(600)
"""


def _gone(pid: int, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_child_ends_when_its_parent_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    """Even a parent that gets SIGKILL, and so can not clean up, takes its server and the watcher with it."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not _gone(pids[0], 0.2)
        parent.send_signal(how)
        parent.wait()
        assert all(_gone(pid) for pid in pids)


IN_BETWEEN = """
import os, signal, subprocess, sys
from pathlib import Path
from topics.local import process
start = subprocess.Popen
def killed_in_between(command, **options):
    if process.WATCH in command:
        os.kill(os.getpid(), signal.SIGKILL)
    child = start(command, **options)
    print(child.pid, flush=True)
    return child
subprocess.Popen = killed_in_between
process.Child("sleeper", ["sleep", "600"], log=Path(sys.argv[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_child_ends_when_its_parent_is_killed_before_the_watcher_is_there(tmp_path: Path) -> None:
    """There is no moment at which a SIGKILL of the parent leaves the server behind."""
    ran = subprocess.run([sys.executable, "-c", IN_BETWEEN, str(tmp_path / "log")], stdout=subprocess.PIPE, check=False)
    assert ran.returncode == -signal.SIGKILL
    assert _gone(int(ran.stdout))


def test_a_program_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """The error names what can not be run."""
    child = Child("nothing", [str(tmp_path / "no-such-program")], log=tmp_path / "log")
    with pytest.raises(BrokerError, match="no-such-program"):
        child.wait_ready(lambda: False, 60)


def test_stop_ends_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    """A server that does not answer SIGTERM within the limit is killed, and stopping twice is safe."""
    child = Child("stubborn", ["sh", "-c", 'trap "" TERM; echo up; while :; do sleep 0.1; done'], log=tmp_path / "log")
    child.wait_ready(lambda: "up" in child.output(), 60)
    assert child.stop(timeout=0.3) == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL
    assert not child.running


def test_stop_ends_a_process_that_is_stopped(tmp_path: Path) -> None:
    """A server under SIGSTOP hears the request to end."""
    child = Child("sleeper", ["sleep", "600"], log=tmp_path / "log")
    os.kill(child.pid, signal.SIGSTOP)
    assert child.stop(timeout=60) == -signal.SIGTERM


def test_start_that_fails_tells_the_last_lines_of_the_log(tmp_path: Path) -> None:
    """A server that ends before it is ready raises with its status and what it wrote, also when the log has older lines."""
    log = tmp_path / "log"
    log.write_text("from an earlier run\n")
    child = Child("failing", ["sh", "-c", "echo no such storage; exit 3"], log=log)
    with pytest.raises(BrokerError, match=r"starting failing: it ended with status 3(.|\n)*no such storage") as caught:
        child.wait_ready(lambda: False, 60)
    assert "earlier run" not in str(caught.value)


def test_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """A server that is not ready in time is killed and the error says how long was waited."""
    child = Child("slow", ["sleep", "600"], log=tmp_path / "log")
    with pytest.raises(BrokerError, match=r"starting slow: not ready after 0 s"):
        child.wait_ready(lambda: False, 0.2)
    assert not child.running


def test_free_port_is_outside_the_range_of_outgoing_connections() -> None:
    """The port is free and no client's own end of a connection can be given it."""
    ports = {free_port() for _ in range(20)}
    assert all(20_000 <= port < 32_000 for port in ports)
    assert not any(listening(port) for port in ports)


def test_a_leaked_process_is_found_whoever_its_parent_is_now(tmp_path: Path) -> None:
    """The watch for leaks sees a child of ours and also one whose parent has ended."""
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    orphan = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    child = Child("sleeper", ["sleep", "600"], log=tmp_path / "log")
    try:
        # while a program is being loaded its process has neither its command line nor its environment yet
        limit = time.monotonic() + 20
        while not ({*child.pids} <= set(leaks.children()) and {orphan, *child.pids} <= set(leaks.descendants())):
            assert time.monotonic() < limit, (orphan, child.pids, leaks.children(), leaks.descendants())
            time.sleep(0.02)
        assert leaks.settle({child.pid: "sleep 600"}, expected=(), seconds=0.1) == {child.pid: "sleep 600"}
    finally:
        os.kill(orphan, signal.SIGKILL)
        child.kill()
    ended = {orphan, *child.pids}
    assert not leaks.settle({p: c for p, c in leaks.descendants().items() if p in ended}, expected=())


async def test_a_cancelled_start_ends_before_the_cancellation_is_raised() -> None:
    """What a blocking call sets up is there by the time the caller can clean it up, also after a second cancellation."""
    steps: list[str] = []

    def start() -> None:
        steps.append("begun")
        time.sleep(0.3)
        steps.append("started")

    task = asyncio.create_task(to_end(start))
    for _ in range(2):
        await asyncio.sleep(0.1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["begun", "started"]


async def test_what_a_blocking_call_raises_is_raised() -> None:
    """A failure passes through, and so does a result."""

    def fail() -> None:
        raise BrokerError("no")

    with pytest.raises(BrokerError, match="no"):
        await to_end(fail)
    assert await to_end(len, "four") == 4
