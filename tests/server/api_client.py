"""A client of the API for tests, which holds every answer against the OpenAPI document."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import httpx
import jsonschema

from conftest import RESIDENTS
from orchestrator_server.app import App, Parts, create_app
from orchestrator_server.auth import Role, new_key
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import Tenant
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage

KEY = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
BASE = "http://test/api/v1"


@attrs.define
class Api:
    """The API of an application that runs, as the operator of the tenant ``acme``."""

    app: App
    parts: Parts
    http: httpx.AsyncClient
    keys: dict[tuple[str | None, str], str] = attrs.field(factory=dict)
    tenant: str | None = "acme"
    token: str = ""

    @property
    def storage(self) -> Storage:
        return self.parts.storage

    async def key(self, tenant: str | None, role: Role) -> str:
        """The credential of a key, made when it is first asked for."""
        if (tenant, role) not in self.keys:
            key, credential = new_key(tenant, role, now=time.time())
            await self.storage.keys.create(key)
            self.keys[tenant, role] = credential
        return self.keys[tenant, role]

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        token: str | None = None,
        tenant: str | None = "",
        headers: dict[str, Any] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a request. ``tenant`` ``None`` sends no header, ``token`` ``""`` no credential."""
        sent = dict(headers or {})
        token = self.token if token is None else token
        tenant = self.tenant if tenant == "" else tenant
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if tenant is not None:
            sent["x-tenant-id"] = tenant
        if json is not None:
            more["json"] = json
        response = await self.http.request(method, path, headers=sent, **more)
        self.check(response)
        return response

    async def get(self, path: str, **more: Any) -> Any:
        response = await self.call("GET", path, **more)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, json: Any = None, *, status: int | None = None, **more: Any) -> Any:
        response = await self.call("POST", path, json, **more)
        assert response.status_code == status if status else response.is_success, response.text
        return response.json() if response.content else None

    def check(self, response: httpx.Response) -> None:
        """The answer is what the document promises."""
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"
        if response.status_code >= 400:
            body = response.json()
            assert isinstance(body["message"], str)
            assert isinstance(body["code"], str)
            self.fits({"$ref": "#/components/schemas/ErrorBody"}, body)
            assert "Traceback" not in response.text
            return
        operation = self.operation(response.request.method, response.request.url.path)
        if operation is None or not response.content:
            return
        told = operation["responses"].get(str(response.status_code), operation["responses"].get("2XX"))
        assert told is not None, f"{response.status_code} is not in the document"
        schema = told["content"].get("application/json", {}).get("schema")
        if schema is not None:
            self.fits(schema, response.json())

    def fits(self, schema: Any, value: Any) -> None:
        whole = {**schema, "components": self.app.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)

    def operation(self, method: str, path: str) -> Any:
        path = path.removeprefix("/api/v1")
        paths: Any = self.app.document["paths"]
        for template, methods in sorted(paths.items(), key=lambda item: item[0].count("{")):
            if re.fullmatch(re.sub(r"\{path\}", ".+", re.sub(r"\{(?!path)[a-z_]+\}", "[^/]+", template)), path):
                found = methods.get("get" if method == "HEAD" else method.lower())
                if found is not None:
                    return found
        return None


@contextlib.asynccontextmanager
async def running(storage: Storage, *, work: bool = True, **settings: Any) -> AsyncIterator[Api]:
    """The API over a storage, with the tenants ``acme`` and ``Acme``, which only look alike."""
    app = create_app(Settings(secret_keys=KEY, **settings), storage=storage, work=work, schedule=work)
    async with app.running() as parts, client_of(app) as http:
        for name in RESIDENTS:
            if await storage.tenants.get(name) is None:
                await storage.tenants.create(Tenant(name))
        api = Api(app, parts, http)
        api.token = await api.key(None, "admin")
        yield api


def client_of(app: Any, **more: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url=BASE, **more)


async def make_storage(kind: str, folder: Path) -> Storage:
    """An empty storage."""
    if kind == "memory":
        return MemoryStorage()
    return await SqlStorage.open(f"sqlite:///{folder}/data.db")


def document(*nodes: dict[str, Any], name: str = "w", **more: Any) -> dict[str, Any]:
    """A workflow whose nodes follow each other."""
    edges = [{"source": a["id"], "target": b["id"]} for a, b in itertools.pairwise(nodes)]
    return {"schema": 1, "id": name, "nodes": list(nodes), "edges": edges, **more}


def setting(name: str, **values: Any) -> dict[str, Any]:
    """A node that gives an object."""
    return {"id": name, "type": "set", "config": {"values": values}}


Made = Callable[..., Any]
