"""The scorecard: what it adds up can be checked by hand."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from models.contract import Question
from models.scorers.scorecard import Bins, Scorecard, Tally, Values
from schemas.errors import ConfigError
from tests.support.scoring import Judged, soon


class History(enum.Enum):
    PAID = "paid"
    LATE = "late"


class Loan(BaseModel):
    amount: Decimal | None = None
    history: History | None = None
    owner: bool | None = None


TABLE = (
    Bins("amount", ((1000, 0), (5000, 10)), above=25, missing=7),
    Values("history", {"paid": -8, "late": 12}, missing=3),
    Values("owner", {"true": -2, "false": 2}),
)
CARD = Scorecard(
    "loans", Judged, TABLE, answer=lambda tally, loan: Judged(risk=tally.clamped(0, 100), grade="good"), intercept=20
)


@pytest.mark.parametrize(
    ("loan", "points"),
    [
        (Loan(amount=Decimal("1000"), history=History.PAID, owner=True), 20 + 0 - 8 - 2),
        (Loan(amount=Decimal("1000.01"), history=History.LATE, owner=False), 20 + 10 + 12 + 2),
        (Loan(amount=Decimal(5001)), 20 + 25 + 3),
        (Loan(), 20 + 7 + 3),
    ],
)
async def test_points_add_up(loan: Loan, points: float) -> None:
    """Edges belong to their bin, what is missing has its own points, and the parts are told with the answer."""
    tally = CARD.tally(loan)
    assert tally.points == points == 20 + sum(part for _, part in tally.parts)
    (answer,) = await CARD.score([Question("d", loan)], soon(1))
    assert answer.value == Judged(risk=round(points), grade="good")
    assert (answer.tier, answer.raw["points"]) == ("scorecard", points)
    assert abs(tally.drivers(1)[0][1]) == max(abs(part) for _, part in tally.parts)


@given(st.floats())
def test_every_number_has_points(value: float) -> None:
    """No number falls between bins: infinities are in the outer ones and NaN counts as missing."""
    row = TABLE[0]
    assert row.points(value) in (0, 7, 10, 25)
    assert row.points(float("nan")) == 7


@pytest.mark.parametrize(
    "table",
    [(), (Values("a", {}), Values("a", {})), (Bins("a", ((2, 0), (1, 1)), above=0),), (Bins("a", ((1, 0), (1, 1)), above=0),)],
)
def test_a_table_that_can_not_work_is_refused(table: Any) -> None:
    """No rows, a feature twice, edges that do not rise: each is a mistake in the declaration."""
    with pytest.raises(ConfigError, match="declaring scorecard"):
        Scorecard("bad", Judged, table, answer=lambda tally, features: Judged(risk=0, grade="good"))


class Closed(Judged):
    """Takes no other fields."""

    model_config = ConfigDict(extra="forbid")


async def test_an_answer_that_is_not_valid_is_told_by_the_names_of_its_type() -> None:
    """A name that came from the record is not among them."""
    said = {"jane@bank.com": 1, "risk": 101}
    card = Scorecard("card", Closed, TABLE, answer=lambda tally, features: Closed.model_validate(said))
    (answer,) = await card.score([Question("d", Loan())], soon(1))
    assert (answer.status, answer.why) == ("invalid", "scorecard card: no valid risk, grade, (unknown)")


async def test_what_an_agents_function_says_of_a_record_is_not_told() -> None:
    """A KeyError quotes the key, which is the record's: only its type is told. What the table can not read is, by its feature."""
    table = {"good": 1}

    def looks_up(tally: Tally, features: Any) -> Judged:
        return Judged(risk=table[f"{features.amount} of jane@bank.com"], grade="good")

    card = Scorecard("card", Judged, TABLE, answer=looks_up)
    (answer,) = await card.score([Question("d", Loan())], soon(1))
    assert (answer.status, answer.why) == ("invalid", "scorecard card: it failed with KeyError")
    bare = Scorecard("card", Judged, (*TABLE, Values("gone", {})), answer=looks_up)
    (answer,) = await bare.score([Question("d", Loan())], soon(1))
    assert answer.why == "scorecard card: Loan has no gone"
