"""The replay as planned: what is good decodes to the row it came from, what is broken is a fault, and no label is told."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections import Counter

import orjson
import pytest

from agents.credit_risk import CUSTOMERS, LOAN_APPLICATIONS, CreditFeatures, Customer, LoanApplication
from agents.demo import loans, readings
from agents.demo.datasets import german_credit, milling
from agents.demo.drafts import Planned, broken_places, dice
from agents.demo.plan import Plan, build
from agents.product_quality import MACHINE_READINGS, MachineReading
from schemas.change import Change
from schemas.dead_letter import Fault
from schemas.marks import Protected, marked
from schemas.reading import Reading
from topics.decode import decoder
from topics.decode.result import Control, Decoded, Result
from topics.record import Raw

START_MS = int(time.time() * 1000)
SPECS = {spec.name: spec.placed(loans.HINTS.get(spec.name, {})) for spec in (LOAN_APPLICATIONS, CUSTOMERS, MACHINE_READINGS)}
KELVIN = 273.15


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A replay that is long enough to have every kind of record in it."""
    return build(german_credit(), milling(), 2000, rate=100, start_ms=START_MS)


def _decoded(plan: Plan) -> list[tuple[Planned, Result[object]]]:
    decode = {name: decoder(spec) for name, spec in SPECS.items()}
    return [
        (p, decode[p.topic](Raw(p.topic, p.value, key=p.key, offset=i, timestamp=START_MS + int(p.after * 1000))))
        for i, p in enumerate(plan)
    ]


def _only(result: Result[object]) -> object:
    assert isinstance(result, Decoded), result
    (value,) = result.values
    return value


def test_a_good_row_change_decodes_to_exactly_the_row_it_came_from(plan: Plan) -> None:
    """Every application and customer comes out of the decoder as it went in: exact decimals, same operation, same key."""
    ops = {"application": "c", "amendment": "u", "write-back": "u", "withdrawal": "u"}
    seen: Counter[str] = Counter()
    for planned, result in _decoded(plan):
        if planned.fault or planned.values is None or planned.what == "reading":
            continue
        change = _only(result)
        assert isinstance(change, Change)
        row = Customer if planned.what == "customer" else LoanApplication
        assert change.after == row(**planned.values)
        assert change.key == {"id": planned.values["id"]}
        assert change.op == ops.get(planned.what, change.op)
        assert planned.what != "customer" or change.op in ("r", "c")
        seen[planned.what] += 1
    assert min(seen[what] for what in (*ops, "customer")) > 0


def test_a_deletion_and_its_tombstone_are_told_apart(plan: Plan) -> None:
    """A deleted application is a change without a row, and the tombstone behind it a control record with the same key."""
    seen: Counter[str] = Counter()
    for planned, result in _decoded(plan):
        if planned.what == "deletion":
            change = _only(result)
            assert isinstance(change, Change)
            assert change.op == "d"
            assert change.after is None
            assert str(change.key["id"]) == planned.subject
        elif planned.what == "tombstone":
            assert result == Control("tombstone", {"id": int(planned.subject)})
        else:
            continue
        seen[planned.what] += 1
    assert seen["deletion"] > 0
    assert seen["tombstone"] > 0


def test_a_good_reading_decodes_to_what_was_measured(plan: Plan) -> None:
    """Whatever shape a reading is sent in, machine, time and numbers come out as they are in the data, temperatures in degC."""
    shapes: Counter[str] = Counter()
    for planned, result in _decoded(plan):
        if planned.what != "reading" or planned.fault:
            continue
        reading = _only(result)
        assert planned.values is not None
        assert planned.value is not None
        assert isinstance(reading, Reading)
        assert isinstance(reading.row, MachineReading)
        sent = dict(planned.values)
        assert (reading.device, reading.event_ms) == (sent.pop("device"), sent.pop("event_ms"))
        for name in ("air_temperature", "process_temperature"):
            assert getattr(reading.row, name) == pytest.approx(sent.pop(name) - KELVIN)
        assert {name: getattr(reading.row, name) for name in sent} == sent
        shapes["senml" if planned.value.startswith(b"[") else "metrics" if b'"metrics"' in planned.value else "flat"] += 1
    assert min(shapes[shape] for shape in ("flat", "metrics", "senml")) > 100


def test_every_broken_record_is_a_fault_and_no_other_is(plan: Plan) -> None:
    """Exactly the records that were broken on purpose do not decode, and all ways of breaking one occur."""
    faults: Counter[tuple[str, str | None]] = Counter()
    for planned, result in _decoded(plan):
        values = result.values if isinstance(result, Decoded) else (result,)
        bad = any(isinstance(value, Fault) for value in values)
        assert bad == (planned.fault is not None), (planned.fault, planned.value, result)
        if planned.fault:
            faults[planned.topic, planned.fault] += 1
    assert set(faults) == {
        *((LOAN_APPLICATIONS.name, how) for how in loans.FAULTS),
        *((MACHINE_READINGS.name, how) for how in readings.FAULTS),
    }
    assert faults.total() == plan.broken


def test_no_record_tells_a_label(plan: Plan) -> None:
    """Neither the name nor a value of a label is on the wire."""
    for planned in plan:
        text = (planned.value or b"").lower()
        for word in (b"creditability", b'"good"', b'"bad"', b"target", b"failure"):
            assert word not in text


def test_protected_attributes_stay_in_the_customers_topic(plan: Plan) -> None:
    """Sex, age and nationality are columns of the customers table only, marked as protected there, and no features."""
    protected = set(marked(Customer, Protected))
    assert protected == {"personal_status_and_sex", "age", "foreign_worker"}
    assert not protected & set(CreditFeatures.model_fields)
    for planned in plan:
        if planned.what != "customer":
            for name in protected:
                assert name.encode() not in (planned.value or b"")
    customers = [orjson.loads(p.value)["after"] for p in plan if p.what == "customer" and p.value]
    assert all(protected <= set(row) for row in customers)


@pytest.mark.parametrize("records", [1, 2, 7, 24, 200, 601])
def test_a_plan_has_as_many_records_as_were_asked_for(records: int) -> None:
    """The number asked for is the number of records that are owed an outcome; customers come on top."""
    found = build(german_credit(), milling(), records, rate=50, start_ms=START_MS)
    assert found.counted == records
    assert found.broken == sum(1 for p in found if p.fault) <= max(2, records // 20)


def test_times_and_log_positions_grow(plan: Plan) -> None:
    """Records are sent in the order of their times, and within one run the database's log positions follow it."""
    times = [p.after for p in plan.timed]
    assert times == sorted(times)
    lsns = [
        orjson.loads(p.value)["source"]["lsn"]
        for p in plan
        if p.topic != MACHINE_READINGS.name and p.value is not None and p.fault != "truncated"
    ]
    assert lsns == sorted(set(lsns))


def test_records_of_one_application_keep_their_order(plan: Plan) -> None:
    """An application is asked for before it is amended, written back to, withdrawn or deleted, and its tombstone comes last."""
    rank = {"application": 0, "amendment": 1, "write-back": 1, "withdrawal": 1, "deletion": 1, "tombstone": 2}
    last: dict[str, int] = {}
    for planned in plan.timed:
        if planned.what in rank:
            assert rank[planned.what] >= last.get(planned.subject, 0), planned
            last[planned.subject] = rank[planned.what]


def test_most_customers_are_there_first_and_a_few_come_late(plan: Plan) -> None:
    """The join has to wait for some customers, and a few never come."""
    asked = {str(p.values["customer_id"]) for p in plan if p.what == "application" and p.values}
    ahead = {p.subject for p in plan.ahead}
    late = {p.subject for p in plan.timed if p.what == "customer"}
    assert late
    assert asked - ahead - late
    assert len(ahead) > 0.9 * len(asked)


def test_an_income_fits_the_instalment() -> None:
    """The instalment without interest is the share of the made up income that the row states; a few incomes are unknown."""
    rows = german_credit().replay
    unknown = 0
    for row in rows:
        found = loans.income(row)
        if found is None:
            unknown += 1
            continue
        low, high = {1: (0.35, 0.50), 2: (0.25, 0.35), 3: (0.20, 0.25), 4: (0.10, 0.20)}[row.installment_rate]
        assert low - 0.001 <= float(row.amount / row.duration / found) <= high + 0.001
    assert 0 < unknown < 0.1 * len(rows)


def test_two_plans_of_one_start_are_the_same() -> None:
    """What we make up is drawn from the data only: the same start gives the same bytes."""
    first, second = (list(build(german_credit(), milling(), 100, rate=50, start_ms=START_MS)) for _ in range(2))
    assert first == second


def test_a_long_plan_is_made_as_it_is_sent() -> None:
    """Two million records are planned at once, and the first thousands of them take little memory and no look at the rest."""
    tracemalloc.start()
    try:
        endless = build(german_credit(), milling(), 2_000_000, rate=2000, start_ms=START_MS)
        ahead = list(itertools.islice(endless.ahead, 1000))
        _, with_ahead = tracemalloc.get_traced_memory()
        times = [planned.after for planned in itertools.islice(endless.timed, 5000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(ahead) == 1000
    assert times == sorted(times)
    assert times[-1] < 5
    assert with_ahead < 40_000_000
    assert peak < 40_000_000


def test_what_was_planned_does_not_depend_on_what_was_looked_at() -> None:
    """Both parts can be gone through again, and in any order, and log positions of the second lie above the first's."""
    found = build(german_credit(), milling(), 300, rate=50, start_ms=START_MS)
    timed, ahead = list(found.timed), list(found.ahead)
    assert (ahead, timed) == (list(found.ahead), list(found.timed))
    assert list(found) == ahead + timed


@pytest.mark.parametrize(("records", "rate"), [(20, 0.05), (30, 1.0), (1000, 40.0), (20_000, 2000.0)])
def test_no_reading_is_sent_before_it_was_taken_or_too_late(records: int, rate: float) -> None:
    """However slow or long the replay is, a reading's own time lies within the day before it is sent."""
    for planned in build(german_credit(), milling(), records, rate=rate, start_ms=START_MS):
        if planned.what == "reading" and planned.values is not None:
            age_ms = START_MS + planned.after * 1000 - planned.values["event_ms"]
            assert 0 <= age_ms < 86_400_000


@pytest.mark.parametrize(("records", "rate"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_a_replay_of_nothing_is_refused(records: int, rate: float) -> None:
    """Numbers that are not positive are named, not acted upon."""
    with pytest.raises(ValueError, match="must be positive"):
        build(german_credit(), milling(), records, rate=rate, start_ms=START_MS)


def test_broken_places_are_spread_and_take_turns() -> None:
    """One in fifty is broken, each way in turn, and a handful of records has none."""
    assert broken_places(7, ("a", "b")) == {}
    assert list(broken_places(12, ("a", "b")).values()) == ["a"]
    found = broken_places(200, ("a", "b", "c"))
    assert list(found.values()) == ["a", "b", "c", "a"]
    assert all(0 <= place < 200 for place in found)


def test_the_dice_depend_on_the_names_only() -> None:
    """The same names throw the same number, others another."""
    assert dice("a", 1) == dice("a", 1) != dice("a", 2)
    assert all(0 <= dice("spread", n) < 1 for n in range(1000))
