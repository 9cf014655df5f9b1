"""The plan: what of a workflow's graph exists for one execution, laid out so that the machine can walk it in O(1).

Rule 1 of the law: the plan is what is reachable from the start; nodes and edges outside it do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        names, types: The node ids, and the names of their types.
        bare: The node has no config and no type version.
        leaving, ins: For each node its outgoing and its incoming edges, by number in document order.
        degrees: For each node how many edges come in.
        sources, targets, ports: For each edge where it comes from and where it leads.
        keys: For each edge the key of its value where its input has several edges.
        inputs: For nodes with other inputs than ``main``: input name -> edges.
        joins: :data:`SETTLED`, :data:`ALL` or the number of deliveries.
        plain: Nothing stands between being due and running: no ``when``, ``for_each``, group, ``disabled``, losers.
        quick: A plain node with the one input ``main``, no time-out and no join by number.
        smooth: All edges of the node leave from ``main`` and none leads to a join by number.
        pure: The node's type is pure.
        catches: The node has an edge from its port ``error``.
        ranks: A topological number for each node, where there are joins by number.
        groups: The nodes that hold graphs.
        outside: The ids of the document's nodes that are not in the plan.
        notes: Room for whatever a driver prepares for each node.
    """

    # Columns: tuples of plain values and bytes are nothing to the garbage collector; lists it walks again and again.
    workflow: Workflow
    start: str | None
    nodes: tuple[Node, ...]
    edges: Edges
    index: dict[str, int]
    names: tuple[str, ...]
    types: tuple[str, ...]
    bare: bytes
    leaving: tuple[tuple[int, ...], ...]
    ins: tuple[tuple[int, ...], ...]
    degrees: tuple[int, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    ports: Sequence[str]
    keys: Sequence[str]
    inputs: dict[int, dict[str, list[int]]]
    joins: tuple[int, ...]
    plain: bytes
    quick: bytes
    smooth: bytes
    pure: bytes
    catches: bytes
    ranks: tuple[int, ...]
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
        return [index for index, edges in enumerate(self.leaving) if not edges]


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
    nodes, edges = workflow.nodes, workflow.edges
    if inside is not None:
        nodes = tuple(node for node in nodes if node.id in inside)
        edges = Edges(edge for edge in edges if edge.source in inside and edge.target in inside)
    names, types = [node.id for node in nodes], tuple([node.type for node in nodes])
    index = dict(zip(names, range(len(names)), strict=True))
    sources = tuple(map(index.__getitem__, edges.sources))
    targets = tuple(map(index.__getitem__, edges.targets))
    numbers = list(range(len(sources)))
    leaving, ins = _by_node(sources, numbers, len(nodes)), _by_node(targets, numbers, len(nodes))
    degrees = tuple(map(len, ins))
    inputs = _inputs(edges, targets, ins)
    joins = tuple([SETTLED if node.join == "settled" else _join(node, degrees[i]) for i, node in enumerate(nodes)])
    groups = {name for name, trait in traits.items() if trait.group is not None}
    pures = {name for name, trait in traits.items() if trait.pure}
    plain = bytes(
        [
            node.when is None
            and node.for_each is None
            and not node.disabled
            and not node.cancel_rest
            and node.type not in groups
            for node in nodes
        ]
    )
    quick = bytearray([easy and node.timeout is None for easy, node in zip(plain, nodes, strict=True)])
    for target in inputs:
        quick[target] = False
    smooth, catches = _smooth(edges.ports, sources, len(nodes))
    counting = max(joins) > 0
    for target, join in enumerate(joins) if counting else ():
        if join > 0:
            quick[target] = False
            for number in ins[target]:
                smooth[sources[number]] = False
    return Plan(
        workflow=workflow,
        start=start,
        nodes=nodes,
        edges=edges,
        index=index,
        names=tuple(names),
        types=types,
        bare=bytes([not node.config and node.type_version is None for node in nodes]),
        leaving=leaving,
        ins=ins,
        degrees=degrees,
        sources=sources,
        targets=targets,
        ports=edges.ports,
        keys=_keys(edges, sources, targets, ins, inputs),
        inputs=inputs,
        joins=joins,
        plain=plain,
        quick=bytes(quick),
        smooth=bytes(smooth),
        pure=bytes([name in pures for name in types]),
        catches=bytes(catches),
        ranks=_ranks(leaving, targets, degrees) if counting else (),
        groups={},
        outside=frozenset() if inside is None else frozenset(n.id for n in workflow.nodes if n.id not in inside),
        notes=[None] * len(nodes),
    )


def _smooth(ports: Sequence[str], sources: Sequence[int], size: int) -> tuple[bytearray, bytearray]:
    """For each node whether all its edges leave from ``main``, and whether one leaves from ``error``."""
    smooth, catches = bytearray(b"\1" * size), bytearray(size)
    if ports.count("main") < len(ports):
        for source, port in zip(sources, ports, strict=True):
            if port != "main":
                smooth[source] = False
                catches[source] |= port == "error"
    return smooth, catches


def _by_node(ends: Sequence[int], numbers: Sequence[int], size: int) -> tuple[tuple[int, ...], ...]:
    """For each node the numbers of the edges that have it at this end."""
    edges: list[list[int]] = [[] for _ in range(size)]
    for number, node in zip(numbers, ends, strict=True):
        edges[node].append(number)
    return tuple(map(tuple, edges))


def _inputs(edges: Edges, targets: Sequence[int], ins: Sequence[tuple[int, ...]]) -> dict[int, dict[str, list[int]]]:
    """The edges by input, for nodes that have others than ``main``."""
    if edges.inputs.count("main") == len(edges.inputs):
        return {}
    inputs: dict[int, dict[str, list[int]]] = {}
    for target in sorted({targets[number] for number, name in enumerate(edges.inputs) if name != "main"}):
        by_input: dict[str, list[int]] = {}
        for number in ins[target]:
            by_input.setdefault(edges.inputs[number], []).append(number)
        inputs[target] = by_input
    return inputs


def _keys(
    edges: Edges,
    sources: Sequence[int],
    targets: Sequence[int],
    ins: Sequence[tuple[int, ...]],
    inputs: dict[int, dict[str, list[int]]],
) -> Sequence[str]:
    """The key of each edge's value (rule 5): its own, else its source, else ``source.port`` where a source repeats."""
    rows = zip(edges.ports, edges.inputs, edges.keys, strict=True)
    # Of two edges between the same nodes at least one says more than where it leads: identical ones are refused.
    odd = [number for number, row in enumerate(rows) if row != ("main", "main", None)]
    if not odd:
        return edges.sources
    keys: list[str] = [key or source for key, source in zip(edges.keys, edges.sources, strict=True)]
    for target in sorted({targets[number] for number in odd}):
        for group in inputs.get(target, {"main": ins[target]}).values():
            _disambiguate(group, edges, sources, keys)
    return tuple(keys)


def _disambiguate(group: Sequence[int], edges: Edges, sources: Sequence[int], keys: list[str]) -> None:
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


def _ranks(leaving: Sequence[tuple[int, ...]], targets: Sequence[int], degrees: Sequence[int]) -> tuple[int, ...]:
    ranks = [0] * len(leaving)
    count = list(degrees)
    free = [i for i, number in enumerate(count) if number == 0][::-1]
    rank = 0
    while free:
        node = free.pop()
        ranks[node] = rank
        rank += 1
        for number in leaving[node]:
            target = targets[number]
            count[target] -= 1
            if count[target] == 0:
                free.append(target)
    return tuple(ranks)


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
