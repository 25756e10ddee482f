"""What decoding one record can come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from schemas.dead_letter import Fault

V = TypeVar("V")
ControlKind = Literal["heartbeat", "transaction-marker", "schema-change", "tombstone", "truncate", "logical-message"]


@dataclass(frozen=True, slots=True)
class Decoded(Generic[V]):
    """The values in one record, one per subject, usually one. `cleaned` names the cleaning rules that acted.

    An element may itself be a Fault: one device of a pack is bad, its neighbours are not.
    """

    values: tuple[V | Fault, ...]
    cleaned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """A record that carries no data of ours: it is skipped by a rule of this name."""

    kind: ControlKind
    key: dict[str, Any] | None = None


Result = Decoded[V] | Control | Fault
