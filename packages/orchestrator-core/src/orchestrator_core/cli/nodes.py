"""``orchestrator nodes``: the installed node types, and what there is to know of one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import click

from orchestrator_core.cli.schema import type_schema
from orchestrator_core.cli.text import Problem, say, say_json, table, width_of, wrap
from orchestrator_core.codec import dump_json
from orchestrator_core.nodes import NodeType
from orchestrator_core.plugins import ENTRY_POINTS, Registry, make_manager, make_registry
from orchestrator_core.spelling import nearest
from orchestrator_core.types import Json
from orchestrator_core.yaml_text import dump_yaml

__all__ = ["nodes"]


@click.command(short_help="List the node types, or describe one.")
@click.argument("name", metavar="[TYPE]", required=False)
@click.option(
    "--json", "as_json", is_flag=True, help="Write JSON: the types with their configs' schemas, or one type's."
)
def nodes(name: str | None, *, as_json: bool) -> None:
    """List the installed node types by plugin; of one TYPE show its ports, settings and an example."""
    registry = make_registry(make_manager())
    if name is None:
        if as_json:
            say_json([_as_json(kind) for kind in registry.node_types.values()])
        else:
            _list(registry)
        return
    kind = registry.node_types.get(name)
    if kind is None:
        # A plugin's type is no slip for one without a prefix.
        meant = nearest(name, [known for known in registry.node_types if ("." in known) == ("." in name)])
        hint = f"did you mean {meant!r}?" if meant else _where_else(name, registry)
        raise Problem(f"there is no node type {name!r}: {hint}")
    if as_json:
        say_json(_as_json(kind))
        return
    for line in _describe(kind, width_of(sys.stdout)):
        say(line)


def _where_else(name: str, registry: Registry) -> str:
    prefix, dot, _ = name.partition(".")
    if dot and not any(kind.startswith(f"{prefix}.") for kind in registry.node_types):
        return f"install the package whose plugin is called {prefix!r}; `orchestrator nodes` lists what is installed"
    if "set" not in registry.node_types:
        return "the standard types are in the package pluggable-orchestrator-nodes-std, which is not installed"
    return "`orchestrator nodes` lists those that are installed"


def _list(registry: Registry) -> None:
    width = width_of(sys.stdout)
    packages = {
        point.name: f"{point.dist.name} {point.dist.version}"
        for point in entry_points(group=ENTRY_POINTS)
        if point.dist is not None
    }
    by_plugin: dict[str, list[NodeType]] = {}
    for kind in registry.node_types.values():
        by_plugin.setdefault(kind.plugin, []).append(kind)
    longest = max(map(len, registry.node_types))
    for number, (plugin, kinds) in enumerate(by_plugin.items()):
        if number:
            say()
        package = packages.get(plugin, "the library itself" if plugin == "core" else "")
        say(f"{plugin} ({package})" if package else plugin, style={"bold": True})
        rows = [(kind.name.ljust(longest), _marks(kind).ljust(7), _sentence(kind.description)) for kind in kinds]
        for line in table(rows, width=width):
            say(line)
    say()
    say("One of them: orchestrator nodes TYPE")


def _marks(kind: NodeType) -> str:
    return "trigger" if kind.trigger else "group" if kind.group else ""


def _sentence(text: str) -> str:
    """The first sentence."""
    first = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    end = first.find(". ")
    return first if end < 0 else first[: end + 1]


def _as_json(kind: NodeType) -> dict[str, Json]:
    ports = kind.ports_for(kind.example)
    return {
        "type": kind.name,
        "version": kind.version,
        "plugin": kind.plugin,
        "title": kind.title,
        "description": kind.description,
        "trigger": kind.trigger,
        "group": kind.group,
        "pure": kind.pure,
        "ports": None if ports is None else [*ports, "error"],
        "ports_depend_on_config": callable(kind.ports),
        "inputs": None if kind.inputs is None else list(kind.inputs),
        "capabilities": sorted(kind.capabilities),
        "example": dict(kind.example),
        "schema": type_schema(kind),
    }


def _describe(kind: NodeType, width: int | None) -> Iterator[str]:
    facts = [f"version {kind.version}", f"plugin {kind.plugin}"]
    facts += [word for word, true in (("trigger", kind.trigger), ("pure", kind.pure)) if true]
    facts += ["group"] if kind.group else []
    yield f"{kind.name}: {kind.title} ({', '.join(facts)})"
    yield ""
    yield from wrap(kind.description, width=width)
    yield ""
    if not kind.trigger:
        yield f"  inputs        {'any' if kind.inputs is None else ', '.join(kind.inputs)}"
    yield f"  ports         {_ports(kind)}"
    if kind.capabilities:
        yield f"  capabilities  {', '.join(sorted(kind.capabilities))}"
    schema = type_schema(kind)
    yield ""
    yield "Settings (config)" if schema["properties"] else "Settings (config): none"
    for name, entry in schema["properties"].items():
        yield from _setting(name, entry, name in schema.get("required", ()), width)
    if kind.example:
        yield ""
        yield "Example"
        node = {
            "id": f"my_{kind.name.rpartition('.')[2].replace('-', '_')}",
            "type": kind.name,
            "config": dict(kind.example),
        }
        yield from (f"  {line}" for line in dump_yaml([node]).splitlines())


def _ports(kind: NodeType) -> str:
    if kind.ports is None:
        return "any, error"
    ports = kind.ports_for(kind.example)
    listed = "any" if ports is None else ", ".join([*ports, "error"])
    return f"{listed} (they depend on the settings)" if callable(kind.ports) else listed


def _setting(name: str, entry: dict[str, Json], required: bool, width: int | None) -> Iterator[str]:
    facts = [_type_words(entry)]
    if required:
        facts.append("required")
    elif "default" in entry:
        facts.append(f"default {dump_json(entry['default'])}")
    if entry.get("writeOnly"):
        facts.append("may hold {{ secrets.… }}")
    yield f"  {name}  ({', '.join(facts)})"
    if entry.get("description"):
        yield from wrap(entry["description"], width=width, indent="      ")
    if entry.get("examples"):
        examples = ", ".join(dump_json(example) for example in entry["examples"])
        yield from wrap(f"for example {examples}", width=width, indent="      ")
    for inner_name, inner, inner_required in _inner(entry):
        words = ", ".join([_type_words(inner), *(["required"] if inner_required else [])])
        text = f": {inner['description']}" if inner.get("description") else ""
        yield from wrap(f"{inner_name} ({words}){text}", width=width, indent="        ")


def _inner(entry: dict[str, Json]) -> Iterator[tuple[str, dict[str, Json], bool]]:
    """The settings of the objects that a setting holds, or that stand in its list."""
    for part in (entry, *entry.get("anyOf", ())):
        for schema in (part, part.get("items", {}), *part.get("items", {}).get("anyOf", ())):
            for name, inner in schema.get("properties", {}).items():
                yield name, inner, name in schema.get("required", ())


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "object",
    "array": "list",
}


def _type_words(entry: dict[str, Any]) -> str:
    """What may stand there, in words; that a template may, goes without saying."""
    if "anyOf" in entry:
        parts = [_type_words(part) for part in entry["anyOf"] if part.get("$ref") != "#/$defs/template"]
        return " or ".join(dict.fromkeys(part for part in parts if part != "null")) or "null"
    if "$ref" in entry:
        return {"duration": "duration", "body": "a graph", "template": "template"}[entry["$ref"].rpartition("/")[2]]
    if "enum" in entry:
        return " | ".join(map(str, entry["enum"]))
    if entry.get("type") == "array" and entry.get("items"):
        return f"list of {_type_words(entry['items'])}"
    kind = entry.get("type")
    return _WORDS.get(kind, "any value") if isinstance(kind, str) else "any value"
