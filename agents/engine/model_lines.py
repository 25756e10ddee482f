"""The models that the settings name, each with its line: connections, the gates before a request, its price."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from agents.engine.spending import utc_day
from agents.settings import FurtherModel, Settings
from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.price_table import listed, uncounted
from models.budget.prices import Priced, configured
from models.chat.endpoint import without_credentials
from models.chat.line import Api, Line
from models.gates.admission import Limits
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from models.gates.breaker_pacer import BreakerPacer
from schemas.errors import ConfigError

CHEAP: Final = "HEADRACE_MODEL_CHEAP"
"""The setting of the model that a cascade asks first."""
Identity = tuple[str, str, str | None]
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Model:
    """A model to ask, as the settings have it. `where` names it for a person, without credentials.

    `setting` is where it was configured, if not as the first model.
    """

    name: str
    base_url: str
    api_key: str | None
    limits: Limits
    connections: int
    price: Priced | None = None
    setting: str | None = None
    api: Api = "chat"

    @property
    def endpoint(self) -> str:
        """Its endpoint, without credentials."""
        return without_credentials(self.base_url)

    @property
    def identity(self) -> Identity:
        """What makes it the same account: address, however it is written, name and key."""
        return _address(self.base_url), self.name, self.api_key

    @property
    def where(self) -> str:
        """Model and endpoint."""
        return f"{self.name} at {self.endpoint}"

    @property
    def unpriced(self) -> str:
        """Why it has no price, for a person."""
        parts = uncounted(self.name, self.base_url)
        return f"not known by tokens alone: it has {', '.join(parts)} too" if parts else "not known"


class Opened:
    """A model with its line and the gates before it. Raises ConfigError for what can not be a URL or a key.

    `awaited`: records wait, unasked, while it is coming back. Not where another model is asked about all that it does not answer.
    """

    def __init__(self, model: Model, budgets: Mapping[str, Budget], *, awaited: bool = True) -> None:
        self.model = model
        self.admission = AdmissionGate(model.limits)
        self.breaker = BreakerGate(model.endpoint)
        paid = (BudgetGate(budgets, model.price, utc_day),) if model.price is not None else ()
        gates = (self.breaker, *paid, self.admission)
        pacer = BreakerPacer(self.breaker, self.admission) if awaited else self.admission
        self.line = Line(
            model.base_url, model.api_key, model.name, gates=gates, pacer=pacer,
            connections=model.connections, price=model.price, setting=model.setting, api=model.api,
        )  # fmt: skip


def out(opened: Sequence[Opened]) -> bool:
    """Whether each of them failed and has not answered since; True of none."""
    return all(one.breaker.out() for one in opened)


def models_of(settings: Settings) -> tuple[Model, ...]:
    """The configured model and those to fall over to.

    Raises ConfigError where there are further ones and no first, and where one account, that of the cheap model included, is
    configured twice with other limits or prices: it has one line, and so one of each.
    """
    if settings.model_base_url is None:
        for name, given in (("FALLBACKS", settings.model_fallbacks), ("CHEAP", settings.model_cheap)):
            if given:
                raise ConfigError(f"reading HEADRACE_MODEL_{name}: there is no model beside it; set HEADRACE_MODEL_BASE_URL")
        return ()
    # Settings hold what they accept already; an address that is none is told with their name for it, where it is opened.
    first = FurtherModel.model_construct(
        base_url=settings.model_base_url, name=settings.model_name, api_key=settings.model_api_key, rpm=settings.model_rpm,
        tpm=settings.model_tpm, concurrency=settings.model_concurrency, price=settings.model_price, api=settings.model_api,
    )  # fmt: skip
    models = (_model(first), *(_model(further, "HEADRACE_MODEL_FALLBACKS") for further in settings.model_fallbacks))
    cheap = cheap_of(settings)
    _check_alike(models if cheap is None else (*models, cheap))
    return models


def cheap_of(settings: Settings) -> Model | None:
    """The cheaper model that cascades ask first, where there is one."""
    return None if settings.model_cheap is None else _model(settings.model_cheap, CHEAP)


def _check_alike(models: Sequence[Model]) -> None:
    known: dict[Identity, Model] = {}
    for model in models:
        before = known.setdefault(model.identity, model)
        told, then = _terms(model), _terms(before)
        if told != then:
            differing = ", ".join(f"{name} ({then[name]} and {told[name]})" for name in told if told[name] != then[name])
            raise ConfigError(
                f"reading {model.setting}: {model.where} is the same account as that of {before.setting or 'HEADRACE_MODEL_*'}, "
                f"with another {differing}; give both the same, or name another model or key"
            )


def _terms(model: Model) -> dict[str, object]:
    price = None if model.price is None else model.price.at(time.time_ns() // 1_000_000)
    told = None if price is None else f"{price.input}/{price.cached_input}/{price.output} millionths of {price.currency}"
    return {"rpm": model.limits.rpm, "tpm": model.limits.tpm, "concurrency": model.connections, "price": told, "api": model.api}


def _address(base_url: str) -> str:
    """One text for all ways to write an address: case of scheme and host, the port that is the usual one, slashes at the end."""
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        return base_url  # refused when its line is opened
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    place = host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), parts.query, parts.fragment))


def _model(further: FurtherModel, setting: str | None = None) -> Model:
    key = further.api_key.get_secret_value() if further.api_key else None
    limits = Limits(further.rpm, further.tpm, further.concurrency, queue=further.concurrency)
    told = further.price
    if told is not None:
        price: Priced | None = configured(told.input, told.cached_input, told.output, told.currency)
    else:
        price = listed(further.name, further.base_url)
    return Model(further.name, further.base_url, key, limits, further.concurrency, price, setting, further.api)
