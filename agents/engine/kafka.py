"""From settings to a connection: the one place that knows both."""

from __future__ import annotations

from agents.settings import Settings
from topics.connection import KafkaConfig


def kafka_config(settings: Settings) -> KafkaConfig:
    """How to reach the configured brokers."""
    password = settings.kafka_password.get_secret_value() if settings.kafka_password else None
    return KafkaConfig(
        bootstrap=settings.kafka, security=settings.kafka_security, mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_username, password=password, cafile=settings.kafka_cafile,
        certfile=settings.kafka_certfile, keyfile=settings.kafka_keyfile,
    )  # fmt: skip
