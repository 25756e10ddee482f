"""The end of a demo: its status, its JSON, and that nothing from a topic is read as markup."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from agents.demo.answering import Who, answering, check
from agents.demo.compare import QualityComparison
from agents.demo.drafts import Planned
from agents.demo.ledger import Channels, Ledger, Seen
from agents.demo.metrics import Auc, Share
from agents.demo.summary import MODEL_NOTES, Report, Verified, readable, show
from agents.settings import Settings
from schemas.decision import Decision, Reason, Source, Subject
from schemas.errors import ConfigError
from schemas.wire import rfc3339
from topics.record import Raw

NOW_MS = 1_795_000_000_000
SOUND = Planned("loan-applications", "application", "1", 1, b"k", b"v", 0.0)


def _decision(offset: int = 0) -> Decision:
    stamp = rfc3339(NOW_MS) or ""
    return Decision(
        id=f"id-{offset}", agent="credit-risk", version=1, manifest="m", subject=Subject(type="loan", id="1"),
        source=Source(topic="loans", partition=0, offset=offset, timestamp=stamp, input_hash="h"),
        outcome="approve", tier="model", received_at=stamp, decided_at=stamp,
    )  # fmt: skip


def _report(*, decided: int, sent: int, verified: Verified | None = None, model: Who = "sandbox") -> Report:
    ledger = Ledger([Channels("credit-risk", "loans", "decisions", "dlq", "receipts", "calls")], {("loans", 0): 0})
    for offset in range(sent):
        ledger.note(("loans", 0, offset), SOUND)
    for offset in range(decided):
        ledger.take(Raw("decisions", _decision(offset).model_dump_json(by_alias=True).encode()), NOW_MS + 10 * (offset + 1))
    found = verified if verified is not None else Verified(0, 0, 0)
    return Report(ledger, found, None, None, model, "at least once", 1.0, 0.5)


def test_all_is_well_when_everything_has_its_outcome() -> None:
    """Nothing missing and nothing to complain of is a success, and the JSON says so."""
    report = _report(decided=3, sent=3)
    assert report.ok()
    told = report.as_json()
    assert (told["records"], told["decisions"], told["unaccounted"]) == (3, 3, 0)
    assert told["latency_ms"] == {"p50": 20.0, "p99": 30.0}


def test_a_missing_outcome_fails_the_demo_even_if_the_verifier_saw_nothing() -> None:
    """The demo's own account and the verifier's are both believed: the worse one counts."""
    report = _report(decided=2, sent=3)
    assert not report.ok()
    assert report.as_json()["unaccounted"] == 1
    worse = _report(decided=3, sent=3, verified=Verified(2, 0, 0))
    assert not worse.ok()
    assert worse.as_json()["unaccounted"] == 2


@pytest.mark.parametrize("verified", [Verified(0, 0, 1, ("credit-risk: out_of_order ...",)), Verified(0, 1, 0, ("repeated",))])
def test_an_offence_fails_the_demo(verified: Verified) -> None:
    """Whatever the verifier offends at, the demo does too."""
    assert not _report(decided=1, sent=1, verified=verified).ok()


def test_repeats_that_the_promise_allows_do_not() -> None:
    """At least once, a repeat is counted and is no offence."""
    report = _report(decided=1, sent=1, verified=Verified(0, 4, 0))
    assert report.ok()
    assert report.as_json()["repeated"] == 4


def test_a_broken_record_that_was_decided_fails_the_demo() -> None:
    """What was broken on purpose must be a dead letter."""
    report = _report(decided=0, sent=0)
    report.ledger.note(("loans", 0, 0), replace(SOUND, fault="truncated"))
    report.ledger.take(Raw("decisions", _decision().model_dump_json(by_alias=True).encode()), NOW_MS)
    assert report.unaccounted() == 0
    assert not report.ok()


@pytest.mark.parametrize("model", ["sandbox", "local", "configured", "scorecard"])
def test_the_summary_says_what_its_figures_are_worth(model: Who) -> None:
    """Whoever answered, the summary ends with what that proves, and with where the data comes from."""
    out = io.StringIO()
    show(_report(decided=1, sent=1, model=model), Console(file=out, width=110))
    text = " ".join(out.getvalue().split())
    assert MODEL_NOTES[model] in text
    assert "CC BY 4.0" in text


def test_what_comes_from_a_topic_is_not_read_as_markup() -> None:
    """Text in brackets is shown as it is, so no record can colour, hide or link anything on a terminal."""
    hostile = "[link=http://example.invalid]click[/link][bold]"
    decision = _decision().model_copy(update={
        "subject": Subject(type="loan", id=hostile), "outcome": hostile, "reasons": [Reason(code="c", text=hostile)],
    })  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=300).print(readable(Seen(decision, SOUND, 1.0)), highlight=False)
    assert out.getvalue().count(hostile) == 3


def test_each_figure_of_the_pieces_says_what_it_is_computed_on() -> None:
    """The base rate is over all readings and the AUC over the judged ones: both counts are told, and both base rates."""
    quality = QualityComparison(
        failed=Share(20, 500), judged=37, judged_failed=Share(12, 37), caught=Share(10, 20), card_caught=Share(9, 20),
        alarms_failed=Share(10, 30), agent=Auc(0.7, 12, 24), card=Auc(0.8, 12, 24),
    )  # fmt: skip
    out = io.StringIO()
    show(replace(_report(decided=1, sent=1), quality=quality), Console(file=out, width=110))
    text = " ".join(out.getvalue().split())
    assert "37 pieces that passed the gate" in text
    assert "On all 500 different readings" in text
    assert "On the 36 judged pieces with a score, no others: both AUCs" in text
    assert "12 of 37" in text
    assert "20 of 500" in text


async def test_a_configured_model_is_named_without_its_credentials() -> None:
    """User and password of a base URL, and a key in its query, are not in the line that says who answers."""
    settings = Settings(model_base_url="http://user:s3cret@127.0.0.1:9/v1?key=s3cret", model_name="m")
    async with answering("configured", settings, "1ms", "http://127.0.0.1:9/v1") as model:
        assert model.says == "m at http://127.0.0.1:9/v1"
    async with answering("configured", settings, "1ms") as model:
        assert "s3cret" not in model.says


@pytest.mark.parametrize(
    ("who", "latency", "said"), [("sandbox", "foo", "reading latency 'foo'"), ("configured", "1ms", "HEADRACE_MODEL_BASE_URL")]
)
async def test_what_can_not_answer_is_refused_before_anything_is_started(who: Who, latency: str, said: str) -> None:
    """A latency that is none, and a configured model without a URL, are named by the check that comes first."""
    with pytest.raises(ConfigError, match=said):
        await check(who, Settings(model_base_url=None), latency)
