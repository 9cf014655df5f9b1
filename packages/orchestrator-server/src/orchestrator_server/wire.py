"""Events and outcomes as the text that stores keep, and back; large values apart.

A value of more than :data:`LARGE` bytes is taken out, stored once under the hash of its JSON, and named by *references*:
places beside the text, not marks inside it, so that no data can be mistaken for one.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

import attrs

from orchestrator_core.codec import format_time
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
from orchestrator_core.results import node_io_to_json
from orchestrator_core.types import Json, NodeIO
from orchestrator_server.records import Outcome

__all__ = [
    "LARGE",
    "Encoded",
    "Text",
    "decode_events",
    "decode_outcome",
    "encode_events",
    "event_to_json",
    "from_text",
    "to_text",
]

# Bytes of JSON text from which on a value is stored once, by reference.
LARGE = 256 * 1024

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def _kept_encoder() -> Callable[[Any], str]:
    """What ``_encoder.encode`` does, without making a new encoder of C for each call, which costs as much as a small value."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)  # not there without the accelerator
    if make is None:
        return _encoder.encode
    chunks = make(None, _encoder.default, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


to_text = _kept_encoder()
from_text = json.loads

_Texts = dict[int, str]  # the texts of lists and objects by their identity, for as long as something else holds them


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
    outcome: Text | None = None  # there where it has ended
    signals: tuple[str, ...] = ()  # the ids of those it consumes
    cancels: tuple[str, ...] = ()  # the paths whose cancels it consumes

    @property
    def size(self) -> int:
        """Characters that a transaction has to carry."""
        return self.text.size + (self.outcome.size if self.outcome is not None else 0)

    @property
    def weight(self) -> int:
        """Bytes that it takes where it is kept, without its large values."""
        return self.text.weight + (self.outcome.weight if self.outcome is not None else 0)

    @property
    def large(self) -> bool:
        """Whether anything in it is stored apart."""
        return bool(self.text.large or (self.outcome is not None and self.outcome.large))


def encode_events(batch: Sequence[Event], nodes: Sequence[NodeIO] | None = None) -> Encoded:
    """The texts of a batch, and of the node records where it ends the execution. Later changes of payloads do not reach them."""
    # A value goes out of a node and into the next, and stands in an event and two records: it is made text once.
    texts: _Texts = {}
    ended: ExecutionEnded | None = None
    signals: list[str] = []
    cancels: list[str] = []
    parts: list[str] = []
    for event in batch:
        kind = type(event)
        if kind is AttemptStarted or kind is AttemptSucceeded:
            parts.append(_frequent(event, texts))
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
    outcome = None if ended is None else _encode_outcome(ended, nodes, texts)
    return Encoded(text, len(batch), ended, outcome, tuple(signals), tuple(cancels))


def _frequent(event: Any, texts: _Texts) -> str:
    """What ``to_text(event_to_json(event))`` gives, for the two events of every step, at a third of the cost."""
    head = f'","schema":{EVENT_SCHEMA},"at":{float(event.at)!r},"path":{encode_basestring(event.path)},"number":{event.number}'
    if type(event) is AttemptStarted:
        return f'{{"type":"AttemptStarted{head}}}'
    if event.logs:
        return to_text(event_to_json(event))
    return f'{{"type":"AttemptSucceeded{head},"outputs":{_by_port(event.outputs, texts)},"logs":[]}}'


def decode_events(data: str, refs: str | None, load: Callable[[Iterable[str]], Mapping[str, str]]) -> list[Event]:
    """The events of a text; ``load`` gives the texts of the hashes that it is asked for."""
    return [event_from_json(item) for item in _whole(data, refs, load)]


def _encode_outcome(ended: ExecutionEnded, nodes: Sequence[NodeIO] | None, texts: _Texts) -> Text:
    """How an execution ended, as text."""
    error = None if ended.error is None else ended.error.to_json()
    records = "null" if nodes is None else f"[{','.join([_record(record, texts) for record in nodes])}]"
    data = f'{{"output":{_value(ended.output, texts)},"error":{to_text(error)},"nodes":{records}}}'
    if len(data) * 4 <= LARGE:
        return Text(data)
    whole = None if nodes is None else [node_io_to_json(record) for record in nodes]
    return _apart({"output": ended.output, "error": error, "nodes": whole}, data)


def _record(record: NodeIO, texts: _Texts) -> str:
    """What ``to_text(node_io_to_json(record))`` gives; for a node that succeeded at once at a third of the cost."""
    attempts = record.attempts
    if record.error is not None or record.logs or len(attempts) != 1 or attempts[0].error is not None:
        return to_text(node_io_to_json(record))
    attempt = attempts[0]
    began, ended = _time(record.started_at), _time(record.finished_at)
    tried = began if attempt.started_at == record.started_at else _time(attempt.started_at)
    left = ended if attempt.finished_at == record.finished_at else _time(attempt.finished_at)
    return (
        f'{{"path":{encode_basestring(record.path)},"node":{encode_basestring(record.node)}'
        f',"type":{encode_basestring(record.type)},"status":"{record.status.value}"'
        f',"input":{_value(record.input, texts)},"output":{_value(record.output, texts)}'
        f',"outputs":{_by_port(record.outputs, texts)},"error":null'
        f',"attempts":[{{"number":{attempt.number},"started_at":{tried},"finished_at":{left},"error":null}}]'
        f',"logs":[],"started_at":{began},"finished_at":{ended}}}'
    )


def _value(value: Json, texts: _Texts) -> str:
    """The text of a value that is held as long as ``texts`` is used."""
    if type(value) is not dict and type(value) is not list:
        return to_text(value)
    text = texts.get(id(value))
    if text is None:
        text = texts[id(value)] = to_text(value)
    return text


def _by_port(outputs: Mapping[str, Json], texts: _Texts) -> str:
    return f"{{{','.join([f'{encode_basestring(port)}:{_value(value, texts)}' for port, value in outputs.items()])}}}"


def _time(seconds: float | None) -> str:
    return "null" if seconds is None else f'"{format_time(seconds)}"'


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
