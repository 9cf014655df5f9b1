"""A machine's state as plain data, and back: what a journal may begin with instead of its first events.

The data is JSON as far as the payloads are: they stand in it as they were handed to the machine. What can be derived
(the queue for slots, the counts of open questions) is left out and made anew by ``Machine.restore``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator_core import codec
from orchestrator_core.errors import IllegalEvent
from orchestrator_core.events import ExecutionEnded, SignalReceived
from orchestrator_core.state import ABSENT, Frame, Record, Stage
from orchestrator_core.types import Attempt, Failure, Json, LogLine, NodeStatus, Resumed, Wait

__all__ = ["SNAPSHOT_SCHEMA", "put", "take"]

# Counts up when the data changes its shape.
SNAPSHOT_SCHEMA = 1

_MACHINE_FIELDS = (
    "execution_id",
    "payload",
    "seed",
    "pins",
    "vars",
    "version",
    "now",
    "started_at",
    "finished_at",
    "step",
)
_RECORD_FIELDS = (
    "path",
    "input",
    "inputs",
    "outputs",
    "number",
    "at_due",
    "step",
    "rank_step",
    "ended_step",
    "started_at",
    "tried_at",
    "finished_at",
    "waits",
    "child",
    "unwanted",
    "values",
    "begun",
    "active",
    "unfinished",
)
_FRAME_FIELDS = ("path", "input", "iteration", "unfinished", "closed", "failed_at", "asking", "result")
_converter = codec.make_converter()


def take(machine: Any) -> dict[str, Json]:
    """The state of a machine that has started."""
    if machine.root is None:
        raise IllegalEvent("an execution that has not started has no state to keep")
    return {
        "schema": SNAPSHOT_SCHEMA,
        **{name: getattr(machine, name) for name in _MACHINE_FIELDS},
        "ended": codec.unstructure(machine.ended),
        "timers": [[path, kind, due] for (path, kind), due in machine.timers.items()],
        "signals": [codec.unstructure(signal) for signals in machine.signals.values() for signal in signals],
        "seen": sorted(machine.seen),
        "running": machine.running,
        "children": machine.children,
        "root": _frame(machine.root),
    }


def put(machine: Any, data: Mapping[str, Json]) -> None:
    """Give a new machine the state of a snapshot.

    Raises:
        IllegalEvent: The snapshot is of another schema or another plan.
    """
    if data.get("schema") != SNAPSHOT_SCHEMA:
        raise IllegalEvent(f"snapshot schema {data.get('schema')} is not known: this version reads {SNAPSHOT_SCHEMA}")
    for name in (*_MACHINE_FIELDS, "running", "children"):
        setattr(machine, name, data[name])
    machine.ended = None if data["ended"] is None else _converter.structure(data["ended"], ExecutionEnded)
    machine.timers = {(path, kind): due for path, kind, due in data["timers"]}
    for item in data["signals"]:
        machine.signals.setdefault(item["path"], []).append(_converter.structure(item, SignalReceived))
    machine.seen = set(data["seen"])
    if len(data["root"]["records"]) != len(machine.plan.nodes):
        raise IllegalEvent("the snapshot belongs to another version of the workflow")
    machine.root = Frame(machine.plan, "", None, None)
    _fill_frame(machine, machine.root, data["root"])


def _frame(frame: Frame) -> dict[str, Json]:
    data: dict[str, Json] = {name: _fresh(getattr(frame, name)) for name in _FRAME_FIELDS}
    data["left"], data["tainted"] = list(frame.left), sorted(frame.tainted)
    data["missed"] = [[index, number] for index, number in frame.missed.items()]
    data["item"] = None if frame.item is ABSENT else [frame.item, frame.number]
    data["counted"] = [[index, list(numbers)] for index, numbers in frame.counted.items()]
    data["verdict"] = codec.unstructure(frame.verdict)
    records = map(frame.at, range(len(frame.records)))
    data["records"] = [None if record is None else _record(record) for record in records]
    return data


def _fresh(value: Any) -> Any:
    """Lists change as the machine goes on: a snapshot has its own."""
    return list(value) if isinstance(value, list) else value


def _record(record: Record) -> dict[str, Json]:
    data: dict[str, Json] = {name: _fresh(getattr(record, name)) for name in _RECORD_FIELDS}
    data["stage"] = int(record.stage)
    data["status"] = None if record.status is None else record.status.value
    for name in ("error", "resumed", "wait"):
        data[name] = codec.unstructure(getattr(record, name))
    data["attempts"] = [codec.unstructure(attempt) for attempt in record.attempts or ()]
    data["logs"] = [codec.unstructure(line) for line in record.logs or ()]
    data["items"] = None if record.items is None else [_record(item) for item in record.items]
    data["frames"] = None if record.frames is None else [_frame(frame) for frame in record.frames]
    return data


def _fill_frame(machine: Any, frame: Frame, data: Mapping[str, Json]) -> None:
    for name in _FRAME_FIELDS:
        setattr(frame, name, _fresh(data[name]))
    frame.prefix = f"{frame.path}/" if frame.path else ""
    frame.left, frame.tainted = list(data["left"]), set(data["tainted"])
    frame.missed = dict(data["missed"])
    if data["item"] is not None:
        frame.item, frame.number = data["item"]
    frame.counted = {index: list(numbers) for index, numbers in data["counted"]}
    verdict = data["verdict"]
    frame.verdict = _converter.structure(verdict, Failure) if isinstance(verdict, dict) else verdict
    for index, item in enumerate(data["records"]):
        if item is not None:
            record = _fill_record(machine, frame, index, item)
            frame.add(record)
            if record.stage is Stage.ENDED:
                frame.outputs[index] = record.outputs


def _fill_record(machine: Any, frame: Frame, index: int, data: Mapping[str, Json]) -> Record:
    record = Record(frame, index, data["path"], data["at_due"], data["step"])
    for name in _RECORD_FIELDS:
        setattr(record, name, _fresh(data[name]))
    record.stage = Stage(data["stage"])
    record.status = None if data["status"] is None else NodeStatus(data["status"])
    record.error = _optional(data["error"], Failure)
    record.resumed = _optional(data["resumed"], Resumed)
    record.wait = _optional(data["wait"], Wait)
    record.attempts = [_converter.structure(item, Attempt) for item in data["attempts"]] or None
    record.logs = [_converter.structure(item, LogLine) for item in data["logs"]] or None
    if data["items"] is not None:
        record.items = [_fill_record(machine, frame, index, item) for item in data["items"]]
        for number, item in enumerate(record.items):
            item.owner, item.item = record, number
    if data["frames"] is not None:
        record.frames = []
        group = frame.plan.groups[index].body
        for item in data["frames"]:
            if group is None:
                raise IllegalEvent("the snapshot belongs to another version of the workflow")
            inner = Frame(group, item["path"], record, None)
            _fill_frame(machine, inner, item)
            record.frames.append(inner)
            machine.frames[inner.path] = inner
        record.body = record.frames[-1]
    return record


def _optional(data: Any, kind: Any) -> Any:
    return None if data is None else _converter.structure(data, kind)
