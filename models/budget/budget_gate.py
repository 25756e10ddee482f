"""BudgetGate: no request leaves that its agent's budget of the day does not cover."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from models.budget.budget import Budget, Hold
from models.budget.charge import charged
from models.budget.prices import MICRO, Priced
from models.gates.gate import Asking, Ended, Leave, Refused


class BudgetGate:
    """A models.gates.gate.Gate for one model at `price`. Agents that have no budget pass.

    `day` gives today's, in UTC, and `clock` epoch milliseconds.
    """

    def __init__(
        self, budgets: Mapping[str, Budget], price: Priced, day: Callable[[], str],
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self._budgets = budgets
        self._price = price
        self._day = day
        self._clock = clock

    async def enter(self, asking: Asking, deadline: float) -> Leave:
        """Reserve what the request may cost at most. Raises Refused with status "budget" where that is not left.

        It names the partitions that can not pay their part: the others may be asked about without them.
        """
        budget = self._budgets.get(asking.agent)
        if budget is None:
            return _nothing
        day = self._day()
        price = self._price.bound(self._clock())
        amount = price.cost(asking.most)
        hold = budget.reserve(asking.partitions, amount, day)
        if hold is None:
            short = budget.short(asking.partitions, amount, day)
            least = min(short, key=lambda partition: budget.left(partition, day))
            left, whole = budget.left(least, day) / MICRO, budget.allowance(least) / MICRO
            raise Refused(
                "budget",
                f"the budget of {asking.agent} for {day} is spent: {left:.6f} of partition {least}'s {whole:.6f} "
                f"{price.currency} are left, the request may cost {amount / MICRO:.6f}",
                short,
            )
        return partial(self._leave, budget, hold, asking)

    def _leave(self, budget: Budget, hold: Hold, asking: Asking, ended: Ended) -> None:
        budget.settle(hold, self._price.at(self._clock()).cost(charged(ended, asking)))


def _nothing(ended: Ended) -> None:
    """There was nothing to reserve."""
