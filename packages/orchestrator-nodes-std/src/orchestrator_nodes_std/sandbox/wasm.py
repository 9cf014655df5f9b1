"""Reading and rewriting WebAssembly modules, as far as the sandbox needs it.

A language runtime arrives as a module that imports WASI. The sandbox never gives it WASI; it makes a new module of it:

* every imported function becomes a function of the module itself, at the same index, with a body that refuses. The
  result has **no imports**, so there is nothing of the host that a guest could call, and no host callback to get wrong;
* only the exports that are used remain;
* the linear memory of an initialised instance becomes the data of the module (a snapshot), so that an instance of it
  begins where initialisation ended, and every instance begins alike.

Only the part of the binary format that such modules use is understood; anything else raises `WasmError`.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs

_MAGIC = b"\x00asm\x01\x00\x00\x00"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _MEMORY, _GLOBAL, _EXPORT, _START, _CODE, _DATA = 0, 1, 2, 3, 5, 6, 7, 8, 10, 11
_EXPORT_FUNCTION, _EXPORT_MEMORY, _EXPORT_GLOBAL = 0, 2, 3
_END = 0x0B
_I32_CONST = 0x41

PAGE = 65536
"""The size of a page of linear memory, in bytes."""

I32, I64 = 0x7F, 0x7E
"""Value types, as the binary format writes them."""


class WasmError(Exception):
    """The module uses a part of the format that is not understood here, or lacks what is asked of it."""


def unsigned(number: int) -> bytes:
    """`number` (not negative) as unsigned LEB128."""
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        if not number:
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def signed(number: int) -> bytes:
    """`number` as signed LEB128."""
    out = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        if (number == 0 and not byte & 0x40) or (number == -1 and byte & 0x40):
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def _vector(items: Sequence[bytes]) -> bytes:
    return unsigned(len(items)) + b"".join(items)


def _sized(content: bytes) -> bytes:
    return unsigned(len(content)) + content


class _Reader:
    """A position in bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def sized(self) -> bytes:
        return self.take(self.number())


@attrs.frozen
class FunctionType:
    """The parameters and results of a function: value types (`I32`, `I64`, …)."""

    parameters: bytes
    results: bytes

    def encoded(self) -> bytes:
        """As an entry of the type section."""
        return b"\x60" + _sized(self.parameters) + _sized(self.results)


@attrs.frozen
class Function:
    """A function to add: its type, its locals beyond the parameters (value types), and its instructions."""

    type: FunctionType
    code: bytes
    locals: bytes = b""

    def encoded(self) -> bytes:
        """As an entry of the code section."""
        groups = [unsigned(1) + bytes([kind]) for kind in self.locals]
        return _sized(_vector(groups) + self.code + bytes([_END]))


@attrs.frozen
class Import:
    """An imported function: the names the module knows it by, and its type."""

    module: str
    name: str
    type: FunctionType


@attrs.frozen
class Snapshot:
    """What an initialised instance had become: its memory, and the value its stack pointer shall begin with."""

    memory: bytes
    stack_pointer: int


def _read_types(data: bytes) -> list[FunctionType]:
    reader = _Reader(data)
    types = []
    for _ in range(reader.number()):
        if reader.byte() != 0x60:
            raise WasmError("a type that is no function type")
        types.append(FunctionType(reader.sized(), reader.sized()))
    return types


def _read_imports(data: bytes, types: Sequence[FunctionType]) -> list[Import]:
    reader = _Reader(data)
    imports = []
    for _ in range(reader.number()):
        module, name = reader.sized().decode(), reader.sized().decode()
        if reader.byte() != _EXPORT_FUNCTION:
            raise WasmError(f"{module}.{name} is imported and is no function")
        imports.append(Import(module, name, types[reader.number()]))
    return imports


def _read_exports(data: bytes) -> dict[str, tuple[int, int]]:
    reader = _Reader(data)
    return {reader.sized().decode(): (reader.byte(), reader.number()) for _ in range(reader.number())}


def _segments(memory: bytes) -> list[bytes]:
    """The memory as active data segments, without its empty pages (fresh memory is zero anyway)."""
    segments: list[bytes] = []
    empty = bytes(4096)
    start: int | None = None
    for at in range(0, len(memory) + 4096, 4096):
        page = memory[at : at + 4096]
        if page and page != empty:
            start = at if start is None else start
        elif start is not None:
            head = b"\x00" + bytes([_I32_CONST]) + signed(start) + bytes([_END])
            segments.append(head + _sized(memory[start:at]))
            start = None
    return segments


class WasmModule:
    """A module taken apart; `link` makes new modules of it, and changes nothing here."""

    def __init__(self, binary: bytes) -> None:
        """Read `binary`; raises `WasmError` when it is not such a module."""
        if binary[:8] != _MAGIC:
            raise WasmError("not a WebAssembly module")
        self._sections: dict[int, bytes] = {}
        reader = _Reader(binary)
        reader.take(8)
        while reader:
            kind, content = reader.byte(), reader.sized()
            if kind == _CUSTOM:  # names and debug information
                continue
            if kind in self._sections or kind > _DATA or kind == _START:
                raise WasmError(f"a section of kind {kind} that is not understood")
            self._sections[kind] = content
        self.types = _read_types(self._sections[_TYPE])
        self.imports = _read_imports(self._sections.get(_IMPORT, b"\x00"), self.types)
        self.exports = _read_exports(self._sections[_EXPORT])

    def function(self, name: str) -> int:
        """The index of the exported function `name`, the same in every module that `link` makes."""
        kind, index = self.exports.get(name, (None, 0))
        if kind != _EXPORT_FUNCTION:
            raise WasmError(f"the module exports no function {name}")
        return index

    def link(
        self,
        *,
        refuse: Callable[[Import], Function] | None,
        keep: Sequence[str],
        add: Mapping[str, Function] | None = None,
        snapshot: Snapshot | None = None,
    ) -> bytes:
        """A module without imports.

        `refuse` gives the body that stands for an import (None: imports remain, for making a snapshot); `keep` names
        the exports that remain; `add` holds new exported functions; `snapshot` replaces data, memory size and the stack
        pointer's first value. A module with a snapshot exports its stack pointer too, as `stack_pointer`.
        """
        types = list(self.types)
        added = list((add or {}).items())
        own = _Reader(self._sections[_FUNCTION])
        own_count = own.number()
        own_types = [own.number() for _ in range(own_count)]
        code = _Reader(self._sections[_CODE])
        code_count = code.number()
        stubs = [refuse(item) for item in self.imports] if refuse else []
        for function in [*stubs, *(function for _, function in added)]:
            if function.type not in types:
                types.append(function.type)
        function_types = [
            *(types.index(stub.type) for stub in stubs),
            *own_types,
            *(types.index(function.type) for _, function in added),
        ]
        bodies = [
            unsigned(len(stubs) + code_count + len(added)),
            *(stub.encoded() for stub in stubs),
            code.take(len(code.data)),
            *(function.encoded() for _, function in added),
        ]
        exports = {name: self.exports[name] for name in keep}
        first = len(self.imports) + own_count
        exports |= {name: (_EXPORT_FUNCTION, first + number) for number, (name, _) in enumerate(added)}
        if snapshot:
            exports["stack_pointer"] = (_EXPORT_GLOBAL, 0)
        sections = self._sections | {
            _TYPE: _vector([item.encoded() for item in types]),
            _FUNCTION: _vector([unsigned(index) for index in function_types]),
            _CODE: b"".join(bodies),
            _EXPORT: _vector([_sized(n.encode()) + bytes([kind]) + unsigned(i) for n, (kind, i) in exports.items()]),
        }
        if refuse:
            sections.pop(_IMPORT, None)
        if snapshot:
            sections |= self._frozen(snapshot)
        return _MAGIC + b"".join(bytes([kind]) + _sized(sections[kind]) for kind in sorted(sections))

    def _frozen(self, snapshot: Snapshot) -> dict[int, bytes]:
        memory = _Reader(self._sections[_MEMORY])
        if memory.number() != 1 or memory.byte() != 0:
            raise WasmError("the module needs one memory without a maximum")
        return {
            _MEMORY: b"\x01\x00" + unsigned(len(snapshot.memory) // PAGE),
            _GLOBAL: self._globals(snapshot.stack_pointer),
            _DATA: _vector(_segments(snapshot.memory)),
        }

    def _globals(self, stack_pointer: int) -> bytes:
        # A snapshot has to hold every mutable global. C compiles to exactly one, the stack pointer; a module with
        # more would lose state, so it is refused.
        reader = _Reader(self._sections[_GLOBAL])
        entries = []
        for number in range(reader.number()):
            kind, mutable, opcode = reader.byte(), reader.byte(), reader.byte()
            if opcode != _I32_CONST or kind != I32 or mutable != (number == 0):
                raise WasmError("globals other than a stack pointer and constants")
            begin = reader.at
            reader.number()
            value = reader.data[begin : reader.at]
            if reader.byte() != _END:
                raise WasmError("a global with a computed value")
            value = signed(stack_pointer) if mutable else value
            entries.append(bytes([kind, mutable, _I32_CONST]) + value + bytes([_END]))
        return _vector(entries)
