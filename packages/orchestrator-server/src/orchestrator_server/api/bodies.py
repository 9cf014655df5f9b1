"""Reading what a request carries: within bytes and seconds, and strictly."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from orchestrator_core.codec import faults_of, make_converter, parse_json
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.types import Json
from orchestrator_server.api.problems import Problem

__all__ = ["FORM", "media_type", "read_body", "read_form", "read_json", "structured"]

FORM = "application/x-www-form-urlencoded"
"""The media type of a form."""

_converter = make_converter()
_TOO_LARGE = "the body is larger than this server takes: at most {limit} bytes"


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """All of a request's body.

    Args:
        request: Whose.
        most: How many bytes it may have.
        seconds: How long it may take.

    Raises:
        Problem: It is larger than allowed (413, before it is read where its length is announced), comes too slowly (408), or is
            compressed (415).
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_encoding", "compressed bodies are not taken: send it as it is")
    announced = request.headers.get("content-length")
    if announced is not None:
        if not re.fullmatch(r"[0-9]{1,18}", announced):
            raise Problem(400, "bad_request", "content-length is no number of bytes")
        if int(announced) > most:
            raise _too_large(most)
    with anyio.move_on_after(seconds):
        return await _read(request.receive, most)
    raise Problem(408, "too_slow", f"the body did not come within {seconds:g} seconds", headers={"Connection": "close"})


async def _read(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", _TOO_LARGE.format(limit=most), headers={"Connection": "close"})


def media_type(request: Request) -> str:
    """The media type of the body, in lower case, without parameters; empty where none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Whether a media type is JSON's or one of its kin."""
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def check_json_media(request: Request) -> None:
    """See that a body that must be JSON says so.

    Raises:
        Problem: 415.
    """
    content_type = request.headers.get("content-type", "")
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", content_type, re.IGNORECASE)
    if not is_json(media_type(request)) or (charset and charset[1].lower() not in {"utf-8", "us-ascii"}):
        raise Problem(415, "unsupported_media_type", "send the body as application/json, in UTF-8")


def read_json(data: bytes) -> Json:
    """The JSON of a body, read strictly.

    Raises:
        Problem: 400: it is none.
    """
    try:
        return parse_json(data)
    except DocumentError as error:
        raise Problem(400, "bad_json", f"the body is no JSON: {error}", faults=error.faults) from None
    except RecursionError:
        raise Problem(400, "bad_json", "the body is no JSON: it is nested too deep") from None


def read_form(data: bytes, request: Request) -> dict[str, Json]:
    """The fields of a form, each of which may stand there once.

    Raises:
        Problem: It is no such form.
    """
    if media_type(request) != FORM:
        raise Problem(415, "unsupported_media_type", f"send the body as {FORM}")
    try:
        pairs = urllib.parse.parse_qsl(
            data.decode("ascii"), keep_blank_values=True, strict_parsing=bool(data), max_num_fields=100, errors="strict"
        )
    except ValueError:
        raise Problem(400, "bad_request", "the body is no form") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise Problem(400, "bad_request", "a field stands in the form more than once")
    return dict(pairs)


def structured(value: Json, kind: Any) -> Any:
    """The value as an instance of a data class.

    Raises:
        DocumentError: It does not fit; all faults, with their places.
    """
    try:
        return _converter.structure(value, kind)
    except Exception as error:  # noqa: BLE001 - every kind of fault is gathered here
        faults = faults_of(error)
        raise DocumentError(faults or [Fault("does not fit")]) from None
