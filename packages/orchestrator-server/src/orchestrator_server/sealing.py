"""Secrets at rest: sealed with AES-256-GCM, each bound to its tenant, its name and its version.

What is bound is no part of the ciphertext and cannot be changed without the key: a row that was swapped with another,
renamed, moved to another tenant or set back to an older version does not open. A sealer has several keys, so that they can be
rotated: the current one seals, every one opens what it sealed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import ClassVar, Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator_core.errors import OrchestratorError
from orchestrator_server.errors import Conflict, Invalid
from orchestrator_server.records import Secret
from orchestrator_server.storage import Secrets

__all__ = ["KEY_BYTES", "KeyRing", "SealError", "Sealer", "UnknownKey", "load_keys", "new_key", "rotate"]

KEY_BYTES: Final = 32
_FORMAT: Final = b"\x01"  # the first byte of a ciphertext: how the rest is to be read
_NONCE_BYTES: Final = 12
_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ROUNDS: Final = 100


class SealError(OrchestratorError):
    """A sealed secret does not open: it was changed, or it stands where it was not sealed for."""

    code: ClassVar[str] = "sealed"


class UnknownKey(SealError):  # noqa: N818 - named after the fact, as Conflict is
    """It was sealed with a key that the sealer does not have."""

    code: ClassVar[str] = "unknown_key"


@attrs.frozen
class KeyRing:
    """Keys by their ids, and which of them seals."""

    keys: Mapping[str, bytes] = attrs.field(repr=False)
    current: str


class Sealer:
    """Seals and opens secrets.

    Args:
        keys: Keys of 32 bytes by id.
        current: The id of the one that seals.

    Raises:
        Invalid: There is no current key, or a key or an id has another shape.
    """

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        for key_id, key in keys.items():
            _check_key(key_id, key)
        if current not in keys:
            raise Invalid(f"keys: there is no key {current!r} to seal with")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = current

    def seal(self, tenant: str, name: str, version: int, text: str) -> Secret:
        """A text as the record that a store keeps."""
        nonce = os.urandom(_NONCE_BYTES)
        bound = _bound(tenant, name, version, self.current)
        sealed = self._ciphers[self.current].encrypt(nonce, text.encode(), bound)
        return Secret(name, version, self.current, _FORMAT + nonce + sealed)

    def open(self, tenant: str, secret: Secret) -> str:
        """The text of a record.

        Raises:
            UnknownKey: The key that sealed it is not here.
            SealError: It was changed, or it was sealed for another tenant, name or version.
        """
        cipher = self._ciphers.get(secret.key_id)
        if cipher is None:
            raise UnknownKey(
                f"secret {secret.name!r} was sealed with the key {secret.key_id!r}, which is not among the keys given"
            )
        start = len(_FORMAT)
        kind, nonce = secret.ciphertext[:start], secret.ciphertext[start : start + _NONCE_BYTES]
        rest = secret.ciphertext[start + _NONCE_BYTES :]
        if kind == _FORMAT and len(nonce) == _NONCE_BYTES:
            try:
                opened = cipher.decrypt(nonce, rest, _bound(tenant, secret.name, secret.version, secret.key_id))
                return opened.decode()
            except (InvalidTag, UnicodeDecodeError):
                pass
        # Raised outside of the handler: nothing of what was tried is to be seen in a traceback.
        raise SealError(
            f"secret {secret.name!r}, version {secret.version}, does not open: it was changed, or it was sealed for "
            "another tenant, name or version; set it again"
        )

    def reseal(self, tenant: str, secret: Secret) -> Secret | None:
        """The same version sealed with the current key; ``None`` where it is already.

        Raises:
            SealError: It does not open.
        """
        if secret.key_id == self.current:
            return None
        return self.seal(tenant, secret.name, secret.version, self.open(tenant, secret))


async def rotate(sealer: Sealer, tenant: str, secrets: Secrets) -> int:
    """Seal all secrets of a tenant with the current key. Returns how many were changed.

    Each is replaced by itself: stopped at any point it can be begun again, and everything opens meanwhile with both keys.

    Raises:
        SealError: One does not open; those before it are done.
    """
    changed = 0
    for found in await secrets.list():
        secret: Secret | None = found
        for _ in range(_ROUNDS):
            sealed = None if secret is None else sealer.reseal(tenant, secret)
            if sealed is None:
                break
            try:
                await secrets.replace(sealed)
            except Conflict:
                secret = await secrets.get(found.name)  # somebody has set it anew, or removed it
            else:
                changed += 1
                break
    return changed


def new_key(key_id: str | None = None) -> str:
    """A line with a new key, as :func:`load_keys` reads it.

    Args:
        key_id: Its id; unless given, one that no other key has: what another has sealed is then known to be so.
    """
    key = os.urandom(KEY_BYTES)
    key_id = f"k{os.urandom(4).hex()}" if key_id is None else key_id
    _check_key(key_id, key)
    return f"{key_id}:{base64.b64encode(key).decode()}"


def load_keys(text: str) -> KeyRing:
    """Keys from the text of a setting or a file: ``id:base64``, one a line or with commas between; the first one seals.

    Lines that begin with ``#`` are comments.

    Raises:
        Invalid: The text has another shape. What it says of keys is not repeated.
    """
    keys: dict[str, bytes] = {}
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    for number, entry in enumerate(entries, 1):
        key_id, colon, encoded = entry.partition(":")
        key_id = key_id.strip()
        if not colon:
            raise Invalid(f"keys: entry {number} has no colon: write id:base64")
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        _check_key(key_id, key)
        if key_id in keys:
            raise Invalid(f"keys: there are two with the id {key_id!r}")
        keys[key_id] = key
    if not keys:
        raise Invalid("keys: there is none; make one with `orchestrator secret new-key`")
    return KeyRing(keys, next(iter(keys)))


def _check_key(key_id: str, key: bytes) -> None:
    if not _KEY_ID.fullmatch(key_id):
        # An id that is none may be a key that somebody wrote in its place.
        raise Invalid("keys: an id is 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    if len(key) != KEY_BYTES:
        raise Invalid(f"keys: the key {key_id!r} is not {KEY_BYTES} bytes in base64")


def _bound(tenant: str, name: str, version: int, key_id: str) -> bytes:
    """What a ciphertext is bound to. Lengths stand in front, so that no two lists of texts look the same."""
    parts = (b"orchestrator secret", tenant.encode(), name.encode(), str(version).encode(), key_id.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
