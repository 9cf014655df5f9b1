"""The routes of the server itself."""

from __future__ import annotations

import anyio
from starlette.responses import PlainTextResponse, Response

from orchestrator_core.errors import OrchestratorError
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.table import Call, Reply
from orchestrator_server.auth import Forbidden
from orchestrator_server.errors import SchemaVersion

__all__ = ["health", "metrics", "openapi", "ready"]

_PATIENCE = 3.0


async def health(call: Call) -> Reply:  # noqa: ARG001 - a handler's signature
    """Whether the process answers at all."""
    return Reply({"status": "ok"})


async def ready(call: Call) -> Reply:
    """Whether requests can be served: the database answers and has this version's schema, and no end is asked for."""
    if call.services.draining:
        raise Problem(503, "draining", "the server is ending: ask another one", headers={"Retry-After": "2"})
    try:
        with anyio.fail_after(_PATIENCE):
            await call.services.storage.check()
    except SchemaVersion as error:
        raise Problem(503, error.code, str(error), headers={"Retry-After": "10"}) from None
    except (TimeoutError, OrchestratorError):
        raise Problem(503, "unavailable", "the database does not answer", headers={"Retry-After": "2"}) from None
    return Reply({"status": "ok"})


async def metrics(call: Call) -> Response:
    """Counts and durations, for Prometheus."""
    if not call.services.metrics_public:
        principal = await call.services.authenticator.authenticate(call.request.scope["headers"])
        if not principal.system:
            raise Forbidden("this needs a key of the operator")
    metrics = call.services.metrics
    try:
        with anyio.fail_after(_PATIENCE):
            await metrics.look(call.services.storage.queue.backlog)
    except (TimeoutError, OrchestratorError):
        pass  # what this process has counted is shown all the same
    return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def openapi(call: Call) -> Reply:
    """This document, for where it is mounted."""
    return Reply({**call.services.document, "servers": [{"url": call.url("")}]})
