"""The shared work alone: the same records from memory, decoded, asked about and written, with no Kafka anywhere."""

from __future__ import annotations

from tests.bench.contenders.meter import Meter, configuration, report, tune_collector
from tests.bench.shared import NOW_MS, Work, records
from topics.record import Raw


def main() -> None:
    """One pass over `count` records."""
    given = configuration()
    work = Work(given["source"], given["decisions"])
    raws = [Raw(given["source"], v, k, (), p, i // 6, NOW_MS) for i, (k, v, p) in enumerate(records(given["count"]))]
    tune_collector()
    meter = Meter()
    meter.start()
    for raw in raws:
        work(raw)
    report(meter.result(len(raws)))


main()
