"""Realms of tenants: what a tenant's executions see and may do, made from what the storage holds.

One engine serves all tenants. :class:`Realms` makes the core's realm of each: with its secrets opened, its variables, its
limits, its journal, and the versions of stored workflows that an execution is pinned to. A realm is used as long as nothing of
that has changed; what another process changes is seen within two seconds.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import anyio
import attrs

from orchestrator_core import CodePolicy, Engine, Execution, Workflow
from orchestrator_core.admission import exists
from orchestrator_core.codec import copy_json
from orchestrator_core.document import called_workflows
from orchestrator_core.driver import Driver
from orchestrator_core.errors import NodeError, OrchestratorError
from orchestrator_core.events import Event, ExecutionEnded, ExecutionStarted
from orchestrator_core.graph import Plan, Traits, make_plan
from orchestrator_core.machine import Machine
from orchestrator_core.nodes import ApprovalAnswer
from orchestrator_core.policies import check_capabilities
from orchestrator_core.realm import Realm, given, given_pins
from orchestrator_core.types import Json, NodeIO, Pins
from orchestrator_server.approvals import Approval, ApprovalLinks
from orchestrator_server.errors import Invalid, NotFound, StorageFull
from orchestrator_server.metrics import Metrics
from orchestrator_server.quotas import Quotas
from orchestrator_server.records import Tenant, Webhook, WorkflowRow, check_id, new_execution_id
from orchestrator_server.sealing import Sealer, SealError, UnknownKey
from orchestrator_server.storage import Inbox, Storage, StoreJournal, TenantStore
from orchestrator_server.tracing import Tracing

__all__ = ["Realms", "ServedDriver", "TenantRealm", "TenantSettings", "Ways"]

_LOG = logging.getLogger(__name__)
_FRESH: Final = 2.0  # seconds for which what was read of a tenant is believed
_WORKFLOWS: Final = 256  # versions that are kept for each tenant
_REALMS: Final = 64  # sets of pinned versions that are kept for each tenant
_OUTLINES: Final = 64  # plans for reading that are kept

Accept = Callable[[Sequence[Event], Sequence[NodeIO] | None], Awaitable[None]]
Still = Callable[[Execution, float | None], None]
Committed = Callable[[str, str, int, Sequence[Event]], None]


@attrs.frozen
class TenantSettings:
    """What a tenant's settings say to the engine.

    Attributes:
        deny: Capabilities that none of its nodes has.
        code: The most that its user code may ask for.
        error_workflow: The workflow that starts when an execution fails.
        error_workflows: The same for single workflows: workflow -> error workflow; ``None``: none for this one.
    """

    deny: frozenset[str] = frozenset()
    code: CodePolicy = attrs.field(factory=CodePolicy)
    error_workflow: str | None = None
    error_workflows: Mapping[str, str | None] = attrs.field(factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Json]) -> TenantSettings:
        """Read a tenant's settings: ``deny``, ``code: {timeout, memory}``, ``error_workflow``, ``error_workflows``.

        Raises:
            Invalid: One of them has another shape. Settings of other names are none of its business.
        """
        deny, code = settings.get("deny") or [], settings.get("code") or {}
        if not isinstance(deny, list) or not all(isinstance(name, str) for name in deny):
            raise Invalid("settings.deny: give a list of capabilities")
        try:
            denied = check_capabilities(deny)
        except ValueError as error:
            raise Invalid(f"settings.deny: {error}") from None
        if not isinstance(code, Mapping) or set(code) - {"timeout", "memory"}:
            raise Invalid("settings.code: give {timeout: seconds, memory: bytes}")
        for name, value in code.items():
            number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
            if value is not None and not (number and (name == "timeout" or isinstance(value, int))):
                raise Invalid(f"settings.code.{name}: give a number above 0")
        single = settings.get("error_workflows") or {}
        if not isinstance(single, Mapping):
            raise Invalid("settings.error_workflows: give {workflow: error workflow}")
        common = settings.get("error_workflow")
        for name in (common, *single.values()):
            if name is not None:
                if not isinstance(name, str):
                    raise Invalid("settings.error_workflow: give a workflow's id")
                check_id(name, "settings.error_workflow: workflow")
        return cls(denied, CodePolicy(code.get("timeout"), code.get("memory")), common, dict(single))

    def error_workflow_of(self, workflow: str) -> str | None:
        """Which workflow starts when an execution of this one fails."""
        found = self.error_workflows.get(workflow, self.error_workflow)
        return None if found == workflow else found


class ServedDriver(Driver):
    """The driver of an execution on the server.

    Pure attempts ride from the beginning, whether its start event is committed already or not. Where it is not, ``accept`` is
    called with the first events that are to be written, instead of the journal: an execution of nothing but pure nodes is
    accepted and ended by one commit. Until then nobody outside has seen anything of it.
    """

    accept: Accept | None = None

    async def begin(self, event: Event) -> None:
        """See :class:`~orchestrator_core.driver.Driver`."""
        if self._take(event):
            await self._write_or_ride(event.at)
            self.engine.wake()


class _TracedDriver(ServedDriver):
    """The same, with a span from here to its end, or until it is given up."""

    def __init__(
        self, realm: TenantRealm, machine: Machine, tracing: Tracing, begin: ExecutionStarted, fence: int
    ) -> None:
        super().__init__(realm, machine, fence=fence)
        self._tracing = tracing
        self._name = begin.execution_id  # the machine knows it when it has begun
        tracing.begun(realm.tenant, begin)

    def stop(self, failure: BaseException) -> None:
        """See :class:`~orchestrator_core.driver.Driver`."""
        if not self.done:
            super().stop(failure)
            self._tracing.left(self._name)


class TenantRealm(Realm):
    """A tenant's realm on the server: executions are accepted by the store before they are driven.

    Args:
        inbox: Where messages are left for executions.
        tracing: Where they are traced.
        more: As of :class:`~orchestrator_core.Realm`.
    """

    def __init__(self, engine: Engine, *, inbox: Inbox, tracing: Tracing | None = None, **more: Any) -> None:
        super().__init__(engine, **more)
        self._inbox = inbox
        self._tracing = tracing

    links: ApprovalLinks | None = None  # set by whoever makes it, where there are any

    def accept(
        self,
        workflow: Workflow,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        execution_id: str | None = None,
    ) -> ExecutionStarted:
        """The start event of a new execution, everything in it checked and copied. Nothing is written.

        Raises:
            DocumentError: The workflow cannot run here, or what was given does not fit it.
        """
        payload = given(payload, "$.payload")
        plan = self.plan(workflow, start)
        now = self.engine.clock.time()
        name = execution_id or new_execution_id(now)
        return ExecutionStarted(
            at=now,
            execution_id=name,
            payload=payload,
            start=plan.start,
            seed=_seed_of(name) if seed is None else seed,
            pins=given_pins(pins, plan),
            vars=copy_json(self.variables),
            workflow=workflow.id,
            version=workflow.version,
            versions={name: stored.version for name, stored in self.workflows.items() if stored.version is not None},
            trace=None if self._tracing is None else self._tracing.accepted(self.tenant, workflow.id),
        )

    def driver(self, workflow: Workflow, event: ExecutionStarted, fence: int) -> ServedDriver:
        """The driver of an execution with this start event; it has not begun."""
        self.engine.check_open()
        machine = Machine(self.plan(workflow, event.start))
        if self._tracing is not None:
            return _TracedDriver(self, machine, self._tracing, event, fence)
        return ServedDriver(self, machine, fence=fence)

    def approval_link(
        self, execution_id: str, path: str, signal: str, *, expires_at: float, answer: ApprovalAnswer | None = None
    ) -> str:
        """See :class:`~orchestrator_core.Realm`."""
        driver = self.engine.driver(execution_id)
        if self.links is None:
            return super().approval_link(execution_id, path, signal, expires_at=expires_at, answer=answer)
        if driver is None or not exists(driver.machine.plan, path):
            raise NodeError(f"this execution has no node {path!r} to be answered", code="bad_config")
        return self.links.url(Approval(self.tenant, execution_id, path, signal, expires_at, answer))

    async def mail(self, execution_id: str) -> Sequence[Event]:
        """See :class:`~orchestrator_core.Realm`."""
        return [message.as_event() for message in await self._inbox.messages(execution_id)]

    async def drive(self, driver: Driver, events: Sequence[Event], mail: Sequence[Event] = ()) -> None:
        """Begin with an execution, or go on with it: the events are all that its journal has, the mail what was left for it.

        Raises:
            OrchestratorError: The journal contradicts itself or the workflow.
        """
        first = events[0]
        if not isinstance(first, ExecutionStarted):
            raise OrchestratorError(f"a journal begins with ExecutionStarted, this one with {type(first).__name__}")
        self.engine.add(driver, first.execution_id)
        try:
            if len(events) == 1 and not mail:
                await driver.begin(first)
            else:
                await driver.go_on(events, mail)
        except BaseException as error:
            driver.stop(error)
            self.engine.forget(first.execution_id)
            raise


class Ways:
    """The webhooks of a tenant: those whose path is written out, by method and path; and all of them."""

    def __init__(self, hooks: Sequence[Webhook]) -> None:
        self.all = tuple(hooks)
        self.exact = {(hook.method, hook.path): hook for hook in hooks if "{" not in hook.path}


@attrs.define(eq=False)
class _Home:
    """What is kept of a tenant. ``realms`` are those made from it, by the versions of workflows that they know."""

    store: TenantStore
    tenant: Tenant
    settings: TenantSettings
    stamp: Any
    secrets: Mapping[str, str] | UnknownKey = attrs.field(repr=False)  # the operator may have left a key out
    variables: Mapping[str, Json]
    read_at: float
    used_at: float
    webhooks: Ways | None = None  # read when they are first asked for
    realms: OrderedDict[tuple[tuple[str, int | None], ...], TenantRealm] = attrs.field(factory=OrderedDict)


class Realms:
    """The realms of all tenants on one engine.

    Args:
        engine: Whose workers, languages and plugins they use.
        storage: Where tenants are.
        sealer: Opens their secrets.
        links: Makes the links of approvals; without it there are none.
        idle: Seconds after which what is kept of a tenant that nobody asks for is dropped.
        metrics: What is counted goes there.
        tracing: Where executions are traced.
        most_items: Items that a ``for_each`` may have; ``None``: any number.

    ``on_still`` and ``on_commit`` are for the worker: what is told of executions that only wait (see
    :class:`~orchestrator_core.Realm`), and of events that were committed: tenant, execution, number of the first, events.
    """

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        sealer: Sealer,
        *,
        links: ApprovalLinks | None = None,
        idle: float = 300.0,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
        most_items: int | None = None,
    ) -> None:
        self.metrics = metrics if metrics is not None else Metrics()
        self.tracing = tracing
        self.engine = engine
        self.on_still: Still | None = None
        self.on_commit: Committed | None = None
        self._storage = storage
        self._sealer = sealer
        self._links = links
        self._idle = idle
        self._most_items = most_items
        self._homes: dict[str, _Home] = {}
        self._locks: dict[str, anyio.Lock] = {}
        self._versions: dict[str, OrderedDict[tuple[str, int], Workflow]] = {}
        self._outlines: OrderedDict[tuple[int, str | None], tuple[Workflow, Plan]] = OrderedDict()
        self._quotas = Quotas()

    # --- what callers ask for -------------------------------------------------------------------------------------------

    async def get(self, tenant: str) -> TenantRealm:
        """A tenant's realm with every active workflow: for judging documents.

        Raises:
            NotFound: There is no such tenant.
            UnknownKey: A secret was sealed with a key that is not here.
        """
        home = await self._home(tenant)
        pinned: dict[str, Workflow] = {}
        after = ""
        while rows := await home.store.workflows.list(after=after):
            for row in rows:
                if row.active is not None:
                    pinned[row.id] = await self._version(home, row.id, row.active)
            after = rows[-1].id
        return self._realm(home, pinned)

    async def for_execution(
        self, tenant: str, workflow: Workflow, *, start: ExecutionStarted | None = None
    ) -> TenantRealm:
        """The realm in which an execution of a workflow runs: with the stored workflows that it may call.

        Args:
            tenant: Whose.
            workflow: Which version.
            start: Its start event, which says their versions; without one, or without any in it, the active ones are meant.

        Raises:
            NotFound: There is no such tenant, or a version is not there any more.
            UnknownKey: A secret was sealed with a key that is not here.
        """
        home = await self._home(tenant)
        if start is not None and start.versions:
            return self._realm(home, {name: await self._version(home, name, n) for name, n in start.versions.items()})
        pinned: dict[str, Workflow] = {}
        asked = [*called_workflows(workflow.nodes)]
        while asked:
            name = asked.pop()
            if name in pinned or not isinstance(name, str):
                continue
            found = await self._active(home, name)
            if found is not None:
                pinned[name] = found
                asked += called_workflows(found.nodes)
        return self._realm(home, pinned)

    async def workflow(self, tenant: str, workflow_id: str, version: int | None = None) -> Workflow:
        """A version of a workflow, whether or not that was deleted; the active one unless said.

        Raises:
            NotFound: There is no such tenant, workflow or version, or none is active.
        """
        home = await self._home(tenant)
        if version is None:
            version = _active_of(await self._alive(home, workflow_id))
        return await self._version(home, workflow_id, version)

    async def startable(self, tenant: str, workflow_id: str, version: int | None = None) -> Workflow:
        """A version that somebody may start: of a workflow that is there, and no older than that.

        Raises:
            NotFound: As above; or the version is of a workflow that had the id before, and was deleted.
        """
        home = await self._home(tenant)
        row = await self._alive(home, workflow_id)
        number = _active_of(row) if version is None else version
        if version is not None and not row.has(await home.store.workflows.version(workflow_id, number)):
            raise NotFound(f"workflow {workflow_id!r} has no version {number}")
        return await self._version(home, workflow_id, number)

    async def _alive(self, home: _Home, workflow_id: str) -> WorkflowRow:
        row = await home.store.workflows.get(workflow_id)
        if row is None:
            raise NotFound(f"there is no workflow {workflow_id!r}")
        return row

    def outline(self, workflow: Workflow, start: str | None) -> Plan:
        """The plan with which the journal of an execution is read: what it ran need not be installed any more, nor be allowed.

        Args:
            workflow: The version that it ran.
            start: The trigger with which it began.

        Raises:
            DocumentError: The workflow has no such node.
        """
        key = (id(workflow), start)
        kept = self._outlines.get(key)
        if kept is None or kept[0] is not workflow:
            types = self.engine.all_types.node_types
            begins = next((node.type for node in workflow.nodes if node.id == start), None)

            def describe(name: str) -> Traits:
                return Traits(trigger=name == begins, group=types[name].group if name in types else None)

            kept = self._outlines[key] = workflow, make_plan(workflow, describe, start=start)
            if len(self._outlines) > _OUTLINES:
                self._outlines.popitem(last=False)
        return kept[1]

    async def store(self, tenant: str) -> TenantStore:
        """A tenant's store.

        Raises:
            NotFound: There is no such tenant.
        """
        return (await self._home(tenant)).store

    async def tenant(self, tenant: str) -> Tenant:
        """A tenant, as it was at most two seconds ago.

        Raises:
            NotFound: There is no such tenant.
        """
        return (await self._home(tenant)).tenant

    async def settings(self, tenant: str) -> TenantSettings:
        """What a tenant's settings say.

        Raises:
            NotFound: There is no such tenant.
        """
        return (await self._home(tenant)).settings

    async def webhooks(self, tenant: str) -> Ways:
        """A tenant's webhooks, as they were at most two seconds ago.

        Raises:
            NotFound: There is no such tenant.
        """
        home = await self._home(tenant)
        if home.webhooks is None:
            home.webhooks = Ways(await home.store.webhooks.list())
        return home.webhooks

    async def place(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """A place for one more execution of a tenant: it is created inside. To enter it raises `TooMany` where it has too many.

        Raises:
            NotFound: There is no such tenant.
            StorageFull: It keeps as many bytes as it may.
        """
        home = await self._home(tenant)
        return self._quotas.place(home.tenant, home.store)

    async def check_storage(self, tenant: str) -> None:
        """See to it that a tenant may keep more, at its size when it was measured last.

        Raises:
            NotFound: There is no such tenant.
            StorageFull: It keeps as many bytes as it may.
        """
        Quotas.check_storage(await self.tenant(tenant))

    def changed(self, tenant: str) -> None:
        """Something of the tenant was changed by this process: what is asked for next shows it."""
        home = self._homes.get(tenant)
        if home is not None:
            home.read_at = float("-inf")

    # --- making them ----------------------------------------------------------------------------------------------------

    async def _home(self, tenant_id: str) -> _Home:
        home = self._homes.get(tenant_id)
        now = time.monotonic()
        if home is None or now - home.read_at >= _FRESH:
            async with self._locks.setdefault(tenant_id, anyio.Lock()):
                home = self._homes.get(tenant_id)
                if home is None or now - home.read_at >= _FRESH:
                    home = await self._read(tenant_id, home)
            self._drop_idle(now)
        home.used_at = now
        return home

    async def _read(self, tenant_id: str, known: _Home | None) -> _Home:
        read_at = time.monotonic()
        tenant = await self._storage.tenants.get(tenant_id)
        if tenant is None:
            self._homes.pop(tenant_id, None)
            self._versions.pop(tenant_id, None)
            self._locks.pop(tenant_id, None)
            self._quotas.drop(tenant_id)
            raise NotFound(f"there is no tenant {tenant_id!r}")
        # A tenant that was deleted and made again is another one.
        same = known is not None and known.tenant.created_at == tenant.created_at
        if not same:
            self._versions.pop(tenant_id, None)
        store = known.store if known is not None and same else await self._storage.store(tenant_id)
        sealed = await store.secrets.list()
        variables = await store.variables.list()
        stamp = (tenant.created_at, tenant.settings, tuple(sealed), tuple(variables))
        if known is not None and known.stamp == stamp:
            known.tenant, known.read_at, known.webhooks = tenant, read_at, None
            return known
        home = self._homes[tenant_id] = _Home(
            store,
            tenant,
            TenantSettings.of(tenant.settings),
            stamp,
            self._open(tenant_id, sealed),
            {variable.name: variable.value for variable in variables},
            read_at,
            read_at,
        )
        return home

    def _open(self, tenant_id: str, sealed: Iterable[Any]) -> dict[str, str] | UnknownKey:
        opened: dict[str, str] = {}
        for secret in sealed:
            try:
                opened[secret.name] = self._sealer.open(tenant_id, secret)
            except UnknownKey as error:
                return error  # executions wait until it is back
            except SealError as error:
                # One bad row is not to stop everything else: for executions this secret is not there.
                _LOG.error("%s", error, extra={"tenant": tenant_id})
        return opened

    def _drop_idle(self, now: float) -> None:
        for name, home in [*self._homes.items()]:
            if now - home.used_at > self._idle:
                del self._homes[name]
                self._versions.pop(name, None)
                self._locks.pop(name, None)
                self._quotas.drop(name)

    def _realm(self, home: _Home, pinned: Mapping[str, Workflow]) -> TenantRealm:
        key = tuple(sorted((name, workflow.version) for name, workflow in pinned.items()))
        realm = home.realms.get(key)
        if realm is None:
            if isinstance(home.secrets, UnknownKey):
                raise home.secrets
            realm = home.realms[key] = TenantRealm(
                self.engine,
                tenant=home.tenant.id,
                journal=_ServedJournal(self, home.store.journal),
                workflows=pinned.values(),
                secrets=home.secrets,
                variables=home.variables,
                code=home.settings.code,
                deny=home.settings.deny,
                blobs=_QuotaBlobs(self, home.store),
                inbox=home.store.inbox,
                on_still=self._still,
                most_items=self._most_items,
                tracing=self.tracing,
            )
            realm.links = self._links
            if len(home.realms) > _REALMS:
                home.realms.popitem(last=False)
        else:
            home.realms.move_to_end(key)
        return realm

    def _still(self, execution: Execution, due: float | None) -> None:
        if self.on_still is not None:
            self.on_still(execution, due)

    # --- versions -------------------------------------------------------------------------------------------------------

    async def _version(self, home: _Home, workflow_id: str, number: int) -> Workflow:
        kept = self._versions.setdefault(home.tenant.id, OrderedDict())
        key = (workflow_id, number)
        workflow = kept.get(key)
        if workflow is None:
            version = await home.store.workflows.version(workflow_id, number)
            if version is None:
                raise NotFound(f"workflow {workflow_id!r} has no version {number}")
            workflow = attrs.evolve(Workflow.from_dict(version.document), version=number)
            kept[key] = workflow
            if len(kept) > _WORKFLOWS:
                kept.popitem(last=False)
        else:
            kept.move_to_end(key)
        return workflow

    async def _active(self, home: _Home, workflow_id: str) -> Workflow | None:
        """The active version of a stored workflow."""
        row = await home.store.workflows.get(workflow_id)
        return None if row is None or row.active is None else await self._version(home, workflow_id, row.active)


@attrs.frozen
class _QuotaBlobs:
    """A tenant's blobs as nodes see them: nothing new where the tenant keeps as much as it may."""

    _realms: Realms
    _store: TenantStore

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        """See :class:`~orchestrator_core.Blobs`."""
        try:
            await self._realms.check_storage(self._store.tenant)
        except StorageFull as full:
            raise NodeError(str(full), code=full.code, retryable=False) from None
        return await self._store.blobs.put(data, media_type=media_type)

    async def get(self, reference: str) -> bytes:
        """See :class:`~orchestrator_core.Blobs`."""
        return await self._store.blobs.get(reference)


class _ServedJournal:
    """A tenant's journal as drivers on the server use it.

    The start event of an execution stands there already when it is driven, or it is accepted with it. Children are written
    under the fence of the execution at the root. With the end go the node records.
    """

    def __init__(self, realms: Realms, journal: StoreJournal) -> None:
        self._realms = realms
        self._journal = journal

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        """See :class:`~orchestrator_core.Journal`."""
        if not batch:
            await self._journal.append(tenant, execution_id, expected_seq, fence, batch)
            return
        driver = self._realms.engine.driver(execution_id)
        root = driver.root if driver is not None else None
        first, events = expected_seq, batch
        new = driver if driver is root and not expected_seq and isinstance(driver, ServedDriver) else None
        if new is not None and new.accept is None and batch and isinstance(batch[0], ExecutionStarted):
            first, events = 1, batch[1:]
        nodes: Sequence[NodeIO] | None = None
        if driver is not None and batch and isinstance(batch[-1], ExecutionEnded):
            nodes = driver.machine.node_ios()
        if new is not None and new.accept is not None:
            await new.accept(batch, nodes)
            new.accept = None  # it knows the worker, which knows the driver
        elif events:
            held = fence if root is None else root.fence
            await self._journal.append(tenant, execution_id, first, held, events, nodes=nodes)
        self._realms.metrics.committed(driver, events)
        if root is not driver and not expected_seq:
            self._realms.metrics.accepted("workflow")
        if self._realms.on_commit is not None:
            self._realms.on_commit(tenant, execution_id, first, events)

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """See :class:`~orchestrator_core.Journal`."""
        return await self._journal.read(tenant, execution_id, after)


def _active_of(row: WorkflowRow) -> int:
    if row.active is None:
        raise NotFound(f"workflow {row.id!r} has no active version: activate one")
    return row.active


def _seed_of(execution_id: str) -> int:
    """A seed for an execution: as much by chance as its id, and for another system call none."""
    return int.from_bytes(hashlib.sha256(execution_id.encode()).digest()[:6], "big")
