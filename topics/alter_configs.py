"""IncrementalAlterConfigs (KIP-339), which aiokafka 0.14 has not: it sets single settings and leaves the others alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

API_KEY = 44
SET = 0
"""The operation that replaces a value; 1 deletes it, 2 and 3 append to and take from a list."""


class IncrementalAlterConfigsResponse(Response):  # type: ignore[misc]  # aiokafka publishes no types
    """One (error code, message, type, name) for each resource."""

    API_KEY = API_KEY
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class IncrementalAlterConfigsStruct(RequestStruct):  # type: ignore[misc]  # aiokafka publishes no types
    """Version 0 as it goes over the wire."""

    API_KEY = API_KEY
    API_VERSION = 0
    RESPONSE_TYPE = IncrementalAlterConfigsResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("configs", Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8")))),
            ),
        ),
        ("validate_only", Boolean),
    )


class IncrementalAlterConfigs(Request[IncrementalAlterConfigsStruct]):  # type: ignore[misc]  # aiokafka publishes no types
    """`resources` are (type, name, [(setting, operation, value)])."""

    API_KEY = API_KEY

    def __init__(self, resources: Sequence[tuple[int, str, Sequence[tuple[str, int, str]]]]) -> None:
        self._resources = [(kind, name, list(entries)) for kind, name, entries in resources]

    def build(self, request_struct_class: type[Any]) -> Any:
        """The struct of the version that both sides know."""
        return request_struct_class(self._resources, False)
