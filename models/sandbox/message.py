"""Reads the content of a chat message for the sandbox: text, or parts with text and with images under their labels."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

IMAGE_TOKENS = 1000
_DATA_URL = re.compile(r"data:(image/[a-z]+);base64,(.+)", re.DOTALL)
_IN_BODY = re.compile(rb"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True, slots=True)
class Message:
    """`text` is the first text, `images` what stands for each image by the label before it: type, size and SHA-256."""

    role: str
    text: str
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def shown(self, value: Any) -> Any:
        """`value` with each label replaced by what stands for its image, so that a rule sees which picture it was."""
        if isinstance(value, dict):
            return {name: self.shown(member) for name, member in value.items()}
        if isinstance(value, list):
            return [self.shown(member) for member in value]
        return dict(self.images[value]) if isinstance(value, str) and value in self.images else value


def read_content(role: Any, content: Any) -> Message | None:
    """None for what is neither text nor parts that can be read. Raises KeyError or TypeError for parts of no known form."""
    if isinstance(content, str):
        return Message(str(role), content)
    return _parts(str(role), content) if isinstance(content, list) and content else None


def _parts(role: str, parts: Sequence[Mapping[str, Any]]) -> Message | None:
    texts: list[str] = []
    images: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        if part["type"] == "text":
            texts.append(str(part["text"]))
            continue
        found = _image(part["image_url"]["url"])
        if found is None or len(texts) < 2:
            return None
        images[texts[-1]] = found
    return Message(role, texts[0], images) if texts else None


def _image(url: str) -> Mapping[str, Any] | None:
    found = _DATA_URL.fullmatch(url)
    try:
        data = b64decode(found[2], validate=True) if found else b""
    except binascii.Error:
        return None
    return {"image": found[1], "bytes": len(data), "sha256": sha256(data).hexdigest()} if found and data else None


def without_images(body: bytes) -> tuple[bytes, int]:
    """A request body without the bytes of its images, and how many there were."""
    return _IN_BODY.subn(b"", body) if b";base64," in body else (body, 0)
