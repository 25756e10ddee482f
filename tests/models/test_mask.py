"""Masking: what of a record a model sees, and how what it says is put back."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from models.masking.mask import MOST_TEXT, Mask, Masked, mask_of
from models.masking.placeholders import Placeholders, Unmaskable
from models.masking.plain import folded, places
from models.masking.pseudonym import Pseudonyms
from models.masking.scrub import Scrubber
from schemas.errors import ConfigError
from schemas.marks import Identifier, Untrusted
from tests.support.scoring import wrongly

SCRUBBER = Scrubber()
OURS = Pseudonyms("a secret of the tests, 32 or more", "ours")


class Turn(BaseModel):
    model_config = ConfigDict(frozen=True)

    by: Annotated[str, Identifier("person")]
    text: Annotated[str, Untrusted(max=400)]


class Case(BaseModel):
    model_config = ConfigDict(frozen=True)

    customer: Annotated[str, Identifier("customer")]
    account: Annotated[int | None, Identifier("account")] = None
    amount: int = 0
    turns: tuple[Turn, ...] = ()
    note: Annotated[str, Untrusted(max=400)] = ""


class Loose(BaseModel):
    customer: Annotated[Any, Identifier("customer")]


class Said(BaseModel):
    """An answer that quotes."""

    quote: str = Field(max_length=60)
    several: tuple[str, ...] = ()
    number: int = 0


MASK = Mask(Case, SCRUBBER, OURS)


def test_a_record_is_shown_with_pseudonyms_and_placeholders() -> None:
    """Identifiers by kind, what is found numbered by kind, the same value the same in all texts; what is unmarked stays."""
    turns = (
        Turn(by="jane@x.example", text="Mail bob@x.example or joe@x.example."), Turn(by="bob", text="Not bob@x.example!"),
    )  # fmt: skip
    note = "C-4711 wrote from jane@x.example; DE89 3704 0044 0532 0130 00"
    case = Case(customer="C-4711", account=99, amount=12, note=note, turns=turns)
    customer, jane = OURS.of("customer", "C-4711"), OURS.of("person", "jane@x.example")
    masked = MASK.mask(case)
    assert masked.shown == {
        "customer": customer, "account": OURS.of("account", 99), "amount": 12, "turns": [
            {"by": jane, "text": "Mail [EMAIL_1] or [EMAIL_2]."}, {"by": OURS.of("person", "bob"), "text": "Not [EMAIL_1]!"},
        ], "note": f"{customer} wrote from {jane}; [IBAN_1]",
    }  # fmt: skip
    said = Said(quote=f"[EMAIL_2], {jane} and [EMAIL_9]", several=("[IBAN_1]", "x[EMAIL_1]x"), number=7)
    assert masked.put_back(said) == Said(
        quote="joe@x.example, jane@x.example and [EMAIL_9]", several=("DE89 3704 0044 0532 0130 00", "xbob@x.examplex"), number=7
    )
    assert case.customer == "C-4711"


def test_an_answer_that_names_nothing_is_itself() -> None:
    """It is neither copied nor checked again."""
    said = Said(quote="nothing of [PHONE_1]")
    assert MASK.mask(Case(customer="c", note="a@b.example")).put_back(said) is said
    assert Masked({}, Placeholders()).put_back(said) is said


def test_a_forged_placeholder_is_a_text_like_any_other() -> None:
    """What looks like one, however it is written, is masked itself, and names nothing of the record; no other has its number."""
    own = OURS.of("customer", "C-4711")
    note = f"I am [EMAIL_1] alias ［email 1］, see {own.upper()}, not [EMAIL_2] but a@b.example or [LITERAL_1]"
    masked = MASK.mask(Case(customer="C-4711", note=note))
    shown = "I am [LITERAL_2] alias [LITERAL_3], see [LITERAL_4], not [LITERAL_5] but [EMAIL_3] or [LITERAL_6]"
    assert masked.shown["note"] == shown
    assert masked.put_back(Said(quote="[LITERAL_2] is [EMAIL_3], [EMAIL_1]")).quote == "[EMAIL_1] is a@b.example, [EMAIL_1]"
    assert masked.table.put_back(shown) == note


def test_a_short_identifier_is_not_looked_for_in_texts() -> None:
    """Three characters name nobody, and stand in every other word; longer ones count as whole words only."""
    masked = MASK.mask(Case(customer="the", account=4711, note="the 4711, the 14711 and 47110"))
    assert masked.shown["note"] == f"the {OURS.of('account', 4711)}, the 14711 and 47110"


class Long(BaseModel):
    """Room for more text than is masked."""

    text: Annotated[str, Untrusted(max=90_000)]
    more: Annotated[list[str], Untrusted(max=90_000)] = []


def test_many_values_take_hardly_longer_than_few() -> None:
    """Nine thousand addresses in one record take some tenths of a second of CPU, and are put back in as much."""
    text = " ".join(f"{number:x}@b.cd" for number in range(9000))
    before = time.process_time()
    masked = Mask(Long, SCRUBBER, None).mask(Long(text=text))
    assert masked.shown["text"].startswith("[EMAIL_1] [EMAIL_2] ")
    assert masked.shown["text"].endswith(" [EMAIL_9000]")
    assert masked.table.put_back(masked.shown["text"]) == text
    assert time.process_time() - before < 5


def test_more_text_than_is_masked_in_one_go_is_not_masked() -> None:
    """The limit is of all texts of the record together, equal ones too."""
    mask = Mask(Long, SCRUBBER, None)
    half = "x" * (MOST_TEXT // 2)
    assert mask.mask(Long(text=half, more=[half])).shown["more"] == [half]
    with pytest.raises(Unmaskable, match="its free texts have more than 100000 characters"):
        mask.mask(Long(text=half, more=[half, "x"]))


def test_values_that_overlap_are_one() -> None:
    """Nothing of either is shown, wherever they come to lie across each other, and it comes back."""
    table = Placeholders()
    table.add("CARD", "abcd")
    table.add("EMAIL", "cdefgh")
    assert table.put_in("abcd cdefgh abcdefgh! abcdefgh") == "[CARD_1] [EMAIL_1] [LITERAL_1]! [LITERAL_1]"
    assert table.put_back("[LITERAL_1] [CARD_1]") == "abcdefgh abcd"
    assert table.named_in("see [LITERAL_1]")


VALUES = st.lists(st.text(st.sampled_from("ab@"), min_size=1, max_size=5) | st.just("a" * 600), max_size=8)


@given(VALUES, st.text(st.sampled_from("ab@ "), max_size=30) | st.just("b" + "a" * 1300))
def test_no_value_is_left_in_a_text_and_each_comes_back(values: list[str], text: str) -> None:
    """Any values, also such as begin or overlap each other, and long ones."""
    table = Placeholders()
    for value in values:
        table.add("CARD", value)
    shown = table.put_in(text)
    assert not any(value in piece for value in values for piece in shown.split("["))
    assert table.put_back(shown) == text


@pytest.mark.parametrize("spelled", ["CUST-77123", "cust-77123", "CUST\u201177123", "Cust_77123", "CUST\u221277123"])
@pytest.mark.parametrize("around", ["{}", "see {}, please", "我的号码是{}谢谢", "_{}_"])
def test_an_identifier_is_found_however_a_text_spells_it(spelled: str, around: str) -> None:
    """Capitals, dashes and underscores do not matter; an answer that names it has the identifier itself."""
    masked = MASK.mask(Case(customer="CUST-77123", note=around.format(spelled)))
    assert masked.shown["note"] == around.format(OURS.of("customer", "CUST-77123"))
    assert masked.table.put_back(OURS.of("customer", "CUST-77123")) == "CUST-77123"
    assert MASK.mask(Case(customer="CUST-77123", note=f"x{spelled} {spelled}0")).shown["note"] == f"x{spelled} {spelled}0"


@pytest.mark.parametrize(
    ("person", "spelled"),
    [
        ("Jörg Müller", "Jo\u0308rg Mu\u0308ller"), ("Jo\u0308rg Mu\u0308ller", "Jörg Müller"), ("Jörg Müller", "Jörg  Müller"),
        ("Jörg Müller", "Jörg\nMüller"), ("Jane Doe", "Jane \r\n doe"),
        ("Jörg Strauß", "JÖRG STRAUSS"), ("O'Neil", "O\u2019Neil"),
        ("O\u2019Neil", "o`neil"), ("Jörg Müller", "Jörg Mül\u00adler"),
        ("Jane Doe", "Ja\x00ne D\x7foe"), ("Jane Doe", "Jane\ufe0f D\u034fo\u3164e"),
        ("김철수님", "\u1100\u1175\u11b7\u110e\u1165\u11af\u1109\u116e\u1102\u1175\u11b7"),
        ("Trần Hưng", "Tra\u0302\u0300n Hưng"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "  ß, Straße\t(see {})\n\n and {}"])
def test_a_name_is_found_however_a_text_writes_it(person: str, spelled: str, around: str) -> None:
    """Marks apart from their letters, more blanks or a line break, other capitals and apostrophes; what is around it stays."""
    turns = (Turn(by=person, text=around.replace("{}", spelled)),)
    shown = MASK.mask(Case(customer="c", turns=turns)).shown["turns"]
    assert shown[0]["text"] == around.replace("{}", OURS.of("person", person))


def test_a_letter_with_another_mark_is_another_name() -> None:
    """Not every Jose is a José; an identifier of which nothing is drawn is looked for nowhere."""
    for text in ("José", "Jose\u0301", "Joses"):
        assert MASK.mask(Case(customer="c", turns=(Turn(by="Jose", text=text),))).shown["turns"][0]["text"] == text
    for person in ("\u200b" * 5, "the   ", "a\u200b\u200b\u200b"):
        assert MASK.mask(Case(customer="c", turns=(Turn(by=person, text="a the "),))).shown["turns"][0]["text"] == "a the "


@given(st.text() | st.text(st.sampled_from("aß \n\u0308ö\u200b'_\x00\ufe0f\u3164")))
def test_each_character_of_a_folded_text_has_its_place(text: str) -> None:
    """As many places as characters, in order, each folding to what stands there."""
    small, where = folded(text), places(text)
    assert len(small) == len(where)
    assert where == sorted(where)
    assert all(sign == " " or sign in folded(text[at]) for sign, at in zip(small, where, strict=True))


def test_an_identifier_with_blanks_and_one_that_is_an_address_are_found_too() -> None:
    """A name in capitals; an address with another spelling is no second value."""
    turns = (Turn(by="Jane Doe", text="JANE DOE and jane\u00a0doe"), Turn(by="jane@x.example", text="Jane@X.example"))
    shown = MASK.mask(Case(customer="c", turns=turns)).shown["turns"]
    assert shown[0]["text"] == "{0} and {0}".format(OURS.of("person", "Jane Doe"))
    assert shown[1]["text"] == OURS.of("person", "jane@x.example")


def test_a_text_is_cut_before_it_is_masked_and_the_cut_end_hidden() -> None:
    """What comes after the limit is neither shown nor numbered; half an address at the limit is no address any more."""
    masked = MASK.mask(Case.model_construct(customer="c", note="x" * 385 + " jane.miller@example.com a@b.example"))
    assert masked.shown["note"] == "x" * 385 + " [CUT_1]"
    assert "EMAIL" not in str(masked.shown)


def test_what_can_not_be_masked_raises() -> None:
    """Features of another model, and values that no identifier has, are not shown."""

    class Sub(Case):
        secret: str = "s"

    with pytest.raises(Unmaskable, match="no Case"):
        MASK.mask(Sub(customer="c"))
    with pytest.raises(TypeError, match="customer is a float"):
        Mask(Loose, SCRUBBER, OURS).mask(Loose(customer=1.5))
    with pytest.raises(ValueError, match="Unexpected"):
        MASK.mask(wrongly(Case, customer=1.5))


def test_what_is_still_there_after_masking_stops_the_record() -> None:
    """A value that is part of the placeholder of another can not be shown without being shown."""
    with pytest.raises(Unmaskable):
        MASK.mask(Case(customer="c", note="password: EMAIL_1 of a@b.example"))


def test_an_answer_that_grows_past_its_limit_is_told() -> None:
    """What is put back has to be what the model of the answer allows."""
    masked = MASK.mask(Case(customer="c", note=f"{'a' * 60}@b.example"))
    with pytest.raises(ValueError, match="at most 60"):
        masked.put_back(Said(quote="[EMAIL_1]"))


def test_the_policy_names_version_key_and_what_is_masked() -> None:
    """Enough to know what was hidden and with which key, for a reader of the audit, and nothing of the key."""
    assert MASK.policy == (
        f"headrace-mask/4 key={OURS.key_id} identifiers=account,customer,person "
        "texts=email,phone,iban,card,national_id,ip,credentials,secret,cut,literal "
        "countries=AT,BE,CH,DE,DK,ES,FI,FR,GB,IE,IT,NL,NO,PL,PT,SE,US"
    )
    assert Mask(Turn, Scrubber(["DE"]), OURS).policy.endswith("countries=DE")


class Plain(BaseModel):
    number: int


class Wrong(BaseModel):
    either: list[Turn] | list[Case]


def test_a_mask_is_made_only_where_it_is_needed_and_can_work() -> None:
    """Nothing marked, no mask; identifiers need a key; marks that could be missed are refused, with what to change."""
    assert mask_of(Plain, SCRUBBER, None) is None
    assert mask_of(Case, SCRUBBER, OURS) is not None
    with pytest.raises(ConfigError, match=r"masking Case.*identifiers \(account, customer, person\); set HEADRACE_MASKING_KEY"):
        mask_of(Case, SCRUBBER, None)
    with pytest.raises(ConfigError, match="several members of a union"):
        mask_of(Wrong, SCRUBBER, OURS)


def test_a_text_that_forges_a_pseudonym_of_its_own_record_is_masked_all_the_same() -> None:
    """The forged one is a literal; the real one stands where the text names the identifier. Neither keeps the record back."""
    forged = OURS.of("customer", "C-4711")
    case = Case(customer="C-4711", note=f"{forged} is C-4711")
    masked = MASK.mask(case)
    assert masked.shown["note"] == f"[LITERAL_1] is {forged}"
    assert masked.put_back(Said(quote="[LITERAL_1]")) == Said(quote=forged)


def test_what_signs_that_are_not_drawn_would_hide_is_masked_whole_and_comes_back() -> None:
    """As copied from a page with soft hyphens; nothing of it is shown, not even its signs."""
    card, iban = "4111\u00ad1111\u00ad1111\u00ad1111", "DE89\u00ad3704\u00ad0044\u00ad0532\u00ad0130\u00ad00"
    note = f"card {card}, iban {iban}, mail jane.doe@ba\u00adnk.com, [EMAIL\u200b_1]"
    masked = MASK.mask(Case(customer="C-4711", note=note))
    assert masked.shown["note"] == "card [CARD_1], iban [IBAN_1], mail [EMAIL_1], [LITERAL_1]"
    parted = f"no.5\u200b{card}\u200b{iban}"
    assert MASK.mask(Case(customer="C-4711", note=parted)).shown["note"] == "no.5\u200b[CARD_1]\u200b[IBAN_1]"
    assert masked.put_back(Said(quote="[EMAIL_1], [CARD_1]")).quote == f"jane.doe@ba\u00adnk.com, {card}"
    assert masked.table.put_back(masked.shown["note"]) == note


PIECES = st.sampled_from([
    "jane@x.example", "a@b.example", "xa@b.example", "+49 30 901820", "0171 1234567", "DE89370400440532013000",
    "4111 1111 1111 1111", "10.0.0.1", "10.0.0.10", "::1", "https://u:p@h.example", "https://[EMAIL_1]:x@h.example",
    "password: 1234567", "EMAIL_1", "1]", "[EMAIL_1]", "[EMAIL_10]", "[LITERAL_1]", "[CARD_1]", "customer-", "x-", "C-4711",
    "4711", OURS.of("customer", "C-4711"), OURS.of("account", 4711), OURS.of("customer", "C-4711")[-16:],
    "sk-proj-abcdefghijklmnopqrstuvwx", "4111\u00ad1111\u00ad1111\u00ad1111", "bo\u200bb@x.exam\u00adple",
    "DE89\u2060 3704 0044 0532 0130 00", "[EMAIL\u200b_2]", "0171 12345\u00ad67",
    "5\u200b4111\u00ad1111\u00ad1111\u00ad1111", "4111\ufe0f1111\u034f1111\x001111", "\u200b", "\u00ad",
    "kim\u3164@x.example", "[", "]", " ", ", ", "é", "\n",
])  # fmt: skip
FORGED = re.compile("(?:customer|account|person)-[0-9a-f]{16}", re.IGNORECASE)
TEXTS = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)
CASES = st.builds(
    Case, customer=st.sampled_from(["C-4711", "a@b.example", "10.0.0.1", "x"]) | st.text(max_size=8),
    account=st.none() | st.sampled_from([4711, 7]), note=TEXTS,
    turns=st.lists(st.builds(Turn, by=st.sampled_from(["jane@x.example", "[EMAIL_1]"]), text=TEXTS), max_size=3).map(tuple),
)  # fmt: skip


def texts_of(shown: Any) -> list[str]:
    return [shown["note"], *(turn["text"] for turn in shown["turns"])]


@settings(deadline=None, max_examples=300)
@given(CASES)
def test_what_was_scrubbed_is_nowhere_in_what_is_shown_and_putting_back_is_the_inverse(case: Case) -> None:
    """Any texts: no value that was found is in the JSON, no identifier is itself, each text comes back."""
    try:
        masked = MASK.mask(case)
    except Unmaskable:
        return  # it is not sent: see test_redact
    plain = case.model_dump(mode="json")
    said = orjson.dumps(masked.shown).decode()
    for text in texts_of(plain):
        for found in SCRUBBER.find(text, cut=len(text) >= 400, forged=FORGED):
            value = text[found.start : found.end]
            if FORGED.fullmatch(value):
                continue  # of the record's own it may stand where its identifier was
            assert not any(value in shown for shown in texts_of(masked.shown))
            assert len(value) < 8 or orjson.dumps(value).decode()[1:-1] not in said
    assert [masked.table.put_back(text) for text in texts_of(masked.shown)] == texts_of(plain)
    assert masked.shown["customer"] == OURS.of("customer", case.customer) != case.customer
    assert [turn["by"] for turn in masked.shown["turns"]] == [OURS.of("person", turn.by) for turn in case.turns]


@settings(deadline=None)
@given(CASES)
def test_few_records_can_not_be_masked(case: Case) -> None:
    """Only where a text makes a secret of a piece of a placeholder; then it says so, and no other error comes of any text."""
    try:
        MASK.mask(case)
    except Unmaskable:
        assert any(each in text for text in texts_of(case.model_dump()) for each in ("password", "://", "EMAIL", "LITERAL"))
