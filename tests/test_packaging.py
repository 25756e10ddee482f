"""The built wheel works without the source tree, and the four package names belong to nobody else."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "topics", "models", "schemas")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree and unpacked into a folder of its own."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("*.whl")
    target = out / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", "from agents.cli.main import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_wheel_alone_lists_its_agents_and_finds_its_data(installed: Path, tmp_path: Path) -> None:
    """Away from the source tree the command works; poms, data and schemas are inside."""
    where = "import agents, topics; print(agents.__file__); print(topics.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", where]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(installed)) for line in found.stdout.splitlines())
    listed = run(installed, "agents", "list", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "credit-risk" in listed.stdout
    for path in ("topics/kafka_poms/broker/pom.xml", "schemas/v1/decision.json", "agents/demo/data/german_credit.csv"):
        assert (installed / path).is_file(), path


def test_no_other_distribution_owns_a_package_name_of_ours() -> None:
    """A dependency that installed a top-level `models` would shadow ours, or ours its."""
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, [])) <= {"headrace"}, owners[package]
