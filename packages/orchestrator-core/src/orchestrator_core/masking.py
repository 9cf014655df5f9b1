"""Keeping secrets out of what is recorded: in records, logs, events and errors."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["mask"]

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_LOWERED: Final = 6  # characters of a text that is looked for in lower case, too: a host name is written so


def mask(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value in which every secret, also encoded or inside a longer text, is replaced by ``***``."""
    known = [secret for secret in secrets if secret]
    if not known:
        return value
    forms = sorted(set().union(*map(_forms, known)), key=len, reverse=True)
    patterns = [*map(_quoted, sorted(known, key=len, reverse=True)), *map(re.escape, forms)]
    return _mask(value, re.compile("|".join(patterns)), frozenset(filter(_NUMBER.fullmatch, known)))


def _forms(secret: str) -> set[str]:
    """A text as it is, and as it looks in JSON, in Python, in a host name, in HTML, in hexadecimal and in base64."""
    data = secret.encode("utf-8", "surrogatepass")
    forms = {secret, html.escape(secret), html.escape(secret, quote=False), repr(secret)[1:-1]}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], data.hex(), data.hex().upper()}
    if len(secret) >= _LOWERED:
        forms.add(secret.lower())
    # Inside base64 of something longer its inner digits are the same at each of the three offsets.
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[offset] : len(encoded) - (1 if (len(data) + offset) % 3 else 0)]
        if len(inner) >= 6:
            forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms


def _quoted(secret: str) -> str:
    """A pattern of a text as it looks in a URL: who quotes it decides which characters stay as they are."""
    return "".join(re.escape(one) if one.isalnum() and one.isascii() else _either(one) for one in secret)


def _either(one: str) -> str:
    """A pattern of a character, or what stands for it in a URL."""
    ways = [re.escape(one), "".join(f"%(?i:{byte:02x})" for byte in one.encode("utf-8", "surrogatepass"))]
    return f"(?:{'|'.join([*ways, re.escape('+')] if one == ' ' else ways)})"


def _mask(value: Any, pattern: re.Pattern[str], numbers: frozenset[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub("***", value)
    if isinstance(value, list):
        return [_mask(item, pattern, numbers) for item in value]
    if isinstance(value, dict):
        return {_mask(key, pattern, numbers): _mask(item, pattern, numbers) for key, item in value.items()}
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        whole = isinstance(value, float) and value.is_integer()
        return "***" if str(int(value) if whole else value) in numbers else value
    return value
