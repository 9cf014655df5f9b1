"""The JSON Schema (draft 2020-12) of the workflow document, made of the classes that read it.

It accepts every document that ``orchestrator validate`` accepts. What a schema cannot say is not in it: that ids are
unique, that edges lead somewhere, that there is no cycle, what an expression may refer to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from orchestrator_core import codec
from orchestrator_core.configs import Expression
from orchestrator_core.groups import LoopConfig, WorkflowConfig
from orchestrator_core.nodes import NodeType
from orchestrator_core.types import Edge, Json, Node, Position, Retry, Settings

__all__ = ["DIALECT", "document_schema", "type_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_WORKFLOW_ID = "^(?!exe_)[A-Za-z0-9_-]{1,64}$"
_NODE_ID = "^(?!(?:__proto__|constructor|prototype)$)[A-Za-z_][A-Za-z0-9_]{0,63}$"
_PORT = "^[A-Za-z_][A-Za-z0-9_-]{0,63}$"
_DURATION = r"^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+$"
_SPAN: dict[str, Json] = {"pattern": _DURATION, "examples": [30, "15m", "1h30m", "7d"]}
_TEMPLATE: Json = {"$ref": "#/$defs/template"}
_NOTHING: Json = {"type": "null"}


def document_schema(types: Iterable[NodeType] | None = None) -> dict[str, Json]:
    """The schema of a whole document.

    Args:
        types: With these the configs of nodes of these types are described too, and no other type is accepted.
    """
    listed = None if types is None else list(types)
    node = _node()
    node["allOf"] += _groups() if listed is None else [rule for kind in listed for rule in _type_rules(kind)]
    if listed is not None:
        node["properties"]["type"] = {**node["properties"]["type"], "enum": [kind.name for kind in listed]}
    return {
        "$schema": DIALECT,
        "title": "Workflow",
        "description": "A graph of nodes as data, for orchestrator.",
        "type": "object",
        "properties": {
            "schema": {"const": 1, "description": "The version of this format."},
            "id": {
                "type": "string",
                "pattern": _WORKFLOW_ID,
                "description": "Letters, digits, _ and -, 64 at most; does not begin with exe_.",
            },
            "name": _or_null({"type": "string"}, "What people call it."),
            "settings": {"$ref": "#/$defs/settings"},
            "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1, "description": "The steps."},
            "edges": {"type": "array", "items": {"$ref": "#/$defs/edge"}, "description": "What leads where."},
            "output": {"description": "The template of the answer; without it, what the terminal nodes give."},
        },
        "required": ["schema", "id", "nodes"],
        "additionalProperties": False,
        "$defs": {
            "node": node,
            "edge": _edge(),
            "settings": _settings(),
            "body": _body(),
            "retry": _retry(),
            "position": _described(Position, {}),
            "duration": {
                **_SPAN,
                "type": ["number", "string"],
                "minimum": 0,
                "description": 'Seconds as a number, or text such as "15m", "1h30m", "7d".',
            },
            "template": {"type": "string", "pattern": r"\{\{", "description": "Text with {{ expressions }} in it."},
        },
    }


def _or_null(schema: dict[str, Json], description: str) -> dict[str, Json]:
    if isinstance(schema.get("type"), str):  # simple ones give simpler messages than `anyOf`
        return {**schema, "type": [schema["type"], "null"], "description": description}
    return {"anyOf": [schema, _NOTHING], "description": description}


def _timeout(description: str) -> dict[str, Json]:
    return {**_SPAN, "type": ["number", "string", "null"], "exclusiveMinimum": 0, "description": description}


def _described(kind: type[Any], details: Mapping[str, dict[str, Json]]) -> dict[str, Json]:
    """The schema of a class with more said of its fields; a field that the class does not have is a mistake here."""
    schema = codec.schema_of(kind)
    for name, detail in details.items():
        if name not in schema["properties"]:
            raise KeyError(f"{kind.__name__} has no field {name!r}")
        schema["properties"][name] = detail
    return schema


# --- the parts of a document ----------------------------------------------------------------------------------------


def _node() -> dict[str, Json]:
    parallel = {"type": "integer", "minimum": 1}
    schema = _described(
        Node,
        {
            "id": {
                "type": "string",
                "pattern": _NODE_ID,
                "description": "Unique in its graph: a letter or _, then letters, digits and _, 64 at most.",
            },
            "type": {"type": "string", "description": "The node type; see `orchestrator nodes`."},
            "config": {"type": "object", "description": "The type's settings; texts in it may be templates."},
            "type_version": _or_null({"type": "integer"}, "The version of the type that `config` was written for."),
            "name": _or_null({"type": "string"}, "What people call it."),
            "when": _or_null({"type": "string"}, "A template; where it is false the node is skipped."),
            "for_each": {"description": "A list, or a template that gives one: the node runs once for each item."},
            "max_parallel": _or_null(parallel, "How many items run at one time at most."),
            "join": {
                "anyOf": [{"enum": ["settled", "all", "first"]}, parallel],
                "default": "settled",
                "description": "Which of its edges the node waits for.",
            },
            "cancel_rest": {
                "type": "boolean",
                "default": False,
                "description": "Whether losers of the join are cancelled.",
            },
            "on_error": {
                "enum": ["fail", "continue"],
                "default": "fail",
                "description": "What a failure without error edges does: fails the execution, or is delivered on main.",
            },
            "on_lost": {
                "enum": ["rerun", "fail"],
                "default": "rerun",
                "description": "What happens to an attempt whose process was lost.",
            },
            "retry": _or_null({"$ref": "#/$defs/retry"}, "How often a retryable failure is tried again."),
            "timeout": _timeout("How long one attempt may last."),
            "disabled": {"type": "boolean", "default": False, "description": "It passes its input on."},
            "position": _or_null({"$ref": "#/$defs/position"}, "Where an editor has drawn it."),
        },
    )
    schema["description"] = "A step."
    schema["allOf"] = [
        {
            "if": {"properties": {"max_parallel": {"type": "integer"}}, "required": ["max_parallel"]},
            "then": {"properties": {"for_each": {"not": _NOTHING}}, "required": ["for_each"]},
        },
        {
            "if": {"properties": {"cancel_rest": {"const": True}}, "required": ["cancel_rest"]},
            "then": {"properties": {"join": {"not": {"enum": ["settled", "all"]}}}, "required": ["join"]},
        },
    ]
    return schema


def _edge() -> dict[str, Json]:
    port = {"type": "string", "pattern": _PORT, "default": "main"}
    schema = _described(
        Edge,
        {
            "source": {"type": "string", "description": "The id of the node that it leads from."},
            "target": {"type": "string", "description": "The id of the node that it leads to."},
            "port": {**port, "description": "The output of the source: main, error, or one of the type's own."},
            "input": {**port, "description": "The input of the target."},
            "key": _or_null({"type": "string"}, "What its value is called, where an input has several edges."),
        },
    )
    schema["description"] = "A connection from a port of one node to an input of another."
    return schema


def _settings() -> dict[str, Json]:
    schema = _described(
        Settings,
        {
            "timeout": _timeout("How long the execution may last, waits included."),
            "max_parallel": _or_null(
                {"type": "integer", "minimum": 1}, "How many attempts run at one time; null: no limit."
            ),
            "failure": {
                "enum": ["stop", "drain"],
                "default": "stop",
                "description": "Whether a failure stops what else runs, or lets it finish.",
            },
        },
    )
    schema["properties"]["max_parallel"]["default"] = 32
    schema["description"] = "What holds for a whole execution."
    return schema


def _retry() -> dict[str, Json]:
    duration = {"$ref": "#/$defs/duration"}
    schema = _described(
        Retry,
        {
            "attempts": {
                "type": "integer",
                "minimum": 1,
                "default": 1,
                "description": "How often in all; the first counts.",
            },
            "delay": {**duration, "default": 0, "description": "Before the second attempt."},
            "factor": {"type": "number", "minimum": 1, "default": 1, "description": "How much longer each delay is."},
            "max_delay": _or_null(duration, "No delay is longer."),
            "jitter": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0,
                "description": "The share by which a delay may be longer or shorter.",
            },
        },
    )
    schema["description"] = "Attempt n + 1 begins min(delay * factor^(n-1), max_delay) seconds after attempt n failed."
    return schema


def _body() -> dict[str, Json]:
    """A document without the head; of the settings a body has only `timeout`."""
    return {
        "type": "object",
        "description": "The graph inside a group.",
        "properties": {
            "schema": {"const": 1},
            "id": {"type": "string", "pattern": _WORKFLOW_ID},
            "name": _or_null({"type": "string"}, "What people call it."),
            "settings": {
                "$ref": "#/$defs/settings",
                "description": "A body has only a time-out: it shares the rest with what it stands in.",
                "properties": {"max_parallel": {"const": 32}, "failure": {"const": "stop"}},
            },
            "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1},
            "edges": {"type": "array", "items": {"$ref": "#/$defs/edge"}},
            "output": {"description": "The template of what the body gives."},
        },
        "required": ["nodes"],
        "additionalProperties": False,
    }


# --- configs of node types ------------------------------------------------------------------------------------------


def type_schema(kind: NodeType) -> dict[str, Json]:
    """The schema of a type's config, complete by itself."""
    config = _config(kind)
    needed = document_schema()["$defs"]
    # A group's body needs the definitions of nodes and edges; others hardly any.
    names = sorted(needed) if kind.group else sorted(_references(config))
    schema = {"$schema": DIALECT, "title": kind.title, "description": kind.description, **config}
    if kind.example:
        schema["examples"] = [dict(kind.example)]
    if names:
        schema["$defs"] = {name: needed[name] for name in names}
    return schema


def _references(schema: Json) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            found.add(schema["$ref"].rpartition("/")[2])
        for value in schema.values():
            found |= _references(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= _references(value)
    return found


def _groups() -> list[Json]:
    """What the library's own groups look like: they hold graphs, whatever else is installed."""
    return [
        rule
        for name, config in (("loop", LoopConfig), ("workflow", WorkflowConfig))
        for rule in _rules(name, _group_config(name, config), group=True)
    ]


def _type_rules(kind: NodeType) -> list[Json]:
    rules = _rules(kind.name, _config(kind), group=kind.group is not None, version=kind.version)
    newest = {"type": ["integer", "null"], "maximum": kind.version}
    return [{"if": _is_type(kind.name), "then": {"properties": {"type_version": newest}}}, *rules]


def _rules(name: str, config: dict[str, Json], *, group: bool, version: int | None = None) -> list[Json]:
    """What holds for nodes of a type; ``version``: the one that its config is described for."""
    condition = _is_type(name)
    if version is not None:
        # A config that was written for an older version has that version's shape: a migration reads it.
        condition["properties"]["type_version"] = {"enum": [None, version]}
    then: dict[str, Json] = {"properties": {"config": config}}
    if config.get("required") or config.get("oneOf"):
        then["required"] = ["config"]
    rules: list[Json] = [{"if": condition, "then": then}]
    if group:
        rules.append({"if": _is_type(name), "then": {"properties": {"retry": _NOTHING, "timeout": _NOTHING}}})
    return rules


def _is_type(name: str) -> dict[str, Json]:
    return {"properties": {"type": {"const": name}}, "required": ["type"]}


def _config(kind: NodeType) -> dict[str, Json]:
    if kind.group is not None:
        return _group_config(kind.group, kind.config)
    return _class(kind.config, outer=True)


def _group_config(group: str, config: type[Any]) -> dict[str, Json]:
    schema = _class(config, outer=True)
    description = {"description": schema["properties"]["body"].get("description", "")}
    schema["properties"]["body"] = {"$ref": "#/$defs/body", **description}
    if group == "loop":
        schema["properties"]["max_iterations"] = {
            "type": "integer",
            "minimum": 1,
            "description": schema["properties"]["max_iterations"].get("description", ""),
        }
    else:
        named = {"required": ["workflow"], "properties": {"workflow": {"not": _NOTHING}}}
        schema["oneOf"] = [{"required": ["body"]}, named]
    return schema


def _class(kind: type[Any], *, outer: bool = False) -> dict[str, Json]:
    """As ``codec.schema_of``, but a template may stand wherever a value may (not in literal fields)."""
    hints = get_type_hints(kind)
    properties: dict[str, Json] = {}
    required = []
    for field in attrs.fields(kind):
        if not field.init:
            continue
        name = codec.wire_name(field.name)
        # Only the outer fields of a config may be literal: see `configs`.
        literal = outer and bool(field.metadata.get("literal"))
        entry = dict(_value(hints[field.name], literal=literal))
        for key in ("description", "examples"):
            if field.metadata.get(key):
                entry[key] = list(field.metadata[key]) if key == "examples" else field.metadata[key]
        if field.metadata.get("secret"):
            entry["writeOnly"] = True
        if field.default is attrs.NOTHING:
            required.append(name)
        elif isinstance(field.default, str | int | float) and not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]  # attrs types the class Factory as a function
            entry["default"] = field.default
        properties[name] = entry
    schema: dict[str, Json] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return schema


def _value(hint: Any, *, literal: bool) -> dict[str, Json]:
    schema = _plain_value(hint, literal=literal)
    if literal or not schema or schema.get("type") == "string" or schema == {"$ref": "#/$defs/template"}:
        return schema
    return {"anyOf": [*(schema["anyOf"] if set(schema) == {"anyOf"} else [schema]), _TEMPLATE]}


def _plain_value(hint: Any, *, literal: bool) -> dict[str, Json]:
    origin = get_origin(hint)
    if hint is Expression:
        return {}
    if attrs.has(hint):
        return _class(hint)
    if origin in {Union, UnionType}:
        members = [_plain_value(member, literal=literal) for member in get_args(hint) if member is not NoneType]
        if any(not member for member in members):
            return {}
        if NoneType in get_args(hint):
            members.append(_NOTHING)
        return members[0] if len(members) == 1 else {"anyOf": members}
    schema = codec.schema_of(hint)
    arguments = [argument for argument in get_args(hint) if argument is not ...]
    if schema.get("type") == "array" and arguments:
        return {"type": "array", "items": _value(arguments[0], literal=literal)}
    if schema.get("type") == "object" and len(arguments) > 1:
        return {"type": "object", "additionalProperties": _value(arguments[1], literal=literal)}
    if schema.get("type") == ["number", "string"]:
        return {"$ref": "#/$defs/duration"}
    return schema
