"""Whether the fields of a DecisionAgent are the kind of thing that the engine takes them for.

Python checks none of it when an agent is made: a wrong one would load, and fail at its first record, for each of them. What
is asked here runs nothing of the agent, so it is asked of every agent file that is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from agents.engine.returned import is_async
from agents.engine.spec import Batch, DecisionAgent, Example, Join, Order, ReasonCode, Scale, Window
from models.contract import Ask
from topics.spec import TopicSpec

Agent = DecisionAgent[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field that is not what it has to be. `at` is the file and line of a function that is meant, where there is one."""

    field: str
    problem: str
    at: tuple[str, int] | None = None

    def __str__(self) -> str:
        return f"{self.field} {self.problem}"


_CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    "on_delete": ("skip", "retract"), "on_no_answer": ("wait", "review", "fallback"), "order": tuple(Order),
}  # fmt: skip
_TYPES: Final[Sequence[tuple[str, type, str]]] = (
    ("name", str, "a text"),
    ("version", int, "a whole number"),
    ("subject_type", str, "a text"),
    ("description", str, "a text"),
    ("language", str, "a text"),
    ("deadline", str, 'a duration such as "5s"'),
    ("review_outcome", str, "a text"),
    ("reads", TopicSpec, "a TopicSpec: make it with change_topic, reading_topic or event_topic"),
    ("writes", TopicSpec, "a TopicSpec: make it with out_topic"),
    ("batch", Batch, "a Batch"),
    ("in_flight", int, "a whole number"),
)
_BATCH: Final[Sequence[tuple[str, Any, str]]] = (
    ("size", int, "a whole number"),
    ("within", str, 'a duration such as "250ms"'),
    ("bytes", int, "a whole number"),
    ("prompt_tokens", int | None, "a whole number, or left out"),
    ("output_tokens", int | None, "a whole number, or left out"),
)
_MAPPINGS: Final[Sequence[tuple[str, type]]] = (
    ("joins", Join), ("windows", Window), ("reasons", ReasonCode), ("rules", str), ("policy", object),
)  # fmt: skip
_FUNCTIONS: Final[Sequence[tuple[str, tuple[str, ...]]]] = (
    ("subject", ("the value",)),
    ("when", ("the value",)),
    ("features", ("the context",)),
    ("decide", ("the context", "the features", "the answer")),
)
_OPTIONAL: Final = frozenset({"when"})


def misfits(agent: Agent) -> list[Misfit]:
    """Every field that can not be what the engine takes it for, each with what to do; none of a sound agent."""
    return [*_plain(agent), *_containers(agent), *_models(agent), *_functions(agent), *_scorers(agent)]


def _plain(agent: Agent) -> Iterator[Misfit]:
    for name, kind, wanted in _TYPES:
        if not isinstance(getattr(agent, name), kind):
            yield _wrong(name, getattr(agent, name), wanted)
    for name, choices in _CHOICES.items():
        given = getattr(agent, name)
        if given not in choices:
            told = ", ".join(str(choice) if isinstance(choice, Order) else repr(choice) for choice in choices)
            yield Misfit(name, f"is {given!r}: use one of {told}")
    batch: Any = agent.batch
    for name, kind, wanted in _BATCH if isinstance(batch, Batch) else ():
        if not isinstance(getattr(batch, name), kind):
            yield _wrong(f"batch.{name}", getattr(batch, name), wanted)
    if agent.scale is not None and not isinstance(agent.scale, Scale):
        yield _wrong("scale", agent.scale, "a Scale, or left out")


def _containers(agent: Agent) -> Iterator[Misfit]:
    for name in ("outcomes", "adverse", "fallback_alone", "watch"):
        given = getattr(agent, name)
        # A text is a sequence of letters: ("approve") without its comma would be seven outcomes.
        if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(each, str) for each in given):
            yield _wrong(name, given, 'a tuple of texts, such as ("approve", "review")')
    for name, kind in _MAPPINGS:
        given = getattr(agent, name)
        if not isinstance(given, Mapping):
            yield _wrong(name, given, "a mapping from names")
            continue
        for key, entry in given.items():
            if not isinstance(key, str):
                yield Misfit(name, f"has the key {key!r}: names are texts")
            elif not isinstance(entry, kind):
                yield _wrong(f"{name}[{key}]", entry, "a text" if kind is str else f"a {kind.__name__}")
    examples: Any = agent.examples
    if not isinstance(examples, Sequence):
        yield _wrong("examples", examples, "a list of Example")
    else:
        for place, example in enumerate(examples):
            if not isinstance(example, Example):
                yield _wrong(f"examples[{place}]", example, "an Example")


def _models(agent: Agent) -> Iterator[Misfit]:
    wanted = "a class derived from pydantic's BaseModel"
    if not _is_model(agent.features_model):
        yield _wrong("features_model", agent.features_model, wanted)
    for name in ("answer_model", "result_model"):
        given = getattr(agent, name)
        if given is not None and not _is_model(given):
            yield _wrong(name, given, f"{wanted}, or left out")
    if isinstance(agent.scorer, Ask) and not _is_model(agent.scorer.answer):
        yield _wrong("scorer: the answer of Ask", agent.scorer.answer, wanted)


def _functions(agent: Agent) -> Iterator[Misfit]:
    for name, given in _FUNCTIONS:
        function = getattr(agent, name)
        if function is not None or name not in _OPTIONAL:
            yield from _function(name, function, given)
    for name, join in _of(agent.joins, Join):
        if not isinstance(join.topic, TopicSpec):
            yield _wrong(f"joins[{name}].topic", join.topic, "a TopicSpec: make it with change_topic")
        yield from _function(f"joins[{name}].on", join.on, ("the value",))
    for name, window in _of(agent.windows, Window):
        if window.urgent is not None:
            yield from _function(f"windows[{name}].urgent", window.urgent, ("the row",))
    for code, entry in _of(agent.reasons, ReasonCode):
        if entry.holds is not None:
            yield from _function(f"reasons[{code}].holds", entry.holds, ("the features",))


def _function(name: str, function: Any, given: tuple[str, ...]) -> Iterator[Misfit]:
    told = f"it is called with {len(given)}: {', '.join(given)}"
    if not callable(function):
        yield _wrong(name, function, f"a function; {told}")
        return
    at = _place(function)
    if is_async(function):
        yield Misfit(name, "is an async function: make it a plain one, the engine awaits none of them", at)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # made in C without saying what it takes
    try:
        signature.bind(*given)
    except TypeError:
        takes = signature.replace(return_annotation=inspect.Signature.empty)
        yield Misfit(name, f"takes the wrong parameters {takes}: {told}", at)


def _scorers(agent: Agent) -> Iterator[Misfit]:
    given = [("scorer", agent.scorer)] if not isinstance(agent.scorer, Ask) else []
    if agent.fallback is not None:
        given.append(("fallback", agent.fallback))
    for name, scorer in given:
        lacks = [part for part in ("name", "score", "close") if not hasattr(scorer, part)]
        if isinstance(scorer, type) or lacks:
            yield _wrong(name, scorer, "an Ask, or an object with name, score and close (models.contract.Scorer)")


def _of(entries: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """The entries of the right kind; the others are told of already."""
    if isinstance(entries, Mapping):
        yield from ((str(name), entry) for name, entry in entries.items() if isinstance(entry, kind))


def _is_model(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, BaseModel)


def _wrong(name: str, given: Any, wanted: str) -> Misfit:
    what = "missing (None)" if given is None else f"the class {given.__name__}" if isinstance(given, type) else _kind(given)
    return Misfit(name, f"is {what}: it has to be {wanted}", _place(given) if callable(given) else None)


def _kind(given: Any) -> str:
    return f"of type {type(given).__name__}"


def _place(function: Callable[..., Any]) -> tuple[str, int] | None:
    """Where a function was written."""
    while hasattr(function, "func"):
        function = function.func
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else None
