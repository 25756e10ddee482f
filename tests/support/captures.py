"""The captured Debezium records of tests/data as raw records, and small builders of records for decoder tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topics.record import Raw

FOLDER = Path(__file__).parents[1] / "data" / "debezium"
NOW = 1_795_308_330_000
"""The broker's record time given to records that were captured without one."""


def captured(name: str, topic: str = "") -> list[Raw]:
    """The records of one capture in order, of all topics or of those that end with `topic`."""
    found: list[Raw] = []
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["topic"].endswith(topic):
            key, value = (None if entry[part] is None else entry[part].encode() for part in ("key", "value"))
            found.append(Raw(entry["topic"], value, key, timestamp=NOW, offset=len(found)))
    return found


def record(value: Any, key: Any = None, headers: Mapping[str, bytes] | None = None, topic: str = "t") -> Raw:
    """A record of JSON-able data; bytes stay as they are."""
    packed = [part if part is None or isinstance(part, bytes) else json.dumps(part).encode() for part in (value, key)]
    return Raw(topic, packed[0], packed[1], tuple((headers or {}).items()), timestamp=NOW)
