"""The driver of one execution: feeds its machine, commits its events, carries out its commands."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio
import attrs
import pluggy

from orchestrator_core.codec import check_json, copy_json, dump_json
from orchestrator_core.commands import CancelAttempt, CancelChild, Command, Evaluate, RunAttempt, StartChild, StartTimer
from orchestrator_core.configs import Evaluator, PreparedConfig, prepare_config
from orchestrator_core.errors import IllegalEvent, NodeError, OrchestratorError, Unavailable
from orchestrator_core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    AttemptWaited,
    ChildEnded,
    Evaluated,
    Event,
    TimerFired,
    TimerKind,
)
from orchestrator_core.expressions import ExpressionError, Names, compile_template, truthy
from orchestrator_core.graph import Plan
from orchestrator_core.journal import Journal
from orchestrator_core.machine import Machine
from orchestrator_core.masking import mask
from orchestrator_core.nodes import NodeContext, NodeFunction, Services, WaitRequested, unwrapped
from orchestrator_core.plugins import Registry
from orchestrator_core.raised import failure_of, is_stray
from orchestrator_core.state import Record, Scope, Stage
from orchestrator_core.types import Failure, Json, LogLine
from orchestrator_core.validation import migrate

__all__ = ["WRITE", "Clock", "Driver", "Host", "Prepared"]

# A job for a worker: commit what is unwritten.
WRITE = object()
# Events of pure attempts ride with the next commit, at the latest after so many, or so many seconds.
_MAX_UNWRITTEN = 256
_MAX_UNWRITTEN_TIME = 0.05

_SCALARS = frozenset([str, int, bool, type(None)])
_ACTIVE = Stage.ACTIVE  # an enum's member costs as much as a call
_MAX_REPEATED = 100


class Clock(Protocol):
    """Where the engine gets its time from; tests give it a virtual one."""

    def time(self) -> float:
        """Seconds since 1970."""
        ...

    async def sleep_until(self, due: float) -> None:
        """Return when :meth:`time` has reached ``due``."""
        ...


@attrs.frozen(eq=False)
class Prepared:
    """What every attempt of a node needs, worked out once."""

    function: NodeFunction
    config: PreparedConfig
    ready: Any
    pure: bool
    type_name: str
    ports: frozenset[str] | None
    secret: bool


class Runner(Protocol):
    """What a driver needs of the engine it runs on."""

    clock: Clock
    manager: pluggy.PluginManager
    ready: deque[tuple[Any, Any]]
    bare: dict[str, Prepared]

    def put(self, driver: Any, job: Any) -> None:
        """Queue a job for a worker."""
        ...

    def wake(self) -> None:
        """See to it that somebody takes what is queued."""
        ...

    def write_soon(self, driver: Any) -> None:
        """See to it that what the driver has not written is written soon."""
        ...

    def write_later(self, driver: Any, due: float) -> None:
        """See to it that it is written when the time ``due`` has come."""
        ...

    def forget(self, execution_id: str) -> None:
        """The driver of an execution is done."""
        ...

    def driver(self, execution_id: str) -> Driver | None:
        """The driver of an execution that runs here."""
        ...

    def stop(self, execution_id: str, failure: BaseException) -> None:
        """Give an execution up."""
        ...

    def start_timer(self, driver: Any, command: StartTimer) -> None:
        """Call the driver's ``timer_fired`` when a timer is due."""
        ...


class Host(Services, Protocol):
    """What a driver needs of the realm it belongs to."""

    engine: Any  # a Runner
    journal: Journal
    tenant: str
    on_still: Callable[[Any, float | None], None] | None
    evaluator: Evaluator
    most_items: int | None

    @property
    def registry(self) -> Registry:
        """The node types and languages that there are."""
        ...

    async def start_child(self, parent: Any, command: StartChild) -> None:
        """Start a child execution, or go on with it."""
        ...

    async def cancel_child(self, parent: Any, command: CancelChild) -> None:
        """Cancel a child execution."""
        ...


class Driver:
    """Drives one execution. All its methods run in the engine's event loop."""

    def __init__(
        self,
        realm: Host,
        machine: Machine,
        *,
        fence: int = 0,
        parent: tuple[Driver, str] | None = None,
    ) -> None:
        """Args: parent: the driver of the execution whose child this is, and the path of the node that called it."""
        self.realm = realm
        self.engine: Runner = realm.engine
        engine = self.engine
        self.machine = machine
        self.fence = fence
        self.finished = anyio.Event()
        self.failure: BaseException | None = None
        self.committed = 0
        self.done = False
        self.parent = parent
        self.on_done: Callable[[], None] | None = None  # called when it has ended, or was given up
        self._unwritten: list[Event] = []
        self._held: list[Command] = []  # to be carried out once what is unwritten is committed
        self._batch: tuple[list[Event], list[Command]] | None = None  # what is being written
        self._rides = False  # the engine knows that there is something to be written
        self._since = 0.0  # the time of the first unwritten event
        self._writing: anyio.Event | None = None  # set when the commit that is going on is over
        self._scopes: dict[str, anyio.CancelScope] = {}  # of the attempts that run
        self._busy: set[anyio.CancelScope] = set()  # of other jobs
        self.children: set[str] = set()  # ids of child executions
        self.unwanted: set[str] = set()  # of those that were cancelled before they were there
        self._cancelling = 0  # how many are still to be told that they are cancelled
        self._more: anyio.Event | None = None
        self._time: Callable[[], float] = engine.clock.time
        hooks = engine.manager.hook
        self._observe = bool(hooks.observe_event.get_hookimpls())
        self._surround = bool(hooks.around_attempt.get_hookimpls())
        self._execution: Mapping[str, Json] = {}

    # --- in ---------------------------------------------------------------------------------------------------------

    @property
    def root(self) -> Driver:
        """The execution that it is a child of, or a child's child: the one that nobody drives."""
        root = self
        while root.parent is not None:
            root = root.parent[0]
        return root

    def now(self) -> float:
        """The time of the next event: the clock's, but never before the last event's."""
        time, last = self._time(), self.machine.now
        return max(time, last)

    async def begin(self, event: Event) -> None:
        """Take in the start event."""
        await self.receive(event)

    async def go_on(self, events: Sequence[Event], mail: Sequence[Event] = ()) -> None:
        """Replay a journal, take in what was left meanwhile, and do again what is outstanding.

        Args:
            events: All that the journal has.
            mail: Signals and cancels, in order, each with the time at which it was left: it counts before timers of that time.
        """
        self.committed = len(events)
        machine = self.machine
        step = machine.replay(events)
        made = [*step.events]
        for event in mail:
            made += machine.receive_left(event, self.now())
        if machine.ended is not None and not made:
            self._finish()
            return
        begun = {(event.path, event.number) for event in made if isinstance(event, AttemptStarted)}
        commands: list[Command] = []
        for command in machine.outstanding() if mail else step.commands:
            attempt = command if isinstance(command, RunAttempt) and command.record.node.on_lost == "fail" else None
            if attempt is not None and (attempt.path, attempt.number) not in begun:
                failure = Failure("lost", "the process that ran this attempt was lost, and `on_lost` is `fail`")
                self.engine.put(self, AttemptFailed(self.now(), attempt.path, attempt.number, failure))
            else:
                commands.append(command)
        self._unwritten += made
        self._held += commands
        await self._commit()
        self.engine.wake()

    async def receive(self, event: Event) -> None:
        """Feed the machine, commit what comes of it, and carry out what it asks for.

        Raises:
            IllegalEvent: No history can produce the event here; nothing has changed.
        """
        if not self.done and self._take(event):
            await self._commit()
            self.engine.wake()

    def _take(self, event: Event) -> bool:
        """Feed the machine. Returns whether anything came of it, that is, whether the event was not stale."""
        step = self.machine.receive(event)
        if not step.events:
            return False
        if not self._unwritten:
            self._since = event.at
        self._unwritten += step.events
        for command in step.commands:
            # A pure attempt may run before the events that led to it are committed: it changes nothing outside.
            if type(command) is RunAttempt and (record := command.record).frame.plan.pure[record.index]:
                self.engine.ready.append((self, command))
            else:
                self._held.append(command)
        return True

    async def _commit(self) -> None:
        """Write what is to be written; whoever comes meanwhile leaves theirs to the one who writes."""
        if self._writing is not None:
            return
        engine, realm, machine = self.engine, self.realm, self.machine
        self._writing = anyio.Event()
        try:
            while not self.done and (self._batch or self._unwritten or self._held):
                if self._batch is None:
                    self._batch = (self._unwritten, self._held)
                    self._unwritten, self._held = [], []
                batch, commands = self._batch
                if batch:
                    await realm.journal.append(realm.tenant, machine.execution_id, self.committed, self.fence, batch)
                    self.committed += len(batch)
                self._batch = None
                self._publish(batch)
                for command in commands:
                    self._dispatch(command)
        except Exception as error:  # noqa: BLE001 - whatever a journal or an observer raises ends the execution here
            self.stop(error)
        finally:
            self._writing.set()
            self._writing = None
            if self._batch is not None and not self.done:
                # The task was cancelled: somebody else writes the same again, which a journal takes for success.
                engine.write_soon(self)
        if machine.ended is not None and not self.done:
            self._finish()
        elif realm.on_still is not None and not self.done:
            self._perhaps_still()

    def _perhaps_still(self) -> None:
        """Tell the realm where nothing more will happen by itself until a signal comes or a time is reached."""
        root = self.root
        if self.realm.on_still is not None and not self.machine.running and root.is_still():
            self.realm.on_still(root, root.next_due())

    def is_still(self) -> bool:
        """Whether all there is to do here, and in its children, is to wait; and all of it is committed."""
        if self.uncommitted or self._cancelling or not self.machine.still:
            return False
        children = self._live_children()
        return len(children) == self.machine.children and all(child.is_still() for child in children)

    def next_due(self) -> float | None:
        """The earliest timer here, or in a child."""
        dues = [*(child.next_due() for child in self._live_children()), *self.machine.timers.values()]
        return min((due for due in dues if due is not None), default=None)

    def _live_children(self) -> list[Driver]:
        return [child for name in self.children if (child := self.engine.driver(name)) is not None]

    @property
    def uncommitted(self) -> int:
        """How many events the machine has seen that the journal has not."""
        return len(self._unwritten) + (len(self._batch[0]) if self._batch is not None else 0)

    async def commit_until_now(self) -> None:
        """Return when everything that has happened until now is committed, or the execution was given up."""
        wanted = self.committed + self.uncommitted
        while self.committed < wanted and not self.done:
            if self._writing is not None:
                await self._writing.wait()
            else:
                await self._commit()

    def _publish(self, batch: Sequence[Event]) -> None:
        if self._observe:
            for event in batch:
                self.engine.manager.hook.observe_event(execution_id=self.machine.execution_id, event=event)
        if self._more is not None:
            self._more.set()
            self._more = None

    def _finish(self) -> None:
        self.done = True
        self.finished.set()
        self._publish(())
        self.engine.forget(self.machine.execution_id)
        if self.parent is not None:
            driver, path = self.parent
            result = self.machine.result()
            self.engine.put(driver, ChildEnded(driver.now(), path, result.status, result.output, result.error))
            self.engine.wake()
        self._tell()

    def stop(self, failure: BaseException) -> None:
        """Give the execution up here, without an event, and its family with it: their journals stay as they are."""
        if self.done:
            return
        self.done = True
        self.failure = failure
        for scope in [*self._scopes.values(), *self._busy]:
            scope.cancel()
        self.finished.set()
        if self._more is not None:
            self._more.set()
        self.engine.forget(self.machine.execution_id)
        for child in self.children:
            self.engine.stop(child, failure)
        if self.parent is not None:
            self.parent[0].stop(failure)  # it would wait for an end of which nobody tells it
        self._tell()

    def _tell(self) -> None:
        told, self.on_done = self.on_done, None  # once; and who is told often holds the driver
        if told is not None:
            told()

    async def read(self, after: int) -> Sequence[Event]:
        """Committed events."""
        return await self.realm.journal.read(self.realm.tenant, self.machine.execution_id, after)

    async def wait_for_more(self, after: int) -> None:
        """Return when there are more than ``after`` committed events, or the execution has ended."""
        if self.committed > after or self.done:
            return
        if self._more is None:
            self._more = anyio.Event()
        await self._more.wait()

    def child_id(self, path: str) -> str:
        """The id of the child execution of a node: the same whenever it is asked for."""
        return f"exe_{hashlib.sha256(f'{self.machine.execution_id}/{path}'.encode()).hexdigest()[:24]}"

    # --- out --------------------------------------------------------------------------------------------------------

    def _dispatch(self, command: Command) -> None:
        if isinstance(command, StartTimer):
            self.engine.start_timer(self, command)
        elif isinstance(command, CancelAttempt):
            scope = self._scopes.pop(command.path, None)
            if scope is not None:
                scope.cancel()
        else:
            self._cancelling += isinstance(command, CancelChild)
            self.engine.put(self, command)

    def timer_fired(self, path: str, kind: TimerKind, due: float) -> None:
        """A timer of this execution came due."""
        self.engine.put(self, TimerFired(max(self.now(), due), path, kind))

    def perform(self, job: Any, scope: anyio.CancelScope) -> Awaitable[None]:
        """Do one job in a worker whose scope is given: a command, an event to take in, or :data:`WRITE`."""
        return self._attempt(job, scope) if type(job) is RunAttempt else self._perform_other(job, scope)

    async def _perform_other(self, job: Any, scope: anyio.CancelScope) -> None:
        if self.done:
            return
        if job is WRITE:
            self._rides = self._may_ride()
            if self._rides:
                self.engine.write_later(self, self._since + _MAX_UNWRITTEN_TIME)
            else:
                await self._commit()
            return
        self._busy.add(scope)
        try:
            await self._carry_out(job)
        finally:
            self._busy.discard(scope)

    async def _carry_out(self, job: Any) -> None:
        if isinstance(job, Evaluate):
            await self.receive(await self._answer(job))
        elif isinstance(job, StartChild):
            await self.realm.start_child(self, job)
        elif isinstance(job, CancelChild):
            await self.realm.cancel_child(self, job)
            self._cancelling -= 1
            if not self.done:
                self._perhaps_still()
        else:
            # An event from inside (a timer, a child's end) may have waited while later ones were taken in.
            event = job if job.at >= self.machine.now else attrs.evolve(job, at=self.machine.now)
            with contextlib.suppress(IllegalEvent):  # too late to mean anything
                await self.receive(event)

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def _attempt(self, job: RunAttempt, scope: anyio.CancelScope) -> None:
        """Run a node function and take in what comes of it."""
        machine = self.machine
        record, path, number = job.record, job.path, job.number
        if record.stage is not _ACTIVE or record.number != number or path in self._scopes or self.done:
            return  # it was cancelled while it was queued
        plan = record.frame.plan
        prepared: Prepared = plan.notes[record.index] or self._prepare(plan, record.index)
        value = record.input
        if not prepared.pure and type(value) not in _SCALARS:
            # An effectful function may keep or change what it gets; what others see must not change with it.
            value = copy_json(value)
        ctx = NodeContext(
            self.realm,
            machine.execution_id,
            plan.names[record.index],
            path,
            number,
            record.at_due if prepared.pure else self._time(),
            machine.seed,
            record.inputs if record.inputs is not None else {"main": record.input},
            machine.payload,
            machine.timers.get((path, "timeout")) if machine.timers else None,
            record.resumed,
            prepared.pure,
        )
        self._scopes[path] = scope
        event: Event
        try:
            if self._surround:
                outputs = await self._surrounded(ctx, record, prepared, value)
            else:
                config = prepared.ready
                if config is None:
                    config = await prepared.config.make(self._names_of(record, prepared.secret), self.realm.evaluator)
                result = await prepared.function(ctx, config, value)
                outputs = self._outputs(ctx, result, prepared)
        except BaseException as raised:  # whatever a node function raises fails its attempt
            error = unwrapped(raised)
            if not isinstance(error, (Exception, WaitRequested)) and not is_stray(error, scope):
                raise  # a cancelled scope, a cancelled task, or what is to end the program
            if isinstance(error, Unavailable):
                self.stop(error)  # what stands behind it failed, and not the node: the attempt is made again later
                return
            event = self._raised(error, ctx, job, prepared)
        else:
            at = self._time()
            if at < machine.now:  # noqa: PLR1730 - a call of max costs more, and this is done for every node
                at = machine.now
            event = AttemptSucceeded(at, path, number, outputs, self._logs(ctx, prepared) if ctx.logged else ())
        if self._scopes.get(path) is not scope or self.done:
            return  # it was cancelled: whatever it gave is stale
        del self._scopes[path]
        if not prepared.pure:
            await self.receive(event)
        elif self._take(event) and (
            not self._rides
            or self._held
            or machine.ended is not None
            or len(self._unwritten) >= _MAX_UNWRITTEN
            or event.at - self._since >= _MAX_UNWRITTEN_TIME
        ):
            await self._write_or_ride(event.at)

    def _may_ride(self) -> bool:
        """Whether what is unwritten can wait for an attempt that runs: what that gives may be written with it."""
        waits = self._unwritten and self._scopes and not self._held and self._batch is None
        # Less than nothing has passed where the clock was set back: then nobody knows how long it has been.
        return bool(waits) and 0 <= self._time() - self._since < _MAX_UNWRITTEN_TIME

    async def _write_or_ride(self, at: float) -> None:
        """Commit what a pure attempt led to, or leave it to the next commit."""
        few = len(self._unwritten) < _MAX_UNWRITTEN
        if few and not self._held and self.machine.ended is None and at - self._since < _MAX_UNWRITTEN_TIME:
            self._rides = True
            self.engine.write_soon(self)
        elif few or self._writing is None:
            await self._commit()
        else:
            # The journal is slower than the nodes: they wait for it, so that what a crash undoes stays bounded.
            await self._writing.wait()
            await self._commit()

    def _raised(self, error: BaseException, ctx: NodeContext, job: RunAttempt, prepared: Prepared) -> Event:
        """The event of an attempt that ended with an exception."""
        logs = self._logs(ctx, prepared)
        if isinstance(error, WaitRequested):
            return AttemptWaited(self.now(), job.path, job.number, error.wait, logs)
        failure = failure_of(error)
        if prepared.secret or ctx.saw_secrets:
            code, message, data = self._masked([failure.code, failure.message, failure.data])
            failure = attrs.evolve(failure, code=code, message=message, data=data)
        return AttemptFailed(self.now(), job.path, job.number, failure, logs)

    async def _surrounded(self, ctx: NodeContext, record: Record, prepared: Prepared, value: Json) -> dict[str, Json]:
        """An attempt inside what plugins put around it."""
        with contextlib.ExitStack() as stack:
            for around in self.engine.manager.hook.around_attempt(ctx=ctx, node_type=prepared.type_name):
                stack.enter_context(around)
            config = prepared.ready
            if config is None:
                config = await prepared.config.make(self._names_of(record, prepared.secret), self.realm.evaluator)
            return self._outputs(ctx, await prepared.function(ctx, config, value), prepared)

    def _prepare(self, plan: Plan, index: int) -> Prepared:
        bare = plan.bare[index]
        if bare and (common := self.engine.bare.get(plan.types[index])) is not None:
            plan.notes[index] = common
            return common
        node = plan.nodes[index]
        kind = self.realm.registry.node_types[node.type]
        if kind.function is None:
            raise OrchestratorError(f"{node.type} is a group and has no function")
        config = prepare_config(kind, migrate(node, kind).config)
        ports = kind.ports_for(node.config)
        prepared = Prepared(
            function=kind.function,
            config=config,
            # An effectful function may change what its config holds, which is the document's.
            ready=config.ready if kind.pure or not _holds_containers(node.config) else None,
            pure=kind.pure,
            type_name=kind.name,
            ports=None if ports is None else frozenset([*ports, "error"]),
            secret=config.secret,
        )
        plan.notes[index] = prepared
        if bare:
            self.engine.bare[node.type] = prepared
        return prepared

    def _outputs(self, ctx: NodeContext, result: Any, prepared: Prepared) -> dict[str, Json]:
        """What an attempt delivers, checked to be JSON and shared with nobody."""
        if ctx.emitted is None:
            masked = prepared.secret or ctx.saw_secrets
            if type(result) in _SCALARS and not masked and (type(result) is not str or result.isascii()):
                return {"main": result}
            outputs = {"main": result}
        else:
            if result is not None:
                raise NodeError("the function emitted and returned a value: do one or the other", code="bad_output")
            outputs = ctx.emitted
            unknown = [port for port in outputs if prepared.ports is not None and port not in prepared.ports]
            if unknown:
                listed = ", ".join(sorted(prepared.ports or ()))
                raise NodeError(f"{prepared.type_name} has no port {unknown[0]!r}: it has {listed}", code="bad_output")
        for port, value in outputs.items():
            if fault := check_json(value):
                raise NodeError(f"what it gave on {port!r} is not JSON: {fault}", code="bad_output")
        copied: dict[str, Json] = copy_json(outputs)
        return self._masked(copied) if prepared.secret or ctx.saw_secrets else copied

    def _logs(self, ctx: NodeContext, prepared: Prepared) -> tuple[LogLine, ...]:
        lines = ctx.log_lines
        if not (prepared.secret or ctx.saw_secrets):
            return lines
        return tuple(attrs.evolve(line, message=self._masked(line.message)) for line in lines)

    def _masked(self, value: Any) -> Any:
        return mask(value, self.realm.secrets.values())

    # --- expressions ------------------------------------------------------------------------------------------------

    def _names(self, scope: Scope, place: str, now: float, secret: bool = False) -> Names:
        machine = self.machine
        if not self._execution:
            self._execution = {"id": machine.execution_id, "workflow": machine.plan.workflow.id}
        secrets = self.realm.secrets if secret else None
        return Names(scope, machine.payload, machine.vars, self._execution, secrets, machine.seed, place, now)

    def _names_of(self, record: Record, secret: bool) -> Names:
        """What the names in the config of an attempt stand for."""
        return self._names(record.scope(), f"{record.path}?config", record.at_due, secret)

    async def _answer(self, command: Evaluate) -> Evaluated:
        """Evaluate a template of the document itself."""
        path, question = command.path, command.question
        names = self._names(command.scope, f"{path}?{question}", self.machine.now)
        try:
            template = compile_template(command.template)
            value = template.build(await self.realm.evaluator.values(template.codes, names))
        except ExpressionError as error:
            return Evaluated(self.now(), path, question, error=Failure("expression", str(error)))
        if question in {"when", "until"}:
            value = truthy(value)
        elif question == "for_each" and not isinstance(value, list):
            message = f"for_each gave {_short(value)}, which is no list"
            return Evaluated(self.now(), path, question, error=Failure("expression", message))
        elif question == "for_each" and self.realm.most_items is not None and len(value) > self.realm.most_items:
            message = f"for_each has {len(value)} items: {self.realm.most_items} are allowed here"
            return Evaluated(self.now(), path, question, error=Failure("too_large", message))
        return Evaluated(self.now(), path, question, value)


def _holds_containers(config: Mapping[str, Json]) -> bool:
    return any(isinstance(value, list | dict) for value in config.values())


def _short(value: Any) -> str:
    text = dump_json(value)
    return text if len(text) <= _MAX_REPEATED else text[:_MAX_REPEATED] + "…"
