"""Find agents: every `AGENT` in agents/*.py and in one further folder. A file that is wrong is named, with what to do."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from agents.engine.spec import DecisionAgent
from schemas.errors import AgentError

Agent = DecisionAgent[Any, Any, Any]
PACKAGE = Path(__file__).resolve().parents[1]
"""The folder `agents/`; its subpackages are the engine, the commands and the demo, never agents."""
NOT_AGENTS = frozenset({"__init__", "settings"})


def discover(extra: Path | None = None) -> list[Agent]:
    """Every agent, by name. Raises AgentError naming the file that breaks the contract, or both of two that clash."""
    found = [(path, _agent_in(path, _own_module)) for path in _files(PACKAGE) if path.stem not in NOT_AGENTS]
    if extra is not None:
        if not extra.is_dir():
            raise AgentError(f"discovering agents: {extra} is not a folder; set HEADRACE_AGENTS_PATH to one or unset it")
        found += [(path, _agent_in(path, _foreign_module)) for path in _files(extra)]
    _distinct(found, "is called {!r}", lambda agent: agent.name, "rename one of them")
    _distinct(found, "writes to topic {!r}", lambda agent: agent.writes.name, "give each agent a topic of its own")
    return sorted((agent for _, agent in found), key=lambda agent: agent.name)


def select(agents: Sequence[Agent], names: Sequence[str]) -> list[Agent]:
    """The agents of these names, in this order; all where no name is given. Raises AgentError naming what does not exist."""
    by_name = {agent.name: agent for agent in agents}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise AgentError(f"selecting agents: there is no {', '.join(unknown)}; there are {', '.join(sorted(by_name))}")
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(agents)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))


def _agent_in(path: Path, load: Callable[[Path], ModuleType]) -> Agent:
    try:
        module = load(path)
    except (Exception, SystemExit) as error:  # an agent file is anybody's code; whatever it raises is told with its name
        raise AgentError(f"loading agent file {path}: {type(error).__name__}: {error}") from error
    agent = getattr(module, "AGENT", None)
    if agent is None:
        raise AgentError(f"loading agent file {path}: it has no AGENT; assign AGENT = DecisionAgent(...), or move the file away")
    if not isinstance(agent, DecisionAgent):
        raise AgentError(f"loading agent file {path}: AGENT is a {type(agent).__name__}, it has to be a DecisionAgent")
    return agent


def _own_module(path: Path) -> ModuleType:
    return importlib.import_module(f"agents.{path.stem}")


def _foreign_module(path: Path) -> ModuleType:
    """Loaded under a name of its own, so that it can shadow nothing; the same file twice is the same module."""
    resolved = path.resolve()
    name = f"headrace_agent_{path.stem}_{sha256(str(resolved).encode()).hexdigest()[:8]}"
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ImportError("it can not be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: pydantic resolves annotations through sys.modules
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _distinct(found: Sequence[tuple[Path, Agent]], what: str, of: Callable[[Agent], str], remedy: str) -> None:
    first: dict[str, Path] = {}
    for path, agent in found:
        value = of(agent)
        if value in first:
            raise AgentError(f"discovering agents: both {first[value]} and {path} {what.format(value)}; {remedy}")
        first[value] = path
