"""How often an answer out of a batch differs from the same record's answer alone, and how large batches may be for it.

Batching is cheaper and can be worse: answers in a naive batch degrade with its size and with the position in it (Cheng et al.,
"Batch Prompting", EMNLP 2023; Lin et al., "BatchPrompt", ICLR 2024). What it does to this prompt on this model is measured, not
assumed. Pure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

LEAST_EVIDENCE = 20
"""Comparisons before anything is concluded: one flip in the first three says nothing."""
_MOST_PATIENCE = 16
NEAR = 0.1
"""Part of a number's range by which two answers may differ and still say the same."""


@dataclass(slots=True)
class FlipStats:
    """Comparisons made and flips among them, since the start."""

    compared: int = 0
    flipped: int = 0
    shrunk: int = 0
    grown: int = 0


class FlipMeter:
    """The batch size that keeps flips below `limit` (a share), between 1 and `most`.

    Over the last `window` comparisons at the present size: above the limit the size is halved, or goes back to the last size that
    held; below half of the limit, with the window full, it grows by a quarter. After either, evidence is gathered anew, and after
    growing in vain twice as much of it is wanted before the next try.
    """

    def __init__(self, most: int, *, limit: float = 0.05, window: int = 100) -> None:
        self.size = most
        self.stats = FlipStats()
        self._most, self._limit = most, limit
        self._window = deque[bool](maxlen=max(window, LEAST_EVIDENCE))
        self._held = 1
        self._clean = 0
        self._patience = 1

    @property
    def rate(self) -> float:
        """Share of flips among the comparisons at the present size; 0.0 before there is any."""
        return sum(self._window) / len(self._window) if self._window else 0.0

    def seen(self, flipped: bool, size: int) -> None:
        """One comparison of an answer that came out of a batch of `size`.

        Batches larger than allowed now, asked before a change, and those far smaller prove nothing about the present size.
        """
        self.stats.compared += 1
        self.stats.flipped += flipped
        if not self.size / 2 < size <= self.size:
            return
        self._window.append(flipped)
        if len(self._window) >= LEAST_EVIDENCE and self.rate > self._limit:
            self._shrink()
        elif len(self._window) == self._window.maxlen and self.rate <= self._limit / 2:
            self._hold()

    def _shrink(self) -> None:
        self._window.clear()
        if self.size == 1:
            return
        if self.size // 2 < self._held < self.size:
            self._patience = min(_MOST_PATIENCE, 2 * self._patience)  # it was growing that failed
            self.size = self._held
        else:
            self.size //= 2
            self._held = 1
        self._clean = 0
        self.stats.shrunk += 1

    def _hold(self) -> None:
        """A whole window without trouble."""
        self._window.clear()
        self._held = self.size
        self._clean += 1
        if self._clean >= self._patience and self.size < self._most:
            self.size = min(self._most, self.size + max(1, self.size // 4))
            self._clean = 0
            self.stats.grown += 1


def same(one: BaseModel, other: BaseModel) -> bool:
    """Whether two answers of one type judge alike: enumerations equal, bounded numbers within a tenth of their range.

    Free text is not compared: the same judgement is worded in many ways.
    """
    for name, span in _compared(type(one)).items():
        a, b = getattr(one, name), getattr(other, name)
        if span is None or a is None or b is None:
            if a != b:
                return False
        elif abs(a - b) > NEAR * span:
            return False
    return True


def bounds(model: type[BaseModel]) -> dict[str, tuple[float, float]]:
    """The bounded numbers of an answer model, with both ends of their ranges."""
    return {name: ends for name, field in model.model_fields.items() if (ends := _ends(field)) is not None}


def _ends(field: FieldInfo) -> tuple[float, float] | None:
    low = next((m.ge if isinstance(m, Ge) else m.gt for m in field.metadata if isinstance(m, Ge | Gt)), None)
    high = next((m.le if isinstance(m, Le) else m.lt for m in field.metadata if isinstance(m, Le | Lt)), None)
    return (float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) else None


@cache
def _compared(model: type[BaseModel]) -> dict[str, float | None]:
    """Field -> the width of its range, or None where it has to be equal; fields of free text are left out."""
    found: dict[str, float | None] = {}
    for name, field in model.model_fields.items():
        if (ends := _ends(field)) is not None:
            found[name] = ends[1] - ends[0]
        elif _discrete(field.annotation):
            found[name] = None
    return found


def _discrete(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation in (bool, int, type(None)):
        return True
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return True
    arguments = get_args(annotation)
    return bool(arguments) and all(_discrete(argument) for argument in arguments)
