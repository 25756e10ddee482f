"""Inference: everything between the engines of one process and its models: each model once, whoever asks it.

    WithinBudget -> Failover over the models -> Watched -> ChatScorer -> gates (breaker, budget, admission) -> endpoint

Agents of one process share the lines, their connections and what they found out of the endpoints' limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.engine.model_watch import ModelWatch, Watched
from agents.engine.spec import DecisionAgent
from agents.engine.spending import utc_day
from agents.settings import FurtherModel, Settings
from models.admission import Limits
from models.admission_gate import AdmissionGate
from models.breaker_gate import BreakerGate
from models.budget import Budget
from models.budget_gate import BudgetGate
from models.chat import ChatScorer
from models.contract import Ask, CallSink, Scorer
from models.endpoint import without_credentials
from models.failover import Candidate, Failover
from models.instant import NoModel
from models.line import Line
from models.prices import Price, configured, listed, micro
from models.within_budget import WithinBudget
from schemas.errors import ConfigError

Agent = DecisionAgent[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model to ask, as the settings have it. `where` names it for a person, without credentials."""

    name: str
    base_url: str
    api_key: str | None
    limits: Limits
    connections: int
    price: Price | None = None

    @property
    def endpoint(self) -> str:
        """Its endpoint, without credentials."""
        return without_credentials(self.base_url)

    @property
    def where(self) -> str:
        """Model and endpoint."""
        return f"{self.name} at {self.endpoint}"


class Opened:
    """A model with its line and the gates before it. Raises ConfigError for what can not be a URL or a key."""

    def __init__(self, model: Model, budgets: Mapping[str, Budget]) -> None:
        self.model = model
        self.admission = AdmissionGate(model.limits)
        self.breaker = BreakerGate(model.endpoint)
        paid = (BudgetGate(budgets, model.price, utc_day),) if model.price is not None else ()
        gates = (self.breaker, *paid, self.admission)
        self.line = Line(
            model.base_url, model.api_key, model.name, gates=gates, pacer=self.admission,
            connections=model.connections, price=model.price,
        )  # fmt: skip


class Inference:
    """The models of one process, as the settings have them. Raises ConfigError for what can not work."""

    def __init__(self, settings: Settings, agents: Sequence[Agent], watch: ModelWatch) -> None:
        self.models = models_of(settings)
        self.opened: tuple[Opened, ...] = ()
        self._watch = watch
        self._weights = weights(agents, settings)
        self.budgets = budgets(agents, settings, self.models)
        self._failovers: dict[str, Failover] = {}

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
        self.opened = self.opened or tuple(Opened(model, self.budgets) for model in self.models)
        candidates = []
        for place, opened in enumerate(self.opened):
            last = place == len(self.opened) - 1
            otherwise = agent.on_no_answer if last else f"asking {self.opened[place + 1].model.where}"
            scorer = ChatScorer(ask, opened.line, agent=agent.name, on_call=on_call, manifest=manifest)
            watched = Watched(scorer, agent.name, otherwise, self._watch)
            candidates.append(Candidate(watched, opened.model.where, opened.breaker.available))
        failover = self._failovers[agent.name] = Failover(candidates)
        found = failover if len(candidates) > 1 else candidates[0].scorer
        budget = self.budgets.get(agent.name)
        return found if budget is None else WithinBudget(found, budget, utc_day)

    def passed(self, agent: str) -> Sequence[int]:
        """For each of `opened`, how many questions of the agent it gave no answer to that were then asked elsewhere."""
        failover = self._failovers.get(agent)
        return [candidate.passed_on for candidate in failover.candidates] if failover else [0] * len(self.opened)

    def owned(self, agent: Agent) -> Callable[[float], None] | None:
        """What an engine tells of its part of all partitions: the agent's part of a common account follows it."""
        if not self.asks(agent):
            return None

        def tell(part: float) -> None:
            for opened in self.opened:
                opened.admission.share(agent.name, part * self._weights[agent.name])

        return tell


def models_of(settings: Settings) -> tuple[Model, ...]:
    """The configured model and those to fall over to. Raises ConfigError where there are further ones and no first."""
    if settings.model_base_url is None:
        if settings.model_fallbacks:
            raise ConfigError("reading HEADRACE_MODEL_FALLBACKS: there is no model before them; set HEADRACE_MODEL_BASE_URL")
        return ()
    first = FurtherModel(
        base_url=settings.model_base_url, name=settings.model_name, api_key=settings.model_api_key, rpm=settings.model_rpm,
        tpm=settings.model_tpm, concurrency=settings.model_concurrency,
        price=settings.model_price,
    )  # fmt: skip
    return tuple(_model(further) for further in (first, *settings.model_fallbacks))


def _model(further: FurtherModel) -> Model:
    key = further.api_key.get_secret_value() if further.api_key else None
    limits = Limits(further.rpm, further.tpm, further.concurrency, queue=further.concurrency)
    told = further.price
    if told is not None:
        price: Price | None = configured(told.input, told.cached_input, told.output, told.currency)
    else:
        price = listed(further.name, further.base_url)
    return Model(further.name, further.base_url, key, limits, further.concurrency, price)


def budgets(agents: Sequence[Agent], settings: Settings, models: Sequence[Model]) -> dict[str, Budget]:
    """The budget of each agent that has one. Raises ConfigError for what is no amount, or can not be held against a price."""
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
