"""`wait`: go on later, or when a signal comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from orchestrator_core import Duration, NodeContext, node_type, setting
from orchestrator_nodes_std.shapes import BAD_CONFIG, Json, at_least, check, has_template, misuse
from orchestrator_nodes_std.times import iso_problem, time_of, time_zone, time_zone_problem

__all__ = ["wait"]


def _one_reason(config: WaitConfig, _attribute: Any, _value: Any) -> None:
    """Stands on the last field, so that the others are there."""
    reasons = {"for": config.for_, "until": config.until, "signal": config.signal}
    given = [name for name, value in reasons.items() if value is not None]
    if len(given) != 1:
        said = f"these are {', '.join(given)}" if given else "there is none"
        raise ValueError(f"give exactly one of `for`, `until` and `signal`; {said}")
    if config.expires is not None and config.signal is None:
        raise ValueError("`expires` belongs to `signal`: a wait for a time ends by itself")
    if config.on_expiry == "port" and config.expires is None:
        raise ValueError("`on_expiry: port` needs `expires`: without it the wait never expires")


@attrs.frozen
class WaitConfig:
    """The settings of `wait`."""

    for_: Duration | None = setting(
        default=None, description="How long to wait.", examples=["15m", 30], validator=at_least(0, " seconds")
    )
    until: str | float | None = setting(
        default=None,
        description="Or when to go on: an ISO 8601 time, or seconds since 1970. A time that is over does not wait.",
        examples=["2027-01-01T09:00:00+01:00", "{{ input.due }}"],
        validator=check(iso_problem),
    )
    timezone: str = setting(
        default="UTC",
        description="The time zone (IANA name) of an `until` that has no offset.",
        examples=["Europe/Berlin"],
        validator=check(time_zone_problem),
    )
    signal: str | None = setting(
        default=None,
        description="Or the name of the signal to wait for. One that came before counts.",
        examples=["approved"],
        validator=check(lambda name: None if name else "must not be empty"),
    )
    expires: Duration | None = setting(
        default=None,
        description="How long to wait for the signal. Left out: as long as the execution may last.",
        examples=["7d"],
        validator=at_least(0, " seconds"),
    )
    on_expiry: Literal["fail", "port"] = setting(
        default="fail",
        description="When the signal did not come in time: fail with the code `expired`, or send the input on to the "
        "port `expired`.",
        validator=_one_reason,
    )


def _wait_ports(config: Mapping[str, Json]) -> Sequence[str]:
    on_expiry = config.get("on_expiry", "fail")
    return ("main", "expired") if on_expiry == "port" or has_template(on_expiry) else ("main",)


@node_type(
    "wait",
    title="Wait",
    ports=_wait_ports,
    pure=True,
    example={"signal": "approved", "expires": "7d", "on_expiry": "port"},
)
async def wait(ctx: NodeContext, config: WaitConfig, input: Json) -> Json:
    """Wait for a time to pass or for a signal from outside, without holding anything meanwhile.

    After a time the input goes on; after a signal its payload does. With a signal, `expires` and `on_expiry: port`
    this is an approval: `main` when it came, `expired` when it did not.
    """
    if ctx.resumed is None:
        if config.signal is not None:
            ctx.wait_for_signal(config.signal, expires=config.expires)
        if config.for_ is not None:
            ctx.wait_for(config.for_)
        ctx.wait_until(_moment(config).timestamp())
    if ctx.resumed.kind == "time":
        return input
    if ctx.resumed.kind == "signal":
        return ctx.resumed.payload
    if config.on_expiry == "port":
        ctx.emit("expired", input)
        return None
    raise misuse(f"the signal {config.signal!r} did not come in time", code="expired", data={"signal": config.signal})


def _moment(config: WaitConfig) -> datetime:
    return time_of(config.until, time_zone(config.timezone), what="`until` of a `wait` node", code=BAD_CONFIG)
