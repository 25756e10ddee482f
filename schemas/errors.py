"""The whole exception tree.

HeadraceError
|-- ConfigError            what a person configured can not work; the message says what to change
|   |-- AgentError         an agent file breaks the agent contract; names the file and the field
|   `-- TopicError         a topic is missing, or has too few partitions for its counterpart
|-- DataFault              one record is bad; carries a `Fault` and ends as a dead letter, never higher up
|-- ModelError             a call to a model failed as a whole; a Scorer turns it into answers, it never leaves models/
|   |-- ModelUnavailable   no connection, 5xx, 408, 409, 529, total deadline
|   |-- ModelLimited       429
|   |-- ModelRejected      400, 401, 403, 404, 307: asking again the same way will not help
|   `-- ModelProtocolError the server answered with something that is not a chat completion
|-- BrokerError            the Kafka side
|   |-- Fenced             another worker owns this partition now: publish nothing, drop it
|   |-- OutcomeUnknown     a publish or commit failed without saying whether it took effect
|   `-- RecordTooLarge     an outbound record can not fit its topic, whatever is done
`-- FatalError             the process must end non-zero, with the offset uncommitted

Messages are gerunds with the object they failed on: "decoding change", "opening partition".
"""

from __future__ import annotations

from schemas.dead_letter import Fault


class HeadraceError(Exception):
    """Base of every exception that Headrace raises itself."""


class ConfigError(HeadraceError):
    """What a person configured can not work; the message says what to change."""


class AgentError(ConfigError):
    """An agent file breaks the agent contract."""


class TopicError(ConfigError):
    """A topic is missing or does not fit its counterpart."""


class DataFault(HeadraceError):
    """One record is bad. `fault` names the stage, the reason and the field."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class ModelError(HeadraceError):
    """A call to a model failed as a whole."""


class ModelUnavailable(ModelError):
    """No connection, a server error, or the total deadline has passed."""


class ModelLimited(ModelError):
    """429. `retry_after` is the server's hint in seconds, or None."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelRejected(ModelError):
    """The endpoint refuses this request or this key; `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ModelProtocolError(ModelError):
    """The endpoint answered with something that is not a chat completion."""


class BrokerError(HeadraceError):
    """Something failed on the Kafka side."""


class Fenced(BrokerError):
    """Another worker owns this partition now."""


class OutcomeUnknown(BrokerError):
    """A publish or a commit failed without saying whether it took effect."""


class RecordTooLarge(BrokerError):
    """An outbound record does not fit its topic."""


class FatalError(HeadraceError):
    """The process must end non-zero and leave its offsets where they are."""
