"""What was sent and what came back: the demo's own account, from the topics alone, as any subscriber could keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from agents.demo.drafts import Planned
from schemas.audit import Call
from schemas.decision import Decision
from schemas.receipt import Receipt

Place = tuple[str, int, int]
"""Topic on the broker, partition, offset."""


class Arrived(Protocol):
    """A record of an outbound topic, as a consumer hands it over."""

    @property
    def topic(self) -> str: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Channels:
    """An agent's topics, by their names on the broker."""

    agent: str
    source: str
    decisions: str
    dead_letters: str
    receipts: str
    calls: str

    @property
    def outbound(self) -> tuple[str, ...]:
        """What a subscriber reads."""
        return self.decisions, self.dead_letters, self.receipts, self.calls


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision as it arrived, the record it is about, and the milliseconds from one being written to the other visible."""

    decision: Decision
    about: Planned
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Told:
    """What the summary needs of a decision; a whole one is some kilobytes, and there may be a hundred thousand."""

    kind: str
    outcome: str | None
    tier: str
    score: float | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a Seen."""

    decision: Told
    about: Planned
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter as it arrived, and the record it is about."""

    reason: str
    field: str | None
    about: Planned


@dataclass(slots=True)
class Account:
    """What came back from one agent, of what this run has sent to it.

    `skipped` holds the rule by place, `examples` for each outcome the decision that has most to say, and only that one whole.
    """

    decisions: list[Kept] = field(default_factory=list)
    examples: dict[str, Seen] = field(default_factory=dict)
    dead_letters: list[Buried] = field(default_factory=list)
    skipped: dict[Place, str] = field(default_factory=dict)
    calls: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    again: int = 0

    @property
    def skips(self) -> Counter[str]:
        """How many records each rule skipped."""
        return Counter(self.skipped.values())

    @property
    def outcomes(self) -> int:
        """How many outcomes have come back."""
        return len(self.decisions) + len(self.dead_letters) + len(self.skipped)

    def keep(self, seen: Seen) -> None:
        """Remember a decision."""
        d = seen.decision
        product = (d.result or {}).get("product")
        result = {"product": product} if product is not None else None
        self.decisions.append(Kept(Told(d.kind, d.outcome, d.tier, d.score, result), seen.about, seen.latency_ms))
        best = self.examples.get(d.outcome or "")
        if d.outcome and (best is None or _tells(seen) > _tells(best)):
            self.examples[d.outcome] = seen

    def called(self, call: Call) -> None:
        """Count a call of a model."""
        self.calls += 1
        self.tokens_input += call.tokens.input
        self.tokens_output += call.tokens.output


class Ledger:
    """Counts each outcome once, by its id, and only outcomes of records that this run has sent.

    `begin` says for each partition of the sources, by (topic, partition), from which offset on this run writes.
    """

    def __init__(self, channels: Sequence[Channels], begin: Mapping[tuple[str, int], int]) -> None:
        self.channels = {c.agent: c for c in channels}
        self.accounts = {c.agent: Account() for c in channels}
        self.sent: dict[Place, Planned] = {}
        self._begin = dict(begin)
        self._by_topic = {topic: c for c in channels for topic in c.outbound}
        self._owed = {c.source: 0 for c in channels}
        self._ends: dict[tuple[str, int], int] = {}
        self._frontier: dict[tuple[str, int], int] = {}
        self._ids: set[str] = set()
        self._early: dict[Place, list[tuple[Arrived, float]]] = {}
        self._early_skips: dict[Place, str] = {}

    def note(self, place: Place, planned: Planned) -> None:
        """A record was written there. What had come back for it already is counted now."""
        topic, partition, offset = place
        if topic not in self._owed:
            return
        self.sent[place] = planned.bare()
        self._owed[topic] += 1
        self._ends[topic, partition] = max(self._ends.get((topic, partition), 0), offset + 1)
        for record, now_ms in self._early.pop(place, ()):
            self.take(record, now_ms)
        rule = self._early_skips.pop(place, None)
        if rule is not None:
            self._skip(place, rule)

    def take(self, record: Arrived, now_ms: float) -> Seen | None:
        """Count a record of an outbound topic that became visible at `now_ms`; a new decision is handed back."""
        channels = self._by_topic[record.topic]
        account = self.accounts[channels.agent]
        if record.value is None:
            return None
        if record.topic == channels.decisions:
            return self._decision(account, record, now_ms)
        if record.topic == channels.dead_letters:
            self._dead_letter(account, record, now_ms)
        elif record.topic == channels.calls:
            account.called(Call.model_validate_json(record.value))
        else:
            self._receipt(Receipt.model_validate_json(record.value))
        return None

    def _decision(self, account: Account, record: Arrived, now_ms: float) -> Seen | None:
        assert record.value is not None
        decision = Decision.model_validate_json(record.value)
        source = decision.source
        about = self._about((source.topic, source.partition, source.offset), record, now_ms)
        if about is None or not self._first(decision.id, account):
            return None
        seen = Seen(decision, about, now_ms - _epoch_ms(source.timestamp or decision.received_at))
        account.keep(seen)
        return seen

    def _dead_letter(self, account: Account, record: Arrived, now_ms: float) -> None:
        said = {name: value.decode(errors="replace") for name, value in record.headers}
        place = (said["headrace_topic"], int(said["headrace_partition"]), int(said["headrace_offset"]))
        about = self._about(place, record, now_ms)
        if about is not None and self._first(said["headrace_id"], account):
            account.dead_letters.append(Buried(said["headrace_reason"], said.get("headrace_field") or None, about))

    def _receipt(self, receipt: Receipt) -> None:
        at = (receipt.topic, receipt.partition)
        self._frontier[at] = max(self._frontier.get(at, 0), receipt.to)
        low = self._begin.get(at, 0)
        for rule, ranges in receipt.skips.items():
            for first, past in ranges:
                for offset in range(max(first, low), past):
                    self._skip((*at, offset), rule)

    def _skip(self, place: Place, rule: str) -> None:
        if place in self.sent:
            agent = next(c.agent for c in self.channels.values() if c.source == place[0])
            self.accounts[agent].skipped[place] = rule
        else:
            self._early_skips[place] = rule

    def _about(self, place: Place, record: Arrived, now_ms: float) -> Planned | None:
        """The record that an outcome is about. An outcome may be here before the broker's word on where its record is."""
        about = self.sent.get(place)
        if about is None and place[2] >= self._begin.get(place[:2], 0):
            self._early.setdefault(place, []).append((record, now_ms))
        return about

    def _first(self, id_: str, account: Account) -> bool:
        """The reader's rule: the first outcome with an id stands."""
        if id_ in self._ids:
            account.again += 1
            return False
        self._ids.add(id_)
        return True

    # ---- how far it is ---------------------------------------------------------------------------------------------------
    def owed(self, agent: str) -> int:
        """How many records were sent to this agent: it owes each an outcome."""
        return self._owed[self.channels[agent].source]

    def settled(self) -> bool:
        """Whether receipts have closed every record that was sent, and each one's outcome has arrived here."""
        closed = all(self._frontier.get(at, 0) >= end for at, end in self._ends.items())
        return closed and all(account.outcomes >= self.owed(agent) for agent, account in self.accounts.items())

    def misburied(self) -> tuple[list[Planned], list[Buried]]:
        """Records that were broken on purpose and are no dead letters, and dead letters of records that were not."""
        letters = [buried for account in self.accounts.values() for buried in account.dead_letters]
        buried = {id(letter.about) for letter in letters}
        missed = [planned for planned in self.sent.values() if planned.fault is not None and id(planned) not in buried]
        return missed, [letter for letter in letters if letter.about.fault is None]

    def tally(self) -> dict[str, int]:
        """The counts of all agents together."""
        accounts = self.accounts.values()
        return {
            "decisions": sum(len(a.decisions) for a in accounts),
            "dead_letters": sum(len(a.dead_letters) for a in accounts),
            "skips": sum(len(a.skipped) for a in accounts),
            "model_calls": sum(a.calls for a in accounts),
            "tokens_input": sum(a.tokens_input for a in accounts),
            "tokens_output": sum(a.tokens_output for a in accounts),
        }


def _tells(seen: Seen) -> tuple[bool, int]:
    """How much there is to read: whether rules changed what was proposed, and how many reasons there are."""
    d = seen.decision
    return d.proposed_outcome not in (None, d.outcome), len(d.reasons)


def _epoch_ms(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp() * 1000
