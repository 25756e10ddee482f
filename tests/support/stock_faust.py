"""A stock Faust worker, as its documentation writes one, that meets one of the four faults. Run by test_regressions.py.

Arguments: broker, topic, group, data folder, fault. It prints a line for each record it has really finished.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import faust


class Order(faust.Record):
    """What a typed topic holds."""

    number: int


def main() -> None:
    """Build the app and run its worker."""
    broker, topic_name, group, folder, fault = sys.argv[1:6]
    app = faust.App(
        group,
        broker=f"kafka://{broker}",
        datadir=folder,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=0.3,
        stream_wait_empty=False,
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
    )
    typed: dict[str, Any] = {"value_type": Order} if fault == "undecodable" else {"value_type": bytes, "value_serializer": "raw"}
    topic = app.topic(topic_name, **typed)

    def finished(value: Any) -> None:
        text = value.number if isinstance(value, Order) else value.decode()
        os.write(1, f"finished:{text}\n".encode())  # Faust redirects what is printed to its log

    if fault == "take":

        @app.agent(topic)
        async def takes(stream: Any) -> None:
            async for values in stream.take(5, within=0.5):
                if b"0" in values:
                    raise RuntimeError("the model is down")
                for value in values:
                    finished(value)

    else:

        @app.agent(topic, concurrency=2 if fault == "hung" else 1)
        async def iterates(stream: Any) -> None:
            async for value in stream:
                if fault == "hung" and value == b"0":
                    await asyncio.sleep(600)
                finished(value)

    sys.argv = [sys.argv[0], "worker", "-l", "error", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
