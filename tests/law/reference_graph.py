"""The graph of the reference interpreter: its state, and the parts of the law that are functions of it.

What a plan is (1), what a join decides (3), what a node gets (5), what a graph gives (11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"succeeded", "failed", "skipped", "cancelled"})
GROUPS = frozenset({"loop", "workflow"})
TRIGGERS = frozenset({"script-trigger"})


# --- the state of an execution ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Edge:
    """One edge of a plan. `state` is None, `delivered` or `skipped` (2); `event` is the number of what settled it."""

    document: dict[str, Any]
    name: str
    state: str | None = None
    value: Any = None
    event: int = 0
    tainted: bool = False


@dataclass(eq=False)
class Record:
    """The record of one node, or of one item of a `for_each` (then `item_of` is the node's record)."""

    scope: Scope
    node: dict[str, Any]
    path: str
    place: tuple[int, ...]  # document order: positions of nodes, items and iterations from the outside in
    item_of: Record | None = None
    status: str = "pending"
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    attempts: int = 0
    due: int | None = None  # the number of the event that made it due (an item: that gave it its place)
    queued: int = 0  # the number of the event since when its attempt wants a slot
    seen: dict[str, Any] = field(default_factory=dict)  # `nodes` as of that event
    items: list[Record] | None = None
    body: Scope | None = None
    iteration: int = 0
    entry: int = -1  # the last entry of its script that was taken
    waking: dict[str, Any] | None = None  # what a woken attempt does; None: the next run is a new attempt
    waits_for: str | None = None  # a signal's name

    @property
    def input(self) -> Any:
        """*Input*: `main` only; `null` where there is none."""
        return self.inputs.get("main")

    @property
    def is_group(self) -> bool:
        return self.node["type"] in GROUPS


@dataclass(eq=False)
class Scope:
    """A graph that runs: the workflow itself, or one run of the body of a group (`owner`, a node's or item's record)."""

    document: dict[str, Any]
    path: str
    place: tuple[int, ...]
    owner: Record | None
    input: Any
    around: dict[str, Any]  # `item` and `index`, where a `for_each` is around
    records: dict[str, Record] = field(default_factory=dict)  # of the plan, upstream first
    edges: list[Edge] = field(default_factory=list)  # of the plan, in document order
    failures: list[tuple[tuple[int, ...], dict[str, Any], str]] = field(default_factory=list)
    ending: bool = False

    def into(self, record: Record) -> list[Edge]:
        return [edge for edge in self.edges if edge.document["target"] == record.node["id"]]

    def out_of(self, record: Record) -> list[Edge]:
        return [edge for edge in self.edges if edge.document["source"] == record.node["id"]]


def name_of(edge: dict[str, Any]) -> str:
    port, name = port_of(edge), input_of(edge)
    source = edge["source"] if port == "main" else f"{edge['source']}.{port}"
    return f"{source}->{edge['target']}" if name == "main" else f"{source}->{edge['target']}:{name}"


# --- plan, joins, data: the parts of the law that are functions -------------------------------------------------------


def port_of(edge: dict[str, Any]) -> str:
    return str(edge.get("port", "main"))


def input_of(edge: dict[str, Any]) -> str:
    return str(edge.get("input", "main"))


def seconds(duration: float | str) -> float:
    """A duration of a document (section 3): a number of seconds, or `15m`, `1h30m`, `7d`."""
    if not isinstance(duration, str):
        return duration
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", duration))


def plan(document: dict[str, Any], start: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """1. What is reachable from the start: the named trigger, or the only one, or without triggers every root."""
    nodes, edges = document["nodes"], document.get("edges") or []
    triggers = [node["id"] for node in nodes if node["type"] in TRIGGERS]
    if len(triggers) > 1 and start is None:
        raise ValueError(f"name one of the triggers {triggers} as the start")
    if triggers:
        reached = {start or triggers[0]}
    else:
        reached = {node["id"] for node in nodes} - {edge["target"] for edge in edges}
    while more := {edge["target"] for edge in edges if edge["source"] in reached} - reached:
        reached |= more
    return [node for node in nodes if node["id"] in reached], [edge for edge in edges if edge["source"] in reached]


def upstream_first(nodes: list[dict[str, Any]], edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes so that sources stand before targets, otherwise as in the document."""
    left, placed = list(nodes), list[dict[str, Any]]()
    while left:
        ids = {node["id"] for node in left}
        blocked = {edge["target"] for edge in edges if edge["source"] in ids}
        ready = next((node for node in left if node["id"] not in blocked), None)
        if ready is None:
            raise ValueError(f"a cycle among {sorted(ids)}")
        left.remove(ready)
        placed.append(ready)
    return placed


def needed(record: Record) -> int | None:
    """3. How many deliveries a `first` or *k* join needs (of the edges in the plan at most all); None for the others."""
    join = record.node.get("join", "settled")
    if join in ("settled", "all"):
        return None
    return 1 if join == "first" else min(int(join), len(record.scope.into(record)))


def join_says(record: Record) -> str | None:
    """3. What a join decides over the edges of all inputs together: due, skipped, cancelled (9, taint), or nothing yet."""
    edges = record.scope.into(record)
    if not edges:
        return "due"  # a root, or the start
    delivered = sum(edge.state == "delivered" for edge in edges)
    unsettled = sum(edge.state is None for edge in edges)
    tainted = any(edge.tainted for edge in edges)
    need = needed(record)
    if need is None:
        if tainted:
            return "cancelled"
        if unsettled:
            return None  # `all`, too, is decided when all its edges have settled
        enough = len(edges) if record.node.get("join") == "all" else 1
        return "due" if delivered >= enough else "skipped"
    if delivered >= need:
        return "due"
    if delivered + unsettled >= need:
        return None
    return "cancelled" if tainted else "skipped"


def counted(record: Record) -> list[Edge]:
    """3. The deliveries a join counts: all that came, or the first *k*; those of one event in document order."""
    delivered = [edge for edge in record.scope.into(record) if edge.state == "delivered"]
    return sorted(delivered, key=lambda edge: edge.event)[: needed(record)]


def gather_inputs(record: Record) -> dict[str, Any]:
    """5. The inputs of a node that becomes due, by name; an absent one is left out."""
    edges, counts = record.scope.into(record), counted(record)
    if not edges:
        return {"main": record.scope.input}
    inputs: dict[str, Any] = {}
    for name in dict.fromkeys(input_of(edge.document) for edge in edges):
        mine = [edge for edge in edges if input_of(edge.document) == name]
        came = [edge for edge in mine if edge in counts]
        if len(mine) > 1:
            inputs[name] = {key_of(edge, mine): edge.value for edge in came}
        elif came:
            inputs[name] = came[0].value
    return inputs


def key_of(edge: Edge, edges: list[Edge]) -> str:
    """5. The edge's `key`, else the source's id, else `source.port` where, of those without a key, a source repeats."""
    if "key" in edge.document:
        return str(edge.document["key"])
    source = str(edge.document["source"])
    repeats = sum(e.document["source"] == source and "key" not in e.document for e in edges) > 1
    return f"{source}.{port_of(edge.document)}" if repeats else source


def nodes_seen(scope: Scope) -> dict[str, Any]:
    """`nodes` for expressions. What has not run has no `output`; a node outside the plan reads as a skipped one."""
    seen: dict[str, Any] = {}
    for node in scope.document["nodes"]:
        record = scope.records.get(node["id"])
        outputs = dict(record.outputs) if record else {}
        seen[node["id"]] = {
            "status": record.status if record else "skipped",
            "outputs": outputs,
            "error": record.error if record else None,
            **({"output": outputs["main"]} if "main" in outputs else {}),
        }
    return seen


def terminal_output(scope: Scope) -> Any:
    """11. With one terminal node its output (`null` if it was skipped); with several, an object of those that ran."""
    terminals = [record for record in scope.records.values() if not scope.out_of(record)]
    if len(terminals) == 1:
        return terminals[0].outputs.get("main")
    ran = [record for record in terminals if record.status in ("succeeded", "failed")]
    return {record.node["id"]: record.outputs.get("main") for record in sorted(ran, key=lambda r: r.place)}
