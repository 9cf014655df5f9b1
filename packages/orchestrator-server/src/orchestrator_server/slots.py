"""The slots of a schedule: the instants that it stands for. Pure functions.

A schedule is a cron expression in a time zone, an interval, or one instant. Across changes of the clock, a cron expression means:

- Each wall time that it names is one slot. A wall time that the clock skips (spring) is moved on by as much as was skipped; where that
  makes two slots fall together, they are one.
- A wall time that comes twice (autumn) is a slot when it comes first. Where the expression names every hour it goes by time passed
  instead: then it is a slot both times.

An interval counts from 1970 (UTC): ``15m`` is every full quarter of an hour, whoever reckons it and whenever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs

from orchestrator_core import parse_duration
from orchestrator_core.types import Json
from orchestrator_server.errors import Invalid

__all__ = ["Cron", "Rhythm", "next_slot", "next_slots", "parse_cron", "rhythm_of"]

_HOURS: Final = frozenset(range(24))
_YEARS: Final = 60  # how far ahead a slot is looked for: 29 February on a given weekday can be 40 years away
_LAST_DAY: Final = date(9998, 12, 30)


@attrs.frozen
class Cron:
    """A cron expression, read. ``either``: the day of the month or that of the week is to fit, not both."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    def fits(self, day: date) -> bool:
        """Whether there are slots on a day."""
        if day.month not in self.months:
            return False
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_month or by_week if self.either else by_month and by_week


@attrs.frozen
class Rhythm:
    """What a schedule's spec says: one of ``cron``, ``every`` (seconds) and ``at`` (seconds since 1970)."""

    cron: Cron | None = None
    every: float | None = None
    at: float | None = None
    zone: tzinfo = UTC
    overlap: str = "skip"
    catch_up: float = 600.0  # seconds


def next_slots(spec: Mapping[str, Json] | Rhythm, after: float, until: float) -> Iterator[float]:
    """The slots after one time and up to another (seconds since 1970), in order, each once.

    Raises:
        Invalid: The spec cannot be read.
    """
    rhythm = spec if isinstance(spec, Rhythm) else rhythm_of(spec)
    if rhythm.at is not None:
        if after < rhythm.at <= until:
            yield rhythm.at
    elif rhythm.every is not None:
        number = math.floor(after / rhythm.every) + 1
        while (slot := number * rhythm.every) <= until:
            if slot > after:  # the product may have been rounded
                yield slot
            number += 1
    elif rhythm.cron is not None:
        yield from _cron_slots(rhythm.cron, rhythm.zone, after, until)


def next_slot(spec: Mapping[str, Json] | Rhythm, after: float) -> float | None:
    """The first slot after a time; ``None``: there is none.

    Raises:
        Invalid: The spec cannot be read.
    """
    return next(iter(next_slots(spec, after, after + _YEARS * 366 * 86400)), None)


def _cron_slots(cron: Cron, zone: tzinfo, after: float, until: float) -> Iterator[float]:
    """Day by day of the wall's calendar; what one day gives is held back until no later day can come before it."""
    # A day before: a zone may skip a whole day, whose slots move on.
    day = _date(after, zone) - timedelta(days=1)
    last = min(_date(until, zone), _LAST_DAY)
    held: set[float] = set()
    told = after
    while day <= last:
        if cron.fits(day):
            held.update(_slots_of(cron, zone, day))
        day += timedelta(days=1)
        if held:
            settled = _midnight(day, zone).timestamp()
            ready = sorted(slot for slot in held if slot < settled)
            held.difference_update(ready)
            for slot in ready:
                if told < slot <= until:
                    told = slot
                    yield slot
    yield from sorted(slot for slot in held if told < slot <= until)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _date(at: float, zone: tzinfo) -> date:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at)).astimezone(zone).date()
    except OverflowError:
        return _LAST_DAY


def _slots_of(cron: Cron, zone: tzinfo, day: date) -> Iterator[float]:
    midnight = _midnight(day, zone)
    hours = [midnight.replace(hour=hour) for hour in range(24)]
    edges = {wall.replace(minute=minute, fold=fold).utcoffset() for wall in hours for minute, fold in ((0, 0), (59, 1))}
    if len(edges) == 1:
        # The clock is not set on this day: no need to ask the zone for each minute.
        start = midnight.timestamp()
        yield from (start + hour * 3600 + minute * 60 for hour in cron.hours for minute in cron.minutes)
        return
    for hour in cron.hours:
        for minute in cron.minutes:
            wall = midnight.replace(hour=hour, minute=minute)
            # In a gap fold=0 reckons with the offset before it: the instant lies as far behind the gap as the time in it.
            first = wall.timestamp()
            yield first
            if len(cron.hours) == len(_HOURS):
                second = wall.replace(fold=1).timestamp()
                if second > first:  # it comes twice; in a gap the second reckoning is the earlier one
                    yield second


# --- reading ------------------------------------------------------------------------------------------------------------

_NAMES: Final[Mapping[int, tuple[str, ...]]] = {
    3: ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    4: ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
}
_RANGES: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS: Final = ("minute", "hour", "day of month", "month", "day of week")


def rhythm_of(spec: Mapping[str, Any]) -> Rhythm:
    """Read a spec: the config of a ``schedule`` node.

    Raises:
        Invalid: It is none.
    """
    given = [name for name in ("cron", "every", "at") if spec.get(name) is not None]
    if len(given) != 1:
        raise Invalid("schedule: give exactly one of `cron`, `every` and `at`")
    zone = _zone(spec.get("timezone", "UTC"))
    overlap = spec.get("overlap", "skip")
    if overlap not in ("skip", "buffer_one", "allow", "cancel_other"):
        raise Invalid("schedule.overlap: use skip, buffer_one, allow or cancel_other")
    catch_up = _seconds(spec.get("catch_up", 600.0), "catch_up", 0.0)
    if given == ["cron"]:
        return Rhythm(cron=parse_cron(spec["cron"]), zone=zone, overlap=overlap, catch_up=catch_up)
    if given == ["every"]:
        return Rhythm(every=_seconds(spec["every"], "every", 1.0), overlap=overlap, catch_up=catch_up)
    return Rhythm(at=_instant(spec["at"], zone), overlap=overlap, catch_up=catch_up)


def _zone(name: Any) -> tzinfo:
    if name in ("UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    # KeyError: not found; ValueError: a path; OSError: a directory; TypeError: no text at all.
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise Invalid("schedule.timezone: use a name of the IANA database, such as Europe/Berlin or UTC") from error


def _seconds(value: Any, what: str, least: float) -> float:
    try:
        seconds = parse_duration(value)
    except (ValueError, TypeError) as error:
        raise Invalid(f"schedule.{what}: use seconds, or a text such as 15m") from error
    if seconds < least:
        raise Invalid(f"schedule.{what}: use {least:g} seconds or more")
    return float(seconds)


def _instant(value: Any, zone: tzinfo) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value).strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError) as error:
        raise Invalid("schedule.at: use an ISO 8601 time, or seconds since 1970") from error


def parse_cron(text: Any) -> Cron:
    """Read a cron expression of five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday).

    Where day of month and day of week are both given (neither begins with ``*``), one of them is to fit, as in crontab.

    Raises:
        Invalid: It is none.
    """
    texts = text.split() if isinstance(text, str) else []
    if len(texts) != len(_FIELDS):
        raise Invalid("schedule.cron: use five fields: minute hour day-of-month month day-of-week")
    minutes, hours, days, months, weekdays = (_field(number, part) for number, part in enumerate(texts))
    return Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        not texts[2].startswith("*") and not texts[4].startswith("*"),
    )


def _field(number: int, text: str) -> set[int]:
    least, most = _RANGES[number]
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            by = int(step) if slash else 1
            if span == "*":
                begin, end = least, most
            else:
                begin = _value(number, first)
                end = _value(number, last) if dash else most if slash else begin
        except ValueError:
            by = begin = end = -1
        if by < 1 or not least <= begin <= end <= most:
            raise Invalid(f"schedule.cron: {_FIELDS[number]}: cannot read {part[:40]!r}")
        values.update(range(begin, end + 1, by))
    return values


def _value(number: int, text: str) -> int:
    names = _NAMES.get(number, ())
    if text.upper() in names:
        return names.index(text.upper()) + _RANGES[number][0]
    if not text.isdecimal() or not text.isascii():
        raise ValueError
    return int(text[:9])
