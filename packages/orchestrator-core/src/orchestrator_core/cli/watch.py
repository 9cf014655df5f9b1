"""Following an execution to its end: what is shown meanwhile, interrupts, and what is still waited for afterwards."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import attrs

from orchestrator_core.cli.display import Display, Mode
from orchestrator_core.cli.progress import Progress, Row, wait_text
from orchestrator_core.cli.text import complain, plural
from orchestrator_core.codec import format_duration, parse_duration
from orchestrator_core.engine import Clock, Engine, Execution
from orchestrator_core.nodes import NodeType
from orchestrator_core.types import ExecutionStatus

__all__ = ["Closing", "Interrupts", "Watch", "catching"]

# Seconds without an event before an execution whose waits nobody can end is given up.
_QUIET = 0.2
# Seconds after which it is said what is still waited for.
_SOON = 0.3
# Seconds after an interrupt in which an execution must have ended, and all that it runs.
_PATIENCE = 10.0


@attrs.define
class Interrupts:
    """How often Ctrl-C was pressed; the first time ends the execution, the second time everything."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event = attrs.field(factory=asyncio.Event)
    code: int = 0

    def on_signal(self, number: int, _: FrameType | None) -> None:
        """The handler of SIGINT and SIGTERM."""
        if self.code:
            os.write(
                2,
                b"\x1b[?25h\norchestrator: exits at once\n"
                if sys.stderr.isatty()
                else b"orchestrator: exits at once\n",
            )
            os._exit(self.code)
        self.code = 128 + number
        self.loop.call_soon_threadsafe(self.event.set)


@contextmanager
def catching(interrupts: Interrupts) -> Iterator[None]:
    """Ctrl-C (and SIGTERM) come to us while this lasts."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    try:
        before = {kind: signal.signal(kind, interrupts.on_signal) for kind in kinds}
    except ValueError:  # not the main thread: whoever embeds us handles signals
        before = {}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class Closing:
    """Closes an engine once, in a task of its own: whoever waits for it can stop waiting."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        """Close the engine where that was not begun; the task ends when every attempt that it runs has ended."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._engine.__aexit__(None, None, None))
        return self._task


class Watch:
    """Follows an execution to its end and shows it meanwhile.

    Attributes:
        stuck: It waits for a signal that nobody can send here.
        abandoned: It was interrupted, and something that it runs does not end.
    """

    def __init__(
        self,
        execution: Execution,
        progress: Progress,
        interrupts: Interrupts,
        *,
        mode: Mode,
        clock: Clock,
        kinds: Mapping[str, NodeType],
        closing: Closing,
    ) -> None:
        self.execution = execution
        self.progress = progress
        self.interrupts = interrupts
        self.mode = mode
        self.clock = clock
        self.done = anyio.Event()
        self.stuck = False
        self.abandoned = False
        self.failure: BaseException | None = None
        self._kinds = kinds
        self._closing = closing
        self._display = Display(progress, mode=mode, now=clock.time)

    async def until_the_end(self) -> None:
        """Return when the execution has ended with all that it runs, or can go no further.

        Raises:
            BaseException: What the engine itself has failed with.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._interrupted)
            group.start_soon(self._stalled)
            group.start_soon(self._follow)
            await self.done.wait()
            group.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure
        if self.stuck:
            self._say_what_it_waits_for()

    def on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that no task took: one of the engine's own ends the run, for it would never end otherwise."""
        error = context.get("exception")
        coroutine = getattr(context.get("future"), "get_coro", lambda: None)()
        if error is not None and getattr(coroutine, "__qualname__", "").startswith("Engine."):
            self.failure = self.failure or error
            self.done.set()
        else:
            complain(
                f"orchestrator: {context.get('message')}" + (f": {type(error).__name__}: {error}" if error else "")
            )

    async def _follow(self) -> None:
        await self._display.show(self.execution.events(), leave=self._leave)
        self.done.set()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """All is decided; what was cancelled may still run, and is waited for: say so before somebody wonders."""
        closing = self._closing.begin()
        done, _ = await asyncio.wait({closing}, timeout=_SOON)
        if not done:
            if not self.progress.note:
                held = self._held(self.progress.leaving.values()) or "what it still runs"
                again = "once more" if self.interrupts.code else "Ctrl-C twice"
                self._note(f"waiting for {held}; {again} exits at once")
            await asyncio.wait({closing})
        self.progress.note = ""

    async def _interrupted(self) -> None:
        await self.interrupts.event.wait()
        held = self._held(row for row in self.progress.running.values() if self._is_code(row))
        if held:
            self._note(f"cancelling: waiting for {held}; once more exits at once")
        elif self.mode != "live":
            complain("orchestrator: cancelling the execution; once more exits at once")
        await self.execution.cancel()
        await anyio.sleep(_PATIENCE)
        self.abandoned = True
        self.progress.note = ""
        self.done.set()

    def _note(self, text: str) -> None:
        self.progress.note = text
        if self.mode != "live":
            complain(f"orchestrator: {text}")

    def _held(self, rows: Iterable[Row]) -> str:
        """What of these attempts does not end at once: code in the sandbox, else any, and how long it may take."""
        by_place = {row.place: row for row in rows}
        code = {place: row for place, row in by_place.items() if self._is_code(row)}
        named = list(code or by_place)
        if not named:
            return ""
        shown = ", ".join(repr(place) for place in named[:3]) + (", …" if len(named) > 3 else "")
        nodes = f"node {shown}" if len(named) == 1 else f"{plural(len(named), 'node')} ({shown})"
        if not code:
            return nodes
        limit = max(self._limit(row) for row in code.values())
        if self.interrupts.code:
            limit = min(limit, _PATIENCE)
        return f"the code of {nodes}" + (f", {format_duration(limit)} at most" if limit < math.inf else "")

    def _is_code(self, row: Row) -> bool:
        kind = self._kinds.get(row.type)
        return kind is not None and "code" in kind.capabilities

    def _limit(self, row: Row) -> float:
        """The seconds that a node's code may run; infinite where the document does not say."""
        field = attrs.fields_dict(self._kinds[row.type].config).get("timeout")
        try:
            return parse_duration(row.config.get("timeout", field.default if field is not None else None))
        except ValueError:  # a template, or a type that has no such setting
            return math.inf

    # --- waits ------------------------------------------------------------------------------------------------------

    async def _stalled(self) -> None:
        """Nobody outside can send a signal to an execution in this process: where only that is left, say so and end."""
        progress = self.progress
        while True:
            before = progress.serial
            await anyio.sleep(_QUIET)
            waiting = self.execution.status is ExecutionStatus.WAITING
            if waiting and progress.stuck and progress.serial == before and not self.interrupts.code:
                self.stuck = True
                self.done.set()
                return

    def _say_what_it_waits_for(self) -> None:
        now = self.progress.started_at
        for path, wait in sorted(self.progress.waits.items()):
            complain(
                f"{path} waits {wait_text(wait, now)}: run it again with --signal {path}:{wait.signal}=JSON "
                "to send it up front"
            )
