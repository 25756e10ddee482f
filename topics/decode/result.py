"""What decoding one record can come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from schemas.dead_letter import Fault
from schemas.values import value

V = TypeVar("V")
ControlKind = Literal["heartbeat", "transaction-marker", "schema-change", "tombstone", "truncate", "logical-message"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """One element of a record that a declared rule leaves out, e.g. a clock whose `on_violation` is "skip"."""

    rule: str


@value
class Decoded(Generic[V]):
    """The values in one record, one per subject, usually one. `cleaned` names the cleaning rules that acted.

    An element may itself be a Fault: one device of a pack is bad, its neighbours are not. Or it is Skipped, by rule.
    `values` is empty only where a pack named no measurement at all.
    """

    values: tuple[V | Fault | Skipped, ...]
    cleaned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """A record that carries no data of ours: it is skipped by a rule of this name."""

    kind: ControlKind
    key: dict[str, Any] | None = None


Result = Decoded[V] | Control | Fault
