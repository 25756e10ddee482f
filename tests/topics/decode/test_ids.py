"""Two events never have one id: the second would be skipped as a repeat of the first, without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.change import SourcePosition
from schemas.event import Event
from topics.decode import Decoded, decoder
from topics.decode.cloudevents import CloudEvent
from topics.decode.positions import event_id
from topics.record import Raw
from topics.spec import change_topic, event_topic, reading_topic


class Machine(BaseModel):
    """What a machine measures."""

    temp: float | None = None


SPEC = reading_topic("r", Machine, clock=None)
texts = st.text("/%#@:+-12Fa", max_size=5)
"""Texts out of what ids are joined with and how it is written."""


def value(spec: Any, body: Any, **rest: Any) -> Any:
    """The one value of a record."""
    found = decoder(spec)(Raw("r", json.dumps(body).encode(), timestamp=1, **rest))
    assert isinstance(found, Decoded), found
    return found.values[0]


def test_a_slash_in_a_device_is_not_the_end_of_its_name() -> None:
    """Devices named by their line, whose ids begin with a machine of that line."""
    first = value(SPEC, {"device": "line1/m2", "event_id": "7"})
    second = value(SPEC, {"device": "line1", "event_id": "m2/7"})
    assert (first.event_id, second.event_id) == ("line1%2Fm2/7", "line1/m2/7")


def cuts(mark: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    """One text cut in two at its marks, twice: pairs that a plain join can not tell apart, and pairs that are equal."""
    whole = st.lists(texts, min_size=2, max_size=4).map(mark.join)
    places = st.lists(st.integers(0, 3), min_size=2, max_size=2)

    def cut(text: str, place: int) -> tuple[str, str]:
        parts = text.split(mark)
        at = 1 + place % (len(parts) - 1)
        return mark.join(parts[:at]), mark.join(parts[at:])

    return st.builds(lambda text, at: [cut(text, place) for place in at], whole, places)


@settings(deadline=None)
@given(cuts("/"))
def test_readings(pairs: list[tuple[str, str]]) -> None:
    """Device and id together name a reading: those that differ in either have different ids."""
    ids = {value(SPEC, {"device": f"d{device}", "event_id": f"{own}e"}).event_id for device, own in pairs}
    assert len(ids) == len(set(pairs))


@settings(deadline=None)
@given(st.lists(texts, min_size=2, max_size=2), st.integers(0, 2))
def test_readings_without_an_id(devices: list[str], later: int) -> None:
    """Device, time and values name a reading; no device's name is taken for another's name and id, or name and time."""
    bodies: list[dict[str, Any]] = [{"device": f"d{name}", "temp": 1, "ts": 1_700_000_000_000} for name in devices]
    bodies.append(bodies[0] | {"ts": 1_700_000_000_000 + later})
    ids = [value(SPEC, body).event_id for body in bodies]
    assert len(set(ids)) == len({(body["device"], body["ts"]) for body in bodies})
    device, _, rest = ids[0].partition("@")
    assert value(SPEC, {"device": device, "event_id": rest}).event_id not in ids
    assert value(SPEC, {"device": ids[0], "event_id": "x"}).event_id not in ids


@pytest.mark.parametrize("own", [True, False, "", 1.5, [7], {"a": 7}])
def test_what_is_no_id(own: Any) -> None:
    """A flag, an empty text or an object names no event: every reading of the device would be a repeat of its first."""
    ids = {value(SPEC, {"device": "a", "event_id": own, "temp": temp, "ts": 1_700_000_000_000}).event_id for temp in (1, 2)}
    assert len(ids) == 2
    assert value(SPEC, {"device": "a", "event_id": own, "temp": 1}).event_id == ""
    event = value(event_topic("e", Machine), {"id": own, "temp": 1})
    assert isinstance(event, Event)
    assert event.event_id == ""


@settings(deadline=None)
@given(cuts("#"))
def test_cloud_events(pairs: list[tuple[str, str]]) -> None:
    """Source and id together name an event; a source is a URI and may have a fragment, an id may be any text."""
    assert len({CloudEvent(id_, source, "t").event_id for source, id_ in pairs}) == len(set(pairs))


def test_ids_stay_readable() -> None:
    """Where nothing has to be written differently, an id is made of the very texts."""
    assert CloudEvent("42", "https://shop/a", "t").event_id == "https://shop/a#42"
    place = SourcePosition("postgresql", "bank", "core", "public", "loan", 1700, False, (7, 9))
    assert event_id("9", place, "c", {"id": 5}, None, None) == "postgresql/bank/core/public/loan/1700/9/c/5"


positions = st.builds(
    SourcePosition, st.sampled_from(["postgresql", "mysql", "mongodb"]), texts, texts, texts, texts, st.none() | st.integers(0, 3)
)
changes = st.tuples(positions, texts.filter(bool), st.sampled_from("cu"), texts, st.none() | st.sampled_from([{}, {"a": 1}]))


@settings(deadline=None)
@given(changes, changes, st.data())
def test_changes(one: Any, other: Any, data: st.DataObject) -> None:
    """Server, database, schema, table, time, position, operation, key and update: a change that differs in one is another."""
    if data.draw(st.booleans()):
        # A random pair differs nearly everywhere: this one has its names cut elsewhere, which a join must not hide.
        names = "/".join((one[0].name, one[0].db, one[0].schema, one[0].table)).split("/")
        cut = data.draw(st.integers(0, len(names)))
        moved = replace(one[0], name="/".join(names[:cut]), db="/".join(names[cut:]), schema="", table="")
        other = (moved, *one[1:])

    def named(change: Any) -> str:
        at, place, op, key, update = change
        return event_id(place, at, op, {"id": key}, None, update)

    assert (named(one) == named(other)) == (one == other)


def test_tables_of_one_name_in_two_databases_of_one_topic() -> None:
    """Rows of a snapshot share position and time, so only their database and schema tell equal keys of equal tables apart."""
    spec = change_topic("all", Machine, key=("id",))
    ids = set()
    for db, schema in (("a", "public"), ("b", "public"), ("a", "old")):
        source = {"connector": "postgresql", "name": "s", "db": db, "schema": schema, "table": "t", "lsn": 7, "ts_ms": 1}
        ids.add(value(spec, {"op": "r", "before": None, "after": {"id": 1}, "source": source}, key=b'{"id":1}').event_id)
    assert len(ids) == 3
