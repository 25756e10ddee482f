"""headrace cache: erase answers of models that were kept."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from agents.cli.choice import chosen_agents, found_agents
from agents.cli.output import tell
from agents.engine.inference import cache_file
from agents.settings import Settings
from models.cache.store import SqliteStore

app = typer.Typer(no_args_is_help=True, help="Erase answers of models that were kept.")
_FOR_EVER = 10.0**9


@app.callback()
def cache() -> None:
    """Answers of models are kept for agents with `cache` in HEADRACE_AGENTS, masked, in HEADRACE_DATA_DIR."""


@app.command("clear")
def clear(
    agents: Annotated[list[str] | None, typer.Argument(help="Agents that are meant; all of them when none is named.")] = None,
) -> None:
    """Erase what is kept for agents of this tenant: whoever asks again is answered anew.

    Workers may go on running; one that looked an answer up a moment ago still gives it.
    """
    settings = Settings()
    chosen = chosen_agents(found_agents(settings), agents)
    for name in sorted(agent.name for agent in chosen):
        path = cache_file(settings, name)
        erased = asyncio.run(_clear(settings, name)) if path.exists() else 0
        tell(f"{name}: {erased} answers erased" if path.exists() else f"{name}: nothing was kept at {path}")


async def _clear(settings: Settings, agent: str) -> int:
    store = SqliteStore(cache_file(settings, agent), most_bytes=settings.cache_bytes, most_age=_FOR_EVER)
    store.hold()
    try:
        return await store.clear(settings.tenant, agent)
    finally:
        await store.close()
