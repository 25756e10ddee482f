"""What one commit closed, as the record that `headrace verify` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.receipt import Position as ReferencePosition
from schemas.receipt import Receipt
from schemas.wire import rfc3339
from topics.chain import Tip, chain, head
from topics.handover import Feed, Finished, Outbound, TopicPartition
from topics.progress import Commit, Range, S, merge
from topics.publish.contract import Promise
from topics.transport.read_back import receipt_key


def receipt(
    feed: Feed,
    tp: TopicPartition,
    commit: Commit[S, Finished],
    promise: Promise,
    references: Sequence[ReferencePosition],
    spend: Mapping[str, int],
    now_ms: int,
    *,
    tip: Tip | None = None,
    room: int = 0,
) -> tuple[Outbound, Tip | None]:
    """The receipt of `commit`, to be published with it, and where the audit chain ends once it is.

    `tip` is where the chain ends now, None where none is kept; `room` bounds what its digests take, in bytes.
    """
    skips: dict[str, list[Range]] = {}
    part_skips: list[tuple[int, int, str]] = []
    decisions = dead_letters = 0
    for span, index, outcome in commit.items:
        if outcome.skip is not None:
            skips.setdefault(outcome.skip, []).append(span.cover(index))
        if outcome.part_skips:
            offset = span.offsets[index]
            part_skips += [(offset, part, rule) for part, rule in outcome.part_skips]
        for record in outcome.outbound:
            if record.purpose == "decision":
                decisions += 1
            elif record.purpose == "dead_letter":
                dead_letters += 1
    body = Receipt.model_construct(
        agent=feed.agent,
        version=feed.version,
        run=feed.run,
        promise=promise,
        topic=tp.topic,
        partition=tp.partition,
        seq=commit.seq,
        from_=commit.start,
        to=commit.frontier,
        closed=commit.closed(),
        skips={rule: merge(ranges) for rule, ranges in skips.items()},
        part_skips=part_skips,
        lost=list(commit.lost),
        decisions=decisions,
        dead_letters=dead_letters,
        references=list(references),
        spend=dict(spend),
        worker=feed.worker,
        at=str(rfc3339(now_ms)),
        chain=None if tip is None else chain([r for _, _, outcome in commit.items for r in outcome.outbound], tip, room),
    )
    value = body.model_dump_json(by_alias=True).encode()
    after = None if tip is None or body.chain is None else Tip(head(value), tip.count + body.chain.count)
    return Outbound(feed.receipts, receipt_key(tp), value, (), "audit"), after
