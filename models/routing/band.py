"""Band: where the number in an answer says that its tier is not certain, and how often the next tier agrees. Pure.

Certainty is read off one bounded number of the answer, such as a risk: outside the band the answer stands, inside it somebody
better is asked. Whether the band is where it should be can only be seen outside it, where nobody else is asked: so a sample of
the certain answers is asked of the next tier too, and counted by region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from pydantic import BaseModel

from models.quality.flips import bounds, same
from schemas.errors import ConfigError

Region = Literal["below", "inside", "above", "insufficient"]
"""Where an answer lies: below or above the band it is certain, inside it or with insufficient information it is not."""
REGIONS: Final[tuple[Region, ...]] = ("below", "inside", "above", "insufficient")
CERTAIN: Final[frozenset[Region]] = frozenset({"below", "above"})


@dataclass(frozen=True, slots=True)
class Band:
    """From `low` to `high`, both of them inside."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}-{self.high:g}"


def band_of(answer: type[BaseModel], name: str, band: tuple[float, float], where: str) -> Band:
    """The band on the field `name` of `answer`. Raises ConfigError, headed by `where`, for one that does not fit it."""
    numbers = bounds(answer)
    if name not in numbers:
        known = ", ".join(numbers) or "it has none"
        raise ConfigError(f"{where}: field {name!r} is no bounded number of {answer.__name__}; those are: {known}")
    (low, high), (least, most) = band, numbers[name]
    if not least <= low <= high <= most:
        ends = f"{least:g} to {most:g}"
        raise ConfigError(f"{where}: the band {low:g} to {high:g} has to rise and to lie in {name}'s range, {ends}")
    return Band(low, high)


def says_insufficient(value: BaseModel) -> bool:
    """Whether an answer says that its information does not suffice: `sufficient` is false, or a choice begins "insufficient"."""
    for name in type(value).model_fields:
        said = getattr(value, name, None)
        if isinstance(said, Enum):
            said = said.value
        if (name == "sufficient" and said is False) or (isinstance(said, str) and said.startswith("insufficient")):
            return True
    return False


def number(value: Any, name: str) -> float | None:
    """The number of an answer; None where it has none."""
    found = getattr(value, name, None)
    try:
        return None if found is None else float(found)
    except (TypeError, ValueError, OverflowError):
        return None


def region(value: Any, name: str, band: Band, insufficient: Callable[[Any], bool]) -> Region:
    """Where the answer lies. One without a number, or with one that is none, is inside: nothing says that it is certain."""
    if insufficient(value):
        return "insufficient"
    found = number(value, name)
    if found is not None and found < band.low:
        return "below"
    return "above" if found is not None and found > band.high else "inside"


@dataclass(slots=True)
class Agreement:
    """Answers of one tier that the next one gave too: how many, how many judge alike, how far the numbers are apart in all."""

    compared: int = 0
    agreed: int = 0
    apart: float = 0.0

    @property
    def flipped(self) -> int:
        """Those that judge otherwise."""
        return self.compared - self.agreed

    @property
    def mean_apart(self) -> float:
        """The mean absolute difference of the number; 0.0 before there is any."""
        return self.apart / self.compared if self.compared else 0.0


@dataclass(slots=True)
class TierStats:
    """One tier since the start. `asked` is the sum of `certain`, `uncertain` and `unanswered`.

    `sampled` certain answers were asked of the next tier too; `spared` uncertain ones stand, since money runs short.
    `regions` has how the tier that answered next agrees. Of the last tier all answers are certain.
    """

    tier: Literal["scorecard", "cheap", "strong"]
    asked: int = 0
    certain: int = 0
    uncertain: int = 0
    unanswered: int = 0
    sampled: int = 0
    spared: int = 0
    regions: dict[Region, Agreement] = field(default_factory=lambda: {region: Agreement() for region in REGIONS})

    def compare(self, where: Region, name: str, one: BaseModel, next_one: BaseModel) -> None:
        """The next tier answered as well. Answers that can not be compared, since somebody's own scorer made them up, are not."""
        seen = self.regions[where]
        try:
            agreed = same(one, next_one)
        except (TypeError, AttributeError):
            return
        seen.compared += 1
        seen.agreed += agreed
        a, b = number(one, name), number(next_one, name)
        if a is not None and b is not None:
            seen.apart += abs(a - b)

    @property
    def sample(self) -> Agreement:
        """The sampled certain answers, below and above the band together."""
        below, above = self.regions["below"], self.regions["above"]
        return Agreement(below.compared + above.compared, below.agreed + above.agreed, below.apart + above.apart)
