"""Traces: one tree from the request to what an attempt sends out, the same one after a change of process, and no secrets in it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from api_client import KEY, Api, client_of, document, make_storage, setting
from engine_room import until
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from orchestrator_server.app import create_app
from orchestrator_server.records import Tenant
from orchestrator_server.settings import Settings, load_settings
from orchestrator_server.storage import Storage

pytestmark = pytest.mark.anyio

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Target:
    """A server that notes what it is sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.location = ""
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.seen.append({name.lower(): value for name, value in self.headers.items()})
                status = 302 if self.path.startswith("/moved") else 500 if self.path.startswith("/broken") else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", target.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.server.shutdown()
    made.server.server_close()


@attrs.define
class Traced:
    """An application whose spans are kept."""

    api: Api
    exporter: InMemorySpanExporter

    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that are over, by name; the last of each."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    async def over(self, *names: str) -> dict[str, ReadableSpan]:
        await until(lambda: set(names) <= set(self.spans()))
        return self.spans()


@asynccontextmanager
async def traced(
    storage: Storage, exporter: InMemorySpanExporter | None = None, **provider: Any
) -> AsyncIterator[Traced]:
    kept = InMemorySpanExporter() if exporter is None else exporter
    made = TracerProvider(shutdown_on_exit=False, **provider)
    made.add_span_processor(SimpleSpanProcessor(kept))
    settings = Settings(secret_keys=KEY, wait=5.0, allow_addresses=("127.0.0.1",))
    app = create_app(settings, storage=storage, tracer_provider=made)
    async with app.running() as parts, client_of(app) as http:
        if await storage.tenants.get("acme") is None:
            await storage.tenants.create(Tenant("acme"))
        api = Api(app, parts, http)
        api.token = await api.key(None, "admin")
        yield Traced(api, kept)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    made = await make_storage("sqlite", tmp_path)
    yield made
    await made.aclose()


def hook(**config: Any) -> dict[str, Any]:
    return {"id": "hook", "type": "webhook", "config": {"path": "in", "respond": "last", **config}}


def get(url: str, name: str = "get", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "http", "config": {"url": url, **more.pop("config", {})}, **more}


def id_of(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


async def test_a_webhook_its_execution_its_attempts_and_what_they_send_are_one_tree(
    storage: Storage, target: Target
) -> None:
    async with traced(storage) as made:
        api = made.api
        await api.post("/workflows", document(hook(), get(f"{target.url}/stock?token=hidden"), setting("done", n=1)))
        answer = await api.call(
            "POST", "/hooks/acme/in?query=hidden", {"n": 1}, token="", tenant=None, headers={"traceparent": CALLER}
        )
        assert answer.json() == {"n": 1}
        spans = await made.over("POST /hooks/{tenant}/{path}", "execution w", "node get", "GET", "node done")
    request, execution, attempt, sent = (
        spans[name] for name in ("POST /hooks/{tenant}/{path}", "execution w", "node get", "GET")
    )
    assert {id_of(span)[0] for span in (request, execution, attempt, sent, spans["node done"])} == {CALLER[3:35]}
    assert parent_of(request) == CALLER[36:52]
    assert parent_of(execution) == id_of(request)[1]
    assert parent_of(attempt) == parent_of(spans["node done"]) == id_of(execution)[1]
    assert parent_of(sent) == id_of(attempt)[1]
    assert target.seen[0]["traceparent"] == f"00-{id_of(sent)[0]}-{id_of(sent)[1]}-01"
    assert (request.kind, sent.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (
        dict(request.attributes or {}).items()
        >= {
            "http.request.method": "POST",
            "http.route": "/hooks/{tenant}/{path}",
            "http.response.status_code": 200,
            "orchestrator.tenant": "acme",
        }.items()
    )
    assert dict(sent.attributes or {}) == {
        "http.request.method": "GET",
        "url.full": f"{target.url}/stock",
        "server.address": "127.0.0.1",
        "server.port": target.server.server_port,
        "http.response.status_code": 200,
    }
    execution_id = (request.attributes or {})["orchestrator.execution"]
    assert (
        dict(execution.attributes or {}).items()
        >= {
            "orchestrator.tenant": "acme",
            "orchestrator.workflow": "w",
            "orchestrator.version": 1,
            "orchestrator.execution": execution_id,
            "orchestrator.status": "succeeded",
        }.items()
    )
    assert (
        dict(attempt.attributes or {}).items()
        >= {
            "orchestrator.execution": execution_id,
            "orchestrator.node": "get",
            "orchestrator.node_type": "http",
            "orchestrator.attempt": 1,
        }.items()
    )
    assert "hidden" not in "".join(span.to_json() for span in made.exporter.get_finished_spans())


async def test_failed_attempts_are_errors_with_a_code_and_without_data(storage: Storage, target: Target) -> None:
    async with traced(storage) as made:
        api = made.api
        await api.call("PUT", "/secrets/key", {"value": "s3cret-in-path"})
        retried = get(
            f"{target.url}/broken/{{{{ secrets.key }}}}",
            retry={"attempts": 2},
            config={"auth": {"type": "bearer", "token": "{{ secrets.key }}"}},
        )
        await api.post("/workflows", document(hook(), retried))
        answer = await api.call("POST", "/hooks/acme/in", {}, token="", tenant=None)
        assert answer.status_code == 500
        await made.over("execution w")
    assert [headers["authorization"] for headers in target.seen] == ["Bearer s3cret-in-path"] * 2
    finished = made.exporter.get_finished_spans()
    attempts = [span for span in finished if span.name == "node get"]
    assert [(span.attributes or {})["orchestrator.attempt"] for span in attempts] == [1, 2]
    assert {(span.attributes or {})["error.type"] for span in attempts} == {"http_500"}
    assert {(span.attributes or {})["error.type"] for span in finished if span.name == "GET"} == {"500"}
    execution = made.spans()["execution w"]
    assert not execution.status.is_ok
    assert (execution.attributes or {})["error.type"] == "http_500"
    shown = "".join(span.to_json() for span in finished)
    assert "s3cret" not in shown
    assert f"{target.url}/broken/***" in shown


async def test_an_expression_that_fails_is_an_attempt_that_failed(storage: Storage) -> None:
    async with traced(storage) as made:
        await made.api.post("/workflows", document(hook(), setting("a", n="{{ input.x.y }}")))
        await made.api.call("POST", "/hooks/acme/in", {}, token="", tenant=None)
        spans = await made.over("node a", "execution w")
    assert (spans["node a"].attributes or {})["error.type"] == "expression"


async def test_an_execution_that_waited_goes_on_in_its_trace_in_another_process(
    storage: Storage, target: Target
) -> None:
    exporter = InMemorySpanExporter()
    wait = {"id": "wait", "type": "wait", "config": {"signal": "go"}}
    async with traced(storage, exporter) as made:
        await made.api.post("/workflows", document({"id": "m", "type": "manual"}, wait, get(f"{target.url}/after")))
        headers = {"traceparent": CALLER, "Prefer": "respond-async"}
        started = await made.api.call("POST", "/executions/w/execute", {}, headers=headers)
        execution_id = started.json()["execution_id"]
        spans = await made.over("execution w")
        assert (spans["node wait"].attributes or {})["orchestrator.status"] == "waiting"
    exporter.clear()
    async with traced(storage, exporter) as other:
        await other.api.post(f"/executions/{execution_id}/signals/go", {"path": "wait"})
        spans = await other.over("execution w", "node get", "GET")
    assert id_of(spans["execution w"])[0] == id_of(spans["GET"])[0] == CALLER[3:35]
    assert parent_of(spans["node get"]) == id_of(spans["execution w"])[1]
    assert target.seen[0]["traceparent"][:35] == CALLER[:35]


async def test_children_stand_below_their_parents(storage: Storage) -> None:
    async with traced(storage) as made:
        await made.api.post("/workflows", document({"id": "m", "type": "manual"}, setting("inner", n=1), name="child"))
        call = {"id": "call", "type": "workflow", "config": {"workflow": "child"}}
        await made.api.post("/workflows", document({"id": "m", "type": "manual"}, call))
        body = await made.api.post("/executions/w/execute", {})
        assert body["output"] == {"n": 1}
        spans = await made.over("execution w", "execution child", "node inner")
    assert parent_of(spans["execution child"]) == id_of(spans["execution w"])[1]
    assert parent_of(spans["node inner"]) == id_of(spans["execution child"])[1]
    assert (spans["execution child"].attributes or {})["orchestrator.status"] == "succeeded"


async def test_what_a_schedule_starts_begins_a_trace(storage: Storage) -> None:
    schedule = {"id": "tick", "type": "schedule", "config": {"every": "1s"}}
    async with traced(storage) as made:
        await made.api.post("/workflows", document(schedule, setting("a", n=1)))
        spans = await made.over("start w", "execution w")
        assert spans["start w"].parent is None
        starts = {id_of(span)[1] for span in made.exporter.get_finished_spans() if span.name == "start w"}
        assert parent_of(spans["execution w"]) in starts


async def test_the_trace_is_kept_across_redirects_and_a_workflow_may_set_its_own(
    storage: Storage, target: Target
) -> None:
    other = Target()
    target.location = f"{other.url}/here"
    own = get(f"{target.url}/own", "own", config={"headers": {"traceparent": CALLER}})
    try:
        async with traced(storage) as made:
            await made.api.post("/workflows", document({"id": "m", "type": "manual"}, get(f"{target.url}/moved"), own))
            await made.api.post("/executions/w/execute", {})
    finally:
        other.server.shutdown()
        other.server.server_close()
    assert other.seen[0]["traceparent"] == target.seen[0]["traceparent"]
    assert target.seen[1]["traceparent"] == CALLER


async def test_what_is_not_sampled_is_passed_on_as_that(storage: Storage, target: Target) -> None:
    async with traced(storage, sampler=ALWAYS_OFF) as made:
        await made.api.post("/workflows", document(hook(), get(f"{target.url}/x")))
        answer = await made.api.call("POST", "/hooks/acme/in", {}, token="", tenant=None)
        assert answer.status_code == 200
        assert made.exporter.get_finished_spans() == ()
    assert int(target.seen[0]["traceparent"][-2:], 16) & 1 == 0, "whoever is asked is told that it is not"


async def test_off_means_off(storage: Storage, target: Target) -> None:
    app = create_app(Settings(secret_keys=KEY, allow_addresses=("127.0.0.1",)), storage=storage)
    async with app.running() as parts, client_of(app) as http:
        await storage.tenants.create(Tenant("acme"))
        api = Api(app, parts, http)
        api.token = await api.key(None, "admin")
        await api.post("/workflows", document({"id": "m", "type": "manual"}, get(f"{target.url}/x")))
        body = await api.post("/executions/w/execute", {}, headers={"traceparent": CALLER})
        events = await (await storage.store("acme")).journal.read("acme", body["execution_id"])
    assert "traceparent" not in target.seen[0]
    assert attrs.asdict(events[0])["trace"] is None


def test_nothing_of_it_is_imported_when_it_is_off() -> None:
    program = (
        "import sys, anyio\n"
        "from orchestrator_server.app import create_app\n"
        "from orchestrator_server.memory import MemoryStorage\n"
        "from orchestrator_server.settings import load_settings\n"
        f"settings = load_settings({{'ORCHESTRATOR_SECRET_KEYS': {KEY!r}}})\n"
        "async def main():\n"
        "    async with create_app(settings, storage=MemoryStorage()).running():\n"
        "        print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "ORCHESTRATOR_TRACES": "false"}, False),
        ({"ORCHESTRATOR_TRACES": "true"}, True),
    ],
)
def test_the_standard_variables_turn_it_on(environment: dict[str, str], on: bool) -> None:
    assert load_settings(environment).traces is on


async def test_spans_go_to_the_collector_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    came: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    app = create_app(Settings(database=f"sqlite:///{tmp_path}/data.db", traces=True))
    try:
        async with app.running(), client_of(app) as http:
            assert (await http.get("/health")).status_code == 200
    finally:
        await anyio.to_thread.run_sync(server.shutdown)
        server.server_close()
    assert came
    assert came[0][0] == "/v1/traces"
    assert b"orchestrator" in came[0][1]
    assert b"GET /health" in came[0][1]
