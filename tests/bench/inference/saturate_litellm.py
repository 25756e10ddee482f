"""LiteLLM's Router in `goodput` and `outage`, in a virtual environment of its own."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices when it is imported

import litellm
from litellm import Router

from tests.bench.inference.saturate import MODEL, MOST_OUTPUT, Ask, Tally, main, saturate
from tests.bench.inference.work import FORMAT, Answers, Loan, messages

litellm.suppress_debug_info = True


def asking(base_url: str, given: dict[str, Any]) -> Ask:
    """One deployment with its limits, which the Router is told to enforce; retries as it comes."""
    where = {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": "none", **given["limits"]}
    router = Router(
        model_list=[{"model_name": MODEL, "litellm_params": where}], optional_pre_call_checks=["enforce_model_rate_limits"],
        **given.get("router", {}),
    )  # fmt: skip

    async def ask(record: Loan, number: int) -> bool:
        reply: Any = await router.acompletion(
            model=MODEL, messages=messages([record], number), response_format=FORMAT, max_completion_tokens=MOST_OUTPUT
        )
        return len(Answers.model_validate_json(reply.choices[0].message.content).answers) == 1

    return ask


async def run(base_url: str, given: dict[str, Any]) -> Tally:
    """See saturate."""
    return await saturate(asking(base_url, given), given)


if __name__ == "__main__":
    main(run)
