"""Which facts are lawful, stale or illegal (rule 12): decided before anything changes.

A fact about an attempt that no longer runs, a timer that is no longer wanted or a signal that was seen before is
*stale*. What no history can produce is *illegal*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator_core.errors import IllegalEvent
from orchestrator_core.events import (
    AttemptFailed,
    AttemptSucceeded,
    AttemptWaited,
    CancelRequested,
    ChildEnded,
    Evaluated,
    ExecutionStarted,
    SignalReceived,
    TimerFired,
)
from orchestrator_core.fold import Fold, question_of
from orchestrator_core.graph import Plan
from orchestrator_core.state import Record, Stage

__all__ = ["TRANSITIONS", "admit", "exists"]

# The stages of a record in which a fact about it means something. In any other it is stale.
TRANSITIONS: Mapping[type[Any], frozenset[Stage]] = {
    Evaluated: frozenset({Stage.ASKING}),
    AttemptSucceeded: frozenset({Stage.ACTIVE}),
    AttemptFailed: frozenset({Stage.ACTIVE}),
    AttemptWaited: frozenset({Stage.ACTIVE}),
    TimerFired: frozenset({Stage.ACTIVE, Stage.WAITING, Stage.DELAYED, Stage.OPEN}),
    CancelRequested: frozenset({Stage.OPEN}),
    ChildEnded: frozenset({Stage.OPEN}),
}


def admit(fold: Fold, event: Any, kind: type[Any]) -> Any:
    """The record, frame or fold that a fact is about; ``None``: it is stale.

    Raises:
        IllegalEvent: No history can produce it.
    """
    if kind is ExecutionStarted:
        if fold.root is not None:
            raise IllegalEvent("the execution has started already")
        return fold
    if fold.root is None:
        raise IllegalEvent(f"{kind.__name__} before ExecutionStarted")
    if event.at < fold.now:
        raise IllegalEvent(f"{kind.__name__} at {event.at}: time does not run backwards from {fold.now}")
    if kind is AttemptSucceeded or kind is AttemptFailed or kind is AttemptWaited:
        record = fold.find(event.path)
        if record is None or not 0 < event.number <= record.number:
            raise IllegalEvent(f"{kind.__name__}: attempt {event.number} of {event.path!r} was never started")
        return record if record.stage in TRANSITIONS[kind] and event.number == record.number else None
    return _admit_other(fold, event, kind)


def _admit_other(fold: Fold, event: Any, kind: type[Any]) -> Any:
    path = event.path
    if kind is SignalReceived:
        if not exists(fold.plan, path):
            raise IllegalEvent(f"there is no node {path!r} to signal")
        return None if fold.ended is not None or event.id in fold.seen else fold
    if kind is CancelRequested and path == "":
        return None if fold.ended is not None or fold.root is None or fold.root.closed else fold
    if kind is TimerFired:
        return _admit_timer(fold, event)
    if kind is Evaluated and event.question in {"until", "output"}:
        frame = fold.root if path == "" else fold.frames.get(path)
        if frame is None or (frame.asking != event.question and not frame.closed):
            raise IllegalEvent(f"{event.question!r} of {path!r} was not asked")
        return frame if frame.asking == event.question and not frame.closed else None
    record = fold.find(path)
    if record is None:
        if kind is CancelRequested and exists(fold.plan, path):
            return None
        raise IllegalEvent(f"{kind.__name__}: there is no {path!r} in this execution")
    if kind is ChildEnded:
        if not record.child:
            raise IllegalEvent(f"{path!r} has no child execution")
        return record
    if kind is CancelRequested and record.frame.plan.groups.get(record.index) is None:
        raise IllegalEvent(f"{path!r} is no group: cancel the execution, or a loop or workflow node")
    if kind is Evaluated and not _was_asked(record, event.question):
        raise IllegalEvent(f"{event.question!r} of {path!r} was not asked")
    return record if record.stage in TRANSITIONS[kind] else None


def _admit_timer(fold: Fold, event: TimerFired) -> Any:
    due = fold.timers.get((event.path, event.kind))
    if due is None:
        if event.path != "" and not exists(fold.plan, event.path):
            raise IllegalEvent(f"there is no {event.path!r} to have a timer")
        return None
    if event.at < due:
        return None  # an earlier timer of the same place, which was dropped and set anew
    return fold.frames.get(event.path) or fold.find(event.path) or fold


def _was_asked(record: Record, question: str) -> bool:
    node = record.node
    asked = node.when if question == "when" else node.for_each
    if record.stage is Stage.ASKING:
        return bool(question == question_of(record))
    return asked is not None


def exists(plan: Plan | None, path: str) -> bool:
    """Whether the plan has a place for this path, whether or not it is due yet."""
    parts = path.split("/")
    while parts:
        name = parts.pop(0)
        index = plan.index.get(name) if plan is not None else None
        if plan is None or index is None:
            return False
        group = plan.groups.get(index)
        numbers = (plan.nodes[index].for_each is not None) + (group is not None and group.kind == "loop")
        while numbers and parts and parts[0].isdecimal():
            parts.pop(0)
            numbers -= 1
        plan = group.body if group else None
    return True
