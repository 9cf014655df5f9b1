"""What stores keep, as frozen records. They know nothing of SQL and nothing of HTTP.

Times are seconds since 1970 (UTC) as floats. Records of a tenant do not name it: the store that gives them is bound
to it. Only what the system itself reads across tenants (:class:`Tenant`, :class:`Key`, :class:`Claim`,
:class:`DueSchedule`) has the tenant's id.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from orchestrator_core.events import CancelRequested, Event, ExecutionStarted, SignalReceived
from orchestrator_core.types import Failure, Json, NodeIO
from orchestrator_server.errors import Invalid

__all__ = [
    "MOST_COUNTED",
    "POISONED",
    "POISON_CLAIMS",
    "SUSPECT_CLAIMS",
    "Backlog",
    "Blob",
    "Claim",
    "Created",
    "DueSchedule",
    "ExecutionQuery",
    "ExecutionRow",
    "Key",
    "Limits",
    "Message",
    "MessageKind",
    "NewExecution",
    "Outcome",
    "Page",
    "Retention",
    "Schedule",
    "Secret",
    "Slot",
    "Sort",
    "Status",
    "Tenant",
    "Triggers",
    "Variable",
    "Version",
    "Webhook",
    "WorkflowRow",
    "blob_reference",
    "check_execution_id",
    "check_id",
    "check_message",
    "check_name",
    "check_new",
    "check_text",
    "new_execution_id",
    "poisoned",
]

# An execution that was claimed so often without an event of its own in between is not claimed again.
POISON_CLAIMS = 5
# One that was claimed so often is suspected to take down its workers: each worker tries one of them at a time.
SUSPECT_CLAIMS = 3
POISONED = "poisoned"
# Entries of the queue that are counted, at most.
MOST_COUNTED = 10_000

Status = Literal["running", "waiting", "succeeded", "failed", "cancelled"]
MessageKind = Literal["signal", "cancel"]
Sort = Literal["created_at", "-created_at", "finished_at", "-finished_at"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXECUTION_ID = re.compile(r"exe_[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def check_id(value: str, what: str = "id") -> str:
    """An id as the design has it: 1 to 64 of ``A-Z a-z 0-9 _ -``. Case counts.

    Raises:
        Invalid: It is something else.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Invalid(f"{what}: {value!r} is no id: use 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return value


def check_execution_id(value: str) -> str:
    """An execution's id: ``exe_`` and 1 to 64 characters of an id.

    Raises:
        Invalid: It is something else.
    """
    if not isinstance(value, str) or not _EXECUTION_ID.fullmatch(value):
        raise Invalid(f"{value!r} is no execution's id: they begin with exe_")
    return value


def check_name(value: str, what: str = "name") -> str:
    """The name of a secret or variable, as expressions write it: a letter or ``_``, then letters, digits, ``_``.

    Raises:
        Invalid: It is something else.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid(
            f"{what}: {value!r} is no name: use letters, digits and _, at most 128, not beginning with a digit"
        )
    return value


def check_text(value: str, what: str, longest: int = 255) -> str:
    """A text from outside that becomes part of a key: not empty, no control characters, not too long.

    Two texts that only look alike stay two: nothing is normalised.

    Raises:
        Invalid: It is something else.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest or _CONTROL.search(value):
        raise Invalid(f"{what}: use 1 to {longest} characters, none of them a control character")
    return value


_tokens: list[str] = []  # each is used once
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tokens.clear)  # not by parent and child


def new_execution_id(now: float | None = None) -> str:
    """An execution's id that nobody can guess, and that sorts by its time.

    Executions that run at one time so lie side by side in the database's indexes: a commit of many touches few pages.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    try:
        token = _tokens.pop()
    except IndexError:
        drawn = secrets.token_hex(10 * 100)  # to ask the system for little takes as long as for much
        token, *rest = (drawn[at : at + 20] for at in range(0, len(drawn), 20))
        _tokens.extend(rest)
    return f"exe_{milliseconds:012x}{token}"


# --- system ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Limits:
    """What a tenant may use. ``None``: as much as there is."""

    running: int | None = None  # executions that workers hold at one time
    queued: int | None = None  # executions that have not ended
    storage: int | None = None  # bytes that are kept: events, outcomes, large values, blobs


@attrs.frozen
class Retention:
    """How long what is over is kept, in seconds. ``None``: for ever."""

    executions: float | None = None  # since their end
    blobs: float | None = None  # since they were put last


@attrs.frozen
class Tenant:
    """Somebody whose data nobody else sees. ``size`` is how many bytes it kept when that was measured last."""

    id: str
    name: str = ""
    limits: Limits = Limits()
    retention: Retention = Retention()
    settings: Mapping[str, Json] = attrs.field(factory=dict)
    created_at: float = 0.0
    size: int | None = None


@attrs.frozen
class Key:
    """An API key: its id and the hash of its secret. ``tenant`` is ``None`` for keys of the operator."""

    id: str
    tenant: str | None
    role: str
    hash: str = attrs.field(repr=False)
    name: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None


@attrs.frozen
class Claim:
    """An execution that a worker holds until ``lease_until`` (database time).

    ``fence`` is what it appends under; every later claim has a greater one. ``seq`` is the number of events committed
    when it was claimed, ``claims`` counts the claims since the last event.
    """

    tenant: str
    execution_id: str
    workflow: str
    version: int | None
    worker: str
    fence: int
    seq: int
    claims: int
    lease_until: float


@attrs.frozen
class DueSchedule:
    """A schedule whose next slot has come."""

    tenant: str
    schedule_id: str
    next_at: float


# --- definitions ------------------------------------------------------------------------------------------------------


@attrs.frozen
class WorkflowRow:
    """A workflow as lists show it. ``active`` is the version whose triggers live, ``latest`` the newest one.

    A deleted workflow keeps its versions, because executions are pinned to them; saving it again goes on counting.
    """

    id: str
    name: str
    active: int | None
    latest: int
    created_at: float
    updated_at: float
    deleted_at: float | None = None

    def has(self, version: Version | None) -> bool:
        """Whether this is a version of it, and not of one that had its id before and was deleted."""
        return version is not None and version.created_at >= self.created_at


@attrs.frozen
class Version:
    """A version of a workflow: the document as it was saved, never changed."""

    workflow: str
    number: int
    document: Mapping[str, Json]
    created_at: float
    created_by: str = ""


@attrs.frozen
class Webhook:
    """A way in: method and path of the active version of a workflow; ``config`` is the trigger node's."""

    method: str
    path: str
    workflow: str
    version: int
    node: str
    config: Mapping[str, Json] = attrs.field(factory=dict)


@attrs.frozen
class Schedule:
    """A schedule: of a workflow's active version (``node`` says which trigger), or made by hand (``node`` is empty).

    ``next_at`` is the next slot, ``None`` when there is none; ``state`` is what the overlap policy remembers.
    """

    id: str
    workflow: str
    node: str = ""
    spec: Mapping[str, Json] = attrs.field(factory=dict)
    next_at: float | None = None
    enabled: bool = True
    state: Mapping[str, Json] = attrs.field(factory=dict)

    def taken_over_by(self, schedule: Schedule) -> Schedule:
        """The schedule of the same trigger in another version: with the same spec it neither repeats a slot nor forgets one.

        It is switched on or off as it was, and knows the execution that it has started.
        """
        next_at = self.next_at if self.spec == schedule.spec else schedule.next_at
        return attrs.evolve(schedule, next_at=next_at, enabled=self.enabled, state=self.state)


@attrs.frozen
class Slot:
    """One instant of a schedule that was dealt with: by an execution, or (``None``) by leaving it out."""

    schedule_id: str
    at: float
    execution_id: str | None


@attrs.frozen
class Backlog:
    """What is due in the queue and held by nobody: how many (``MOST_COUNTED`` at most), and for how long the oldest has been."""

    due: int
    oldest: float


@attrs.frozen
class Triggers:
    """What lives because a version is active: all of a workflow's webhooks and schedules."""

    webhooks: tuple[Webhook, ...] = ()
    schedules: tuple[Schedule, ...] = ()


@attrs.frozen
class Secret:
    """A secret as it is stored: encrypted. ``version`` counts from 1, ``key_id`` says which key encrypted it."""

    name: str
    version: int
    key_id: str
    ciphertext: bytes = attrs.field(repr=False)
    updated_at: float = 0.0


@attrs.frozen
class Variable:
    """A value that workflows of the tenant read as ``vars.<name>``."""

    name: str
    value: Json = None
    updated_at: float = 0.0


@attrs.frozen
class Blob:
    """Bytes by reference; the reference comes from the content. ``created_at`` is when they were put last."""

    reference: str
    media_type: str
    size: int
    created_at: float


# --- executions -------------------------------------------------------------------------------------------------------


@attrs.frozen
class NewExecution:
    """An execution to be accepted: its first events, and who may take it when.

    Args:
        event: Its first event; the execution's id, workflow and version stand in it.
        events: What has come of it already: it may run before it is accepted, as long as nobody outside can tell.
        nodes: The node records, where those events end it.
        idempotency_key: The same key again gives the execution that is there.
        fingerprint: What the key was given for (a hash of the request): shown to whoever comes with the same key.
        due_in: Seconds until a worker may claim it.
        worker: Claim it at once for this worker, whose lease is ``lease`` seconds.
        parent: The execution that it is a child of, or a retry of.
    """

    event: ExecutionStarted
    events: tuple[Event, ...] = attrs.field(default=(), kw_only=True)
    nodes: Sequence[NodeIO] | None = attrs.field(default=None, kw_only=True)
    idempotency_key: str | None = None
    fingerprint: str = ""
    due_in: float = 0.0
    worker: str | None = None
    lease: float = 30.0
    parent: str | None = None


@attrs.frozen
class ExecutionRow:
    """An execution as lists show it, and its entry in the queue.

    ``wake_at`` is when a worker may claim it next: the end of the lease where ``worker`` holds one; ``None`` when only
    a message wakes it, or it has ended. ``queued`` is false for executions that a parent drives: no worker claims them.
    """

    id: str
    workflow: str
    version: int | None
    status: Status
    created_at: float
    finished_at: float | None = None
    error_code: str | None = None
    parent: str | None = None
    seq: int = 0
    fence: int = 0
    claims: int = 0
    worker: str | None = None
    wake_at: float | None = None
    queued: bool = True

    @property
    def quarantined(self) -> bool:
        """Whether it failed because of its claims. A node may fail with the same code; what ends by itself has none left."""
        return self.error_code == POISONED and self.claims >= POISON_CLAIMS


@attrs.frozen
class Created:
    """What came of a :class:`NewExecution`. ``new`` is false where its idempotency key had been used before.

    ``fingerprint`` is that of the first use; ``claim`` is there where the new execution was claimed at once.
    """

    execution: ExecutionRow
    new: bool
    fingerprint: str = ""
    claim: Claim | None = None


@attrs.frozen
class Outcome:
    """How an execution ended: its output, its error (as JSON) and the node records (as JSON), where they were given."""

    output: Json = None
    error: Mapping[str, Json] | None = None
    nodes: tuple[Any, ...] | None = None


def poisoned() -> Outcome:
    """How an execution in quarantine shows itself."""
    message = f"{POISON_CLAIMS} workers took it and none came to a result: it is in quarantine until it is revived (`orchestrator revive`)"
    return Outcome(error=Failure(POISONED, message).to_json())


@attrs.frozen
class Message:
    """Something for an execution that runs elsewhere or waits: a signal, or a request to cancel.

    ``id`` tells duplicates; it is the signal's. ``path`` is the node or group, ``""`` the execution.
    """

    id: str
    kind: MessageKind
    path: str = ""
    name: str = ""
    payload: Json = None
    created_at: float = 0.0

    def as_event(self) -> SignalReceived | CancelRequested:
        """What it is to the execution, at the time at which it was left."""
        if self.kind == "signal":
            return SignalReceived(self.created_at, self.path, self.name, self.id, self.payload)
        return CancelRequested(self.created_at, self.path)


@attrs.frozen
class ExecutionQuery:
    """Which executions, in which order. Ranges are half open (``from`` inclusive, ``before`` exclusive).

    A range is on the time that the list is sorted by: so every page is one stretch of an index, at any depth. Sorted by
    the time of their end, only executions that have ended are listed.
    """

    workflow: str | None = None
    statuses: tuple[Status, ...] = ()
    sort: Sort = "-created_at"
    since: float | None = None
    before: float | None = None
    after: str | None = None  # a cursor
    limit: int = 50


@attrs.frozen
class Page:
    """Executions, and the cursor for those that follow (``None`` at the end)."""

    executions: tuple[ExecutionRow, ...]
    next: str | None = None


def check_new(new: NewExecution) -> None:
    """Check the ids of a new execution."""
    check_execution_id(new.event.execution_id)
    if new.event.workflow:
        check_id(new.event.workflow, "workflow")
    if new.idempotency_key is not None:
        check_text(new.idempotency_key, "idempotency key")
    if new.parent is not None:
        check_execution_id(new.parent)


def check_message(message: Message) -> None:
    """Check what of a message becomes part of a key or is compared."""
    check_text(message.id, "message id")
    for value, what in ((message.path, "path"), (message.name, "name")):
        if value:
            check_text(value, what, 1024)


def blob_reference(data: bytes, media_type: str) -> str:
    """The reference of bytes: a hash over their media type and themselves."""
    check_text(media_type, "media type")
    digest = hashlib.sha256(media_type.encode() + b"\0")
    digest.update(data)
    return f"blob_{digest.hexdigest()}"
