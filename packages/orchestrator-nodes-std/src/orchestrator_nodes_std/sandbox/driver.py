"""The part of the Python sandbox that runs inside the guest, as ``python -c`` (CPython 3.12).

It is run once, when the image is made: it imports what programs commonly use, says where things are in memory and asks
for the snapshot that every call begins from. A call enters :func:`call` (and :func:`reserve` before it, where the request
is large). All of this is inside the sandbox: it makes results right, not safe.
"""

import ast
import builtins
import collections
import collections.abc
import dataclasses
import datetime as dt
import enum
import gc
import importlib
import io
import json
import os
import pathlib
import random
import struct
import sys
import time
import traceback
import uuid
import zoneinfo
from typing import Any, NoReturn

# Imported when the image is made, so that no call has to.
PRELOADED = (
    "base64 bisect calendar contextlib copy csv decimal difflib fractions functools hashlib heapq hmac html itertools math "
    "operator re shlex statistics string textwrap types typing unicodedata urllib.parse zlib _strptime"
)

FILE = "<code>"
MAX_DEPTH = 256
MAX_MESSAGE = 2000
MAX_PLACE = 200
LOGS = 256 * 1024
HOST = "the sandbox has no files, network, processes or threads"
_USE_HTTP = f"{HOST}: use an `http` node before this one"

CLOSED = {
    "asyncio": f"{HOST}: there is nothing to wait for, so write plain functions",
    "ctypes": HOST,
    "ftplib": _USE_HTTP,
    "http.client": _USE_HTTP,
    "http.server": HOST,
    "multiprocessing": HOST,
    "secrets": "nothing in the sandbox is truly random: pass in what is secret, or use a `crypto` node",
    "select": HOST,
    "selectors": HOST,
    "signal": HOST,
    "smtplib": HOST,
    "socket": _USE_HTTP,
    "socketserver": HOST,
    "sqlite3": "it is not part of the sandbox",
    "ssl": _USE_HTTP,
    "subprocess": HOST,
    "tempfile": f"{HOST}: io.StringIO and io.BytesIO are files in memory",
    "urllib.request": _USE_HTTP,
}
"""Modules that would be imported well and fail later, in ways that say nothing: what to say instead."""

HINTS = {
    "Decimal": ": write str(…) or float(…)",
    "Fraction": ": write float(…)",
    "bytearray": ": write base64.b64encode(…).decode()",
    "bytes": ": write base64.b64encode(…).decode()",
    "coroutine": ": nothing is awaited here, call plain functions",
    "filter": ": write list(…)",
    "generator": ": write list(…)",
    "map": ": write list(…)",
    "timedelta": ": write ….total_seconds()",
    "zip": ": write list(…)",
}

NESTED = (dict, list, tuple, set, frozenset, collections.deque, collections.abc.KeysView, collections.abc.ValuesView)
ZONES = pathlib.Path("/zones")  # the time zones, while the image is made

# What the host reads and writes. The addresses of their buffers must not change.
inbox = bytearray(64 * 1024)
clock = bytearray(8)
logs = bytearray(8 + LOGS)


@dataclasses.dataclass
class Call:
    """What is known of the call that runs."""

    request: bytearray
    room: int = 0  # bytes for logs
    until: int = 0  # nanoseconds since 1970


current = Call(inbox)


class Refused(Exception):  # noqa: N818 - not every refusal is an error of the program
    """The result cannot leave."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class TimedOut(BaseException):
    """The program slept past its time limit."""


class Context(dict[str, Any]):
    """A dict whose items can be read as attributes: ``context.input``."""

    def __getattr__(self, name: str) -> object:
        """The item of that name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"context has no {name!r}: it has {', '.join(self)}") from None


# --- what is printed ------------------------------------------------------------------------------------------------


class Console(io.TextIOBase):
    """A stream whose lines are log lines."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.parts: list[str] = []
        self.size = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keep the text until its line ends."""
        head, newline, tail = text.rpartition("\n")
        if newline:
            lines = "".join([*self.parts, head]).split("\n")
            self.parts, self.size = [], 0
            for line in lines:
                record(self.level, line)
        if tail and self.size <= current.room:
            self.parts.append(tail)
            self.size += len(tail)
        return len(text)

    def finish(self) -> None:
        """Write what has no end."""
        if self.parts:
            record(self.level, "".join(self.parts))
            self.parts = []


def record(level: int, text: str) -> None:
    """Leave a line for the host, as far as there is room."""
    used, dropped = struct.unpack_from("<II", logs)
    left = current.room - used - 5
    if dropped or left <= 0:
        struct.pack_into("<I", logs, 4, 1)
        return
    data = text[:left].encode("utf-8", "replace")
    if len(data) > left or len(text) > left:
        data = data[:left]
        struct.pack_into("<I", logs, 4, 1)
    struct.pack_into(f"<BI{len(data)}s", logs, 8 + used, level, len(data), data)
    # Last, so that the host finds whole lines when the call was stopped in between.
    struct.pack_into("<I", logs, 0, used + 5 + len(data))


# --- what of the library works differently --------------------------------------------------------------------------


def sleep(seconds: float) -> None:
    """As time.sleep, on the sandbox's own clock: it is set forward, and nobody waits."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    now = int.from_bytes(clock, "little") + round(seconds * 1e9)
    if now > current.until:
        raise TimedOut
    clock[:] = now.to_bytes(8, "little")


def urandom(_: int, /) -> NoReturn:
    """Refuse: what looks random here can be foreseen."""
    raise OSError("nothing in the sandbox is truly random: `random` is seeded; pass in what is secret")


def uuid4() -> uuid.UUID:
    """As uuid.uuid4, from the seeded generator."""
    return uuid.UUID(int=random.getrandbits(128), version=4)


def start_thread(*_: object, **__: object) -> NoReturn:
    """Refuse to start a thread."""
    raise RuntimeError(f"can't start new thread: {HOST}")


class Closed:
    """Comes first among those who find modules: refuses those that cannot work here."""

    def find_spec(self, name: str, *_: object) -> None:
        """Nothing, or an error that says why."""
        if (why := CLOSED.get(name)) is not None:
            raise ModuleNotFoundError(f"{name} cannot be used: {why}", name=name)


class Unknown:
    """Comes last: nobody else has found the module."""

    def find_spec(self, name: str, *_: object) -> None:
        """An error that says what there is."""
        if "." not in name:
            raise ModuleNotFoundError(
                f"No module named {name!r}: Python's standard library is all there is in the sandbox", name=name
            )


# --- values to JSON -------------------------------------------------------------------------------------------------


class Writer:
    """Makes JSON of a value."""

    def __init__(self) -> None:
        self.path: list[str | int] = []
        self.above: set[int] = set()

    def place(self) -> str:
        """Where the walk is: ``$.rows[3]``."""
        text = "$"
        for key in self.path:
            if isinstance(key, int):
                text += f"[{key}]"
            else:
                text += f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"
        return text if len(text) <= MAX_PLACE else text[:MAX_PLACE] + "…"

    def refuse(self, what: str, hint: str = "") -> NoReturn:
        """Raise Refused, with the place."""
        raise Refused("not_json", f"{what} at {self.place()} is not a JSON value{hint}")

    def plain(self, value: Any) -> Any:
        """The value as JSON has it."""
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str:
            return value
        if kind is float:
            if value - value != 0.0:
                self.refuse(str(value))
            return value
        if isinstance(value, NESTED):
            return self.nested(value)
        if isinstance(value, enum.Enum):
            return self.plain(value.value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return self.plain(float.__float__(value))
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, uuid.UUID):
            return str(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.nested({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        return self.refuse(f"an object of type {kind.__name__}", HINTS.get(kind.__name__, ""))

    def nested(self, value: Any) -> Any:
        """As plain, for what holds other values."""
        if id(value) in self.above:
            self.refuse("a reference to an object that holds it (a cycle)")
        if len(self.above) >= MAX_DEPTH:
            raise Refused("not_json", f"the result is nested more than {MAX_DEPTH} deep")
        self.above.add(id(value))
        found: Any = {}
        rows = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in rows:
            if not isinstance(key, str | int) or (isinstance(value, dict) and not isinstance(key, str)):
                self.refuse(f"an object with the key {key!r}", ": write str(key)")
            self.path.append(key)
            found[key] = self.plain(item)
            self.path.pop()
        self.above.discard(id(value))
        return found if isinstance(value, dict) else list(found.values())


def write(value: object, limit: int) -> bytes:
    """The JSON text of a value, in UTF-8."""
    try:
        text = json.dumps(Writer().plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode()
    except RecursionError:
        raise Refused("not_json", f"the result is nested more than {MAX_DEPTH} deep") from None
    except UnicodeEncodeError:
        raise Refused("not_json", "the result holds half a surrogate pair") from None
    if len(data) > limit:
        raise Refused("output_limit", f"the result has more than {limit} bytes")
    return data


# --- calls ----------------------------------------------------------------------------------------------------------


def compiled(source: str) -> Any:
    """The function whose body the source is. Its lines are the user's."""
    tree = ast.parse("def program(context): pass", FILE)
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - for type checkers
    function.body = ast.parse(source, FILE).body or function.body
    scope: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(compile(tree, FILE, "exec"), scope)  # noqa: S102 - running code is what a sandbox is for
    return scope["program"]


def text_of(error: BaseException) -> str:
    """The error's own words."""
    name = type(error).__name__
    try:
        text = str(error.msg) if isinstance(error, SyntaxError) else str(error)
        if isinstance(error, OSError) and error.errno is not None:
            text += f": {HOST}"
    except BaseException:  # noqa: BLE001 - it is the program's
        return f"{name} (its text cannot be read)"
    return f"{name}: {text}" if text else name


def described(error: BaseException) -> bytes:
    """What the host is told of a failure: {code, message, line}."""
    code, message, line = "exception", "", None
    if isinstance(error, Refused):
        code, message = error.code, error.message
    elif isinstance(error, TimedOut):
        code, message = "timeout", "it slept past its time limit"
    elif isinstance(error, MemoryError) and not error.args:  # the parser says why, and means its stack
        code, message = "memory_limit", "out of memory"
    else:
        message = text_of(error)
        if isinstance(error, SyntaxError) and error.filename == FILE:
            code, line = "syntax", error.lineno
        else:
            walked = traceback.walk_tb(error.__traceback__)
            line = next((number for frame, number in reversed(list(walked)) if frame.f_code.co_filename == FILE), None)
    return b"e" + json.dumps({"code": code, "message": message[:MAX_MESSAGE], "line": line}).encode()


def reserve() -> bytearray:
    """Room for a large request, whose size stands in the inbox."""
    current.request = bytearray(struct.unpack_from("<I", inbox)[0])
    return current.request


def call() -> bytes:
    """A whole call: the answer is a letter (v: a value, e: an error) and JSON."""
    try:
        return answer()
    except MemoryError:
        return NO_MEMORY


# Ready made, since making one takes memory.
NO_MEMORY = b'e{"code":"memory_limit","message":"out of memory","line":null}'


def answer() -> bytes:
    """As call. A request is two words (the sizes of what follows), what is asked, and the context."""
    try:
        first, second = struct.unpack_from("<II", current.request)
        head = json.loads(current.request[8 : 8 + first])
        if head["mode"] == "check":
            compiled(head["source"])
            return b"vnull"
        context = Context(json.loads(current.request[8 + first : 8 + first + second]))
        for name in ("execution", "node"):
            if isinstance(context.get(name), dict):
                context[name] = Context(context[name])
        current.request = inbox
        current.room = head["logs"]
        current.until = int.from_bytes(clock, "little") + head["time"]
        random.seed(head["seed"])
        streams = [Console(1), Console(2)]
        sys.stdout, sys.stderr = streams
        try:
            return b"v" + write(compiled(head["source"])(context), head["output"])
        finally:
            for stream in streams:
                stream.finish()
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is an answer
        return described(error)


# --- the image ------------------------------------------------------------------------------------------------------


def load_zones() -> None:
    """Keep the rules of all time zones in memory, where `zoneinfo` finds them."""
    skipped = {".py", ".pyc", ".tab", ".zi", ".list"}
    files = [file for file in ZONES.rglob("*") if file.is_file() and file.suffix not in skipped]
    zones = {file.relative_to(ZONES).as_posix(): file.read_bytes() for file in files}

    def load(key: str) -> io.BytesIO:
        if key not in zones:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return io.BytesIO(zones[key])

    replace("zoneinfo._common", "load_tzdata", load)
    replace("zoneinfo", "available_timezones", lambda: set(zones))


def replace(module: str, name: str, value: object) -> None:
    """Put something else in a module's place of that name."""
    setattr(importlib.import_module(module), name, value)


def main() -> None:
    """Make the image."""
    for name in PRELOADED.split():
        importlib.import_module(name)
    load_zones()
    replace("time", "sleep", sleep)
    replace("os", "urandom", urandom)
    replace("uuid", "uuid4", uuid4)
    replace("_thread", "start_new_thread", start_thread)
    finders: list[Any] = sys.meta_path
    finders.insert(0, Closed())
    finders.append(Unknown())
    sys.argv[:] = [""]
    os.environ.clear()
    said = sys.stdout
    replace("sys", "stdin", None)
    # What is there now will be there to the end: a collection in a call need not visit it.
    gc.collect()
    gc.freeze()
    where = {"inbox": inbox, "clock": clock, "logs": logs, "call": call, "reserve": reserve}
    said.write(json.dumps({name: id(thing) for name, thing in where.items()}))
    said.flush()
    time.clock_getres(time.CLOCK_REALTIME)  # the host takes the snapshot when this is asked for


if __name__ == "__main__":
    main()
