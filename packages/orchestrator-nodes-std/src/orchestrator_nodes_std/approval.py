"""`approval-link`: the addresses of pages where people answer a node that waits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs

from orchestrator_core import Duration, NodeContext, node_type, setting
from orchestrator_nodes_std.shapes import Json, between, check
from orchestrator_nodes_std.times import iso

__all__ = ["approval_link"]

_YEARS = 10 * 366 * 86400.0


@attrs.frozen
class ApprovalLinkConfig:
    """The settings of `approval-link`."""

    node: str = setting(
        description="The node that waits for the answer: its id, in the same graph; `ask/{{ index }}` is an item of its "
        "`for_each`.",
        examples=["ask"],
        validator=check(lambda node: None if node else "must not be empty"),
    )
    signal: str = setting(
        description="The name of the signal that it waits for.",
        examples=["decision"],
        validator=check(lambda name: None if name else "must not be empty"),
    )
    expires: Duration = setting(
        default=Duration(7 * 86400.0),
        description="How long the links hold.",
        examples=["7d"],
        validator=between(1, _YEARS, " seconds"),
    )


@node_type("approval-link", title="Approval link", example={"node": "ask", "signal": "decision", "expires": "7d"})
async def approval_link(ctx: NodeContext, config: ApprovalLinkConfig, input: Any) -> dict[str, Json]:
    """Make links through which a person approves or rejects, for a mail or a message that goes out before a `wait`.

    Delivers `url` (a page with both answers), `approve_url` and `reject_url` (one of them each) and `expires_at`. Whoever has
    a link can answer, once; the `wait` node gets `approved`, `comment` and `at`. Only a server has such pages.
    """
    path = _beside(ctx, config.node)
    seconds = float(config.expires)
    return {
        "url": ctx.approval_link(path, config.signal, expires=seconds),
        "approve_url": ctx.approval_link(path, config.signal, expires=seconds, answer="approve"),
        "reject_url": ctx.approval_link(path, config.signal, expires=seconds, answer="reject"),
        "expires_at": iso(datetime.fromtimestamp(ctx.now + seconds, UTC)),
    }


def _beside(ctx: NodeContext, node: str) -> str:
    """The path of a node in the graph that this one stands in: without the number of an own item, and the own id."""
    parts = ctx.path.split("/")
    if parts[-1] != ctx.node_id:
        parts.pop()
    return "/".join([*parts[:-1], node])
