"""Redact before a model: what leaves, what comes back, and what does not leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from models.chat.chat import ChatScorer
from models.contract import Answer, Ask, Paced, Question
from models.masking.mask import Mask
from models.masking.pseudonym import Pseudonyms
from models.masking.redact import Redact
from models.masking.scrub import Scrubber
from models.sandbox import rules as sandbox_rules
from models.sandbox.server import Sandbox
from models.scorers.instant import InstantScorer
from schemas.audit import Call
from schemas.marks import Identifier, Untrusted
from tests.models.test_failover import Says
from tests.support.scoring import line_to, soon, statuses, wrongly

OURS = Pseudonyms("a secret of the tests, 32 or more", "ours")


class Message(BaseModel):
    customer: Annotated[str, Identifier("customer")]
    text: Annotated[str, Untrusted(max=300)]


class Quoted(BaseModel):
    quote: str = Field(max_length=40)
    sufficient: bool = True


MASK = Mask(Message, Scrubber(), OURS)
ASK = Ask(Quoted, "Quote each record.")


def message(number: int, text: str) -> Question:
    return Question(f"d{number}", Message(customer=f"C-000{number}", text=text))


class Echo:
    """A Scorer that quotes the text it is shown, and remembers it."""

    name = "echo"

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any] | None] = []

    async def score(self, asked: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """See models.contract.Scorer."""
        self.seen += [question.shown for question in asked]
        said = [question.shown["text"] if question.shown else "" for question in asked]
        return [Answer("answered", Quoted.model_construct(quote=text, sufficient=True), raw={"quote": text}) for text in said]

    async def close(self) -> None:
        """Nothing to give back."""


async def test_nothing_of_what_is_masked_leaves_and_decide_gets_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: the sandbox sees pseudonyms and placeholders; the value has the real ones, raw and audit the masked ones."""
    seen: list[Mapping[str, Any]] = []

    def rule(shown: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(shown)
        return {"quote": shown["text"][-20:], "sufficient": True}

    monkeypatch.setitem(sandbox_rules.RULES, "Quoted", rule)
    calls: list[Call] = []
    async with Sandbox() as server:
        scorer = ChatScorer(ASK, line_to(server.base_url), agent="a", on_call=calls.append, masking=MASK.policy)
        redact = Redact(scorer, MASK)
        answers = await redact.score([message(1, "I am a@b.example"), message(2, "it is c@d.example")], soon(20))
        await redact.close()
    assert {shown["text"] for shown in seen} == {"I am [EMAIL_1]", "it is [EMAIL_1]"}
    assert {shown["customer"] for shown in seen} == {OURS.of("customer", "C-0001"), OURS.of("customer", "C-0002")}
    assert [answer.value.quote for answer in answers if answer.value] == ["I am a@b.example", "it is c@d.example"]
    assert [answer.raw["quote"] for answer in answers] == ["I am [EMAIL_1]", "it is [EMAIL_1]"]
    assert [answer.shown and answer.shown["text"] for answer in answers] == ["I am [EMAIL_1]", "it is [EMAIL_1]"]
    assert [call.masking for call in calls] == [MASK.policy]


async def test_a_record_that_can_not_be_masked_is_not_sent_and_its_neighbours_are() -> None:
    """Whatever the reason: wrong features, a defect in masking, recursion without end; it is answered where it stands."""
    echo = Echo()
    redact = Redact(echo, MASK)
    broken = Question("d2", wrongly(Message, customer=2.5, text="secret a@b.example"))
    answers = await redact.score([message(1, "one"), broken, message(3, "three")], soon(5))
    assert statuses(answers) == ["answered", "invalid", "answered"]
    assert answers[1].shown == {}
    assert answers[1].why == "the features can not be masked (PydanticSerializationError)"
    assert [shown["text"] for shown in echo.seen if shown] == ["one", "three"]
    assert redact.unmasked == 1

    def endless(text: str, **_: Any) -> Any:
        return endless(text)

    astray = Mask(Message, Scrubber(), OURS)
    astray._scrubber.find = endless  # type: ignore[method-assign]  # a detector with a defect
    (answer,) = await Redact(echo, astray).score([message(4, "four")], soon(5))
    assert (answer.status, answer.why) == ("invalid", "the features can not be masked (RecursionError)")
    assert len(echo.seen) == 2


async def test_a_record_with_too_much_text_says_so() -> None:
    """The reason is told, not only that there is one."""

    class Story(BaseModel):
        text: Annotated[str, Untrusted(max=200_000)]

    (answer,) = await Redact(Echo(), Mask(Story, Scrubber(), None)).score([Question("d1", Story(text="x" * 100_001))], soon(5))
    assert (answer.status, answer.shown) == ("invalid", {})
    assert answer.why == "the features can not be masked (its free texts have more than 100000 characters)"


async def test_an_answer_that_does_not_fit_once_it_is_put_back_is_invalid() -> None:
    """`decide` gets what the model of the answer allows, or no value; the raw answer is kept."""
    text = f"{'a' * 50}@b.example"
    (answer,) = await Redact(Echo(), MASK).score([message(1, text)], soon(5))
    assert answer.status == "invalid"
    assert answer.value is None
    assert "does not fit its model any more" in answer.why
    assert answer.raw == {"quote": "[EMAIL_1]"}


async def test_an_answer_without_value_says_what_was_shown() -> None:
    """Every judgement has the features as the model saw them, answered or not."""
    says = Says("m", "refused", "timeout", "budget")
    answers = await Redact(says, MASK).score([message(number, "a@b.example") for number in range(3)], soon(5))
    assert statuses(answers) == ["refused", "timeout", "budget"]
    assert all(answer.shown and answer.shown["text"] == "[EMAIL_1]" for answer in answers)


async def test_room_and_closing_are_those_of_the_scorer_within() -> None:
    """As of any wrapper."""
    says = Says("m", "answered", room=False)
    redact = Redact(says, MASK)
    assert isinstance(redact, Paced)
    assert redact.name == "m"
    assert not redact.room()
    redact.on_room(lambda: None)
    await redact.close()
    assert (len(says.told), says.closed) == (1, 1)
    assert Redact(InstantScorer(lambda features: Quoted(quote="")), MASK).room()


@settings(deadline=None)
@given(st.lists(st.text(max_size=60) | st.sampled_from(["password: EMAIL_1 a@b.example", "[EMAIL_1] a@b", "\ud800"]), max_size=5))
def test_any_texts_give_exactly_one_answer_each_in_order(texts: list[str]) -> None:
    """Masked or not, each question is answered once, where it stands, with its own text."""
    questions = [Question(str(at), Message.model_construct(customer=str(at), text=text)) for at, text in enumerate(texts)]
    coroutine = Redact(Echo(), MASK).score(questions, 0.0)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)  # nothing in it waits
    answers = ended.value.value
    assert len(answers) == len(texts)
    for at, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        if answer.value is not None:
            assert answer.value.quote == text
            assert answer.shown["customer"] == OURS.of("customer", str(at))
        else:
            assert answer.status == "invalid"
