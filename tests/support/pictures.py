"""Small real pictures for tests."""

from __future__ import annotations

import struct
import zlib


def png(shade: int, size: int = 0) -> bytes:
    """A real picture of one grey pixel, with so many bytes of ancillary data after it."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    data = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes((0, shade)))) + _chunk(b"tEXt", b"k\0" + b"x" * size)
    return b"\x89PNG\r\n\x1a\n" + data + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
