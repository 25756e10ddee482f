"""TolerantConsumer: an AIOKafkaConsumer, but for headers whose names are no UTF-8.

Two functions of aiokafka name the class that is to be another one: `start` makes the Fetcher, and the Fetcher's treatment of an
answer makes the records. Both are taken over as they are, with those names meaning ours, for this class alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher

from topics.tolerant.records import KeptRecords, TolerantRecords


def with_names(function: Any, **names: Any) -> Callable[..., Any]:
    """The same function with some of its module's names meaning something else; nobody else's use of it changes.

    Raises RuntimeError, when this is imported, for a name that the function does not use: an aiokafka that is not this one.
    """
    unused = names.keys() - set(function.__code__.co_names)
    if unused:
        raise RuntimeError(f"aiokafka's {function.__qualname__} does not use {', '.join(sorted(unused))}")
    made = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    return made


class TolerantFetcher(Fetcher):
    """aiokafka's fetcher, with records that go on where its parser gives up."""

    _proc_fetch_request = with_names(Fetcher._proc_fetch_request, MemoryRecords=KeptRecords, PartitionRecords=TolerantRecords)


class TolerantConsumer(AIOKafkaConsumer):
    """For topics that others write to: names that are no UTF-8 come as topics/header_names.py says, all else is aiokafka's."""

    start = with_names(AIOKafkaConsumer.start, Fetcher=TolerantFetcher)
