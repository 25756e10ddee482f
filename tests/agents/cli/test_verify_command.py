"""`headrace verify` as a program would run it, on the topics of one agent on a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from agents.cli.main import group, run
from tests.support.kafka import create_topic
from tests.support.scenes import Scene
from topics import names
from topics.dev_broker import EmbeddedBroker
from topics.verify.read import Target

FILE = """
from agents.engine.spec import DecisionAgent
from tests.support.simple_agent import simple_agent
from models.scorers.instant import NoModel
from topics.spec import event_topic, out_topic
from tests.support.simple_agent import Purchase

AGENT = simple_agent(NoModel(), name="NAME", reads=event_topic("NAME-in", Purchase), writes=out_topic("NAME-out"))
"""


@dataclass
class Site:
    """One agent's topics, and what a test does with them."""

    name: str
    bootstrap: str
    target: Target

    def write(self, breaking: Callable[[Scene], Any] | None = None) -> None:
        """Write what a worker writes, and then what the test seeds."""

        async def go() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
            await producer.start()
            scene = Scene(self.bootstrap, self.target, producer)
            try:
                for topic in (self.target.source, self.target.decisions, self.target.dead_letters, self.target.receipts):
                    await create_topic(self.bootstrap, topic, 2)
                await scene.work()
                if breaking is not None:
                    await breaking(scene)
            finally:
                await producer.stop()

        asyncio.run(go())

    def verify(self, *options: str) -> int:
        """The exit status of `headrace verify` for this agent."""
        return run(group(), ["verify", self.name, "--kafka", self.bootstrap, *options])


@pytest.fixture
def site(embedded: EmbeddedBroker, topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An agent that no other test knows, found through HEADRACE_AGENTS_PATH as a user's would be."""
    name = topic("verified")
    (tmp_path / "verified.py").write_text(FILE.replace("NAME", name), encoding="utf-8")
    monkeypatch.setenv("HEADRACE_AGENTS_PATH", str(tmp_path))
    group_name = names.group("headrace", name)
    target = Target(name, f"{name}-in", f"{name}-out", names.dead_letters(name), names.receipts(name), group_name)
    return Site(name, embedded.bootstrap, target)


def test_verify_says_that_all_is_accounted_for(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0, and the numbers in words."""
    site.write()
    assert site.verify() == 0
    said = capsys.readouterr().out
    assert f"{site.name}: accounted for (exactly-once" in said
    assert "8 input records: 6 decisions, 1 dead letters, 1 skipped, closed-loan 1" in said
    assert "0 unaccounted, 0 repeated, 0 out of order, 1 not decided yet, 3 receipts" in said


def test_verify_json_is_the_last_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads one object from the last line of stdout."""
    site.write()
    assert site.verify("--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["ok"], told["records"], told["unaccounted"], told["repeated"], told["out_of_order"]) == (True, 8, 0, 0, 0)
    assert told["agents"][0]["skips_by_rule"] == {"closed-loan": 1}
    assert [p["frontier"] for p in told["agents"][0]["partitions"]] == [6, 2]


def test_verify_fails_and_names_the_offenders(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 1; topic, partition and offset of what is wrong, and what is wrong about it."""
    site.write(lambda scene: scene.decide(0, 3))
    assert site.verify() == 1
    said = capsys.readouterr().out
    assert "NOT in order" in said
    assert f"{site.target.decisions}/0 offset 4: offset 3 part 0 has an outcome already" in said
    assert site.verify("--json") == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["agents"][0]["offences"] == {"repeated": 1}


def test_losses_fail_only_when_strict(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Input that retention removed before it was read is an alarm on every run, and a failure with --strict."""
    site.write(lambda scene: scene.receipt(1, 2, 2, 2, closed=[], decisions=0, lost=[(100, 140)]))
    assert site.verify() == 0
    assert "ALARM: 40 offsets were removed by retention" in capsys.readouterr().out
    assert site.verify("--strict") == 1


def test_what_a_record_says_does_not_draw(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes and line feeds in what somebody wrote into a receipt are written out."""
    rule = "\x1b]0;mine\x07\nall: accounted for"
    site.write(lambda scene: scene.receipt(1, 2, 2, 3, decisions=0, skips={rule: [(2, 3)]}))
    site.verify()
    said = capsys.readouterr().out
    assert "\\u001b]0;mine\\u0007\\nall: accounted for" in said
    assert "\x1b" not in said


def test_verify_names_a_topic_that_is_not_there(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and the name of the source topic that nobody has created."""
    assert site.verify() == 2
    assert f"{site.target.source} does not exist" in capsys.readouterr().err
