"""Find agents: every `AGENT` in agents/*.py and in one further folder.

A file that is wrong is named, with what to do, and hides no other: `find` gives the sound agents and the problems of all
files. Who wants all agents or none asks `discover`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from agents.engine.shape import misfits
from agents.engine.spec import DecisionAgent
from schemas.errors import AgentError

Agent = DecisionAgent[Any, Any, Any]
PACKAGE = Path(__file__).resolve().parents[1]
"""The folder `agents/`; its subpackages are the engine, the commands and the demo, never agents."""
NOT_AGENTS = frozenset({"__init__", "settings"})


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file gives no agent. `line` where it is known; `agent` is the name that its agent has, where it came so far."""

    path: Path
    why: str
    line: int | None = None
    agent: str | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}" if self.line is not None else f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Found:
    """The sound agents by name, the file of each, and the problems of all other files."""

    agents: list[Agent]
    paths: Mapping[str, Path]
    problems: list[Problem]

    def chosen(self, names: Sequence[str]) -> list[Agent]:
        """The agents of these names, in this order, whatever is wrong with other files; all where no name is given.

        Raises AgentError where a name is not there, and without names where any file is broken: all means all.
        """
        if not names:
            if self.problems:
                raise AgentError(_listed("loading agent files", self.problems))
            return list(self.agents)
        known = {agent.name for agent in self.agents}
        missing = [name for name in names if name not in known]
        suspects = [p for p in self.problems if p.agent is None or p.agent in missing]
        if missing and suspects:
            there = f"there is no {', '.join(missing)} that can be used; there are {', '.join(sorted(known)) or 'none'}"
            raise AgentError(_listed(f"selecting agents: {there}; these files are broken", suspects))
        return select(self.agents, names)


def _listed(what: str, problems: Sequence[Problem]) -> str:
    return "\n".join((f"{what}:", *(f"  {problem}" for problem in problems)))


def discover(extra: Path | None = None) -> list[Agent]:
    """Every agent, by name. Raises AgentError with the problems of all files where any breaks the contract."""
    return find(extra).chosen(())


def find(extra: Path | None = None) -> Found:
    """Every agent that can be used, and why the other files can not. Raises AgentError where `extra` is no folder to read."""
    sources = [(path, _own_module) for path in _files(PACKAGE) if path.stem not in NOT_AGENTS]
    if extra is not None:
        sources += [(path, _foreign_module) for path in _foreign_files(extra)]
    loaded: list[tuple[Path, Agent]] = []
    problems: list[Problem] = []
    for path, load in sources:
        agent = _agent_in(path, load)
        if isinstance(agent, Problem):
            problems.append(agent)
            continue
        unfit = [_misfit(path, agent, str(misfit), misfit.at) for misfit in misfits(agent)]
        problems += unfit
        if not unfit:
            loaded.append((path, agent))
    # Neither of two that clash may run: which of them was meant is not ours to guess.
    clashes = [
        *_clashes(loaded, lambda agent: agent.name, "its agent is called {!r}, as is that of {}; rename one of them"),
        *_clashes(
            loaded, lambda agent: agent.writes.name,
            "its agent writes to topic {!r}, and so does that of {}; give each agent a topic of its own",
        ),
    ]  # fmt: skip
    clashing = {clash.path for clash in clashes}
    sound = sorted(((path, agent) for path, agent in loaded if path not in clashing), key=lambda pair: pair[1].name)
    problems = sorted([*problems, *clashes], key=lambda problem: str(problem.path))
    return Found([agent for _, agent in sound], {agent.name: path for path, agent in sound}, problems)


def select(agents: Sequence[Agent], names: Sequence[str]) -> list[Agent]:
    """The agents of these names, in this order; all where no name is given. Raises AgentError naming what does not exist."""
    by_name = {agent.name: agent for agent in agents}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise AgentError(f"selecting agents: there is no {', '.join(unknown)}; there are {', '.join(sorted(by_name))}")
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(agents)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix == ".py" and not p.name.startswith(("_", ".")))


def _foreign_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise AgentError(f"discovering agents: {folder} is not a folder; set HEADRACE_AGENTS_PATH to one or unset it")
    try:
        return _files(folder)
    except OSError as error:  # a glob would take a folder that may not be read for an empty one
        raise AgentError(f"discovering agents: {folder} can not be read: {error.strerror}; mend HEADRACE_AGENTS_PATH") from error


def _agent_in(path: Path, load: Callable[[Path], ModuleType]) -> Agent | Problem:
    try:
        module = load(path)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an agent file is anybody's code; whatever it raises is told with its name
        return Problem(path, f"loading it: {type(error).__name__}: {error}", _line(path, error))
    agent = getattr(module, "AGENT", None)
    if agent is None:
        return Problem(path, "it has no AGENT; assign AGENT = DecisionAgent(...), or move the file away")
    if not isinstance(agent, DecisionAgent):
        return Problem(path, f"AGENT is a {type(agent).__name__}, it has to be a DecisionAgent")
    return agent


def _line(path: Path, error: BaseException) -> int | None:
    """The line of this file at which it failed, however deep below it the error was raised."""
    if isinstance(error, SyntaxError) and error.filename and _same(error.filename, path):
        return error.lineno
    lines = [line for frame, line in walk_tb(error.__traceback__) if _same(frame.f_code.co_filename, path)]
    return lines[-1] if lines else None


def _misfit(path: Path, agent: Agent, why: str, at: tuple[str, int] | None) -> Problem:
    name: object = agent.name  # whatever it is: this agent may be the one whose name is no text
    line = at[1] if at is not None and _same(at[0], path) else None
    return Problem(path, why, line, name if isinstance(name, str) else None)


def _same(filename: str, path: Path) -> bool:
    return Path(filename).resolve() == path.resolve()


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


def _clashes(loaded: Sequence[tuple[Path, Agent]], of: Callable[[Agent], str], told: str) -> Iterator[Problem]:
    """One problem for each file whose agent shares what has to be its own, naming the other files."""
    same: dict[str, list[tuple[Path, Agent]]] = {}
    for path, agent in loaded:
        same.setdefault(of(agent), []).append((path, agent))
    for value, members in same.items():
        for path, agent in members if len(members) > 1 else ():
            others = ", ".join(str(other) for other, _ in members if other != path)
            yield Problem(path, told.format(value, others), agent=agent.name)
