"""Moderation: an OpenAI-compatible `/moderations` endpoint is asked about the texts of records before a model is.

What it flags is answered "refused" and not asked of the model. What it does not answer for is not waved through either. Both are
`stopped`: no fallback answers them in its place.

It is an endpoint like any other: it has gates of its own, and what failed in passing is sent again from a retry budget.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from models.chat.ending import ending
from models.chat.endpoint import Endpoint
from models.chat.failures import Exhausted, Filtered, Unexplained, Unfit
from models.chat.line import Pacer
from models.chat.quotes import Quotes
from models.contract import Answer, Question, Scorer, Status
from models.gates.gate import Asking, Ended, Gate, Refused
from models.gates.passage import Passage
from models.gates.retry_budget import RetryBudget
from models.masking.untrusted import untrusted_texts
from models.wrapper import Wrapper
from schemas.audit import Tokens
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

SHARE: Final = 1 / 3
"""Part of the time left that moderation may take."""
MOST_TEXTS: Final = 32
MOST_BYTES: Final = 100_000
_PATH: Final = "/moderations"
_NAME: Final = re.compile(r"[A-Za-z0-9_/-]{1,40}")
_OF_A_TEXT: Final = (ModelProtocolError, Unexplained, Unfit, Filtered)
"""What may be due to one text: a wrong key, address or model, a limit or an outage is not."""
_PAUSE: Final = 0.1
_TRIES: Final = 2
SAID: Final = "moderation: "
"""How the `why` of each answer begins that was given here."""
SETTING: Final = "HEADRACE_MODERATION"
_WORDS: Final = (
    ("HEADRACE_MODEL_API_KEY", f"the api_key of {SETTING}"), ("HEADRACE_MODEL_NAME", f"the name of {SETTING}"),
    ("HEADRACE_MODEL_BASE_URL", f"the base_url of {SETTING}"), ("the API that HEADRACE_MODEL_API names", "the moderations API"),
)  # fmt: skip
"""What errors of endpoints say for a model (models/chat/failures.py), and what that is here."""
_BYTES_A_TOKEN: Final = 4


class Said(NamedTuple):
    """What one record says, the source partition it is of, and the decision that it is for."""

    text: str
    partition: int = 0
    id: str = ""


class _Found(NamedTuple):
    """What stops each record of a request, whether the endpoint said so, and if not, whether one of the texts may be why."""

    verdicts: Sequence[Answer[Any] | None]
    answered: bool = True
    of_a_text: bool = False


class Moderated(Wrapper):
    """A Scorer around `inner`, which is asked about what `endpoint` has nothing against only.

    The texts of a call go there in one request, or a few where they are many, as masked as they are: it has to stand inside a
    Redact. A request that is refused is asked again in halves, so that one text does not cost the others. `model` names a
    moderation model; without one the endpoint chooses. `flagged` and `unanswered` count records.

    It belongs around all who could answer, a whole cascade and its scorecard included: asked before each of several models it
    might let through what it flagged a moment ago, and what is flagged is for a person to decide. So while it does not answer,
    no record with a text is answered, by a scorecard as little as by a model.

    `gates` stand before each request of `agent` in this order, and `retries` says how often one may be sent again: both may be
    shared by all who ask the endpoint. Without `retries` there is a budget of its own. `pacer` is the one of the gates, if any,
    that knows how much they let through.
    """

    def __init__(
        self, inner: Scorer, endpoint: Endpoint, *, model: str | None = None, gates: Sequence[Gate] = (),
        retries: RetryBudget | None = None, agent: str = "moderation", pacer: Pacer | None = None,
    ) -> None:  # fmt: skip
        self.flagged = 0
        self.unanswered = 0
        super().__init__(inner)
        self._endpoint = endpoint
        self._model = {} if model is None else {"model": model}
        self._gates = tuple(gates)
        self._retries = retries or RetryBudget(0.0)
        self._agent, self._pacer = agent, pacer

    @property
    def where(self) -> str:
        """The moderation endpoint, without credentials."""
        return self._endpoint.where

    def room(self, coming: int = 0) -> bool:
        """Whether both the endpoint and the scorer within have it."""
        return (self._pacer is None or self._pacer.room(self._agent, coming)) and super().room(coming)

    def on_room(self, tell: Callable[[], None]) -> None:
        """By the endpoint, and by the scorer within."""
        if self._pacer is not None:
            self._pacer.on_room(self._agent, tell)
        super().on_room(tell)

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in its order."""
        texts = [_text(question) for question in questions]
        asked = [index for index, text in enumerate(texts) if text]
        stopped = {index: _unreadable() for index, text in enumerate(texts) if text is None}
        if asked:
            said = [Said(texts[index] or "", questions[index].partition, questions[index].decision_id) for index in asked]
            verdicts = await self._verdicts(said, deadline)
            stopped |= {index: answer for index, answer in zip(asked, verdicts, strict=True) if answer is not None}
        passed = [question for index, question in enumerate(questions) if index not in stopped]
        answered = iter(await self._inner.score(passed, deadline) if passed else ())
        return [stopped[index] if index in stopped else next(answered) for index in range(len(questions))]

    async def _verdicts(self, said: Sequence[Said], deadline: float) -> Sequence[Answer[Any] | None]:
        """For each text the answer that stops its record, or None."""
        clock = asyncio.get_running_loop().time
        verdicts: list[Answer[Any] | None] = []
        until = clock() + (deadline - clock()) * SHARE
        for some in chunks(said):
            verdicts += await self._of_some(some, until)
        self.flagged += sum(verdict is not None and verdict.status == "refused" for verdict in verdicts)
        self.unanswered += sum(verdict is not None and verdict.status != "refused" for verdict in verdicts)
        return verdicts

    async def _of_some(self, said: Sequence[Said], until: float) -> Sequence[Answer[Any] | None]:
        """The same for texts that fit into one request; what is wrong with it alone may be wrong with one of them alone.

        So it is asked about in halves, as long as a level of halves brings any answer, or the endpoint takes single texts only.
        """
        verdicts: list[Answer[Any] | None] = [None] * len(said)
        groups, first = [range(len(said))], True
        while groups:
            rounds = await asyncio.gather(*(self._of_group(said[group.start : group.stop], until) for group in groups))
            halves: list[range] = []
            for group, found in zip(groups, rounds, strict=True):
                verdicts[group.start : group.stop] = found.verdicts
                if found.of_a_text and len(group) > 1:
                    half = len(group) // 2
                    halves += [group[:half], group[half:]]
            if halves and not first and not any(found.answered for found in rounds):
                alone = await self._of_group(said[halves[0].start : halves[0].start + 1], until)
                halves = halves if alone.answered else []
            groups, first = halves, False
        return verdicts

    async def _of_group(self, said: Sequence[Said], until: float) -> _Found:
        """What one request, sent again while that can help, says of its texts."""
        status: Status
        of_a_text = False
        try:
            categories = await self._ask(said, until)
        except TimeoutError:
            status, why = "unavailable", "it did not answer in its part of the time"
        except Refused as refused:
            status, why = refused.status, refused.why
        except ModelError as error:
            status, why, of_a_text = _status(error), str(error), isinstance(error, _OF_A_TEXT)
        else:
            return _Found([None if each is None else Answer("refused", why=f"{SAID}{each}", stopped=True) for each in categories])
        return _Found([Answer(status, why=_told(why), stopped=True)] * len(said), answered=False, of_a_text=of_a_text)

    async def _ask(self, said: Sequence[Said], until: float) -> list[str | None]:
        """For each text the categories it was flagged for, or None. Raises Refused, TimeoutError or ModelError."""
        now = asyncio.get_running_loop().time
        body = orjson.dumps({**self._model, "input": [one.text.encode("utf-8", "replace").decode() for one in said]})
        partitions = Counter(one.partition for one in said)
        asking = Asking(self._agent, len(body) // _BYTES_A_TOKEN, 0, partitions, most_input=len(body))
        self._retries.sent(now())
        tries = 0
        while True:
            try:
                return await self._post(body, said, asking, until)
            except (ModelUnavailable, ModelLimited) as error:
                limited = isinstance(error, ModelLimited)
                pause = (error.retry_after if isinstance(error, ModelLimited) else None) or _PAUSE
                if isinstance(error, Exhausted) or now() + pause >= until:
                    raise
                tries += not limited  # a 429 costs no try: it is waited for, as long as there is time
                if not limited and (tries >= _TRIES or not self._retries.may_retry(now())):
                    raise
                asking = replace(asking, again=limited)
                await asyncio.sleep(pause)

    async def _post(self, body: bytes, said: Sequence[Said], asking: Asking, until: float) -> list[str | None]:
        """One HTTP request, through the gates."""
        now = asyncio.get_running_loop().time
        async with asyncio.timeout_at(until) as limit, Passage(self._gates, asking, until) as passage:
            sent_at = now()
            passage.ended = Ended("timeout")  # until it is known to have ended otherwise
            try:
                reply = await self._endpoint.post(body, _PATH, quotes=Quotes([{"text": one.text} for one in said], body))
                found = read_moderation(reply.body, len(said))
            except ModelError as error:
                passage.ended = ending(error, now() - sent_at, (one.id for one in said))
                raise
            except asyncio.CancelledError:
                if not limit.expired():
                    passage.ended = Ended("cancelled", None, now() - sent_at)
                raise
            # It says nothing of tokens: what was estimated is taken for what it used.
            passage.ended = Ended("served", Tokens(input=asking.input_tokens), now() - sent_at, None, reply.headers, 200)
            return found

    async def close(self) -> None:
        """Close the endpoint and the scorer within."""
        try:
            await self._endpoint.close()
        finally:
            await self._inner.close()


def read_moderation(body: bytes, count: int) -> list[str | None]:
    """For each of `count` inputs None, or the categories that it was flagged for.

    Raises ModelProtocolError for anything but one sound result for each: a result that is missing is no permission.
    """
    try:
        results = orjson.loads(body)["results"]
        read = [_categories(result) for result in results]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise ModelProtocolError("reading a moderation: the body has no results as OpenAI's have them") from None
    if len(read) != count:
        raise ModelProtocolError(f"reading a moderation: {len(read)} results for {count} texts")
    return read


def _categories(result: dict[str, Any]) -> str | None:
    flagged, categories = result["flagged"], result.get("categories") or {}
    if not isinstance(flagged, bool):
        raise TypeError
    # Names go into logs and audits: one that is no name may be anything.
    hits = {name if _NAME.fullmatch(name) else "other" for name, hit in categories.items() if hit is True}
    named = ", ".join(sorted(hits))
    return (named[:200] or "unspecified") if flagged else None


def chunks(said: Sequence[Said]) -> Iterator[Sequence[Said]]:
    """The texts in order, in pieces of at most MOST_TEXTS texts and, where it is not one alone, MOST_BYTES bytes."""
    start = size = 0
    for index, one in enumerate(said):
        bytes_ = len(one.text.encode("utf-8", "replace"))
        if index > start and (index - start == MOST_TEXTS or size + bytes_ > MOST_BYTES):
            yield said[start:index]
            start, size = index, 0
        size += bytes_
    if said:
        yield said[start:]


def _text(question: Question) -> str | None:
    """What the record says, in one piece; None where it can not be read."""
    try:
        return "\n".join(text for text in untrusted_texts(question) if text.strip())
    except Exception:  # noqa: BLE001  # one record's fault: what can not be read is not sent
        return None


def _unreadable() -> Answer[Any]:
    return Answer("invalid", why=f"{SAID}the texts can not be read", stopped=True)


def _told(why: str) -> str:
    """With the setting to mend, which is not that of a model."""
    for word, here in _WORDS:
        why = why.replace(word, here)
    return f"{SAID}{why}" if SETTING in why else f"{SAID}{why}: check {SETTING}"


def _status(error: ModelError) -> Status:
    if isinstance(error, ModelLimited):
        return "limited"
    return "rejected" if isinstance(error, ModelRejected) else "unavailable"
