"""Events: the facts of an execution, in the past tense. Their sequence is the journal.

The first group comes from outside (results, timers, signals, requests); the second are the machine's own decisions,
written down so that a newer machine reads an old journal as it was. Every event has its time ``at`` in seconds since
1970 and the ``path`` of what it is about (``price``, ``rows/3``, ``poll/2/fetch``; ``""`` is the execution).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from orchestrator_core.types import ExecutionStatus, Failure, Json, LogLine, NodeStatus, Pins, Wait

__all__ = [
    "DECISIONS",
    "EVENT_SCHEMA",
    "FACTS",
    "AttemptFailed",
    "AttemptStarted",
    "AttemptSucceeded",
    "AttemptWaited",
    "BodyStarted",
    "CancelRequested",
    "ChildEnded",
    "Evaluated",
    "Event",
    "ExecutionEnded",
    "ExecutionStarted",
    "NodeDue",
    "NodeEnded",
    "Question",
    "Rescheduled",
    "SignalReceived",
    "TimerFired",
    "TimerKind",
    "WaitEnded",
]

# Counts up when a stored event changes its shape.
EVENT_SCHEMA = 1

Question = Literal["when", "for_each", "until", "output"]
TimerKind = Literal["timeout", "wait", "retry", "delay"]


# --- facts from outside ---------------------------------------------------------------------------------------------


@attrs.frozen
class ExecutionStarted:
    """An execution was accepted: one version, one start, one payload, one seed, what is pinned, the variables' values.

    ``versions``: those of the stored workflows that it may call, where they are kept by number.
    ``trace``: the W3C ``traceparent`` of what it was accepted for, where that is traced.
    ``parent``: the execution that has the node whose child it is.
    """

    at: float
    execution_id: str
    payload: Json = None
    start: str | None = None
    seed: int = 0
    pins: Pins = attrs.field(factory=dict)
    vars: Mapping[str, Json] = attrs.field(factory=dict)
    workflow: str = ""
    version: int | None = None
    path: str = ""
    trace: str | None = None
    versions: Mapping[str, int] = attrs.field(factory=dict)
    parent: str | None = None


@attrs.frozen
class Evaluated:
    """The answer to an ``Evaluate`` command: a value (a truth for ``when`` and ``until``), or an error."""

    at: float
    path: str
    question: Question
    value: Json = None
    error: Failure | None = None


@attrs.frozen
class AttemptSucceeded:
    """An attempt gave its outputs by port."""

    at: float
    path: str
    number: int
    outputs: dict[str, Json]
    logs: tuple[LogLine, ...] = ()


@attrs.frozen
class AttemptFailed:
    """An attempt failed, or its worker was lost."""

    at: float
    path: str
    number: int
    error: Failure
    logs: tuple[LogLine, ...] = ()


@attrs.frozen
class AttemptWaited:
    """An attempt asked to be woken at a time or by a signal."""

    at: float
    path: str
    number: int
    wait: Wait
    logs: tuple[LogLine, ...] = ()


@attrs.frozen
class TimerFired:
    """A timer that the machine asked for came due."""

    at: float
    path: str
    kind: TimerKind


@attrs.frozen
class SignalReceived:
    """A message from outside for the node at a path; ``id`` tells duplicates."""

    at: float
    path: str
    name: str
    id: str
    payload: Json = None


@attrs.frozen
class CancelRequested:
    """Somebody asked to cancel the execution (path ``""``) or one group."""

    at: float
    path: str = ""


@attrs.frozen
class ChildEnded:
    """The child execution of a stored-workflow node ended."""

    at: float
    path: str
    status: ExecutionStatus
    output: Json = None
    error: Failure | None = None


# --- decisions of the machine --------------------------------------------------------------------------------------


@attrs.frozen
class NodeDue:
    """A node's join was met (or an item's turn came)."""

    at: float
    path: str


@attrs.frozen
class AttemptStarted:
    """An attempt got its slot. After a wait the same number starts again."""

    at: float
    path: str
    number: int


@attrs.frozen
class Rescheduled:
    """A failed attempt is tried again, or a loop goes on, at the time ``due``."""

    at: float
    path: str
    due: float


@attrs.frozen
class WaitEnded:
    """A wait was over: by its time, by the signal ``id``, or by expiry."""

    at: float
    path: str
    kind: Literal["time", "signal", "expired"]
    id: str | None = None


@attrs.frozen
class BodyStarted:
    """A group began its body, or its next iteration; or a stored workflow was asked to run."""

    at: float
    path: str
    iteration: int = 0


@attrs.frozen
class NodeEnded:
    """A node ended by decision: skipped, cancelled, failed for good, pinned, disabled, or a group or list completed.

    ``reason`` says why in one word: ``join``, ``when``, ``pinned``, ``disabled``, ``failed``, ``completed``, ``lost``
    (to a faster branch), ``tainted`` (by a failure upstream), ``stopped`` (with what it stood in).
    """

    at: float
    path: str
    status: NodeStatus
    reason: str
    outputs: dict[str, Json] | None = None
    error: Failure | None = None


@attrs.frozen
class ExecutionEnded:
    """The execution is over; nothing follows."""

    at: float
    status: ExecutionStatus
    output: Json = None
    error: Failure | None = None
    path: str = ""


Event = (
    ExecutionStarted
    | Evaluated
    | AttemptSucceeded
    | AttemptFailed
    | AttemptWaited
    | TimerFired
    | SignalReceived
    | CancelRequested
    | ChildEnded
    | NodeDue
    | AttemptStarted
    | Rescheduled
    | WaitEnded
    | BodyStarted
    | NodeEnded
    | ExecutionEnded
)

FACTS = (
    ExecutionStarted,
    Evaluated,
    AttemptSucceeded,
    AttemptFailed,
    AttemptWaited,
    TimerFired,
    SignalReceived,
    CancelRequested,
    ChildEnded,
)
DECISIONS = (NodeDue, AttemptStarted, Rescheduled, WaitEnded, BodyStarted, NodeEnded, ExecutionEnded)
