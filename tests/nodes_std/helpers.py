"""What the tests of the standard nodes share: small workflows, and what comes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator_core import Engine, Result, Workflow

NOW = 1_800_000_000.0
"""Fri, 15 Jan 2027 08:00:00 GMT, in seconds since 1970."""


class Each:
    """Stands for an expression of a document: called for every element with it and its index."""

    def __init__(self, function: Callable[[Any, int], Any]) -> None:
        self.function = function

    async def each(self, items: Sequence[Any]) -> list[Any]:
        return [self.function(item, index) for index, item in enumerate(items)]


def workflow(
    nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, ...]] | None = None, **fields: Any
) -> Workflow:
    """Nodes one after the other, or along edges given as (source, target) or (source, port, target).

    `fields` are further ones of the document, as its `output`.
    """
    ids = [node["id"] for node in nodes]
    pairs = list(itertools.pairwise(ids)) if edges is None else edges
    return Workflow.from_dict(
        {
            "schema": 1,
            "id": "flow",
            "nodes": nodes,
            "edges": [
                {"source": edge[0], "target": edge[-1], "port": edge[1] if edge[2:] else "main"} for edge in pairs
            ],
            **fields,
        }
    )


async def run(
    nodes: Sequence[Mapping[str, Any]],
    payload: Any = None,
    edges: Sequence[tuple[str, ...]] | None = None,
    **engine: Any,
) -> Result:
    """What comes of such a workflow in an engine made with `engine`."""
    async with Engine(**engine) as opened:
        return await opened.run(workflow(nodes, edges), payload)


def refused(nodes: Sequence[Mapping[str, Any]], edges: Sequence[tuple[str, ...]] | None = None) -> dict[str, str]:
    """What is wrong with such a workflow before anything runs, by place."""
    return {fault.place: fault.message for fault in Engine().validate(workflow(nodes, edges))}
