"""What the sandbox does as others do: prompts that begin alike are cheaper, records far down a batch are judged worse."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from models.chat.chat import ChatScorer
from models.chat.line import Line
from models.contract import Ask, Question
from models.sandbox.position import PositionNoise
from models.sandbox.prompt_cache import LEAST, STEP, TOKEN_BYTES, PromptCache
from models.sandbox.server import Sandbox, SandboxConfig
from schemas.audit import Call
from tests.support.scoring import Judged, Shown, chat, questions, soon


@given(st.integers(0, 12_000), st.integers(0, 3000), st.integers(0, 3000))
def test_what_is_cached_is_the_common_beginning_in_whole_steps(common: int, one: int, other: int) -> None:
    """From 1,024 tokens on, never more than two prompts share, and nothing of a prompt that nobody sent before."""
    cache, head = PromptCache(), random.Random(common).randbytes(common)
    assert cache.cached(head + b"\x00" * one) == 0
    cached = cache.cached(head + b"\x01" * other)
    shared = common // TOKEN_BYTES // STEP * STEP
    assert cached == (shared if shared >= LEAST else 0)


async def test_prompts_that_begin_alike_are_told_as_cached_and_metered() -> None:
    """The static part of our own prompt is cached from its second request on; the records behind it are not."""
    calls = list[Call]()
    async with Sandbox(SandboxConfig(prompt_cache=True)) as server:
        line = Line(server.base_url, None, "m")
        scorer = ChatScorer(Ask(Judged, "Judge the risk of each record. " * 200), line, agent="a", on_call=calls.append)
        for _ in range(3):
            await scorer.score(questions(4), soon(20))
        await scorer.close()
        assert server.meter.cached_tokens == sum(call.tokens.cached_input for call in calls)
    first, *later = (call.tokens.cached_input for call in calls)
    assert first == 0
    assert later == [later[0]] * 2
    assert 6200 // TOKEN_BYTES - STEP < later[0] < calls[1].tokens.input


async def test_far_down_a_batch_numbers_are_off_and_alone_they_are_not() -> None:
    """The first eight are judged as alone; behind them it gets worse, within the range, and the same each time."""
    asked = [Question(f"d{n}", Shown(number=n)) for n in range(32)]
    async with Sandbox(SandboxConfig(position_noise=PositionNoise(8, 2.0))) as server:
        scorer = chat(server.base_url, chance=lambda: 0.5)  # always the same order
        alone = [(await scorer.score([question], soon(20)))[0] for question in asked]
        once, twice = [await scorer.score(asked, soon(20)) for _ in range(2)]
        await scorer.close()
    off = {}
    for one, batched, again in zip(alone, once, twice, strict=True):
        assert one.value is not None
        assert batched.value == again.value
        assert batched.value is not None
        assert batched.position is not None
        off[batched.position] = abs(batched.value.risk - one.value.risk)
        assert batched.value.grade == one.value.grade
    assert all(off[place] == 0 for place in range(8))
    assert all(off[place] <= 2 * (place - 7) + 1 for place in range(8, 32))
    assert sum(off[place] > 10 for place in range(20, 32)) >= 3
