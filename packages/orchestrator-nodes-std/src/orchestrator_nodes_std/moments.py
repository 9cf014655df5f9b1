"""Arithmetic with dates, and a small format language for them, the same on every system and in every locale.

Years, months, weeks and days are steps of the calendar: a day later is the same wall time, however long the day was.
Hours and below are lengths of time.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal

import attrs

from orchestrator_core import setting
from orchestrator_nodes_std.times import normal

__all__ = ["Amount", "Unit", "add", "difference", "end_of", "format_time", "parse_time", "start_of"]

Unit = Literal["years", "months", "weeks", "days", "hours", "minutes", "seconds"]

_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@attrs.frozen
class Amount:
    """A length of time in calendar steps and clock time; any part may be negative."""

    years: int = setting(default=0, description="Years. 29 February becomes the 28th where there is none.")
    months: int = setting(default=0, description="Months. The 31st becomes a shorter month's last day.")
    weeks: int = setting(default=0, description="Weeks of seven calendar days.")
    days: int = setting(default=0, description="Calendar days, which keep the time of day across changes of the clock.")
    hours: float = setting(default=0, description="Hours of 60 minutes.")
    minutes: float = setting(default=0, description="Minutes.")
    seconds: float = setting(default=0, description="Seconds.")


# --- arithmetic ------------------------------------------------------------------------------------------------------


def add(moment: datetime, amount: Amount) -> datetime:
    """The moment an amount later: calendar steps first, then clock time.

    Raises:
        OverflowError: The result lies outside of the years 1 to 9999.
    """
    later = _add_calendar(moment, amount.years * 12 + amount.months, amount.weeks * 7 + amount.days)
    exact = timedelta(hours=amount.hours, minutes=amount.minutes, seconds=amount.seconds)
    return (later.astimezone(UTC) + exact).astimezone(moment.tzinfo)


def _add_calendar(moment: datetime, months: int, days: int) -> datetime:
    if not months and not days:
        return moment
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError("the year must be 1 to 9999")
    day = min(moment.day, monthrange(year, month + 1)[1])
    # fold=0: of a wall time that comes twice (autumn) the first is meant.
    return normal(moment.replace(year=year, month=month + 1, day=day, fold=0) + timedelta(days=days))


def start_of(moment: datetime, unit: Unit) -> datetime:
    """The first instant of the year, month, week (from Monday), day, hour, minute or second that a moment lies in."""
    if unit in ("hours", "minutes", "seconds"):
        # The hour keeps its fold: the second 02:15 of an autumn night belongs to the second 02:00.
        cleared = moment.replace(microsecond=0)
        if unit != "seconds":
            cleared = cleared.replace(second=0)
        return cleared.replace(minute=0) if unit == "hours" else cleared
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "years":
        day = day.replace(month=1, day=1)
    elif unit == "months":
        day = day.replace(day=1)
    elif unit == "weeks":
        day -= timedelta(days=day.weekday())
    return normal(day)


def end_of(moment: datetime, unit: Unit) -> datetime:
    """The last microsecond of the unit that a moment lies in."""
    start = start_of(moment, unit)
    if unit in _SECONDS:
        following = start.astimezone(UTC) + timedelta(seconds=_SECONDS[unit])
    else:
        # Once more the start of a day: where midnight does not exist, a step from 01:00 ends at 01:00.
        following = start_of(_add_calendar(start, *_STEPS[unit]), "days").astimezone(UTC)
    return (following - timedelta(microseconds=1)).astimezone(moment.tzinfo)


_STEPS: Mapping[str, tuple[int, int]] = {"years": (12, 0), "months": (1, 0), "weeks": (0, 7), "days": (0, 1)}
_SECONDS: Mapping[str, int] = {"hours": 3600, "minutes": 60, "seconds": 1}


def difference(start: datetime, end: datetime, unit: Unit) -> int | float:
    """How much lies between two moments: complete units, negative when ``end`` is earlier; seconds with fractions."""
    if unit in _SECONDS:
        exact = end.astimezone(UTC) - start.astimezone(UTC)
        microseconds = exact // timedelta(microseconds=1)
        whole, rest = divmod(abs(microseconds), _SECONDS[unit] * 1_000_000)
        sign = -1 if microseconds < 0 else 1
        return sign * (whole + rest / 1_000_000) if unit == "seconds" and rest else sign * whole
    # By the UTC clock: Python compares two times of one zone by their wall clocks.
    last = end.astimezone(UTC)
    if last < start.astimezone(UTC):
        return -difference(end, start, unit)
    end = end.astimezone(start.tzinfo)
    if unit in ("years", "months"):
        months = (end.year - start.year) * 12 + end.month - start.month
        if months and _add_calendar(start, months, 0).astimezone(UTC) > last:
            months -= 1
        return months // 12 if unit == "years" else months
    days = (end.date() - start.date()).days
    if days and _add_calendar(start, 0, days).astimezone(UTC) > last:
        days -= 1
    return days // 7 if unit == "weeks" else days


# --- formats ---------------------------------------------------------------------------------------------------------


def _offset(moment: datetime) -> str:
    text = moment.strftime("%z")
    return f"{text[:3]}:{text[3:5]}"


_FORMAT: Mapping[str, Callable[[datetime], str]] = {
    "Y": lambda moment: f"{moment.year:04}",
    "y": lambda moment: f"{moment.year % 100:02}",
    "m": lambda moment: f"{moment.month:02}",
    "B": lambda moment: _MONTHS[moment.month - 1],
    "b": lambda moment: _MONTHS[moment.month - 1][:3],
    "d": lambda moment: f"{moment.day:02}",
    "e": lambda moment: str(moment.day),
    "j": lambda moment: f"{moment.timetuple().tm_yday:03}",
    "A": lambda moment: _DAYS[moment.weekday()],
    "a": lambda moment: _DAYS[moment.weekday()][:3],
    "u": lambda moment: str(moment.isoweekday()),
    "G": lambda moment: f"{moment.isocalendar().year:04}",
    "V": lambda moment: f"{moment.isocalendar().week:02}",
    "H": lambda moment: f"{moment.hour:02}",
    "I": lambda moment: f"{(moment.hour - 1) % 12 + 1:02}",
    "p": lambda moment: "AM" if moment.hour < 12 else "PM",
    "M": lambda moment: f"{moment.minute:02}",
    "S": lambda moment: f"{moment.second:02}",
    "L": lambda moment: f"{moment.microsecond // 1000:03}",
    "f": lambda moment: f"{moment.microsecond:06}",
    "z": _offset,
    "Z": lambda moment: moment.tzname() or "",
    "s": lambda moment: str((moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)),
    "%": lambda _: "%",
}

_PARSE: Mapping[str, str] = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{1,2}",
    "B": "|".join(_MONTHS),
    "b": "|".join(name[:3] for name in _MONTHS),
    "d": r"\d{1,2}",
    "e": r"\d{1,2}",
    "A": "|".join(_DAYS),
    "a": "|".join(name[:3] for name in _DAYS),
    "H": r"\d{1,2}",
    "I": r"\d{1,2}",
    "p": r"[AaPp][Mm]",
    "M": r"\d{1,2}",
    "S": r"\d{1,2}",
    "L": r"\d{3}",
    "f": r"\d{1,6}",
    "z": r"Z|[+-]\d{2}:?\d{2}",
    "s": r"-?\d{1,12}",
}

_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


def format_time(moment: datetime, pattern: str) -> str:
    """A moment written by a pattern of ``%`` directives.

    Raises:
        ValueError: The pattern holds an unknown directive.
    """

    def write(match: re.Match[str]) -> str:
        if match[1] not in _FORMAT:
            raise ValueError(f"%{match[1]} is no part of a format: there are {_known(_FORMAT)}")
        return _FORMAT[match[1]](moment)

    return _DIRECTIVE.sub(write, pattern)


def _known(table: Mapping[str, object]) -> str:
    return ", ".join(f"%{letter}" for letter in table)


def parse_time(text: str, pattern: str, zone: tzinfo) -> datetime:
    """The moment that a text means, read by a pattern; without ``%z`` or ``%s`` it is a wall time of ``zone``.

    Raises:
        ValueError: The text does not follow the pattern, is no date, or the pattern gives no date or is malformed.
    """
    found = _read(text, pattern)
    if "s" in found:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(found["s"]))).astimezone(zone)
    if not ("Y" in found or "y" in found):
        raise ValueError("the format holds no year: use %Y, %y or %s")
    names = tuple(name[:3] for name in _MONTHS)
    month = int(found["m"]) if "m" in found else 1
    for letter in "Bb":
        if letter in found:
            month = names.index(found[letter][:3].capitalize()) + 1
    moment = datetime(
        # Two digits as POSIX has them: 69 to 99 belong to the last century.
        int(found["Y"]) if "Y" in found else int(found["y"]) + (1900 if int(found["y"]) >= 69 else 2000),
        month,
        int(found.get("d") or found.get("e") or 1),
        _hour(found),
        int(found.get("M", 0)),
        int(found.get("S", 0)),
        int((found.get("f") or found.get("L") or "0").ljust(6, "0")),
        tzinfo=_parsed_offset(found["z"]) if "z" in found else zone,
    )
    return moment.astimezone(zone) if "z" in found else normal(moment)


def _read(text: str, pattern: str) -> dict[str, str]:
    """The texts of the directives, by letter."""
    expression: list[str] = []
    position = 0
    seen: set[str] = set()
    for match in _DIRECTIVE.finditer(pattern):
        expression.append(re.escape(pattern[position : match.start()]))
        position = match.end()
        letter = match[1]
        if letter == "%":
            expression.append("%")
        elif letter not in _PARSE:
            raise ValueError(f"%{letter} cannot be read from a text: there are {_known(_PARSE)}")
        elif letter in seen:
            raise ValueError(f"%{letter} stands twice in the format")
        else:
            seen.add(letter)
            expression.append(f"(?P<{letter}>{_PARSE[letter]})")
    expression.append(re.escape(pattern[position:]))
    found = re.fullmatch("".join(expression), text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise ValueError("the text does not follow the format")
    return found.groupdict()


def _hour(found: Mapping[str, str]) -> int:
    if "H" in found:
        return int(found["H"])
    if "I" not in found:
        return 0
    hour = int(found["I"])
    if not 1 <= hour <= 12:
        raise ValueError("hours of a twelve-hour clock are 1 to 12")
    return hour % 12 + (12 if found.get("p", "am").lower() == "pm" else 0)


def _parsed_offset(text: str) -> tzinfo:
    if text in ("Z", "z"):
        return UTC
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
