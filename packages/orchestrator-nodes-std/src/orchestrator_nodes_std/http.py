"""The node type ``http``: one request, or all the pages of a list, over the client that the engine gives."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import math
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Literal, cast
from urllib.parse import quote, urlencode

import attrs
import httpx

from orchestrator_core import Duration, NodeContext, NodeError, node_type, setting
from orchestrator_nodes_std.addresses import read_url
from orchestrator_nodes_std.http_pages import HttpPagination, Pages
from orchestrator_nodes_std.shapes import (
    BAD_CONFIG,
    UNSET,
    Json,
    at_least,
    between,
    check,
    kind,
    misuse,
    unset,
)

__all__ = ["HttpAuth", "HttpConfig", "HttpFile", "HttpPagination", "http"]

_RETRYABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_METHOD = re.compile(r"[A-Za-z][A-Za-z-]{0,31}")
_STATUS = re.compile(r"[1-5](?:xx|[0-9][0-9])", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?:;[\x20-\x7e]*)?", re.ASCII)
# What frames a message, or belongs to one connection: the client's business. A second opinion is request smuggling.
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_TEXT_TYPES: Final = frozenset(
    {
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/sql",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)
# Bytes of a body that an error carries along.
_ERROR_BODY: Final = 4096
# Levels of a JSON body: what an execution can hold, less the levels around it.
_MAX_DEPTH: Final = 60
# Bytes of all pages together, where `max_body` does not say.
_ALL_PAGES: Final = 16 * 1024 * 1024
_LONGEST_RETRY_AFTER: Final = 86_400.0


# --- the settings -------------------------------------------------------------------------------------------------------


def _method_problem(value: Any) -> str | None:
    if not _METHOD.fullmatch(value) or value.upper() in {"CONNECT", "TRACE"}:
        return "must be a method such as GET, POST, PUT, PATCH or DELETE (CONNECT and TRACE are refused)"
    return None


def _statuses_problem(values: Any) -> str | None:
    if all(_STATUS.fullmatch(str(value)) or "{{" in str(value) for value in values):
        return None
    return "holds classes (4xx) and statuses (404), nothing else"


@attrs.frozen(repr=False)  # it holds secrets
class HttpAuth:
    """How a request says who is asking."""

    type: Literal["basic", "bearer", "header", "query"] = setting(
        description="`basic`: `username` and `password`; `bearer`: `token`; `header` and `query`: `name` and `value`.",
    )
    username: str = setting(default="", description="For `basic`.", secret=True)
    password: str = setting(default="", description="For `basic`.", secret=True)
    token: str = setting(default="", description="For `bearer`.", secret=True, examples=["{{ secrets.api_token }}"])
    name: str = setting(default="", description="The header's or the query parameter's name.", examples=["X-Api-Key"])
    value: str = setting(default="", description="Its value.", secret=True, examples=["{{ secrets.api_key }}"])

    def __attrs_post_init__(self) -> None:
        needed = {"basic": ("username",), "bearer": ("token",), "header": ("name", "value"), "query": ("name", "value")}
        for name in needed.get(self.type, ()):
            if not getattr(self, name):
                raise ValueError(f"`type: {self.type}` needs `{name}`")


@attrs.frozen
class HttpFile:
    """One file of a multipart body."""

    name: str = setting(description="The form field's name.")
    content: Json = setting(
        description="A text, or bytes as a node gives them: `{blob: reference}` or `{base64: text}`.",
        examples=["{{ nodes.download.output.body }}"],
    )
    filename: str | None = setting(default=None, description="The file's name; the field's name where it is left out.")
    media_type: str = setting(default="application/octet-stream", description="What kind of file it is.")


@attrs.frozen(repr=False)  # it holds secrets
class HttpConfig:
    """What to send where, and what to make of the answer."""

    url: str = setting(
        description="Where to send it: http or https, without user name and password.",
        examples=["https://api.example.com/orders/{{ input.id }}"],
        secret=True,
    )
    method: str = setting(
        default="GET",
        description="The request's method.",
        examples=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"],
        validator=check(_method_problem),
    )
    query: dict[str, Json] = setting(
        factory=dict,
        description="Parameters added to the URL; a list repeats its name, null leaves it out.",
        examples=[{"status": "open", "tag": ["a", "b"]}],
        secret=True,
    )
    headers: dict[str, Json] = setting(
        factory=dict,
        description="Headers; a list repeats its name, null leaves it out.",
        examples=[{"X-Request-Id": "{{ execution.id }}"}],
        secret=True,
    )
    json: Json = setting(factory=unset, description="A body: any value, sent as JSON.", examples=["{{ input }}"])
    form: dict[str, Json] | None = setting(
        default=None, description="A body: form fields, URL-encoded, or multipart beside `files`.", secret=True
    )
    text: str | None = setting(default=None, description="A body: a text, sent as UTF-8.")
    bytes: Json = setting(
        default=None,
        description="A body: bytes as base64 text, or as a node gives them: `{blob: reference}`, `{base64: text}`.",
    )
    files: list[HttpFile] = setting(factory=list, description="A multipart body of these files and of `form`.")
    auth: HttpAuth | None = setting(
        default=None,
        description="Who is asking. It goes to the URL's own origin only, never along with a redirect to another.",
        examples=[{"type": "bearer", "token": "{{ secrets.api_token }}"}],
    )
    timeout: Duration | None = setting(
        default=None,
        description="How long one request may take, from the first byte to the last; the engine's limit by default.",
        examples=["10s"],
    )
    follow_redirects: bool = setting(default=True, description="Follow redirects; each hop is checked like the first.")
    max_redirects: int = setting(default=10, description="How many redirects in a row.", validator=between(0, 50))
    response: Literal["auto", "json", "text", "bytes", "none"] = setting(
        default="auto", description="What the body becomes; `auto` goes by its content type."
    )
    max_body: int | None = setting(
        default=None,
        description="The largest body in bytes, decompressed (all pages together); the engine's limit holds in any case.",
        validator=at_least(1),
    )
    blob_above: int = setting(
        default=65_536,
        description="Binary bodies larger than this many bytes are stored as blobs.",
        validator=at_least(0),
    )
    fail_on: list[str | int] = setting(
        factory=lambda: ["4xx", "5xx"],
        description="Which statuses fail the node: classes (`4xx`) and single ones (`404`); an empty list: none.",
        examples=[["5xx", 429]],
        validator=check(_statuses_problem),
    )
    idempotency: bool = setting(
        default=True,
        description=(
            "Send `Idempotency-Key` with POST and PATCH, the same in every attempt, so that a server that knows the header "
            "does the work once."
        ),
    )
    pagination: HttpPagination | None = setting(
        default=None,
        description="Read all pages of a list; the output's `body` is the list of all items.",
        examples=[{"mode": "link"}, {"mode": "cursor", "items": "data", "cursor": "meta.next", "parameter": "cursor"}],
    )

    def __attrs_post_init__(self) -> None:
        given = [name for name in ("text", "bytes", "form") if getattr(self, name) is not None]
        if self.json is not UNSET:
            given.insert(0, "json")
        if self.files:
            given = [name for name in given if name != "form"] + ["files"]
        if len(given) > 1:
            raise ValueError(
                f"a request has one body: {' and '.join(f'`{name}`' for name in given)} are given, keep one"
            )


# --- the request --------------------------------------------------------------------------------------------------------


@attrs.frozen(repr=False)  # it holds secrets
class _Call:
    """A request, ready to send. ``hidden`` are texts that no error may repeat."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: Mapping[str, Any]
    secret_query: tuple[str, str] | None
    hidden: tuple[str, ...]

    def mask(self, text: str) -> str:
        for secret in self.hidden:
            text = text.replace(secret, "***")
        return text


def _pairs(values: Mapping[str, Json], what: str) -> list[tuple[str, str]]:
    """Names and texts: lists repeat the name, null leaves it out.

    Raises:
        NodeError: A value is an object, or a list in a list.
    """
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is None:
                continue
            if isinstance(one, dict | list | tuple):
                raise misuse(
                    f"`{what}.{name}` is {kind(one)}: give a text, a number, or a list of these", code=BAD_CONFIG
                )
            found.append((name, one if isinstance(one, str) else json.dumps(one)))
    return found


def _headers_of(config: HttpConfig) -> list[tuple[str, str]]:
    headers = _pairs(config.headers, "headers")
    for name, _ in headers:
        lower = name.strip().lower()
        if lower in _FRAMING or lower.startswith("proxy-"):
            raise NodeError(
                f"header {name!r} is the client's business: leave it out", code="bad_header", retryable=False
            )
    return headers


async def _bytes_of(ctx: NodeContext, value: Json, what: str, *, text: bool) -> bytes:
    """The bytes of a setting: an object as nodes give it, or a text (taken as it is, or as base64).

    Raises:
        NodeError: It is nothing of the kind, or the blob is gone.
    """
    if text and isinstance(value, str):
        return value.encode()
    encoded = value.get("base64") if isinstance(value, dict) else value
    if isinstance(value, dict) and isinstance(value.get("blob"), str):
        try:
            return await ctx.blobs.get(value["blob"])
        except KeyError:
            raise misuse(f"`{what}` names a blob that does not exist", code=BAD_CONFIG) from None
    if not isinstance(encoded, str):
        raise misuse(f"`{what}` must be a text, {{blob: reference}} or {{base64: text}}", code=BAD_CONFIG)
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise misuse(f"`{what}` is not base64", code=BAD_CONFIG) from None


async def _body_of(ctx: NodeContext, config: HttpConfig) -> tuple[dict[str, Any], str | None]:
    """What httpx is to send, and the content type where it does not see to it itself."""
    if config.files:
        files = []
        for index, file in enumerate(config.files):
            if not _MEDIA_TYPE.fullmatch(file.media_type):
                raise misuse(f"`files[{index}].media_type` is no media type: write image/png, say", code=BAD_CONFIG)
            content = await _bytes_of(ctx, file.content, f"files[{index}].content", text=True)
            files.append((file.name, (file.filename or file.name, content, file.media_type)))
        fields: dict[str, list[str]] = {}
        for name, text in _pairs(config.form or {}, "form"):
            fields.setdefault(name, []).append(text)
        return {"files": files, "data": fields}, None
    if config.json is not UNSET:
        written = json.dumps(config.json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return {"content": written.encode()}, "application/json"
    if config.form is not None:
        return {"content": urlencode(_pairs(config.form, "form")).encode()}, "application/x-www-form-urlencoded"
    if config.text is not None:
        return {"content": config.text.encode()}, "text/plain; charset=utf-8"
    if config.bytes is not None:
        return {"content": await _bytes_of(ctx, config.bytes, "bytes", text=False)}, "application/octet-stream"
    return {}, None


def _add_query(url: str, pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return url
    address, _, _ = url.partition("#")
    joint = "" if address.endswith(("?", "&")) else "&" if "?" in address else "?"
    return f"{address}{joint}{urlencode(pairs, quote_via=quote)}"


def _apply_auth(auth: HttpAuth, headers: list[tuple[str, str]]) -> tuple[tuple[str, str] | None, list[str]]:
    """Put it on the headers; the query parameter for those that go into the URL, and the texts to hide."""
    if auth.type == "query":
        return (auth.name, auth.value), [auth.value]
    if auth.type == "basic":
        pair = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
        name, value, hidden = "Authorization", f"Basic {pair}", [pair, auth.password]
    elif auth.type == "bearer":
        name, value, hidden = "Authorization", f"Bearer {auth.token}", [auth.token]
    else:
        name, value, hidden = auth.name, auth.value, [auth.value]
    headers[:] = [(other, text) for other, text in headers if other.lower() != name.lower()]
    headers.append((name, value))
    return None, hidden


async def _prepare(ctx: NodeContext, config: HttpConfig) -> _Call:
    """Everything that can be wrong with a request is found here, before anything leaves.

    Raises:
        NodeError: ``bad_url``, ``bad_header``, ``bad_config`` or ``address_refused``.
    """
    read_url(config.url)
    method = config.method.upper()
    headers = _headers_of(config)
    secret_query: tuple[str, str] | None = None
    hidden: list[str] = []
    if config.auth is not None:
        secret_query, hidden = _apply_auth(config.auth, headers)
    body, content_type = await _body_of(ctx, config)
    names = {name.lower() for name, _ in headers}
    if content_type is not None and "content-type" not in names:
        headers.append(("Content-Type", content_type))
    if config.response == "json" and "accept" not in names:
        headers.append(("Accept", "application/json"))
    hidden += [quote(secret, safe="") for secret in hidden]
    return _Call(
        method=method,
        url=_add_query(config.url, _pairs(config.query, "query")),
        headers=headers,
        body=body,
        secret_query=secret_query,
        # Longest first: one may hold another. What is shorter stands in half of all texts by chance.
        hidden=tuple(sorted({secret for secret in hidden if len(secret) >= 4}, key=len, reverse=True)),
    )


# --- the exchange -------------------------------------------------------------------------------------------------------


async def _exchange(ctx: NodeContext, config: HttpConfig, call: _Call, url: str, page: int = 0) -> httpx.Response:
    """Send one request.

    Raises:
        NodeError: It could not be sent, was not answered, or was answered with a status that fails.
    """
    headers = list(call.headers)
    if (
        config.idempotency
        and call.method in {"POST", "PATCH"}
        and not any(name.lower() == "idempotency-key" for name, _ in headers)
    ):
        # Every page is an effect of its own.
        headers.append(("Idempotency-Key", ctx.idempotency_key + (f"-{page}" if page else "")))
    extensions: dict[str, Any] = {"max_redirects": config.max_redirects}
    if config.max_body is not None:
        extensions["max_body"] = config.max_body
    with _failures(read_url(url).host, config):
        sent = httpx.URL(url) if call.secret_query is None else httpx.URL(url).copy_set_param(*call.secret_query)
        response: httpx.Response = await ctx.http.request(
            call.method,
            sent,
            headers=headers,
            timeout=httpx.USE_CLIENT_DEFAULT if config.timeout is None else config.timeout,
            follow_redirects=config.follow_redirects,
            extensions=extensions,
            **call.body,
        )
    if _fails(response.status_code, config.fail_on):
        raise _status_error(ctx, call, response)
    return response


@contextmanager
def _failures(host: str, config: HttpConfig) -> Iterator[None]:
    """Turn the client's exceptions into failures of the node. Their texts may hold what was sent, so they are not kept."""
    try:
        yield
    except httpx.TimeoutException:
        limit = f" within {config.timeout:g} s" if config.timeout is not None else " in time"
        raise NodeError(f"{host} did not answer{limit}", code="timeout", retryable=True) from None
    except httpx.TooManyRedirects:
        raise NodeError(f"{host} redirects too often", code="too_many_redirects", retryable=False) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise NodeError("the URL cannot be used", code="bad_url", retryable=False) from None
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        raise NodeError(
            "a header cannot be sent: headers hold printable ASCII only", code="bad_header", retryable=False
        ) from None
    except httpx.DecodingError as error:
        raise NodeError(f"{host}: {error}", code="bad_response", retryable=False) from None
    except httpx.TransportError as error:
        if (why := _certificate_problem(error)) is not None:
            raise NodeError(f"{host} has a certificate that is not trusted: {why}", code="connection") from None
        raise NodeError(
            f"the connection to {host} failed: {_reason(error)}", code="connection", retryable=True
        ) from None


def _certificate_problem(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _reason(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.ConnectError):
        return str(error) or "nobody accepted it"
    if isinstance(error, httpx.RemoteProtocolError):
        return "it was closed early, or what came is not HTTP"
    return "it broke while sending or receiving"


def _fails(status: int, fail_on: list[str | int]) -> bool:
    return any(str(one).lower() in {str(status), f"{status // 100}xx"} for one in fail_on)


def _status_error(ctx: NodeContext, call: _Call, response: httpx.Response) -> NodeError:
    status = response.status_code
    retryable = status in _RETRYABLE
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    text = call.mask(_text_of(response, response.content[: _ERROR_BODY + 1]))
    body: Json = text[:_ERROR_BODY]
    if len(response.content) <= _ERROR_BODY and _media_type(response) in _JSON_TYPES:
        with suppress(ValueError):  # it stays the text that it is
            body = _parse_json(text)
    headers = {
        name: [call.mask(one) for one in value] if isinstance(value, list) else call.mask(value)
        for name, value in _headers_out(response).items()
    }
    return NodeError(
        f"{call.method} {response.url.host} answered {status}{phrase}",
        code=f"http_{status}",
        retryable=retryable,
        data={"status": status, "headers": headers, "body": body or None},
        retry_after=_retry_after(ctx, response) if retryable else None,
    )


def _retry_after(ctx: NodeContext, response: httpx.Response) -> float | None:
    """Seconds of ``Retry-After``; a date counts from the server's own clock, else from the attempt's."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", text):
        return min(float(text), _LONGEST_RETRY_AFTER)
    until = _date(text)
    if until is None:
        return None
    now = _date(response.headers.get("date", ""))
    return min(max(0.0, until - (ctx.now if now is None else now)), _LONGEST_RETRY_AFTER)


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


# --- the answer -----------------------------------------------------------------------------------------------------------


class _JsonTypes:
    """``application/json`` and everything that ends in ``+json``."""

    def __contains__(self, media_type: object) -> bool:
        return isinstance(media_type, str) and (
            media_type in {"application/json", "text/json"} or media_type.endswith("+json")
        )


_JSON_TYPES: Final = _JsonTypes()


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _headers_out(response: httpx.Response) -> dict[str, Json]:
    """Lower-case names; repeated ones joined, except ``set-cookie``, whose values hold commas."""
    found: dict[str, Json] = {name.lower(): value for name, value in response.headers.items()}
    if "set-cookie" in found:
        found["set-cookie"] = response.headers.get_list("set-cookie")
    return found


def _text_of(response: httpx.Response, content: bytes) -> str:
    """The text in the encoding that the server names, where it is a plain one; else UTF-8. Never fails."""
    match = re.search(r"charset=\"?([\w.:-]{1,40})", response.headers.get("content-type", ""), re.IGNORECASE)
    encoding = "utf-8"
    if match is not None:
        try:
            name = codecs.lookup(match[1]).name
        except LookupError:
            name = ""
        if re.fullmatch(
            r"utf-(?:8|16|32)(?:-[bl]e)?|iso8859-\d+|cp\d+|koi8-[rut]|gb\w+|big5|shift_jis|euc_\w+|ascii", name
        ):
            encoding = name
    return content.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_json(text: str) -> Json:
    """A JSON value that an execution can hold.

    Raises:
        ValueError: It is none; the text says why, without repeating it.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels") from None
    level: list[Json] = [value]
    for _ in range(_MAX_DEPTH):
        if not level:
            return value
        inner: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                inner.extend(one)
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
            elif isinstance(one, float) and not math.isfinite(one):
                raise ValueError("a number is too large")
            elif isinstance(one, str) and not one.isascii() and any("\ud800" <= c <= "\udfff" for c in one):
                raise ValueError("a text holds half of a surrogate pair, which is no character")
        level = inner
    raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")


async def _body_out(ctx: NodeContext, config: HttpConfig, response: httpx.Response) -> Json:
    """The body as the node gives it.

    Raises:
        NodeError: ``bad_response``: it is not the JSON that it claims, or was asked, to be.
    """
    content = response.content
    mode = config.response
    if mode == "none" or (not content and mode in {"auto", "json"}):
        return None
    media_type = _media_type(response)
    if mode == "auto":
        mode = _guess(media_type, content)
    if mode == "json":
        try:
            return _parse_json(_text_of(response, content))
        except ValueError as error:
            raise NodeError(
                f"{response.url.host} answered {response.status_code} with a body that is not JSON: {error}; "
                "set `response: text` to take it as it is",
                code="bad_response",
                retryable=False,
            ) from None
    if mode == "text":
        return _text_of(response, content)
    media_type = media_type or "application/octet-stream"
    if len(content) > config.blob_above:
        reference = await ctx.blobs.put(content, media_type=media_type)
        return {"blob": reference, "media_type": media_type, "size": len(content)}
    return {"base64": base64.b64encode(content).decode(), "media_type": media_type}


def _guess(media_type: str, content: bytes) -> Literal["json", "text", "bytes"]:
    if media_type in _JSON_TYPES:
        return "json"
    if media_type.startswith("text/") or media_type in _TEXT_TYPES or media_type.endswith(("+xml", "+yaml")):
        return "text"
    if not media_type:
        try:
            content.decode()
        except UnicodeDecodeError:
            return "bytes"
        return "text"
    return "bytes"


def _url_out(call: _Call, response: httpx.Response) -> str:
    url = response.url
    if call.secret_query is not None:
        url = url.copy_remove_param(call.secret_query[0])
    return call.mask(str(url))


# --- pages ------------------------------------------------------------------------------------------------------------------


async def _all_pages(ctx: NodeContext, config: HttpConfig, call: _Call, settings: HttpPagination) -> Json:
    pages = Pages(settings, call.url, call.secret_query[0] if call.secret_query is not None else None)
    url: str | None = pages.first()
    gathered: list[Json] = []
    count = total = 0
    while True:
        response = await _exchange(ctx, config, call, cast("str", url), count)
        count += 1
        total += len(response.content)
        if total > (config.max_body or _ALL_PAGES):
            raise NodeError(
                f"{count} pages have more than {config.max_body or _ALL_PAGES} bytes together: ask for less at a time, or raise `max_body`",
                code="too_large",
                retryable=False,
            )
        body = await _body_out(ctx, config, response)
        items = pages.items(body)
        gathered += items
        url = pages.following(response, body, items, cast("str", url))
        if url is None or count >= settings.max_pages:
            break
    if url is not None:
        ctx.log.write("warning", f"there are more than {count} pages (`max_pages`): the rest was not read")
    return {**_output(call, response, gathered), "pages": count, "more": url is not None}


def _output(call: _Call, response: httpx.Response, body: Json) -> dict[str, Json]:
    return {
        "status": response.status_code,
        "headers": _headers_out(response),
        "body": body,
        "url": _url_out(call, response),
    }


# --- the node type -----------------------------------------------------------------------------------------------------------


@node_type(
    "http",
    title="HTTP request",
    capabilities=("network",),
    example={
        "method": "POST",
        "url": "https://api.example.com/orders",
        "json": {"id": "{{ input.id }}", "quantity": "{{ input.qty }}"},
        "auth": {"type": "bearer", "token": "{{ secrets.shop_token }}"},
        "timeout": "10s",
    },
)
async def http(ctx: NodeContext, config: HttpConfig, input: Json = None) -> Json:
    """Send an HTTP request and give back `{status, headers, body, url}`.

    The body becomes a JSON value, a text, or bytes (`{base64, media_type}`; large ones `{blob, media_type, size}`) by its
    content type, or as `response` says. Statuses of 400 and above fail the node with the code `http_404` and so on; the
    error's `data` holds status, headers and the beginning of the body.

    Time-outs, broken connections and the statuses 408, 425, 429, 500, 502, 503 and 504 may be tried again (`retry`);
    `Retry-After` is heeded. POST and PATCH carry an `Idempotency-Key` that stays the same in every attempt.

    Only the public internet can be reached, unless the operator allows more. Redirects are checked like the first
    request; credentials never follow to another origin.
    """
    call = await _prepare(ctx, config)
    if config.pagination is not None:
        return await _all_pages(ctx, config, call, config.pagination)
    response = await _exchange(ctx, config, call, call.url)
    return _output(call, response, await _body_out(ctx, config, response))
