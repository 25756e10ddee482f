"""The local model: a real language model behind a real server that is not ours."""

from __future__ import annotations

import pytest

from models.scorers import local
from schemas.audit import Call
from schemas.errors import ConfigError
from tests.support.scoring import chat, questions, soon

REASON = local.missing()


@pytest.mark.local_model
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
async def test_a_real_model_is_asked_and_gives_one_checked_answer_each() -> None:
    """It answers through the whole transport; poor answers are allowed, unchecked ones are not."""
    calls: list[Call] = []
    async with local.LocalModel() as server:
        scorer = chat(server.base_url, calls, model=local.MODEL)
        answers = await scorer.score(questions(2), soon(120))
        await scorer.close()
    assert len(answers) == 2
    assert {answer.status for answer in answers} <= {"answered", "invalid", "missing"}
    assert all(call.tokens.input > 0 and call.tokens.output > 0 for call in calls)
    assert calls[0].model_returned == local.MODEL


@pytest.mark.skipif(REASON is None, reason="the extra is installed")
async def test_without_the_extra_the_error_says_what_to_install() -> None:
    """The message names the distribution that is missing and the extra that brings it."""
    with pytest.raises(ConfigError, match="local-model"):
        await local.LocalModel().start()
