"""Every setting of Headrace, read from the environment as HEADRACE_*. Each is described here and in docs/settings.md, by test."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.engine.duration import millis
from schemas.errors import ConfigError


def _duration(text: str) -> str:
    try:
        millis(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


def _above_nothing(text: str) -> str:
    if not millis(_duration(text)):
        raise ValueError("it has to be above 0")
    return text


def _varied(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) > 1 and len(set(key.get_secret_value())) == 1:
        raise ValueError("it is one character repeated; give 32 random ones, such as `openssl rand -hex 32` prints")
    return key


def _countries(given: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if given == ():
        raise ValueError('it names no country; give some, such as ["DE", "AT"], or leave it unset for all that are known')
    return given


def _tenant(text: str) -> str:
    if not text.strip() or "/" in text or not text.isprintable():
        raise ValueError("write a name without slashes and control characters, such as bank-emea")
    return text


def _model_name(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty; write the model's name as the endpoint lists it, such as gpt-5-mini")
    return text


def _address(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty; write the endpoint's address, such as http://127.0.0.1:8081/v1")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
"""Such as "250ms", "5s", "10m", "6h", "30d"."""
Address = Annotated[str, AfterValidator(_address)]
ModelName = Annotated[str, AfterValidator(_model_name)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class ModelPrice(BaseModel):
    """What a model costs, in units of `currency` for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Field(ge=0, le=1_000_000)
    cached_input: Decimal | None = Field(default=None, ge=0, le=1_000_000)
    output: Decimal = Field(ge=0, le=1_000_000)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")


class FurtherModel(BaseModel):
    """A model to fall over to: an entry of HEADRACE_MODEL_FALLBACKS."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Address
    name: ModelName
    api_key: SecretStr | None = None
    rpm: int | None = Field(default=None, ge=1)
    tpm: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=64, ge=1, le=10_000)
    api: Literal["chat", "decisions"] = "chat"
    price: ModelPrice | None = None


OTHER_VARIABLES = frozenset({"HEADRACE_FAUST_AGENT", "HEADRACE_SANDBOX_API_KEY"})
"""Variables of ours that are no settings: of `faust -A agents.engine.app`, and of `headrace sandbox`."""


class ModerationEndpoint(BaseModel):
    """Who is asked whether a text may be judged at all: HEADRACE_MODERATION."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: Address
    name: ModelName
    api_key: SecretStr | None = None
    rpm: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=64, ge=1, le=10_000)


class CascadeSettings(BaseModel):
    """Who is asked first, and inside which band of the answer's number the next one is asked too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    scorecard: tuple[float, float] | None = None
    cheap: tuple[float, float] | None = None
    sample: Share = 0.01


class AgentSettings(BaseModel):
    """What HEADRACE_AGENTS may say of one agent. What is not set stays as the agent's file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline: Annotated[str, AfterValidator(_above_nothing)] | None = Field(
        default=None, description="Time to ask about a record, in place of what its file says."
    )
    in_flight: int | None = Field(default=None, ge=1, strict=True, description="Most calls at once, in place of its file's.")
    batch_size: int | None = Field(default=None, ge=1, strict=True, description="Most records in a call, in place of its file's.")
    batch_within: Duration | None = Field(default=None, description="How long a record waits for company there.")
    batch_prompt_tokens: int | None = Field(
        default=None, ge=1, strict=True, description="Most prompt tokens of a call's records, in place of its file's."
    )
    batch_output_tokens: int | None = Field(
        default=None, ge=1, strict=True, description="Most output tokens that a call reserves, in place of its file's."
    )
    weight: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        default=None,
        description="Its part of the model account's limits. Unset: equal parts for a worker's agents; set it where they run "
        "apart.",
    )
    budget: Annotated[Decimal, Field(ge=Decimal("0.000001"), le=1_000_000_000_000)] | None = Field(
        default=None, description='What its calls may cost a UTC day, such as "12.50": past it none leaves.'
    )
    budget_soft: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        default=None,
        description="Part of the budget from which on the cascade's strong model is left out and the cheap one's answer stands.",
    )
    cascade: CascadeSettings | None = Field(
        default=None,
        description="Who is asked first: the agent's scorecard, HEADRACE_MODEL_CHEAP, then the model. `field` is the number of "
        "the answer that certainty goes by; inside its band [low, high] a tier is uncertain and the next is asked. `sample` of "
        'what is certain is asked of the next too, so that the band can be judged. Example: {"field": "risk", "scorecard": '
        '[15, 85], "cheap": [25, 75], "sample": 0.01}.',
    )
    cache: Annotated[str, AfterValidator(_above_nothing)] | None = Field(
        default=None,
        description="How long an answer of the model may be given again to the same features, such as 6h. Unset: never.",
    )
    canary: Share = Field(
        default=0.002,
        description="Share of the records of batches that is asked alone too, to see what batching does to answers.",
    )
    canary_limit: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.05, description="Share of those whose answer may differ; where more do, batches shrink until they do not."
    )
    hedge: Share = Field(
        default=0.0,
        description="Share of the tokens of its requests that may go into second requests, for those that take longer than all "
        "but one in twenty. 0: none.",
    )
    moderate: bool = Field(default=False, description="Ask HEADRACE_MODERATION about its free text first.")


class Settings(BaseSettings):
    """What can be configured. Secrets never show in a repr or a log."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", extra="ignore", frozen=True, protected_namespaces=())

    kafka: str = Field(default="127.0.0.1:9092", description="Bootstrap servers, host:port separated by commas.")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Security protocol towards Kafka."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="SASL mechanism, where the security protocol uses SASL."
    )
    kafka_username: str | None = Field(default=None, description="SASL user name.")
    kafka_password: SecretStr | None = Field(default=None, description="SASL password.")
    kafka_cafile: str | None = Field(default=None, description="PEM file with the authorities of the brokers.")
    kafka_certfile: str | None = Field(default=None, description="PEM file with the client's certificate, for mutual TLS.")
    kafka_keyfile: str | None = Field(default=None, description="PEM file with the client's key, for mutual TLS.")

    delivery: Literal["auto", "exactly-once", "at-least-once"] = Field(
        default="auto",
        description="Promise of the publisher. auto uses transactions where the broker has them and says which promise holds.",
    )
    topics: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Per topic, by logical name: physical name, encoding hints, partitions. "
        'Example: {"loan-applications": {"physical": "bank.public.loan_application", "decimals": {"amount": 2}}}.',
    )
    agents: dict[str, AgentSettings] = Field(
        default_factory=dict,
        description='Per agent, by name; see below. Example: {"credit-risk": {"deadline": "30s", "batch_size": 8}}.',
    )
    group_prefix: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,100}$", default="headrace", description="Consumer group of an agent is PREFIX.AGENT."
    )
    tenant: Annotated[str, AfterValidator(_tenant)] = Field(default="default", description="Written into every decision.")
    run: str = Field(default="live", description='Part of every decision id: "live" unless a replay is asked for.')
    agents_path: str | None = Field(
        default=None, description="Folder with further agent files, beside those that come with Headrace."
    )
    data_dir: str = Field(default=".headrace", description="Where brokers, reference tables and logs keep their files.")

    model_base_url: str | None = Field(
        default=None,
        description="Any OpenAI-compatible endpoint, e.g. http://127.0.0.1:8080/v1, without user, password or query. Unset: no "
        "model is asked.",
    )
    model_api_key: SecretStr | None = Field(default=None, description="Its API key.")
    model_name: ModelName = Field(default="gpt-5-mini", description="The model to ask for.")
    model_api: Literal["chat", "decisions"] = Field(
        default="chat",
        description="What it is asked by: `chat` completions, or questions answered in probabilities at OpenAI's `/decisions`.",
    )
    model_rpm: int | None = Field(
        ge=1,
        default=None,
        description="Requests a minute that the account may send to it. Unset: found out, from headers and 429s.",
    )
    model_tpm: int | None = Field(
        ge=1, default=None, description="Tokens a minute of the account, input and reserved output. Unset: found out."
    )
    model_concurrency: int = Field(
        ge=1, le=10_000, default=64, description="Most requests in flight to one endpoint; fewer where it grows slow."
    )
    model_price: ModelPrice | None = Field(
        default=None,
        description="What it costs, for a million tokens, as a provider lists it. Unset: from the table of genai-prices, which "
        "knows providers by their address; else its calls have no cost. "
        'Example: {"input": "0.25", "cached_input": "0.025", "output": "2"}.',
    )
    model_fallbacks: tuple[FurtherModel, ...] = Field(
        default=(),
        description="Further models, asked in this order where the one before gives no answer: base_url, name, and if need be "
        'api_key, api, rpm, tpm, concurrency, price. Example: [{"base_url": "http://127.0.0.1:8081/v1", "name": "local"}].',
    )
    model_cheap: FurtherModel | None = Field(
        default=None,
        description="A cheaper model for agents whose `cascade` asks it first; written like one of HEADRACE_MODEL_FALLBACKS.",
    )
    masking_key: Annotated[SecretStr, AfterValidator(_varied)] | None = Field(
        default=None,
        description="Secret from which the pseudonyms of identifiers are made, at least 32 random characters, the same for all "
        "workers. An agent with identifiers does not start without it.",
    )
    masking_countries: Annotated[tuple[str, ...] | None, AfterValidator(_countries)] = Field(
        default=None,
        description='Countries (ISO 3166) whose national ids and phone numbers are masked in free text, such as ["DE", "AT"]. '
        "Unset: 17 of Europe and the US.",
    )
    moderation: ModerationEndpoint | None = Field(
        default=None,
        description="A moderation endpoint (OpenAI's API) for agents with `moderate`: base_url, name, if need be api_key, rpm.",
    )
    cache_bytes: int = Field(
        ge=1024 * 1024,
        default=256 * 1024 * 1024,
        description="Size of the file of cached answers in HEADRACE_DATA_DIR, for agents with `cache`.",
    )

    session_timeout: float = Field(
        ge=1,
        le=1800,
        allow_inf_nan=False,
        default=30.0,
        description="Seconds without heartbeat after which the group drops a worker. "
        "The embedded broker makes a join wait half of it.",
    )
    drain_timeout: float = Field(
        ge=0,
        le=3600,
        allow_inf_nan=False,
        default=20.0,
        description="Seconds that a stop or a rebalance waits for calls in flight.",
    )
    rebalance_timeout: float | None = Field(
        ge=1,
        le=7200,
        allow_inf_nan=False,
        default=None,
        description="Seconds that the group waits for a member that drains before it goes on without it. "
        "Unset: HEADRACE_DRAIN_TIMEOUT and 15 more.",
    )
    commit_gap: float = Field(
        ge=0,
        le=60,
        allow_inf_nan=False,
        default=0.0,
        description="Least seconds between two commits of one partition: latency traded for fewer transactions.",
    )
    transaction_timeout: float = Field(
        ge=1, le=900, allow_inf_nan=False, default=60.0, description="Seconds after which the broker aborts an open transaction."
    )
    hold_records: int = Field(ge=1, default=8192, description="Most records held per agent; past it reading pauses.")
    hold_bytes: int = Field(
        ge=1024, default=64 * 1024 * 1024, description="Most bytes of records held per agent; past it reading pauses."
    )
    hold_span: int = Field(
        ge=1, default=50_000, description="Most offsets between frontier and last read; past it reading pauses."
    )
    commit_metadata_bytes: int = Field(ge=64, default=4096, description="offset.metadata.max.bytes of the brokers.")
    metrics_port: int | None = Field(
        ge=1, le=65535, default=None, description="Serve Prometheus metrics on this port. Unset: nothing listens."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address that the metrics server binds to.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="warning", description="Least severe level logged.")

    def agent(self, name: str) -> AgentSettings:
        """What is set for one agent; nothing where it is not named."""
        return self.agents.get(name) or AgentSettings()


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Variables among `names` that look like settings and are none -> the setting that was probably meant."""
    known = [f"HEADRACE_{name.upper()}" for name in Settings.model_fields]
    found = {name for name in names if name.startswith("HEADRACE_")} - OTHER_VARIABLES - set(known)
    return {name: next(iter(get_close_matches(name, known, 1, 0.85)), None) for name in sorted(found)}
