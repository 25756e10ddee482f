"""Asks the endpoint /decisions of OpenAI's API: the same records, and one question for each field of the answer of each.

    developer   the agent's prompt, then our fixed instructions
    user        a JSON part {"nonce": ..., "records": [{"id": ..., "features": {...}}]} for each record, then its images
    questions   {"name": "k3f9a2_0", "type": "predicate", "instructions": "Record k3f9a2, field sufficient: ..."}, ...

A reply becomes a Completion whose text is the JSON that models/chat/align.py checks, so nothing behind it knows the difference.
An answer counts under the name minted for its question, once, in the order asked; a record that lacks one is missing.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import orjson
from pydantic import BaseModel

from models.chat.align import loosely
from models.chat.completion import Beside, Completion, name_in
from models.chat.dialect import Dialect, adapt
from models.chat.endpoint import DECISIONS
from models.chat.images import Shown, declared
from models.chat.prompt import DATA_ONLY, PICTURED, Request, check_extra, data, mint, written
from models.chat.questions import Asked, Field, Unbelievable, fields_of
from models.chat.quotes import Quotes
from models.contract import Ask, Question
from schemas.audit import Tokens
from schemas.errors import ConfigError, ModelProtocolError, ModelUnavailable

A = TypeVar("A", bound=BaseModel)

MOST_QUESTIONS: Final = 400
_MOST_FOREIGN = 100
_REPLY_BYTES, _OPTION_BYTES = 400, 400
"""What an answer, and an option in it, may have in a reply."""
_ROUND_ABOUT = 'Each JSON part of the user message is one object {"nonce": ..., "records": [{"id": ..., "features": {...}}]}.'


class DecisionBuilder(Generic[A]):
    """Requests of one Ask for one model, and what replies say. Raises ConfigError for an Ask that can not be asked so."""

    path = DECISIONS

    def __init__(self, ask: Ask[A], model: str) -> None:
        where = f"building the questions for {ask.answer.__name__}"
        check_extra(ask)
        self._ask, self._model = ask, model
        self._fields = fields_of(ask.answer)
        self._asked = [asked for field in self._fields for asked in field.questions]
        if len(self._asked) > MOST_QUESTIONS:
            raise ConfigError(f"{where}: a record takes {len(self._asked)} questions, {MOST_QUESTIONS} is the most; "
                              "use shorter lists of options, or set HEADRACE_MODEL_API to chat")  # fmt: skip
        self._pieces = [_pieces(place, asked) for place, asked in enumerate(self._asked)]
        self._reply_bytes = sum(_REPLY_BYTES + _OPTION_BYTES * len(asked.options) for asked in self._asked)
        self.most_records: int | None = MOST_QUESTIONS // len(self._asked)

    def sent(self, dialect: Dialect, reserved: int) -> dict[str, Any]:
        """What is asked for besides model, input and questions. Nothing limits the output: `reserved` is an estimate."""
        return {"api": "decisions", "questions_per_record": len(self._asked)} | self._extra(dialect)

    def _extra(self, dialect: Dialect) -> dict[str, Any]:
        return {name: value for name, value in self._ask.extra.items() if name not in dialect.without}

    def adapt(
        self, dialect: Dialect, error: Mapping[str, Any], reserved: int, beside: Quotes | None = None
    ) -> Dialect | None:
        """The same without a parameter of `extra` that was refused by name; there is nothing else to ask differently."""
        sent: Collection[str] = self._extra(dialect).keys()
        found = adapt(dialect, error, sent, reserved, beside)
        return found if found is not None and found.without != dialect.without else None

    def build(self, questions: Sequence[Question], dialect: Dialect) -> Request:
        """The request about `questions`, in their order. Raises Unwritable."""
        pictured = any(declared(type(question.features)) for question in questions)
        nonce, ids = mint(len(questions))
        features, images = written(questions, ids, pictured)
        parts: list[bytes] = []
        for place, one in enumerate(features):
            parts.append(b'{"type":"input_json","data":' + data([one], [questions[place]], nonce, [ids[place]]) + b"}")
        shown = [_image(image) for image in images]
        asked = b",".join(self._about(id) for id in ids)
        body = b"".join((
            self._prefix(dialect, pictured), b",".join([*parts, *shown]), b']}],"questions":[', asked, b"]}",
        ))  # fmt: skip
        reserved = self._ask.reserved(len(questions))
        image_bytes, tokens = sum(map(len, shown)), sum(image.picture.mark.tokens for image in images)
        said = sum(map(len, parts)) + len(asked)
        return Request(body, ids, nonce, reserved, image_bytes, tokens, said, self._reply_bytes * len(questions), features)

    def _prefix(self, dialect: Dialect, pictured: bool) -> bytes:
        text = f"{self._ask.prompt}\n\n# Records\n{_ROUND_ABOUT}{DATA_ONLY}{PICTURED if pictured else ''}"
        # The type's name tells the sandbox which rule is meant; a model may know it too.
        text += f"\nThe questions ask for the fields of {self._ask.answer.__name__}."
        head = {"model": self._model} | self._extra(dialect)
        developer = orjson.dumps({"role": "developer", "content": text})
        return orjson.dumps(head)[:-1] + b',"input":[' + developer + b',{"role":"user","content":['

    def _about(self, id: str) -> bytes:
        name = id.encode()
        return b",".join(name.join(piece) for piece in self._pieces)

    def read(self, body: bytes, request: Request) -> Completion:
        """What a response with status 200 says of the records of `request`.

        Raises ModelProtocolError for what is no decision, ModelUnavailable for an error object sent with status 200.
        """
        reply = _reply(body)
        told, foreign, repeated = _by_name(reply["answers"], [name for id in request.ids for name in self._names(id)])
        answers: list[dict[str, Any]] = [{"id": name} for name in foreign]
        beside: dict[str, Beside] = {}
        for id in request.ids:
            names = self._names(id)
            if any(name in repeated for name in names):
                answers += [{"id": id}, {"id": id}]
            elif all(name in told for name in names):
                answer, beside[id] = self._answer(id, [told[name] for name in names])
                answers.append(answer)
        usage, model = _usage(reply.get("usage")), name_in(reply.get("model"))
        return Completion(orjson.dumps({"answers": answers}).decode(), model, None, None, usage, beside)

    def _names(self, id: str) -> list[str]:
        return [f"{id}_{place}" for place in range(len(self._asked))]

    def _answer(self, id: str, told: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], Beside]:
        """The answer about one record as a chat model would have put it, and what was said in fact."""
        raw = {"id": id, "decisions": list(told)}
        if any(one.get("type") == "refusal" for one in told):
            return {"id": id}, Beside(raw, "refused", "the model refused a question about this record")
        values, at = {"id": id}, 0
        for field in self._fields:
            mine = told[at : at + len(field.questions)]
            at += len(field.questions)
            why = _problem(field, mine, values)
            if why is not None:
                return {"id": id}, Beside(raw, "invalid", why)
        return values, Beside({**values, "decisions": raw["decisions"]})


def _problem(field: Field, told: Sequence[Mapping[str, Any]], values: dict[str, Any]) -> str | None:
    """Puts the field's value into `values`, or says why there is none."""
    if any(one.get("type") != asked.kind for one, asked in zip(told, field.questions, strict=True)):
        return f"{field.name}: the answer is of another type than the question"
    try:
        values[field.name] = field.value(told)
    except Unbelievable as fault:
        return f"{field.name}: {fault}"
    return None


def _by_name(
    answers: Sequence[Any], asked: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], list[str], set[str]]:
    """Answers under the names that were asked, in order; names that were not asked; and names that came more than once."""
    place = {name: index for index, name in enumerate(asked)}
    known: list[tuple[str, dict[str, Any]]] = []
    foreign: list[str] = []
    for answer in answers:
        name = answer.get("name") if isinstance(answer, dict) else None
        if isinstance(name, str) and name in place:
            known.append((name, answer))
        elif len(foreign) < _MOST_FOREIGN:
            foreign.append("")
    counts = Counter(name for name, _ in known)
    once = [(name, answer) for name, answer in known if counts[name] == 1]
    # Those that have changed places: whether the name or the place is right can not be known.
    right = sorted((name for name, _ in once), key=place.__getitem__)
    found = {name: answer for (name, answer), due in zip(once, right, strict=True) if name == due}
    return found, foreign, {name for name, count in counts.items() if count > 1}


def _reply(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            reply = loosely(body.decode())  # NaN costs its own record the answer, not the neighbours
        except UnicodeDecodeError:
            reply = None
    if not isinstance(reply, dict):
        raise ModelProtocolError(f"reading a decision: the body ({len(body)} bytes) is no JSON object")
    if not isinstance(reply.get("answers"), list):
        if isinstance(reply.get("error"), dict):
            raise ModelUnavailable("reading a decision: the endpoint sent an error with status 200")
        raise ModelProtocolError("reading a decision: it has no answers; is HEADRACE_MODEL_API right?")
    return reply


def _usage(usage: Any) -> Tokens:
    """As of a chat completion: what is absent or no count is 0."""

    def count(part: Any, name: str) -> int:
        value = part.get(name) if isinstance(part, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    into, out = (usage.get(f"{side}_tokens_details") if isinstance(usage, dict) else None for side in ("input", "output"))
    return Tokens(
        input=count(usage, "input_tokens"), cached_input=count(into, "cached_tokens"), output=count(usage, "output_tokens"),
        reasoning=count(out, "reasoning_tokens"),
    )  # fmt: skip


def _pieces(place: int, asked: Asked) -> tuple[bytes, bytes, bytes]:
    """A question as JSON, to be joined by the id of a record."""
    rest: dict[str, Any] = {}
    if asked.kind == "choice":
        rest = {"choices": [{"value": option} for option in asked.options]}
    elif asked.kind == "score":
        rest = {"levels": [{"label": option} for option in asked.options]}
    middle = f'_{place}","type":"{asked.kind}","instructions":"Record '.encode()
    text = orjson.dumps(f", field {asked.text}")[1:]
    more = b"," + orjson.dumps(rest)[1:] if rest else b"}"
    return b'{"name":"', middle, text + more


def _image(image: Shown) -> bytes:
    mark = image.picture.mark
    url = f"data:{mark.type};base64,{b64encode(image.picture.data).decode()}"
    part = {"type": "input_image", "image_url": url} | ({} if mark.detail is None else {"detail": mark.detail})
    return orjson.dumps({"type": "input_text", "text": image.label}) + b"," + orjson.dumps(part)
