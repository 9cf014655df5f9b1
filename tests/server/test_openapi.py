"""The OpenAPI document: whole, valid, and of the same table as the routes."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from api_client import running

from orchestrator_server.api.openapi import make_document
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.memory import MemoryStorage

pytestmark = pytest.mark.anyio
DOCUMENT: Any = make_document(ROUTES, "1")


async def test_it_is_served_to_everybody() -> None:
    async with running(MemoryStorage()) as api:
        answer = await api.call("GET", "/openapi.json", token="", tenant=None)
        assert answer.json() == api.app.document
        assert answer.json()["openapi"] == "3.1.0"


def test_every_route_is_in_it() -> None:
    methods = ["get", "post", "put", "patch", "delete"]
    for route in ROUTES:
        for method in methods if route.method == "ANY" else [route.method.lower()]:
            assert method in DOCUMENT["paths"][route.path]
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["description"] for operation in operations)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found.append(value["$ref"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(DOCUMENT)
    schemas = DOCUMENT["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in found} == schemas.keys()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_what_is_secret_is_only_written() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["SecretRequest"]["properties"]["value"]["writeOnly"] is True
    assert set(schemas["SecretBody"]["properties"]) == {"name", "version", "updated_at"}
    assert "hash" not in schemas["KeyBody"]["properties"]


def test_parameters_are_told_and_credentials_asked_for() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = {(p["name"], p["in"]) for p in operation["parameters"]}
            for part in path.split("/"):
                if part.startswith("{"):
                    assert (part[1:-1], "path") in named
            public = path.startswith(("/hooks", "/approvals", "/health", "/ready", "/metrics", "/openapi"))
            assert ("security" in operation) != public, path
