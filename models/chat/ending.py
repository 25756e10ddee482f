"""How a request that failed has ended, as gates are told of it."""

from __future__ import annotations

from collections.abc import Iterable

from models.chat.failures import Exhausted, Filtered, Unexplained, Unfit, cut_off, rate_headers
from models.gates.gate import End, Ended
from schemas.errors import ModelError, ModelLimited, ModelProtocolError, ModelRejected

_FORBIDDEN = 403


def ending(error: ModelError, seconds: float, asked: Iterable[str] = ()) -> Ended:
    """The end of a request about the decisions `asked` that left, and failed with `error` after so many seconds."""
    kind: End = "unavailable"
    if isinstance(error, ModelLimited):
        kind = "exhausted" if isinstance(error, Exhausted) else "limited"
    elif isinstance(error, ModelRejected):
        kind = "rejected"
    elif isinstance(error, ModelProtocolError):
        kind = "protocol"
    hint = error.retry_after if isinstance(error, ModelLimited) else None
    # What was refused for what is in it says nothing of the endpoint, whatever status a vendor gives it.
    refused = isinstance(error, ModelRejected) and not isinstance(error, Unfit | Filtered)
    status = error.status if isinstance(error, ModelRejected) and refused else None
    # One that is forbidden without a reason may be so for any of its records.
    about = frozenset(asked) if isinstance(error, Unexplained) and error.status == _FORBIDDEN else frozenset[str]()
    return Ended(kind, None, seconds, hint, rate_headers(error.__cause__), status, cut_off(error), about)
