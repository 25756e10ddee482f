"""headrace topics: the topics of real agents, planned and applied on a real broker."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agents.cli.topics import app, follows
from agents.engine.discover import discover
from topics.dev_broker import EmbeddedBroker


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty broker of the test's own, configured as the environment would."""
    with EmbeddedBroker() as broker:
        monkeypatch.setenv("HEADRACE_KAFKA", broker.bootstrap)
        yield broker


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_plan_then_apply_then_nothing(fresh: EmbeddedBroker) -> None:
    """Plan shows work with status 1, apply does it, and then there is none; the topics are those of the agents."""
    planned = _run("plan", "--json")
    assert planned.exit_code == 1
    steps = json.loads(planned.stdout.splitlines()[-1])["steps"]
    names = {step["topic"] for step in steps}
    assert {"headrace.credit-risk.dlq", "headrace.product-quality.receipts", "headrace.manifests"} <= names
    assert {agent.reads.topic for agent in discover()} | {agent.writes.topic for agent in discover()} <= names
    assert _run("apply").exit_code == 0
    again = _run("plan")
    assert again.exit_code == 0
    assert "as they should be" in again.stdout


def test_one_agent_gets_its_topics_only(fresh: EmbeddedBroker) -> None:
    """Naming an agent leaves the others' topics out."""
    steps = json.loads(_run("plan", "credit-risk", "--json").stdout.splitlines()[-1])["steps"]
    assert not [step for step in steps if "product-quality" in step["topic"]]


def test_a_placed_topic_is_created_where_it_was_placed(fresh: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEADRACE_TOPICS decides the physical name and the partitions, and outbound topics follow."""
    source = next(agent.reads for agent in discover() if agent.name == "credit-risk")
    monkeypatch.setenv("HEADRACE_TOPICS", json.dumps({source.name: {"physical": "bank.public.loans", "partitions": 9}}))
    steps = {s["topic"]: s for s in json.loads(_run("plan", "credit-risk", "--json").stdout.splitlines()[-1])["steps"]}
    assert steps["bank.public.loans"]["partitions"] == 9
    assert steps["headrace.credit-risk.dlq"]["partitions"] == 9


def test_a_setting_that_names_no_topic_is_told(fresh: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped logical name is said on stderr instead of being ignored."""
    monkeypatch.setenv("HEADRACE_TOPICS", '{"lone-applications": {"physical": "x"}}')
    assert "'lone-applications'" in _run("plan").stderr


def test_every_outbound_topic_follows_its_source() -> None:
    """Decisions, dead letters, receipts and audits of each agent keep its source's partition numbers; manifests do not."""
    agents = discover()
    found = follows(agents)
    for agent in agents:
        assert found[agent.writes.name] == agent.reads.name
        for kind in ("dlq", "receipts", "judgements", "calls"):
            assert found[f"headrace.{agent.name}.{kind}"] == agent.reads.name
    assert "headrace.manifests" not in found
