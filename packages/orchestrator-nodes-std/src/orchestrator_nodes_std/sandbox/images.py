"""Images, compiled and running: what the runtimes of all languages share.

An image is a module whose memory is that of a language that has started (see `wasm`). It is made and compiled once per
machine, kept on disk, loaded by each process when it is first needed, and then has instances (see `machine`).
"""

import contextlib
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import attrs
import wasmtime

from orchestrator_nodes_std.sandbox import cache, machine

_log = logging.getLogger(__name__)


class Kind(Protocol):
    """What an image is made from. Kinds that are equal have the same image."""

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    def key(self) -> str:
        """The name of what is compiled from it: it holds everything that the image depends on."""
        ...

    def image(self, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
        """The module, and the addresses in it that the host needs. `parallel`: see `machine.engine`."""
        ...


K = TypeVar("K", bound=Kind)
_Ready = tuple[machine.Machine, dict[str, int]]


@attrs.define
class _Loaded:
    """What one process has. None of it survives a fork: threads are gone, locks may be held for ever."""

    permits: machine.Permits
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    machines: dict[Kind, _Ready] = attrs.field(factory=dict)

    def close(self) -> None:
        """Give back what there is, when the calls that are running have ended."""
        with self.lock:
            machines = list(self.machines.values())
            self.machines.clear()
        for runner, _ in machines:
            runner.close()


def _close_all(loaded: dict[int, _Loaded]) -> None:
    here = loaded.pop(os.getpid(), None)
    if here is not None:
        here.close()


class Images(Generic[K]):
    """The images of a runtime. Safe to use from many threads, and after a fork."""

    def __init__(self, *, cache_dir: Path | None, instances: int | None, compiles: bool = True) -> None:
        """Load nothing yet.

        Args:
            cache_dir: where compiled code is kept; the user's cache directory if not given.
            instances: how many calls run at once, in all images together (further ones wait); the number of processors if
                not given.
            compiles: whether to compile what is not in the cache, or to raise `machine.Busy`.
        """
        if instances is not None and instances < 1:
            raise ValueError("instances must be at least 1")
        self._cache = cache.Cache(cache_dir)
        self._instances = instances or max(2, os.cpu_count() or 1)
        self._compiles = compiles
        self._first = os.getpid()
        self._closed = False
        self._loaded: dict[int, _Loaded] = {}
        # Not left to the end of the interpreter, which takes modules away before it takes away objects.
        weakref.finalize(self, _close_all, self._loaded)

    @property
    def cache_dir(self) -> Path:
        """Where compiled code is kept."""
        return self._cache.directory

    def ready(self, kind: K, *, waits: bool = True) -> tuple[machine.Machine, dict[str, int]]:
        """The instances of an image, and the addresses in it; loads it where this is the first call, if it `waits`."""
        process = os.getpid()
        here = self._loaded.get(process)
        if here is None:
            here = self._loaded.setdefault(process, _Loaded(machine.Permits(self._instances)))
        found = here.machines.get(kind)
        if found is None and not waits:
            raise machine.Busy
        return found or self._load(here, kind)

    def close(self) -> None:
        """Wait for the calls that are running, and give everything back. Calls after this raise RuntimeError."""
        self._closed = True
        _close_all(self._loaded)

    def _load(self, here: _Loaded, kind: K) -> _Ready:
        with here.lock:
            if self._closed:
                raise RuntimeError("this sandbox is closed")
            if kind not in here.machines:
                engine = machine.engine(parallel=os.getpid() == self._first)
                module, notes = self._module(engine, kind)
                here.machines[kind] = machine.Machine(engine, module, here.permits), notes
            return here.machines[kind]

    def _module(self, engine: wasmtime.Engine, kind: K) -> tuple[wasmtime.Module, dict[str, int]]:
        key = kind.key()
        entry = self._cache.load(key)
        if entry:
            with contextlib.suppress(wasmtime.WasmtimeError):
                return wasmtime.Module.deserialize_file(engine, str(entry.file)), entry.notes
        if not self._compiles:
            raise machine.Busy
        _log.warning("the sandbox compiles %s, once on this machine; this takes some seconds", kind.title)
        begin = time.monotonic()
        image, notes = kind.image(parallel=os.getpid() == self._first)
        module = wasmtime.Module(engine, image)
        self._cache.store(key, notes, bytes(module.serialize()))
        _log.warning("the sandbox has compiled %s in %.0f s", kind.title, time.monotonic() - begin)
        return module, notes
