"""Features whose own code raises are that record's fault, whatever they raise and wherever they are first written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, computed_field, field_serializer

from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore
from models.contract import Question
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.scoring import Judged, Shown, chat, soon, statuses, wrongly


class Divided(Shown):
    """Features with a computed field that some records have no value for."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratio(self) -> float:
        """It raises for 0."""
        return 100 / self.number


class Looked(Shown):
    """Features whose serializer knows one number."""

    @field_serializer("number")
    def known(self, number: int) -> str:
        """It raises KeyError for another."""
        return {1: "one"}[number]


class Deep(Shown):
    """Features that may hold anything."""

    held: Any = None


@pytest.mark.parametrize("bad", ["computed", "serializer", "nested"])
@pytest.mark.parametrize("cache", [False, True])
async def test_features_that_raise_anything_are_one_records_fault(bad: str, cache: bool, tmp_path: Path) -> None:
    """An agent's own code in its features, such as a division by zero: that record is invalid and its neighbour is answered."""
    nested: Any = []
    for _ in range(3000):
        nested = [nested]
    pairs: dict[str, tuple[BaseModel, BaseModel]] = {
        "computed": (Divided(number=1), Divided(number=0)),
        "serializer": (Looked(number=1), Looked(number=5)),
        "nested": (Deep(number=1), wrongly(Deep, number=2, note="", held=nested)),
    }
    good, odd = pairs[bad]
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        scorer: Any = chat(server.base_url)
        if cache:
            store = SqliteStore(tmp_path / "cache.sqlite", most_bytes=1_000_000, most_age=3600.0)
            scorer = Cached(scorer, store, Judged, Scope("t", "test", "m"))
        answers = await scorer.score([Question("a", good), Question("b", odd)], soon(20))
        assert statuses(answers) == ["answered", "invalid"]
        assert "can not be written as JSON" in answers[1].why
        assert scorer.weigh(good) > 0
        assert scorer.weigh(odd) == 0
        await scorer.close()
