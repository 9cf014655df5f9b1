"""The plan: what of a workflow's graph exists for one execution, laid out so that the machine can walk it in O(1).

Rule 1 of the law: the plan is what is reachable from the start; nodes and edges outside it do not exist.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import attrs

from orchestrator_core.codec import parse_duration
from orchestrator_core.document import Workflow, body_of
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.types import Edges, Json, Node

__all__ = ["ALL", "SETTLED", "Group", "Plan", "Traits", "make_plan"]

# Joins as numbers: a count above 0 is `first` (1) or k.
SETTLED = 0
ALL = -1


@attrs.frozen
class Traits:
    """What the machine needs to know of a node type."""

    trigger: bool = False
    pure: bool = False
    group: Literal["loop", "workflow"] | None = None


Describe = Callable[[str], Traits]


@attrs.frozen(eq=False)
class Group:
    """A node that holds a graph.

    ``body`` is the plan of an inline body, ``stored`` the id of a stored workflow instead. ``delay`` is in seconds.
    """

    kind: Literal["loop", "workflow"]
    body: Plan | None = None
    stored: str | None = None
    until: Json = None
    max_iterations: int = 1
    delay: float = 0.0


@attrs.define(eq=False)
class Plan:
    """The graph of one execution (or one body), by index in document order.

    Attributes:
        nodes, edges: What is in the plan, in document order.
        index: Node id -> index.
        outs: For each node its edges (port, target, edge), in document order.
        ins, degrees: For each node its incoming edges, in document order, and how many.
        sources, ports: For each edge where it comes from.
        keys: For each edge the key of its value where its input has several edges.
        inputs: For nodes with other inputs than ``main``: input name -> edges.
        joins: :data:`SETTLED`, :data:`ALL` or the number of deliveries.
        plain: Nothing stands between being due and running: no ``when``, ``for_each``, group, not disabled.
        ranks: A topological number for each node.
        catches: The node has an edge from its port ``error``.
        notes: Room for whatever a driver prepares for each node.
    """

    workflow: Workflow
    start: str | None
    nodes: tuple[Node, ...]
    index: dict[str, int]
    edges: Edges
    outs: tuple[tuple[tuple[str, int, int], ...], ...]
    ins: tuple[tuple[int, ...], ...]
    degrees: array[int]
    sources: array[int]
    ports: Sequence[str]
    keys: tuple[str, ...]
    inputs: dict[int, dict[str, list[int]]]
    joins: array[int]
    plain: bytes
    pure: bytes
    catches: bytearray
    ranks: array[int]
    groups: dict[int, Group]
    outside: frozenset[str]
    notes: list[Any]

    @property
    def roots(self) -> list[int]:
        """The nodes where the execution begins."""
        return [index for index, edges in enumerate(self.ins) if not edges]

    @property
    def terminals(self) -> list[int]:
        """The nodes from which no edge of the plan leads on."""
        return [index for index, edges in enumerate(self.outs) if not edges]


def make_plan(workflow: Workflow, describe: Describe, *, start: str | None = None, body: bool = False) -> Plan:
    """Lay out what is reachable from the start. O(nodes + edges).

    Args:
        workflow: A workflow whose graph has been checked.
        describe: The traits of a node type's name.
        start: The trigger; needed where there are several.
        body: It is the body of a group: it begins at every root.

    Raises:
        DocumentError: The start is missing or no trigger; a group is malformed; a trigger has incoming edges.
    """
    traits = {name: describe(name) for name in {node.type for node in workflow.nodes}}
    starts = None if body else _starts(workflow, traits, start)
    inside = None if starts is None else _reachable(workflow, starts)
    plan = _lay_out(workflow, starts, inside, traits)
    for index, node in enumerate(plan.nodes):
        if (kind := traits[node.type].group) is not None:
            plan.groups[index] = _group(kind, node, describe)
    return plan


def _starts(workflow: Workflow, traits: dict[str, Traits], start: str | None) -> str | None:
    triggers = [node.id for node in workflow.nodes if traits[node.type].trigger]
    if start is not None and start not in triggers:
        known = f"its triggers are {', '.join(triggers)}" if triggers else "it has no triggers: start it without a name"
        raise DocumentError([Fault(f"{start!r} is no trigger of this workflow: {known}", "$.start")])
    if start is None and len(triggers) > 1:
        raise DocumentError([Fault(f"say which trigger starts it: {', '.join(triggers)}", "$.start")])
    return start or (triggers[0] if triggers else None)


def _reachable(workflow: Workflow, start: str) -> set[str]:
    follow: dict[str, list[str]] = {}
    for source, target in zip(workflow.edges.sources, workflow.edges.targets, strict=True):
        follow.setdefault(source, []).append(target)
    inside, todo = {start}, [start]
    while todo:
        for target in follow.get(todo.pop(), ()):
            if target not in inside:
                inside.add(target)
                todo.append(target)
    return inside


def _lay_out(workflow: Workflow, start: str | None, inside: set[str] | None, traits: dict[str, Traits]) -> Plan:
    nodes = list(workflow.nodes) if inside is None else [node for node in workflow.nodes if node.id in inside]
    index = {node.id: i for i, node in enumerate(nodes)}
    size = len(nodes)
    leaving: list[list[tuple[str, int, int]]] = [[] for _ in range(size)]
    arriving: list[list[int]] = [[] for _ in range(size)]
    edges = workflow.edges
    if inside is not None:
        edges = Edges(edge for edge in edges if edge.source in inside and edge.target in inside)
    sources = array("i", [index[source] for source in edges.sources])
    targets = [index[target] for target in edges.targets]
    ports = edges.ports
    keys = [key or source for key, source in zip(edges.keys, edges.sources, strict=True)]
    for number, (source, port, target) in enumerate(zip(sources, ports, targets, strict=True)):
        leaving[source].append((port, target, number))
        arriving[target].append(number)
    # Tuples of plain values, arrays and bytes are nothing to the garbage collector; lists it walks again and again.
    outs = tuple([tuple(entries) for entries in leaving])
    ins = tuple([tuple(numbers) for numbers in arriving])
    catches = bytearray(size)
    special: set[int] = set()
    for number, (port, input_) in enumerate(zip(ports, edges.inputs, strict=True)):
        if port == "error":
            catches[sources[number]] = True
        if input_ != "main":
            special.add(targets[number])
    inputs: dict[int, dict[str, list[int]]] = {}
    for target in special:
        by_input: dict[str, list[int]] = {}
        for number in ins[target]:
            by_input.setdefault(edges.inputs[number], []).append(number)
        inputs[target] = by_input
    for target, numbers in enumerate(ins):
        if len(numbers) > 1:
            for group in inputs.get(target, {"main": numbers}).values():
                _disambiguate(group, edges, sources, keys)
    joins = array("i", [_join(node, len(ins[i])) for i, node in enumerate(nodes)])
    groups = {name for name, trait in traits.items() if trait.group is not None}
    pures = {name for name, trait in traits.items() if trait.pure}
    plain = [
        node.when is None and node.for_each is None and not node.disabled and node.type not in groups for node in nodes
    ]
    return Plan(
        workflow=workflow,
        start=start,
        nodes=tuple(nodes),
        index=index,
        edges=edges,
        outs=outs,
        ins=ins,
        sources=sources,
        ports=ports,
        keys=tuple(keys),
        inputs=inputs,
        joins=joins,
        plain=bytes(plain),
        pure=bytes(node.type in pures for node in nodes),
        degrees=array("i", map(len, ins)),
        catches=catches,
        ranks=_ranks(outs, ins) if max(joins) > 0 else array("i"),
        groups={},
        outside=frozenset(node.id for node in workflow.nodes if node.id not in index),
        notes=[None] * size,
    )


def _disambiguate(group: Sequence[int], edges: Edges, sources: Sequence[int], keys: list[str]) -> None:
    """Where a source repeats among an input's edges without a key, their keys are ``source.port`` (rule 5)."""
    if len({sources[number] for number in group}) == len(group):
        return
    counts: dict[int, int] = {}
    for number in group:
        if edges.keys[number] is None:
            counts[sources[number]] = counts.get(sources[number], 0) + 1
    for number in group:
        if edges.keys[number] is None and counts[sources[number]] > 1:
            keys[number] = f"{edges.sources[number]}.{edges.ports[number]}"


def _join(node: Node, edges: int) -> int:
    if node.join == "settled":
        return SETTLED
    if node.join == "all":
        return ALL
    # Of the edges in the plan at most all (rule 3).
    return 1 if node.join == "first" else min(int(node.join), max(edges, 1))


def _ranks(outs: Sequence[tuple[tuple[str, int, int], ...]], ins: Sequence[tuple[int, ...]]) -> array[int]:
    ranks = array("i", bytes(4 * len(outs)))
    count = [len(edges) for edges in ins]
    free = [i for i, number in enumerate(count) if number == 0][::-1]
    rank = 0
    while free:
        node = free.pop()
        ranks[node] = rank
        rank += 1
        for _, target, _ in outs[node]:
            count[target] -= 1
            if count[target] == 0:
                free.append(target)
    return ranks


def _group(kind: Literal["loop", "workflow"], node: Node, describe: Describe) -> Group:
    config = node.config
    if kind == "workflow" and "body" not in config:
        return Group(kind, stored=config["workflow"])
    body = make_plan(body_of(node), describe, body=True)
    if kind == "workflow":
        return Group(kind, body=body)
    return Group(
        kind,
        body=body,
        until=config.get("until"),
        max_iterations=config["max_iterations"],
        delay=parse_duration(config.get("delay", 0)),
    )


def walk(plan: Plan) -> Iterator[Plan]:
    """A plan and the plans of all bodies in it."""
    yield plan
    for group in plan.groups.values():
        if group.body is not None:
            yield from walk(group.body)
