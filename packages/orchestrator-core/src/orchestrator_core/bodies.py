"""Rule 7: groups hold graphs. A body begins, gives its result, and its group ends, fails or goes on."""

from __future__ import annotations

import attrs

from orchestrator_core.commands import StartChild
from orchestrator_core.events import BodyStarted, Evaluated, NodeEnded, Rescheduled
from orchestrator_core.failures import fail, frame_failed
from orchestrator_core.fold import Fold, group_of
from orchestrator_core.state import Frame, Record, Stage
from orchestrator_core.types import Failure, NodeStatus

__all__ = ["apply_body_started", "begin_body", "child_command", "frame_evaluated", "frame_finished"]


def begin_body(fold: Fold, record: Record, iteration: int) -> None:
    """Decide that a body begins, unless it has, or its group is over."""
    begun = len(record.frames or ()) if record.body is not None else int(record.child)
    if record.stage is Stage.OPEN and begun == iteration:
        fold.put(BodyStarted(fold.now, record.path, iteration))


def apply_body_started(fold: Fold, event: BodyStarted) -> None:
    """Open the frame of a body, or ask for a child execution."""
    record = fold.get(event.path)
    group = record.frame.plan.groups[record.index]
    record.begin(event.at)
    if group.body is None:
        record.child = True
        fold.children += 1
        fold.commands.append(child_command(record))
        return
    path = f"{event.path}/{event.iteration}" if group.kind == "loop" else event.path
    given = record.body.result if record.body is not None else record.input
    frame = Frame(group.body, path, record, given)
    frame.iteration = event.iteration
    scope = record.scope()
    frame.item, frame.number = scope.item, scope.index
    record.body = frame
    record.frames = [*(record.frames or ()), frame] if record.frames is None else record.frames
    if record.frames[-1] is not frame:
        record.frames.append(frame)
    fold.frames[path] = frame
    timeout = group.body.workflow.settings.timeout
    if timeout is not None:
        fold.start_timer(path, "timeout", event.at + timeout)
    fold.work.extend((frame, index) for index in group.body.roots)


def child_command(record: Record) -> StartChild:
    """What asks for the child execution of a stored workflow's node."""
    stored = record.frame.plan.groups[record.index].stored
    return StartChild(record.path, stored or "", record.input)


def frame_finished(fold: Fold, frame: Frame) -> None:
    """Everything in a frame has ended: apply what follows of it alone."""
    if frame.owner is not None:
        fold.timers.pop((frame.path, "timeout"), None)
        if frame.owner.stage is Stage.ENDED:
            return
    if frame.owner is None and frame.verdict is not None:
        fold.end_soon()
    elif frame.failed_at >= 0:
        fold.later(frame_failed, frame)
    elif frame.plan.workflow.output is not None:
        frame.asking = "output"
        fold.commands.append(fold.ask_frame(frame))
    else:
        frame.result = frame.terminal_output()
        _frame_answered(fold, frame)


def _frame_answered(fold: Fold, frame: Frame) -> None:
    if frame.owner is None:
        fold.end_soon()
    elif group_of(frame).until is not None:
        frame.asking = "until"
        fold.commands.append(fold.ask_frame(frame))
    else:
        fold.later(_advance, frame)


def frame_evaluated(fold: Fold, event: Evaluated, frame: Frame) -> None:
    """Apply the answer to ``until`` or ``output``."""
    frame.asking = ""
    if event.error is not None:
        if frame.owner is None:
            frame.verdict = attrs.evolve(event.error, node=None)
            fold.end_soon()
        else:
            data = {"path": frame.path} if event.question == "output" else None
            fold.later(fail, frame.owner, attrs.evolve(event.error, data=data))
    elif event.question == "output":
        frame.result = event.value
        _frame_answered(fold, frame)
    else:
        frame.verdict = "done" if event.value else None
        fold.later(_advance, frame)


def _advance(fold: Fold, frame: Frame) -> None:
    """A body has given its result: the group ends, fails, or goes on."""
    record = frame.owner
    if record is None or record.stage is not Stage.OPEN or record.body is not frame:
        return
    if (record.path, "delay") in fold.timers:
        return
    group = group_of(frame)
    over = frame.iteration + 1 >= group.max_iterations
    if group.kind == "workflow" or frame.verdict == "done" or (over and group.until is None):
        fold.put(NodeEnded(fold.now, record.path, NodeStatus.SUCCEEDED, "completed", {"main": frame.result}))
    elif over:
        message = f"`until` was not true after {group.max_iterations} iterations"
        fail(fold, record, Failure("loop_exhausted", message))
    elif group.delay > 0:
        fold.put(Rescheduled(fold.now, record.path, fold.now + group.delay))
    else:
        fold.put(BodyStarted(fold.now, record.path, frame.iteration + 1))
