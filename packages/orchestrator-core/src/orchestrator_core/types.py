"""The data of the library: what a workflow document holds, and what an execution leaves behind.

Nothing here knows JSON, clocks or input and output. Times are seconds since 1970 (UTC) as floats, as the
machine sees them; :mod:`orchestrator_core.codec` writes them as ISO 8601.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NewType, overload

import attrs

__all__ = [
    "Attempt",
    "Duration",
    "Edge",
    "Edges",
    "ExecutionStatus",
    "Failure",
    "FailureMode",
    "Join",
    "Json",
    "LogLine",
    "Node",
    "NodeIO",
    "NodeStatus",
    "Pins",
    "Position",
    "Result",
    "Resumed",
    "Retry",
    "Settings",
    "Wait",
    "seed_at",
]

# A JSON value: None, bool, int, float, str, list or dict with string keys. Its shape is the workflow's business.
Json = Any
# A time span in seconds. In documents also "15m", "1h30m", "7d".
Duration = NewType("Duration", float)

Join = Literal["settled", "all", "first"] | int
FailureMode = Literal["stop", "drain"]
# What a start event says about nodes that do not run: path -> port -> value.
Pins = Mapping[str, Mapping[str, Json]]


class NodeStatus(StrEnum):
    """The state of one node in one execution, as `NodeIO.status` shows it."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class ExecutionStatus(StrEnum):
    """The state of an execution."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@attrs.frozen
class Retry:
    """How often and when a retryable failure is tried again.

    Attempt ``n + 1`` begins ``min(delay * factor ** (n - 1), max_delay)`` seconds after attempt ``n`` failed,
    give or take the share ``jitter`` (0.1: ten per cent) of it.
    """

    attempts: int = 1
    delay: Duration = Duration(0.0)
    factor: float = 1.0
    max_delay: Duration | None = None
    jitter: float = 0.0


@attrs.frozen
class Position:
    """Where an editor has drawn a node; pictures made by the library lay the graph out themselves."""

    x: float
    y: float


@attrs.frozen
class Node:
    """A step in a workflow: which node type, with which settings.

    ``when`` and ``for_each`` are templates; ``config`` is the JSON object that the node type's config class reads.
    ``timeout`` is in seconds and counts for one attempt.
    """

    id: str
    type: str
    config: Mapping[str, Json] = attrs.field(factory=dict)
    type_version: int | None = None
    name: str | None = None
    when: str | None = None
    for_each: Json = None
    max_parallel: int | None = None
    join: Join = "settled"
    cancel_rest: bool = False
    on_error: Literal["fail", "continue"] = "fail"
    on_lost: Literal["rerun", "fail"] = "rerun"
    retry: Retry | None = None
    timeout: Duration | None = None
    disabled: bool = False
    position: Position | None = None


@attrs.frozen
class Edge:
    """A connection from a port of one node to an input of another; ``key`` names its value among several."""

    source: str
    target: str
    port: str = "main"
    input: str = "main"
    key: str | None = None

    def __str__(self) -> str:
        port = "" if self.port == "main" else f".{self.port}"
        input_ = "" if self.input == "main" else f":{self.input}"
        return f"{self.source}{port}->{self.target}{input_}"


class Edges(Sequence[Edge]):
    """Edges in document order, kept in columns.

    A large graph has more edges than anything else: as columns of texts they cost a fifth of the memory, and the
    garbage collector has nothing to walk. An :class:`Edge` is made when it is asked for.
    """

    __slots__ = ("inputs", "keys", "ports", "sources", "targets")

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        rows = [(edge.source, edge.target, edge.port, edge.input, edge.key) for edge in edges]
        columns = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        self.sources, self.targets, self.ports, self.inputs, self.keys = map(tuple, columns)

    @classmethod
    def of(cls, edges: Iterable[Edge]) -> Edges:
        """The same edges in columns."""
        return edges if isinstance(edges, Edges) else cls(edges)

    @classmethod
    def from_columns(
        cls,
        sources: Iterable[str],
        targets: Iterable[str],
        ports: Iterable[str],
        inputs: Iterable[str],
        keys: Iterable[str | None],
    ) -> Edges:
        """Edges from columns of equal length."""
        made = cls()
        made.sources, made.targets, made.ports = tuple(sources), tuple(targets), tuple(ports)
        made.inputs, made.keys = tuple(inputs), tuple(keys)
        return made

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> Edge: ...
    @overload
    def __getitem__(self, index: slice) -> Edges: ...
    def __getitem__(self, index: int | slice) -> Edge | Edges:
        if isinstance(index, slice):
            return Edges(self[number] for number in range(*index.indices(len(self))))
        return Edge(self.sources[index], self.targets[index], self.ports[index], self.inputs[index], self.keys[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash((self.sources, self.targets, self.ports, self.inputs, self.keys))

    def __repr__(self) -> str:
        return f"Edges({list(self)!r})"


@attrs.frozen
class Settings:
    """What holds for a whole execution.

    ``timeout`` in seconds, waits included; ``max_parallel`` the number of attempts at one time (``None``: no limit).
    """

    timeout: Duration | None = None
    max_parallel: int | None = 32
    failure: FailureMode = "stop"


@attrs.frozen
class Failure:
    """Why an attempt, a node or an execution failed.

    ``node`` and ``attempt`` are filled in by the machine; an execution's own failure (time-out, a bad ``output``)
    has no node. ``retryable`` and ``retry_after`` (seconds) steer the retry and are not part of what is delivered.
    """

    code: str
    message: str
    node: str | None = None
    attempt: int = 0
    data: Json = None
    retryable: bool = False
    retry_after: float | None = None

    def to_json(self) -> dict[str, Json]:
        """The object that error edges deliver and results show."""
        return {
            "code": self.code,
            "message": self.message,
            "node": self.node,
            "attempt": self.attempt,
            "data": self.data,
        }


@attrs.frozen
class LogLine:
    """One line that a node wrote: ``level`` is debug, info, warning or error; ``at`` its time."""

    at: float
    level: str
    message: str


@attrs.frozen
class Wait:
    """What ends an attempt without spending it: a time (``until``), or a signal with an optional expiry."""

    until: float | None = None
    signal: str | None = None
    expires: float | None = None


@attrs.frozen
class Resumed:
    """Why a function runs again from the top: ``kind`` is ``time``, ``signal`` or ``expired``.

    ``payload`` and ``id`` are the signal's; ``count`` counts the wakings of this attempt, from 1.
    """

    kind: Literal["time", "signal", "expired"]
    at: float
    name: str | None = None
    id: str | None = None
    payload: Json = None
    count: int = 1


@attrs.frozen
class Attempt:
    """One try of one node."""

    number: int
    started_at: float
    finished_at: float | None = None
    error: Failure | None = None


@attrs.frozen
class NodeIO:
    """The record of one node (or one item, or one inner node) in one execution.

    ``input`` is what came in on ``main``, ``output`` what went out on ``main``, ``outputs`` everything by port.
    """

    path: str
    node: str
    type: str
    status: NodeStatus
    input: Json = None
    output: Json = None
    outputs: Mapping[str, Json] = attrs.field(factory=dict)
    error: Failure | None = None
    attempts: tuple[Attempt, ...] = ()
    logs: tuple[LogLine, ...] = ()
    started_at: float | None = None
    finished_at: float | None = None


@attrs.frozen
class Result:
    """An execution, as it stands or as it ended."""

    execution_id: str
    workflow: str
    version: int | None
    status: ExecutionStatus
    output: Json
    error: Failure | None
    nodes: tuple[NodeIO, ...]
    started_at: float
    finished_at: float | None

    def node(self, path: str) -> NodeIO:
        """The record at a path (``price``, ``poll/3/fetch``).

        Raises:
            KeyError: No node of the plan has this path.
        """
        for record in self.nodes:
            if record.path == path:
                return record
        known = [record.path for record in self.nodes]
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise KeyError(f"there is no node {path!r} in this execution: it has {shown or 'none'}")

    def raise_for_status(self) -> Result:
        """Return the result itself where it succeeded.

        Raises:
            RuntimeError: The execution did not succeed; the text says why.
        """
        if self.status is ExecutionStatus.SUCCEEDED:
            return self
        why = f"{self.error.code}: {self.error.message}" if self.error else "no error was recorded"
        where = f" at node {self.error.node!r}" if self.error and self.error.node else ""
        raise RuntimeError(f"execution {self.execution_id} of {self.workflow!r} {self.status}{where}: {why}")


def seed_at(seed: int, place: str) -> int:
    """A number of 48 bits that depends on an execution's seed and a place in it only."""
    digest = hashlib.sha256(f"{seed}/{place}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
