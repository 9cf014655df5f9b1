"""What a route is, and what its handler is given. The table itself is in :mod:`orchestrator_server.api.routes`."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

import attrs
from starlette.requests import Request
from starlette.responses import Response

from orchestrator_core import Engine
from orchestrator_core.codec import parse_time
from orchestrator_core.types import Json
from orchestrator_server.api.problems import Problem
from orchestrator_server.approvals import ApprovalLinks
from orchestrator_server.auth import Authenticator, Principal, Role
from orchestrator_server.metrics import Metrics
from orchestrator_server.realms import Realms
from orchestrator_server.sealing import Sealer
from orchestrator_server.storage import Storage, TenantStore
from orchestrator_server.tracing import Tracing
from orchestrator_server.worker import Worker

__all__ = [
    "ApiLimits",
    "Call",
    "Param",
    "Reply",
    "Route",
    "Services",
    "Told",
    "flag",
    "number",
    "one_of",
    "text",
    "time_of",
]

Scope = Literal["public", "any", "system", "tenant"]


@attrs.frozen
class ApiLimits:
    """Bounds on requests: bytes and seconds."""

    body: int = 2 * 1024 * 1024  # of a request's body
    document: int = 8 * 1024 * 1024  # of a workflow's document
    body_time: float = 20.0  # until a body has come
    wait: float = 30.0  # for an execution's end, or a webhook's answer
    stream_check: float = 2.0  # between two looks whether a stream's credential still holds
    heartbeat: float = 15.0  # between two signs of life in a stream
    poll: float = 0.5  # between two looks at an execution that runs elsewhere, at most


@attrs.define(eq=False)
class Services:
    """What handlers work with: one for each application."""

    storage: Storage
    engine: Engine
    realms: Realms
    worker: Worker
    sealer: Sealer
    links: ApprovalLinks
    authenticator: Authenticator
    limits: ApiLimits = attrs.field(factory=ApiLimits)
    metrics: Metrics = attrs.field(factory=Metrics)
    metrics_public: bool = False
    tracing: Tracing | None = None
    draining: bool = False  # it is asked to end: nothing new is begun, nothing long is waited for
    document: Mapping[str, Json] = attrs.field(factory=dict)  # OpenAPI
    requests: Iterator[int] = attrs.field(factory=itertools.count)
    process: str = attrs.field(factory=lambda: secrets.token_hex(5))  # what the ids of its requests begin with

    @property
    def patience(self) -> float:
        """How long a request waits for an execution, at most."""
        return 0.0 if self.draining else self.limits.wait

    def new_request_id(self) -> str:
        """An id for a request: another one for each. It finds the request in logs, nothing is allowed by it."""
        return f"{self.process}{next(self.requests):06x}"


@attrs.define(eq=False)
class Told:
    """What the log says of a request, said by whoever finds it out. Nothing is decided by it."""

    request: str
    tenant: str | None = None
    principal: str | None = None
    execution: str | None = None

    def tags(self) -> dict[str, str]:
        """As extra of a record."""
        tags = {
            "request": self.request,
            "tenant": self.tenant,
            "principal": self.principal,
            "execution": self.execution,
        }
        return {name: value for name, value in tags.items() if value is not None}


@attrs.frozen
class Reply:
    """What a handler answers with: JSON, and headers."""

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Call:
    """One request, as far as it is understood when its handler is called.

    ``tenant`` and ``store`` are there for routes of a tenant, ``principal`` for all that are not public.
    """

    request: Request
    services: Services
    told: Told
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Any = None
    given_principal: Principal | None = None
    given_store: TenantStore | None = None

    @property
    def principal(self) -> Principal:
        """Who is calling."""
        assert self.given_principal is not None  # noqa: S101 - the dispatcher has seen to it
        return self.given_principal

    @property
    def store(self) -> TenantStore:
        """What the tenant has."""
        assert self.given_store is not None  # noqa: S101 - as above
        return self.given_store

    @property
    def tenant(self) -> str:
        """For whom it is."""
        return self.store.tenant

    def header(self, name: str) -> str | None:
        """A header that may stand in the request once."""
        values = self.request.headers.getlist(name)
        if len(values) > 1:
            raise Problem(400, "bad_request", f"the header {name} stands in the request more than once")
        return values[0] if values else None

    def url(self, path: str) -> str:
        """The path of a resource of this API, wherever it is mounted."""
        return f"{quote(self.request.scope.get('root_path', ''))}/api/v1{path}"


@attrs.frozen
class Param:
    """A parameter of the query: how it is read, and its JSON Schema. ``many``: it may be repeated."""

    name: str
    read: Callable[[str], Any]
    schema: Mapping[str, Json]
    description: str = ""
    default: Any = None
    many: bool = False


Handler = Callable[[Call], Awaitable[Reply | Response]]


@attrs.frozen
class Route:
    """One line of the table.

    Attributes:
        method: An HTTP method, or ``ANY``.
        path: Below ``/api/v1``; parameters in braces.
        handler: What answers.
        summary: One line, for the OpenAPI document.
        scope: ``public`` asks for no credential; ``any`` for one; ``system`` for an operator's; ``tenant`` for one that allows the
            tenant of ``x-tenant-id``.
        role: The least role; ``None`` for public routes.
        body: The class of the request's body; ``None``: it has none, or the handler reads it.
        optional: The body may be left out: its defaults count.
        answer: The class of the answer's body; ``None``: it has none, or none in JSON.
        status: The status of success.
        query: What the query may hold; anything else is refused.
        also: Further statuses of success: status -> class of the body.
        headers: Headers of the request that count: name -> what for.
        gives: Headers of a successful answer.
        refuses: Statuses of errors of its own, beside those that every such route has.
        takes: The media type of the request's body: JSON, or a form.
        media: The answer's media type.
        rooted: It is also there without ``/api/v1``.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope
    role: Role | None = None
    body: Any = None
    optional: bool = False
    answer: Any = None
    status: int = 200
    query: tuple[Param, ...] = ()
    also: Mapping[int, Any] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)
    gives: tuple[str, ...] = ()
    refuses: tuple[int, ...] = ()
    takes: str = "application/json"
    media: str = "application/json"
    rooted: bool = False

    @property
    def operation(self) -> str:
        """A name for it that no other route has."""
        words = re.sub(r"[^A-Za-z0-9]+", "_", self.path.replace("{", "").replace("}", "")).strip("_")
        return f"{self.method.lower()}_{words}"


# --- parameters of queries --------------------------------------------------------------------------------------------


def number(name: str, description: str, *, least: int, most: int = 2**31 - 1, default: int | None = None) -> Param:
    """A whole number."""

    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise ValueError(f"is no whole number from {least} to {most}")
        return int(value)

    schema: dict[str, Json] = {"type": "integer", "minimum": least, "maximum": most}
    return Param(name, read, schema if default is None else {**schema, "default": default}, description, default)


def text(name: str, description: str, *, longest: int = 1024, pattern: str | None = None) -> Param:
    """A text."""

    def read(value: str) -> str:
        if not 0 < len(value) <= longest or (pattern and not re.search(pattern, value)):
            raise ValueError("has a form that is not taken here")
        return value

    schema: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": longest}
    return Param(name, read, {**schema, "pattern": pattern} if pattern else schema, description)


def one_of(
    name: str, description: str, choices: tuple[str, ...], *, default: str | None = None, many: bool = False
) -> Param:
    """One word of a list."""

    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return value

    schema: dict[str, Json] = {"type": "string", "enum": list(choices)}
    if default is not None:
        schema["default"] = default
    return Param(name, read, schema, description, default, many)


def flag(name: str, description: str, *, default: bool) -> Param:
    """``true`` or ``false``."""

    def read(value: str) -> bool:
        if value not in {"true", "false"}:
            raise ValueError("is neither true nor false")
        return value == "true"

    return Param(name, read, {"type": "boolean", "default": default}, description, default)


def time_of(name: str, description: str) -> Param:
    """An ISO 8601 time; without an offset it is UTC."""

    def read(value: str) -> float:
        try:
            return parse_time(value)
        except (ValueError, OverflowError):
            raise ValueError("is no ISO 8601 time, such as 2026-11-23T04:00:00Z") from None

    return Param(name, read, {"type": "string", "format": "date-time"}, description)
