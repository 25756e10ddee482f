"""Bytes and headers in, typed values or a Fault out. Pure and total: no exception leaves, whatever the bytes."""
