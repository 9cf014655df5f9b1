"""What an execution is to the machine between two events: its state, and the moves that several rules share.

The rules stand in modules of their own, as functions over a :class:`Fold`: ``failures`` (rule 9), ``bodies`` (rule 7),
``joins`` (rules 2 to 5), ``lists`` (rule 6), ``admission`` (which facts are lawful, rule 12). Each uses only those named
before it. Where one would need a later one it makes an event instead, whose application is looked up in a table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from orchestrator_core.commands import Command, Evaluate, StartTimer
from orchestrator_core.errors import IllegalEvent
from orchestrator_core.events import Event, ExecutionEnded, NodeDue, NodeEnded, SignalReceived, TimerKind
from orchestrator_core.graph import Group, Plan
from orchestrator_core.state import Frame, Record, Scope, Stage
from orchestrator_core.types import Json, NodeStatus, Pins

__all__ = ["Fold", "order_of", "question_of"]

_BREAKING = frozenset({NodeStatus.FAILED, NodeStatus.CANCELLED})


class Fold:
    """The state of one execution of one plan.

    Attributes:
        plan: The graph.
        now: The time of the latest event.
        step: How many facts were taken in.
        root, frames: The execution's own frame, and those of the bodies by their path.
        timers: (path, kind) -> when it is due.
        signals, seen: Signals that were not consumed yet by path, and the ids of all.
        running: The slots that are held.
        children: Child executions that run.
    """

    # How each kind of decision is applied; the machine fills it in.
    decisions: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {}

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
        self.limit = plan.workflow.settings.max_parallel
        self.drain = plan.workflow.settings.failure == "drain"
        # What the current step has led to so far.
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self.asked = 0
        # What is still to be decided in it: nodes to be judged; joins by number, a heap (inner graphs first, then
        # upstream first); everything else.
        self.work: deque[tuple[Frame, int]] = deque()
        self.late: list[tuple[int, int, int, int, Frame]] = []
        self.serial = 0
        self.todo: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self.ending = False  # the execution may be over, once all else is decided
        # Records that want a slot since this event, and (a heap) since an earlier one.
        self.wanting: list[Record] = []
        self.told = 0  # of those, how many were announced when something broke
        self.queue: list[tuple[int, tuple[int, ...], Record]] = []

    # --- moves ------------------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Write down a decision and apply it."""
        if type(event) is NodeEnded and event.status in _BREAKING and len(self.wanting) > self.told:
            # What follows may end others that became due by the same fact: a journal cut here must know that they were.
            for record in sorted(self.wanting[self.told :], key=order_of):
                self.announce(record)
            self.told = len(self.wanting)
        self.events.append(event)
        self.decisions[type(event)](self, event)

    def announce(self, record: Record) -> None:
        """Say that a node was due whose start will not tell so, or not in time."""
        if record.stage is Stage.QUEUED and record.step == self.step and not record.announced and self.is_plain(record):
            record.announced = True
            self.events.append(NodeDue(self.now, record.path))

    def later(self, decide: Callable[..., None], *arguments: Any) -> None:
        """Have ``decide(fold, *arguments)`` called before the step ends. A replay does not: the decision is an event."""
        self.todo.append((decide, arguments))

    def end_soon(self) -> None:
        """Have the end of the execution decided, last of all: nothing follows it."""
        self.ending = True

    def start_timer(self, path: str, kind: TimerKind, due: float) -> None:
        """Ask for a timer."""
        self.timers[path, kind] = due
        self.commands.append(StartTimer(path, kind, due))

    def want_slot(self, record: Record) -> None:
        """Let a record wait for a slot."""
        record.stage = Stage.QUEUED
        # An item is due when it gets its place, a retry or a waking when its time has come.
        record.rank_step = self.step if record.number or record.item >= 0 else record.step
        self.wanting.append(record)

    def ask_record(self, record: Record, commands: list[Command]) -> None:
        """Ask for a node's ``when`` or ``for_each``."""
        self.asked += 1
        question = question_of(record)
        template = record.node.when if question == "when" else record.node.for_each
        commands.append(Evaluate(record.path, question, template, record.scope()))

    def ask_frame(self, frame: Frame) -> Evaluate:
        """The question that a frame is asking: ``until`` or ``output``."""
        self.asked += 1
        if frame.asking == "until":
            scope = Scope(frame, self.step, frame.result, {"main": frame.result}, frame.item, frame.number)
            return Evaluate(frame.path, "until", group_of(frame).until, scope)
        scope = Scope(frame, self.step, frame.input, {"main": frame.input}, frame.item, frame.number)
        return Evaluate(frame.path, "output", frame.plan.workflow.output, scope)

    def is_plain(self, record: Record) -> bool:
        """Whether the start of its attempt, or its waiting for a slot, is what tells that the record was due."""
        return record.item < 0 and not self.pins and bool(record.frame.plan.plain[record.index])

    # --- paths ------------------------------------------------------------------------------------------------------

    def find(self, path: str) -> Record | None:
        """The record at a path, where there is one by now."""
        outer, slash, name = path.rpartition("/")
        frame = self.frames.get(outer) if slash else self.root
        if frame is not None:
            index = frame.plan.index.get(name)
            return None if index is None else frame.at(index)
        owner = self.find(outer) if slash else None
        if owner is None or owner.items is None or not name.isdecimal() or int(name) >= len(owner.items):
            return None
        return owner.items[int(name)]

    def get(self, path: str) -> Record:
        """The record at a path.

        Raises:
            KeyError: There is none.
        """
        record = self.find(path)
        if record is None:
            raise KeyError(path)
        return record

    def locate(self, path: str) -> tuple[Frame, int, Record | None]:
        """The frame and the node of a path, and for an item the record of its node.

        Raises:
            KeyError: There is no such place.
        """
        outer, _, name = path.rpartition("/")
        frame = self.root if outer == "" else self.frames.get(outer)
        if frame is not None:
            return frame, frame.plan.index[name], None
        owner = self.get(outer)
        return owner.frame, owner.index, owner

    def order(self, path: str) -> tuple[int, ...]:
        """The place of a path in document order; what stands around it comes before it."""
        record = self.find(path)
        if record is not None:
            return order_of(record)
        frame = self.frames.get(path)
        if frame is None or frame.owner is None:
            return ()
        return (*order_of(frame.owner), frame.iteration)


def question_of(record: Record) -> Any:
    """``when`` is asked first; ``waits`` is 1 once ``for_each`` is asked."""
    return "when" if record.node.when is not None and record.waits == 0 else "for_each"


def order_of(record: Record) -> tuple[int, ...]:
    """The place in document order: node, item, iteration, inner node, and so on."""
    key: tuple[int, ...] = (record.index, record.item)
    frame = record.frame
    owner = frame.owner
    while owner is not None:
        key = (owner.index, owner.item, frame.iteration, *key)
        frame = owner.frame
        owner = frame.owner
    return key


def group_of(frame: Frame) -> Group:
    """The group whose body a frame is."""
    owner = frame.owner
    if owner is None:
        raise IllegalEvent("the execution itself is no group")
    return owner.frame.plan.groups[owner.index]
