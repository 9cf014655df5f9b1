"""pydantic-graph: `GraphBuilder`, with a join before every node that has several predecessors."""

import asyncio
from typing import Any

from pydantic_graph import GraphBuilder, reduce_list_append

from graphs import CHAIN, FAN_OUT, Trial, predecessors, tick


async def noop(ctx: Any) -> int:
    tick()
    return 1


async def suspending(ctx: Any) -> int:
    tick()
    await asyncio.sleep(0)
    return 1


class _PydanticGraph(Trial):
    name = "pydantic-graph"
    how = (
        "`GraphBuilder`, `auto_instrument=False`; the fan-out is `map` and a join; the layered graph has a join "
        "before each node with several predecessors; single results are not kept"
    )
    packages = ("pydantic-graph",)

    async def plan(self) -> None:
        builder: Any = GraphBuilder(output_type=object, auto_instrument=False)
        {CHAIN: self._chain, FAN_OUT: self._fan_out}.get(self.graph.shape, self._layered)(builder)
        self.built = builder.build()

    def _chain(self, builder: Any) -> None:
        before = builder.start_node
        for node in self.graph.ids:
            step = builder.step(noop, node_id=node)
            builder.add(builder.edge_from(before).to(step))
            before = step
        builder.add(builder.edge_from(before).to(builder.end_node))

    def _fan_out(self, builder: Any) -> None:
        items = self.graph.ids[1:-1]

        async def first(ctx: Any) -> list[str]:
            await suspending(ctx)
            return items

        one = builder.step(first, node_id="first")
        many = builder.step(suspending, node_id="middle")
        join = builder.join(reduce_list_append, initial_factory=list, node_id="join")
        last = builder.step(suspending, node_id="last")
        builder.add(
            builder.edge_from(builder.start_node).to(one),
            builder.edge_from(one).map().to(many),
            builder.edge_from(many).to(join),
            builder.edge_from(join).to(last),
            builder.edge_from(last).to(builder.end_node),
        )

    def _layered(self, builder: Any) -> None:
        sources = predecessors(self.graph)
        steps = {node: builder.step(noop, node_id=node) for node in self.graph.ids}
        entries = dict(steps)
        targets: dict[str, list[Any]] = {node: [] for node in self.graph.ids}
        for node, before in sources.items():
            if before:
                join = builder.join(reduce_list_append, initial_factory=list, node_id=f"join_{node}")
                builder.add(builder.edge_from(join).to(steps[node]))
                entries[node] = join
            for source in before:
                targets[source].append(entries[node])
        end = builder.join(reduce_list_append, initial_factory=list, node_id="join_end")
        roots = [steps[node] for node, before in sources.items() if not before]
        builder.add(builder.edge_from(builder.start_node).to(*roots))
        for node, after in targets.items():
            builder.add(builder.edge_from(steps[node]).to(*(after or [end])))
        builder.add(builder.edge_from(end).to(builder.end_node))

    async def run(self) -> None:
        self.output = await self.built.run()

    def results(self) -> int:
        # The graph's own output is the last node's alone; that each node ran is the tally's to say.
        if not self.output:
            raise RuntimeError("the graph gave no output")
        return len(self.graph.ids)


CONTESTANTS: tuple[type[Trial], ...] = (_PydanticGraph,)
