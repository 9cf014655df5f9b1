"""JavaScript: programs and expressions in QuickJS-NG, a WebAssembly guest.

What a call runs in is an image, made once (see `quickjs`) and compiled once per machine. There are several: what few
calls need and is large, as the data of `Intl`, is in an image of its own, so that other calls need not copy it.
"""

import functools
import hashlib
import importlib.metadata
import importlib.resources
import json
import operator
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NoReturn, Self

import attrs

from orchestrator_nodes_std.sandbox import cache, machine, quickjs
from orchestrator_nodes_std.sandbox.hints import hint
from orchestrator_nodes_std.sandbox.images import Images
from orchestrator_nodes_std.sandbox.values import (
    Completed,
    Evaluated,
    Limits,
    LogLine,
    SandboxError,
    decode_result,
    encode,
    read_logs,
    refuse,
)

_HEADS = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_USUAL = Limits()
_SEED = struct.Struct("<4I")
_BEFORE_SOURCE = 3  # lines that the driver's `compile` puts before the user's first
# Codes that the driver gives.
_REPORTED = ("syntax", "exception", "memory_limit", "output_limit", "not_json", "timeout")
_MAX_SNIPPET = 200
_ALMOST_FULL = 1024 * 1024  # bytes below the memory limit: what fails then is taken to fail for memory
_MAX_REPORT = 64 * 1024  # bytes of an error's description, which the output limit does not count
# Half a surrogate pair, which the guest writes as an escape: looking for it costs little, walking over a value much.
_HALF = re.compile(rb"(?<!\\)(?:\\\\)*\\ud[89a-f]")
_AROUND = 2  # lists that the answer to `evaluate` puts around each result
# What images are made by is part of their names, so that a release never takes another one's.
_MADE_BY = ("driver.js", "images.py", "javascript.py", "machine.py", "native.py", "quickjs.py", "values.py", "wasm.py")
_SCRIPTS = {"expressions": ("core.js",), "programs": ("core.js", "events.js")}
_SHORT = 4096  # characters of a program that is remembered
# Where a regular expression with the flag `v` may be made, which the engine takes and ignores: it is guarded then.
_MAY_HAVE_SETS = re.compile(r"/[dgimsuy]*v[dgimsuy]*(?![\w$])|RegExp|eval|Function|constructor|\\u")
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_IN_FUNCTION = re.compile(r"\(<input>:(\d+):\d+\)")
_IN_TEXT = re.compile(r"at <input>:(\d+):\d+")
_NAMED = re.compile(r"(?:cannot (?:read|set) property '([^']+)' of|ReferenceError: (\S+) is not defined)")


# ---- images ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Extra:
    """What few calls need and takes memory that every call would have to copy: it is there in images of its own.

    A call whose source is seen to mention it goes to such an image at once. Elsewhere a script stands for it that notes
    in `needs` that it was needed, and throws; the call is then run again in such an image. As calls are deterministic
    and begin with a fresh state, nobody sees that.
    """

    bit: int
    mentioned: re.Pattern[str]
    absent: str
    scripts: Sequence[str] = ()
    bundle: Callable[[], quickjs.Bundle] | None = None
    made_by: Callable[[], Sequence[str]] = tuple


def _intl_bundle() -> quickjs.Bundle:
    locales = _locales()
    scripts = [quickjs.Script(name, _text(name)) for name in locales.SCRIPTS]
    return quickjs.Bundle(scripts, locales.intl_data())


def _intl_made_by() -> Sequence[str]:
    versions = [importlib.metadata.version(name) for name in ("babel", "tzdata")]
    return [*versions, *(_text(name) for name in ("locales.py", "locale_extras.json", *_locales().SCRIPTS))]


def _locales() -> Any:
    # Not before it is needed: Babel takes long to import, and few programs need it.
    return importlib.import_module("orchestrator_nodes_std.sandbox.locales")


_WEB = _Extra(
    bit=1,
    mentioned=re.compile(
        r"\b(?:TextEncoder|TextDecoder|Buffer|URL|URLSearchParams|crypto|Crypto|SubtleCrypto|CryptoKey)\b"
    ),
    absent="web_absent.js",
    scripts=("text.js", "url.js", "crypto.js"),
)
_INTL = _Extra(
    bit=2,
    mentioned=re.compile(r"\bIntl\b|toLocale|localeCompare"),
    absent="intl_absent.js",
    bundle=_intl_bundle,
    made_by=_intl_made_by,
)
_EXTRAS = (_WEB, _INTL)


@attrs.frozen
class _Kind:
    """A kind of image: the realm that it has beside the driver's, and the extras (bits) there."""

    realm: str
    extras: int = 0

    def recipe(self) -> quickjs.Recipe:
        """What makes it."""
        there = [extra for extra in _EXTRAS if extra.bit & self.extras]
        absent = [extra.absent for extra in _EXTRAS if extra not in there]
        names = [*_SCRIPTS[self.realm], *(name for extra in there for name in extra.scripts), *absent]
        web = [quickjs.Script(name, _text("web", name)) for name in names]
        data = {"pure": self.realm == "expressions", "intl": _INTL.bit, "web": _WEB.bit}
        bundles = [extra.bundle() for extra in there if extra.bundle is not None]
        return quickjs.Recipe(quickjs.Script("driver.js", _text("driver.js")), [quickjs.Bundle(web, data), *bundles])

    @property
    def title(self) -> str:
        """What people call it."""
        return f"JavaScript for {self.realm}" + (
            " with Intl" if self.extras & _INTL.bit else " with URL" if self.extras else ""
        )

    def image(self, *, parallel: bool) -> tuple[bytes, dict[str, int]]:
        """See `images.Kind`."""
        return quickjs.image(self.recipe(), parallel=parallel)

    def key(self) -> str:
        """See `images.Kind`."""
        web = [name for extra in _EXTRAS for name in (extra.absent, *extra.scripts)]
        made_by = [text for extra in _EXTRAS if extra.bit & self.extras for text in extra.made_by()]
        return cache.key_of(
            importlib.metadata.version("wasmtime"),
            cache.processor(),
            quickjs.reactor(),
            *(_text(name) for name in _MADE_BY),
            *(_text("web", name) for name in (*_SCRIPTS["programs"], *web)),
            *made_by,
            f"{self.realm} {self.extras}",
        )


def _text(*path: str) -> str:
    return importlib.resources.files("orchestrator_nodes_std.sandbox").joinpath(*path).read_text("utf-8")


_PLAIN = {realm: _Kind(realm) for realm in ("programs", "expressions")}


@attrs.frozen
class Job:
    """A call before it is made: any process can make it (see `helper`), and it gives the same everywhere."""

    head: bytes  # the JSON of the driver's request
    body: bytes  # the JSON of the program's context
    limits: Limits
    now: float
    source: str | None = None  # of which an error names the line
    extras: int = 0
    realm: str = "programs"


Answer = tuple[bytes, tuple[LogLine, ...]]
"""What a job gives: the driver's answer (a letter and JSON) and the logs."""


class _Lacking(Exception):  # noqa: N818 - nothing is wrong
    """A call needed extras (bits) that its image does not have."""

    def __init__(self, extras: int) -> None:
        super().__init__(extras)
        self.extras = extras


class JavaScript:
    """A JavaScript runtime for untrusted code. Calls block; any number of threads may call at once.

    Every call has a fresh instance: nothing that one does can be seen by another, and the same source, input, `seed`
    and `now` give the same result. There is no host object to reach: no files, network, environment, modules. Timers
    are there for programs; they run on a clock that is moved on instead of waited for.
    Code is strict. Integers beyond 2^53 - 1 are refused on the way in; NaN, infinities, functions, symbols, BigInts,
    promises, invalid dates and cycles on the way out. As with `JSON.stringify`, properties that are undefined are left
    out and undefined in an array is null; a Date is its ISO text. A Map with string keys is an object, a Set or a typed
    array an array.
    """

    def __init__(self, *, cache_dir: Path | None = None, instances: int | None = None, compiles: bool = True) -> None:
        """Make a runtime; the engine itself is loaded by the first call, from `cache_dir` if it was compiled before.

        Args:
            cache_dir: where compiled code is kept; the user's cache directory if not given.
            instances: how many calls run at once (further ones wait); the number of processors if not given.
            compiles: whether to compile what was not compiled before; else such a call raises `Busy`.
        """
        self._images: Images[_Kind] = Images(cache_dir=cache_dir, instances=instances, compiles=compiles)

    def check(self, source: str, *, expression: bool = False) -> None:
        """Parse `source`, a function's body or an expression, and execute nothing.

        Raises:
            SandboxError: with code `syntax`, and the line.
        """
        head = _HEADS.encode({"mode": "check", "source": source, "expression": expression})
        realm = "expressions" if expression else "programs"
        self.perform(Job(_utf8(head), b"null", _USUAL, 0.0, source, realm=realm))

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
        """Run `source` as the body of an async function of `context`; what it returns is the value.

        Args:
            source: for example `return {...context.input, total: context.input.qty * 3}`. Undefined becomes None.
            context: JSON; the program may change its copy.
            limits: the defaults, if not given.
            seed: any integer; determines `Math.random`.
            now: the time that the program sees, in seconds since 1970. It stands still, but
                for timers: when nothing else is left to do, it is moved on to the next, at once.

        Raises:
            SandboxError: see there for its codes.
        """
        job = self.program(source, context, limits=limits or _USUAL, seed=seed, now=now)
        return completed(self.perform(job, waits=waits))

    def program(self, source: str, context: Mapping[str, Any], *, limits: Limits, seed: int, now: float) -> Job:
        """The job that `run` does, for whoever has it done elsewhere; what that gives is for `completed`.

        Raises:
            SandboxError: the context is not JSON.
        """
        needs, sets = _seen(source) if len(source) <= _SHORT else _look(source)
        # JSON by hand: making an encoder for it takes longer than all else that is done here.
        head = (
            f'{{"mode":"run","source":{encode_basestring(source)},"seed":{_seed(seed)},"time":{limits.time * 1000},'
            f'"logs":{limits.logs},"output":{limits.output},"sets":{"true" if sets else "false"}}}'
        )
        return Job(_utf8(head), encode(context), limits, now, source, needs)

    def evaluate(
        self,
        expressions: Sequence[str],
        scope: Mapping[str, Any],
        *,
        limits: Limits | None = None,
        seed: int,
        now: float,
        waits: bool = True,
    ) -> list[Evaluated]:
        """Evaluate expressions over the names in `scope`, each on its own, all in one crossing.

        Each sees `scope` as it was given, and the language as it was made: its intrinsics are frozen here. One that
        fails is an `Evaluated` of kind `error`; only what ends the guest (time, memory, output) ends the call.

        Raises:
            Busy: as `run`.
            SandboxError: for a limit, or for scope that is not JSON.
            ValueError: a name in `scope` is no identifier.
        """
        job = self.questions(expressions, scope, limits=limits or _USUAL, seed=seed, now=now)
        return answered(self.perform(job, waits=waits), len(expressions))

    def questions(
        self, expressions: Sequence[str], scope: Mapping[str, Any], *, limits: Limits, seed: int, now: float
    ) -> Job:
        """The job that `evaluate` does, for whoever has it done elsewhere; what that gives is for `answered`.

        Raises:
            SandboxError: for scope that is not JSON.
            ValueError: a name in `scope` is no identifier.
        """
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
        needs = functools.reduce(operator.or_, map(_mentioned, expressions), 0)
        return Job(_utf8(_HEADS.encode(head)), b"null", limits, now, extras=needs, realm="expressions")

    def close(self) -> None:
        """Wait for the calls that are running, and give everything back. Calls after this raise RuntimeError."""
        self._images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def cache_dir(self) -> Path:
        """Where compiled code is kept."""
        return self._images.cache_dir

    # ---- one call ---------------------------------------------------------------------------------------------------

    def perform(self, job: Job, *, waits: bool = True) -> Answer:
        """Make a call.

        Raises:
            Busy: not `waits`, and there is no instance that is free.
            SandboxError: see there for its codes.
        """
        request = quickjs.request(job.head, job.body, now=job.now, stack=job.limits.stack)
        call = _Call(request, job.limits, job.source, job.realm, waits)
        return machine.on_large_stack(lambda: self._on_guest(call, job.extras))

    def _on_guest(self, call: "_Call", extras: int) -> Answer:
        left = call.limits
        while True:
            if extras & _INTL.bit:
                extras |= _WEB.bit  # what is so large anyway has it, too, rather than that there are more images
            runner, notes = self._images.ready(
                _Kind(call.realm, extras) if extras else _PLAIN[call.realm], waits=call.waits
            )
            try:
                return runner.use(left, functools.partial(call.on, notes=notes, extras=extras), waits=call.waits)
            except _Lacking as lacking:
                extras |= lacking.extras
                # Both together have the time of one.
                left = attrs.evolve(left, time=max(0.001, left.time - (time.monotonic() - call.began)))


@attrs.define
class _Call:
    """A call, whatever image it is run in."""

    request: bytes
    limits: Limits
    source: str | None
    realm: str
    waits: bool
    began: float = 0.0

    def on(self, guest: machine.Guest, notes: Mapping[str, int], extras: int) -> Answer:
        """The answer of the driver and the logs; raises `SandboxError`, and `_Lacking`."""
        self.began = time.monotonic()
        limits = self.limits
        try:
            answer, needs = _answer(guest, notes, self.request, limits)
        except machine.Stopped as stopped:
            _lack(quickjs.cells(guest, notes)[1], extras)
            code, message = {
                "timeout": ("timeout", f"stopped after {limits.time:g} seconds"),
                "stack": ("exception", "RangeError: Maximum call stack size exceeded"),
            }.get(stopped.reason, ("crashed", f"the guest broke: {stopped}"))
            raise SandboxError(code, message, logs=read_logs(guest, notes["logs"], limits)) from None
        except SandboxError as error:
            _lack(quickjs.cells(guest, notes)[1], extras)
            error.logs = read_logs(guest, notes["logs"], limits)
            raise
        _lack(needs, extras)
        logs = read_logs(guest, notes["logs"], limits)
        if not answer:
            raise SandboxError("crashed", "the guest gave no answer", logs=logs)
        if answer[0] not in b"vu":
            _fail(answer[1:], self.source, logs, full=guest.size() > limits.memory - _ALMOST_FULL)
        return answer, logs


def _lack(needs: int, extras: int) -> None:
    """Raise `_Lacking` where more than `extras` was needed."""
    lacking = sum(extra.bit for extra in _EXTRAS if extra.bit & needs & ~extras)
    if lacking:
        raise _Lacking(lacking)


def _mentioned(text: str) -> int:
    """The extras that are seen to be needed."""
    return sum(extra.bit for extra in _EXTRAS if extra.mentioned.search(text))


def _look(source: str) -> tuple[int, bool]:
    """The extras that a program is seen to need, and whether it may have patterns with the flag `v`."""
    return _mentioned(source), _MAY_HAVE_SETS.search(source) is not None


_seen = functools.lru_cache(maxsize=1024)(_look)  # the same few programs run again and again


def _answer(guest: machine.Guest, notes: Mapping[str, int], request: bytes, limits: Limits) -> tuple[bytes, int]:
    """What `run` answers for `request`, and what the call turned out to need."""
    at = notes["inbox"]
    if len(request) > quickjs.INBOX:
        at = guest.call("malloc", len(request)) % 2**32
        if not at:
            raise SandboxError("memory_limit", "the input does not fit into the memory limit")
        guest.write(at.to_bytes(4, "little"), notes["request"])
    guest.write(request, at)
    guest.call_void("run")
    size, needs, text = quickjs.cells(guest, notes)
    if text in (0, 2**32 - 1):
        if guest.size() > limits.memory - _ALMOST_FULL:
            raise SandboxError("memory_limit", f"more than {limits.memory} bytes of memory were needed")
        if text:
            raise SandboxError("input", "the input nests too deeply")
        raise SandboxError("crashed", "the guest gave no answer")
    if size - 1 > limits.output and guest.read(text, 1) != b"e":
        raise SandboxError("output_limit", f"the result has more than {limits.output} bytes")
    return guest.read(text, min(size, limits.output + _MAX_REPORT)), needs


def _utf8(head: str) -> bytes:
    try:
        return head.encode()
    except UnicodeEncodeError:
        raise SandboxError("syntax", "the source holds half a surrogate pair") from None


def completed(given: Answer) -> Completed:
    """How a program ended, by what its job gave; raises `SandboxError` where that is not JSON."""
    answer, logs = given
    if answer[:1] == b"u":
        return Completed(None, logs)
    try:
        value = decode_result(answer)
        if _HALF.search(answer):
            refuse(value, "not_json")
    except SandboxError as error:
        error.logs = logs
        raise
    return Completed(value, logs)


def answered(given: Answer, count: int) -> list[Evaluated]:
    """How so many expressions ended, by what their job gave; raises `SandboxError` where that is no answer."""
    answer, _ = given
    halves = _HALF.search(answer) is not None
    try:
        found = [_evaluated(item, halves=halves) for item in decode_result(answer, around=_AROUND)]
    except (TypeError, LookupError):
        found = []
    if len(found) != count:
        raise SandboxError("crashed", "the guest gave no answer")
    return found


def _seed(seed: int) -> list[int]:
    return list(_SEED.unpack_from(hashlib.sha256(str(seed).encode()).digest()))


def _encode_named(name: str, value: Any) -> str:
    try:
        return encode(value).decode()
    except SandboxError as error:
        raise SandboxError("input", error.message.replace("$", f"$.{name}", 1)) from None


def _evaluated(item: Sequence[Any], *, halves: bool) -> Evaluated:
    kind = item[0]
    if kind not in ("v", "u", "e"):
        raise LookupError(kind)
    if kind == "u":
        return Evaluated("undefined")
    if kind == "e":
        return Evaluated("error", message=hint(str(item[1]), program=False))
    try:
        if halves:
            refuse(item[1], "not_json")
    except SandboxError as error:
        return Evaluated("error", message=error.message)
    return Evaluated("value", value=item[1])


# ---- errors ---------------------------------------------------------------------------------------------------------


def _fail(answer: bytes, source: str | None, logs: tuple[LogLine, ...], *, full: bool) -> NoReturn:
    """Raise what the driver reports: {code, message, stack}. `full`: the guest had little memory left."""
    try:
        report = json.loads(answer)
        code, message, stack = str(report["code"]), str(report["message"]), str(report["stack"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SandboxError("crashed", "the guest gave no answer", logs=logs) from None
    if code not in _REPORTED:
        raise SandboxError("crashed", "the guest gave no answer", logs=logs)
    if full and code == "exception" and message == "null was thrown":  # there was no memory for an error
        code, message = "memory_limit", "out of memory"
    line, snippet = _place(source, code, message, stack) if source is not None else (None, None)
    message = hint(message, program=source is not None, snippet=snippet or "")
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
