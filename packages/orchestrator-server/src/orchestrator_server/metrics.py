"""Counts and durations of one process, as the text that Prometheus reads.

Everything that is counted stands in :data:`FAMILIES`. No label holds a tenant, an id or anything else from outside: their
values are words of this package, routes of its table, and names of installed node types.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Literal
from weakref import WeakKeyDictionary

import attrs

from orchestrator_core.driver import Driver
from orchestrator_core.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    AttemptWaited,
    Event,
    ExecutionEnded,
    NodeEnded,
    TimerFired,
)
from orchestrator_server.records import Backlog

__all__ = ["FAMILIES", "Family", "Metrics", "SlotOutcome"]

SlotOutcome = Literal["fired", "skipped", "missed", "failed"]
Source = Literal["api", "webhook", "retry", "trial", "schedule", "workflow", "error"]

_TIMES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@attrs.frozen
class Family:
    """One metric. ``bounds`` are the upper bounds of a histogram's buckets."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS: Final = Family(
    "orchestrator_http_requests_total", "counter", "Requests answered.", ("method", "route", "status")
)
REQUEST_SECONDS: Final = Family(
    "orchestrator_http_request_seconds",
    "histogram",
    "Time from a request's head to the end of its answer.",
    ("method", "route"),
    _TIMES,
)
IN_FLIGHT: Final = Family("orchestrator_http_requests_in_flight", "gauge", "Requests that are being answered.")
STREAMS: Final = Family("orchestrator_streams_open", "gauge", "Streams of events that are being followed.")
REFUSED: Final = Family(
    "orchestrator_webhooks_refused_total",
    "counter",
    "Webhook calls that were not let in: a wrong credential or signature, or one that had come before (replay).",
    ("reason",),
)
ACCEPTED: Final = Family(
    "orchestrator_executions_accepted_total", "counter", "Executions accepted by this process.", ("source",)
)
FINISHED: Final = Family(
    "orchestrator_executions_finished_total", "counter", "Executions that ended in this process.", ("status",)
)
HELD: Final = Family("orchestrator_executions_held", "gauge", "Executions that this process holds a lease of.")
ATTEMPTS: Final = Family(
    "orchestrator_attempt_seconds",
    "histogram",
    "Attempts, from their start to their end, by node type and outcome: succeeded, failed, waited, timeout, cancelled.",
    ("type", "outcome"),
    _TIMES,
)
EVENTS: Final = Family("orchestrator_events_appended_total", "counter", "Events that this process has committed.")
COMMIT_SIZE: Final = Family(
    "orchestrator_commit_jobs", "histogram", "Appends and writes that one commit of the writer takes.", (), _SIZES
)
COMMIT_SECONDS: Final = Family(
    "orchestrator_commit_seconds", "histogram", "Time of one commit of the writer, tries again included.", (), _TIMES
)
SLOTS: Final = Family(
    "orchestrator_schedule_slots_total",
    "counter",
    "Slots that this process has dealt with: fired, skipped (the one before still ran), missed (too long ago), "
    "failed (the workflow cannot run).",
    ("outcome",),
)
SLOT_DELAY: Final = Family(
    "orchestrator_schedule_delay_seconds", "histogram", "How late a slot was fired.", (), (*_TIMES, 120.0, 600.0)
)
DUE: Final = Family(
    "orchestrator_queue_due", "gauge", "Executions in the database that are due and that nobody holds; 10000 at most."
)
OLDEST: Final = Family(
    "orchestrator_queue_oldest_seconds", "gauge", "For how long the oldest of them has been due; 0: there is none."
)

FAMILIES: Final = (
    REQUESTS,
    REQUEST_SECONDS,
    IN_FLIGHT,
    STREAMS,
    REFUSED,
    ACCEPTED,
    FINISHED,
    HELD,
    ATTEMPTS,
    EVENTS,
    COMMIT_SIZE,
    COMMIT_SECONDS,
    SLOTS,
    SLOT_DELAY,
    DUE,
    OLDEST,
)


class _Counter:
    """A number for each combination of labels."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._values: dict[tuple[str, ...], float] = {}
        if not family.labels:
            self._values[()] = 0

    def add(self, *labels: str, by: float = 1) -> None:
        self._values[labels] = self._values.get(labels, 0) + by

    def put(self, value: float) -> None:
        self._values[()] = value

    def lines(self) -> Iterator[str]:
        for labels, value in sorted(self._values.items()):
            yield f"{self._family.name}{_braced(self._family.labels, labels)} {value:.12g}"


class _Histogram:
    """Counts by size for each combination of labels: one number a bucket, and the sum of all that was seen."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._values: dict[tuple[str, ...], list[float]] = {}
        if not family.labels:
            self._values[()] = self._empty()

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._family.bounds) + 2)

    def see(self, value: float, *labels: str) -> None:
        numbers = self._values.get(labels)
        if numbers is None:
            numbers = self._values[labels] = self._empty()
        numbers[bisect_left(self._family.bounds, value)] += 1
        numbers[-1] += value

    def lines(self) -> Iterator[str]:
        family = self._family
        for labels, numbers in sorted(self._values.items()):
            within = 0.0
            for bound, count in zip((*map(repr, family.bounds), "+Inf"), numbers, strict=False):
                within += count
                yield f"{family.name}_bucket{_braced((*family.labels, 'le'), (*labels, bound))} {within:.0f}"
            yield f"{family.name}_sum{_braced(family.labels, labels)} {numbers[-1]:.6f}"
            yield f"{family.name}_count{_braced(family.labels, labels)} {within:.0f}"


def _braced(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_OUTCOMES: Final = {AttemptSucceeded: "succeeded", AttemptFailed: "failed", AttemptWaited: "waited"}


class Metrics:
    """What has been counted since the start of this process.

    ``in_flight``, ``streams`` and ``held`` (how many executions the worker holds) are looked at when it is shown.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self.streams = 0
        self.held: Callable[[], int] = lambda: 0
        self._counters = {family.name: _Counter(family) for family in FAMILIES if family.kind != "histogram"}
        self._histograms = {family.name: _Histogram(family) for family in FAMILIES if family.kind == "histogram"}
        self._events = self._counters[EVENTS.name]
        self._attempts = self._histograms[ATTEMPTS.name]
        self._lock = threading.Lock()  # writers of storages have threads of their own
        # When the attempts began that run now, by path.
        self._begun: WeakKeyDictionary[Driver, dict[str, float]] = WeakKeyDictionary()
        self._looked = float("-inf")

    # --- what is told ---------------------------------------------------------------------------------------------------

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered. ``route`` is the table's path, not the request's."""
        self._counters[REQUESTS.name].add(method, route, str(status))
        self._histograms[REQUEST_SECONDS.name].see(seconds, method, route)

    def refused(self, reason: Literal["credential", "replay"]) -> None:
        """A webhook call was not let in."""
        self._counters[REFUSED.name].add(reason)

    def accepted(self, source: Source) -> None:
        """An execution was accepted; ``workflow``: as the child of another, ``error``: because another has failed."""
        self._counters[ACCEPTED.name].add(source)

    def slot(self, outcome: SlotOutcome, delay: float) -> None:
        """A slot was dealt with, so many seconds late."""
        self._counters[SLOTS.name].add(outcome)
        if outcome == "fired":
            self._histograms[SLOT_DELAY.name].see(max(0.0, delay))

    def commit(self, jobs: int, seconds: float) -> None:
        """A writer has committed. May be called from any thread."""
        with self._lock:
            self._histograms[COMMIT_SIZE.name].see(jobs)
            self._histograms[COMMIT_SECONDS.name].see(seconds)

    def committed(self, driver: Driver | None, batch: Sequence[Event]) -> None:
        """Events of an execution that is driven here were committed."""
        self._events.add(by=len(batch))
        if driver is None:
            return
        begun = self._begun.get(driver)
        if begun is None:
            begun = self._begun[driver] = {}
        for event in batch:
            kind = type(event)
            if kind is AttemptStarted:
                begun[event.path] = event.at
            elif (outcome := _OUTCOMES.get(kind)) is not None:
                self._attempt(driver, event, outcome, begun.pop(event.path, None))
            elif isinstance(event, ExecutionEnded):
                self._counters[FINISHED.name].add(event.status.value)
            elif event.path in begun and isinstance(event, NodeEnded):
                self._attempt(driver, event, "cancelled", begun.pop(event.path))
            elif event.path in begun and isinstance(event, TimerFired) and event.kind == "timeout":
                self._attempt(driver, event, "timeout", begun.pop(event.path))

    def _attempt(self, driver: Driver, event: Event, outcome: str, began: float | None) -> None:
        frame, index, record = driver.machine.locate(event.path)
        if began is None:
            # It began in another process: its record says when.
            record = record or frame.at(index)
            began = record.tried_at if record is not None else None
        self._attempts.see(0.0 if began is None else max(0.0, event.at - began), frame.plan.types[index], outcome)

    # --- what is shown --------------------------------------------------------------------------------------------------

    async def look(self, backlog: Callable[[], Awaitable[Backlog]], *, fresh: float = 5.0) -> None:
        """Ask for what is due in the database, unless that was done within the last ``fresh`` seconds."""
        now = time.monotonic()
        if now - self._looked < fresh:
            return
        self._looked = now
        found = await backlog()
        self._counters[DUE.name].put(found.due)
        self._counters[OLDEST.name].put(found.oldest)

    def render(self) -> str:
        """The text, version 0.0.4 of the format."""
        self._counters[IN_FLIGHT.name].put(self.in_flight)
        self._counters[STREAMS.name].put(self.streams)
        self._counters[HELD.name].put(self.held())
        lines: list[str] = []
        with self._lock:
            for family in FAMILIES:
                shown = self._histograms.get(family.name) or self._counters[family.name]
                lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}", *shown.lines()]
        return "\n".join(lines) + "\n"
