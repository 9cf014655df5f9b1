"""Rules 2 to 5: edges settle when their source ends, joins say when a node is due, and what it is given then."""

from __future__ import annotations

from heapq import heappush

from orchestrator_core.bodies import begin_body, frame_finished
from orchestrator_core.events import NodeDue, NodeEnded
from orchestrator_core.failures import end_record, end_undue
from orchestrator_core.fold import Fold
from orchestrator_core.graph import ALL
from orchestrator_core.state import FUTURE, TAINTED, UNSETTLED, Frame, Record, Stage
from orchestrator_core.types import Json, NodeStatus

__all__ = ["apply_node_due", "count", "enter", "judge", "judge_number", "settle"]


# --- edges (rule 2) ---------------------------------------------------------------------------------------------------


def settle(fold: Fold, frame: Frame, index: int, outputs: dict[str, Json] | None, skipped: int) -> None:
    """Settle the edges of a node that ended. ``skipped`` is what those become that are not delivered."""
    plan, left = frame.plan, frame.left
    frame.outputs[index] = outputs
    if skipped == TAINTED:
        frame.tainted.add(index)
    for number in plan.leaving[index]:
        target = plan.targets[number]
        join = plan.joins[target]
        left[target] -= 1
        if outputs is None or plan.ports[number] not in outputs:
            frame.missed[target] = frame.missed.get(target, 0) + 1
        elif join > 0 and frame.known[target] == FUTURE:
            frame.fresh.setdefault(target, []).append(number)
        if join > 0:
            fold.serial += 1
            heappush(fold.late, (-frame.depth, plan.ranks[target], fold.serial, target, frame))
        elif left[target] == 0 or skipped == TAINTED:
            fold.work.append((frame, target))
    frame.unfinished -= 1
    if frame.unfinished == 0:
        frame_finished(fold, frame)


# --- joins (rule 3) ---------------------------------------------------------------------------------------------------


def judge(fold: Fold, frame: Frame, index: int) -> None:
    """Decide about a node whose join waits for all its edges."""
    if frame.closed or frame.known[index] != FUTURE:
        return
    plan = frame.plan
    edges = plan.ins[index]
    if edges:
        if frame.failed_at >= 0 and _is_tainted(frame, index):
            end_undue(fold, frame, index, NodeStatus.CANCELLED, "tainted")
            return
        if frame.left[index]:
            return
        missed = frame.missed.get(index, 0)
        if missed == len(edges) or (missed and plan.joins[index] == ALL):
            end_undue(fold, frame, index, NodeStatus.SKIPPED, "join")
            return
    _make_due(fold, frame, index)


def judge_number(fold: Fold, frame: Frame, index: int) -> None:
    """A join by number: the earliest deliveries count, those of one event in document order."""
    if frame.closed or frame.known[index] != FUTURE:
        return
    wanted = frame.plan.joins[index]
    counted = count(frame, index)
    if len(counted) == wanted:
        if frame.plan.nodes[index].cancel_rest:
            for loser in _losers(frame, index):
                fold.announce(loser)
        _make_due(fold, frame, index)
    elif len(counted) + frame.left[index] < wanted:
        tainted = _is_tainted(frame, index)
        status, reason = (NodeStatus.CANCELLED, "tainted") if tainted else (NodeStatus.SKIPPED, "join")
        end_undue(fold, frame, index, status, reason)


def _is_tainted(frame: Frame, index: int) -> bool:
    return any(frame.edge(number) == TAINTED for number in frame.plan.ins[index])


def count(frame: Frame, index: int) -> list[int]:
    """The deliveries that count for a join by number, those of the current event included."""
    counted = frame.counted.setdefault(index, [])
    counted += sorted(frame.fresh.pop(index, ()))[: frame.plan.joins[index] - len(counted)]
    return counted


def _losers(frame: Frame, index: int) -> list[Record]:
    """The sources of a join that was met that are due, have not ended, and lead nowhere else (rule 3)."""
    plan = frame.plan
    losers: list[Record] = []
    for number in plan.ins[index]:
        source = plan.sources[number]
        record = frame.records[source]
        if record is None or frame.edge(number) != UNSETTLED:
            continue
        if all(plan.targets[other] == index for other in plan.leaving[source]):
            losers.append(record)
    return losers


def _cancel(fold: Fold, losers: list[Record]) -> None:
    for record in losers:
        if record.stage is not Stage.ENDED:
            fold.put(NodeEnded(fold.now, record.path, NodeStatus.CANCELLED, "lost"))


# --- what a node is given, and what happens to it then (rules 4, 5) -----------------------------------------------


def _make_due(fold: Fold, frame: Frame, index: int) -> None:
    path = frame.prefix + frame.plan.names[index]
    if not frame.plan.plain[index] or fold.pins:
        fold.events.append(NodeDue(fold.now, path))
    # Otherwise the start of its attempt says so, or, where it has to wait for a slot, NodeDue then.
    apply_node_due(fold, frame, index, path)


def apply_node_due(fold: Fold, frame: Frame, index: int, path: str) -> None:
    """Make the record of a node that is due."""
    record = Record(frame, index, path, fold.now, fold.step)
    record.input, record.inputs = frame.inputs_for(index)
    frame.add(record)
    plan = frame.plan
    if plan.nodes[index].cancel_rest:
        # Those that are due by now: what becomes due later by the same event is no loser.
        fold.later(_cancel, _losers(frame, index))
    if plan.plain[index] and not fold.pins:
        record.quick = bool(plan.quick[index])
        record.stage = Stage.QUEUED
        fold.wanting.append(record)
    elif plan.nodes[index].when is not None:
        fold.ask_record(record, fold.commands)
    else:
        enter(fold, record)


def enter(fold: Fold, record: Record) -> None:
    """Its ``when`` is true or absent: pinned, disabled, a list, a group, or an attempt."""
    node = record.node
    if record.path in fold.pins:
        record.stage = Stage.OPEN
        outputs = dict(fold.pins[record.path])
        fold.later(end_record, record, NodeStatus.SUCCEEDED, "pinned", outputs)
    elif record.item < 0 and node.disabled:
        record.stage = Stage.OPEN
        fold.later(end_record, record, NodeStatus.SUCCEEDED, "disabled", {"main": record.input})
    elif record.item < 0 and node.for_each is not None:
        record.stage = Stage.ASKING
        record.waits = 1  # the second question
        fold.ask_record(record, fold.commands)
    elif record.index in record.frame.plan.groups:
        record.stage = Stage.OPEN
        fold.later(begin_body, record, 0)
    else:
        fold.want_slot(record)
