"""The node type `http` against a real server on this machine, over asyncio and trio."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest
from helpers import NOW, run

from orchestrator_core import HttpPolicy, NodeError
from orchestrator_core.testing import FakeServices, make_context
from orchestrator_nodes_std.http import HttpAuth, HttpConfig, HttpFile, http
from orchestrator_nodes_std.http_client import make_http_client
from orchestrator_nodes_std.http_pages import HttpPagination

pytestmark = pytest.mark.anyio

# --- a server and the services of an attempt -----------------------------------------------------------------------------


@attrs.frozen
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: httpx.Headers
    body: bytes


@attrs.frozen
class Answer:
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def as_json(value, status=200, **headers) -> Answer:
    more = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Answer(status, json.dumps(value).encode(), (("Content-Type", "application/json"), *more))


class Server:
    """Answers as a function says, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # one packet an answer

            def reply(self):
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = httpx.Headers(list(self.headers.items()))
                query = parse_qs(url.query, keep_blank_values=True)
                asked = Asked(self.command, url.path, query, headers, body)
                outer.asked.append(asked)
                answered = answer(asked)
                self.send_response_only(answered.status)
                for name, value in answered.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answered.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answered.body)

            def log_message(self, *arguments):
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE"):
            setattr(Handler, f"do_{method}", Handler.reply)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path="/"):
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"


NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
async def ctx(anyio_backend):
    policy = HttpPolicy(allow=("127.0.0.1",), timeout=5.0, max_body=1_000_000)
    async with make_http_client(policy, ssl_context=NO_AUTHORITIES) as client:
        yield make_context(FakeServices(client=client), now=NOW)


async def failure(ctx, config) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await http(ctx, config)
    return caught.value


# --- what is sent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "post", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PURGE"])
async def test_every_method(ctx, method):
    with Server(lambda asked: as_json({"method": asked.method})) as server:
        output = await http(ctx, HttpConfig(url=server.url("/x"), method=method))
    assert output["status"] == 200
    assert output["url"] == server.url("/x")
    assert output["body"] == (None if method == "HEAD" else {"method": method.upper()})
    assert set(output) == {"status", "headers", "body", "url"}


async def test_query_and_headers(ctx):
    with Server(lambda asked: as_json(None)) as server:
        await http(
            ctx,
            HttpConfig(
                url=server.url("/a?kept=1#gone"),
                query={"q": "ä &=", "n": 1.5, "yes": True, "tag": ["a", "b"], "none": None},
                headers={"X-Many": ["1", 2], "X-None": None, "Accept": "text/x"},
            ),
        )
    (asked,) = server.asked
    assert asked.query == {"kept": ["1"], "q": ["ä &="], "n": ["1.5"], "yes": ["true"], "tag": ["a", "b"]}
    assert asked.headers.get_list("x-many") == ["1", "2"]
    assert asked.headers["accept"] == "text/x"
    assert "x-none" not in asked.headers


@pytest.mark.parametrize(
    ("settings", "content_type", "body"),
    [
        ({"json": {"a": ["ü", None]}}, "application/json", '{"a":["ü",null]}'.encode()),
        ({"json": None}, "application/json", b"null"),
        ({"json": "{{ 7*7 }}"}, "application/json", b'"{{ 7*7 }}"'),
        ({"form": {"a": "x y", "b": [1, 2], "c": None}}, "application/x-www-form-urlencoded", b"a=x+y&b=1&b=2"),
        ({"text": "grüß"}, "text/plain; charset=utf-8", "grüß".encode()),
        ({"bytes": "AAH/"}, "application/octet-stream", b"\x00\x01\xff"),
        ({"bytes": {"base64": "AAH/", "media_type": "image/png"}}, "application/octet-stream", b"\x00\x01\xff"),
        ({"text": "<a/>", "headers": {"content-type": "text/xml"}}, "text/xml", b"<a/>"),
        ({}, None, b""),
    ],
)
async def test_bodies(ctx, settings, content_type, body):
    with Server(lambda asked: as_json(None)) as server:
        await http(ctx, HttpConfig(url=server.url(), method="POST", **settings))
    assert server.asked[0].headers.get("content-type") == content_type
    assert server.asked[0].body == body


async def test_multipart_with_files_from_blobs(ctx):
    reference = await ctx.blobs.put(b"\x89PNG")
    files = [
        HttpFile(name="picture", content={"blob": reference}, filename='a"b.png', media_type="image/png"),
        HttpFile(name="note", content="grüß", media_type="text/plain"),
    ]
    with Server(lambda asked: as_json(None)) as server:
        await http(ctx, HttpConfig(url=server.url(), method="POST", files=files, form={"id": 7, "tag": ["a", "b"]}))
    asked = server.asked[0]
    head = f"content-type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser(policy=HTTP).parsebytes(head + asked.body).get_payload()
    found = [
        (part.get_param("name", header="content-disposition"), part.get_content_type(), part.get_payload(decode=True))
        for part in parts
    ]
    assert found == [
        ("id", "text/plain", b"7"),
        ("tag", "text/plain", b"a"),
        ("tag", "text/plain", b"b"),
        ("picture", "image/png", b"\x89PNG"),
        ("note", "text/plain", "grüß".encode()),
    ]


async def test_a_body_goes_from_one_node_to_the_next_as_it_is(ctx):
    data = bytes(range(256))
    with Server(lambda asked: Answer(200, data, (("Content-Type", "image/png"),))) as server:
        for limit in (1000, 10):
            got = await http(ctx, HttpConfig(url=server.url(), blob_above=limit))
            await http(ctx, HttpConfig(url=server.url(), method="PUT", bytes=got["body"]))
            assert server.asked[-1].body == data


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"query": {"a": {"b": 1}}}, "bad_config"),
        ({"headers": {"a": [[1]]}}, "bad_config"),
        ({"bytes": "no base64!"}, "bad_config"),
        ({"bytes": {"blob": "gone"}}, "bad_config"),
        ({"bytes": 7}, "bad_config"),
        ({"files": [HttpFile(name="a", content=7)]}, "bad_config"),
        ({"files": [HttpFile(name="a", content="x", media_type="x\r\ny: z")]}, "bad_config"),
        ({"headers": {"X-A": "secret-9f3c\r\nHost: evil"}}, "bad_header"),
        ({"headers": {"X-A": "secret-9f3c\u20ac"}}, "bad_header"),
        ({"headers": {"X A": "secret-9f3c"}}, "bad_header"),
        ({"headers": {"Host": "evil"}}, "bad_header"),
        ({"headers": {"content-length": "secret-9f3c"}}, "bad_header"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "bad_header"),
        ({"headers": {"proxy-authorization": "secret-9f3c"}}, "bad_header"),
        ({"auth": HttpAuth(type="bearer", token="secret-9f3c\r\nX: y")}, "bad_header"),
    ],
)
async def test_what_cannot_be_sent_is_said_before_anything_leaves(ctx, settings, code):
    with Server(lambda asked: as_json(None)) as server:
        error = await failure(ctx, HttpConfig(url=server.url(), method="POST", **settings))
        assert (error.code, error.retryable) == (code, False)
        assert "secret-9f3c" not in str(error)
        assert "secret-9f3c" not in json.dumps(error.data)
    assert server.asked == []


@pytest.mark.parametrize(
    "settings",
    [
        {"json": 1, "text": "x"},
        {"form": {}, "bytes": ""},
        {"json": None, "files": [HttpFile(name="a", content="")]},
        {"method": "CONNECT"},
        {"method": "GET /\r\n"},
        {"fail_on": ["6xx"]},
        {"max_redirects": 51},
        {"max_body": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused_when_they_are_read(settings):
    with pytest.raises(ValueError, match=r".+"):
        HttpConfig(url="http://x.example/", **settings)


@pytest.mark.parametrize(
    "settings",
    [{"type": "basic"}, {"type": "bearer"}, {"type": "header", "name": "x"}, {"type": "query", "value": "x"}],
)
def test_incomplete_credentials_are_refused_when_they_are_read(settings):
    with pytest.raises(ValueError, match="needs"):
        HttpAuth(**settings)


def test_templates_pass_where_their_values_cannot_be_known_yet():
    text = "{{ input.x }}"
    HttpConfig(
        url=text, method=text, max_redirects=text, max_body=text, fail_on=[text], headers=text, files=text, auth=text
    )


# --- who is asking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (HttpAuth(type="basic", username="u", password="pä:ss"), "authorization", "Basic dTpww6Q6c3M="),
        (HttpAuth(type="bearer", token="t0ken"), "authorization", "Bearer t0ken"),
        (HttpAuth(type="header", name="X-Api-Key", value="k3y"), "x-api-key", "k3y"),
    ],
)
async def test_credentials_in_headers(ctx, auth, header, value):
    with Server(lambda asked: as_json(None)) as server:
        await http(ctx, HttpConfig(url=server.url(), auth=auth, headers={header.title(): "replaced"}))
    assert server.asked[0].headers.get_list(header) == [value]


async def test_credentials_in_the_query_do_not_come_out_again(ctx):
    auth = HttpAuth(type="query", name="api_key", value="s3cr&t/key")
    with Server(lambda asked: as_json(None)) as server:
        output = await http(ctx, HttpConfig(url=server.url("/a?b=1"), auth=auth))
    assert server.asked[0].query == {"b": ["1"], "api_key": ["s3cr&t/key"]}
    assert output["url"] == server.url("/a?b=1")


@pytest.mark.parametrize(
    "auth",
    [
        HttpAuth(type="basic", username="user", password="s3cr3t-9f3c"),
        HttpAuth(type="bearer", token="s3cr3t-9f3c"),
        HttpAuth(type="header", name="X-Key", value="s3cr3t-9f3c"),
        HttpAuth(type="query", name="key", value="s3cr3t-9f3c"),
    ],
)
async def test_errors_do_not_repeat_credentials_that_a_server_echoes(ctx, auth):
    def echo(asked):
        seen = f"{asked.query} {dict(asked.headers)}"
        return as_json({"seen": seen}, 403, x_echo=seen.replace("\n", " "))

    with Server(echo) as server:
        error = await failure(ctx, HttpConfig(url=server.url(), auth=auth))
    told = str(error) + json.dumps(error.data)
    assert "s3cr3t-9f3c" not in told
    assert base64.b64encode(b"user:s3cr3t-9f3c").decode() not in told
    assert "***" in error.data["body"]["seen"]


async def test_credentials_do_not_follow_to_another_origin(ctx):
    with (
        Server(lambda asked: as_json("other")) as other,
        Server(lambda asked: Answer(302, b"", (("Location", other.url("/x")),))) as server,
    ):
        for auth in (
            HttpAuth(type="bearer", token="t0ken"),
            HttpAuth(type="header", name="X-Api-Key", value="t0ken"),
            HttpAuth(type="query", name="key", value="t0ken"),
        ):
            output = await http(ctx, HttpConfig(url=server.url(), auth=auth, headers={"X-Other": "t0ken"}))
            assert (output["body"], output["url"]) == ("other", other.url("/x"))
    for asked in other.asked:
        assert "t0ken" not in str(asked.headers.raw) + str(asked.query)


# --- idempotency ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"method": "POST"}, True),
        ({"method": "PATCH"}, True),
        ({"method": "PUT"}, False),
        ({"method": "GET"}, False),
        ({"method": "POST", "idempotency": False}, False),
    ],
)
async def test_effects_carry_the_same_key_in_every_attempt(ctx, settings, sent):
    with Server(lambda asked: as_json(None)) as server:
        await http(ctx, HttpConfig(url=server.url(), **settings))
        ctx.attempt = 2
        await http(ctx, HttpConfig(url=server.url(), **settings))
    expected = ctx.idempotency_key if sent else None
    assert [asked.headers.get("idempotency-key") for asked in server.asked] == [expected, expected]


async def test_a_key_of_ones_own_wins(ctx):
    with Server(lambda asked: as_json(None)) as server:
        await http(ctx, HttpConfig(url=server.url(), method="POST", headers={"idempotency-key": "mine"}))
    assert server.asked[0].headers.get_list("idempotency-key") == ["mine"]


# --- what comes back ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "mode", "expected"),
    [
        ("application/json", b'{"a": 1}', "auto", {"a": 1}),
        ("application/problem+json; charset=utf-8", b"[1]", "auto", [1]),
        ("application/json", b'\xef\xbb\xbf"bom"', "auto", "bom"),
        ("application/json; charset=iso-8859-1", b'"\xfc"', "auto", "ü"),
        ("text/plain", "ü".encode(), "auto", "ü"),
        ("text/html; charset=ISO-8859-1", b"\xfc", "auto", "ü"),
        ('text/html; charset="windows-1252"', b"\x80", "auto", "€"),
        ("text/plain; charset=no-such", "ü".encode(), "auto", "ü"),
        ("text/plain; charset=zlib", b"x", "auto", "x"),
        ("application/xml", b"<a/>", "auto", "<a/>"),
        (None, b"plain", "auto", "plain"),
        (None, b"\xff\xfe\x00", "auto", {"base64": "//4A", "media_type": "application/octet-stream"}),
        ("image/png", b"\x89", "auto", {"base64": "iQ==", "media_type": "image/png"}),
        ("application/json", b"", "auto", None),
        ("text/plain", b'{"a": 1}', "json", {"a": 1}),
        ("application/json", b'{"a": 1}', "text", '{"a": 1}'),
        ("application/json", b"[]", "bytes", {"base64": "W10=", "media_type": "application/json"}),
        ("application/json", b"no json", "none", None),
        ("text/plain", b"", "text", ""),
        ("text/plain", b"{{ 7*7 }}", "auto", "{{ 7*7 }}"),
    ],
)
async def test_bodies_by_content_type(ctx, content_type, body, mode, expected):
    headers = () if content_type is None else (("Content-Type", content_type),)
    with Server(lambda asked: Answer(200, body, headers)) as server:
        output = await http(ctx, HttpConfig(url=server.url(), response=mode))
    assert output["body"] == expected


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"<html>",
        b'{"a": NaN}',
        b"1e999",
        b'"\\ud800"',
        b"[" * 100_000,
        b"[" * 61 + b"]" * 61,
        b"9" * 5000,
        b'{"\\udfff": 1}',
    ],
)
async def test_json_that_is_none_is_an_error_that_says_so(ctx, body):
    with Server(lambda asked: Answer(200, body, (("Content-Type", "application/json"),))) as server:
        error = await failure(ctx, HttpConfig(url=server.url()))
    assert (error.code, error.retryable) == ("bad_response", False)
    assert "not JSON" in str(error)


async def test_large_binary_bodies_become_blobs(ctx):
    with Server(lambda asked: Answer(200, b"\xff" * 11, (("Content-Type", "image/png"),))) as server:
        output = await http(ctx, HttpConfig(url=server.url(), blob_above=10))
    reference = output["body"]["blob"]
    assert output["body"] == {"blob": reference, "media_type": "image/png", "size": 11}
    assert reference.endswith("image/png")  # as these blobs name what they were told
    assert await ctx.blobs.get(reference) == b"\xff" * 11


async def test_headers_come_out_in_lower_case_joined_and_cookies_as_a_list(ctx):
    headers = (
        ("X-One", "1"),
        ("X-Many", "a"),
        ("X-many", "b"),
        ("Set-Cookie", "a=1; Expires=Wed, 1 Jan"),
        ("Set-Cookie", "b=2"),
    )
    with Server(lambda asked: Answer(200, b"", headers)) as server:
        output = await http(ctx, HttpConfig(url=server.url()))
    assert output["headers"] == {
        "x-one": "1",
        "x-many": "a, b",
        "set-cookie": ["a=1; Expires=Wed, 1 Jan", "b=2"],
        "content-length": "0",
    }


# --- failures ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, True) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, False) for status in (400, 401, 404, 409, 499, 501, 505, 599)),
    ],
)
async def test_statuses_that_fail(ctx, status, retryable):
    with Server(lambda asked: as_json({"why": "because"}, status, x_a="b")) as server:
        error = await failure(ctx, HttpConfig(url=server.url("/secret-path")))
    assert (error.code, error.retryable) == (f"http_{status}", retryable)
    assert error.data["status"] == status
    assert error.data["headers"]["x-a"] == "b"
    assert error.data["body"] == {"why": "because"}
    assert "secret-path" not in str(error)


async def test_an_error_carries_no_more_than_the_beginning_of_a_body(ctx):
    with Server(lambda asked: as_json("x" * 100_000, 500)) as server:
        error = await failure(ctx, HttpConfig(url=server.url()))
    assert error.data["body"] == '"' + "x" * 4095


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [([], set()), (["5xx"], {500, 503}), ([404, "503"], {404, 503}), (["2xx"], {200}), (["3XX"], {304})],
)
async def test_which_statuses_fail_is_a_setting(ctx, fail_on, failing):
    for status in (200, 304, 404, 500, 503):
        with Server(lambda asked, status=status: Answer(status)) as server:
            config = HttpConfig(url=server.url(), fail_on=fail_on)
            if status in failing:
                assert (await failure(ctx, config)).code == f"http_{status}"
            else:
                assert (await http(ctx, config))["status"] == status


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "Fri, 15 Jan 2027 08:01:30 GMT"}, 90),
        ({"retry_after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0),
        ({"retry_after": "Fri, 15 Jan 2027 10:00:20 GMT", "date": "Fri, 15 Jan 2027 10:00:00 GMT"}, 20),
        ({"retry_after": "999999999999"}, 86_400),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-5"}, None),
        ({}, None),
    ],
)
async def test_retry_after_in_both_forms(ctx, headers, seconds):
    with Server(lambda asked: as_json(None, 429, **headers)) as server:
        error = await failure(ctx, HttpConfig(url=server.url()))
    assert error.retry_after == seconds
    with Server(lambda asked: as_json(None, 404, **headers)) as server:
        assert (await failure(ctx, HttpConfig(url=server.url()))).retry_after is None


async def test_nobody_there(ctx):
    with Server(lambda asked: as_json(None)) as server:
        url = server.url()
    error = await failure(ctx, HttpConfig(url=url))
    assert (error.code, error.retryable) == ("connection", True)


async def test_a_slow_server_is_a_timeout(ctx):
    over = threading.Event()
    with Server(lambda asked: over.wait(3) or Answer()) as server:
        error = await failure(ctx, HttpConfig(url=server.url(), timeout=0.1))
        over.set()
    assert (error.code, error.retryable) == ("timeout", True)
    assert "0.1 s" in str(error)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/", "address_refused"),
        ("http://2130706433/", "address_refused"),
        ("http://[::ffff:169.254.169.254]/latest", "address_refused"),
        ("http://good.example\\@127.0.0.1/", "bad_url"),
        ("http://u:p@127.0.0.1/", "bad_url"),
        ("ftp://127.0.0.1/", "bad_url"),
        ("http://127.0.0.1:0/", "bad_url"),
        ("http://127.0.0.1/\r\nX: y", "bad_url"),
        ("", "bad_url"),
    ],
)
async def test_where_a_request_must_not_go(ctx, url, code):
    for settings in (
        {},
        {"pagination": HttpPagination(mode="link")},
        {"auth": HttpAuth(type="query", name="a", value="b")},
    ):
        error = await failure(ctx, HttpConfig(url=url, **settings))
        assert (error.code, error.retryable) == (code, False)


async def test_redirects(ctx):
    def hop(asked):
        return as_json("end") if asked.path == "/end" else Answer(302, b"", (("Location", asked.query["to"][0]),))

    with Server(hop) as server:
        output = await http(ctx, HttpConfig(url=server.url("/?to=/end")))
        assert (output["body"], output["url"]) == ("end", server.url("/end"))
        output = await http(ctx, HttpConfig(url=server.url("/?to=/end"), follow_redirects=False))
        assert (output["status"], output["headers"]["location"], output["body"]) == (302, "/end", None)
        assert (await failure(ctx, HttpConfig(url=server.url("/?to=http://x:0/")))).code == "bad_url"
        assert (await failure(ctx, HttpConfig(url=server.url("/?to=http://10.0.0.1/")))).code == "address_refused"


async def test_sizes(ctx):
    with Server(lambda asked: Answer(200, b"x" * 1000)) as server:
        assert (await failure(ctx, HttpConfig(url=server.url(), max_body=999))).code == "too_large"
        assert len((await http(ctx, HttpConfig(url=server.url(), max_body=1000)))["body"]) == 1000
    with Server(lambda asked: Answer(200, b"x", (("Content-Encoding", "br"),))) as server:
        assert (await failure(ctx, HttpConfig(url=server.url()))).code == "bad_response"


async def test_a_client_of_the_embedders_own_works_too(ctx):
    def answer(request):
        if request.url.path == "/loop":
            return httpx.Response(302, headers={"location": "/loop"})
        if request.url.path == "/broken":
            raise httpx.ReadError("secret-9f3c")
        return httpx.Response(200, json={"path": request.url.path})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        ctx.services.client = client
        assert (await http(ctx, HttpConfig(url="https://x.example/a")))["body"] == {"path": "/a"}
        assert (await failure(ctx, HttpConfig(url="https://x.example/loop"))).code == "too_many_redirects"
        error = await failure(ctx, HttpConfig(url="https://x.example/broken"))
        assert (error.code, error.retryable) == ("connection", True)
        assert "secret" not in str(error)


# --- pages ---------------------------------------------------------------------------------------------------------------------------

ITEMS = [{"n": n} for n in range(7)]


async def walk(ctx, server, path="/", **pagination):
    return await http(ctx, HttpConfig(url=server.url(path), pagination=HttpPagination(**pagination)))


async def test_pages_by_link_header(ctx):
    def page(asked):
        number = int(asked.query.get("p", ["0"])[0])
        links = [f'<{server.url("/")}?p=0>; rel="first"; title="a, <b>; rel=next"']
        if number < 3:
            links.append(f'</?p={number + 1}&x=a,b>;rel="last next"')
        return as_json(ITEMS[number * 2 : number * 2 + 2], link=", ".join(links))

    with Server(page) as server:
        output = await walk(ctx, server, mode="link")
    assert output["body"] == ITEMS
    assert (output["pages"], output["more"], output["status"]) == (4, False, 200)


@pytest.mark.parametrize("last", [None, "", False, "missing"])
async def test_pages_by_cursor(ctx, last):
    def page(asked):
        at = int(asked.query.get("after", ["0"])[0])
        meta = {"next": at + 3 if at + 3 < 7 else last}
        if meta["next"] == "missing":
            meta = {}
        return as_json({"data": {"items": ITEMS[at : at + 3]}, "meta": meta})

    with Server(page) as server:
        output = await walk(
            ctx, server, "/?limit=3", mode="cursor", items="data.items", cursor="meta.next", parameter="after"
        )
    assert output["body"] == ITEMS
    assert [asked.query for asked in server.asked] == [
        {"limit": ["3"]},
        {"limit": ["3"], "after": ["3"]},
        {"limit": ["3"], "after": ["6"]},
    ]


async def test_pages_by_a_url_in_the_body(ctx):
    def page(asked):
        number = int(asked.path.strip("/") or 0)
        return as_json({"results": [number], "next": f"/{number + 1}" if number < 2 else None})

    with Server(page) as server:
        output = await walk(ctx, server, mode="cursor", items="results")
    assert output["body"] == [0, 1, 2]
    assert output["url"] == server.url("/2")


async def test_pages_by_number_end_with_an_empty_or_a_short_one(ctx):
    def page(asked):
        size = int(asked.query.get("per_page", ["2"])[0])
        start = (int(asked.query["page"][0]) - 1) * size
        return as_json(ITEMS[start : start + size])

    with Server(page) as server:
        assert (await walk(ctx, server, mode="page"))["body"] == ITEMS
        assert len(server.asked) == 5
        server.asked.clear()
        output = await walk(ctx, server, mode="page", size=3, size_parameter="per_page", start=2)
        assert output["body"] == ITEMS[3:]
        assert [asked.query["page"] for asked in server.asked] == [["2"], ["3"]]


async def test_pages_by_offset(ctx):
    def page(asked):
        start = int(asked.query["skip"][0])
        return as_json({"rows": ITEMS[start : start + 3]})

    with Server(page) as server:
        output = await walk(ctx, server, mode="offset", items="rows", parameter="skip")
    assert output["body"] == ITEMS
    assert [asked.query["skip"] for asked in server.asked] == [["0"], ["3"], ["6"], ["7"]]


async def test_more_pages_than_allowed_are_not_hidden(ctx):
    with Server(lambda asked: as_json([1])) as server:
        output = await walk(ctx, server, mode="page", max_pages=3)
    assert (output["body"], output["pages"], output["more"]) == ([1, 1, 1], 3, True)
    assert "more than 3 pages" in ctx.log_lines[0].message


async def test_every_page_asks_with_the_credentials_and_a_key_of_its_own(ctx):
    pagination = HttpPagination(mode="cursor", items="i", parameter="c")
    with Server(lambda asked: as_json({"i": [1], "next": "x" if "c" not in asked.query else None})) as server:
        for auth in (HttpAuth(type="bearer", token="t0ken"), HttpAuth(type="query", name="key", value="t0ken")):
            config = HttpConfig(url=server.url(), method="POST", auth=auth, pagination=pagination)
            assert (await http(ctx, config))["url"] == server.url("/?c=x")
    assert [asked.headers.get("authorization") for asked in server.asked] == ["Bearer t0ken"] * 2 + [None] * 2
    assert [asked.query.get("key") for asked in server.asked] == [None] * 2 + [["t0ken"]] * 2
    assert [asked.headers["idempotency-key"] for asked in server.asked[:2]] == [
        ctx.idempotency_key,
        f"{ctx.idempotency_key}-1",
    ]


@pytest.mark.parametrize(
    ("body", "pagination", "code"),
    [
        ({"a": 1}, {"mode": "page"}, "bad_response"),
        ({"a": 1}, {"mode": "page", "items": "b.c"}, "bad_response"),
        ({"i": [1], "next": "same"}, {"mode": "cursor", "items": "i", "parameter": "c"}, "bad_response"),
        ({"i": [1], "next": {"x": 1}}, {"mode": "cursor", "items": "i", "parameter": "c"}, "bad_response"),
        ({"i": [1], "next": "http://10.0.0.1/"}, {"mode": "cursor", "items": "i"}, "bad_response"),
        ({"i": [1], "next": "http://other.example/"}, {"mode": "cursor", "items": "i"}, "bad_response"),
        ({"i": [1], "next": "//x\\@y/"}, {"mode": "cursor", "items": "i"}, "bad_url"),
        ({"i": [1], "next": "ftp://x/"}, {"mode": "cursor", "items": "i"}, "bad_url"),
    ],
)
async def test_pages_that_lead_nowhere_good(ctx, body, pagination, code):
    with Server(lambda asked: as_json(body)) as server:
        error = await failure(ctx, HttpConfig(url=server.url(), pagination=HttpPagination(**pagination)))
    assert (error.code, error.retryable) == (code, False)


async def test_all_pages_together_stay_below_the_cap(ctx):
    with Server(lambda asked: as_json(["x" * 100])) as server:
        config = HttpConfig(url=server.url(), max_body=1000, pagination=HttpPagination(mode="page"))
        assert (await failure(ctx, config)).code == "too_large"
        assert len(server.asked) == 10


async def test_a_page_that_fails_fails_the_node(ctx):
    with Server(lambda asked: as_json([1], 200 if asked.query["page"] == ["1"] else 503, retry_after="3")) as server:
        error = await failure(ctx, HttpConfig(url=server.url(), pagination=HttpPagination(mode="page")))
    assert (error.code, error.retryable, error.retry_after) == ("http_503", True, 3)


# --- what the node type says of itself ------------------------------------------------------------------------------------------------


def test_the_node_type():
    assert (http.name, http.version, http.pure, http.trigger) == ("http", 1, False, False)
    assert http.capabilities == {"network"}
    assert http.title == "HTTP request"
    assert "Idempotency-Key" in http.description


# --- inside an engine ------------------------------------------------------------------------------------------------------------------


def calling(url, **config):
    return [{"id": "call", "type": "http", "config": {"url": url, **config}, "retry": {"attempts": 2}}]


async def test_a_workflow_tries_again_with_the_same_key(anyio_backend):
    first = iter([503])
    with Server(lambda asked: as_json({"said": "{{ 7*7 }}"}, next(first, 200))) as server:
        nodes = calling(
            server.url("/orders/{{ input.id }}"),
            method="POST",
            json="{{ input }}",
            auth={"type": "bearer", "token": "{{ secrets.shop }}"},
        )
        result = await run(nodes, {"id": 3}, http=HttpPolicy(allow=("127.0.0.1",)), secrets={"shop": "t0ken"})
    assert result.status == "succeeded"
    assert result.output["body"] == {"said": "{{ 7*7 }}"}
    assert [attempt.error and attempt.error.code for attempt in result.node("call").attempts] == ["http_503", None]
    one, two = server.asked
    assert (one.path, one.body, one.headers["authorization"]) == ("/orders/3", b'{"id":3}', "Bearer t0ken")
    assert one.headers["idempotency-key"] == two.headers["idempotency-key"]


async def test_a_workflow_goes_nowhere_that_its_engine_does_not_allow(anyio_backend):
    with Server(lambda asked: as_json(None)) as server:
        result = await run(calling("{{ input }}"), server.url())
    assert result.status == "failed"
    assert result.error.code == "address_refused"
    assert len(result.node("call").attempts) == 1
    assert server.asked == []
