"""Finds what stands in a text by its form: e-mail addresses, credentials in URLs, keys and passwords, IP addresses.

Pure. What a pattern may repeat is bounded, so that no text takes much longer than another of its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

Span = tuple[int, int]

BEFORE_NUMBER: Final = r"(?<!\d)(?<!\d\.)(?:(?<!\d,)|(?<=\d{4},))"
"""Before a number stands no digit, and it is no decimal places; a comma after four digits or more is that of a list."""
SEPARATOR: Final = r"(?:\s{1,2}|[.-])"
"""What people, tables and wrapped lines have between two groups of a long number."""

# Letters from here on belong to scripts that have no blanks between words, but those of Latin and Greek with marks.
_UNSPACED: Final = r"\u0e00-\u1dff\u2000-\U0010ffff"
_LOCAL: Final = r"\s@<>()\[\]\",;:|"
_LONGEST_LOCAL: Final = 256
_AT: Final = re.compile(r"(?:@|%40|&#64;)((?:[\w-]{1,63}\.){1,8})([\w-]{2,63})")
_LATIN: Final = re.compile(rf"[A-Za-z]{{2,63}}(?=[{_UNSPACED}])")
# These three are matched from the sign before the "@" backwards.
_QUOTED: Final = re.compile(r"\"[^\"\n]{1,64}\"")
_SPACED: Final = re.compile(rf"[^{_LOCAL}{_UNSPACED}]{{1,256}}")
_ANY: Final = re.compile(rf"[^{_LOCAL}]{{1,64}}")
_ESCAPED: Final = re.compile(rf"[^{_LOCAL}{_UNSPACED}/?&=#]{{1,256}}")
_CREDENTIALS: Final = re.compile(
    r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://"
    r"([^\s/?#]{1,256}|[^\s/?#@:]{1,64}:(?!\d{1,5}[/?#])[^\s@]{1,256})@(?=[\w\[])"  # a password may have a slash, a port not
)
_IPV4: Final = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?\w)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")

_KEY_BLOCK: Final = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
_KEYS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"[spr]k[-_](?:[A-Za-z0-9]{1,20}[-_]){0,4}[A-Za-z0-9_-]{16,256}"  # OpenAI, Anthropic, Stripe ...
    r"|A[KSBC][IC]A[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_\w{30,255}|github_pat_\w{22,255}|glpat-[\w-]{20,255}|npm_\w{30,255}|hf_\w{30,255}"
    r"|xox[abeoprs]-[\w-]{10,255}|AIza[\w-]{35}|ya29\.[\w-]{20,1024}|SG\.[\w-]{16,64}\.[\w-]{16,64}"
    r"|(?<![\w-])eyJ[\w-]{8,4096}\.[\w-]{8,4096}(?:\.[\w-]{0,4096})?"  # JSON web tokens
    r")(?![A-Za-z0-9])"
)
_BLOCKS: Final = re.compile(_KEY_BLOCK, re.DOTALL)
_CALLED: Final = r"password|passwort|passwd|pwd|pw|kennwort|passphrase"
_NAMED: Final = re.compile(
    rf"(?i)(?:(?<![a-z])(?:{_CALLED}|secret|token|(?:api|access|secret)[_ -]?key)"
    r"\s{0,3}(?:is|ist|lautet)?\s{0,3}[:=]\s{0,3}"
    r"(?:\"([^\"\n]{4,256})\"|'([^'\n]{4,256})'|[\"']?([^\s\"',;&]{6,256}|(?=\w{0,4}\d)\w{4,5}(?!\w)))"
    r"|(?<![a-z])bearer\s{1,3}([\w.~+/-]{16,4096}=*)"
    # Without a colon a word is a password only if it has letters and digits.
    rf"|(?<![a-z])(?:{_CALLED})\s{{1,3}}(?:(?:is|ist|lautet|was|war)\s{{1,3}})?[\"']?"
    r"((?=[^\s\d]{0,64}\d)(?=[^\sa-z]{0,64}[a-z])[^\s\"',;&]{6,256}))"
)
_TELLING: Final = (":", "=", "earer", "pass", "pw", "kennwort")
_TOKEN: Final = re.compile(r"(?<![\w+/=-])[A-Za-z0-9_+/-]{32,4096}(?![\w+/-])")
_LONG: Final = re.compile(r"[A-Za-z0-9_.-]{14}")
_CLASSES: Final = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses, also with letters beyond ASCII, quoted, or escaped for a URL or a page."""
    if "@" in text or "%40" in text or "&#64;" in text:
        for match in _AT.finditer(text):
            latin = _LATIN.match(match[2])
            start = _local_start(text, match.start(), escaped=text[match.start()] != "@")
            if start < match.start():
                yield start, match.start(2) + len(latin[0]) if latin else match.end()


def _local_start(text: str, end: int, *, escaped: bool) -> int:
    """Where the local part that ends there begins, `end` if there is none.

    It ends where a script without blanks does, or a long sentence of that script would be taken for a part of it.
    """
    before = text[max(end - _LONGEST_LOCAL, 0) : end][::-1]
    for pattern in (_ESCAPED,) if escaped else (_QUOTED, _SPACED, _ANY):
        if match := pattern.match(before):
            local = match[0][::-1]
            return end - len(local.lstrip("'"))
    return end


def credentials(text: str) -> Iterator[Span]:
    """User and password of a URL, without its scheme and host."""
    if "://" in text and "@" in text:
        yield from (match.span(1) for match in _CREDENTIALS.finditer(text))


def addresses(text: str) -> Iterator[Span]:
    """IP addresses of both versions."""
    if "." in text:
        yield from (match.span() for match in _IPV4.finditer(text) if _is_address(match[0]))
    if text.count(":") > 1:
        yield from (match.span() for match in _IPV6.finditer(text) if match[0].strip(":") and _is_address(match[0]))


def secrets(text: str) -> Iterator[Span]:
    """Private keys, keys of well-known services, passwords that are named as such, and long random words."""
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _BLOCKS.finditer(text))
    small = text.lower()
    if any(sign in small for sign in _TELLING):
        yield from (match.span(match.lastindex or 0) for match in _NAMED.finditer(text))
    if _LONG.search(text):
        yield from (match.span() for match in _KEYS.finditer(text))
        yield from (match.span() for match in _TOKEN.finditer(text) if all(each.search(match[0]) for each in _CLASSES))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
