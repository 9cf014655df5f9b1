"""QuickJS-NG as a guest: making the image that calls are instances of, and the request that a call begins with.

An image holds three realms (one for the driver, `driver.js`; one that programs run in; a frozen one that expressions run
in), and room for input, logs and a stack. A call is then one crossing into a fresh instance of it: the request is
written into memory, `run` parses it, calls the driver, runs the jobs that promises wait for and the timers that are due
when no job is left, and the answer is read as UTF-8.
"""

import importlib.metadata
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import wasmtime

from orchestrator_nodes_std.sandbox import machine
from orchestrator_nodes_std.sandbox.values import MAX_LOGS, MAX_STACK
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

INBOX = 64 * 1024
"""Bytes kept ready for requests; larger ones are allocated."""
_REACTOR = "qjs-wasi-reactor.wasm"
_LOGS = 8 + MAX_LOGS  # a head, and the lines
_STACK_SLACK = 128 * 1024  # bytes below the stack's limit, for what C functions take without asking
_COLLECT_AT = 4 * 1024 * 1024  # bytes in use when garbage is collected first
_COMPILE_ONLY, _BYTECODE, _STRIPPED = 1 << 5, 1 << 0, 1 << 0 | 1 << 4 | 1 << 5  # flags of QuickJS
_UNDEFINED, _TRUE, _EXCEPTION_TAG = 3 << 32, 1 << 32 | 1, 6  # values as QuickJS writes them in 64 bits

# Instructions of WebAssembly; those that touch memory say their alignment, and loads leave the offset to be said.
_GET, _SET, _TEE, _SET_GLOBAL, _CALL, _DROP = b"\x20", b"\x21", b"\x22", b"\x24", b"\x10", b"\x1a"
_LOAD32, _LOAD64, _STORE32, _STORE64 = b"\x28\x02", b"\x29\x03", b"\x36\x02\x00", b"\x37\x03\x00"
_UNREACHABLE, _LOOP, _IF, _BRANCH_IF, _RETURN, _BLOCK_END = b"\x00", b"\x03\x40", b"\x04\x40", b"\x0d", b"\x0f", b"\x0b"
_ADD32, _SUBTRACT32, _EQUAL32, _EQUAL64, _LESS32 = b"\x6a", b"\x6b", b"\x46", b"\x51", b"\x48"
_SHIFT64, _WRAP64 = b"\x88", b"\xa7"


@attrs.frozen
class Script:
    """A script whose value is a function of the object that the scripts of its bundle share."""

    name: str
    text: str


@attrs.frozen
class Bundle:
    """Scripts that are run one after the other in a realm, and share an object.

    It holds at first: `global`, the realm's global object; `data` (an object of JSON values); `clock` and `needs`, ArrayBuffers over the
    cells that hold the time (nanoseconds since 1970) and what the call turned out to need (bits).
    """

    scripts: Sequence[Script]
    data: Mapping[str, Any]


@attrs.frozen
class Recipe:
    """What makes an image: the bundles of the realm of user code, then the driver, a function of what they share."""

    driver: Script
    bundles: Sequence[Bundle]


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
    """`run()`: a whole call.

    The cell `request` holds the address of what `request` writes; the cell `answer` then that of a text, whose length is
    in the cell `length`. 0: no answer could be made; -1: the input did not fit. (Cells, since a call with a parameter and
    a result costs wasmtime's Python twice as much as one without.)
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
            + (_IF + _i32(notes["answer"]) + _i32(-1) + _STORE32 + _RETURN + _BLOCK_END)
        )

    def driver(function: int, arguments: int) -> bytes:
        return (
            (_i32(notes["context"]) + _i64(function) + _i64(_UNDEFINED))
            + (_i32(arguments) + _i32(notes["arguments"]))
            + call("JS_Call")
        )

    runtime = _i32(notes["runtime"])
    jobs = (
        (_LOOP + runtime + _i32(notes["job"]) + call("JS_ExecutePendingJob") + _TEE + unsigned(2))
        + (_i32(0) + _LESS32 + _IF)
        + (_i32(notes["arguments"]) + _i32(notes["realm"]) + call("JS_GetException") + _STORE64)
        + (driver(notes["uncaught"], 1) + _DROP + _BLOCK_END)
        + (_get(2) + _BRANCH_IF + unsigned(0) + _BLOCK_END)
    )
    code = (
        (_i32(stack_pointer) + _SET_GLOBAL + unsigned(0))
        + (_i32(notes["request"]) + _LOAD32 + unsigned(0) + _SET + unsigned(0))
        + (_i32(notes["stack_limit"]) + _i32(stack_pointer) + field(4) + _SUBTRACT32 + _STORE32)
        + (_i32(notes["now"]) + _get(0) + _LOAD64 + unsigned(0) + _STORE64)
        + text(notes["context"], _i32(_HEAD.size), field(2), 0)
        + text(notes["realm"], _i32(_HEAD.size + 1) + field(2) + _ADD32, field(3), 1)
        + driver(notes["start"], 2)
        + (_i64(_TRUE) + _EQUAL64)
        + (_IF + _LOOP + jobs + driver(notes["tick"], 0) + _i64(_TRUE) + _EQUAL64)
        + (_BRANCH_IF + unsigned(0) + _BLOCK_END + _BLOCK_END)
        + (
            _i32(notes["answer"])
            + _i32(notes["context"])
            + _i32(notes["length"])
            + driver(notes["finish"], 0)
            + _i32(0)
        )
        + (call("JS_ToCStringLen2") + _STORE32)
    )
    return Function(FunctionType(b"", b""), code, locals=bytes([I32, I64, I32]))


_CELLS = struct.Struct("<IIII")  # the length of the answer, what was needed, the addresses of answer and request


def cells(guest: machine.Guest, notes: Mapping[str, int]) -> tuple[int, int, int]:
    """After a call: the length of the answer's text, what the call turned out to need (bits), the text's address."""
    length, needs, answer, _ = _CELLS.unpack(guest.read(notes["length"], _CELLS.size))
    return length, needs, answer


# What precedes the two texts of a request: now (nanoseconds), their sizes without the zero byte that ends each, stack.
_HEAD = struct.Struct("<QIII")


def request(head: bytes, body: bytes, *, now: float, stack: int) -> bytes:
    """What `run` takes: the JSON of the driver's request and of the program's context; `now` in seconds."""
    # Seconds as a float are exact to some hundred nanoseconds only: rounding keeps a whole millisecond whole.
    time = min(max(0, round(now * 1e6) * 1000), 2**63 - 1)
    return b"%b%b\0%b\0" % (_HEAD.pack(time, len(head), len(body), stack), head, body)


def reactor() -> bytes:
    """QuickJS-NG as a WebAssembly module."""
    # The distribution is data only: it has no package to import, and is found through its list of files.
    for file in importlib.metadata.files("qjs-wasi-reactor.wasm") or ():
        if file.name == _REACTOR:
            return file.read_binary()
    raise RuntimeError(f"{_REACTOR} is not installed")


def image(recipe: Recipe, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
    """The module that calls are instances of, and the addresses in it that the host needs."""
    library = WasmModule(reactor())
    names = [name for name in library.exports if name == "memory" or name.startswith(("JS_", "_init", "calloc"))]
    engine = machine.engine(optimise=False, parallel=parallel)
    module = wasmtime.Module(engine, library.link(refuse=_refusing(None), keep=names))

    def initialised(store: wasmtime.Store) -> _Maker:
        store.set_epoch_deadline(1)  # nothing steps this engine's epoch
        return _Maker(machine.Guest(store, wasmtime.Instance(store, module, [])))

    # Compiled elsewhere, so that neither the texts nor what compiling leaves behind are part of every call's memory.
    scripts = (recipe.driver, *(script for bundle in recipe.bundles for script in bundle.scripts))
    with wasmtime.Store(engine) as store:
        maker = initialised(store)
        compiled = {script: maker.compiled(script) for script in scripts}
    with wasmtime.Store(engine) as store:
        maker = initialised(store)
        maker.make(recipe, compiled)
        notes, memory = maker.notes, maker.memory()
    stack_pointer = (notes["stack"] + _STACK_SLACK + MAX_STACK) & ~15
    module_of_image = library.link(
        refuse=_refusing(notes["now"]),
        keep=["memory", "malloc"],
        add={"run": _run(library, notes, stack_pointer)},
        snapshot=Snapshot(memory, stack_pointer),
    )
    return module_of_image, notes


def _number(data: bytes | bytearray) -> int:
    return int.from_bytes(data, "little")


class _Maker:
    """A guest that becomes an image."""

    def __init__(self, guest: machine.Guest) -> None:
        """Start the runtime, and make its realms and regions."""
        self._guest = guest
        guest.call_void("_initialize")
        runtime = guest.call("JS_NewRuntime")
        self._driver, self._realm = (guest.call("JS_NewContext", runtime) for _ in range(2))
        self.notes = {
            "runtime": runtime,
            "context": self._driver,
            "realm": self._realm,
            "stack_limit": _stack_limit(guest, runtime),
        }
        # What is empty in the beginning stands together: it is cleared before each call, not copied.
        regions = {
            "stack": _STACK_SLACK + MAX_STACK,
            "inbox": INBOX,
            "logs": _LOGS,
            "length": _CELLS.size,
            "arguments": 24,
            "job": 8,
            "now": 8,
        }
        at = guest.call("calloc", 1, sum(regions.values()) + 16)
        at += -at % 16
        for name, size in regions.items():
            self.notes[name] = at
            at += size
        # Side by side, so that one read tells the host what there is to read.
        for number, name in enumerate(("needs", "answer", "request"), 1):
            self.notes[name] = self.notes["length"] + 4 * number
        guest.write(self.notes["inbox"].to_bytes(4, "little"), self.notes["request"])
        self.notes["file"] = self._staged(b"input", keep=True)

    def memory(self) -> bytes:
        """All of its memory."""
        # Texts were staged where calls have their stack.
        size = _STACK_SLACK + MAX_STACK
        self._guest.write(bytes(size), self.notes["stack"])
        return self._guest.read(0, self._guest.size())

    def compiled(self, script: Script) -> bytes:
        """The bytecode of `script`, without its source and its lines."""
        text = script.text.encode()
        made = self._checked(
            self._guest.call(
                "JS_Eval",
                self._driver,
                self._staged(text, keep=True),
                len(text),
                self._staged(script.name.encode(), keep=True),
                _COMPILE_ONLY,
            ),
            script.name,
        )
        at = self._guest.call("JS_WriteObject", self._driver, self.notes["length"], made, _STRIPPED)
        return self._guest.read(at, _number(self._guest.read(self.notes["length"], 4)))

    def make(self, recipe: Recipe, compiled: Mapping[Script, bytes]) -> None:
        """Run all scripts, and note the functions of the driver."""
        guest, notes = self._guest, self.notes
        shared = []
        guest.call("JS_AddIntrinsicDOMException", self._realm)
        for bundle in recipe.bundles:
            shared.append(self._shared(self._realm, bundle.data))
            for script in bundle.scripts:
                self._called(self._realm, compiled[script], script.name, shared[-1])
        logs = guest.call("JS_NewArrayBuffer", self._driver, notes["logs"], _LOGS, 0, 0, 0)
        functions = self._called(self._driver, compiled[recipe.driver], recipe.driver.name, shared[0], logs)
        for number, name in enumerate(("start", "uncaught", "tick", "finish")):
            notes[name] = guest.call("JS_GetPropertyUint32", self._driver, functions, number)
        guest.write(bytes(24), notes["arguments"])
        guest.call_void("JS_RunGC", notes["runtime"])
        # A collection visits every object, and so copies every page of the image: small calls should end before one.
        guest.call_void("JS_SetGCThreshold", notes["runtime"], _COLLECT_AT)

    def _shared(self, context: int, data: Mapping[str, Any]) -> int:
        """A new object for the scripts of a bundle."""
        guest, notes = self._guest, self.notes
        values = {
            "global": guest.call("JS_GetGlobalObject", context),
            "clock": guest.call("JS_NewArrayBuffer", context, notes["now"], 8, 0, 0, 0),
            "needs": guest.call("JS_NewArrayBuffer", context, notes["needs"], 4, 0, 0, 0),
            # Piece by piece: a text of all of it would leave a hole of its size in every call's memory.
            "data": self._object(context, {name: self._json(context, value) for name, value in data.items()}),
        }
        return self._object(context, values)

    def _object(self, context: int, values: Mapping[str, int]) -> int:
        made = self._guest.call("JS_NewObject", context)
        for name, value in values.items():
            self._guest.call(
                "JS_SetPropertyStr", context, made, self._staged(name.encode()), self._checked(value, name)
            )
        return made

    def _json(self, context: int, value: Any) -> int:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        return self._guest.call("JS_ParseJSON", context, self._staged(text), len(text), self.notes["file"])

    def _called(self, context: int, bytecode: bytes, name: str, *arguments: int) -> int:
        """What the function answers that the script is."""
        guest = self._guest
        script = guest.call("JS_ReadObject", context, self._staged(bytecode), len(bytecode), _BYTECODE)
        function = self._checked(guest.call("JS_EvalFunction", context, self._checked(script, name)), name)
        packed = struct.pack(f"<{len(arguments)}Q", *(value % 2**64 for value in arguments))
        guest.write(packed, self.notes["arguments"])
        answer = guest.call("JS_Call", context, function, _UNDEFINED, len(arguments), self.notes["arguments"])
        return self._checked(answer, name)

    def _staged(self, data: bytes, *, keep: bool = False) -> int:
        """The address of `data` and a zero byte after it, until the next is staged, or for good."""
        ended = data + b"\0"
        if keep or len(ended) > _STACK_SLACK + MAX_STACK:
            at = self._guest.call("calloc", 1, len(ended))
        else:
            at = self.notes["stack"]
        self._guest.write(ended, at)
        return at

    def _checked(self, value: int, name: str) -> int:
        if value >> 32 != _EXCEPTION_TAG:
            return value
        for context in (self._driver, self._realm):
            error = self._guest.call("JS_GetException", context)
            text = self._guest.call("JS_ToCStringLen2", context, self.notes["length"], error, 0)
            message = self._guest.read(text, _number(self._guest.read(self.notes["length"], 4))).decode()
            if message not in ("null", "[uninitialized]"):
                break
        raise RuntimeError(f"{name}, of the JavaScript sandbox, does not start: {message}")


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
