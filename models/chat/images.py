"""Images among features: found and checked by their marks, sent after the records, each under the label that stands in its place.

    {"id": "k3f9a2", "features": {"photo": "image k3f9a2/photo", ...}}      then      image k3f9a2/photo, and the image itself

A label holds the id minted for this request, so no text in a record can claim to be another record's picture.
"""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel

from schemas.marks import Image, marks

Path = tuple[str | int, ...]
_FIRST_BYTES: Mapping[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


class Unusable(ValueError):
    """An image can not be sent; the text names its field and says why, without a byte of it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: where among the features it is, and what its mark says of it."""

    path: Path
    mark: Image
    data: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """One image under its label."""

    label: str
    picture: Picture


@cache
def declared(model: type[BaseModel]) -> tuple[tuple[tuple[str, ...], Image], ...]:
    """Path and mark of each field of `model` that may hold an image; items of lists and mappings have no step of their own."""
    return tuple((tuple(path.split(".")), mark) for path, mark in marks(model, Image).items())


def pictures(features: BaseModel) -> list[Picture]:
    """The images that are there, checked. Raises Unusable."""
    found = []
    for steps, mark in declared(type(features)):
        for path, value in _values(features, steps, ()):
            name = ".".join(map(str, path))
            if not isinstance(value, bytes):
                raise Unusable(f"{name}: an image is bytes, this is {type(value).__name__}")
            if len(value) > mark.max_bytes:
                raise Unusable(f"{name}: the image has {len(value)} bytes, {mark.max_bytes} are allowed")
            if not _is(value, mark.type):
                raise Unusable(f"{name}: the image does not begin as {mark.type} does")
            found.append(Picture(path, mark, value))
    return found


def labelled(shown: Mapping[str, Any], found: Sequence[Picture], id: str) -> tuple[Mapping[str, Any], list[Shown]]:
    """The features with labels where images were. One whose place is gone, since something masked it, is not shown."""
    if not found:
        return shown, []
    features, images = copy.deepcopy(dict(shown)), []
    for picture in found:
        label = f"image {id}/{'.'.join(map(str, picture.path))}"
        if _put(features, picture.path, label):
            images.append(Shown(label, picture))
    return features, images


def content(text: bytes, images: Sequence[Shown]) -> bytes:
    """The content of a message as JSON: `text` (a JSON string), and each image after its label."""
    parts = [b'{"type":"text","text":' + text + b"}"]
    for image in images:
        mark = image.picture.mark
        detail = b"" if mark.detail is None else b',"detail":"' + mark.detail.encode() + b'"'
        url = b"data:" + mark.type.encode() + b";base64," + b64encode(image.picture.data)
        parts.append(b'{"type":"text","text":' + orjson.dumps(image.label) + b"}")
        parts.append(b'{"type":"image_url","image_url":{"url":"' + url + b'"' + detail + b"}}")
    return b"[" + b",".join(parts) + b"]"


def _is(data: bytes, kind: str) -> bool:
    return data.startswith(_FIRST_BYTES[kind]) and (kind != "image/webp" or data[8:12] == b"WEBP")


def _values(value: Any, steps: tuple[str, ...], path: Path) -> Iterator[tuple[Path, Any]]:
    if value is None:
        return
    if isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _values(member, steps, (*path, index))
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _values(member, steps, (*path, str(key)))
    elif not steps:
        yield path, value
    elif isinstance(value, BaseModel) and steps[0] in type(value).model_fields:
        yield from _values(getattr(value, steps[0]), steps[1:], (*path, steps[0]))


def _put(features: Any, path: Path, label: str) -> bool:
    """Replace the digest at `path`; False where there is none."""
    place = features
    for step in path[:-1]:
        place = _member(place, step)
    last = path[-1]
    if not isinstance(_member(place, last), Mapping):
        return False
    place[last] = label
    return True


def _member(place: Any, step: str | int) -> Any:
    if isinstance(place, Mapping):
        return place.get(step)
    return place[step] if isinstance(place, list) and isinstance(step, int) and step < len(place) else None
