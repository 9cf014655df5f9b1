"""Write `locale_extras.json`, what Babel leaves out of CLDR, from the Intl of Node 24: `python intl_extras.py [path of node]`."""

import collections
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from babel import Locale
from babel.core import get_global

from orchestrator_nodes_std.sandbox import locales


def main() -> None:
    tags, currencies = locales.tags(), locales.currencies()
    asked = json.dumps({"tags": tags, "currencies": currencies})
    command = [*(sys.argv[1:2] or ["node"]), str(Path(__file__).with_suffix(".js"))]
    found = json.loads(subprocess.run(command, input=asked, stdout=subprocess.PIPE, check=True, text=True).stdout)
    # A currency's narrow symbol is nearly everywhere the same: what most say is said once, for all.
    usual = {
        code: collections.Counter(symbols[code] for symbols in found["narrow"].values()).most_common(1)[0][0]
        for code in currencies
    }
    for tag, symbols in found["narrow"].items():
        found["narrow"][tag] = {code: text for code, text in symbols.items() if text != usual[code]}
    names, collation = found.pop("zones"), found.pop("collation")
    packed: dict[str, dict[str, Any]] = {name: locales.changes(section) for name, section in found.items()}
    packed["narrow"]["*"] = {code: text for code, text in usual.items() if text != code}
    packed["collation"] = collation
    packed["metazones"] = {"*": history(names)}
    target = resources.files("orchestrator_nodes_std.sandbox").joinpath("locale_extras.json")
    Path(str(target)).write_text(
        json.dumps(packed, ensure_ascii=False, separators=(",", ":")).replace('}},"', '}},\n"') + "\n"
    )


MANY = 12


def history(names: dict[str, list[tuple[int | None, str]]]) -> dict[str, list[tuple[int | None, int]]]:
    """Which meta zones each zone was in, by their number; -1: none; -2: one whose names Babel does not have in use."""
    english = Locale.parse("en").meta_zones
    found = {}
    metazones = [item.partition(":")[0] for item in locales.metazones()]
    for zone, spans in names.items():
        now = get_global("meta_zones").get(zone)
        known = {
            plain(form): number
            for number, name in enumerate(metazones)
            for form in english.get(name, {}).get("long", {}).values()
        }
        own = metazones.index(now) if now else -1
        known |= {plain(form): own for form in english.get(now, {}).get("long", {}).values()}
        mine = Locale.parse("en").time_zones.get(zone, {}).get("long", {})
        known |= {plain(form): own for form in mine.values()}
        known[""] = -1
        result: list[tuple[int | None, int]] = []
        for until, name in spans:
            number = known.get(name, -2)
            if result and result[-1][1] == number:
                result.pop()
            result.append((until, number))
        if result[-1][1] == -2:  # a name that is newer than Babel's: the zone is what Babel says it is
            result[-1] = (None, own)
        if len(result) > MANY:  # the name goes to and fro, winter and summer: too odd to be right about
            turns = [until for until, _ in result[:-2]]
            result = [*result[:3], (turns[-1], -2), result[-1]] if result[-1][1] == result[2][1] else [(None, -2)]
        if len(result) > 1 and result[-2][1] == result[-1][1]:
            del result[-2]
        if result != [(None, own)]:
            found[zone] = result
    return found


def plain(name: str) -> str:
    return re.sub(r" (Standard|Daylight|Summer) Time$", " Time", name)


if __name__ == "__main__":
    main()
