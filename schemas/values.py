"""value: a dataclass that is immutable to the type checker and costs no more than a plain one when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Use in place of `@dataclass(frozen=True, slots=True)` for what is made several times for each record.

    `frozen=True` sets each field through `object.__setattr__`: with some sixty fields a record that was a sixth of all CPU
    (docs/performance.md). The type checker still refuses an assignment; at run time nobody is stopped.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
