"""What counts as spent for a request, however it ended: what was reported, or all that was reserved where it may be billed.

An endpoint that was cut off in the middle, or whose reply was lost on the way, has done its work and bills it.
"""

from __future__ import annotations

from models.gates.gate import Asking, Ended
from schemas.audit import Tokens

_FREE = frozenset({"limited", "exhausted", "rejected", "unsent"})


def charged(ended: Ended, asking: Asking) -> Tokens:
    """The tokens to count; none for what was refused before any work: a 4xx, a 5xx, a connection that was never made."""
    if ended.tokens is not None:
        return ended.tokens
    if ended.kind in _FREE or (ended.kind == "unavailable" and not ended.cut_off):
        return Tokens()
    return asking.most
