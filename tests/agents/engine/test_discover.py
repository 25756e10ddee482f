"""Finding and selecting agents beyond what the contract suite shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.engine.discover import discover, select
from schemas.errors import AgentError

FIXTURES = Path(__file__).resolve().parents[2] / "data" / "agents"


def test_only_agents_that_come_with_headrace_are_found_without_a_folder() -> None:
    """Settings, commands and the engine are in the same package and are no agents."""
    assert [agent.name for agent in discover()] == ["credit-risk", "product-quality"]


def test_a_file_is_loaded_once() -> None:
    """Two discoveries give the same agents: their classes are the same, so rows of one fit the other."""
    first, second = (discover(FIXTURES) for _ in range(2))
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_a_file_with_an_underscore_is_left_alone(tmp_path: Path) -> None:
    """Helpers may lie beside agents."""
    (tmp_path / "_helper.py").write_text("raise RuntimeError", encoding="utf-8")
    assert len(discover(tmp_path)) == 2


def test_a_file_may_be_called_like_one_of_ours(tmp_path: Path) -> None:
    """A further agent shadows no module: only its name and its topic have to be its own."""
    text = (FIXTURES / "support_triage.py").read_text(encoding="utf-8")
    (tmp_path / "credit_risk.py").write_text(text, encoding="utf-8")
    assert [agent.name for agent in discover(tmp_path)] == ["credit-risk", "product-quality", "support-triage"]


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    """A broken file leaves nothing behind: mended, it loads in the same process."""
    path = tmp_path / "triage.py"
    path.write_text("raise RuntimeError('broken')", encoding="utf-8")
    with pytest.raises(AgentError, match="broken"):
        discover(tmp_path)
    path.write_text((FIXTURES / "support_triage.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert len(discover(tmp_path)) == 3


def test_selecting_keeps_the_order_asked_for_and_no_name_means_all() -> None:
    """A name twice is one agent."""
    agents = discover()
    assert [agent.name for agent in select(agents, ["product-quality", "credit-risk", "product-quality"])] == [
        "product-quality",
        "credit-risk",
    ]
    assert select(agents, []) == agents


def test_selecting_names_every_agent_that_is_not_there() -> None:
    """Both mistakes are told at once, with what there is."""
    with pytest.raises(AgentError, match=r"there is no one, other; there are credit-risk, product-quality"):
        select(discover(), ["one", "credit-risk", "other"])
