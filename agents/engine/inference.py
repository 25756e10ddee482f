"""Inference: everything between the engines of one process and its models: each model once, whoever asks it.

    Failover over the models -> Canary -> Watched -> ChatScorer -> gates (breaker, budget, admission) -> endpoint

Agents of one process share the lines, their connections and what they found out of the endpoints' limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents.engine.model_lines import Model, Opened, cheap_of, models_of
from agents.engine.model_watch import ModelWatch, Watched
from agents.engine.spec import DecisionAgent
from agents.engine.spending import utc_day
from agents.settings import Settings
from models.budget import Budget
from models.canary import Canary
from models.chat import ChatScorer
from models.contract import Ask, CallSink, Scorer
from models.failover import Candidate, Failover
from models.flips import FlipMeter
from models.instant import NoModel
from models.prices import micro
from models.within_budget import WithinBudget
from schemas.errors import ConfigError

Agent = DecisionAgent[Any, Any, Any]


@dataclass(slots=True)
class Chain:
    """What one agent asks one list of models through. `candidates` belong to `opened`, in the same order."""

    opened: Sequence[Opened]
    candidates: Sequence[Candidate]
    meters: Sequence[FlipMeter]


class Inference:
    """The models of one process, as the settings have them. Raises ConfigError for what can not work.

    Without `budgeted` nothing is held to a budget: there are no partitions whose receipts could carry it (`headrace agents try`).
    """

    def __init__(self, settings: Settings, agents: Sequence[Agent], watch: ModelWatch, *, budgeted: bool = True) -> None:
        self.models = models_of(settings)
        self.cheap = cheap_of(settings)
        self.opened: tuple[Opened, ...] = ()
        self._settings = settings
        self._watch = watch
        self._weights = weights(agents, settings)
        self.budgets = budgets(agents, settings, self.asked) if budgeted else {}
        self._chains: dict[str, list[Chain]] = {}

    @property
    def asked(self) -> tuple[Model, ...]:
        """All models, the cheap one last."""
        return self.models if self.cheap is None else (*self.models, self.cheap)

    def asks(self, agent: Agent) -> bool:
        """Whether this agent asks a language model that is configured."""
        return isinstance(agent.scorer, Ask) and bool(self.models)

    def scorer(self, agent: Agent, *, manifest: str, on_call: CallSink) -> Scorer:
        """Who answers this agent. Without a model an Ask is answered "unavailable", and the agent says what follows."""
        ask = agent.scorer
        if not isinstance(ask, Ask):
            return ask
        if not self.models:
            return NoModel()
        self._open()
        chains = self._chains[agent.name] = []

        def chain(opened: Sequence[Opened], otherwise: str) -> Scorer:
            return self._chain(agent, ask, opened, otherwise, chains, manifest, on_call)

        return chain(self.opened[: len(self.models)], agent.on_no_answer)

    def _open(self) -> None:
        if not self.opened:
            self.opened = tuple(Opened(model, self.budgets) for model in self.asked)

    def _chain(
        self, agent: Agent, ask: Ask[Any], opened: Sequence[Opened], otherwise: str, chains: list[Chain], manifest: str,
        on_call: CallSink,
    ) -> Scorer:  # fmt: skip
        """Models in the order in which they are preferred, each with its own watch on what batches do to its answers."""
        given = self._settings.agent(agent.name)
        candidates: list[Candidate] = []
        meters: list[FlipMeter] = []
        for place, one in enumerate(opened):
            last = place == len(opened) - 1
            then = otherwise if last else f"asking {opened[place + 1].model.where}"
            chat = ChatScorer(ask, one.line, agent=agent.name, on_call=on_call, manifest=manifest)
            scorer: Scorer = Watched(chat, agent.name, then, self._watch)
            if given.canary > 0 and agent.batch.size > 1:
                meters.append(FlipMeter(agent.batch.size, limit=given.canary_limit))
                scorer = Canary(scorer, meters[-1], share=given.canary)
            candidates.append(Candidate(scorer, one.model.where, one.breaker.available))
        chains.append(Chain(opened, candidates, meters))
        found: Scorer = Failover(candidates) if len(candidates) > 1 else candidates[0].scorer
        budget = self.budgets.get(agent.name)
        return found if budget is None else WithinBudget(found, budget, utc_day)

    def chains(self, agent: str) -> Sequence[Chain]:
        """Through what the agent asks."""
        return self._chains.get(agent, ())

    def owned(self, agent: Agent) -> Callable[[float], None] | None:
        """What an engine tells of its part of all partitions: the agent's part of a common account follows it."""
        if not self.asks(agent):
            return None

        def tell(part: float) -> None:
            for opened in self.opened:
                opened.admission.share(agent.name, part * self._weights[agent.name])

        return tell


def budgets(agents: Sequence[Agent], settings: Settings, models: Sequence[Model]) -> dict[str, Budget]:
    """The budget of each agent that has one. Raises ConfigError where it can not be held against a price."""
    found: dict[str, Budget] = {}
    for agent in agents:
        amount = settings.agent(agent.name).budget
        if amount is None or not isinstance(agent.scorer, Ask):
            continue
        where = f"HEADRACE_AGENTS for {agent.name}: budget"
        found[agent.name] = Budget(micro(str(amount), where))
        for model in models:
            if model.price is None:
                raise ConfigError(f"reading {where}: the price of {model.where} is not known; set HEADRACE_MODEL_PRICE")
        if len({model.price.currency for model in models if model.price}) > 1:
            raise ConfigError(f"reading {where}: the models' prices are in several currencies; give all of them in one")
    return found


def weights(agents: Sequence[Agent], settings: Settings) -> dict[str, float]:
    """Each agent's part of the account's limits: HEADRACE_AGENTS says it, or all of this process that ask have equal parts."""
    asking = [agent.name for agent in agents if isinstance(agent.scorer, Ask)]
    return {name: settings.agent(name).weight or 1 / len(asking) for name in asking}
