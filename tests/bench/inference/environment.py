"""Virtual environments of the peers, which need other packages, or other versions of ours, than Headrace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.processes import ROOT


def environment(name: str) -> Path:
    """The Python of a peer's virtual environment, made from its pinned, hashed requirements the first time."""
    folder, wanted = ROOT / ".headrace" / f"bench-{name}", Path(__file__).with_name(f"requirements-{name}.txt")
    python, done = folder / "bin" / "python", folder / ".done"
    if not done.exists() or done.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = ["-m", "pip", "--disable-pip-version-check", "-q", "install", "--require-hashes", "-r", str(wanted)]
        subprocess.run([str(python), *install], check=True)
        done.write_text(wanted.read_text())
    return python
