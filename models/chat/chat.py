"""ChatScorer: asks a language model behind any OpenAI-compatible endpoint, and believes nothing that comes back unchecked.

One call of `score` is one request in the ordinary case. Around it, inside the same deadline:
- a request that failed in passing (no connection, 5xx, 408, 409) is sent again at most twice, after a random pause, if the
  line's retry budget allows it;
- a 429 goes back through the gates, first in line, and costs no attempt;
- where the budget of some source partitions is short, the records of the others are asked about without theirs;
- what is missing or invalid in an answer is asked again once; a reply that is of no use to any of several records (prose, broken
  JSON, no text) is asked again in halves, and these in halves while one of two is answered (models/chat/halving.py): an endpoint
  that never says anything of use gets 7 requests for a batch, two for one record. So is a batch that was refused without a reason
  (400, 422, 403), in 3 requests where that brings no answer;
- what an error quotes of a record is no sign of what is wrong (models/chat/quotes.py), and what was asked differently in vain is
  not asked so over and over (models/chat/ladder.py);
- a batch whose reply was cut, that is longer than the context, or that was refused is halved until the halves are answered: one
  record's text can not take its neighbours' answers. One poison in n costs 2 log2(n) requests more. Where every record
  is refused, halving rests (models/chat/refusals.py). So is halved a batch of which most records came back without an answer and
  some with one: servers that cut the request instead of refusing it do that.
Records stand in the request in an order drawn by lot, and the Call names the seed: a model that judges the last of a list worse
than the first judges nobody worse for ever (BatchPrompt, ICLR 2024, has what the position does).

Admission, breaker and budget are gates of the line (models/gates); cascade, cache and masking are Scorers around this one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from models.chat.align import Aligned, Item, align
from models.chat.call_draft import CallDraft
from models.chat.completion import Completion, billed, credible
from models.chat.decisions import DecisionBuilder
from models.chat.dialect import Dialect
from models.chat.ending import ending
from models.chat.endpoint import most_bytes, refusal_of
from models.chat.failures import LONGEST_TEXT, Exhausted, Filtered, Unexplained, Unfit, error_body
from models.chat.halving import Group, halved, halved_in_doubt, parts
from models.chat.hedging import QUIET_SECONDS, Hedging
from models.chat.ladder import Ladder, Ladders
from models.chat.line import Line
from models.chat.prompt import PromptBuilder, Request, Unwritable, image_tokens_of, size_of
from models.chat.refusals import Refusals
from models.chat.scout import Turn
from models.contract import Answer, Ask, CallSink, Question, Status, ignore
from models.gates.gate import Asking, Ended, Refused
from models.gates.passage import Passage
from schemas.audit import CallStatus
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

A = TypeVar("A", bound=BaseModel)

_TRIES = 3
_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
_ADAPTABLE = (400, 422)
Then = Literal["done", "again", "split", "useless", "suspect", "without"]
_IN_DOUBT = {"useless": 2, "suspect": 1}
"""Levels of halves without any answer after which it is the endpoint's fault."""
_SEEDS = 2**31
_FINISHES = ("stop", "length", "tool_calls", "function_call", "content_filter")
"""What is repeated of a finish_reason: why a record has no answer is told in decisions, and nobody else puts words there."""


@dataclass(frozen=True, slots=True)
class _Round(Generic[A]):
    """Answers to the questions of one request, in the order in which `score` got them, and what to do about the rest.

    "again": ask once more about those without an answer; "split": the same, in halves, since what went wrong may be the fault
    of one of them: what the others have meanwhile is provisional. "useless": nobody was answered, and it is not known whether
    one of them is at fault or the endpoint: in halves while that brings answers, one record alone once more. "suspect": refused
    without a reason, and so in halves too, but no further than once without an answer. "without": ask at once about those that
    are of no partition in `short`; nothing was sent. `in_vain`: it was asked differently, and refused all the same.
    """

    answers: list[Answer[A]]
    then: Then = "done"
    short: frozenset[int] = frozenset()
    in_vain: bool = False

    @property
    def answered(self) -> bool:
        """Whether anybody was."""
        return any(answer.status == "answered" for answer in self.answers)

    @property
    def refused(self) -> bool:
        """Whether all were, in one request."""
        return self.then == "split" and all(answer.status == "refused" for answer in self.answers)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Questions in the order in which they stand in a request; `order[i]` is the place of the i-th among those of `score`."""

    questions: list[Question]
    order: list[int]
    seed: int | None


class ChatScorer(Generic[A]):
    """A Scorer of tier "model". Raises ConfigError when made with an Ask that can not be sent.

    `line` is the model it asks, shared with other agents. `on_call` gets a Call for every HTTP request when it ends, whatever
    became of it. `masking` names the policy by which questions were masked before they came here. `hedging` lets a second request
    leave for one that is slow; without it none does.
    """

    def __init__(
        self, ask: Ask[A], line: Line, *, agent: str, on_call: CallSink = ignore, manifest: str | None = None,
        masking: str | None = None, hedging: Hedging | None = None,
    ) -> None:  # fmt: skip
        self._answer = ask.answer
        builder = DecisionBuilder if line.api == "decisions" else PromptBuilder
        self._prompt: PromptBuilder[A] | DecisionBuilder[A] = builder(ask, line.model)
        self._line = line
        self._agent, self._manifest, self._masking, self._on_call = agent, manifest, masking, on_call
        self._hedging = hedging
        self._refusals = Refusals()
        self._ladders = Ladders()
        self._closed = False
        line.hold()

    @property
    def name(self) -> str:
        """The model asked for."""
        return self._line.model

    def room(self, coming: int = 0) -> bool:
        """Whether a request made now would leave soon."""
        pacer = self._line.pacer
        return pacer is None or pacer.room(self._agent, coming)

    def on_room(self, tell: Callable[[], None]) -> None:
        """See models.contract.Paced."""
        if self._line.pacer is not None:
            self._line.pacer.on_room(self._agent, tell)

    def weigh(self, features: BaseModel) -> int:
        """Prompt tokens of a record: text at the tokens per byte that the endpoint has counted so far, images by their marks."""
        size = size_of(features)
        return self._line.tokens.tokens(size) + image_tokens_of(features) if size else 0

    async def close(self) -> None:
        """Let go of the line. Safe to call twice."""
        if not self._closed:
            self._closed = True
            await self._line.close()

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[A]]:
        """One answer per question in order, before `deadline` (loop time)."""
        if not questions:
            return []
        try:
            return await self._score(questions, deadline)
        except Unwritable as fault:
            # Raised while the request was built, before anything was sent: the others are asked without these.
            bad = {id(question): why for question, why in zip(fault.questions, fault.reasons, strict=True)}
            rest = [question for question in questions if id(question) not in bad]
            answered = iter(await self.score(rest, deadline))
            return [
                Answer("invalid", why=bad[id(question)], model_requested=self._line.model)
                if id(question) in bad
                else next(answered)
                for question in questions
            ]

    async def _score(self, questions: Sequence[Question], deadline: float) -> list[Answer[A]]:
        first = list(range(len(questions)))
        answers = dict[int, Answer[A]]()
        repeated, provisional = set[int](), set[int]()
        groups = [Group(part) for part in parts(first, self._prompt.most_records)]
        in_vain = 0
        while groups:
            asking = [self._ask([questions[i] for i in group.places], deadline, in_vain) for group in groups]
            rounds = await asyncio.gather(*asking) if len(asking) > 1 else [await asking[0]]
            if not answers and all(answer.status == "answered" for found in rounds for answer in found.answers):
                self._refusals.answered()
                return [answer for found in rounds for answer in found.answers]
            sound = {group.family for group, found in zip(groups, rounds, strict=True) if found.answered}
            in_vain += any(found.in_vain for found in rounds)
            resting = self._resting(groups, rounds)
            later: list[Group] = []
            for group, found in zip(groups, rounds, strict=True):
                for index, answer in zip(group.places, found.answers, strict=True):
                    stood = index in answers and index not in provisional
                    answers[index] = _later(answers[index], answer) if stood else answer
                provisional.difference_update(group.places)
                rest = [index for index, answer in zip(group.places, found.answers, strict=True) if answer.status != "answered"]
                if found.then == "without":
                    rest = [index for index in rest if questions[index].partition not in found.short]
                    provisional.update(rest)
                    later += [Group(rest, group.family, group.unproven)] if rest else []
                    continue
                halves = [] if group in resting else _halves(group, rest, found.then, group.family in sound)
                provisional.update(rest if halves else ())
                if not halves and found.then in ("again", "useless"):
                    rest = [index for index in rest if index not in repeated]
                    later += [Group(rest)] if rest else []
                if found.then in ("again", "useless"):
                    repeated.update(rest)
                later += halves
            groups = later if asyncio.get_running_loop().time() < deadline else []
        return [_unasked(answers[index]) if index in provisional else answers[index] for index in first]

    def _resting(self, groups: Sequence[Group], rounds: Sequence[_Round[A]]) -> set[Group]:
        """The groups whose refusal is taken for each of their records' own: nobody at all is answered of late."""
        now = asyncio.get_running_loop().time()
        refused = [group for group, found in zip(groups, rounds, strict=True) if found.refused]
        for group in refused:
            if len(group.places) == 1:
                self._refusals.refused_alone()
        if any(found.answered for found in rounds):
            self._refusals.answered()
        return {group for group in refused if len(group.places) > 1 and not self._refusals.may_halve(now)}

    async def _ask(self, questions: Sequence[Question], deadline: float, in_vain: int) -> _Round[A]:
        """One request about all of `questions`, sent again while that can help. `in_vain` as for Ladders."""
        queued = self._line.clock()
        async with self._line.scout.turn(deadline) as turn:
            return await self._attempts(questions, deadline, queued, turn, in_vain)

    async def _attempts(
        self, questions: Sequence[Question], deadline: float, queued: int, turn: Turn, in_vain: int
    ) -> _Round[A]:
        loop = asyncio.get_running_loop()
        ladder: Ladder | None = None
        batch = self._shuffled(questions)
        dialect, attempt, failures, limited = turn.dialect, 0, 0, False
        request = self._prompt.build(batch.questions, dialect)
        while True:
            attempt += 1
            draft = CallDraft(attempt, queued, batch.seed)
            turn.asks(dialect)
            try:
                (completion, aligned), draft = await self._sent(request, dialect, batch, draft, deadline, limited)
            except Refused as refused:
                failed = self._failed(batch, refused.status, refused.why, draft)
                return replace(failed, then="without", short=refused.short) if refused.short else failed
            except TimeoutError:
                if limited and draft.sent_ms is None:
                    return self._failed(batch, "limited", "the endpoint limits the rate, and the deadline came first", draft)
                return self._failed(batch, "timeout", "no answer before the deadline", draft)
            except ModelError as error:
                ladder = ladder or self._ladders.ladder(turn.dialect, in_vain, loop.time())
                other = self._adapted(dialect, error, request, turn, ladder)
                if other is not None:
                    dialect, request = other, self._prompt.build(batch.questions, other)
                    continue
                if isinstance(error, ModelLimited) and not isinstance(error, Exhausted):
                    limited = True
                    if loop.time() + (error.retry_after or 0.0) < deadline:
                        continue
                failures += 1
                pause = self._pause(error, failures, deadline)
                if pause is None:
                    return replace(self._given_up(batch, error, draft), in_vain=ladder.in_vain)
                await asyncio.sleep(pause)
            else:
                self._ladders.answered(dialect, loop.time())
                turn.answered(dialect)  # only now: an endpoint that still refuses was not helped by asking differently
                return self._aligned(batch, completion, aligned, draft)

    def _shuffled(self, questions: Sequence[Question]) -> _Batch:
        order = list(range(len(questions)))
        if len(order) == 1:
            return _Batch(list(questions), order, None)
        seed = int(self._line.chance() * _SEEDS)
        random.Random(seed).shuffle(order)  # noqa: S311  # repeatable from the seed in the Call, on purpose
        return _Batch([questions[place] for place in order], order, seed)

    async def _sent(
        self, request: Request, dialect: Dialect, batch: _Batch, draft: CallDraft, deadline: float, again: bool
    ) -> tuple[tuple[Completion, Aligned[A]], CallDraft]:
        """The request, or where it is slow the first of two that is answered, with the draft of that one.

        At most one hedge for a batch: what was sent again since it failed is not hedged. Nor is a comparison.
        """

        def send(draft: CallDraft) -> Coroutine[Any, Any, tuple[Completion, Aligned[A]]]:
            return self._exchange(request, dialect, batch, draft, deadline, again)

        hedging = self._hedging
        if hedging is None or draft.attempt > 1 or batch.questions[0].purpose != "decision":
            return await send(draft), draft

        def calm() -> bool:
            return self._calm() and hedging.spares(batch.questions)

        return await hedging.race(send, draft, request.reserved, deadline, calm)

    def _calm(self) -> bool:
        """Whether the line can take more than is needed: no 429 or shrinking limit lately, and room for what is needed too."""
        pacer = self._line.pacer
        quiet = asyncio.get_running_loop().time() - self._line.limited_at > QUIET_SECONDS
        return quiet and (pacer is None or pacer.quiet(QUIET_SECONDS)) and self.room()

    async def _exchange(
        self, request: Request, dialect: Dialect, batch: _Batch, draft: CallDraft, deadline: float, again: bool
    ) -> tuple[Completion, Aligned[A]]:
        """One HTTP request, from the gates to its Call. Raises Refused, TimeoutError or ModelError."""
        line, loop = self._line, asyncio.get_running_loop()
        asking = Asking(
            self._agent, line.tokens.tokens(request.text_bytes) + request.image_tokens, request.reserved,
            _by_partition(batch.questions), again,
            line.tokens.most(request.text_bytes, request.data_bytes) + request.image_tokens,
        )  # fmt: skip
        passage = Passage(line.gates, asking, deadline)
        try:
            async with asyncio.timeout_at(deadline) as limit, passage:
                sent_at = loop.time()
                draft.leave(line.clock(), sent_at, asking.tokens)
                passage.ended = Ended("timeout")  # until it is known to have ended otherwise, it counts as cut off
                if draft.attempt == 1 and draft.hedge_of is None:
                    line.retries(sent_at).sent(sent_at)
                try:
                    reply = await line.endpoint.post(
                        request.body, self._prompt.path, most=most_bytes(request.reserved, request.reply_bytes),
                        quotes=request.quotes,
                    )  # fmt: skip
                    draft.first_ms, draft.body = reply.first_ms, reply.body
                    completion = draft.completion = self._prompt.read(reply.body, request)
                except ModelError as error:
                    refusal = refusal_of(error)
                    if refusal is not None:
                        draft.first_ms, draft.body = refusal.first_ms, refusal.body or None
                    passage.ended = ending(error, loop.time() - sent_at, (question.decision_id for question in batch.questions))
                    if isinstance(error, ModelLimited):
                        line.limited_at = loop.time()
                    raise
                except asyncio.CancelledError:
                    if not limit.expired():
                        passage.ended = Ended("cancelled", None, loop.time() - sent_at)
                    raise
                counted = credible(completion.tokens, len(request.body))
                used = billed(completion, counted, request.reserved)
                passage.ended = Ended("served", used, loop.time() - sent_at, None, reply.headers, 200)
            if counted is not None and not request.image_bytes:
                line.tokens.learn(request.text_bytes, counted.input)
            aligned = _with_beside(align(completion.content, request.ids, self._answer), request.ids, completion)
            draft.replied(completion, aligned)
            return completion, aligned
        except TimeoutError:
            draft.status, draft.error = "timeout", "no answer before the deadline"
            raise
        except ModelError as error:
            draft.status, draft.error = _call_status(error), str(error)
            raise
        finally:
            if draft.sent_ms is not None and self._on_call is not ignore:
                parameters = self._prompt.sent(dialect, request.reserved)
                self._on_call(
                    draft.call(
                        request, batch.questions, agent=self._agent, manifest=self._manifest, masking=self._masking,
                        endpoint=line.where, model=line.model, parameters=parameters, done_ms=line.clock(), asking=asking,
                        ended=passage.ended, priced=line.price,
                    )
                )  # fmt: skip

    def _adapted(self, dialect: Dialect, error: ModelError, request: Request, turn: Turn, ladder: Ladder) -> Dialect | None:
        if not isinstance(error, ModelRejected) or error.status not in _ADAPTABLE or isinstance(error, Unfit | Filtered):
            return None
        known = turn.refused(dialect)
        if known is not None:
            return known
        quotes, said = request.quotes, error_body(error.__cause__)
        if self._prompt.adapt(dialect, said, request.reserved) is None:
            return ladder.step(None)  # no sign at all: nothing to compare with records, which takes time where they are long
        if "message" in said:
            said = said | {"message": quotes.unquoted(str(said["message"])[:LONGEST_TEXT])}
        return ladder.step(self._prompt.adapt(dialect, said, request.reserved, None if ladder.doubtful else quotes))

    def _pause(self, error: ModelError, failures: int, deadline: float) -> float | None:
        """Seconds to wait before the same request is sent again; None where that would not help or come too late."""
        if not isinstance(error, ModelUnavailable) or failures >= _TRIES:
            return None
        pause = self._line.chance() * min(_LONGEST_PAUSE, _PAUSE * 2.0**failures)
        now = asyncio.get_running_loop().time()
        return pause if now + pause < deadline and self._line.retries(now).may_retry(now) else None

    def _aligned(self, batch: _Batch, completion: Completion, aligned: Aligned[A], draft: CallDraft) -> _Round[A]:
        if completion.refused:
            # Said of several, the words are kept for none: they may quote any of them.
            raw = completion.refused if len(batch.order) == 1 else None
            why = "the model refused" if completion.finish_reason != "content_filter" else "a content filter cut the reply off"
            return self._failed(batch, "refused", why, draft, "split", raw)
        answers: list[Answer[A]] = []
        end = _ending(completion)
        for position, item in enumerate(aligned.items):
            why = f"{item.why}{end}" if item.why else ""
            answers.append(self._make(item.status, draft, position, why, value=item.value, raw=item.raw))
        # The same request would be cut at the same place; half of it may fit. One record alone was cut by its own limit.
        if completion.cut or _half_seen(aligned):
            return _Round(_back(batch, answers), "split")
        if all(item.status in ("answered", "refused") for item in aligned.items):
            return _Round(_back(batch, answers))  # each was refused for itself: there is no neighbour to be parted from
        return _Round(_back(batch, answers), "again" if any(item.status == "answered" for item in aligned.items) else "useless")

    def _given_up(self, batch: _Batch, error: ModelError, draft: CallDraft) -> _Round[A]:
        # A record that alone is longer than the context is itself the fault: waiting for a better day would not shorten it.
        alone = len(batch.order) == 1
        status = "invalid" if isinstance(error, Unfit) and alone else _answer_status(error)
        if isinstance(error, ModelProtocolError):
            return self._failed(batch, status, str(error), draft, "again")
        then: Then = "split" if isinstance(error, Filtered | Unfit) else "suspect" if isinstance(error, Unexplained) else "done"
        return self._failed(batch, status, str(error), draft, then)

    def _failed(
        self, batch: _Batch, status: Status, why: str, draft: CallDraft, then: Then = "done", raw: Any = None
    ) -> _Round[A]:
        made = [self._make(status, draft, position, why, raw=raw) for position in range(len(batch.order))]
        return _Round(_back(batch, made), then)

    def _make(
        self, status: Status, draft: CallDraft, position: int, why: str, *, value: A | None = None, raw: Any = None
    ) -> Answer[A]:
        sent = draft.sent_ms is not None
        return Answer(
            status=status,
            value=value,
            tier="model",
            why=why,
            raw=raw,
            call_id=draft.call_id if sent else None,
            position=position if sent else None,
            model_requested=self._line.model,
            model_returned=draft.completion.model if draft.completion else None,
            endpoint=self._line.where,
        )


def _with_beside(aligned: Aligned[A], ids: Sequence[str], completion: Completion) -> Aligned[A]:
    """The items with what was said in fact of their records, where the text of the completion only stands for it."""
    if not completion.beside:
        return aligned
    items: list[Item[A]] = []
    for id, item in zip(ids, aligned.items, strict=True):
        said = completion.beside.get(id)
        if said is not None:
            item = replace(item, raw=said.raw) if said.fault is None else Item(said.fault, raw=said.raw, why=said.why)
        items.append(item)
    return replace(aligned, items=tuple(items))


def _back(batch: _Batch, answers: list[Answer[A]]) -> list[Answer[A]]:
    """From the order of the request to the order of the questions."""
    found = list(answers)
    for answer, place in zip(answers, batch.order, strict=True):
        found[place] = answer
    return found


def _later(before: Answer[A], after: Answer[A]) -> Answer[A]:
    """The second answer where it says something about the record; the first where asking again merely failed."""
    return after if after.status in ("answered", "invalid", "missing", "refused") or before.status == "unavailable" else before


def _unasked(provisional: Answer[A]) -> Answer[A]:
    """Where no time was left to ask about the record without its neighbours: what was said of all of them is not its own."""
    return replace(provisional, status="timeout", why=f"no time was left to ask about fewer records at once: {provisional.why}")


def _halves(group: Group, rest: list[int], then: Then, sound: bool) -> list[Group]:
    """The groups in which those are asked about again that a round left without an answer; none where halving is not the way."""
    if then == "split":
        return halved(group, rest)
    return halved_in_doubt(group, rest, sound, _IN_DOUBT[then]) if then in _IN_DOUBT else []


def _ending(completion: Completion) -> str:
    """What the end of a reply has to do with what is missing in it."""
    if completion.cut:
        return "; the reply was cut at its token limit"
    finish = completion.finish_reason if completion.finish_reason in _FINISHES else "unknown"
    return "" if completion.content.strip() else f" (finish_reason {finish})"


def _by_partition(questions: Sequence[Question]) -> Mapping[int, int]:
    return {questions[0].partition: 1} if len(questions) == 1 else Counter(question.partition for question in questions)


def _half_seen(aligned: Aligned[Any]) -> bool:
    """Whether most records are missing though some were answered. Each such reply answers somebody, so splitting ends."""
    counts = Counter(item.status for item in aligned.items)
    return counts["answered"] > 0 and counts["missing"] > len(aligned.items) / 2


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
