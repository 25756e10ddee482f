"""Dead letters: byte for byte where they fit, a head with coordinates where they do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetter, Fault
from schemas.identity import input_hash
from tests.support.header_names import AnyName
from topics.dead_letters import dead_letter
from topics.handover import Outbound
from topics.publish.sizes import check
from topics.record import Raw
from topics.verify import parse

FAULT = Fault("decode", "not-json", "line 1", "amount")
RUN = "replay-7"


def letter(record: Raw, max_bytes: int) -> Outbound:
    """The dead letter of a record on a topic that takes so many bytes."""
    return dead_letter(
        record, fault=FAULT, agent="a", version=1, run=RUN, id="i", part=0, parts=1,
        input_hash=input_hash(record.value), at=0, topic="dlq", max_bytes=max_bytes,
    )  # fmt: skip


def told(out: Outbound) -> DeadLetter:
    """What its headers say; the last of a name is ours."""
    said = {name.removeprefix("headrace_"): value.decode() for name, value in out.headers if name.startswith("headrace_")}
    said["schema_"] = said.pop("schema")
    return DeadLetter.model_validate(said)


@given(
    st.none() | st.binary(max_size=3000),
    st.none() | st.binary(max_size=3000),
    st.lists(st.tuples(st.text(max_size=30) | st.binary(max_size=30).map(AnyName), st.binary(max_size=300)), max_size=8),
    st.integers(1500, 8000),
)
def test_it_always_fits_and_says_what_the_whole_was(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], max_bytes: int
) -> None:
    """Whatever the record: within the limit, whole or with the head of its value, and always with hash and coordinates."""
    record = Raw("src", value, key, tuple(headers), partition=3, offset=9, timestamp=5)
    out = letter(record, max_bytes)
    check((out,), {"dlq": max_bytes})
    said = told(out)
    assert (said.topic, said.partition, said.offset, said.input_hash) == ("src", 3, 9, input_hash(value))
    assert (said.reason, said.field, said.value_bytes) == ("not-json", "amount", len(value or b""))
    if said.truncated:
        assert out.value is None if value is None else (value.startswith(out.value or b""))
    else:
        assert (out.key, out.value) == (key, value)
        places = [int(at) for at in (said.escaped_headers or "").split(",") if at]
        assert [content for _, content in out.headers[: len(headers)]] == [content for _, content in headers]
        for at, ((sent, _), (name, _)) in enumerate(zip(out.headers, headers, strict=False)):
            back = sent.encode().decode("unicode_escape").encode("latin-1") if at in places else sent.encode()
            assert back == name.encode()


def test_a_record_that_claims_our_headers_does_not_hide_ours() -> None:
    """Headers named like ours stay as they came, and ours come after them."""
    out = letter(Raw("src", b"v", headers=(("headrace_offset", b"7"),), offset=9), 100_000)
    assert out.headers[0] == ("headrace_offset", b"7")
    assert told(out).offset == 9


def test_a_record_that_claims_escaped_names_without_any_is_not_believed() -> None:
    """What it says of its own headers does not make a reader undo an escape that was never there."""
    out = letter(Raw("src", b"v", headers=(("headrace_escaped_headers", b"0"),)), 100_000)
    assert told(out).escaped_headers == ""


def test_its_run_is_told_whatever_the_record_claims() -> None:
    """Verification and readers find the run that is in the id, not one that the input's own headers name, cut or whole."""
    record = Raw("src", b"v" * 3000, headers=(("headrace_run", b"another"),))
    for most in (100_000, 2000):
        out = letter(record, most)
        assert told(out).run == RUN
        read = parse.dead_letter(Raw("dlq", out.value, out.key, out.headers))
        assert not isinstance(read, str)
        assert (read.run, told(out).truncated) == (RUN, most == 2000)
