"""This project's engine, used as an embedder uses it: a document, an `Engine`, `run`, the node records."""

from typing import Any

import anyio.lowlevel
import attrs

from graphs import Graph, Trial, tick
from orchestrator_core import Engine, NodeContext, Workflow, node_type


@attrs.frozen
class Nothing:
    """These nodes have no settings."""


@node_type("bench.noop", version=1, pure=True)
async def noop(ctx: NodeContext, config: Nothing, input: Any) -> int:
    tick()
    return 1


@node_type("bench.suspending", version=1, pure=True)
async def suspending(ctx: NodeContext, config: Nothing, input: Any) -> int:
    tick()
    await anyio.lowlevel.checkpoint()
    return 1


class _Ours(Trial):
    name = "ours"
    how = (
        "`Engine.plan`, `Engine.run`, every node record read; the in-memory journal is kept; the `Workflow` (the document, "
        "read and checked) is the input, as the lists are the others'"
    )
    packages = ("pluggable-orchestrator-core",)

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        kind = "bench.suspending" if graph.suspends else "bench.noop"
        document = {
            "schema": 1,
            "id": "bench",
            "settings": {"max_parallel": None},  # no limit
            "nodes": [{"id": node, "type": kind} for node in graph.ids],
            "edges": [{"source": source, "target": target} for source, target in graph.edges],
        }
        self.workflow = Workflow.from_dict(document)

    async def open(self) -> None:
        self.engine = Engine(node_types=[noop, suspending], discover=False)
        await self.engine.__aenter__()

    async def close(self) -> None:
        await self.engine.__aexit__(None, None, None)

    async def plan(self) -> None:
        self.engine.plan(self.workflow)

    async def run(self) -> None:
        self.result = await self.engine.run(self.workflow, None)
        self.kept = [record.output for record in self.result.nodes if record.status == "succeeded"]

    def results(self) -> int:
        if self.result.status != "succeeded":
            raise RuntimeError(f"the execution ended {self.result.status}: {self.result.error}")
        return sum(self.kept)


CONTESTANTS: tuple[type[Trial], ...] = (_Ours,)
