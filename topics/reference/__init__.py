"""Reference tables: a whole topic of row changes as a local keyed table, read without a group, with positions.

`rows` says what a table is and which of two changes of a row stands; `table` follows a topic into `store`; `memory` is the same
without Kafka.
"""

from topics.reference.memory import MemoryTable
from topics.reference.rows import StoredRow, Table, row_key
from topics.reference.table import ReferenceTable

__all__ = ["MemoryTable", "ReferenceTable", "StoredRow", "Table", "row_key"]
