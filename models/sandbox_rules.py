"""The sandbox's transparent rules: one function per answer model, from the features in the prompt to the fields of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

RULES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {}
"""Class name of an answer model -> its rule. A model without one gets a stable hash of the features (models/sandbox_fill.py)."""
