"""The pages about the languages of the sandbox, each made from the table that a test runs entry by entry."""

from __future__ import annotations

import tomllib
from itertools import groupby
from pathlib import Path
from typing import Any

__all__ = ["page"]

_HEAD = """\
# {title} in the sandbox

What programs (the `code` node, with `context` in scope) can do, entry by entry: each is a program that a test runs, and
what it gives. {more}

## What fails

These end with an error that says so.
"""


def page(table: Path, title: str, more: str) -> str:
    """The page about the language ``title``, from the TOML file at ``table``."""
    features = tomllib.loads(table.read_text(encoding="utf-8"))["feature"]
    fence = title.lower() if title == "JavaScript" else "text"  # what can be parsed by itself is
    lines = [_HEAD.format(title=title, more=more), "| what | the error |", "| --- | --- |"]
    lines += [_row(feature) for feature in features if "error" in feature]
    for group, entries in groupby(features, key=lambda feature: str(feature["group"])):
        lines += ["", f"## {group}"]
        for feature in entries:
            lines += ["", *_entry(feature, fence)]
    return "\n".join(lines) + "\n"


def _row(feature: dict[str, Any]) -> str:
    return f"| {_cell(feature['name'])} | {_cell(_code(feature['error']))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    """As code in Markdown, whatever backticks it holds."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _entry(feature: dict[str, Any], fence: str) -> list[str]:
    works = "error" not in feature
    source = str(feature["source"]).strip("\n")
    said = f"gives {_code(feature['result'])}" if works else f"fails: {_code(feature['error'])}"
    note = [f"\n{feature['note']}"] if "note" in feature else []
    # What is no JavaScript here is shown as it is.
    return [f"**{feature['name']}**", "", f"```{fence if works else 'text'}", source, "```", "", said, *note]
