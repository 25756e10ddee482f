"""A row out of named wire values: the columns its model declares, converted, cleaned by the topic's rules, validated.

Columns that the model does not declare are ignored, so that one added to a table flows through. Cleaning runs between
conversion and validation, in the order rename, defaults, units, ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isinf
from typing import Any, Literal, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from schemas.errors import ConfigError
from topics.decode.columns import Convert, Source, accepts_none, converter, makes_numbers, wire_names
from topics.decode.connect_types import Meaning, from_hints
from topics.decode.faults import FOREIGN, QUOTED, VALUE, Bad, quoted, short
from topics.decode.numbers import EXACT, bounded, bounded_made, check_decimal
from topics.spec import Range, TopicSpec, Unit

_MISSING: Any = object()
_NOTHING = Meaning()
_PYDANTICS = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
"""Errors whose messages pydantic writes; it may quote the value, but nothing of another column."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of the row. `wires` are its names on the wire, the ones that a rename rule gives it first."""

    name: str
    put: str
    wires: tuple[str, ...]
    renamed: frozenset[str]
    annotation: Any
    nullable: bool
    required: bool


def columns_of(spec: TopicSpec[Any]) -> tuple[Column, ...]:
    """The columns of a topic's row. Raises ConfigError for a topic without a row or a rule about a field that is not there."""
    row = spec.row
    if row is None:
        raise ConfigError(f"compiling the decoder of topic {spec.name}: its spec names no row")
    found = []
    for name, info in row.model_fields.items():
        own = wire_names(name, info)
        renamed = tuple(wire for wire, target in spec.clean.rename.items() if target == name)
        wires = (*renamed, *(wire for wire in own if wire not in renamed))
        nullable, required = accepts_none(info.annotation), info.is_required()
        found.append(Column(name, own[0], wires, frozenset(renamed), info.annotation, nullable, required))
    clean = spec.clean
    for rule, targets in (
        ("rename", clean.rename.values()), ("defaults", clean.defaults), ("units", clean.units), ("ranges", clean.ranges),
    ):  # fmt: skip
        if unknown := sorted(set(targets) - set(row.model_fields)):
            raise ConfigError(f"compiling the decoder of topic {spec.name}: clean.{rule}: {row.__name__} has no fields {unknown}")
    return tuple(found)


class RowPlan:
    """How rows of one topic are built, for one meaning of its columns (hints, or one schema met on the wire)."""

    def __init__(self, spec: TopicSpec[Any], source: Source, meanings: Mapping[str, Meaning] | None = None) -> None:
        self.columns = columns_of(spec)
        # A schema on the wire beats a hint.
        self.meanings = from_hints(spec.encoding) | dict(meanings or {})
        clean = spec.clean
        ruled = set(clean.rename.values()) | set(clean.defaults) | set(clean.units) | set(clean.ranges)
        self._plain: list[tuple[str, str, Convert | None]] = []
        self._ruled: list[_Ruled] = []
        assert spec.row is not None
        self.row: type[BaseModel] = spec.row
        self._open = self.row.model_config.get("extra") == "allow"
        self.by_wire: dict[str, tuple[str, Convert | None]] = {}
        self._made = tuple(column.name for column in self.columns if makes_numbers(column.annotation))
        unit = spec.encoding.timestamps
        for column in self.columns:
            converts = {
                wire: converter(column.name, column.annotation, self.meanings.get(wire, _NOTHING), source, unit)
                for wire in column.wires
            }
            self.by_wire.update({wire: (column.name, converts[wire]) for wire in column.wires})
            if column.name in ruled or len(column.wires) > 1:
                name = column.name
                default = clean.defaults.get(name, _MISSING)
                self._ruled.append(_Ruled(column, converts, default, clean.units.get(name), clean.ranges.get(name)))
            else:
                self._plain.append((column.wires[0], column.put, converts[column.wires[0]]))

    def build(self, wire: Mapping[str, Any], cleaned: list[str]) -> BaseModel:
        """The row. Appends each cleaning rule that acted. Raises Bad naming the field."""
        out: dict[str, Any] = {}
        get = wire.get
        for name, put, convert in self._plain:
            value = get(name, _MISSING)
            if value is not _MISSING:
                out[put] = value if convert is None or value is None else convert(value)
        for ruled in self._ruled:
            ruled.apply(wire, out, cleaned)
        if self._open:
            extra = {k: v for k, v in wire.items() if k not in self.by_wire}
            bounded(extra)
            out = extra | out
        found = validate(self.row, out)
        for name in self._made:
            bounded_made(getattr(found, name), name)
        return found

    def take(self, wire: str, value: Any) -> tuple[str, Any]:
        """The field's name and converted value of one column, for keys; an unknown column comes back as it is. Raises Bad."""
        name, convert = self.by_wire.get(wire, (wire, None))
        return name, value if convert is None or value is None else convert(value)


class _Ruled:
    """A column with several names on the wire or with cleaning rules."""

    __slots__ = ("_bounds", "_column", "_converts", "_default", "_range", "_rule", "_unit")

    def __init__(
        self, column: Column, converts: dict[str, Convert | None], default: Any, unit: Unit | None, bounds: Range | None
    ) -> None:
        self._column, self._converts, self._default = column, converts, default
        self._unit = None if unit is None else (Decimal(str(unit.factor)), Decimal(str(unit.offset)))
        self._range = bounds
        self._bounds = _limits(bounds)
        self._rule = column.name

    def apply(self, wire: Mapping[str, Any], out: dict[str, Any], cleaned: list[str]) -> None:
        column = self._column
        value = _MISSING
        for name in column.wires:
            value = wire.get(name, _MISSING)
            if value is not _MISSING:
                convert = self._converts[name]
                if convert is not None and value is not None:
                    value = convert(value)
                if name in column.renamed:
                    cleaned.append(f"rename:{name}")
                break
        if (value is _MISSING or value is None) and self._default is not _MISSING:
            value = self._default
            cleaned.append(f"default:{self._rule}")
        if value is _MISSING:
            return
        if value is not None and (self._unit is not None or self._range is not None):
            value = self._measured(value, cleaned)
        out[column.put] = value

    def _measured(self, value: Any, cleaned: list[str]) -> Any:
        """Units and ranges, computed in decimals so that nothing is rounded. What is no number is left to validation."""
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            return value
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if self._unit is not None:
            exact = EXACT.add(EXACT.multiply(exact, self._unit[0]), self._unit[1])
            check_decimal(exact, self._rule, "clean")
            value = float(exact) if isinstance(value, float) else exact
            if isinstance(value, float) and isinf(value):
                raise Bad("number-too-large", "past the range of a float in its unit", self._rule, "clean")
            cleaned.append(f"unit:{self._rule}")
        low, high = self._bounds
        if self._range is None or ((low is None or exact >= low) and (high is None or exact <= high)):
            return value
        if self._range.on_violation == "dead_letter":
            raise Bad("out-of-range", f"{short(value)} is not within [{low}, {high}]", self._rule, "clean")
        cleaned.append(f"range:{self._rule}")
        if self._range.on_violation == "null":
            return None
        return low if low is not None and exact < low else high


def _limits(bounds: Range | None) -> tuple[Decimal | None, Decimal | None]:
    if bounds is None:
        return None, None
    low, high = (None if v is None else Decimal(str(v)) for v in (bounds.min, bounds.max))
    return low, high


def validate(row: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """The row model's own validation. Raises Bad invalid-field naming the first field; whatever a validator raises is a fault."""
    try:
        return row.__pydantic_validator__.validate_python(values)  # type: ignore[no-any-return]  # model_validate less one call
    except ValidationError as error:
        raise explain(error) from None
    except Exception as error:  # noqa: BLE001 - a row's own validators are the user's code and may raise anything
        raise Bad("invalid-row", f"a validator of {row.__name__} raised {type(error).__name__}") from None


def explain(error: ValidationError) -> Bad:
    """The first field that is invalid, and how many more there are, quoting little of the record and marking what is quoted."""
    errors = error.errors(include_url=False, include_context=False)
    first = errors[0]
    path = ".".join(str(step) for step in first["loc"]) or None
    message, given = first["msg"], first.get("input")
    if isinstance(given, str) and len(given) > QUOTED:
        message = message.replace(given, given[:QUOTED] + "...")
    kind = VALUE if first["type"] in _PYDANTICS else FOREIGN
    said = "" if first["type"] == "missing" else f", got {short(given)}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Bad("invalid-field", f"{quoted(message[:120], first['type'], kind=kind)}{said}{more}", path)


OnAbsent = Literal["null", "drop", "fault"]


def when_unavailable(column: Column) -> OnAbsent:
    """What a field becomes whose value the source did not send: None, its default, or a fault."""
    return "null" if column.nullable else "fault" if column.required else "drop"
