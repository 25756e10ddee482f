"""Lines of `headrace agents try`: what is a record, what is a bare value, and what says it is a record and is not."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cli.lines import FIELDS, Line, Malformed, parse_line, parse_lines
from topics.record import Raw

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_record_with_all_its_fields_is_taken_as_it_is() -> None:
    """Topic, key, value, headers and coordinates of a captured record survive byte for byte."""
    line = json.dumps({"topic": "t", "key": '{"id":1}', "value": '{"a": 1.50}', "headers": {"h": "é"}, "partition": 3,
                       "offset": 9, "timestamp": 1_700_000_000_000}).encode()  # fmt: skip
    wanted = Raw("t", b'{"a": 1.50}', b'{"id":1}', (("h", "é".encode()),), 3, 9, 1_700_000_000_000)
    assert parse_line(line, 1, "other") == Line(1, wanted)


def test_a_value_written_as_json_keeps_its_numbers_digit_for_digit() -> None:
    """No float comes between the line and the decoder."""
    line = b'{"value": {"a": 12345678901234567890.123456789012345678, "id": 123456789012345678901234567890, "x": 1.10}}'
    found = parse_line(line, 1, "t")
    assert isinstance(found, Line)
    assert found.record.value == b'{"a":12345678901234567890.123456789012345678,"id":123456789012345678901234567890,"x":1.10}'


@pytest.mark.parametrize("line", [b"{not json", b"[1, 2]", b'"text"', b"\xff\xfe", b'{"value": 1, "unit": "K"}', b'{"a": 1}'])
def test_anything_else_is_the_value_of_a_record(line: bytes) -> None:
    """A line that is not a record of ours is given to the decoder byte for byte, which says what is wrong with it."""
    assert parse_line(line, 4, "t") == Line(4, Raw("t", line))


def test_a_null_value_is_a_tombstone_and_a_missing_key_none() -> None:
    """Null means what it means on Kafka."""
    assert parse_line(b'{"value": null, "key": "k"}', 1, "t") == Line(1, Raw("t", None, b"k"))


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"value": "x", "partition": -1}', "partition"),
        (b'{"value": "x", "offset": "9"}', "offset"),
        (b'{"value": "x", "offset": true}', "offset"),
        (b'{"value": "x", "timestamp": 1.5}', "timestamp"),
        (b'{"value": "x", "timestamp": 9223372036854775808}', "timestamp"),
        (b'{"value": "x", "timestamp": 253402300800000}', "timestamp"),
        (b'{"value": "x", "timestamp": -2}', "timestamp"),
        (b'{"value": "x", "timestamp": -1.0}', "timestamp"),
        (b'{"value": "x", "offset": 9223372036854775808}', "offset"),
        (b'{"value": "x", "partition": 2147483648}', "partition"),
        (b'{"value": "x", "topic": ""}', "topic"),
        (b'{"value": "x", "topic": ".."}', "topic"),
        (b'{"value": "x", "topic": "a b"}', "topic"),
        (b'{"value": "x", "topic": "\\ud800"}', "topic"),
        (b'{"value": "x", "topic": "' + b"t" * 250 + b'"}', "topic"),
        (b'{"value": "x", "topic": 7}', "topic"),
        (b'{"value": "x", "headers": {"h": 1}}', "headers"),
        (b'{"value": "x", "headers": [["h"]]}', "headers"),
        (b'{"value": "x", "headers": "h"}', "headers"),
    ],
)
def test_a_record_with_a_bad_field_is_malformed_and_names_it(line: bytes, field: str) -> None:
    """A record that can not have come from Kafka names the line and the field."""
    found = parse_line(line, 7, "t")
    assert isinstance(found, Malformed)
    assert (found.number, found.field) == (7, field)


def test_header_pairs_may_repeat_a_name() -> None:
    """Kafka's headers are a list; an object can not say that a name is there twice."""
    found = parse_line(b'{"value": "x", "headers": [["h", "1"], ["h", "2"]]}', 1, "t")
    assert isinstance(found, Line)
    assert found.record.headers == (("h", b"1"), ("h", b"2"))


def test_lines_are_numbered_as_an_editor_does_and_blank_ones_left_out() -> None:
    """A person finds the line again."""
    found = list(parse_lines([b"{}\n", b"\n", b"  \n", b"[]\n"], "t"))
    assert [line.number for line in found] == [1, 4]


@given(value=JSON)
def test_any_json_value_means_the_same_to_the_decoder(value: object) -> None:
    """Whether a value is bare or inside a record, its bytes parse to the same thing."""
    line = json.dumps({"value": value}).encode()
    found = parse_line(line, 1, "t")
    assert isinstance(found, Line)
    if isinstance(value, str):
        assert found.record.value == value.encode("utf-8", "surrogatepass")
    elif value is None:
        assert found.record.value is None
    else:
        assert json.loads(found.record.value or b"", parse_float=Decimal) == json.loads(json.dumps(value), parse_float=Decimal)


@given(line=st.binary(max_size=60))
def test_no_line_is_refused_without_saying_so(line: bytes) -> None:
    """Whatever the bytes, a line is a record or names its bad field; parsing never raises."""
    found = parse_line(line, 1, "t")
    assert isinstance(found, Line) or found.field in FIELDS


def test_a_number_that_no_decimal_can_hold_is_left_to_the_decoder() -> None:
    """An exponent beyond all bounds is no reason to lose the lines behind it: the line is the value of a record."""
    line = b'{"value":1e999999999999999999999}'
    assert parse_line(line, 1, "t") == Line(1, Raw("t", line))


def test_a_record_without_a_time_may_say_so_as_kafka_does() -> None:
    """-1 is what consumers print for a record that has no timestamp."""
    found = parse_line(b'{"value": "x", "timestamp": -1}', 1, "t")
    assert found == Line(1, Raw("t", b"x", timestamp=0))
