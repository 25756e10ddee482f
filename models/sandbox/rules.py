"""The sandbox's transparent rules: one function per answer model, from the features in the prompt to the fields of an answer.

These are rules that a person can follow, written down so that the whole chain can be shown without a model. They are no model:
where they agree with known outcomes, that proves the plumbing and nothing else. The same features give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

RULES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {}
"""Class name of an answer model -> its rule. A model without one gets a stable hash of the features (models/sandbox/fill.py)."""

_Points = tuple[str, Callable[[Any], bool], int, str | None]
_CREDIT_BASE = 34
_CREDIT: Final[tuple[_Points, ...]] = (
    # feature, holds, points, the driver it is told as
    ("checking", lambda v: v == "overdrawn", 16, "overdrawn"),
    ("checking", lambda v: v == "under-200", 10, None),
    ("checking", lambda v: v == "none", -16, None),
    ("savings", lambda v: v == "under-100", 5, "low-savings"),
    ("savings", lambda v: v in ("500-to-1000", "1000-and-more"), -7, "solid-savings"),
    ("history", lambda v: v == "other-credits", -8, "other-credits"),
    ("history", lambda v: v == "delays-in-the-past", 3, "late-payments"),
    ("history", lambda v: v == "paid-duly-until-now", -1, "paid-duly"),
    ("history", lambda v: v in ("no-credits", "all-paid-duly"), 12, None),
    ("employment", lambda v: v in ("unemployed", "under-1-year"), 6, "short-employment"),
    ("employment", lambda v: v in ("4-to-7-years", "7-years-and-more"), -5, "long-employment"),
    ("duration_months", lambda v: v >= 36, 11, "long-term"),
    ("duration_months", lambda v: v <= 12, -7, "short-term"),
    ("amount", lambda v: v >= 7_500, 9, "high-amount"),
    ("instalment_share", lambda v: v >= 25, 4, "high-instalment"),
    ("other_plans", lambda v: v in ("bank", "stores"), 7, "other-plans"),
    ("other_debtors", lambda v: v == "guarantor", -9, "guarantor"),
    ("property", lambda v: v == "none", 5, "no-property"),
    ("property", lambda v: v == "real-estate", -5, "real-estate"),
)
_CREDIT_KNOWN: Final = ("checking", "savings", "employment", "history", "property")


def risk_answer(features: Mapping[str, Any]) -> dict[str, Any]:
    """Points for and against, from a base; unsure when most of what is known of a customer is unknown."""
    if sum(features.get(name, "unknown") == "unknown" for name in _CREDIT_KNOWN) > 2:
        return {"sufficient": False, "drivers": [], "risk": 50}
    known = {name: value for name, value in features.items() if value is not None}
    hits = [(points, driver) for name, holds, points, driver in _CREDIT if name in known and holds(known[name])]
    risk = _CREDIT_BASE + sum(points for points, _ in hits)
    told = sorted(((points, driver) for points, driver in hits if driver is not None), key=lambda hit: -abs(hit[0]))
    return {"sufficient": True, "drivers": [driver for _, driver in told[:4]], "risk": max(0, min(100, risk))}


_LOADS: Final = {
    "power-low": "load_power_low", "power-high": "load_power_high", "heat-dissipation": "load_heat", "overstrain": "load_strain",
    "tool-wear": "load_wear",
}  # fmt: skip


def quality_answer(features: Mapping[str, Any]) -> dict[str, Any]:
    """The highest load near its limit is the cause; at the limit the machine stops, except for wear, which is inspected."""
    near = [cause for cause in features.get("near", ()) if cause in _LOADS]
    if not near:
        drifts = "drift" in features.get("near", ())
        return {"cause": "drift" if drifts else "none", "risk": 30, "assessment": "inspect" if drifts else "pass"}
    loads = {cause: float(features[_LOADS[cause]]) for cause in near}
    hard = {cause: load for cause, load in loads.items() if cause != "tool-wear"}
    reached = [cause for cause, load in hard.items() if load >= 1]
    if reached:
        return {"cause": max(reached, key=hard.__getitem__), "risk": 95, "assessment": "stop"}
    cause = max(loads, key=loads.__getitem__)
    risk = round(max(0.0, min(90.0, (loads[cause] - 0.85) * 200)))
    return {"cause": cause, "risk": risk, "assessment": "inspect" if risk >= 50 else "pass"}


RULES["RiskAnswer"] = risk_answer
RULES["QualityAnswer"] = quality_answer
