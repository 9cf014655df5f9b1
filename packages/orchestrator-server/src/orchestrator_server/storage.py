"""The protocols of storage: small ones, tenant first.

:class:`Storage` is the system's: who the tenants are, their keys, the queue over all of them. What belongs to a tenant is
reached through a :class:`TenantStore`, which is bound to it: code that holds one cannot name another tenant. Every
method is a coroutine; when it returns, what it did is committed. Ids are checked before anything is looked up
(:class:`~orchestrator_server.errors.Invalid`); a database that does not answer is
:class:`~orchestrator_server.errors.Unavailable`. :mod:`orchestrator_server.testing` has the contract as tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Protocol

from orchestrator_core.events import Event
from orchestrator_core.journal import Journal
from orchestrator_core.types import Json, NodeIO
from orchestrator_server.records import (
    Backlog,
    Blob,
    Claim,
    Created,
    DueSchedule,
    ExecutionQuery,
    ExecutionRow,
    Key,
    Message,
    NewExecution,
    Outcome,
    Page,
    Schedule,
    Secret,
    Slot,
    Tenant,
    Triggers,
    Variable,
    Version,
    Webhook,
    WorkflowRow,
)

__all__ = [
    "BlobStore",
    "Executions",
    "Inbox",
    "Keys",
    "Queue",
    "Schedules",
    "Secrets",
    "Storage",
    "StoreJournal",
    "TenantStore",
    "Tenants",
    "Variables",
    "Webhooks",
    "Workflows",
    "every_tenant",
]


class Tenants(Protocol):
    """Who there is."""

    async def create(self, tenant: Tenant) -> Tenant:
        """Add a tenant, with all it needs in the database.

        Raises:
            Exists: The id is taken.
        """
        ...

    async def get(self, tenant_id: str) -> Tenant | None:
        """One tenant."""
        ...

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[Tenant]:
        """Tenants by id, from the one after ``after`` on."""
        ...

    async def update(self, tenant_id: str, **changes: Any) -> Tenant:
        """Change what is given of ``name``, ``limits``, ``retention`` and ``settings``; the rest stays. Counts for the next claim.

        Raises:
            NotFound: There is no such tenant.
        """
        ...

    async def measure(self, tenant_id: str) -> int:
        """Add up how many bytes a tenant keeps, and note it as its ``size``: events, outcomes, large values, blobs.

        Raises:
            NotFound: There is no such tenant.
        """
        ...

    async def delete(self, tenant_id: str) -> None:
        """Remove a tenant and everything it has, running executions too: their workers' next append is a conflict.

        Raises:
            NotFound: There is no such tenant.
        """
        ...


class Keys(Protocol):
    """API keys, found by id before anybody knows whose they are."""

    async def create(self, key: Key) -> None:
        """Add a key.

        Raises:
            Exists: The id is taken.
            NotFound: There is no such tenant.
        """
        ...

    async def get(self, key_id: str) -> Key | None:
        """One key, revoked or expired as it may be: judging it is not the store's business."""
        ...

    async def list(self, tenant_id: str | None) -> Sequence[Key]:
        """The keys of a tenant (``None``: the operator's), by id."""
        ...

    async def revoke(self, key_id: str, at: float) -> None:
        """Note when a key was revoked; the first time counts.

        Raises:
            NotFound: There is no such key.
        """
        ...

    async def delete(self, key_id: str) -> None:
        """Forget a key, if there is one."""
        ...


class Queue(Protocol):
    """Executions that somebody should work on, over all tenants. An execution's row is its entry.

    An execution may be claimed when its ``wake_at`` has come, by the database's clock. A claim is a lease: it ends when
    it is released, when its execution ends, or when its time is over. Each raises the fence, so that nobody who
    held it before can append any more.
    """

    async def claim(self, worker: str, limit: int, lease: float, *, suspects: bool = False) -> Sequence[Claim]:
        """Take up to ``limit`` due executions for ``lease`` seconds, fairly: each tenant in turn, oldest first.

        A tenant whose workers hold ``limits.running`` executions is left out. What was claimed
        :data:`~orchestrator_server.records.SUSPECT_CLAIMS` times without an event is only handed out where ``suspects``
        are asked for, and then nothing else is: who takes one at a time falls with one at a time. After
        :data:`~orchestrator_server.records.POISON_CLAIMS` times it is handed out no more but quarantined: it fails with
        code ``poisoned``, and :meth:`revive` can bring it back.
        """
        ...

    async def renew(self, claims: Collection[Claim], lease: float) -> Sequence[Claim]:
        """Hold claims for ``lease`` more seconds from now. Those that are not in the answer are lost.

        Those in the answer that are as they were could not be renewed now, and go on until their leases end.
        """
        ...

    async def release(
        self,
        claim: Claim,
        *,
        wake_in: float | None,
        waiting: bool = False,
        failed: bool = False,
        children: Collection[str] = (),
    ) -> bool:
        """Give an execution back, to be claimed in ``wake_in`` seconds (``None``: when a message comes).

        Where it waits, a message that nobody has consumed yet makes it due at once, for one of its children too. Returns
        whether the claim still held.

        Args:
            claim: The claim.
            wake_in: Seconds until it is due again.
            waiting: It waits for a time or a signal (its status says so, and its children's).
            failed: The worker could not work on it: the claim counts towards quarantine.
            children: The executions that it drives, and those that they drive.
        """
        ...

    async def revive(self, tenant_id: str, execution_id: str) -> bool:
        """Make a quarantined execution due again, with a clean count. Returns whether it was quarantined."""
        ...

    async def next_due(self) -> float | None:
        """Seconds until something is due: 0 when something is, ``None`` when nothing will be by itself."""
        ...

    async def backlog(self) -> Backlog:
        """What is due and held by nobody. Costs a look into an index for each tenant, and what is counted there."""
        ...

    async def mail(self, worker: str) -> Sequence[tuple[str, str]]:
        """Tenant and execution of everything this worker holds that has messages waiting."""
        ...

    async def due_schedules(self, limit: int = 100) -> Sequence[DueSchedule]:
        """Enabled schedules whose next slot has come, earliest first."""
        ...

    async def wait_for_work(self, timeout: float) -> bool:
        """Return when somebody may have made an execution due or sent a message, or after ``timeout`` seconds.

        A hint, nothing more: it may come for nothing, and it may not come, where another process made it due. So
        whoever waits asks again after each. Returns whether the hint came.
        """
        ...


class Workflows(Protocol):
    """Definitions and their versions."""

    async def save(
        self,
        workflow_id: str,
        document: Mapping[str, Json],
        *,
        name: str = "",
        expected: int | None = None,
        triggers: Triggers | None = None,
        created_by: str = "",
    ) -> Version:
        """Add a version; the first makes the workflow.

        Args:
            workflow_id: Which.
            document: The document, as it is to be given back.
            name: For people.
            expected: The latest version as the caller knows it (0: there is none); ``None`` does not check.
            triggers: What lives from now on: with them the version becomes active. ``None``: a draft. Their webhooks and
                schedules get this version's number.
            created_by: Who saved it.

        Raises:
            Conflict: The latest version is not the expected one.
            Exists: Another workflow has one of the webhooks' method and path, or one of the schedules' ids.
        """
        ...

    async def activate(self, workflow_id: str, number: int | None, triggers: Triggers) -> WorkflowRow:
        """Make a version the active one (``None``: none is), and its triggers those that live.

        Raises:
            NotFound: There is no such version.
            Exists: As in :meth:`save`.
        """
        ...

    async def get(self, workflow_id: str) -> WorkflowRow | None:
        """One workflow that has not been deleted."""
        ...

    async def list(self, *, after: str = "", limit: int = 100) -> Sequence[WorkflowRow]:
        """Workflows that have not been deleted, by id, from the one after ``after`` on."""
        ...

    async def version(self, workflow_id: str, number: int) -> Version | None:
        """One version, of a deleted workflow too: executions are pinned to it."""
        ...

    async def versions(self, workflow_id: str, *, before: int | None = None, limit: int = 100) -> Sequence[Version]:
        """Versions of a workflow that has not been deleted, newest first, from the one before ``before`` on."""
        ...

    async def delete(self, workflow_id: str, *, expected: int | None = None) -> None:
        """Delete a workflow, its triggers and the schedules made for it by hand. What runs goes on; past executions stay.

        Raises:
            NotFound: There is no such workflow.
            Conflict: The latest version is not the expected one.
        """
        ...


class Executions(Protocol):
    """Executions, from being accepted to being forgotten."""

    async def create(self, new: NewExecution) -> Created:
        """Accept an execution: its row, its first events and its idempotency key, together; where they end it, its end.

        The same id with the same events again changes nothing (the reply may have been lost).

        Raises:
            Exists: The id is taken by another execution.
        """
        ...

    async def get(self, execution_id: str) -> ExecutionRow | None:
        """One execution."""
        ...

    async def list(self, query: ExecutionQuery) -> Page:
        """A page of executions.

        Raises:
            Invalid: The cursor is of another query, or something is asked for that is not offered.
        """
        ...

    async def unfinished(self, most: int) -> int:
        """How many executions have not ended; counted up to ``most``."""
        ...

    async def outcome(self, execution_id: str) -> Outcome | None:
        """How an execution ended; ``None`` while it has not."""
        ...

    async def prune(self, finished_before: float, *, limit: int = 500) -> int:
        """Forget up to ``limit`` executions that ended before a time, with all they have. Returns how many.

        A child is forgotten with its parent, and not before; those come on top of the limit.
        """
        ...

    async def delete(self, execution_id: str) -> bool:
        """Forget one execution with its children, whatever its state. Returns whether there was one."""
        ...


class Inbox(Protocol):
    """Messages for executions that run elsewhere or wait."""

    async def post(self, execution_id: str, message: Message) -> bool:
        """Leave a message, and make the execution due unless somebody holds it; for one that a parent drives, the parent.

        Returns:
            Whether it was left: not when one with this id waits already, or the execution has ended.

        Raises:
            NotFound: There is no such execution.
        """
        ...

    async def messages(self, execution_id: str) -> Sequence[Message]:
        """What was not consumed yet, in the order it came.

        A signal is consumed by the append that holds its event, a cancel by the append that holds a cancel of its path.
        """
        ...

    async def discard(self, execution_id: str, ids: Collection[str]) -> None:
        """Drop messages that led to no event: the machine had seen them, or it was too late."""
        ...


class StoreJournal(Journal, Protocol):
    """The core's journal, over one tenant's executions; naming another is :class:`ForeignTenant`.

    Appending the start event of an execution that is not known makes its row: such an execution is driven by whoever
    appends to it (a parent), the queue never hands it out. An append moves the count of events, under its fence. One of
    no events moves the fence alone, and is how a child that waited goes on: its status is `running` again. One that
    holds :class:`~orchestrator_core.events.ExecutionEnded` ends the execution, its queue entry and its lease. Signals and
    cancels in it are consumed from the inbox.
    """

    async def append(
        self,
        tenant: str,
        execution_id: str,
        expected_seq: int,
        fence: int,
        batch: Sequence[Event],
        *,
        nodes: Sequence[NodeIO] | None = None,
    ) -> None:
        """See :meth:`~orchestrator_core.Journal.append`.

        ``nodes`` are the node records, kept as JSON with an execution that ends.
        """
        ...


class Secrets(Protocol):
    """Encrypted secrets. What they say is never seen here."""

    async def put(self, secret: Secret) -> None:
        """Store a version of a secret in place of the one before.

        Raises:
            Conflict: ``secret.version`` does not follow the one that is stored (the first is 1).
        """
        ...

    async def replace(self, secret: Secret) -> None:
        """Store the same version encrypted anew (rotation).

        Raises:
            Conflict: Another version is stored, or none.
        """
        ...

    async def get(self, name: str) -> Secret | None:
        """One secret."""
        ...

    async def list(self) -> Sequence[Secret]:
        """All of them, by name."""
        ...

    async def delete(self, name: str) -> bool:
        """Remove a secret. Returns whether there was one."""
        ...


class Variables(Protocol):
    """The tenant's variables."""

    async def put(self, variable: Variable) -> Variable:
        """Set a variable. Returns it as it stands then."""
        ...

    async def get(self, name: str) -> Variable | None:
        """One variable."""
        ...

    async def list(self) -> Sequence[Variable]:
        """All of them, by name."""
        ...

    async def delete(self, name: str) -> bool:
        """Remove a variable. Returns whether there was one."""
        ...


class Schedules(Protocol):
    """The tenant's schedules and the slots that were dealt with."""

    async def put(self, schedule: Schedule) -> None:
        """Add or change a schedule."""
        ...

    async def replace(self, schedule: Schedule, *, before: Schedule | None) -> None:
        """Change a schedule that still is as it was read (``None``: there is none, and it is added).

        Raises:
            Conflict: It is not: a slot was dealt with, or somebody else has changed, added or removed it.
        """
        ...

    async def get(self, schedule_id: str) -> Schedule | None:
        """One schedule."""
        ...

    async def list(self) -> Sequence[Schedule]:
        """All of them, by id."""
        ...

    async def delete(self, schedule_id: str) -> bool:
        """Remove a schedule and its slots. Returns whether there was one."""
        ...

    async def fire(
        self,
        schedule_id: str,
        slot: float,
        new: NewExecution | None,
        *,
        next_at: float | None,
        state: Mapping[str, Json] | None = None,
        before: Schedule | None = None,
    ) -> Created | None:
        """Deal with a slot: note it, start its execution (``None``: leave it out), and set the next slot, together.

        Of any number of callers one does it, ever.

        Args:
            schedule_id: Which schedule.
            slot: Which of its slots.
            new: The execution.
            next_at: The slot that follows; ``None``: there is none.
            state: What the overlap policy is to remember; ``None``: what it does.
            before: The schedule as it was read, where it is to be so still.

        Returns:
            What was created; ``None`` where nothing was to be, or somebody else has dealt with the slot. In the latter
            case the schedule is left as it is.

        Raises:
            NotFound: There is no such schedule.
            Conflict: It is not as it was read: it was changed, and nobody has dealt with the slot.
        """
        ...

    async def slots(self, schedule_id: str, *, limit: int = 100) -> Sequence[Slot]:
        """The latest slots, newest first."""
        ...


class Webhooks(Protocol):
    """The ways in that live now. They are written by saving and activating workflows."""

    async def get(self, method: str, path: str) -> Webhook | None:
        """The webhook with exactly this method and path."""
        ...

    async def list(self) -> Sequence[Webhook]:
        """All of them, by path and method."""
        ...

    async def came(self, signature: str) -> str | None:
        """With which key a signature came, where that was noted and its time is not over."""
        ...

    async def note(self, signature: str, key: str, seconds: float) -> str:
        """Note for some seconds that a signature came, and with which key. Returns the key with which it came first.

        It is kept whatever becomes of the execution that it started.
        """
        ...


class BlobStore(Protocol):
    """Bytes by reference. It is the core's :class:`~orchestrator_core.Blobs` and a little more."""

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        """Keep bytes; the same bytes of the same media type have the same reference, and are as new again."""
        ...

    async def get(self, reference: str) -> bytes:
        """The bytes.

        Raises:
            NotFound: There are none under this reference.
        """
        ...

    async def info(self, reference: str) -> Blob | None:
        """What is known about them."""
        ...

    async def prune(self, put_before: float, *, limit: int = 50) -> int:
        """Remove up to ``limit`` of those that were put last before a time. Returns how many."""
        ...

    async def delete(self, reference: str) -> bool:
        """Remove them. Returns whether there were any."""
        ...


class TenantStore(Protocol):
    """Everything of one tenant."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def workflows(self) -> Workflows: ...
    @property
    def executions(self) -> Executions: ...
    @property
    def journal(self) -> StoreJournal: ...
    @property
    def inbox(self) -> Inbox: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def variables(self) -> Variables: ...
    @property
    def schedules(self) -> Schedules: ...
    @property
    def webhooks(self) -> Webhooks: ...
    @property
    def blobs(self) -> BlobStore: ...


class Storage(Protocol):
    """All there is."""

    @property
    def tenants(self) -> Tenants: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def queue(self) -> Queue: ...

    async def store(self, tenant_id: str) -> TenantStore:
        """What belongs to a tenant.

        Raises:
            NotFound: There is no such tenant.
        """
        ...

    async def now(self) -> float:
        """The time by which leases, waits and schedules are judged: the database's clock."""
        ...

    async def check(self) -> None:
        """See that it can be used.

        Raises:
            SchemaVersion: Its schema is older than this version's.
            Unavailable: It does not answer.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection and thread. What was called before has been committed."""
        ...


async def every_tenant(storage: Storage) -> AsyncIterator[Tenant]:
    """All tenants, by id; read page by page."""
    after = ""
    while page := await storage.tenants.list(after=after):
        for tenant in page:
            yield tenant
        after = page[-1].id
