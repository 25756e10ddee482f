"""Inference: everything between the engines of one process and its models: each model once, whoever asks it.

    Watched -> ChatScorer -> gates of the line (breaker, admission) -> endpoint

Agents of one process share a line, its connections and what it found out of the endpoint's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agents.engine.model_watch import ModelWatch, Watched
from agents.engine.spec import DecisionAgent
from agents.settings import Settings
from models.admission import Limits
from models.admission_gate import AdmissionGate
from models.breaker_gate import BreakerGate
from models.chat import ChatScorer
from models.contract import Ask, CallSink, Scorer
from models.endpoint import without_credentials
from models.instant import NoModel
from models.line import Line
from models.retry_budget import RetryBudget
from schemas.errors import ConfigError

Agent = DecisionAgent[Any, Any, Any]


class Inference:
    """The models of one process, as the settings have them. Raises ConfigError for what can not work."""

    def __init__(self, settings: Settings, agents: Sequence[Agent], watch: ModelWatch) -> None:
        self._settings = settings
        self._watch = watch
        self._weights = weights(agents, settings)
        self._line: Line | None = None
        self.admission: AdmissionGate | None = None
        self.breaker: BreakerGate | None = None

    @property
    def retries(self) -> RetryBudget | None:
        """The retries of the line, once it was asked."""
        return self._line.retry_budget if self._line is not None else None

    def asks(self, agent: Agent) -> bool:
        """Whether this agent asks a language model that is configured."""
        return isinstance(agent.scorer, Ask) and self._settings.model_base_url is not None

    def scorer(self, agent: Agent, *, manifest: str, on_call: CallSink) -> Scorer:
        """Who answers this agent. Without a model an Ask is answered "unavailable", and the agent says what follows."""
        if not isinstance(agent.scorer, Ask):
            return agent.scorer
        if not self.asks(agent):
            return NoModel()
        line = self._line or self._open()
        scorer = ChatScorer(agent.scorer, line, agent=agent.name, on_call=on_call, manifest=manifest)
        return Watched(scorer, agent.name, agent.on_no_answer, self._watch)

    def owned(self, agent: Agent) -> Callable[[float], None] | None:
        """What an engine tells of its part of all partitions: the agent's part of a common account follows it."""
        if not self.asks(agent):
            return None

        def tell(part: float) -> None:
            if self.admission is not None:
                self.admission.share(agent.name, part * self._weights[agent.name])

        return tell

    def _open(self) -> Line:
        settings = self._settings
        assert settings.model_base_url is not None
        limits = Limits(settings.model_rpm, settings.model_tpm, settings.model_concurrency, queue=settings.model_concurrency)
        self.admission = AdmissionGate(limits)
        self.breaker = BreakerGate(without_credentials(settings.model_base_url))
        key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
        self._line = Line(
            settings.model_base_url, key, settings.model_name, gates=(self.breaker, self.admission), pacer=self.admission,
            connections=settings.model_concurrency,
        )  # fmt: skip
        return self._line


def weights(agents: Sequence[Agent], settings: Settings) -> dict[str, float]:
    """Each agent's part of the account's limits: HEADRACE_AGENTS says it, or all of this process that ask have equal parts.

    Raises ConfigError for what is no part.
    """
    asking = [agent.name for agent in agents if isinstance(agent.scorer, Ask)]
    found: dict[str, float] = {}
    for name in asking:
        weight = settings.agents.get(name, {}).get("weight", 1 / len(asking))
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight <= 1:
            raise ConfigError(f"reading HEADRACE_AGENTS for {name}: weight is {weight!r}, it has to be above 0 and 1 at most")
        found[name] = float(weight)
    return found
