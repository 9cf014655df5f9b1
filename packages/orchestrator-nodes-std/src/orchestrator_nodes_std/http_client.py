"""The HTTP client that nodes get: an ``httpx.AsyncClient`` that goes nowhere it must not, and never for too long.

What it adds to httpx, in the order in which a request meets it:

1. *Before anything leaves*: the URL's spelling, its host and its port, the names and values of headers.
2. *At the socket*: a name is looked up once, all its addresses are judged (:mod:`orchestrator_nodes_std.addresses`), and the
   connection goes to one of those very addresses. TLS and ``Host`` keep the name.
3. *On every redirect*: all of the above again. Across origins only harmless headers are kept; https never becomes http.
4. *On the answer*: one deadline for everything from the first byte out to the last byte in, and a cap on the body, counted
   after decompression, which is done here in small steps so that a bomb stops at the cap.

There are no cookies between requests, no proxies and no ``.netrc`` from the environment, and no log lines with URLs in
them: many executions share one client, and URLs hold secrets.
"""

from __future__ import annotations

import re
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import zip_longest
from typing import Any, Final, cast

import anyio
import httpcore
import httpx

from orchestrator_core import HttpPolicy, NodeError
from orchestrator_nodes_std.addresses import AddressGuard, AddressRefused, Lookup, Target, lookup, read_url

__all__ = ["MAX_REDIRECTS", "make_http_client"]

MAX_REDIRECTS: Final = 10

_USER_AGENT: Final = "pluggable-orchestrator"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# What may follow a redirect to another origin. All else may be a credential: X-Api-Key looks like any other header.
_KEPT_ACROSS_ORIGINS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "user-agent",
    }
)
_BODY_HEADERS: Final = ("content-encoding", "content-language", "content-length", "content-type", "transfer-encoding")
_HEADER_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE_UNFIT = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A redirect's own body up to this size is read, so that its connection can be used again.
_SMALL: Final = 16_384
_STEP: Final = 65_536
# Seconds between the first tries of a host's addresses (RFC 8305 recommends this delay).
_STAGGER: Final = 0.25


def make_http_client(
    policy: HttpPolicy,
    *,
    ask: Lookup = lookup,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client that keeps to a policy. One serves any number of nodes; close it with ``aclose``.

    A request's ``timeout`` counts for the whole of it, body and redirects included. ``extensions`` of a request may hold
    ``max_body`` (bytes, only below the policy's) and ``max_redirects``.

    Args:
        policy: What the operator allows.
        ask: Looks names up; the system's resolver by default.
        ssl_context: For servers with certificates of a private authority. By default those of certifi, or what
            ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name.

    Raises:
        ValueError: The policy's ``allow`` holds something that is no host, address or network.
    """
    return _Client(policy, AddressGuard(policy.allow), ask, ssl_context)


# --- the client: URLs, headers, redirects -------------------------------------------------------------------------------


class _Client(httpx.AsyncClient):
    """Checks what is asked for, and follows redirects by its own rules."""

    def __init__(
        self, policy: HttpPolicy, guard: AddressGuard, ask: Lookup, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._guard = guard
        self._policy = policy
        self._guarded = _Transport(policy, guard, ask, ssl_context)
        super().__init__(
            transport=self._guarded,
            trust_env=False,
            follow_redirects=False,
            max_redirects=MAX_REDIRECTS,
            timeout=policy.timeout,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "gzip, deflate"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    def build_request(self, method: str, url: httpx.URL | str, **arguments: Any) -> httpx.Request:
        """As httpx has it, for URLs and headers that may leave.

        Raises:
            NodeError: ``bad_url`` or ``bad_header``.
            AddressRefused: The host is an address that must not be reached.
        """
        target = read_url(str(url))
        try:
            request = super().build_request(method, url, **arguments)
        except UnicodeEncodeError:
            raise _bad_header("a header holds characters outside of ASCII: encode them") from None
        except httpx.InvalidURL as error:
            raise _bad_url(f"the URL cannot be used: {error}") from None
        self._check_request(request, target)
        return request

    def _check_request(self, request: httpx.Request, target: Target) -> None:
        """What httpx made of the URL must be what was read, it may be reached, and headers are nothing but headers."""
        made = read_url(str(request.url))
        self._guard.check_host(made.host)
        if target.host.isascii() and made != target:
            raise _bad_url("the URL is read in different ways by different programs: write it plainly")
        _check_headers(request)

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send a request and follow redirects.

        Raises:
            NodeError: ``address_refused``, ``bad_url``, ``bad_header``, ``bad_response``, ``too_large`` or
                ``too_many_redirects``.
            httpx.TimeoutException: The request took longer than its time-out.
            httpx.TransportError: The connection could not be made or broke, or what came was not HTTP.
        """
        if self.is_closed:
            raise RuntimeError("the HTTP client has been closed")
        follow = self.follow_redirects if follow_redirects is httpx.USE_CLIENT_DEFAULT else bool(follow_redirects)
        limit = int(request.extensions.get("max_redirects", self.max_redirects))
        self._check_request(request, read_url(str(request.url)))

        started = anyio.current_time()
        request.extensions = {**request.extensions, "deadline": started + self._seconds(request)}
        history: list[httpx.Response] = []
        while True:
            response = await self._send_once(request, _auth_of(self.auth if auth is httpx.USE_CLIENT_DEFAULT else auth))
            response.history = list(history)
            try:
                if not (follow and response.has_redirect_location):
                    if not stream:
                        await response.aread()
                        response.elapsed = timedelta(seconds=anyio.current_time() - started)
                    return response
                following = self._redirected(response.request, response, len(history) < limit)
                await _finish(response)
            except BaseException:
                await _hang_up(response)
                raise
            history.append(response)
            # What the first hop's auth put on the request travels with its headers, or was dropped with them.
            request, auth = following, None

    def _seconds(self, request: httpx.Request) -> float:
        given = request.extensions.get("timeout", {}).get("read")
        return self._policy.timeout if given is None else float(given)

    async def _send_once(self, request: httpx.Request, auth: httpx.Auth) -> httpx.Response:
        """One hop, with the exchanges that its authentication needs. The body has not been read."""
        flow = auth.async_auth_flow(request)
        try:
            request = await anext(flow)
            while True:
                for hook in self.event_hooks["request"]:
                    await hook(request)
                response = await self._guarded.handle_async_request(request)
                response.request = request
                try:
                    for hook in self.event_hooks["response"]:
                        await hook(response)
                    request = await flow.asend(response)
                    await response.aread()
                except StopAsyncIteration:
                    return response
                except BaseException:
                    await _hang_up(response)
                    raise
        finally:
            await flow.aclose()

    def _redirected(self, request: httpx.Request, response: httpx.Response, allowed: bool) -> httpx.Request:
        """The request that a redirect asks for (the rules of the Fetch standard, 4.4)."""
        if not allowed:
            raise NodeError(
                f"{request.url.host} redirects too often: more is not followed",
                code="too_many_redirects",
                retryable=False,
            )
        location = response.headers["location"]
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
            read_url(location)
        elif "\\" in location or not location.isprintable():
            raise _bad_url(f"{request.url.host} redirects to a location with a backslash or a control character")
        try:
            url = request.url.join(location)
        except httpx.InvalidURL:
            raise _bad_url(f"{request.url.host} redirects to a location that is no URL") from None
        target = read_url(str(url))
        if request.url.scheme == "https" and target.scheme != "https":
            raise NodeError(
                f"{request.url.host} redirects from https to http, where anybody could read along: this is not followed",
                code="bad_response",
                retryable=False,
            )
        status, method = response.status_code, request.method
        becomes_get = (status == 303 and method not in {"GET", "HEAD"}) or (status in {301, 302} and method == "POST")
        same_origin = read_url(str(request.url)) == target
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name != "host"
            and (same_origin or name in _KEPT_ACROSS_ORIGINS)
            and not (becomes_get and name in _BODY_HEADERS)
        ]
        redirected = httpx.Request(
            "GET" if becomes_get else method,
            url,
            headers=[("Host", url.netloc.decode("ascii")), *headers],
            stream=None if becomes_get else request.stream,
            extensions=request.extensions,
        )
        self._check_request(redirected, target)
        return redirected


def _auth_of(auth: Any) -> httpx.Auth:
    if auth is None:
        return httpx.Auth()
    if isinstance(auth, httpx.Auth):
        return auth
    if isinstance(auth, tuple):
        return httpx.BasicAuth(*auth)
    return _FunctionAuth(auth)


class _FunctionAuth(httpx.Auth):
    """httpx lets ``auth`` be a function from a request to a request."""

    def __init__(self, function: Callable[[httpx.Request], httpx.Request]) -> None:
        self._function = function

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        yield self._function(request)


async def _finish(response: httpx.Response) -> None:
    """Read what little a redirect says, or hang up on one that says much."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) <= _SMALL:
        await response.aread()
    else:
        await response.aclose()


async def _hang_up(response: httpx.Response | httpcore.Response) -> None:
    with anyio.CancelScope(shield=True):
        await response.aclose()


def _check_headers(request: httpx.Request) -> None:
    for name, value in request.headers.raw:
        if not _HEADER_NAME.fullmatch(name):
            raise _bad_header("a header's name holds characters that no header may have")
        if _HEADER_VALUE_UNFIT.search(value):
            raise _bad_header(f"the value of header {name.decode()!r} holds a line break or another control character")


def _bad_url(message: str) -> NodeError:
    return NodeError(message, code="bad_url", retryable=False)


def _bad_header(message: str) -> NodeError:
    return NodeError(message, code="bad_header", retryable=False)


# --- the transport: deadline, cap, decompression -------------------------------------------------------------------------


class _Transport(httpx.AsyncBaseTransport):
    """httpcore's pool behind a network that refuses; made on the first request, for its certificates take time to load."""

    def __init__(
        self, policy: HttpPolicy, guard: AddressGuard, ask: Lookup, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._max_body = policy.max_body
        self._network = _Network(guard, ask)
        self._ssl_context = ssl_context
        self._pool: httpcore.AsyncConnectionPool | None = None

    def _connections(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=self._ssl_context or httpx.create_ssl_context(),
                max_connections=200,
                max_keepalive_connections=50,
                keepalive_expiry=15.0,
                network_backend=self._network,
            )
        return self._pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline: float = request.extensions["deadline"]
        cap = min(self._max_body, int(request.extensions.get("max_body") or self._max_body))
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise TypeError("an async client needs a body that can be read asynchronously: bytes, or an async iterable")
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": request.extensions.get("timeout", {})},
        )
        _check_headers(request)  # once more: authentication may have added some
        with _in_time(deadline, request):
            answer = await self._connections().handle_async_request(asked)
        headers = httpx.Headers(answer.headers)
        bodiless = request.method == "HEAD" or answer.status in {204, 304}
        try:
            inflater = None if bodiless else _open(headers, request, cap)
        except BaseException:
            await _hang_up(answer)
            raise
        return httpx.Response(
            status_code=answer.status,
            headers=headers,
            stream=_Body(answer, request, deadline, cap, inflater),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """A body that ends at its cap and at its deadline."""

    def __init__(
        self, answer: httpcore.Response, request: httpx.Request, deadline: float, cap: int, inflater: _Inflater | None
    ) -> None:
        self._answer = answer
        self._request = request
        self._deadline = deadline
        self._cap = cap
        self._inflater = inflater

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        chunks = aiter(self._answer.aiter_stream())
        try:
            while True:
                with _in_time(self._deadline, self._request):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                for part in self._decoded(chunk):
                    total += len(part)
                    if total > self._cap:
                        raise _too_large(self._request, self._cap)
                    yield part
            if self._inflater is not None:
                self._inflater.finish()
        except (NodeError, httpx.DecodingError):
            # Hang up, then let the generators below come to their end: trio minds those left in the middle.
            await _hang_up(self._answer)
            with suppress(Exception):
                async for _ in chunks:
                    pass
            raise

    def _decoded(self, chunk: bytes) -> Iterable[bytes]:
        return (chunk,) if self._inflater is None else self._inflater.feed(chunk)

    async def aclose(self) -> None:
        await self._answer.aclose()


def _too_large(request: httpx.Request, cap: int) -> NodeError:
    return NodeError(
        f"the body that {request.url.host} sends is larger than the {cap} bytes that are allowed",
        code="too_large",
        retryable=False,
    )


class _Inflater:
    """gzip and deflate, in steps of bounded size."""

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding != "deflate"
        self._inner: Any = None
        self._held = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._held + data
        self._held = b""
        while data:
            if self._inner is None:
                if len(data) < 2:
                    self._held = data
                    return
                self._inner = zlib.decompressobj(self._window(data))
            try:
                part = self._inner.decompress(data, _STEP)
            except zlib.error as error:
                raise httpx.DecodingError(f"the body is not what its Content-Encoding says: {error}") from None
            if part:
                yield part
            data = self._inner.unconsumed_tail
            if self._inner.eof:
                data = self._inner.unused_data
                if not (self._gzip and data[:1] == b"\x1f"):
                    return  # what follows a whole stream is padding, which browsers pass over too
                self._inner = None

    def _window(self, start: bytes) -> int:
        if self._gzip:
            return zlib.MAX_WBITS | 16
        # "deflate" means zlib's format (RFC 9110, 8.4.1.2); some servers send it without zlib's header.
        wrapped = start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS

    def finish(self) -> None:
        if self._held or (self._inner is not None and not self._inner.eof):
            raise httpx.DecodingError("the compressed body ends too early")


def _open(headers: httpx.Headers, request: httpx.Request, cap: int) -> _Inflater | None:
    """What undoes the body's encoding, whose headers are taken away: httpx would decode a second time.

    Raises:
        NodeError: ``too_large``, where the length is told before.
        httpx.DecodingError: An encoding that was not asked for. Two layers are never asked for: they multiply.
    """
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > cap:
        raise _too_large(request, cap)
    encodings = [word.strip().lower() for word in headers.get("content-encoding", "").split(",")]
    encodings = [word for word in encodings if word not in {"", "identity"}]
    if not encodings:
        return None
    if len(encodings) > 1 or encodings[0] not in {"gzip", "x-gzip", "deflate"}:
        raise httpx.DecodingError("the body is compressed in a way that was not asked for (gzip and deflate are)")
    del headers["content-encoding"]
    headers.pop("content-length", None)  # it counts the bytes before
    return _Inflater(encodings[0])


# httpx's exceptions are what callers know; the more special stand first.
_EXCEPTIONS: Final[tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.ProtocolError, httpx.RemoteProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        for ours, theirs in _EXCEPTIONS:
            if isinstance(error, ours):
                raise theirs(str(error), request=request) from error
        raise


@contextmanager
def _in_time(deadline: float, request: httpx.Request) -> Iterator[None]:
    try:
        with anyio.fail_after(max(0.0, deadline - anyio.current_time())), _as_httpx(request):
            yield
    except TimeoutError:
        raise httpx.ReadTimeout("the request took longer than its time-out", request=request) from None


# --- the network: look up once, judge, connect to what was judged ---------------------------------------------------------


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to judged addresses, over asyncio and trio."""

    def __init__(self, guard: AddressGuard, ask: Lookup) -> None:
        self._guard = guard
        self._ask = ask
        self._tcp = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        options = tuple(socket_options or ())
        try:
            with anyio.fail_after(timeout):
                try:
                    addresses = await self._guard.addresses(host, port, self._ask)
                except OSError as error:
                    raise httpcore.ConnectError(f"{host} cannot be looked up") from error
                return await self._first(addresses, port, local_address, options)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} did not answer in time") from None

    async def _first(
        self,
        addresses: Sequence[str],
        port: int,
        local_address: str | None,
        options: tuple[httpcore.SOCKET_OPTION, ...],
    ) -> httpcore.AsyncNetworkStream:
        """The first connection that comes about; tries overlap, so that a dead address costs little (RFC 8305)."""
        if len(addresses) == 1:
            return await self._tcp.connect_tcp(addresses[0], port, None, local_address, options)
        won: list[httpcore.AsyncNetworkStream] = []
        failed: list[Exception] = []

        async def attempt(address: str, over: anyio.Event) -> None:
            try:
                stream = await self._tcp.connect_tcp(address, port, None, local_address, options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed.append(error)
                over.set()
                return
            if won:
                await stream.aclose()
                return
            won.append(stream)
            over.set()
            group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                for address in _interleaved(addresses):
                    over = anyio.Event()
                    group.start_soon(attempt, address, over)
                    with anyio.move_on_after(_STAGGER):
                        await over.wait()
        except BaseException:
            # The request was cancelled in the very moment in which one came about.
            with anyio.CancelScope(shield=True):
                for stream in won:
                    await stream.aclose()
            raise
        if not won:
            raise httpcore.ConnectError("no address of the host accepts connections on this port") from failed[-1]
        return won[0]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 - the protocol's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused(f"{path!r} is refused: HTTP out does not use local sockets")

    async def sleep(self, seconds: float) -> None:
        await self._tcp.sleep(seconds)


def _interleaved(addresses: Sequence[str]) -> list[str]:
    """The families in turn, beginning with the one that the resolver put first."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if address not in first]
    return [address for turn in zip_longest(first, other) for address in turn if address is not None]
