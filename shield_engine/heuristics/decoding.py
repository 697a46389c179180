"""Runs that encode a text, and what they say: escapes, base64, base32, hexadecimal and binary."""

from __future__ import annotations

import base64
import binascii
import html
import re
from urllib.parse import unquote_to_bytes

__all__ = [
    "BASE32",
    "BASE64",
    "BINARY",
    "ESCAPE",
    "HEX",
    "from_base32",
    "from_base64",
    "from_binary",
    "from_hex",
    "readable",
    "unescape",
]

MIN_DECODED = 6  # shorter decoded runs carry no instruction and are mostly accidents
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
BASE32 = re.compile(r"[A-Z2-7]{24,}={0,6}")
HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]{2}(?:[ :,-]?(?:0x)?[0-9A-Fa-f]{2}){7,}")
BINARY = re.compile(r"[01]{8}(?: ?[01]{8}){5,}")
ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+|(?:\\x[0-9A-Fa-f]{2})+|(?:\\u[0-9A-Fa-f]{4})+"
    r"|&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"
)


def readable(data: bytes) -> str | None:
    """Return decoded bytes if they are text that a person could have written."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    bare = text.translate({9: None, 10: None, 13: None, 32: None})
    if len(text) < MIN_DECODED or not bare.isprintable():
        return None
    letters = sum(map(str.isalpha, bare))
    is_written = letters >= 0.6 * len(bare) and letters >= 4
    return text if is_written or HEX.fullmatch(text) or BINARY.fullmatch(text) else None


def from_base64(run: str) -> str | None:
    """Return what a base64 run says, in either alphabet, if it is readable."""
    compact = "".join(run.split()).rstrip("=").translate({45: 43, 95: 47})
    compact = compact[: len(compact) - 1] if len(compact) % 4 == 1 else compact
    try:
        return readable(base64.b64decode(compact + "=" * (-len(compact) % 4)))
    except (binascii.Error, ValueError):
        return None


def from_base32(run: str) -> str | None:
    """Return what a base32 run says, if it is readable."""
    compact = run.rstrip("=")
    try:
        return readable(base64.b32decode(compact + "=" * (-len(compact) % 8)))
    except binascii.Error:
        return None


def from_hex(run: str) -> str | None:
    """Return what hexadecimal digits say, if it is readable."""
    digits = re.sub(r"0x|[ :,-]", "", run)
    return readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def from_binary(run: str) -> str | None:
    """Return what binary digits say, if it is readable."""
    bits = run.replace(" ", "")
    return readable(int(bits, 2).to_bytes(len(bits) // 8, "big")) if len(bits) < 80_000 else None


def unescape(run: str) -> str:
    """Return what a run of URL, code or HTML escapes stands for."""
    if run[0] == "&":
        return html.unescape(run)
    if run[0] == "%":
        return unquote_to_bytes(run).decode(errors="replace")
    if run[1] == "x":
        return bytes.fromhex(run.replace("\\x", "")).decode(errors="replace")
    units = bytes.fromhex(run.replace("\\u", ""))
    return units.decode("utf-16-be", errors="replace")
