"""The machine's state as data: records of nodes and items, frames of graphs, and what an expression may see of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Literal

import attrs

from orchestrator_core.graph import Plan
from orchestrator_core.types import Attempt, Failure, Json, LogLine, Node, NodeIO, NodeStatus, Resumed, Wait

__all__ = [
    "ABSENT",
    "DELIVERED",
    "FUTURE",
    "HERE",
    "KEPT",
    "SKIPPED",
    "TAINTED",
    "UNSETTLED",
    "Frame",
    "NodeView",
    "Record",
    "Scope",
    "Stage",
]


class Stage(IntEnum):
    """Where a record stands. Its status, as people see it, follows from it."""

    ASKING = 1  # due; `when` or `for_each` is being evaluated
    QUEUED = 2  # wants a slot
    ACTIVE = 3  # an attempt holds a slot
    WAITING = 4  # for a time or a signal
    DELAYED = 5  # between attempts
    OPEN = 6  # its items, its body or its child execution run
    ENDED = 7


# An enum's member costs as much as a call; these are looked up for every node.
_ASKING, _ENDED = Stage.ASKING, Stage.ENDED
_SUCCEEDED = NodeStatus.SUCCEEDED

_STATUS = {
    Stage.ASKING: NodeStatus.PENDING,
    Stage.QUEUED: NodeStatus.PENDING,
    Stage.ACTIVE: NodeStatus.RUNNING,
    Stage.WAITING: NodeStatus.WAITING,
    Stage.DELAYED: NodeStatus.RUNNING,
    Stage.OPEN: NodeStatus.RUNNING,
}


class _Absent:
    """What a name stands for that has no value: JavaScript's ``undefined``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT = _Absent()


class Record:
    """One node in one execution, or one item of its ``for_each``. Made when it is due (or never was and has ended)."""

    # A large execution has a record for every node: what most records need has a slot, what few need is a default of
    # the class until it is set.
    __slots__ = (
        "__dict__",
        "at_due",
        "ended_step",
        "finished_at",
        "frame",
        "index",
        "input",
        "number",
        "outputs",
        "path",
        "quick",
        "rank_step",
        "stage",
        "started_at",
        "status",
        "step",
        "tried_at",
    )

    frame: Frame
    index: int
    path: str
    stage: Stage
    status: NodeStatus | None  # how it ended
    input: Json
    outputs: dict[str, Json] | None
    number: int  # of the current or last attempt
    at_due: float
    step: int  # the event that made it due: what `nodes` shows it
    rank_step: int  # the event that made it want a slot
    ended_step: int
    started_at: float | None
    tried_at: float | None  # when the current attempt began
    finished_at: float | None
    quick: bool  # nothing has happened to it yet that needs more than the columns of its frame

    item: int = -1  # the item's number, or -1 for a node
    owner: Record | None = None  # the node's record, for an item
    inputs: Mapping[str, Json] | None = None  # only where there are others than main
    error: Failure | None = None
    attempts: list[Attempt] | None = None  # those before the current one
    logs: list[LogLine] | None = None
    resumed: Resumed | None = None
    wait: Wait | None = None
    waits: int = 0  # wakings of the current attempt
    announced: bool = False  # a journal that is replayed says already that it was due
    child: bool = False  # it is a stored workflow whose child execution runs
    unwanted: bool = False  # that was asked to be cancelled
    items: list[Record] | None = None
    values: list[Json] | None = None  # what for_each gave
    begun: int = 0  # items begun
    active: int = 0  # items begun and not ended
    unfinished: int = 0  # items not ended
    body: Frame | None = None  # the frame that runs
    frames: list[Frame] | None = None  # all frames: one for a workflow, one an iteration for a loop

    def __init__(self, frame: Frame, index: int, path: str, at: float, step: int) -> None:
        self.frame = frame
        self.index = index
        self.path = path
        self.stage = _ASKING
        self.status = None
        self.input = None
        self.outputs = None
        self.number = 0
        self.at_due = at
        self.step = step
        self.rank_step = step
        self.ended_step = -1
        self.started_at = None
        self.tried_at = None
        self.finished_at = None
        self.quick = False

    @property
    def node(self) -> Node:
        """The node in its document."""
        return self.frame.plan.nodes[self.index]

    def scope(self) -> Scope:
        """What this record's expressions may see."""
        node = self.owner or self
        frame = self.frame
        inputs = node.inputs if node.inputs is not None else {"main": node.input}
        if self.item < 0:
            return Scope(frame, self.step, self.input, inputs, frame.item, frame.number)
        values = node.values or []
        return Scope(frame, self.step, self.input, inputs, values[self.item], self.item)

    def status_at(self, step: int) -> NodeStatus:
        """The status as of an event."""
        if self.stage is _ENDED and self.ended_step <= step and self.status is not None:
            return self.status
        if self.stage is _ENDED or self.step > step:
            return NodeStatus.RUNNING if self.step <= step else NodeStatus.PENDING
        return _STATUS[self.stage]

    def all_attempts(self) -> tuple[Attempt, ...]:
        """Every attempt so far, the current one last."""
        earlier = tuple(self.attempts) if self.attempts is not None else ()
        if self.tried_at is None:
            return earlier
        finished = self.finished_at if self.stage is _ENDED else None
        last = Attempt(self.number, self.tried_at, finished)
        return (*earlier, last) if earlier else (last,)

    def begin(self, at: float) -> None:
        """Note when it began; the node of a list begins with its first item."""
        if self.started_at is None:
            self.started_at = at
            if self.owner is not None:
                self.owner.begin(at)

    def to_node_io(self) -> NodeIO:
        """The record as results show it."""
        node = self.frame.plan.nodes[self.index]
        outputs = self.outputs
        status = self.status
        logs = self.logs
        return NodeIO(
            self.path,
            node.id,
            node.type,
            status if status is not None else _STATUS[self.stage],
            self.input,
            outputs.get("main") if outputs is not None else None,
            outputs if outputs is not None else {},
            self.error,
            self.all_attempts(),
            tuple(logs) if logs is not None else (),
            self.started_at,
            self.finished_at,
        )


# What a frame knows of a node: nothing yet, a record, or an ended record that went into the columns.
FUTURE, HERE, KEPT = range(3)


class Frame:
    """A plan being run: the execution itself, or a body under a group.

    A large execution consists of nodes to which nothing special happens: one attempt, and it succeeds. Once such a
    node has ended its record goes into columns, and :meth:`at` makes a record of them again for whoever asks: columns
    cost a fraction of the memory, and the garbage collector need not walk them.

    The state of an edge is not kept at all: it follows from the end of its source (rule 2).
    """

    __slots__ = (
        "asking",
        "began_at",
        "closed",
        "counted",
        "depth",
        "due_steps",
        "end_steps",
        "ended_at",
        "failed_at",
        "fresh",
        "given",
        "input",
        "item",
        "iteration",
        "known",
        "left",
        "missed",
        "number",
        "outputs",
        "owner",
        "path",
        "plan",
        "prefix",
        "records",
        "result",
        "tainted",
        "unfinished",
        "verdict",
    )

    plan: Plan
    path: str
    prefix: str
    depth: int
    owner: Record | None
    input: Json
    item: Any
    number: Any
    iteration: int
    known: bytearray
    records: list[Record | None]
    outputs: list[dict[str, Json] | None]
    given: list[Json]
    began_at: array[float]
    ended_at: array[float]
    due_steps: array[int]
    end_steps: array[int]
    left: list[int]
    missed: dict[int, int]
    tainted: set[int]
    unfinished: int
    closed: bool
    failed_at: int
    counted: dict[int, list[int]]
    fresh: dict[int, list[int]]
    asking: str
    result: Json
    verdict: Failure | Literal["cancelled", "done"] | None

    def __init__(self, plan: Plan, path: str, owner: Record | None, input: Json) -> None:
        size = len(plan.nodes)
        self.plan = plan
        self.path = path
        self.prefix = f"{path}/" if path else ""
        self.depth = 0 if owner is None else owner.frame.depth + 1
        self.owner = owner
        self.input = input
        self.item = ABSENT  # what a body sees of the for_each around it
        self.number = ABSENT
        self.iteration = 0
        self.known = bytearray(size)  # FUTURE, HERE or KEPT
        self.records = [None] * size  # those that are HERE
        self.outputs = [None] * size  # of all nodes that have ended
        self.given = [None] * size  # the inputs of those that are KEPT, and so on
        self.began_at = array("d", bytes(8 * size))
        self.ended_at = array("d", bytes(8 * size))
        self.due_steps = array("q", bytes(8 * size))
        self.end_steps = array("q", bytes(8 * size))
        self.left = list(plan.degrees)  # unsettled incoming edges of each node
        self.missed = {}  # skipped incoming edges, of nodes that have any
        self.tainted = set()  # nodes whose skipped edges are tainted
        self.unfinished = size
        self.closed = False
        self.failed_at = -1  # the first node by document order that failed unhandled
        self.counted = {}  # for joins by number: the deliveries that counted
        self.fresh = {}  # and those that came with the current event
        self.asking = ""  # the question about the whole frame that is being evaluated: until, output
        self.result = None
        self.verdict = None  # a time-out, a cancel; for an iteration that `until` is true

    def at(self, index: int) -> Record | None:
        """The record of a node, if it has one by now. That of a node in the columns is a copy, and not to be changed."""
        if self.known[index] != KEPT:
            return self.records[index]
        record = Record(self, index, self.prefix + self.plan.names[index], self.began_at[index], self.due_steps[index])
        record.stage = _ENDED
        record.status = NodeStatus.SUCCEEDED
        record.input = self.given[index]
        record.outputs = self.outputs[index]
        record.number = 1
        record.ended_step = self.end_steps[index]
        record.started_at = record.tried_at = self.began_at[index]
        record.finished_at = self.ended_at[index]
        return record

    def add(self, record: Record) -> None:
        """Take in the record of a node."""
        self.known[record.index] = HERE
        self.records[record.index] = record

    def keep(self, record: Record, at: float, step: int) -> None:
        """Put a quick record that has succeeded into the columns. Its outputs are there already."""
        index = record.index
        self.known[index] = KEPT
        self.records[index] = None
        self.given[index] = record.input
        self.began_at[index] = record.tried_at or 0.0
        self.ended_at[index] = at
        self.due_steps[index] = record.step
        self.end_steps[index] = step

    def edge(self, number: int) -> int:
        """The state of an edge: it settled when its source ended."""
        source = self.plan.sources[number]
        if self.known[source] != KEPT:
            record = self.records[source]
            if record is None or record.stage is not _ENDED:
                return UNSETTLED
        outputs = self.outputs[source]
        if outputs is not None and self.plan.ports[number] in outputs:
            return DELIVERED
        return TAINTED if source in self.tainted else SKIPPED

    def node_io(self, index: int) -> NodeIO:
        """A node as results show it; one that is not due yet is pending."""
        plan, record = self.plan, self.records[index]
        if record is not None:
            return record.to_node_io()
        name = plan.names[index]
        if self.known[index] == FUTURE:
            return NodeIO(self.prefix + name, name, plan.types[index], NodeStatus.PENDING)
        outputs = self.outputs[index] or {}
        began, ended = self.began_at[index], self.ended_at[index]
        return NodeIO(
            self.prefix + name,
            name,
            plan.types[index],
            _SUCCEEDED,
            self.given[index],
            outputs.get("main"),
            outputs,
            None,
            (Attempt(1, began, ended),),
            (),
            began,
            ended,
        )

    def inputs_for(self, index: int) -> tuple[Json, Mapping[str, Json] | None]:
        """The value on ``main``, and all inputs where there are others (rule 5)."""
        plan = self.plan
        edges = plan.ins[index]
        if not edges:
            return self.input, None
        by_input = plan.inputs.get(index)
        counted = self.counted.get(index)
        if by_input is None:
            if len(edges) == 1:
                return self.outputs[plan.sources[edges[0]]][plan.ports[edges[0]]], None  # type: ignore[index]  # delivered, so it is there
            return self.gather(edges, counted), None
        inputs: dict[str, Json] = {}
        for name, numbers in by_input.items():
            if len(numbers) > 1:
                inputs[name] = self.gather(numbers, counted)
            elif self.edge(numbers[0]) == DELIVERED and (counted is None or numbers[0] in counted):
                inputs[name] = self.outputs[plan.sources[numbers[0]]][plan.ports[numbers[0]]]  # type: ignore[index]  # as above
        return inputs.get("main"), inputs

    def gather(self, numbers: Sequence[int], counted: list[int] | None) -> dict[str, Json]:
        """What several edges of one input delivered, by their keys."""
        plan, given = self.plan, self.outputs
        sources, ports, keys = plan.sources, plan.ports, plan.keys
        result: dict[str, Json] = {}
        for number in numbers:
            outputs = given[sources[number]]
            if outputs is not None and (port := ports[number]) in outputs and (counted is None or number in counted):
                result[keys[number]] = outputs[port]
        return result

    def terminal_output(self) -> Json:
        """The answer without an ``output`` template (rule 11)."""
        terminals = self.plan.terminals
        if len(terminals) == 1:
            outputs = self.outputs[terminals[0]]
            return outputs.get("main") if outputs is not None else None
        names = self.plan.names
        return {names[i]: outputs.get("main") for i in terminals if (outputs := self.outputs[i]) is not None}

    def live_records(self) -> Iterator[Record]:
        """Every record outside the columns in document order, what is inside one after it."""
        for record in self.records:
            if record is not None:
                yield from _with_inner(record)


UNSETTLED, DELIVERED, SKIPPED, TAINTED = range(4)


def _with_inner(record: Record) -> Iterator[Record]:
    yield record
    for item in record.items or ():
        yield from _with_inner(item)
    for frame in record.frames or ():
        yield from frame.live_records()


@attrs.frozen
class NodeView:
    """What ``nodes.<id>`` shows; ``output`` is :data:`ABSENT` where nothing was delivered on main."""

    output: Any
    outputs: Mapping[str, Json]
    status: NodeStatus
    error: Any


_NOT_RUN = NodeView(ABSENT, {}, NodeStatus.PENDING, None)
_OUTSIDE = NodeView(ABSENT, {}, NodeStatus.SKIPPED, None)


@attrs.frozen(eq=False)
class Scope:
    """What an expression may see: ``nodes`` as of the event ``step``, ``item`` and ``index`` where there are any."""

    frame: Frame
    step: int
    input: Any
    inputs: Mapping[str, Json]
    item: Any = ABSENT
    index: Any = ABSENT

    def node(self, name: str) -> NodeView | None:
        """What is to be seen of a node; ``None`` where the document has no such node."""
        frame = self.frame
        index = frame.plan.index.get(name)
        if index is None:
            return _OUTSIDE if name in frame.plan.outside else None
        record = frame.at(index)
        if record is None:
            return _NOT_RUN
        status = record.status_at(self.step)
        if record.stage is not _ENDED or record.ended_step > self.step:
            return NodeView(ABSENT, {}, status, None)
        outputs = record.outputs or {}
        error = record.error.to_json() if record.error is not None else None
        return NodeView(outputs.get("main", ABSENT), outputs, status, error)

    def node_names(self) -> list[str]:
        """Every node of the document at hand."""
        return [node.id for node in self.frame.plan.workflow.nodes]
