"""Rule 6: ``for_each``. Items get their places in order, and the node ends with the lists of what they gave."""

from __future__ import annotations

import attrs

from orchestrator_core.events import NodeDue, NodeEnded
from orchestrator_core.failures import fail, unfinished_items
from orchestrator_core.fold import Fold
from orchestrator_core.joins import enter
from orchestrator_core.state import Record, Stage
from orchestrator_core.types import Json, NodeStatus

__all__ = ["add_item", "apply_item_due", "begin_items", "item_ended"]


def begin_items(fold: Fold, owner: Record) -> None:
    """Give free places to the next items; end the node after its last one."""
    if owner.stage is not Stage.OPEN or owner.values is None:
        return
    most = owner.node.max_parallel or len(owner.values)
    while owner.active < most and owner.begun < len(owner.values):
        path = f"{owner.path}/{owner.begun}"
        fold.events.append(NodeDue(fold.now, path))
        apply_item_due(fold, owner, path)
    if owner.unfinished == 0:
        fold.put(NodeEnded(fold.now, owner.path, NodeStatus.SUCCEEDED, "completed", _lists(owner)))


def apply_item_due(fold: Fold, owner: Record, path: str) -> None:
    """Make the record of an item whose turn came."""
    record = Record(owner.frame, owner.index, path, fold.now, owner.step)
    add_item(owner, record)
    record.input = record.scope().item
    owner.active += 1
    enter(fold, record)


def add_item(owner: Record, record: Record) -> None:
    """Take in the record of the next item."""
    if owner.items is None:
        owner.items = []
    record.owner = owner
    record.item = len(owner.items)
    owner.items.append(record)
    owner.begun += 1


def item_ended(fold: Fold, record: Record) -> None:
    """Apply to its node that an item has ended."""
    owner = record.owner
    if owner is None:
        return
    owner.unfinished -= 1
    if owner.stage is Stage.ENDED:
        return
    owner.active -= 1
    if record.status is NodeStatus.FAILED and record.outputs is None:
        fold.later(_item_failed, owner, record)
    else:
        fold.later(begin_items, owner)


def _item_failed(fold: Fold, owner: Record, record: Record) -> None:
    if owner.stage is Stage.OPEN and record.error is not None and owner.values is not None:
        fail(fold, owner, attrs.evolve(record.error, data={"items": unfinished_items(owner)}))


def _lists(owner: Record) -> dict[str, Json]:
    """What a list's node delivers: for each port but ``error`` what the items emitted there, in their order."""
    if not owner.items:
        return {"main": []}
    ports: dict[str, Json] = {}
    for item in owner.items:
        for port, value in (item.outputs or {}).items():
            if port != "error":
                ports.setdefault(port, []).append(value)
    return ports
