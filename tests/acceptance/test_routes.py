"""The routes that the server promises, asked over HTTP as anybody would, of a server that is really there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from serving import Served

DOUBLE = {
    "schema": 1,
    "id": "double",
    "nodes": [
        {"id": "twice", "type": "code", "config": {"source": "return context.input.n * 2"}},
        {"id": "told", "type": "set", "config": {"values": {"twice": "{{ input }}"}}},
    ],
    "edges": [{"source": "twice", "target": "told"}],
}
NODE_IO = {
    *("path", "node", "type", "status", "input", "output", "outputs", "error", "attempts", "logs"),
    *("started_at", "finished_at"),
}
SETTINGS = """
[jwt]
issuer = "https://login.example.com"
audience = "orchestrator"
keys = [{ id = "one", algorithm = "RS256", file = "login.pem" }]
"""


@pytest.fixture(scope="module")
def signing() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, signing: rsa.RSAPrivateKey) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("routes")
    public = signing.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "login.pem").write_bytes(public)
    (folder / "server.toml").write_text(SETTINGS)
    with Served(folder, "--settings", "server.toml") as made:
        yield made


@pytest.fixture
def operator(served: Served) -> Iterator[httpx.Client]:
    """The operator, without a tenant."""
    headers = {"Authorization": f"Bearer {served.first_key()}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
        yield http


@pytest.fixture
def acme(operator: httpx.Client, served: Served) -> Iterator[httpx.Client]:
    """An editor of the tenant acme, which is made and goes again."""
    assert operator.post("/tenants", json={"id": "acme", "name": "Acme"}).status_code == 201
    key = operator.post("/tenants/acme/keys", json={"role": "editor"}, headers={"x-tenant-id": "acme"}).json()
    headers = {"Authorization": f"Bearer {key['credential']}", "x-tenant-id": "acme"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60) as http:
        yield http
    assert operator.delete("/tenants/acme").status_code == 204


def refusal(response: httpx.Response, status: int, code: str) -> None:
    """The one shape of errors."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), response.text
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body.keys() <= {"message", "code", "request_id", "faults", "execution_id"}


def test_tenants_are_made_listed_and_deleted(operator: httpx.Client) -> None:
    assert operator.post("/tenants", json={"id": "other", "name": "Other"}).status_code == 201
    assert "other" in [tenant["id"] for tenant in operator.get("/tenants").json()["tenants"]]
    refusal(operator.post("/tenants", json={"id": "other"}), 409, "exists")
    assert operator.delete("/tenants/other").status_code == 204
    assert "other" not in [tenant["id"] for tenant in operator.get("/tenants").json()["tenants"]]
    refusal(operator.get("/tenants/other"), 404, "not_found")


def test_workflows_are_made_listed_read_changed_and_deleted(acme: httpx.Client) -> None:
    assert acme.get("/workflows").json() == {"workflows": [], "next": None}
    made = acme.post("/workflows", json=DOUBLE)
    assert (made.status_code, made.json()["version"]) == (201, 1)
    assert made.headers["location"] == "/api/v1/workflows/double"
    assert [workflow["id"] for workflow in acme.get("/workflows").json()["workflows"]] == ["double"]
    assert acme.get("/workflows/double").json()["document"]["edges"] == DOUBLE["edges"]
    changed = acme.put("/workflows/double", json={**DOUBLE, "name": "Twice"})
    assert (changed.status_code, changed.json()["version"], changed.json()["name"]) == (200, 2, "Twice")
    refusal(acme.post("/workflows", json=DOUBLE), 409, "exists")
    bad = acme.put("/workflows/double", json={**DOUBLE, "edges": [{"source": "twice", "target": "nobody"}]})
    refusal(bad, 422, "invalid_document")
    assert [fault["place"] for fault in bad.json()["faults"]] == ["$.edges[0].target"]
    assert acme.delete("/workflows/double").status_code == 204
    refusal(acme.get("/workflows/double"), 404, "not_found")


def test_an_execution_answers_with_its_node_records_and_is_found_in_the_logs(acme: httpx.Client) -> None:
    acme.post("/workflows", json=DOUBLE)
    response = acme.post("/executions/double/execute", json={"payload": {"n": 21}})
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["output"], body["error"]) == ("succeeded", {"twice": 42}, None)
    assert body["execution_id"].startswith("exe_")
    nodes: list[dict[str, Any]] = body["nodes"]
    assert [node["path"] for node in nodes] == ["twice", "told"]
    for node in nodes:
        assert node.keys() == NODE_IO
        assert (node["status"], len(node["attempts"])) == ("succeeded", 1)
    assert (nodes[0]["input"], nodes[0]["output"]) == ({"n": 21}, 42)
    logs = acme.get("/executions/double/logs").json()
    assert logs == {"executions": [body], "next": None}
    refusal(acme.post("/executions/nope/execute", json={}), 404, "not_found")
    refusal(acme.get("/executions/nope/logs"), 404, "not_found")
    refusal(
        acme.post("/executions/double/execute", content=b"{", headers={"content-type": "application/json"}),
        400,
        "bad_json",
    )


def test_who_is_calling_and_for_whom_is_asked_first(acme: httpx.Client, operator: httpx.Client, served: Served) -> None:
    plain = httpx.Client(base_url=served.url, timeout=60)
    with plain as nobody:
        refusal(nobody.get("/workflows", headers={"x-tenant-id": "acme"}), 401, "unauthorized")
        own = {"Authorization": acme.headers["authorization"]}
        refusal(nobody.get("/workflows", headers=own), 400, "tenant_required")
        refusal(nobody.get("/workflows", headers={**own, "x-tenant-id": "somebody"}), 403, "forbidden")
        refusal(nobody.get("/tenants", headers=own), 403, "forbidden")
        assert nobody.get("/health").status_code == 200
    assert operator.get("/workflows", headers={"x-tenant-id": "acme"}).status_code == 200


def test_a_token_is_as_good_as_a_key(acme: httpx.Client, signing: rsa.RSAPrivateKey) -> None:
    claims = {
        "iss": "https://login.example.com",
        "aud": "orchestrator",
        "exp": time.time() + 60,
        "tenant": "acme",
        "role": "viewer",
        "sub": "ada",
    }

    def ask(method: str = "GET", **changes: Any) -> httpx.Response:
        token = jwt.encode({**claims, **changes}, signing, "RS256", headers={"kid": "one"})
        return acme.request(method, "/workflows", headers={"Authorization": f"Bearer {token}"})

    assert ask().status_code == 200
    refusal(ask(exp=time.time() - 600), 401, "unauthorized")
    refusal(ask(aud="another"), 401, "unauthorized")
    refusal(ask(tenant="another"), 403, "forbidden")
    refusal(ask("POST"), 403, "forbidden")


def test_what_is_not_there_is_an_error_of_the_same_shape(acme: httpx.Client) -> None:
    refusal(acme.get("/nothing/here"), 404, "not_found")
    refusal(acme.delete("/workflows"), 405, "method_not_allowed")
    assert json.loads(acme.get("/openapi.json").text)["openapi"].startswith("3.")
