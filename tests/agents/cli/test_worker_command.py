"""`headrace worker` as a process: what it says of a model that refuses, and that it runs all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.cli.main import group, run
from models.sandbox.server import MODEL
from topics.dev_broker import EmbeddedBroker

HEADRACE = [sys.executable, "-m", "agents.cli.main"]


@pytest.fixture
def refusing() -> Iterator[str]:
    """The base URL of a sandbox that accepts another key than ours."""
    process = subprocess.Popen(
        [*HEADRACE, "sandbox", "--port", "0", "--api-key", "the-right-one"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield next(line for line in process.stdout if "HEADRACE_MODEL_BASE_URL=" in line).strip().partition("=")[2]
    finally:
        process.kill()
        process.communicate()


def test_a_worker_starts_with_a_model_that_refuses_and_warns_at_once(
    embedded: EmbeddedBroker, refusing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any record the log names the setting to mend, never the key; the worker runs on and drains as ever."""
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADRACE_KAFKA", embedded.bootstrap)
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", refusing)
    monkeypatch.setenv("HEADRACE_MODEL_NAME", MODEL)
    monkeypatch.setenv("HEADRACE_MODEL_API_KEY", "sk-wrong-secret")
    assert run(group(), ["topics", "apply", "product-quality"]) == 0
    worker = subprocess.Popen([*HEADRACE, "worker", "product-quality"], stderr=subprocess.PIPE, text=True)
    give_up = threading.Timer(90, worker.kill)
    give_up.start()
    said: list[str] = []
    try:
        assert worker.stderr is not None
        for line in worker.stderr:
            said.append(line)
            if "the model at" in line:
                break
        assert worker.poll() is None, "it runs on"
        worker.send_signal(signal.SIGTERM)
        said.extend(worker.stderr)
        worker.wait()
    finally:
        give_up.cancel()
        worker.kill()
        worker.wait()
        if worker.stderr is not None:
            worker.stderr.close()
    told = "".join(said)
    assert f"WARNING agents.engine.model_watch the model at {refusing}: " in told
    assert "set HEADRACE_MODEL_API_KEY" in told
    assert "sk-wrong-secret" not in told
    assert worker.returncode == 0, told
