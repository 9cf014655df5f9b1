"""What the node types share about time: ISO 8601 and time zones."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from orchestrator_core import NodeError
from orchestrator_nodes_std.shapes import BAD_CONFIG, BAD_INPUT, kind, misuse

__all__ = ["iso", "iso_problem", "normal", "parse_iso", "time_of", "time_zone", "time_zone_problem"]


def time_zone(name: str) -> tzinfo:
    """The time zone of an IANA name.

    Raises:
        NodeError: There is none of that name.
    """
    if name in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    # KeyError: not found; ValueError: an absolute path or one with dots; OSError: a directory of the database.
    except (KeyError, ValueError, OSError) as error:
        raise misuse(
            f"there is no time zone {name[:80]!r}: use a name of the IANA database, such as Europe/Berlin or UTC",
            code=BAD_CONFIG,
        ) from error


def time_zone_problem(name: Any) -> str | None:
    """What is wrong with a time zone's name, for the validator of a setting."""
    try:
        time_zone(name)
    except NodeError:
        return f"names no time zone ({name[:80]!r}): use a name of the IANA database, such as Europe/Berlin or UTC"
    return None


def normal(moment: datetime) -> datetime:
    """The same moment by its zone's own clock: a wall time inside a gap (spring) moves on by the gap's length."""
    return moment.astimezone(UTC).astimezone(moment.tzinfo)


def parse_iso(text: str, zone: tzinfo) -> datetime:
    """An ISO 8601 date or time; without an offset it is a wall time of ``zone``.

    Raises:
        ValueError: It is none, or lies outside of the years 1 to 9999.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return normal(moment.replace(tzinfo=zone)) if moment.tzinfo is None else moment.astimezone(zone)
    except OverflowError as error:
        raise ValueError("the year must be 1 to 9999") from error


def iso_problem(value: Any) -> str | None:
    """What is wrong with a time (ISO 8601, or seconds since 1970), for the validator of a setting."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            parse_iso(value, UTC)
            return None
    return "must be an ISO 8601 time (2026-11-05T09:00:00+01:00) or seconds since 1970"


def time_of(value: Any, zone: tzinfo, *, what: str, code: str = BAD_INPUT) -> datetime:
    """The moment that a value means: ISO 8601, or seconds since 1970; ``what`` names the value in errors.

    Raises:
        NodeError: It means none.
    """
    try:
        if isinstance(value, str):
            return parse_iso(value, zone)
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Not fromtimestamp: it refuses negative numbers on some systems.
            return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value)).astimezone(zone)
    except (ValueError, OverflowError) as error:
        said = "text that is no ISO 8601 time" if isinstance(value, str) else "a number out of range"
        raise misuse(
            f"{what} is {said}: write it like 2026-11-05T09:00:00+01:00 (years 1 to 9999), "
            "or read other forms with the action `parse` of a `datetime` node",
            code=code,
        ) from error
    raise misuse(f"{what} is {kind(value)}, not a time: give ISO 8601 text or seconds since 1970", code=code)


def iso(moment: datetime) -> str:
    """ISO 8601, with ``Z`` for UTC; fractions of a second only where there are any."""
    text = moment.isoformat()
    return text.removesuffix("+00:00") + "Z" if moment.tzinfo is UTC else text
