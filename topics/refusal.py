"""Why a broker would not have us, in words for the person who configured it. aiokafka has the reason in its log at best."""

from __future__ import annotations

import asyncio
import socket
import ssl

from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

HOSTNAME_MISMATCH = 62
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH."""


def chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def explain(error: BaseException, *, address: str, security: str, mechanism: str, username: str | None) -> str:
    """One sentence: what the broker at `address` did not accept, and which setting to look at."""
    errors = chain(error)
    for each in errors:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _certificate(each, address)
    for each in errors:
        if isinstance(each, SaslAuthenticationFailed):
            return f"{address} refuses user {username!r}: wrong user name or password for {mechanism}"
        if isinstance(each, UnsupportedSaslMechanismError):
            return f"{address} does not offer the SASL mechanism {mechanism}"
        if isinstance(each, IllegalSaslStateError):
            return f"{address} expects no SASL here; the security protocol is {security}"
        if isinstance(each, ssl.SSLError):
            return _tls(each, address, security)
        if isinstance(each, socket.gaierror):
            return f"{address} is unreachable: the name can not be resolved"
        if isinstance(each, ConnectionRefusedError):
            return f"{address} is unreachable: nothing listens there"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return f"{address} is unreachable: it does not answer in time, or not with {security}"
    if isinstance(error, KafkaConnectionError | ConnectionError | asyncio.IncompleteReadError):
        return f"{address} closed the connection: does this listener speak {security}?"
    if isinstance(error, OSError):
        return f"{address} is unreachable: {error.strerror or error}"
    if isinstance(error, KafkaError):
        return f"{address} answered {type(error).__name__}: {error}"
    return f"{address}: {type(error).__name__}: {error}"


def _certificate(error: ssl.SSLCertVerificationError, address: str) -> str:
    if error.verify_code == HOSTNAME_MISMATCH:
        return f"the certificate of {address} is for another host name: {error.verify_message}"
    return (
        f"the certificate of {address} is not trusted ({error.verify_message}): "
        "name the authority that signed it in HEADRACE_KAFKA_CAFILE"
    )


def _tls(error: ssl.SSLError, address: str, security: str) -> str:
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or "BAD_CERTIFICATE" in reason:
        return (
            f"{address} refuses our certificate, or asks for one that it did not get ({reason}): "
            "look at HEADRACE_KAFKA_CERTFILE and HEADRACE_KAFKA_KEYFILE"
        )
    return f"{address} does not complete TLS ({reason}): does this listener speak {security}?"
