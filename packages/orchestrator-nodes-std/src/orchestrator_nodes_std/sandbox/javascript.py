"""JavaScript: QuickJS-NG as a WebAssembly guest.

An image is made once: three realms (one for the driver, `driver.js`; one that programs run in; a frozen one that
expressions run in), and room for input, logs and a stack. A call is then one crossing into a fresh instance of it: the
request is written into memory, `run` parses it, calls the driver, runs the jobs that promises wait for, and the answer
is read as UTF-8.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import re
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import attrs
import wasmtime

from orchestrator_nodes_std.sandbox import cache, machine
from orchestrator_nodes_std.sandbox.values import (
    MAX_LOGS,
    MAX_STACK,
    Completed,
    Evaluated,
    Limits,
    LogLine,
    SandboxError,
    decode,
    encode,
    may_hold_halves,
    refuse,
)
from orchestrator_nodes_std.sandbox.wasm import (
    I32,
    I64,
    Function,
    FunctionType,
    Import,
    Snapshot,
    WasmModule,
    signed,
    unsigned,
)

_REACTOR = "qjs-wasi-reactor.wasm"
_INBOX = 64 * 1024  # bytes kept ready for requests; larger ones are allocated
_LOGS = 8 + MAX_LOGS  # a head, and the lines
_STACK_SLACK = 128 * 1024  # bytes below the stack's limit, for what C functions take without asking
_COLLECT_AT = 4 * 1024 * 1024  # bytes in use when garbage is collected first
_UNDEFINED, _TRUE, _EXCEPTION_TAG = 3 << 32, 1 << 32 | 1, 6  # values as QuickJS writes them in 64 bits
_LEVELS = ("debug", "info", "warning", "error")
_BEFORE_SOURCE = 3  # lines that the driver's `compile` puts before the user's first
_REPORTED = ("syntax", "exception", "memory_limit", "output_limit", "not_json")  # codes that the driver gives
_MAX_SNIPPET = 200
_ALMOST_FULL = 1024 * 1024  # bytes below the memory limit: what fails then is taken to fail for memory
_MAX_REPORT = 64 * 1024  # bytes of an error's description, which the output limit does not count
# What the image is made by is part of its name, so that a release never takes another one's.
_MADE_BY = ("driver.js", "javascript.py", "machine.py", "values.py", "wasm.py")
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_IN_FUNCTION = re.compile(r"\(<input>:(\d+):\d+\)")
_IN_TEXT = re.compile(r"at <input>:(\d+):\d+")
_NAMED = re.compile(r"(?:cannot (?:read|set) property '([^']+)' of|ReferenceError: (\S+) is not defined)")

# Instructions of WebAssembly; those that touch memory say their alignment, and loads leave the offset to be said.
_GET, _SET, _TEE, _SET_GLOBAL, _CALL, _DROP = b"\x20", b"\x21", b"\x22", b"\x24", b"\x10", b"\x1a"
_LOAD32, _LOAD64, _STORE32, _STORE64 = b"\x28\x02", b"\x29\x03", b"\x36\x02\x00", b"\x37\x03\x00"
_UNREACHABLE, _LOOP, _IF, _BRANCH_IF, _RETURN, _BLOCK_END = b"\x00", b"\x03\x40", b"\x04\x40", b"\x0d", b"\x0f", b"\x0b"
_ADD32, _SUBTRACT32, _EQUAL32, _EQUAL64, _LESS32 = b"\x6a", b"\x6b", b"\x46", b"\x51", b"\x48"
_SHIFT64, _WRAP64 = b"\x88", b"\xa7"


def _get(local: int) -> bytes:
    return _GET + unsigned(local)


def _i32(number: int) -> bytes:
    return b"\x41" + signed(number)


def _i64(number: int) -> bytes:
    return b"\x42" + signed(number)


def _refusing(clock: int | None) -> Callable[[Import], Function]:
    """What stands for each WASI function: nothing works, but the clock, which shows what `clock` (an address) holds."""

    def body(item: Import) -> Function:
        if item.name == "proc_exit":
            return Function(item.type, _UNREACHABLE)
        if item.name == "clock_time_get":
            now = _i64(0) if clock is None else _i32(clock) + _LOAD64 + unsigned(0)
            return Function(item.type, _get(2) + now + _STORE64 + _i32(0))
        if item.name == "environ_sizes_get":
            empty = b"".join(_get(local) + _i32(0) + _STORE32 for local in (0, 1))
            return Function(item.type, empty + _i32(0))
        # 8 says that there is no such file, which ends the search for directories; 52 that nothing is implemented.
        return Function(item.type, _i32(8 if item.name.startswith("fd_") else 52))

    return body


def _run(reactor: WasmModule, notes: Mapping[str, int], stack_pointer: int) -> Function:
    """`run(request) -> answer`: a whole call.

    `request` is the address of what `_request` writes; the answer that of a text, whose length is in the cell `length`.
    0: no answer could be made; -1: the input did not fit.
    """

    def call(name: str) -> bytes:
        return _CALL + unsigned(reactor.function(name))

    def field(number: int) -> bytes:
        return _get(0) + _LOAD32 + unsigned(4 * number)

    def text(context: int, after: bytes, size: bytes, argument: int) -> bytes:
        parse = _i32(context) + _get(0) + after + _ADD32 + size + _i32(notes["file"]) + call("JS_ParseJSON")
        return (
            (_i32(notes["arguments"] + 8 * argument) + parse + _SET + unsigned(1) + _get(1) + _STORE64)
            + (_get(1) + _i64(32) + _SHIFT64 + _WRAP64 + _i32(_EXCEPTION_TAG) + _EQUAL32)
            + (_IF + _i32(-1) + _RETURN + _BLOCK_END)
        )

    def driver(function: int, arguments: int) -> bytes:
        return (
            (_i32(notes["context"]) + _i64(function) + _i64(_UNDEFINED))
            + (_i32(arguments) + _i32(notes["arguments"]))
            + call("JS_Call")
        )

    runtime = _i32(notes["runtime"])
    code = (
        (_i32(stack_pointer) + _SET_GLOBAL + unsigned(0))
        + (_i32(notes["stack_limit"]) + _i32(stack_pointer) + field(4) + _SUBTRACT32 + _STORE32)
        + (_i32(notes["now"]) + _get(0) + _LOAD64 + unsigned(0) + _STORE64)
        + text(notes["context"], _i32(_HEAD.size), field(2), 0)
        + text(notes["programs"], _i32(_HEAD.size + 1) + field(2) + _ADD32, field(3), 1)
        + driver(notes["start"], 2)
        + (_i64(_TRUE) + _EQUAL64)
        + _IF
        + (_LOOP + runtime + _i32(notes["job"]) + call("JS_ExecutePendingJob") + _TEE + unsigned(2))
        + (_i32(0) + _LESS32 + _IF)
        + (_i32(notes["arguments"]) + _i32(notes["programs"]) + call("JS_GetException") + _STORE64)
        + (driver(notes["uncaught"], 1) + _DROP + _BLOCK_END)
        + (_get(2) + _BRANCH_IF + unsigned(0) + _BLOCK_END)
        + _BLOCK_END
        + (_i32(notes["context"]) + _i32(notes["length"]) + driver(notes["finish"], 0) + _i32(0))
        + call("JS_ToCStringLen2")
    )
    return Function(FunctionType(bytes([I32]), bytes([I32])), code, locals=bytes([I64, I32]))


# What precedes the two texts of a request: now (nanoseconds), their sizes without the zero byte that ends each, stack.
_HEAD = struct.Struct("<QIII")


def _request(head: bytes, body: bytes, *, now: float, stack: int) -> bytearray:
    # Seconds as a float are exact to some hundred nanoseconds only: rounding keeps a whole millisecond whole.
    time = min(max(0, round(now * 1e6) * 1000), 2**63 - 1)
    return bytearray(b"%b%b\0%b\0" % (_HEAD.pack(time, len(head), len(body), stack), head, body))


def _image(binary: bytes, driver: str, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
    """The module that calls are instances of, and the addresses in it that the host needs."""
    reactor = WasmModule(binary)
    names = [name for name in reactor.exports if name == "memory" or name.startswith(("JS_", "_init", "calloc"))]
    engine = machine.engine(optimise=False, parallel=parallel)
    module = wasmtime.Module(engine, reactor.link(refuse=_refusing(None), keep=names))
    with wasmtime.Store(engine) as store:
        store.set_epoch_deadline(1)  # nothing steps this engine's epoch
        guest = machine.Guest(store, wasmtime.Instance(store, module, []))
        notes = _initialise(guest, driver)
        memory = guest.read(0, guest.size())
    stack_pointer = (notes["stack"] + _STACK_SLACK + MAX_STACK) & ~15
    image = reactor.link(
        refuse=_refusing(notes["now"]),
        keep=["memory", "malloc"],
        add={"run": _run(reactor, notes, stack_pointer)},
        snapshot=Snapshot(bytes(memory), stack_pointer),
    )
    return image, notes


def _initialise(guest: machine.Guest, driver: str) -> dict[str, int]:
    def bytes_of(text: str) -> int:
        data = text.encode() + b"\0"
        at = guest.call("calloc", 1, len(data))
        guest.write(bytearray(data), at)
        return at

    def checked(value: int) -> int:
        if value >> 32 != _EXCEPTION_TAG:
            return value
        error = guest.call("JS_GetException", context)
        text = guest.call("JS_ToCStringLen2", context, notes["length"], error, 0)
        message = guest.read(text, _number(guest.read(notes["length"], 4))).decode()
        raise RuntimeError(f"the driver of the JavaScript sandbox does not start: {message}")

    guest.call_void("_initialize")
    runtime = guest.call("JS_NewRuntime")
    context, programs, expressions = (guest.call("JS_NewContext", runtime) for _ in range(3))
    notes = {"runtime": runtime, "context": context, "programs": programs, "stack_limit": _stack_limit(guest, runtime)}
    regions = {
        "stack": _STACK_SLACK + MAX_STACK,
        "length": 8 + _LOGS,
        "inbox": _INBOX,
        "arguments": 24,
        "job": 8,
        "now": 8,
    }
    for name, size in regions.items():
        notes[name] = guest.call("calloc", 1, size)
    # Side by side, so that one read tells the host what there is to read.
    notes["logs"] = notes["length"] + 8
    notes["file"] = bytes_of("input")
    function = guest.call("JS_Eval", context, bytes_of(driver), len(driver.encode()), bytes_of("driver.js"), 0)
    arguments = [
        guest.call("JS_GetGlobalObject", programs),
        guest.call("JS_GetGlobalObject", expressions),
        guest.call("JS_NewArrayBuffer", context, notes["logs"], _LOGS, 0, 0, 0),
    ]
    for number, value in enumerate(arguments):
        guest.write(bytearray((value % 2**64).to_bytes(8, "little")), notes["arguments"] + 8 * number)
    functions = checked(guest.call("JS_Call", context, checked(function), _UNDEFINED, 3, notes["arguments"]))
    for number, name in enumerate(("start", "uncaught", "finish")):
        notes[name] = guest.call("JS_GetPropertyUint32", context, functions, number)
    guest.call_void("JS_RunGC", runtime)
    # A collection visits every object, and so copies every page of the image: small calls should end before one.
    guest.call_void("JS_SetGCThreshold", runtime, _COLLECT_AT)
    return notes


def _stack_limit(guest: machine.Guest, runtime: int) -> int:
    """The address of the lowest address that the stack may reach, a field of the runtime.

    Built for WASI, QuickJS checks against the limit and never sets it, so that recursion would run over whatever lies
    below the stack. The field follows the size and the top, and the size can be set.
    """
    size = 0x51AC5
    guest.call_void("JS_SetMaxStackSize", runtime, size)
    words = struct.unpack("<128I", guest.read(runtime, 512))
    if words.count(size) != 1 or words[words.index(size) + 2]:
        raise RuntimeError("this build of QuickJS does not keep its stack limit where it was expected")
    return runtime + 4 * (words.index(size) + 2)


def _reactor() -> bytes:
    # The distribution is data only: it has no package to import, and is found through its list of files.
    for file in importlib.metadata.files("qjs-wasi-reactor.wasm") or ():
        if file.name == _REACTOR:
            return file.read_binary()
    raise RuntimeError(f"{_REACTOR} is not installed")


@attrs.define
class _Loaded:
    """What a runtime has in one process. None of it survives a fork: threads are gone, locks may be held for ever."""

    lock: threading.Lock = attrs.field(factory=threading.Lock)
    runner: machine.Machine | None = None
    notes: dict[str, int] = attrs.field(factory=dict)


class JavaScript:
    """A JavaScript runtime for untrusted code. Calls block; any number of threads may call at once.

    Every call has a fresh instance: nothing that one does can be seen by another, and the same source, input, `seed`
    and `now` give the same result. There is no host object to reach: no files, network, environment, timers, modules.
    Code is strict. Integers beyond 2^53 - 1 are refused on the way in; NaN, infinities, functions, symbols, BigInts,
    promises, invalid dates and cycles on the way out. As with `JSON.stringify`, properties that are undefined are left
    out and undefined in an array is null; a Date is its ISO text. A Map with string keys is an object, a Set or a typed
    array an array.
    """

    def __init__(self, *, cache_dir: Path | None = None, instances: int | None = None) -> None:
        """Make a runtime; the engine itself is loaded by the first call, from `cache_dir` if it was compiled before.

        Args:
            cache_dir: where compiled code is kept; the user's cache directory if not given.
            instances: how many calls run at once (further ones wait); the number of processors if not given.
        """
        if instances is not None and instances < 1:
            raise ValueError("instances must be at least 1")
        self._cache = cache.Cache(cache_dir)
        self._instances = instances or max(2, os.cpu_count() or 1)
        self._first = os.getpid()
        self._loaded: dict[int, _Loaded] = {}
        self._closed = False

    def check(self, source: str, *, expression: bool = False) -> None:
        """Parse `source`, a function's body or an expression, and execute nothing.

        Raises:
            SandboxError: with code `syntax`, and the line.
        """
        head = {"mode": "check", "source": source, "expression": expression}
        self._call(head, b"null", Limits(), now=0.0, source=source)

    def run(
        self, source: str, context: Mapping[str, Any], *, limits: Limits | None = None, seed: int, now: float
    ) -> Completed:
        """Run `source` as the body of an async function of `context`; what it returns is the value.

        Args:
            source: for example `return {...context.input, total: context.input.qty * 3}`. Undefined becomes None.
            context: JSON; the program may change its copy.
            limits: the defaults, if not given.
            seed: any integer; determines `Math.random`.
            now: the time that the program sees, in seconds since 1970. It stands still.

        Raises:
            SandboxError: see there for its codes.
        """
        limits = limits or Limits()
        head = {"mode": "run", "source": source, "seed": _seed(seed), "logs": limits.logs, "output": limits.output}
        answer, logs = self._call(head, encode(context), limits, now=now, source=source)
        if answer[:1] == b"u":
            return Completed(None, logs)
        try:
            value = decode(answer[1:])
            if may_hold_halves(answer):
                refuse(value, "not_json")
        except SandboxError as error:
            error.logs = logs
            raise
        return Completed(value, logs)

    def evaluate(
        self,
        expressions: Sequence[str],
        scope: Mapping[str, Any],
        *,
        limits: Limits | None = None,
        seed: int,
        now: float,
    ) -> list[Evaluated]:
        """Evaluate expressions over the names in `scope`, each on its own, all in one crossing.

        Each sees `scope` as it was given, and the language as it was made: its intrinsics are frozen here. One that
        fails is an `Evaluated` of kind `error`; only what ends the guest (time, memory, output) ends the call.

        Raises:
            SandboxError: for a limit, or for scope that is not JSON.
            ValueError: a name in `scope` is no identifier.
        """
        limits = limits or Limits()
        # Scope can be large and expressions read little of it: what none of them names is not sent.
        everything = any("\\" in text for text in expressions)
        texts = {}
        for name, value in scope.items():
            if not _IDENTIFIER.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a name in an expression")
            if everything or any(name in text for text in expressions):
                texts[name] = _encode_named(name, value)
        head = {
            "mode": "evaluate",
            "expressions": list(expressions),
            "scope": texts,
            "seed": _seed(seed),
            "output": limits.output,
        }
        answer, _ = self._call(head, b"null", limits, now=now, source=None)
        halves = may_hold_halves(answer)
        try:
            return [_evaluated(item, halves=halves) for item in decode(answer[1:])]
        except (TypeError, LookupError):
            raise SandboxError("crashed", "the guest gave no answer") from None

    def close(self) -> None:
        """Wait for the calls that are running, and give everything back. Calls after this raise RuntimeError."""
        self._closed = True
        here = self._loaded.pop(os.getpid(), None)
        if here:
            with here.lock:
                ready = here.runner
            if ready:
                ready.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one call ---------------------------------------------------------------------------------------------------

    def _call(
        self, head: Mapping[str, Any], body: bytes, limits: Limits, *, now: float, source: str | None
    ) -> tuple[bytearray, tuple[LogLine, ...]]:
        """The answer of the driver (a letter and JSON) and the logs; raises `SandboxError` for failures."""
        try:
            first = json.dumps(head, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise SandboxError("syntax", "the source holds half a surrogate pair") from None
        return machine.on_large_stack(lambda: self._on_guest((first, body), limits, now, source))

    def _on_guest(
        self, texts: tuple[bytes, bytes], limits: Limits, now: float, source: str | None
    ) -> tuple[bytearray, tuple[LogLine, ...]]:
        runner, notes = self._ready()
        request = _request(*texts, now=now, stack=limits.stack)
        with runner.guest(limits) as guest:
            try:
                answer = _answer(guest, notes, request, limits)
            except machine.Stopped as stopped:
                code, message = {
                    "timeout": ("timeout", f"stopped after {limits.time:g} seconds"),
                    "stack": ("exception", "RangeError: Maximum call stack size exceeded"),
                }.get(stopped.reason, ("crashed", f"the guest broke: {stopped}"))
                raise SandboxError(code, message, logs=_logs(guest, notes, limits)) from None
            except SandboxError as error:
                error.logs = _logs(guest, notes, limits)
                raise
            logs = _logs(guest, notes, limits)
            if not answer:
                raise SandboxError("crashed", "the guest gave no answer", logs=logs)
            full = guest.size() > limits.memory - _ALMOST_FULL
        if answer[0] not in b"vu":
            _fail(answer[1:], source, logs, full=full)
        return answer, logs

    # ---- loading ----------------------------------------------------------------------------------------------------

    def _ready(self) -> tuple[machine.Machine, dict[str, int]]:
        process = os.getpid()
        here = self._loaded.get(process) or self._loaded.setdefault(process, _Loaded())
        if not here.runner:
            with here.lock:
                if self._closed:
                    raise RuntimeError("this JavaScript runtime is closed")
                if not here.runner:
                    engine = machine.engine(parallel=process == self._first)
                    module, here.notes = self._module(engine)
                    here.runner = machine.Machine(engine, module, instances=self._instances)
        return here.runner, here.notes

    def _module(self, engine: wasmtime.Engine) -> tuple[wasmtime.Module, dict[str, int]]:
        package = importlib.resources.files("orchestrator_nodes_std.sandbox")
        driver, *made_by = (package.joinpath(name).read_text("utf-8") for name in _MADE_BY)
        binary = _reactor()
        key = cache.key_of(importlib.metadata.version("wasmtime"), cache.processor(), binary, driver, *made_by)
        entry = self._cache.load(key)
        if entry:
            with contextlib.suppress(wasmtime.WasmtimeError):
                return wasmtime.Module.deserialize(engine, entry.code), entry.notes
        image, notes = _image(binary, driver, parallel=os.getpid() == self._first)
        module = wasmtime.Module(engine, image)
        self._cache.store(key, cache.Entry(notes, bytes(module.serialize())))
        return module, notes


def _answer(guest: machine.Guest, notes: Mapping[str, int], request: bytearray, limits: Limits) -> bytearray:
    """What `run` answers for `request`."""
    at = notes["inbox"] if len(request) <= _INBOX else guest.call("malloc", len(request))
    if not at:
        raise SandboxError("memory_limit", "the input does not fit into the memory limit")
    guest.write(request, at)
    text = guest.call("run", at) % 2**32
    if text in (0, 2**32 - 1):
        if guest.size() > limits.memory - _ALMOST_FULL:
            raise SandboxError("memory_limit", f"more than {limits.memory} bytes of memory were needed")
        if text:
            raise SandboxError("input", "the input nests too deeply")
        raise SandboxError("crashed", "the guest gave no answer")
    size = _number(guest.read(notes["length"], 4))
    if size - 1 > limits.output and guest.read(text, 1) != b"e":
        raise SandboxError("output_limit", f"the result has more than {limits.output} bytes")
    return guest.read(text, min(size, limits.output + _MAX_REPORT))


def _seed(seed: int) -> list[int]:
    digest = hashlib.sha256(str(seed).encode()).digest()
    return [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4)]


def _encode_named(name: str, value: Any) -> str:
    try:
        return encode(value).decode()
    except SandboxError as error:
        raise SandboxError("input", error.message.replace("$", f"$.{name}", 1)) from None


def _evaluated(item: Sequence[Any], *, halves: bool) -> Evaluated:
    kind = item[0]
    if kind == "u":
        return Evaluated("undefined")
    if kind == "e":
        return Evaluated("error", message=str(item[1]))
    try:
        if halves:
            refuse(item[1], "not_json")
    except SandboxError as error:
        return Evaluated("error", message=error.message)
    return Evaluated("value", value=item[1])


def _number(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "little")


def _logs(guest: machine.Guest, notes: Mapping[str, int], limits: Limits) -> tuple[LogLine, ...]:
    """The lines in the guest's memory. The guest wrote them: nothing they say is trusted."""
    at = notes["logs"]
    head = guest.read(at, 8)
    used = min(_number(head[:4]), limits.logs)
    data = guest.read(at + 8, used) if used else bytearray()
    lines = []
    position = 0
    while position + 5 <= len(data):
        size = _number(data[position + 1 : position + 5])
        text = data[position + 5 : position + 5 + size].decode("utf-8", "ignore")
        lines.append(LogLine(_LEVELS[data[position] % len(_LEVELS)], text))
        position += 5 + size
    if _number(head[4:]):
        lines.append(LogLine("warning", f"console output beyond {limits.logs} bytes was dropped"))
    return tuple(lines)


# ---- errors ---------------------------------------------------------------------------------------------------------


def _fail(answer: bytearray, source: str | None, logs: tuple[LogLine, ...], *, full: bool) -> NoReturn:
    """Raise what the driver reports: {code, message, stack}. `full`: the guest had little memory left."""
    try:
        report = json.loads(answer)
        code, message, stack = str(report["code"]), str(report["message"]), str(report["stack"])
    except (ValueError, TypeError, KeyError):
        raise SandboxError("crashed", "the guest gave no answer", logs=logs) from None
    if code not in _REPORTED:
        raise SandboxError("crashed", "the guest gave no answer", logs=logs)
    if full and code == "exception" and message == "null was thrown":  # there was no memory for an error
        code, message = "memory_limit", "out of memory"
    line, snippet = _place(source, code, message, stack) if source is not None else (None, None)
    raise SandboxError(code, message, line=line, snippet=snippet, logs=logs)


def _place(source: str, code: str, message: str, stack: str) -> tuple[int | None, str | None]:
    """The line of the user's source that an error comes from, if it can be told, and its text."""
    lines = source.split("\n")
    places = (_IN_TEXT if code == "syntax" else _IN_FUNCTION).findall(stack)
    numbers = [int(number) - _BEFORE_SOURCE for number in places]
    line = next((number for number in numbers if 1 <= number <= len(lines)), None)
    if code == "syntax" and numbers and numbers[0] > len(lines):
        line = len(lines)  # something is not closed, which shows where the source ends
    elif stack and (name := _NAMED.search(message)):
        line = _line_naming(lines, line or 1, next(filter(None, name.groups()))) or line
    if line is None:
        return None, None
    return line, lines[line - 1].strip()[:_MAX_SNIPPET]


def _line_naming(lines: Sequence[str], first: int, name: str) -> int | None:
    # QuickJS notes lines for calls, `throw` and expression statements only. An error in a `return` or `const` is said
    # to be at the last of those before it; the name in the message tells which line was meant.
    pattern = re.compile(rf"(?<![\w$]){re.escape(name)}(?![\w$])")
    return next((number for number in range(first, len(lines) + 1) if pattern.search(lines[number - 1])), None)
