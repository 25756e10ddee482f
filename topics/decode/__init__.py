"""Bytes and headers in, typed values or a Fault out. Pure and total: no exception leaves, whatever the bytes."""

from topics.decode.dispatch import decode, decoder
from topics.decode.result import Control, Decoded, Result, Skipped

__all__ = ["Control", "Decoded", "Result", "Skipped", "decode", "decoder"]
