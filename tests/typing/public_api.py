"""What the public API promises to type checkers. Nothing here runs: mypy and pyright read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import assert_type

import attrs

from orchestrator_core import (
    DocumentError,
    Engine,
    Event,
    Execution,
    ExecutionStatus,
    Failure,
    Fault,
    Journal,
    Json,
    MemoryJournal,
    NodeContext,
    NodeIO,
    NodeStatus,
    NodeType,
    Result,
    Workflow,
    hookimpl,
    node_type,
    setting,
)


@attrs.frozen
class SlugifyConfig:
    separator: str = setting(default="-", description="What stands between words.")


@node_type("acme.slugify", version=1, pure=True)
async def slugify(ctx: NodeContext, config: SlugifyConfig, input: str) -> str:
    return config.separator.join(input.lower().split())


@hookimpl
def register_node_types() -> Sequence[NodeType]:
    return [slugify]


async def embedder() -> None:
    workflow = Workflow.load("orders.json")
    assert_type(workflow, Workflow)
    journal: Journal = MemoryJournal()
    async with Engine(node_types=[slugify], journal=journal) as engine:
        assert_type(engine, Engine)
        result = await engine.run(workflow, {"qty": 3})
        assert_type(result, Result)
        assert_type(result.status, ExecutionStatus)
        assert_type(result.error, Failure | None)
        record = result.node("price")
        assert_type(record, NodeIO)
        assert_type(record.status, NodeStatus)
        execution = await engine.start(workflow, start="hook", pins={"a": {"main": 1}})
        assert_type(execution, Execution)
        events: AsyncIterator[Event] = execution.events()
        async for event in events:
            assert_type(event.at, float)
        await execution.signal("approve", "answer", {"yes": True})
        await execution.cancel()
        assert_type(engine.validate(workflow), list[Fault])
    assert_type(slugify, NodeType)


def faults(text: str) -> tuple[Fault, ...]:
    try:
        Workflow.from_yaml(text)
    except DocumentError as error:
        return error.faults
    return ()


def waiting(ctx: NodeContext) -> Json:
    if ctx.resumed is None:
        ctx.wait_for_signal("go", expires=3.0)
    return ctx.resumed.payload
