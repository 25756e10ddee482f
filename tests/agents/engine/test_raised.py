"""Dead letters of an agent whose rows have protected columns: what is wrong is told, the values are nowhere but in the record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

import orjson
import pytest
from pydantic import BaseModel, TypeAdapter

from agents.engine.pipeline import Pipeline
from agents.engine.raised import Raised
from agents.engine.spec import Join
from agents.engine.trial import try_records
from agents.engine.verdicts import Site
from models.contract import Answer
from models.scorers.instant import InstantScorer
from schemas.dead_letter import DeadLetter, Fault
from schemas.errors import DataFault
from schemas.identity import decision_id
from schemas.marks import Identifier, Protected
from tests.support.simple_agent import OrderAnswer, Scripted, features, order, simple_agent
from topics.record import Raw
from topics.spec import change_topic, event_topic

SECRET = "zq7-kept-9"


class Guarded(BaseModel):
    """The row, with one column that nobody may see."""

    who: str
    amount: int
    wish: str = ""
    faith: Annotated[str, Protected("religion")] = ""


def record(**more: Any) -> Raw:
    """One record with the secret in it, in value, key and headers, all of which stay."""
    body = {"who": "ann", "amount": 1, "faith": SECRET} | more
    return Raw("guarded", orjson.dumps(body), SECRET.encode(), (("trace", SECRET.encode()),), offset=3, timestamp=1)


def guarded(**changes: Any) -> Any:
    """The simple agent over guarded rows."""
    return simple_agent(Scripted(), **({"reads": event_topic("guarded", Guarded)} | changes))


def leaky(what: Any) -> Any:
    """A function of an agent whose exception tells the row, in several ways."""
    row = what.value.row if hasattr(what, "value") else what.row
    kinds: dict[str, Callable[[], object]] = {
        "value": lambda: (_ for _ in ()).throw(ValueError(f"can not judge {row.faith}")),
        "key": lambda: {}[row.faith],
        "validation": lambda: TypeAdapter(int).validate_python(row.faith),
        "fault": lambda: (_ for _ in ()).throw(DataFault(Fault("features", row.faith, row.faith, row.faith))),
        "chained": lambda: chained(row),
    }
    return kinds[row.wish]()


def chained(row: Guarded) -> None:
    """One exception because of another."""
    try:
        raise ValueError(row.faith)
    except ValueError as error:
        raise RuntimeError(f"because of {row!r}") from error


HOW = ["value", "key", "validation", "fault", "chained"]
WHERE = ["features", "subject", "when", "decide"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("where", WHERE)
async def test_what_an_agents_function_raises_tells_no_protected_value(
    where: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Type and place are in the dead letter; the value is in no header of ours and in no log at any level."""
    caplog.set_level(logging.DEBUG)
    raising = {"decide": lambda context, features, answer: leaky(context)}.get(where, leaky)
    agent = guarded(**{where: raising})
    (found,) = [o async for o in try_records(agent, [record(wish=how)], agent.scorer)]
    (letter,) = found.dead_letters
    ours = {name: value for name, value in letter.items() if name.startswith("headrace_")}
    assert ours["headrace_reason"] == "agent-error"
    assert "test_raised.py line" in ours["headrace_detail"]
    assert SECRET not in str(ours)
    assert SECRET not in caplog.text


async def test_a_row_that_is_no_row_tells_no_protected_value(caplog: pytest.LogCaptureFixture) -> None:
    """A fault of decoding names the protected field and why, in the headers; key, value and headers stay byte for byte."""
    caplog.set_level(logging.DEBUG)
    agent = guarded()
    bad = record(faith=[SECRET])
    site = Site(manifest="test", run="replay-7")
    pipeline = Pipeline(agent, site, dead_letters="dlq", judgements=None, joins=None, wall_ms=lambda: 1)
    (item,) = pipeline.read(pipeline.new_state(0), bad)
    assert item.settled is not None
    (letter,) = item.settled.outbound
    ours = {name: value.decode() for name, value in letter.headers if name.startswith("headrace_") and value is not None}
    told = DeadLetter.model_validate({name.removeprefix("headrace_"): text for name, text in ours.items()})
    assert (told.field, told.reason, told.detail) == ("faith", "invalid-field", "string_type, got an array")
    assert SECRET not in str(told)
    assert SECRET not in caplog.text
    assert (letter.key, letter.value, letter.headers[0]) == (bad.key, bad.value, ("trace", SECRET.encode()))
    assert told.run == "replay-7"
    assert told.id == decision_id(agent.name, "guarded", 0, 3, told.input_hash, 0, "replay-7"), "the run that is in the id"


def test_a_joined_rows_protected_columns_count_as_well() -> None:
    """An agent sees the rows that it joins, so its messages are not told although its own row is open."""
    customers = change_topic("people", Guarded, key=("who",))
    told = Raised(simple_agent(Scripted(), joins={"customer": Join(customers, on=lambda event: event.row.who)}))
    assert SECRET not in told.describe(ValueError(SECRET))
    assert SECRET in Raised(simple_agent(Scripted())).describe(ValueError(SECRET)), "an agent without any is told as before"


async def test_the_engines_own_refusals_keep_their_words() -> None:
    """What the engine itself refuses is told with its reason under protected rows too."""
    agent = guarded(features=features)
    (found,) = [o async for o in try_records(agent, [record(who="a\x00b")], agent.scorer)]
    assert found.dead_letters[0]["headrace_reason"] == "invalid-subject"
    assert found.dead_letters[0]["headrace_detail"] == "it is empty or has control characters"


class Named(BaseModel):
    """Features with a mark; the rows have none."""

    who: Annotated[str, Identifier("customer")]


async def test_marks_on_features_close_the_message_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """What a model and an audit may not see of a record is in no dead letter's detail and in no log either."""
    caplog.set_level(logging.DEBUG)

    def decide(context: Any, features: Any, answer: Any) -> Any:
        raise ValueError(f"nobody is in charge of {features.who}")

    agent = simple_agent(
        Scripted(lambda f: Answer("unavailable", why="test")), decide=decide, features_model=Named,
        features=lambda context: Named(who=context.value.row.who),
    )  # fmt: skip
    scorer = InstantScorer(lambda f: OrderAnswer(risk=1, verdict="accept"))
    (found,) = [o async for o in try_records(agent, [order(SECRET)], scorer)]
    (letter,) = found.dead_letters
    assert letter["headrace_detail"].startswith("ValueError in decide, test_raised.py line")
    assert SECRET not in letter["headrace_detail"]
    assert SECRET not in caplog.text
