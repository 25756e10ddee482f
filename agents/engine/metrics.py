"""Prometheus metrics: one commented list, filled from plain counters at the moment of a scrape, so the hot path pays nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.engine.inference import Inference, Way
from agents.engine.runtime import Engine
from agents.engine.spending import utc_day
from models.budget.prices import MICRO
from models.gates.admission_gate import AdmissionGate
from models.gates.breaker_gate import BreakerGate
from topics.publish.side import SidePublisher
from topics.reference import ReferenceTable
from topics.transport.stats import TransportStats


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: its name without the prefix `headrace_`, its labels beside `agent`, and what it tells a person."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


MODEL = ("endpoint", "model")

DEFINITIONS: tuple[Definition, ...] = (
    # what came in
    Definition("records_read", "counter", "Input records handed to the engine."),
    Definition("records_cleaned", "counter", "Values changed by a declared cleaning rule.", ("rule",)),
    # What became of it. These count parts as the engine settles them, before they are published: a record with several
    # subjects has several, one too large to publish counts as decided and as a dead letter, and what a lost partition had not
    # committed is counted again by whoever reads it next. Receipts say what was committed; `headrace verify` adds them up.
    Definition("decisions", "counter", "Decisions and retractions, by outcome.", ("outcome",)),
    Definition("decision_tiers", "counter", "Decisions by tier; none: nothing answered in time.", ("tier",)),
    Definition("dead_letters", "counter", "Records that could not be decided, by reason.", ("reason",)),
    Definition("skips", "counter", "Records skipped by a named rule.", ("rule",)),
    Definition("reasons_dropped", "counter", "Reasons that were not in the catalogue or did not hold."),
    # asking
    Definition("batches", "counter", "Micro-batches handed to the scorer."),
    Definition("records_asked", "counter", "Records in those batches."),
    Definition("records_unanswered", "counter", "Records asked about in vain, by what happened.", ("status",)),
    Definition("calls_in_flight", "gauge", "Micro-batches being answered now."),
    # the models, shared by all agents of the process that ask them; endpoint is where it is, without credentials
    Definition("model_requests", "counter", "Requests to a model's endpoint: admitted; limited, which were answered 429; "
               "refused, since it failed.", (*MODEL, "result")),
    Definition("model_requests_waiting", "gauge", "Requests that wait for their turn.", MODEL),
    Definition("model_requests_per_minute", "gauge", "Requests a minute sent at most now; found out where it was not told.",
               MODEL),
    Definition("model_concurrency", "gauge", "Requests in flight at most now; falls where the endpoint grows slow.", MODEL),
    Definition("model_endpoint_shut", "gauge", "1 while the endpoint fails and is left alone, or is only coming back, with "
               "one of its keys at least. An alarm.", MODEL),
    Definition("model_retries", "counter", "Failed requests: retried, or refused: they are a share of traffic.",
               (*MODEL, "result")),
    Definition("model_passed_on", "counter", "Records of the agent that it gave no answer to: the next model was asked.",
               MODEL),
    Definition("batch_answers_compared", "counter", "Records that were asked alone too, to compare with their batch's answer.",
               MODEL),
    Definition("batch_answers_flipped", "counter", "Those whose answer alone said something else.", MODEL),
    Definition("batch_size", "gauge", "Records in a call at most now; shrinks where answers flip.", MODEL),
    Definition("cascade_answers", "counter", "Answers of a tier of the cascade: certain; uncertain, so that the next tier is "
               "asked; unanswered; spared: uncertain, and standing since the budget runs short.", ("tier", "result")),
    Definition("cascade_sampled", "counter", "Certain answers that the next tier was asked about too, to judge the band: agreed, "
               "or flipped.", ("tier", "result")),
    Definition("cache_lookups", "counter", "Questions looked up among answers kept: hit; shared with one asked at the same time; "
               "miss.", ("model", "result")),
    Definition("cache_entries", "counter", "Answers stored; evicted for age or size; errors: the file could not be used.",
               ("result",)),
    Definition("model_hedges", "counter", "Second requests for slow ones: sent; won, those that answered first.",
               (*MODEL, "result")),
    Definition("records_unmaskable", "counter", "Records that could not be masked, and were not sent to a model."),
    Definition("records_suspected", "counter", "Records asked alone since their text seems to speak to the model, by rule.",
               ("rule",)),
    Definition("records_moderated", "counter", "Records not asked about: flagged by moderation, or unanswered by it.",
               ("result",)),
    Definition("budget", "gauge", "What calls may cost a UTC day, for all partitions; absent without a budget."),
    Definition("budget_spent", "gauge", "What calls have cost today, for the partitions of this worker."),
    Definition("budget_refused", "counter", "Requests that did not leave since the budget was spent."),
    # the Kafka side; see topics/transport/stats.py for what each event and reason means
    Definition("commits", "counter", "Commits confirmed by the broker; transactions under exactly once."),
    Definition("commit_seconds", "counter", "Time spent in them, in seconds."),
    Definition("transport_events", "counter", "Partitions taken, kept, fenced ...; offsets lost to retention.", ("event",)),
    Definition("pauses", "counter", "Times that reading paused, by the bound that was met.", ("bound",)),
    Definition("held_records", "gauge", "Records read and not yet committed."),
    Definition("held_bytes", "gauge", "Bytes of those records."),
    Definition("partitions_waiting", "gauge", "Assigned partitions that an outbound topic lacks: they are not read. An alarm."),
    Definition(
        "poll_age_seconds", "gauge", "Seconds since records were last asked for; 0 while they need not be (rebalance, drain)."
    ),
    Definition("lag_records", "gauge", "Offsets between the frontier and the end of a partition.", ("partition",)),
    # beside the stream; table is the join's name, see topics/reference/contents.py for what each event means
    Definition("reference_events", "counter", "What reading a joined table met: rows, deletes, rebuilds ...", ("table", "event")),
    Definition("reference_faults", "counter", "Bad records and rows of a joined table, by reason.", ("table", "reason")),
    Definition("audit_records", "counter", "Audits of model calls: published, dropped unsent, failed.", ("result",)),
)


class Source(Protocol):
    """Something that knows current values: (definition name, label values, number)."""

    def samples(self) -> Iterable[tuple[str, tuple[str, ...], float]]: ...


class AgentCollector(Collector):
    """Exports all sources of all agents of a process."""

    def __init__(self, sources: Mapping[str, Iterable[Source]]) -> None:
        self._sources = {agent: tuple(found) for agent, found in sources.items()}

    def collect(self) -> Iterator[Metric]:
        """Build the families anew from the current counters."""
        families: dict[str, Any] = {}
        for d in DEFINITIONS:
            made = CounterMetricFamily if d.kind == "counter" else GaugeMetricFamily
            families[d.name] = made(f"headrace_{d.name}", d.help, labels=("agent", *d.labels))
        for agent, sources in self._sources.items():
            for source in sources:
                for (name, labels), value in merged(source.samples()).items():
                    families[name].add_metric((agent, *labels), value)
        yield from families.values()


Series = tuple[str, tuple[str, ...]]


def merged(samples: Iterable[tuple[str, tuple[str, ...], float]]) -> dict[Series, float]:
    """Each series once, since Prometheus refuses a scrape that has one twice. An agent may ask one model in two chains, and two
    accounts (keys) of one model have the same labels: what they count and may send adds up, one that is shut makes it shut, and
    the smaller batch is the one that flips."""
    found: dict[Series, float] = {}
    for name, labels, value in samples:
        series = name, labels
        if series not in found:
            found[series] = value
        else:
            merge = _MERGES.get(name)
            found[series] = merge(found[series], value) if merge is not None else found[series] + value
    return found


_MERGES: Mapping[str, Callable[[float, float], float]] = {"model_endpoint_shut": max, "batch_size": min}
"""How two values of one series become one, where they do not add up."""


class EngineSource:
    """The counters of one engine and its pipeline."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See Source."""
        counts, stats = self._engine.pipeline.counts, self._engine.stats
        yield "records_read", (), counts.records
        yield "reasons_dropped", (), self._engine.pipeline.rules.reasons_dropped
        yield "batches", (), stats.batches
        yield "records_asked", (), stats.asked
        yield "calls_in_flight", (), stats.in_flight
        tables = (
            ("decisions", counts.outcomes), ("decision_tiers", counts.tiers), ("dead_letters", counts.dead_letters),
            ("skips", counts.skips), ("records_cleaned", counts.cleaned), ("records_unanswered", stats.unanswered),
        )  # fmt: skip
        for name, table in tables:
            for label, value in dict(table).items():  # a copy: the scrape's thread walks over it, the loop's adds to it
                yield name, (label,), value


EVENTS = (
    "taken", "kept", "fenced", "recovered", "retaken", "dropped", "outcomes_dropped", "lost_offsets", "damaged_metadata",
    "log_restarts", "held_back", "too_large", "commit_failures",
)  # fmt: skip


class TransportSource:
    """The counters of one agent's transport."""

    def __init__(self, stats: TransportStats) -> None:
        self._stats = stats

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See Source."""
        stats = self._stats
        yield "commits", (), stats.commits
        yield "commit_seconds", (), stats.commit_seconds_sum
        yield "held_records", (), stats.held_records
        yield "held_bytes", (), stats.held_bytes
        yield "partitions_waiting", (), len(stats.waiting)
        for event in EVENTS:
            yield "transport_events", (event,), getattr(stats, event)
        for bound, times in dict(stats.pauses).items():  # a copy: see EngineSource
            yield "pauses", (bound,), times
        for tp, lag in stats.lag().items():
            yield "lag_records", (str(tp.partition),), lag


TABLE_EVENTS = ("rows", "deletes", "replayed", "went-back", "truncates", "rebuilds", "ahead")
FAULT = "fault:"


class ReferenceSource:
    """The counters of one agent's reference tables, by the name of the join."""

    def __init__(self, tables: Mapping[str, ReferenceTable]) -> None:
        self._tables = tables

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See Source."""
        for name, table in self._tables.items():
            counts = dict(table.counts)  # a copy: see EngineSource
            for event in TABLE_EVENTS:
                yield "reference_events", (name, event), counts.get(event, 0)
            for reason, times in counts.items():
                if reason.startswith(FAULT):
                    yield "reference_faults", (name, reason.removeprefix(FAULT)), times


class ModelSource:
    """What stands before the models that `agent` asks; nothing where it asks none."""

    def __init__(self, inference: Inference, agent: str) -> None:
        self._inference = inference
        self._agent = agent

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See Source."""
        budget = self._inference.budgets.get(self._agent)
        if budget is not None:
            yield "budget", (), budget.limit / MICRO
            yield "budget_spent", (), budget.total(utc_day()) / MICRO
            yield "budget_refused", (), budget.refused
        way = self._inference.way(self._agent)
        yield from self._tiers(way)
        yield from self._kept(way)
        yield from self._masked(way)
        moderation = self._inference.moderation
        if way.moderated is not None and moderation is not None:
            yield from self._gates((way.moderated.where, "moderation"), moderation.admission, moderation.breaker)
        for opened, hedge in way.hedges:
            where = opened.model.endpoint, opened.model.name
            yield "model_hedges", (*where, "sent"), hedge.stats.hedged
            yield "model_hedges", (*where, "won"), hedge.stats.won
        for chain in way.chains:
            for opened, candidate in zip(chain.opened, chain.candidates, strict=True):
                yield "model_passed_on", (opened.model.endpoint, opened.model.name), candidate.passed_on
            for opened, meter in zip(chain.opened, chain.meters, strict=False):  # none where nothing is compared
                where = opened.model.endpoint, opened.model.name
                yield "batch_answers_compared", where, meter.stats.compared
                yield "batch_answers_flipped", where, meter.stats.flipped
                yield "batch_size", where, meter.size
        for opened in self._inference.opened:
            where = opened.model.endpoint, opened.model.name
            yield from self._gates(where, opened.admission, opened.breaker)
            retries = opened.line.retry_budget
            if retries is not None:
                yield "model_retries", (*where, "retried"), retries.stats.retried
                yield "model_retries", (*where, "refused"), retries.stats.refused

    @staticmethod
    def _gates(
        where: tuple[str, str], admission: AdmissionGate, breaker: BreakerGate
    ) -> Iterator[tuple[str, tuple[str, ...], float]]:
        if admission.used:
            core = admission.core
            yield "model_requests", (*where, "admitted"), core.stats.admitted
            yield "model_requests", (*where, "limited"), core.stats.limited
            yield "model_requests_waiting", where, core.waiting()
            yield "model_requests_per_minute", where, 60 * core.finder.rate
            yield "model_concurrency", where, core.concurrency.limit
        yield "model_requests", (*where, "refused"), breaker.stats.refused
        yield "model_endpoint_shut", where, not breaker.closed()

    @staticmethod
    def _tiers(way: Way) -> Iterator[tuple[str, tuple[str, ...], float]]:
        for tier in way.cascade.stats if way.cascade is not None else ():
            for result in ("certain", "uncertain", "unanswered", "spared"):
                yield "cascade_answers", (tier.tier, result), getattr(tier, result)
            yield "cascade_sampled", (tier.tier, "agreed"), tier.sample.agreed
            yield "cascade_sampled", (tier.tier, "flipped"), tier.sample.flipped

    @staticmethod
    def _masked(way: Way) -> Iterator[tuple[str, tuple[str, ...], float]]:
        if way.redact is not None:
            yield "records_unmaskable", (), way.redact.unmasked
        suspected = sum((apart.found for apart in way.apart), Counter[str]())
        for rule, count in suspected.items():
            yield "records_suspected", (rule,), count
        if way.moderated is not None:
            yield "records_moderated", ("flagged",), way.moderated.flagged
            yield "records_moderated", ("unanswered",), way.moderated.unanswered

    @staticmethod
    def _kept(way: Way) -> Iterator[tuple[str, tuple[str, ...], float]]:
        if way.store is None:
            return
        stored = 0
        for cached in way.cached:
            stats = cached.stats
            stored += stats.stored
            for result, count in (("hit", stats.hits), ("shared", stats.shared), ("miss", stats.misses)):
                yield "cache_lookups", (cached.name, result), count
        results = (("stored", stored), ("evicted", way.store.stats.evicted), ("errors", way.store.stats.errors))
        for result, count in results:
            yield "cache_entries", (result,), count


class AuditSource:
    """What became of one agent's audits of model calls, which go to `topic`."""

    def __init__(self, side: SidePublisher, topic: str) -> None:
        self._side = side
        self._topic = topic

    def samples(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """See Source."""
        side = self._side
        for result, counts in (("published", side.published), ("dropped", side.dropped), ("failed", side.failed)):
            yield "audit_records", (result,), counts.get(self._topic, 0)
