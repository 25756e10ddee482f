"""What an agent's function raised, as the fault of one record.

An exception's message may hold anything, the record's values among them. Where a row that the agent reads or joins has a
Protected column, or its features an Identifier or Untrusted text, the message is therefore left out, of the dead letter and of
every log: what stays is the exception's type and where in the agent's code it was raised. No search for the values could be
trusted instead: a message may hold them rounded, cut or in other words.
"""

from __future__ import annotations

from pathlib import PurePath
from traceback import extract_tb
from typing import Any

from pydantic import BaseModel

from agents.engine.spec import DecisionAgent
from models.masking.marked import kinds_of
from schemas.dead_letter import Fault, Stage
from schemas.errors import DataFault
from schemas.marks import Protected, marks

Agent = DecisionAgent[Any, Any, Any]
NOT_SHOWN = "its message is not shown, since this agent's rows or features have marked columns"


class Refused(DataFault):
    """The engine's own refusal of a record: its text is ours, and quotes no column."""


class Raised:
    """How the exceptions of one agent's functions are told."""

    def __init__(self, agent: Agent) -> None:
        rows = [agent.reads.row, *(join.topic.row for join in agent.joins.values())]
        model: type[BaseModel] = agent.features_model
        self._closed = any(row is not None and marks(row, Protected) for row in rows) or bool(kinds_of(model))
        urgent = (window.urgent for window in agent.windows.values())
        functions = (agent.subject, agent.when, agent.features, agent.decide, *urgent)
        codes = (getattr(function, "__code__", None) for function in functions)
        self._files = {code.co_filename for code in codes if code is not None}

    def fault(self, stage: Stage, error: Exception) -> Fault:
        """The fault of a record on which a stage raised. A DataFault of the agent's own counts as any exception where closed."""
        if isinstance(error, DataFault) and (not self._closed or isinstance(error, Refused) or stage == "join"):
            return error.fault  # a join's are the engine's as well
        return Fault(stage, "agent-error", self.describe(error))

    def describe(self, error: Exception) -> str:
        """The type, and the message's first line (200 characters) or the place."""
        return f"{type(error).__name__}{self._place(error)}; {NOT_SHOWN}" if self._closed else described(error)

    def _place(self, error: Exception) -> str:
        frames = extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename in self._files] or frames
        return f" in {own[-1].name}, {PurePath(own[-1].filename).name} line {own[-1].lineno}" if own else ""


def described(error: Exception) -> str:
    """The type and the first line: never more of a value than an exception's own message shows in 200 characters."""
    first = str(error).splitlines()[:1]
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
