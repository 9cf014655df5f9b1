"""The syntax of cron expressions: what can be refused when a workflow is saved."""

from __future__ import annotations

import re

import attrs

__all__ = ["CronError", "cron_problem", "parse_cron"]


class CronError(ValueError):
    """A text is no cron expression; the message says which field and why."""


@attrs.frozen
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),  # 0 and 7 are Sunday
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month, leap years counted

_PART = re.compile(r"(?P<from>\*|[0-9]+|[A-Za-z]+)(-(?P<to>[0-9]+|[A-Za-z]+))?(/(?P<step>[0-9]+))?")


def _number(text: str, field: _Field) -> int:
    if text.isdigit():
        number = int(text[:9])
    elif text.upper() in field.names:
        number = field.names.index(text.upper()) + field.least
    else:
        known = f" (names: {', '.join(field.names)})" if field.names else ""
        raise CronError(f"{field.name}: {text!r} is neither a number nor a name{known}")
    if not field.least <= number <= field.most:
        raise CronError(f"{field.name}: {text} is outside of {field.least} to {field.most}")
    return number


def _values(text: str, field: _Field) -> frozenset[int]:
    """The numbers that one field stands for."""
    values: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None or (match["from"] == "*" and match["to"]):
            raise CronError(f"{field.name}: cannot read {part!r}: write *, a value, a range 1-5, or steps */15")
        if match["from"] == "*":
            first, last = field.least, min(field.most, 6) if field.names is _DAYS else field.most
        else:
            first = _number(match["from"], field)
            last = _number(match["to"], field) if match["to"] else (field.most if match["step"] else first)
        if first > last:
            raise CronError(f"{field.name}: the range {part!r} goes backwards: write two parts with a comma")
        step = int(match["step"][:9]) if match["step"] else 1
        if step < 1:
            raise CronError(f"{field.name}: the step of {part!r} must be at least 1")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def parse_cron(text: str) -> tuple[frozenset[int], ...]:
    """The numbers of the five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday).

    Raises:
        CronError: The text is malformed, or no date ever fits (31 February).
    """
    texts = text.split()
    if len(texts) != len(_FIELDS):
        raise CronError(
            f"a cron expression has five fields (minute hour day-of-month month day-of-week), this one has {len(texts)}"
        )
    fields = tuple(_values(part, field) for part, field in zip(texts, _FIELDS, strict=True))
    any_day = all(day in fields[4] or (day == 0 and 7 in fields[4]) for day in range(7))
    if any_day and not any(min(fields[2]) <= _LONGEST[month - 1] for month in fields[3]):
        raise CronError(f"day of month: no day {min(fields[2])} in the months given, so the schedule would never start")
    return fields


def cron_problem(text: str) -> str | None:
    """What is wrong with a cron expression, for the validator of a setting."""
    try:
        parse_cron(text)
    except CronError as error:
        return f"is no cron expression: {error}"
    return None
