"""An agent that shows its model a picture, from the record on the topic to the decision and its audit."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import BaseModel, Field

from agents.engine.contract import check
from agents.engine.spec import Batch, Context, DecisionAgent, Example, Verdict
from agents.engine.trial import try_records
from models.chat.chat import ChatScorer
from models.contract import Answer, Ask
from models.sandbox import rules as sandbox_rules
from models.sandbox.server import Sandbox
from schemas.audit import Call
from schemas.decision import Review
from schemas.event import Event
from schemas.marks import Image
from tests.support.pictures import png
from tests.support.scoring import line_to
from topics.record import Raw
from topics.spec import event_topic, out_topic


class Inspection(BaseModel):
    """A row: a weld and a photograph of it, in base64 as JSON has it."""

    weld: str
    current: int
    photo: str | None = None


class WeldFeatures(BaseModel):
    """What the model is shown."""

    current: int
    photo: Annotated[bytes | None, Image("image/png", max_bytes=10_000)] = None


class WeldAnswer(BaseModel):
    """What it may answer."""

    risk: int = Field(ge=0, le=100)
    seen: Literal["sound", "cracked", "insufficient"]


def features(context: Context[Event[Inspection]]) -> WeldFeatures:
    """The photograph as the bytes that it is."""
    row = context.value.row
    return WeldFeatures(current=row.current, photo=None if row.photo is None else b64decode(row.photo))


def decide(context: Context[Event[Inspection]], f: WeldFeatures, answer: Answer[WeldAnswer]) -> Verdict:
    """What was seen; what was not seen is looked at."""
    if answer.value is None or answer.value.seen == "insufficient":
        return Verdict("review", review=Review(required=True, why=answer.status, queue="welds"))
    return Verdict("pass" if answer.value.seen == "sound" else "reject", score=answer.value.risk)


ROW = {"weld": "w", "current": 90}
AGENT: DecisionAgent[Event[Inspection], WeldFeatures, WeldAnswer] = DecisionAgent(
    name="weld-inspection", version=1, owner="welding", description="Whether a weld is sound, by its photograph",
    reads=event_topic("inspections", Inspection), writes=out_topic("weld-decisions"),
    subject=lambda event: event.row.weld, subject_type="weld",
    features=features, features_model=WeldFeatures,
    scorer=Ask(WeldAnswer, "You look at photographs of welds. Say whether the weld is sound."),
    decide=decide, outcomes=("pass", "reject", "review"), batch=Batch(8, within="5ms"),
    examples=(
        Example("A sound one passes", ROW, answer={"risk": 1, "seen": "sound"}, outcome="pass"),
        Example("A cracked one does not", ROW, answer={"risk": 99, "seen": "cracked"}, outcome="reject"),
        Example("Without an answer somebody looks", ROW, outcome="review"),
    ),
)  # fmt: skip


def record(number: int, photo: bytes | None) -> Raw:
    """One inspection."""
    row = {"weld": f"w{number}", "current": number, "photo": None if photo is None else b64encode(photo).decode()}
    return Raw("inspections", orjson.dumps(row), f"w{number}".encode(), offset=number, timestamp=1)


async def test_each_weld_is_decided_by_its_own_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch with pictures, one without and one that is no picture: each outcome is its own, and audits hold digests only."""
    cracked = {sha256(png(n)).hexdigest() for n in (1, 3)}

    def look(shown: Mapping[str, Any]) -> dict[str, Any]:
        if shown["photo"] is None:
            return {"risk": 0, "seen": "insufficient"}
        return {"risk": shown["current"], "seen": "cracked" if shown["photo"]["sha256"] in cracked else "sound"}

    monkeypatch.setitem(sandbox_rules.RULES, "WeldAnswer", look)
    photos = [png(0), png(1), png(2), png(3), None, b"no picture"]
    calls: list[Call] = []
    async with Sandbox() as server:
        assert isinstance(AGENT.scorer, Ask)
        scorer = ChatScorer(AGENT.scorer, line_to(server.base_url), agent=AGENT.name, on_call=calls.append)
        came = [outcome async for outcome in try_records(AGENT, [record(n, p) for n, p in enumerate(photos)], scorer)]
    decided = [outcome.decisions[0] for outcome in came]
    assert [body["outcome"] for body in decided] == ["pass", "reject", "pass", "reject", "review", "review"]
    assert decided[5]["review"]["why"] == "invalid"
    judged = [outcome.judgements[0] for outcome in came]
    assert judged[5]["why"] == "photo: the image does not begin as image/png does"
    assert judged[1]["features"]["photo"] == {"image": "image/png", "bytes": len(png(1)), "sha256": sha256(png(1)).hexdigest()}
    assert len({body["features_hash"] for body in decided}) == 6
    written = orjson.dumps([decided, judged, [call.model_dump(mode="json") for call in calls]])
    assert b64encode(png(1))[:24] not in written


def test_the_agent_keeps_the_contract() -> None:
    """An image among the features is nothing that the static contract finds wrong."""
    assert check(AGENT) == []
