"""Headrace's whole path with one more of its layers: `kind` says which. All of them end in the same transport and audit.

Loans here have an identifier and a free text of some 300 characters, so that there is something to mask; the text is the same
length in all, and every record is another one but for the cache's hits.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore
from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question, Scorer
from models.masking.mask import Mask
from models.masking.pseudonym import Pseudonyms
from models.masking.redact import Redact
from models.masking.scrub import Scrubber
from schemas.audit import Call
from schemas.marks import Identifier, Untrusted
from tests.bench.contenders.meter import configuration, tune_collector
from tests.bench.inference.clients import MODEL
from tests.bench.inference.loop import Turn, slices
from tests.bench.inference.work import PROMPT, Judged, Loan

AGAIN = 8
"""Batches that the cache's hits take turns in."""
NOTE = (
    "Met the applicant at the branch. Wants to renovate the kitchen before winter and has compared three offers; the cheapest "
    "is from a firm in the next town. Reachable under {mail} in the evening. Salary comes from {iban} on the first of the month, "
    "the landlord confirms that the rent was always paid on time."
)
_MAIL, _IBAN = "anna.example@example.org", "DE89370400440532013000"
_NOBODY = "the usual address"


class LoanWithText(Loan):
    """A loan with what has to be masked."""

    customer: Annotated[str, Identifier("customer")]
    note: Annotated[str, Untrusted(max=4000)]


@lru_cache(maxsize=4096)
def _texts(number: int) -> tuple[str, str]:
    """Customer and note of the n-th record; every second note names an address and an account."""
    mail, iban = (_MAIL, _IBAN) if number % 2 else (_NOBODY, _NOBODY)
    return f"C{number:08d}", NOTE.format(mail=mail, iban=iban)


def _with_text(record: Loan, number: int) -> LoanWithText:
    customer, note = _texts(number % 4096)
    return LoanWithText.model_construct(**{**dict(record), "other_debts": number}, customer=customer, note=note)


def _plain(base_url: str, folder: Path) -> Scorer:
    digest = sha256()

    def written(call: Call) -> None:
        digest.update(call.model_dump_json(by_alias=True).encode())

    return ChatScorer(Ask(Judged, PROMPT), Line(base_url, None, MODEL), agent="bench", on_call=written)


def _masked(base_url: str, folder: Path) -> Scorer:
    return Redact(_plain(base_url, folder), Mask(LoanWithText, Scrubber(), Pseudonyms("0" * 32, "bench")))


def _cached(base_url: str, folder: Path) -> Scorer:
    store = SqliteStore(folder / "answers.sqlite", most_bytes=1 << 30, most_age=86_400.0)
    return Cached(_plain(base_url, folder), store, Judged, Scope("bench", "bench", "manifest"))


KINDS: dict[str, Callable[[str, Path], Scorer]] = {"whole": _plain, "mask": _masked, "miss": _cached, "hit": _cached}


def asking(kind: str, base_url: str, size: int, folder: Path) -> Turn:
    """A turn of that kind, whose records are new each time, or for hits those of a few batches. `folder` is for a cache."""
    scorer = KINDS[kind](base_url, folder)
    again: list[list[LoanWithText]] = []

    async def turn(records: list[Loan], first: int) -> int:
        made = again[first // size % AGAIN] if len(again) == AGAIN else [_with_text(r, first + n) for n, r in enumerate(records)]
        if kind == "hit" and len(again) < AGAIN:
            again.append(made)
        asked = [Question(f"r{first + place}", record) for place, record in enumerate(made)]
        answers = await scorer.score(asked, asyncio.get_running_loop().time() + 60)
        return sum(answer.status == "answered" for answer in answers)

    return turn


def main() -> None:
    """The result is one JSON line for each slice."""
    given = configuration()
    tune_collector()
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as folder:
        asyncio.run(_main(given, Path(folder)))


async def _main(given: dict[str, Any], folder: Path) -> None:
    await slices(asking(given["kind"], given["base_url"], given["size"], folder), given)


if __name__ == "__main__":
    main()
