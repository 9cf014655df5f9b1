"""The OpenAPI 3.1 document, made from the table of routes and the classes of bodies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import attrs

from orchestrator_core.codec import schema_of, wire_name
from orchestrator_core.types import Json
from orchestrator_server.api.problems import ErrorBody
from orchestrator_server.api.table import Route

__all__ = ["make_document"]

_PATTERNS = {
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
_METHODS = ("get", "post", "put", "patch", "delete")


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
        schema = _reference(route.body, schemas)
        operation["requestBody"] = {
            "required": not route.optional,
            "content": {route.takes: {"schema": schema}},
        }
    elif route.method == "ANY":
        operation["requestBody"] = {"required": False, "content": {"*/*": {"schema": {}}}}
    return operation


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = []
    for name in re.findall(r"\{([a-z_]+)\}", route.path):
        schema: dict[str, Json] = {"type": "string", "minLength": 1}
        if name in _PATTERNS:
            schema["pattern"] = _PATTERNS[name]
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
        found.append({"name": name, "in": "header", "description": told, "schema": {"type": "string"}})
    return found


def _responses(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    responses: dict[str, Json] = {}
    if route.method == "ANY":
        responses["2XX"] = {"description": "What the workflow answers.", "content": {"*/*": {"schema": {}}}}
    else:
        responses[str(route.status)] = _response(route.answer, route.media, schemas)
    for status, kind in route.also.items():
        responses[str(status)] = _response(kind, route.media, schemas)
    responses["default"] = {
        "description": "What is wrong, and what to do.",
        "content": {"application/json": {"schema": _reference(ErrorBody, schemas)}},
    }
    return responses


def _response(kind: Any, media: str, schemas: dict[str, Json]) -> dict[str, Json]:
    if kind is None and media == "application/json":
        return {"description": "Done."}
    schema = {"type": "string"} if kind is None else _reference(kind, schemas)
    told = " ".join((inspect.getdoc(kind) or "").split()) if kind is not None and attrs.has(kind) else ""
    return {"description": told or "The answer.", "content": {media: {"schema": schema}}}


def _reference(kind: Any, schemas: dict[str, Json]) -> dict[str, Json]:
    """A reference to a class's schema, which is put among the others, with those of the classes inside it."""
    if kind is dict:  # a workflow's document, or this one: judged by itself
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
        told = inspect.getdoc(kind)
        schemas[name] = {"description": " ".join(told.split()), **schema} if told else schema
    return {"$ref": f"#/components/schemas/{name}"}


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
