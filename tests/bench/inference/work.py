"""What every contender asks and checks: the same records, the same prompt, the same answer. It needs pydantic alone."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

from pydantic import BaseModel, Field

PROMPT = (
    "You assess the credit risk of loan applications. For each application give a risk from 0 (none) to 100 (certain default), a "
    "recommendation, and at most three factors that speak for it. Where the information does not suffice, say so. "
) * 4


class Loan(BaseModel):
    """Features of one application."""

    amount: int
    months: int
    purpose: str
    income: int
    employed_years: int
    other_debts: int
    housing: str
    age_of_account: int


class Judged(BaseModel):
    """The answer about one application."""

    risk: int = Field(ge=0, le=100)
    recommendation: Literal["approve", "review", "decline", "insufficient_information"]
    factors: list[Literal["income", "debts", "purpose", "housing", "history"]] = Field(max_length=3)


class Answered(Judged):
    """The answer with the id that it is about."""

    id: str


class Answers(BaseModel):
    """A whole reply."""

    answers: list[Answered]


def loans(count: int, seed: int = 1) -> list[Loan]:
    """So many applications, the same for every contender."""
    drawn = random.Random(seed)
    return [
        Loan(
            amount=drawn.randrange(500, 50_000), months=drawn.randrange(6, 72), purpose=drawn.choice(["car", "school", "shop"]),
            income=drawn.randrange(900, 9000), employed_years=drawn.randrange(0, 30), other_debts=drawn.randrange(0, 20_000),
            housing=drawn.choice(["own", "rent"]), age_of_account=drawn.randrange(0, 200),
        )
        for _ in range(count)
    ]  # fmt: skip


POISON = "something that is always refused"


def poisoned(count: int, place: int) -> list[Loan]:
    """So many applications in which the one at `place` is refused by whoever is asked."""
    drawn = loans(count)
    return [*drawn[:place], drawn[place].model_copy(update={"purpose": POISON}), *drawn[place + 1 :]]


def messages(records: list[Loan], first: int) -> list[dict[str, str]]:
    """As one writes it by hand: instructions, then the records as JSON under ids."""
    data = [{"id": f"r{first + place}", "features": record.model_dump()} for place, record in enumerate(records)]
    return [{"role": "system", "content": PROMPT}, {"role": "user", "content": json.dumps({"nonce": "n", "records": data})}]


FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "Answers", "strict": True, "schema": Answers.model_json_schema()},
}
"""The answer's JSON Schema, made once: whoever makes it for each call pays more."""
