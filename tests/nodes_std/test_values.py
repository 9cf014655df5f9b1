from __future__ import annotations

import hashlib
import hmac
import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from helpers import NOW, run, workflow
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import Engine, NodeError
from orchestrator_core.testing import make_context
from orchestrator_nodes_std.moments import Amount, add, difference, end_of, format_time, parse_time, start_of
from orchestrator_nodes_std.values import CryptoConfig, DatetimeConfig, crypto, datetime_

pytestmark = pytest.mark.anyio

BERLIN = "Europe/Berlin"
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]
MOMENTS = st.builds(
    lambda seconds, zone: datetime.fromtimestamp(seconds, ZoneInfo(zone)),
    st.integers(946_684_800, 2_524_608_000),  # 2000 to 2050
    st.sampled_from(ZONES),
)


async def compute(value=None, **settings):
    if value is not None:
        settings["value"] = value
    return await datetime_(make_context(now=NOW), DatetimeConfig(**settings), None)


# --- datetime --------------------------------------------------------------------------------------------------------


async def test_now_is_the_attempts_clock():
    assert await compute() == "2027-01-15T08:00:00Z"
    assert await compute(timezone=BERLIN) == "2027-01-15T09:00:00+01:00"


@pytest.mark.parametrize(
    ("value", "zone", "iso"),
    [
        ("2027-07-01", "UTC", "2027-07-01T00:00:00Z"),
        ("2027-07-01", BERLIN, "2027-07-01T00:00:00+02:00"),
        ("2027-07-01T10:00:00Z", BERLIN, "2027-07-01T12:00:00+02:00"),
        ("20270701T100000.25+0200", "UTC", "2027-07-01T08:00:00.250000Z"),
        (0, "UTC", "1970-01-01T00:00:00Z"),
        (-86400.5, "UTC", "1969-12-30T23:59:59.500000Z"),
        # a wall time that the clock jumps over, and one that it shows twice
        ("2027-03-28T02:30:00", BERLIN, "2027-03-28T03:30:00+02:00"),
        ("2027-10-31T02:30:00", BERLIN, "2027-10-31T02:30:00+02:00"),
        ("2027-10-31T02:30:00+01:00", BERLIN, "2027-10-31T02:30:00+01:00"),
    ],
)
async def test_parse_gives_iso_times(value, zone, iso):
    assert await compute(value, action="parse", timezone=zone) == iso


@pytest.mark.parametrize(
    ("text", "pattern", "iso"),
    [
        ("24.12.2027", "%d.%m.%Y", "2027-12-24T00:00:00+01:00"),
        ("Dec 4, 2027 12:05 am", "%b %e, %Y %I:%M %p", "2027-12-04T00:05:00+01:00"),
        ("FRIDAY 24 december 99", "%A %d %B %y", "1999-12-24T00:00:00+01:00"),
        ("2027-07-01 10:00:00.5 -0330", "%Y-%m-%d %H:%M:%S.%f %z", "2027-07-01T15:30:00.500000+02:00"),
        ("at 1800000000 (100%)", "at %s (100%%)", "2027-01-15T09:00:00+01:00"),
    ],
)
async def test_parse_reads_other_forms(text, pattern, iso):
    assert await compute(text, action="parse", format=pattern, timezone=BERLIN) == iso


@pytest.mark.parametrize(
    ("text", "pattern", "says"),
    [
        ("24-12-2027", "%d.%m.%Y", "does not follow the format"),
        ("31.02.2027", "%d.%m.%Y", "day"),
        ("24.12.", "%d.%m.", "no year"),
        ("2027", "%Y%Q", "%Q cannot be read"),
        ("2027 2027", "%Y %Y", "stands twice"),
        ("2027 13", "%Y %I", "1 to 12"),
        ("2027%", "%Y%", "% cannot be read"),
        ("\u0662\u0660\u0662\u0667", "%Y", "does not follow"),
    ],
)
async def test_parse_says_why_it_cannot_read(text, pattern, says):
    with pytest.raises(NodeError, match=says) as failure:
        await compute(text, action="parse", format=pattern)
    assert (failure.value.code, failure.value.retryable) == ("bad_input", False)


async def test_format_writes_by_a_pattern():
    pattern = "%A %a %B %b %d %e %Y %y %H %I %p %M %S %L %f %z %Z %j %u %G-W%V %s %%"
    assert await compute("2027-01-03T23:04:05.006007", action="format", format=pattern, timezone=BERLIN) == (
        "Sunday Sun January Jan 03 3 2027 27 23 11 PM 04 05 006 006007 +01:00 CET 003 7 2026-W53 1799013845 %"
    )
    with pytest.raises(NodeError, match="%Q is no part of a format"):
        await compute(0, action="format", format="%Q")


@given(MOMENTS)
def test_what_is_written_can_be_read_again(moment):
    pattern = "%d %b %Y, %I:%M:%S.%f %p %z"
    assert parse_time(format_time(moment, pattern), pattern, UTC) == moment.astimezone(UTC)


@pytest.mark.parametrize(
    ("value", "amount", "iso"),
    [
        ("2027-01-31T12:00:00", {"months": 1}, "2027-02-28T12:00:00+01:00"),
        ("2028-02-29T12:00:00", {"years": -1}, "2027-02-28T12:00:00+01:00"),
        ("2027-12-31T12:00:00", {"months": 2, "days": 1}, "2028-03-01T12:00:00+01:00"),
        # across the change of the clock: a day keeps the time of day, 24 hours do not
        ("2027-03-27T12:00:00", {"days": 1}, "2027-03-28T12:00:00+02:00"),
        ("2027-03-27T12:00:00", {"hours": 24}, "2027-03-28T13:00:00+02:00"),
        ("2027-03-27T02:30:00", {"days": 1}, "2027-03-28T03:30:00+02:00"),
        ("2027-10-31T02:30:00+01:00", {"days": 0}, "2027-10-31T02:30:00+01:00"),
        ("2027-10-31T02:30:00+02:00", {"hours": 1}, "2027-10-31T02:30:00+01:00"),
        ("2027-01-01", {"minutes": -0.5}, "2026-12-31T23:59:30+01:00"),
    ],
)
async def test_add_steps_through_the_calendar_and_lets_time_pass(value, amount, iso):
    assert await compute(value, action="add", amount=Amount(**amount), timezone=BERLIN) == iso


@pytest.mark.parametrize(
    ("start", "to", "unit", "result"),
    [
        ("2027-01-01", "2027-03-01", "days", 59),
        ("2027-03-28", "2027-03-29", "days", 1),  # 23 hours
        ("2027-03-28", "2027-03-29", "hours", 23),
        ("2027-01-31", "2027-02-28", "months", 1),
        ("2027-01-31", "2027-02-27", "months", 0),
        ("2027-03-01", "2027-01-31", "months", -1),
        ("2024-02-29", "2027-02-28", "years", 3),
        ("2027-01-01", "2027-01-14T23:59:59", "weeks", 1),
        ("2027-01-01", "2027-01-01T00:00:01.250", "seconds", 1.25),
        ("2027-01-01T00:00:01.250", "2027-01-01", "seconds", -1.25),
        ("2027-01-01", "2027-01-01T00:01:59", "minutes", 1),
        ("2027-10-31T02:30:00+02:00", "2027-10-31T02:15:00+01:00", "minutes", 45),
        ("2027-10-31T02:30:00+02:00", "2027-10-31T02:15:00+01:00", "days", 0),
        ("2027-10-30T02:30:00", "2027-10-31T02:15:00+01:00", "days", 1),  # the second 02:15 is after the first 02:30
    ],
)
async def test_diff_counts_complete_units(start, to, unit, result):
    assert await compute(start, action="diff", to=to, unit=unit, timezone=BERLIN) == result


async def test_diff_goes_to_now_unless_told_otherwise():
    assert await compute("2027-01-15T07:00:00Z", action="diff", unit="minutes") == 60


@pytest.mark.parametrize(
    ("unit", "first", "last"),
    [
        ("years", "2027-01-01T00:00:00+01:00", "2027-12-31T23:59:59.999999+01:00"),
        ("months", "2027-03-01T00:00:00+01:00", "2027-03-31T23:59:59.999999+02:00"),
        ("weeks", "2027-03-22T00:00:00+01:00", "2027-03-28T23:59:59.999999+02:00"),
        ("days", "2027-03-28T00:00:00+01:00", "2027-03-28T23:59:59.999999+02:00"),
        ("hours", "2027-03-28T03:00:00+02:00", "2027-03-28T03:59:59.999999+02:00"),
        ("minutes", "2027-03-28T03:04:00+02:00", "2027-03-28T03:04:59.999999+02:00"),
        ("seconds", "2027-03-28T03:04:05+02:00", "2027-03-28T03:04:05.999999+02:00"),
    ],
)
async def test_start_and_end_of_a_unit(unit, first, last):
    value = "2027-03-28T03:04:05.060708"
    assert await compute(value, action="start_of", unit=unit, timezone=BERLIN) == first
    assert await compute(value, action="end_of", unit=unit, timezone=BERLIN) == last


async def test_a_day_begins_later_where_midnight_does_not_exist_and_a_day_can_be_missing():
    zone = "America/Sao_Paulo"
    assert (
        await compute("2018-11-04T12:00:00", action="start_of", unit="days", timezone=zone)
        == "2018-11-04T01:00:00-02:00"
    )
    end = await compute("2011-12-29T12:00:00", action="end_of", unit="days", timezone="Pacific/Apia")
    assert end == "2011-12-29T23:59:59.999999-10:00"
    assert (await compute(end, action="add", amount=Amount(seconds=1), timezone="Pacific/Apia")).startswith(
        "2011-12-31T00"
    )


@given(MOMENTS, st.sampled_from(["years", "months", "weeks", "days", "hours", "minutes", "seconds"]))
def test_a_moment_lies_within_its_unit_and_units_leave_no_gap(moment, unit):
    first, last = start_of(moment, unit).astimezone(UTC), end_of(moment, unit).astimezone(UTC)
    assert first <= moment.astimezone(UTC) <= last
    following = last.astimezone(moment.tzinfo)
    following = add(following, Amount(seconds=1e-6))
    if unit != "hours":  # where the clock goes back by half an hour, hours overlap
        assert start_of(following, unit).astimezone(UTC) == last + timedelta(microseconds=1)


@given(MOMENTS, MOMENTS, st.sampled_from(["years", "months", "weeks", "days", "hours", "minutes"]))
def test_diff_is_the_largest_amount_that_does_not_go_too_far(start, end, unit):
    end = end.astimezone(start.tzinfo)
    if end.astimezone(UTC) < start.astimezone(UTC):
        assert difference(start, end, unit) == -difference(end, start, unit)
        start, end = end, start
    count = difference(start, end, unit)
    assert add(start, Amount(**{unit: count})).astimezone(UTC) <= end.astimezone(UTC)
    assert add(start, Amount(**{unit: count + 1})).astimezone(UTC) > end.astimezone(UTC)


@pytest.mark.parametrize("value", ["soon", "", {}, True, 1e30, float("inf"), "0000-01-01"])
async def test_what_is_no_time_fails_for_good(value):
    with pytest.raises(NodeError, match="`value` of a `datetime` node") as failure:
        await compute(value, action="start_of", unit="days")
    assert (failure.value.code, failure.value.retryable) == ("bad_input", False)


@pytest.mark.parametrize(
    "settings",
    [
        {"action": "add", "amount": Amount(years=9000)},
        {"action": "add", "amount": Amount(days=10**10)},
        {"action": "add", "amount": Amount(hours=1e300)},
        {"action": "add", "amount": Amount(years=10**30)},
    ],
)
async def test_a_result_beyond_the_calendar_fails(settings):
    with pytest.raises(NodeError, match="outside of the years 1 to 9999"):
        await compute("2027-01-01", **settings)


async def test_a_time_zone_that_comes_from_data_and_is_none_fails():
    with pytest.raises(NodeError, match="there is no time zone"):
        await compute(0, action="parse", timezone="{{ as data }}")


@pytest.mark.parametrize("action", ["format", "add", "diff", "start_of", "end_of"])
def test_an_action_that_lacks_its_setting_is_refused(action):
    with pytest.raises(ValueError, match=f"`action: {action}` needs"):
        DatetimeConfig(action)


# --- crypto ----------------------------------------------------------------------------------------------------------


async def make(input=None, **settings):
    return await crypto(make_context(), CryptoConfig(**settings), input)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "sha1", "md5", "blake2b"])
async def test_hashes_are_those_of_everybody_else(algorithm):
    expected = hashlib.new(algorithm, "grün".encode())
    assert await make("grün", action="hash", algorithm=algorithm) == expected.hexdigest()
    keyed = hmac.new("schlüssel".encode(), "grün".encode(), algorithm)
    assert await make("grün", action="hmac", algorithm=algorithm, key="schlüssel") == keyed.hexdigest()


async def test_a_known_answer():
    assert await make("", action="hash", encoding="base64") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    answer = await make("what do ya want for nothing?", action="hmac", key="Jefe")  # RFC 4231, case 2
    assert answer == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


async def test_the_hash_of_an_object_does_not_depend_on_the_order_of_its_names():
    one = await make({"b": [1, "ü"], "a": None}, action="hash")
    assert one == await make({"a": None, "b": [1, "ü"]}, action="hash")
    assert one == hashlib.sha256('{"a":null,"b":[1,"ü"]}'.encode()).hexdigest()
    assert await make("x", action="hash", value=None) == hashlib.sha256(b"null").hexdigest()


@pytest.mark.parametrize("key", [None, ""])
def test_an_hmac_without_a_key_is_refused(key):
    with pytest.raises(ValueError, match="needs a `key`"):
        CryptoConfig("hmac", key=key)


async def test_half_a_character_has_no_hash():
    with pytest.raises(NodeError, match="surrogate"):
        await make("\ud800", action="hash")


async def test_identifiers_are_the_same_in_every_attempt_and_differ_between_nodes():
    for version in (4, 7):
        config = CryptoConfig("uuid", version=version)
        first = uuid.UUID(await crypto(make_context(), config, None))
        assert (first.version, first.variant) == (version, uuid.RFC_4122)
        assert str(first) == await crypto(make_context(attempt=2), config, None)
        assert str(first) != await crypto(make_context(seed=8), config, None)


async def test_identifiers_of_version_7_sort_by_time():
    config = CryptoConfig("uuid", version=7)
    made = [await crypto(make_context(now=NOW + n / 1000, seed=-n), config, None) for n in range(50)]
    assert made == sorted(made)
    assert int(made[0].replace("-", "")[:12], 16) == 1_800_000_000_000


async def test_random_bytes_are_new_every_time():
    made = {await make(action="random", size=16) for _ in range(20)}
    assert len(made) == 20
    assert {len(text) for text in made} == {32}
    assert not crypto.pure
    with pytest.raises(ValueError, match="`size` must be 1 to 65536 bytes"):
        CryptoConfig("random", size=0)


# --- through the engine ----------------------------------------------------------------------------------------------


async def test_times_and_hashes_of_data():
    nodes = [
        {
            "id": "due",
            "type": "datetime",
            "config": {
                "action": "add",
                "value": "{{ input.at }}",
                "amount": {"months": 1, "days": "{{ input.days }}"},
                "timezone": "{{ input.zone }}",
            },
        },
        {"id": "sign", "type": "crypto", "config": {"action": "hmac", "key": "{{ secrets.k }}"}},
    ]
    payload = {"at": "2027-01-31T12:00:00", "days": 30, "zone": BERLIN}
    result = await run(nodes, payload, secrets={"k": "Jefe"})
    assert result.node("due").output == "2027-03-30T12:00:00+02:00"
    assert result.output == hmac.new(b"Jefe", b"2027-03-30T12:00:00+02:00", "sha256").hexdigest()


async def test_the_same_seed_gives_the_same_identifier_and_each_node_its_own():
    nodes = [{"id": name, "type": "crypto", "config": {"action": "uuid"}} for name in "ab"]
    both = workflow(nodes, [])
    async with Engine() as engine:
        first = (await engine.run(both, seed=1)).output
        again = (await engine.run(both, seed=1)).output
        other = (await engine.run(both, seed=2)).output
    assert first == again
    assert len({*first.values(), *other.values()}) == 4


async def test_a_time_zone_that_comes_from_data_and_is_none_fails_the_node():
    nodes = [{"id": "t", "type": "datetime", "config": {"timezone": "{{ input }}"}}]
    result = await run(nodes, "../../etc/passwd")
    assert (result.status, result.error.code) == ("failed", "bad_config")
