"""headrace cache: what was kept is erased, of the agent that is named and of no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agents.cli.main import group, run
from agents.engine.inference import cache_file
from agents.settings import Settings
from models.cache.store import Scope, SqliteStore


async def kept(agent: str, put: bool) -> int:
    """How many of two answers of the agent are there; puts them first where asked to."""
    store = SqliteStore(cache_file(Settings(), agent), most_bytes=1 << 20, most_age=60.0)
    store.hold()
    entries = {key * 32: b"{}" for key in (b"a", b"b")}
    if put:
        await store.put(Scope("default", agent, "m"), entries)
    found = await store.get(list(entries))
    await store.close()
    return len(found)


def test_clearing_erases_what_is_kept_for_the_agents_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another agent's answers stay; an agent of which nothing was kept is said; an unknown one is a mistake."""
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    for agent in ("credit-risk", "product-quality"):
        assert asyncio.run(kept(agent, True)) == 2
    assert run(group(), ["cache", "clear", "credit-risk"]) == 0
    assert "credit-risk: 2 answers erased" in capsys.readouterr().err
    assert asyncio.run(kept("credit-risk", False)) == 0
    assert asyncio.run(kept("product-quality", False)) == 2
    cache_file(Settings(), "credit-risk").unlink()
    assert run(group(), ["cache", "clear"]) == 0
    said = capsys.readouterr().err
    assert "credit-risk: nothing was kept" in said
    assert "product-quality: 2 answers erased" in said
    assert run(group(), ["cache", "clear", "no-such"]) == 2
