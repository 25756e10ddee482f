"""Suspicion: whether a text from outside speaks to the model instead of being about the record.

Pure. These are rules that a person can read, not a judge: what they miss is asked with its neighbours like any other text, and
what they take wrongly costs one request more. Nothing is refused for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from models.masking.plain import FILLERS, IGNORABLE

_MANY_INVISIBLE: Final = 3

_RULES: Final = {
    "instruction": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}?"
        r"\b(?:instructions?|prompts?|rules?|guidelines?|above|previous|prior|context)\b"
        r"|\b(?:ignorier\w*|vergiss|vergessen sie|missachte\w*|umgeh\w*|übergeh\w*)\b.{0,40}?"
        r"\b(?:anweisung\w*|regeln?|vorgaben?|befehle?|prompts?|vorherig\w*|bisherig\w*|obig\w*)\b"
        r"|\b(?:new|updated|neue|geänderte) (?:instructions?|anweisung\w*)\b"
        r"|\b(?:you are now|act as|pretend to be|from now on,? you)\b"
        r"|\b(?:du bist (?:jetzt|ab jetzt|nun)|verhalte dich wie|ab jetzt bist du)\b"
        r"|\b(?:system prompt|systemprompt|jailbreak|developer mode|do anything now)\b",
        re.DOTALL,
    ),
    "to-the-model": re.compile(
        r"\b(?:as an? (?:ai|language model|assistant)|dear (?:ai|model|assistant)|als (?:ki|sprachmodell)|liebe ki)\b"
        r"|\b(?:note|hinweis|message|nachricht) (?:to|for|an|für) (?:the |die |das |den )?"
        r"(?:ai|model|llm|assistant|ki|modell|sprachmodell)\b"
        r"|\b(?:answer|reply|respond|output|return|antworte\w*|gib|gebe)\b.{0,30}?"
        r"\b(?:only|always|with|in json|json|nur|immer|ausschliesslich|stets)\b.{0,60}?"
        r"\b(?:approve\w*|accept\w*|low|risk|score|grade|genehmig\w*|freigeb\w*|niedrig\w*|risiko\w*|\d{1,3})\b"
        r"|\b(?:set|setze?)\b.{0,20}\b(?:risk|score|grade|risiko|bewertung)\b.{0,20}\b(?:to|auf)\b",
        re.DOTALL,
    ),
    "role-marker": re.compile(
        r"(?:^|[\n\r\"'`>|])\s{0,8}(?:#{1,6}\s{0,3})?\[?(?:system|assistant|developer|user|human|entwickler)\]?\s{0,3}:"
        r"|<\|?/?(?:im_start|im_end|system|assistant|user|endoftext|start_header_id|end_header_id|eot_id|begin_of_text)\|?>"
        r"|\[/?inst\]|<</?sys>>|\"role\"\s{0,3}:"
    ),
    "our-layout": re.compile(
        r"\b(?:nonce|records|answers|features)\\?[\"']\s{0,3}:|\bid\\?[\"']\s{0,3}:\s{0,3}\\?[\"']?[0-9a-f]{6}\b"
        r"|\b(?:next|other|previous|all|every) records?\b|\b(?:nächste[nr]?|andere[nr]?|alle) (?:datensätze|datensatz)\b"
        r"|\]\s{0,3}\}\s{0,3}\]|```"
    ),
}
"""For texts in lower case, in which one blank stands for any run of white space.

Of the languages that a text may speak to a model in, English and German are known."""
_BY_LINE: Final = "role-marker"
"""Looks at where lines begin, so it sees the ends of lines."""
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/_-]{76,}[\r\n]{0,2}){2,}|[A-Za-z0-9+/_-]{160,}={0,2}")
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAGS: Final = re.compile("[\U000e0000-\U000e007f]")
_FILLERS: Final = re.compile(f"[{FILLERS}]")
_INVISIBLE: Final = re.compile(f"[{IGNORABLE}]")
_PICTURES: Final = "\u00a9\u00ae\u203c\u2049\u2100-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_ORDINARY: Final = re.compile(
    rf"(?<=[{_PICTURES}0-9#*])[\ufe0e\ufe0f]|(?<=[{_PICTURES}\ufe0f])\u200d(?=[{_PICTURES}])"
    "|(?<=\U0001f3f4)\U000e0067\U000e0062"
    "(?:\U000e0065\U000e006e\U000e0067|\U000e0073\U000e0063\U000e0074|\U000e0077\U000e006c\U000e0073)\U000e007f"
    r"|(?<=[\u0600-\u1cff])[\u200b-\u200d](?=[\u0600-\u1cff])"
    r"|(?<=[\u0590-\u08ff])[\u200e\u200f]|[\u200e\u200f](?=[\u0590-\u08ff])"
)
"""Where people's keyboards put them: in emoji and the flags of three countries, between letters of Arabic, Indian and South-East
Asian scripts, beside letters that are written from the right."""
_SPACES: Final = re.compile(r"[^\S\n\r]+")


def suspicion(texts: Iterable[str]) -> str | None:
    """The name of the first rule that one of the texts breaks, or None."""
    for text in texts:
        found = _hidden(text) or _said(text)
        if found is not None:
            return found
    return None


def _hidden(text: str) -> str | None:
    """What a person would not see, or could not read."""
    if not text.isascii() and _INVISIBLE.search(text):
        if _BIDI.search(text):
            return "bidi-control"
        odd = _ORDINARY.sub("", text)
        if _TAGS.search(odd) or len(_INVISIBLE.findall(odd)) >= _MANY_INVISIBLE:
            return "invisible-characters"
    return "long-encoded" if _BASE64.search(text) else None


def _said(text: str) -> str | None:
    """What the text says, whatever its letters look like: full-width, styled, on several lines, with invisible signs between."""
    plain = text
    if not plain.isascii():
        plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", _FILLERS.sub(" ", plain)))
    lines = _SPACES.sub(" ", plain).casefold()
    flat = " ".join(lines.split())
    return next((name for name, rule in _RULES.items() if rule.search(lines if name == _BY_LINE else flat)), None)
