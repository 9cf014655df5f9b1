"""A realm: what one tenant has of an engine, and the executions that run in it.

An engine has workers, timers, languages and plugins. Whose workflows, secrets and variables an execution sees, what it may do
and where its events are kept is said by the realm it runs in. An engine has one of its own; a program with many tenants
makes one for each, on the same engine.
"""

from __future__ import annotations

import gc
import secrets as random_bytes
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import anyio

from orchestrator_core.admission import exists
from orchestrator_core.codec import check_json, child_place, copy_json
from orchestrator_core.commands import CancelChild, StartChild
from orchestrator_core.configs import Evaluator
from orchestrator_core.document import Workflow
from orchestrator_core.driver import Driver, Runner
from orchestrator_core.errors import Conflict, DocumentError, Fault, NodeError, OrchestratorError
from orchestrator_core.evaluation import Expressions
from orchestrator_core.events import CancelRequested, ChildEnded, Event, ExecutionStarted, SignalReceived
from orchestrator_core.graph import Plan, make_plan
from orchestrator_core.journal import Journal
from orchestrator_core.machine import Machine
from orchestrator_core.nodes import ApprovalAnswer, Blobs, HttpClient, Language
from orchestrator_core.plugins import Registry
from orchestrator_core.policies import CodePolicy, LimitedLanguage, check_capabilities, denied
from orchestrator_core.types import ExecutionStatus, Failure, Json, Pins, Result, seed_at
from orchestrator_core.validation import validate

__all__ = ["Execution", "House", "Realm", "given", "given_pins"]

_PLANS = 128
# From so many nodes on it pays to keep the garbage collector away while something is laid out.
_LARGE = 1000

Made = TypeVar("Made")


class Execution:
    """A handle to an execution: follow it, signal it, cancel it, wait for its result."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def id(self) -> str:
        """``exe_…``."""
        return self._driver.machine.execution_id

    @property
    def status(self) -> ExecutionStatus:
        """Where it stands now. While something is being committed it is still running."""
        return ExecutionStatus.RUNNING if self._driver.uncommitted else self._driver.machine.status

    async def snapshot(self) -> Result:
        """The records as they stand now. Returns when what they show is committed."""
        result = self._driver.machine.result()
        await self._driver.commit_until_now()
        return result

    async def result(self) -> Result:
        """Wait until it has ended, and return its result whatever its status.

        Raises:
            OrchestratorError: The engine was closed before it ended, or its journal failed.
        """
        await self._driver.finished.wait()
        if self._driver.failure is not None:
            raise self._driver.failure
        machine = self._driver.machine
        return _without_collections(len(machine.plan.nodes), machine.result)

    async def events(self, *, after: int = 0) -> AsyncIterator[Event]:
        """Every committed event from number ``after`` on, until the execution has ended."""
        driver = self._driver
        while True:
            batch = await driver.read(after)
            for event in batch:
                yield event
            after += len(batch)
            if not batch and driver.finished.is_set():
                return
            await driver.wait_for_more(after)

    async def signal(self, path: str, name: str, payload: Json = None, *, id: str | None = None) -> None:
        """Send a message to a node that waits for it, or will. The same ``id`` counts once.

        Raises:
            IllegalEvent: There is no such node.
            DocumentError: The payload is not JSON.
        """
        driver = self._driver
        payload = given(payload, "$.payload")
        await driver.receive(SignalReceived(driver.now(), path, name, id or random_bytes.token_hex(8), payload))

    async def cancel(self, path: str = "") -> None:
        """Cancel the execution, or one group in it. Returns when it is requested, not when it has ended.

        Raises:
            IllegalEvent: There is no such group.
        """
        driver = self._driver
        await driver.receive(CancelRequested(driver.now(), path))

    def park(self) -> None:
        """Give it up here, without an event: its journal stays, and whoever resumes it goes on. What runs is cancelled."""
        self._driver.stop(OrchestratorError("the execution was parked"))


class House(Runner, Protocol):
    """What a realm needs of the engine it belongs to."""

    @property
    def all_types(self) -> Registry:
        """What the plugins bring."""
        ...

    @property
    def client(self) -> HttpClient:
        """The HTTP client."""
        ...

    def check_open(self) -> None:
        """Raise OrchestratorError unless the engine is open."""
        ...

    def add(self, driver: Driver, execution_id: str) -> None:
        """Keep the driver of an execution."""
        ...


class Realm:
    """What one tenant has of an engine.

    Args:
        engine: Whose workers, languages and plugins are used.
        tenant: Whose executions these are, for the journal.
        journal: Where events are kept.
        callables: The functions that ``call`` nodes may name.
        workflows: The stored workflows that ``workflow`` nodes may name.
        secrets: What ``{{ secrets.name }}`` stands for.
        variables: What ``{{ vars.name }}`` stands for.
        code: The most that user code may ask for.
        deny: Capabilities that no node has here (``network``, ``code``, ``secrets``, ``blobs``): node types that need
            them are refused when a workflow is judged.
        blobs: Where bytes are kept.
        on_still: Called when nothing happens any more in an execution until a signal comes or a time (the second
            argument, or ``None``) is reached, and all of it is committed: it may be parked.
        most_items: Items that a ``for_each`` may have; ``None``: any number.
    """

    def __init__(
        self,
        engine: House,
        *,
        tenant: str,
        journal: Journal,
        callables: Mapping[str, Callable[..., Any]] | None = None,
        workflows: Iterable[Workflow] = (),
        secrets: Mapping[str, str] | None = None,
        variables: Mapping[str, Json] | None = None,
        code: CodePolicy | None = None,
        deny: Collection[str] = (),
        blobs: Blobs | None = None,
        on_still: Callable[[Execution, float | None], None] | None = None,
        most_items: int | None = None,
    ) -> None:
        self.engine = engine
        self.tenant = tenant
        self.journal = journal
        self.workflows = {workflow.id: workflow for workflow in workflows}
        self.callables: Mapping[str, Callable[..., Any]] = dict(callables or {})
        self._denied = check_capabilities(deny)
        self.secrets: Mapping[str, str] = {} if "secrets" in self._denied else dict(secrets or {})
        self.variables: Mapping[str, Json] = dict(variables or {})
        self.on_still = None if on_still is None else lambda driver, due: on_still(Execution(driver), due)
        self.most_items = most_items
        self._code = code if code is not None else CodePolicy()
        self._blobs = blobs
        self.evaluator: Evaluator = Expressions(self)
        self._types: tuple[Registry, Registry] | None = None
        self._plans: dict[tuple[int, str | None], tuple[Workflow, Plan]] = {}

    @property
    def registry(self) -> Registry:
        """The node types and languages that there are here."""
        whole = self.engine.all_types
        if self._types is None or self._types[0] is not whole:
            self._types = (whole, whole.without(self._denied))
            self._plans.clear()
        return self._types[1]

    # --- running ----------------------------------------------------------------------------------------------------

    async def run(
        self,
        workflow: Workflow,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
    ) -> Result:
        """Run a workflow to its end and return its result, whatever its status.

        Args:
            workflow: What to run.
            payload: What starts it, any JSON value.
            start: The trigger that starts it, where there are several.
            pins: Path -> port -> value: nodes that give this instead of running.
            seed: Makes what is random reproducible.

        Raises:
            DocumentError: The workflow cannot run here; all faults, with their places.
        """
        execution = await self.start(workflow, payload, start=start, pins=pins, seed=seed)
        try:
            return await execution.result()
        except anyio.get_cancelled_exc_class():
            execution._driver.stop(OrchestratorError("the run was cancelled from outside"))  # noqa: SLF001 - its own handle
            raise

    async def start(
        self,
        workflow: Workflow,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
    ) -> Execution:
        """Start a workflow and return a handle at once. See :meth:`run`."""
        return Execution(await self._start(workflow, payload, start=start, pins=pins, seed=seed))

    async def resume(self, workflow: Workflow, execution_id: str, *, fence: int = 0) -> Execution:
        """Go on with an execution from its journal: what was outstanding is done again.

        Args:
            workflow: The version that it was started with.
            execution_id: Which execution.
            fence: Newer than that of whoever ran it before, where the journal may still be written to by them.

        Raises:
            OrchestratorError: The journal does not know it, or it belongs to another workflow.
        """
        self.engine.check_open()
        events = await self.journal.read(self.tenant, execution_id)
        return Execution(await self._resume(workflow, execution_id, events, fence, None))

    def validate(self, workflow: Workflow) -> list[Fault]:
        """Everything that is wrong with a workflow here, in document order. Runs nothing."""
        return validate(workflow, self.registry, stored=self.workflows)

    def plan(self, workflow: Workflow, start: str | None = None) -> Plan:
        """The checked plan of a workflow. Kept for the next run of the same object.

        Raises:
            DocumentError: With every fault and its place.
        """
        key = (id(workflow), start)
        kept = self._plans.get(key)
        if kept is not None and kept[0] is workflow:
            return kept[1]
        faults = self.validate(workflow)
        if faults:
            raise DocumentError(faults)
        plan = _without_collections(
            len(workflow.nodes), lambda: make_plan(workflow, self.registry.describe, start=start)
        )
        if len(self._plans) >= _PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = (workflow, plan)
        return plan

    async def _start(
        self,
        workflow: Workflow,
        payload: Json,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        execution_id: str | None = None,
        parent: tuple[Driver, str] | None = None,
    ) -> Driver:
        self.engine.check_open()
        payload = given(payload, "$.payload")
        plan = self.plan(workflow, start)
        driver = Driver(self, Machine(plan), fence=0 if parent is None else parent[0].root.fence, parent=parent)
        event = ExecutionStarted(
            at=self.engine.clock.time(),
            execution_id=execution_id or f"exe_{random_bytes.token_hex(12)}",
            payload=payload,
            start=driver.machine.plan.start,
            seed=random_bytes.randbits(48) if seed is None else seed,
            pins=given_pins(pins, plan),
            vars=given(self.variables, "$.vars"),
            workflow=workflow.id,
            version=workflow.version,
            parent=None if parent is None else parent[0].machine.execution_id,
        )
        _check_wanted(parent)
        self.engine.add(driver, event.execution_id)
        await driver.begin(event)
        return driver

    async def _resume(
        self,
        workflow: Workflow,
        execution_id: str,
        events: Sequence[Event],
        fence: int,
        parent: tuple[Driver, str] | None,
    ) -> Driver:
        self.engine.check_open()
        if self.engine.driver(execution_id) is not None:
            raise Conflict(f"{execution_id} runs here already")
        if not events or not isinstance(events[0], ExecutionStarted):
            raise OrchestratorError(f"the journal has no execution {execution_id}")
        if events[0].workflow != workflow.id or events[0].version != workflow.version:
            raise OrchestratorError(
                f"{execution_id} runs {events[0].workflow!r} version {events[0].version}, "
                f"not {workflow.id!r} version {workflow.version}"
            )
        if parent is not None or fence:
            # Who worked on it before, or on its parent, is fenced off from it before anything comes of what was read.
            await self.journal.append(self.tenant, execution_id, len(events), fence, ())
        mail = await self.mail(execution_id)
        driver = Driver(self, Machine(self.plan(workflow, events[0].start)), fence=fence, parent=parent)
        _check_wanted(parent)
        self.engine.add(driver, execution_id)
        try:
            await driver.go_on(events, mail)
        except BaseException as error:
            driver.stop(error)
            raise
        return driver

    # --- what stands behind a NodeContext ---------------------------------------------------------------------------

    @property
    def http(self) -> HttpClient:
        """The HTTP client, made when it is first used."""
        if "network" in self._denied:
            raise denied("network")
        return self.engine.client

    @property
    def blobs(self) -> Blobs:
        """The store of bytes."""
        if "blobs" in self._denied:
            raise denied("blobs")
        if self._blobs is None:
            raise OrchestratorError("this engine has no store for blobs: give it one, as Engine(blobs=...)")
        return self._blobs

    def language(self, name: str) -> Language:
        """A language for user code.

        Raises:
            OrchestratorError: It is not installed.
        """
        language = self.registry.languages.get(name)
        if language is None:
            known = ", ".join(sorted(self.registry.languages)) or "none"
            raise OrchestratorError(f"the language {name!r} is not installed; there is {known}")
        return LimitedLanguage(language, self._code, self.tenant, denied="code" in self._denied)

    def approval_link(
        self,
        execution_id: str,  # noqa: ARG002 - for realms that have links
        path: str,  # noqa: ARG002 - as above
        signal: str,  # noqa: ARG002 - as above
        *,
        expires_at: float,  # noqa: ARG002 - as above
        answer: ApprovalAnswer | None = None,  # noqa: ARG002 - as above
    ) -> str:
        """A link for a person who answers a signal. There is none here: links lead to a server."""
        raise NodeError(
            "approval links lead to a server, and this workflow does not run on one: send the signal from your program, as "
            "execution.signal(path, name, payload)",
            code="no_links",
        )

    async def mail(self, execution_id: str) -> Sequence[Event]:  # noqa: ARG002 - for those who have an inbox
        """Signals and cancels that were left for an execution while nobody drove it, in order, with their times.

        There are none here: they are handed to the execution that runs.
        """
        return ()

    # --- children ---------------------------------------------------------------------------------------------------

    async def start_child(self, parent: Driver, command: StartChild) -> None:
        """Start a stored workflow for a node of ``parent``, or go on with it where the journal has it."""
        workflow = self.workflows[command.workflow]
        child_id = parent.child_id(command.path)

        parent.children.add(child_id)
        events = await self.journal.read(self.tenant, child_id)
        if events:
            # One that began and cannot go on is not given up alone: its family is, and is tried again.
            child = await self._resume(workflow, child_id, events, parent.root.fence, (parent, command.path))
        else:
            try:
                child = await self._start(
                    workflow,
                    command.input,
                    execution_id=child_id,
                    seed=seed_at(parent.machine.seed, command.path),
                    parent=(parent, command.path),
                )
            except DocumentError as error:
                # A child that cannot run is a failure of its node like any other; that a journal fails is none.
                failure = Failure(error.code, f"workflow {workflow.id!r} cannot run: {error}")
                self.engine.put(parent, ChildEnded(parent.now(), command.path, ExecutionStatus.FAILED, error=failure))
                return
        if child_id in parent.unwanted:
            await child.receive(CancelRequested(child.now()))

    async def cancel_child(self, parent: Driver, command: CancelChild) -> None:
        """Cancel the child execution of a node of ``parent``."""
        child_id = parent.child_id(command.path)
        child = self.engine.driver(child_id)
        if child is not None:
            await child.receive(CancelRequested(child.now()))
        else:
            parent.unwanted.add(child_id)  # it ended meanwhile, or its journal is being read


def _check_wanted(parent: tuple[Driver, str] | None) -> None:
    """A parent may have been given up while the journal was read: nobody would stop its child any more."""
    if parent is not None and parent[0].done:
        raise OrchestratorError("its parent was given up")


def given(value: Any, place: str) -> Any:
    """A value from outside: JSON, and shared with nobody from now on.

    Raises:
        DocumentError: It is not JSON.
    """
    fault = check_json(value, place)
    if fault is not None:
        raise DocumentError([fault])
    return copy_json(value)


def given_pins(pins: Any, plan: Plan) -> dict[str, dict[str, Json]]:
    """Pins from outside: path -> port -> JSON, for paths that the plan has.

    Raises:
        DocumentError: They are of another shape, or for a path that there is not.
    """
    checked: dict[str, dict[str, Json]] = {}
    for path, ports in (pins if isinstance(pins, Mapping) else {} if pins is None else {"": pins}).items():
        place = child_place("$.pins", str(path))
        if not isinstance(ports, Mapping):
            raise DocumentError([Fault('pins are given as {path: {port: value}}, as {"price": {"main": 3}}', place)])
        name = str(path).partition("/")[0]
        if name in plan.outside:
            continue  # what this start does not reach does not exist for it
        if not exists(plan, str(path)):
            raise DocumentError([Fault("there is no such node to pin", place)])
        checked[str(path)] = given(dict(ports), place)
    return checked


def _without_collections(size: int, make: Callable[[], Made]) -> Made:
    """Make something large of which nothing is garbage: collections meanwhile would only walk it, again and again."""
    if size < _LARGE or not gc.isenabled():
        return make()
    gc.disable()
    try:
        return make()
    finally:
        gc.enable()
