"""What an agent's functions return, held against what they promise. For examples only: a stream has no time for it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from agents.engine.spec import Context, DecisionAgent, Go, Skip, Verdict
from models.contract import Answer

Agent = DecisionAgent[Any, Any, Any]


def watched(agent: Agent, said: list[str]) -> Agent:
    """The agent, putting into `said` what its functions return wrongly; such a return is a TypeError where it happens.

    `features` is evaluated twice, because a decision has to repeat.
    """

    def subject(value: Any) -> str:
        return str(_held(agent.subject(value), "subject", (str,), said))

    def when(value: Any) -> Go | Skip:
        assert agent.when is not None
        made: Go | Skip = _held(agent.when(value), "when", (Go, Skip), said)
        return made

    def features(context: Context[Any]) -> Any:
        made, again = (
            _held(agent.features(context), "features", (agent.features_model, Skip, Verdict), said) for _ in range(2)
        )
        # Some values differ from themselves (NaN), and some look the same in another order (sets).
        if made != again and repr(made) != repr(again):
            said.append("features differ when they are evaluated twice: use nothing but the context, no clock and no chance")
        return _scored(agent, made, said) if isinstance(made, Verdict) else made

    def decide(context: Context[Any], made: Any, answer: Answer[Any]) -> Verdict:
        return _scored(agent, _held(agent.decide(context, made, answer), "decide", (Verdict,), said), said)

    def urgent(name: str, ask: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
        def held(row: Any) -> str | None:
            made: str | None = _held(ask(row), f"windows[{name}].urgent", (str, type(None)), said)
            return made

        return held

    windows = {
        name: replace(window, urgent=urgent(name, window.urgent)) if window.urgent is not None else window
        for name, window in agent.windows.items()
    }
    return replace(agent, subject=subject, features=features, decide=decide, windows=windows,
                   when=when if agent.when is not None else None)  # fmt: skip


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await; callable objects and what functools.partial makes included."""
    while hasattr(function, "func"):
        function = function.func
    inner = getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called: what calling it runs
    return any(test(each) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction) for each in (function, inner))


def _held(made: Any, name: str, kinds: tuple[type, ...], said: list[str]) -> Any:
    if isinstance(made, kinds):
        return made
    if inspect.iscoroutine(made):
        made.close()  # nobody will await it
    *others, last = (kind.__name__ for kind in kinds)
    wanted = f"{', '.join(others)} or {last}" if others else last
    problem = f"{name} returned {type(made).__name__ if made is not None else None}, it has to return {wanted}"
    said.append(problem)
    raise TypeError(problem)


def _scored(agent: Agent, verdict: Verdict, said: list[str]) -> Verdict:
    score, scale = verdict.score, agent.scale
    if score is None:
        return verdict
    if isinstance(score, bool) or not isinstance(score, int | float | Decimal):
        said.append(f"the score is a {type(score).__name__}, it has to be a number")
    elif not math.isfinite(score):
        said.append(f"the score is {score}, which can not be published: give a finite number, or None")
    elif scale is not None and not scale.min <= score <= scale.max:
        said.append(f"the score is {score}, outside the scale from {scale.min} to {scale.max}")
    return verdict
