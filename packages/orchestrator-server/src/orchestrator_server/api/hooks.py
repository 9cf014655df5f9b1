"""Webhooks: requests from outside that start executions.

The tenant and the path say which webhook is meant; whether the sender may call it is said by the webhook's ``auth`` and
``signature``. What is wrong with either of them is answered alike.
"""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response

from orchestrator_core.codec import dump_json
from orchestrator_core.errors import DocumentError
from orchestrator_core.expressions import ExpressionError, compile_template
from orchestrator_core.types import Json
from orchestrator_server.api.bodies import is_json, media_type, read_body, read_json
from orchestrator_server.api.following import ended_body
from orchestrator_server.api.problems import Problem
from orchestrator_server.api.signatures import Refused, check_auth, check_signature
from orchestrator_server.api.starting import fingerprint_of, life_of, stored_key
from orchestrator_server.api.table import Call, Services
from orchestrator_server.errors import Invalid, NotFound
from orchestrator_server.handles import Handle
from orchestrator_server.realms import TenantRealm, Ways
from orchestrator_server.records import Webhook, check_id
from orchestrator_server.storage import TenantStore

__all__ = ["answer_of", "call_webhook", "fits", "params_of", "parts_of", "payload_of"]

_log = logging.getLogger("orchestrator.webhooks")

_NOTHING = Problem(404, "not_found", "there is no webhook under this path")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_MOST_PARTS = 64
# A tenant's answer is shown by browsers at this server's address: it must not act there.
_SAFE_HEADERS = {
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# What a workflow does not decide: the connection, the browser's trust in this origin, and what is said above.
_OURS = re.compile(
    r"set-cookie2?|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|content-encoding|date|server|"
    r"content-security-policy(-report-only)?|x-content-type-options|x-request-id|strict-transport-security|public-key-pins|"
    r"service-worker-allowed|clear-site-data|alt-svc|nel|report-to|reporting-endpoints|access-control-allow-credentials|"
    r"www-authenticate|x-xss-protection|refresh",
    re.IGNORECASE,
)
# Credentials of the sender do not become part of an execution's records.
_PRIVATE = frozenset({"authorization", "proxy-authorization", "cookie"})


@attrs.frozen
class _Found:
    """A webhook that a request means, with the values of its path's parameters."""

    hook: Webhook
    params: Mapping[str, str]
    path: str


async def call_webhook(call: Call) -> Response:
    """Start the workflow behind a webhook, and answer as its trigger says."""
    services, request = call.services, call.request
    store = await _store(call)
    call.told.tenant = store.tenant
    found = _find(await services.realms.webhooks(store.tenant), request)
    config = found.hook.config
    body = await read_body(request, services.limits.body, services.limits.body_time)
    headers = _headers(request)
    workflow = await services.realms.workflow(store.tenant, found.hook.workflow, found.hook.version)
    guarded = any(config.get(name) is not None for name in ("auth", "signature", "idempotency"))
    realm = await services.realms.for_execution(store.tenant, workflow) if guarded else None
    signed = None if realm is None else await _let_in(call, realm, config, headers, body)
    payload = await _payload(call, store, found, headers, body)
    key = None if realm is None else await _idempotency_key(realm, config, headers, payload)
    scope = f"{found.hook.method} {found.hook.path}"
    stored: str | None = None
    if key is not None:
        stored = stored_key("hook", f"{scope} {await life_of(store, workflow.id)}", key)
    once = None
    if signed is not None:
        # It says nothing of the method or the path: it counts once, whichever webhook it comes to.
        await _check_replay(services, store, signed[0], key, signed[1])
        if stored is None:
            stored, once = stored_key("signature", "", signed[0]), signed
    handle = await services.worker.execute(
        store.tenant,
        workflow,
        payload,
        start=found.hook.node,
        idempotency_key=stored,
        fingerprint="" if key is None else fingerprint_of(workflow.id, found.hook.node),
    )
    call.told.execution = handle.id
    if handle.created.new:
        services.metrics.accepted("webhook")
        if once is not None:
            # Its execution knows it as long as it is kept, and may be forgotten before the time of the signature is over.
            await store.webhooks.note(once[0], "", once[1])
    elif once is not None:
        services.metrics.refused("replay")
        raise _unauthorized()
    return await answer_of(services, store, config, handle)


# --- which one --------------------------------------------------------------------------------------------------------


async def _store(call: Call) -> TenantStore:
    try:
        return await call.services.realms.store(check_id(call.path["tenant"]))
    except (NotFound, Invalid):
        raise _NOTHING from None  # whether there is such a tenant is nobody's business


def _find(ways: Ways, request: Request) -> _Found:
    parts = _parts(request)
    path = "/".join(parts)
    method = "GET" if request.method == "HEAD" else request.method
    if not 0 < len(path) <= 2048 or len(parts) > _MOST_PARTS or not all(parts):
        raise _NOTHING
    exact = ways.exact.get((request.method, path))
    if exact is not None:
        return _Found(exact, {}, path)
    fitting = [hook for hook in ways.all if fits(hook.path, parts)]
    if not fitting:
        raise _NOTHING
    # What is written out counts more than a parameter, from the left: `orders/new` before `orders/{}`.
    fitting.sort(key=lambda hook: [part == "{}" for part in hook.path.split("/")])
    for wanted in (request.method, method):
        for hook in fitting:
            if hook.method == wanted:
                return _Found(hook, params_of(hook.config, parts), path)
    allowed = ", ".join(sorted({hook.method for hook in fitting}))
    raise Problem(405, "method_not_allowed", f"this webhook takes {allowed}", headers={"Allow": allowed})


def _parts(request: Request) -> list[str]:
    """The parts of the path behind the tenant; an escaped slash is no separator."""
    raw: bytes = request.scope.get("raw_path") or urllib.parse.quote(request.scope["path"]).encode()
    whole = raw.partition(b"?")[0].decode("latin-1")
    root = urllib.parse.quote(request.scope.get("root_path", ""))
    # "", "hooks", the tenant, and the rest
    return parts_of("/".join(whole.removeprefix(root).removeprefix("/api/v1").split("/")[3:]))


def parts_of(path: str) -> list[str]:
    """The parts of a webhook's path as it stands in an address."""
    try:
        return [urllib.parse.unquote(part, errors="strict") for part in path.split("/")]
    except UnicodeDecodeError:
        raise _NOTHING from None


def fits(pattern: str, parts: list[str]) -> bool:
    """Whether a webhook's path, parameters without their names, means these parts."""
    wanted = pattern.split("/")
    return len(wanted) == len(parts) and all(w in ("{}", part) for w, part in zip(wanted, parts, strict=True))


def params_of(config: Mapping[str, Any], parts: list[str]) -> dict[str, str]:
    """The values of a path's parameters."""
    named = str(config.get("path", "")).split("/")
    return {name[1:-1]: part for name, part in zip(named, parts, strict=False) if name.startswith("{")}


# --- who --------------------------------------------------------------------------------------------------------------


async def _let_in(
    call: Call, realm: TenantRealm, config: Mapping[str, Any], headers: Mapping[str, str], body: bytes
) -> tuple[str, float] | None:
    services = call.services
    try:
        if config.get("auth") is not None:
            check_auth(config["auth"], headers, realm.secrets)
        if config.get("signature") is not None:
            return check_signature(config["signature"], headers, body, realm.secrets, services.engine.clock.time())
    except (Refused, KeyError, ValueError, AttributeError) as error:
        # Whatever is wrong with the setting itself, it is not to let anybody in.
        services.metrics.refused("credential")
        # The text of any other error may repeat what was sent.
        why = error if isinstance(error, Refused) else type(error).__name__
        _log.info("a webhook call was refused: %s", why, extra=call.told.tags())
        raise _unauthorized() from None
    return None


def _unauthorized() -> Problem:
    return Problem(401, "unauthorized", "this request is not let in: its credential or signature does not hold")


async def _check_replay(
    services: Services, store: TenantStore, signature: str, key: str | None, seconds: float
) -> None:
    """A signature that covers its time comes once; with an idempotency key, the same delivery may come again.

    Raises:
        Problem: It has come before.
    """
    if key is None:
        came = await store.webhooks.came(signature) is not None
    else:
        came = await store.webhooks.note(signature, key, seconds) != key
    if came:
        services.metrics.refused("replay")
        raise _unauthorized()


# --- what -------------------------------------------------------------------------------------------------------------


def _headers(request: Request) -> dict[str, str]:
    """Headers by name in lower case; those that stand there several times are joined."""
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
    return found


async def _payload(call: Call, store: TenantStore, found: _Found, headers: Mapping[str, str], body: bytes) -> Json:
    request = call.request
    content = await _content(call, store, body)
    query: dict[str, Json] = {}
    for name, value in request.query_params.multi_items():
        known = query.get(name)
        query[name] = value if name not in query else [*(known if isinstance(known, list) else [known]), value]
    return payload_of(
        found.hook.config,
        method=request.method,
        path=found.path,
        params=found.params,
        query=query,
        headers=headers,
        content=content,
    )


def payload_of(
    config: Mapping[str, Any],
    *,
    method: str,
    path: str,
    params: Mapping[str, str],
    query: Mapping[str, Json],
    headers: Mapping[str, str],
    content: Json,
) -> Json:
    """The payload that a webhook makes of a request; names of headers are in lower case."""
    if config.get("payload", "body") == "body":
        return content
    auth = config.get("auth") or {}
    hidden = _PRIVATE | ({str(auth["header"]).lower()} if auth.get("header") else set())
    return {
        "method": method,
        "path": path,
        "params": dict(params),
        "query": dict(query),
        "headers": {name: value for name, value in headers.items() if name not in hidden},
        "body": content,
    }


async def _content(call: Call, store: TenantStore, body: bytes) -> Json:
    """The body as data: JSON and forms are read, texts are texts, other bytes are kept as a blob. Nothing is opened."""
    media = media_type(call.request)
    if not body:
        return None
    if is_json(media) or not media:
        return read_json(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        await call.services.realms.check_storage(store.tenant)
        reference = await store.blobs.put(body, media_type=media or "application/octet-stream")
        return {"blob": reference, "media_type": media, "size": len(body)}
    if media == "application/x-www-form-urlencoded":
        form: dict[str, Json] = {}
        try:
            pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, max_num_fields=10_000, errors="strict")
        except (ValueError, UnicodeDecodeError):
            raise Problem(400, "bad_request", "the body is no form") from None
        for name, value in pairs:
            known = form.get(name)
            form[name] = value if name not in form else [*(known if isinstance(known, list) else [known]), value]
        return form
    return text


async def _idempotency_key(
    realm: TenantRealm, config: Mapping[str, Any], headers: Mapping[str, str], payload: Json
) -> str | None:
    wanted = config.get("idempotency")
    if not wanted:
        return None
    if wanted.get("header"):
        name = str(wanted["header"])
        key: Json = headers.get(name.lower())
        missing = f"the header {name} is missing: it tells one delivery from another"
    else:
        key = await _evaluated(realm, wanted.get("key"), payload)
        missing = "the key that tells one delivery from another is not in the request"
    if key is None or key == "":
        raise Problem(400, "no_idempotency_key", missing)
    return key if isinstance(key, str) else dump_json(key)


async def _evaluated(realm: TenantRealm, template: Json, payload: Json) -> Json:
    """A template over ``payload``, in the sandbox."""
    try:
        compiled = compile_template(template)
        if compiled.constant:
            return template
        answers = await realm.language("javascript").evaluate(
            [code.source for code in compiled.codes], {"payload": payload}, seed=0, now=0.0
        )
        if any(answer.kind == "error" for answer in answers):
            return None
        value: Json = compiled.build([answer.value for answer in answers])
    except (ExpressionError, DocumentError):
        return None
    return value


# --- and back ---------------------------------------------------------------------------------------------------------


async def answer_of(services: Services, store: TenantStore, config: Mapping[str, Any], handle: Handle) -> Response:
    """What the sender of a request is answered, as the webhook's config says.

    Raises:
        Problem: There is no answer, or the execution failed.
    """
    respond = config.get("respond", "immediately")
    shaped: Mapping[str, Any] = config.get("response") or {}
    if respond == "immediately":
        return _made(shaped.get("status") or 202, shaped.get("headers"), {"execution_id": handle.id})
    answer = await handle.wait(services.patience, respond=respond == "node")
    if answer.kind == "responded" and isinstance(answer.response, Mapping):
        made = answer.response
        return _made(made.get("status", 200), made.get("headers"), made.get("body"))
    if answer.kind == "no_response":
        raise Problem(500, "no_response", "the workflow gave no answer", execution_id=handle.id)
    if answer.kind in {"waiting", "deadline"}:
        return _made(202, None, {"execution_id": handle.id})
    if answer.result is not None and respond != "node":
        _check_succeeded(answer.result.status, handle)
        return _made(shaped.get("status") or 200, shaped.get("headers"), answer.result.output)
    body = await ended_body(services, store, handle, answer)
    _check_succeeded(body["status"], handle)
    if respond == "node":
        return await _late(body, handle)
    return _made(shaped.get("status") or 200, shaped.get("headers"), body["output"])


def _check_succeeded(status: Json, handle: Handle) -> None:
    if status != "succeeded":
        # Why is in the execution's records, for those who may read them.
        raise Problem(500, "execution_failed", "the workflow did not come to a result", execution_id=handle.id)


async def _late(body: Mapping[str, Any], handle: Handle) -> Response:
    """The answer of a `respond` node of an execution that had ended before it was looked at."""
    for record in body["nodes"]:
        made = record["output"]
        if record["type"] == "respond" and record["status"] == "succeeded" and isinstance(made, Mapping):
            return _made(made.get("status", 200), made.get("headers"), made.get("body"))
    raise Problem(500, "no_response", "the workflow gave no answer", execution_id=handle.id)


def _made(status: Any, given: Any, body: Json) -> Response:
    """An answer whose text, status and headers a workflow has made."""
    headers: dict[str, str] = {}
    for name, value in (given if isinstance(given, Mapping) else {}).items():
        if isinstance(value, str) and not _OURS.fullmatch(str(name)):
            headers[str(name)] = value
    names = {name.lower() for name in headers}
    code = status if isinstance(status, int) and 200 <= status <= 599 else 200
    data = b""
    if code not in {204, 205, 304}:
        data = body.encode() if isinstance(body, str) else dump_json(body).encode()
        if "content-type" not in names:
            plain = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
            headers["Content-Type"] = plain
    safe = {name: value for name, value in _SAFE_HEADERS.items() if name.lower() not in names}
    return Response(data, code, _latin({**headers, **safe}))


def _latin(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if value.isascii() or _fits_latin(value)}


def _fits_latin(value: str) -> bool:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
