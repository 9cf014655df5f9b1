"""The OpenAPI 3.1 document, made from the table of routes and the classes of bodies."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import attrs

from orchestrator_core.cli.schema import document_schema
from orchestrator_core.codec import schema_of, wire_name
from orchestrator_core.types import Json
from orchestrator_server.api.problems import ErrorBody
from orchestrator_server.api.table import Route

__all__ = ["make_document"]

_NAME = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
# What parameters of paths look like; where a word has several meanings, with the word before it.
_PATTERNS = {
    "secrets/name": _NAME,
    "variables/name": _NAME,
    "tenant_id": "^[A-Za-z0-9_-]{1,64}$",
    "tenant": "^[A-Za-z0-9_-]{1,64}$",
    "key_id": "^[A-Za-z0-9_-]{1,64}$",
    "workflow_id": "^(?!exe_)[A-Za-z0-9_-]{1,64}$",
    "execution_id": "^exe_[A-Za-z0-9_-]{1,64}$",
    "schedule_id": "^[A-Za-z0-9_-]{1,64}$",
    "token": "^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$",
    "version": "^[1-9][0-9]{0,8}$",
}
_TENANT: dict[str, Json] = {
    "name": "x-tenant-id",
    "in": "header",
    "description": "For which of the credential's tenants this is.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}
# What fields of bodies look like, where their handlers want more than their types say.
_BOUNDS: dict[tuple[str, str], dict[str, Json]] = {
    ("TenantRequest", "id"): {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
    ("ApprovalRequest", "path"): {"pattern": r"^[^\x00-\x1f\x7f]{1,1024}$"},
    ("ApprovalRequest", "signal"): {"pattern": r"^[^\x00-\x1f\x7f]{1,1024}$"},
    ("ScheduleRequest", "id"): {"pattern": "^[A-Za-z0-9_-]{1,64}$"},
    ("ScheduleRequest", "workflow"): {"pattern": "^(?!exe_)[A-Za-z0-9_-]{1,64}$"},
    ("LimitsBody", "running"): {"minimum": 1},
    ("SecretRequest", "value"): {"minLength": 1, "maxLength": 65_536},
    ("SignalRequest", "id"): {"pattern": r"^[^\x00-\x1f\x7f]{1,255}$"},
}
# What headers of requests look like, where not every text will do.
_TAKEN: dict[str, dict[str, Json]] = {
    "Idempotency-Key": {"pattern": r"^[^\x00-\x1f\x7f]{1,255}$"},
    "Last-Event-ID": {"pattern": "^[0-9]{1,15}$"},
}
_METHODS = ("get", "post", "put", "patch", "delete")
_WORKFLOW = "WorkflowDocument"
_EXAMPLE: dict[str, Json] = {
    "schema": 1,
    "id": "greet",
    "nodes": [
        {"id": "start", "type": "manual"},
        {"id": "hello", "type": "set", "config": {"values": {"text": "hello {{ input.name }}"}}},
    ],
    "edges": [{"source": "start", "target": "hello"}],
}
# What every route may answer, whatever it is asked for: bad input, and a body that is too slow, too large or compressed.
_EVERYWHERE = (400, 408, 413, 415)
_ERRORS = {
    400: "The request cannot be understood, or misses what it must carry.",
    401: "There is no credential, or it does not hold.",
    403: "The credential holds, and does not allow this.",
    404: "There is no such thing.",
    405: "The path takes other methods: `Allow` says which.",
    408: "The body did not come in time.",
    409: "It is at odds with what is there.",
    410: "It was there, and is over.",
    412: "It was changed meanwhile.",
    413: "The body is too large.",
    415: "The body is of another kind than is taken here, or compressed.",
    422: "The body is understood, and something in it is wrong: `faults` says what and where.",
    429: "The tenant has as many executions that have not ended as it may: `Retry-After` says when to ask again.",
}
_TOLD: dict[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}
_HEADERS: dict[str, dict[str, Json]] = {
    "X-Request-Id": {
        "description": "Finds the request in the server's logs.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "Location": {"description": "Where it is found.", "required": True, "schema": {"type": "string", "minLength": 1}},
    "ETag": {
        "description": "Names this state of the workflow.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"v[0-9]{1,9}(-[0-9]{1,9})?"$'},
    },
    "Retry-After": {
        "description": "Seconds.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    },
    "WWW-Authenticate": {"description": "`Bearer`.", "required": True, "schema": {"const": "Bearer"}},
}


def make_document(routes: Sequence[Route], version: str) -> dict[str, Json]:
    """The document for a table of routes."""
    schemas: dict[str, Json] = {}
    paths: dict[str, dict[str, Json]] = {}
    for route in routes:
        methods = _METHODS if route.method == "ANY" else (route.method.lower(),)
        for method in methods:
            operation = _operation(route, schemas)
            if route.method == "ANY":
                operation["operationId"] = f"{method}_{route.operation.partition('_')[2]}"
            paths.setdefault(route.path, {})[method] = operation
    _reference(ErrorBody, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchestrator", "version": version},
        "servers": [{"url": "/api/v1"}],
        "paths": dict(paths),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JSON Web Token."}
            },
        },
    }


def _operation(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    operation: dict[str, Json] = {
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    told = inspect.getdoc(route.handler)
    if told:
        operation["description"] = " ".join(told.split())
    if route.role is not None:
        operation["security"] = [{"bearer": []}]
        operation["x-role"] = route.role
    if route.body is not None:
        content: dict[str, Json] = {"schema": _reference(route.body, schemas)}
        if route.body is dict:
            content = {"schema": _workflow_document(schemas), "example": _EXAMPLE}
        operation["requestBody"] = {"required": not route.optional, "content": {route.takes: content}}
    elif route.method == "ANY":
        operation["requestBody"] = {"required": False, "content": {"*/*": {"schema": {}}}}
    return operation


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = []
    for before, part in pairwise(route.path.split("/")):
        if not part.startswith("{"):
            continue
        name = part[1:-1]
        schema: dict[str, Json] = {"type": "string", "minLength": 1}
        pattern = _PATTERNS.get(f"{before}/{name}", _PATTERNS.get(name))
        if pattern is not None:
            schema["pattern"] = pattern
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    for param in route.query:
        schema = dict(param.schema)
        if param.many:
            schema = {"type": "array", "items": schema}
        found.append({"name": param.name, "in": "query", "description": param.description, "schema": schema})
    if route.scope == "tenant":
        found.append({**_TENANT, "required": True})
    elif route.scope in {"any", "system"}:
        found.append({**_TENANT, "required": False})
    for name, told in route.headers.items():
        schema = {"type": "string", **_TAKEN.get(name, {})}
        found.append({"name": name, "in": "header", "description": told, "schema": schema})
    return found


def _responses(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    gives = ("X-Request-Id", *route.gives)
    responses: dict[str, Json] = {}
    if route.method == "ANY":
        responses |= _of_workflows(("2XX", "3XX", "4XX", "5XX"), "What the workflow answers.")
        for status in sorted(_refused(route)):
            responses |= _of_workflows((str(status),), _ERRORS[status], _reference(ErrorBody, schemas))
        return responses
    responses[str(route.status)] = _response(route.answer, route.media, gives, schemas)
    for status, kind in route.also.items():
        responses[str(status)] = _response(kind, route.media, gives, schemas)
    for status in sorted(_refused(route)):
        responses[str(status)] = _error(_ERRORS[status], _TOLD.get(status, ()), schemas)
    responses["5XX"] = _error("The server cannot answer now, or something went wrong there.", (), schemas)
    return responses


def _of_workflows(statuses: Sequence[str], told: str, *ours: dict[str, Json]) -> dict[str, Json]:
    """Answers that a workflow may have made: whatever it likes, with any status. ``ours``: or an error of this server."""
    schema: Json = {"anyOf": [*ours, {}]} if ours else {}
    answer = {"description": told, "headers": _headers(("X-Request-Id",)), "content": {"*/*": {"schema": schema}}}
    return dict.fromkeys(statuses, answer)


def _refused(route: Route) -> set[int]:
    """The statuses of the errors that a caller can bring about."""
    found = {*_EVERYWHERE, *route.refuses}
    if route.scope != "public":
        found |= {401, 403}
    if route.scope == "tenant" or "{" in route.path:
        found.add(404)
    if route.body is not None:
        found.add(422)
    if "If-Match" in route.headers:
        found.add(412)
    return found


def _error(told: str, headers: Sequence[str], schemas: dict[str, Json]) -> dict[str, Json]:
    schema = _reference(ErrorBody, schemas)
    return {
        "description": told,
        "headers": _headers(("X-Request-Id", *headers)),
        "content": {"application/json": {"schema": schema}},
    }


def _response(kind: Any, media: str, headers: Sequence[str], schemas: dict[str, Json]) -> dict[str, Json]:
    told: dict[str, Json] = {"description": "Done.", "headers": _headers(headers)}
    if kind is None and media == "application/json":
        return told
    schema = {"type": "string"} if kind is None else _reference(kind, schemas)
    description = " ".join((inspect.getdoc(kind) or "").split()) if kind is not None and attrs.has(kind) else ""
    return {**told, "description": description or "The answer.", "content": {media: {"schema": schema}}}


def _headers(names: Sequence[str]) -> dict[str, Json]:
    return {name: _HEADERS[name] for name in names}


def _workflow_document(schemas: dict[str, Json]) -> dict[str, Json]:
    """A reference to the schema of a workflow's document, whose parts are put among the others."""
    if _WORKFLOW not in schemas:
        whole = document_schema()
        parts: dict[str, Json] = whole.pop("$defs")
        del whole["$schema"]
        schemas[_WORKFLOW] = _among_components(whole)
        for name, part in parts.items():
            schemas[_part(name)] = _among_components(part)
    return {"$ref": f"#/components/schemas/{_WORKFLOW}"}


def _part(name: str) -> str:
    return f"{_WORKFLOW}{name.title()}"


def _among_components(schema: Json) -> Json:
    """The schema with references to where its parts stand in this document."""
    if isinstance(schema, list):
        return [_among_components(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _among_components(value) for key, value in schema.items()}
    reference = made.get("$ref")
    if isinstance(reference, str):
        made["$ref"] = f"#/components/schemas/{_part(reference.rpartition('/')[2])}"
    return made


def _reference(kind: Any, schemas: dict[str, Json]) -> dict[str, Json]:
    """A reference to a class's schema, which is put among the others, with those of the classes inside it."""
    if kind is dict:  # this document
        return {"type": "object"}
    name: str = kind.__name__
    if name not in schemas:
        schemas[name] = {}  # known from now on: a class may hold itself
        schema = schema_of(kind)
        properties: dict[str, Json] = schema["properties"]
        for field, hint in get_type_hints(kind).items():
            inner = _with_references(hint, properties.get(wire_name(field)), schemas)
            if inner is not None:
                properties[wire_name(field)] = inner
            if (name, field) in _BOUNDS:
                properties[wire_name(field)] = _bounded(properties[wire_name(field)], _BOUNDS[name, field])
        told = inspect.getdoc(kind)
        schemas[name] = {"description": " ".join(told.split()), **schema} if told else schema
    return {"$ref": f"#/components/schemas/{name}"}


def _bounded(schema: dict[str, Json], bounds: dict[str, Json]) -> dict[str, Json]:
    """The schema with bounds, which do not hold for ``null`` where that is allowed."""
    choices = schema.get("anyOf")
    if not isinstance(choices, list):
        return {**schema, **bounds}
    return {**schema, "anyOf": [item if item == {"type": "null"} else {**item, **bounds} for item in choices]}


def _with_references(hint: Any, schema: Any, schemas: dict[str, Json]) -> Any:
    """The schema of a field, with references where classes stand in it; ``None``: as it is."""
    if attrs.has(hint):
        reference = _reference(hint, schemas)
        told = {key: schema[key] for key in ("description",) if isinstance(schema, dict) and key in schema}
        return {**reference, **told}
    inner = [argument for argument in get_args(hint) if attrs.has(argument)]
    if not inner or not isinstance(schema, dict):
        return None
    reference = _reference(inner[0], schemas)
    if schema.get("type") == "array":
        return {**schema, "items": reference}
    return {**{key: schema[key] for key in ("description",) if key in schema}, "anyOf": [reference, {"type": "null"}]}
