"""`headrace agents`: list, check and try, run as a program would run them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents import credit_risk
from agents.cli.agents import app
from models.sandbox.server import MODEL, Sandbox
from schemas.errors import AgentError, ConfigError

FIXTURES = Path(__file__).resolve().parents[2] / "data" / "agents"
AT = 1_700_000_000_000
LOAN: Mapping[str, Any] = credit_risk.EXAMPLES[0].value
PERSON: Mapping[str, Any] = credit_risk.EXAMPLES[0].joins["customer"]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests gets in; the fixture agent is among the agents."""
    for name in ("HEADRACE_MODEL_BASE_URL", "HEADRACE_TOPICS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEADRACE_AGENTS_PATH", str(FIXTURES))


def change(row: Mapping[str, Any], op: str = "c", before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A row change in Debezium's envelope."""
    return {"before": before, "after": row, "op": op, "ts_ms": AT, "source": {"connector": "postgresql", "ts_ms": AT}}


def line(value: Any, **rest: Any) -> str:
    """A line that is a record."""
    return json.dumps({"value": value, **rest})


def tried(*arguments: str, lines: Sequence[str]) -> list[dict[str, Any]]:
    """The outcomes that `headrace agents try` prints; it must end well."""
    result = CliRunner().invoke(app, ["try", *arguments], input="\n".join(lines).encode())
    assert result.exit_code == 0, result.output
    return [json.loads(text) for text in result.stdout.splitlines()]


def test_list_names_every_agent_with_its_topics() -> None:
    """Agents of the further folder are listed beside those that come with Headrace."""
    result = CliRunner().invoke(app, ["list", "--json"])
    told = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert set(told) == {"credit-risk", "product-quality", "support-triage"}
    assert told["credit-risk"]["joins"] == ["customers"]
    plain = CliRunner().invoke(app, ["list"]).stdout
    assert "reads loan-applications, joins customers, writes credit-risk-decisions" in plain


def test_check_finds_the_agents_in_order() -> None:
    """All agents keep the contract and their examples come out as they say."""
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 0
    assert "support-triage: 8 examples, as they should be" in result.stdout


def test_check_fails_for_a_wrong_example_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that does not come out as it says is a failure with its title and the difference."""
    text = (FIXTURES / "support_triage.py").read_text(encoding="utf-8").replace('outcome="billing"', 'outcome="person"', 1)
    (tmp_path / "triage.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("HEADRACE_AGENTS_PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["check", "support-triage"])
    assert result.exit_code == 1
    assert "outcome should be 'person' and is 'billing'" in result.stdout


def test_try_decides_an_application_with_the_joined_row_among_the_lines() -> None:
    """The customer's row may come after the application; the sandbox says in the decision that it is one."""
    [outcome] = tried("credit-risk", "--model", "sandbox", lines=[
        line(change(LOAN), key='{"id":1}'),
        line(change(PERSON), key='{"id":7}', topic="customers"),
    ])  # fmt: skip
    [decision] = outcome["decisions"]
    assert outcome["line"] == 1
    assert decision["outcome"] == "approve"
    assert decision["inputs"][0]["status"] == "found"
    assert decision["model_returned"] == MODEL
    assert decision["result"]["amount"] == "1169.00", "exact from wire to decision"


def test_try_gives_each_line_one_outcome_that_names_it() -> None:
    """A dead letter, lines that are no record, a foreign topic, a tombstone and a decision: each is told, in order."""
    outcomes = tried("credit-risk", "--model", "scorecard", lines=[
        '{"broken',
        line(change({**LOAN, "amount": "-5.00"}), key='{"id":3}'),
        line("x", partition=-1),
        "",
        line(change(LOAN), topic="elsewhere"),
        line(None, key='{"id":1}'),
        json.dumps(change(LOAN)),
        line({"after": {"id": "seven"}, "op": "c"}, topic="customers", key='{"id":"seven"}'),
    ])  # fmt: skip
    told = [(o["line"], o["kind"]) for o in outcomes]
    assert told == [(1, "dead_letter"), (2, "dead_letter"), (3, "malformed"), (5, "malformed"), (6, "skip"), (7, "decision"),
                    (8, "malformed")]  # fmt: skip
    by_line = {o["line"]: o for o in outcomes}
    assert by_line[1]["dead_letters"][0]["headrace_reason"] == "invalid-json"
    assert by_line[2]["dead_letters"][0]["headrace_field"] == "amount"
    assert by_line[3]["field"] == "partition"
    assert "elsewhere is no topic of credit-risk" in by_line[5]["why"]
    assert by_line[6]["rule"] == "tombstone"
    assert by_line[7]["decisions"][0]["overrides"] == ["customer-missing"]
    assert "row of customers" in by_line[8]["why"]


def test_try_reads_telemetry_in_the_units_of_the_wire() -> None:
    """Kelvin becomes degrees, the gate skips what is calm, and the scorecard stops what is over a limit."""
    calm = {"device": "mill-1", "ts": AT, "product": "M1", "variant": "M", "air_temperature": 298.1, "process_temperature": 308.6,
            "rotational_speed": 1551, "torque": 42.8, "tool_wear": 0}  # fmt: skip
    hot = {**calm, "device": "mill-2", "process_temperature": 306.0, "rotational_speed": 1350}
    skipped, stopped = tried("product-quality", "--model", "scorecard", lines=[
        line(calm, timestamp=AT), line(hot, timestamp=AT),
    ])  # fmt: skip
    assert skipped == {"line": 1, "kind": "skip", "rule": "window-unremarkable"}
    [decision] = stopped["decisions"]
    assert decision["outcome"] == "stop"
    assert decision["result"] == {"product": "M1", "cause": "heat-dissipation", "action": "check-coolant"}
    assert decision["tier"] == "scorecard"


def test_try_follows_a_conversation() -> None:
    """The fixture of free text runs on the sandbox too, though that has no rule for it; staff is skipped."""
    said = {"conversation_id": "c", "sender": "customer", "text": "My invoice is wrong.", "id": "1"}
    answered = {**said, "sender": "staff", "text": "Which one?", "id": "2"}
    first, second = tried("support-triage", lines=[json.dumps(said), json.dumps(answered)])
    assert first["decisions"][0]["outcome"] in ("billing", "technical", "retention", "person")
    assert first["decisions"][0]["tier"] == "model"
    assert second == {"line": 2, "kind": "skip", "rule": "from-staff"}


def test_try_says_what_is_missing() -> None:
    """An unknown agent, a model that is not configured and a scorecard that is not there are named with what to do."""
    for arguments, error, text in (
        (["no-such"], AgentError, "there is no no-such; there are credit-risk"),
        (["credit-risk", "--model", "configured"], ConfigError, "set HEADRACE_MODEL_BASE_URL"),
        (["support-triage", "--model", "scorecard"], ConfigError, "it has no scorecard"),
    ):
        result = CliRunner().invoke(app, ["try", *arguments], input=b"{}")
        assert isinstance(result.exception, error)
        assert text in str(result.exception)


def test_try_goes_on_after_lines_that_no_parser_expects() -> None:
    """A number without bounds and a topic that is no text cost their own line, never those behind it."""
    outcomes = tried("credit-risk", "--model", "scorecard", lines=[
        '{"value":1e999999999999999999999}',
        '{"value":{"a":1},"topic":"\\ud800"}',
        line(change(LOAN), key='{"id":1}'),
    ])  # fmt: skip
    assert [outcome["kind"] for outcome in outcomes] == ["dead_letter", "malformed", "decision"]
    assert outcomes[1]["field"] == "topic"


def test_try_fails_where_no_line_is_a_record() -> None:
    """A file in the wrong layout must not pass for one that was decided."""
    result = CliRunner().invoke(app, ["try", "credit-risk", "--model", "scorecard"], input=line("x", partition=-1).encode())
    assert json.loads(result.stdout)["kind"] == "malformed"
    assert result.exit_code == 1


async def test_a_trial_keeps_nothing_of_the_prompt_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes a prompt and tries again asks again, whatever a worker keeps; the settings of calls hold."""
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    async with Sandbox() as server:
        monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", server.base_url)
        monkeypatch.setenv("HEADRACE_AGENTS", '{"support-triage": {"cache": "1h", "batch_size": 1, "budget": "0.000001"}}')
        lines = [json.dumps({"conversation_id": f"c{n}", "sender": "customer", "text": "Hello.", "id": f"{n}"}) for n in range(3)]
        for turn in (1, 2):
            outcomes = await asyncio.to_thread(tried, "support-triage", "--model", "configured", lines=lines)
            assert [outcome["kind"] for outcome in outcomes] == ["decision"] * 3
            assert server.meter.requests == 3 * turn
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_output_tokens": 5}, "batch_output_tokens is 5"),
        ({"cascade": {"field": "risk", "cheap": [20, 80]}}, "set HEADRACE_MODEL_CHEAP"),
    ],
)
def test_check_tells_what_the_settings_say_and_can_not_work(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    """What HEADRACE_AGENTS says of an agent is checked with it, without a broker and without its masking key."""
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HEADRACE_AGENTS", json.dumps({"credit-risk": given}))
    done = CliRunner().invoke(app, ["check", "credit-risk"])
    assert done.exit_code == 1
    assert "reading HEADRACE_AGENTS for credit-risk: " in done.output
    assert said in done.output


SHARED = {"credit-risk": {"weight": 0.8}, "product-quality": {"weight": 0.8}}


@pytest.mark.parametrize(
    ("names", "given", "said"),
    [
        (["credit-risk"], {"credit-rsk": {"cache": "6h"}}, "there is no agent credit-rsk"),
        ([], {"credit-rsk": {"cache": "6h"}}, "there is no agent credit-rsk"),
        ([], SHARED, "the weights (credit-risk 0.8, product-quality 0.8) are 1.6 in all"),
        ([], {"credit-risk": {"budget": 5}}, "budget: the price of some-model at http://127.0.0.1:9/v1 is not known"),
    ],
)
def test_check_refuses_what_a_worker_of_the_same_agents_refuses(
    monkeypatch: pytest.MonkeyPatch, names: list[str], given: dict[str, Any], said: str
) -> None:
    """A name that no agent has, parts of an account that are more than it, a budget without a price."""
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HEADRACE_MODEL_NAME", "some-model")
    monkeypatch.setenv("HEADRACE_AGENTS", json.dumps(given))
    done = CliRunner().invoke(app, ["check", *names])
    assert done.exit_code == 1
    assert "settings: not in order\n  reading HEADRACE_AGENTS" in done.output
    assert said in done.output
    assert "credit-risk: 14 examples, as they should be" in done.output


def test_check_and_a_worker_refuse_settings_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask the same function; the worker asks it before it asks Kafka, which is not there."""
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:9")
    monkeypatch.setenv("HEADRACE_AGENTS", json.dumps(SHARED))
    both = ["credit-risk", "product-quality"]
    told = CliRunner().invoke(app, ["check", *both]).output.splitlines()[-1].strip()
    worker = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", "worker", *both], capture_output=True, text=True, timeout=60
    )
    assert worker.returncode == 2
    assert told.startswith("reading HEADRACE_AGENTS: the weights")
    assert told in worker.stderr


def test_check_accepts_what_a_worker_of_the_named_agent_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are too much together are none of one agent alone; a variable that is no setting is warned of."""
    monkeypatch.setenv("HEADRACE_AGENTS", json.dumps(SHARED))
    monkeypatch.setenv("HEADRACE_MODEL_RMP", "60")
    done = CliRunner().invoke(app, ["check", "credit-risk"])
    assert done.exit_code == 0, done.output
    assert "warning: HEADRACE_MODEL_RMP is no setting; did you mean HEADRACE_MODEL_RPM?" in done.stderr


def test_try_refuses_settings_of_no_agent_and_says_what_the_sandbox_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing mistake does not pass in silence in a trial either, and a cascade that is not tried is named."""
    monkeypatch.setenv("HEADRACE_AGENTS", '{"credit-rsk": {}}')
    refused = CliRunner().invoke(app, ["try", "credit-risk"], input="{}")
    assert "there is no agent credit-rsk" in str(refused.exception)
    monkeypatch.setenv("HEADRACE_AGENTS", '{"credit-risk": {"deadline": "5s", "cache": "1h"}}')
    done = CliRunner().invoke(app, ["try", "credit-risk", "--model", "sandbox"], input="{}")
    assert "left out of what HEADRACE_AGENTS says of credit-risk: cache" in done.stderr
