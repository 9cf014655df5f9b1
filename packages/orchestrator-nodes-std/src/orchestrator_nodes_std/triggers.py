"""The node types that start executions, and the one that answers who started them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from orchestrator_core import Duration, NodeContext, node_type, setting
from orchestrator_nodes_std.cron import cron_problem
from orchestrator_nodes_std.shapes import (
    BAD_CONFIG,
    UNSET,
    Json,
    at_least,
    between,
    check,
    has_template,
    json_text,
    kind,
    misuse,
    unset,
)
from orchestrator_nodes_std.times import iso_problem, time_zone_problem

__all__ = ["manual", "respond", "schedule", "webhook"]


# --- manual ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class ManualConfig:
    """`manual` has no settings."""


@node_type("manual", title="Manual start", trigger=True, pure=True, example={})
async def manual(ctx: NodeContext, config: ManualConfig, input: Json) -> Json:
    """Start the workflow by hand: from a program, the command line or the API. Delivers the payload."""
    return input


# --- webhook ---------------------------------------------------------------------------------------------------------

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

# What RFC 3986 lets stand in a path without escapes.
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+|\{[A-Za-z_][A-Za-z0-9_]{0,63}\}")
# What RFC 9110 calls a token and a field value.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _webhook_path(_config: Any, _attribute: Any, path: str) -> None:
    problem = _webhook_path_problem(path)
    if problem is not None:
        raise ValueError(f"`path` {problem}")


def _webhook_path_problem(path: str) -> str | None:
    if len(path) > 256:
        return "is longer than 256 characters"
    segments = path.split("/")
    for segment in segments:
        if not segment:
            return "has an empty part: write it without a slash in front, at the end, or doubled (orders/new)"
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            return (
                f"has the part {segment!r}: letters, digits and . _ ~ - may stand in it, "
                "or it is a parameter in braces like {id}"
            )
    parameters = [segment for segment in segments if segment.startswith("{")]
    if len(set(parameters)) < len(parameters):
        return "names a parameter twice"
    return None


def _header_name_problem(name: Any) -> str | None:
    return None if _HEADER_NAME.fullmatch(name) else f"is no header name: {name[:80]!r}"


def _headers_problem(headers: Mapping[str, Any], *, evaluated: bool = False) -> str | None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            return f"has {name[:80]!r}, which is no header name"
        if has_template(value) and not evaluated:
            continue
        if not isinstance(value, str | int | float):
            return f"has {kind(value)} for {name!r}: a header's value is a text, a number or a boolean"
        if not _HEADER_VALUE.fullmatch(_header_text(value)):
            return f"has a value for {name!r} with characters that no header may hold (line breaks, for example)"
    return None


def _header_text(value: str | float) -> str:
    return value if isinstance(value, str) else json_text(value)


def _secret_problem(secret: str) -> str | None:
    return None if secret else 'is empty, which would let everybody in: set it to "{{ secrets.name }}"'


@attrs.frozen
class Signature:
    """How a sender proves that a request comes from it: an HMAC of the body in a header."""

    header: str = setting(
        description="The header that carries the signature.",
        examples=["X-Hub-Signature-256"],
        validator=check(_header_name_problem),
    )
    secret: str = setting(
        description="The key that both sides know.",
        examples=["{{ secrets.hook_key }}"],
        secret=True,
        validator=check(_secret_problem),
    )
    algorithm: Literal["sha256", "sha1", "sha512"] = setting(default="sha256", description="The HMAC's hash function.")
    encoding: Literal["hex", "base64"] = setting(default="hex", description="How the header writes the signature.")
    prefix: str = setting(default="", description="What stands in front of the signature.", examples=["sha256="])
    timestamp_header: str | None = setting(
        default=None,
        description="The header with the time of sending, in seconds since 1970. Then the time, a dot and the body are "
        "signed together, and old requests are refused.",
        examples=["X-Timestamp"],
        validator=check(_header_name_problem),
    )
    tolerance: Duration = setting(
        default=Duration(300.0),
        description="With `timestamp_header`: how far that time may be off, in either direction.",
        examples=["5m"],
        validator=at_least(1, " second"),
    )


def _auth_complete(auth: WebhookAuth, _attribute: Any, value: Any) -> None:
    if value == "basic" and not auth.user:
        raise ValueError("`type: basic` needs `user`")
    if value == "header" and not auth.header:
        raise ValueError("`type: header` needs `header`: the name of the header that carries the secret")


@attrs.frozen
class WebhookAuth:
    """What a request must carry to be let in."""

    type: Literal["basic", "bearer", "header"] = setting(
        description="`basic`: user and password; `bearer`: a token in `Authorization`; `header`: a secret in a header "
        "of your choice.",
        validator=_auth_complete,
    )
    secret: str = setting(
        description="The password, the token, or the header's value.",
        examples=["{{ secrets.hook_token }}"],
        secret=True,
        validator=check(_secret_problem),
    )
    user: str | None = setting(default=None, description="For `basic`: the user's name.")
    header: str | None = setting(
        default=None,
        description="For `header`: the header's name.",
        examples=["X-Api-Key"],
        validator=check(_header_name_problem),
    )


def _one_of_two(idempotency: Idempotency, _attribute: Any, value: Any) -> None:
    if (idempotency.header is None) == (value is None):
        raise ValueError("give either `header` or `key`")


@attrs.frozen
class Idempotency:
    """What tells one delivery from another: deliveries with the same key start one execution."""

    header: str | None = setting(
        default=None,
        description="The header that carries the key.",
        examples=["X-Request-Id"],
        validator=check(_header_name_problem),
    )
    key: Any = setting(
        default=None,
        description="Or an expression over `payload` that gives it.",
        examples=["{{ payload.order_id }}"],
        validator=_one_of_two,
    )


@attrs.frozen
class WebhookResponse:
    """The answer that the sender gets when no `respond` node makes it."""

    status: int | None = setting(
        default=None,
        description="The status code. Left out: 202 when answering immediately, else 200.",
        examples=[201],
        validator=between(200, 599),
    )
    headers: dict[str, str] = setting(
        factory=dict, description="Headers to send along.", validator=check(_headers_problem)
    )


@attrs.frozen
class WebhookConfig:
    """The settings of `webhook`."""

    path: str = setting(
        description="Where the webhook listens, below the tenant's hooks address. Parts in braces are parameters.",
        examples=["orders", "orders/{id}/paid"],
        literal=True,  # it must be known before anything runs
        validator=_webhook_path,
    )
    methods: list[Method] = setting(
        factory=lambda: ["POST"],
        description="The HTTP methods it accepts.",
        examples=[["POST", "PUT"]],
        validator=check(lambda methods: None if methods else "must name at least one method"),
    )
    payload: Literal["body", "request"] = setting(
        default="body",
        description="What it delivers: the request's body, or an object with `method`, `path`, `params`, `query`, "
        "`headers` and `body`.",
    )
    respond: Literal["immediately", "last", "node"] = setting(
        default="immediately",
        description="When the sender is answered: `immediately` with the execution's id; `last`: with the output when "
        "the execution has ended (with its id at once where that has to wait longer, for a time or a signal); "
        "`node`: by a `respond` node.",
    )
    response: WebhookResponse = setting(
        factory=WebhookResponse, description="The status and headers of the answer, unless a `respond` node makes it."
    )
    auth: WebhookAuth | None = setting(
        default=None, description="Let in only requests that carry a secret. Others get 401 and start nothing."
    )
    signature: Signature | None = setting(
        default=None, description="Let in only requests that are signed. Others get 401 and start nothing."
    )
    idempotency: Idempotency | None = setting(
        default=None, description="Start one execution only where the same delivery comes several times."
    )


@node_type(
    "webhook",
    title="Webhook",
    trigger=True,
    pure=True,
    example={"path": "orders/{id}", "methods": ["POST"], "payload": "request", "respond": "last"},
)
async def webhook(ctx: NodeContext, config: WebhookConfig, input: Json) -> Json:
    """Start the workflow when an HTTP request comes in. Delivers the request's body, or the whole request.

    The server listens and checks; an execution that a program starts directly takes its payload for the request's.
    """
    return input


# --- schedule --------------------------------------------------------------------------------------------------------


def _one_rhythm(config: ScheduleConfig, _attribute: Any, value: Any) -> None:
    given = [name for name in ("cron", "every", "at") if getattr(config, name) is not None]
    if len(given) != 1:
        said = f"these are {', '.join(given)}" if given else "there is none"
        raise ValueError(f"give exactly one of `cron`, `every` and `at`; {said}")
    if value is not None and not has_template(value):
        problem = iso_problem(value)
        if problem:
            raise ValueError(f"`at` {problem}")


@attrs.frozen
class ScheduleConfig:
    """The settings of `schedule`."""

    cron: str | None = setting(
        default=None,
        description="Five fields: minute, hour, day of month, month, day of week (0 or 7 is Sunday).",
        examples=["0 9 * * MON-FRI", "*/15 * * * *"],
        validator=check(cron_problem),
    )
    every: Duration | None = setting(
        default=None,
        description="Or a fixed interval.",
        examples=["15m", "1d"],
        validator=at_least(1, " second"),
    )
    at: str | None = setting(
        default=None,
        description="Or once, at an ISO 8601 time; without an offset it is read in `timezone`.",
        examples=["2027-01-01T00:00:00"],
        validator=_one_rhythm,
    )
    timezone: str = setting(
        default="UTC",
        description="The time zone (IANA name) in which `cron` and `at` are read.",
        examples=["Europe/Berlin"],
        validator=check(time_zone_problem),
    )
    overlap: Literal["skip", "buffer_one", "allow", "cancel_other"] = setting(
        default="skip",
        description="What happens to a start while the last execution still runs: it is left out, one is kept for "
        "afterwards, it starts beside the other, or the other is cancelled.",
    )
    catch_up: Duration = setting(
        default=Duration(600.0),
        description="How far back starts are made up for that were missed while no scheduler ran.",
        examples=["10m", "1d"],
        validator=at_least(0, " seconds"),
    )


@node_type(
    "schedule",
    title="Schedule",
    trigger=True,
    pure=True,
    example={"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"},
)
async def schedule(ctx: NodeContext, config: ScheduleConfig, input: Json) -> Json:
    """Start the workflow at given times: by a cron expression, at an interval, or once.

    Delivers `slot` (the instant meant, ISO 8601) and `schedule`. Each slot starts at most one execution, also with
    many servers and across changes of the clock.
    """
    return input


# --- respond ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class RespondConfig:
    """The settings of `respond`."""

    status: int = setting(default=200, description="The status code.", examples=[201, 404], validator=between(200, 599))
    headers: dict[str, Any] = setting(
        factory=dict,
        description="Headers of the answer.",
        examples=[{"Content-Type": "text/csv"}],
        validator=check(_headers_problem),
    )
    body: Any = setting(
        factory=unset,
        description="The body: a text as it is, anything else as JSON. Left out: the input.",
        examples=[{"id": "{{ input.id }}", "accepted": True}],
    )


@node_type(
    "respond",
    title="Respond",
    pure=True,
    example={"status": 201, "headers": {"X-Order": "{{ input.id }}"}, "body": {"id": "{{ input.id }}"}},
)
async def respond(ctx: NodeContext, config: RespondConfig, input: Json) -> dict[str, Json]:
    """Answer the request that started the execution, where its webhook says `respond: node`.

    The workflow goes on behind it. Delivers `status`, `headers` and `body`.
    """
    # Once more: the validator lets templates pass, and data may look like one.
    problem = _headers_problem(config.headers, evaluated=True)
    if problem is not None:
        raise misuse(f"`headers` of a `respond` node {problem}", code=BAD_CONFIG)
    return {
        "status": config.status,
        "headers": {name: _header_text(value) for name, value in config.headers.items()},
        "body": input if config.body is UNSET else config.body,
    }
