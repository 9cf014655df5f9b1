"""Who may do what: every route, every role, every tenant; keys and tokens that do not hold."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import attrs
import jwt
import pytest
from api_client import Api, document, running, setting
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from conftest import RESIDENTS
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.auth import (
    ROLES,
    Authenticator,
    Forbidden,
    JwtKey,
    JwtSettings,
    Principal,
    TenantNeeded,
    Unauthorized,
    new_key,
    select_tenant,
)
from orchestrator_server.errors import Invalid
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import Tenant
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio

# Every route, for whom it is and the least role: written down here a second time, so that nobody changes it by the way.
MATRIX: dict[str, tuple[str, str | None]] = {
    "GET /workflows": ("tenant", "viewer"),
    "POST /workflows": ("tenant", "editor"),
    "GET /workflows/{workflow_id}": ("tenant", "viewer"),
    "PUT /workflows/{workflow_id}": ("tenant", "editor"),
    "DELETE /workflows/{workflow_id}": ("tenant", "editor"),
    "GET /workflows/{workflow_id}/versions": ("tenant", "viewer"),
    "GET /workflows/{workflow_id}/versions/{version}": ("tenant", "viewer"),
    "POST /workflows/{workflow_id}/activate": ("tenant", "editor"),
    "GET /tenants": ("system", "viewer"),
    "POST /tenants": ("system", "admin"),
    "GET /tenants/{tenant_id}": ("any", "viewer"),
    "PATCH /tenants/{tenant_id}": ("system", "admin"),
    "DELETE /tenants/{tenant_id}": ("system", "admin"),
    "GET /tenants/{tenant_id}/keys": ("any", "admin"),
    "POST /tenants/{tenant_id}/keys": ("any", "admin"),
    "DELETE /tenants/{tenant_id}/keys/{key_id}": ("any", "admin"),
    "POST /executions/{workflow_id}/execute": ("tenant", "operator"),
    "POST /executions/{workflow_id}/request": ("tenant", "operator"),
    "GET /executions/{workflow_id}/logs": ("tenant", "viewer"),
    "GET /executions": ("tenant", "viewer"),
    "GET /executions/{execution_id}": ("tenant", "viewer"),
    "GET /executions/{execution_id}/events": ("tenant", "viewer"),
    "POST /executions/{execution_id}/cancel": ("tenant", "operator"),
    "POST /executions/{execution_id}/retry": ("tenant", "operator"),
    "POST /executions/{execution_id}/revive": ("tenant", "operator"),
    "POST /executions/{execution_id}/signals/{name}": ("tenant", "operator"),
    "POST /executions/{execution_id}/approvals": ("tenant", "operator"),
    "GET /secrets": ("tenant", "editor"),
    "PUT /secrets/{name}": ("tenant", "editor"),
    "DELETE /secrets/{name}": ("tenant", "editor"),
    "GET /variables": ("tenant", "viewer"),
    "GET /variables/{name}": ("tenant", "viewer"),
    "PUT /variables/{name}": ("tenant", "editor"),
    "DELETE /variables/{name}": ("tenant", "editor"),
    "GET /schedules": ("tenant", "viewer"),
    "GET /schedules/{schedule_id}": ("tenant", "viewer"),
    "POST /schedules": ("tenant", "editor"),
    "PUT /schedules/{schedule_id}": ("tenant", "editor"),
    "PATCH /schedules/{schedule_id}": ("tenant", "operator"),
    "DELETE /schedules/{schedule_id}": ("tenant", "editor"),
    "GET /schedules/{schedule_id}/slots": ("tenant", "viewer"),
    "GET /nodes": ("tenant", "viewer"),
    "GET /nodes/{name}": ("tenant", "viewer"),
    "ANY /hooks/{tenant}/{path}": ("public", None),
    "GET /approvals/{token}": ("public", None),  # the link itself is the credential
    "POST /approvals/{token}": ("public", None),
    "GET /health": ("public", None),
    "GET /ready": ("public", None),
    "GET /metrics": ("public", None),  # asks for an operator's key itself, unless the settings say otherwise
    "GET /openapi.json": ("public", None),
}
BODIES: dict[str, Any] = {
    "POST /workflows": document(setting("a"), name="new"),
    "PUT /workflows/{workflow_id}": document(setting("a")),
    "POST /workflows/{workflow_id}/activate": {"version": 1},
    "POST /tenants": {"id": "fresh"},
    "PATCH /tenants/{tenant_id}": {"name": "x"},
    "POST /executions/{execution_id}/signals/{name}": {"path": "a"},
    "POST /executions/{execution_id}/approvals": {"path": "a", "signal": "go"},
    "PUT /secrets/{name}": {"value": "x"},
    "PUT /variables/{name}": {"value": 1},
    "POST /schedules": {"workflow": "w", "spec": {"every": "1h"}},
    "PUT /schedules/{schedule_id}": {"workflow": "w", "spec": {"every": "1h"}},
    "PATCH /schedules/{schedule_id}": {"enabled": True},
}
# What shows nothing of a tenant but what it asks for itself: a foreign id is made, changed or listed as one's own.
OWN = {"GET /nodes/{name}", "PUT /secrets/{name}", "PUT /variables/{name}"}


def test_every_route_is_in_the_matrix() -> None:
    assert {f"{route.method} {route.path}": (route.scope, route.role) for route in ROUTES} == MATRIX


@pytest.fixture
async def api(storage: Storage) -> AsyncIterator[Api]:
    async with running(storage, wait=30.0) as made:
        yield made


# Pairs that differ in case, in a character, by an ending, and only where names of schemas and files end.
LOOK_ALIKES = (("acme", "Acme"), ("a-b", "a_b"), ("t1", "t10"), ("x" * 63 + "A", "x" * 63 + "a"))


@pytest.fixture
async def filled(api: Api) -> dict[str, str]:
    """What the tenant ``acme`` has, by the names of the paths' parameters."""
    return await fill(api, "acme")


def mark(tenant: str) -> str:
    """What stands in everything that a tenant has, and in nothing of others."""
    return f"<{tenant}>"


async def fill(api: Api, tenant: str) -> dict[str, str]:
    """Give a tenant something under every kind of id. What may have the same ids for all has them."""
    daily = {"id": "daily", "type": "schedule", "config": {"cron": "0 9 * * *"}}
    hook = {"id": "hook", "type": "webhook", "config": {"path": "x", "respond": "last"}}
    for trigger, name in ((daily, "w"), (hook, "hooked")):
        await api.post("/workflows", document(trigger, setting("a", of=mark(tenant)), name=name), tenant=tenant)
    await api.call("PUT", "/variables/city", {"value": mark(tenant)}, tenant=tenant)
    await api.call("PUT", "/secrets/city", {"value": mark(tenant)}, tenant=tenant)
    key = await api.post(f"/tenants/{tenant}/keys", {"name": mark(tenant)}, tenant=None)
    execution = (await api.post("/executions/w/execute", tenant=tenant))["execution_id"]
    return {
        "workflow_id": "w",
        "version": "1",
        "tenant_id": tenant,
        "key_id": key["id"],
        "execution_id": execution,
        "name": "city",
        "schedule_id": "w-daily",
        "tenant": tenant,
        "path": "x",
        "token": "a.b",
    }


# Where the usual thing under an id is not of the right kind.
INSTEAD = {"/nodes/{name}": {"name": "set"}, "/executions/{workflow_id}/request": {"workflow_id": "hooked"}}
REFUSES = {
    "GET /metrics": 401,
    "GET /approvals/{token}": 404,
    "POST /approvals/{token}": 415,
    "DELETE /schedules/{schedule_id}": 404,  # gone with its workflow
}


def calls(filled: dict[str, str]) -> list[tuple[str, str, str, Any]]:
    """Name, method, path and body of a call of every route. What deletes comes last."""
    names = sorted(
        MATRIX, key=lambda name: (name.startswith("DELETE"), "tenant_id}" in name, name.endswith("tenant_id}"))
    )
    found = []
    for name in names:
        method, template = name.split(" ")
        path = template.format(**{**filled, **INSTEAD.get(template, {})})
        found.append((name, "POST" if method == "ANY" else method, path, BODIES.get(name)))
    return found


async def test_every_route_refuses_who_has_no_credential_or_too_little(api: Api, filled: dict[str, str]) -> None:
    for name, method, path, body in calls(filled):
        scope, least = MATRIX[name]
        if scope == "public":
            continue
        nobody = await api.call(method, path, body, token="")
        assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthorized"), name
        assert nobody.headers["www-authenticate"] == "Bearer"
        for role in ROLES:
            enough = least is not None and ROLES.index(role) >= ROLES.index(least)  # type: ignore[arg-type]  # a role
            if method != "DELETE" or not enough:
                status = (await api.call(method, path, body, token=await api.key("acme", role))).status_code
                allowed = enough and scope != "system"
                assert (status not in {401, 403}) == allowed, (name, role, status)


async def test_every_route_of_a_tenant_needs_its_name_and_refuses_another(api: Api, filled: dict[str, str]) -> None:
    own, foreign, both = await api.key("acme", "admin"), await api.key("Acme", "admin"), api.token
    for name, method, path, body in calls(filled):
        scope, _ = MATRIX[name]
        if scope == "tenant":
            for token in (own, both):
                missing = await api.call(method, path, body, token=token, tenant=None)
                assert (missing.status_code, missing.json()["code"]) == (400, "tenant_required"), name
        if scope != "public":
            for tenant in ("acme", "nobody"):
                other = await api.call(method, path, body, token=foreign, tenant=tenant)
                assert (other.status_code, other.json()["code"]) == (403, "forbidden"), name


async def test_every_route_hides_what_another_tenant_has(api: Api, filled: dict[str, str]) -> None:
    foreign = await api.key("Acme", "admin")
    before = await contents(api, filled)
    for name, method, path, body in calls(filled):
        scope, _ = MATRIX[name]
        if scope == "public" or ("{" not in path and "{" not in name) or name in OWN:
            continue
        answer = await api.call(method, path, body, token=foreign, tenant="Acme")
        expected = 403 if scope in {"system", "any"} else 404
        assert answer.status_code == expected, (name, answer.text)
        if expected == 403:
            bare = await api.call(method, path, body, token=foreign, tenant=None)
            assert bare.status_code == 403, (name, "the path's tenant counts by itself")
        nobodys = path.replace(filled["execution_id"], "exe_nobody").replace("/w", "/nobody").replace("acme", "nobody")
        if scope in {"system", "any"} and nobodys != path:
            unknown = await api.call(method, nobodys, body, token=foreign, tenant="Acme")
            assert unknown.json()["message"] == answer.json()["message"], "existing or not, it is the same answer"
    for listing in ("/workflows", "/executions", "/variables", "/secrets", "/schedules"):
        (rows,) = [
            value for value in (await api.get(listing, token=foreign, tenant="Acme")).values() if value is not None
        ]
        assert rows == [], listing
    assert await contents(api, filled) == before


async def contents(api: Api, filled: dict[str, str]) -> list[Any]:
    tenant = filled["tenant_id"]
    paths = (
        "/workflows/w",
        "/workflows/w/versions",
        f"/executions/{filled['execution_id']}",
        "/variables",
        "/secrets",
        "/schedules",
        "/executions",
    )
    own = (f"/tenants/{tenant}", f"/tenants/{tenant}/keys")
    return [
        *[await api.get(path, tenant=tenant) for path in paths],
        *[await api.get(path, tenant=None) for path in own],
    ]


async def test_look_alikes_share_nothing_through_any_route(api: Api) -> None:
    has: dict[str, dict[str, str]] = {}
    for tenant in (name for pair in LOOK_ALIKES for name in pair):
        if tenant not in RESIDENTS:
            await api.post("/tenants", {"id": tenant}, tenant=None, status=201)
        await api.key(tenant, "admin")
        has[tenant] = await fill(api, tenant)
    for one, other in LOOK_ALIKES:
        for own, foreign in ((one, other), (other, one)):
            before = await contents(api, has[foreign])
            assert mark(foreign) in str(before)
            for call in calls(has[own]):
                if not call[0].startswith("DELETE"):
                    await through(api, call, own, foreign, has)
            assert await contents(api, has[foreign]) == before
    for one, other in LOOK_ALIKES:
        before = await contents(api, has[one])
        for call in calls(has[other]):
            if call[0].startswith("DELETE"):
                await through(api, call, other, one, has)
        assert await contents(api, has[one]) == before
        assert (await api.call("GET", f"/tenants/{other}", tenant=None)).status_code == 404


async def through(
    api: Api, call: tuple[str, str, str, Any], own: str, foreign: str, has: dict[str, dict[str, str]]
) -> None:
    """Call a route as a tenant: with the ids it has, and with those that only the other one has."""
    name, method, path, body = call
    scope, _ = MATRIX[name]
    if scope == "system" and "{" not in name:
        return  # of no tenant
    credential = {"public": "", "system": api.token}.get(scope, await api.key(own, "admin"))
    sent = {"token": credential, "tenant": None if scope in {"public", "system"} else own}
    theirs = path
    for kind in ("execution_id", "key_id"):
        theirs = theirs.replace(has[own][kind], has[foreign][kind])
    if theirs != path:
        answer = await api.call(method, theirs, body, **sent)
        assert (answer.status_code, mark(foreign) in answer.text) == (404, False), (name, answer.text)
    if scope == "any":
        answer = await api.call(method, path.replace(own, foreign), body, **sent)
        assert (answer.status_code, mark(foreign) in answer.text) == (403, False), (name, answer.text)
    answer = await api.call(method, path, body, **sent)
    expected = {REFUSES[name]} if name in REFUSES else {200, 201, 202, 204, 409}
    assert answer.status_code in expected, (name, answer.text)
    assert mark(foreign) not in answer.text, (name, answer.text)
    if name == "ANY /hooks/{tenant}/{path}":
        assert mark(own) in answer.text


async def test_a_tenants_admin_gives_out_no_more_than_its_own_tenant(api: Api) -> None:
    own = await api.key("acme", "admin")
    made = await api.call("POST", "/tenants/acme/keys", {"role": "admin"}, token=own)
    assert made.status_code == 201
    key = await api.storage.keys.get(made.json()["id"])
    assert key is not None
    assert key.tenant == "acme"
    assert (await api.call("POST", "/tenants/Acme/keys", {"role": "viewer"}, token=own)).status_code == 403
    assert (await api.call("GET", "/tenants", token=own)).status_code == 403
    assert (await api.call("GET", "/tenants/acme", token=own, tenant="Acme")).status_code == 403


async def test_ids_inside_a_request_reach_no_other_tenant(api: Api) -> None:
    await api.post("/workflows", document(setting("a", of="acme"), name="inner"))
    await api.call("PUT", "/secrets/token", {"value": "s3cret-of-acme"})
    foreign: dict[str, Any] = {"token": await api.key("Acme", "admin"), "tenant": "Acme"}
    calling = document({"id": "call", "type": "workflow", "config": {"workflow": "inner"}})
    made = await api.call("POST", "/workflows", calling, **foreign)
    if made.status_code == 201:
        body = await api.post("/executions/w/execute", **foreign)
        assert body["status"] == "failed"
        assert "acme" not in str(body["nodes"])
    await api.post("/workflows", document(setting("a", got="{{ payload }}"), name="shows"), **foreign)
    for claim in ("tenant", "tenant_id", "x-tenant-id", "projectId"):
        sent = await api.call("POST", "/executions/shows/execute", {"payload": 1, claim: "acme"}, **foreign)
        assert sent.status_code == 422, claim
        body = await api.post("/executions/shows/execute", {"payload": {claim: "acme"}}, **foreign)
        assert body["output"] == {"got": {claim: "acme"}}
    answer = await api.call("POST", "/tenants/Acme/keys", {"role": "admin", "tenant": "acme"}, **foreign)
    assert answer.status_code == 422
    assert (await api.get("/executions"))["executions"] == []


async def test_only_routes_are_exempt_not_paths_that_end_like_them(api: Api) -> None:
    for end in ("health", "ready", "metrics", "openapi.json", "hooks/acme/x"):
        for path in (f"/workflows/{end}", f"/executions/{end}", f"/variables/{end}", f"/tenants/acme/keys/{end}"):
            for method in ("GET", "POST", "PUT", "DELETE"):
                answer = await api.call(method, path, token="")
                assert answer.status_code in {401, 404, 405}, (method, path)
    for path in ("/workflows/health", "/variables/ready", "/executions/metrics", "/tenants/health"):
        assert (await api.call("GET", path, token="")).status_code == 401, path


async def test_a_new_key_holds_before_the_old_one_is_revoked(api: Api) -> None:
    old, new = [(await api.post("/tenants/acme/keys", tenant=None)) for _ in range(2)]
    for key in (old, new):
        assert (await api.call("GET", "/workflows", token=key["credential"])).status_code == 200
    assert (await api.call("DELETE", f"/tenants/acme/keys/{old['id']}", tenant=None)).status_code == 204
    assert (await api.call("GET", "/workflows", token=old["credential"])).status_code == 401
    assert (await api.call("GET", "/workflows", token=new["credential"])).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        [("x-tenant-id", "acme"), ("x-tenant-id", "acme")],
        [("x-tenant-id", "acme"), ("X-Tenant-ID", "Acme")],
        [("x-tenant-id", "acme,Acme")],
        [("x-tenant-id", "acme, acme")],
        [("x-tenant-id", "acme"), ("x_tenant_id", "Acme")],
        [("x_tenant_id", "acme")],
        [("x-tenant-id", "")],
        [("x-tenant-id", "acme ")],
        [("x-tenant-id", "acmе".encode().decode("latin-1"))],  # noqa: RUF001 - a Cyrillic letter
        [("x-tenant-id", "../acme")],
        [("x-tenant-id", "*")],
        [],
    ],
    ids=str,
)
async def test_what_only_looks_like_one_tenants_name_is_refused(api: Api, sent: list[tuple[str, str]]) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent]
    with pytest.raises(TenantNeeded):
        select_tenant(Principal("operator", "admin", None), headers)


async def test_the_header_only_selects_among_what_is_allowed() -> None:
    mine = Principal("key_1", "admin", frozenset({"acme", "beta"}))
    assert select_tenant(mine, [(b"x-tenant-id", b"beta")]) == "beta"
    assert select_tenant(mine, [], needed=False) is None
    for other in (b"Acme", b"acme-", b"gamma"):
        with pytest.raises(Forbidden):
            select_tenant(mine, [(b"x-tenant-id", other)])


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_unknown_wrong_revoked_and_expired_keys_get_the_same_answer(api: Api) -> None:
    good = await api.key("acme", "viewer")
    key_id, _, secret = good.partition(".")
    old, expired = new_key("acme", "admin", now=0.0, expires_at=time.time() - 1)
    await api.storage.keys.create(old)
    odd, odd_credential = new_key("acme", "admin", now=0.0)
    await api.storage.keys.create(attrs.evolve(odd, role="root"))
    wrong = [
        f"{key_id}.{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}",
        f"{key_id}.",
        key_id,
        f"key_0000000000000000.{secret}",
        f"key_../{key_id}.{secret}",
        f".{secret}",
        f"{good} x",
        expired,
        odd_credential,
        "key_" + "x" * 9000,
        "a.b.c",
    ]
    messages = set()
    for credential in wrong:
        answer = await api.call("GET", "/workflows", token=credential)
        assert answer.status_code == 401, credential
        messages.add(answer.json()["message"])
    for scheme in ("Basic", "bearer:", "Token"):
        answer = await api.call("GET", "/workflows", token="", headers={"Authorization": f"{scheme} {good}"})
        messages.add(answer.json()["message"])
        assert answer.status_code == 401
    assert len(messages) == 1
    assert (await api.call("GET", "/workflows", token=good)).status_code == 200


async def test_only_the_hash_of_a_key_is_kept(api: Api) -> None:
    credential = await api.key("acme", "viewer")
    key = await api.storage.keys.get(credential.partition(".")[0])
    assert key is not None
    assert credential.partition(".")[2] not in repr(key) + key.hash
    assert len(base64.urlsafe_b64decode(credential.partition(".")[2] + "==")) == 32


async def test_a_key_that_another_process_revokes_holds_no_longer_than_it_is_kept() -> None:
    storage = MemoryStorage()
    await storage.tenants.create(Tenant("acme"))
    key, credential = new_key("acme", "viewer", now=0.0)
    await storage.keys.create(key)
    assert Authenticator(storage.keys)._kept_for <= 5
    authenticator = Authenticator(storage.keys, kept=0.2)
    headers = [(b"authorization", f"Bearer {credential}".encode())]
    assert (await authenticator.authenticate(headers)).tenants == frozenset({"acme"})
    await storage.keys.revoke(key.id, time.time())
    await anyio.sleep(0.25)
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(headers)


async def test_a_stream_ends_when_its_key_is_revoked(api: Api) -> None:
    waits = document({"id": "ask", "type": "wait", "config": {"signal": "go"}}, name="waits")
    await api.post("/workflows", waits)
    started = await api.post("/executions/waits/execute", headers={"Prefer": "respond-async"}, status=202)
    credential = await api.key("acme", "viewer")
    texts: list[str] = []

    async def listen() -> None:
        answer = await api.call("GET", f"/executions/{started['execution_id']}/events", token=credential)
        texts.append(answer.text)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.sleep(0.1)
            await api.storage.keys.revoke(credential.partition(".")[0], time.time())
    assert "event: end" not in texts[0]


# --- JSON Web Tokens --------------------------------------------------------------------------------------------------

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
SHARED = "0123456789abcdef0123456789abcdef"


def public(key: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


SETTINGS = JwtSettings(
    "https://issuer.example",
    "orchestrator",
    (JwtKey("r1", "RS256", public(RSA)), JwtKey("e1", "ES256", public(EC)), JwtKey("s1", "HS256", SHARED)),
    leeway=0.0,
)


def claims(**more: Any) -> dict[str, Any]:
    base = {
        "iss": "https://issuer.example",
        "aud": "orchestrator",
        "exp": time.time() + 60,
        "tenant": "acme",
        "role": "editor",
        "sub": "ann",
    }
    return {name: value for name, value in {**base, **more}.items() if value is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "r1", header: Any = None, **more: Any) -> str:
    headers = {**({"kid": kid} if kid else {}), **(header or {})}
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=headers)


def forged(header: dict[str, Any], key: bytes = b"") -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims())]
    signature = hmac.new(key, b".".join(parts), hashlib.sha256).digest() if key else b""
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def judge(text: str, settings: JwtSettings = SETTINGS) -> Principal:
    authenticator = Authenticator(MemoryStorage().keys, jwt=settings)
    return await authenticator.authenticate([(b"authorization", f"Bearer {text}".encode())])


async def test_a_good_token_says_who_and_for_which_tenants() -> None:
    assert await judge(token()) == Principal("jwt:ann", "editor", frozenset({"acme"}))
    assert (await judge(token(EC, "ES256", "e1", tenant=["acme", "beta"]))).tenants == {"acme", "beta"}
    assert (await judge(token(SHARED, "HS256", "s1"))).role == "editor"
    single = JwtSettings(SETTINGS.issuer, SETTINGS.audience, SETTINGS.keys[:1])
    assert (await judge(token(kid=None), single)).name == "jwt:ann"
    assert not (await judge(token())).system, "no token is the operator's"


BAD: dict[str, Any] = {
    "none": lambda: forged({"alg": "none", "kid": "r1"}),
    "None": lambda: forged({"alg": "None", "kid": "r1"}),
    "HS256 with the public key": lambda: forged({"alg": "HS256", "kid": "r1"}, public(RSA).encode()),
    "HS256 with the public key, without a kid": lambda: forged({"alg": "HS256"}, public(RSA).encode()),
    "another key's algorithm": lambda: token(SHARED, "HS256", "r1"),
    "another key": lambda: token(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "no kid among several": lambda: token(kid=None),
    "kid that walks": lambda: token(kid="../../dev/null"),
    "kid that asks": lambda: token(kid="r1' OR '1'='1"),
    "jku": lambda: token(header={"jku": "https://evil.example/keys"}),
    "jwk": lambda: token(header={"jwk": {"kty": "oct", "k": "AA"}}),
    "x5u": lambda: token(header={"x5u": "https://evil.example/cert"}),
    "x5c": lambda: token(header={"x5c": ["AA"]}),
    "zip": lambda: token(header={"zip": "DEF"}),
    "b64": lambda: forged({"alg": "HS256", "kid": "s1", "b64": True}, SHARED.encode()),
    "crit": lambda: token(header={"crit": ["odd"], "odd": 1}),
    "no exp": lambda: token(exp=None),
    "no aud": lambda: token(aud=None),
    "no iss": lambda: token(iss=None),
    "no tenant": lambda: token(tenant=None),
    "no role": lambda: token(role=None),
    "expired": lambda: token(exp=time.time() - 1),
    "not yet": lambda: token(nbf=time.time() + 60),
    "other aud": lambda: token(aud="other"),
    "other iss": lambda: token(iss="https://other.example"),
    "no tenants": lambda: token(tenant=[]),
    "all tenants": lambda: token(tenant="*"),
    "odd tenant": lambda: token(tenant=["acme", "a,b"]),
    "tenant number": lambda: token(tenant=7),
    "odd role": lambda: token(role="root"),
    "exp text": lambda: token(exp="never"),
    "no token": lambda: "a.b.c",
    "signature cut": lambda: token()[:-4],
}


WHY = {
    "HS256 with the public key": "its alg is 'HS256', that of the key 'r1' is RS256",
    "no kid among several": "its header has no kid",
    "kid that walks": "there is no key with its kid '../../dev/null'",
    "jku": "its header has jku",
    "no tenant": "its tenant is missing",
    "odd role": "its role is 'root', and none of viewer, operator, editor, admin",
    "expired": "Signature has expired (ExpiredSignatureError)",
    "other aud": "Audience doesn't match (InvalidAudienceError)",
    "other iss": "Invalid issuer (InvalidIssuerError)",
    "no exp": 'Token is missing the "exp" claim (MissingRequiredClaimError)',
    "another key": "Signature verification failed (InvalidSignatureError)",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused_and_only_the_log_says_why(name: str, caplog: pytest.LogCaptureFixture) -> None:
    bad = BAD[name]()
    with caplog.at_level("INFO", "orchestrator_server.auth"), pytest.raises(Unauthorized) as caught:
        await judge(bad)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("INFO", "orchestrator_server.auth")
    reason = record.getMessage().removeprefix("a token was refused: ")
    assert reason.startswith(WHY.get(name, ""))
    assert reason not in str(caught.value)
    assert not [part for part in bad.split(".") if len(part) > 3 and part in reason], "nothing of the token is shown"


@pytest.mark.parametrize(
    "header", [{"x5t": "AA"}, {"x5t#S256": "AA", "nonce": "n"}, {"typ": "at+jwt", "odd": {"a": 1}}]
)
async def test_what_a_header_says_beside_is_ignored(header: dict[str, Any]) -> None:
    assert (await judge(token(header=header))).name == "jwt:ann"


async def test_without_settings_no_token_holds() -> None:
    with pytest.raises(Unauthorized):
        await Authenticator(MemoryStorage().keys).authenticate([(b"authorization", f"Bearer {token()}".encode())])
    with pytest.raises(Unauthorized):
        await Authenticator(MemoryStorage().keys, jwt=SETTINGS).authenticate(
            [(b"authorization", f"Bearer {token()}".encode()), (b"authorization", b"Bearer x")]
        )


def test_keys_that_do_not_fit_their_algorithm_are_refused() -> None:
    for algorithm, key in (("HS256", public(RSA)), ("HS256", "short"), ("none", ""), ("RS512x", public(RSA))):
        with pytest.raises(Invalid):
            JwtKey("k", algorithm, key)
