"""Whether the sender of a webhook's request is who the workflow wants it to be.

Whatever is wrong (no header, a wrong or old signature, a secret that is not set), the answer is the same, and nothing starts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Mapping
from typing import Any

from orchestrator_core.codec import parse_duration
from orchestrator_core.types import Json

__all__ = ["Refused", "check_auth", "check_signature"]

_SECRET = re.compile(r"\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_TIME = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_HASHES = {"sha256": hashlib.sha256, "sha1": hashlib.sha1, "sha512": hashlib.sha512}


class Refused(Exception):  # noqa: N818 - named after what happens
    """The request is not let in. The text is for the server's log, not for the sender."""


def check_auth(config: Mapping[str, Any], headers: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """See that a request carries what the webhook's ``auth`` asks for.

    Raises:
        Refused: It does not.
    """
    wanted = _secret(config.get("secret"), secrets)
    kind = config.get("type")
    if kind == "header":
        given = headers.get(str(config.get("header", "")).lower())
    else:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != kind:
            raise Refused("no credential of the wanted kind")
        given = given.strip()
    if kind == "basic":
        wanted = f"{_filled(config.get('user'), secrets)}:{wanted}"
        try:
            given = base64.b64decode(given or "", validate=True).decode()
        except (binascii.Error, ValueError):
            raise Refused("the credential is no base64") from None
    elif kind not in {"bearer", "header"}:
        raise Refused("the webhook's auth is of an unknown type")
    if given is None or not hmac.compare_digest(given.encode(), wanted.encode()):
        raise Refused("the credential is not the wanted one")


def check_signature(
    config: Mapping[str, Any], headers: Mapping[str, str], body: bytes, secrets: Mapping[str, str], now: float
) -> tuple[str, float] | None:
    """See that a request is signed as the webhook's ``signature`` asks for.

    Args:
        config: The setting.
        headers: The request's headers, names in lower case.
        body: Its body, as it came.
        secrets: The tenant's secrets.
        now: The time in seconds since 1970.

    Returns:
        The signature and for how many seconds it is accepted, where it covers the time of sending: then the same one does
        not come twice.

    Raises:
        Refused: It is not.
    """
    key = _secret(config.get("secret"), secrets).encode()
    prefix = str(config.get("prefix", ""))
    given = headers.get(str(config.get("header", "")).lower(), "")
    if not given.startswith(prefix) or len(given) == len(prefix):
        raise Refused("there is no signature")
    signed, limited = body, None
    name = config.get("timestamp_header")
    if name is not None:
        sent = headers.get(str(name).lower(), "")
        tolerance = float(parse_duration(config.get("tolerance", 300)))
        if not _TIME.fullmatch(sent) or not math.isfinite(float(sent)) or abs(now - float(sent)) > tolerance:
            raise Refused("the time of sending is missing, or too far off")
        signed = sent.encode() + b"." + body
        limited = 2 * tolerance
    digest = hmac.new(key, signed, _HASHES[config.get("algorithm", "sha256")]).digest()
    if config.get("encoding", "hex") == "hex":
        same = hmac.compare_digest(given[len(prefix) :].lower().encode(), digest.hex().encode())
    else:
        same = hmac.compare_digest(given[len(prefix) :].encode(), base64.b64encode(digest))
    if not same:
        raise Refused("the signature does not fit")
    return None if limited is None else (digest.hex(), limited)


def _secret(template: Json, secrets: Mapping[str, str]) -> str:
    """The key that both sides know. Without one nobody is let in."""
    text = _filled(template, secrets)
    if not text:
        raise Refused("the webhook's secret is empty")
    return text


def _filled(template: Json, secrets: Mapping[str, str]) -> str:
    if not isinstance(template, str):
        raise Refused("the webhook's secret is no text")

    def value(match: re.Match[str]) -> str:
        found = secrets.get(match[1])
        if not found:
            raise Refused(f"there is no secret {match[1]!r}")
        return found

    if "{{" in _SECRET.sub("", template):
        raise Refused("the webhook's secret is more than {{ secrets.name }}, which is not evaluated here")
    return _SECRET.sub(value, template)
