"""Compiled modules on disk: compiling takes seconds, loading what was compiled takes milliseconds.

A file is written beside its name and moved there in one step, so that processes that start together see a whole file
or none. It carries a digest of its content: one that was cut short or changed is taken for absent, and compiled anew.
Since loading machine code is running it, a directory that others may write to is not used at all.
"""

import contextlib
import hashlib
import json
import os
import platform
import stat
import tempfile
from pathlib import Path
from typing import Any

import attrs
import platformdirs

_MAGIC = b"orchestrator-sandbox-1\n"
_DIGEST = hashlib.sha256().digest_size


@attrs.frozen
class Entry:
    """A compiled module, and what its maker noted down with it (JSON)."""

    notes: dict[str, Any]
    code: bytes


def processor() -> str:
    """What compiled code depends on: the machine's architecture and the features of its processor."""
    features = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), features)
    return f"{platform.system()} {platform.machine()} {features}"


def key_of(*parts: str | bytes) -> str:
    """A name for what `parts` determine together."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:40]


class Cache:
    """A directory of compiled modules. Whatever goes wrong with it, the answer is that there is nothing there."""

    def __init__(self, directory: Path | None = None) -> None:
        """Use `directory`, or the user's cache directory; it is made when first needed."""
        self.directory = directory or Path(platformdirs.user_cache_dir("orchestrator", appauthor=False)) / "sandbox"

    def load(self, key: str) -> Entry | None:
        """What was stored under `key`, or None."""
        try:
            if not self._is_private():
                return None
            data = self._file(key).read_bytes()
            begin = len(_MAGIC) + _DIGEST
            content = memoryview(data)[begin:]
            if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(content).digest() != data[len(_MAGIC) : begin]:
                return None
            size = int.from_bytes(content[:4], "little")
            return Entry(json.loads(bytes(content[4 : 4 + size])), bytes(content[4 + size :]))
        except (OSError, ValueError):
            return None

    def store(self, key: str, entry: Entry) -> bool:
        """Keep `entry` under `key`; False where the directory cannot be used."""
        notes = json.dumps(entry.notes).encode()
        content = len(notes).to_bytes(4, "little") + notes + entry.code
        temporary: str | None = None
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return False
            handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(content).digest() + content)
            Path(temporary).replace(self._file(key))
        except OSError:
            if temporary:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            return False
        return True

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}.module"

    def _is_private(self) -> bool:
        if not hasattr(os, "geteuid"):  # other systems keep a user's cache directory to that user
            return True
        status = self.directory.stat()
        return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
