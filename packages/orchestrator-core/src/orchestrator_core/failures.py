"""Rule 9: what a failure becomes, how an execution or a body is closed, and how an execution ends."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs

from orchestrator_core.commands import CancelAttempt, CancelChild
from orchestrator_core.events import Event, ExecutionEnded, NodeEnded, Rescheduled, TimerKind
from orchestrator_core.fold import Fold
from orchestrator_core.state import FUTURE, Frame, Record, Stage
from orchestrator_core.types import Attempt, ExecutionStatus, Failure, Json, NodeStatus, Retry

__all__ = [
    "attempt_failed",
    "close",
    "close_root",
    "end_execution",
    "end_record",
    "end_undue",
    "fail",
    "frame_failed",
    "let_go",
    "put_if",
    "unfinished_items",
]

_TIMER_KINDS: tuple[TimerKind, ...] = ("timeout", "wait", "retry", "delay")


# --- attempts ---------------------------------------------------------------------------------------------------------


def attempt_failed(fold: Fold, record: Record, error: Failure, at: float) -> None:
    """Apply the end of an attempt; whether it is tried again is decided afterwards."""
    fold.running -= 1
    fold.timers.pop((record.path, "timeout"), None)
    failure = attrs.evolve(error, node=record.node.id, attempt=record.number)
    tried_at = record.tried_at if record.tried_at is not None else at
    record.attempts = [*(record.attempts or ()), Attempt(record.number, tried_at, at, failure)]
    record.tried_at = None
    record.resumed = None
    record.waits = 0
    record.quick = False
    record.stage = Stage.DELAYED
    fold.later(_retry_or_fail, record, failure)


def _retry_or_fail(fold: Fold, record: Record, failure: Failure) -> None:
    if record.stage is not Stage.DELAYED or (record.path, "retry") in fold.timers:
        return
    retry = record.node.retry
    if failure.retryable and retry is not None and record.number < retry.attempts:
        delay = _backoff(retry, record.number)
        if retry.jitter:
            delay *= 1 + retry.jitter * (2 * _share(fold.seed, record.path, record.number) - 1)
        delay = max(delay, failure.retry_after or 0.0)
        fold.put(Rescheduled(fold.now, record.path, fold.now + delay))
    else:
        fail(fold, record, failure)


# Nobody waits longer for a retry: some thirty years.
_LONGEST = 1e9


def _backoff(retry: Retry, number: int) -> float:
    """The delay after attempt ``number`` in seconds, without jitter."""
    most = _LONGEST if retry.max_delay is None else float(retry.max_delay)
    try:
        return min(retry.delay * retry.factor ** (number - 1), most)
    except OverflowError:
        return most if retry.delay else 0.0


def _share(seed: int, path: str, number: int) -> float:
    """A number in [0, 1) that depends on nothing else: the jitter of a retry."""
    digest = hashlib.sha256(f"{seed}/{path}/{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def fail(fold: Fold, record: Record, failure: Failure) -> None:
    """Decide what a failure for good becomes: error edges, ``continue``, or unhandled."""
    if record.stage is Stage.ENDED:
        return
    node = record.node
    error = attrs.evolve(failure, node=node.id, attempt=failure.attempt or record.number)
    outputs: dict[str, Json] | None = None
    if record.item < 0 and record.frame.plan.catches[record.index]:
        outputs = {"error": error.to_json()}
    elif node.on_error == "continue":
        outputs = {"main": error.to_json()}
    fold.put(NodeEnded(fold.now, record.path, NodeStatus.FAILED, "failed", outputs, error))


# --- ends by decision -------------------------------------------------------------------------------------------------


def end_record(
    fold: Fold, record: Record, status: NodeStatus, reason: str, outputs: dict[str, Json] | None = None
) -> None:
    """End a record, unless it has ended."""
    if record.stage is not Stage.ENDED:
        fold.put(NodeEnded(fold.now, record.path, status, reason, outputs))


def end_undue(fold: Fold, frame: Frame, index: int, status: NodeStatus, reason: str) -> None:
    """End a node that has not become due."""
    fold.put(NodeEnded(fold.now, frame.prefix + frame.plan.names[index], status, reason))


def put_if(fold: Fold, record: Record, stage: Stage, event: Event) -> None:
    """Decide something about a record, if it still stands where it did."""
    if record.stage is stage:
        fold.put(event)


def let_go(fold: Fold, record: Record) -> None:
    """Drop what a record still holds when it ends by decision: its slot, timers, questions, and what is inside it."""
    path = record.path
    if record.stage is Stage.ACTIVE:
        fold.running -= 1
        fold.commands.append(CancelAttempt(path, record.number))
    elif record.child:
        fold.commands.append(CancelChild(path))
    if fold.timers:
        for kind in _TIMER_KINDS:
            fold.timers.pop((path, kind), None)
    if record.values is not None and record.unfinished:
        fold.later(_stop_items, record)
    body = record.body
    if body is not None:
        shut(fold, body)  # whatever is still asked about it is answered too late
        if body.unfinished:
            fold.later(close, body)
        body.asking = ""


def _stop_items(fold: Fold, owner: Record) -> None:
    for item in list(owner.items or ()):
        if item.stage is not Stage.ENDED:
            fold.put(NodeEnded(fold.now, item.path, NodeStatus.CANCELLED, "stopped"))
    for number in range(owner.begun, len(owner.values or ())):
        fold.put(NodeEnded(fold.now, f"{owner.path}/{number}", NodeStatus.CANCELLED, "stopped"))


def close(fold: Fold, frame: Frame) -> None:
    """Cancel everything in a frame that has not ended."""
    for index, record in enumerate(frame.records):
        if record is not None:
            end_record(fold, record, NodeStatus.CANCELLED, "stopped")
        elif frame.known[index] == FUTURE:
            end_undue(fold, frame, index, NodeStatus.CANCELLED, "stopped")


def shut(fold: Fold, frame: Frame) -> None:
    """How a frame ends is decided; its time-out changes that no more, though children may end later still."""
    frame.closed = True
    fold.timers.pop((frame.path, "timeout"), None)


def close_root(fold: Fold, verdict: Any) -> None:
    """Cancel the execution: ``verdict`` is ``cancelled``, or the failure of its time-out."""
    root = fold.root
    if root is not None:
        shut(fold, root)
        root.verdict = verdict
        if root.unfinished:
            fold.later(close, root)
        else:
            root.asking = ""
            fold.end_soon()


def frame_failed(fold: Fold, frame: Frame) -> None:
    """A node of the frame failed unhandled, and all is over (or, under ``stop``, is to be)."""
    owner = frame.owner
    if owner is None:
        if frame.unfinished:
            close(fold, frame)
        else:
            # Last: a journal may end in the midst of what is being stopped.
            fold.end_soon()
    elif owner.stage is not Stage.ENDED:
        first = frame.records[frame.failed_at]
        if first is not None and first.error is not None:
            fail(fold, owner, attrs.evolve(first.error, data={"path": _origin(first)}))


def _origin(record: Record) -> str:
    """Where a failure began: the innermost path."""
    for item in record.items or ():
        if item.status is NodeStatus.FAILED and item.outputs is None:
            return _origin(item)
    data = record.error.data if record.frames is not None and record.error is not None else None
    return str(data["path"]) if isinstance(data, dict) else record.path


def unfinished_items(owner: Record) -> list[Json]:
    """What the items of a list gave on ``main``, ``None`` where they have not finished."""
    done: list[Json] = [item.outputs.get("main") if item.outputs else None for item in owner.items or ()]
    return done + [None] * (len(owner.values or ()) - len(done))


def end_execution(fold: Fold) -> None:
    """Decide the end, once nothing is left to wait for (rule 11 for its output)."""
    root = fold.root
    if fold.ended is not None or root is None or root.unfinished or root.asking or fold.children:
        return
    if root.verdict == "cancelled":
        fold.put(ExecutionEnded(fold.now, ExecutionStatus.CANCELLED))
    elif isinstance(root.verdict, Failure):
        fold.put(ExecutionEnded(fold.now, ExecutionStatus.FAILED, error=root.verdict))
    elif root.failed_at >= 0:
        first = root.records[root.failed_at]
        fold.put(ExecutionEnded(fold.now, ExecutionStatus.FAILED, error=first.error if first else None))
    else:
        fold.put(ExecutionEnded(fold.now, ExecutionStatus.SUCCEEDED, root.result))
