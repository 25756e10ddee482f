"""For Faust's own command line: `HEADRACE_FAUST_AGENT=credit-risk faust -A agents.engine.app worker -l warn` runs one agent.

`headrace worker` is the usual way (several agents, draining, metrics). Nothing is built when this module is imported: Faust
asks for `app`, and then it is made, once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agents.engine.discover import find
from agents.engine.process import Worker
from agents.settings import Settings
from schemas.errors import ConfigError

_made: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    if "app" not in _made:
        wanted = os.environ.get("HEADRACE_FAUST_AGENT")
        if not wanted:
            raise ConfigError("starting faust: HEADRACE_FAUST_AGENT names the agent to run, e.g. credit-risk")
        settings = Settings()
        (agent,) = find(Path(settings.agents_path) if settings.agents_path else None).chosen([wanted])
        _made["app"] = Worker([agent], settings, say=print).faust_app()
    return _made["app"]
