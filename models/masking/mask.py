"""Mask: features as a language model may see them: pseudonyms for identifiers, placeholders for what is found in free text.

Pure. What a model says is put back with the table of the same record (`Masked.put_back`). A record that can not be masked
raises, whatever the reason, and is not sent (models/masking/redact.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel

from models.masking.marked import identifier_kinds, kinds_of, unseen, walk_of
from models.masking.placeholders import Placeholders, Unmaskable
from models.masking.plain import folded
from models.masking.pseudonym import DIGITS, Pseudonyms
from models.masking.scrub import KINDS, Scrubber
from schemas.errors import ConfigError
from schemas.marks import Identifier, Untrusted

V = TypeVar("V", bound=BaseModel)

VERSION: Final = 4
"""Goes up when the same features are masked differently: cached answers and comparisons end there."""
MOST_TEXT: Final = 100_000
"""Characters of a record's free texts, as cut, that are masked. It is done between other work, some microseconds for each."""
_SHORTEST_WORD = 4


@dataclass(frozen=True, slots=True)
class Masked:
    """One record, masked. `shown` is what a model sees; `table` says what each pseudonym and placeholder in it stands for."""

    shown: Mapping[str, Any]
    table: Placeholders

    def put_back(self, value: V) -> V:
        """`value` with what was masked put back in each of its texts; itself where it names none of it.

        Raises ValueError where the model of `value` does not accept the result, such as one longer than it allows.
        """
        said = value.model_dump_json(round_trip=True) if self.table else ""
        if not self.table.named_in(said):
            return value
        restored = orjson.dumps(self._restored(orjson.loads(said)))
        return type(value).model_validate_json(restored, strict=True, by_alias=True, by_name=True)

    def _restored(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.table.put_back(value)
        if isinstance(value, list):
            return [self._restored(member) for member in value]
        if isinstance(value, dict):
            return {name: self._restored(member) for name, member in value.items()}
        return value


class Mask:
    """Masks the features of one model. Raises ConfigError for a model with marks that can not be followed.

    `pseudonyms` are needed where the model has Identifiers; `policy` names version, key, and what is masked, for the audit.
    """

    def __init__(self, model: type[BaseModel], scrubber: Scrubber, pseudonyms: Pseudonyms | None) -> None:
        walk, problems, kinds = walk_of(model), unseen(model), identifier_kinds(model)
        if problems or walk is None:
            raise ConfigError(f"masking {model.__name__}: {'; '.join(problems) or 'nothing in it is marked'}")
        if kinds and pseudonyms is None:
            raise ConfigError(
                f"masking {model.__name__}: it has identifiers ({', '.join(kinds)}); set HEADRACE_MASKING_KEY to a random text"
            )
        self._model, self._walk = model, walk
        self._scrubber = scrubber
        self._pseudonyms = pseudonyms
        pseudonym = rf"(?:{'|'.join(map(re.escape, kinds))})-[0-9a-f]{{{DIGITS}}}"
        self._forged = re.compile(pseudonym, re.IGNORECASE) if kinds else None
        self.policy = self._named(kinds, Untrusted in kinds_of(model))

    def _named(self, kinds: tuple[str, ...], texts: bool) -> str:
        parts = [f"headrace-mask/{VERSION}"]
        if kinds and self._pseudonyms is not None:
            parts += [f"key={self._pseudonyms.key_id}", f"identifiers={','.join(kinds)}"]
        if texts:
            parts += [f"texts={','.join(KINDS).lower()}", f"countries={','.join(self._scrubber.countries)}"]
        return " ".join(parts)

    def mask(self, features: BaseModel) -> Masked:
        """The features, masked. Raises whatever stands in the way: then nothing of them may be shown."""
        if type(features) is not self._model:
            # A subclass is dumped with its own fields, whose marks were not looked for.
            raise Unmaskable(f"they are no {self._model.__name__}")
        first = _First(self._pseudonyms)
        # A value of another type than its field says is an error here: a warning would print it, and its mark may not fit it.
        shown = self._walk(features.model_dump(mode="json", warnings="error"), first)
        found = [
            (place.kind, text[place.start : place.end])
            for text, cut in first.texts.items()
            for place in self._scrubber.find(text, cut=cut, forged=self._forged)
        ]
        table = Placeholders(forged={value for kind, value in found if kind == "LITERAL"})
        for value, token in first.identifiers:
            table.pseudonym(token, value, in_texts=min(len(value), len(folded(value))) >= _SHORTEST_WORD)
        for kind, value in found:
            table.add(kind, value)
        second = _Second(table, self._pseudonyms)
        shown = self._walk(shown, second)
        table.check(second.texts)
        return Masked(shown, table)


class _First:
    """Cuts the texts, and collects what is to be masked."""

    def __init__(self, pseudonyms: Pseudonyms | None) -> None:
        self.texts: dict[str, bool] = {}
        self.identifiers: list[tuple[str, str]] = []
        self._pseudonyms = pseudonyms
        self._room = MOST_TEXT

    def text(self, value: str, mark: Untrusted) -> str:
        text = value[: mark.max]
        self._room -= len(text)
        if self._room < 0:
            raise Unmaskable(f"its free texts have more than {MOST_TEXT} characters")
        self.texts[text] = len(value) >= mark.max
        return text

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        assert self._pseudonyms is not None  # or the Mask would not have been made
        self.identifiers.append((str(value), self._pseudonyms.of(mark.kind, value)))
        return value


class _Second:
    """Puts tokens in place of what was collected."""

    def __init__(self, table: Placeholders, pseudonyms: Pseudonyms | None) -> None:
        self.texts: list[str] = []
        self._table = table
        self._pseudonyms = pseudonyms

    def text(self, value: str, mark: Untrusted) -> str:
        self.texts.append(self._table.put_in(value))
        return self.texts[-1]

    def identifier(self, value: str | int, mark: Identifier) -> str | int:
        assert self._pseudonyms is not None
        return self._pseudonyms.of(mark.kind, value)


def mask_of(model: type[BaseModel], scrubber: Scrubber, pseudonyms: Pseudonyms | None) -> Mask | None:
    """The Mask of a features model; None where nothing in it is marked. Raises ConfigError."""
    return Mask(model, scrubber, pseudonyms) if kinds_of(model) else None
