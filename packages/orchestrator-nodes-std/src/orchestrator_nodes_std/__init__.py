"""The standard node types, as a plugin like any other.

Found through the entry point ``std`` of the group ``orchestrator.plugins``.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from orchestrator_core import HttpPolicy, Language, NodeType, hookimpl
from orchestrator_nodes_std import approval, code, data, flow, http, http_client, triggers, values, wait

__all__ = ["make_http_client", "register_languages", "register_node_types"]


@hookimpl
def register_node_types() -> list[NodeType]:
    """The standard node types, in the order in which they are shown."""
    return [
        triggers.manual,
        triggers.webhook,
        triggers.schedule,
        triggers.respond,
        flow.if_,
        flow.switch,
        flow.filter_,
        flow.merge,
        flow.split,
        flow.limit,
        flow.log,
        flow.fail,
        data.set_,
        data.map_,
        data.aggregate,
        data.summarize,
        data.sort,
        data.dedupe,
        values.datetime_,
        values.crypto,
        wait.wait,
        approval.approval_link,
        code.code,
        http.http,
    ]


@hookimpl
def register_languages() -> Sequence[Language]:
    """JavaScript and Python; new ones per call, because each engine closes its own."""
    return [code.JavaScriptLanguage(), code.PythonLanguage()]


@hookimpl
def make_http_client(policy: HttpPolicy) -> httpx.AsyncClient:
    """The client behind ``ctx.http``, which refuses forbidden addresses."""
    return http_client.make_http_client(policy)
