"""An account as text for a person and as one JSON-able object for a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from topics.verify.facts import OFFENCES, Account, PartitionAccount, Tally

MOST_LINES = 20
"""Offenders that are printed for each kind; JSON has all that were kept."""


def as_dict(accounts: Sequence[Account], *, strict: bool = False) -> dict[str, Any]:
    """The whole result: `ok`, the totals of all agents by name (as in Tally), and each agent's account."""
    total = Tally()
    for account in accounts:
        total.add(account.totals)
    return {"ok": passed(accounts, strict=strict), **total.as_dict(), "agents": [_agent(account) for account in accounts]}


def passed(accounts: Iterable[Account], *, strict: bool = False) -> bool:
    """Whether nothing offends; strictly also: nothing lost, nothing changed in repetition, everything provable."""
    return all(account.strict_ok if strict else account.ok for account in accounts)


def _agent(account: Account) -> dict[str, Any]:
    return {
        "agent": account.agent, "topic": account.topic, "group": account.group, "ok": account.ok,
        "promises": sorted(account.promises), **account.totals.as_dict(), "skips_by_rule": dict(account.skips),
        "calls": account.calls, "offences": dict(account.offences), "unprovable": dict(account.unprovable),
        "notes": _notes(account),
        "offenders": [
            {"kind": o.kind, "topic": o.topic, "partition": o.partition, "offset": o.offset, "detail": o.detail}
            for o in account.all_offenders
        ],
        "partitions": [
            {"partition": p.partition, "first": p.first, "frontier": p.frontier, "committed": p.committed, "head": p.head,
             **p.tally.as_dict()}
            for p in account.partitions
        ],
    }  # fmt: skip


def _notes(account: Account) -> list[str]:
    return [*account.notes, *(note for p in account.partitions for note in [*p.notes, *_differing(p)])]


def _differing(partition: PartitionAccount) -> list[str]:
    """Where the records lie that say something else than the first with their id, as far as they were kept by name."""
    if not partition.differing:
        return []
    where = ", ".join(f"{topic}/{partition.partition} offset {at}" for topic, at in partition.differing)
    more = partition.tally.changed - len(partition.differing)
    rest = f", and {more} more" if more else ""
    return [f"repeats after a crash, or put in, since they say something else than the first or the anchored one: {where}{rest}"]


def lines(account: Account) -> list[str]:
    """What a person is told about one agent: the numbers, what repeats or is lost, what can not be proven, the offenders."""
    t = account.totals
    promise = " and ".join(sorted(account.promises)) or "no receipts yet"
    skips = "".join(f", {rule} {number}" for rule, number in sorted(account.skips.items()))
    state = "accounted for" if account.ok else "NOT in order"
    out = [
        f"{account.agent}: {state} ({promise}; {account.topic}, group {account.group})",
        f"  {t.records} input records: {t.decisions} decisions, {t.dead_letters} dead letters, {t.skips} skipped{skips}",
        f"  {t.unaccounted} unaccounted, {t.repeated} repeated, {t.out_of_order} out of order,"
        f" {t.pending} not decided yet, {t.receipts} receipts",
    ]
    out += _audit(account, t)
    if t.lost:
        out.append(f"  ALARM: {t.lost} offsets were removed by retention before they were read; raise retention or add workers")
    if t.changed:
        out.append(f"  {t.changed} repeats say something else than the first; the first with an id stands")
    if t.ahead:
        out.append(f"  {t.ahead} outcomes are there before their receipt; they will be repeated under the same ids")
    out += [f"  can not be proven: {number} records: {reason}" for reason, number in account.unprovable.items()]
    out += [f"  note: {note}" for note in _notes(account)]
    return out + _offenders(account)


def _audit(account: Account, t: Tally) -> list[str]:
    """What the chain vouches for; nothing where no receipt has one."""
    heads = [f"{p.partition}:{p.head[:16]}" for p in account.partitions if p.head is not None]
    if not (t.anchored or t.erased):
        return []
    erased = f", {t.erased} erased (their digests stand)" if t.erased else ""
    loose = f", {t.unanchored} outside it (repeats, or older than it)" if t.unanchored else ""
    return [
        f"  audit chain: {t.anchored} records as their receipts anchor them{erased}{loose}, {account.calls} model calls",
        f"  heads: {' '.join(heads)}",
    ]


def _offenders(account: Account) -> list[str]:
    out = []
    for kind, number in account.offences.items():
        out.append(f"  {kind}: {number}, {OFFENCES[kind]}")
        named = [o for o in account.all_offenders if o.kind == kind][:MOST_LINES]
        for o in named:
            where = f"{o.topic}/{o.partition}" + (f" offset {o.offset}" if o.offset is not None else "")
            out.append(f"    {where}: {o.detail}")
        if number > len(named):
            out.append(f"    and {number - len(named)} more")
    return out
