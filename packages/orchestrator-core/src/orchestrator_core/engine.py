"""The engine: one driver for asyncio and trio that runs machines over a journal.

How attempts run: *workers* take jobs from one queue. A node function that never suspends is stepped inside the worker
without a task of its own; where it suspends, the next worker goes on with the queue. So a chain of quick nodes costs no
task switch, and ten thousand slow ones wait side by side. A worker has one cancel scope; cancelling an attempt cancels
its worker, and another takes over the queue. There is one heap of timers for the whole engine.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from orchestrator_core import plugins as plugin_system
from orchestrator_core.commands import StartTimer
from orchestrator_core.document import Workflow
from orchestrator_core.driver import WRITE, Clock, Driver, Prepared
from orchestrator_core.errors import OrchestratorError
from orchestrator_core.events import TimerKind
from orchestrator_core.journal import Journal, MemoryJournal
from orchestrator_core.nodes import Blobs, HttpClient, HttpPolicy, NodeType
from orchestrator_core.policies import CodePolicy
from orchestrator_core.realm import Execution, Realm
from orchestrator_core.types import Json, Pins, Result

__all__ = ["Clock", "Engine", "Execution", "SystemClock"]

# Due, place in document order, serial number, whose, path, kind.
Timer = tuple[float, tuple[int, ...], int, Driver, str, TimerKind]

# A worker lets others run after so many jobs that never suspended.
_FAIR = 64
# Seconds between two looks at what can wait to be written.
_MOMENT = 0.01
_AHEAD = 1.0

Made = TypeVar("Made")


class SystemClock:
    """The clock on the wall."""

    time = staticmethod(time.time)

    async def sleep_until(self, due: float) -> None:
        """See :class:`Clock`. Sleeps in pieces, so that a clock that is set is noticed."""
        while (left := due - time.time()) > 0:  # noqa: ASYNC110 - nothing tells of the time but itself
            await anyio.sleep(min(left, 60.0))


class Engine(Realm):
    """Runs workflows. Use it as an async context manager; one engine runs any number of executions side by side.

    An engine is a realm itself: what is run by its own methods runs there.

    Args:
        plugins: Plugin objects or modules beside the installed ones.
        discover: Whether to load the plugins that are installed (entry points ``orchestrator.plugins``).
        node_types: Node types of the program itself; these need no plugin and no prefix.
        callables: The functions that ``call`` nodes may name.
        workflows: The stored workflows that ``workflow`` nodes may name.
        secrets: What ``{{ secrets.name }}`` stands for.
        variables: What ``{{ vars.name }}`` stands for.
        http: What ``ctx.http`` may reach.
        code: The most that user code may ask for.
        deny: Capabilities that no node has here (``network``, ``code``, ``secrets``, ``blobs``): node types that need
            them are refused when a workflow is judged.
        journal: Where events are kept; in memory unless given.
        tenant: Whose executions these are, for the journal.
        clock: The time.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[object] = (),
        discover: bool = True,
        node_types: Sequence[NodeType] = (),
        callables: Mapping[str, Callable[..., Any]] | None = None,
        workflows: Iterable[Workflow] = (),
        secrets: Mapping[str, str] | None = None,
        variables: Mapping[str, Json] | None = None,
        http: HttpPolicy | None = None,
        code: CodePolicy | None = None,
        deny: Collection[str] = (),
        journal: Journal | None = None,
        blobs: Blobs | None = None,
        tenant: str = "default",
        clock: Clock | None = None,
    ) -> None:
        self.manager = plugin_system.make_manager(plugins, discover=discover)
        self._node_types = tuple(node_types)
        self.all_types = plugin_system.make_registry(self.manager, self._node_types)
        super().__init__(
            self,
            tenant=tenant,
            journal=journal if journal is not None else MemoryJournal(),
            callables=callables,
            workflows=workflows,
            secrets=secrets,
            variables=variables,
            code=code,
            deny=deny,
            blobs=blobs,
        )
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._policy = http if http is not None else HttpPolicy()
        self._http: HttpClient | None = None
        self.bare: dict[str, Prepared] = {}  # what nodes without a config share, by type
        self._drivers: dict[str, Driver] = {}
        self.ready: deque[tuple[Driver, Any]] = deque()  # jobs for workers
        self._later: list[tuple[float, int, Driver]] = []  # drivers whose unwritten events can wait, until when
        self._later_scope: anyio.CancelScope | None = None
        self._unwritten: dict[Driver, None] = {}  # drivers with events that were not written yet, in order
        self._coming = False  # whether a worker was spawned that has not begun
        self._next: asyncio.Task[None] | None = None  # its task
        self._tasks: set[asyncio.Task[None]] = set()
        self._fatal: BaseException | None = None  # what a node function raised to end the program
        self._group: anyio.abc.TaskGroup | None = None
        self._open = False
        self._opened = False  # at any time so far
        self._timers: list[Timer] = []
        self._serial = 0
        self._timer_scope: anyio.CancelScope | None = None
        self._timer_next: Timer | None = None  # the one that is slept for
        self._compact_at = 1024

    # --- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._open:
            raise OrchestratorError("this engine is open already: use one `async with` for it")
        if self._opened:
            # The languages were given back when it was closed: an engine may be opened again.
            self.all_types = plugin_system.make_registry(self.manager, self._node_types)
            self.bare.clear()
        self._opened = True
        # On asyncio a task costs a fifth of one in an anyio task group (docs/decisions/0004-workers.md).
        if not _on_asyncio():
            self._group = anyio.create_task_group()
            await self._group.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop what still runs. What is in the journal stays there, and can be resumed."""
        self._open = False
        grouped = self._group is not None  # otherwise the task that raised it has told the event loop
        for driver in list(self._drivers.values()):
            driver.stop(OrchestratorError("the engine was closed before the execution ended"))
        for scope in (self._timer_scope, self._later_scope):
            if scope is not None:
                scope.cancel()
        try:
            await self._all_left()
        finally:
            self.ready.clear()
            self._later.clear()
            self._unwritten.clear()
            self._timers.clear()
            self._coming = False
            fatal, self._fatal = self._fatal, None
            with anyio.CancelScope(shield=True):
                if self._http is not None:
                    await self._http.aclose()
                    self._http = None
                for language in self.all_types.languages.values():
                    await language.aclose()
        if fatal is not None and grouped:
            raise fatal

    async def _all_left(self) -> None:
        """Wait until every worker has gone: until every cancelled attempt has unwound."""
        if self._group is not None:
            try:
                # Not told of an error of the body: a task group would wrap it in an ExceptionGroup.
                await self._group.__aexit__(None, None, None)
            except BaseExceptionGroup:
                if self._fatal is None:
                    raise
            finally:
                self._group = None
        with anyio.CancelScope(shield=True):
            while self._tasks:
                await asyncio.wait(self._tasks)

    # --- running ----------------------------------------------------------------------------------------------------

    def realm(
        self,
        *,
        tenant: str,
        journal: Journal | None = None,
        callables: Mapping[str, Callable[..., Any]] | None = None,
        workflows: Iterable[Workflow] = (),
        secrets: Mapping[str, str] | None = None,
        variables: Mapping[str, Json] | None = None,
        code: CodePolicy | None = None,
        deny: Collection[str] = (),
        blobs: Blobs | None = None,
        on_still: Callable[[Execution, float | None], None] | None = None,
    ) -> Realm:
        """A realm for another tenant; see :class:`~orchestrator_core.realm.Realm`. Its journal is the engine's unless given."""
        return Realm(
            self,
            tenant=tenant,
            journal=self.journal if journal is None else journal,
            callables=callables,
            workflows=workflows,
            secrets=secrets,
            variables=variables,
            code=code,
            deny=deny,
            blobs=blobs,
            on_still=on_still,
        )

    def run_sync(
        self,
        workflow: Workflow,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        backend: str = "asyncio",
    ) -> Result:
        """Open the engine, ``run``, close it: for programs that have no event loop.

        Raises:
            OrchestratorError: An event loop runs here already.
            DocumentError: As ``run``.
        """
        try:
            anyio.get_current_task()
        except RuntimeError:  # no event loop runs here: ours may
            pass
        else:
            raise OrchestratorError(
                "an event loop runs here already (a notebook, a coroutine): write `await engine.run(workflow, payload)` "
                "inside `async with Engine() as engine:`"
            )

        async def main() -> Result:
            async with self:
                return await self.run(workflow, payload, start=start, pins=pins, seed=seed)

        return anyio.run(main, backend=backend)

    # --- executions -----------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise OrchestratorError unless it is open."""
        if not self._open:
            raise OrchestratorError("the engine is not open: use it inside `async with Engine() as engine:`")

    def add(self, driver: Driver, execution_id: str) -> None:
        """Keep the driver of an execution."""
        self._drivers[execution_id] = driver

    def driver(self, execution_id: str) -> Driver | None:
        """The driver of an execution that runs here."""
        return self._drivers.get(execution_id)

    def stop(self, execution_id: str, failure: BaseException) -> None:
        """Give an execution up here; its journal stays as it is."""
        driver = self._drivers.get(execution_id)
        if driver is not None:
            driver.stop(failure)

    def forget(self, execution_id: str) -> None:
        """A driver has ended."""
        self._drivers.pop(execution_id, None)

    @property
    def client(self) -> HttpClient:
        """The HTTP client, made when it is first used."""
        if self._http is not None:
            return self._http
        client: HttpClient | None = self.manager.hook.make_http_client(policy=self._policy)
        if client is None:
            raise OrchestratorError("no plugin brings an HTTP client: install pluggable-orchestrator-nodes-std")
        self._http = client
        return client

    def activity(self) -> tuple[int, ...]:
        """Numbers that change as long as anything happens here: for clocks of tests."""
        return (len(self.ready), self._coming, len(self._timers), *(d.machine.step for d in self._drivers.values()))

    # --- workers ----------------------------------------------------------------------------------------------------

    def put(self, driver: Driver, job: Any) -> None:
        """Queue a job (a command to carry out, or an event to take in)."""
        self.ready.append((driver, job))

    def wake(self) -> None:
        """See to it that somebody takes what is queued."""
        if (self.ready or self._unwritten) and not self._coming and self._open:
            self._coming = True
            self._next = self._spawn(self._work())

    def write_soon(self, driver: Driver) -> None:
        """See to it that what a driver has not written is written once nothing quick is left to do."""
        if driver not in self._unwritten:
            self._unwritten[driver] = None
            self.wake()

    def write_later(self, driver: Driver, due: float) -> None:
        """See to it that what a driver has not written is written when a time has come, or a moment later."""
        self._serial += 1
        heappush(self._later, (due, self._serial, driver))
        if self._later_scope is None:
            self._later_scope = anyio.CancelScope()
            self._spawn(self._write_late(self._later_scope))

    async def _write_late(self, scope: anyio.CancelScope) -> None:
        later = self._later
        try:
            with scope:
                while later and self._open:
                    # One sleep for all that come meanwhile: it need not be told of an earlier one.
                    # The clock may be set back meanwhile: what is due much later is so because of that.
                    with anyio.move_on_after(_AHEAD):
                        await self.clock.sleep_until(min(later[0][0], self.clock.time() + _MOMENT))
                    now = self.clock.time()
                    while later and not now < later[0][0] <= now + _AHEAD:
                        _, _, driver = heappop(later)
                        if not driver.done:
                            self.write_soon(driver)
        finally:
            self._later_scope = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._group is not None:
            self._group.start_soon(_await, work)
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._left)
        return task

    def _left(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it has told the drivers: asyncio need not say that nobody has seen it
        if task is self._next:
            # Cancelled from outside before it began.
            self._coming, self._next = False, None
            self.wake()

    async def _work(self) -> None:
        self._coming, self._next = False, None
        ready, unwritten = self.ready, self._unwritten
        driver: Driver | None = None
        done = 0
        try:
            with anyio.CancelScope() as scope:
                while not scope.cancel_called:
                    if ready:
                        driver, job = ready.popleft()
                        done += 1
                    elif unwritten and not done:
                        # Not after a job: whoever else has one that is quick may add to what is written at once.
                        driver, job = next(iter(unwritten)), WRITE
                        del unwritten[driver]
                    else:
                        break
                    if (ready or unwritten) and not self._coming and self._open:
                        self.wake()  # should this job suspend, somebody else goes on
                    try:
                        await driver.perform(job, scope)
                    except Exception as error:  # noqa: BLE001 - it ends this execution; the worker has others to serve
                        driver.stop(error)
                    driver = None
                    if done % _FAIR == 0:
                        await anyio.lowlevel.checkpoint()
        except BaseException as error:
            self._interrupted(driver, error)
            raise
        finally:
            self.wake()

    def _interrupted(self, driver: Driver | None, error: BaseException) -> None:
        """A worker ends in the midst of a job, not by its own scope."""
        if not isinstance(error, anyio.get_cancelled_exc_class()):
            # KeyboardInterrupt, SystemExit and the like: the program is to end, and no execution goes on here.
            self._fatal = error
            self._open = False
            for other in list(self._drivers.values()):
                other.stop(error)
        elif driver is not None:
            driver.stop(OrchestratorError("the task that ran a part of this execution was cancelled from outside"))

    # --- timers -----------------------------------------------------------------------------------------------------

    def start_timer(self, driver: Driver, command: StartTimer) -> None:
        """Keep a timer in the heap; the timer task sleeps until the earliest."""
        if not self._open:
            return
        timers = self._timers
        if len(timers) >= self._compact_at:
            timers[:] = [
                entry
                for entry in timers
                if not entry[3].done and entry[3].machine.has_timer(entry[4], entry[5], entry[0])
            ]
            heapify(timers)
            self._compact_at = max(1024, 2 * len(timers))
        self._serial += 1
        order = driver.machine.order(command.path)
        heappush(timers, (command.due, order, self._serial, driver, command.path, command.kind))
        if self._timer_scope is None:
            self._timer_scope = anyio.CancelScope()
            self._spawn(self._tick())
        elif timers[0] is not self._timer_next:
            self._timer_scope.cancel()

    async def _tick(self) -> None:
        try:
            await self._fire()
        except Exception as error:  # noqa: BLE001 - without a clock nothing that waits would ever go on
            self._timers.clear()
            for driver in list(self._drivers.values()):
                driver.stop(error)
        finally:
            self._timer_scope = None
            self._timer_next = None
            if self._timers and self._open:  # its task was cancelled from outside
                self._timer_scope = anyio.CancelScope()
                self._spawn(self._tick())

    async def _fire(self) -> None:
        timers = self._timers
        while timers and self._open:
            entry = timers[0]
            due, _, _, driver, path, kind = entry
            if driver.done or not driver.machine.has_timer(path, kind, due):
                heappop(timers)
                continue
            self._timer_next = entry
            with anyio.CancelScope() as self._timer_scope:
                await self.clock.sleep_until(due)
            if timers and timers[0] is entry and self.clock.time() >= due:
                heappop(timers)
                driver.timer_fired(path, kind, due)
                self.wake()
            await anyio.lowlevel.checkpoint()


async def _await(work: Coroutine[Any, Any, None]) -> None:
    await work


def _on_asyncio() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
