"""CallDraft: what is noted while a request is under way, and the Call it becomes when it ends, however it ends."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from models.budget.charge import charged
from models.budget.prices import Priced
from models.chat.align import Aligned
from models.chat.completion import Completion, credible
from models.chat.prompt import Request
from models.contract import Question
from models.gates.gate import Asking, Ended
from schemas.audit import Call, CallStatus, Tokens
from schemas.wire import rfc3339


@dataclass(slots=True)
class CallDraft:
    """One attempt. Times are epoch milliseconds; `sent_ms` None means that it never left, and then there is no Call.

    `left_at` is when it left in loop time, `tokens` what it then had reserved; `on_leave` is told of it.
    """

    attempt: int
    queued_ms: int
    shuffle_seed: int | None = None
    hedge_of: str | None = None
    call_id: str = field(default_factory=lambda: secrets.token_hex(16))
    sent_ms: int | None = None
    first_ms: int | None = None
    status: CallStatus = "cancelled"
    error: str | None = None
    body: bytes | None = None
    completion: Completion | None = None
    left_at: float = 0.0
    tokens: int = 0
    on_leave: Callable[[], None] | None = None

    def leave(self, now_ms: int, at: float, tokens: int) -> None:
        """The request leaves now."""
        self.sent_ms, self.left_at, self.tokens = now_ms, at, tokens
        if self.on_leave is not None:
            self.on_leave()

    def hedge(self) -> CallDraft:
        """A second request for the same records, since this one is slow. They have been queued since then."""
        return CallDraft(self.attempt, self.queued_ms, self.shuffle_seed, hedge_of=self.call_id)

    def replied(self, completion: Completion, aligned: Aligned[Any]) -> None:
        """The status of a request that was answered, and what was wrong with the answer, in counts."""
        self.status = "refused" if completion.refused else "ok" if aligned.whole and not completion.cut else "partial"
        self.error = _summary(completion, aligned)

    def call(
        self,
        request: Request,
        questions: Sequence[Question],
        *,
        agent: str,
        manifest: str | None,
        masking: str | None,
        endpoint: str,
        model: str,
        parameters: dict[str, Any],
        done_ms: int,
        asking: Asking,
        ended: Ended,
        priced: Priced | None,
    ) -> Call:
        """The audit record. `questions` are in the order in which they were asked. Counts that can not be are not kept."""
        completion, price = self.completion, priced.at(done_ms) if priced else None
        return Call(
            call_id=self.call_id,
            agent=agent,
            attempt=self.attempt,
            hedge_of=self.hedge_of,
            manifest=manifest,
            endpoint=endpoint,
            parameters=parameters,
            model_requested=model,
            model_returned=completion.model if completion else None,
            request_hash=sha256(request.body).hexdigest(),
            response_hash=sha256(self.body).hexdigest() if self.body is not None else None,
            records=[question.decision_id for question in questions],
            nonce=request.nonce,
            shuffle_seed=self.shuffle_seed,
            status=self.status,
            error=self.error,
            finish_reason=completion.finish_reason if completion else None,
            tokens_reserved=request.reserved,
            tokens=(credible(completion.tokens, len(request.body)) if completion else None) or Tokens(),
            cost_micro=price.cost(charged(ended, asking)) if price else None,
            currency=price.currency if price else None,
            price_table=price.table if price else None,
            partitions={str(partition): count for partition, count in asking.partitions.items()},
            queued_at=rfc3339(self.queued_ms),
            sent_at=rfc3339(self.sent_ms),
            first_at=rfc3339(self.first_ms),
            done_at=rfc3339(done_ms),
            masking=masking,
            purpose=questions[0].purpose if questions else "decision",
        )


def _summary(completion: Completion, aligned: Aligned[Any]) -> str | None:
    if completion.refused:
        return "refused"  # not in the model's words: calls are chained, and no record of them can be erased
    counts = {status: sum(item.status == status for item in aligned.items) for status in ("invalid", "missing", "refused")}
    counts |= {"foreign": aligned.foreign, "duplicate": aligned.duplicates, "cut": int(completion.cut)}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or None
