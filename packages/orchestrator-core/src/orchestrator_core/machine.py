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

Which facts are lawful in which stage is the table :data:`~orchestrator_core.admission.TRANSITIONS`. A fact about an attempt that no longer runs, a
timer that is no longer wanted or a signal that was seen before is *stale*: it is dropped and leaves no event. What no
history can produce raises :class:`IllegalEvent` before anything has changed.

An edge settles exactly when its source ends: that is rule 2. A node is judged whenever an edge into it settles;
joins by number are judged last and in topological order, so that all deliveries of one event are in (rule 3).

The rules stand in modules of their own (see :mod:`orchestrator_core.fold`). Here are the interface, what each fact and
each decision does, the slots (rule 8), the waits (rule 10), and a short way for what most facts are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, ClassVar

import attrs

from orchestrator_core import snapshots
from orchestrator_core.admission import TRANSITIONS, admit
from orchestrator_core.bodies import apply_body_started, begin_body, child_command, frame_evaluated, frame_finished
from orchestrator_core.commands import CancelAttempt, CancelChild, Command, Evaluate, RunAttempt, StartTimer
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
from orchestrator_core.failures import (
    attempt_failed,
    close_root,
    end_execution,
    end_record,
    fail,
    frame_failed,
    let_go,
    put_if,
    shut,
    unfinished_items,
)
from orchestrator_core.fold import Fold, order_of
from orchestrator_core.graph import Plan
from orchestrator_core.joins import apply_node_due, count, enter, judge, judge_number, settle
from orchestrator_core.lists import add_item, apply_item_due, begin_items, item_ended
from orchestrator_core.state import DELIVERED, FUTURE, HERE, SKIPPED, TAINTED, UNSETTLED, Frame, Record, Stage
from orchestrator_core.types import ExecutionStatus, Failure, Json, NodeIO, NodeStatus, Result, Resumed

__all__ = ["TRANSITIONS", "Machine", "Step", "order_of"]

_ACTIVE, _ENDED, _QUEUED = Stage.ACTIVE, Stage.ENDED, Stage.QUEUED
_EDGE_WORDS = {UNSETTLED: "unsettled", DELIVERED: "delivered", SKIPPED: "skipped", TAINTED: "skipped"}


@attrs.define
class Step:
    """What one fact leads to: the events to write down (none, where it was stale) and the commands to carry out."""

    events: list[Event]
    commands: list[Command]


class Machine(Fold):
    """One execution of one plan. What it holds is described at :class:`~orchestrator_core.fold.Fold`."""

    # --- the interface ------------------------------------------------------------------------------------------

    @property
    def status(self) -> ExecutionStatus:
        """Where the execution stands; ``waiting``: nothing runs or wants to, only waits are open."""
        if self.ended is not None:
            return self.ended.status
        stages = {record.stage for record in self.root.live_records()} if self.root is not None else set()
        wanting = not stages.isdisjoint({Stage.ASKING, Stage.QUEUED, Stage.DELAYED}) or bool(self._asking_frames())
        if self.running or self.children or wanting:
            return ExecutionStatus.RUNNING
        return ExecutionStatus.WAITING if Stage.WAITING in stages else ExecutionStatus.RUNNING

    @property
    def still(self) -> bool:
        """Whether nothing runs, is queued or was asked, so that only times, signals and children can move it."""
        if self.running or self.ended is not None or self.root is None:
            return False
        if self._asking_frames():
            return False
        return {record.stage for record in self.root.live_records()}.isdisjoint({Stage.ASKING, Stage.QUEUED})

    def _asking_frames(self) -> list[Frame]:
        """The frames whose ``until`` or ``output`` is being evaluated; the execution's own is one of them."""
        frames = (self.root, *self.frames.values())
        return [frame for frame in frames if frame is not None and frame.asking]

    def receive(self, event: Event) -> Step:
        """Take in a fact.

        Raises:
            IllegalEvent: No history can produce it here; nothing has changed.
        """
        kind = type(event)
        if kind is AttemptSucceeded and (record := self._quick(event)) is not None:
            return self._succeed(event, record)  # type: ignore[arg-type]  # its kind says so
        handler = self._facts.get(kind)
        if handler is None:
            raise IllegalEvent(f"{kind.__name__} is a decision of the machine, it cannot be received")
        subject = admit(self, event, kind)
        if subject is None:
            return Step([], [])
        self.events = [event]
        self.commands = []
        self.step += 1
        self.now = event.at
        handler(self, event, subject)
        return self._finish_step()

    def _finish_step(self) -> Step:
        if self.work or self.todo or self.late or self.ending:
            self._decide()
        if self.wanting or self.queue:
            self._grant()
        commands = self.commands
        if self.asked > 1:
            commands = self._in_order(commands)
        self.asked = 0
        return Step(self.events, commands)

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
            if (fact := self._facts.get(kind)) is not None:
                self._settle_replayed()
                subject = admit(self, event, kind)
                if subject is None:
                    raise IllegalEvent(f"the journal holds a stale event: {event}")
                self.step += 1
                self.now = event.at
                fact(self, event, subject)
            else:
                self._apply_decision(event)
        events_: list[Event] = []
        self.events = events_
        self.commands = []
        self._decide()
        self._grant()
        return Step(events_, self.outstanding())

    def receive_left(self, event: Event, now: float) -> list[Event]:
        """Take in a signal or a cancel that was left at ``event.at``, while nobody drove the execution: after timers of before then.

        What no history can produce is dropped: whoever left it could not know. Nothing is to be done at once:
        :meth:`outstanding` says what is to be done after the last one.

        Returns:
            What came of it, all at the time ``now`` or later.
        """
        made: list[Event] = []
        while self.timers:
            (path, kind), due = min(self.timers.items(), key=lambda timer: timer[1])
            if due >= event.at:
                break
            made += self.receive(TimerFired(max(now, due), path, kind)).events
        with contextlib.suppress(IllegalEvent):
            made += self.receive(attrs.evolve(event, at=max(now, self.now))).events
        return made

    def outstanding(self) -> list[Command]:
        """Every command that has no answer yet: what a driver has to do after a restart."""
        commands: list[Command] = []
        if self.root is None or self.ended is not None:
            if self.children and self.root is not None:
                commands += [CancelChild(r.path) for r in self.root.live_records() if r.child]
            return commands
        for record in self.root.live_records():
            if record.stage is _ACTIVE:
                commands.append(RunAttempt(record.path, record.number, record))
            elif record.stage is Stage.ASKING:
                self.ask_record(record, commands)
            elif record.child:
                commands.append(child_command(record))
                if record.unwanted or record.stage is _ENDED:
                    # Whether the child was told is not in this journal, but in its own.
                    commands.append(CancelChild(record.path))
        commands += [self.ask_frame(frame) for frame in self._asking_frames()]
        commands += [StartTimer(path, kind, due) for (path, kind), due in self.timers.items()]
        return commands

    def has_timer(self, path: str, kind: TimerKind, due: float) -> bool:
        """Whether a timer is still wanted; a driver may forget it otherwise."""
        return self.timers.get((path, kind)) == due

    def node_ios(self) -> tuple[NodeIO, ...]:
        """Every record in document order. Nodes that are not due yet are pending."""
        return tuple(_node_ios(self.root)) if self.root is not None else ()

    def edges(self) -> dict[str, str]:
        """Every edge of the plan and of the bodies that began: ``delivered``, ``skipped`` or ``unsettled``."""
        frames = [self.root, *self.frames.values()] if self.root is not None else []
        return {
            f"{frame.prefix}{edge}": _EDGE_WORDS[frame.edge(number)]
            for frame in frames
            for number, edge in enumerate(frame.plan.edges)
        }

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
        for record in machine.root.live_records() if machine.root is not None else ():
            if record.stage is _QUEUED:
                heappush(machine.queue, (record.rank_step, order_of(record), record))
        return machine

    # --- steps ------------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Decide what is to be decided, to a fixed point."""
        work, todo, late = self.work, self.todo, self.late
        while True:
            if work:
                frame, index = work.popleft()
                judge(self, frame, index)
            elif todo:
                decide, arguments = todo.popleft()
                decide(self, *arguments)
            elif late:
                _, _, _, index, frame = heappop(late)
                judge_number(self, frame, index)
            elif self.ending:
                self.ending = False
                end_execution(self)
            else:
                return

    def _settle_replayed(self) -> None:
        """End a replayed step: its decisions stand in the journal, nothing is decided again."""
        self.work.clear()
        self.todo.clear()
        self.ending = False
        for _, _, _, index, frame in self.late:
            if frame.known[index] == FUTURE:
                count(frame, index)
        self.late.clear()
        for record in self.wanting:
            if record.stage is _QUEUED:
                heappush(self.queue, (record.rank_step, order_of(record), record))
        self.wanting.clear()
        self.told = 0

    def _apply_decision(self, event: Event) -> None:
        apply = self.decisions.get(type(event))
        if apply is None or self.root is None:
            raise IllegalEvent(f"{type(event).__name__} cannot stand here in a journal")
        try:
            apply(self, event)
        except (KeyError, IndexError, AttributeError) as error:
            raise IllegalEvent(f"the journal contradicts itself at {event}") from error

    # --- the short way: what most facts are -------------------------------------------------------------------------

    def _quick(self, event: Any) -> Record | None:
        """The record of an attempt whose success needs nothing but :meth:`_succeed`; ``None``: the long way."""
        root, plan = self.root, self.plan
        index = plan.index.get(event.path)
        if index is None or root is None or not plan.smooth[index] or event.at < self.now:
            return None
        record = root.records[index]
        if record is None or not record.quick or record.stage is not _ACTIVE or event.number != record.number:
            return None
        if event.logs or "main" not in event.outputs or root.failed_at >= 0 or root.closed or self.pins:
            return None
        return record

    def _succeed(self, event: AttemptSucceeded, record: Record) -> Step:
        """A quick record succeeds: what ``_on_succeeded``, ``settle``, ``judge`` and ``_grant`` do, in one.

        As soon as something less simple follows, they take over.
        """
        root, plan = record.frame, self.plan
        outputs = event.outputs
        events: list[Event] = [event]
        commands: list[Command] = []
        self.events, self.commands = events, commands
        self.step = step = self.step + 1
        self.now = now = event.at
        self.running -= 1
        record.stage = _ENDED
        root.outputs[record.index] = outputs
        root.keep(record, now, step)
        left, targets = root.left, plan.targets
        due: list[int] = []
        for number in plan.leaving[record.index]:
            target = targets[number]
            left[target] = rest = left[target] - 1
            if rest == 0:
                due.append(target)
        root.unfinished -= 1
        if root.unfinished == 0:
            frame_finished(self, root)
            return self._finish_step()
        if self.queue or not self._is_easy(root, due):
            self.work.extend([(root, target) for target in due])
            return self._finish_step()
        if len(due) > 1:
            due.sort()
        known, records, given = root.known, root.records, root.outputs
        keys, sources, ports = plan.keys, plan.sources, plan.ports
        for target in due:
            edges = plan.ins[target]
            fresh = Record(root, target, plan.names[target], now, step)
            fresh.stage = _ACTIVE
            if len(edges) == 1:
                fresh.input = outputs["main"]
            else:  # all were delivered: gather() would look for those that were not
                fresh.input = {keys[number]: given[sources[number]][ports[number]] for number in edges}  # type: ignore[index]  # delivered
            fresh.number = 1
            fresh.tried_at = fresh.started_at = now
            fresh.quick = True
            known[target] = HERE
            records[target] = fresh
            events.append(AttemptStarted(now, fresh.path, 1))
            commands.append(RunAttempt(fresh.path, 1, fresh))
        self.running += len(due)
        return Step(events, commands)

    def _is_easy(self, frame: Frame, due: list[int]) -> bool:
        """Whether nothing stands between these nodes, whose edges have all settled, and their first attempt."""
        if self.limit is not None and self.running + len(due) > self.limit:
            return False
        quick, missed = self.plan.quick, frame.missed
        for target in due:  # noqa: SIM110 - a generator costs more than the loop has to do
            if not quick[target] or (missed and target in missed):
                return False
        return True

    # --- slots (rule 8) ---------------------------------------------------------------------------------------------

    def _grant(self) -> None:
        """Give out free slots: first due first, then document order."""
        wanting, queue, limit = self.wanting, self.queue, self.limit
        if wanting and not queue and (limit is None or self.running + len(wanting) <= limit):
            if len(wanting) > 1:
                wanting.sort(key=order_of)
            for record in wanting:
                if record.stage is _QUEUED:
                    self._start(record)
            wanting.clear()
            self.told = 0
            return
        for record in wanting:
            heappush(queue, (record.rank_step, order_of(record), record))
        while queue and (limit is None or self.running < limit):
            rank, _, record = heappop(queue)
            if record.stage is _QUEUED and record.rank_step == rank:
                self._start(record)
        # In document order, whatever order they were judged in: a replay may judge in another.
        for record in sorted(wanting, key=order_of):
            if record.stage is _QUEUED and record.number == 0 and not record.announced and self.is_plain(record):
                self.events.append(NodeDue(self.now, record.path))
        wanting.clear()
        self.told = 0

    def _start(self, record: Record) -> None:
        number = record.number if record.resumed is not None else record.number + 1
        self.events.append(AttemptStarted(self.now, record.path, number))
        self._start_record(record, number, self.now)

    def _apply_attempt_started(self, event: AttemptStarted) -> None:
        if self.find(event.path) is None:
            frame, index, _ = self.locate(event.path)
            if frame.plan.joins[index] > 0 and frame.plan.ins[index]:
                count(frame, index)
            apply_node_due(self, frame, index, event.path)
        self._start_record(self.get(event.path), event.number, event.at)

    def _start_record(self, record: Record, number: int, at: float) -> None:
        record.stage = _ACTIVE
        record.number = number
        if record.tried_at is None:
            record.tried_at = at
            record.begin(at)
        self.running += 1
        timeout = record.frame.plan.nodes[record.index].timeout
        if timeout is not None:
            self.start_timer(record.path, "timeout", at + timeout)
        self.commands.append(RunAttempt(record.path, number, record))

    # --- facts ------------------------------------------------------------------------------------------------------

    def _on_started(self, event: ExecutionStarted, _: Fold) -> None:
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
            self.start_timer("", "timeout", event.at + timeout)
        self.work.extend((root, index) for index in self.plan.roots)

    def _on_succeeded(self, event: AttemptSucceeded, record: Record) -> None:
        self.running -= 1
        if self.timers:
            self.timers.pop((record.path, "timeout"), None)
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
            record.quick = False
        record.stage = _ENDED
        record.status = NodeStatus.SUCCEEDED
        record.outputs = event.outputs
        record.ended_step = self.step
        record.finished_at = event.at
        if record.item >= 0:
            item_ended(self, record)
            return
        if record.quick:
            record.frame.keep(record, event.at, self.step)
        settle(self, record.frame, record.index, event.outputs, SKIPPED)

    def _on_failed(self, event: AttemptFailed, record: Record) -> None:
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
        attempt_failed(self, record, event.error, event.at)

    def _on_waited(self, event: AttemptWaited, record: Record) -> None:
        if event.logs:
            record.logs = [*(record.logs or ()), *event.logs]
        self.running -= 1
        self.timers.pop((record.path, "timeout"), None)
        record.stage = Stage.WAITING
        record.wait = event.wait
        record.quick = False
        due = event.wait.until if event.wait.signal is None else event.wait.expires
        if due is not None:
            self.start_timer(record.path, "wait", due)
        if event.wait.signal is not None:
            self.later(_wake_by_signal, record)

    def _on_timer(self, event: TimerFired, subject: Any) -> None:
        del self.timers[event.path, event.kind]
        if isinstance(subject, Fold):
            close_root(self, Failure("timeout", f"the execution took longer than {_timeout_of(self.plan)} s"))
        elif isinstance(subject, Frame):
            message = f"the body took longer than {_timeout_of(subject.plan)} s"
            self.later(fail, subject.owner, Failure("timeout", message, data={"path": event.path}))
        elif event.kind == "timeout":
            self.commands.append(CancelAttempt(subject.path, subject.number))
            message = f"the attempt took longer than {subject.node.timeout:g} s"
            attempt_failed(self, subject, Failure("timeout", message, retryable=True), event.at)
        elif event.kind == "wait":
            kind: Any = "time" if subject.wait.signal is None else "expired"
            self.later(put_if, subject, Stage.WAITING, WaitEnded(event.at, event.path, kind))
        elif event.kind == "retry":
            self.want_slot(subject)
        else:
            self.later(begin_body, subject, subject.body.iteration + 1)

    def _on_signal(self, event: SignalReceived, _: Fold) -> None:
        self.seen.add(event.id)
        self.signals.setdefault(event.path, []).append(event)
        record = self.find(event.path)
        if record is not None:
            self.later(_wake_by_signal, record)

    def _on_cancel(self, event: CancelRequested, subject: Any) -> None:
        if isinstance(subject, Fold):
            close_root(self, "cancelled")
        elif subject.child:
            subject.unwanted = True
            self.commands.append(CancelChild(event.path))
        else:
            data = None if subject.values is None else {"items": unfinished_items(subject)}
            self.later(fail, subject, Failure("cancelled", "the group was cancelled", data=data))

    def _on_child(self, event: ChildEnded, record: Record) -> None:
        record.child = False
        self.children -= 1
        if record.stage is _ENDED:
            self.end_soon()
        elif event.status is ExecutionStatus.SUCCEEDED:
            self.later(end_record, record, NodeStatus.SUCCEEDED, "completed", {"main": event.output})
        elif event.status is ExecutionStatus.CANCELLED:
            self.later(fail, record, Failure("cancelled", "the child execution was cancelled"))
        else:
            inner = event.error or Failure("error", "the child execution failed")
            data = {"path": inner.node} if inner.node else None
            self.later(fail, record, Failure(inner.code, inner.message, data=data))

    def _on_evaluated(self, event: Evaluated, subject: Any) -> None:
        if isinstance(subject, Frame):
            frame_evaluated(self, event, subject)
            return
        record: Record = subject
        record.stage = Stage.OPEN
        if event.error is not None:
            self.later(fail, record, event.error)
        elif event.question == "when":
            if event.value:
                enter(self, record)
            else:
                self.later(end_record, record, NodeStatus.SKIPPED, "when")
        else:
            record.waits = 0
            record.values = event.value
            record.items = []
            record.unfinished = len(event.value)
            self.later(begin_items, record)

    # --- decisions --------------------------------------------------------------------------------------------------

    def _apply_due(self, event: NodeDue) -> None:
        if self.find(event.path) is not None:
            return  # it was, and now waits for a slot
        frame, index, owner = self.locate(event.path)
        if owner is not None:
            apply_item_due(self, owner, event.path)
            return
        if frame.plan.joins[index] > 0 and frame.plan.ins[index]:
            count(frame, index)
        apply_node_due(self, frame, index, event.path)
        record = self.get(event.path)
        if self.is_plain(record):
            # Only what had to wait for a slot is announced.
            self.wanting.remove(record)
            record.announced = True
            heappush(self.queue, (record.rank_step, order_of(record), record))

    def _apply_rescheduled(self, event: Rescheduled) -> None:
        record = self.get(event.path)
        kind: TimerKind = "delay" if record.stage is Stage.OPEN else "retry"
        if event.due > event.at or kind == "delay":
            self.start_timer(event.path, kind, event.due)
        else:
            self.want_slot(record)

    def _apply_wait_ended(self, event: WaitEnded) -> None:
        record = self.get(event.path)
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
        self.want_slot(record)

    def _apply_node_ended(self, event: NodeEnded) -> None:
        record = self.find(event.path)
        if record is None:
            record = self._record_undue(event.path)
        if record.stage is _ENDED:
            raise IllegalEvent(f"{event.path!r} has ended already")
        let_go(self, record)
        record.stage = _ENDED
        record.status = event.status
        record.outputs = event.outputs
        record.error = event.error
        record.ended_step = self.step
        record.finished_at = event.at if record.step >= 0 else None
        if record.item >= 0:
            item_ended(self, record)
            return
        frame = record.frame
        unhandled = event.status is NodeStatus.FAILED and event.outputs is None
        if unhandled:
            frame.failed_at = record.index if frame.failed_at < 0 else min(frame.failed_at, record.index)
            if not self.drain:
                shut(self, frame)
                self.later(frame_failed, frame)
        skipped = TAINTED if (unhandled and self.drain) or event.reason == "tainted" else SKIPPED
        settle(self, frame, record.index, event.outputs, skipped)

    def _record_undue(self, path: str) -> Record:
        """The record of what ends without ever having been due."""
        frame, index, owner = self.locate(path)
        record = Record(frame, index, path, self.now, -1)
        if owner is None:
            frame.add(record)
        else:
            add_item(owner, record)
            record.input = record.scope().item
        return record

    def _apply_ended(self, event: ExecutionEnded) -> None:
        self.ended = event
        self.finished_at = event.at
        self.timers.clear()

    decisions: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        NodeDue: _apply_due,
        AttemptStarted: _apply_attempt_started,
        Rescheduled: _apply_rescheduled,
        WaitEnded: _apply_wait_ended,
        BodyStarted: apply_body_started,
        NodeEnded: _apply_node_ended,
        ExecutionEnded: _apply_ended,
    }
    _facts: ClassVar[Mapping[type[Any], Callable[[Any, Any, Any], None]]] = {
        ExecutionStarted: _on_started,
        Evaluated: _on_evaluated,
        AttemptSucceeded: _on_succeeded,
        AttemptFailed: _on_failed,
        AttemptWaited: _on_waited,
        TimerFired: _on_timer,
        SignalReceived: _on_signal,
        CancelRequested: _on_cancel,
        ChildEnded: _on_child,
    }


def _wake_by_signal(fold: Fold, record: Record) -> None:
    """Rule 10: the first signal that fits wakes a waiting record."""
    wait = record.wait
    if record.stage is not Stage.WAITING or wait is None or wait.signal is None:
        return
    for signal in fold.signals.get(record.path, ()):
        if signal.name == wait.signal:
            fold.put(WaitEnded(fold.now, record.path, "signal", signal.id))
            return


def _timeout_of(plan: Plan) -> str:
    return f"{plan.workflow.settings.timeout:g}"


def _node_ios(frame: Frame) -> list[NodeIO]:
    ios: list[NodeIO] = []
    for index, record in enumerate(frame.records):
        ios.append(frame.node_io(index))
        if record is not None and (record.items is not None or record.frames is not None):
            ios += _inner_ios(record)
    return ios


def _inner_ios(record: Record) -> Iterator[NodeIO]:
    for item in record.items or ():
        yield item.to_node_io()
        yield from _inner_ios(item)
    for frame in record.frames or ():
        yield from _node_ios(frame)
