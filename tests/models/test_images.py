"""Images among features: sent under labels beside the records, checked, counted apart, and never written down."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, cast

import orjson
import pytest
from pydantic import BaseModel, Field

from agents.engine.verdicts import features_hash
from models.chat.chat import ChatScorer
from models.chat.dialect import Dialect
from models.chat.prompt import INSTRUCTIONS, PICTURED, PromptBuilder
from models.contract import Ask, Question
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.gate import Asking, Leave
from models.sandbox import rules as sandbox_rules
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from schemas.errors import ConfigError
from schemas.marks import Image, Untrusted
from tests.support.pictures import png
from tests.support.scoring import ASK, Judged, line_to, questions, soon, statuses


class Part(BaseModel):
    """A nested thing with a picture of its own."""

    close_up: Annotated[bytes | None, Image("image/jpeg", tokens=85, detail="low")] = None


class Seen(BaseModel):
    """Features with pictures at every depth."""

    number: int
    note: Annotated[str, Untrusted(max=50)] = ""
    photo: Annotated[bytes | None, Image("image/png", max_bytes=2000, tokens=300)] = None
    more: list[Annotated[bytes, Image("image/png", max_bytes=2000, tokens=300)]] = Field(default_factory=list)
    parts: list[Part] = Field(default_factory=list)


JPEG = b"\xff\xd8\xff\xe0 a picture"


def user(body: bytes) -> Any:
    """The content of the user message."""
    return orjson.loads(body)["messages"][1]["content"]


def test_without_images_not_a_byte_is_different() -> None:
    """An agent that declares none has the same request as ever, text for a content and no sentence about pictures."""
    body = PromptBuilder(ASK, "m").build(questions(2), Dialect()).body
    assert isinstance(user(body), str)
    assert orjson.loads(body)["messages"][0]["content"] == ASK.prompt + INSTRUCTIONS


async def test_a_record_weighs_what_its_images_are_taken_to_cost() -> None:
    """A limit of a batch's prompt tokens counts pictures by their marks and not by their bytes; what can not be sent is free."""
    scorer = ChatScorer(ASK, line_to("http://127.0.0.1:9/v1"), agent="test")
    bare = scorer.weigh(Seen(number=1))
    pictured = scorer.weigh(Seen(number=1, photo=png(1), parts=[Part(close_up=JPEG)]))
    assert 385 <= pictured - bare < 385 + 150
    assert scorer.weigh(Seen(number=1, photo=b"no picture")) < bare + 100
    await scorer.close()


def test_each_image_follows_the_records_under_its_label() -> None:
    """Labels name record and field, the images come after them in order, and the prefix is the same with and without any."""
    features = Seen(number=1, photo=png(1), more=[png(2), png(3)], parts=[Part(), Part(close_up=JPEG)])
    builder = PromptBuilder(ASK, "m")
    request = builder.build([Question("a", features), Question("b", Seen(number=2))], Dialect())
    first, *rest = user(request.body)
    record, other = orjson.loads(first["text"])["records"]
    id, labels = record["id"], [part["text"] for part in rest[::2]]
    assert labels == [f"image {id}/photo", f"image {id}/more.0", f"image {id}/more.1", f"image {id}/parts.1.close_up"]
    assert record["features"] == {
        "number": 1, "note": "", "photo": labels[0], "more": labels[1:3], "parts": [{"close_up": None}, {"close_up": labels[3]}],
    }  # fmt: skip
    assert other["features"]["photo"] is None
    urls = [part["image_url"]["url"] for part in rest[1::2]]
    assert [b64decode(url.partition(",")[2]) for url in urls] == [png(1), png(2), png(3), JPEG]
    assert [url.partition(";")[0] for url in urls] == ["data:image/png"] * 3 + ["data:image/jpeg"]
    assert [part["image_url"].get("detail") for part in rest[1::2]] == [None, None, None, "low"]
    plain = builder.build([Question("c", Seen(number=3))], Dialect())
    assert isinstance(user(plain.body), str)
    assert orjson.loads(plain.body)["messages"][0]["content"] == ASK.prompt + INSTRUCTIONS + PICTURED
    start = plain.body.index(b'{"role":"user"')
    assert request.body[:start] == plain.body[:start]


def test_images_are_counted_by_their_marks_and_not_by_their_bytes() -> None:
    """A large image adds its fixed estimate; the rest of the body counts as the text that it is."""
    builder = PromptBuilder(ASK, "m")
    small = builder.build([Question("a", Seen(number=1, photo=png(1)))], Dialect())
    large = builder.build([Question("a", Seen(number=1, photo=png(1, 1500)))], Dialect())
    assert small.image_tokens == large.image_tokens == 300
    assert small.text_bytes == large.text_bytes
    assert large.image_bytes - small.image_bytes == 2000


@pytest.mark.parametrize(
    ("features", "why"),
    [
        (Seen(number=1, photo=JPEG), "photo: the image does not begin as image/png does"),
        (Seen(number=1, photo=b""), "photo: the image does not begin as image/png does"),
        (Seen(number=1, photo=png(1, 5000)), "photo: the image has 5081 bytes, 2000 are allowed"),
        (Seen(number=1, more=[png(1), b"GIF89a"]), "more.1: the image does not begin as image/png does"),
        (Seen.model_construct(number=1, photo=cast("Any", "text")), "photo: an image is bytes, this is str"),
    ],
)
async def test_a_bad_image_makes_its_record_invalid_and_no_other(features: Seen, why: str) -> None:
    """Field and reason are told, the neighbours are asked without it, in one request."""
    calls: list[Call] = []
    async with Sandbox() as server:
        scorer = ChatScorer(ASK, line_to(server.base_url), agent="test", on_call=calls.append)
        asked = [Question("a", Seen(number=1, photo=png(1))), Question("bad", features), Question("c", Seen(number=3))]
        answers = await scorer.score(asked, soon(20))
        await scorer.close()
    assert statuses(answers) == ["answered", "invalid", "answered"]
    assert answers[1].why == why
    assert [sorted(call.records) for call in calls] == [["a", "c"]]


async def test_the_server_sees_the_pictures_that_were_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the wire and back: each record is judged by its own picture, in a batch and whatever its place in it."""

    def by_picture(shown: Mapping[str, Any]) -> dict[str, Any]:
        return {"risk": shades[shown["photo"]["sha256"]], "grade": "good"}

    shades = {hashlib.sha256(png(shade)).hexdigest(): shade for shade in range(20)}
    monkeypatch.setitem(sandbox_rules.RULES, "Judged", by_picture)
    async with Sandbox() as server:
        scorer = ChatScorer(ASK, line_to(server.base_url), agent="test")
        answers = await scorer.score([Question(f"d{n}", Seen(number=n, photo=png(n))) for n in range(20)], soon(20))
        await scorer.close()
    assert [answer.value for answer in answers] == [Judged(risk=n, grade="good") for n in range(20)]


async def test_what_is_reserved_for_an_image_is_its_estimate() -> None:
    """The gates are asked for the mark's tokens and those of the text, and the rate of tokens to bytes is not learned from it."""
    asked: list[Asking] = []

    class Watching:
        async def enter(self, asking: Asking, deadline: float) -> Leave:
            asked.append(asking)
            return lambda ended: None

    async with Sandbox() as server:
        line = line_to(server.base_url, gates=(Watching(), AdmissionGate(Limits(rpm=60_000))))
        scorer = ChatScorer(ASK, line, agent="test")
        before = line.tokens.per_byte
        for size in (0, 1500):
            await scorer.score([Question("a", Seen(number=1, photo=png(1, size)))], soon(20))
        assert line.tokens.per_byte == before
        await scorer.close()
    assert asked[0].input_tokens == asked[1].input_tokens
    assert 300 < asked[0].input_tokens < 1200


async def test_an_image_that_the_endpoint_can_not_read_costs_its_own_record_only() -> None:
    """A 400 for an image is divided like a refusal, and the record that is left alone is invalid."""
    async with Sandbox(SandboxConfig(schedule=("image", "image", "", ""))) as server:
        line = line_to(server.base_url, concurrency=1)
        scorer = ChatScorer(ASK, line, agent="test")
        answers = await scorer.score([Question(f"d{n}", Seen(number=n, photo=png(n))) for n in range(2)], soon(20))
        await scorer.close()
    assert sorted(statuses(answers)) == ["answered", "invalid"]


def test_masked_features_keep_their_pictures_unless_the_mask_took_them() -> None:
    """Labels go where the masked features still have the picture's place, and what has no place is not sent."""
    features = Seen(number=1, photo=png(1), more=[png(2)], parts=[Part(close_up=JPEG)])
    shown = features.model_dump(mode="json") | {"number": 0, "more": "[removed]"}
    body = PromptBuilder(ASK, "m").build([Question("a", features, shown=shown)], Dialect()).body
    first, *rest = user(body)
    (record,) = orjson.loads(first["text"])["records"]
    assert (record["features"]["number"], record["features"]["more"]) == (0, "[removed]")
    assert [part["text"].partition("/")[2] for part in rest[::2]] == ["photo", "parts.0.close_up"]
    assert [shown["photo"]["bytes"], shown["parts"][0]["close_up"]["bytes"]] == [len(png(1)), len(JPEG)]  # not changed


def test_in_json_an_image_is_its_digest() -> None:
    """Hashes, audits and caches get size and SHA-256; another picture is another hash, and no byte of it is in them."""
    one, other = Seen(number=1, photo=png(1, 1000)), Seen(number=1, photo=png(2, 1000))
    written = one.model_dump(mode="json")
    digest = hashlib.sha256(png(1, 1000)).hexdigest()
    assert written["photo"] == {"image": "image/png", "bytes": len(png(1, 1000)), "sha256": digest}
    assert len(one.model_dump_json()) < 400
    assert one.model_dump()["photo"] == png(1, 1000)
    dumped, again = one.model_dump(mode="json"), one.model_copy().model_dump(mode="json")
    assert features_hash(dumped) != features_hash(other.model_dump(mode="json"))
    assert features_hash(dumped) == features_hash(again)
    photo = Seen.model_json_schema()["properties"]["photo"]
    assert photo["contentMediaType"] == "image/png"


@pytest.mark.parametrize("arguments", [("image/tiff",), ("image/png", 0), ("image/png", 1, 0)])
def test_an_image_mark_that_can_not_work_is_refused_at_once(arguments: tuple[Any, ...]) -> None:
    """A type that servers do not take, or a bound that lets nothing through."""
    with pytest.raises(ConfigError, match="marking an image"):
        Image(*arguments)


async def test_an_endpoint_without_json_formats_is_shown_pictures_alike() -> None:
    """Parts and a plain format go together: the schema is in the instructions, the pictures in the message."""
    async with Sandbox(SandboxConfig(rejects=frozenset({"json_schema", "json_object"}))) as server:
        scorer = ChatScorer(Ask(Judged, "Look."), line_to(server.base_url), agent="test")
        answers = await scorer.score([Question("a", Seen(number=1, photo=png(1)))], soon(20))
        await scorer.close()
    assert statuses(answers) == ["answered"]
