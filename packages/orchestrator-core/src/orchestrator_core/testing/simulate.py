"""Running a machine in virtual time, without an engine: scripted attempts, a clock that jumps, crashes on demand."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import attrs

from orchestrator_core.commands import CancelChild, Command, Evaluate, RunAttempt, StartChild, StartTimer
from orchestrator_core.document import Workflow
from orchestrator_core.errors import IllegalEvent
from orchestrator_core.events import (
    AttemptFailed,
    AttemptSucceeded,
    AttemptWaited,
    CancelRequested,
    Evaluated,
    Event,
    ExecutionStarted,
    SignalReceived,
    TimerFired,
)
from orchestrator_core.expressions import (
    ABSENT,
    Code,
    ExpressionError,
    Names,
    NotNative,
    compile_template,
    read,
    truthy,
)
from orchestrator_core.graph import Plan, Traits, make_plan
from orchestrator_core.machine import Machine, order_of
from orchestrator_core.state import Record
from orchestrator_core.testing.mini import evaluate
from orchestrator_core.testing.script import action_of, next_entry, takes_an_entry
from orchestrator_core.types import Failure, Json, Pins, Result

__all__ = ["COMPLETION", "OUTSIDE", "TIMER", "Simulated", "describe", "simulate"]

_TRAITS = {
    "script": Traits(),
    "script-trigger": Traits(trigger=True),
    "loop": Traits(group="loop"),
    "workflow": Traits(group="workflow"),
}
Script = Mapping[str, Sequence[Mapping[str, Any]]]
Entries = Callable[[Record], Sequence[Mapping[str, Any]]]


def describe(type_name: str) -> Traits:
    """The traits of the node types that simulations know; every other type is taken for a leaf."""
    return _TRAITS.get(type_name, Traits())


@attrs.frozen
class Simulated:
    """What a simulation gave: the result, every edge, the journal, and figures about the attempts."""

    result: Result
    edges: Mapping[str, str]
    events: Sequence[Event]
    order: Sequence[str]
    max_running: int
    machine: Machine

    @property
    def outcome(self) -> Mapping[str, Any]:
        """What the law determines, which is status, output, error, edges, and each node's status, input, outputs and error."""
        return {
            "status": str(self.result.status),
            "output": self.result.output,
            "error": None if self.result.error is None else self.result.error.to_json(),
            "nodes": {
                io.path: {
                    "status": str(io.status),
                    "input": io.input,
                    "outputs": dict(io.outputs),
                    "error": None if io.error is None else io.error.to_json(),
                }
                for io in self.result.nodes
            },
            "edges": dict(self.edges),
        }


def simulate(
    workflow: Workflow,
    *,
    payload: Json = None,
    seed: int = 0,
    crashes: bool = False,
    start: str | None = None,
    pins: Pins | None = None,
    script: Script | None = None,
    happens: Sequence[Mapping[str, Any]] = (),
) -> Simulated:
    """Run a workflow of ``script`` nodes in virtual time.

    Args:
        workflow: Its leaves are of type ``script`` (or ``script-trigger``); what they do stands in ``script`` by path,
            or under the node's ``config.script``; without either they emit their input at once.
        payload, start, pins: What starts it.
        seed: Decides the jitter of retries, and where crashes happen.
        crashes: Throw the machine away now and then and go on from its journal, or from a snapshot.
        script: Path -> entries, as in case files.
        happens: Signals and cancels from outside, as in case files.
    """
    plan = make_plan(workflow, describe, start=start)
    run = _Run(plan, script or {}, crashes=random.Random(seed) if crashes else None)  # noqa: S311 - reproducible on purpose
    for happening in happens:
        run.outside(happening)
    run.feed(ExecutionStarted(0.0, "exe_simulated", payload, start, seed, pins or {}, workflow=workflow.id))
    run.loop()
    return run.simulated()


# The order of what happens at one time: outside, then completions in document order, then timers.
OUTSIDE, COMPLETION, TIMER = range(3)


class _Run:
    def __init__(self, plan: Plan, script: Script, *, crashes: random.Random | None) -> None:
        self.plan = plan
        self.script = script
        self.crashes = crashes
        self.machine = Machine(plan)
        self.events: list[Event] = []
        self.pending: list[tuple[float, int, tuple[int, ...], int, Event]] = []
        self.serial = 0
        self.runs: dict[str, int] = {}
        self.order: list[str] = []
        self.max_running = 0

    def outside(self, happening: Mapping[str, Any]) -> None:
        at = float(happening["at"])
        if "cancel" in happening:
            event: Event = CancelRequested(at, happening.get("path", ""))
        else:
            signal = happening["signal"]
            event = SignalReceived(at, signal["path"], signal["name"], signal["id"], signal.get("payload"))
        self.push(at, OUTSIDE, (), event)

    def push(self, at: float, kind: int, order: tuple[int, ...], event: Event) -> None:
        self.serial += 1
        heappush(self.pending, (at, kind, order, self.serial, event))

    def feed(self, event: Event) -> None:
        todo = [event]
        while todo:
            step = self.machine.receive(todo.pop(0))
            self.events += step.events
            self.max_running = max(self.max_running, self.machine.running)
            for command in step.commands:
                answer = self.carry_out(command)
                if answer is not None:
                    todo.append(answer)

    def loop(self) -> None:
        while self.pending and self.machine.ended is None:
            _, kind, _, _, event = heappop(self.pending)
            if kind == COMPLETION and not self.still_running(event):
                continue
            if kind == OUTSIDE and not self.taken(event):
                continue
            if kind != OUTSIDE:
                self.feed(event)
            if self.crashes is not None and self.crashes.random() < 0.3:
                self.crash(self.crashes)

    def taken(self, event: Event) -> bool:
        """Whoever signals or cancels what does not exist is refused, and nothing changes."""
        try:
            self.feed(event)
        except IllegalEvent:
            return False
        return True

    def still_running(self, event: Any) -> bool:
        record = self.machine.find(event.path)
        return record is not None and record.number == event.number

    def crash(self, chance: random.Random) -> None:
        """The machine is lost; a new one reads the journal (or a snapshot), and everything outstanding is done again."""
        if chance.random() < 0.5:
            self.machine = Machine.restore(self.plan, self.machine.snapshot())
        else:
            self.machine = Machine(self.plan)
            if self.machine.replay(self.events).events:
                raise AssertionError("a whole journal leaves nothing to decide")

    def carry_out(self, command: Command) -> Event | None:
        now = self.machine.now
        if isinstance(command, Evaluate):
            return self.answer(command, now)
        if isinstance(command, StartTimer):
            order = self.machine.order(command.path)
            self.push(command.due, TIMER, order, TimerFired(command.due, command.path, command.kind))
        elif isinstance(command, RunAttempt):
            self.attempt(command, now)
        elif isinstance(command, StartChild | CancelChild):
            raise ValueError(f"{command.path}: a simulation has no stored workflows, use an inline body")  # noqa: TRY004 - the document is at fault
        return None

    def attempt(self, command: RunAttempt, now: float) -> None:
        record = command.record
        run = self.runs.get(command.path, 0)
        self.runs[command.path] = run + takes_an_entry(record.resumed)
        if record.resumed is None:
            self.order.append(command.path)
        entries = self.script.get(command.path)
        if entries is None:
            entries = record.node.config.get("script", ())
        action = action_of(next_entry(entries, run, record.resumed, record.input), record.input)
        at = now + action.after
        event: Event
        if action.failure is not None:
            event = AttemptFailed(at, command.path, command.number, action.failure)
        elif action.wait is not None:
            event = AttemptWaited(at, command.path, command.number, action.wait_at(at))
        else:
            event = AttemptSucceeded(at, command.path, command.number, action.outputs or {})
        self.push(at, COMPLETION, order_of(record), event)

    def answer(self, command: Evaluate, now: float) -> Evaluated:
        names = Names(command.scope, self.machine.payload, {}, {"id": self.machine.execution_id})
        try:
            value = self.value(command.template, names)
        except ExpressionError as error:
            return Evaluated(now, command.path, command.question, error=Failure("expression", str(error)))
        if command.question in {"when", "until"}:
            value = truthy(value)
        elif command.question == "for_each" and not isinstance(value, list):
            failure = Failure("expression", f"for_each gave {value!r}, which is no list")
            return Evaluated(now, command.path, command.question, error=failure)
        return Evaluated(now, command.path, command.question, value)

    def value(self, template: Json, names: Names) -> Any:
        compiled = compile_template(template)
        return compiled.build([self.code(code, names) for code in compiled.codes])

    def code(self, code: Code, names: Names) -> Any:
        try:
            return read(code, names)
        except NotNative:
            data, undefined = names.data([code])
            try:
                return evaluate(code.source, data | dict.fromkeys(undefined, ABSENT))
            except ValueError as error:
                raise ExpressionError(str(error)) from None

    def simulated(self) -> Simulated:
        machine = self.machine
        return Simulated(machine.result(), machine.edges(), self.events, self.order, self.max_running, machine)
