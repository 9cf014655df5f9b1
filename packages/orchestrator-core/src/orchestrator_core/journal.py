"""The journal: the events of an execution, in order. The protocol, the one in memory, and events as JSON."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from orchestrator_core import codec, events
from orchestrator_core.errors import Conflict, OrchestratorError
from orchestrator_core.events import (
    EVENT_SCHEMA,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    ExecutionEnded,
    ExecutionStarted,
)
from orchestrator_core.types import Json

__all__ = ["Journal", "MemoryJournal", "event_from_json", "event_to_json"]


class Journal(Protocol):
    """Where the events of executions are kept.

    The order of a journal is the order of its appends; whoever appends says how many events it has seen, and under
    which fence. That is what keeps two workers apart.
    """

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        """Add events after the first ``expected_seq``; all or none. When it returns they are committed.

        Nothing to add is a question whether the events are still these; a journal that keeps fences apart from events
        moves them by it.

        Events identical to those that stand there already, under the same fence, count as success: the reply to an
        earlier append may have been lost.

        Raises:
            Conflict: Other events stand there, or a newer fence has written.
        """
        ...

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """The committed events from number ``after`` on, in order; none for an execution that is not known."""
        ...


_OTHER, _STARTED, _SUCCEEDED = range(3)


class _Events:
    """A list of events, the most frequent ones in columns.

    A journal keeps two events a node. As objects they would take twice the memory, and the garbage collector would
    walk them all whenever it looks at what is old.
    """

    __slots__ = ("_at", "_given", "_kinds", "_what")

    def __init__(self) -> None:
        self._kinds = bytearray()
        self._at = array("d")
        self._what: list[Any] = []  # the path, or the event itself
        self._given: list[dict[str, Json] | None] = []

    def __len__(self) -> int:
        return len(self._kinds)

    def extend(self, batch: Sequence[Event]) -> None:
        """Add events at the end."""
        kinds, at, what, given = self._kinds, self._at, self._what, self._given
        for event in batch:
            kind = type(event)
            if kind is AttemptStarted and event.number == 1:  # type: ignore[union-attr]  # its kind says so
                kinds.append(_STARTED)
                at.append(event.at)
                what.append(event.path)
                given.append(None)
            elif kind is AttemptSucceeded and event.number == 1 and not event.logs:  # type: ignore[union-attr]  # as above
                kinds.append(_SUCCEEDED)
                at.append(event.at)
                what.append(event.path)
                given.append(event.outputs)  # type: ignore[union-attr]  # as above
            else:
                kinds.append(_OTHER)
                at.append(event.at)
                what.append(event)
                given.append(None)

    def read(self, start: int, end: int | None = None) -> list[Event]:
        """The events from one number to before another."""
        return [self._event(number) for number in range(*slice(start, end).indices(len(self)))]

    def _event(self, number: int) -> Event:
        kind = self._kinds[number]
        if kind == _STARTED:
            return AttemptStarted(self._at[number], self._what[number], 1)
        if kind == _SUCCEEDED:
            return AttemptSucceeded(self._at[number], self._what[number], 1, self._given[number] or {})
        event: Event = self._what[number]
        return event


@attrs.define(eq=False)
class _Entry:
    events: _Events = attrs.field(factory=_Events)
    fence: int = 0
    ended: bool = False


class MemoryJournal:
    """A journal in memory. It keeps the executions that have not ended, and the latest ``keep`` that have."""

    def __init__(self, *, keep: int = 1000) -> None:
        self._keep = keep
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._ended: deque[tuple[str, str]] = deque()

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        """See :meth:`Journal.append`."""
        entry = self._entries.get((tenant, execution_id))
        if entry is None:
            entry = self._entries[tenant, execution_id] = _Entry()
        stored = entry.events
        if fence < entry.fence:
            raise Conflict(f"{execution_id}: fence {fence} is older than {entry.fence}: another worker has taken over")
        if expected_seq != len(stored):
            if fence == entry.fence and stored.read(expected_seq, expected_seq + len(batch)) == list(batch):
                return
            raise Conflict(f"{execution_id}: expected {expected_seq} events, there are {len(stored)}")
        entry.fence = fence
        stored.extend(batch)
        if batch and isinstance(batch[-1], ExecutionEnded) and not entry.ended:
            entry.ended = True
            self._ended.append((tenant, execution_id))
            if len(self._ended) > self._keep:
                del self._entries[self._ended.popleft()]

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """See :meth:`Journal.read`."""
        entry = self._entries.get((tenant, execution_id))
        return entry.events.read(after) if entry is not None else []


_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (*events.FACTS, *events.DECISIONS)}
_converter = codec.make_converter()


def event_to_json(event: Event) -> dict[str, Json]:
    """An event as a JSON object: its fields, its type under ``type``, the schema's number under ``schema``."""
    data: dict[str, Json] = codec.unstructure(event)
    if isinstance(event, ExecutionStarted):
        # They came later: an event that does not use them looks as it always has.
        for name in ("trace", "versions", "parent"):
            if not data[name]:
                del data[name]
    return {"type": type(event).__name__, "schema": EVENT_SCHEMA, **data}


def event_from_json(data: dict[str, Json]) -> Event:
    """The event of a JSON object.

    Raises:
        OrchestratorError: Its schema is newer than this version, or it is malformed.
    """
    fields = dict(data)
    kind = _TYPES.get(fields.pop("type", ""))
    if fields.pop("schema", None) != EVENT_SCHEMA or kind is None:
        raise OrchestratorError(f"an event of another version: {data.get('type')!r}, schema {data.get('schema')!r}")
    try:
        event: Event = _converter.structure(fields, kind)
    except Exception as error:
        raise OrchestratorError(f"a malformed event: {codec.faults_of(error)[0]}") from error
    return event
