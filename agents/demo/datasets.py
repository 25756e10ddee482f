"""The two labelled data sets of the demo, read and split. What is theirs and what is ours is said here and nowhere left open.

**UCI Statlog German Credit** (1,000 loans of one bank, 1973-75; Hans Hofmann; CC BY 4.0; DOI 10.24432/C5NC77). Theirs: all
of `GermanRow`. The label, whether the loan was repaid ("good") or not ("bad"), lives in `Credit.good`, apart from the rows.

**AI4I 2020 Predictive Maintenance** (10,000 readings of one simulated milling machine; Stephan Matzka; CC BY 4.0; DOI
10.24432/C5HS5C; in the edition with one column for the kind of failure). Theirs: all of `MillingRow`, and that rows follow
each other in time, so that tool wear rises until the tool is changed. Ours: cutting the file at each change of tool into
*tool lives*, dealing these out to machines, and every time stamp: the file names neither a machine nor a time. The label,
whether the machine failed and how, is in `Milling.failures`.

Both are split once and for all by a hash of the row's (or tool life's) number into rows that are replayed and rows that
the scorecard of the comparison is fitted on; no row is ever both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from importlib.resources import files

CREDIT_CITATION = "UCI Statlog German Credit, H. Hofmann, CC BY 4.0, doi:10.24432/C5NC77"
MILLING_CITATION = "UCI AI4I 2020 Predictive Maintenance, S. Matzka, CC BY 4.0, doi:10.24432/C5HS5C"
_REPLAYED = 0.5
"""Share of rows that are replayed; the others fit the scorecard."""


@dataclass(frozen=True, slots=True)
class GermanRow:
    """One loan as the bank knew it when it was asked for. Amounts are in Deutsche Mark, `duration` in months.

    `installment_rate` is the class of the instalment in per cent of disposable income, 1 (35 and more) to 4 (under 20), as
    Groemping (2019) corrected the original coding. `number` counts the file's rows from 1.
    """

    number: int
    checking_account: str
    duration: int
    credit_history: str
    purpose: str
    amount: Decimal
    savings: str
    employment_since: str
    installment_rate: int
    personal_status_and_sex: str
    other_debtors: str
    residence_since: int
    belongings: str
    age: int
    other_installment_plans: str
    housing: str
    existing_credits: int
    job: str
    dependants: int
    telephone: str
    foreign_worker: bool

    @property
    def sex(self) -> str:
        """Protected, for measuring groups only: "male" or "female"."""
        return self.personal_status_and_sex.split(" ", 1)[0]

    @property
    def age_band(self) -> str:
        """The band that approval rates are measured by: protected, for measuring groups only."""
        return "18 to 24" if self.age < 25 else "25 to 34" if self.age < 35 else "35 to 49" if self.age < 50 else "50 and over"


@dataclass(frozen=True, slots=True)
class Credit:
    """German Credit, split. `good` is the label by row number: True for a loan that was repaid."""

    replay: Sequence[GermanRow]
    fit: Sequence[GermanRow]
    good: Mapping[int, bool]


@dataclass(frozen=True, slots=True)
class MillingRow:
    """One reading of the milling machine: temperatures in K, `speed` in 1/min, `torque` in Nm, `wear` in minutes of tool use.

    `product` is the id of the piece being milled and `variant` its quality: L, M or H. `number` is the file's UDI.
    """

    number: int
    product: str
    variant: str
    air_k: float
    process_k: float
    speed: int
    torque: float
    wear: int


@dataclass(frozen=True, slots=True)
class ToolLife:
    """Consecutive readings from one change of the tool to the next."""

    number: int
    rows: Sequence[MillingRow]


@dataclass(frozen=True, slots=True)
class Milling:
    """AI4I 2020, cut into tool lives and split. `failures` is the label by UDI: the kind of failure, for failed rows only."""

    replay: Sequence[ToolLife]
    fit: Sequence[ToolLife]
    failures: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Dealt:
    """A reading given to a machine; `turn` counts the readings of that machine from 0, and stands for its time."""

    machine: str
    turn: int
    row: MillingRow


def german_credit() -> Credit:
    """Read and split German Credit. Raises ValueError naming the row that does not parse."""
    rows: list[GermanRow] = []
    good: dict[int, bool] = {}
    for number, line in enumerate(_lines("german_credit.csv"), start=1):
        try:
            rows.append(_german_row(number, line))
            good[number] = {"good": True, "bad": False}[line["creditability"]]
        except (KeyError, ValueError) as error:
            raise ValueError(f"reading german_credit.csv, row {number}: {error}") from error
    return Credit(
        replay=tuple(r for r in rows if _is_replayed("credit", r.number)),
        fit=tuple(r for r in rows if not _is_replayed("credit", r.number)),
        good=good,
    )


def milling() -> Milling:
    """Read AI4I 2020, cut it at each change of tool, and split the tool lives. Raises ValueError naming a bad row."""
    lives: list[list[MillingRow]] = []
    failures: dict[int, str] = {}
    for line in _lines("ai4i_2020.csv"):
        try:
            row = _milling_row(line)
            if line["Target"] == "1":
                kind = line["Failure Type"]  # nine failed rows of the file name no kind
                failures[row.number] = "unnamed failure" if kind == "No Failure" else kind
        except (KeyError, ValueError) as error:
            raise ValueError(f"reading ai4i_2020.csv, UDI {line.get('UDI')}: {error}") from error
        if not lives or row.wear < lives[-1][-1].wear:
            lives.append([])
        lives[-1].append(row)
    cut = [ToolLife(number, tuple(rows)) for number, rows in enumerate(lives)]
    # Heat failures sit in one stretch of the file. In the order of a hash a short replay meets every stretch.
    cut.sort(key=lambda life: _hash("order", life.number))
    return Milling(
        replay=tuple(life for life in cut if _is_replayed("milling", life.number)),
        fit=tuple(life for life in cut if not _is_replayed("milling", life.number)),
        failures=failures,
    )


def deal(lives: Sequence[ToolLife], count: int, machines: int = 8) -> Iterator[Dealt]:
    """Deal `count` readings out to machines, one reading a machine in each turn; past the last life it starts over.

    Each machine starts somewhere in a tool life of its own, works it off and takes the next free one, so its readings stay in
    the file's order and wear rises until the tool is changed. Starts are spread over the tool's life: else every machine
    would begin with a new tool and a short demo would never see a worn one.
    """
    if not lives:
        raise ValueError("dealing readings to machines: there is no tool life")
    return _deal(lives, count, machines)


def _deal(lives: Sequence[ToolLife], count: int, machines: int) -> Iterator[Dealt]:
    free = 0
    work: list[Iterator[MillingRow]] = [iter(()) for _ in range(machines)]
    for position in range(count):
        turn, machine = divmod(position, machines)
        row = next(work[machine], None)
        if row is None:
            rows = lives[free % len(lives)].rows
            start = len(rows) * machine // machines if turn == 0 else 0
            work[machine] = iter(rows[start:])
            row = next(work[machine])
            free += 1
        yield Dealt(f"mill-{machine + 1:02d}", turn, row)


def _is_replayed(name: str, number: int) -> bool:
    """The split: a hash, so it stays the same whatever else is read, and neighbours in the file fall on either side."""
    return _hash(name, number)[0] < 256 * _REPLAYED


def _hash(name: str, number: int) -> bytes:
    return sha256(f"{name}:{number}".encode()).digest()


def _lines(name: str) -> Iterator[dict[str, str]]:
    # utf-8-sig: AI4I's header begins with a byte order mark.
    text = files("agents.demo").joinpath("data", name).read_text(encoding="utf-8-sig")
    yield from csv.DictReader(io.StringIO(text))


def _german_row(number: int, line: Mapping[str, str]) -> GermanRow:
    return GermanRow(
        number=number,
        checking_account=line["status_of_existing_checking_account"],
        duration=int(line["duration_in_month"]),
        credit_history=line["credit_history"],
        purpose=line["purpose"],
        amount=Decimal(line["credit_amount"]),
        savings=line["savings_account_and_bonds"],
        employment_since=line["present_employment_since"],
        installment_rate=int(line["installment_rate_in_percentage_of_disposable_income"]),
        personal_status_and_sex=line["personal_status_and_sex"],
        other_debtors=line["other_debtors_or_guarantors"],
        residence_since=int(line["present_residence_since"]),
        belongings=line["property"],
        age=int(line["age_in_years"]),
        other_installment_plans=line["other_installment_plans"],
        housing=line["housing"],
        existing_credits=int(line["number_of_existing_credits_at_this_bank"]),
        job=line["job"],
        dependants=int(line["number_of_people_being_liable_to_provide_maintenance_for"]),
        telephone=line["telephone"],
        foreign_worker={"yes": True, "no": False}[line["foreign_worker"]],
    )


def _milling_row(line: Mapping[str, str]) -> MillingRow:
    return MillingRow(
        number=int(line["UDI"]),
        product=line["Product ID"],
        variant=line["Type"],
        air_k=float(line["Air temperature [K]"]),
        process_k=float(line["Process temperature [K]"]),
        speed=int(line["Rotational speed [rpm]"]),
        torque=float(line["Torque [Nm]"]),
        wear=int(line["Tool wear [min]"]),
    )
