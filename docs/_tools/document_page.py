"""The page about the workflow document, made from its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator_core.cli.schema import document_schema
from orchestrator_core.codec import dump_json

__all__ = ["page", "schema_text"]

_PARTS = (
    ("settings", "Settings"),
    ("node", "Nodes"),
    ("retry", "Retry"),
    ("edge", "Edges"),
    ("body", "Bodies of groups"),
    ("position", "Position"),
)


def schema_text() -> str:
    """The JSON Schema as ``orchestrator schema`` prints it."""
    return dump_json(document_schema(), indent=2) + "\n"


def page() -> str:
    """The page: a table for each part of a document."""
    schema = document_schema()
    parts: dict[str, Any] = schema["$defs"]
    lines = [
        "# The workflow document",
        "",
        "JSON and YAML, one to one: a document means the same in both. YAML is 1.2 with JSON's types only: tags, duplicate",
        "keys and alias bombs are refused. `orchestrator schema` prints the JSON Schema from which these tables are made;",
        "with `--types` it describes the settings of the installed node types too.",
        "",
        "What a schema cannot say is checked as well, by `Engine.validate` and `orchestrator validate`: ids are unique, edges",
        "lead from nodes to nodes and form no cycle, expressions parse and refer to what is upstream, secrets stand only where",
        "they may.",
        "",
        "## The document",
        "",
        *_table(schema),
    ]
    for name, title in _PARTS:
        lines += ["", f"## {title}", "", _sentence(parts[name].get("description", "")), "", *_table(parts[name])]
    durations = ", ".join(f"`{example}`" for example in parts["duration"]["examples"])
    lines += [
        "",
        "## Durations",
        "",
        f"{_sentence(parts['duration']['description'])} For example {durations}.",
        "",
        "## The schema",
        "",
        "```{literalinclude} workflow.schema.json",
        ":language: json",
        "```",
        "",
    ]
    return "\n".join(line for line in lines)


def _table(part: Mapping[str, Any]) -> list[str]:
    required = set(part.get("required", ()))
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for name, entry in part["properties"].items():
        default = "must be given" if name in required else _default(entry)
        text = _sentence(entry.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {_words(entry)} | {default} | {text} |")
    return lines


def _default(entry: Mapping[str, Any]) -> str:
    if "default" not in entry:
        return ""
    value = entry["default"]
    return f"`{value if isinstance(value, str) else dump_json(value)}`"


def _words(entry: Mapping[str, Any]) -> str:
    if "const" in entry:
        return f"`{dump_json(entry['const'])}`"
    if "enum" in entry:
        return " or ".join(f"`{value}`" for value in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(_words(member) for member in entry["anyOf"] if member != {"type": "null"})
    if "$ref" in entry:
        name = entry["$ref"].rpartition("/")[2]
        title = dict(_PARTS).get(name)
        anchor = (title or "durations").lower().replace(" ", "-")
        return f"[{name}](#{anchor})"
    if entry.get("type") == "array":
        return f"list of {_words(entry['items'])}"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "object": "object",
    }
    kinds = entry.get("type", "")
    if {"number", "string"} <= set(kinds if isinstance(kinds, list) else ()) and "pattern" in entry:
        return "[duration](#durations)"
    return " or ".join(
        words.get(kind, "any value") for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"
    )


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")
