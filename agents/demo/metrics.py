"""How well scores and outcomes fit what really happened: plain functions over lists, each figure with its counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`."""

    hits: int
    count: int

    @property
    def value(self) -> float | None:
        """In 0..1; None for a share of nothing."""
        return self.hits / self.count if self.count else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval: honest for few and for extreme counts, where the plain one is not."""
        if not self.count:
            return None
        z, n, p = 1.96, self.count, self.hits / self.count
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # With no hits, or nothing but hits, the bound is the share itself: rounding must not put it outside.
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


@dataclass(frozen=True, slots=True)
class Auc:
    """Area under the ROC curve over `positives` and `negatives`: the chance that a positive scores above a negative."""

    value: float | None
    positives: int
    negatives: int

    @property
    def error(self) -> float | None:
        """Standard error after Hanley and McNeil (1982); None without an area."""
        if self.value is None:
            return None
        a, m, n = self.value, self.positives, self.negatives
        q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
        variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (m * n)
        return math.sqrt(max(0.0, variance))


def auc(scored: Iterable[tuple[float, bool]]) -> Auc:
    """The area for (score, positive) pairs by ranks, ties counted half; no value while one class is missing."""
    pairs = sorted(scored)
    positives = sum(1 for _, positive in pairs if positive)
    negatives = len(pairs) - positives
    if not positives or not negatives:
        return Auc(None, positives, negatives)
    rank_sum, start = 0.0, 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end][0] == pairs[start][0]:
            end += 1
        middle = (start + 1 + end) / 2
        rank_sum += middle * sum(1 for _, positive in pairs[start:end] if positive)
        start = end
    return Auc((rank_sum - positives * (positives + 1) / 2) / (positives * negatives), positives, negatives)


def share(hits: Iterable[bool]) -> Share:
    """Count the true ones."""
    found = list(hits)
    return Share(sum(found), len(found))


def by_group(pairs: Iterable[tuple[str, bool]]) -> dict[str, Share]:
    """(group, hit) pairs counted per group, in the order of the groups' names."""
    groups: dict[str, list[bool]] = {}
    for group, hit in pairs:
        groups.setdefault(group, []).append(hit)
    return {group: share(groups[group]) for group in sorted(groups)}


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least the share `q` of all values does not exceed (nearest rank); None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
