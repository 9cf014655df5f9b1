"""What an operator relies on: whether it is ready, how it ends, and that it works inside another application."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from api_client import KEY, Api, client_of, document, make_storage, running, setting
from engine_room import until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from test_cli_server import free_port

from orchestrator_server.app import create_app
from orchestrator_server.auth import new_key
from orchestrator_server.errors import Unavailable
from orchestrator_server.records import Claim, Tenant
from orchestrator_server.settings import Settings
from orchestrator_server.sql.executions import SqlJournal

WAIT = {"id": "wait", "type": "wait", "config": {"signal": "go"}}
START = {"id": "m", "type": "manual"}


class Slow:
    """A server that answers after as many seconds as the path says."""

    def __init__(self) -> None:
        over = self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                over.wait(float(self.path[1:]))
                with contextlib.suppress(OSError):
                    self.send_response(204)
                    self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def node(self, seconds: float) -> dict[str, Any]:
        """A node that works for a while."""
        config = {"url": f"http://127.0.0.1:{self.server.server_port}/{seconds}", "timeout": 3600}
        return {"id": "slow", "type": "http", "config": config}


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.over.set()
    made.server.shutdown()
    made.server.server_close()


# --- whether it is ready ----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_it_is_ready_as_long_as_the_database_answers_with_this_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage) as api:
        await api.get("/ready")

        def revision(name: str) -> None:
            with contextlib.closing(sqlite3.connect(tmp_path / "data.db")) as connection, connection:
                connection.execute("UPDATE alembic_version SET version_num = ?", (name,))

        with sqlite3.connect(tmp_path / "data.db") as connection:
            (mine,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "data.db")) as connection, connection:
            connection.execute("DELETE FROM alembic_version")
        older = await api.call("GET", "/ready")
        assert (older.status_code, older.json()["code"]) == (503, "schema_version")
        with contextlib.closing(sqlite3.connect(tmp_path / "data.db")) as connection, connection:
            connection.execute("INSERT INTO alembic_version VALUES (?)", (mine,))
        await api.get("/ready")
        revision("9999")
        await api.get("/ready")  # an upgrade goes on: processes of the version before serve until they are replaced

        async def away() -> None:
            raise Unavailable("gone")

        monkeypatch.setattr(storage, "check", away)
        gone = await api.call("GET", "/ready")
        assert (gone.status_code, gone.json()["code"]) == (503, "unavailable")
        await api.get("/health")
    await storage.aclose()


@pytest.mark.anyio
async def test_a_database_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = await make_storage("memory", tmp_path)
    async with running(storage) as api:
        monkeypatch.setattr(storage, "check", anyio.sleep_forever)
        with anyio.fail_after(20):
            assert (await api.call("GET", "/ready")).status_code == 503


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_who_drains_is_not_ready_and_answers_those_who_wait(tmp_path: Path, slow: Slow) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage, wait=60.0, allow_addresses=("127.0.0.1",)) as api:
        await api.post("/workflows", document(START, slow.node(60)))
        hook = {"id": "h", "type": "webhook", "config": {"path": "in", "respond": "last"}}
        await api.post("/workflows", document(hook, slow.node(60), name="hooked"))
        api.parts.worker._grace = 0.2
        answers: list[httpx.Response] = []

        async def execute(path: str) -> None:
            answers.append(await api.call("POST", path, {}))

        async with anyio.create_task_group() as group:
            group.start_soon(execute, "/executions/w/execute")
            group.start_soon(execute, "/hooks/acme/in")
            await until(lambda: api.parts.worker.holds == 2)
            with anyio.fail_after(20):
                api.app.drain()
                refused = await api.call("GET", "/ready")
                assert (refused.status_code, refused.json()["code"]) == (503, "draining")
                await api.get("/health")
                await until(lambda: len(answers) == 2)
        assert [answer.status_code for answer in answers] == [202, 202]
        after = await api.call("POST", "/executions/w/execute", {})
        assert after.status_code == 202, "it waits in the queue for another process"
        rows = (await api.get("/executions"))["executions"]
        assert [row["status"] for row in rows] == ["running"] * 3
        claims: list[Claim] = []
        with anyio.fail_after(10):  # their leases go back, well before these would be over
            while len(claims) < 3:
                claims += await storage.queue.claim("another", 10, 30.0)
                await anyio.sleep(0.02)
    await storage.aclose()


@pytest.mark.anyio
async def test_streams_end_when_it_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = SqlJournal.read

    async def read(self: SqlJournal, tenant: str, execution_id: str, after: int = 0) -> Any:
        reads.append(execution_id)
        return await real(self, tenant, execution_id, after)

    storage = await make_storage("sqlite", tmp_path)
    async with running(storage) as api:
        await api.post("/workflows", document(START, WAIT))
        started = await api.post("/executions/w/execute", {}, headers={"Prefer": "respond-async"})
        texts: list[str] = []

        async def follow() -> None:
            answer = await api.call("GET", f"/executions/{started['execution_id']}/events")
            texts.append(answer.text)

        async with anyio.create_task_group() as group:
            monkeypatch.setattr(SqlJournal, "read", read)
            group.start_soon(follow)
            await until(lambda: len(reads) > 1)  # it looks again when it has told what there was
            assert api.parts.realms.metrics.streams == 1
            api.app.drain()
            with anyio.fail_after(20):
                await until(lambda: texts)
        assert "event: ExecutionStarted" in texts[0]
        assert "event: end" not in texts[0]
        assert api.parts.realms.metrics.streams == 0
    await storage.aclose()


class Process:
    """A command of the server in a folder, with its log."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.port = free_port()
        program = "import sys; from orchestrator_core.cli import main; sys.exit(main())"
        self.log = (folder / f"{words[0]}.log").open("w+")
        self.out = (folder / f"{words[0]}.out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=folder,
            env={**os.environ, "ORCHESTRATOR_SECRET_KEYS": KEY, **environment},
            stdout=self.out,
            stderr=self.log,
        )

    def wait(self, url: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.text)

    @property
    def text(self) -> str:
        return Path(self.log.name).read_text()

    def end(self) -> tuple[int, float]:
        """Ask it to end. Gives its exit code, and how many seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60), time.monotonic() - began


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def run(*words: str, **environment: str) -> Process:
        made.append(Process(tmp_path, *words, **environment))
        return made[-1]

    yield run
    for process in made:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()
        process.log.close()
        process.out.close()


def key_in(folder: Path) -> str:
    """An operator's key for the database in a folder."""
    made: list[str] = []

    async def make() -> None:
        storage = await make_storage("sqlite", folder)
        await storage.tenants.create(Tenant("acme"))
        key, credential = new_key(None, "admin", now=time.time())
        await storage.keys.create(key)
        made.append(credential)
        await storage.aclose()

    anyio.run(make)
    return made[0]


def rows_of(folder: Path) -> list[tuple[str, str | None]]:
    with contextlib.closing(sqlite3.connect(folder / "data.db")) as connection:
        return [*connection.execute("SELECT status, worker FROM executions ORDER BY created_at")]


def test_a_server_that_is_asked_to_end_answers_what_runs_and_gives_back_what_it_holds(
    start: Callable[..., Process], tmp_path: Path, slow: Slow
) -> None:
    headers = {"Authorization": f"Bearer {key_in(tmp_path)}", "x-tenant-id": "acme"}
    port = str(free_port())
    server = start("serve", "--port", port, "--database", "sqlite:///data.db", ORCHESTRATOR_ALLOW_ADDRESSES="127.0.0.1")
    url = f"http://127.0.0.1:{port}/api/v1"
    server.wait(f"{url}/ready")
    answers: dict[str, httpx.Response] = {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
        for name, seconds in (("quick", 2.0), ("long", 600.0)):
            made = http.post("/workflows", json=document(START, slow.node(seconds), name=name))
            assert made.status_code == 201, made.text

        def execute(name: str) -> None:
            answers[name] = httpx.post(f"{url}/executions/{name}/execute", json={}, headers=headers, timeout=60)

        threads = [threading.Thread(target=execute, args=(name,)) for name in ("quick", "long")]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while [worker is not None for _, worker in rows_of(tmp_path)] != [True, True] and time.monotonic() < deadline:
            time.sleep(0.02)
    code, seconds = server.end()
    for thread in threads:
        thread.join()
    assert code == 0
    assert seconds < 14, "ten seconds, and something for a busy machine"
    assert (answers["quick"].status_code, answers["quick"].json()["output"]["status"]) == (200, 204)
    assert answers["long"].status_code == 202
    assert sorted(rows_of(tmp_path)) == [("running", None), ("succeeded", None)], "the lease went back"
    lines = [json.loads(line) for line in server.text.splitlines()]
    assert {line["level"] for line in lines} == {"info"}, "nobody was cut off"
    assert {line["status"] for line in lines if line.get("route", "").endswith("/execute")} == {200, 202}


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_processes_without_an_api_have_a_port_for_watching_them(
    start: Callable[..., Process], tmp_path: Path, command: str
) -> None:
    credential = key_in(tmp_path)
    port = str(free_port())
    process = start(command, "--metrics-port", port, "--database", "sqlite:///data.db")
    url = f"http://127.0.0.1:{port}"
    process.wait(f"{url}/ready")
    assert httpx.get(f"{url}/metrics").status_code == 401
    shown = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {credential}"})
    assert "orchestrator_executions_held 0" in shown.text
    assert httpx.get(f"{url}/workflows").status_code == 404
    assert httpx.get(f"{url}/api/v1/health").json() == {"status": "ok"}
    code, seconds = process.end()
    assert code == 0
    assert seconds < 14


# --- inside another application ---------------------------------------------------------------------------------------


@pytest.fixture
async def mounted(tmp_path: Path) -> AsyncIterator[Api]:
    """The application below `/a b/flows` of another one."""
    storage = await make_storage("sqlite", tmp_path)
    app = create_app(Settings(secret_keys=KEY), storage=storage)

    async def home(_: Any) -> PlainTextResponse:
        return PlainTextResponse("home")

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with app.running():
            yield

    host = Starlette(routes=[Route("/health", home), Mount("/a b/flows", app)], lifespan=lifespan)
    async with host.router.lifespan_context(host), client_of(host) as http:
        assert app.parts is not None
        await storage.tenants.create(Tenant("acme"))
        http.base_url = httpx.URL("http://test/a%20b/flows/api/v1")
        api = Api(app, app.parts, http)
        api.token = await api.key(None, "admin")
        yield api
    await storage.aclose()


@pytest.mark.anyio
async def test_a_mounted_application_has_its_routes_below_its_path(mounted: Api) -> None:
    created = await mounted.call("POST", "/workflows", document(START, setting("a", n=1)))
    assert created.headers["location"] == "/a%20b/flows/api/v1/workflows/w"
    headers = {"Authorization": f"Bearer {mounted.token}", "x-tenant-id": "acme"}
    assert (await mounted.http.get(f"http://test{created.headers['location']}", headers=headers)).status_code == 200
    ran = await mounted.call("POST", "/executions/w/execute", {})
    assert ran.json()["output"] == {"n": 1}
    where = ran.headers["location"]
    assert where == f"/a%20b/flows/api/v1/executions/{ran.json()['execution_id']}"
    described = await mounted.get("/openapi.json")
    assert described["servers"] == [{"url": "/a%20b/flows/api/v1"}]
    for path in ("/health", "/ready"):
        assert (await mounted.http.get(f"http://test/a%20b/flows{path}")).json() == {"status": "ok"}
    assert (await mounted.http.get("http://test/health")).text == "home"
    assert (await mounted.call("GET", "/nothing")).json()["code"] == "not_found"


@pytest.mark.anyio
async def test_webhooks_are_found_below_the_path_too(mounted: Api) -> None:
    config = {"path": "orders/{shop}", "payload": "request", "respond": "last"}
    hook = {"id": "h", "type": "webhook", "config": config}
    shown = setting("a", shop="{{ input.params.shop }}", path="{{ input.path }}")
    await mounted.post("/workflows", document(hook, shown))
    for base in ("http://test/a%20b/flows/api/v1", "http://test/a%20b/flows"):
        answer = await mounted.http.post(f"{base}/hooks/acme/orders/u%2Flm", json={})
        assert answer.json() == {"shop": "u/lm", "path": "orders/u/lm"}, base
