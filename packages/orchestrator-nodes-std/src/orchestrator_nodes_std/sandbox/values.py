"""What goes into a sandbox and what comes out: limits, results, errors, and JSON that means the same on both sides."""

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import attrs

_KIB = 1024
_MIB = 1024 * _KIB
MAX_LOGS = 256 * _KIB
"""The most that `Limits.logs` may ask for, in bytes: the guest keeps this much memory free for console output."""
MAX_STACK = 512 * _KIB
"""The most that `Limits.stack` may ask for, in bytes."""
MIN_MEMORY = 8 * _MIB
"""The least that `Limits.memory` may ask for, in bytes: the language runtime itself has to fit."""
SAFE_INTEGER = 2**53 - 1
"""The largest integer of which every neighbour is exact in a double, which is what a JavaScript number is."""


def _within(least: float, most: float) -> Any:
    def check(_: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"the limit {attribute.name!r} must be from {least} to {most}, not {value}")

    return check


@attrs.frozen
class Limits:
    """What one call may use.

    `time` is in seconds of wall time, from entering the guest; all else is in bytes: `memory` (everything the guest
    has, its runtime, stack and logs included, which is some 2 MiB), `output` (the result as
    JSON in UTF-8), `logs` (what goes beyond is dropped, and a last line says so), `stack` (of the guest's language).
    """

    time: float = attrs.field(default=5.0, validator=_within(0.001, 86_400))
    memory: int = attrs.field(default=64 * _MIB, validator=_within(MIN_MEMORY, 4096 * _MIB))
    output: int = attrs.field(default=8 * _MIB, validator=_within(1, 2048 * _MIB))
    logs: int = attrs.field(default=256 * _KIB, validator=_within(0, MAX_LOGS))
    stack: int = attrs.field(default=MAX_STACK, validator=_within(32 * _KIB, MAX_STACK))


@attrs.frozen
class LogLine:
    """One call of `console`: `level` is `debug`, `info`, `warning` or `error`."""

    level: str
    message: str


@attrs.frozen
class Completed:
    """How a program ended: its value (JSON), and what it logged, in order."""

    value: Any
    logs: tuple[LogLine, ...] = ()


@attrs.frozen
class Evaluated:
    """How an expression ended. `kind` is `value` (then `value` is JSON), `undefined`, or `error` (then `message`)."""

    kind: str
    value: Any = None
    message: str = ""


ERROR_CODES = frozenset(
    ["syntax", "exception", "timeout", "memory_limit", "output_limit", "input", "not_json", "crashed", "not_installed"]
)
"""What `SandboxError.code` may be."""


class SandboxError(Exception):
    """User code failed, or was stopped.

    `code` is one of `syntax`, `exception`, `timeout`, `memory_limit`, `output_limit`, `input` (what was given is not
    JSON that the language can hold), `not_json` (what was returned is not JSON), `crashed` (the guest broke; its
    instance is gone), `not_installed` (the language's runtime is missing). `line` is the line of the user's source, from
    1, where it is known, and `snippet` that line.
    `logs` holds what was logged until then.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        line: int | None = None,
        snippet: str | None = None,
        logs: tuple[LogLine, ...] = (),
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.line = line
        self.snippet = snippet
        self.logs = logs

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"{self.message}{where}"


def _plain_mapping(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


# Cycles need no bookkeeping: they end in a RecursionError.
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"), default=_plain_mapping
)
# Digits of a whole number; those behind a point are many in ordinary data, and do no harm.
_LONG_NUMBER = re.compile(rb"(?<![0-9.])[0-9]{16}")


def encode(value: Any, *, doubles: bool = True) -> bytes:
    """The JSON text of `value` in UTF-8; raises `SandboxError` with code `input`, naming the place, where it has none.

    NaN, infinities, halves of surrogate pairs and other types are refused; so are, for a language whose numbers are
    `doubles`, integers beyond 2^53 - 1 either way, which it would silently change. Keys that are numbers become
    strings, as `json` has it.
    """
    try:
        data = _encoder.encode(value).encode()
    except RecursionError:
        refuse(value)
        _bad("input", None, "nests too deeply, or holds itself")
    except (ValueError, TypeError):  # UnicodeEncodeError is a ValueError
        refuse(value)
        _bad("input", None, "is not JSON")
    # Digits in a row are rare, so that only few inputs are walked in Python.
    if doubles and _LONG_NUMBER.search(data):
        refuse(value)
    return data


# A key and the link of what holds it: where a walk has come to.
_Link = tuple[Any, Any]


def refuse(value: Any, code: str = "input") -> None:
    """Raise `SandboxError` for the first part of `value`, in document order, that is not JSON; return if there is none."""
    todo: list[tuple[Any, _Link | None, int]] = [(value, None, 0)]
    while todo:
        item, link, depth = todo.pop()
        if depth > 5000:
            _bad(code, None, "nests too deeply, or holds itself")
        if isinstance(item, str):
            if not _is_unicode(item):
                _bad(code, link, "holds half a surrogate pair")
        elif item is None or isinstance(item, bool):
            pass
        elif isinstance(item, int):
            if abs(item) > SAFE_INTEGER:
                _bad(code, link, "is an integer beyond 2^53 - 1, which JavaScript cannot hold exactly")
        elif isinstance(item, float):
            if not math.isfinite(item):
                _bad(code, link, f"is {item}")
        elif isinstance(item, Mapping):
            for key in item:
                if not _is_unicode(str(key)):
                    _bad(code, link, "has a key that holds half a surrogate pair")
            todo.extend((item[key], (link, key), depth + 1) for key in reversed(list(item)))
        elif isinstance(item, list | tuple):
            todo.extend((item[at], (link, at), depth + 1) for at in range(len(item) - 1, -1, -1))
        else:
            _bad(code, link, f"is of type {type(item).__name__}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(code: str, link: Any, what: str) -> NoReturn:
    keys = []
    while link is not None:
        link, key = link
        keys.append(key)
    place = "$"
    for key in reversed(keys):
        if isinstance(key, int):
            place += f"[{key}]"
        else:
            place += f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"
    raise SandboxError(code, f"{place} {what}")


def decode(data: bytes | bytearray, *, doubles: bool = True) -> Any:
    """The value of a JSON text that a guest wrote; raises `SandboxError` with code `not_json` where it is none.

    In a language whose numbers are `doubles`, an integer beyond 2^53 - 1 was one, and stays one.
    """
    try:
        text = data.decode()
        decoder = _doubles if doubles and _LONG_NUMBER.search(data) else _exact
        return decoder.decode(text)
    except (ValueError, RecursionError):
        raise SandboxError("not_json", "the result is not JSON, or nests too deeply") from None


def _integer(text: str) -> int | float:
    number = int(text)
    return number if abs(number) <= SAFE_INTEGER else float(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_exact = json.JSONDecoder(parse_constant=_no_constant)
_doubles = json.JSONDecoder(parse_int=_integer, parse_constant=_no_constant)


_IN_QUOTES = re.compile(rb'"(?:[^"\\]|\\.)*"')
_MAX_VALUES = 1_000_000  # in one result: each takes time and memory here, however short it is written
_MAX_DEPTH = 256  # how deep a result may be nested, which drivers see to


def decode_result(answer: bytes, *, doubles: bool = True, around: int = 0) -> Any:
    """The value of a driver's answer: a letter and a JSON text; `around`: so many lists are not the program's.

    Drivers look before they write, but what they read then may be answered differently the next time, and those who get
    the value recurse over it.

    Raises:
        SandboxError: it is not JSON, nests too deeply or has too many values.
    """
    if answer.count(b",") + answer.count(b"[") + answer.count(b"{") > _MAX_VALUES:
        bare = _IN_QUOTES.sub(b"", answer)
        if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > _MAX_VALUES:
            raise SandboxError("output_limit", f"the result has more than {_MAX_VALUES:,} values")
    value = decode(answer[1:], doubles=doubles)
    if answer.count(b"[") + answer.count(b"{") > _MAX_DEPTH:
        level = [value] if isinstance(value, dict | list) else []
        for _ in range(_MAX_DEPTH + around):
            level = [
                child
                for item in level
                for child in (item.values() if isinstance(item, dict) else item)
                if isinstance(child, dict | list)
            ]
            if not level:
                return value
        raise SandboxError("not_json", f"the result is nested more than {_MAX_DEPTH} deep")
    return value


# ---- logs -----------------------------------------------------------------------------------------------------------

LEVELS = ("debug", "info", "warning", "error")


class Memory(Protocol):
    """What can be read of a guest."""

    def read(self, at: int, size: int) -> bytes:
        """Bytes of its memory; fewer at its end."""
        ...


def read_logs(memory: Memory, at: int, limits: Limits) -> tuple[LogLine, ...]:
    """The lines that a driver left at `at`. The guest wrote them: nothing they say is trusted.

    First two words (bytes used; whether something was dropped), then for each line its level (a byte), its size (a word)
    and its text.
    """
    head = memory.read(at, 8)
    if head == bytes(8):
        return ()
    used, dropped = struct.unpack("<II", head)
    data = memory.read(at + 8, min(used, limits.logs)) if used else b""
    lines = []
    position = 0
    while position + 5 <= len(data):
        (size,) = struct.unpack_from("<I", data, position + 1)
        text = data[position + 5 : position + 5 + size].decode("utf-8", "ignore")
        lines.append(LogLine(LEVELS[data[position] % len(LEVELS)], text))
        position += 5 + size
    if dropped:
        lines.append(LogLine("warning", f"console output beyond {limits.logs} bytes was dropped"))
    return tuple(lines)
