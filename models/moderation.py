"""Moderation: an OpenAI-compatible `/moderations` endpoint is asked about the texts of records before a model is.

What it flags is answered "refused" and not asked of the model. What it does not answer for is not waved through either.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from models.contract import Answer, Question, Scorer, Status
from models.endpoint import Endpoint
from models.untrusted import untrusted_texts
from models.wrapper import Wrapper
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

SHARE: Final = 1 / 3
"""Part of the time left that moderation may take."""
MOST_TEXTS: Final = 32
MOST_BYTES: Final = 100_000
_PATH: Final = "/moderations"
_NAME: Final = re.compile(r"[A-Za-z0-9_/-]{1,40}")
_TEXT_REFUSED: Final = (400, 413, 422)
_PAUSE: Final = 0.1
_TRIES: Final = 2


class Moderated(Wrapper):
    """A Scorer around `inner`, which is asked about what `endpoint` has nothing against only.

    The texts of a call go there in one request, or a few where they are many, as masked as they are: it has to stand inside a
    Redact. A request that is refused is asked again in halves, so that one text does not cost the others. `model` names a
    moderation model; without one the endpoint chooses. `flagged` and `unanswered` count records.
    """

    def __init__(self, inner: Scorer, endpoint: Endpoint, *, model: str | None = None) -> None:
        self.flagged = 0
        self.unanswered = 0
        super().__init__(inner)
        self._endpoint = endpoint
        self._model = {} if model is None else {"model": model}

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """As the scorer within, in its order."""
        texts = [_text(question) for question in questions]
        asked = [index for index, text in enumerate(texts) if text]
        stopped = {index: _unreadable() for index, text in enumerate(texts) if text is None}
        if asked:
            verdicts = await self._verdicts([texts[index] or "" for index in asked], deadline)
            stopped |= {index: answer for index, answer in zip(asked, verdicts, strict=True) if answer is not None}
        passed = [question for index, question in enumerate(questions) if index not in stopped]
        answered = iter(await self._inner.score(passed, deadline) if passed else ())
        return [stopped[index] if index in stopped else next(answered) for index in range(len(questions))]

    async def _verdicts(self, texts: Sequence[str], deadline: float) -> Sequence[Answer[Any] | None]:
        """For each text the answer that stops its record, or None."""
        clock = asyncio.get_running_loop().time
        verdicts: list[Answer[Any] | None] = []
        until = clock() + (deadline - clock()) * SHARE
        for some in chunks(texts):
            verdicts += await self._of_some(some, until)
        return verdicts

    async def _of_some(self, texts: Sequence[str], until: float) -> Sequence[Answer[Any] | None]:
        """The same for texts that fit into one request; what is wrong with it alone may be wrong with one of them alone."""
        status: Status = "unavailable"
        try:
            async with asyncio.timeout_at(until):
                categories = await self._ask(texts)
        except TimeoutError:
            why = "moderation: it did not answer in its part of the time"
        except (ModelRejected, ModelProtocolError) as error:
            if len(texts) > 1 and _of_a_text(error):
                half = len(texts) // 2
                return [*await self._of_some(texts[:half], until), *await self._of_some(texts[half:], until)]
            status, why = _status(error), f"moderation: {error}"
        except ModelError as error:
            status, why = _status(error), f"moderation: {error}"
        else:
            self.flagged += sum(category is not None for category in categories)
            return [None if each is None else Answer("refused", why=f"moderation: {each}") for each in categories]
        self.unanswered += len(texts)
        return [Answer(status, why=why)] * len(texts)

    async def _ask(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the categories it was flagged for, or None. Raises ModelError."""
        body = orjson.dumps({**self._model, "input": [text.encode("utf-8", "replace").decode() for text in texts]})
        for attempt in range(1, _TRIES + 1):
            try:
                return read_moderation((await self._endpoint.post(body, _PATH)).body, len(texts))
            except (ModelUnavailable, ModelLimited) as error:
                if attempt == _TRIES:
                    raise
                await asyncio.sleep((error.retry_after if isinstance(error, ModelLimited) else None) or _PAUSE)
        raise AssertionError("the last try returns or raises")

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


def chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in pieces of at most MOST_TEXTS texts and, where it is not one alone, MOST_BYTES bytes."""
    start = size = 0
    for index, text in enumerate(texts):
        bytes_ = len(text.encode("utf-8", "replace"))
        if index > start and (index - start == MOST_TEXTS or size + bytes_ > MOST_BYTES):
            yield texts[start:index]
            start, size = index, 0
        size += bytes_
    if texts:
        yield texts[start:]


def _of_a_text(error: ModelError) -> bool:
    """Whether it may be due to a text: a wrong key or address is not."""
    return not isinstance(error, ModelRejected) or error.status in _TEXT_REFUSED


def _text(question: Question) -> str | None:
    """What the record says, in one piece; None where it can not be read."""
    try:
        return "\n".join(text for text in untrusted_texts(question) if text.strip())
    except Exception:  # noqa: BLE001  # one record's fault: what can not be read is not sent
        return None


def _unreadable() -> Answer[Any]:
    return Answer("invalid", why="moderation: the texts can not be read")


def _status(error: ModelError) -> Status:
    if isinstance(error, ModelLimited):
        return "limited"
    return "rejected" if isinstance(error, ModelRejected) else "unavailable"
