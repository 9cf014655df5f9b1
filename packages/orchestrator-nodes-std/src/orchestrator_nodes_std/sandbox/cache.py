"""Compiled modules on disk: compiling takes seconds, loading what was compiled takes milliseconds.

A file is written beside its name and moved there in one step, so that processes that start together see a whole file
or none. It carries a checksum of its content: one that was cut short or changed is taken for absent, and compiled anew.
The code stands first in the file, as wasmtime wrote it, so that it can be mapped into memory instead of being read. Since loading machine code is running it, a directory that others may write to is not used at all.
"""

import contextlib
import hashlib
import json
import mmap
import os
import platform
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import platformdirs

# What ends a file: a mark, the size of the notes, and the checksum of all before it.
_END = struct.Struct("<16sII")
_KEPT = 30 * 86_400.0  # seconds
_MARK = b"orchestrator-2\n\0"


@attrs.frozen
class Entry:
    """A compiled module: the file that begins with it, and what its maker noted down with it (JSON)."""

    file: Path
    notes: dict[str, Any]


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
            file = self._file(key)
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                end = len(data) - _END.size
                mark, size, checksum = _END.unpack_from(data, max(end, 0))
                with memoryview(data) as whole, whole[:end] as content:
                    if mark != _MARK or zlib.crc32(content) != checksum:
                        return None
                with contextlib.suppress(OSError):
                    os.utime(file)  # it is in use
                return Entry(file, json.loads(data[end - size : end]))
        except (OSError, ValueError, struct.error):
            return None

    def store(self, key: str, notes: Mapping[str, Any], code: bytes) -> bool:
        """Keep `code` and `notes` under `key`; False where the directory cannot be used."""
        written = json.dumps(notes).encode()
        checksum = zlib.crc32(written, zlib.crc32(code))
        temporary: str | None = None
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return False
            handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.writelines([code, written, _END.pack(_MARK, len(written), checksum)])
            Path(temporary).replace(self._file(key))
            self._forget_the_old()
        except OSError:
            if temporary:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            return False
        return True

    def _forget_the_old(self) -> None:
        """Remove what no process has used for long: what other versions left, and what was cut off while it was written."""
        since = time.time() - _KEPT
        for file in (*self.directory.glob("*.module"), *self.directory.glob(".new-*")):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < since:
                    file.unlink()

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}.module"

    def _is_private(self) -> bool:
        if not hasattr(os, "geteuid"):  # other systems keep a user's cache directory to that user
            return True
        status = self.directory.stat()
        return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
