"""Passage: one request through all gates, and back: each gate that was entered is told how it ended, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from models.gates.gate import Asking, Ended, Gate, Leave


class Passage:
    """`async with Passage(gates, asking, deadline) as passage`: inside, the request may leave.

    Entering raises Refused or TimeoutError as gates do. `passage.ended` is what they are told, in reverse order; it is "unsent"
    until somebody says otherwise. A "timeout" without `seconds` gets those since all gates were passed.
    """

    def __init__(self, gates: Sequence[Gate], asking: Asking, deadline: float) -> None:
        self.ended = Ended("unsent")
        self._gates, self._asking, self._deadline = gates, asking, deadline
        self._entered: list[Leave] = []
        self._passed_at = 0.0

    async def __aenter__(self) -> Passage:
        try:
            for gate in self._gates:
                self._entered.append(await gate.enter(self._asking, self._deadline))
        except BaseException:
            self._leave()
            raise
        self._passed_at = asyncio.get_running_loop().time()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.ended.kind == "timeout" and not self.ended.seconds:
            # Whoever is cut off from outside can not measure it.
            self.ended = replace(self.ended, seconds=asyncio.get_running_loop().time() - self._passed_at)
        self._leave()

    def _leave(self) -> None:
        while self._entered:
            self._entered.pop()(self.ended)
