"""Cached: the same question is asked of the same model once, however often it comes and however many ask it at a time.

The key is the SHA-256 of tenant, manifest, model and the question as the model sees it, masked. A manifest is the hash of prompt,
schemas, policy and parameters: change one of them, and nothing of before is found. What is kept is the raw answer, and it is
validated anew each time; whatever does not pass is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from models.cache.single_flight import SingleFlight
from models.cache.store import AnswerStore, Scope
from models.chat.align import checked
from models.chat.prompt import put
from models.contract import Answer, Question, Scorer
from models.wrapper import Wrapper

A = TypeVar("A", bound=BaseModel)
Seat = asyncio.Future["Answer[Any] | None"]
"""Where one waits who asks what is being asked. It gets the answer; None says: ask yourself."""
_SEAL = 8


@dataclass(slots=True)
class CacheStats:
    """Questions found, answered together with another, asked of the model, and answers kept; since the start."""

    hits: int = 0
    shared: int = 0
    misses: int = 0
    stored: int = 0


class _Kept(BaseModel):
    """The body of an entry: what is needed to give the answer again."""

    raw: dict[str, Any]
    call_id: str | None
    position: int | None
    model_returned: str | None
    endpoint: str | None


@dataclass(slots=True)
class _Asked:
    """One call of `score`. `keys[i]` is None for a question that can not be written; `answers` fills up."""

    questions: Sequence[Question]
    keys: Sequence[bytes | None]
    deadline: float
    answers: list[Answer[Any] | None] = field(default_factory=list)


class Cached(Wrapper, Generic[A]):
    """A Scorer around `inner`, whose `name` is the model that is preferred: only its own answers are kept in `store`.

    A fallback's answer (another `model_requested`, or a way through a failover in `tiers`) is shared with those who asked at the
    same time, and not kept. Neither are scorecards, nor anything that is no answer. `answer` is the type of the answers.
    """

    def __init__(self, inner: Scorer, store: AnswerStore, answer: type[A], scope: Scope) -> None:
        self.stats = CacheStats()
        super().__init__(inner)
        self._store = store
        self._answer = answer
        self._scope = scope
        self._flights = SingleFlight[Seat]()
        self._fresh: dict[bytes, Answer[Any]] = {}  # answers on their way into the store, where nobody finds them yet
        self._putting = set[asyncio.Task[None]]()
        self._closed = False
        store.hold()

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """One answer per question in order, before `deadline` (loop time); those in the cache wait for those beside them."""
        asked = _Asked(questions, [self._key(question) for question in questions], deadline, [None] * len(questions))
        lead: list[int] = []
        seats: dict[int, Seat] = {}
        for index, key in enumerate(asked.keys):
            if key is not None and (fresh := self._fresh.get(key)) is not None:
                asked.answers[index] = replace(fresh, cache="shared")
                self.stats.shared += 1
            elif key is None or self._flights.lead(key, deadline):
                lead.append(index)
            else:
                seats[index] = asyncio.get_running_loop().create_future()
                self._flights.wait(key, seats[index], deadline)
        if seats:
            await self._lead_and_wait(asked, lead, seats)
        elif lead:
            await self._lead(asked, lead)
        return [answer for answer in asked.answers if answer is not None]

    async def _lead(self, asked: _Asked, indices: Sequence[int], look: bool = True) -> None:
        """Answer those nobody else asks; `look` says whether they may be in the store."""
        try:
            rest = await self._find(asked, indices) if look else indices
            if rest:
                answers = await self._inner.score([asked.questions[index] for index in rest], asked.deadline)
                self.stats.misses += len(rest)
                self._hear(asked, rest, answers)
        finally:
            # Cancelled, or a defect of the scorer within: whoever waits for these asks itself.
            for index in indices:
                key = asked.keys[index]
                if key is not None and asked.answers[index] is None:
                    self._fail(key, None)

    async def _find(self, asked: _Asked, indices: Sequence[int]) -> list[int]:
        """Answer what the store has, and give the rest."""
        keys = [key for index in indices if (key := asked.keys[index]) is not None]
        found = await self._store.get(keys) if keys else {}
        rest = []
        for index in indices:
            key = asked.keys[index]
            body = found.get(key) if key is not None else None
            answer = self._read(key, body) if key is not None and body is not None else None
            if key is None or answer is None:
                rest.append(index)
            else:
                self.stats.hits += 1
                asked.answers[index] = answer
                self._share(key, answer)
        return rest

    def _hear(self, asked: _Asked, indices: Sequence[int], answers: Sequence[Answer[Any]]) -> None:
        """What the scorer within said."""
        keep: dict[bytes, bytes] = {}
        for index, answer in zip(indices, answers, strict=True):
            asked.answers[index] = answer
            key = asked.keys[index]
            if key is None:
                continue
            if answer.status != "answered":
                self._fail(key, answer)
                continue
            if (body := self._write(key, answer)) is not None:
                keep[key] = body
                self._fresh[key] = answer
            self._share(key, answer)
        if keep:
            task = asyncio.ensure_future(self._put(keep))
            self._putting.add(task)
            task.add_done_callback(self._putting.discard)

    async def _put(self, entries: Mapping[bytes, bytes]) -> None:
        try:
            stored = await self._store.put(self._scope, entries)
            self.stats.stored += stored  # not in one line with the await: others count meanwhile
        finally:
            for key in entries:
                self._fresh.pop(key, None)

    # ---- those who ask the same at the same time -----------------------------------------------------------------------
    async def _lead_and_wait(self, asked: _Asked, lead: list[int], seats: dict[int, Seat]) -> None:
        """Answer some, and wait for what others get about the rest; whoever is told to ask itself does so at once."""
        now = asyncio.get_running_loop().time
        running: set[asyncio.Task[None]] = {asyncio.ensure_future(self._lead(asked, lead))} if lead else set()
        try:
            while seats or running:
                patience = max(0.0, asked.deadline - now()) if seats else None
                under_way: set[asyncio.Future[Any]] = {*seats.values(), *running}
                await asyncio.wait(under_way, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    running.remove(task)
                    task.result()
                if turns := self._told(asked, seats):
                    running.add(asyncio.ensure_future(self._lead(asked, turns, look=False)))
                if seats and now() >= asked.deadline:
                    self._give_up(asked, seats)
        finally:
            for index, seat in seats.items():
                self._leave(asked.keys[index], seat)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _told(self, asked: _Asked, seats: dict[int, Seat]) -> list[int]:
        """Take the answers that came; whose turn it is to ask."""
        turns = []
        for index in [index for index, seat in seats.items() if seat.done()]:
            answer = seats.pop(index).result()
            if answer is None:
                turns.append(index)
            else:
                asked.answers[index] = answer
                self.stats.hits += answer.cache == "hit"
                self.stats.shared += answer.cache == "shared"
        return turns

    def _give_up(self, asked: _Asked, seats: dict[int, Seat]) -> None:
        for index, seat in seats.items():
            self._leave(asked.keys[index], seat)
            why = "no answer before the deadline to the same question, asked by another"
            asked.answers[index] = Answer("timeout", why=why, model_requested=self.name)
        seats.clear()

    def _share(self, key: bytes, answer: Answer[Any]) -> None:
        for seat in self._flights.answered(key):
            _tell(seat, replace(answer, cache=answer.cache or "shared"))

    def _fail(self, key: bytes, answer: Answer[Any] | None) -> None:
        """Who asked has no answer; None: it was cancelled. A budget is spent for one partition, not for a question."""
        says = answer is not None and answer.status != "budget"
        heirs, successor = self._flights.failed(key, asyncio.get_running_loop().time(), inherit=says)
        for seat in heirs:
            _tell(seat, replace(answer, cache="shared") if answer is not None else None)
        if successor is not None:
            _tell(successor, None)

    def _leave(self, key: bytes | None, seat: Seat) -> None:
        assert key is not None  # what can not be written waits for nobody
        if seat.done() and seat.result() is None:
            self._fail(key, None)  # it was its turn, and it will not take it
        else:
            self._flights.leave(key, seat)

    # ---- keys and entries ----------------------------------------------------------------------------------------------
    def _key(self, question: Question) -> bytes | None:
        scope = self._scope
        try:
            whose = [scope.tenant, scope.manifest, scope.endpoint, self.name]
            said = orjson.dumps([*whose, put(question)], option=orjson.OPT_SORT_KEYS)
        except Exception:  # noqa: BLE001  # the prompt writes some of these all the same, and says which it can not write
            return None
        return sha256(said).digest()

    def _write(self, key: bytes, answer: Answer[Any]) -> bytes | None:
        """The entry for an answer, or None for one that is not kept."""
        if answer.tier != "model" or answer.tiers or answer.model_requested != self.name or not isinstance(answer.raw, dict):
            return None
        kept = {
            "raw": answer.raw, "call_id": answer.call_id, "position": answer.position,
            "model_returned": answer.model_returned, "endpoint": answer.endpoint,
        }  # fmt: skip
        try:
            body = orjson.dumps(kept)
        except TypeError:
            return None
        return _seal(key, body) + body

    def _read(self, key: bytes, entry: bytes) -> Answer[Any] | None:
        """The answer in an entry; None for one that is damaged, or that is no answer any longer."""
        seal, body = entry[:_SEAL], entry[_SEAL:]
        if seal != _seal(key, body):
            return None
        try:
            kept = _Kept.model_validate_json(body)
        except ValidationError:
            return None
        item = checked(kept.raw, self._answer)
        if item.status != "answered":
            return None
        return Answer(
            "answered", item.value, "model", raw=kept.raw, call_id=kept.call_id, position=kept.position,
            model_requested=self.name, model_returned=kept.model_returned, endpoint=kept.endpoint, cache="hit",
        )  # fmt: skip

    # ---- the rest of the contract --------------------------------------------------------------------------------------
    async def close(self) -> None:
        """Keep what was answered, then close the scorer within and let go of the store. Safe to call twice."""
        await asyncio.gather(*self._putting, return_exceptions=True)
        await self._inner.close()
        if not self._closed:
            self._closed = True
            await self._store.close()


def _tell(seat: Seat, answer: Answer[Any] | None) -> None:
    if not seat.done():
        seat.set_result(answer)


def _seal(key: bytes, body: bytes) -> bytes:
    """Tells a damaged body, and one that lies under another's key: a disk may change a digit and leave the JSON whole."""
    return sha256(key + body).digest()[:_SEAL]
