"""What `Intl` in the JavaScript sandbox knows: the data of `intl.js`, made from Babel (CLDR) and the time zone database.

`intl_data` gives a flat object of texts. A locale's data comes in sections (`de-AT/date`), each a JSON text that holds
only what differs from the locale's parent, and is parsed when it is first used: an image that holds all locales stays
small, and a call pays for what it touches. Some of what CLDR knows Babel leaves out (`yesterday`, narrow currency
symbols, how a date is joined with a time): that stands in `locale_extras.json`, in the same form.
"""

import functools
import importlib.resources
import json
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from babel import localedata
from babel.core import get_global
from babel.plural import PluralRule


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SCRIPTS: Final = ("intl.js", "intl_numbers.js", "intl_dates.js", "intl_text.js")
"""The scripts that make `Intl`, in the order in which they run."""

LANGUAGES: Final = _words(
    "ar bg bn ca cs da de el en es et fi fr he hi hr hu id it ja ko lt lv nb nl no pl pt ro ru sk sl sv th tr uk vi zh"
)
"""The languages that `Intl` formats, each with all of its regions."""

_STYLES = ("full", "long", "medium", "short")
_SYMBOLS = (
    "decimal",
    "group",
    "percentSign",
    "plusSign",
    "minusSign",
    "exponential",
    "infinity",
    "nan",
    "approximatelySign",
)
_FIELDS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
# ECMA-402, table "Sanctioned single unit identifiers".
UNITS: Final = _words(
    "acre bit byte celsius centimeter day degree fahrenheit fluid-ounce foot gallon gigabit gigabyte gram hectare hour inch"
    " kilobit kilobyte kilogram kilometer liter megabit megabyte meter microsecond mile mile-scandinavian milliliter"
    " millimeter millisecond minute month nanosecond ounce percent petabyte pound second stone terabit terabyte week yard"
    " year"
)

_Data = Mapping[str, Any]  # what Babel loads for a locale, or a part of it


def intl_data() -> dict[str, Any]:
    """The data that `intl.js` takes, as JSON: texts by name. Takes seconds, so it is called when an image is made."""
    known = tags()
    texts: dict[str, Any] = {
        "locales": " ".join(f"{tag}:{parent_of(tag) or ''}" for tag in known),
        "aliases": " ".join(f"{alias}:{tag}" for alias, tag in _aliases(known)),
        "likely": _likely(),
        "currencies": " ".join(currencies()),
        "languages": " ".join(_NAMED_LANGUAGES),
        "territories": " ".join(_territories()),
        "scripts": " ".join(_NAMED_SCRIPTS),
        "digits": " ".join(f"{code}:{rule[0]}" for code, rule in sorted(get_global("currency_fractions").items())),
        "zones": "\n".join(_zones()),
        "metazones": " ".join(metazones()),
        "zonealiases": " ".join(f"{name}:{zone}" for name, zone in sorted(_zone_aliases())),
    }
    made: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    merged: dict[str, dict[Any, Any]] = {}
    for tag in known:
        data = _load(tag, merged)
        for section, make in _SECTIONS.items():
            made[section][tag] = make(data)
    texts["plurals"] = _dump(changes(made.pop("plural")))
    for section, by_tag in made.items():
        texts.update({f"{tag}/{section}": _dump(change) for tag, change in changes(by_tag).items()})
    extras = json.loads(
        importlib.resources.files("orchestrator_nodes_std.sandbox").joinpath("locale_extras.json").read_text("utf-8")
    )
    for section, by_tag in extras.items():
        texts.update({f"{tag}/{section}": _dump(value) for tag, value in by_tag.items()})
    return texts


# ---- locales --------------------------------------------------------------------------------------------------------


def tags() -> list[str]:
    """The BCP 47 tags of all locales of `LANGUAGES`, parents before children."""
    names = [name for name in localedata.locale_identifiers() if name.split("_")[0] in LANGUAGES]
    # Romanised and historical scripts of these languages, and the POSIX variant, are not what anybody formats in.
    odd = re.compile(r"_(Latn|Shaw|Dsrt|POSIX|polyton|valencia)", re.IGNORECASE)
    kept = sorted(name.replace("_", "-") for name in names if not odd.search(name))
    return sorted(kept, key=lambda tag: (len(_chain(tag)), tag))


def parent_of(tag: str) -> str | None:
    """The tag that `tag` inherits from, as CLDR has it; None for one that inherits from nobody."""
    exceptions = get_global("parent_exceptions")
    name = tag.replace("-", "_")
    if name in exceptions:
        return str(exceptions[name]).replace("_", "-")
    if name == "zh_Hant":
        return None
    return tag.rpartition("-")[0] or None


def _chain(tag: str) -> list[str]:
    parent = parent_of(tag)
    return [*_chain(parent), tag] if parent else [tag]


def _aliases(tags: list[str]) -> Iterator[tuple[str, str]]:
    """Tags that name a locale without its script (`zh-TW`), each with that locale's tag."""
    known = set(tags)
    likely = get_global("likely_subtags")
    for tag in tags:
        language, *rest = tag.split("-")
        if len(rest) == 2 and f"{language}-{rest[1]}" not in known:
            full = likely.get(f"{language}_{rest[1]}") or likely[language]
            if full.split("_")[1] == rest[0]:
                yield f"{language}-{rest[1]}", tag
    yield from (("iw", "he"), ("in", "id"))


def _likely() -> str:
    """For each language and region a likely script, where it is not the language's own: `zh:Hans zh-TW:Hant …`."""
    found = []
    for name, full in sorted(get_global("likely_subtags").items()):
        parts = name.split("_")
        if parts[0] in LANGUAGES and len(parts) == 1:
            found.append(f"{name}:{full.replace('_', '-')}")
        elif parts[0] in LANGUAGES and len(parts) == 2:
            found.append(f"{name.replace('_', '-')}:{full.replace('_', '-')}")
    return " ".join(found)


class _View(localedata.LocaleDataDict):
    """Babel's view of a locale's data, without its memory.

    Babel writes what an alias stands for in one locale into parts that locales share, so that what a locale says would
    depend on which were used before.
    """

    def __getitem__(self, key: Any) -> Any:
        value = self._meant(self._data[key])
        return _View(value, base=self.base) if isinstance(value, dict) else value

    def _meant(self, value: Any) -> Any:
        if isinstance(value, localedata.Alias):
            target: Any = self.base
            for key in value.keys:
                target = self._meant(target[key])
            return target
        if isinstance(value, tuple) and value and isinstance(value[0], localedata.Alias):
            alias, others = value
            whole = self._meant(alias).copy()
            localedata.merge(whole, others)
            return whole
        return value


def _load(tag: str, merged: dict[str, dict[Any, Any]]) -> _Data:
    """All that Babel has for a locale. `merged` keeps what was put together before, parents mostly."""
    for link in ("root", *_chain(tag)):
        if link not in merged:
            file = importlib.resources.files("babel").joinpath("locale-data", f"{link.replace('-', '_')}.dat")
            parent = parent_of(link) if link != "root" else None
            data = {} if link == "root" else merged[parent or "root"].copy()
            localedata.merge(data, pickle.loads(file.read_bytes()))  # noqa: S301 - a file of Babel's
            merged[link] = data
    return _View(merged[tag])


def changes(by_tag: Mapping[str, Any]) -> dict[str, Any]:
    """What each tag's value changes in that of its parent; tags that change nothing are left out."""
    found = {}
    for tag, value in by_tag.items():
        parent = parent_of(tag)
        while parent and parent not in by_tag:
            parent = parent_of(parent)
        change = _change(by_tag[parent], value) if parent else value
        if change != {}:
            found[tag] = change
    return found


def _change(old: Any, new: Any) -> Any:
    """What turns `old` into `new`: objects key by key, where null takes a key away; anything else as a whole.

    Of long lists, an object of what changes by index.
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) > _LONG:
        return {str(index): _change(old[index], item) for index, item in enumerate(new) if old[index] != item}
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    found: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            found[key] = value
        elif old[key] != value:
            found[key] = _change(old[key], value)
    return found


_LONG = 20


def _dump(value: Any) -> str:
    """JSON, with what is beyond Latin-1 escaped where that is smaller: the guest keeps such texts at a byte each."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escaped = re.sub(r"[^\x00-\xff]", lambda found: json.dumps(found[0])[1:-1], text)
    return escaped if len(escaped) < 2 * len(text) else text


def _plain(value: Any) -> Any:
    """Babel's value as JSON: patterns as their text, keys as text."""
    if hasattr(value, "keys"):
        return {str(key): _plain(value[key]) for key in value if value[key] is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "pattern", value)


# ---- numbers --------------------------------------------------------------------------------------------------------


def _number_section(data: _Data) -> dict[str, Any]:
    default = data["default_numbering_system"]
    systems = {default, "latn", data["numbering_systems"].get("native", default)}
    symbols = {}
    for system in sorted(systems):
        own = data["number_symbols"].get(system)
        if own and "decimal" in own:
            symbols[system] = [own.get(name, "") for name in _SYMBOLS]
    return {
        "n": default,
        "s": symbols,
        "d": data["decimal_formats"][None].pattern,
        "p": data["percent_formats"][None].pattern,
        "e": data["scientific_formats"][None].pattern,
        "c": data["currency_formats"]["standard"].pattern,
        "a": data["currency_formats"].get("accounting", data["currency_formats"]["standard"]).pattern,
        "u": _plain(data["currency_unit_patterns"]),
        # Babel keeps one pattern for all numbering systems: the Western digits' one, but Arabic digits have their own.
        "m": {"arab": "\u200f#,##0.00\u00a0¤"} if "arab" in symbols else {},
        "ks": _compact(data["compact_decimal_formats"]["short"]),
        "kl": _compact(data["compact_decimal_formats"].get("long", data["compact_decimal_formats"]["short"])),
        "kc": _compact(data["compact_currency_formats"].get("short", {})),
    }


def _compact(by_plural: _Data) -> dict[str, list[str]]:
    """Patterns for 10^3 … 10^14 by plural category."""
    return {
        plural: [patterns[str(10**power)].pattern if str(10**power) in patterns else "0" for power in range(3, 15)]
        for plural, patterns in _plain_keys(by_plural)
    }


def _plain_keys(data: _Data) -> Iterator[tuple[str, Any]]:
    for key in sorted(data):
        yield key, data[key]


def _symbol_section(data: _Data) -> dict[str, Any]:
    return {code: text for code, text in _plain(data["currency_symbols"]).items() if text != code}


def _currency_section(data: _Data) -> list[str | int]:
    """The names of currencies, each with its plural forms as `_forms` writes them; 0 where there is none."""
    plurals = data["currency_names_plural"]
    found: list[str | int] = []
    for code in currencies():
        name = data["currency_names"].get(code)
        forms = _plain(plurals[code]) if code in plurals else {}
        found.append("|".join([name, *_forms(data, forms)]) if name else 0)
    return found


@functools.cache
def currencies() -> list[str]:
    """The codes that are tender somewhere, those that were in Europe within living memory, and a few special ones."""
    tender: set[str] = set()
    for uses in get_global("territory_currencies").values():
        tender.update(use[0] for use in uses if use[2] is None and use[3])
    return sorted(tender | set(_OLD_CURRENCIES) | {"XAU", "XAG", "XDR", "XXX"})


_OLD_CURRENCIES = _words(
    "ATS BEF BGN CYP DEM EEK ESP FIM FRF GRD HRK IEP ITL LTL LUF LVL MTL NLG PTE SIT SKK"
)  # now the euro


def _categories(data: _Data) -> list[str]:
    rules = data["plural_form"].rules
    return [name for name in ("zero", "one", "two", "few", "many") if name in rules] + ["other"]


def _forms(data: _Data, forms: Mapping[str, str]) -> list[str]:
    """The forms for the language's plural categories, in their order; a single one where all are alike."""
    found = [forms.get(name, forms.get("other", "")) for name in _categories(data)]
    return found[:1] if len(set(found)) == 1 else found


def _unit_section(data: _Data) -> dict[str, Any]:
    """By unit, for each width (long, short, narrow) the plural forms, then behind `||` the pattern of `per` such a unit."""
    found: dict[str, Any] = {}
    for full in data["unit_patterns"]:
        name = full.partition("-")[2]
        left, per, right = name.partition("-per-")
        if left in UNITS and (not per or right in UNITS):
            found[name] = []
            for width in ("long", "short", "narrow"):
                # A width that says nothing is as the short one.
                forms = _plain(data["unit_patterns"][full].get(width, {}))
                if "other" not in forms:
                    forms = {**_plain(data["unit_patterns"][full]["short"]), **forms}
                text = "|".join(_forms(data, forms))
                found[name].append(f"{text}||{forms['per']}" if "per" in forms else text)
    per = data["compound_unit_patterns"]["per"]
    longer = "{0}/{1}"  # as CLDR has it for all
    found["per"] = []
    for width in ("long", "short", "narrow"):
        longer = _plain(per.get(width, {})).get("compound", longer)
        found["per"].append(longer)
    return found


# ---- dates ----------------------------------------------------------------------------------------------------------


def _date_section(data: _Data) -> dict[str, Any]:
    made = _dates(data)
    if data["locale_id"].startswith("ko"):  # all engines write 오전 and 오후 here, where CLDR has AM and PM
        periods = made["p"]["format"]
        periods["abbreviated"] |= {name: periods["wide"][name] for name in ("am", "pm")}
    return made


def _dates(data: _Data) -> dict[str, Any]:
    return {
        "m": {form: _lists(data["months"][form], range(1, 13)) for form in ("format", "stand-alone")},
        "w": {form: _lists(data["days"][form], (6, 0, 1, 2, 3, 4, 5)) for form in ("format", "stand-alone")},
        "e": _lists(data["eras"], (0, 1)),
        "p": {
            "format": {width: _plain(data["day_periods"]["format"][width]) for width in data["day_periods"]["format"]}
        },
        "r": _day_periods(data),
        "D": [data["date_formats"][style].pattern for style in _STYLES],
        "T": [data["time_formats"][style].pattern for style in _STYLES],
        "S": {
            key: text
            for key, text in {**_plain(data["datetime_skeletons"]), **_CORRECTED.get(data["locale_id"], {})}.items()
            if not set(key) & set("QqwW")
        },
    }


# Where CLDR has a pattern and a variant of it, Babel keeps the variant; these are the patterns.
_CORRECTED = {
    "en_CA": {"yM": "y-MM", "yMd": "y-MM-dd", "yMEd": "E, y-MM-dd", "Md": "MM-dd", "MEd": "E, MM-dd"},
}


def _lists(data: _Data, keys: Iterable[int]) -> dict[str, list[str]]:
    return {width: [data[width][key] for key in keys] for width in data}


def _day_periods(data: _Data) -> dict[str, list[int]]:
    """When each flexible period of the day begins and ends, in hours; noon and midnight are one time."""
    found = {}
    for name, spans in (data.get("day_period_rules") or {}).get(None, {}).items():
        for span in spans:
            start = span.get("from", span.get("at"))
            found[name] = [start // 3600, span.get("before", start) // 3600]
    return found


def _zone_section(data: _Data) -> dict[str, Any]:
    """Names of time zones: [standard, daylight] by width, for meta zones (by number) and for single zones."""
    found: dict[str, Any] = {}
    names = [item.partition(":")[0] for item in metazones()]
    for width in ("long", "short"):
        found[width[0]] = [_zone_names(data["meta_zones"].get(name, {}), width) for name in names]
        found[f"{width[0]}z"] = {
            zone: own for zone in data["time_zones"] if (own := _zone_names(data["time_zones"][zone], width))
        }
    return found


def _zone_names(names: _Data, width: str) -> list[str | int] | int:
    forms = names.get(width, {})
    # Three times the empty-set sign says that there is no such name here, though the parent has one.
    found = [0 if forms.get(form, "∅∅∅") == "∅∅∅" else forms[form] for form in ("standard", "daylight")]
    return found if any(found) else 0


@functools.cache
def metazones() -> list[str]:
    """The meta zones in use, each with its zones: `Europe_Central:Europe/Berlin,Europe/Paris`."""
    by_name: dict[str, list[str]] = {}
    for zone, name in sorted(get_global("meta_zones").items()):
        by_name.setdefault(name, []).append(zone)
    return [f"{name}:{','.join(zones)}" for name, zones in sorted(by_name.items())]


# ---- texts ----------------------------------------------------------------------------------------------------------


def _list_patterns(data: _Data) -> dict[str, list[str]]:
    """Patterns by kind and width. What a width leaves out is as in another one: CLDR's root says in which."""
    patterns = data["list_patterns"]
    parts = ("start", "middle", "end", "2")
    found: dict[str, list[str]] = {}
    for name, other in _LIST_FALLBACKS.items():
        inherited = dict(zip(parts, found[other] if other else ["{0}, {1}"] * 4, strict=True))
        made = {**inherited, **_plain(patterns.get(name, {}))}
        found[name] = [made[part] for part in parts]
    return found


_LIST_FALLBACKS = {
    "standard": None,
    "standard-short": "standard",
    "standard-narrow": "standard-short",
    "or": None,
    "or-short": "or",
    "or-narrow": "or-short",
    "unit-short": "standard-short",
    "unit": "unit-short",
    "unit-narrow": "unit-short",
}


def _relative_section(data: _Data) -> dict[str, Any]:
    """By field and width, the plural forms for the future and for the past; what a width leaves out is as in a longer one."""
    found: dict[str, list[str]] = {}
    for field in _FIELDS:
        longer: dict[str, Any] = {}
        for width in ("", "-short", "-narrow"):
            own = _plain(data["date_fields"].get(field + width) or {})
            longer = {when: own[when] if own.get(when) else longer.get(when, {}) for when in ("future", "past")}
            found[field + width] = ["|".join(_forms(data, longer[when])) for when in ("future", "past")]
    return found


def _names_section(data: _Data) -> dict[str, Any]:
    languages, territories, scripts = data["languages"], data["territories"], data["scripts"]
    return {
        "l": [languages.get(code, 0) for code in _NAMED_LANGUAGES],
        "r": [territories.get(code, 0) for code in _territories()],
        "s": [scripts.get(code, 0) for code in _NAMED_SCRIPTS],
    }


@functools.cache
def _territories() -> list[str]:
    return sorted(_load("en", {})["territories"])


# The languages of ISO 639-1, and some that have three letters only.
_NAMED_LANGUAGES = _words(
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es"
    " et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki"
    " kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no"
    " nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te"
    " tg th ti tk tn to tr ts tt ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu ast ceb chr ckb csb dsb fil fur gsw haw"
    " hmn hsb kab kok lij lmo mai mul nap nds pap sah sat scn szl und vec wuu yue zxx"
)
_NAMED_SCRIPTS = _words(
    "Arab Armn Beng Bopo Cans Cher Cyrl Deva Ethi Geor Grek Gujr Guru Hang Hani Hans Hant Hebr Hira Jpan Kana Khmr Knda Kore"
    " Laoo Latn Mlym Mong Mymr Orya Sinh Syrc Taml Telu Thaa Thai Tibt Zyyy"
)


def _plurals(data: _Data) -> dict[str, list[str]]:
    """The rules of a language as CLDR writes them: for cardinals, for ordinals."""

    def text(rule: PluralRule) -> str:
        return str(rule).removeprefix("<PluralRule '").removesuffix("'>")

    return {"p": [text(data["plural_form"]), text(data["ordinal_form"])]}


_SECTIONS: dict[str, Callable[[_Data], Any]] = {
    "plural": _plurals,
    "number": _number_section,
    "symbol": _symbol_section,
    "currency": _currency_section,
    "unit": _unit_section,
    "date": _date_section,
    "zone": _zone_section,
    "list": _list_patterns,
    "relative": _relative_section,
    "names": _names_section,
}


# ---- time zones -----------------------------------------------------------------------------------------------------


def _zones() -> list[str]:
    """A line for each set of rules: the names of zones that have it, then what `_rules` says, behind a tab."""
    root = importlib.resources.files("tzdata").joinpath("zoneinfo")
    names = importlib.resources.files("tzdata").joinpath("zones").read_text("utf-8").split()
    by_rules: dict[str, list[str]] = {}
    for name in sorted(names):
        if name not in ("Factory", "localtime", "posixrules"):
            by_rules.setdefault(_rules(root.joinpath(*name.split("/")).read_bytes()), []).append(name)
    return [f"{' '.join(names)}\t{rules}" for rules, names in by_rules.items()]


_TZIF = struct.Struct(">4sc15x6I")


def _rules(file: bytes) -> str:
    """What a TZif file says, as `types transitions tail`.

    Types are offsets from UTC in seconds, base 36, with `!` after those of summer time; the first holds before all
    transitions. A transition is the seconds since the one before (the first: since 1970), base 36, and its type as a
    capital letter. The tail is a POSIX rule for the time after the last transition, without the names.
    """
    sizes = _TZIF.unpack_from(file)
    if sizes[0] != b"TZif" or sizes[1] < b"2":
        raise ValueError("not a file of the time zone database, version 2 or later")
    utc, std, leaps, times, types, letters = sizes[2:]
    second = _TZIF.size + times * 5 + types * 6 + letters + leaps * 8 + std + utc
    utc, std, leaps, times, types, letters = _TZIF.unpack_from(file, second)[2:]
    at = second + _TZIF.size
    instants = struct.unpack_from(f">{times}q", file, at)
    indices = file[at + times * 8 : at + times * 9]
    kinds = [struct.unpack_from(">i?", file, at + times * 9 + 6 * number) for number in range(types)]
    tail = file[at + times * 9 + types * 6 + letters + leaps * 12 + std + utc :].strip(b"\n").decode()
    distinct = list(dict.fromkeys(kinds))
    text = ""
    before = 0
    now = kinds[0]
    for instant, index in zip(instants, indices, strict=True):
        # The last one stays, though it may change nothing: from it on the tail says what holds.
        if kinds[index] != now or instant == instants[-1]:
            text += _base36(instant - before) + chr(65 + distinct.index(kinds[index]))
            before, now = instant, kinds[index]
    names = ",".join(_base36(offset) + ("!" if summer else "") for offset, summer in distinct)
    return f"{names} {text} {re.sub(r'<[^>]*>|[A-Za-z]{3,}', '~', tail)}"


def _zone_aliases() -> Iterator[tuple[str, str]]:
    """Names of zones that CLDR has under another name, each with that one: it keeps some that were renamed since."""
    known = get_global("meta_zones")
    for old, new in get_global("zone_aliases").items():
        yield (new, old) if old in known and new not in known else (old, new)


def _base36(number: int) -> str:
    if number < 0:
        return "-" + _base36(-number)
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits
