"""`make check` for documents: generated pages are current, links inside the repository lead somewhere, every code path exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.generate_docs import ROOT, stale

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def documents() -> list[Path]:
    """All Markdown files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listed.stdout.splitlines()]


def broken_links(document: Path) -> list[str]:
    """Links to files that are not there."""
    found = []
    for target in LINK.findall(document.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not (document.parent / target).exists():
            found.append(f"{document.relative_to(ROOT)}: {target} does not exist")
    return found


def main() -> int:
    """Print every problem; 1 if there is one."""
    problems = [f"{page} is stale: run `make docs`" for page in stale()]
    for document in documents():
        problems += broken_links(document)
    for problem in problems:
        sys.stderr.write(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
