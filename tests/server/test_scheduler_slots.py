"""The slots of schedules, against an oracle that goes minute by minute."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_nodes_std import cron
from orchestrator_server.errors import Invalid
from orchestrator_server.slots import next_slot, next_slots, parse_cron

CRONS = [
    "30 2 * * *",
    "0 2 * * *",
    "15 1 * * SUN",
    "*/15 * * * *",
    "0 * * * *",
    "45 1,2,3 * * *",
    "0 9 * * MON-FRI",
    "59 23 31 * *",
    "0 0 13 * 5",
    "30 */2 28-31 3,4,9,10 *",
]
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
# Ten years, minute by minute, take some minutes: `nox -s soak` asks for them.
LONG_RUN = os.environ.get("ORCHESTRATOR_SOAK") == "1"


def oracle(text: str, zone: str, begin: datetime, end: datetime) -> list[float]:
    """Every minute that passes, and what the wall says then. Written from the rules in words, not from the code."""
    fields = text.split()
    names = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"])}

    def read(part: str, least: int, most: int) -> set[int]:
        values = set()
        for one in part.split(","):
            span, _, step = one.partition("/")
            first, _, last = span.partition("-")
            low = least if span == "*" else names[first] if first in names else int(first)
            high = (
                most
                if span == "*"
                else (names[last] if last in names else int(last))
                if last
                else most
                if step
                else low
            )
            values |= {number for number in range(low, high + 1) if (number - low) % int(step or 1) == 0}
        return values

    minutes, hours, days, months = (
        read(fields[n], *span) for n, span in enumerate([(0, 59), (0, 23), (1, 31), (1, 12)])
    )
    weekdays = {day % 7 for day in read(fields[4], 0, 7)}
    both_given = fields[2][0] != "*" and fields[4][0] != "*"

    def named(wall: datetime) -> bool:
        by_month, by_week = wall.day in days, wall.isoweekday() % 7 in weekdays
        fits = by_month or by_week if both_given else by_month and by_week
        return wall.minute in minutes and wall.hour in hours and wall.month in months and fits

    minute = timedelta(minutes=1)
    now = begin - timedelta(days=2)
    place = ZoneInfo(zone)
    wall = now.astimezone(place).replace(tzinfo=None)
    seen: set[datetime] = set()  # walls of the last two days
    moved: set[datetime] = set()  # instants to which skipped walls were moved
    found: list[float] = []
    while now <= end:
        before, wall = wall, now.astimezone(place).replace(tzinfo=None)
        skipped = before + minute
        while skipped < wall:  # the clock was put forward: what it skipped comes as much later as was skipped
            if named(skipped):
                moved.add(now + (skipped - before - minute))
            skipped += minute
        again = wall in seen
        if (named(wall) and (not again or hours == set(range(24)))) or now in moved:
            found.append(now.timestamp())
        seen.add(wall)
        seen.discard(wall - timedelta(minutes=2000))
        now += minute
    return [slot for slot in found if slot > begin.timestamp()]


def windows(zone: str) -> list[tuple[datetime, datetime]]:
    """The days around each change of the clock, and a few calm ones; the whole of ten years for the long run."""
    begin, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2036, 11, 1, tzinfo=UTC)
    if LONG_RUN:
        return [(begin, end)]
    found = [(datetime(2028, 2, 27, tzinfo=UTC), datetime(2028, 3, 2, tzinfo=UTC))]
    day, place = begin, ZoneInfo(zone)
    while day < end and len(found) < 5:
        if day.astimezone(place).utcoffset() != (day + timedelta(days=1)).astimezone(place).utcoffset():
            found.append((day - timedelta(days=1), day + timedelta(days=2)))
        day += timedelta(days=1)
    if zone == "Pacific/Apia":  # a whole day that was skipped, and changes of the clock that it had then
        found.append((datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 2, tzinfo=UTC)))
        found.append((datetime(2012, 3, 31, tzinfo=UTC), datetime(2012, 4, 2, tzinfo=UTC)))
    return found


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", CRONS)
def test_slots_are_those_of_the_oracle(text: str, zone: str) -> None:
    spec = {"cron": text, "timezone": zone}
    for begin, end in windows(zone):
        found = list(next_slots(spec, begin.timestamp(), end.timestamp()))
        assert found == oracle(text, zone, begin, end), (begin, end)


@given(st.sampled_from(CRONS), st.sampled_from(ZONES), st.integers(1_760_000_000, 2_100_000_000))
@settings(max_examples=60, deadline=None)
def test_one_after_another_gives_the_same_as_all_at_once(text: str, zone: str, begin: int) -> None:
    spec = {"cron": text, "timezone": zone}
    end = begin + 3 * 86400
    every = list(next_slots(spec, begin, end))
    assert every == sorted(set(every))
    stepped, at = [], float(begin)
    while (slot := next_slot(spec, at)) is not None and slot <= end:
        stepped.append(slot)
        at = slot
    assert stepped == every


def local(slot: float, zone: str) -> str:
    return datetime.fromtimestamp(slot, ZoneInfo(zone)).strftime("%d %H:%M%z")


def test_the_nights_in_which_clocks_are_set() -> None:
    spring, autumn = datetime(2027, 3, 27, 12, tzinfo=UTC), datetime(2027, 10, 30, 12, tzinfo=UTC)

    def during(text: str, begin: datetime) -> list[str]:
        spec = {"cron": text, "timezone": "Europe/Berlin"}
        slots = next_slots(spec, begin.timestamp(), begin.timestamp() + 86400)
        return [local(slot, "Europe/Berlin") for slot in slots]

    assert during("30 2 * * *", spring) == ["28 03:30+0200"]
    assert during("30 2 * * *", autumn) == ["31 02:30+0200"]
    assert during("30 2,3 * * *", spring) == ["28 03:30+0200"]
    assert [text for text in during("30 * * * *", autumn) if " 02" in text] == ["31 02:30+0200", "31 02:30+0100"]


def test_intervals_and_single_instants() -> None:
    assert list(next_slots({"every": "15m"}, 900.0, 2700.0)) == [1800.0, 2700.0]
    assert list(next_slots({"every": 0.1 * 10}, 0.5, 3.0)) == [1.0, 2.0, 3.0]
    spec = {"at": "2027-01-01T00:00:00", "timezone": "Europe/Berlin"}
    instant = datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp()
    assert next_slot(spec, 0) == instant
    assert next_slot(spec, instant) is None


def test_what_never_comes_is_known() -> None:
    assert next_slot({"cron": "0 0 30 2 *"}, 1.8e9) is None
    assert next_slot({"cron": "0 0 29 2 */7"}, 1.8e9) is not None  # a Sunday


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cron": "* * * *"},
        {"cron": "60 * * * *"},
        {"cron": "* * * * MON-SUN"},
        {"cron": "*/0 * * * *"},
        {"cron": "1-*/2 * * * *"},
        {"cron": "٣ * * * *"},
        {"cron": "* * * * *", "every": "1m"},
        {"cron": "* * * * *", "timezone": "Europe/Nowhere"},
        {"cron": "* * * * *", "timezone": "../etc"},
        {"cron": "* * * * *", "overlap": "never"},
        {"every": 0},
        {"every": "soon"},
        {"at": "soon"},
    ],
)
def test_bad_specs_are_refused(spec: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="schedule"):
        list(next_slots(spec, 0, 1))


FIELD = st.lists(
    st.sampled_from(
        ["*", "*/2", "*/7", "1", "3-5", "2/3", "1-7/2", "MON", "7", "0", "MON-FRI", "x", "1-", "9-3", "-1"]
    ),
    min_size=1,
    max_size=2,
)


@given(st.tuples(*[FIELD.map(",".join)] * 5).map(" ".join))
def test_what_the_standard_package_lets_pass_is_read_here(text: str) -> None:
    try:
        fields = cron.parse_cron(text)
    except cron.CronError:
        return
    read = parse_cron(text)
    assert (set(read.minutes), set(read.hours), read.days, read.months) == fields[:4]
    assert read.weekdays == {day % 7 for day in fields[4]}
