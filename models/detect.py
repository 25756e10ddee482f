"""Finds what stands in a text by its form: e-mail addresses, credentials in URLs, keys and passwords, IP addresses.

Pure. What a pattern may repeat is bounded, so that no text takes much longer than another of its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

Span = tuple[int, int]

_LOCAL: Final = r"\s@<>()\[\]\",;:|"
_EMAIL: Final = re.compile(rf"(?<![^{_LOCAL}'])[^{_LOCAL}'][^{_LOCAL}]{{0,255}}@(?:[\w-]{{1,63}}\.){{1,8}}[\w-]{{2,63}}")
_CREDENTIALS: Final = re.compile(r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/?#]{1,256})@(?=[\w\[])")
_IPV4: Final = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?\w)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")

_KEY_BLOCK: Final = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
_KEYS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"[spr]k[-_](?:[A-Za-z0-9]{1,20}[-_]){0,4}[A-Za-z0-9_-]{16,256}"  # OpenAI, Anthropic, Stripe ...
    r"|A[KSBC][IC]A[A-Z0-9]{16}"  # AWS
    r"|gh[pousr]_\w{30,255}|github_pat_\w{22,255}|glpat-[\w-]{20,255}|npm_\w{30,255}|hf_\w{30,255}"
    r"|xox[abeoprs]-[\w-]{10,255}|AIza[\w-]{35}|ya29\.[\w-]{20,1024}|SG\.[\w-]{16,64}\.[\w-]{16,64}"
    r"|eyJ[\w-]{8,4096}\.[\w-]{8,4096}(?:\.[\w-]{0,4096})?"  # JSON web tokens
    r")(?![A-Za-z0-9])"
)
_BLOCKS: Final = re.compile(_KEY_BLOCK, re.DOTALL)
_NAMED: Final = re.compile(
    r"(?i)(?:(?<![a-z])(?:password|passwort|passwd|pwd|kennwort|passphrase|secret|token|(?:api|access|secret)[_ -]?key)"
    r"\s{0,3}(?:is|ist|lautet)?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"',;&]{6,256})"
    r"|(?<![a-z])bearer\s{1,3}([\w.~+/-]{16,4096}=*))"
)
_TOKEN: Final = re.compile(r"(?<![\w+/=-])[A-Za-z0-9_+/-]{32,4096}(?![\w+/-])")
_LONG: Final = re.compile(r"[A-Za-z0-9_.-]{14}")
_CLASSES: Final = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses, also with letters beyond ASCII."""
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


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
    if ":" in text or "=" in text or "earer" in text:
        yield from (match.span(1) if match[1] else match.span(2) for match in _NAMED.finditer(text))
    if _LONG.search(text):
        yield from (match.span() for match in _KEYS.finditer(text))
        yield from (match.span() for match in _TOKEN.finditer(text) if all(each.search(match[0]) for each in _CLASSES))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
