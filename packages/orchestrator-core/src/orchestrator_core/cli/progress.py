"""How far an execution has come: a fold over its events, for people who look on. No clock, no output.

Every node of the plan has a row; those of a body stand under their group and show what ran last. An item of a
``for_each`` and an iteration of a loop are counted in the row of their node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Literal

import attrs

from orchestrator_core.cli.text import plural
from orchestrator_core.codec import format_duration, format_time
from orchestrator_core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    AttemptWaited,
    BodyStarted,
    CancelRequested,
    Evaluated,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeDue,
    NodeEnded,
    Rescheduled,
    SignalReceived,
    WaitEnded,
)
from orchestrator_core.graph import Plan
from orchestrator_core.types import ExecutionStatus, Failure, Json, LogLine, NodeStatus, Wait

__all__ = ["Happened", "Progress", "Row", "place_of", "ports_text", "wait_text"]

# Beyond so many items only every tenth part is told, and what failed.
_TOLD_ITEMS = 20

_REASONS = {
    "join": "nothing was delivered to it",
    "when": "its `when` is false",
    "pinned": "pinned",
    "disabled": "disabled: passes its input on",
    "lost": "a faster branch has won",
    "tainted": "something before it failed",
    "stopped": "the execution stops",
}

Kind = Literal["start", "again", "log", "wait", "info"] | NodeStatus


@attrs.frozen
class Happened:
    """One line for people: when, what kind, which path, and in words."""

    at: float
    kind: Kind
    path: str
    text: str


@attrs.define(eq=False)
class Row:
    """What is to be shown of one node of the plan."""

    place: str
    id: str
    type: str
    depth: int
    listed: bool = False
    group: str | None = None
    tries: int = 1
    handled: bool = False
    iterations: int | None = None
    stored: bool = False
    inner: list[Row] = attrs.field(factory=list)
    status: NodeStatus = NodeStatus.PENDING
    path: str = ""
    config: Mapping[str, Json] = attrs.field(factory=dict)
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    iteration: int | None = None
    items: int | None = None
    done: int = 0
    failed: int = 0
    waiting: int = 0
    wait: Wait | None = None
    due: float | None = None
    reason: str = ""
    error: Failure | None = None
    output: Json = None
    ports: tuple[str, ...] = ()  # all that it delivered on; none where that was main only
    live: dict[str, None] = attrs.field(factory=dict)  # the records of this node that run or wait, all of them
    times: int = 0  # how many of its records have ended

    def begin_anew(self, path: str) -> None:
        """Another record of the same node (the next iteration's, another item's body) is what is shown from now on."""
        self.path = path
        self.status = NodeStatus.PENDING
        self.attempt = self.done = self.failed = self.waiting = 0
        self.started_at = self.finished_at = self.iteration = self.items = self.wait = self.due = None
        self.reason, self.error, self.output, self.ports = "", None, None, ()

    def elapsed(self, now: float) -> float | None:
        """Seconds from its first attempt on, to its end or until now."""
        if self.started_at is None:
            return None
        return max((now if self.finished_at is None else self.finished_at) - self.started_at, 0.0)


class Progress:
    """Where every node of an execution stands.

    Attributes:
        rows: The rows of the plan in topological order (as the document has them, where that is free), inner ones
            after their group.
        counts: How many nodes of the outer graph have each status.
        active: Rows that run or wait now, the longest first.
        troubled: Rows that failed last time, the latest last, by place.
        happened: What has not been told yet; whoever tells it clears it.
        logs: The latest lines that nodes wrote, and the path of each.
        logged: How many they wrote in all.
        running: The row of each attempt that runs now, by path.
        leaving: Rows of which an attempt was cancelled while it ran: it may take its time to end.
        note: What is waited for when all is decided; whoever waits writes it.
        on_interrupt: What Ctrl-C does, in words.
        serial: Counts events.
    """

    def __init__(self, plan: Plan, *, keep_logs: int = 50) -> None:
        self.workflow = plan.workflow.id
        self.name = plan.workflow.name
        self.status = ExecutionStatus.RUNNING
        self.execution_id = ""
        self.started_at = 0.0
        self.finished_at: float | None = None
        self.error: Failure | None = None
        self.cancelling = False
        self.rows: list[Row] = []
        self.counts: Counter[NodeStatus] = Counter()
        self.active: dict[str, Row] = {}
        self.troubled: dict[str, Row] = {}
        self.happened: list[Happened] = []
        self.logs: list[tuple[str, LogLine]] = []
        self.logged = 0
        self.waits: dict[str, Wait] = {}
        self.running: dict[str, Row] = {}
        self.leaving: dict[str, Row] = {}
        self.note = ""
        self.on_interrupt = "cancels"
        self.serial = 0
        self._keep_logs = keep_logs
        self._delayed: set[str] = set()
        self._failing: dict[str, Failure] = {}
        self._begun: dict[str, float] = {}  # when attempts, items and bodies began
        self._woken: set[str] = set()
        self._timed = False  # a graph has a time-out: something will happen by itself
        self._by_place: dict[str, Row] = {}
        self._handlers: Mapping[type[Any], Callable[[Any], None]] = {
            ExecutionStarted: self._started,
            NodeDue: self._due,
            AttemptStarted: self._attempt_started,
            AttemptSucceeded: self._attempt_succeeded,
            AttemptFailed: self._attempt_failed,
            AttemptWaited: self._attempt_waited,
            WaitEnded: self._wait_ended,
            Rescheduled: self._rescheduled,
            BodyStarted: self._body_started,
            Evaluated: self._evaluated,
            NodeEnded: self._node_ended,
            SignalReceived: self._signal,
            CancelRequested: self._cancel,
            ExecutionEnded: self._ended,
        }
        self.rows.extend(self._read(plan, "", 0))
        self.size = len(plan.nodes)
        self.counts[NodeStatus.PENDING] = self.size

    def _read(self, plan: Plan, prefix: str, depth: int) -> Iterator[Row]:
        self._timed = self._timed or plan.workflow.settings.timeout is not None
        catching = {edge.source for edge in plan.workflow.edges if edge.port == "error"}
        for index in _order(plan):
            node = plan.nodes[index]
            row = Row(
                prefix + node.id,
                node.id,
                node.type,
                depth,
                listed=node.for_each is not None,
                tries=node.retry.attempts if node.retry else 1,
                handled=node.id in catching or node.on_error == "continue",
                path=prefix + node.id,
                config=node.config,
            )
            self._by_place[row.place] = row
            yield row
            group = plan.groups.get(index)
            if group is not None:
                row.group = group.kind
                row.stored = group.stored is not None
                row.iterations = (
                    group.max_iterations if isinstance(group.max_iterations, int) and group.kind == "loop" else None
                )
                if group.body is not None:
                    inner = list(self._read(group.body, f"{row.place}/", depth + 1))
                    row.inner = inner
                    yield from inner

    @property
    def stuck(self) -> bool:
        """Everything that is open waits for a signal, and nothing will come by itself: no expiry, no time-out, no retry."""
        return bool(
            self.waits
            and not self._timed
            and not self._delayed
            and all(wait.until is None and wait.expires is None for wait in self.waits.values())
        )

    @property
    def ended(self) -> int:
        """How many nodes of the outer graph have ended."""
        counts = self.counts
        return self.size - counts[NodeStatus.PENDING] - counts[NodeStatus.RUNNING] - counts[NodeStatus.WAITING]

    def row(self, path: str) -> Row | None:
        """The row in which a path is shown."""
        return self._by_place.get(place_of(path))

    # --- the fold ---------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        self.serial += 1
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _tell(self, at: float, kind: Kind, path: str, text: str) -> None:
        self.happened.append(Happened(at, kind, path, text))

    def _set(self, row: Row, status: NodeStatus) -> None:
        if row.status is status:
            return
        if row.depth == 0:
            self.counts[row.status] -= 1
            self.counts[status] += 1
        row.status = status
        if status in {NodeStatus.RUNNING, NodeStatus.WAITING}:
            self.active[row.place] = row
        else:
            self.active.pop(row.place, None)

    def _find(self, path: str) -> tuple[Row | None, bool]:
        """The row of a path, and whether the path is that of an item."""
        row = self.row(path)
        return row, row is not None and row.listed and path[path.rfind("/") + 1 :].isdecimal()

    def _started(self, event: ExecutionStarted) -> None:
        self.execution_id = event.execution_id
        self.started_at = event.at
        self._tell(event.at, "start", "", f"start ({event.execution_id})")

    def _due(self, event: NodeDue) -> None:
        row, item = self._find(event.path)
        if row is not None and not item:
            self._show_record(row, event.path)

    def _show_record(self, row: Row, path: str) -> None:
        """A row shows the record that began last; where another one is still under way, that stays."""
        if row.path != path and not row.live:
            self._begin_anew(row, path)

    def _begin_anew(self, row: Row, path: str) -> None:
        self._set(row, NodeStatus.PENDING)
        self.troubled.pop(row.place, None)
        row.begin_anew(path)

    def _attempt_started(self, event: AttemptStarted) -> None:
        row, item = self._find(event.path)
        if row is None:
            return
        self.running[event.path] = row
        self._begun.setdefault(event.path, event.at)
        self._delayed.discard(event.path)
        if not item:
            self._show_record(row, event.path)
        self._set(row, NodeStatus.RUNNING)
        row.started_at = event.at if row.started_at is None else row.started_at
        row.wait = row.due = None
        woken = event.path in self._woken
        self._woken.discard(event.path)
        if not item:
            row.live[event.path] = None
            row.attempt = event.number
            if not woken:
                text = "start" if event.number == 1 else f"attempt {event.number} of {row.tries}"
                self._tell(event.at, "start", event.path, text)

    def _attempt_succeeded(self, event: AttemptSucceeded) -> None:
        self._log(event.path, event.logs)
        self._end(event.path, NodeStatus.SUCCEEDED, event.at, outputs=event.outputs)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        self._log(event.path, event.logs)
        self.running.pop(event.path, None)
        self._failing[event.path] = event.error

    def _attempt_waited(self, event: AttemptWaited) -> None:
        self._log(event.path, event.logs)
        self.running.pop(event.path, None)
        row, item = self._find(event.path)
        self.waits[event.path] = event.wait
        if row is None:
            return
        row.wait = event.wait
        if item:
            row.waiting += 1
        else:
            self._set(row, NodeStatus.WAITING)
        if not item or row.waiting <= _TOLD_ITEMS:
            self._tell(event.at, "wait", event.path, f"waits {wait_text(event.wait, event.at)}")

    def _wait_ended(self, event: WaitEnded) -> None:
        self.waits.pop(event.path, None)
        self._woken.add(event.path)
        row, item = self._find(event.path)
        if row is not None and item:
            row.waiting -= 1
        why = {"time": "the time has come", "signal": "the signal came", "expired": "no signal came in time"}[
            event.kind
        ]
        if not item:
            self._tell(event.at, "again", event.path, f"goes on: {why}")

    def _rescheduled(self, event: Rescheduled) -> None:
        self._delayed.add(event.path)
        row, item = self._find(event.path)
        error = self._failing.pop(event.path, None)
        pause = format_duration(max(event.due - event.at, 0.0))
        if row is not None and not item:
            row.due, row.error = event.due, error
        if error is not None:
            number = error.attempt or (row.attempt if row else 0)
            self._tell(event.at, "again", event.path, f"attempt {number} failed, next in {pause}: {error.message}")

    def _body_started(self, event: BodyStarted) -> None:
        row, item = self._find(event.path)
        self._delayed.discard(event.path)
        self._begun.setdefault(event.path, event.at)
        if row is None:
            return
        if not item:
            self._show_record(row, event.path)
        self._set(row, NodeStatus.RUNNING)
        row.started_at = event.at if row.started_at is None else row.started_at
        row.due = None
        if not item:
            row.live[event.path] = None
            row.iteration = event.iteration if row.group == "loop" else None
        for inner in row.inner:
            if not inner.live:
                self._begin_anew(inner, inner.place)
        if row.group == "loop":
            most = "" if row.iterations is None else f" ({row.iterations:,} at most)"
            self._tell(event.at, "start", event.path, f"iteration {event.iteration}{most}")
        elif not item:
            self._tell(event.at, "start", event.path, "start, as a child execution" if row.stored else "start")

    def _evaluated(self, event: Evaluated) -> None:
        if event.question != "for_each" or event.error is not None:
            return
        row, _ = self._find(event.path)
        if row is not None and isinstance(event.value, list):
            self._show_record(row, event.path)
            row.items = len(event.value)
            row.started_at = event.at
            row.live[event.path] = None
            self._begun[event.path] = event.at
            self._set(row, NodeStatus.RUNNING)
            self._tell(event.at, "start", event.path, f"start: {plural(row.items, 'item')}")

    def _node_ended(self, event: NodeEnded) -> None:
        error = event.error or self._failing.get(event.path)
        self._end(event.path, event.status, event.at, outputs=event.outputs or {}, reason=event.reason, error=error)

    def _end(
        self,
        path: str,
        status: NodeStatus,
        at: float,
        *,
        outputs: Mapping[str, Json],
        reason: str = "",
        error: Failure | None = None,
    ) -> None:
        waited = self.waits.pop(path, None) is not None
        self._delayed.discard(path)
        self._failing.pop(path, None)
        self._woken.discard(path)
        begun = self._begun.pop(path, None)
        ran = self.running.pop(path, None)
        if ran is not None and status is NodeStatus.CANCELLED:
            self.leaving[ran.place] = ran
        row, item = self._find(path)
        if row is None:
            return
        row.waiting -= item and waited
        took = "" if begun is None else f" in {format_duration(at - begun)}"
        if item:
            self._item_ended(row, path, status, at, took=took, error=error)
            return
        row.times += 1
        row.live.pop(path, None)
        reason = _REASONS.get(reason, "")
        ports = () if error is not None else _ports(outputs)
        self._tell(at, status, path, _ending(row, status, took, reason=reason, error=error, ports=ports))
        if row.live:  # the same node of another item's body still runs: that one is shown
            row.path = next(iter(row.live))
            return
        if row.path != path:  # a body's node that ends without having been due
            self._begin_anew(row, path)
        self._set(row, status)
        row.finished_at = at
        row.wait = row.due = None
        row.reason, row.error, row.output, row.ports = reason, error, outputs.get("main"), ports
        if status is NodeStatus.FAILED:
            self.troubled[row.place] = row

    def _item_ended(
        self, row: Row, path: str, status: NodeStatus, at: float, *, took: str, error: Failure | None
    ) -> None:
        items = row.items or 0
        if status is NodeStatus.CANCELLED:
            if items <= _TOLD_ITEMS:
                self._tell(at, status, path, f"cancelled{took}")
            return
        row.done += 1
        row.failed += status is NodeStatus.FAILED
        if status is NodeStatus.FAILED:
            if row.failed <= _TOLD_ITEMS:
                self._tell(at, status, path, f"failed{took}: {_words(error)}")
        elif items <= _TOLD_ITEMS:
            self._tell(at, status, path, f"{status}{took}")
        elif row.done * 10 // items != (row.done - 1) * 10 // items and row.done < items:
            self._tell(at, "info", row.path, f"{row.done:,} of {items:,} items")

    def _signal(self, event: SignalReceived) -> None:
        self._tell(event.at, "info", event.path, f"the signal {event.name!r} came in")

    def _cancel(self, event: CancelRequested) -> None:
        if not event.path:
            self.cancelling = True
        self._tell(event.at, "info", event.path, "is being cancelled")

    def _ended(self, event: ExecutionEnded) -> None:
        self.status = event.status
        self.finished_at = event.at
        self.error = event.error

    def _log(self, path: str, lines: tuple[LogLine, ...]) -> None:
        for line in lines:
            self.logs.append((path, line))
            self.logged += 1
            self._tell(line.at, "log", path, f"{line.level}: {line.message}")
        if len(self.logs) > 2 * self._keep_logs:
            del self.logs[: -self._keep_logs]


def _words(error: Failure | None) -> str:
    return "no error was recorded" if error is None else f"{error.code}: {error.message}"


def _ending(
    row: Row, status: NodeStatus, took: str, *, reason: str, error: Failure | None, ports: tuple[str, ...]
) -> str:
    counted = "" if row.items is None else f", {plural(row.items, 'item')}"
    if status is NodeStatus.FAILED:
        handled = " (handled: the execution goes on)" if row.handled else ""
        return f"failed{took}: {_words(error)}{handled}"
    led = f", {ports_text(ports)}" if ports else ""
    return f"{status}{took}{counted}{led}{f' ({reason})' if reason else ''}"


def _ports(outputs: Mapping[str, Json]) -> tuple[str, ...]:
    """The ports that were delivered on, `main` first; none where there is nothing to say: `main` only."""
    others = [port for port in outputs if port != "main"]
    return () if not others else ("main", *others) if "main" in outputs else tuple(others)


def ports_text(ports: Sequence[str]) -> str:
    """``on port true``, ``on ports main and rejected``."""
    listed = " and ".join([", ".join(ports[:-1]), ports[-1]] if len(ports) > 1 else ports)
    return f"on {'port' if len(ports) == 1 else 'ports'} {listed}"


def wait_text(wait: Wait, now: float) -> str:
    """``for the signal 'approved'``, ``until 2027-01-01 09:00:00 UTC (in 3 s)``."""
    if wait.signal is not None:
        expiry = "" if wait.expires is None else f", for {format_duration(max(wait.expires - now, 0.0))} at most"
        return f"for the signal {wait.signal!r}{expiry}"
    if wait.until is None:
        return "for ever"
    moment = (format_time(wait.until) or "")[:19].replace("T", " ")
    return f"until {moment} UTC (in {format_duration(max(wait.until - now, 0.0))})"


def place_of(path: str) -> str:
    """A path without items and iterations: ids never begin with a digit."""
    if "/" not in path:
        return path
    return "/".join(part for part in path.split("/") if not part.isdecimal())


def _order(plan: Plan) -> list[int]:
    """The nodes in topological order; in the document's where there is a choice."""
    follow: list[list[int]] = [[] for _ in plan.nodes]
    missing = [0] * len(plan.nodes)
    for edge in plan.workflow.edges:
        source, target = plan.index.get(edge.source), plan.index.get(edge.target)
        if source is not None and target is not None:
            follow[source].append(target)
            missing[target] += 1
    free = [index for index, number in enumerate(missing) if number == 0]
    heapify(free)
    order = []
    while free:
        index = heappop(free)
        order.append(index)
        for target in follow[index]:
            missing[target] -= 1
            if missing[target] == 0:
                heappush(free, target)
    return order
