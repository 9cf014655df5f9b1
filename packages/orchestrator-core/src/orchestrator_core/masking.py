"""Keeping secrets out of what is recorded: in records, logs, events and errors."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

__all__ = ["mask"]


def mask(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value in which every secret, also encoded or inside a longer text, is replaced by ``***``."""
    forms: set[str] = set()
    for secret in secrets:
        if secret:
            forms |= _forms(secret)
    if not forms:
        return value
    return _mask(value, re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))))


def _forms(secret: str) -> set[str]:
    """A text as it is, and as it looks in JSON, in Python, in a URL, in HTML, in hexadecimal and in base64."""
    data = secret.encode("utf-8", "surrogatepass")
    forms = {secret, html.escape(secret), html.escape(secret, quote=False), repr(secret)[1:-1]}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], data.hex(), data.hex().upper()}
    for safe in ("", "/"):
        for quoted in (urllib.parse.quote(data, safe=safe), urllib.parse.quote_plus(data, safe=safe)):
            forms |= {quoted, re.sub("%..", lambda found: found.group().lower(), quoted)}
    # Inside base64 of something longer its inner digits are the same at each of the three offsets.
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[offset] : len(encoded) - (1 if (len(data) + offset) % 3 else 0)]
        if len(inner) >= 6:
            forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms


def _mask(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub("***", value)
    if isinstance(value, list):
        return [_mask(item, pattern) for item in value]
    if isinstance(value, dict):
        return {_mask(key, pattern): _mask(item, pattern) for key, item in value.items()}
    return value
