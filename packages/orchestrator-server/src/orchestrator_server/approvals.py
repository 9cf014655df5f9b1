"""Links through which a person answers a signal, without a credential: who has the link may answer.

A link says which execution, node and signal it is for, which answer it allows and until when it holds, and it is signed
with a key that is derived from the server's: nothing of that can be changed, and nobody else can make one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Final

import attrs
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator_core.nodes import ApprovalAnswer
from orchestrator_server.sealing import KeyRing

__all__ = ["Approval", "ApprovalLinks", "hide_links"]

_PATH: Final = "/api/v1/approvals/"
# What it says, a list in JSON, begins like this in base64; the signature is always as long.
_TOKEN = re.compile(r"WyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{43}")
_PURPOSE: Final = b"orchestrator approval links"
_LONGEST: Final = 8192


@attrs.frozen
class Approval:
    """What a link is for. ``expires_at`` is in seconds since 1970; ``answer`` is the only one it allows, if not both."""

    tenant: str
    execution_id: str
    path: str
    signal: str
    expires_at: float
    answer: ApprovalAnswer | None = None

    @property
    def signal_id(self) -> str:
        """The id of the signal that it sends: the same for all links to the same wait, so that one answer counts."""
        place = json.dumps([self.execution_id, self.path, self.signal])
        return f"approval-{hashlib.sha256(place.encode()).hexdigest()[:32]}"


class ApprovalLinks:
    """Makes and reads links.

    Args:
        keys: The server's keys. The current one signs, all of them are known.
        address: Where the server is seen from outside, without a slash at the end.
    """

    def __init__(self, keys: KeyRing, address: str) -> None:
        self._address = address
        self._keys = {key_id: _derived(key) for key_id, key in keys.keys.items()}
        self._current = self._keys[keys.current]

    def url(self, approval: Approval) -> str:
        """The link."""
        text = _encoded(json.dumps(attrs.astuple(approval), separators=(",", ":")).encode())
        return f"{self._address}{_PATH}{text}.{_signature(self._current, text)}"

    def read(self, token: str) -> Approval | None:
        """What a link is for, from the last part of its path; ``None``: it was not made here. Whether it is over, the caller sees."""
        text, _, given = token.partition(".")
        if len(token) > _LONGEST or not token.isascii():
            return None
        # Compared as they are written: what is decoded first could be written in several ways.
        good = [hmac.compare_digest(_signature(key, text), given) for key in self._keys.values()]
        if not any(good):
            return None
        return Approval(*json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))


def hide_links(text: str) -> str:
    """A text in which no link can be used any more: for those who may read, but not answer."""
    return _TOKEN.sub("***", text) if "WyJ" in text else text


def _derived(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key)


def _signature(key: bytes, text: str) -> str:
    return _encoded(hmac.new(key, text.encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
