"""Node types that compute single values: times, hashes, identifiers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from datetime import datetime, tzinfo
from typing import Any, Final, Literal

import attrs

from orchestrator_core import NodeContext, node_type, setting
from orchestrator_nodes_std.moments import Amount, Unit, add, difference, end_of, format_time, parse_time, start_of
from orchestrator_nodes_std.shapes import BAD_CONFIG, UNSET, Json, between, check, json_text, kind, misuse, unset
from orchestrator_nodes_std.times import iso, time_of, time_zone, time_zone_problem

__all__ = ["crypto", "datetime_"]


# --- datetime --------------------------------------------------------------------------------------------------------


def _complete(config: DatetimeConfig, _attribute: Any, _value: Any) -> None:
    """Stands on the last field, so that the others are there."""
    if config.action == "format" and config.format is None:
        raise ValueError("`action: format` needs `format`, for example %Y-%m-%d")
    if config.action == "add" and config.amount is None:
        raise ValueError("`action: add` needs `amount`, for example {days: 1}")
    if config.action in ("diff", "start_of", "end_of") and config.unit is None:
        raise ValueError(f"`action: {config.action}` needs `unit`, for example days")


@attrs.frozen
class DatetimeConfig:
    """The settings of `datetime`."""

    action: Literal["now", "parse", "format", "add", "diff", "start_of", "end_of"] = setting(
        default="now",
        description="`now`: the time of the attempt; `parse`: read a time; `format`: write one; `add`: go on (or back) "
        "by `amount`; `diff`: how many `unit`s lie between `value` and `to`; `start_of`, `end_of`: the first or last "
        "instant of the `unit`.",
    )
    value: Any = setting(
        factory=unset,
        description="The time to work on: ISO 8601 text, or seconds since 1970; with `parse` and a `format` a text of "
        "that form. Left out: the input.",
        examples=["{{ input.ordered_at }}"],
    )
    timezone: str = setting(
        default="UTC",
        description="The time zone (IANA name) of the result, and of times that come without an offset.",
        examples=["Europe/Berlin"],
        validator=check(time_zone_problem),
    )
    format: str | None = setting(
        default=None,
        description="For `format`, and for `parse` of what is no ISO 8601: %Y-%m-%d %H:%M:%S, also %y %B %b %e %j "
        "%A %a %u %G %V %I %p %L (milliseconds) %f (microseconds) %z %Z %s (seconds since 1970) %%. Names are English.",
        examples=["%d.%m.%Y", "%B %e, %Y %I:%M %p"],
    )
    amount: Amount | None = setting(
        default=None, description="For `add`: how much, in any mixture of units.", examples=[{"months": 1, "days": -1}]
    )
    to: Any = setting(
        factory=unset, description="For `diff`: the other time. Left out: now.", examples=["{{ input.shipped_at }}"]
    )
    unit: Unit | None = setting(
        default=None,
        description="For `diff`, `start_of` and `end_of`. Weeks begin on Monday. `diff` counts complete units, "
        "seconds with their fraction; it is negative where `to` is earlier.",
        validator=_complete,
    )


@node_type(
    "datetime",
    title="Date and time",
    pure=True,
    example={"action": "add", "value": "{{ input.ordered_at }}", "amount": {"days": 14}, "timezone": "Europe/Berlin"},
)
async def datetime_(ctx: NodeContext, config: DatetimeConfig, input: Json) -> str | int | float:
    """Compute with dates and times. Times go in and come out as ISO 8601 text.

    Days, weeks, months and years are steps of the calendar in the given time zone, so a day later is the same time of
    day, also when the clock was changed in between; hours, minutes and seconds are lengths of time.
    """
    zone = time_zone(config.timezone)
    try:
        return _computed(ctx, config, input, zone)
    except OverflowError as error:
        raise misuse("the result lies outside of the years 1 to 9999") from error


def _computed(ctx: NodeContext, config: DatetimeConfig, input: Json, zone: tzinfo) -> str | int | float:
    now = time_of(ctx.now, zone, what="the clock")
    if config.action == "now":
        return iso(now)
    value = input if config.value is UNSET else config.value
    moment = _given(config, value, zone)
    match config.action:
        case "format":
            try:
                return format_time(moment, config.format or "")
            except ValueError as error:
                raise misuse(f"`format` of a `datetime` node: {error}", code=BAD_CONFIG) from error
        case "add":
            return iso(add(moment, config.amount or Amount()))
        case "diff":
            other = now if config.to is UNSET else time_of(config.to, zone, what="`to` of a `datetime` node")
            return difference(moment, other, config.unit or "seconds")
        case "start_of":
            return iso(start_of(moment, config.unit or "days"))
        case "end_of":
            return iso(end_of(moment, config.unit or "days"))
        case _:
            return iso(moment)


def _given(config: DatetimeConfig, value: Json, zone: tzinfo) -> datetime:
    """The time to work on."""
    what = "the input of a `datetime` node" if config.value is UNSET else "`value` of a `datetime` node"
    if config.action != "parse" or config.format is None:
        return time_of(value, zone, what=what)
    if not isinstance(value, str):
        raise misuse(f"{what} is {kind(value)}, and `format` reads text: leave `format` out, or give a text")
    try:
        return parse_time(value, config.format, zone)
    except ValueError as error:
        raise misuse(f"{what} cannot be read by the format {config.format!r}: {error}") from error


# --- crypto ----------------------------------------------------------------------------------------------------------

_MOST_RANDOM: Final = 65_536  # bytes


def _key_with_hmac(config: CryptoConfig, _attribute: Any, value: Any) -> None:
    if config.action == "hmac" and not value:
        raise ValueError('`action: hmac` needs a `key` that is not empty, for example "{{ secrets.signing_key }}"')


@attrs.frozen
class CryptoConfig:
    """The settings of `crypto`."""

    action: Literal["hash", "hmac", "uuid", "random"] = setting(
        description="`hash`: a digest of the value; `hmac`: a digest that only holders of the key can make; `uuid`: an "
        "identifier, the same in every attempt of this node; `random`: bytes that nobody can guess, new in every "
        "attempt."
    )
    value: Any = setting(
        factory=unset,
        description="For `hash` and `hmac`: a text (its UTF-8 bytes count), or anything else (its JSON counts, names "
        "sorted, without spaces). Left out: the input.",
        examples=["{{ input.email }}"],
    )
    algorithm: Literal["sha256", "sha512", "sha1", "md5", "blake2b"] = setting(
        default="sha256",
        description="The hash function. sha1 and md5 are for old counterparts only: they protect nothing.",
    )
    encoding: Literal["hex", "base64"] = setting(default="hex", description="How bytes are written.")
    key: str | None = setting(
        default=None,
        description="For `hmac`: the key.",
        examples=["{{ secrets.signing_key }}"],
        secret=True,
        validator=_key_with_hmac,
    )
    version: Literal[4, 7] = setting(
        default=4, description="For `uuid`: 4 is random, 7 begins with the time, so that later ones sort after."
    )
    size: int = setting(
        default=32, description="For `random`: how many bytes.", validator=between(1, _MOST_RANDOM, " bytes")
    )


@node_type("crypto", title="Hashes and identifiers", example={"action": "hash", "value": "{{ input.email }}"})
async def crypto(ctx: NodeContext, config: CryptoConfig, input: Json) -> str:
    """Make hashes, keyed hashes (HMAC), identifiers and random bytes.

    A `uuid` depends on the execution and the node only, so trying again gives the same one: a good key for effects,
    and no secret. For secrets take `random`.
    """
    if config.action == "uuid":
        return str(_uuid(ctx, config.version))
    if config.action == "random":
        return _written(secrets.token_bytes(config.size), config.encoding)
    data = _bytes(input if config.value is UNSET else config.value)
    if config.action == "hash":
        digest = hashlib.new(config.algorithm, data, usedforsecurity=False).digest()
    else:
        digest = hmac.digest(_bytes(config.key), data, config.algorithm)
    return _written(digest, config.encoding)


def _bytes(value: Json) -> bytes:
    text = value if isinstance(value, str) else json_text(value, sort=True)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise misuse("the text holds half of a surrogate pair, which has no UTF-8 form: repair it first") from error


def _written(data: bytes, encoding: str) -> str:
    return data.hex() if encoding == "hex" else base64.b64encode(data).decode()


def _uuid(ctx: NodeContext, version: int) -> uuid.UUID:
    bits = ctx.random.getrandbits(128)
    if version == 4:
        return uuid.UUID(int=bits, version=4)
    # RFC 9562: 48 bits of milliseconds, the version, 12 random bits, the variant, 62 random bits.
    milliseconds = int(ctx.now * 1000) & ((1 << 48) - 1)
    low = bits & ((1 << 62) - 1)
    middle = (bits >> 62) & 0xFFF
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | middle << 64 | 0b10 << 62 | low)
