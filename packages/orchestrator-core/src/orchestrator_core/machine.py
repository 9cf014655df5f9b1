"""The machine: the law of execution as a fold over events. No clock, no randomness, no input or output.

How it works
------------
``receive(event)`` takes one *fact* and gives the events to write down (the fact and the machine's *decisions*) and the
commands to carry out. Inside, every event is **applied**: it changes the state, adds commands, and leaves behind what
may have to be decided now. Deciding makes further events, which are applied in turn, until nothing is left; then free
slots are given out. ``replay`` applies a journal's events, decisions included, without deciding anything again, and
goes on from there: that is why an old journal means the same to a newer machine.

The theory on one page
----------------------
A record's life::

    due -> ASKING -> QUEUED -> ACTIVE -> ENDED
             |          ^        |  ^
             |          |        |  +-- a slot is free
             |          +- WAITING  (AttemptWaited; TimerFired or SignalReceived wakes it)
             |          +- DELAYED  (AttemptFailed, to be retried; TimerFired ends the delay)
             +-> OPEN -> ENDED      (a group's body, a list's items, a child execution)

Which facts are lawful in which stage is the table :data:`TRANSITIONS`. A fact about an attempt that no longer runs, a
timer that is no longer wanted or a signal that was seen before is *stale*: it is dropped and leaves no event. What no
history can produce raises :class:`IllegalEvent` before anything has changed.

An edge settles exactly when its source ends: that is rule 2. A node is judged whenever an edge into it settles;
joins by number are judged last and in topological order, so that all deliveries of one event are in (rule 3).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any

import attrs

from orchestrator_core import snapshots
from orchestrator_core.commands import (
    CancelAttempt,
    CancelChild,
    Command,
    Evaluate,
    RunAttempt,
    StartChild,
    StartTimer,
)
from orchestrator_core.errors import IllegalEvent
from orchestrator_core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    AttemptWaited,
    BodyStarted,
    CancelRequested,
    ChildEnded,
    Evaluated,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeDue,
    NodeEnded,
    Rescheduled,
    SignalReceived,
    TimerFired,
    TimerKind,
    WaitEnded,
)
from orchestrator_core.graph import ALL, Group, Plan
from orchestrator_core.state import DELIVERED, SKIPPED, TAINTED, UNSETTLED, Frame, Record, Scope, Stage
from orchestrator_core.types import (
    Attempt,
    ExecutionStatus,
    Failure,
    Json,
    Node,
    NodeIO,
    NodeStatus,
    Pins,
    Result,
    Resumed,
)

__all__ = ["TRANSITIONS", "Machine", "Step", "order_of"]

_ACTIVE, _ENDED, _QUEUED = Stage.ACTIVE, Stage.ENDED, Stage.QUEUED
_SUCCEEDED = NodeStatus.SUCCEEDED

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


@attrs.frozen
class Step:
    """What one fact leads to: the events to write down (none, where it was stale) and the commands to carry out."""

    events: list[Event]
    commands: list[Command]


class Machine:
    """One execution of one plan.

    Attributes:
        plan: The graph.
        now: The time of the latest event.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.execution_id = ""
        self.payload: Json = None
        self.seed = 0
        self.pins: Pins = {}
        self.vars: Mapping[str, Json] = {}
        self.version: int | None = None
        self.now = 0.0
        self.started_at = 0.0
        self.finished_at: float | None = None
        self.ended: ExecutionEnded | None = None
        self.root: Frame | None = None
        self.frames: dict[str, Frame] = {}
        self.timers: dict[tuple[str, TimerKind], float] = {}
        self.signals: dict[str, list[SignalReceived]] = {}
        self.seen: set[str] = set()
        self.running = 0
        self.children = 0
        self.step = 0
        self._limit = plan.workflow.settings.max_parallel
        self._drain = plan.workflow.settings.failure == "drain"
        self._events: list[Event] = []
        self._commands: list[Command] = []
        self._work: deque[tuple[Frame, int]] = deque()  # nodes to be judged
        # Joins by number, a heap: inner graphs first, then upstream first.
        self._late: list[tuple[int, int, int, int, Frame]] = []
        self._serial = 0
        self._asked = 0  # questions in the current step
        self._todo: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()  # other decisions
        self._wanting: list[Record] = []  # want a slot since this event
        self._queue: list[tuple[int, tuple[int, ...], Record]] = []  # want one since an earlier event, a heap

    # --- the interface ------------------------------------------------------------------------------------------

    @property
    def status(self) -> ExecutionStatus:
        """Where the execution stands; ``waiting``: nothing runs or wants to, only waits are open."""
        if self.ended is not None:
            return self.ended.status
        stages = {record.stage for record in self.root.all_records()} if self.root is not None else set()
        if self.running or self.children or not stages.isdisjoint({Stage.ASKING, Stage.QUEUED, Stage.DELAYED}):
            return ExecutionStatus.RUNNING
        return ExecutionStatus.WAITING if Stage.WAITING in stages else ExecutionStatus.RUNNING

    def receive(self, event: Event) -> Step:
        """Take in a fact.

        Raises:
            IllegalEvent: No history can produce it here; nothing has changed.
        """
        kind = type(event)
        handler = _FACTS.get(kind)
        if handler is None:
            raise IllegalEvent(f"{kind.__name__} is a decision of the machine, it cannot be received")
        subject = self._admit(event, kind)
        if subject is None:
            return Step([], [])
        self._events = events = [event]
        self._commands = commands = []
        self.step += 1
        self.now = event.at
        handler(self, event, subject)
        if self._work or self._todo or self._late:
            self._decide()
        if self._wanting or self._queue:
            self._grant()
        if self._asked > 1:
            commands = self._in_order(commands)
        self._asked = 0
        return Step(events, commands)

    def _in_order(self, commands: list[Command]) -> list[Command]:
        """Questions of one step first, in document order: their answers are events, whose order matters."""
        questions = [command for command in commands if isinstance(command, Evaluate)]
        questions.sort(key=lambda command: (self.order(command.path), command.path))
        return [*questions, *(command for command in commands if not isinstance(command, Evaluate))]

    def replay(self, events: Iterable[Event]) -> Step:
        """Apply a journal, or a part of it that follows what was applied before, as it was written.

        Returns:
            The events that the journal lacks (it may end in the midst of a step) and every command outstanding.

        Raises:
            IllegalEvent: The journal contradicts itself.
        """
        for event in events:
            kind = type(event)
            if (fact := _FACTS.get(kind)) is not None:
                self._settle_replayed()
                subject = self._admit(event, kind)
                if subject is None:
                    raise IllegalEvent(f"the journal holds a stale event: {event}")
                self.step += 1
                self.now = event.at
                fact(self, event, subject)
            else:
                self._apply_decision(event)
        self._events = events_ = []
        self._commands = []
        self._decide()
        self._grant()
        return Step(events_, self.outstanding())

    def outstanding(self) -> list[Command]:
        """Every command that has no answer yet: what a driver has to do after a restart."""
        commands: list[Command] = []
        if self.root is None or self.ended is not None:
            if self.children and self.root is not None:
                commands += [CancelChild(r.path) for r in self.root.all_records() if r.child]
            return commands
        for record in self.root.all_records():
            if record.stage is _ACTIVE:
                commands.append(RunAttempt(record.path, record.number, record))
            elif record.stage is Stage.ASKING:
                self._ask_record(record, commands)
            elif record.child:
                commands.append(self._child_command(record))
        commands += [self._ask_frame(frame) for frame in self.frames.values() if frame.asking]
        commands += [StartTimer(path, kind, due) for (path, kind), due in self.timers.items()]
        return commands

    def has_timer(self, path: str, kind: TimerKind, due: float) -> bool:
        """Whether a timer is still wanted; a driver may forget it otherwise."""
        return self.timers.get((path, kind)) == due

    def node_ios(self) -> tuple[NodeIO, ...]:
        """Every record in document order. Nodes that are not due yet are pending."""
        root = self.root
        if root is None:
            return ()
        result: list[NodeIO] = []
        for index, record in enumerate(root.records):
            if record is None:
                node = root.plan.nodes[index]
                result.append(NodeIO(node.id, node.id, node.type, NodeStatus.PENDING))
            elif record.items is None and record.frames is None:
                result.append(record.to_node_io())
            else:
                result.extend(_inner_ios(record))
        return tuple(result)

    def edges(self) -> dict[str, str]:
        """Every edge of the plan and of the bodies that began: ``delivered``, ``skipped`` or ``unsettled``."""
        words = {UNSETTLED: "unsettled", DELIVERED: "delivered", SKIPPED: "skipped", TAINTED: "skipped"}
        frames = [self.root, *self.frames.values()] if self.root else []
        seen: dict[str, str] = {}
        for frame in frames:
            if frame is not None:
                for number, edge in enumerate(frame.plan.edges):
                    seen[f"{frame.prefix}{edge}"] = words[frame.edges[number]]
        return seen

    def result(self) -> Result:
        """The execution as it stands."""
        ended = self.ended
        return Result(
            execution_id=self.execution_id,
            workflow=self.plan.workflow.id,
            version=self.version,
            status=self.status,
            output=ended.output if ended else None,
            error=ended.error if ended else None,
            nodes=self.node_ios(),
            started_at=self.started_at,
            finished_at=self.finished_at,
        )

    def snapshot(self) -> dict[str, Json]:
        """The whole state as data (payloads as they were handed in); :meth:`restore` makes a machine of it again."""
        return snapshots.take(self)

    @classmethod
    def restore(cls, plan: Plan, snapshot: Mapping[str, Json]) -> Machine:
        """The machine that gave a snapshot. ``plan`` must be that of the same version and start."""
        machine = cls(plan)
        snapshots.put(machine, snapshot)
        for record in machine.root.all_records() if machine.root is not None else ():
            if record.stage is _QUEUED:
                heappush(machine._queue, (record.rank_step, order_of(record), record))
        return machine

    # --- which facts are lawful, stale or illegal: decided before anything changes ------------------------------

    def _admit(self, event: Any, kind: type[Any]) -> Any:
        """The record, frame or machine that a fact is about; ``None``: it is stale.

        Raises:
            IllegalEvent: No history can produce it.
        """
        if kind is ExecutionStarted:
            if self.root is not None:
                raise IllegalEvent("the execution has started already")
            return self
        if self.root is None:
            raise IllegalEvent(f"{kind.__name__} before ExecutionStarted")
        if event.at < self.now:
            raise IllegalEvent(f"{kind.__name__} at {event.at}: time does not run backwards from {self.now}")
        if kind is AttemptSucceeded or kind is AttemptFailed or kind is AttemptWaited:
            index = self.plan.index.get(event.path)
            record = self.root.records[index] if index is not None else self.find(event.path)
            if record is None or not 0 < event.number <= record.number:
                raise IllegalEvent(f"{kind.__name__}: attempt {event.number} of {event.path!r} was never started")
            return record if record.stage is _ACTIVE and event.number == record.number else None
        return self._admit_other(event, kind)

    def _admit_other(self, event: Any, kind: type[Any]) -> Any:
        path = event.path
        if kind is SignalReceived:
            if not self._exists(path):
                raise IllegalEvent(f"there is no node {path!r} to signal")
            return None if self.ended is not None or event.id in self.seen else self
        if kind is CancelRequested and path == "":
            return None if self.ended is not None or self.root is None or self.root.closed else self
        if kind is TimerFired:
            return self._admit_timer(event)
        if kind is Evaluated and event.question in {"until", "output"}:
            frame = self.root if path == "" else self.frames.get(path)
            if frame is None or (frame.asking != event.question and not frame.closed):
                raise IllegalEvent(f"{event.question!r} of {path!r} was not asked")
            return frame if frame.asking == event.question and not frame.closed else None
        record = self.find(path)
        if record is None:
            if kind is CancelRequested and self._exists(path):
                return None
            raise IllegalEvent(f"{kind.__name__}: there is no {path!r} in this execution")
        if kind is ChildEnded:
            if not record.child:
                raise IllegalEvent(f"{path!r} has no child execution")
            return record
        if kind is CancelRequested and record.frame.plan.groups.get(record.index) is None:
            raise IllegalEvent(f"{path!r} is no group: cancel the execution, or a loop or workflow node")
        if kind is Evaluated and not self._was_asked(record, event.question):
            raise IllegalEvent(f"{event.question!r} of {path!r} was not asked")
        return record if record.stage in TRANSITIONS[kind] else None

    def _admit_timer(self, event: TimerFired) -> Any:
        due = self.timers.get((event.path, event.kind))
        if due is None:
            if event.path != "" and not self._exists(event.path):
                raise IllegalEvent(f"there is no {event.path!r} to have a timer")
            return None
        if event.at < due:
            return None  # an earlier timer of the same place, which was dropped and set anew
        return self.frames.get(event.path) or self.find(event.path) or self

    def _was_asked(self, record: Record, question: str) -> bool:
        node = record.node
        asked = node.when if question == "when" else node.for_each
        if record.stage is Stage.ASKING:
            return question == _question_of(record)
        return asked is not None

    def _exists(self, path: str) -> bool:
        """Whether the plan has a place for this path, whether or not it is due yet."""
        plan: Plan | None = self.plan
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

    # --- steps ------------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Decide what is to be decided, to a fixed point."""
        work, todo, late = self._work, self._todo, self._late
        while True:
            if work:
                frame, index = work.popleft()
                self._judge(frame, index)
            elif todo:
                decide, arguments = todo.popleft()
                decide(*arguments)
            elif late:
                _, _, _, index, frame = heappop(late)
                self._judge_number(frame, index)
            else:
                return

    def _settle_replayed(self) -> None:
        """End a replayed step: its decisions stand in the journal, nothing is decided again."""
        self._work.clear()
        self._todo.clear()
        for _, _, _, index, frame in self._late:
            if frame.records[index] is None:
                self._count(frame, index)
        self._late.clear()
        for record in self._wanting:
            if record.stage is _QUEUED:
                heappush(self._queue, (record.rank_step, order_of(record), record))
        self._wanting.clear()

    def _put(self, event: Event) -> None:
        if type(event) is NodeEnded:
            record = self.find(event.path)
            if record is not None and record.stage is _QUEUED and record.step == self.step and self._is_plain(record):
                # Due and ended by one fact: its start will not tell that it was due.
                self._events.append(NodeDue(self.now, event.path))
        self._events.append(event)
        _DECISIONS[type(event)](self, event)

    def _apply_decision(self, event: Event) -> None:
        apply = _DECISIONS.get(type(event))
        if apply is None or self.root is None:
            raise IllegalEvent(f"{type(event).__name__} cannot stand here in a journal")
        try:
            apply(self, event)
        except (KeyError, IndexError, AttributeError) as error:
            raise IllegalEvent(f"the journal contradicts itself at {event}") from error

    # --- joins: when a node is due (rule 3) ----------------------------------------------------------------------

    def _judge(self, frame: Frame, index: int) -> None:
        if frame.closed or frame.records[index] is not None:
            return
        plan = frame.plan
        edges = plan.ins[index]
        if edges:
            if frame.failed_at >= 0 and any(frame.edges[number] == TAINTED for number in edges):
                self._end_undue(frame, index, NodeStatus.CANCELLED, "tainted")
                return
            if frame.left[index]:
                return
            got = frame.got[index]
            if got == 0 or (plan.joins[index] == ALL and got < len(edges)):
                self._end_undue(frame, index, NodeStatus.SKIPPED, "join")
                return
        self._make_due(frame, index)

    def _judge_number(self, frame: Frame, index: int) -> None:
        """A join by number: the earliest deliveries count, those of one event in document order."""
        if frame.closed or frame.records[index] is not None:
            return
        wanted = frame.plan.joins[index]
        counted = self._count(frame, index)
        if len(counted) == wanted:
            self._make_due(frame, index)
            if frame.plan.nodes[index].cancel_rest:
                self._cancel_losers(frame, index)
        elif len(counted) + frame.left[index] < wanted:
            if any(frame.edges[number] == TAINTED for number in frame.plan.ins[index]):
                self._end_undue(frame, index, NodeStatus.CANCELLED, "tainted")
            else:
                self._end_undue(frame, index, NodeStatus.SKIPPED, "join")

    @staticmethod
    def _count(frame: Frame, index: int) -> list[int]:
        """The deliveries that count for a join by number, those of the current event included."""
        counted = frame.counted.setdefault(index, [])
        counted += sorted(frame.fresh.pop(index, ()))[: frame.plan.joins[index] - len(counted)]
        return counted

    def _cancel_losers(self, frame: Frame, index: int) -> None:
        for number in frame.plan.ins[index]:
            source = frame.plan.sources[number]
            record = frame.records[source]
            if frame.edges[number] == UNSETTLED and record is not None and record.stage is not _ENDED:
                if all(target == index for _, target, _ in frame.plan.outs[source]):
                    self._put(NodeEnded(self.now, record.path, NodeStatus.CANCELLED, "lost"))

    def _end_undue(self, frame: Frame, index: int, status: NodeStatus, reason: str) -> None:
        self._put(NodeEnded(self.now, frame.prefix + frame.plan.nodes[index].id, status, reason))

    def _make_due(self, frame: Frame, index: int) -> None:
        path = frame.prefix + frame.plan.nodes[index].id
        if not frame.plan.plain[index] or self.pins:
            self._events.append(NodeDue(self.now, path))
        # Otherwise the start of its attempt says so, or, where it has to wait for a slot, NodeDue then.
        self._apply_node_due(frame, index, path)

    def _is_plain(self, record: Record) -> bool:
        return record.item < 0 and not self.pins and record.frame.plan.plain[record.index]

    def _apply_due(self, event: NodeDue) -> None:
        if self.find(event.path) is not None:
            return  # it was, and now waits for a slot
        frame, index, owner = self._locate(event.path)
        if owner is None:
            if frame.plan.joins[index] > 0 and frame.plan.ins[index]:
                self._count(frame, index)
            self._apply_node_due(frame, index, event.path)
            record = self._get(event.path)
            if self._is_plain(record):
                # Only what had to wait for a slot is announced.
                self._wanting.remove(record)
                heappush(self._queue, (record.rank_step, order_of(record), record))
        else:
            self._apply_item_due(owner, event.path)

    def _apply_node_due(self, frame: Frame, index: int, path: str) -> None:
        record = Record(frame, index, path, self.now, self.step)
        plan = frame.plan
        edges = plan.ins[index]
        if edges and index not in plan.inputs and index not in frame.counted:
            if len(edges) == 1:
                number = edges[0]
                record.input = frame.records[plan.sources[number]].outputs[plan.ports[number]]  # type: ignore[index,union-attr]  # delivered, so it is there
            else:
                record.input = frame.gather(edges, None)
        else:
            record.input, record.inputs = frame.inputs_for(index)
        frame.records[index] = record
        if plan.plain[index] and not self.pins:
            record.stage = _QUEUED
            self._wanting.append(record)
        elif plan.nodes[index].when is not None:
            self._ask_record(record, self._commands)
        else:
            self._enter(record)

    # --- what happens to a node that is due (rules 4, 6, 7, 11) ---------------------------------------------------

    def _enter(self, record: Record) -> None:
        """Its ``when`` is true or absent: pinned, disabled, a list, a group, or an attempt."""
        node = record.node
        if record.path in self.pins:
            record.stage = Stage.OPEN
            self._later(self._end_record, record, _SUCCEEDED, "pinned", dict(self.pins[record.path]), None)
        elif record.item < 0 and node.disabled:
            record.stage = Stage.OPEN
            self._later(self._end_record, record, _SUCCEEDED, "disabled", {"main": record.input}, None)
        elif record.item < 0 and node.for_each is not None:
            record.stage = Stage.ASKING
            record.waits = 1  # the second question
            self._ask_record(record, self._commands)
        elif record.index in record.frame.plan.groups:
            record.stage = Stage.OPEN
            self._later(self._begin_body, record, 0)
        else:
            self._want_slot(record)

    def _later(self, decide: Callable[..., None], *arguments: Any) -> None:
        self._todo.append((decide, arguments))

    def _want_slot(self, record: Record) -> None:
        record.stage = _QUEUED
        # An item is due when it gets its place, a retry or a waking when its time has come.
        record.rank_step = self.step if record.number or record.item >= 0 else record.step
        self._wanting.append(record)

    def _ask_record(self, record: Record, commands: list[Command]) -> None:
        self._asked += 1
        question = _question_of(record)
        template = record.node.when if question == "when" else record.node.for_each
        commands.append(Evaluate(record.path, question, template, record.scope()))  # type: ignore[arg-type]  # one of the two

    def _ask_frame(self, frame: Frame) -> Evaluate:
        self._asked += 1
        if frame.asking == "until":
            group = self._group_of(frame)
            scope = Scope(frame, self.step, frame.result, {"main": frame.result}, frame.item, frame.number)
            return Evaluate(frame.path, "until", group.until, scope)
        scope = Scope(frame, self.step, frame.input, {"main": frame.input}, frame.item, frame.number)
        return Evaluate(frame.path, "output", frame.plan.workflow.output, scope)

    def _group_of(self, frame: Frame) -> Group:
        owner = frame.owner
        if owner is None:
            raise IllegalEvent("the execution itself is no group")
        return owner.frame.plan.groups[owner.index]

    # --- slots (rule 8) ---------------------------------------------------------------------------------------------

    def _grant(self) -> None:
        """Give out free slots: first due first, then document order."""
        wanting, queue, limit = self._wanting, self._queue, self._limit
        if wanting and not queue and (limit is None or self.running + len(wanting) <= limit):
            if len(wanting) > 1:
                wanting.sort(key=order_of)
            for record in wanting:
                if record.stage is _QUEUED:
                    self._start(record)
            wanting.clear()
            return
        for record in wanting:
            heappush(queue, (record.rank_step, order_of(record), record))
        while queue and (limit is None or self.running < limit):
            rank, _, record = heappop(queue)
            if record.stage is _QUEUED and record.rank_step == rank:
                self._start(record)
        for record in wanting:
            if record.stage is _QUEUED and record.number == 0 and self._is_plain(record):
                self._events.append(NodeDue(self.now, record.path))
        wanting.clear()

    def _start(self, record: Record) -> None:
        number = record.number if record.resumed is not None else record.number + 1
        now = self.now
        self._events.append(AttemptStarted(now, record.path, number))
        self._start_record(record, number, now)

    def _apply_attempt_started(self, event: AttemptStarted) -> None:
        if self.find(event.path) is None:
            frame, index, _ = self._locate(event.path)
            if frame.plan.joins[index] > 0 and frame.plan.ins[index]:
                self._count(frame, index)
            self._apply_node_due(frame, index, event.path)
        self._start_record(self._get(event.path), event.number, event.at)

    def _start_record(self, record: Record, number: int, at: float) -> None:
        record.stage = _ACTIVE
        record.number = number
        if record.tried_at is None:
            record.tried_at = at
            if record.started_at is None:
                record.started_at = at
        self.running += 1
        path = record.path
        timeout = record.frame.plan.nodes[record.index].timeout
        if timeout is not None:
            self._start_timer(path, "timeout", at + timeout)
        self._commands.append(RunAttempt(path, number, record))

    def _start_timer(self, path: str, kind: TimerKind, due: float) -> None:
        self.timers[path, kind] = due
        self._commands.append(StartTimer(path, kind, due))

    # --- facts ------------------------------------------------------------------------------------------------------

    def _on_started(self, event: ExecutionStarted, _: Machine) -> None:
        self.execution_id = event.execution_id
        self.payload = event.payload
        self.seed = event.seed
        self.pins = event.pins
        self.vars = event.vars
        self.version = event.version
        self.started_at = event.at
        self.root = root = Frame(self.plan, "", None, event.payload)
        timeout = self.plan.workflow.settings.timeout
        if timeout is not None:
            self._start_timer("", "timeout", event.at + timeout)
        self._work.extend((root, index) for index in self.plan.roots)

    def _on_succeeded(self, event: AttemptSucceeded, record: Record) -> None:
        self.running -= 1
        if self.timers:
            self.timers.pop((record.path, "timeout"), None)
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
        self._end(record, _SUCCEEDED, event.outputs, event.at)

    def _on_failed(self, event: AttemptFailed, record: Record) -> None:
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
        self._attempt_failed(record, event.error, event.at)

    def _attempt_failed(self, record: Record, error: Failure, at: float) -> None:
        self.running -= 1
        self.timers.pop((record.path, "timeout"), None)
        failure = attrs.evolve(error, node=record.node.id, attempt=record.number)
        tried_at = record.tried_at if record.tried_at is not None else at
        record.attempts = [*(record.attempts or ()), Attempt(record.number, tried_at, at, failure)]
        record.tried_at = None
        record.resumed = None
        record.waits = 0
        record.stage = Stage.DELAYED
        self._later(self._retry_or_fail, record, failure)

    def _on_waited(self, event: AttemptWaited, record: Record) -> None:
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
        self.running -= 1
        self.timers.pop((record.path, "timeout"), None)
        record.stage = Stage.WAITING
        record.wait = event.wait
        due = event.wait.until if event.wait.signal is None else event.wait.expires
        if due is not None:
            self._start_timer(record.path, "wait", due)
        if event.wait.signal is not None:
            self._later(self._wake_by_signal, record)

    def _on_timer(self, event: TimerFired, subject: Any) -> None:
        del self.timers[event.path, event.kind]
        if isinstance(subject, Machine):
            self._close_root(Failure("timeout", f"the execution took longer than {self._timeout_of(self.plan)} s"))
        elif isinstance(subject, Frame) and subject.owner is not None:
            message = f"the body took longer than {self._timeout_of(subject.plan)} s"
            self._later(self._fail, subject.owner, Failure("timeout", message, data={"path": event.path}))
        elif event.kind == "timeout":
            self._commands.append(CancelAttempt(subject.path, subject.number))
            message = f"the attempt took longer than {subject.node.timeout:g} s"
            self._attempt_failed(subject, Failure("timeout", message, retryable=True), event.at)
        elif event.kind == "wait":
            kind = "time" if subject.wait.signal is None else "expired"
            self._later(self._put_if, subject, Stage.WAITING, WaitEnded(event.at, event.path, kind))
        elif event.kind == "retry":
            self._want_slot(subject)
        else:
            self._later(self._begin_body, subject, subject.body.iteration + 1)

    @staticmethod
    def _timeout_of(plan: Plan) -> str:
        return f"{plan.workflow.settings.timeout:g}"

    def _on_signal(self, event: SignalReceived, _: Machine) -> None:
        self.seen.add(event.id)
        self.signals.setdefault(event.path, []).append(event)
        record = self.find(event.path)
        if record is not None:
            self._later(self._wake_by_signal, record)

    def _on_cancel(self, event: CancelRequested, subject: Any) -> None:
        if isinstance(subject, Machine):
            self._close_root("cancelled")
        elif subject.child:
            self._commands.append(CancelChild(event.path))
        else:
            data = None if subject.values is None else {"items": _unfinished(subject)}
            self._later(self._fail, subject, Failure("cancelled", "the group was cancelled", data=data))

    def _on_child(self, event: ChildEnded, record: Record) -> None:
        record.child = False
        self.children -= 1
        if record.stage is _ENDED:
            self._later(self._end_execution)
        elif event.status is ExecutionStatus.SUCCEEDED:
            self._later(self._end_record, record, _SUCCEEDED, "completed", {"main": event.output}, None)
        elif event.status is ExecutionStatus.CANCELLED:
            self._later(self._fail, record, Failure("cancelled", "the child execution was cancelled"))
        else:
            inner = event.error or Failure("error", "the child execution failed")
            data = {"path": inner.node} if inner.node else None
            self._later(self._fail, record, Failure(inner.code, inner.message, data=data))

    def _on_evaluated(self, event: Evaluated, subject: Any) -> None:
        if isinstance(subject, Frame):
            self._frame_evaluated(event, subject)
            return
        record: Record = subject
        record.stage = Stage.OPEN
        if event.error is not None:
            self._later(self._fail, record, event.error)
        elif event.question == "when":
            if event.value:
                self._enter(record)
            else:
                self._later(self._end_record, record, NodeStatus.SKIPPED, "when", None, None)
        else:
            record.waits = 0
            record.values = event.value
            record.items = []
            record.unfinished = len(event.value)
            self._later(self._begin_items, record)

    def _frame_evaluated(self, event: Evaluated, frame: Frame) -> None:
        frame.asking = ""
        if event.error is not None:
            if frame.owner is None:
                frame.verdict = attrs.evolve(event.error, node=None)
                self._later(self._end_execution)
            else:
                data = {"path": frame.path} if event.question == "output" else None
                self._later(self._fail, frame.owner, attrs.evolve(event.error, data=data))
        elif event.question == "output":
            frame.result = event.value
            self._frame_answered(frame)
        else:
            frame.verdict = "done" if event.value else None
            self._later(self._advance, frame)

    # --- ends -------------------------------------------------------------------------------------------------------

    def _end(self, record: Record, status: NodeStatus, outputs: dict[str, Json] | None, at: float) -> None:
        """Apply the end of a record: its edges settle, or its node is told."""
        record.stage = _ENDED
        record.status = status
        record.outputs = outputs
        record.ended_step = self.step
        record.finished_at = at
        if record.item >= 0:
            self._item_ended(record)
        else:
            self._node_ended(record.frame, record.index, outputs, SKIPPED)

    def _node_ended(self, frame: Frame, index: int, outputs: dict[str, Json] | None, skipped: int) -> None:
        """Settle the edges of a node that ended (rule 2)."""
        states, left = frame.edges, frame.left
        joins = frame.plan.joins
        for port, target, number in frame.plan.outs[index]:
            join = joins[target]
            left[target] -= 1
            if outputs is not None and port in outputs:
                states[number] = DELIVERED
                frame.got[target] += 1
                if join > 0 and frame.records[target] is None:
                    frame.fresh.setdefault(target, []).append(number)
            else:
                states[number] = skipped
            if join > 0:
                self._serial += 1
                heappush(self._late, (-frame.depth, frame.plan.ranks[target], self._serial, target, frame))
            elif left[target] == 0 or skipped == TAINTED:
                self._work.append((frame, target))
        frame.unfinished -= 1
        if frame.unfinished == 0:
            self._frame_finished(frame)

    def _end_record(
        self, record: Record, status: NodeStatus, reason: str, outputs: dict[str, Json] | None, error: Failure | None
    ) -> None:
        if record.stage is not _ENDED:
            self._put(NodeEnded(self.now, record.path, status, reason, outputs, error))

    def _put_if(self, record: Record, stage: Stage, event: Event) -> None:
        if record.stage is stage:
            self._put(event)

    def _apply_node_ended(self, event: NodeEnded) -> None:
        record = self.find(event.path)
        if record is None:
            record = self._record_undue(event.path)
        if record.stage is _ENDED:
            raise IllegalEvent(f"{event.path!r} has ended already")
        self._let_go(record)
        record.stage = _ENDED
        record.status = event.status
        record.outputs = event.outputs
        record.error = event.error
        record.ended_step = self.step
        record.finished_at = event.at if record.step >= 0 else None
        if record.item >= 0:
            self._item_ended(record)
            return
        frame = record.frame
        unhandled = event.status is NodeStatus.FAILED and event.outputs is None
        if unhandled:
            frame.failed_at = record.index if frame.failed_at < 0 else min(frame.failed_at, record.index)
            if not self._drain:
                frame.closed = True
                self._later(self._frame_failed, frame)
        skipped = TAINTED if (unhandled and self._drain) or event.reason == "tainted" else SKIPPED
        self._node_ended(frame, record.index, event.outputs, skipped)

    def _let_go(self, record: Record) -> None:
        """Drop what a record still holds when it ends by decision: its slot, timers, questions, and what is inside it."""
        path = record.path
        stage = record.stage
        if stage is _ACTIVE:
            self.running -= 1
            self._commands.append(CancelAttempt(path, record.number))
        elif record.child:
            self._commands.append(CancelChild(path))
        if self.timers:
            for kind in _TIMER_KINDS:
                self.timers.pop((path, kind), None)
        if record.values is not None and record.unfinished:
            self._later(self._stop_items, record)
        if record.body is not None and record.body.unfinished:
            record.body.closed = True
            self._later(self._close, record.body)
        if record.body is not None:
            self.timers.pop((record.body.path, "timeout"), None)
            record.body.asking = ""

    def _record_undue(self, path: str) -> Record:
        """The record of what ends without ever having been due."""
        frame, index, owner = self._locate(path)
        record = Record(frame, index, path, self.now, -1)
        if owner is None:
            frame.records[index] = record
        else:
            self._add_item(owner, record)
            record.input = record.scope().item
        return record

    def _close(self, frame: Frame) -> None:
        """Cancel everything in a frame that has not ended."""
        for index, record in enumerate(frame.records):
            if record is None:
                self._end_undue(frame, index, NodeStatus.CANCELLED, "stopped")
            elif record.stage is not _ENDED:
                self._put(NodeEnded(self.now, record.path, NodeStatus.CANCELLED, "stopped"))

    def _close_root(self, verdict: Any) -> None:
        root = self.root
        if root is not None:
            root.closed = True
            root.verdict = verdict
            if root.unfinished:
                self._later(self._close, root)
            else:
                root.asking = ""
                self._later(self._end_execution)

    # --- failures (rule 9) ------------------------------------------------------------------------------------------

    def _retry_or_fail(self, record: Record, failure: Failure) -> None:
        if record.stage is not Stage.DELAYED or (record.path, "retry") in self.timers:
            return
        retry = record.node.retry
        if failure.retryable and retry is not None and record.number < retry.attempts:
            delay = retry.delay * retry.factor ** (record.number - 1)
            if retry.max_delay is not None:
                delay = min(delay, retry.max_delay)
            if retry.jitter:
                delay *= 1 + retry.jitter * (2 * _share(self.seed, record.path, record.number) - 1)
            delay = max(delay, failure.retry_after or 0.0)
            self._put(Rescheduled(self.now, record.path, self.now + delay))
        else:
            self._fail(record, failure)

    def _apply_rescheduled(self, event: Rescheduled) -> None:
        record = self._get(event.path)
        kind: TimerKind = "delay" if record.stage is Stage.OPEN else "retry"
        if event.due > event.at or kind == "delay":
            self._start_timer(event.path, kind, event.due)
        else:
            self._want_slot(record)

    def _fail(self, record: Record, failure: Failure) -> None:
        """Decide what a failure for good becomes: error edges, ``continue``, or unhandled."""
        if record.stage is _ENDED:
            return
        node = record.node
        error = attrs.evolve(failure, node=node.id, attempt=failure.attempt or record.number)
        outputs: dict[str, Json] | None = None
        if record.item < 0 and record.frame.plan.catches[record.index]:
            outputs = {"error": error.to_json()}
        elif node.on_error == "continue" and (record.item >= 0 or node.for_each is None or record.values is None):
            outputs = {"main": error.to_json()}
        self._put(NodeEnded(self.now, record.path, NodeStatus.FAILED, "failed", outputs, error))

    def _frame_failed(self, frame: Frame) -> None:
        """A node of the frame failed unhandled, and all is over (or, under ``stop``, is to be)."""
        owner = frame.owner
        if owner is None:
            if frame.unfinished:
                self._close(frame)
            else:
                self._end_execution()
        elif owner.stage is not _ENDED:
            first = frame.records[frame.failed_at]
            if first is not None and first.error is not None:
                self._fail(owner, attrs.evolve(first.error, data={"path": _origin(first)}))

    # --- lists (rule 6) ---------------------------------------------------------------------------------------------

    def _begin_items(self, owner: Record) -> None:
        if owner.stage is not Stage.OPEN or owner.values is None:
            return
        most = owner.node.max_parallel or len(owner.values)
        while owner.active < most and owner.begun < len(owner.values):
            path = f"{owner.path}/{owner.begun}"
            self._events.append(NodeDue(self.now, path))
            self._apply_item_due(owner, path)
        if owner.unfinished == 0:
            self._put(NodeEnded(self.now, owner.path, _SUCCEEDED, "completed", _lists(owner)))

    def _apply_item_due(self, owner: Record, path: str) -> None:
        record = Record(owner.frame, owner.index, path, self.now, owner.step)
        self._add_item(owner, record)
        record.input = record.scope().item
        owner.active += 1
        self._enter(record)

    def _add_item(self, owner: Record, record: Record) -> None:
        if owner.items is None:
            owner.items = []
        record.owner = owner
        record.item = len(owner.items)
        owner.items.append(record)
        owner.begun += 1

    def _item_ended(self, record: Record) -> None:
        owner = record.owner
        if owner is None:
            return
        owner.unfinished -= 1
        if owner.stage is _ENDED:
            return
        owner.active -= 1
        if record.status is NodeStatus.FAILED and record.outputs is None:
            self._later(self._item_failed, owner, record)
        else:
            self._later(self._begin_items, owner)

    def _item_failed(self, owner: Record, record: Record) -> None:
        if owner.stage is Stage.OPEN and record.error is not None and owner.values is not None:
            self._fail(owner, attrs.evolve(record.error, data={"items": _unfinished(owner)}))

    def _stop_items(self, owner: Record) -> None:
        for item in list(owner.items or ()):
            if item.stage is not _ENDED:
                self._put(NodeEnded(self.now, item.path, NodeStatus.CANCELLED, "stopped"))
        for number in range(owner.begun, len(owner.values or ())):
            self._put(NodeEnded(self.now, f"{owner.path}/{number}", NodeStatus.CANCELLED, "stopped"))

    # --- groups (rule 7) --------------------------------------------------------------------------------------------

    def _begin_body(self, record: Record, iteration: int) -> None:
        begun = len(record.frames or ()) if record.body is not None else int(record.child)
        if record.stage is Stage.OPEN and begun == iteration:
            self._put(BodyStarted(self.now, record.path, iteration))

    def _apply_body_started(self, event: BodyStarted) -> None:
        record = self._get(event.path)
        group = record.frame.plan.groups[record.index]
        if record.started_at is None:
            record.started_at = event.at
        if group.body is None:
            record.child = True
            self.children += 1
            self._commands.append(self._child_command(record))
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
        self.frames[path] = frame
        timeout = group.body.workflow.settings.timeout
        if timeout is not None:
            self._start_timer(path, "timeout", event.at + timeout)
        self._work.extend((frame, index) for index in group.body.roots)

    def _child_command(self, record: Record) -> StartChild:
        stored = record.frame.plan.groups[record.index].stored
        return StartChild(record.path, stored or "", record.input)

    def _frame_finished(self, frame: Frame) -> None:
        """Everything in a frame has ended: apply what follows of it alone."""
        if frame.owner is not None:
            self.timers.pop((frame.path, "timeout"), None)
            if frame.owner.stage is _ENDED:
                return
        if frame.owner is None and frame.verdict is not None:
            self._later(self._end_execution)
        elif frame.failed_at >= 0:
            self._later(self._frame_failed, frame)
        elif frame.plan.workflow.output is not None:
            frame.asking = "output"
            self._commands.append(self._ask_frame(frame))
        else:
            frame.result = frame.terminal_output()
            self._frame_answered(frame)

    def _frame_answered(self, frame: Frame) -> None:
        if frame.owner is None:
            self._later(self._end_execution)
        elif self._group_of(frame).until is not None:
            frame.asking = "until"
            self._commands.append(self._ask_frame(frame))
        else:
            self._later(self._advance, frame)

    def _advance(self, frame: Frame) -> None:
        """A body has given its result: the group ends, fails, or goes on."""
        record = frame.owner
        if record is None or record.stage is not Stage.OPEN or record.body is not frame:
            return
        if (record.path, "delay") in self.timers:
            return
        group = self._group_of(frame)
        over = frame.iteration + 1 >= group.max_iterations
        if group.kind == "workflow" or frame.verdict == "done" or (over and group.until is None):
            self._put(NodeEnded(self.now, record.path, _SUCCEEDED, "completed", {"main": frame.result}))
        elif over:
            self._fail(
                record, Failure("loop_exhausted", f"`until` was not true after {group.max_iterations} iterations")
            )
        elif group.delay > 0:
            self._put(Rescheduled(self.now, record.path, self.now + group.delay))
        else:
            self._put(BodyStarted(self.now, record.path, frame.iteration + 1))

    # --- waits (rule 10) --------------------------------------------------------------------------------------------

    def _wake_by_signal(self, record: Record) -> None:
        wait = record.wait
        if record.stage is not Stage.WAITING or wait is None or wait.signal is None:
            return
        for signal in self.signals.get(record.path, ()):
            if signal.name == wait.signal:
                self._put(WaitEnded(self.now, record.path, "signal", signal.id))
                return

    def _apply_wait_ended(self, event: WaitEnded) -> None:
        record = self._get(event.path)
        self.timers.pop((event.path, "wait"), None)
        record.waits += 1
        name = record.wait.signal if record.wait else None
        record.wait = None
        if event.kind == "signal":
            waiting = self.signals[event.path]
            signal = next(signal for signal in waiting if signal.id == event.id)
            waiting.remove(signal)
            record.resumed = Resumed("signal", event.at, signal.name, signal.id, signal.payload, record.waits)
        else:
            record.resumed = Resumed(event.kind, event.at, name, count=record.waits)
        self._want_slot(record)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end_execution(self) -> None:
        root = self.root
        if self.ended is not None or root is None or root.unfinished or root.asking or self.children:
            return
        if root.verdict == "cancelled":
            self._put(ExecutionEnded(self.now, ExecutionStatus.CANCELLED))
        elif isinstance(root.verdict, Failure):
            self._put(ExecutionEnded(self.now, ExecutionStatus.FAILED, error=root.verdict))
        elif root.failed_at >= 0:
            first = root.records[root.failed_at]
            self._put(ExecutionEnded(self.now, ExecutionStatus.FAILED, error=first.error if first else None))
        else:
            self._put(ExecutionEnded(self.now, ExecutionStatus.SUCCEEDED, root.result))

    def _apply_ended(self, event: ExecutionEnded) -> None:
        self.ended = event
        self.finished_at = event.at
        self.timers.clear()

    def order(self, path: str) -> tuple[int, ...]:
        """The place of a path in document order; what stands around it comes before it."""
        record = self.find(path)
        if record is not None:
            return order_of(record)
        frame = self.frames.get(path)
        if frame is None or frame.owner is None:
            return ()
        return (*order_of(frame.owner), frame.iteration)

    # --- paths ------------------------------------------------------------------------------------------------------

    def find(self, path: str) -> Record | None:
        """The record at a path, where there is one by now."""
        outer, slash, name = path.rpartition("/")
        frame = self.frames.get(outer) if slash else self.root
        if frame is not None:
            index = frame.plan.index.get(name)
            return None if index is None else frame.records[index]
        owner = self.find(outer) if slash else None
        if owner is None or owner.items is None or not name.isdecimal() or int(name) >= len(owner.items):
            return None
        return owner.items[int(name)]

    def _get(self, path: str) -> Record:
        record = self.find(path)
        if record is None:
            raise KeyError(path)
        return record

    def _locate(self, path: str) -> tuple[Frame, int, Record | None]:
        """The frame and the node of a path, and for an item the record of its node."""
        outer, _, name = path.rpartition("/")
        frame = self.root if outer == "" else self.frames.get(outer)
        if frame is not None:
            return frame, frame.plan.index[name], None
        owner = self._get(outer)
        return owner.frame, owner.index, owner


_TIMER_KINDS: tuple[TimerKind, ...] = ("timeout", "wait", "retry", "delay")

_FACTS: Mapping[type[Any], Callable[[Machine, Any, Any], None]] = {
    ExecutionStarted: Machine._on_started,
    Evaluated: Machine._on_evaluated,
    AttemptSucceeded: Machine._on_succeeded,
    AttemptFailed: Machine._on_failed,
    AttemptWaited: Machine._on_waited,
    TimerFired: Machine._on_timer,
    SignalReceived: Machine._on_signal,
    CancelRequested: Machine._on_cancel,
    ChildEnded: Machine._on_child,
}
_DECISIONS: Mapping[type[Any], Callable[[Machine, Any], None]] = {
    NodeDue: Machine._apply_due,
    AttemptStarted: Machine._apply_attempt_started,
    Rescheduled: Machine._apply_rescheduled,
    WaitEnded: Machine._apply_wait_ended,
    BodyStarted: Machine._apply_body_started,
    NodeEnded: Machine._apply_node_ended,
    ExecutionEnded: Machine._apply_ended,
}


def _question_of(record: Record) -> Any:
    """`when` is asked first; `waits` is 1 once `for_each` is asked."""
    return "when" if record.node.when is not None and record.waits == 0 else "for_each"


def order_of(record: Record) -> tuple[int, ...]:
    """The place in document order: node, item, iteration, inner node, …"""
    key: tuple[int, ...] = (record.index, record.item)
    owner = record.frame.owner
    frame = record.frame
    while owner is not None:
        key = (owner.index, owner.item, frame.iteration, *key)
        frame = owner.frame
        owner = frame.owner
    return key


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


def _unfinished(owner: Record) -> list[Json]:
    """What the items of a list gave on ``main``, ``None`` where they have not finished."""
    done: list[Json] = [item.outputs.get("main") if item.outputs else None for item in owner.items or ()]
    return done + [None] * (len(owner.values or ()) - len(done))


def _origin(record: Record) -> str:
    """Where a failure began: the innermost path."""
    for item in record.items or ():
        if item.status is NodeStatus.FAILED and item.outputs is None:
            return _origin(item)
    data = record.error.data if record.frames is not None and record.error is not None else None
    return str(data["path"]) if isinstance(data, dict) else record.path


def _inner_ios(record: Record) -> Iterator[NodeIO]:
    yield record.to_node_io()
    for item in record.items or ():
        yield from _inner_ios(item)
    for frame in record.frames or ():
        for index, inner in enumerate(frame.records):
            if inner is not None:
                yield from _inner_ios(inner)
            else:
                node: Node = frame.plan.nodes[index]
                yield NodeIO(frame.prefix + node.id, node.id, node.type, NodeStatus.PENDING)


def _share(seed: int, path: str, number: int) -> float:
    """A number in [0, 1) that depends on nothing else: the jitter of a retry."""
    digest = hashlib.sha256(f"{seed}/{path}/{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
