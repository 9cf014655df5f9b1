"""What goes over the wire, as data classes: the bodies of requests and answers. The OpenAPI document is made from them.

Times are ISO 8601, UTC, with microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from orchestrator_core import setting
from orchestrator_core.types import Duration, Json
from orchestrator_server.auth import Role

__all__ = [
    "Accepted",
    "ActivateRequest",
    "ApprovalBody",
    "ApprovalRequest",
    "AttemptBody",
    "CancelRequest",
    "DecisionForm",
    "ExecuteRequest",
    "ExecutionBody",
    "ExecutionList",
    "ExecutionSummary",
    "FailureBody",
    "KeyBody",
    "KeyList",
    "LimitsBody",
    "LogLineBody",
    "LogsBody",
    "NewKey",
    "NewKeyRequest",
    "NodeIOBody",
    "NodeTypeBody",
    "NodeTypeList",
    "Posted",
    "RetentionBody",
    "RetryRequest",
    "ScheduleBody",
    "ScheduleChange",
    "ScheduleList",
    "ScheduleRequest",
    "ScheduleSpec",
    "SecretBody",
    "SecretList",
    "SecretRequest",
    "SignalRequest",
    "SlotBody",
    "SlotList",
    "Started",
    "Status",
    "StreamedEvent",
    "TenantBody",
    "TenantChange",
    "TenantList",
    "TenantRequest",
    "TrialBody",
    "TrialRequest",
    "TrialResponse",
    "VariableBody",
    "VariableList",
    "VariableRequest",
    "VersionBody",
    "VersionList",
    "VersionSummary",
    "WorkflowBody",
    "WorkflowList",
    "WorkflowSummary",
]

ExecutionStatusName = Literal["running", "waiting", "succeeded", "failed", "cancelled"]
NodeStatusName = Literal["pending", "running", "waiting", "succeeded", "failed", "skipped", "cancelled"]


# --- executions -------------------------------------------------------------------------------------------------------


@attrs.frozen
class FailureBody:
    """Why an attempt, a node or an execution failed."""

    code: str
    message: str
    node: str | None
    attempt: int
    data: Json


@attrs.frozen
class AttemptBody:
    """One try of one node."""

    number: int
    started_at: str | None
    finished_at: str | None
    error: FailureBody | None


@attrs.frozen
class LogLineBody:
    """One line that a node wrote."""

    at: str | None
    level: str
    message: str


@attrs.frozen
class NodeIOBody:
    """The record of one node in one execution."""

    path: str
    node: str
    type: str
    status: NodeStatusName
    input: Json
    output: Json
    outputs: Mapping[str, Json]
    error: FailureBody | None
    attempts: tuple[AttemptBody, ...]
    logs: tuple[LogLineBody, ...]
    started_at: str | None
    finished_at: str | None


@attrs.frozen
class ExecutionBody:
    """An execution with its node records, in document order."""

    execution_id: str
    workflow: str
    version: int | None
    status: ExecutionStatusName
    output: Json
    error: FailureBody | None
    nodes: tuple[NodeIOBody, ...]
    started_at: str | None
    finished_at: str | None


@attrs.frozen
class ExecutionSummary:
    """An execution as lists show it."""

    execution_id: str
    workflow: str
    version: int | None
    status: ExecutionStatusName
    error_code: str | None
    parent: str | None
    created_at: str | None
    finished_at: str | None


@attrs.frozen
class ExecutionList:
    """A page of executions; `next` is the cursor of the page that follows."""

    executions: tuple[ExecutionSummary, ...]
    next: str | None


@attrs.frozen
class LogsBody:
    """A page of past executions of a workflow, with their node records."""

    executions: tuple[ExecutionBody, ...]
    next: str | None


@attrs.frozen
class Started:
    """An execution was accepted; it goes on without the request."""

    execution_id: str
    status: ExecutionStatusName


@attrs.frozen
class StreamedEvent:
    """One event of the stream: `data` is JSON, `id` goes into `Last-Event-ID`; the last one, `end`, has none."""

    event: str
    data: str
    id: str | None = None


@attrs.frozen
class Accepted:
    """A message was left for an execution; `new` is false where this one had been left before."""

    execution_id: str
    new: bool


@attrs.frozen
class Revived:
    """An execution in quarantine is due again."""

    execution_id: str


@attrs.frozen
class ExecuteRequest:
    """What to run a workflow with."""

    payload: Json = setting(default=None, description="What starts it: any JSON value.")
    start: str | None = setting(default=None, description="The trigger that starts it, where there are several.")
    version: int | None = setting(default=None, description="Which version; the active one unless given.")
    pins: dict[str, Any] = setting(
        factory=dict, description="Nodes that give this instead of running: path -> port -> value."
    )
    seed: int | None = setting(default=None, description="Makes what is random reproducible.")


@attrs.frozen
class TrialRequest:
    """A request that a webhook of the workflow is to be tried with, without anybody sending it."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None = setting(
        default=None, description="The method; the first one that the webhook takes unless given."
    )
    path: str | None = setting(
        default=None,
        description="The path behind `/hooks/{tenant}/`; that of the only webhook unless given.",
        examples=["orders/7"],
    )
    query: dict[str, str | tuple[str, ...]] = setting(
        factory=dict, description="The query: a text, or a list of texts."
    )
    headers: dict[str, str] = setting(factory=dict, description="Headers.")
    body: Json = setting(default=None, description="The body as it is once read: any JSON value.")
    start: str | None = setting(default=None, description="The webhook that is meant, where the path does not tell.")
    version: int | None = setting(default=None, description="Which version, a draft too; the latest one unless given.")
    pins: dict[str, Any] = setting(
        factory=dict, description="Nodes that give this instead of running: path -> port -> value."
    )
    seed: int | None = setting(default=None, description="Makes what is random reproducible.")


@attrs.frozen
class TrialResponse:
    """What the sender of a request would be answered."""

    status: int
    headers: Mapping[str, str]
    body: Json


@attrs.frozen
class TrialBody:
    """What came of a trial: the answer that the sender would get, and the execution, which may still go on."""

    response: TrialResponse
    execution: ExecutionBody


@attrs.frozen
class CancelRequest:
    """What to cancel."""

    path: str = setting(default="", description="One group in the execution; empty: the whole execution.")


@attrs.frozen
class RetryRequest:
    """From where to run again."""

    node: str | None = setting(
        default=None,
        description="What is not downstream of this node gives what it gave, without running. "
        "Left out: everything runs again.",
    )


@attrs.frozen
class SignalRequest:
    """A message to a node that waits for it, or will."""

    path: str = setting(description="The path of the node.", examples=["approve"])
    payload: Json = setting(default=None, description="Any JSON value.")
    id: str | None = setting(default=None, description="The same id counts once. Left out: each counts.")


@attrs.frozen
class ApprovalRequest:
    """For which node somebody is to be asked."""

    path: str = setting(description="The path of the node that waits, or will.", examples=["approve"])
    signal: str = setting(description="The name of the signal that it waits for.", examples=["decision"])
    expires: Duration = setting(default=Duration(7 * 86400.0), description="How long the links hold.", examples=["7d"])


@attrs.frozen
class ApprovalBody:
    """Links for people: to a page with both answers, and to one for each. Who has a link may answer; the first answer counts."""

    url: str
    approve_url: str
    reject_url: str
    expires_at: str


@attrs.frozen
class DecisionForm:
    """What the form on the page sends."""

    answer: Literal["approve", "reject"] = setting(description="Which button it was.")
    comment: str = setting(default="", description="At most 2,000 characters.")


# --- workflows --------------------------------------------------------------------------------------------------------


@attrs.frozen
class WorkflowSummary:
    """A workflow as lists show it: `active` is the version whose triggers live, `latest` the newest one."""

    id: str
    name: str
    active: int | None
    latest: int
    created_at: str | None
    updated_at: str | None


@attrs.frozen
class WorkflowList:
    """A page of workflows, by id; `next` goes into `after` for the page that follows."""

    workflows: tuple[WorkflowSummary, ...]
    next: str | None


@attrs.frozen
class WorkflowBody:
    """A workflow and one of its versions."""

    id: str
    name: str
    active: int | None
    latest: int
    version: int
    document: Mapping[str, Json]
    created_at: str | None
    updated_at: str | None


@attrs.frozen
class VersionSummary:
    """A version as lists show it."""

    version: int
    created_at: str | None
    created_by: str
    active: bool


@attrs.frozen
class VersionList:
    """A page of versions, newest first; `next` goes into `before` for the page that follows."""

    versions: tuple[VersionSummary, ...]
    next: int | None


@attrs.frozen
class VersionBody:
    """One version with its document."""

    workflow: str
    version: int
    document: Mapping[str, Json]
    created_at: str | None
    created_by: str


@attrs.frozen
class ActivateRequest:
    """Which version's triggers live."""

    version: int | None = setting(
        default=None, description="The version; `null`: none is active, and no trigger of the workflow lives."
    )


# --- tenants ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class LimitsBody:
    """What a tenant may use; `null`: as much as there is."""

    running: int | None = setting(default=None, description="Executions that are worked on at one time.")
    queued: int | None = setting(
        default=None, description="Executions that have not ended; beyond it none is accepted (429)."
    )
    storage: int | None = setting(
        default=None, description="Bytes that are kept; beyond it no execution and no blob is accepted (507)."
    )


@attrs.frozen
class RetentionBody:
    """How long what is over is kept; `null`: for ever."""

    executions: Duration | None = setting(default=None, description="Past executions, from their end on.")
    blobs: Duration | None = setting(default=None, description="Blobs, from when they were put last.")


@attrs.frozen
class TenantRequest:
    """A tenant to be made."""

    id: str = setting(description="1 to 64 of the characters A-Z a-z 0-9 _ -", examples=["acme"])
    name: str = setting(default="", description="For people.")
    limits: LimitsBody = setting(factory=LimitsBody, description="What it may use.")
    retention: RetentionBody = setting(factory=RetentionBody, description="How long what has ended is kept.")
    settings: dict[str, Any] = setting(factory=dict, description="Further settings, by name.")


@attrs.frozen
class TenantChange:
    """What to change of a tenant; what is left out stays."""

    name: str | None = None
    limits: LimitsBody | None = None
    retention: RetentionBody | None = None
    settings: dict[str, Any] | None = None


@attrs.frozen
class TenantBody:
    """A tenant. `size` is how many bytes it kept when that was measured last; tenants without a limit on it are not measured."""

    id: str
    name: str
    limits: LimitsBody
    retention: RetentionBody
    settings: Mapping[str, Json]
    created_at: str | None
    size: int | None


@attrs.frozen
class TenantList:
    """A page of tenants, by id; `next` goes into `after` for the page that follows."""

    tenants: tuple[TenantBody, ...]
    next: str | None


@attrs.frozen
class NewKeyRequest:
    """A key to be made."""

    role: Role = setting(default="viewer", description="What its holder may do.")
    name: str = setting(default="", description="For people.")
    expires_in: Duration | None = setting(default=None, description="How long it holds.", examples=["90d"])


@attrs.frozen
class KeyBody:
    """A key, without its secret."""

    id: str
    role: str
    name: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None


@attrs.frozen
class NewKey:
    """A new key: `credential` is shown this once, and is what goes behind `Authorization: Bearer`."""

    id: str
    role: str
    name: str
    created_at: str | None
    expires_at: str | None
    credential: str


@attrs.frozen
class KeyList:
    """The keys of a tenant."""

    keys: tuple[KeyBody, ...]


# --- values -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class SecretRequest:
    """The value of a secret; it is never shown again."""

    value: str = setting(description="A text of at most 64 KiB.", secret=True)


@attrs.frozen
class SecretBody:
    """A secret, without what it says."""

    name: str
    version: int
    updated_at: str | None


@attrs.frozen
class SecretList:
    """The secrets of the tenant, by name."""

    secrets: tuple[SecretBody, ...]


@attrs.frozen
class VariableRequest:
    """The value of a variable."""

    value: Json = setting(description="Any JSON value; workflows read it as `vars.<name>`.")


@attrs.frozen
class VariableBody:
    """A variable."""

    name: str
    value: Json
    updated_at: str | None


@attrs.frozen
class VariableList:
    """The variables of the tenant, by name."""

    variables: tuple[VariableBody, ...]


@attrs.frozen
class ScheduleSpec:
    """When a schedule made by hand starts its workflow, and with what: as the settings of a `schedule` node, and more."""

    cron: str | None = setting(
        default=None,
        description="Five fields: minute, hour, day of month, month, day of week (0 or 7 is Sunday).",
        examples=["0 9 * * MON-FRI"],
    )
    every: Duration | None = setting(default=None, description="Or a fixed interval.", examples=["15m"])
    at: str | None = setting(
        default=None,
        description="Or once, at an ISO 8601 time; without an offset it is read in `timezone`.",
        examples=["2027-01-01T00:00:00"],
    )
    timezone: str = setting(
        default="UTC",
        description="The time zone (IANA name) in which `cron` and `at` are read.",
        examples=["Europe/Berlin"],
    )
    overlap: Literal["skip", "buffer_one", "allow", "cancel_other"] = setting(
        default="skip", description="What happens to a start while the last execution still runs."
    )
    catch_up: Duration = setting(
        default=Duration(600.0),
        description="How far back starts are made up for that were missed while no scheduler ran.",
    )
    payload: Json = setting(
        default=None, description="What starts the executions; left out or `null`: `{slot, schedule}`."
    )
    start: str | None = setting(default=None, description="The trigger that starts them, where there are several.")


@attrs.frozen
class ScheduleRequest:
    """A schedule that is made by hand, as a whole."""

    workflow: str = setting(description="Which workflow it starts: the version that is active then.")
    spec: ScheduleSpec = setting(description="When, and with what.")
    id: str | None = setting(
        default=None, description="1 to 64 of the characters A-Z a-z 0-9 _ -; one is made up unless given."
    )
    enabled: bool | None = setting(
        default=None, description="Whether it starts executions; unless given it stays as it is, and a new one does."
    )


@attrs.frozen
class ScheduleChange:
    """What to change of a schedule."""

    enabled: bool = setting(description="Whether it starts executions.")


@attrs.frozen
class ScheduleBody:
    """A schedule: `node` says which trigger of the active version it is of; `null`: it was made by hand."""

    id: str
    workflow: str
    node: str | None
    spec: Mapping[str, Json]
    enabled: bool
    next_at: str | None


@attrs.frozen
class ScheduleList:
    """The schedules of the tenant, by id."""

    schedules: tuple[ScheduleBody, ...]


@attrs.frozen
class SlotBody:
    """One instant of a schedule that was dealt with; `execution_id` is `null` where it was left out."""

    at: str
    execution_id: str | None


@attrs.frozen
class SlotList:
    """The latest slots of a schedule, newest first."""

    slots: tuple[SlotBody, ...]


@attrs.frozen
class NodeTypeBody:
    """A node type that workflows of the tenant may use; `config` is the JSON Schema of its settings."""

    name: str
    version: int
    title: str
    description: str
    trigger: bool
    pure: bool
    group: str | None
    capabilities: tuple[str, ...]
    ports: tuple[str, ...] | None
    inputs: tuple[str, ...] | None
    plugin: str
    example: Mapping[str, Json]
    config: Mapping[str, Json]


@attrs.frozen
class NodeTypeList:
    """The node types, by name."""

    nodes: tuple[NodeTypeBody, ...]


# --- system -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Status:
    """Whether the server, or what it needs, is well."""

    status: Literal["ok"]


@attrs.frozen
class Posted:
    """A webhook was taken in."""

    execution_id: str
