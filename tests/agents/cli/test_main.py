"""The command line as a whole: quick help, commands imported when used, and errors told without a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agents.cli.main import COMMANDS, Entry, group, paragraphs, run
from topics.dev_broker import EmbeddedBroker

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("aiokafka", "faust", "openai", "pydantic", "aiohttp", "rocksdict")


def test_help_imports_nothing_heavy() -> None:
    """The overview takes no Kafka, no Faust and no model client: that is what keeps it under half a second."""
    code = (
        "import sys, agents.cli.main as m\n"
        "status = m.run(m.group(), ['--help'])\n"
        f"sys.stderr.write(repr((status, [n for n in {HEAVY!r} if n in sys.modules])))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == "(0, [])"
    assert all(f" {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`headrace NAME --help` says how that command is used."""
    assert run(group(), [name, "--help"]) == 0
    assert f"Usage: headrace {name}" in capsys.readouterr().out


def test_an_unknown_command_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """A typing mistake is told, with what was probably meant."""
    assert run(group(), ["verfy"]) == 2
    assert "Did you mean 'verify'?" in capsys.readouterr().err


def test_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`headrace version` prints a version and nothing else."""
    assert run(group(), ["version"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_a_broken_module_breaks_its_own_command_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help and other commands go on working; the broken one fails with its own error, unhidden."""
    (tmp_path / "broken_command.py").write_text("raise RuntimeError('half installed')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = group({**COMMANDS, "broken": Entry("broken_command:main", "Never works.", "Run")})
    assert run(broken, ["--help"]) == 0
    assert run(broken, ["version"]) == 0
    with pytest.raises(RuntimeError, match="half installed"):
        run(broken, ["broken"])


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        ("ConfigError('reading topic x: set y')", 2, "error: reading topic x: set y\n"),
        ("AgentError('loading agents/z.py: no AGENT')", 2, "error: loading agents/z.py: no AGENT\n"),
        ("BrokerError('reading loans/0: no progress')", 1, "error: reading loans/0: no progress\n"),
        ("KeyboardInterrupt()", 130, ""),
        ("SystemExit(7)", 7, ""),
    ],
)
def test_errors_become_a_status_and_a_line(
    raised: str, status: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person did wrong ends with 2, what failed with 1, an interrupt with 130, each without a traceback."""
    name = f"raising_{abs(hash(raised))}"
    (tmp_path / f"{name}.py").write_text(f"from schemas.errors import *\ndef go():\n    raise {raised}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(group({"go": Entry(f"{name}:go", "Raises.", "Run")}), ["go"]) == status
    assert capsys.readouterr().err.replace("\n\n", "\n") == told


def test_a_wrong_setting_is_named_and_its_value_kept_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting in the environment that can not be is named by its variable; the value could be a secret."""
    monkeypatch.setenv("HEADRACE_DELIVERY", "s3cret")
    assert run(group(), ["verify"]) == 2
    said = capsys.readouterr().err
    assert "HEADRACE_DELIVERY" in said
    assert "s3cret" not in said
    assert "Traceback" not in said


def test_a_setting_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """HEADRACE_TOPICS takes JSON; text that is none is told in one line."""
    monkeypatch.setenv("HEADRACE_TOPICS", "{not json")
    assert run(group(), ["verify"]) == 2
    said = capsys.readouterr().err
    assert "reading HEADRACE_TOPICS: not valid JSON: " in said
    assert "line 1 column 2" in said


def test_a_setting_inside_json_is_named_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys of HEADRACE_TOPICS are a person's own, so they are not spelt like a variable."""
    monkeypatch.setenv("HEADRACE_TOPICS", '{"loan-applications": 7}')
    assert run(group(), ["verify"]) == 2
    assert "reading HEADRACE_TOPICS.loan-applications: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HEADRACE_MODEL_CHEAP", '{"base_url": "http://h/v1", "name": " "}', "HEADRACE_MODEL_CHEAP.name: Value error, it is"),
        ("HEADRACE_MODEL_CHEAP", '{"base_url": "", "name": "m"}', "HEADRACE_MODEL_CHEAP.base_url: Value error, it is empty"),
        ("HEADRACE_MODEL_FALLBACKS", '[{"base_url": "http://h/v1", "name": ""}]', "HEADRACE_MODEL_FALLBACKS.0.name: Value error"),
        ("HEADRACE_MODEL_FALLBACKS", '[{"base_url": " ", "name": "m"}]', "HEADRACE_MODEL_FALLBACKS.0.base_url: Value error"),
        ("HEADRACE_MODERATION", '{"base_url": "http://h/v1", "name": ""}', "HEADRACE_MODERATION.name: Value error, it is empty"),
        ("HEADRACE_MODERATION", '{"base_url": "", "name": "m"}', "HEADRACE_MODERATION.base_url: Value error, it is empty"),
        ("HEADRACE_REBALANCE_TIMEOUT", "-5", "HEADRACE_REBALANCE_TIMEOUT: Input should be greater than or equal to 1"),
        ("HEADRACE_REBALANCE_TIMEOUT", "inf", "HEADRACE_REBALANCE_TIMEOUT: Input should be a finite number"),
        ("HEADRACE_REBALANCE_TIMEOUT", "1e9", "HEADRACE_REBALANCE_TIMEOUT: Input should be less than or equal to 7200"),
    ],
)
def test_a_value_that_no_worker_could_use_is_refused_with_the_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    """A model or a moderation endpoint without a name or an address, and a time that is none, whoever asks."""
    monkeypatch.setenv(variable, value)
    assert run(group(), ["agents", "list"]) == 2
    assert f"reading {said}" in " ".join(capsys.readouterr().err.split())


def test_an_empty_address_of_the_model_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As any other that is no URL: by its setting's name, where it would be asked."""
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", "")
    assert run(group(), ["agents", "check", "product-quality"]) == 1
    assert "HEADRACE_MODEL_BASE_URL must be like https://host/v1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "raised",
    [
        "ConnectionResetError(104, 'reset')",
        "FileNotFoundError(2, 'No such file or directory', 'our-own-table')",
        "PermissionError(13, 'Permission denied', 'our-own-lock')",
        "OSError(98, 'Address already in use')",
    ],
)
def test_an_error_of_the_system_inside_a_command_keeps_its_traceback(raised: str, tmp_path: Path) -> None:
    """A file of ours that is not there is a defect, not a person's mistake: where it was opened is shown."""
    (tmp_path / "breaking.py").write_text(f"def go():\n    raise {raised}\n", encoding="utf-8")
    code = "from agents.cli.main import *; sys.exit(run(group({'go': Entry('breaking:go', 'Raises.', 'Run')}), ['go']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "breaking.py" in done.stderr
    assert raised.partition("(")[0] in done.stderr


def test_an_unreachable_broker_is_a_line_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing listens, the address and that are said, and what to do."""
    assert run(group(), ["verify", "--kafka", "127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "127.0.0.1:1 is unreachable" in said
    assert "set HEADRACE_KAFKA to brokers that run, or start one with `headrace broker`" in said


def test_paragraphs_join_lines_and_keep_lists() -> None:
    """A docstring is broken where the source wraps; help wraps where the terminal ends."""
    assert paragraphs("One\n    line.\n\n    Two\n    lines.") == "One line.\n\nTwo lines."


def test_a_pipe_that_closes_early_is_no_traceback() -> None:
    """`headrace ... | head -0` ends quietly."""
    command = f"{sys.executable} -m agents.cli.main agents list --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert json.dumps(done.stdout) == '""'


def test_a_data_folder_that_can_not_be_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker whose files have no place says which setting to change."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "file" / "below"))
    assert run(group(), ["broker", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "set HEADRACE_DATA_DIR" in said
    assert "Traceback" not in said


def test_a_metrics_port_that_is_taken_is_a_line(
    embedded: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker that can not serve its metrics says which setting to change, and ends before it takes anything."""
    monkeypatch.setenv("HEADRACE_KAFKA", embedded.bootstrap)
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path / "data"))
    assert run(group(), ["topics", "apply", "product-quality"]) == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("HEADRACE_METRICS_PORT", str(port))
        capsys.readouterr()
        assert run(group(), ["worker", "product-quality"]) == 2
    said = capsys.readouterr().err
    assert f"serving metrics at 127.0.0.1:{port}: " in said
    assert "set HEADRACE_METRICS_PORT" in said


def test_a_certificate_that_is_not_there_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that a setting names and that can not be opened is told by its path."""
    monkeypatch.setenv("HEADRACE_KAFKA_SECURITY", "SSL")
    monkeypatch.setenv("HEADRACE_KAFKA_CAFILE", "nowhere/ca.pem")
    assert run(group(), ["verify"]) == 2
    assert "reading nowhere/ca.pem: " in capsys.readouterr().err


def test_a_demo_without_a_place_for_its_files_is_a_line() -> None:
    """Where no temporary folder can be made, the variable that names one is told."""
    code = (
        "import tempfile\n"
        "def none(*_, **__): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile.mkdtemp = none\n"
        "from agents.cli.main import *\n"
        "sys.exit(run(group(), ['demo']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "set TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr
