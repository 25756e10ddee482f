"""Two workers that do not talk share one account: real clients and a real server over HTTP, on a clock that does not wait.

Each worker is an `Inference` of its own, as two processes have them; partitions move between them while both are saturated. The
sandbox's own meter says what was made of the limit. Green does not show what a network between worker and endpoint adds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.settings import Settings
from models.contract import Ask, Paced, Question
from models.gates.arrival import Coming, on_arrival
from models.sandbox.server import Sandbox, SandboxConfig
from tests.support.scoring import Shown
from tests.support.simple_agent import OrderAnswer, simple_agent
from tests.support.virtual_time import run

WEIGHTS = {"first": 0.7, "second": 0.3}
MOVES = ((0.0, (0.75, 0.25)), (10.0, (1.0, 0.5)), (20.0, (0.2, 0.8)))
"""(Seconds, the parts of the first and of the second agent's partitions that the first worker owns); the other has the rest."""
SECONDS = 30.0
RPM = 1200


class Worker:
    """A process: its agents ask as engines do, while there is room, and never run out of records."""

    def __init__(self, base_url: str, *, told: bool) -> None:
        agents = [simple_agent(Ask(OrderAnswer, "Judge the orders."), name=name) for name in WEIGHTS]
        settings = Settings(
            model_base_url=base_url, model_rpm=RPM if told else None,
            agents={name: {"weight": weight} for name, weight in WEIGHTS.items()},
        )  # fmt: skip
        inference = Inference(settings, agents, ModelWatch())
        self.scorers = {agent.name: inference.scorer(agent, manifest="m", on_call=lambda call: None) for agent in agents}
        self._owned = {agent.name: inference.owned(agent) for agent in agents}
        self.answered = dict.fromkeys(WEIGHTS, 0)
        self.other = 0

    def own(self, parts: tuple[float, float]) -> None:
        """From now on these parts of the agents' partitions."""
        for name, part in zip(WEIGHTS, parts, strict=True):
            tell = self._owned[name]
            assert tell is not None
            tell(part)

    async def ask(self, name: str, until: float) -> None:
        """Ask for this agent until then."""
        loop, scorer, wake = asyncio.get_running_loop(), self.scorers[name], asyncio.Event()
        assert isinstance(scorer, Paced)
        scorer.on_room(wake.set)
        flying, coming = set[asyncio.Task[None]](), Coming(wake.set)

        async def one(number: int, arrived: Callable[[], None]) -> None:
            on_arrival(arrived)
            (answer,) = await scorer.score([Question(f"{name}{number}", Shown(number=number))], loop.time() + 15)
            self.answered[name] += answer.status == "answered"
            self.other += answer.status != "answered" and loop.time() < until
            arrived()

        number = 0
        while loop.time() < until:
            while scorer.room(coming.count) and len(flying) < 64:
                number += 1
                task = asyncio.ensure_future(one(number, coming.start()))
                flying.add(task)
                task.add_done_callback(flying.discard)
                task.add_done_callback(lambda task: wake.set())
                await asyncio.sleep(0)
            wake.clear()
            try:
                async with asyncio.timeout_at(until):
                    await wake.wait()
            except TimeoutError:
                break
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


async def share(*, told: bool) -> tuple[list[Worker], Any]:
    """Both workers through all moves; and what the sandbox counted."""
    loop = asyncio.get_running_loop()
    config = SandboxConfig(rpm=RPM, headers=told, latency="lognormal:300ms:0.3")
    async with Sandbox(config, clock=loop.time) as server:
        workers = [Worker(server.base_url, told=told) for _ in range(2)]
        begun = loop.time()

        async def move() -> None:
            for at, (first, second) in MOVES:
                await asyncio.sleep(begun + at - loop.time())
                workers[0].own((first, second))
                workers[1].own((1 - first, 1 - second))

        moving = asyncio.ensure_future(move())
        await asyncio.gather(*(worker.ask(name, begun + SECONDS) for worker in workers for name in WEIGHTS))
        await moving
        limits = server.account.as_json()
        meter = server.meter
        for worker in workers:
            for scorer in worker.scorers.values():
                await scorer.close()
        return workers, {**limits, "requests": meter.requests, "limited": meter.limited}


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_two_agents_on_two_workers_use_an_account_well_while_partitions_move(told: bool) -> None:
    """Skewed and moved twice in half a minute: the account is used, hardly overrun, no record lost, weights kept where told."""
    workers, meter = run(share(told=told))
    admissible = meter["admissible"]["requests"]
    assert meter["admitted"] / admissible >= (0.95 if told else 0.83)
    assert meter["requests"] / meter["admitted"] <= (1.05 if told else 1.20)
    assert sum(worker.other for worker in workers) == 0
    if told:
        answered = {name: [worker.answered[name] for worker in workers] for name in WEIGHTS}
        assert 0.62 <= sum(answered["first"]) / sum(map(sum, answered.values())) <= 0.78
        for place, name in enumerate(WEIGHTS):
            owned = sum(parts[place] for _, parts in MOVES) / len(MOVES)
            assert answered[name][0] / sum(answered[name]) == pytest.approx(owned, abs=0.08)
