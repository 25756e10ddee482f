"""Documents are executed: Python blocks run, shell blocks end with status 0, generated pages are current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.check_docs import broken_links, documents
from tests.support.generate_docs import ROOT, stale

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXECUTED = [path for path in documents() if BLOCK.search(path.read_text("utf-8"))]


@pytest.mark.parametrize("document", EXECUTED, ids=lambda path: path.stem)
def test_every_code_block_of_a_document_runs(document: Path, tmp_path: Path) -> None:
    """In the order of the page: a block that names a file becomes that agent file, or its end; other blocks run."""
    blocks = BLOCK.findall(document.read_text("utf-8"))
    folder = tmp_path / "agents"
    folder.mkdir()
    scripts = Path(sys.executable).parent
    environment = os.environ | {"HEADRACE_AGENTS_PATH": str(folder), "PATH": f"{scripts}:{os.environ['PATH']}"}
    for language, code in blocks:
        named = re.match(r"# file: ([^\s,]+)(, continued)?\n", code)
        if named is not None:
            with (folder / named[1]).open("a" if named[2] else "w", encoding="utf-8") as file:
                file.write(code)
            continue
        command = [sys.executable, "-W", "error", "-c", code] if language == "python" else ["sh", "-euc", code]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_generated_pages_are_what_the_code_says() -> None:
    """A new setting, option or metric is in the documents, or `make docs` was forgotten."""
    assert stale() == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.stem)
def test_links_lead_somewhere(document: Path) -> None:
    """No link to a file that is not there."""
    assert broken_links(document) == []
