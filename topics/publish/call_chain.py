"""The chain of one worker's calls: each numbered, and naming the one before it by its hash.

Calls are published beside the transactions, so receipts can not vouch for them. All calls of a worker go to one partition, by
its name as their key, and a producer has one batch of a partition under way at a time: so a gap that the worker does not own up
to was made later, and a call that lost a race or timed out, which no decision names, can not vanish unseen.
"""

from __future__ import annotations

from hashlib import sha256

from schemas.audit import Call


class CallChain:
    """Seals the calls of one run of one worker for one agent. `worker` must be another one at each start of a process."""

    def __init__(self, worker: str, tenant: str | None = None) -> None:
        self.worker = worker
        self.key = worker.encode()
        self._tenant = tenant
        self._seq = 0
        self._prev: str | None = None

    def seal(self, call: Call, unpublished: int = 0) -> bytes:
        """The call as it is to be published: the next one of the chain. `unpublished` as SidePublisher counts."""
        self._seq += 1
        place = {"tenant": self._tenant, "worker": self.worker, "seq": self._seq, "prev": self._prev, "unpublished": unpublished}
        value = call.model_copy(update=place).model_dump_json(by_alias=True).encode()
        self._prev = sha256(value).hexdigest()
        return value
