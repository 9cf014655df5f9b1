"""The journal: the events of an execution, in order. The protocol, the one in memory, and events as JSON."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from orchestrator_core import codec, events
from orchestrator_core.errors import Conflict, OrchestratorError
from orchestrator_core.events import EVENT_SCHEMA, Event
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

        Events identical to those that stand there already, under the same fence, count as success: the reply to an
        earlier append may have been lost.

        Raises:
            Conflict: Other events stand there, or a newer fence has written.
        """
        ...

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """The committed events from number ``after`` on, in order; none for an execution that is not known."""
        ...


@attrs.define(eq=False)
class _Entry:
    events: list[Event]
    fence: int = 0


class MemoryJournal:
    """A journal in memory. It keeps the latest executions, and forgets the oldest beyond ``keep``."""

    def __init__(self, *, keep: int = 1000) -> None:
        self._keep = keep
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def append(
        self, tenant: str, execution_id: str, expected_seq: int, fence: int, batch: Sequence[Event]
    ) -> None:
        """See :meth:`Journal.append`."""
        entry = self._entries.get((tenant, execution_id))
        if entry is None:
            entry = self._entries[tenant, execution_id] = _Entry([])
            while len(self._entries) > self._keep:
                self._entries.popitem(last=False)
        stored = entry.events
        if fence < entry.fence:
            raise Conflict(f"{execution_id}: fence {fence} is older than {entry.fence}: another worker has taken over")
        if expected_seq != len(stored):
            if fence == entry.fence and stored[expected_seq : expected_seq + len(batch)] == list(batch):
                return
            raise Conflict(f"{execution_id}: expected {expected_seq} events, there are {len(stored)}")
        entry.fence = fence
        stored.extend(batch)

    async def read(self, tenant: str, execution_id: str, after: int = 0) -> Sequence[Event]:
        """See :meth:`Journal.read`."""
        entry = self._entries.get((tenant, execution_id))
        return entry.events[after:] if entry is not None else []


_TYPES: dict[str, Any] = {kind.__name__: kind for kind in (*events.FACTS, *events.DECISIONS)}
_converter = codec.make_converter()


def event_to_json(event: Event) -> dict[str, Json]:
    """An event as a JSON object: its fields, its type under ``type``, the schema's number under ``schema``."""
    data: dict[str, Json] = codec.unstructure(event)
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
