"""product-quality: readings of a milling machine become pass, inspect or stop, with a probable cause and a suggested action.

Columns, and the limits in `POLICY`, are those of the AI4I 2020 data and its paper (Matzka 2020). Each load is a share of a limit:
1 means that the limit is reached. A gate asks about a machine only where something comes near a limit or drifts; everything
else is skipped by rule. At most one evaluation per machine and minute, which looks at every reading since the last; but a reading
that lacks a number, reaches a limit or was cut with a tool past its life is evaluated at once (`urgent`), once for each piece,
minute and limits, so that nothing else hides it. What is not covered: a reading that only comes near a limit within a minute that
was evaluated already, after which its machine falls silent for longer than the window. Nothing is decided without a record.

A model may stop a machine by itself, because it can not: the floor lets a stop stand only where a measured load has reached its
limit. So no sentence of a model stops a sound machine, and no person has to be found while a tool breaks. The opposite mistake,
passing a part that was cut beyond a limit, is not possible either: its own reading is judged, and the floor lets it not pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import floor, pi
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from agents.engine.spec import (
    Batch,
    Context,
    DecisionAgent,
    Example,
    Go,
    Order,
    Reason,
    ReasonCode,
    Scale,
    Skip,
    Verdict,
    Window,
    WindowView,
)
from models.contract import Answer, Ask
from models.scorers.scorecard import Bins, Scorecard, Tally
from schemas.decision import Review
from schemas.reading import Reading
from topics.spec import Clean, Clock, Range, Unit, out_topic, reading_topic

# ---------------------------------------------------------------------------------------------------------------- what is read

Variant = Literal["L", "M", "H"]


class MachineReading(BaseModel):
    """One reading, after cleaning: temperatures in degC, speed in 1/min, torque in Nm, wear in minutes of tool use.

    `product` is the piece on the machine and `variant` its quality grade. A number that lies outside what the sensor can
    measure is forgotten (None); a reading without a number is inspected, unless the spindle is known to stand.
    """

    product: str | None = Field(default=None, max_length=40)
    variant: Variant = "L"
    air_temperature: float | None = None
    process_temperature: float | None = None
    rotational_speed: float | None = None
    torque: float | None = None
    tool_wear: float | None = None


KELVIN = Unit(1, -273.15)
MACHINE_READINGS = reading_topic(
    "machine-readings", MachineReading, owner="production",
    description="Telemetry of milling machines; temperatures are sent in K",
    clean=Clean(
        units={"air_temperature": KELVIN, "process_temperature": KELVIN},
        ranges={
            "air_temperature": Range(-40, 80, "null"),
            "process_temperature": Range(-40, 200, "null"),
            "rotational_speed": Range(0, 20_000, "null"),
            "torque": Range(0, 500, "null"),
            "tool_wear": Range(0, 10_000, "null"),
        },
    ),
    clock=Clock(max_past_ms=86_400_000, max_future_ms=300_000),
)  # fmt: skip
QUALITY_DECISIONS = out_topic("product-quality-decisions", retention_ms=30 * 86_400_000, owner="production",
                              description="A decision for each window of a machine that matters")  # fmt: skip

# ------------------------------------------------------------------------------------------------------------------ the policy

Cause = Literal["power-low", "power-high", "heat-dissipation", "overstrain", "tool-wear", "drift"]
EVERY_MS: Final = 60_000
POLICY: Final[Mapping[str, float]] = {
    "least_power_w": 3_500,
    "most_power_w": 9_000,
    "least_heat_gap": 8.6,  # K between process and air; only below heat_speed does too small a gap overheat
    "heat_speed": 1_380,
    "worn_from_min": 200,
    "tool_life_min": 240,
    "most_strain_l": 11_000,  # minNm, by variant
    "most_strain_m": 12_000,
    "most_strain_h": 13_000,
    # A load is near its limit from this share on. They are set apart, because speeds and gaps vary far less than torque.
    "near_power_low": 0.88,
    "near_power_high": 0.94,
    "near_heat": 0.98,
    "near_strain": 0.92,
    "near_wear": 0.95,
    "drift_samples": 6,
    "drift_torque": 3.0,  # Nm a minute
    "drift_heat_gap": -0.15,  # K a minute
    "inspect_from": 50,  # risk: no pass at or above
}
RULES: Final = {
    "not-cutting": "The spindle stands without torque, so no piece is being cut.",
    "window-unremarkable": "No load came near its limit and nothing drifted, so nothing is asked.",
    "reading-incomplete": "The reading lacks a number, so its piece is inspected.",
    "tool-life-over": "The tool is past its life; the machine stops until it is changed.",
    "limit-reached": "A load reached its limit; the piece can not pass uninspected.",
    "stop-within-limits": "A stop was proposed though no load reached its limit; the piece is inspected.",
    "risk-contradicts-pass": "A pass was proposed together with a high risk; the piece is inspected.",
    "insufficient-information": "The assessment says that the readings do not suffice.",
    "cause-without-load": "The cause named is not near its limit; the highest load is named.",
}
ACTIONS: Final[Mapping[Cause, str]] = {
    "power-low": "check-spindle-drive",
    "power-high": "reduce-cutting-depth",
    "heat-dissipation": "check-coolant",
    "overstrain": "reduce-torque-or-change-tool",
    "tool-wear": "change-tool",
    "drift": "measure-next-piece",
}
_QUEUE = "shop-floor"
_STRAIN: Final[Mapping[Variant, float]] = {v: POLICY[f"most_strain_{v.lower()}"] for v in ("L", "M", "H")}
_NEAR: Final[Mapping[Cause, float]] = {
    "power-low": POLICY["near_power_low"], "power-high": POLICY["near_power_high"], "heat-dissipation": POLICY["near_heat"],
    "overstrain": POLICY["near_strain"], "tool-wear": POLICY["near_wear"],
}  # fmt: skip
_HARD: Final = ("power-low", "power-high", "heat-dissipation", "overstrain")
"""Limits whose crossing spoils the piece. Worn tools fail somewhere between `worn_from_min` and `tool_life_min`."""


@dataclass(frozen=True, slots=True)
class Full:
    """A reading that has all its numbers."""

    product: str | None
    variant: Variant
    air: float
    process: float
    speed: float
    torque: float
    wear: float

    @property
    def power(self) -> float:
        """Mechanical power in W."""
        return self.torque * self.speed * 2 * pi / 60

    def loads(self) -> dict[Cause, float]:
        """Each load as a share of its limit, exactly; 10 stands for that and more, where something stands still."""
        gap, power = self.process - self.air, self.power
        return {
            "power-low": min(10.0, POLICY["least_power_w"] / power) if power > 0 else 10.0,
            "power-high": power / POLICY["most_power_w"],
            "heat-dissipation": min(10.0, POLICY["least_heat_gap"] / gap, POLICY["heat_speed"] / self.speed)
            if gap > 0 and self.speed > 0
            else 10.0,
            "overstrain": self.wear * self.torque / _STRAIN[self.variant],
            "tool-wear": self.wear / POLICY["worn_from_min"],
        }


def cutting(row: MachineReading) -> bool:
    """Whether a piece may be being cut: false only of a spindle known to stand without torque. A stalled one has torque."""
    return row.rotational_speed != 0 or row.torque != 0


def is_cutting(reading: Reading[MachineReading]) -> Go | Skip:
    """Readings of a standing machine are not judged, and take no evaluation from those that follow."""
    return Go() if cutting(reading.row) else Skip("not-cutting")


def full(row: MachineReading) -> Full | None:
    """The reading with all its numbers, or None where one is missing."""
    a, p, s, t, w = row.air_temperature, row.process_temperature, row.rotational_speed, row.torque, row.tool_wear
    if a is None or p is None or s is None or t is None or w is None:
        return None
    return Full(row.product, row.variant, a, p, s, t, w)


def reached(loads: Mapping[Cause, float]) -> tuple[Cause, ...]:
    """The limits that spoil the piece and are reached."""
    return tuple(cause for cause in _HARD if loads[cause] >= 1)


def urgent(row: MachineReading) -> str | None:
    """What can not wait for the next minute: which piece lacks a number, reached which limits, or had too old a tool.

    Each such reading is judged, or repeats one of its minute that was judged for the same piece and reasons; and no judgement of
    one is a pass. The window's definition makes both follow from the log alone.
    """
    now = full(row)
    if now is None:
        why: tuple[str, ...] = ("reading-incomplete",)
    else:
        why = reached(now.loads())
        if now.wear >= POLICY["tool_life_min"]:
            why = ("tool-life-over", *why)
    return " ".join((*why, row.product or "")) if why else None


# ------------------------------------------------------------------------------------------------------- what a model may see


class QualityFeatures(BaseModel):
    """The reading that matters most since the last evaluation, its loads, and the trends of the window.

    Loads are cut to three places, not rounded: one is 1 or more exactly where its limit is reached.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Variant
    air_temperature: float
    heat_gap: float
    rotational_speed: int
    torque: float
    power_w: int
    tool_wear: int
    load_power_low: float
    load_power_high: float
    load_heat: float
    load_strain: float
    load_wear: float
    torque_per_minute: float | None
    heat_gap_per_minute: float | None
    readings: int
    near: tuple[Cause, ...]

    def load(self, cause: Cause) -> float:
        """The load of one cause; drift has none of its own."""
        return float(getattr(self, _FIELDS[cause])) if cause != "drift" else 0.0

    @property
    def reached(self) -> bool:
        """Whether a load that spoils the piece has reached its limit."""
        return any(self.load(cause) >= 1 for cause in _HARD)

    @property
    def worst(self) -> Cause:
        """The cause that stands out: one whose limit is reached first, then the highest above the share it is near from."""
        return max(self.near, key=self._weight)

    def _weight(self, cause: Cause) -> tuple[bool, float]:
        return cause in _HARD and self.load(cause) >= 1, self.load(cause) / _NEAR[cause] if cause in _NEAR else 0.0


_FIELDS: Final[Mapping[Cause, str]] = {
    "power-low": "load_power_low", "power-high": "load_power_high", "heat-dissipation": "load_heat", "overstrain": "load_strain",
    "tool-wear": "load_wear", "drift": "torque_per_minute",
}  # fmt: skip


class QualityAnswer(BaseModel):
    """What may be answered: the cause, the risk that piece or tool is spoilt, and the assessment."""

    model_config = ConfigDict(extra="forbid")

    cause: Cause | Literal["none"]
    risk: int = Field(ge=0, le=100)
    assessment: Literal["pass", "inspect", "stop", "insufficient"]


class QualityResult(BaseModel):
    """What the shop floor needs: the piece, the probable cause and what to do."""

    product: str | None
    cause: Cause | None
    action: str | None


PROMPT = """You judge readings of milling machines. Each record is the most loaded reading of a machine since it was last judged.
Loads are shares of a limit: from 1 on the limit is reached. `power-low` and `power-high`: mechanical power outside its band.
`heat-dissipation`: too little difference between process and air temperature at low speed. `overstrain`: tool wear times torque.
`tool-wear`: tools fail somewhere between load 1 and 1.2. `near` lists what is close to its limit or drifting. Give the most
probable cause, the risk from 0 to 100 that the piece or the tool is spoilt, and the assessment: pass, inspect, stop, or
insufficient where the numbers do not allow one."""


def features(context: Context[Reading[MachineReading]]) -> QualityFeatures | Skip | Verdict:
    """The rules before the model and the gate; then the worst reading since the last evaluation, and the trends."""
    now = full(context.value.row)
    if now is None:
        absent = tuple(n for n, v in context.value.row if v is None and n != "product")
        result = QualityResult(product=context.value.row.product, cause=None, action="check-sensors")
        return Verdict("inspect", reasons=(Reason("reading-incomplete"),), result=result, missing=absent,
                       review=_look("reading-incomplete"), overrides=("reading-incomplete",))  # fmt: skip
    if now.wear >= POLICY["tool_life_min"]:
        return Verdict("stop", reasons=(Reason("tool-life-over"),), result=_result(now, "tool-wear"),
                       overrides=("tool-life-over",))  # fmt: skip
    worst, loads = _judged(context, now)
    near: list[Cause] = [cause for cause, load in loads.items() if load >= _NEAR[cause]]
    view = context.windows["recent"]
    torque, gap = _drifts(view)
    if (torque is not None and torque >= POLICY["drift_torque"]) or (gap is not None and gap <= POLICY["drift_heat_gap"]):
        near.append("drift")
    if not near:
        return Skip("window-unremarkable")
    return QualityFeatures(
        variant=worst.variant, air_temperature=round(worst.air, 1), heat_gap=round(worst.process - worst.air, 1),
        rotational_speed=round(worst.speed), torque=round(worst.torque, 1), power_w=round(worst.power),
        tool_wear=round(worst.wear), load_power_low=_cut(loads["power-low"]), load_power_high=_cut(loads["power-high"]),
        load_heat=_cut(loads["heat-dissipation"]), load_strain=_cut(loads["overstrain"]), load_wear=_cut(loads["tool-wear"]),
        torque_per_minute=round(torque, 2) if torque is not None else None,
        heat_gap_per_minute=round(gap, 3) if gap is not None else None,
        readings=len(view.samples), near=tuple(near),
    )  # fmt: skip


def _cut(load: float) -> float:
    return floor(load * 1000) / 1000


def _judged(context: Context[Reading[MachineReading]], now: Full) -> tuple[Full, dict[Cause, float]]:
    """The reading that this evaluation is about, and its loads: an urgent one itself, else the highest that none has seen."""
    loads = now.loads()
    if reached(loads):
        return now, loads
    seen = [full(row) for row in _unseen(context)]
    pairs = [(now, loads), *((reading, reading.loads()) for reading in seen if reading is not None)]
    return max(pairs, key=lambda pair: max(load / _NEAR[cause] for cause, load in pair[1].items()))


def _unseen(context: Context[Reading[MachineReading]]) -> list[MachineReading]:
    """The readings since the last evaluation that the cool-down skipped, without those that are urgent: these were judged.

    Evaluated was the first record, in the order of the log, of each minute that is neither urgent nor of a standing machine; so
    which readings no evaluation has seen follows from the window alone, and is the same after a crash.
    """
    evaluated: dict[int, int] = {}
    skipped: list[tuple[int, MachineReading]] = []
    for at_ms, offset, row in sorted(context.windows["recent"].samples, key=lambda s: s.offset):
        if offset == context.source.offset and at_ms == context.event_ms:
            continue
        if not isinstance(row, MachineReading) or not cutting(row) or urgent(row) is not None:
            continue
        minute = at_ms // EVERY_MS
        if minute in evaluated:
            skipped.append((offset, row))
        else:
            evaluated[minute] = offset
    last = max(evaluated.values(), default=-1)
    return [row for offset, row in skipped if offset >= last]


def _drifts(view: WindowView) -> tuple[float | None, float | None]:
    """Trend of the torque and of the heat gap, per minute, while cutting; None where too few readings carry one."""
    samples = [s for s in view.samples if isinstance(s.row, MachineReading) and cutting(s.row)]
    if len(samples) < POLICY["drift_samples"]:
        return None, None
    view = replace(view, samples=samples)
    torque = view.slope_per_minute("torque")
    air, process = view.slope_per_minute("air_temperature"), view.slope_per_minute("process_temperature")
    return torque, process - air if air is not None and process is not None else None


def decide(context: Context[Reading[MachineReading]], f: QualityFeatures, answer: Answer[QualityAnswer]) -> Verdict:
    """The assessment, held between two floors: nothing passes over a limit, nothing stops below one."""
    now, value = full(context.value.row), answer.value
    reading = _judged(context, now)[0] if now is not None else None
    cause: Cause = f.worst
    if value is None:
        return Verdict("inspect", reasons=(Reason("no-answer"), _reason(cause, "rule")), result=_result(reading, cause),
                       review=_look("no-answer"))  # fmt: skip
    origin: Literal["model", "scorecard"] = "model" if answer.tier == "model" else "scorecard"
    overrides: list[str] = []
    if value.cause != "none" and value.cause in f.near:
        cause = value.cause
    elif value.cause != "none":
        overrides.append("cause-without-load")
    reasons = (_reason(cause, origin), *(_reason(other, "rule") for other in f.near if other != cause))
    if value.assessment == "insufficient":
        return Verdict("inspect", reasons=(Reason("insufficient-information"), *reasons), result=_result(reading, cause),
                       review=_look("insufficient-information"), overrides=(*overrides, "insufficient-information"))  # fmt: skip
    outcome: str = value.assessment
    if outcome == "pass" and f.reached:
        outcome, why = "inspect", "limit-reached"
    elif outcome == "stop" and not f.reached:
        outcome, why = "inspect", "stop-within-limits"
    elif outcome == "pass" and value.risk >= POLICY["inspect_from"]:
        outcome, why = "inspect", "risk-contradicts-pass"
    else:
        why = "inspection-proposed"
    if outcome != value.assessment:
        overrides.append(why)
    return Verdict(
        outcome, score=float(value.risk), reasons=reasons, result=_result(reading, cause if outcome != "pass" else None),
        review=_look(why) if outcome == "inspect" else None, proposed=value.assessment, overrides=overrides,
    )  # fmt: skip


def _reason(cause: Cause, origin: Literal["rule", "model", "scorecard"]) -> Reason:
    return Reason(cause, _FIELDS[cause], origin)


def _look(why: str) -> Review:
    return Review(required=True, why=why, queue=_QUEUE)


def _result(reading: Full | None, cause: Cause | None) -> QualityResult:
    return QualityResult(
        product=reading.product if reading else None, cause=cause, action=ACTIONS[cause] if cause is not None else None
    )


def _near(cause: Cause) -> Callable[[QualityFeatures], bool]:
    return lambda f: cause in f.near


REASONS: Final[Mapping[str, ReasonCode]] = {
    "reading-incomplete": ReasonCode({"en": "The reading lacks a number.", "de": "Der Messung fehlt ein Wert."}),
    "tool-life-over": ReasonCode({"en": "The tool is past its life.", "de": "Das Werkzeug ist über seine Standzeit."}),
    "insufficient-information": ReasonCode(
        {"en": "The readings do not allow an assessment.", "de": "Die Messungen erlauben keine Bewertung."}
    ),
    "no-answer": ReasonCode(
        {"en": "No assessment was available in time.", "de": "Es lag rechtzeitig keine Bewertung vor."}
    ),
    "power-low": ReasonCode(
        {"en": "The power is near or below its lower limit.", "de": "Die Leistung ist nahe oder unter der unteren Grenze."},
        ("load_power_low",), _near("power-low"),
    ),
    "power-high": ReasonCode(
        {"en": "The power is near or above its upper limit.", "de": "Die Leistung ist nahe oder über der oberen Grenze."},
        ("load_power_high",), _near("power-high"),
    ),
    "heat-dissipation": ReasonCode(
        {"en": "The process hardly gets rid of its heat.", "de": "Der Prozess wird seine Wärme kaum los."},
        ("load_heat",), _near("heat-dissipation"),
    ),
    "overstrain": ReasonCode(
        {"en": "A worn tool works under high torque.", "de": "Ein abgenutztes Werkzeug arbeitet unter hohem Drehmoment."},
        ("load_strain",), _near("overstrain"),
    ),
    "tool-wear": ReasonCode(
        {"en": "The tool nears the end of its life.", "de": "Das Werkzeug nähert sich dem Ende seiner Standzeit."},
        ("load_wear",), _near("tool-wear"),
    ),
    "drift": ReasonCode(
        {"en": "Torque or heat gap drift steadily.", "de": "Drehmoment oder Temperaturabstand driften stetig."},
        ("torque_per_minute", "heat_gap_per_minute"), _near("drift"),
    ),
}  # fmt: skip

# --------------------------------------------------------------------------------------------------------- without a model


def _points_answer(tally: Tally, f: QualityFeatures) -> QualityAnswer:
    """A limit that is reached stops, many points inspect; the cause is the load that stands out most."""
    risk = tally.clamped(0, 100)
    inspect = risk >= POLICY["inspect_from"]
    return QualityAnswer(cause=f.worst, risk=risk, assessment="stop" if f.reached else "inspect" if inspect else "pass")


def _load(feature: str, near: str) -> Bins:
    return Bins(feature, ((POLICY[near] - 0.001, 0), (0.999, 30)), above=90)


SCORECARD = Scorecard(
    "load-points", QualityAnswer, answer=_points_answer,
    table=(
        _load("load_power_low", "near_power_low"),
        _load("load_power_high", "near_power_high"),
        _load("load_heat", "near_heat"),
        _load("load_strain", "near_strain"),
        Bins("load_wear", ((0.949, 0), (1.0, 15), (1.1, 35)), above=50),
        Bins("torque_per_minute", ((POLICY["drift_torque"] - 0.01, 0),), above=30),
        Bins("heat_gap_per_minute", ((POLICY["drift_heat_gap"], 30),), above=0),
    ),
)  # fmt: skip
"""Answers when no model does: the loads are measured and the limits known, so a machine need not wait for a person."""

# ------------------------------------------------------------------------------------------------------------- golden examples

_CALM = {"product": "M14860", "variant": "M", "air_temperature": 25.0, "process_temperature": 35.5, "rotational_speed": 1551,
         "torque": 42.8, "tool_wear": 0}  # fmt: skip
_HOT = {**_CALM, "process_temperature": 33.0, "rotational_speed": 1350}
_WORN = {**_CALM, "tool_wear": 205}
_STRAINED = {**_CALM, "variant": "L", "torque": 60.0, "tool_wear": 188, "rotational_speed": 1300}
_LOADED = {**_CALM, "product": "M14861", "torque": 53.0}
_OVERLOADED = {**_CALM, "product": "H29424", "variant": "H", "torque": 56.5}

EXAMPLES = (
    Example("An unremarkable window is skipped and costs nothing", _CALM, skip="window-unremarkable"),
    Example("A worn tool that still cuts well passes", _WORN, answer={"cause": "tool-wear", "risk": 20, "assessment": "pass"},
            outcome="pass", tier="model", reasons=("tool-wear",), overrides=()),
    Example("A worn tool is inspected where the model says so", _WORN,
            answer={"cause": "tool-wear", "risk": 60, "assessment": "inspect"}, outcome="inspect", tier="model"),
    Example("Heat beyond the limit stops the machine", _HOT,
            answer={"cause": "heat-dissipation", "risk": 95, "assessment": "stop"}, outcome="stop", tier="model",
            reasons=("heat-dissipation",), overrides=()),
    Example("No model passes a piece that was cut beyond a limit", _STRAINED,
            answer={"cause": "overstrain", "risk": 5, "assessment": "pass"}, outcome="inspect", tier="model",
            overrides=("limit-reached",)),
    Example("No model stops a machine that is within its limits", _WORN,
            answer={"cause": "power-high", "risk": 99, "assessment": "stop"}, outcome="inspect", tier="model",
            reasons=("tool-wear",), overrides=("cause-without-load", "stop-within-limits")),
    Example("A pass with a high risk is inspected", _WORN, answer={"cause": "tool-wear", "risk": 80, "assessment": "pass"},
            outcome="inspect", tier="model", overrides=("risk-contradicts-pass",)),
    Example("A tool past its life stops the machine by rule", {**_CALM, "tool_wear": 241}, outcome="stop", tier="rule",
            overrides=("tool-life-over",)),
    Example("A reading without torque is inspected by rule", {**_CALM, "torque": None}, outcome="inspect", tier="rule",
            overrides=("reading-incomplete",)),
    Example("A torque that climbs for ten minutes is asked about though no limit is near", {**_CALM, "torque": 44.0},
            history=[{**_CALM, "torque": 20.0 + 4 * step} for step in range(6)],
            answer={"cause": "drift", "risk": 55, "assessment": "inspect"}, outcome="inspect", tier="model", reasons=("drift",)),
    Example("A load near its limit that the cool-down hid is found in the next minute", _CALM, history=[_CALM, _LOADED, _CALM],
            spacing="20s", at_ms=1_700_000_040_000, answer={"cause": "power-high", "risk": 60, "assessment": "inspect"},
            outcome="inspect", tier="model", reasons=("power-high",)),
    Example("A reading at a limit does not wait for the next minute, however worn the tool", {**_OVERLOADED, "tool_wear": 210},
            history=[{**_CALM, "tool_wear": 230}], spacing="10s",
            answer={"cause": "none", "risk": 5, "assessment": "pass"}, outcome="inspect", tier="model",
            reasons=("power-high", "tool-wear"), overrides=("limit-reached",)),
    Example("A tool past its life does not wait for the next minute", {**_CALM, "tool_wear": 245}, history=[_CALM],
            spacing="10s", outcome="stop", tier="rule", overrides=("tool-life-over",)),
    Example("A reading without torque does not wait for the next minute", {**_CALM, "torque": None}, history=[_CALM],
            spacing="10s", outcome="inspect", tier="rule", overrides=("reading-incomplete",)),
    Example("A standing machine cuts nothing", {**_CALM, "rotational_speed": 0, "torque": 0}, skip="not-cutting"),
    Example("A stalled spindle is not a standing one", {**_CALM, "rotational_speed": 0, "torque": 20.0},
            answer={"cause": "power-low", "risk": 95, "assessment": "stop"}, outcome="stop", tier="model"),
    Example("A second reading in the same minute is not judged", _HOT, history=[_HOT], spacing="1s", skip="window-cool-down"),
    Example("An unsure model has the piece inspected", _WORN, answer={"cause": "none", "risk": 0, "assessment": "insufficient"},
            outcome="inspect", tier="model", overrides=("insufficient-information",)),
    Example("Without any answer the piece is inspected", _HOT, outcome="inspect", tier="none",
            reasons=("no-answer", "heat-dissipation")),
)  # fmt: skip

AGENT: DecisionAgent[Reading[MachineReading], QualityFeatures, QualityAnswer] = DecisionAgent(
    name="product-quality",
    version=1,
    owner="production",
    description="Judges the readings of milling machines that come near a limit, and says what to do",
    reads=MACHINE_READINGS,
    writes=QUALITY_DECISIONS,
    subject=lambda reading: reading.device,
    subject_type="machine",
    windows={"recent": Window("10m", every="60s", urgent=urgent)},
    when=is_cutting,
    features=features,
    features_model=QualityFeatures,
    scorer=Ask(QualityAnswer, PROMPT),
    decide=decide,
    outcomes=("pass", "inspect", "stop"),
    adverse=("stop",),
    adverse_alone=True,
    review_outcome="inspect",
    on_no_answer="fallback",
    fallback=SCORECARD,
    fallback_alone=("stop",),
    result_model=QualityResult,
    scale=Scale(0, 100, higher_is="riskier", meaning="risk that the piece or the tool is spoilt"),
    reasons=REASONS,
    rules=RULES,
    policy=POLICY,
    order=Order.KEY,
    batch=Batch(16, within="250ms"),
    deadline="5s",
    valid_for="15m",
    examples=EXAMPLES,
)
