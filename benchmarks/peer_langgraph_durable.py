"""LangGraph with a checkpointer and `durability="sync"`: the state is committed before the next node begins."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from steps import LENGTH, Spent, drive

NAME = "LangGraph"
HOW = (
    'a `StateGraph` of 50 nodes in a chain, `ainvoke(…, durability="sync")` with `AsyncSqliteSaver` or, over a pool of '
    "connections, `AsyncPostgresSaver`"
)
PACKAGES = ("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres")


class State(TypedDict):
    """The smallest state that shows that every node ran."""

    value: int


async def noop(state: State) -> dict[str, int]:
    return {"value": state["value"] + 1}


@contextlib.asynccontextmanager
async def checkpointer(url: str, clients: int) -> AsyncIterator[Any]:
    if url.startswith("sqlite"):
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415 - where it is asked for

        async with AsyncSqliteSaver.from_conn_string(url.partition(":///")[2]) as saver:
            await saver.setup()
            yield saver
        return
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: PLC0415 - where it is asked for
    from psycopg.rows import dict_row  # noqa: PLC0415 - where it is asked for
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415 - where it is asked for

    settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(
        url.replace("+psycopg", ""), kwargs=settings, min_size=1, max_size=clients, open=False
    ) as pool:
        saver: Any = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


async def measure(url: str, clients: int, seconds: float) -> Spent:
    builder: Any = StateGraph(State)
    names = [f"n{number}" for number in range(LENGTH)]
    for name, before in zip(names, [START, *names], strict=False):
        builder.add_node(name, noop)
        builder.add_edge(before, name)
    builder.add_edge(names[-1], END)
    async with checkpointer(url, clients) as saver:
        graph = builder.compile(checkpointer=saver)

        async def once() -> int:
            config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": LENGTH + 10}
            state = await graph.ainvoke({"value": 0}, config, durability="sync")
            if state["value"] != LENGTH:
                raise RuntimeError("a wrong result")
            return LENGTH

        return await drive(once, clients, seconds)
