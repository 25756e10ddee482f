"""Whether the old row of a PostgreSQL delete holds values or placeholders.

Under REPLICA IDENTITY DEFAULT PostgreSQL logs only the key of a deleted row. Debezium fills the other columns of `before` so
that they fit its schema: null where null is allowed, else the column's default, else the type's zero ("", 0, false, the zero
UUID, 1970). Nothing in the record says that it did. A wrong "these are values" would invent a row, a wrong "placeholders" only
costs the old values of a deleted row, whose key is known either way. So doubt means placeholders:

- with a schema on the wire each non-key column is compared with exactly what Debezium would have filled in;
- without one the defaults are not known. An empty text, the zero UUID or 1970 is taken for a placeholder; else more columns
  must hold something than are null, zero or false.

`Encoding.replica_identity` settles it where a site knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from topics.decode.connect_types import Meaning

_FILLED = ("", "00000000-0000-0000-0000-000000000000", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z")


def only_placeholders(row: Mapping[str, Any], key: Collection[str], meanings: Mapping[str, Meaning], declared: bool) -> bool:
    """True where nothing but the key of `row` can be trusted. `declared`: `meanings` come from a schema on the wire."""
    others = [(name, value) for name, value in row.items() if name not in key and not name.startswith("__")]
    if declared:
        return all(value is None or (name in meanings and value in meanings[name].placeholder) for name, value in others)
    empty = 0
    for _, value in others:
        if isinstance(value, str) and value in _FILLED:
            return True
        if value is None or value is False or (isinstance(value, (int, Decimal)) and value == 0):
            empty += 1
    return len(others) - empty <= empty
