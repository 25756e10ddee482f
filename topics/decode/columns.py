"""From one wire value to one row field: which conversion a field's annotation and a column's meaning ask for.

Compiled once per field, so that the hot path calls at most one function per column, and none where pydantic's own lax mode is
safe. It is not safe with booleans for numbers, with "NaN", with doubles past their range, with whole numbers for times and
with decimals of a huge exponent: these are caught here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from math import isinf
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, NaiveDatetime

from topics.decode import connect_types as ct
from topics.decode.connect_types import Meaning
from topics.decode.faults import Bad, short
from topics.decode.json_text import load
from topics.decode.numbers import MAX_DIGITS, bounded, check_decimal
from topics.decode.times import NUMBER

Convert = Callable[[Any], Any]
Source = Literal["change", "telemetry"]
"""Where a value comes from: a database column, with Connect's encodings, or a device or publisher, with plain JSON."""

_NUMBERS = {int, float, Decimal}
_SCALARS: set[Any] = {str, bool, bytes, UUID}
"""What pydantic makes of a Decimal without expanding it: at most an error."""
_CALENDAR: set[Any] = {datetime, date, time, timedelta, NaiveDatetime}
_CHECKED = _SCALARS | _NUMBERS | _CALENDAR | {Any, object}
"""Types whose numbers are checked before validation, which makes no others of them."""
_SEQUENCES = {list, set, frozenset, tuple, Sequence}
_NOTHING = Meaning()


def choices(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, with Annotated, Optional and Union taken apart and None left out."""
    origin = get_origin(annotation)
    if hasattr(annotation, "__value__"):  # `type Name = ...` of Python 3.12
        return choices(annotation.__value__)
    if origin is typing.Annotated:
        return choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [found for inner in get_args(annotation) for found in choices(inner)]
    return [] if annotation is type(None) else [annotation]


def accepts_none(annotation: Any) -> bool:
    """True where None is a value of the annotation."""
    if annotation is Any or annotation is None or annotation is type(None):
        return True
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return accepts_none(get_args(annotation)[0])
    return origin in (Union, types.UnionType) and any(accepts_none(inner) for inner in get_args(annotation))


def converter(field: str, annotation: Any, meaning: Meaning, source: Source, unit: str = "auto", seen: int = 0) -> Convert | None:
    """The conversion of one column, or None where pydantic takes the wire value as it is. It raises Bad and is never given None.

    `unit` is the timestamps setting of telemetry; `seen` counts nested models, so that a recursive one ends.
    """
    kinds = choices(annotation)
    bases = {get_origin(kind) or kind for kind in kinds}
    if Any in bases or object in bases:
        return _declared(field, meaning, bases) or _any(field)
    declared = _declared(field, meaning, bases)
    if declared is not None:
        return declared
    if bases & _NUMBERS:
        return _number(field, bases, source)
    if bases & _CALENDAR and not bases & {str}:
        return _undeclared_temporal(field, bases, source, unit)
    if bytes in bases and source == "change" and str not in bases:
        return lambda value: ct.b64(value, field) if isinstance(value, str) else value
    if all(kind in _SCALARS or _is_choice(kind) for kind in kinds):
        return None
    return _container(field, kinds, bases, source, unit, seen)


def makes_numbers(annotation: Any) -> bool:
    """True where pydantic itself may turn text inside the value into a Decimal: what it made is then to be checked."""
    return not all(kind in _CHECKED or _is_choice(kind) for kind in choices(annotation))


def _is_choice(kind: Any) -> bool:
    """True for a type whose values are listed: what comes in is only looked up. Enums of integers are converted to one first."""
    if get_origin(kind) is Literal:
        return True
    return isinstance(kind, type) and issubclass(kind, Enum) and not issubclass(kind, int)


def _any(field: str) -> Convert:
    def convert(value: Any) -> Any:
        bounded(value, field)
        return value

    return convert


def _declared(field: str, meaning: Meaning, bases: set[Any]) -> Convert | None:
    """The conversion that the wire's schema or a hint asks for, where the field wants such a value."""
    kind, free = meaning.kind, Any in bases or object in bases
    if kind in ("decimal", "struct_decimal"):
        if not (free or bases & (_NUMBERS | {str})):
            return None
        finish = _finish(field, bases)
        scale = meaning.scale

        def to_decimal(value: Any) -> Any:
            if isinstance(value, str):
                return finish(ct.unscaled(value, scale, field))
            if isinstance(value, dict):
                return finish(ct.struct_decimal(value, field))
            if type(value) is int:
                return finish(Decimal(value))
            if type(value) is Decimal:
                check_decimal(value, field)
                return finish(value)
            raise Bad("invalid-field", f"{short(value)} is not a decimal", field)

        return to_decimal
    if kind in ct.TEMPORAL and (free or bases & _CALENDAR):
        found = ct.temporal(kind, field)
        return ct.naive(found) if NaiveDatetime in bases else found
    if kind == "bytes" and bytes in bases:
        return lambda value: ct.b64(value, field)
    return None


def _finish(field: str, bases: set[Any]) -> Callable[[Decimal], Any]:
    """What a Decimal becomes for the field: itself, a finite float, or text."""
    if bases & {Decimal, int, Any, object}:
        return lambda value: value
    if float in bases:
        return lambda value: _double(value, field)
    return lambda value: format(value, "f")


def _double(value: int | Decimal, field: str) -> float:
    try:
        found = float(value)
        if not isinf(found):
            return found
    except OverflowError:
        pass
    raise Bad("invalid-field", "past the range of a float", field)


def _number(field: str, bases: set[Any], source: Source) -> Convert:
    """A number as JSON has it, as text, or as Debezium's decimal struct. A boolean is none."""
    wants = bases & _NUMBERS
    only_float = wants == {float}
    only_int = wants == {int}
    textual, boolean = str in bases, bool in bases

    def convert(value: Any) -> Any:
        kind = type(value)
        if kind is int:
            return _double(value, field) if only_float else value
        if kind is Decimal:
            if only_float:
                return _double(value, field)
            check_decimal(value, field)
            return value
        if kind is str:
            return value if textual else text(value)
        if kind is bool and not boolean:
            raise Bad("invalid-field", f"{short(value)} is not a number", field)
        if kind is dict and source == "change" and value.keys() == {"scale", "value"}:
            found = ct.struct_decimal(value, field)
            return _double(found, field) if only_float else found
        return value

    def text(value: str) -> Any:
        stripped = value.strip()
        if len(stripped) <= MAX_DIGITS and NUMBER.fullmatch(stripped):
            if only_int and stripped.lstrip("+-").isdecimal():
                return int(stripped)
            try:
                found = Decimal(stripped)
            except InvalidOperation:  # an exponent of more than 18 digits
                raise Bad("number-too-large", f"a number past {MAX_DIGITS} digits", field) from None
            if only_float:
                return _double(found, field)
            check_decimal(found, field)
            return found
        if source == "change" and Decimal in wants and _looks_base64(value):
            raise Bad("decimal-scale-unknown", "a base64 decimal without a schema: set encoding.decimals of this column", field)
        raise Bad("invalid-field", f"{short(value)} is not a number", field)

    return convert


def _looks_base64(value: str) -> bool:
    try:
        return bool(value) and bool(ct.b64(value, ""))
    except Bad:
        return False


def _undeclared_temporal(field: str, bases: set[Any], source: Source, unit: str) -> Convert:
    if datetime in bases or NaiveDatetime in bases:
        found = ct.device_datetime(unit, field) if source == "telemetry" else _with(ct.undeclared_datetime, field)
        return ct.naive(found) if NaiveDatetime in bases else found
    if date in bases:
        return _with(ct.undeclared_date, field)
    return _with(ct.undeclared_time if time in bases else ct.undeclared_span, field)


def _with(rule: Callable[[Any, str], Any], field: str) -> Convert:
    def convert(value: Any) -> Any:
        if isinstance(value, (bool, Decimal)):
            # pydantic would take both for seconds since 1970.
            raise Bad("invalid-field", f"{short(value)} is not a time", field)
        return rule(value, field)

    return convert


def _container(field: str, kinds: list[Any], bases: set[Any], source: Source, unit: str, seen: int) -> Convert:
    """Lists, maps and models: their elements by the same rules; a JSON column (text) is parsed first."""
    inner: Convert | None = None
    structured = [k for k in kinds if (get_origin(k) or k) in _SEQUENCES | {dict, Mapping} or _is_model(k)]
    if not structured:
        # A type that is not known here, which may expand a number: a dataclass, an enum of integers, a byte size.
        return _any(field)
    if len(structured) == 1 and seen < 8:
        inner = _elements(field, structured[0], source, unit, seen)
    as_text = source == "change" and not bases & {str, bytes}

    def convert(value: Any) -> Any:
        if as_text and isinstance(value, str):
            try:
                # A nested text can not be longer than the record around it, which was bounded.
                value = load(value.encode("utf-8", "surrogatepass"), len(value) * 4, 32, "JSON column")
            except Bad as bad:
                raise Bad(bad.fault.reason, bad.fault.detail, field) from None
        bounded(value, field)
        return value if inner is None or value is None else inner(value)

    return convert


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _elements(field: str, kind: Any, source: Source, unit: str, seen: int) -> Convert | None:
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if _is_model(kind):
        columns = {
            wire: found
            for name, info in kind.model_fields.items()
            for wire in wire_names(name, info)
            if (found := converter(f"{field}.{name}", info.annotation, _NOTHING, source, unit, seen + 1)) is not None
        }
        if not columns:
            return None

        def convert_model(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {k: columns[k](v) if k in columns and v is not None else v for k, v in value.items()}

        return convert_model
    element = arguments[1] if origin in (dict, Mapping) and len(arguments) == 2 else arguments[0] if arguments else None
    if element is None or (origin is tuple and len(set(arguments) - {...}) > 1):
        return None
    found = converter(field, element, _NOTHING, source, unit, seen + 1)
    if found is None:
        return None

    def convert_all(value: Any) -> Any:
        if isinstance(value, list):
            return [v if v is None else found(v) for v in value]
        if isinstance(value, dict):
            return {k: v if v is None else found(v) for k, v in value.items()}
        return value

    return convert_all


def wire_names(name: str, info: Any) -> list[str]:
    """The names under which pydantic takes a field from a mapping: its validation alias or aliases, else its name."""
    alias = info.validation_alias
    if isinstance(alias, str):
        return [alias]
    found = [choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)]
    return found or [name]
