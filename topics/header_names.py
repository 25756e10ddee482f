"""Names of record headers that are no UTF-8: how they are held, told and written.

Kafka says that a header's name is UTF-8, but no broker looks. topics/tolerant decodes what is not with `surrogateescape`: each
byte that is no UTF-8 is held as one lone surrogate, which no valid name can contain, so nothing is lost and such a name is known
by them. No client can send it again, so a dead letter carries it escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

Header = tuple[str, bytes]
"""As topics/record.py has it; a header without a value comes as None all the same."""


def invalid(name: str) -> bool:
    """Whether a name, as topics/tolerant holds it, was no UTF-8."""
    return not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name)


def first_invalid(headers: Sequence[tuple[str, bytes | None]]) -> int | None:
    """The place of the first header whose name was no UTF-8. Names that are ASCII, as nearly all are, cost next to nothing."""
    for at, (name, _) in enumerate(headers):
        if not name.isascii() and invalid(name):
            return at
    return None


def escaped(name: str) -> str:
    r"""An invalid name as text that can be sent: each byte that is no UTF-8 as `\xNN`, each backslash of its own as two.

    Back to the bytes: `name.encode().decode("unicode_escape").encode("latin-1")`.
    """
    return name.encode("utf-8", "surrogateescape").replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def sendable(headers: Sequence[Header]) -> tuple[tuple[Header, ...], list[int]]:
    """The headers with invalid names escaped, all others as they came, and the places of those that were escaped."""
    if first_invalid(headers) is None:
        return tuple(headers), []
    places = [at for at, (name, _) in enumerate(headers) if invalid(name)]
    return tuple((escaped(name) if invalid(name) else name, value) for name, value in headers), places
