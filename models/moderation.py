"""Moderation: an OpenAI-compatible `/moderations` endpoint is asked about the texts of records before a model is.

What it flags is answered "refused" and not asked of the model. What it does not answer for is not waved through either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson

from models.contract import Answer, Question, Scorer, Status
from models.endpoint import Endpoint
from models.untrusted import untrusted_texts
from models.wrapper import Wrapper
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected, ModelUnavailable

SHARE: Final = 1 / 3
"""Part of the time left that moderation may take."""
_PATH: Final = "/moderations"
_PAUSE: Final = 0.1
_TRIES: Final = 2


class Moderated(Wrapper):
    """A Scorer around `inner`, which is asked about what `endpoint` has nothing against only.

    All texts of a call go there in one request, as masked as they are: it has to stand inside a Redact. `model` names a
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
        status: Status = "unavailable"
        try:
            async with asyncio.timeout_at(clock() + (deadline - clock()) * SHARE):
                categories = await self._ask(texts)
        except TimeoutError:
            why = "moderation: it did not answer in its part of the time"
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
    named = ", ".join(sorted(str(name)[:60] for name, hit in categories.items() if hit is True))
    return (named[:200] or "unspecified") if flagged else None


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
