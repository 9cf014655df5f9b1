"""`Intl` in the JavaScript sandbox: what Node and zoneinfo answer, or a refusal that says so."""

import importlib.resources
import itertools
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError, locales

HERE = Path(__file__).parent
ORACLE: dict[str, Any] = json.loads((HERE / "intl_cases.json").read_text("utf-8"))
DIFFERENCES: dict[str, Any] = json.loads((HERE / "intl_differences.json").read_text("utf-8"))
ANSWER = (HERE / "intl_answer.js").read_text("utf-8")
SLOW = Limits(time=60, memory=256 * 1024 * 1024)
NOW = 1_795_442_706.789  # Mon, 23 Nov 2026 14:05:06 UTC


@pytest.fixture(scope="module")
def sandbox():
    with JavaScript() as runtime:
        yield runtime


def evaluate(sandbox: JavaScript, source: str, context: Mapping[str, Any] | None = None) -> Any:
    """What a program gives that uses Intl."""
    return sandbox.run(source, context or {}, limits=SLOW, seed=0, now=NOW).value


def refusal(sandbox: JavaScript, expression: str) -> str:
    """The message with which an expression is refused; fails if it gives an answer."""
    source = f"try {{ return 'answered: ' + JSON.stringify({expression}) }} catch (error) {{ return String(error) }}"
    text = evaluate(sandbox, source)
    assert not text.startswith("answered"), text
    return str(text)


# ---- the oracles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ORACLE["locales"])
def test_formats_as_node_does(sandbox, locale):
    source = f"const answer = {ANSWER.strip()};\nreturn context.cases.map((item) => answer(Intl, item, context.locale))"
    answers = evaluate(sandbox, source, {"cases": ORACLE["cases"], "locale": locale})
    known = {key: own for reason in DIFFERENCES.values() for key, own in reason.get(locale, {}).items()}
    found = {}
    for number, (given_, expected) in enumerate(zip(answers, ORACLE["locales"][locale], strict=True)):
        for place, (mine, other) in enumerate(zip(given_, expected, strict=True)):
            if mine != other:
                found[f"{number}.{place}"] = mine
    assert found == known


def rules_of(zone: str) -> ZoneInfo:
    path = importlib.resources.files("tzdata").joinpath("zoneinfo", *zone.split("/"))
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key=zone)


OFFSETS = """
const found = {};
for (const [zone, times] of Object.entries(context.zones)) {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: zone, hourCycle: "h23", year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric",
  });
  found[zone] = times.map((time) => {
    const part = Object.fromEntries(format.formatToParts(time * 1000).map(({type, value}) => [type, Number(value)]));
    return Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second) / 1000 - time;
  });
}
return found;
"""


def test_every_time_zone_is_as_zoneinfo_has_it(sandbox):
    # One zone for each set of rules, at times all over two centuries and around its changes.
    lines = locales.intl_data()["zones"].split("\n")
    dice = random.Random(7)
    begin, end = int(datetime(1900, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    names = [line.split("\t")[0].split(" ")[0] for line in lines]
    assert len(names) > 300
    wrong = []
    for first in range(0, len(names), 50):
        asked = {}
        for name in names[first : first + 50]:
            zone = rules_of(name)
            times = [dice.randrange(begin, end) for _ in range(40)]
            times += [time for year in dice.sample(range(1970, 2100), 6) for time in around_changes(zone, year)]
            asked[name] = times
        for name, offsets in evaluate(sandbox, OFFSETS, {"zones": asked}).items():
            zone = rules_of(name)
            for time, offset in zip(asked[name], offsets, strict=True):
                expected = datetime.fromtimestamp(time, zone).utcoffset()
                if timedelta(seconds=offset) != expected:
                    wrong.append((name, time, offset, expected))
    assert wrong == []


def around_changes(zone: ZoneInfo, year: int) -> list[int]:
    """The seconds before and at each change of a year."""
    found = []
    start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    days = [start + day * 86400 for day in range(0, 366, 6)]
    for first, last in itertools.pairwise(days):
        low, high = first, last
        offset = datetime.fromtimestamp(low, zone).utcoffset()
        if datetime.fromtimestamp(high, zone).utcoffset() == offset:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
                low = middle
            else:
                high = middle
        found += [low, high]
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15), min_size=20, max_size=60
    ),
    st.integers(0, 8),
)
def test_rounds_halves_away_from_zero_on_the_shortest_decimal(numbers, digits):
    with_digits = f"new Intl.NumberFormat('en', {{minimumFractionDigits: {digits}, maximumFractionDigits: {digits}}})"
    found = evaluate(
        shared_sandbox(),
        f"const format = {with_digits};\nreturn context.numbers.map(format.format)",
        {"numbers": numbers},
    )
    for number, text in zip(numbers, found, strict=True):
        exact = Decimal(repr(number)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
        assert text.replace(",", "").lstrip("-") == f"{abs(exact):f}", number
        assert text.startswith("-") == exact.is_signed()


def shared_sandbox() -> JavaScript:
    # Hypothesis and fixtures of a module do not mix: one runtime, made when it is first needed.
    if not _made:
        _made.append(JavaScript())
    return _made[0]


_made: list[JavaScript] = []


# ---- what users write -----------------------------------------------------------------------------------------------


def test_the_defaults_are_american_english_and_utc(sandbox):
    assert evaluate(sandbox, "return new Date(0).toLocaleString()") == "1/1/1970, 12:00:00 AM"
    assert evaluate(sandbox, "return [Intl.DateTimeFormat().resolvedOptions(), Intl.NumberFormat().resolvedOptions().locale]") == [
        {"locale": "en-US", "calendar": "gregory", "numberingSystem": "latn", "timeZone": "UTC", "year": "numeric", "month": "numeric", "day": "numeric"},
        "en-US",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("(1234567.891).toLocaleString('de-DE')", "1.234.567,891"),
        ("(1234.5).toLocaleString('en-IN', {style: 'currency', currency: 'INR'})", "₹1,234.50"),
        ("(12345678901234567890n).toLocaleString('fr-CH')", None),
        ("[1234.5, new Date(0), null].toLocaleString('de-DE', {timeZone: 'Europe/Berlin'})", "1.234,5,1.1.1970, 01:00:00,"),
        ("new Uint16Array([1000, 2]).toLocaleString('de')", "1.000,2"),
        ("new Date(0).toLocaleDateString('de-DE', {weekday: 'long', year: 'numeric', month: 'long', day: 'numeric'})", "Donnerstag, 1. Januar 1970"),
        ("new Date(0).toLocaleTimeString('en-GB', {timeZone: 'America/New_York', timeStyle: 'short'})", "19:00"),
        ("new Date(NaN).toLocaleString('de')", "Invalid Date"),
        ("new Date(0).toLocaleDateString('th-TH')", "1/1/2513"),
        ("new Date(0).toLocaleDateString('th-TH-u-ca-gregory')", "1/1/1970"),
        ("(5).toLocaleString('ar-EG')", "\u0665"),
        ("(5).toLocaleString('ar-EG-u-nu-latn')", "5"),
        ("new Intl.NumberFormat('de-XX').resolvedOptions().locale", "de"),
        ("new Intl.NumberFormat(['tlh', 'pt-AO']).resolvedOptions().locale", "pt-AO"),
        ("new Date(0).toLocaleString('en-US', {timeZone: '+05:30', timeZoneName: 'short'})", "1/1/1970, 5:30:00 AM GMT+5:30"),
        ("'ISTANBUL \u0131i'.toLocaleLowerCase('tr') + '\u0131i'.toLocaleUpperCase('tr')", "\u0131stanbul \u0131iI\u0130"),
        ("[...new Intl.Segmenter('en').segment('👨‍👩‍👧e\\u0301🇩🇪')].map((item) => item.segment).join('|')", "👨‍👩‍👧|e\u0301|🇩🇪"),
        ("Intl.getCanonicalLocales('ZH-hant-tw').join()", "zh-Hant-TW"),
        ("Intl.supportedValuesOf('timeZone').includes('Europe/Berlin')", True),
        ("new Intl.DateTimeFormat('en', {timeZone: 'asia/calcutta'}).resolvedOptions().timeZone", "Asia/Calcutta"),
        ("Object.prototype.toString.call(new Intl.NumberFormat())", "[object Intl.NumberFormat]"),
        ("Intl.DateTimeFormat('en') instanceof Intl.DateTimeFormat", True),
        ("new Intl.DateTimeFormat('de', {dateStyle: 'full'}).formatRange(0, 1000)", "Donnerstag, 1. Januar 1970"),
    ],
)  # fmt: skip
def test_everyday_uses(sandbox, expression, text):
    value = evaluate(sandbox, f"return {expression}")
    assert value == (text or "12'345'678'901'234'567'890")


def test_names_are_sorted_as_their_readers_expect(sandbox):
    sort = "return context.words.slice().sort((a, b) => a.localeCompare(b, context.locale)).join(' ')"

    def order(locale: str, words: str) -> str:
        return str(evaluate(sandbox, sort, {"words": words.split(), "locale": locale}))

    assert order("de", "Zebra Öl Ofen ähre Apfel") == "ähre Apfel Ofen Öl Zebra"
    assert order("sv", "Öl Zebra Ål Ärta Apa") == "Apa Zebra Ål Ärta Öl"
    assert order("da", "Aalborg Zebra Ærø Øre Åse Abe") == "Abe Zebra Ærø Øre Aalborg Åse"
    assert order("es", "oca ñu nube") == "nube ñu oca"
    assert order("cs", "idea chata hora cukr čaj") == "cukr čaj hora chata idea"
    assert order("ru", "яма ёж еда абв zebra") == "абв еда ёж яма zebra"
    assert order("tr", "\u0131rmak izmir hoca") == "hoca \u0131rmak izmir"
    numeric = "return ['a10', 'A9', 'a9'].sort(new Intl.Collator('en', {numeric: true}).compare).join(' ')"
    assert evaluate(sandbox, numeric) == "a9 A9 a10"
    assert evaluate(sandbox, "return 'résumé'.localeCompare('RESUME', 'en', {sensitivity: 'base'})") == 0


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("(5).toLocaleString('sw')", "RangeError: The locale sw is not supported: no data for its language is here. Supported languages: ar, bg,"),
        ("'a'.localeCompare('b', 'tlh')", "The locale tlh is not supported"),
        ("new Intl.DateTimeFormat('de_DE')", "Incorrect locale information"),
        ("new Date(0).toLocaleString('en', {timeZone: 'Mars/Olympus'})", "Invalid time zone specified: Mars/Olympus"),
        ("new Date(0).toLocaleString('en', {timeZoneName: 'longGeneric'})", "use short, long, shortOffset or longOffset"),
        ("new Intl.DateTimeFormat('en', {calendar: 'hebrew'})", "The calendar hebrew is not supported"),
        ("new Intl.DateTimeFormat('en').formatRange(0, 1e12)", "formatRange is not supported for ends that differ"),
        ("new Intl.DateTimeFormat('de', {day: 'numeric', year: 'numeric'})", "has no pattern for this combination"),
        ("new Date(0).toLocaleString('en', {weekday: 'long', year: 'numeric'})", "has no pattern for this combination"),
        ("new Intl.DateTimeFormat('en', {dateStyle: 'full', hour: 'numeric'})", "Can't set option hour when dateStyle is used"),
        ("new Intl.DateTimeFormat('en').format(NaN)", "Invalid time value"),
        ("new Intl.NumberFormat('en', {style: 'currency'})", "Currency code is required"),
        ("new Intl.NumberFormat('en', {style: 'currency', currency: 'ARA', currencyDisplay: 'name'}).format(1)", "use currencyDisplay"),
        ("new Intl.NumberFormat('en', {style: 'unit', unit: 'furlong'})", "Invalid unit argument"),
        ("new Intl.NumberFormat('en', {maximumFractionDigits: 101})", "maximumFractionDigits value is out of range"),
        ("new Intl.NumberFormat('de-u-nu-arab').format(1)", "The numbering system arab is not supported for de"),
        ("new Intl.NumberFormat('en').formatRange(1, 2)", "formatRange is not supported"),
        ("['山', '川'].sort(new Intl.Collator('ja').compare)", 'The place of \\"'.replace("\\", "")),
        ("'🙂'.localeCompare('a')", "in the order of en-US is not known"),
        ("new Intl.Segmenter('en', {granularity: 'word'})", 'granularity "word" is not supported'),
        ("new Intl.DisplayNames('en', {type: 'region', style: 'short'})", "style short is not supported"),
        ("new Intl.DisplayNames('en', {type: 'language'}).of('tlh')", "The name of the language tlh is not known"),
        ("'ά'.toLocaleUpperCase('el')", "use toUpperCase"),
        ("new Date(0).toLocaleString('en', {timeZone: 'Antarctica/Troll', timeZoneName: 'long'})", "is not known; use timeZoneName"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_rightly_is_refused(sandbox, expression, says):
    assert says in refusal(sandbox, expression)


# ---- the realms -----------------------------------------------------------------------------------------------------


def test_expressions_have_it_too(sandbox):
    texts = [
        "(1234.5).toLocaleString('de')",
        "new Intl.DateTimeFormat('fr', {month: 'long'}).format(0)",
        "['b','ä'].sort((x, y) => x.localeCompare(y, 'de')).join()",
    ]
    values = [item.value for item in sandbox.evaluate(texts, {}, limits=SLOW, seed=0, now=NOW)]
    assert values == ["1.234,5", "janvier", "ä,b"]


def test_a_program_that_replaces_globals_still_gets_right_texts(sandbox):
    source = """
      for (const name of ["Map", "Date", "JSON", "Math", "String", "Number", "BigInt", "RegExp", "Object", "Array"]) globalThis[name] = undefined;
      return [(1234.5).toLocaleString("de", {style: "currency", currency: "EUR"}), new Intl.DateTimeFormat("de", {timeZone: "Europe/Berlin", dateStyle: "long"}).format(0)];
    """
    assert evaluate(sandbox, source) == ["1.234,50\u00a0€", "1. Januar 1970"]


def test_what_one_call_changes_the_next_does_not_see(sandbox):
    assert evaluate(sandbox, "Number.prototype.toLocaleString = () => 1; Intl = 5; return Intl") == 5
    assert evaluate(sandbox, "return (1.5).toLocaleString('de')") == "1,5"


def test_a_refusal_that_nobody_catches_fails_the_call(sandbox):
    with pytest.raises(SandboxError, match="no data for its language is here"):
        evaluate(sandbox, "return (5).toLocaleString('sw')")


# ---- the data -------------------------------------------------------------------------------------------------------


def test_the_data_is_small_and_of_texts_only():
    data = locales.intl_data()
    assert all(isinstance(text, str) for text in data.values())
    # In the guest a text takes one byte for each character if all are of Latin-1, else two.
    size = sum(len(text) * (1 if text.isascii() or all(ord(c) < 256 for c in text) else 2) for text in data.values())
    assert size < 2_200_000


def test_what_babel_did_before_changes_nothing():
    # Babel's own view of a locale leaves traces in what it shares with others; the data is made without it.
    from babel import Locale  # noqa: PLC0415 - what is tested is the order

    before = locales.intl_data()
    for name in ("he", "zh", "es_MX"):
        Locale.parse(name).months["stand-alone"]["wide"].get(1)
    assert locales.intl_data() == before
