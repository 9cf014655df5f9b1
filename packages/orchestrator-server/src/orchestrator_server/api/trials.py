"""Trials: a workflow is run as its webhook would run it for a request that is described, whichever version, active or not.

Nothing needs to listen for that, and nothing of the workflow's triggers changes. It is an execution like any other, which
its caller has the right to start: so neither signature nor credential of the sender are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import attrs
from starlette.responses import Response

from orchestrator_core import Fault, Workflow
from orchestrator_core.codec import parse_json
from orchestrator_core.errors import DocumentError
from orchestrator_core.types import Json, Node
from orchestrator_server.api.following import body_of, ended_body, find_execution
from orchestrator_server.api.hooks import answer_of, fits, params_of, parts_of, payload_of
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.shapes import TrialRequest
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.api.triggers import stored_path
from orchestrator_server.errors import NotFound
from orchestrator_server.handles import Handle

__all__ = ["try_request"]


@attrs.frozen
class _Meant:
    """The webhook that a request means, and the request's method, path and parameters."""

    node: Node
    method: str
    path: str
    params: Mapping[str, str]


async def try_request(call: Call) -> Reply:
    """Run a version as its webhook would for a request; answers with what the sender would get, and with the records."""
    request: TrialRequest = call.body
    workflow_id = call.path["workflow_id"]
    row = await call.store.workflows.get(workflow_id)
    if row is None:
        raise NotFound(f"there is no workflow {workflow_id!r}")
    services = call.services
    workflow = await services.realms.startable(
        call.tenant, workflow_id, row.latest if request.version is None else request.version
    )
    meant = _meant(workflow, request)
    payload = payload_of(
        meant.node.config,
        method=meant.method,
        path=meant.path,
        params=meant.params,
        query={name: value if isinstance(value, str) else list(value) for name, value in request.query.items()},
        headers={name.lower(): value for name, value in request.headers.items()},
        content=request.body,
    )
    over = anyio.current_time() + services.limits.wait
    handle = await services.worker.execute(
        call.tenant, workflow, payload, start=meant.node.id, pins=request.pins, seed=request.seed
    )
    services.metrics.accepted("trial")
    response = await _response(call, meant.node.config, handle)
    answer = await handle.wait(max(0.0, over - anyio.current_time()))
    if answer.kind == "ended":
        execution = await ended_body(services, call.store, handle, answer)
    else:
        execution = await body_of(services, call.store, await find_execution(call.store, handle.id))
    body: dict[str, Json] = {"response": response, "execution": execution}
    return Reply(body, 200, {"Location": call.url(f"/executions/{handle.id}")})


def _meant(workflow: Workflow, request: TrialRequest) -> _Meant:
    """Which webhook of the version a request means.

    Raises:
        DocumentError: None; or which one is not clear.
    """
    hooks = [node for node in workflow.nodes if node.type == "webhook" and not node.disabled]
    if request.start is not None:
        hooks = [node for node in hooks if node.id == request.start]
        if not hooks:
            raise DocumentError([Fault(f"{request.start!r} is no webhook of this version", "$.start")])
    if not hooks:
        raise DocumentError([Fault("this version has no webhook: execute it with a payload", "$")])
    if request.path is None:
        if len(hooks) > 1:
            raise DocumentError([Fault(f"say which webhook is meant: {_listed(hooks)}", "$.path")])
        path = str(hooks[0].config["path"])
        if "{" in path:
            raise DocumentError([Fault(f"write the path with values for its parameters: {path}", "$.path")])
    else:
        path = request.path
    parts = parts_of(path)
    fitting = [node for node in hooks if fits(stored_path(node), parts)]
    # What is written out counts more than a parameter, as it does when requests come from outside.
    fitting.sort(key=lambda node: [part == "{}" for part in stored_path(node).split("/")])
    if not fitting:
        raise DocumentError([Fault(f"no webhook of this version listens there: there is {_listed(hooks)}", "$.path")])
    for node in fitting:
        methods = _methods(node)
        method = request.method or methods[0]
        if method in methods or (method == "HEAD" and "GET" in methods):
            return _Meant(node, method, "/".join(parts), params_of(node.config, parts))
    raise DocumentError([Fault(f"the webhook does not take this method: there is {_listed(fitting)}", "$.method")])


def _methods(node: Node) -> list[str]:
    return list(node.config.get("methods", ["POST"]))


def _listed(hooks: list[Node]) -> str:
    return "; ".join(f"{', '.join(_methods(node))} {node.config['path']} ({node.id})" for node in hooks)


async def _response(call: Call, config: Mapping[str, Any], handle: Handle) -> dict[str, Json]:
    """What the sender of the request would be answered."""
    try:
        made = await answer_of(call.services, call.store, config, handle)
    except Problem as problem:
        body: Json = problem.body(call.told.request).to_json()
        return {"status": int(problem.status), "headers": dict(problem.headers), "body": body}
    return {"status": made.status_code, "headers": dict(made.headers), "body": _shown(made)}


def _shown(made: Response) -> Json:
    """The body of an answer: JSON as it is, anything else as a text."""
    text = bytes(made.body).decode()
    if not text:
        return None
    return parse_json(text) if made.headers.get("content-type", "").startswith("application/json") else text
