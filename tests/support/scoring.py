"""Questions, an answer model and a chat scorer for the tests of models/."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question
from schemas.audit import Call
from schemas.marks import Untrusted

M = TypeVar("M", bound=BaseModel)


class Shown(BaseModel):
    """Features of a test record."""

    number: int
    note: Annotated[str, Untrusted(max=20)] = ""


class Judged(BaseModel):
    """An answer with a range and an enum."""

    risk: int = Field(ge=0, le=100)
    grade: Literal["good", "bad", "insufficient"]


ASK = Ask(Judged, "Judge the risk of each record.")


def questions(count: int) -> list[Question]:
    """`count` questions whose features differ."""
    return [Question(f"d{number}", Shown(number=number)) for number in range(count)]


def wrongly(model: type[M], **values: Any) -> M:
    """A model that holds what its fields do not allow."""
    return model.model_construct(**values)


def chat(base_url: str, calls: list[Call] | None = None, **options: Any) -> ChatScorer[Judged]:
    """A chat scorer of ASK that collects its Calls in `calls`; pauses are short, since chance is near zero."""
    collected: list[Call] = [] if calls is None else calls
    agent, manifest = options.pop("agent", "test"), options.pop("manifest", None)
    masking, hedging = options.pop("masking", None), options.pop("hedging", None)
    line = line_to(base_url, **options)
    return ChatScorer(ASK, line, agent=agent, manifest=manifest, masking=masking, on_call=collected.append, hedging=hedging)


def line_to(base_url: str, **options: Any) -> Line:
    """A line to a server of a test."""
    settings: dict[str, Any] = {"api_key": "sk-test-secret", "model": "m", "chance": lambda: 0.01} | options
    settings["connections"] = settings.pop("concurrency", 64)
    return Line(base_url, **settings)


def soon(seconds: float) -> float:
    """A deadline so many seconds from now."""
    return asyncio.get_running_loop().time() + seconds


def statuses(answers: Sequence[Any]) -> list[str]:
    """The status of each answer."""
    return [answer.status for answer in answers]
