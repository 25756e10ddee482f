"""Broken agent files, through the commands a person types: each is named with its reason, and none hides another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agents.cli.main import group, run
from topics.dev_broker import free_port

FIXTURES = Path(__file__).resolve().parents[2] / "data" / "agents"
GOOD = (FIXTURES / "support_triage.py").read_text(encoding="utf-8")
OURS = ("credit-risk", "product-quality")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of agent files, and no other setting of whoever runs the tests."""
    for name in ("HEADRACE_MODEL_BASE_URL", "HEADRACE_TOPICS", "HEADRACE_AGENTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEADRACE_AGENTS_PATH", str(tmp_path))
    monkeypatch.setenv("HEADRACE_KAFKA", f"127.0.0.1:{free_port()}")
    return tmp_path


def put(folder: Path, name: str, text: str) -> Path:
    """Write an agent file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def broken(folder: Path) -> Mapping[str, Path]:
    """A sound agent, and one file for each way to be broken."""
    put(folder, "good.py", GOOD)
    return {
        "SyntaxError": put(folder, "syntax.py", '"""Doc."""\n\nAGENT = (\n'),
        "ModuleNotFoundError: No module named 'no_such_module'": put(folder, "imports.py", "import os\nimport no_such_module\n"),
        "it has no AGENT": put(folder, "nothing.py", "agent = 1\n"),
        "is called 'twin'": put(folder, "twin_1.py", GOOD.replace("support-triage", "twin")),
        "is called 'twin', as": put(folder, "twin_2.py", GOOD.replace("support-triage", "twin")),
    }


def test_list_shows_every_good_agent_and_then_each_broken_file(
    broken: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Good agents come first, broken files after them with path, line and reason, and the status says that something is wrong."""
    assert run(group(), ["agents", "list"]) == 1
    said = capsys.readouterr().out
    for name in (*OURS, "support-triage"):
        assert said.index(f"{name} 1: ") < said.index("broken: ")
    for why, path in broken.items():
        assert any(str(path) in line and why in line for line in said.splitlines() if line.startswith("broken: ")), why
    assert f"broken: {broken['SyntaxError']}:3: " in said
    assert "imports.py:2: " in said
    assert "twin 1:" not in said, "which of the two is meant can not be known"


def test_list_as_json_tells_the_broken_files_too(broken: Mapping[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets one object a line, and those with `broken` come last."""
    assert run(group(), ["agents", "list", "--json"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in told[:3]] == [*OURS, "support-triage"]
    assert {row["broken"] for row in told[3:]} == {str(path) for path in broken.values()}
    assert all(row["why"] for row in told[3:])


def test_check_tells_all_problems_of_all_files(
    broken: Mapping[str, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong example, a broken contract and five files that do not load are all told in one run, each with its file."""
    wrong, slow = (GOOD.replace("support-triage", name) for name in ("wrong", "slow"))
    wrong_file = put(folder, "wrong.py", wrong.replace('outcome="billing"', 'outcome="person"', 1))
    slow_file = put(folder, "slow.py", slow.replace("    owner=", '    deadline="soon",\n    owner='))
    assert run(group(), ["agents", "check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = {**broken, "outcome should be 'person' and is 'billing'": wrong_file, "deadline: reading duration 'soon'": slow_file}
    for why, path in told.items():
        assert any(str(path) in line and why in line for line in lines), why
    assert "support-triage: 8 examples, as they should be" in lines


def test_check_of_a_healthy_agent_passes_and_warns_of_the_broken_files(
    broken: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks about one agent gets its answer; what is broken beside it is on stderr."""
    assert run(group(), ["agents", "check", "support-triage"]) == 0
    said = capsys.readouterr()
    assert "support-triage: 8 examples" in said.out
    assert all(str(path) in said.err for path in broken.values())


@pytest.mark.usefixtures("broken")
def test_check_of_one_of_two_agents_of_one_name_names_both_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent whose file is broken can not be chosen, and the reason is that of its own files."""
    assert run(group(), ["agents", "check", "twin"]) == 2
    said = capsys.readouterr().err
    assert "there is no twin that can be used" in said
    assert str(folder / "twin_1.py") in said
    assert str(folder / "twin_2.py") in said


def test_try_of_a_healthy_agent_works_beside_a_broken_file(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A warning names the broken file, and the record is decided."""
    path = put(folder, "syntax.py", "AGENT = (\n")
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": "seven"}\n', encoding="utf-8")
    with records.open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        assert run(group(), ["agents", "try", "product-quality", "--model", "scorecard"]) == 0
    said = capsysbinary.readouterr()
    assert json.loads(said.out)["kind"] == "dead_letter"
    assert f"warning: broken agent file {path}:1: " in said.err.decode()


def test_a_named_worker_starts_beside_a_broken_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`worker NAME` warns of the broken file and goes on to Kafka, which is not there in this test."""
    path = put(folder, "syntax.py", "AGENT = (\n")
    assert run(group(), ["worker", "credit-risk"]) == 2
    said = capsys.readouterr().err
    assert f"warning: broken agent file {path}:1: " in said
    assert "opening Kafka" in said, "it came as far as the brokers"


def test_a_setting_of_an_agent_that_can_not_be_loaded_stops_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What HEADRACE_AGENTS and HEADRACE_TOPICS say of a broken agent is warned of; with all files sound it is a mistake."""
    monkeypatch.setenv("HEADRACE_AGENTS", '{"theirs": {"deadline": "9s"}}')
    monkeypatch.setenv("HEADRACE_TOPICS", '{"their-topic": {"physical": "t"}}')
    assert run(group(), ["worker", "credit-risk"]) == 2
    assert "error: reading HEADRACE_AGENTS: there is no agent theirs" in capsys.readouterr().err
    put(folder, "theirs.py", "AGENT = (\n")
    assert run(group(), ["worker", "credit-risk"]) == 2
    said = capsys.readouterr().err
    assert "warning: reading HEADRACE_AGENTS: there is no agent theirs" in said
    assert "warning: reading HEADRACE_TOPICS: no agent has a topic their-topic" in said
    assert "opening Kafka" in said


@pytest.mark.parametrize("command", [["worker"], ["verify"], ["topics", "plan"], ["topics", "apply"]])
def test_all_agents_are_refused_while_one_is_broken(
    command: list[str], broken: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without names a command means all agents: it does nothing rather than leave one out, and tells every problem."""
    assert run(group(), command) == 2
    said = capsys.readouterr().err
    assert "opening Kafka" not in said
    assert all(str(path) in said and why in said for why, path in broken.items())


MISFITS: Mapping[str, tuple[str, str, str]] = {
    # what is put before AGENT, the arguments of replace(), what has to be said after the path
    "async on": (
        "async def on(change): ...\n", 'joins={"customer": replace(BASE.joins["customer"], on=on)}',
        ":5: joins[customer].on is an async function: make it a plain one",
    ),
    "on takes two": (
        "def on(change, row): ...\n", 'joins={"customer": replace(BASE.joins["customer"], on=on)}',
        ":5: joins[customer].on takes the wrong parameters (change, row): it is called with 1: the value",
    ),
    "join no topic": (
        "", 'joins={"customer": replace(BASE.joins["customer"], topic="customers")}',
        "joins[customer].topic is of type str: it has to be a TopicSpec",
    ),
    "join no join": ("", 'joins={"customer": "customers"}', "joins[customer] is of type str: it has to be a Join"),
    "features_model": (
        "class Plain: ...\n", "features_model=Plain",
        "features_model is the class Plain: it has to be a class derived from pydantic's BaseModel",
    ),
    "features_model an object": ("", 'features_model={"age": int}', "features_model is of type dict"),
    "answer_model": ("", "answer_model=dict", "answer_model is the class dict: it has to be a class derived from pydantic's"),
    "answer of Ask": ("", 'scorer=Ask(dict, "Decide.")', "the answer of Ask is the class dict"),
    "result_model": ("", "result_model=int", "result_model is the class int"),
    "async features": ("async def features(context): ...\n", "features=features", ":5: features is an async function"),
    "async decide": ("async def decide(context, features, answer): ...\n", "decide=decide", ":5: decide is an async function"),
    "async when": ("async def when(value): ...\n", "when=when", ":5: when is an async function"),
    "async subject": ("async def subject(value): ...\n", "subject=subject", ":5: subject is an async function"),
    "features takes none": (
        "def features(): ...\n", "features=features",
        ":5: features takes the wrong parameters (): it is called with 1: the context",
    ),
    "decide takes two": (
        "def decide(context, answer): ...\n", "decide=decide",
        ":5: decide takes the wrong parameters (context, answer): it is called with 3: the context, the features, the answer",
    ),
    "when takes a name": ("def when(*, value): ...\n", "when=when", ":5: when takes the wrong parameters (*, value)"),
    "subject takes two": ("def subject(a, b): ...\n", "subject=subject", ":5: subject takes the wrong parameters (a, b)"),
    "subject no function": ("", 'subject="id"', "subject is of type str: it has to be a function; it is called with 1"),
    "subject missing": ("", "subject=None", "subject is missing (None): it has to be a function"),
    "outcomes a text": ("", 'outcomes="approve"', "outcomes is of type str: it has to be a tuple of texts"),
    "watch a text": ("", 'watch="amount"', "watch is of type str: it has to be a tuple of texts"),
    "on_no_answer": ("", 'on_no_answer="giveup"', "on_no_answer is 'giveup': use one of 'wait', 'review', 'fallback'"),
    "reads a name": ("", 'reads="loans"', "reads is of type str: it has to be a TopicSpec"),
    "name no text": ("", "name=7", "name is of type int: it has to be a text"),
    "scorer a class": (
        "from models.scorers.instant import NoModel\n", "scorer=NoModel", "scorer is the class NoModel: it has to be",
    ),
    "fallback no scorer": ("", "fallback=print", "fallback is of type builtin_function_or_method: it has to be an Ask"),
    "batch size a text": (
        "", 'batch=replace(BASE.batch, size="16")', "batch.size is of type str: it has to be a whole number",
    ),
    "batch tokens a text": (
        "", 'batch=replace(BASE.batch, prompt_tokens="4k")',
        "batch.prompt_tokens is of type str: it has to be a whole number, or left out",
    ),
    "holds async": (
        "async def holds(features): ...\n",
        'reasons={"overdrawn": replace(BASE.reasons["overdrawn"], holds=holds)}',
        ":5: reasons[overdrawn].holds is an async function",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("before", "changes", "told"), MISFITS.values(), ids=MISFITS.keys())
def test_check_refuses_a_definition_that_would_fail_later(
    before: str, changes: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that Python takes and the engine can not use is told by file, line of the function, field and what to do."""
    head = "from dataclasses import replace\n\nfrom agents.credit_risk import AGENT as BASE\nfrom models.contract import Ask\n"
    path = put(folder, "theirs.py", f"{head}{before}AGENT = replace(BASE, {changes})\n")
    assert run(group(), ["agents", "check"]) == 1
    said = capsys.readouterr().out.splitlines()
    # A copy of credit-risk under its own name: were it loaded, the clash would be told, and nothing else.
    [line] = [each for each in said if each.startswith("broken: ")]
    assert line.startswith(f"broken: {path}:")
    assert told in line
    assert any(each.startswith("credit-risk: ") and each.endswith("as they should be") for each in said)


ENDS = {
    "exits": ("PythonScorer(lambda many: sys.exit(), answer=BASE.answers, name='rules')", "rules failed with SystemExit"),
    "hangs": ("PythonScorer(lambda many: sleep(600), answer=BASE.answers, name='rules')", "(timeout): no answer before"),
    "hangs in the loop": ("InstantScorer(lambda one: sleep(600), name='rules')", "(timeout): it holds up the event loop"),
}  # fmt: skip


@pytest.mark.parametrize(("fallback", "why"), ENDS.values(), ids=ENDS.keys())
def test_check_tells_of_a_fallback_that_exits_or_hangs_and_ends(fallback: str, why: str, folder: Path) -> None:
    """As a process of its own: it neither ends without a word nor waits for what never ends."""
    path = put(folder, "theirs.py", (
        "import sys\nfrom dataclasses import replace\nfrom time import sleep\n"
        "from agents.credit_risk import AGENT as BASE\n"
        "from models.scorers.instant import InstantScorer\nfrom models.scorers.python_model import PythonScorer\n"
        f"AGENT = replace(BASE, name='theirs', writes=replace(BASE.writes, name='their-decisions'), fallback={fallback})\n"
    ))  # fmt: skip
    command = (
        "from agents.engine import fallback; fallback.SECONDS = fallback.AFTER = 0.2\n"
        "from agents.cli.main import main; main(['agents', 'check', 'theirs'])"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert f"{path}: fallback 'rules', example " in done.stdout
    assert why in done.stdout


def test_check_tells_of_an_agent_that_exits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While its examples are decided; the others are checked all the same."""
    head = "import sys\nfrom dataclasses import replace\nfrom agents.credit_risk import AGENT as BASE\n"
    changes = "name='own', writes=replace(BASE.writes, name='own-decisions'), decide=lambda c, f, a: sys.exit()"
    path = put(folder, "theirs.py", f"{head}AGENT = replace(BASE, {changes})\n")
    assert run(group(), ["agents", "check"]) == 1
    said = capsys.readouterr().out
    assert f"own: not in order\n  {path}: its code exits (SystemExit)" in said
    assert "product-quality: " in said


def test_functions_of_every_kind_that_fit_are_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Callable objects, partials, defaults and further optional parameters are no mistakes."""
    put(folder, "theirs.py", (
        "from dataclasses import replace\nfrom functools import partial\nfrom operator import attrgetter\n"
        "from agents.credit_risk import AGENT as BASE\n\n\n"
        "class Subject:\n    def __call__(self, change):\n        return BASE.subject(change)\n\n\n"
        "def features(base, context, *, more=1):\n    return base.features(context)\n\n\n"
        "def decide(*given):\n    return BASE.decide(*given)\n\n\n"
        "AGENT = replace(\n    BASE, name='theirs', writes=replace(BASE.writes, name='their-decisions'), subject=Subject(),\n"
        "    features=partial(features, BASE), decide=decide,\n)\n"
    ))  # fmt: skip
    assert run(group(), ["agents", "check"]) == 0, capsys.readouterr().out
