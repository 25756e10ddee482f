"""An agent's fallback tried on its golden examples: what it answers has to be what `decide` reads.

An outage is a bad time to find out. The same scorer is the first tier of a cascade that begins with a scorecard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from agents.engine.examples import prepared, shown
from agents.engine.returned import watched
from agents.engine.spec import DecisionAgent, Example
from models.contract import Answer, Question, Scorer
from models.scorers.daemon_threads import DaemonThreads
from models.scorers.instant import InstantScorer
from models.scorers.python_model import PythonScorer
from models.scorers.scorecard import Scorecard

Agent = DecisionAgent[Any, Any, Any]
LOCAL = (Scorecard, InstantScorer, PythonScorer)
"""Scorers that need no network. What another one would do is not known, so it is not asked."""
SECONDS = 2.0
"""For all examples together; the engine gives a fallback no more for a batch (agents/engine/runtime.py)."""
AFTER = 1.0
"""What is over by so much, in seconds, is not waited for."""


def unfit(agent: Agent) -> list[str]:
    """Why the fallback's answers can not be decided by, each reason once, with the first example that has it.

    For an agent whose examples fit its models; those that come to no question are not asked about. Raises pydantic's
    ValidationError where an example does not fit.
    """
    fallback = agent.fallback
    if not isinstance(fallback, LOCAL):
        return []
    titles: dict[str, list[str]] = {}
    for title, why in _reasons(agent, fallback):
        titles.setdefault(why, []).append(title)
    more = {why: f" and {len(which) - 1} more" if len(which) > 1 else "" for why, which in titles.items()}
    return [f"fallback {fallback.name!r}, example {which[0]!r}{more[why]}: {why}" for why, which in titles.items()]


def _reasons(agent: Agent, fallback: Scorer) -> Iterator[tuple[str, str]]:
    """The title of each example that goes wrong, and why."""
    said: list[str] = []
    held = watched(agent, said)
    asked: list[Example] = []
    questions: list[Question] = []
    for example in agent.examples:
        pipeline, item = prepared(held, example)
        if item.settled is None and item.features is not None:
            asked.append(example)
            questions.append(Question(pipeline.identify(item), item.features))
    for example, answer in zip(asked, _answers(fallback, questions), strict=True):
        why = _no_answer(agent, answer) or _undecided(held, example, answer, said)
        if why is not None:
            yield example.title, why


def _answers(scorer: Scorer, questions: Sequence[Question]) -> Sequence[Answer[Any]]:
    async def ask() -> Sequence[Answer[Any]]:
        return await scorer.score(questions, asyncio.get_running_loop().time() + SECONDS)

    # In a thread with a loop of its own: the caller may stand in a running one, and goes on where this one hangs.
    thread = DaemonThreads(1, "fallback")
    asked = thread.submit(lambda: asyncio.run(ask()))
    try:
        error = asked.exception(SECONDS + AFTER)
    except TimeoutError:
        return [Answer("timeout", why=f"it holds up the event loop for more than {SECONDS + AFTER:g} s")] * len(questions)
    finally:
        thread.close()
    if error is not None:  # an exit too
        return [Answer("invalid", why=f"it ended with {type(error).__name__}")] * len(questions)
    answers = asked.result()
    if len(answers) != len(questions):
        return [Answer("invalid", why=f"it gave {len(answers)} answers to {len(questions)} records")] * len(questions)
    return answers


def _no_answer(agent: Agent, answer: Answer[Any]) -> str | None:
    """Why it is no answer of this agent."""
    if answer.status != "answered":
        return f"it gives no answer ({answer.status}): {answer.why or 'it does not say why'}"
    model, value = agent.answers, answer.value
    if not isinstance(value, model):
        return f"it answers {type(value).__name__} and has to answer {model.__name__}, which decide reads"
    return _invalid(value)


def _invalid(value: BaseModel) -> str | None:
    """What an instance that was made without validation (model_construct, model_copy) holds and must not."""
    model = type(value)
    try:
        model.model_validate(value.model_dump(round_trip=True, warnings=False), by_alias=False, by_name=True)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        return f"its answer is not valid: {model.__name__}.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return None


def _undecided(held: Agent, example: Example, answer: Answer[Any], said: list[str]) -> str | None:
    """Why `decide` can not go by the answer."""
    pipeline, item = prepared(held, example)
    said.clear()  # what features did wrong is told by the example itself
    pipeline.conclude(item, answer, fallback=True)
    why = said[0] if said else shown(item).failure
    return None if why is None else f"decide can not go by its answer: {why}"
