"""KafkaConfig and probe: a broker that does not let us in is told with its reason, and so are missing transactions."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from schemas.errors import BrokerError, ConfigError
from tests.support import secure
from tests.support.kafka import create_topic
from topics.connection import KafkaConfig, probe
from topics.dev_broker import LocalBroker, free_port


async def test_probe_tells_transactions_and_size(broker: LocalBroker) -> None:
    """Apache Kafka has transactions, the embedded broker has none and the reason is in words."""
    facts = await probe(KafkaConfig(broker.bootstrap))
    assert facts.brokers == 1
    assert facts.transactions is broker.transactions
    assert bool(facts.why_no_transactions) is not broker.transactions


async def test_probe_creates_no_topic(broker: LocalBroker, topic: Callable[..., str]) -> None:
    """Asking about a topic that does not exist leaves it so."""
    name = topic()
    await probe(KafkaConfig(broker.bootstrap), topics=[name])
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        assert name not in await admin.list_topics()
    finally:
        await admin.close()


async def test_probe_goes_on_to_the_next_bootstrap_server(broker: LocalBroker) -> None:
    """One bootstrap server that is down does not matter."""
    facts = await probe(KafkaConfig(f"127.0.0.1:{free_port()},{broker.bootstrap}"))
    assert facts.brokers == 1


async def test_nothing_listening_is_unreachable() -> None:
    """Every address that was tried is named with its reason."""
    one, two = free_port(), free_port()
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{one} is unreachable.*127\.0\.0\.1:{two} is unreachable"):
        await probe(KafkaConfig(f"127.0.0.1:{one},127.0.0.1:{two}"))


async def test_a_name_without_an_address_is_told() -> None:
    """A host name that does not resolve is the reason, not a bare failure to bootstrap."""
    with pytest.raises(ConfigError, match=r"kafka\.invalid:9092 is unreachable"):
        await probe(KafkaConfig("kafka.invalid:9092"))


async def test_a_server_that_never_answers_is_given_up() -> None:
    """Something that accepts connections and says nothing costs the timeout, no more."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(ConfigError, match="does not answer in time"):
            await asyncio.wait_for(probe(KafkaConfig(f"127.0.0.1:{deaf.getsockname()[1]}"), timeout=0.5), 5)


async def test_a_server_that_is_no_broker_is_told() -> None:
    """A listener that hangs up is asked about by protocol."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigError, match="does this listener speak PLAINTEXT"):
            await probe(KafkaConfig(f"127.0.0.1:{port}"))


@pytest.mark.parametrize("text", ["", "localhost", "localhost:", ":9092", "localhost:port", "localhost:99999", "a:1,,b:2"])
def test_a_bootstrap_that_is_no_address_is_refused(text: str) -> None:
    """The part that is not host:port is named before anything is tried."""
    with pytest.raises(ConfigError, match="is not host:port"):
        KafkaConfig(text)


def test_sasl_without_a_password_is_refused() -> None:
    """The settings that are missing are named."""
    with pytest.raises(ConfigError, match="HEADRACE_KAFKA_PASSWORD"):
        KafkaConfig(security="SASL_SSL", username="alice")


def test_the_password_shows_in_no_repr() -> None:
    """A configuration can be logged."""
    config = KafkaConfig(security="SASL_SSL", username="alice", password="hush")
    assert "hush" not in repr(config) + str(config)
    assert config.aiokafka_kwargs()["sasl_plain_password"] == "hush"


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """A wrong path to the authorities is told with the path."""
    config = KafkaConfig(security="SSL", cafile=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match=r"none\.pem"):
        config.aiokafka_kwargs()


@pytest.fixture(scope="module")
def certs(openssl: None, tmp_path_factory: pytest.TempPathFactory) -> secure.Certificates:
    """Certificates of this run."""
    return secure.certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(java_tools: None, data_dir: Path, certs: secure.Certificates) -> Iterator[secure.SecureKafka]:
    """An Apache Kafka with TLS, SCRAM and ACLs."""
    with secure.SecureKafka(data_dir, certs) as broker:
        yield broker


Make = Callable[..., KafkaConfig]


@pytest.fixture
def as_user(secured: secure.SecureKafka, certs: secure.Certificates) -> Make:
    """`as_user(ADMIN)`: a configuration that would work, with what a test changes."""

    def make(user: tuple[str, str] = secure.ADMIN, **changes: str | None) -> KafkaConfig:
        values: dict[str, object] = {
            "bootstrap": secured.bootstrap, "security": "SASL_SSL", "username": user[0], "password": user[1],
            "cafile": str(certs.ca),
        }  # fmt: skip
        return KafkaConfig(**(values | changes))  # type: ignore[arg-type]  # a bag of values, wrong ones among them on purpose

    return make


@pytest.fixture
async def secured_topic(as_user: Make, topic: Callable[..., str]) -> str:
    """A topic that only the administrator may see."""
    config = as_user()
    return await create_topic(config.bootstrap, topic(), client=config.aiokafka_kwargs())


# asyncio of Python 3.11 leaves the transport of a refused TLS handshake to the garbage collector, which then complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.kafka
class TestRefusal:
    """A broker that refuses, one reason each."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _collected(cls) -> Iterator[None]:
        """What such a handshake left is collected before other tests are watched."""
        yield
        gc.collect()

    async def test_the_right_configuration_is_let_in(self, as_user: Make) -> None:
        """TLS, SCRAM and the administrator's rights: everything is there, transactions too."""
        facts = await probe(as_user())
        assert facts.transactions

    async def test_a_client_certificate_is_let_in(
        self, as_user: Make, secured: secure.SecureKafka, certs: secure.Certificates
    ) -> None:
        """Mutual TLS works with the certificate and its key."""
        config = as_user(
            bootstrap=secured.mtls, security="SSL", certfile=str(certs.client), keyfile=str(certs.client_key),
            username=None, password=None,
        )  # fmt: skip
        assert (await probe(config)).brokers == 1

    async def test_a_wrong_password(self, as_user: Make, caplog: pytest.LogCaptureFixture) -> None:
        """The user is named, the password is nowhere."""
        with pytest.raises(ConfigError, match="refuses user 'admin': wrong user name or password") as caught:
            await probe(as_user(("admin", "mistyped-secret")))
        assert "mistyped-secret" not in str(caught.value) + caplog.text

    async def test_an_unknown_user(self, as_user: Make) -> None:
        """It is told like a wrong password: a broker does not say which."""
        with pytest.raises(ConfigError, match="refuses user 'mallory'"):
            await probe(as_user(("mallory", "x")))

    async def test_a_mechanism_that_is_not_offered(self, as_user: Make) -> None:
        """The mechanism is named."""
        with pytest.raises(ConfigError, match="does not offer the SASL mechanism PLAIN"):
            await probe(as_user(mechanism="PLAIN"))

    async def test_a_wrong_authority(self, as_user: Make, tmp_path: Path) -> None:
        """A certificate that another authority signed points to HEADRACE_KAFKA_CAFILE."""
        other = secure.authority(tmp_path, "other")
        with pytest.raises(ConfigError, match=r"is not trusted .*HEADRACE_KAFKA_CAFILE"):
            await probe(as_user(cafile=str(other)))

    async def test_a_wrong_host_name(self, as_user: Make, secured: secure.SecureKafka) -> None:
        """The certificate is for 127.0.0.1; by another name it is refused, and that is the reason given."""
        with pytest.raises(ConfigError, match="for another host name"):
            await probe(as_user(bootstrap=f"localhost:{secured.port}"))

    async def test_no_client_certificate(self, as_user: Make, secured: secure.SecureKafka) -> None:
        """A listener with mutual TLS points to HEADRACE_KAFKA_CERTFILE."""
        with pytest.raises(ConfigError, match="HEADRACE_KAFKA_CERTFILE"):
            await probe(as_user(bootstrap=secured.mtls, security="SSL", username=None, password=None))

    @pytest.mark.parametrize("security", ["PLAINTEXT", "SASL_PLAINTEXT", "SSL"])
    async def test_a_wrong_protocol(self, as_user: Make, security: str) -> None:
        """A listener that speaks another protocol is asked about by name."""
        with pytest.raises(ConfigError, match=f"{security}"):
            await probe(as_user(security=security), timeout=3)

    async def test_no_acl(self, as_user: Make, secured_topic: str) -> None:
        """A user whom no ACL lets see a topic is told which user and which topic."""
        with pytest.raises(ConfigError, match=f"user 'alice' may not use topic {secured_topic}"):
            await probe(as_user(secure.ALICE), topics=[secured_topic])

    async def test_no_acl_for_transactions(self, as_user: Make) -> None:
        """Without rights on transactional ids there are no transactions, and the ACL that lacks is named."""
        facts = await probe(as_user(secure.ALICE))
        assert not facts.transactions
        assert "no ACL with Write on transactional ids" in facts.why_no_transactions
        assert facts.forbidden

    async def test_what_the_configuration_gives_works_in_a_client(self, as_user: Make, secured_topic: str) -> None:
        """A producer built from aiokafka_kwargs publishes."""
        config = as_user()
        producer = AIOKafkaProducer(bootstrap_servers=config.bootstrap, **config.aiokafka_kwargs())
        await producer.start()
        try:
            assert (await producer.send_and_wait(secured_topic, b"v")).offset == 0
        finally:
            await producer.stop()


@pytest.mark.kafka
async def test_a_broker_that_dies_while_asked_is_told(java_tools: None, as_user: Make, secured: secure.SecureKafka) -> None:
    """A broker that was let in and then stops answering is an error of ours in time, not a hang."""
    os.kill(secured.pid, signal.SIGSTOP)
    try:
        with pytest.raises((ConfigError, BrokerError), match="in time"):
            await asyncio.wait_for(probe(as_user(), timeout=1), 10)
    finally:
        os.kill(secured.pid, signal.SIGCONT)
