"""Prices: integers, rounded up, from a table by the provider's address or from the settings; and what counts as spent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from agents.engine.inference import Inference
from agents.engine.model_watch import ModelWatch
from agents.settings import Settings
from models.budget.budget import Budget
from models.budget.budget_gate import BudgetGate
from models.budget.charge import charged
from models.budget.price_table import Changing, listed, uncounted
from models.budget.prices import Price, configured, micro
from models.gates.gate import Asking, End, Ended, Refused
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call, Tokens
from schemas.errors import ConfigError
from tests.support.scoring import ASK, chat, questions, soon, statuses
from tests.support.simple_agent import simple_agent

PRICE = configured(Decimal("0.25"), Decimal("0.025"), Decimal(2), "USD")


@pytest.mark.parametrize(
    ("tokens", "cost"),
    [
        (Tokens(), 0),
        (Tokens(input=1), 1),
        (Tokens(input=4), 1),
        (Tokens(input=1_000_000), 250_000),
        (Tokens(input=1_000_000, cached_input=1_000_000), 25_000),
        (Tokens(input=1000, cached_input=600, output=300, reasoning=200), 715),
        (Tokens(input=1, cached_input=9), 1),
    ],
)
def test_a_cost_is_in_whole_millionths_rounded_up(tokens: Tokens, cost: int) -> None:
    """Cached input is part of the input, reasoning part of the output; more cached than there was is not believed."""
    assert PRICE.cost(tokens) == cost


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_what_is_reserved_is_never_less_than_what_is_settled(inputs: int, cached: int, output: int) -> None:
    """Cached tokens make a request cheaper, never dearer than it was taken to be."""
    used = Tokens(input=inputs, cached_input=min(cached, inputs), output=output)
    assert PRICE.cost(used) <= PRICE.cost(Tokens(input=inputs, output=output))


def test_a_price_below_a_millionth_is_not_free_and_cached_input_costs_as_any_unless_told() -> None:
    """What a price list can say."""
    assert configured(Decimal("0.0000001"), None, Decimal(0), "EUR") == Price(1, 1, 0, "EUR")


def test_the_table_knows_a_provider_by_its_address_and_nobody_else() -> None:
    """The same name at another address is another model: it has no price."""
    priced = listed("gpt-5-mini", "https://api.openai.com/v1")
    assert priced is not None
    found = priced.at(0)
    assert (found.input, found.cached_input, found.output, found.currency) == (250_000, 25_000, 2_000_000, "USD")
    assert found.table.startswith("genai-prices ")
    assert found.table.endswith(": openai/gpt-5-mini")
    assert listed("gpt-5-mini", "http://127.0.0.1:8080/v1") is None
    assert listed("no-such-model", "https://api.openai.com/v1") is None


def test_a_price_with_parts_that_are_not_counted_is_none() -> None:
    """A fee for each request is named, so that the worker asks for a configured price; what is not asked for is none."""
    assert listed("sonar", "https://api.perplexity.ai") is None
    assert uncounted("sonar", "https://api.perplexity.ai") == ["requests_kcount"]
    assert listed("claude-3-opus-latest", "https://api.anthropic.com/v1") is not None
    assert uncounted("gpt-5-mini", "https://api.openai.com/v1") == uncounted("no-such-model", "http://127.0.0.1") == []
    agent = simple_agent(ASK, name="a")
    settings = Settings(model_base_url="https://api.perplexity.ai", model_name="sonar", agents={"a": {"budget": 1}})
    with pytest.raises(ConfigError, match="requests_kcount too; set HEADRACE_MODEL_PRICE"):
        Inference(settings, [agent], ModelWatch())


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_price_that_depends_on_the_hour_is_that_of_the_request() -> None:
    """Whenever the worker was started. Before the dear hours begin, what is under way is bounded by their price."""
    for start in ("2026-11-28 02:00", "2026-11-28 23:30"):
        found = listed("deepseek-chat", "https://api.deepseek.com", datetime.fromisoformat(start).replace(tzinfo=UTC))
        assert found is not None
        night, day = found.at(utc("2026-11-28 23:30")), found.at(utc("2026-11-29 02:30"))
        assert (night.input, night.output, day.input, day.output) == (135_000, 550_000, 270_000, 1_100_000)
        assert found.bound(utc("2026-11-28 20:00")) == night
        assert found.bound(utc("2026-11-28 23:45")) == found.bound(utc("2026-11-29 15:45")) == day
        assert night.table == day.table


def test_a_price_that_begins_on_a_day_is_not_that_of_the_day_before() -> None:
    """A worker that was started before goes over to it; one that is started later knows the old one no more."""
    before, after = utc("2026-08-16 12:00"), utc("2026-08-18 12:00")
    found = listed("deepseek-v4-flash", "https://api.deepseek.com", datetime(2026, 8, 16, tzinfo=UTC))
    assert found is not None
    assert (found.at(before).output, found.at(after).output) == (280_000, 660_000)
    later = listed("deepseek-v4-flash", "https://api.deepseek.com", datetime(2026, 11, 29, tzinfo=UTC))
    assert later is not None
    assert {later.at(utc(f"2026-11-29 {hour:02}:30")).output for hour in range(24)} == {600_000, 1_200_000}


def test_every_model_of_the_table_has_a_price_at_every_hour_or_none_at_all() -> None:
    """Whatever its conditions: a price that is missing at midnight would end every request then."""
    now = datetime(2026, 11, 29, 12, tzinfo=UTC)
    times = [int((now + timedelta(minutes=30 * step)).timestamp() * 1000) for step in range(100)]
    times += [int((now + timedelta(days=step)).timestamp() * 1000) for step in range(0, 800, 7)]
    changing = 0
    for provider in get_snapshot().providers:
        url = re.sub(r"\\(.)", r"\1", provider.api_pattern.split("|")[0]).replace(".*", "")
        for model in provider.models:
            found = listed(model.id, url, now)
            if isinstance(found, Changing):
                changing += 1
                assert all(found.at(at).input <= found.bound(at).input for at in times)
    assert changing


async def test_the_hard_stop_holds_where_the_price_doubles_in_the_night() -> None:
    """Requests are reserved and settled by the price of their hour, not by that of the worker's start."""
    found = listed("deepseek-chat", "https://api.deepseek.com", datetime(2026, 11, 28, 23, 30, tzinfo=UTC))
    assert found is not None
    now, billed, budget = utc("2026-11-29 02:30"), 0, Budget(1_000_000)
    budget.take(0, 1, {})
    gate = BudgetGate({"a": budget}, found, lambda: "2026-11-29", lambda: now)
    used = Tokens(input=100_000, output=50_000)
    asking = Asking("a", 100_000, 50_000, {0: 1}, most_input=100_000)
    for _ in range(12):
        leave = await gate.enter(asking, soon(1))
        billed += 27_000 + 55_000
        leave(Ended("served", used))
    with pytest.raises(Refused, match="the budget of a"):
        await gate.enter(asking, soon(1))
    assert billed == budget.total("2026-11-29") == 984_000


async def test_a_request_is_reserved_at_the_dearer_price_and_settled_at_that_of_its_end() -> None:
    """Asked shortly before the dear hours begin: it costs what the hour costs in which it ends, be it before or after that."""
    found = listed("deepseek-chat", "https://api.deepseek.com", datetime(2026, 11, 28, 20, tzinfo=UTC))
    assert found is not None
    asking = Asking("a", 100_000, 50_000, {0: 1}, most_input=100_000)
    now, budget = 0, Budget(1_000_000)
    budget.take(0, 1, {})
    gate = BudgetGate({"a": budget}, found, lambda: "2026-11-29", lambda: now)
    for ended, cost in (("2026-11-28 23:59", 41_000), ("2026-11-29 00:31", 82_000)):
        now = utc("2026-11-28 23:45")
        before = budget.total("2026-11-29")
        leave = await gate.enter(asking, soon(1))
        assert 1_000_000 - before - budget.left(0, "2026-11-29") == 82_000
        now = utc(ended)
        leave(Ended("served", Tokens(input=100_000, output=50_000)))
        assert budget.total("2026-11-29") - before == cost


def test_a_price_that_is_missing_is_asked_for_where_it_belongs() -> None:
    """By the setting of that model; one that no cascade of the agent asks needs none."""
    agent = simple_agent(ASK, name="a")
    free = {"base_url": "http://127.0.0.1:1/v1", "name": "local"}
    first: dict[str, Any] = {"model_base_url": "https://api.openai.com/v1", "model_name": "gpt-5-mini"}
    settings = Settings(**first, model_fallbacks=[free], agents={"a": {"budget": 1}})
    with pytest.raises(ConfigError, match="is not known; set its `price` in HEADRACE_MODEL_FALLBACKS"):
        Inference(settings, [agent], ModelWatch())
    Inference(Settings(**first, model_cheap=free, agents={"a": {"budget": 1}}), [agent], ModelWatch())
    asked = {"a": {"budget": 1, "cascade": {"field": "risk", "cheap": [40, 60]}}}
    with pytest.raises(ConfigError, match="set its `price` in HEADRACE_MODEL_CHEAP"):
        Inference(Settings(**first, model_cheap=free, agents=asked), [agent], ModelWatch())


@pytest.mark.parametrize("amount", ["", "x", "0", "-1", "NaN", "Infinity", "1e99"])
def test_what_is_no_amount_is_refused_by_the_name_of_its_setting(amount: str) -> None:
    """And what is one is exact."""
    assert micro("12.50", "BUDGET") == 12_500_000
    with pytest.raises(ConfigError, match="BUDGET"):
        micro(amount, "BUDGET")


ASKING = Asking("a", 100, 50, {0: 1})
WHOLE = Tokens(input=100, output=50)


@pytest.mark.parametrize(
    ("ended", "tokens"),
    [
        (Ended("served", Tokens(input=90, output=5)), Tokens(input=90, output=5)),
        (Ended("served"), WHOLE),
        (Ended("timeout"), WHOLE),
        (Ended("protocol"), WHOLE),
        (Ended("cancelled"), WHOLE),
        (Ended("unavailable", cut_off=True), WHOLE),
        *((Ended(kind), Tokens()) for kind in ("limited", "exhausted", "rejected", "unsent", "unavailable")),
    ],
)
def test_what_may_be_billed_counts_in_full(ended: Ended, tokens: Tokens) -> None:
    """What was refused before any work is free."""
    assert charged(ended, ASKING) == tokens


def test_every_kind_of_end_is_thought_of() -> None:
    """A new one has to be placed here."""
    assert set(End.__args__) == {  # type: ignore[attr-defined]  # a Literal
        "served", "limited", "exhausted", "unavailable", "timeout", "rejected", "protocol", "cancelled",
        "unsent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "share"),
    [("", "used"), ("hang", "whole"), ("reset", "whole"), ("html", "whole"), ("truncated", "whole"), ("500", "none"),
     ("401", "none"), ("429", "none")],
)  # fmt: skip
async def test_each_call_says_what_it_cost(fault: str, share: str) -> None:
    """Against a server: what was reported, all that was reserved where the reply was lost, nothing where it was refused."""
    calls = list[Call]()
    options: dict[str, Any] = {"price": PRICE}
    async with Sandbox(SandboxConfig(latency="0ms", schedule=(fault,), faults={})) as server:
        scorer = chat(server.base_url, calls, **options)
        answers = await scorer.score(questions(2), soon(0.7))
        await scorer.close()
    call = calls[0]
    assert (call.currency, call.price_table, call.partitions) == ("USD", "configured", {"0": 2})
    assert call.cost_micro is not None
    used = PRICE.cost(call.tokens)
    if share == "used":
        assert statuses(answers) == ["answered"] * 2
        assert call.cost_micro == used > 0
    elif share == "whole":
        assert used == 0
        assert call.cost_micro > PRICE.cost(Tokens(output=call.tokens_reserved))
    else:
        assert call.cost_micro == 0


@pytest.mark.parametrize(
    ("usage", "kept", "charged_for"),
    [
        ({"prompt_tokens": 50, "total_tokens": 950}, Tokens(input=50, output=900), Tokens(input=50, output=900)),
        ({"prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 950}, *[Tokens(input=50, output=7)] * 2),
        ({"prompt_tokens": 50}, Tokens(input=50), Tokens(input=50, output=ASK.reserved(1))),
        ({"prompt_tokens": 50, "completion_tokens": 10**12}, Tokens(), None),
        ({"prompt_tokens": 10**9, "completion_tokens": 1}, Tokens(), None),
    ],
)
async def test_output_is_charged_where_it_is_not_counted_and_the_absurd_is_not_kept(
    usage: dict[str, int], kept: Tokens, charged_for: Tokens | None
) -> None:
    """From the total where there is one, else all that was reserved for it; an absurd count is in no Call, and all is charged."""

    async def answer(request: web.Request) -> web.Response:
        (record,) = orjson.loads((await request.json())["messages"][1]["content"])["records"]
        content = orjson.dumps({"answers": [{"id": record["id"], "risk": 1, "grade": "good"}]}).decode()
        return web.json_response({"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage})

    app, calls, options = web.Application(), list[Call](), dict[str, Any](price=PRICE)
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as running:
        scorer = chat(str(running.make_url("/v1")), calls, **options)
        assert statuses(await scorer.score(questions(1), soon(30))) == ["answered"]
        await scorer.close()
    (call,) = calls
    assert call.tokens == kept
    assert call.cost_micro is not None
    if charged_for is not None:
        assert call.cost_micro == PRICE.cost(charged_for)
    else:
        assert PRICE.cost(Tokens(output=ASK.reserved(1))) < call.cost_micro < 10_000


async def test_without_a_price_a_call_has_no_cost_rather_than_none_to_pay() -> None:
    """Null, not zero."""
    calls = list[Call]()
    async with Sandbox(SandboxConfig(latency="0ms")) as server:
        scorer = chat(server.base_url, calls)
        await scorer.score(questions(1), soon(30))
        await scorer.close()
    assert (calls[0].cost_micro, calls[0].currency, calls[0].price_table) == (None, None, None)
