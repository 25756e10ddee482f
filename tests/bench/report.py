"""The result as tables a person reads, and what was expected of it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.bench.cost import KINDS
from tests.bench.shared import Json


def expectations(found: Json) -> list[Json]:
    """Name, measured, goal and whether it holds. Ratios are medians of rounds."""
    ratio, delay = found["cost"]["ratios"], found["latency"]
    at_100, half = delay["curve"][0], delay["half_load"]
    rows = [
        ("transactional Headrace / by hand with send, CPU", ratio["transactional / hand send"]["median"], "<=", 1.1),
        ("transactional Headrace / by hand with batches, CPU", ratio["transactional / hand batch"]["median"], "<=", 2.0),
        ("transactional Headrace / quixstreams, CPU", ratio["transactional / quixstreams"]["median"], "<=", 1.0),
        ("stock Faust / transactional Headrace, CPU", ratio["faust / transactional"]["median"], ">=", 5.0),
        ("goodput of the bound (model or machine)", found["goodput"]["of_bound"], ">=", 0.95),
        ("latency at 100/s, p50 ms", at_100["p50_ms"], "<=", 10.0),
        ("latency at 100/s, p99 ms", at_100["p99_ms"], "<=", 50.0),
        ("latency at half load, p50 ms", half["p50_ms"], "<=", 40.0),
        ("memory growth over a stalled backlog, MiB", found["memory"]["growth_mib"], "<=", 8.0),
        ("two workers against one", found["scaling"]["speed_up"], ">=", 1.9),
    ]
    return [
        {"name": name, "measured": value, "goal": f"{sign} {goal:g}", "holds": value <= goal if sign == "<=" else value >= goal}
        for name, value, sign, goal in rows
    ]


def show(found: Json, console: Console) -> None:
    """Print all tables."""
    cost = found["cost"]
    table = Table(title=f"CPU of the process for each of {cost['records']:,} records, {cost['repeats']} interleaved rounds")
    for name in ("contender", "us min", "us median", "us max", "records/s median"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for kind in KINDS:
        cpu, rate = cost["cpu_us"][kind.name], cost["rate"][kind.name]
        table.add_row(kind.title, *(f"{cpu[k]:.1f}" for k in ("min", "median", "max")), f"{rate['median']:,.0f}")
    console.print(table)
    table = Table(title="Ratios of CPU, round by round; 'beyond' has the shared work taken off both sides")
    for name in ("ratio", "min", "median", "max", "beyond: min", "median", "max"):
        table.add_column(name, justify="left" if name == "ratio" else "right")
    for name, value in cost["ratios"].items():
        beyond = cost["ratios_beyond_shared_work"][name]
        table.add_row(name, *(f"{side[k]:.2f}" for side in (value, beyond) for k in ("min", "median", "max")))
    console.print(table)
    table = Table(title="Produce to visible, read committed, instant scorer")
    for name in ("", "records/s", "HEADRACE_COMMIT_GAP", "p50 ms", "p99 ms", "transactions/s", "CPU of a core"):
        table.add_column(name, justify="right" if name else "left")
    for row in (*found["latency"]["curve"], found["latency"]["half_load"], *found["latency"]["by_hand"]):
        who, gap = ("by hand", "") if row["by_hand"] else ("Headrace", f"{row['gap']:g}")
        table.add_row(
            who, f"{row['per_second']:.0f}", gap, f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}",
            f"{row['transactions_per_second']:.1f}", f"{100 * row['cpu_share']:.0f} %",
        )  # fmt: skip
    console.print(table)
    table = Table(title="What was expected")
    for name in ("", "measured", "goal", ""):
        table.add_column(name)
    for row in found["expectations"]:
        table.add_row(row["name"], f"{row['measured']:.3f}", row["goal"], "holds" if row["holds"] else "missed")
    console.print(table)
