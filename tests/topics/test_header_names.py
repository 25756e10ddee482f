"""Names of headers that are no UTF-8: told from all others, and escaped so that nothing is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.dead_letter import Fault
from tests.support.header_names import AnyName
from topics.decode.dispatch import decode
from topics.header_names import escaped, invalid, sendable
from topics.record import Raw
from topics.spec import TopicSpec, change_topic, event_topic, reading_topic


class Row(BaseModel):
    """Any row."""

    id: int


def valid(name: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=12) | st.text(max_size=6).map(str.encode) | st.just(b"\xed\xa0\x80") | st.just(b"\\\xff\\xff"))
def test_a_name_is_told_and_comes_back_from_its_escape(name: bytes) -> None:
    """Only what is no UTF-8 is invalid; its escape can be sent, and gives its bytes back, whatever backslashes it had."""
    held = str(AnyName(name))
    assert invalid(held) is not valid(name)
    sent = escaped(held).encode()
    assert sent.decode().encode().decode("unicode_escape").encode("latin-1") == name


@given(st.lists(st.tuples(st.binary(max_size=5), st.none() | st.binary(max_size=5)), max_size=6))
def test_only_invalid_names_are_escaped_and_their_places_told(headers: list[tuple[bytes, bytes | None]]) -> None:
    """Order, repeats, values without bytes and valid names stay as they came."""
    held: Any = [(str(AnyName(name)), value) for name, value in headers]
    sent, places = sendable(held)
    assert places == [at for at, (name, _) in enumerate(headers) if not valid(name)]
    assert [value for _, value in sent] == [value for _, value in headers]
    assert all(name.encode() == headers[at][0] for at, (name, _) in enumerate(sent) if at not in places)


def test_every_kind_of_topic_refuses_such_a_record() -> None:
    """Whatever its value: a tombstone too, which is a skip otherwise, is refused for the name, and nothing of it is quoted."""
    headers = (("ce_type", b"x"), (str(AnyName(b"\xff")), b"secret"))
    specs: list[TopicSpec[Any]] = [change_topic("t", Row, key=("id",)), reading_topic("t", Row), event_topic("t", Row)]
    for spec in specs:
        for value in (None, b"{}", b"not json"):
            found = decode(spec, Raw("t", value, b'{"id": 1}', headers))
            assert found == Fault("decode", "invalid-header-name", "the name of header 2 of 2 is not UTF-8")
