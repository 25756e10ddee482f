"""How to reach Kafka, and the first question a process asks there: may we come in, and are there transactions?"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnknownError,
    for_code,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from schemas.errors import BrokerError, ConfigError
from topics.refusal import explain

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
INIT_PRODUCER_ID = 22
TRANSACTION = 1
"""Key type of FindCoordinator."""
AGAIN = frozenset(
    kind.errno
    for kind in (ConcurrentTransactions, CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
)
"""A cluster that has never seen a transaction first creates the topic for them; every client retries on these."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where the brokers are and who we are. The password never shows in a repr.

    `bootstrap` is host:port separated by commas. The files are PEM; without `cafile` the system's authorities are
    trusted. Raises ConfigError naming what is missing or does not fit together.
    """

    bootstrap: str = "127.0.0.1:9092"
    security: Security = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __post_init__(self) -> None:
        self.addresses()
        if self.security.startswith("SASL") and not (self.username and self.password):
            raise ConfigError(
                f"configuring Kafka: {self.security} needs HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD"
            )
        if self.keyfile and not self.certfile:
            raise ConfigError("configuring Kafka: HEADRACE_KAFKA_KEYFILE without HEADRACE_KAFKA_CERTFILE")

    def addresses(self) -> list[tuple[str, int]]:
        """The bootstrap servers as (host, port). Raises ConfigError naming the one that is none."""
        found = []
        for part in self.bootstrap.split(","):
            host, colon, port = part.strip().rpartition(":")
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ConfigError(f"configuring Kafka: {part.strip()!r} is not host:port")
            found.append((host.strip("[]"), int(port)))
        return found

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, which checks the host name; None where the protocol has no TLS. Raises ConfigError naming the file."""
        if self.security not in ("SSL", "SASL_SSL"):
            return None
        try:
            context: ssl.SSLContext = create_ssl_context(cafile=self.cafile)
            if self.certfile:
                # Without a password OpenSSL would ask for one at the terminal: an encrypted key is refused instead.
                context.load_cert_chain(self.certfile, self.keyfile, password=b"")
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(str(f) for f in (self.cafile, self.certfile, self.keyfile) if f)
            raise ConfigError(f"configuring Kafka: reading {names}: {error}") from error
        return context

    def aiokafka_kwargs(self) -> dict[str, Any]:
        """Everything but the bootstrap servers, as aiokafka's clients name it."""
        kwargs: dict[str, Any] = {"security_protocol": self.security, "ssl_context": self.ssl_context()}
        if self.security.startswith("SASL"):
            kwargs |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return kwargs


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What the cluster said. `why_no_transactions` is for a person to read, empty where there are transactions.

    `forbidden`: the cluster has transactions, and we lack the right to use them.
    """

    brokers: int
    transactions: bool
    why_no_transactions: str = ""
    forbidden: bool = False


async def probe(
    config: KafkaConfig,
    *,
    topics: Sequence[str] = (),
    transactional_id: str = "headrace.probe",
    timeout: float = 15.0,
) -> BrokerFacts:
    """Ask the cluster who is there and whether it has transactions for us.

    `topics` are topics that we must be allowed to see. `transactional_id` is a throw-away one, never used to publish; where
    transactional ids need an ACL it is this one's prefix that decides. Raises ConfigError with the reason when no bootstrap
    server lets us in or a topic is forbidden, BrokerError when the cluster has transactions but can not say so in `timeout` s.
    """
    link = await _first(config, timeout)
    try:
        metadata = await link.send(MetadataRequest(list(topics), allow_auto_topic_creation=False))
        forbidden = [t[1] for t in metadata.topics if t[0] == TopicAuthorizationFailedError.errno]
        if forbidden:
            raise ConfigError(
                f"opening Kafka at {config.bootstrap}: {_who(config)} may not use topic {', '.join(sorted(forbidden))}: "
                "it has no ACL with Describe on it"
            )
        why, denied = await _why_no_transactions(config, link, transactional_id, timeout)
        return BrokerFacts(len(metadata.brokers), transactions=not why, why_no_transactions=why, forbidden=denied)
    except (KafkaError, OSError, TimeoutError) as error:
        # A listener with SASL lets us ask for versions and hangs up on the first real question.
        raise _refused(error, config, config.bootstrap) from error
    finally:
        await link.close()


async def _connect(config: KafkaConfig, host: str, port: int, timeout: float) -> AIOKafkaConnection:
    kwargs = config.aiokafka_kwargs()
    return await create_conn(host, port, client_id="headrace-probe", request_timeout_ms=int(timeout * 1000), **kwargs)


async def _first(config: KafkaConfig, timeout: float) -> AIOKafkaConnection:
    """A connection to the first bootstrap server that lets us in; else ConfigError with the reason of each."""
    reasons = []
    for host, port in config.addresses():
        try:
            return await _connect(config, host, port, timeout)
        except (KafkaError, OSError, TimeoutError, EOFError, ValueError) as error:
            reasons.append(_reason(error, config, f"{host}:{port}"))
    raise ConfigError("opening Kafka: " + "; ".join(reasons))


async def _why_no_transactions(
    config: KafkaConfig, link: AIOKafkaConnection, name: str, timeout: float
) -> tuple[str, bool]:
    """Empty when InitProducerId with a transactional id works; and whether it is only a right that is missing."""
    if INIT_PRODUCER_ID not in link._versions:  # the one place that knows what the broker offers
        return "the broker does not know InitProducerId", False
    deadline = asyncio.get_running_loop().time() + timeout
    unknown = 0
    while True:
        code = await _init_producer(config, link, name, timeout)
        if code == 0:
            return "", False
        if code == TransactionalIdAuthorizationFailed.errno:
            return f"{_who(config)} has no ACL with Write on transactional ids that begin like {name!r}", True
        # Tansu answers every transactional id with the error that has no meaning; a real broker may do so once.
        unknown += code == UnknownError.errno
        if unknown >= 3 or (code != UnknownError.errno and code not in AGAIN):
            return f"the broker answers InitProducerId with {for_code(code).__name__}", False
        if asyncio.get_running_loop().time() > deadline:
            raise BrokerError(f"asking {config.bootstrap} for transactions: {for_code(code).__name__} for {timeout:.0f} s")
        await asyncio.sleep(0.1)


async def _init_producer(config: KafkaConfig, link: AIOKafkaConnection, name: str, timeout: float) -> int:
    """One try at the transaction coordinator. 0 when it gave a producer id, else the code of its error."""
    found = await link.send(FindCoordinatorRequest(name, TRANSACTION))
    if found.error_code:
        return int(found.error_code)
    coordinator = await _connect(config, found.host, found.port, timeout)
    try:
        answer = await coordinator.send(InitProducerIdRequest(name, 10_000))
        return int(answer.error_code)
    finally:
        await coordinator.close()


def _who(config: KafkaConfig) -> str:
    return f"user {config.username!r}" if config.username else "this client"


def _reason(error: BaseException, config: KafkaConfig, address: str) -> str:
    return explain(error, address=address, security=config.security, mechanism=config.mechanism, username=config.username)


def _refused(error: BaseException, config: KafkaConfig, address: str) -> ConfigError:
    return ConfigError(f"opening Kafka: {_reason(error, config, address)}")
