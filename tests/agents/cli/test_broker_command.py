"""headrace broker: says where it listens, serves, and ends in good order at a signal."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.kafka import create_topic, produce, read_all
from topics.local.process import free_port, listening

COMMAND = [sys.executable, "-m", "agents.cli.main", "broker"]


def _start(folder: Path, *arguments: str) -> tuple["subprocess.Popen[str]", str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "HEADRACE_DATA_DIR": str(folder)}
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"export HEADRACE_KAFKA=(127\.0\.0\.1:\d+)\n", line)
    if found is None:
        process.kill()
        pytest.fail(f"no address but {line!r}; {process.communicate()[1]}")
    return process, found[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_embedded_broker_serves_until_a_signal(tmp_path: Path, topic: Callable[..., str], number: signal.Signals) -> None:
    """The address on stdout works on the port that was asked for, and a signal ends the command with status 0."""
    port = free_port()
    process, address = _start(tmp_path, "--port", str(port))
    assert address == f"127.0.0.1:{port}"
    asyncio.run(create_topic(address, topic()))
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Ctrl-C stops it" in said
    assert not listening(port)


@pytest.mark.kafka
def test_apache_kafka_keeps_its_topics_for_the_next_start(java_tools: None, data_dir: Path, tmp_path: Path) -> None:
    """What was written before a Ctrl-C is there after the next start, even on another port."""
    (tmp_path / "jars").symlink_to(data_dir / "jars")
    (data_dir / "jars").mkdir(exist_ok=True)
    for step in range(2):
        process, address = _start(tmp_path, "--kafka", "--port", "0")
        try:
            if step == 0:
                asyncio.run(create_topic(address, "kept"))
                asyncio.run(produce(address, "kept", [(None, b"v")]))
            else:
                assert [record.value for record in asyncio.run(read_all(address, "kept"))] == [b"v"]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)
        assert process.returncode == 0


def test_a_taken_port_is_one_line_and_status_not_zero(tmp_path: Path) -> None:
    """No traceback for a port that somebody else has."""
    process, address = _start(tmp_path, "--port", "0")
    try:
        other = subprocess.run([*COMMAND, "--port", address.split(":")[1]], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "is taken" in other.stderr
        assert "Traceback" not in other.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
