"""The HTTP client against a real server on this machine, over asyncio and trio."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress

import anyio
import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_core import HttpPolicy, NodeError
from orchestrator_nodes_std.addresses import AddressRefused
from orchestrator_nodes_std.http_client import make_http_client

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@attrs.frozen
class Asked:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


# What a handler gives: bytes to send, and seconds to sleep in between.
Handler = Callable[[Asked], Iterable[bytes | float]]


class Server:
    """A server that says what it is told to, byte by byte, and remembers what it was asked."""

    def __init__(self, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.context = context
        self.asked: list[Asked] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def _serve(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                break
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        if self.context is not None:
            try:
                connection = self.context.wrap_socket(connection, server_side=True)
            except OSError:
                return
            self._open.append(connection)
        with connection, connection.makefile("rb") as lines:
            try:
                while start := lines.readline():
                    method, path, _ = start.decode().split(" ", 2)
                    headers = {}
                    while (line := lines.readline().decode().strip()) != "":
                        name, _, value = line.partition(":")
                        headers[name.lower()] = value.strip()
                    body = lines.read(int(headers.get("content-length", 0)))
                    asked = Asked(method, path, headers, body)
                    self.asked.append(asked)
                    for piece in self.handler(asked):
                        if isinstance(piece, bytes):
                            connection.sendall(piece)
                        else:
                            self._over.wait(piece)
            except (OSError, ValueError):
                pass  # the client hung up, or spoke TLS


def answer(status: int = 200, body: bytes = b"", **headers: str) -> list[bytes | float]:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return [("\r\n".join(lines) + "\r\n\r\n").encode() + body]


# Without authorities it takes no time to make; what is tested here speaks plain HTTP, or must not be trusted.
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client_for(*, allow=("127.0.0.1",), ask=None, **policy):
    names = {} if ask is None else {"ask": ask}
    return make_http_client(HttpPolicy(allow=allow, **policy), ssl_context=TRUSTS_NOBODY, **names)


async def own_host(name, port):
    """Every name is this machine."""
    return ["127.0.0.1"]


# --- plain requests ----------------------------------------------------------------------------------------------------


async def test_requests_arrive_and_answers_come_back_over_one_connection():
    with Server(lambda asked: answer(200, asked.method.encode() + asked.body)) as server:
        async with client_for() as client:
            assert (await client.get(server.url("/a?b=c"))).text == "GET"
            assert (await client.post(server.url(), content=b"x")).text == "POSTx"
            response = await client.request("DELETE", server.url())
            async with client.stream("PUT", server.url(), content=b"y" * 70_000) as streamed:
                assert len(await streamed.aread()) == 70_003
        assert response.text == "DELETE"
        assert response.elapsed.total_seconds() < 5
        assert server.asked[0].path == "/a?b=c"
        assert server.connections == 1


async def test_the_name_stays_in_the_host_header_and_the_connection_goes_to_the_judged_address():
    with Server(lambda asked: answer()) as server:
        async with client_for(ask=own_host) as client:
            await client.get(server.url(host="shop.example"))
        assert server.asked[0].headers["host"] == f"shop.example:{server.port}"


async def test_cookies_are_neither_kept_nor_sent():
    with Server(lambda asked: answer(set_cookie="session=1; Path=/")) as server:
        async with client_for() as client:
            first = await client.get(server.url())
            await client.get(server.url())
        assert first.headers["set-cookie"] == "session=1; Path=/"
        assert "cookie" not in server.asked[1].headers


async def test_proxies_and_passwords_of_the_environment_are_not_used(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with Server(lambda asked: answer(502)) as proxy, Server(lambda asked: answer()) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        async with client_for() as client:
            assert (await client.get(server.url())).status_code == 200
        assert proxy.connections == 0
        assert "authorization" not in server.asked[0].headers


async def test_urls_are_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with Server(lambda asked: answer()) as server:
        async with client_for() as client:
            await client.get(server.url("/hooks/9f3c9f3c?key=9f3c9f3c"), headers={"X-Key": "9f3c9f3c"})
    assert "9f3c9f3c" not in caplog.text


async def test_a_closed_client_says_so():
    client = client_for()
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get("http://127.0.0.1/")


async def test_the_ways_of_httpx_to_authenticate_work():
    def token(request):
        request.headers["authorization"] = "Bearer t"
        return request

    def challenge(asked):
        if "authorization" in asked.headers:
            return answer()
        return answer(401, b"no", www_authenticate='Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256')

    with Server(challenge) as server:
        async with client_for() as client:
            assert (await client.get(server.url(), auth=("u", "p"))).status_code == 200
            assert (await client.get(server.url(), auth=token)).status_code == 200
            assert (await client.get(server.url(), auth=httpx.DigestAuth("u", "p"))).status_code == 200
            assert (await client.get(server.url(), auth=None)).status_code == 401
        kinds = [asked.headers.get("authorization", "-").split()[0] for asked in server.asked]
        assert kinds == ["Basic", "Bearer", "-", "Digest", "-"]


# --- addresses -----------------------------------------------------------------------------------------------------------


async def refused(client, url, **arguments):
    with pytest.raises(AddressRefused) as caught:
        await client.get(url, **arguments)
    return str(caught.value)


async def test_open_and_closed_ports_are_refused_alike_without_a_connection():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    with Server(lambda asked: answer()) as server:
        async with client_for(allow=(), ask=own_host) as client:
            for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "inside.example"):
                there = await refused(client, f"http://{host}:{server.port}/")
                absent = await refused(client, f"http://{host}:{nobody}/")
                assert there == absent
                assert (await refused(client, f"https://{host}:{server.port}/")) == there
        assert server.connections == 0


async def test_one_private_address_among_the_answers_refuses_the_name():
    async def mixed(name, port):
        return ["127.0.0.1", "10.0.0.1"]

    with Server(lambda asked: answer()) as server:
        async with client_for(ask=mixed) as client:
            await refused(client, server.url(host="mixed.example"))
        assert server.connections == 0


async def test_a_resolver_that_changes_its_answer_gets_nothing():
    """The classic attack: a good answer for the check, a bad one for the connection."""
    answers = [["192.0.1.1"], ["127.0.0.1"]]
    asked = []

    async def rebind(name, port):
        asked.append(name)
        return answers[min(len(asked), 2) - 1]

    with Server(lambda asked: answer()) as server:
        async with client_for(allow=(), ask=rebind) as client:
            with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
                await client.get(server.url(host="rebind.example"), timeout=0.2)
            assert asked == ["rebind.example"]
            await refused(client, server.url(host="rebind.example"))
        assert server.connections == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["127.0.0.1", "10.0.0.9", "192.0.1.1", "::1"]), min_size=1, max_size=3), min_size=1
    )
)
def test_no_sequence_of_answers_leads_to_a_refused_address(answers):
    """Every connection goes to an address of the one answer that was judged as a whole."""
    given_answers = iter(answers)
    tried = []

    async def ask(name, port):
        return next(given_answers)

    async def connect(address, port, *_):
        tried.append(address)
        raise httpx.ConnectError("not in this test")

    async def main():
        async with client_for(allow=(), ask=ask) as client:
            client._guarded._network._tcp.connect_tcp = connect
            for answer_ in answers:
                tried.clear()
                with pytest.raises((AddressRefused, httpx.ConnectError)):
                    await client.get("http://turns.example/")
                assert set(tried) <= {"192.0.1.1"}
                assert bool(tried) == (set(answer_) == {"192.0.1.1"})

    anyio.run(main)


test_no_sequence_of_answers_leads_to_a_refused_address.pytestmark = []  # type: ignore[attr-defined]


async def test_where_one_address_does_not_answer_the_next_is_tried():
    async def half(name, port):
        return ["127.0.0.2", "127.0.0.1"]

    with Server(lambda asked: answer()) as server:
        async with client_for(allow=("127.0.0.0/8",), ask=half) as client:
            assert (await client.get(server.url(host="half.example"), timeout=5)).status_code == 200


async def test_names_that_do_not_exist_are_connection_errors():
    async def nothing(name, port):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async with client_for(ask=nothing) as client:
        with pytest.raises(httpx.ConnectError, match=r"gone\.example cannot be looked up"):
            await client.get("http://gone.example/")


async def test_urls_made_by_httpx_beforehand_are_checked_too():
    async with client_for(allow=()) as client:
        for url in (httpx.URL("http://good.example\\@127.0.0.1/"), httpx.URL("http://127.0.0.1:70000/")):
            with pytest.raises(NodeError) as caught:
                await client.get(url)
            assert caught.value.code == "bad_url"
        await refused(client, httpx.URL(scheme="http", host="127.0.0.1"))
        with pytest.raises(AddressRefused):
            await client.send(httpx.Request("GET", "http://10.0.0.1/"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nHost: evil"},
        {"X-A": "b\nc"},
        {"X-A": "b\x00"},
        {"X-A\r\nB": "c"},
        {"X A": "c"},
        {"": "c"},
        {"X-A": "é"},
    ],
)
async def test_nothing_is_smuggled_through_headers(headers):
    with Server(lambda asked: answer()) as server:
        async with client_for() as client:
            with pytest.raises(NodeError) as caught:
                await client.get(server.url(), headers=headers)
            assert caught.value.code == "bad_header"

            def late(request):
                request.headers.raw.append((b"X-A", b"b\r\nHost: evil"))
                request.headers["X-B"] = "b\r\nHost: evil"
                return request

            with pytest.raises(NodeError):
                await client.get(server.url(), auth=late)
        assert server.connections == 0


# --- redirects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_methods_and_bodies_through_redirects(status, method):
    with Server(lambda asked: answer(status, location="/b?c#d") if asked.path == "/a" else answer()) as server:
        async with client_for() as client:
            body = b"body" if method in {"POST", "PUT"} else None
            response = await client.request(method, server.url("/a"), content=body, follow_redirects=True)
        assert response.status_code == 200
        assert [one.status_code for one in response.history] == [status]
        first, second = server.asked
        becomes_get = (status == 303 and method != "HEAD") or (status in {301, 302} and method == "POST")
        assert second.method == ("GET" if becomes_get else method)
        assert second.path == "/b?c"
        assert second.body == (b"" if becomes_get else first.body)
        assert ("content-length" in second.headers) == (body is not None and not becomes_get)
        assert server.connections == 1


async def test_redirects_are_followed_only_when_asked():
    with Server(lambda asked: answer(302, location="http://[broken")) as server:
        async with client_for() as client:
            response = await client.get(server.url())
            assert (response.status_code, response.headers["location"]) == (302, "http://[broken")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2/", "http://10.0.0.1/", "//169.254.169.254/latest/meta-data", "http://[::1]:80/", "http://0x7f.2/",
        "http://[::ffff:10.0.0.1]/", "http://\uff12130706434/", "http://inside.example/", "http://100.100.100.200",
    ],
)  # fmt: skip
async def test_redirects_to_private_addresses_are_refused(status, location):
    async def inside(name, port):
        return ["192.168.1.1"]

    with Server(
        lambda asked: [p.encode("utf-8") if isinstance(p, str) else p for p in moved(status, location)]
    ) as server:
        async with client_for(ask=inside) as client:
            await refused(client, server.url(), follow_redirects=True)
        assert len(server.asked) == 1


def moved(status, location):
    return [f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nlocation: {location}\r\n\r\n"]


@pytest.mark.parametrize(
    "location",
    ["http://u:p@127.0.0.1/", "http://x\\@127.0.0.1/", "/\\127.0.0.1/", "ftp://x/", "file:///etc/passwd", "http://x:0/", "http://[x/",
     "javascript:alert(1)", "http:///x"],
)  # fmt: skip
async def test_redirects_to_odd_urls_are_errors(location):
    with Server(lambda asked: answer(302, location=location)) as server:
        async with client_for() as client:
            with pytest.raises(NodeError) as caught:
                await client.get(server.url(), follow_redirects=True)
            assert caught.value.code == "bad_url"
        assert len(server.asked) == 1


CREDENTIALS = {
    "Authorization": "Bearer x",
    "Cookie": "a=b",
    "X-Api-Key": "k",
    "Accept": "text/x",
    "Proxy-Authorization": "z",
}


async def test_credentials_stay_on_their_origin():
    with (
        Server(lambda asked: answer(307, location="/there") if asked.path == "/" else answer()) as other,
        Server(lambda asked: answer(307, location="/" if asked.path == "/a" else other.url())) as server,
    ):
        async with client_for() as client:
            await client.post(server.url("/a"), content=b"x", headers=CREDENTIALS, follow_redirects=True)
    same = server.asked[1]
    assert (same.headers["authorization"], same.headers["x-api-key"], same.headers["cookie"]) == (
        "Bearer x",
        "k",
        "a=b",
    )
    for asked in other.asked:
        assert not {"authorization", "cookie", "x-api-key", "proxy-authorization"} & set(asked.headers)
        assert asked.headers["accept"] == "text/x"
        assert asked.headers["host"] == f"127.0.0.1:{other.port}"
        assert asked.body == b"x"


async def test_credentials_of_an_auth_stay_on_their_origin_and_do_not_come_back():
    with (
        Server(lambda asked: answer(302, location=server.url("/back"))) as other,
        Server(lambda asked: answer(302, location=other.url()) if asked.path == "/" else answer()) as server,
    ):
        async with client_for() as client:
            await client.get(server.url(), auth=("u", "p"), follow_redirects=True)
    assert "authorization" in server.asked[0].headers
    assert "authorization" not in other.asked[0].headers
    assert "authorization" not in server.asked[1].headers


async def test_a_loop_of_redirects_ends():
    with Server(lambda asked: answer(302, location="/again")) as server:
        async with client_for() as client:
            for limit, extensions in ((10, {}), (2, {"max_redirects": 2}), (0, {"max_redirects": 0})):
                server.asked.clear()
                with pytest.raises(NodeError) as caught:
                    await client.get(server.url(), follow_redirects=True, extensions=extensions)
                assert caught.value.code == "too_many_redirects"
                assert len(server.asked) == limit + 1


async def whole(client, url):
    return (await client.get(url, follow_redirects=True)).content


async def streamed(client, url):
    async with client.stream("GET", url, follow_redirects=True) as response:
        return b"".join([part async for part in response.aiter_bytes()])


# --- limits -----------------------------------------------------------------------------------------------------------------


async def too_large(client, url, **arguments):
    with pytest.raises(NodeError) as caught:
        await client.get(url, **arguments)
    assert caught.value.code == "too_large"


async def test_a_body_above_the_cap_is_refused_by_its_length_before_it_is_read():
    with Server(lambda asked: [b"HTTP/1.1 200 X\r\ncontent-length: 9000000000\r\n\r\n", 5.0]) as server:
        async with client_for(max_body=1000) as client:
            before = time.monotonic()
            await too_large(client, server.url())
            assert time.monotonic() - before < 2


async def test_a_body_of_unknown_length_is_read_up_to_the_cap():
    def endless(asked):
        yield b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"400\r\n" + b"x" * 1024 + b"\r\n"

    with Server(endless) as server:
        async with client_for(max_body=100_000) as client:
            await too_large(client, server.url())
            with pytest.raises(NodeError):
                await streamed(client, server.url())
    with Server(lambda asked: answer(200, b"x" * 1000)) as server:
        async with client_for(max_body=1000) as client:
            assert len((await client.get(server.url())).content) == 1000
            await too_large(client, server.url(), extensions={"max_body": 999})
            assert (await client.get(server.url(), extensions={"max_body": 5000})).status_code == 200
            assert (await client.head(server.url(), extensions={"max_body": 5})).status_code == 200


def squeeze(kind, data):
    if kind == "gzip":
        return gzip.compress(data)
    if kind == "zlib":
        return zlib.compress(data)
    raw = zlib.compressobj(wbits=-15)
    return raw.compress(data) + raw.flush()


@pytest.mark.parametrize(
    ("kind", "encoding"), [("gzip", "gzip"), ("gzip", "x-gzip"), ("zlib", "deflate"), ("raw", "deflate")]
)
async def test_compressed_bodies(kind, encoding):
    data = bytes(range(256)) * 1000
    packed = squeeze(kind, data)

    def dribble(asked):
        yield f"HTTP/1.1 200 X\r\ncontent-length: {len(packed)}\r\ncontent-encoding: {encoding}\r\n\r\n".encode()
        yield packed[:1]
        yield 0.01
        yield packed[1:]

    with Server(dribble) as server:
        async with client_for() as client:
            response = await client.get(server.url())
            assert response.content == data
            assert "content-encoding" not in response.headers
        assert server.asked[0].headers["accept-encoding"] == "gzip, deflate"


async def test_a_gzip_body_may_have_members_and_padding():
    packed = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 20
    with Server(lambda asked: answer(200, packed, content_encoding="gzip")) as server:
        async with client_for() as client:
            assert (await client.get(server.url())).text == "one two"


@pytest.mark.parametrize("kind", ["gzip", "zlib", "raw"])
async def test_a_decompression_bomb_stops_at_the_cap(kind):
    packed = squeeze(kind, b"\0" * 200_000_000)
    encoding = "gzip" if kind == "gzip" else "deflate"
    with Server(lambda asked: answer(200, packed, content_encoding=encoding)) as server:
        async with client_for(max_body=1_000_000) as client:
            tracemalloc.start()
            try:
                await too_large(client, server.url())
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "deflate, gzip", "zstd", "no-such"])
async def test_encodings_that_nobody_asked_for_are_refused(encoding):
    with Server(lambda asked: answer(200, gzip.compress(gzip.compress(b"x")), content_encoding=encoding)) as server:
        async with client_for() as client:
            with pytest.raises(httpx.DecodingError):
                await client.get(server.url())


# Each by a name: a gzip holds the time, and test processes are to agree on the names of tests.
@pytest.mark.parametrize(
    "body", [gzip.compress(b"x" * 1000)[:-9], b"no gzip at all", b"\x1f"], ids=["cut off", "none at all", "one byte"]
)
async def test_broken_compression_is_an_error(body):
    with Server(lambda asked: answer(200, body, content_encoding="gzip")) as server:
        async with client_for() as client:
            with pytest.raises(httpx.DecodingError):
                await client.get(server.url())


async def test_empty_bodies_may_claim_to_be_compressed():
    with Server(lambda asked: answer(204 if asked.path == "/204" else 200, content_encoding="gzip")) as server:
        async with client_for() as client:
            assert (await client.get(server.url())).content == b""
            assert (await client.head(server.url())).headers["content-encoding"] == "gzip"


def drip(asked):
    yield b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n"
    for _ in range(100):
        yield b"1\r\nx\r\n"
        yield 0.05


def drip_headers(asked):
    yield b"HTTP/1.1 200 X\r\n"
    for _ in range(100):
        yield b"X: y\r\n"
        yield 0.05


def silence(asked):
    yield 8.0


def redirects_slowly(asked):
    yield 0.1
    yield from answer(302, location="/again")


@pytest.mark.parametrize("handler", [drip, drip_headers, silence, redirects_slowly])
@pytest.mark.parametrize("send", [whole, streamed])
async def test_one_deadline_covers_everything(handler, send):
    with Server(handler) as server:
        async with client_for(timeout=0.3) as client:
            before = time.monotonic()
            with pytest.raises(httpx.TimeoutException):
                await send(client, server.url())
            assert time.monotonic() - before < 3


async def test_a_request_may_set_its_own_time():
    with Server(drip) as server:
        async with client_for() as client:
            with pytest.raises(httpx.TimeoutException):
                await client.get(server.url(), timeout=0.2)
            with pytest.raises(httpx.TimeoutException):
                await client.get(server.url(), timeout=httpx.Timeout(None, read=0.2))


async def test_a_slow_resolver_counts_as_well():
    async def slow(name, port):
        await anyio.sleep(10)
        return ["127.0.0.1"]

    async with client_for(ask=slow, timeout=0.2) as client:
        with pytest.raises(httpx.TimeoutException):
            await client.get("http://slow.example/")


async def test_cancelling_gives_the_connection_back():
    with Server(silence) as server:
        async with client_for() as client:
            with anyio.move_on_after(0.1):
                await client.get(server.url())
            assert client._guarded._pool.connections == []


async def test_a_connection_that_breaks_is_an_error():
    with Server(lambda asked: [b"HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nabc"]) as server:
        server.handler = lambda asked: (_ for _ in ()).throw(OSError)
        async with client_for() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(server.url())


# --- TLS ------------------------------------------------------------------------------------------------------------------------


async def test_tls_keeps_the_name_although_the_connection_goes_to_an_address(tmp_path):
    """A resolver that sends every name here does not make this server any other."""
    (tmp_path / "server.pem").write_text(CERTIFICATE)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem")
    names = []
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cadata=CERTIFICATE)
    with Server(lambda asked: answer(200, b"secret"), serving) as server:
        policy = HttpPolicy(allow=("127.0.0.1",))
        async with make_http_client(policy, ask=own_host, ssl_context=trusting) as client:
            response = await client.get(f"https://shop.example:{server.port}/")
            assert response.content == b"secret"
            assert server.asked[0].headers["host"] == f"shop.example:{server.port}"
            for host in ("bank.example", "127.0.0.1"):
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    await client.get(f"https://{host}:{server.port}/")
        async with make_http_client(policy, ask=own_host) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(f"https://shop.example:{server.port}/")
    assert names[:2] == ["shop.example", "bank.example"]
    assert len(server.asked) == 1


async def test_https_never_becomes_http(tmp_path):
    (tmp_path / "server.pem").write_text(CERTIFICATE)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "server.pem")
    with (
        Server(lambda asked: answer()) as plain,
        Server(lambda asked: answer(302, location=plain.url()), serving) as server,
    ):
        trusting = ssl.create_default_context(cadata=CERTIFICATE)
        async with make_http_client(HttpPolicy(allow=("127.0.0.1",)), ask=own_host, ssl_context=trusting) as client:
            with pytest.raises(NodeError, match="from https to http") as caught:
                await client.get(f"https://shop.example:{server.port}/", follow_redirects=True)
        assert caught.value.code == "bad_response"
        assert plain.connections == 0


# For shop.example, signed by itself; it guards nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKiULlfazmtkDIidH
2UtwMiQNf4/Pqy0JB976ABMiigOhRANCAATewJGrQmd/yronuMSx7/nvrP/mWVUF
q5DLbMbM8LkF439qBy9ty3ubjh7GHHWDvuVjf8Z034EHBIgaH5Eu23E8
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnjCCAUSgAwIBAgIUexZjn4y3J7+i33htqgZBskrbP/cwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMc2hvcC5leGFtcGxlMCAXDTI2MTEyMjIzNDkyMloYDzIxMjYx
MDI5MjM0OTIyWjAXMRUwEwYDVQQDDAxzaG9wLmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAATewJGrQmd/yronuMSx7/nvrP/mWVUFq5DLbMbM8LkF439q
By9ty3ubjh7GHHWDvuVjf8Z034EHBIgaH5Eu23E8o2wwajAdBgNVHQ4EFgQUYPEQ
CqxpC/e8VtrQin1PFgYb444wHwYDVR0jBBgwFoAUYPEQCqxpC/e8VtrQin1PFgYb
444wDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxzaG9wLmV4YW1wbGUwCgYI
KoZIzj0EAwIDSAAwRQIhAOYFa4zqkA5lNluxDquJfGDbq0ZUBpAKYVBPim+hbB7N
AiAXPFB2FsF4pc47eeGcY1gSEKJuOKb5kbrwzpIvFRlp9A==
-----END CERTIFICATE-----
"""
