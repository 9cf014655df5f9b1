"""Events and outcomes as the text that stores keep, and back; large values apart.

A value of more than :data:`LARGE` bytes is taken out, stored once under the hash of its JSON, and named by *references*:
places beside the text, not marks inside it, so that no data can be mistaken for one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

import attrs

from orchestrator_core.events import (
    EVENT_SCHEMA,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    Event,
    ExecutionEnded,
    SignalReceived,
)
from orchestrator_core.journal import event_from_json, event_to_json
from orchestrator_core.types import Json
from orchestrator_server.records import Outcome

__all__ = [
    "LARGE",
    "Encoded",
    "Text",
    "decode_events",
    "decode_outcome",
    "encode_events",
    "encode_outcome",
    "event_to_json",
    "from_text",
    "to_text",
]

# Bytes of JSON text from which on a value is stored once, by reference.
LARGE = 256 * 1024

# One encoder kept: json.dumps with options makes a new one for each call, which costs as much as encoding does.
to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
from_text = json.loads


@attrs.frozen
class Text:
    """JSON text without its large values; ``refs`` is JSON (``None``: nothing was taken out), ``large`` what it names."""

    data: str
    refs: str | None = None
    large: tuple[tuple[str, str], ...] = ()  # hash, JSON text

    @property
    def whole(self) -> str:
        """The text with its large values put back."""
        large = dict(self.large)
        return to_text(_whole(self.data, self.refs, lambda _: large))

    @property
    def size(self) -> int:
        """Characters that a transaction has to carry."""
        return len(self.data) + sum(len(text) for _, text in self.large)

    @property
    def weight(self) -> int:
        """Bytes that it takes where it is kept, without its large values."""
        return len(self.data.encode())


@attrs.frozen
class Encoded:
    """A batch of events as a store needs it: the text, and what else the append does."""

    text: Text
    count: int
    ended: ExecutionEnded | None = None
    signals: tuple[str, ...] = ()  # the ids of those it consumes
    cancels: tuple[str, ...] = ()  # the paths whose cancels it consumes


def encode_events(batch: Sequence[Event]) -> Encoded:
    """The text of a batch. Later changes of payloads do not reach it."""
    ended: ExecutionEnded | None = None
    signals: list[str] = []
    cancels: list[str] = []
    parts: list[str] = []
    for event in batch:
        kind = type(event)
        if kind is AttemptStarted or kind is AttemptSucceeded:
            parts.append(_frequent(event))
            continue
        if isinstance(event, ExecutionEnded):
            ended = event
        elif isinstance(event, SignalReceived):
            signals.append(event.id)
        elif isinstance(event, CancelRequested):
            cancels.append(event.path)
        parts.append(to_text(event_to_json(event)))
    data = f"[{','.join(parts)}]"
    text = Text(data) if len(data) * 4 <= LARGE else _apart([event_to_json(event) for event in batch], data)
    return Encoded(text, len(batch), ended, tuple(signals), tuple(cancels))


def _frequent(event: Any) -> str:
    """What ``to_text(event_to_json(event))`` gives, for the two events of every step, at a third of the cost."""
    head = f'","schema":{EVENT_SCHEMA},"at":{float(event.at)!r},"path":{encode_basestring(event.path)},"number":{event.number}'
    if type(event) is AttemptStarted:
        return f'{{"type":"AttemptStarted{head}}}'
    if event.logs:
        return to_text(event_to_json(event))
    return f'{{"type":"AttemptSucceeded{head},"outputs":{to_text(event.outputs)},"logs":[]}}'


def decode_events(data: str, refs: str | None, load: Callable[[Iterable[str]], Mapping[str, str]]) -> list[Event]:
    """The events of a text; ``load`` gives the texts of the hashes that it is asked for."""
    return [event_from_json(item) for item in _whole(data, refs, load)]


def encode_outcome(ended: ExecutionEnded, nodes: Sequence[Json] | None) -> Text:
    """How an execution ended, as text."""
    value = {
        "output": ended.output,
        "error": None if ended.error is None else ended.error.to_json(),
        "nodes": None if nodes is None else list(nodes),
    }
    data = to_text(value)
    return Text(data) if len(data) * 4 <= LARGE else _apart(value, data)


def decode_outcome(data: str, refs: str | None, load: Callable[[Iterable[str]], Mapping[str, str]]) -> Outcome:
    """The outcome of a text."""
    value = _whole(data, refs, load)
    return Outcome(value["output"], value["error"], None if value["nodes"] is None else tuple(value["nodes"]))


# --- large values -----------------------------------------------------------------------------------------------------


def _apart(value: Any, data: str) -> Text:
    """Take out what is large, innermost first: the same document inside two wrappers is stored once."""
    if len(data.encode()) <= LARGE:
        return Text(data)
    refs: list[tuple[list[str | int], str]] = []
    large: dict[str, str] = {}
    left = _children(value, [], refs, large)
    return Text(to_text(left), to_text(refs) if refs else None, tuple(large.items()))


def _children(
    value: Any, place: list[str | int], refs: list[tuple[list[str | int], str]], large: dict[str, str]
) -> Any:
    if isinstance(value, dict):
        return {key: _small(item, [*place, key], refs, large) for key, item in value.items()}
    return [_small(item, [*place, index], refs, large) for index, item in enumerate(value)]


def _small(value: Any, place: list[str | int], refs: list[tuple[list[str | int], str]], large: dict[str, str]) -> Any:
    """The value where it is small; where large parts can be taken out of it, the rest; else ``None`` and a reference."""
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) * 4 < LARGE):
        return value
    text = to_text(value)
    if len(text.encode()) <= LARGE:
        return value
    envelope = len(place) == 1  # an event, or the list of node records: never a value itself
    if isinstance(value, dict | list):
        inner_refs: list[tuple[list[str | int], str]] = []
        inner_large: dict[str, str] = {}
        rest = _children(value, place, inner_refs, inner_large)
        if envelope or (inner_refs and len(to_text(rest).encode()) <= LARGE):
            refs += inner_refs
            large.update(inner_large)
            return rest
    digest = hashlib.sha256(text.encode()).hexdigest()
    large[digest] = text
    refs.append((place, digest))
    return None


def _whole(data: str, refs: str | None, load: Callable[[Iterable[str]], Mapping[str, str]]) -> Any:
    value = from_text(data)
    if refs is None:
        return value
    places = from_text(refs)
    texts = load(sorted({digest for _, digest in places}))
    for place, digest in places:
        target = value
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = from_text(texts[digest])
    return value
