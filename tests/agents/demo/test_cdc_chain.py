"""The chain from a row in PostgreSQL to its decision and back; and that nothing of it outlives whoever started it."""

import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from agents.credit_risk import CUSTOMERS, LOAN_APPLICATIONS, Customer, LoanApplication
from agents.demo import cdc_chain
from tests.support import leaks

ROOT = Path(__file__).resolve().parents[3]


def _environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_DATA_DIR": str(data_dir)}


def _folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("headrace-postgres-*")) | set(Path(tempfile.gettempdir()).glob("headrace-cdc-*"))


@pytest.mark.cdc
@pytest.mark.kafka
def test_from_a_row_to_its_decision_and_back(cdc_tools: None, data_dir: Path) -> None:
    """Every insert, update, delete, key change and added column has its one outcome, and no write-back a second decision."""
    command = [sys.executable, "-m", "agents.cli.main", "demo-cdc", "--applications", "12", "--json"]
    ran = subprocess.run(command, cwd=ROOT, env=_environment(data_dir), capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    # 12 at the start, 3 inserted, an amount, a term and a moved row: 18. Each was written back, and that came in again.
    assert {name: said[name] for name in ("ok", "decisions", "retractions", "write_backs", "second_decisions", "undecided")} == {
        "ok": True, "decisions": 18, "retractions": 2, "write_backs": 18, "second_decisions": 0, "undecided": 0,
    }  # fmt: skip
    assert said["skips"] == {"unwatched-change": 18 + 3, "tombstone": 2, "application-withdrawn": 1}
    assert said["records"] == 44
    assert not any(said[name] for name in ("unaccounted", "repeated", "out_of_order", "dead_letters"))
    assert "credit-risk: accounted for (exactly-once" in ran.stdout


@pytest.mark.cdc
@pytest.mark.kafka
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in /proc")
def test_nothing_outlives_a_demo_that_is_killed(cdc_tools: None, data_dir: Path) -> None:
    """SIGKILL in the middle, which nothing can handle, still ends PostgreSQL, Kafka and Kafka Connect."""
    before, folders = set(leaks.descendants()), _folders()
    command = [sys.executable, "-m", "agents.cli.main", "demo-cdc", "--applications", "12"]
    with subprocess.Popen(command, cwd=ROOT, env=_environment(data_dir), stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("Starting headrace worker"):
                break
        started = {pid: text for pid, text in leaks.descendants().items() if pid not in before | {demo.pid}}
        for name in ("postgres", "kafka.Kafka", "ConnectStandalone"):
            assert any(name in text for text in started.values()), f"{name} is not among {started}"
        demo.send_signal(signal.SIGKILL)
        demo.wait()
    assert not leaks.settle(started, expected=before, seconds=15)
    for folder in _folders() - folders:  # that, too, nobody was left to do
        shutil.rmtree(folder)


def test_the_tables_have_what_the_agent_reads(cdc_tools: None) -> None:
    """Every field of the agent's row models is a column of the table of that name."""
    from agents.demo import cdc_tables

    for table, model in (("customer", Customer), ("loan_application", LoanApplication)):
        body = cdc_tables.TABLES.split(f"CREATE TABLE {table} (")[1].split(");")[0]
        columns = {line.split()[0] for line in body.splitlines() if line.strip() and not line.strip().startswith("--")}
        assert set(model.model_fields) <= columns


def test_the_topics_are_placed_where_debezium_writes() -> None:
    """The overrides name topics of the agent, and physical names of the captured tables under Debezium's prefix."""
    pytest.importorskip("psycopg")
    from agents.demo.cdc import PLACES
    from agents.demo.cdc_tables import CAPTURED

    assert set(PLACES) == {LOAN_APPLICATIONS.name, CUSTOMERS.name}
    assert {place["physical"] for place in PLACES.values()} == {f"{cdc_chain.PREFIX}.{table}" for table in CAPTURED}


@pytest.mark.parametrize(
    ("lacks", "word"),
    [
        ("java", "Java 17"),
        ("postgres", "apt-get install postgresql"),
        ("user", "refuses to run as root"),
        ("psycopg", "headrace[cdc]"),
    ],
)
def test_what_is_missing_is_said_with_a_remedy(monkeypatch: pytest.MonkeyPatch, lacks: str, word: str) -> None:
    """One sentence for each thing that the chain needs."""
    monkeypatch.setattr(cdc_chain, "missing_java_tools", lambda *_, **__: "needs Java 17" if lacks == "java" else None)
    monkeypatch.setattr(cdc_chain, "postgres_bin", lambda: None if lacks == "postgres" else Path("/"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cdc_chain, "_has_user", lambda _: lacks != "user")
    found = None if lacks == "psycopg" else importlib.machinery.ModuleSpec("psycopg", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    said = cdc_chain.missing_cdc_tools()
    assert said is not None
    assert word in said


def test_without_java_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    """No traceback, status 2, nothing started."""
    began = time.monotonic()
    env = {**_environment(tmp_path), "PATH": str(tmp_path), "JAVA_HOME": ""}
    command = [sys.executable, "-m", "agents.cli.main", "demo-cdc"]
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "Java 17" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert time.monotonic() - began < 30
