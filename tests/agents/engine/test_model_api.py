"""HEADRACE_MODEL_API and `api` of further models: by what each model is asked."""

from __future__ import annotations

import pytest

from agents.engine.model_lines import Opened, cheap_of, models_of
from agents.settings import Settings
from schemas.errors import ConfigError


async def test_each_model_is_asked_by_what_its_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first by HEADRACE_MODEL_API, further ones by their own `api`, chat where nothing is said."""
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HEADRACE_MODEL_API", "decisions")
    monkeypatch.setenv("HEADRACE_MODEL_FALLBACKS", '[{"base_url": "http://127.0.0.1:8/v1", "name": "m"}]')
    monkeypatch.setenv("HEADRACE_MODEL_CHEAP", '{"base_url": "http://127.0.0.1:7/v1", "name": "m", "api": "decisions"}')
    settings = Settings()
    first, further = models_of(settings)
    cheap = cheap_of(settings)
    assert cheap is not None
    assert [model.api for model in (first, further, cheap)] == ["decisions", "chat", "decisions"]
    opened = Opened(first, {})
    assert opened.line.api == "decisions"
    await opened.line.close()


def test_one_account_is_asked_in_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways would be two lines, and its limits twice: it is refused, and both settings are named."""
    monkeypatch.setenv("HEADRACE_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HEADRACE_MODEL_NAME", "m")
    monkeypatch.setenv("HEADRACE_MODEL_CHEAP", '{"base_url": "http://127.0.0.1:9/v1", "name": "m", "api": "decisions"}')
    with pytest.raises(ConfigError, match=r"HEADRACE_MODEL_CHEAP.*HEADRACE_MODEL_\*.*api \(chat and decisions\)"):
        models_of(Settings())
