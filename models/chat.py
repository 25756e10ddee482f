"""ChatScorer: asks a language model behind any OpenAI-compatible endpoint, and believes nothing that comes back unchecked.

One call of `score` is one request in the ordinary case. Around it, inside the same deadline:
- a request that failed in passing (no connection, 5xx, 408, 409) is sent again at most twice, after a random pause;
- a 429 waits as long as the endpoint asks, if that is before the deadline;
- what is missing or invalid in an answer is asked again once: alone, in halves where the reply was cut or the batch too long,
  one by one where the batch was refused, so that one record's text can not take its neighbours' answers.
Admission, breaker, cascade, cache and budget are wrappers around this Scorer, not parts of it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from models.align import Aligned, align
from models.completion import Completion, read_completion
from models.contract import Answer, Ask, CallSink, Question, Status, ignore
from models.dialect import Dialect, adapt
from models.endpoint import Endpoint
from models.failures import Exhausted, Filtered, Overflow, error_body
from models.prompt import PromptBuilder, Request, Unwritable
from schemas.audit import Call, CallStatus, Tokens
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable
from schemas.wire import rfc3339

A = TypeVar("A", bound=BaseModel)

_TRIES = 3
_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
_ADAPTABLE = (400, 422)


@dataclass(slots=True)
class _Audit:
    """What becomes a Call when the request ends."""

    call_id: str
    attempt: int
    queued_ms: int
    sent_ms: int | None = None
    first_ms: int | None = None
    status: CallStatus = "cancelled"
    error: str | None = None
    body: bytes | None = None
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class _Round(Generic[A]):
    """Answers to one request's questions, and the groups of indices worth asking again."""

    answers: list[Answer[A]]
    again: list[list[int]]


class ChatScorer(Generic[A]):
    """A Scorer of tier "model". Raises ConfigError when made with an Ask, URL or key that can not work.

    `on_call` gets a Call for every HTTP request when it ends, whatever became of it. `concurrency` bounds the requests in
    flight; waiting for a place counts towards the deadline. `clock` gives epoch milliseconds, `chance` numbers in [0, 1).
    """

    def __init__(
        self,
        ask: Ask[A],
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        agent: str,
        on_call: CallSink = ignore,
        concurrency: int = 64,
        manifest: str | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._answer = ask.answer
        self._prompt = PromptBuilder(ask, model)
        self._endpoint = Endpoint(base_url, api_key, connections=concurrency, clock=clock)
        self._slots = asyncio.Semaphore(concurrency)
        self._dialect = Dialect()
        self._model, self._agent, self._manifest, self._on_call = model, agent, manifest, on_call
        self._clock, self._chance = clock, chance

    @property
    def name(self) -> str:
        """The model asked for."""
        return self._model

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._endpoint.close()

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[A]]:
        """One answer per question in order, before `deadline` (loop time)."""
        if not questions:
            return []
        try:
            return await self._score(questions, deadline)
        except Unwritable as fault:
            # Raised while the request was built, before anything was sent: the others are asked without these.
            unsent: Answer[A] = Answer("invalid", why="the features can not be written as JSON", model_requested=self._model)
            answers = dict.fromkeys(fault.places, unsent)
            rest = [place for place in range(len(questions)) if place not in answers]
            answers |= zip(rest, await self.score([questions[place] for place in rest], deadline), strict=True)
            return [answers[place] for place in range(len(questions))]

    async def _score(self, questions: Sequence[Question], deadline: float) -> list[Answer[A]]:
        first = await self._ask(questions, deadline)
        answers = first.answers
        if first.again and asyncio.get_running_loop().time() < deadline:
            rounds = await asyncio.gather(*(self._ask([questions[i] for i in group], deadline) for group in first.again))
            for group, later in zip(first.again, rounds, strict=True):
                for index, answer in zip(group, later.answers, strict=True):
                    answers[index] = _later(answers[index], answer)
        return answers

    async def _ask(self, questions: Sequence[Question], deadline: float) -> _Round[A]:
        """One request about all of `questions`, sent again while that can help."""
        queued, dialect, attempt, failures = self._clock(), self._dialect, 0, 0
        request = self._prompt.build(questions, dialect)
        while True:
            attempt += 1
            audit = _Audit(secrets.token_hex(16), attempt, queued)
            try:
                completion, aligned = await self._exchange(request, dialect, questions, audit, deadline)
            except TimeoutError:
                return self._failed(questions, "timeout", "no answer before the deadline", audit)
            except ModelError as error:
                other = self._adapted(dialect, error)
                if other is not None:
                    dialect, request = other, self._prompt.build(questions, other)
                    continue
                failures += 1
                pause = self._pause(error, failures, deadline)
                if pause is None:
                    return self._given_up(questions, error, audit)
                await asyncio.sleep(pause)
            else:
                self._dialect = dialect  # only now: an endpoint that still refuses was not helped by asking differently
                return self._aligned(questions, completion, aligned, audit)

    async def _exchange(
        self, request: Request, dialect: Dialect, questions: Sequence[Question], audit: _Audit, deadline: float
    ) -> tuple[Completion, Aligned[A]]:
        """One HTTP request, from waiting for a place to its Call. Raises TimeoutError or ModelError."""
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                audit.sent_ms = self._clock()
                reply = await self._endpoint.post(request.body)
            audit.first_ms, audit.body = reply.first_ms, reply.body
            completion = audit.completion = read_completion(reply.body)
            aligned = align(completion.content, request.ids, self._answer)
            audit.status = "refused" if completion.refused else "ok" if aligned.whole and not completion.cut else "partial"
            audit.error = _summary(completion, aligned)
            return completion, aligned
        except TimeoutError:
            audit.status, audit.error = "timeout", "no answer before the deadline"
            raise
        except ModelError as error:
            audit.status, audit.error = _call_status(error), str(error)
            raise
        finally:
            if audit.sent_ms is not None:
                self._on_call(self._call(audit, request, dialect, questions))

    def _adapted(self, dialect: Dialect, error: ModelError) -> Dialect | None:
        if not isinstance(error, ModelRejected) or error.status not in _ADAPTABLE or isinstance(error, Overflow | Filtered):
            return None
        return adapt(dialect, error_body(error.__cause__))

    def _pause(self, error: ModelError, failures: int, deadline: float) -> float | None:
        """Seconds to wait before the same request is sent again; None where that would not help or come too late."""
        pause = self._chance() * min(_LONGEST_PAUSE, _PAUSE * 2.0**failures)
        if isinstance(error, ModelLimited) and error.retry_after:
            # A little more than asked for, so that those who were limited together do not come back together.
            pause += error.retry_after
        elif not isinstance(error, ModelUnavailable | ModelLimited) or isinstance(error, Exhausted) or failures >= _TRIES:
            return None
        return pause if asyncio.get_running_loop().time() + pause < deadline else None

    def _aligned(self, questions: Sequence[Question], completion: Completion, aligned: Aligned[A], audit: _Audit) -> _Round[A]:
        indices = list(range(len(questions)))
        if completion.refused:
            failed = self._failed(questions, "refused", f"the model refused: {completion.refused}", audit)
            return _Round(failed.answers, [[i] for i in indices] if len(indices) > 1 else [])
        answers: list[Answer[A]] = []
        for position, item in enumerate(aligned.items):
            why = f"{item.why}; the reply was cut at its token limit" if completion.cut and item.why else item.why
            answers.append(self._make(item.status, audit, position, why, value=item.value, raw=item.raw))
        rest = [i for i in indices if answers[i].status != "answered"]
        if not completion.cut:
            return _Round(answers, [rest] if rest else [])
        # The same request would be cut at the same place; half of it may fit. One record alone was cut by its own limit.
        return _Round(answers, _halves(rest) if len(indices) > 1 else [])

    def _given_up(self, questions: Sequence[Question], error: ModelError, audit: _Audit) -> _Round[A]:
        several = list(range(len(questions))) if len(questions) > 1 else []
        # A record that alone is longer than the context is itself the fault: waiting for a better day would not shorten it.
        status = "invalid" if isinstance(error, Overflow) and not several else _answer_status(error)
        failed = self._failed(questions, status, str(error), audit)
        if isinstance(error, ModelProtocolError):
            return _Round(failed.answers, [list(range(len(questions)))])
        if isinstance(error, Filtered):
            return _Round(failed.answers, [[i] for i in several])
        return _Round(failed.answers, _halves(several) if isinstance(error, Overflow) else [])

    def _failed(self, questions: Sequence[Question], status: Status, why: str, audit: _Audit) -> _Round[A]:
        return _Round([self._make(status, audit, position, why) for position in range(len(questions))], [])

    def _make(
        self, status: Status, audit: _Audit, position: int, why: str, *, value: A | None = None, raw: Any = None
    ) -> Answer[A]:
        sent = audit.sent_ms is not None
        return Answer(
            status=status,
            value=value,
            tier="model",
            why=why,
            raw=raw,
            call_id=audit.call_id if sent else None,
            position=position if sent else None,
            model_requested=self._model,
            model_returned=audit.completion.model if audit.completion else None,
        )

    def _call(self, audit: _Audit, request: Request, dialect: Dialect, questions: Sequence[Question]) -> Call:
        completion = audit.completion
        return Call(
            call_id=audit.call_id,
            agent=self._agent,
            attempt=audit.attempt,
            manifest=self._manifest,
            endpoint=self._endpoint.where,
            parameters={**self._prompt.parameters(dialect), dialect.limit: request.reserved},
            model_requested=self._model,
            model_returned=completion.model if completion else None,
            request_hash=sha256(request.body).hexdigest(),
            response_hash=sha256(audit.body).hexdigest() if audit.body is not None else None,
            records=[question.decision_id for question in questions],
            nonce=request.nonce,
            status=audit.status,
            error=audit.error,
            finish_reason=completion.finish_reason if completion else None,
            tokens_reserved=request.reserved,
            tokens=completion.tokens if completion else Tokens(),
            queued_at=rfc3339(audit.queued_ms),
            sent_at=rfc3339(audit.sent_ms),
            first_at=rfc3339(audit.first_ms),
            done_at=rfc3339(self._clock()),
        )


def _later(before: Answer[A], after: Answer[A]) -> Answer[A]:
    """The second answer where it says something about the record; the first where asking again merely failed."""
    return after if after.status in ("answered", "invalid", "missing", "refused") or before.status == "unavailable" else before


def _halves(indices: list[int]) -> list[list[int]]:
    middle = (len(indices) + 1) // 2
    return [half for half in (indices[:middle], indices[middle:]) if half]


def _answer_status(error: ModelError) -> Status:
    if isinstance(error, Filtered):
        return "refused"
    if isinstance(error, ModelLimited):
        return "limited"
    # A body that is no completion is the endpoint's fault, not the records': it is as good as not there.
    return "rejected" if isinstance(error, ModelRejected) else "unavailable"


def _call_status(error: ModelError) -> CallStatus:
    if isinstance(error, ModelProtocolError):
        return "protocol"
    status = _answer_status(error)
    return status if status in ("refused", "limited", "rejected") else "unavailable"


def _summary(completion: Completion, aligned: Aligned[Any]) -> str | None:
    """What was wrong with a reply, in counts; None where nothing was."""
    if completion.refused:
        return completion.refused
    counts = {status: sum(item.status == status for item in aligned.items) for status in ("invalid", "missing")}
    counts |= {"foreign": aligned.foreign, "duplicate": aligned.duplicates, "cut": int(completion.cut)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or None
