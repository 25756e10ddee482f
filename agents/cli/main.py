"""headrace: the command. Each of its commands is imported when it is used, so help is quick and one broken module stays alone."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

USAGE, FAILED, INTERRUPTED = 2, 1, 130
RUN, LOOK, LOCAL = "Run", "Look", "On this machine"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command comes from, and what the overview says of it without importing it.

    `target` is `module:name` of a function, or of a typer.Typer that holds several commands.
    """

    target: str
    help: str
    panel: str

    def load(self, name: str) -> Any:
        """The command. Whatever importing its module raises is raised: it concerns this command only and is not hidden."""
        module, _, attribute = self.target.partition(":")
        found: Any = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode="rich")
            single.command(name, help=paragraphs(found.__doc__ or ""))(found)
            command = get_command(single)
        command.name = name
        return command


def paragraphs(text: str) -> str:
    """A docstring with each paragraph on one line, since help keeps line ends as they are."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(block if block.startswith((" ", "-")) else " ".join(block.split()) for block in blocks)


COMMANDS = {
    "demo": Entry("agents.cli.demo:demo", "See loan applications and machine readings become decisions.", RUN),
    "demo-cdc": Entry("agents.cli.demo_cdc:demo_cdc", "See the real chain, from PostgreSQL through Debezium and back.", RUN),
    "worker": Entry("agents.cli.worker:worker", "Run agents: read, ask, decide and publish until stopped.", RUN),
    "agents": Entry("agents.cli.agents:app", "List agents, check them, try one without Kafka.", LOOK),
    "topics": Entry("agents.cli.topics:app", "Plan and create the topics that agents need.", LOOK),
    "verify": Entry("agents.cli.verify:verify", "Account for every input record, from the topics alone.", LOOK),
    "usage": Entry("agents.cli.usage:usage", "Report tokens and cost by agent, tenant, model and day.", LOOK),
    "explain": Entry("agents.cli.explain:explain", "Tell the whole story of one decision.", LOOK),
    "cache": Entry("agents.cli.cache:app", "Erase answers of models that were kept.", LOCAL),
    "sandbox": Entry("agents.cli.sandbox:sandbox", "Serve an OpenAI-compatible model that is none.", LOCAL),
    "broker": Entry("agents.cli.broker:broker", "Start a broker: the embedded one, or Apache Kafka.", LOCAL),
    "version": Entry("agents.cli.main:version", "Print the version.", LOOK),
}


class LazyGroup(TyperGroup):
    """Lists commands by what COMMANDS says of them, and imports the one that is called."""

    entries: dict[str, Entry]

    def __init__(self, entries: dict[str, Entry], **attrs: Any) -> None:
        self.entries = entries
        # Stand-ins for listing, completion and suggestions; resolving replaces the one that is called.
        stands = {
            name: TyperCommand(name, help=entry.help, short_help=entry.help, rich_help_panel=entry.panel)
            for name, entry in entries.items()
        }
        super().__init__(commands=dict(stands), **attrs)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, imported now; a usage error with suggestions where there is none of that name."""
        name, stand, rest = super().resolve_command(ctx, args)
        if name is None or stand is None:
            return name, stand, rest
        return name, self.entries[name].load(name), rest


def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("headrace"))


def group(entries: dict[str, Entry] | None = None) -> LazyGroup:
    """The whole command line."""
    return LazyGroup(
        COMMANDS if entries is None else entries,
        name="headrace",
        help="Event streams in, decisions out: agents that ask language models and publish each decision exactly once.",
        epilog="Settings are HEADRACE_* in the environment; docs/settings.md lists them.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. What a person did wrong is one line on stderr and status 2, never a traceback."""
    sys.exit(run(group(), sys.argv[1:] if arguments is None else arguments))


def run(command: LazyGroup, arguments: Sequence[str]) -> int:
    """The exit status: 0, 1 where something failed, 2 for what a person did wrong, 130 when interrupted."""
    return _guarded(lambda: command.main(args=list(arguments), prog_name="headrace"))


def _guarded(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        status, said = _told(error)
        if not said:
            raise
        for line in said:
            _say(line)
        return status
    return 0


def _told(error: Exception) -> tuple[int, list[str]]:
    """The exit status and the lines that a person is told; none for a defect, whose traceback is wanted.

    An OSError is a defect here: where a file, folder or port that a person chose is opened, it was made a ConfigError.
    What knows our errors is imported only here: with pydantic behind it, it would double the time that help takes.
    """
    from schemas.errors import ConfigError, HeadraceError

    if isinstance(error, HeadraceError):
        return USAGE if isinstance(error, ConfigError) else FAILED, [_advised(str(error) or type(error).__name__)]
    if type(error).__name__ == "SettingsError":
        field = re.search(r'field "([^"]*)"', str(error))
        why = f"not valid JSON: {error.__cause__}" if isinstance(error.__cause__, ValueError) else str(error)
        return USAGE, [f"reading {_variable((field[1],)) if field else 'settings'}: {why}"]
    if getattr(error, "title", None) == "Settings" and hasattr(error, "errors"):
        # One line for each setting that is wrong; its value is not repeated, it may be a secret.
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return USAGE, [f"reading {_variable(e['loc'])}: {e['msg']}{_allowed(e)}" for e in found]
    return FAILED, []


def _allowed(error: Mapping[str, Any]) -> str:
    """The keys that an agent's settings have, where one was given that they have not."""
    from agents.settings import AgentSettings

    if error["type"] != "extra_forbidden" or error["loc"][0] != "agents" or len(error["loc"]) != 3:
        return ""
    return f"; what can be set is {', '.join(AgentSettings.model_fields)}"


def _variable(place: Sequence[object]) -> str:
    """The variable of a setting, and within its JSON the keys as a person wrote them."""
    first, *inner = (str(part) for part in place)
    return ".".join((f"HEADRACE_{first.upper()}", *inner))


def _advised(told: str) -> str:
    """A cluster that can not be reached is told with what to do about it."""
    if told.startswith("opening Kafka: ") and "is unreachable" in told:
        return f"{told}; set HEADRACE_KAFKA to brokers that run, or start one with `headrace broker`"
    return told


def _say(text: str) -> None:
    from agents.cli.output import fail

    fail(text)


if __name__ == "__main__":
    main()
