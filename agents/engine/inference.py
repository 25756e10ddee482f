"""Inference: everything between the engines of one process and its models: each model once, whoever asks it.

    Redact -> Recorded -> Moderated -> Cascade -> scorecard
              -> Cached -> WithinBudget -> Apart -> Failover -> Watched -> Canary -> ChatScorer -> gates -> endpoint

What an agent does not use is not there. Gates are breaker, budget and admission of a model's line (agents/engine/model_lines.py).

Agents of one process share the lines, their connections and what they found out of the endpoints' limits.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agents.engine.duration import millis
from agents.engine.model_lines import CHEAP, Identity, Model, Opened, cheap_of, models_of, out
from agents.engine.model_watch import ModelWatch, Watched
from agents.engine.spec import DecisionAgent
from agents.engine.spending import utc_day
from agents.engine.verdicts import Masked, unmasked
from agents.settings import AgentSettings, Settings
from models.budget.budget import Budget
from models.budget.prices import micro
from models.budget.within_budget import WithinBudget
from models.cache.cached import Cached
from models.cache.store import Scope, SqliteStore
from models.chat.chat import ChatScorer
from models.chat.endpoint import Endpoint
from models.chat.hedge import Hedge
from models.chat.hedging import Hedging
from models.contract import Ask, CallSink, Question, Scorer, ignore
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from models.gates.breaker_pacer import BreakerPacer
from models.guardrails.apart import Apart
from models.guardrails.moderation import SAID, Moderated
from models.masking.marked import kinds_of
from models.masking.mask import Mask, mask_of
from models.masking.pseudonym import Pseudonyms
from models.masking.redact import Redact
from models.masking.scrub import Scrubber
from models.quality.canary import Canary
from models.quality.flips import FlipMeter
from models.recorded import Recorded
from models.routing.cascade import Cascade, Tier
from models.routing.failover import Candidate, Failover
from models.scorers.instant import NoModel
from schemas.errors import ConfigError
from schemas.marks import Untrusted

Agent = DecisionAgent[Any, Any, Any]


Recording = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class For:
    """For whom a scorer is made."""

    agent: Agent
    ask: Ask[Any]
    given: AgentSettings
    manifest: str
    on_call: CallSink
    masking: str | None


@dataclass(slots=True)
class Chain:
    """What one agent asks one list of models through. `candidates` and `meters` belong to `opened`, in the same order."""

    opened: Sequence[Opened]
    candidates: list[Candidate]
    meters: list[FlipMeter]


@dataclass(slots=True)
class Way:
    """All that stands between one agent and its models, for those who count."""

    chains: list[Chain] = field(default_factory=list)
    cascade: Cascade | None = None
    cached: list[Cached[Any]] = field(default_factory=list)
    store: SqliteStore | None = None
    redact: Redact | None = None
    apart: list[Apart] = field(default_factory=list)
    moderated: Moderated | None = None
    hedges: list[tuple[Opened, Hedge]] = field(default_factory=list)


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
        self._ways: dict[str, Way] = {}
        self._lines: dict[Identity, Opened] = {}
        self._moderation: BreakerPacer | None = None
        self._masks: dict[str, Mask | None] = {}

    @property
    def asked(self) -> tuple[Model, ...]:
        """All models, the cheap one last."""
        return self.models if self.cheap is None else (*self.models, self.cheap)

    def asks(self, agent: Agent) -> bool:
        """Whether this agent asks a language model that is configured."""
        return isinstance(agent.scorer, Ask) and bool(self.models)

    def described(self, agent: Agent) -> dict[str, Any]:
        """What the settings say of how the agent's questions are asked, for its manifest."""
        if not isinstance(agent.scorer, Ask):
            return {}
        given = self._settings.agent(agent.name)
        told: dict[str, Any] = {}
        if given.moderate and self._settings.moderation is not None:
            told["moderation"] = self._settings.moderation.name
        if not self.models:
            return told
        told["api"] = [model.api for model in self.models]
        told["canary"] = [given.canary, given.canary_limit]
        if given.hedge > 0:
            told["hedge"] = given.hedge
        if given.cascade is not None:
            told["cascade"] = given.cascade.model_dump(mode="json", exclude_none=True)
            if given.cascade.cheap is not None and self.cheap is not None:
                told["cheap_model"], told["cheap_api"] = self.cheap.name, self.cheap.api
        if given.cache is not None:
            told["cache"] = given.cache
        mask = self.mask(agent)
        if mask is not None:
            told["masking"] = mask.policy
        return told

    def scorer(self, agent: Agent, *, manifest: str, on_call: CallSink, recorded: Recording | None = None) -> Scorer:
        """Who answers this agent. Without a model an Ask is answered "unavailable", and the agent says what follows.

        What is to be moderated is so without a model too: what follows may be a fallback.
        `recorded` waits until the calls that have ended are where a successor reads them.
        """
        ask = agent.scorer
        if not isinstance(ask, Ask):
            return ask
        given = self._settings.agent(agent.name)
        if not self.models and not given.moderate:
            return NoModel()
        mask = self.mask(agent)
        asker = For(agent, ask, given, manifest, on_call, mask.policy if mask is not None else None)
        self._ways[agent.name] = way = Way()
        inner: Scorer = NoModel()
        if self.models:
            self._open()
            inner = self._cascade(asker, way)
        scorer = self._moderated(asker, way, inner)
        if recorded is not None and agent.name in self.budgets:
            scorer = Recorded(scorer, recorded)
        if mask is None:
            return scorer
        way.redact = Redact(scorer, mask, stops=given.moderate)
        return way.redact

    def _open(self) -> None:
        """Each model at each place once, whatever it is named for: two lines to one account would have its limits twice."""
        if self.opened:
            return
        for model in self.asked:
            if model.identity not in self._lines:
                # A cheap model that is coming back is not waited for: the strong one is asked behind it.
                self._lines[model.identity] = Opened(model, self.budgets, awaited=model in self.models)
        lines = self._lines_of(*self.models)
        for place, one in enumerate(lines, 1):
            one.breaker.patient = partial(out, lines[place:])
        self.opened = tuple(self._lines.values())

    def _lines_of(self, *models: Model) -> list[Opened]:
        return list(dict.fromkeys(self._lines[model.identity] for model in models))

    def mask(self, agent: Agent) -> Mask | None:
        """How the agent's features are masked for models and audits, whoever answers; None where nothing has to be.

        Raises ConfigError where it has identifiers and there is no key.
        """
        if agent.name not in self._masks:
            settings, key = self._settings, self._settings.masking_key
            pseudonyms = Pseudonyms(key.get_secret_value(), settings.tenant) if key is not None else None
            scrubber = Scrubber() if settings.masking_countries is None else Scrubber(settings.masking_countries)
            try:
                self._masks[agent.name] = mask_of(agent.features_model, scrubber, pseudonyms)
            except ConfigError as error:
                raise ConfigError(f"starting agent {agent.name}: {error}") from None
        return self._masks[agent.name]

    def kept(self, agent: Agent) -> Masked:
        """What an audit keeps of the agent's features: as a model would see them, nothing where they can not be masked."""
        mask = self.mask(agent)
        if mask is None:
            return unmasked

        def masked(features: BaseModel) -> Mapping[str, Any]:
            try:
                return mask.mask(features).shown
            except Exception:  # noqa: BLE001  # whatever it is: what is not masked is not kept
                return {}

        return masked

    def way(self, agent: str) -> Way:
        """Through what the agent asks."""
        return self._ways.get(agent) or Way()

    def _cascade(self, asker: For, way: Way) -> Scorer:
        """The model, behind those who are asked before it."""
        agent, given = asker.agent, asker.given.cascade
        way.store = self._store(asker)
        strong = self._chain(asker, way, self._lines_of(*self.models), agent.on_no_answer)
        if given is None:
            return strong
        where = f"reading HEADRACE_AGENTS for {agent.name}: cascade"
        scorecard = cheap = None
        if given.scorecard is not None:
            if agent.fallback is None:
                raise ConfigError(f"{where}: the agent has no scorecard; leave `scorecard` out, or declare fallback in its file")
            scorecard = Tier(agent.fallback, given.scorecard)
        if given.cheap is not None:
            if self.cheap is None:
                raise ConfigError(f"{where}: no cheap model is configured; set HEADRACE_MODEL_CHEAP, or leave `cheap` out")
            then = f"asking {self.models[0].where}"
            cheap = Tier(self._chain(asker, way, self._lines_of(self.cheap), then), given.cheap)
        budget = self.budgets.get(agent.name)

        def thrifty(question: Question) -> bool:
            return budget is not None and budget.thrifty(question.partition, utc_day())

        away = partial(out, self._lines_of(*self.models))
        way.cascade = Cascade(
            asker.ask.answer, strong, field=given.field, scorecard=scorecard, cheap=cheap, share=given.sample, thrifty=thrifty,
            spare=budget is not None and budget.soft is not None, away=away, where=where,
        )  # fmt: skip
        return way.cascade

    def _chain(self, asker: For, way: Way, opened: Sequence[Opened], otherwise: str) -> Scorer:
        """Models in the order in which they are preferred, each with its own watch on what batches do to its answers."""
        agent, given = asker.agent, asker.given
        chain = Chain(opened, [], [])
        way.chains.append(chain)
        for place, one in enumerate(opened):
            last = place == len(opened) - 1
            then = otherwise if last else f"asking {opened[place + 1].model.where}"
            scorer: Scorer = self._chat(asker, way, one)
            if given.canary > 0 and agent.batch.size > 1:
                chain.meters.append(FlipMeter(agent.batch.size, limit=given.canary_limit))
                scorer = Canary(scorer, chain.meters[-1], share=given.canary, spare=self._spare(agent.name))
            scorer = Watched(scorer, agent.name, then, self._watch, who=f"the model {one.model.where}", setting=one.model.setting)
            chain.candidates.append(Candidate(scorer, one.model.where, one.breaker.available, one.breaker.trying))
        found: Scorer = Failover(chain.candidates) if len(chain.candidates) > 1 else chain.candidates[0].scorer
        if asker.masking is not None and agent.batch.size > 1:
            found = Apart(found)
            way.apart.append(found)
        budget = self.budgets.get(agent.name)
        if budget is not None:
            found = WithinBudget(found, budget, utc_day)
        if way.store is not None:
            scope = Scope(self._settings.tenant, agent.name, asker.manifest, opened[0].model.endpoint)
            found = Cached(found, way.store, asker.ask.answer, scope)
            way.cached.append(found)
        return found

    def _chat(self, asker: For, way: Way, one: Opened) -> Scorer:
        """The transport to one model, with hedges where the agent may have them and the endpoint is well."""
        hedging = None
        if asker.given.hedge > 0:
            hedge = Hedge(share=asker.given.hedge)
            way.hedges.append((one, hedge))
            hedging = Hedging(hedge, steady=one.breaker.closed, spare=self._spare(asker.agent.name))
        return ChatScorer(
            asker.ask, one.line, agent=asker.agent.name, on_call=asker.on_call, manifest=asker.manifest, masking=asker.masking,
            hedging=hedging,
        )  # fmt: skip

    def _spare(self, agent: str) -> Callable[[Question], bool]:
        """Whether a question may be asked once more for the sake of comparing."""
        budget = self.budgets.get(agent)
        return lambda question: budget is None or not budget.thrifty(question.partition, utc_day())

    def _moderated(self, asker: For, way: Way, inner: Scorer) -> Scorer:
        """Behind the moderation endpoint, where the agent wants one; texts that are not marked as such are not looked at."""
        if not asker.given.moderate:
            return inner
        told, where = self._settings.moderation, f"reading HEADRACE_AGENTS for {asker.agent.name}: moderate"
        if told is None:
            raise ConfigError(f"{where}: there is nobody to ask; set HEADRACE_MODERATION")
        model: type[BaseModel] = asker.agent.features_model
        if Untrusted not in kinds_of(model):
            raise ConfigError(f"{where}: none of its features is marked Untrusted, so there is no text to moderate")
        key = told.api_key.get_secret_value() if told.api_key else None
        endpoint = Endpoint(told.base_url, key, connections=told.concurrency, clock=wall_ms, setting="HEADRACE_MODERATION")
        if self._moderation is None:
            limits = Limits(told.rpm, concurrency=told.concurrency, queue=told.concurrency)
            # Nobody else would say whether a text may be asked about, so a request waits while the endpoint comes back.
            self._moderation = BreakerPacer(BreakerGate(endpoint.where, patient=lambda: True), AdmissionGate(limits))
        pacer = self._moderation
        way.moderated = Moderated(inner, endpoint, model=told.name, gates=pacer.gates, agent=asker.agent.name, pacer=pacer)
        otherwise, who = asker.agent.on_no_answer, f"moderation by {told.name} at {endpoint.where}"
        return Watched(way.moderated, asker.agent.name, otherwise, self._watch, who=who, said=SAID)

    @property
    def moderation(self) -> BreakerPacer | None:
        """The gates before the moderation endpoint, where anybody asks it."""
        return self._moderation

    def _store(self, asker: For) -> SqliteStore | None:
        if asker.given.cache is None:
            return None
        path = cache_file(self._settings, asker.agent.name)
        return SqliteStore(path, most_bytes=self._settings.cache_bytes, most_age=millis(asker.given.cache) / 1000)

    def owned(self, agent: Agent) -> Callable[[float], None] | None:
        """What an engine tells of its part of all partitions: the agent's part of a common account follows it."""
        moderated = agent.name in self._weights and self._settings.agent(agent.name).moderate
        if not self.asks(agent) and not moderated:
            return None

        def tell(part: float) -> None:
            for opened in self.opened if self.asks(agent) else ():
                opened.admission.share(agent.name, part * self._weights[agent.name])
            if moderated and self._moderation is not None:
                self._moderation.share(agent.name, part * self._weights[agent.name])

        return tell


def checked(settings: Settings, agents: Sequence[Agent]) -> None:
    """Raises ConfigError for what the settings say of these agents' models and can not work; asks nobody and opens no file."""
    told = {name: given.model_copy(update={"cache": None}) for name, given in settings.agents.items()}
    inference = Inference(settings.model_copy(update={"agents": told}), agents, ModelWatch())
    for agent in agents:
        inference.kept(agent)
        inference.scorer(agent, manifest="none", on_call=ignore)


def cache_file(settings: Settings, agent: str) -> Path:
    """Where the answers that are kept for an agent lie."""
    return Path(settings.data_dir) / "cache" / f"{agent}.sqlite"


def wall_ms() -> int:
    """Epoch milliseconds now."""
    return time.time_ns() // 1_000_000


def budgets(agents: Sequence[Agent], settings: Settings, models: Sequence[Model]) -> dict[str, Budget]:
    """The budget of each agent that has one. Raises ConfigError where it can not be held against a price."""
    found: dict[str, Budget] = {}
    for agent in agents:
        given = settings.agent(agent.name)
        where = f"HEADRACE_AGENTS for {agent.name}: budget"
        if given.budget_soft is not None and (given.budget is None or given.cascade is None or given.cascade.cheap is None):
            raise ConfigError(f"reading {where}_soft: it needs `budget`, and a `cascade` with a `cheap` model to go down to")
        if given.budget is None or not isinstance(agent.scorer, Ask):
            continue
        found[agent.name] = Budget(micro(str(given.budget), where), given.budget_soft)
        cheap = given.cascade is not None and given.cascade.cheap is not None
        asked = [model for model in models if cheap or model.setting != CHEAP]
        for model in asked:
            if model.price is None:
                price = "HEADRACE_MODEL_PRICE" if model.setting is None else f"its `price` in {model.setting}"
                raise ConfigError(f"reading {where}: the price of {model.where} is {model.unpriced}; set {price}")
        now = wall_ms()
        if len({model.price.at(now).currency for model in asked if model.price}) > 1:
            raise ConfigError(f"reading {where}: the models' prices are in several currencies; give all of them in one")
    return found


def weights(agents: Sequence[Agent], settings: Settings) -> dict[str, float]:
    """Each agent's part of the account's limits: as HEADRACE_AGENTS says; the others of this process share what is left.

    Raises ConfigError where those that are set are more than there is, or leave nothing.
    """
    asking = [agent.name for agent in agents if isinstance(agent.scorer, Ask)]
    found = {name: weight for name in asking if (weight := settings.agent(name).weight) is not None}
    others = [name for name in asking if name not in found]
    left = 1 - sum(found.values())
    if left < -1e-9 or (others and left < 1e-9):
        nothing = f", and leave nothing for {', '.join(others)}" if others else ""
        told = ", ".join(f"{name} {weight:g}" for name, weight in found.items())
        raise ConfigError(f"reading HEADRACE_AGENTS: the weights ({told}) are {1 - left:g} in all{nothing}; keep them below 1")
    return found | {name: left / len(others) for name in others}
