"""The store on disk: one process each, whole after a kill, started anew where it can not be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from topics.reference.store import Meta, Store

ROOT = Path(__file__).resolve().parents[3]


def test_two_workers_take_two_stores_and_find_them_again(tmp_path: Path) -> None:
    """A store belongs to one process at a time; whoever comes next goes on with the first free one."""
    one = Store(tmp_path)
    one.write({b"k": b"1"}, Meta("x"))
    two = Store(tmp_path)
    assert one.path != two.path
    assert two.get(b"k") is None
    one.close()
    three = Store(tmp_path)
    assert three.path == one.path
    assert three.get(b"k") == b"1"
    two.close()
    three.close()


def test_what_was_written_outlives_a_kill(tmp_path: Path) -> None:
    """A worker that dies at once leaves rows and positions of one write together, and its store to the next."""
    program = (
        "import os, sys; from pathlib import Path; from topics.reference.store import Meta, Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(50): store.write({b'%d' % n: b'x' * 100}, Meta('x', positions={0: n + 1}))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    store = Store(tmp_path)
    assert store.path.name == "0"
    assert store.meta is not None
    assert store.meta.positions == {0: 50}
    assert len(list(store.rows())) == 50
    store.close()


@pytest.mark.parametrize("pattern", ["MANIFEST*", "CURRENT"])
def test_a_damaged_store_is_started_anew(tmp_path: Path, pattern: str) -> None:
    """Broken files cost a rebuild, not the worker."""
    store = Store(tmp_path)
    store.write({b"k": b"1"}, Meta("x"))
    store.close()
    for path in store.path.glob(pattern):
        path.write_bytes(b"\x00garbage")
    again = Store(tmp_path)
    assert again.meta is None
    assert again.get(b"k") is None
    again.close()


def test_a_store_of_another_format_is_started_anew(tmp_path: Path) -> None:
    """A later version of this program does not misread an older store."""
    store = Store(tmp_path)
    store.write({b"k": b"1"}, Meta("x", format=0))
    store.close()
    again = Store(tmp_path)
    assert (again.meta, again.get(b"k")) == (None, None)
    again.close()
