"""`code`, and JavaScript as a language of the engine: the sandbox, brought to where nothing may block."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar, cast

import attrs
from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar, checkpoint_if_cancelled

from orchestrator_core import (
    Duration,
    Evaluated,
    LanguageError,
    NodeContext,
    NodeError,
    Ran,
    node_type,
    setting,
)
from orchestrator_nodes_std.beside import Beside
from orchestrator_nodes_std.sandbox import Busy, Completed, JavaScript, Limits, Python, SandboxError
from orchestrator_nodes_std.sandbox import Evaluated as SandboxEvaluated
from orchestrator_nodes_std.sandbox.helper import Gone, Helper
from orchestrator_nodes_std.sandbox.javascript import answered, completed
from orchestrator_nodes_std.shapes import Json, between, check
from orchestrator_nodes_std.turns import Turns

__all__ = ["JavaScriptLanguage", "PythonLanguage", "SandboxLanguage", "code"]

T = TypeVar("T")

_MIB: Final = 1024 * 1024
_REMEMBERED: Final = 4096  # sources
_SHORT: Final = 4096  # characters of a source of which it is remembered that it is brief
_BRIEF: Final = 0.001  # seconds of a thread's processor time
_OFTEN: Final = 8  # brief calls in a row, until a source is believed to be brief
_DOUBT: Final = 16  # times as many, whenever it turns out to be long after all
_UNKNOWN: Final = (0, _OFTEN)
_MOMENT: Final = 0.002  # seconds; the sandbox's clock makes at most two hundredths of it
_AFTER_DEADLINE: Final = 0.05  # seconds, so that the attempt's own time-out comes first


@attrs.frozen
class CodeConfig:
    """The settings of `code`."""

    source: str = setting(
        description="The body of a function. `context` holds `input`, `inputs`, `payload`, `execution.id`, `node.id` "
        "and `node.attempt`; inside a `for_each` also `item` and `index`. What it returns is the output and must be "
        "JSON; nothing returned is null. `console.log` (in Python `print`) writes to the node's logs; in JavaScript "
        "`await` may be used.",
        examples=["return {...context.input, total: context.input.qty * 3}"],
        literal=True,
        validator=check(lambda source: None if source.strip() else "must not be empty"),
    )
    language: str = setting(
        default="javascript",
        description="The language of the source: `javascript`, or `python` (CPython 3.12 with its standard library), "
        "which needs the extra `python` of the standard package.",
        examples=["python"],
    )
    timeout: Duration = setting(
        default=Duration(5.0),
        description="How long the code may run; it is stopped then, and the node fails with the code `timeout`.",
        examples=["500ms", 10],
        validator=between(0.001, 3600, " seconds"),
    )
    memory: int = setting(
        default=64 * _MIB,
        description="How many bytes of memory the code may use, its runtime included.",
        examples=[128 * _MIB],
        validator=between(8 * _MIB, 2048 * _MIB, " bytes (8 MiB to 2 GiB)"),
    )


@node_type(
    "code",
    title="Code",
    pure=True,
    capabilities=("code",),
    example={"source": "const {qty, price} = context.input;\nreturn {total: qty * price};"},
)
async def code(ctx: NodeContext, config: CodeConfig, input: Json) -> Json:
    """Run code of your own in the sandbox.

    The code sees what is passed to it and nothing else: no files, no network, no environment, no other node's state.
    Every run starts afresh; the clock stands still (but for timers, which move it on at once) and chance is seeded, so
    running again gives the same. What the
    code throws fails the node with the code `exception`; the error's `data` holds the line.
    """
    context: dict[str, Json] = {
        "input": input,
        "inputs": dict(ctx.inputs),
        "payload": ctx.payload,
        "execution": {"id": ctx.execution_id},
        "node": {"id": ctx.node_id, "attempt": ctx.attempt},
    }
    place = ctx.path.rpartition("/")[2]
    if place.isdigit():  # an item of a `for_each`: ids of nodes do not begin with digits
        context["item"] = input
        context["index"] = int(place)
    timeout: float = config.timeout
    if ctx.deadline is not None:
        # A guest cannot be cancelled from outside, so it must not outlive the attempt by more than a moment.
        timeout = min(timeout, max(0.0, ctx.deadline - ctx.now) + _AFTER_DEADLINE)
    try:
        return await ctx.run_code(
            config.source, context, language=config.language, timeout=timeout, memory=config.memory
        )
    except LanguageError as error:
        where = f" (line {error.line})" if error.line is not None else ""
        raise NodeError(
            f"{error.message}{where}",
            code=error.code,
            retryable=False,
            data={"line": error.line, "snippet": error.snippet},
        ) from error


class Runtime(Protocol):
    """What a language needs of its sandbox."""

    def run(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        limits: Limits | None = None,
        seed: int,
        now: float,
        waits: bool = True,
    ) -> Completed:
        """Run a program. Blocks; where it does not wait for anything but the program, it may raise `Busy`."""
        ...

    def close(self) -> None:
        """Give everything back. Blocks until running calls have ended."""
        ...


R = TypeVar("R", bound=Runtime)


class _Brief:
    """Which sources take less time than it takes to hand them to a thread. What is written to is safe in any thread.

    A source is brief when its last calls in a thread were. What then does not come to its end in a moment is called again in a
    thread, and where it was long there too, and not merely interrupted, it takes many more calls to be believed again.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, tuple[int, int]] = {}  # brief calls in a row, and how many it takes

    def __contains__(self, key: Hashable) -> bool:
        brief, needed = self._calls.get(key, _UNKNOWN)
        return brief >= needed

    def timed(self, key: Hashable, call: Callable[[], T], *, doubted: bool) -> T:
        """Call, and note how much of the processor's time it took. ``doubted``: it did not end in a moment just now."""
        began = time.thread_time()
        try:
            return call()
        finally:
            brief, needed = self._calls.get(key, _UNKNOWN)
            if time.thread_time() - began < _BRIEF:
                self._calls[key] = brief + 1, needed
            else:
                self._calls[key] = 0, needed * _DOUBT if doubted else needed
            if len(self._calls) > _REMEMBERED:
                with contextlib.suppress(KeyError, RuntimeError):  # another thread was quicker
                    del self._calls[next(iter(self._calls))]


class SandboxLanguage(Generic[R]):
    """A language of the sandbox, in worker threads: the event loop goes on meanwhile, on asyncio and trio.

    What was seen to be brief is called at once (docs/decisions/0011): to hand it to a thread and back costs more than to do
    it. It has a moment then, and where that is not enough it is called again, in a thread: it gives the same.

    An engine has one of its own. Nothing is loaded before the first call. A call cannot be abandoned: cancelling waits
    for its time limit at the latest, because a guest that ran on would still hold its instance.
    """

    def __init__(self, runtime: Callable[[int], R]) -> None:
        """Args: runtime: Makes the sandbox for so many calls at once."""
        # As many run as the sandbox has instances: the others wait outside of threads. A tenant may have as many as there are
        # processors, and there is one more, for the next one.
        self._parallel = max(2, os.cpu_count() or 1) + 1
        self._sandbox = runtime(self._parallel)
        self._brief = _Brief()
        # Sources that were parsed well, the last ones, by their hashes.
        self._right: dict[tuple[bytes, bool], None] = {}
        self._turns: RunVar[tuple[Turns, CapacityLimiter]] = RunVar("turns")  # each event loop has its own

    async def run(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        timeout: float | None,
        memory: int | None,
        seed: int,
        now: float,
        tenant: str = "",
    ) -> Ran:
        """Run the body of a function over ``context``; ``timeout`` in seconds, ``memory`` in bytes.

        Raises:
            LanguageError: The code failed or met a limit.
            ValueError: A limit is outside of what the sandbox offers.
        """
        limits = _limits(timeout, memory)
        completed = await self._called(
            tenant,
            (source, memory) if len(source) <= _SHORT else None,
            limits,
            lambda within, waits: self._sandbox.run(source, context, limits=within, seed=seed, now=now, waits=waits),
            lambda within, helper: self._run_beside(helper, source, context, limits=within, seed=seed, now=now),
        )
        return Ran(completed.value, tuple((line.level, line.message) for line in completed.logs))

    def _beside(self) -> Helper | None:
        """The process for brief calls, where there is one and so many come that it is worth while."""
        return None

    async def _run_beside(
        self, helper: Helper, source: str, context: Mapping[str, Json], *, limits: Limits, seed: int, now: float
    ) -> Completed:
        """What `run` of the sandbox gives, from a process that `_beside` named."""
        raise NotImplementedError

    def _check_once(self, source: str, expression: bool, check: Callable[[], None]) -> None:
        """Parse a source, unless it was found right before: a workflow is judged whenever it is run."""
        key = (hashlib.sha256(source.encode(errors="surrogatepass")).digest(), expression)
        if key not in self._right:
            _translated(check)
            self._right[key] = None
            if len(self._right) > _REMEMBERED:
                del self._right[next(iter(self._right))]

    async def aclose(self) -> None:
        """Give back what the sandbox holds, when the calls that are running have ended."""
        with CancelScope(shield=True):
            await to_thread.run_sync(self._sandbox.close)

    async def _called(
        self,
        tenant: str,
        key: Hashable | None,
        limits: Limits,
        call: Callable[[Limits, bool], T],
        beside: Callable[[Limits, Helper], Awaitable[T]],
    ) -> T:
        """Call the sandbox, at once or in a thread; told the limits, and whether it may wait for an instance.

        ``beside`` gives the same from a process.
        """
        if key is None:
            return await self._in_thread(tenant, lambda: call(limits, True))
        doubted = False
        if key in self._brief and limits.time > _MOMENT:
            moment = _for_a_moment(limits)
            try:
                helper = self._beside()
                if helper is not None:
                    with contextlib.suppress(Gone):
                        return await beside(moment, helper)
                return call(moment, False)
            except Busy:
                pass
            except SandboxError as error:
                if error.code != "timeout":
                    raise _language_error(error) from error
                doubted = True  # or others had the processor meanwhile
        return await self._in_thread(
            tenant, lambda: self._brief.timed(key, lambda: call(limits, True), doubted=doubted)
        )

    async def _in_thread(self, tenant: str, call: Callable[[], T]) -> T:
        found = self._turns.get(None)
        if found is None:
            found = Turns(self._parallel), CapacityLimiter(self._parallel)
            self._turns.set(found)
        turns, limiter = found
        try:
            async with turns.turn(tenant):
                return await to_thread.run_sync(_translated, call, limiter=limiter)
        except LanguageError:
            # Whoever cancelled has had to wait; what the code then failed with is of no interest any more.
            await checkpoint_if_cancelled()
            raise


class JavaScriptLanguage(SandboxLanguage[JavaScript]):
    """JavaScript, for programs and for expressions."""

    def __init__(self) -> None:
        super().__init__(lambda parallel: JavaScript(instances=parallel))
        self._process: Beside | None = None

    def _beside(self) -> Helper | None:
        if self._process is None or self._process.abandoned:
            if self._process is not None:
                self._process.kill()
            self._process = Beside(self._sandbox.cache_dir)
        return self._process.wanted()

    async def _run_beside(
        self, helper: Helper, source: str, context: Mapping[str, Json], *, limits: Limits, seed: int, now: float
    ) -> Completed:
        return completed(
            await helper.perform(self._sandbox.program(source, context, limits=limits, seed=seed, now=now))
        )

    async def aclose(self) -> None:
        """Give back what the sandbox holds, when the calls that are running have ended."""
        if self._process is not None:
            with CancelScope(shield=True):
                await self._process.aclose()
        await super().aclose()

    @property
    def name(self) -> str:
        """``javascript``."""
        return "javascript"

    def check(self, source: str, *, expression: bool) -> None:
        """Parse without running. Blocks (the very first call on a machine for seconds: the sandbox is compiled).

        Raises:
            LanguageError: With code ``syntax``.
        """
        self._check_once(source, expression, lambda: self._sandbox.check(source, expression=expression))

    async def evaluate(
        self, expressions: Sequence[str], scope: Mapping[str, Json], *, seed: int, now: float, tenant: str = ""
    ) -> Sequence[Evaluated]:
        """Evaluate expressions over the names of ``scope``, each by itself, in one call of the sandbox.

        Raises:
            LanguageError: The scope is no JSON that JavaScript can hold, or all of them together met a limit.
        """

        async def evaluated_beside(within: Limits, helper: Helper) -> list[SandboxEvaluated]:
            job = self._sandbox.questions(expressions, scope, limits=within, seed=seed, now=now)
            return answered(await helper.perform(job), len(expressions))

        found = await self._called(
            tenant,
            tuple(expressions) if sum(map(len, expressions)) <= _SHORT else None,
            _limits(None, None),
            lambda within, waits: self._sandbox.evaluate(
                expressions, scope, limits=within, seed=seed, now=now, waits=waits
            ),
            evaluated_beside,
        )
        return [
            Evaluated(cast("Literal['value', 'undefined', 'error']", one.kind), one.value, one.message) for one in found
        ]


class PythonLanguage(SandboxLanguage[Python]):
    """Python, for programs. Its runtime is an extra: without it, whatever is asked of it says what to install."""

    def __init__(self) -> None:
        super().__init__(lambda parallel: Python(instances=parallel))

    @property
    def name(self) -> str:
        """``python``."""
        return "python"

    def check(self, source: str, *, expression: bool) -> None:
        """Parse without running. Blocks (the very first call on a machine for seconds: the sandbox is compiled).

        Raises:
            LanguageError: With code ``syntax``; with code ``not_installed``, where the runtime is missing.
        """
        if expression:
            raise _no_expressions()
        self._check_once(source, False, lambda: self._sandbox.check(source))

    async def evaluate(
        self,
        expressions: Sequence[str],  # noqa: ARG002 - as every language has it
        scope: Mapping[str, Json],  # noqa: ARG002 - as every language has it
        *,
        seed: int,  # noqa: ARG002 - as every language has it
        now: float,  # noqa: ARG002 - as every language has it
        tenant: str = "",  # noqa: ARG002 - as every language has it
    ) -> Sequence[Evaluated]:
        """Refuse: expressions are JavaScript."""
        raise _no_expressions()


@functools.lru_cache(maxsize=64)
def _limits(time: float | None, memory: int | None) -> Limits:
    usual = Limits()
    return Limits(time=usual.time if time is None else time, memory=usual.memory if memory is None else memory)


@functools.lru_cache(maxsize=64)
def _for_a_moment(limits: Limits) -> Limits:
    return attrs.evolve(limits, time=_MOMENT)


def _no_expressions() -> LanguageError:
    return LanguageError("expressions are JavaScript: Python is for code nodes", code="syntax")


def _translated(call: Callable[[], T]) -> T:
    """What a call gives, the sandbox's errors as the engine knows them."""
    try:
        return call()
    except SandboxError as error:
        raise _language_error(error) from error


def _language_error(error: SandboxError) -> LanguageError:
    return LanguageError(
        error.message,
        code=error.code,
        line=error.line,
        snippet=error.snippet,
        logs=[(line.level, line.message) for line in error.logs],
    )
