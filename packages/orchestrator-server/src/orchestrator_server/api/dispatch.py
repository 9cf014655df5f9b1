"""From a request to its handler and back: the same steps for every route, in this order.

Who is calling, what they may do and for which tenant is settled before a byte of the body is read.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.routing import Route as PathRoute
from starlette.types import Receive, Scope, Send

from orchestrator_core.codec import dump_json, unstructure
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.types import Json
from orchestrator_server.api.bodies import FORM, check_json_media, read_body, read_form, read_json, structured
from orchestrator_server.api.problems import Problem, problem_of
from orchestrator_server.api.table import Call, Reply, Route, Services, Told
from orchestrator_server.approvals import hide_links
from orchestrator_server.auth import Forbidden, Principal, select_tenant

__all__ = ["PREFIX", "make_router"]

PREFIX = "/api/v1"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))  # unless a handler says otherwise
_PROBES = frozenset({"/health", "/ready", "/metrics"})  # they come all the time
_log = logging.getLogger("orchestrator.api")


def make_router(routes: Sequence[Route], services: Services) -> Router:
    """A router for the table. Paths without a route, and methods without one, are answered as errors too."""
    by_path: dict[str, dict[str, Route]] = {}
    for route in routes:
        for path in (PREFIX + route.path, *([route.path] if route.rooted else [])):
            by_path.setdefault(path, {})[route.method] = route
    # The path of a webhook may have any number of parts. They come first: nothing is asked for so often.
    paths = sorted(by_path, key=lambda path: "{path}" not in path)
    made: list[BaseRoute] = [
        PathRoute(path.replace("{path}", "{path:path}"), _Endpoint(by_path[path], services)) for path in paths
    ]
    return Router(made, redirect_slashes=False, default=_Endpoint({}, services))


class _Endpoint:
    """All methods of one path. With none at all it answers that there is no such path."""

    def __init__(self, routes: Mapping[str, Route], services: Services) -> None:
        self._routes = routes
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        begun = time.perf_counter()
        request_id = _request_id(request, self._services)
        method = scope["method"]
        route = self._routes.get("ANY") or self._routes.get("GET" if method == "HEAD" else method)
        shown = route.path if route is not None else next((r.path for r in self._routes.values()), "none")
        word = method if method in METHODS else "other"
        told = Told(request_id)
        metrics, tracing = self._services.metrics, self._services.tracing
        span = None if tracing is None else tracing.request(word, shown, scope)
        metrics.in_flight += 1
        status = 500
        try:
            try:
                response = await self._respond(route, request, told)
            except ClientDisconnect:
                status = 499
                return
            status = response.status_code
            response.raw_headers += _missing(response.raw_headers, request_id)
            await response(scope, receive, send)
        finally:
            metrics.in_flight -= 1
            seconds = time.perf_counter() - begun
            metrics.request(word, shown, status, seconds)
            if span is not None:
                span.over(status, told.tags())
            level = logging.DEBUG if shown in _PROBES else logging.INFO
            if _log.isEnabledFor(level):
                extra = {**told.tags(), "method": word, "route": shown, "status": status, "seconds": round(seconds, 6)}
                _log.log(level, "%s %s %d", word, shown, status, extra=extra)

    async def _respond(self, route: Route | None, request: Request, told: Told) -> Response:
        try:
            return await _handle(self._checked(route), request, told, self._services)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer has the one shape
            problem = problem_of(error)
            if problem is None:
                _log.exception("a request failed, and nobody foresaw it", extra=told.tags())
                problem = Problem(500, "internal", "something went wrong here: the server's log says what")
            return _json_response(problem.body(told.request).to_json(), problem.status, problem.headers)

    def _checked(self, route: Route | None) -> Route:
        if route is not None:
            return route
        if not self._routes:
            raise Problem(404, "not_found", "there is nothing under this path")
        allowed = ", ".join(sorted({*self._routes, *(["HEAD"] if "GET" in self._routes else [])}))
        raise Problem(405, "method_not_allowed", f"this path takes {allowed}", headers={"Allow": allowed})


async def _handle(route: Route, request: Request, told: Told, services: Services) -> Response:
    principal, tenant = await _authorise(route, request, services)
    if principal is not None:
        told.principal, told.tenant = principal.name, tenant or request.path_params.get("tenant_id")
    query = _read_query(route, request)
    body = await _read(route, request, services)
    store = await services.realms.store(tenant) if tenant is not None and route.scope == "tenant" else None
    call = Call(request, services, told, request.path_params, query, body, principal, store)
    answer = await route.handler(call)
    if isinstance(answer, Response):
        return answer
    return _respond_with(route, answer, shown=principal is None or principal.has("operator"))


async def _authorise(route: Route, request: Request, services: Services) -> tuple[Principal | None, str | None]:
    """Who is calling, and for which tenant."""
    if route.scope == "public":
        return None, None
    headers: Sequence[tuple[bytes, bytes]] = request.scope["headers"]
    principal = await services.authenticator.authenticate(headers)
    tenant = select_tenant(principal, headers, needed=route.scope == "tenant")
    if route.scope == "system" and not principal.system:
        raise Forbidden("this needs a key of the operator")
    if route.role is not None and not principal.has(route.role):
        raise Forbidden(f"this needs the role {route.role}; this credential has {principal.role}")
    inner = request.path_params.get("tenant_id")
    if inner is not None:
        # The tenant of the path is authorised by itself: the header's being allowed says nothing about it.
        if not principal.may_act_for(inner):
            raise Forbidden("this credential does not allow that tenant")
        if tenant is not None and tenant != inner:
            raise Forbidden("x-tenant-id names another tenant than the path")
    return principal, tenant


def _read_query(route: Route, request: Request) -> dict[str, Any]:
    params = {param.name: param for param in route.query}
    values: dict[str, Any] = {param.name: () if param.many else param.default for param in route.query}
    if route.method == "ANY":
        return values
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        given.setdefault(name, []).append(value)
    for name, texts in given.items():
        param = params.get(name)
        if param is None:
            known = f"there is {', '.join(params)}" if params else "there is none here"
            raise Problem(400, "bad_query", f"the query parameter {name[:80]!r} is not known: {known}")
        if len(texts) > 1 and not param.many:
            raise Problem(400, "bad_query", f"the query parameter {name!r} stands there more than once")
        try:
            read = tuple(param.read(one) for one in texts)
        except ValueError as error:
            raise Problem(400, "bad_query", f"the query parameter {name!r} {error}") from None
        values[name] = read if param.many else read[0]
    return values


async def _read(route: Route, request: Request, services: Services) -> Any:
    """The body, as the route's class. Routes without one take none."""
    if route.method == "ANY":
        return None
    limits = services.limits
    # What is any object is a workflow's document: it may have ten thousand nodes.
    data = await read_body(request, limits.document if route.body is dict else limits.body, limits.body_time)
    if route.body is None:
        if data:
            raise Problem(400, "bad_request", "this takes no body: leave it out")
        return None
    if not data and route.optional:
        return route.body()
    if route.takes == FORM:
        return structured(read_form(data, request), route.body)
    check_json_media(request)
    value = read_json(data)
    if route.body is dict and not isinstance(value, dict):
        raise DocumentError([Fault("must be an object")])
    return value if route.body is dict else structured(value, route.body)


def _respond_with(route: Route, answer: Reply, *, shown: bool) -> Response:
    """Args: shown: whether links through which approvals are given can be used."""
    status = answer.status if answer.status is not None else route.status
    if answer.body is None and status in {204, 304}:
        return Response(status_code=status, headers=dict(answer.headers))
    body = answer.body
    value = body if isinstance(body, dict) else unstructure(body)
    return _json_response(value, HTTPStatus(status), answer.headers, shown=shown)


def _json_response(body: Json, status: HTTPStatus, headers: Mapping[str, str], *, shown: bool = True) -> Response:
    try:
        text = dump_json(body) if shown else hide_links(dump_json(body))
        data = text.encode()
    except UnicodeEncodeError:
        data = json.dumps(body).encode()
    return Response(data, status, dict(headers), media_type="application/json")


def _missing(given: Sequence[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers that every answer has."""
    names = {name for name, _ in given}
    added = [(b"x-request-id", request_id.encode())]
    return added + [header for header in _ALWAYS if header[0] not in names]


def _request_id(request: Request, services: Services) -> str:
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else services.new_request_id()
