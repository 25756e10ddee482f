"""TopicSpec: what a topic is called, how its records are encoded and cleaned, and who owns it; and the registry of all topics.

A spec is logical. The physical name and the encoding are the user's to choose (a Debezium prefix, a converter, a decimal
mode): `TopicSpec.placed` gives the spec as it is configured at this site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from schemas.change import Change
from schemas.errors import TopicError
from schemas.event import Event
from schemas.reading import Reading

LEGAL_NAME = r"^[A-Za-z0-9._-]{1,249}$"
"""What Kafka takes as the name of a topic."""
V = TypeVar("V")
R = TypeVar("R", bound=BaseModel)
Kind = Literal["change", "reading", "event", "out"]
DecimalHint = int
"""Scale of a schemaless base64 decimal column."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the producer of a topic writes it. Everything is detected where the wire says it; hints are for what it does not say.

    `decimals`: column -> scale of a base64 decimal whose schema is not on the wire. `temporals`: column -> one of "date",
    "millis", "micros", "nanos", "time_millis", "time_micros", "time_nanos" where no schema says it. `unwrapped`: the rows
    are flat (ExtractNewRecordState); None detects it. `max_bytes`, `max_depth` bound what is parsed at all.
    `replica_identity` says whether a PostgreSQL delete carries its whole old row; "auto" trusts it only where it can not be
    placeholders. `device_field`, `time_field`, `id_field` name those of a reading or event where they are not one of the
    usual names (topics/decode/telemetry.py lists them).
    """

    decimals: Mapping[str, DecimalHint] = field(default_factory=dict)
    temporals: Mapping[str, str] = field(default_factory=dict)
    timestamps: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    unwrapped: bool | None = None
    max_bytes: int = 1_000_000
    max_depth: int = 32
    replica_identity: Literal["auto", "default", "full"] = "auto"
    device_field: str = ""
    time_field: str = ""
    id_field: str = ""


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds of a number. Outside: "dead_letter", "null" (forget the value) or "clamp"."""

    min: float | None = None
    max: float | None = None
    on_violation: Literal["dead_letter", "null", "clamp"] = "dead_letter"


@dataclass(frozen=True, slots=True)
class Unit:
    """`value * factor + offset` turns the unit on the wire into the unit of the field (K to degC: Unit(1, -273.15))."""

    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Clock:
    """How far event time may lie from the broker's record time. A record outside is named as such and never put in a window."""

    max_past_ms: int = 7 * 86_400_000
    max_future_ms: int = 300_000
    on_violation: Literal["dead_letter", "skip"] = "dead_letter"


@dataclass(frozen=True, slots=True)
class Clean:
    """Declared cleaning, applied between parsing and validation in this order: rename, defaults, units, ranges.

    `rename`: name on the wire -> field of the row. Each rule that acts is counted as `rename:NAME`, `default:FIELD`,
    `unit:FIELD`, `range:FIELD`.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicSpec(Generic[V]):
    """One topic. `name` is its logical name in the registry; `physical` what it is called on the broker.

    `dedupe` is the number of offsets back within which an equal event id is a repeat (0: never). `key` names the primary
    key columns of a change topic. `retention_ms` -1 keeps for ever.
    """

    name: str
    kind: Kind
    row: type[BaseModel] | None = None
    key: tuple[str, ...] = ()
    physical: str = ""
    partitions: int = 6
    retention_ms: int = 7 * 86_400_000
    cleanup: Literal["delete", "compact", "compact,delete"] = "delete"
    max_message_bytes: int = 1_048_588
    owner: str = ""
    description: str = ""
    encoding: Encoding = Encoding()
    clean: Clean = Clean()
    clock: Clock | None = None
    dedupe: int = 0

    @property
    def topic(self) -> str:
        """The name on the broker."""
        return self.physical or self.name

    def placed(self, override: Mapping[str, Any]) -> TopicSpec[V]:
        """This spec as configured at one site. Raises TopicError naming a setting that is not known or can not be."""
        known = set(_Placement.__dataclass_fields__)
        enc = set(Encoding.__dataclass_fields__)
        unknown = sorted(set(override) - known - enc)
        if unknown:
            raise TopicError(f"placing topic {self.name}: unknown setting {unknown[0]!r}; known are {sorted(known | enc)}")
        plain = {name: value for name, value in override.items() if name in known}
        hints = {name: value for name, value in override.items() if name in enc}
        try:
            _PLACEMENT.validate_python(plain)
            checked = _ENCODING.validate_python(hints)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise TopicError(f"placing topic {self.name}: {where}: {first['msg']}") from None
        hints = {name: getattr(checked, name) for name in hints}
        return replace(self, **plain, encoding=replace(self.encoding, **hints))


@dataclass(frozen=True, slots=True)
class _Placement:
    """What a site may say of any topic beside its encoding."""

    physical: Annotated[str, Field(pattern=LEGAL_NAME, strict=True)] = "unset"
    partitions: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1
    retention_ms: Annotated[int, Field(ge=-1, strict=True)] = -1
    max_message_bytes: Annotated[int, Field(ge=1024, strict=True)] = 1024
    dedupe: Annotated[int, Field(ge=0, strict=True)] = 0


_PLACEMENT = TypeAdapter(_Placement)
_ENCODING = TypeAdapter(Encoding)


def change_topic(name: str, row: type[R], *, key: tuple[str, ...], **rest: Any) -> TopicSpec[Change[R]]:
    """A topic of row changes. Its default cleanup is delete; joined topics are usually compacted."""
    return TopicSpec(name=name, kind="change", row=row, key=key, **rest)


def reading_topic(name: str, row: type[R], **rest: Any) -> TopicSpec[Reading[R]]:
    """A topic of device measurements; its clock is checked and repeats within 1,000 offsets are skipped unless told otherwise."""
    rest.setdefault("clock", Clock())
    rest.setdefault("dedupe", 1000)
    return TopicSpec(name=name, kind="reading", row=row, **rest)


def event_topic(name: str, row: type[R], **rest: Any) -> TopicSpec[Event[R]]:
    """A topic of plain JSON events or CloudEvents."""
    return TopicSpec(name=name, kind="event", row=row, **rest)


def out_topic(name: str, **rest: Any) -> TopicSpec[Any]:
    """A topic that we write."""
    return TopicSpec(name=name, kind="out", **rest)


class Registry:
    """All topics, by logical name, as placed at this site."""

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._overrides = dict(overrides or {})
        self._specs: dict[str, TopicSpec[Any]] = {}
        self._by_topic: dict[str, str] = {}

    def add(self, spec: TopicSpec[V]) -> TopicSpec[V]:
        """Register and place a spec. Raises TopicError where one name has two specs, or two specs one topic on the broker."""
        placed = spec.placed(self._overrides.get(spec.name, {}))
        seen = self._specs.get(spec.name)
        if seen is not None and seen != placed:
            raise TopicError(f"registering topic {spec.name}: two different specs carry this name")
        taken = self._by_topic.setdefault(placed.topic, spec.name)
        if taken != spec.name:
            raise TopicError(f"placing topic {spec.name}: {placed.topic} on the broker is taken by {taken}; give each its own")
        self._specs[spec.name] = placed
        return placed

    def __iter__(self) -> Iterator[TopicSpec[Any]]:
        return iter(self._specs.values())

    def __getitem__(self, name: str) -> TopicSpec[Any]:
        return self._specs[name]

    def unused_overrides(self) -> list[str]:
        """Overrides that name no registered topic: a typing mistake a person wants to hear about."""
        return sorted(set(self._overrides) - set(self._specs))
