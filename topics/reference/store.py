"""The files of a reference table: rows by canonical key in RocksDB, and in the same atomic writes how far they were read.

Several workers of one machine may share a data folder. Each takes the first free numbered store in it, by a file lock that
the operating system releases when the process ends however it ends; a store that a worker left is found again by the next.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from rocksdict import Options, Rdict, WriteBatch

from schemas.errors import ConfigError

log = logging.getLogger(__name__)

FORMAT = 1
_META = b"m"
_ROW = b"r"
_MOST_STORES = 256


@dataclass(slots=True)
class Meta:
    """What a store says of itself. Offsets and times (epoch ms, wall clock) by partition.

    `identity` names what must be the same for the rows to be usable. `positions`: next offset to read. `anchors`: offset and
    checksum of the last record read, to tell this log from another of the same name. `fresh`: a time before which nothing that
    the log has forgotten can have been missed. `building`: a rebuild has not reached its end yet. `faults`: bad records among
    what was read, under the row model `model`. `truncated_ms`: rows whose record is older were truncated.
    """

    identity: str
    format: int = FORMAT
    model: str = ""
    generation: int = 0
    building: bool = True
    positions: dict[int, int] = field(default_factory=dict)
    anchors: dict[int, tuple[int, int]] = field(default_factory=dict)
    fresh: dict[int, int] = field(default_factory=dict)
    faults: int = 0
    truncated_ms: int = 0


class Store:
    """One store, locked for this object until `close`. `meta` is None for a new one."""

    def __init__(self, folder: Path) -> None:
        """Take the first free store in `folder`, which is made. Raises ConfigError when the folder can not be used."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path, self._lock = _take_slot(folder)
        except OSError as error:
            raise ConfigError(f"opening reference store in {folder}: {error.strerror}") from error
        self.meta: Meta | None = None
        try:
            self._db = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def path(self) -> Path:
        """The folder that is ours."""
        return self._path

    def _open(self) -> Rdict:
        try:
            db = _rocks(self._path)
            stored = db.get(_META)
            self.meta = _read_meta(stored) if stored is not None else None
            usable = stored is None or self.meta is not None
        except Exception as error:  # noqa: BLE001  # rocksdict raises bare Exception for damaged files
            log.warning("reference store %s can not be opened and is read anew: %s", self._path, error)
            usable = False
        if not usable:
            db = None
            shutil.rmtree(self._path, ignore_errors=True)
            db = _rocks(self._path)
        return db

    def get(self, key: bytes) -> bytes | None:
        """The row stored under this key."""
        found: bytes | None = self._db.get(_ROW + key)
        return found

    def write(self, rows: Mapping[bytes, bytes], meta: Meta) -> None:
        """Rows and how far they go, in one atomic write."""
        batch = WriteBatch(raw_mode=True)
        for key, row in rows.items():
            batch.put(_ROW + key, row)
        batch.put(_META, orjson.dumps(asdict(meta), option=orjson.OPT_NON_STR_KEYS))
        self._db.write(batch)
        self.meta = meta

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """All rows, as of now, in the order of their keys."""
        for key, row in self._db.items(from_key=_ROW):
            if not key.startswith(_ROW):
                return
            yield key[len(_ROW) :], row

    def remove(self, keys: list[bytes]) -> None:
        """Forget rows altogether."""
        batch = WriteBatch(raw_mode=True)
        for key in keys:
            batch.delete(_ROW + key)
        self._db.write(batch)

    def close(self) -> None:
        """Close the files and let another worker have them. Safe to call twice."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1


def _take_slot(folder: Path) -> tuple[Path, int]:
    for number in range(_MOST_STORES):
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return folder / str(number), lock
    raise ConfigError(f"opening reference store in {folder}: {_MOST_STORES} workers use this data folder already")


def _rocks(path: Path) -> Rdict:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_keep_log_file_num(1)
    options.set_write_buffer_size(16 * 1024 * 1024)
    options.set_max_open_files(128)
    return Rdict(str(path), options)


def _read_meta(data: bytes) -> Meta | None:
    """The meta record, or None when it is of another format."""
    try:
        plain: dict[str, Any] = orjson.loads(data)
        if plain.pop("format") != FORMAT:
            return None
        for name in ("positions", "fresh"):
            plain[name] = {int(p): int(v) for p, v in plain[name].items()}
        plain["anchors"] = {int(p): (int(o), int(c)) for p, (o, c) in plain["anchors"].items()}
        return Meta(**plain)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
