"""LangGraph: a `StateGraph` without a checkpointer, its state a number that a reducer sums."""

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from graphs import FAN_OUT, Trial, predecessors, tick


class State(TypedDict):
    """The smallest state that shows that every node ran; one that kept each result would cost more."""

    ran: Annotated[int, operator.add]


async def noop(state: State) -> dict[str, int]:
    tick()
    return {"ran": 1}


async def suspending(state: State) -> dict[str, int]:
    tick()
    await asyncio.sleep(0)
    return {"ran": 1}


class _LangGraph(Trial):
    name = "LangGraph"
    how = (
        "`StateGraph`, no checkpointer, `ainvoke`; joins are `add_edge([...], node)`; the fan-out is `Send`, its "
        "map-reduce; the state only counts, single results are not kept"
    )
    packages = ("langgraph",)

    async def plan(self) -> None:
        builder: Any = StateGraph(State)
        if self.graph.shape == FAN_OUT:
            self._fan_out(builder)
        else:
            self._edges(builder)
        self.compiled = builder.compile()

    def _fan_out(self, builder: Any) -> None:
        count = len(self.graph.ids) - 2
        builder.add_node("first", suspending)
        builder.add_node("middle", suspending)
        builder.add_node("last", suspending)
        builder.add_edge(START, "first")
        builder.add_conditional_edges("first", lambda state: [Send("middle", {"ran": 0})] * count, ["middle"])
        builder.add_edge("middle", "last")
        builder.add_edge("last", END)

    def _edges(self, builder: Any) -> None:
        sources = predecessors(self.graph)
        for node in self.graph.ids:
            builder.add_node(node, noop)
        for node, before in sources.items():
            builder.add_edge(before if len(before) > 1 else before[0] if before else START, node)

    async def run(self) -> None:
        self.state = await self.compiled.ainvoke({"ran": 0}, {"recursion_limit": len(self.graph.ids) + 10})

    def results(self) -> int:
        ran: int = self.state["ran"]
        return ran


CONTESTANTS: tuple[type[Trial], ...] = (_LangGraph,)
