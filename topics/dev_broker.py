"""Local brokers: the embedded one (memory only, no transactions) and a real Apache Kafka.

Both have `start`, `stop`, `kill`, `restart`, `close`, `bootstrap`, `running`, `pid`, `pids`, `log`, `kind` and
`transactions`, work in `with` and `async with`, listen on loopback only, and end when the process that started them ends.
"""

from __future__ import annotations

from typing import TypeAlias

from topics.local.apache import ApacheKafka
from topics.local.embedded import EmbeddedBroker
from topics.local.jars import missing_java_tools
from topics.local.process import free_port

LocalBroker: TypeAlias = EmbeddedBroker | ApacheKafka

__all__ = ["ApacheKafka", "EmbeddedBroker", "LocalBroker", "free_port", "missing_java_tools"]
