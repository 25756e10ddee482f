"""The whole demo as a person starts it: a process of its own, a real broker, a real worker, every record accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topics.dev_broker import ApacheKafka, free_port

DEMO = [sys.executable, "-m", "agents.cli.main", "demo"]
KEYS = [
    "records", "decisions", "dead_letters", "skips", "unaccounted", "repeated", "out_of_order", "model_calls", "tokens_input",
    "tokens_output", "latency_ms", "seconds",
]  # fmt: skip
LIMIT = 150


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment without anybody's settings, and with temporary files where they can be looked for."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**clean, "TMPDIR": str(tmp_path)}


def _run(env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *options], env=env, capture_output=True, text=True, timeout=LIMIT, check=False)


def _object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The last line of stdout; a failed demo shows what it said."""
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _all_accounted_for(told: dict[str, Any], records: int) -> None:
    assert list(told) == KEYS
    assert list(told["latency_ms"]) == ["p50", "p99"]
    assert told["records"] == records == told["decisions"] + told["dead_letters"] + told["skips"]
    assert told["unaccounted"] == told["out_of_order"] == 0
    assert min(told["decisions"], told["dead_letters"], told["skips"]) > 0
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]


def test_every_record_of_the_demo_is_accounted_for(env: dict[str, str], tmp_path: Path) -> None:
    """On the embedded broker the demo ends well, with the object that --json promises, a summary, and nothing left behind."""
    done = _run(env, "--records", "200", "--rate", "100", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told = _object(done)
    _all_accounted_for(told, 200)
    assert told["dead_letters"] == 4
    assert 0 < told["model_calls"] < told["decisions"]
    assert told["tokens_input"] > told["tokens_output"] > 0
    for said in ("4 records were broken on purpose: exactly these", "prove the plumbing", "fitted scorecard", "base rate"):
        assert said in done.stdout
    assert "first decision after" in done.stderr
    assert "embedded broker" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.kafka
def test_on_apache_kafka_each_decision_is_made_once(env: dict[str, str], kafka: ApacheKafka) -> None:
    """In transactions nothing is repeated, and a second demo on the same Kafka adds to the first instead of stumbling over it."""
    for _ in range(2):
        done = _run(env, "--records", "120", "--rate", "100", "--kafka", kafka.bootstrap, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        told = _object(done)
        _all_accounted_for(told, 120)
        assert told["repeated"] == 0
        assert "exactly once" in done.stderr


def test_without_a_model_the_scorecards_answer(env: dict[str, str]) -> None:
    """With --model scorecard nobody is called and nothing is paid for, and the summary says who answered."""
    done = _run(env, "--records", "60", "--rate", "60", "--model", "scorecard", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    told = _object(done)
    _all_accounted_for(told, 60)
    assert told["model_calls"] == told["tokens_input"] == told["tokens_output"] == 0
    assert "scorecard 2" in done.stdout
    assert "No model was asked" in done.stdout


def _started(env: dict[str, str], *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*DEMO, *options], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def running(env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A demo that would take minutes, and is ended if the test does not end it."""
    process = _started(env, "--records", "5000", "--rate", "20")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("until", ["broker:", "first decision"])
def test_whenever_it_is_stopped_nothing_is_left_behind(
    running: subprocess.Popen[str], tmp_path: Path, how: signal.Signals, until: str
) -> None:
    """Ctrl-C and SIGTERM, while it starts and while it replays, end broker, worker and sandbox and remove what was written."""
    assert running.stderr is not None
    for line in running.stderr:
        if until in line:
            break
    running.send_signal(how)
    _, said = running.communicate(timeout=40)
    assert running.returncode == 130
    assert "everything that was started has ended" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
    # That no child is left is watched by a fixture of every test.


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_large_replay_is_stopped_as_fast(env: dict[str, str], tmp_path: Path, how: signal.Signals) -> None:
    """The largest replay that is taken tells how far it is from its first seconds on, and heeds a signal at once."""
    process = _started(env, "--records", "100000", "--rate", "5000")
    try:
        assert process.stderr is not None
        assert any("customers written" in line or "sent," in line for line in process.stderr)
        process.send_signal(how)
        _, said = process.communicate(timeout=40)
        assert process.returncode == 130
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()
    assert not list(tmp_path.iterdir())


def test_with_keep_the_broker_stays_until_it_is_stopped(env: dict[str, str], tmp_path: Path) -> None:
    """After its summary the demo says where the broker is, `headrace verify` finds all in order there, and Ctrl-C ends it."""
    process = _started(env, "--records", "40", "--rate", "80", "--keep")
    try:
        assert process.stderr is not None
        where = next(line for line in process.stderr if "HEADRACE_KAFKA=" in line).strip().partition("=")[2]
        verify = [sys.executable, "-m", "agents.cli.main", "verify", "credit-risk", "product-quality", "--kafka", where, "--json"]
        found = subprocess.run(verify, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        assert json.loads(found.stdout.splitlines()[-1])["records"] == 40
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "40" in out
    finally:
        process.kill()
        process.communicate()
    assert not list(tmp_path.iterdir())


def test_a_configured_model_that_refuses_ends_the_demo_at_once(env: dict[str, str], tmp_path: Path) -> None:
    """A key that is not accepted is told by its setting, before a broker or a worker is started, and the key is not shown."""
    sandbox = subprocess.Popen(
        [sys.executable, "-m", "agents.cli.main", "sandbox", "--port", "0", "--api-key", "the-right-one"],
        env=env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert sandbox.stdout is not None
        where = next(line for line in sandbox.stdout if "HEADRACE_MODEL_BASE_URL=" in line).strip().partition("=")[2]
        wrong = {**env, "HEADRACE_MODEL_BASE_URL": where, "HEADRACE_MODEL_API_KEY": "sk-wrong-secret"}
        done = _run(wrong, "--model", "configured", "--records", "20")
    finally:
        sandbox.kill()
        sandbox.communicate()
    assert done.returncode == 2
    assert "set HEADRACE_MODEL_API_KEY" in done.stderr
    assert "broker:" not in done.stderr
    assert "sk-wrong-secret" not in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kafka", "127.0.0.1:{port}"], "opening Kafka"),
        (["--kafka", "nowhere"], "not host:port"),
        (["--model", "configured"], "HEADRACE_MODEL_BASE_URL is not set"),
        (["--latency", "soon"], "latency"),
        (["--records", "100001"], "100000"),
    ],
)
def test_what_can_not_work_is_one_line(env: dict[str, str], tmp_path: Path, options: list[str], said: str) -> None:
    """A Kafka that is not there or a model that is not configured is named in a sentence, with status 2, and leaves nothing."""
    began = time.monotonic()
    done = _run(env, *(option.format(port=free_port()) for option in options))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "broker:" not in done.stderr, "it is refused before anything is started"
    assert time.monotonic() - began < 60
    assert not list(tmp_path.iterdir())
