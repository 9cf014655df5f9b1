"""What fuzzing stands on: the application over SQLite, and two tenants that have something of everything, under the same ids.

All that a tenant has carries its mark. One tenant acts; what the other has must stay as it is, and out of every answer.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import attrs
from api_client import KEY, document, setting

from orchestrator_server.app import App, create_app
from orchestrator_server.auth import ROLES, new_key
from orchestrator_server.records import Tenant
from orchestrator_server.settings import Settings
from orchestrator_server.storage import Storage

TENANTS = ("ant", "Ant")
MARKS = {"ant": "only-the-small-ant-has-this", "Ant": "only-the-large-ant-has-this"}
HIDDEN = "nobody-ever-reads-this"
SPARE = ("spare1", "spare2")
SECRETS = ("token", "password")
VARIABLES = ("greeting", "limits")
SCHEDULES = ("yearly-tick", "yearly-tock")
STREAMED = 0.05  # seconds that a stream is listened to
PATIENCE = 60


@attrs.frozen
class Answer:
    """What came back. ``cut``: there would have been more."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes
    cut: bool

    def lists(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in self.headers:
            found.setdefault(name, []).append(value)
        return found


async def ask(app: App, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
    """Send one request to the application; a stream is left after a moment."""
    parts = urllib.parse.urlsplit(url)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": urllib.parse.unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("test", 80),
    }
    sent: list[dict[str, Any]] = []
    gone = anyio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def leave() -> None:
        await anyio.sleep(STREAMED)
        gone.set()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            if url.partition("?")[0].endswith("/events"):
                group.start_soon(leave)
            await app(scope, receive, send)
            group.cancel_scope.cancel()
    content = b"".join(message.get("body", b"") for message in sent[1:])
    told = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"])
    return Answer(sent[0]["status"], told, content, cut=bool(sent[-1].get("more_body")))


@attrs.define
class Ground:
    """The application, of which one tenant makes use."""

    app: App
    storage: Storage
    portal: Any
    file: Path
    acting: str
    silent: str  # an address at which nobody answers
    keys: dict[tuple[str | None, str], str] = attrs.field(factory=dict)
    executions: dict[tuple[str, str], str] = attrs.field(factory=dict)  # (tenant, how it stands) -> id
    spare_keys: list[str] = attrs.field(factory=list)
    cursors: list[str] = attrs.field(factory=list)
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    @property
    def other(self) -> str:
        return TENANTS[1 - TENANTS.index(self.acting)]

    def send(self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        answer: Answer = self.portal.call(ask, self.app, method, url, headers, body)
        return answer

    def does(self, tenant: str, method: str, path: str, content: Any = None, **headers: str) -> Any:
        """A request of the tenant's admin that must succeed."""
        sent = {"authorization": f"Bearer {self.keys[tenant, 'admin']}", "x-tenant-id": tenant, **headers}
        sent["content-type"] = "application/json"
        body = b"" if content is None else json.dumps(content).encode()
        answer = self.send(method, f"/api/v1{path}", list(sent.items()), body)
        assert answer.status < 400, (method, path, answer.content)
        return json.loads(answer.content) if answer.content else None

    # --- what there is --------------------------------------------------------------------------------------------

    def sow(self) -> None:
        """Give both tenants the same, but for their marks."""
        self.key(None, "admin")
        for tenant in TENANTS:
            self.portal.call(self.storage.tenants.create, Tenant(tenant, MARKS[tenant]))
            for role in ROLES:
                self.key(tenant, role)
            for name in SECRETS:
                self.put_secret(tenant, name)
            for name in VARIABLES:
                self.put_variable(tenant, name)
            for made in workflows(tenant, self.silent).values():
                self.does(tenant, "POST", "/workflows", made)
            self.does(tenant, "PUT", "/workflows/shape", workflows(tenant, self.silent)["shape"])
            for status, workflow in (("succeeded", "shape"), ("failed", "broken"), ("waiting", "hold")):
                self.start(tenant, status, workflow)
        for tenant in SPARE:
            self.portal.call(self.storage.tenants.create, Tenant(tenant))
        self.start(self.acting, "running", "slow")
        self.spare_keys += [self.spare_key() for _ in range(3)]
        page = self.does(self.acting, "GET", "/executions?limit=1")
        self.cursors.append(page["next"])

    def key(self, tenant: str | None, role: Any) -> None:
        key, self.keys[tenant, role] = new_key(tenant, role, now=time.time())
        self.portal.call(self.storage.keys.create, key)

    def spare_key(self) -> str:
        """A key that may be revoked."""
        key, _ = new_key(self.acting, "viewer", now=time.time())
        self.portal.call(self.storage.keys.create, key)
        return key.id

    def put_secret(self, tenant: str, name: str) -> None:
        self.does(tenant, "PUT", f"/secrets/{name}", {"value": f"{HIDDEN} {MARKS[tenant]}"})

    def put_variable(self, tenant: str, name: str) -> None:
        self.does(tenant, "PUT", f"/variables/{name}", {"value": {"text": MARKS[tenant]}})

    def start(self, tenant: str, status: str, workflow: str) -> None:
        """Start an execution, and see that it stands as it should."""
        started = self.does(
            tenant, "POST", f"/executions/{workflow}/execute", {"payload": MARKS[tenant]}, prefer="wait=0"
        )
        made = started["execution_id"]
        until(lambda: self.does(tenant, "GET", f"/executions/{made}")["status"] == status)
        self.executions[tenant, status] = made

    def held(self) -> str:
        """A new execution that waits for a signal."""
        started = self.does(self.acting, "POST", "/executions/hold/execute", prefer="respond-async")
        return str(started["execution_id"])

    def quarantined(self) -> str:
        """A new execution that is in quarantine."""
        name = self.held()
        values = (
            "status = 'failed', error_code = 'poisoned', claims = 5, finished_at = 1, wake_at = NULL, worker = NULL"
        )
        with contextlib.closing(sqlite3.connect(self.file)) as connection, connection:
            where = "WHERE tenant = ? AND id = ?"
            connection.execute(f"UPDATE executions SET {values}, fence = fence + 1 {where}", (self.acting, name))
        return name

    def restock(self, method: str, path: str, named: dict[str, Any]) -> None:
        """Put back what a request has taken away, so that the next one finds it."""
        name = named.get("name")
        acting = self.acting
        if path.startswith("/secrets/") and name in SECRETS:
            self.put_secret(acting, name)
        elif path.startswith("/variables/") and name in VARIABLES:
            self.put_variable(acting, name)
        elif path.startswith("/tenants/") and "/keys" not in path and named.get("tenant_id") in SPARE:
            with contextlib.suppress(Exception):  # it is there, where it was only changed
                self.portal.call(self.storage.tenants.create, Tenant(named["tenant_id"]))
        elif named.get("key_id") in self.spare_keys:
            self.spare_keys[self.spare_keys.index(named["key_id"])] = self.spare_key()
        elif "/cancel" in path or "/signals" in path:
            self.refresh(named.get("execution_id"))
        elif path.startswith("/workflows"):
            self.restore(method, named.get("workflow_id"))

    def refresh(self, execution: Any) -> None:
        for status, workflow in (("waiting", "hold"), ("running", "slow")):
            if execution == self.executions[self.acting, status]:
                self.start(self.acting, status, workflow)

    def restore(self, method: str, workflow: Any) -> None:
        known = workflows(self.acting, self.silent)
        if method == "POST" and workflow is None:
            for row in self.does(self.acting, "GET", "/workflows?limit=500")["workflows"]:
                if row["id"] not in known:
                    self.does(self.acting, "DELETE", f"/workflows/{row['id']}")
        elif workflow in known and method == "DELETE":
            self.does(self.acting, "POST", "/workflows", known[workflow])
        elif workflow in known and method in {"PUT", "POST"}:
            self.does(self.acting, "PUT", f"/workflows/{workflow}", known[workflow])

    def keep_going(self) -> None:
        """See that what goes on by itself is still going on."""
        for status in ("waiting", "running"):
            execution = self.executions[self.acting, status]
            if self.does(self.acting, "GET", f"/executions/{execution}")["status"] != status:
                self.refresh(execution)

    def everything_of_the_other(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Every row that the other tenant has in the database."""
        found: list[tuple[str, tuple[Any, ...]]] = []
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in sorted(tables):
                columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
                column = "id" if table == "tenants" else "tenant"
                if column in columns:
                    rows = connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (self.other,))
                    found += [(table, row) for row in rows]
        return sorted(found, key=repr)


def workflows(tenant: str, silent: str) -> dict[str, dict[str, Any]]:
    """The workflows of a tenant, by id. None of them fails on what it is given, but ``broken``."""
    mark = MARKS[tenant]

    def hook(path: str, respond: str, **config: Any) -> dict[str, Any]:
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        made = {"path": path, "methods": methods, "respond": respond, "payload": "request", **config}
        return {"id": "hook", "type": "webhook", "config": made}

    code = {
        "id": "code",
        "type": "code",
        "config": {"source": f"console.log('{mark}'); return {{mark: '{mark}', got: context.input}}"},
    }
    each = {**setting("each", item="{{ item }}", mark=mark), "for_each": [1, 2, mark]}
    answer = {"id": "answer", "type": "respond", "config": {"status": 201, "body": {"mark": mark}}}
    held = {"id": "held", "type": "wait", "config": {"signal": "go"}}
    slow = {"id": "slow", "type": "http", "config": {"url": f"http://{silent}/", "timeout": "1h"}}
    secret = {"id": "sign", "type": "crypto", "config": {"action": "hmac", "key": "{{ secrets.token }}", "value": mark}}
    broken = {"id": "broken", "type": "fail", "config": {"message": mark}}
    made = [
        document(setting("shape", mark=mark, v="{{ vars.greeting }}"), code, each, name="shape"),
        document({"id": "start", "type": "manual"}, secret, name="sign"),
        document(broken, name="broken"),
        document(setting("first", mark=mark), held, setting("last", mark=mark), name="hold"),
        document(slow, name="slow"),
        document({"id": "nap", "type": "wait", "config": {"for": 0.05}}, code, name="nap"),
        document(hook(f"of-{tenant}-now", "immediately"), code, name="hook-now"),
        document(hook(f"of-{tenant}-last/{{item}}", "last"), code, name="hook-last"),
        document(hook(f"of-{tenant}-node", "node"), code, answer, name="hook-node"),
        document(hook(f"of-{tenant}-key", "last", idempotency={"header": "x-delivery"}), code, name="hook-key"),
        document(
            hook(f"of-{tenant}-auth", "last", auth={"type": "bearer", "secret": "{{ secrets.token }}"}),
            code,
            name="hook-auth",
        ),
    ]
    yearly = {"tick": {"cron": "0 0 29 2 *"}, "tock": {"every": "52w", "timezone": "UTC"}}
    made.append(
        {
            "schema": 1,
            "id": "yearly",
            "nodes": [
                *({"id": name, "type": "schedule", "config": config} for name, config in yearly.items()),
                setting("shape", mark=mark),
            ],
            "edges": [{"source": name, "target": "shape"} for name in yearly],
        }
    )
    return {workflow["id"]: {**workflow, "name": f"{workflow['id']} {mark}"} for workflow in made}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


@contextlib.contextmanager
def ground(acting: str, folder: Path) -> Iterator[Ground]:
    """The application with its tenants, of which one will act."""
    file = folder / "data.db"
    with socket.create_server(("127.0.0.1", 0)) as silent, anyio.from_thread.start_blocking_portal() as portal:
        settings = Settings(
            database=f"sqlite:///{file}",
            secret_keys=KEY,
            wait=5.0,
            body_limit=100_000,
            document_limit=100_000,
            allow_addresses=("127.0.0.1",),
        )
        app = create_app(settings)
        with portal.wrap_async_context_manager(app.running()) as parts:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            made = Ground(app, parts.storage, portal, file, acting, address)
            made.sow()
            yield made
