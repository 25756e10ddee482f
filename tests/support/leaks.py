"""Finds processes that a test session has left behind, by a mark in their environment that every descendant inherits."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path

MARK = "TEST_SESSION_OF_HEADRACE"
OURS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Helpers that Python itself keeps for the life of the process."""
PROC = Path("/proc")


def children() -> dict[int, str]:
    """Direct children of this process, pid -> command line; empty where there is no /proc."""
    found: dict[int, str] = {}
    for listing in PROC.glob("self/task/*/children"):
        try:
            pids = [int(word) for word in listing.read_text().split()]
        except OSError:
            continue  # the thread has just ended
        found |= {pid: command for pid in pids if (command := _command(pid))}
    return found


def descendants() -> dict[int, str]:
    """Every living process that inherited this session's mark, whoever is its parent now."""
    wanted = f"{MARK}={os.environ.get(MARK)}".encode()
    found: dict[int, str] = {}
    for entry in PROC.glob("[0-9]*/environ"):
        pid = int(entry.parent.name)
        if pid == os.getpid():
            continue
        try:
            marked = wanted in entry.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is not ours to look at
        if marked and (command := _command(pid)):
            found[pid] = command
    return found


def settle(look: dict[int, str], expected: Collection[int], seconds: float = 2.0) -> dict[int, str]:
    """What of `look` is not expected and is still there after up to `seconds`: a process needs a moment to end."""
    deadline = time.monotonic() + seconds
    left = {pid: command for pid, command in look.items() if pid not in expected}
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {pid: command for pid, command in left.items() if _command(pid)}
    return left


def _command(pid: int) -> str:
    """The command line, or "" for a process that has ended, waits to be reaped, or is a helper of Python's own."""
    try:
        text = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    if state in "ZX":
        return ""
    # While a program is being loaded its process has no command line yet.
    text = text or "(a program that is just starting)"
    return "" if any(name in text for name in OURS) else text
