"""Reference pages made from the code: settings, commands, metrics. `python -m tests.support.generate_docs` writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agents.cli.main import COMMANDS
from agents.engine.metrics import DEFINITIONS
from agents.settings import AgentSettings, Settings

ROOT = Path(__file__).resolve().parents[2]
MADE = "<!-- Made from the code by `make docs`; edit the code. -->\n"


def settings_page() -> str:
    """docs/settings.md: every HEADRACE_* variable with its default."""
    lines = ["# Settings\n", MADE, "Every setting is an environment variable. Secrets never show in logs.\n"]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [_setting(f"HEADRACE_{name.upper()}", field) for name, field in Settings.model_fields.items()]
    lines += ["", "## Per agent, in `HEADRACE_AGENTS`\n", "| key | default | meaning |", "| --- | --- | --- |"]
    lines += [_setting(name, field) for name, field in AgentSettings.model_fields.items()]
    return "\n".join(lines) + "\n"


def _setting(name: str, field: Any) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    shown = "" if default is None else f"`{default}`"
    return f"| `{name}` | {shown} | {_cell(field.description or '')} |"


def metrics_page() -> str:
    """docs/metrics.md: every exported metric."""
    lines = ["# Metrics\n", MADE]
    lines.append("Served on `HEADRACE_METRICS_PORT`, on loopback unless `HEADRACE_METRICS_HOST` says otherwise.")
    lines.append("Each carries the label `agent`.\n")
    lines.append("What stands before a model (`headrace_model_requests_*`, `_concurrency`, `_endpoint_shut`, `_retries_*`) is")
    lines.append("shared by the agents of a process and told once for each that asks: take `max` over `agent` there, not `sum`.")
    lines.append("Several keys of one model at one endpoint are one series: what they count and may send is added up.\n")
    lines += ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for d in DEFINITIONS:
        suffix = "_total" if d.kind == "counter" else ""
        lines.append(f"| `headrace_{d.name}{suffix}` | {d.kind} | {', '.join(d.labels)} | {_cell(d.help)} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """docs/commands.md: every command with its arguments and options, as `--help` has them."""
    lines = ["# Commands\n", MADE]
    for name, entry in COMMANDS.items():
        for path, command in _walk(entry.load(name), f"headrace {name}"):
            lines.append(f"## `{path}`\n")
            lines.append((command.help or "").replace("\f", "").strip() + "\n")
            rows = [_parameter(p) for p in command.params if p.name != "help"]
            if rows:
                lines += ["| argument or option | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, found in inner.items():
        yield from _walk(found, f"{path} {name}")


def _parameter(parameter: Any) -> str:
    options = [o for o in parameter.opts if o.startswith("-")]
    shown = ", ".join(options) if options else (parameter.name or "").upper()
    return f"| `{shown}` | {_cell(getattr(parameter, 'help', None) or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "docs/commands.md": commands_page,
}


def stale() -> list[str]:
    """The pages that differ from what the code says."""
    return [path for path, make in PAGES.items() if not (ROOT / path).exists() or (ROOT / path).read_text("utf-8") != make()]


if __name__ == "__main__":
    for path in stale():
        (ROOT / path).write_text(PAGES[path](), "utf-8")
        sys.stdout.write(f"wrote {path}\n")
