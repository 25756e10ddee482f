"""What the scrubber finds in free text, and what it leaves alone."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.masking.plain import UNSEEN
from models.masking.scrub import COUNTRIES, KINDS, Scrubber
from schemas.errors import ConfigError

SCRUBBER = Scrubber(COUNTRIES)
DEFAULT = Scrubber()

FOUND = [
    ("EMAIL", "jane.miller+news@mail.example.com"), ("EMAIL", "jörg@müller.example"), ("EMAIL", "o'brien@example.co.uk"),
    ("PHONE", "+49 30 901820"), ("PHONE", "+1 (212) 555-0134"), ("PHONE", "0049 30/901820"), ("PHONE", "0171 1234567"),
    ("PHONE", "(212) 555-0134"), ("PHONE", "01 42 68 53 00"), ("PHONE", "020 7946 0958"), ("PHONE", "612 345 671"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"), ("IBAN", "DE89370400440532013000"), ("IBAN", "gb82 west 1234 5698 7654 32"),
    ("IBAN", "NO93 8601 1117 947"), ("IBAN", "DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000"),
    ("CARD", "4111 1111 1111 1111"), ("CARD", "4111111111111111"), ("CARD", "3782 822463 10005"), ("CARD", "5555-5555-5555-4444"),
    ("CARD", "４１１１ １１１１ １１１１ １１１１"),
    ("NATIONAL_ID", "36 574 261 809"), ("NATIONAL_ID", "36574261809"), ("NATIONAL_ID", "536-90-4399"),
    ("NATIONAL_ID", "536 90 4399"), ("NATIONAL_ID", "536.90.4399"),
    ("NATIONAL_ID", "54362315K"), ("NATIONAL_ID", "X2482300W"), ("NATIONAL_ID", "RCCMNL83S18D969H"),
    ("NATIONAL_ID", "AB 12 34 56 C"), ("NATIONAL_ID", "943 476 5919"), ("NATIONAL_ID", "2 95 10 99 126 111 93"),
    ("NATIONAL_ID", "756.9217.0769.85"), ("NATIONAL_ID", "44051401359"), ("NATIONAL_ID", "390.533.447-05"),
    ("NATIONAL_ID", "131052-308T"), ("NATIONAL_ID", "111222333"), ("NATIONAL_ID", "85.07.30-033.28"),
    ("NATIONAL_ID", "11010519491231002X"), ("NATIONAL_ID", "211062-5629"), ("NATIONAL_ID", "1237 010180"),
    ("IP", "192.168.10.20"), ("IP", "2001:db8::8a2e:370:7334"), ("IP", "::ffff:10.0.0.1"),
    ("CREDENTIALS", "bob:hunter2"), ("SECRET", "sk-proj-abcdefghijklmnopqrstuvwx"), ("SECRET", "AKIAIOSFODNN7EXAMPLE"),
    ("SECRET", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"), ("SECRET", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"),
    ("SECRET", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----"),
    ("SECRET", "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIz"),
    ("LITERAL", "[EMAIL_1]"), ("LITERAL", "[ email 12 ]"), ("LITERAL", "［ＣＡＲＤ＿3］"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), FOUND)
@pytest.mark.parametrize("around", ["{}", "see {}, thanks", "({}).", "a\n{}\nb"])
def test_each_kind_is_found_as_people_write_it(kind: str, value: str, around: str) -> None:
    """Exactly the value, whatever stands around it; credentials as what stands before the host."""
    shown = f"https://{value}@db.invalid/x" if kind == "CREDENTIALS" else value
    text = around.format(shown)
    found = SCRUBBER.find(text)
    assert [each.kind for each in found] == [kind]
    (place,) = found
    if kind == "CREDENTIALS":
        assert value in text[place.start : place.end]
    else:
        assert text[place.start : place.end] == value


UNDRAWN = (
    "\u00ad", "\u200b", "\u2060", "\u200e", "\ufeff", "\U000e0041", "\ufe0f", "\U000e0100", "\u034f", "\u180b", "\u115f",
    "\u3164", "\uffa0", "\u17b4", "\u2065", "\ufff0", "\x00", "\x08", "\x1b", "\x7f", "\x80", "\x9f",
)  # fmt: skip
CARD, IBAN = "4111111111111111", "DE89370400440532013000"
JOINED_CARD, JOINED_IBAN = "4111\u00ad1111\u200d1111\u200c1111", "DE89\u00ad3704\u00ad0044\u00ad0532\u00ad0130\u00ad00"


@settings(deadline=None)
@given(st.sampled_from(FOUND), st.data())
def test_signs_that_are_not_drawn_hide_nothing(known: tuple[str, str], data: st.DataObject) -> None:
    """Soft hyphens, signs of no width, fillers, controls, anywhere in a value: it is found whole, with them."""
    kind, value = known
    gaps = data.draw(st.lists(st.sampled_from(UNDRAWN) | st.just(""), min_size=len(value) - 1, max_size=len(value) - 1))
    spelled = "".join(sign + gap for sign, gap in zip(value, [*gaps, ""], strict=True))
    text = f"see https://{spelled}@db.invalid/x" if kind == "CREDENTIALS" else f"see {spelled}, thanks"
    (found,) = SCRUBBER.find(text)
    assert found.kind == kind
    assert spelled in text[found.start : found.end] if kind == "CREDENTIALS" else spelled == text[found.start : found.end]


@pytest.mark.parametrize("sign", UNDRAWN)
def test_what_only_such_a_sign_parts_is_found_as_well(sign: str) -> None:
    """Two numbers that would be none together, and a number that would be the end of a word."""
    two, word = f"4111111111111111{sign}5555555555554444", f"Tel{sign}0171 1234567 or +49{sign} 30 901820"
    assert [two[each.start : each.end] for each in DEFAULT.find(two)] == two.split(sign)
    assert [word[each.start : each.end] for each in DEFAULT.find(word)] == ["0171 1234567", f"+49{sign} 30 901820"]
    for cut in (f"write to jane.mil{sign}ler@exam", f"write to jane.miller@exam{sign}"):
        (found,) = DEFAULT.find(cut, cut=True)
        assert (found.kind, found.start) == ("CUT", 9)


@pytest.mark.parametrize("sign", ["\u200b", "\u2060", "\u200e", "\u200f", "\u202c", "\u2068", "\ufeff", "\u3164", "\x00"])
@pytest.mark.parametrize(
    ("text", "values"),
    [("card no.5|{}|x", [JOINED_CARD]), ("{}|{}", [JOINED_IBAN, CARD]), ("{}|{}", [JOINED_CARD, "5500000000000004"]),
     ("{}|{}", [JOINED_CARD, JOINED_IBAN]), ("ref 12345|{}", [JOINED_CARD])],
)  # fmt: skip
def test_a_sign_may_part_what_others_join(sign: str, text: str, values: list[str]) -> None:
    """A soft hyphen or a joiner of letters stands inside a word, a blank of no width or a mark of direction between two."""
    text = text.replace("|", sign).format(*values)
    assert [text[each.start : each.end] for each in DEFAULT.find(text)] == values


@pytest.mark.parametrize("sign", UNDRAWN)
def test_what_is_not_drawn_at_the_ends_of_a_value_is_none_of_it(sign: str) -> None:
    """However many there are: it is the same value as without them."""
    text = f"{sign}{sign}jane@bank.com{sign}, {sign}{IBAN}{sign}{sign}"
    assert [text[each.start : each.end] for each in DEFAULT.find(text)] == ["jane@bank.com", IBAN]


def test_every_sign_without_a_drawing_is_known() -> None:
    """All format characters and controls that are no white space; no letter, digit or blank is among them."""
    for sign in map(chr, range(sys.maxunicode + 1)):
        kind = unicodedata.category(sign)
        if kind == "Cf" or (kind == "Cc" and not sign.isspace()):
            assert UNSEEN.match(sign), ascii(sign)
        if UNSEEN.match(sign):
            assert kind in ("Cf", "Cc", "Cn", "Mn") or sign in "\u115f\u1160\u3164\uffa0", ascii(sign)


@pytest.mark.parametrize(
    ("text", "secret"),
    [("password: hunter22", "hunter22"), ("Mein Passwort ist: Sommer2024!", "Sommer2024!"), ("api_key='abc123def'", "abc123def"),
     ("Authorization: Bearer abcdefghij0123456789", "abcdefghij0123456789"), ("/cb?token=s3cr3tvalue&x=1", "s3cr3tvalue")],
)  # fmt: skip
def test_a_secret_that_is_called_one_is_found(text: str, secret: str) -> None:
    """Without the word that tells of it."""
    assert [text[each.start : each.end] for each in DEFAULT.find(text)] == [secret]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("Tel.0171 1234567", "PHONE", "0171 1234567"), ("Tel.+49 171 1234567", "PHONE", "+49 171 1234567"),
     ("Fax.+49 30 901820", "PHONE", "+49 30 901820"), ("ruf mich an,0171 1234567", "PHONE", "0171 1234567"),
     ("tel_0171 1234567", "PHONE", "0171 1234567"), ("+49 171 1234567x", "PHONE", "+49 171 1234567"),
     *((around.format("4111111111111111"), "CARD", "4111111111111111") for around in
       ("Nr.{}", "Karte,{}", "card_{}", "VISA{}", "card-{}", "{}EUR", "4711,{}")),
     *((f"{value}EUR", "CARD", value) for value in
       ("4111 1111 1111 1111", "4111.1111.1111.1111", "4111  1111  1111  1111", "4111 1111\n1111 1111", "4111-1111 1111-1111")),
     ("steuer.86095742719", "NATIONAL_ID", "86095742719"), ("id_86095742719_", "NATIONAL_ID", "86095742719"),
     ("IBANDE89370400440532013000", "IBAN", "DE89370400440532013000"),
     ("DE89370400440532013000EUR", "IBAN", "DE89370400440532013000"),
     *((f"see {value}, please", "IBAN", value) for value in
       ("DE89\t3704\t0044\t0532\t0130\t00", "DE89.3704.0044.0532.0130.00", "DE89 3704 0044\r\n0532 0130 00",
        "DE89  3704  0044  0532  0130  00", "DE 89 3704 0044 0532 0130 00", "DE\u00a0 8 9 3704 0044 0532 0130 00")),
     ("我的包裹没有收到请尽快处理" * 25 + "请联系jane@bank.com谢谢", "EMAIL", "jane@bank.com"),
     ("写给用户@例子.公司", "EMAIL", "写给用户@例子.公司"), ('"jane doe"@bank.com', "EMAIL", '"jane doe"@bank.com'),
     ("/?to=jane%40bank.com&x", "EMAIL", "jane%40bank.com"), ("jane&#64;bank.com", "EMAIL", "jane&#64;bank.com"),
     ("'jane@bank.com'", "EMAIL", "jane@bank.com"), ("ä" * 300 + "@bank.com", "EMAIL", "ä" * 256 + "@bank.com"),
     ("my password is hunter22", "SECRET", "hunter22"), ("Passwort lautet geheim123", "SECRET", "geheim123"),
     ("pw: hunter", "SECRET", "hunter"), ("Pw: ab12", "SECRET", "ab12"), ("Password hunter22!", "SECRET", "hunter22!"),
     ('secret="my secret phrase"', "SECRET", "my secret phrase"), ("secret='two, three'", "SECRET", "two, three"),
     ("https://user:pa/ss@host", "CREDENTIALS", "user:pa/ss")],
)  # fmt: skip
def test_it_is_found_however_it_is_written(text: str, kind: str, value: str) -> None:
    """Glued to a word, in groups of any kind, on two lines, escaped, or said without a colon."""
    assert [(each.kind, text[each.start : each.end]) for each in DEFAULT.find(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "password is required! The password was changed, see the password policy; password reset", "Passwort vergessen",
        "pw changed today", "password is 12 characters long", "https://host:8080/a/@jane and https://host/@jane",
        "4111\n1111\n1111\n1111", "0.4111111111111111 and 1.86095742719 and 1,4111111111111111", "2019 2020 2021 2023 2024 2025",
        "No, the line has been dead since Tuesday; I paid 49.90 a month for 3 years.",
        "Order 4711-0815 of 2025-01-02 at 12:30:45, 1,299.00 EUR, 250 000 000 in all.",
        "on 01.02.2025 or 02/03/2025 or 06-12-2025 10:30", "4111 1111 1111 1112 and 1234 5678 9012 3456",
        "version 1.2.3 of std::vector, ratio 3:4, see a/b and me@home", "[1] as in [Note 3]; a [EMAIL] field",
        "[email protected]", "the token is missing", "my password: no", "ef0a7d1c2b3a4958",
        "123e4567-e89b-12d3-a456-426614174000",
        "AB123", "Donaudampfschifffahrtsgesellschaftskapitänsmütze", "1700000000000", "0.12345678",
    ],
)  # fmt: skip
def test_what_is_none_of_them_is_left_alone(text: str) -> None:
    """Dates, amounts, versions, wrong check digits, words: a model needs them."""
    assert DEFAULT.find(text) == []


def test_a_country_that_is_not_asked_for_is_not_looked_for() -> None:
    """National ids and phone numbers without a country code are those of the countries given; the rest is found anywhere."""
    found = Scrubber(["US"]).find("36574261809, 0171 1234567, +49 30 901820, a@b.example")
    assert [each.kind for each in found] == ["PHONE", "EMAIL"]
    assert Scrubber(["DE", "US"]).countries == ("DE", "US")


def test_a_country_of_which_nothing_is_known_is_named() -> None:
    """The error names setting and country."""
    with pytest.raises(ConfigError, match="HEADRACE_MASKING_COUNTRIES: nothing is known of XX"):
        Scrubber(["DE", "XX"])


def test_what_overlaps_is_one_under_the_kind_that_comes_first() -> None:
    """Nothing of either is left: the host of a URL's credentials looks like the rest of an address."""
    text = "see https://bob:hunter2@db.example.com/x"
    (found,) = DEFAULT.find(text)
    assert (found.kind, text[found.start : found.end]) == ("CREDENTIALS", "bob:hunter2@db.example.com")


@pytest.mark.parametrize(
    ("text", "left"),
    [("write to jane.miller@exam", "write to "), ("my card is 4111 1111 11", "my card is "), ("from DE89 3704 00", "from "),
     ("the key sk-proj-abcdefgh", "the key "), ("the line is dead, pl", "the line is dead, pl"), ("in 2025 I", "in 2025 I"),
     ("call 0171 12", "call "), ("card 4111 1111 ", "card "), ("from GB82 WEST 12", "from ")],
)  # fmt: skip
def test_the_end_of_a_text_that_was_cut_is_taken_for_what_it_may_have_been(text: str, left: str) -> None:
    """Half an address or card is recognised by nothing else any more."""
    found = DEFAULT.find(text, cut=True)
    assert [each.kind for each in found] == (["CUT"] if left != text else [])
    assert text[: found[0].start if found else None] == left
    assert DEFAULT.find(text) == []


@given(st.text(st.sampled_from("a1 4:@.-/+([]_EMAILDé\u00a0\n\u00ad\u200b\u3164\x00"), max_size=80) | st.text(max_size=80))
def test_what_is_found_is_in_the_text_in_order_and_apart(text: str) -> None:
    """Any text: places that are inside of it, not empty, and do not overlap."""
    end = 0
    for found in DEFAULT.find(text, cut=True):
        assert end <= found.start < found.end <= len(text)
        assert found.kind in KINDS
        end = found.end


@pytest.mark.parametrize(
    "piece",
    ["12 ", "0171 1234567 ", "1", "((", "+1-", "AA11 ", "a", "a@", "a.a@", "a://", "a:b@", "::", "password:", "eyJ",
     "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "sk-a-", "1.1.", "123456789 ", "4111 ", "a-", "A1a/", "[EMAIL_1",
     "[ EMAIL", "0 ", "é", "\u00a0", "我", "@a.bc", '"@a.bc', "a%40b.cd", "password is ", 'pw "', "-eyJ", "a://b:", "a://b:/",
     "DE1 1 ", "DE89370400440532013000", "12.34.", "4\n", "a@b.cd ",
     "1\u00ad", "\u200b", "a@\u00adb.cd ", "1\u00ad\u200b", "\u3164", "4111\x00", "a@\u00adb.cd\u200b"],
)  # fmt: skip
def test_no_text_stops_the_event_loop(piece: str) -> None:
    """A long text made to be searched badly takes at most a second of CPU, where a bad pattern would take minutes."""
    text = (piece * 100_000)[:100_000]
    before = time.process_time()
    DEFAULT.find(text, cut=True)
    assert time.process_time() - before < 10
