"""PythonScorer: a user's own Python model (scikit-learn, a rule engine, anything callable) behind the Scorer contract.

    def predict(features: list[MachineFeatures]) -> list[dict]:
        return [{"risk": risk} for risk in estimator.predict([[f.torque, f.speed] for f in features])]

    scorer=PythonScorer(predict, answer=QualityAnswer)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from models.chat.field_names import names_of, place
from models.contract import Answer, Question
from models.scorers.daemon_threads import DaemonThreads

A = TypeVar("A", bound=BaseModel)
Function = Callable[[list[Any]], Sequence[Any]]


class PythonScorer(Generic[A]):
    """A Scorer of tier "python". `function` gets the features of a batch and gives as many answers: models or mappings.

    It runs in one of `threads` threads of its own, so it never holds up the event loop; it must be safe to run in that many
    at once. A function can not be interrupted: past the deadline its answers are "timeout" while it runs on, and holds its
    thread; the process ends without it. A batch that raises (an exit too) or gives another count is asked again record by
    record, so that one record spoils only itself.
    """

    def __init__(self, function: Function, *, answer: type[A], name: str | None = None, threads: int = 1) -> None:
        self._function = function
        self._answer = answer
        self._name: str = name or getattr(function, "__name__", "") or type(function).__name__
        self._threads = DaemonThreads(threads, f"scorer-{self._name}")

    @property
    def name(self) -> str:
        """The function's name, or the one given."""
        return self._name

    async def close(self) -> None:
        """Let the threads end; a function that still runs is not waited for, what waits is "unavailable". Safe to call twice."""
        self._threads.close()

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[A]]:
        """One answer per question in order, before `deadline` (loop time)."""
        if not questions:
            return []
        features = [question.features for question in questions]
        said = await self._run(features, deadline)
        if len(questions) > 1 and isinstance(said, Answer) and said.status == "invalid":
            alone = [await self._run([one], deadline) for one in features]
            return [self._check(one if isinstance(one, Answer) else one[0], place) for place, one in enumerate(alone)]
        return [self._check(said if isinstance(said, Answer) else said[place], place) for place in range(len(questions))]

    async def _run(self, features: list[BaseModel], deadline: float) -> Sequence[Any] | Answer[A]:
        """As many answers as features; or the Answer that all of them get."""
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            return self._no("timeout", "no answer before the deadline")
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.wrap_future(self._threads.submit(partial(self._ask, features)))
        except TimeoutError:
            return self._no("timeout", "no answer before the deadline")
        except RuntimeError:
            return self._no("unavailable", f"{self._name} is closed")

    def _ask(self, features: list[BaseModel]) -> Sequence[Any] | Answer[A]:
        """In the thread: whatever the function does comes back as a value."""
        try:
            said = list(self._function(features))
        except BaseException as error:  # noqa: BLE001  # somebody's model: whatever it raises is a data fault, and no signal's
            # The type only: a message may quote the record.
            return self._no("invalid", f"{self._name} failed with {type(error).__name__}")
        if len(said) != len(features):
            return self._no("invalid", f"{self._name} gave {len(said)} answers to {len(features)} records")
        return said

    def _check(self, said: Any, position: int) -> Answer[A]:
        if isinstance(said, Answer):
            return Answer(said.status, tier="python", why=said.why, position=position)
        try:
            value = said if isinstance(said, self._answer) else self._answer.model_validate(said)
        except ValidationError as error:
            problems = error.errors(include_input=False)[:3]
            fields = ", ".join(place(problem["loc"], names_of(self._answer)) for problem in problems)
            raw = dict(said) if isinstance(said, Mapping) else None
            return Answer("invalid", tier="python", why=f"{self._name} gave no valid {fields}", raw=raw, position=position)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a validator of the agent's own
            why = f"checking the answer of {self._name} failed with {type(error).__name__}"
            return Answer("invalid", tier="python", why=why, position=position)
        raw = value.model_dump(mode="json")
        return Answer("answered", value, "python", raw=raw, position=position, model_returned=self._name)

    def _no(self, status: Any, why: str) -> Answer[A]:
        return Answer(status, tier="python", why=why)
