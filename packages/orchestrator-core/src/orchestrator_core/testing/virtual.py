"""The real engine in virtual time: a clock that jumps to what comes next once nothing else can happen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import anyio
import anyio.lowlevel
import attrs

from orchestrator_core.document import Workflow
from orchestrator_core.engine import Engine, Execution
from orchestrator_core.errors import IllegalEvent, NodeError
from orchestrator_core.events import AttemptStarted, Event, WaitEnded
from orchestrator_core.hookspecs import hookimpl
from orchestrator_core.machine import order_of
from orchestrator_core.nodes import Language, NodeContext, NodeType, WaitRequested, node_type, setting
from orchestrator_core.testing.mini import MiniScript
from orchestrator_core.testing.script import action_of, next_entry, takes_an_entry
from orchestrator_core.testing.simulate import COMPLETION, OUTSIDE, TIMER
from orchestrator_core.types import Json, Pins, Result

# Between two things that happen in an engine lie at most a few turns of the event loop.
_QUIET = 12

__all__ = ["ScriptConfig", "VirtualClock", "run_in_engine"]


class VirtualClock:
    """A :class:`~orchestrator_core.engine.Clock` that stands still until :meth:`run` moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._serial = 0
        self._sleeping: list[tuple[float, int, tuple[int, ...], int, anyio.Event]] = []
        self._left: set[int] = set()

    def time(self) -> float:
        """Virtual seconds."""
        return self.now

    async def sleep_until(self, due: float, kind: int = TIMER, order: tuple[int, ...] = ()) -> None:
        """Sleep; of those that wake at one time the lower ``(kind, order)`` does so first, by itself."""
        self._serial += 1
        serial, event = self._serial, anyio.Event()
        heappush(self._sleeping, (due, kind, order, serial, event))
        try:
            await event.wait()
        except BaseException:
            self._left.add(serial)
            raise

    async def run(self, stamp: Callable[[], object]) -> None:
        """Move on for ever: wait until everybody sleeps, then wake the next.

        ``stamp`` gives something that changes as long as anything happens.
        """
        while True:
            await _all_quiet(lambda: (self._serial, stamp()))
            while self._sleeping and self._sleeping[0][3] in self._left:
                heappop(self._sleeping)
            if not self._sleeping:
                raise RuntimeError("nothing will ever happen again: a wait without an expiry has no signal")
            due, _, _, _, event = heappop(self._sleeping)
            self.now = max(self.now, due)
            event.set()


async def _all_quiet(stamp: Callable[[], object]) -> None:
    """Return when nothing happens any more: anyio's own way looks only ten times a second on asyncio."""
    before, quiet = stamp(), 0
    while quiet < _QUIET:
        await anyio.lowlevel.checkpoint()
        now = stamp()
        quiet = quiet + 1 if now == before else 0
        before = now


@attrs.frozen
class ScriptConfig:
    """What a scripted node does."""

    script: list[dict[str, Any]] = setting(factory=list, literal=True, description="An entry for each attempt.")


class _Scripted:
    """The plugin that brings the scripted types, and looks on."""

    def __init__(self, script: Mapping[str, Sequence[Mapping[str, Any]]], clock: VirtualClock) -> None:
        self.script = script
        self.clock = clock
        self.runs: dict[str, int] = {}
        self.order: list[str] = []
        self.woken: set[str] = set()
        self.execution: Execution | None = None

    @hookimpl
    def register_node_types(self) -> Sequence[NodeType]:
        """``script`` and ``script-trigger``."""

        @node_type("script", ports=None, inputs=None)
        async def script(ctx: NodeContext, config: ScriptConfig, input: Json) -> Json:
            """Do what the script says."""
            return await self.run(ctx, config, input)

        @node_type("script-trigger", ports=None, trigger=True)
        async def trigger(ctx: NodeContext, config: ScriptConfig, input: Json) -> Json:
            """Do what the script says, as a trigger."""
            return await self.run(ctx, config, input)

        return [script, trigger]

    @hookimpl
    def register_languages(self) -> Sequence[Language]:
        """The small language: it needs no threads, so that virtual time knows when everybody sleeps."""
        return [MiniScript()]

    @hookimpl
    def observe_event(self, execution_id: str, event: Event) -> None:
        """Note the order of starts."""
        if isinstance(event, WaitEnded):
            self.woken.add(event.path)
        elif isinstance(event, AttemptStarted):
            if event.path in self.woken:
                self.woken.discard(event.path)
            else:
                self.order.append(event.path)

    async def run(self, ctx: NodeContext, config: ScriptConfig, input: Json) -> Json:
        run = self.runs.get(ctx.path, 0)
        self.runs[ctx.path] = run + takes_an_entry(ctx.resumed)
        entries: Sequence[Mapping[str, Any]] = self.script.get(ctx.path, config.script)
        action = action_of(next_entry(entries, run, ctx.resumed, input), input)
        record = self.machine.find(ctx.path)
        await self.clock.sleep_until(self.clock.now + action.after, COMPLETION, order_of(record))
        if action.failure is not None:
            failure = action.failure
            raise NodeError(failure.message, code=failure.code, retryable=failure.retryable, data=failure.data)
        if action.wait is not None:
            raise WaitRequested(action.wait_at(self.clock.now))
        for port, value in (action.outputs or {}).items():
            ctx.emit(port, value)
        if not action.outputs:
            ctx.emitted = {}
        return None

    @property
    def machine(self) -> Any:
        if self.execution is None:
            raise RuntimeError("the execution has not been handed over")
        return self.execution._driver.machine  # noqa: SLF001 - the simulation looks inside on purpose


async def _outside(execution: Execution, clock: VirtualClock, happens: Sequence[Mapping[str, Any]]) -> None:
    for number, happening in enumerate(sorted(happens, key=lambda h: float(h["at"]))):
        await clock.sleep_until(float(happening["at"]), OUTSIDE, (number,))
        # Whoever signals or cancels what does not exist is refused, and nothing changes.
        with contextlib.suppress(IllegalEvent):
            await _happen(execution, happening)


async def _happen(execution: Execution, happening: Mapping[str, Any]) -> None:
    if "cancel" in happening:
        await execution.cancel(happening.get("path", ""))
    else:
        signal = happening["signal"]
        await execution.signal(signal["path"], signal["name"], signal.get("payload"), id=signal["id"])


def run_in_engine(
    workflow: Workflow,
    *,
    payload: Json = None,
    start: str | None = None,
    pins: Pins | None = None,
    script: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    happens: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    backend: str = "asyncio",
) -> tuple[Result, Mapping[str, str], Sequence[str], int]:
    """Run a workflow of scripted nodes through an engine, in virtual time.

    Returns:
        The result, every edge's state, the paths in the order their attempts started, the most at one time.
    """

    async def main() -> tuple[Result, Mapping[str, str], Sequence[str], int]:
        clock = VirtualClock()
        scripted = _Scripted(script or {}, clock)
        async with Engine(plugins=[scripted], discover=False, clock=clock) as engine:
            execution = await engine.start(workflow, payload, start=start, pins=pins, seed=seed)
            scripted.execution = execution
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clock.run, engine.activity)
                tasks.start_soon(_outside, execution, clock, happens)
                await execution.result()
                tasks.cancel_scope.cancel()
            result = await execution.snapshot()
            events = await engine.journal.read(engine.tenant, execution.id)
            return result, scripted.machine.edges(), scripted.order, _most_running(events)

    return anyio.run(main, backend=backend)


def _most_running(events: Sequence[Event]) -> int:
    """The largest number of attempts that held a slot after any one fact."""
    running: set[str] = set()
    most = 0
    for event in events:
        kind = type(event).__name__
        if kind == "AttemptStarted":
            running.add(event.path)
            most = max(most, len(running))
        elif kind in {"AttemptSucceeded", "AttemptFailed", "AttemptWaited", "NodeEnded", "TimerFired"}:
            running.discard(event.path)
    return most
