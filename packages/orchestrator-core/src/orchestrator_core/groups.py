"""The node types that the law itself gives a meaning: ``loop`` and ``workflow`` hold graphs, ``call`` runs a callable."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import anyio.to_thread
import attrs

from orchestrator_core.errors import NodeError
from orchestrator_core.hookspecs import hookimpl
from orchestrator_core.nodes import NodeContext, NodeType, node_type, setting
from orchestrator_core.types import Duration, Json

__all__ = ["CallConfig", "CorePlugin", "LoopConfig", "WorkflowConfig", "call", "loop", "workflow"]


@attrs.frozen
class LoopConfig:
    """What a loop repeats, and until when."""

    body: Mapping[str, Json] = setting(
        description="The graph that is repeated: a document with `nodes`, `edges`, `output`."
    )
    max_iterations: int = setting(
        description="How often at most. With `until` it is a failure (`loop_exhausted`) to get there.",
        validator=attrs.validators.ge(1),
    )
    until: str | None = setting(
        default=None,
        description="Ends the loop when true, asked after each iteration; sees the iteration's `nodes`, and its result as `input`.",
        examples=["{{ input.done }}"],
    )
    delay: Duration = setting(default=Duration(0.0), description="The time between two iterations.")


@attrs.frozen
class WorkflowConfig:
    """The graph that runs as one node."""

    body: Mapping[str, Json] | None = setting(default=None, description="An inline graph; shares the journal.")
    workflow: str | None = setting(
        default=None, description="The id of a stored workflow, which runs as a child execution."
    )

    def __attrs_post_init__(self) -> None:
        if (self.body is None) == (self.workflow is None):
            raise ValueError("give either an inline `body`, or `workflow` with the id of a stored one")


@attrs.frozen
class CallConfig:
    """Which callable runs."""

    function: str = setting(description="The name under which the engine was given the callable.", literal=True)
    arguments: Mapping[str, Json] = setting(
        factory=dict, description="Keyword arguments.", examples=[{"limit": "{{ input.limit }}"}]
    )


@node_type("call", example={"function": "double"})
async def call(ctx: NodeContext, config: CallConfig, input: Json) -> Json:
    """Call a Python function of the program that embeds the engine.

    The document names it; it is found only among the callables that the `Engine` was given and never imported by its
    name. It gets the input as its first argument, and the context where it has a parameter `ctx`. A plain function runs
    in a worker thread, a coroutine function in the event loop.
    """
    function = ctx.services.callables.get(config.function)
    if function is None:
        known = ", ".join(sorted(ctx.services.callables)) or "none"
        raise NodeError(
            f"there is no callable {config.function!r}: give it to the engine, as Engine(callables={{...}}); it has {known}",
            code="unknown_callable",
        )
    arguments: dict[str, Any] = dict(config.arguments)
    if _wants_context(function):
        arguments["ctx"] = ctx
    if inspect.iscoroutinefunction(function):
        return await function(input, **arguments)
    return await anyio.to_thread.run_sync(lambda: function(input, **arguments), abandon_on_cancel=True)


def _wants_context(function: Any) -> bool:
    try:
        return "ctx" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


loop = NodeType(
    name="loop",
    version=1,
    function=None,
    config=LoopConfig,
    inputs=None,
    group="loop",
    title="Loop",
    description=(
        "Repeat a graph. The first iteration gets the loop's input, every other what the one before gave; the loop gives "
        "what the last one gave. Without `until` it ends well after `max_iterations`."
    ),
    example={"body": {"nodes": [{"id": "step", "type": "set"}]}, "until": "{{ input.done }}", "max_iterations": 10},
)

workflow = NodeType(
    name="workflow",
    version=1,
    function=None,
    config=WorkflowConfig,
    inputs=None,
    group="workflow",
    title="Workflow",
    description=(
        "Run a graph as one node: an inline `body`, or a stored workflow as a child execution whose version is fixed when "
        "the parent starts. Its roots get the node's input; what it gives is the node's output."
    ),
    example={"body": {"nodes": [{"id": "step", "type": "set"}]}},
)


class CorePlugin:
    """Registers what the machine and the embedding program bring themselves."""

    @hookimpl
    def register_node_types(self) -> Sequence[NodeType]:
        """``call``, ``loop`` and ``workflow``."""
        return [call, loop, workflow]
