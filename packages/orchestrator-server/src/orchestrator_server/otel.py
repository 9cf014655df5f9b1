"""Spans by OpenTelemetry, for :mod:`orchestrator_server.tracing`: requests, executions, attempts, HTTP out.

One trace holds them: an execution's span is a child of the request that it was accepted for, an attempt's a child of its execution's,
and what an attempt sends out names the span of that sending in ``traceparent``. The start event keeps the request's
``traceparent``; so whoever goes on with an execution goes on in its trace, with a span of its own.

No span holds a query, a body, a header, an error's text or a secret: addresses are masked like all else that leaves an attempt.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import attrs
from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace import TracerProvider as AnyProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator_core import HttpPolicy, NodeContext, NodeError, hookimpl
from orchestrator_core.errors import OrchestratorError
from orchestrator_core.events import Event, ExecutionEnded, ExecutionStarted
from orchestrator_core.expressions import ExpressionError
from orchestrator_core.masking import mask
from orchestrator_core.nodes import HttpClient, LanguageError, WaitRequested, unwrapped
from orchestrator_core.realm import Realm
from orchestrator_core.types import Json

__all__ = ["Spans", "close_provider", "open_provider"]

_PATIENCE: Final = 3.0  # seconds for sending the last spans
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_REALM: Final = contexts.create_key("orchestrator-realm")  # whose secrets an attempt may have seen
_W3C: Final = TraceContextTextMapPropagator()


def open_provider(instance: str, version: str) -> TracerProvider:
    """A provider that sends to where the standard variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and its like) say."""
    resource = Resource.create({SERVICE_INSTANCE_ID: instance, SERVICE_VERSION: version})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "orchestrator"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


async def close_provider(provider: TracerProvider) -> None:
    """Send what is left, as far as somebody takes it within some seconds."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(_PATIENCE):
        await anyio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


@attrs.define(eq=False)
class _Request:
    """See :class:`~orchestrator_server.tracing.RequestSpan`."""

    span: Span
    token: Any

    def over(self, status: int, tags: Mapping[str, str]) -> None:
        contexts.detach(self.token)
        self.span.set_attribute("http.response.status_code", status)
        for name in ("tenant", "execution"):
            if name in tags:
                self.span.set_attribute(f"orchestrator.{name}", tags[name])
        if status >= 500:
            self.span.set_attribute("error.type", str(status))
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


@attrs.define(eq=False)
class _Running:
    """An execution that is driven here, and the ids of its children."""

    span: Span
    children: list[str] = attrs.field(factory=list)


class Spans:
    """Makes the spans; a plugin of the engine whose attempts are traced.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: AnyProvider) -> None:
        self._tracer: Tracer = provider.get_tracer("orchestrator_server")
        self._running: dict[str, _Running] = {}

    # --- requests -------------------------------------------------------------------------------------------------------

    def request(self, method: str, route: str, scope: Mapping[str, Any]) -> _Request:
        """See :class:`~orchestrator_server.tracing.Tracing`."""
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        known = method in _METHODS
        span = self._tracer.start_span(
            f"{method if known else 'HTTP'} {route}",
            _W3C.extract(given, Context()),
            SpanKind.SERVER,
            {
                "http.request.method": method if known else "_OTHER",
                "http.route": route,
                "url.scheme": str(scope.get("scheme", "http")),
            },
        )
        return _Request(span, contexts.attach(set_span_in_context(span, Context())))

    # --- executions -----------------------------------------------------------------------------------------------------

    def accepted(self, tenant: str, workflow: str) -> str | None:
        """See :class:`~orchestrator_server.tracing.Tracing`. What nobody asked for (a schedule's) begins a trace."""
        span = get_current_span()
        if not span.get_span_context().is_valid:
            attributes = {"orchestrator.tenant": tenant, "orchestrator.workflow": workflow}
            span = self._tracer.start_span(f"start {workflow}", Context(), attributes=attributes)
            span.end()
        return _traceparent(span)

    def begun(self, tenant: str, start: ExecutionStarted) -> None:
        """See :class:`~orchestrator_server.tracing.Tracing`."""
        self.left(start.execution_id)
        parent = _W3C.extract({"traceparent": start.trace or ""}, Context())
        self._execution(parent, tenant, start.workflow, start.execution_id, start.version)

    def left(self, execution_id: str) -> None:
        """See :class:`~orchestrator_server.tracing.Tracing`."""
        self._over(execution_id, None, None)

    @hookimpl
    def observe_event(self, execution_id: str, event: Event) -> None:
        """An execution's span ends with it."""
        if isinstance(event, ExecutionEnded):
            self._over(execution_id, event.status.value, None if event.error is None else event.error.code)

    def _execution(self, parent: Context, tenant: str, workflow: str, execution_id: str, version: int | None) -> Span:
        attributes: dict[str, str | int] = {
            "orchestrator.tenant": tenant,
            "orchestrator.workflow": workflow,
            "orchestrator.execution": execution_id,
        }
        if version is not None:
            attributes["orchestrator.version"] = version
        span = self._tracer.start_span(f"execution {workflow}", parent, attributes=attributes)
        self._running[execution_id] = _Running(span)
        return span

    def _over(self, execution_id: str, status: str | None, code: str | None) -> None:
        running = self._running.pop(execution_id, None)
        if running is not None:
            for child in running.children:
                self._over(child, None, None)
            _end(running.span, status, code)

    def _span_of(self, realm: Realm, execution_id: str) -> Span | None:
        """The span of an execution; that of a child is made when it is first needed."""
        running = self._running.get(execution_id)
        if running is not None:
            return running.span
        driver = realm.engine.driver(execution_id)
        if driver is None or driver.parent is None:
            return None
        above = driver.parent[0].machine.execution_id
        around = self._span_of(realm, above)
        if around is None:
            return None
        self._running[above].children.append(execution_id)
        workflow, parent = driver.machine.plan.workflow, set_span_in_context(around, Context())
        return self._execution(parent, realm.tenant, workflow.id, execution_id, workflow.version)

    # --- attempts -------------------------------------------------------------------------------------------------------

    @hookimpl
    def around_attempt(self, ctx: NodeContext, node_type: str) -> AbstractContextManager[None]:
        """A span for an attempt."""
        return self._attempt(ctx, node_type)

    @contextmanager
    def _attempt(self, ctx: NodeContext, node_type: str) -> Iterator[None]:
        realm = ctx.services
        assert isinstance(realm, Realm)  # noqa: S101 - so the engine makes them
        parent = self._span_of(realm, ctx.execution_id)
        outer = Context() if parent is None else set_span_in_context(parent, Context())
        span = self._tracer.start_span(
            f"node {ctx.node_id}",
            outer,
            attributes={
                "orchestrator.tenant": realm.tenant,
                "orchestrator.execution": ctx.execution_id,
                "orchestrator.node": ctx.path,
                "orchestrator.node_type": node_type,
                "orchestrator.attempt": ctx.attempt,
            },
        )
        token = contexts.attach(contexts.set_value(_REALM, realm, set_span_in_context(span, Context())))
        status, code = "succeeded", None
        try:
            yield
        except BaseException as raised:
            error = unwrapped(raised)
            if isinstance(error, WaitRequested):
                status = "waiting"
            elif isinstance(error, Exception):
                status, code = "failed", str(mask(_code_of(error), realm.secrets.values()))
            else:
                status = "cancelled"
            raise
        finally:
            contexts.detach(token)
            _end(span, status, code)

    # --- HTTP out -------------------------------------------------------------------------------------------------------

    @hookimpl(wrapper=True)
    def make_http_client(self, policy: HttpPolicy) -> Generator[None, HttpClient | None, HttpClient | None]:  # noqa: ARG002 - the hook's
        """The client of whoever makes it, each request in a span."""
        client = yield
        return None if client is None else _TracedClient(client, self._tracer)


class _TracedClient:
    """An HTTP client with a span for each request, redirects included. What it has beside ``request`` is passed on."""

    def __init__(self, client: HttpClient, tracer: Tracer) -> None:
        self._client = client
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def request(self, method: str, url: Any, **arguments: Any) -> Any:
        """See :class:`~orchestrator_core.nodes.HttpClient`."""
        word = method.upper() if method.upper() in _METHODS else "_OTHER"
        attributes = {"http.request.method": word, **_address(str(url))}
        span = self._tracer.start_span("HTTP" if word == "_OTHER" else word, None, SpanKind.CLIENT, attributes)
        arguments["headers"] = _with_traceparent(arguments.get("headers"), _traceparent(span))
        code: str | None = None
        try:
            response = await self._client.request(method, url, **arguments)
        except BaseException as error:
            code = _code_of(error)
            raise
        else:
            span.set_attribute("http.response.status_code", response.status_code)
            code = str(response.status_code) if response.status_code >= 400 else None
            return response
        finally:
            _end(span, None, code)

    async def aclose(self) -> None:
        """See :class:`~orchestrator_core.nodes.HttpClient`."""
        await self._client.aclose()


def _address(url: str) -> dict[str, str | int]:
    """Where a request goes: no user, query or fragment, and no secret that the attempt may know."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return {}  # the client refuses it
    realm = contexts.get_value(_REALM)
    secrets = realm.secrets.values() if isinstance(realm, Realm) else ()
    shown = f"[{host}]" if ":" in host else host
    place = shown if port is None else f"{shown}:{port}"
    masked: Json = mask([f"{parts.scheme}://{place}{parts.path}", host], secrets)
    assert isinstance(masked, list)  # noqa: S101 - it was one
    default = 443 if parts.scheme == "https" else 80
    return {
        "url.full": str(masked[0]),
        "server.address": str(masked[1]),
        "server.port": default if port is None else port,
    }


def _with_traceparent(headers: Any, traceparent: str | None) -> list[tuple[Any, Any]]:
    """A request's headers with ``traceparent``, unless the workflow sets one itself."""
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    pairs = [*(items() if items is not None else headers or ())]
    names = {(name.decode("latin-1") if isinstance(name, bytes) else str(name)).lower() for name, _ in pairs}
    return pairs if traceparent is None or "traceparent" in names else [*pairs, ("traceparent", traceparent)]


def _traceparent(span: Span) -> str | None:
    """``None`` where the provider makes no spans."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get("traceparent")


def _end(span: Span, status: str | None, code: str | None) -> None:
    if status is not None:
        span.set_attribute("orchestrator.status", status)
    if code is not None:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _code_of(error: BaseException) -> str:
    """A word for an error: its text may repeat data."""
    if isinstance(error, ExpressionError):
        return "expression"
    code = error.code if isinstance(error, NodeError | OrchestratorError | LanguageError) else None
    return code if isinstance(code, str) else type(error).__name__
