"""The reference, made from what it is about: node types from the registry, hooks, commands, error codes."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import click

import orchestrator_nodes_std
from docs._tools.codes import find_answers
from orchestrator_core import (
    DocumentError,
    Duration,
    Engine,
    Expression,
    Fault,
    NodeType,
    OrchestratorError,
    PluginError,
    errors,
    hookspecs,
)
from orchestrator_core.cli.app import make_cli
from orchestrator_core.codec import dump_json, wire_name
from orchestrator_core.yaml_text import dump_yaml
from orchestrator_server import api, auth, sealing
from orchestrator_server import errors as server_errors
from orchestrator_server.api.problems import problem_of
from orchestrator_server.cli import COMMANDS, Later

__all__ = [
    "answers",
    "command_page",
    "commands",
    "error_page",
    "hook_page",
    "hooks",
    "inner_classes",
    "needs_settings",
    "node_index",
    "node_page",
    "node_types",
    "read_codes",
]

_API: Final = Path(api.__file__ or "").parent
_ROLE: Final = re.compile(r":\w+:`~?([^`]+)`")


def node_types() -> Sequence[NodeType]:
    """The node types of the core and of the standard package, in the order in which they are registered."""
    engine = Engine(plugins=[orchestrator_nodes_std], discover=False)
    return sorted(engine.registry.node_types.values(), key=lambda kind: kind.plugin == "core")


# --- node types -----------------------------------------------------------------------------------------------------


def node_index(kinds: Sequence[NodeType]) -> str:
    """The page that lists every node type."""
    lines = [
        "# Node types",
        "",
        "Each page is made from the node type's own texts. `orchestrator nodes` shows the same, plugins included.",
        "",
    ]
    for title, plugin in (("The standard package", "std"), ("The core", "core")):
        lines += [f"## {title}", "", "| type | what it does |", "|---|---|"]
        for kind in kinds:
            if (kind.plugin == "core") == (plugin == "core"):
                first = _first_sentence(kind.description)
                lines.append(f"| [`{kind.name}`]({kind.name}.md) | {_cell(first)} |")
        lines.append("")
    lines += [
        "The core registers `call`, `loop` and `workflow` itself, because the law gives them their meaning",
        "([decision 3](../../decisions/0003-groups-in-core.md)).",
        "",
        "```{toctree}",
        ":hidden:",
        "",
        *(kind.name for kind in kinds),
        "```",
        "",
    ]
    return "\n".join(lines)


def node_page(kind: NodeType) -> str:
    """The page of one node type: what it does, its ports and inputs, every setting, an example that is checked."""
    heading = f"# {kind.title}: `{kind.name}`"
    lines = [heading, "", _markdown(kind.description), "", *_facts(kind), ""]
    lines += ["## Settings", ""]
    fields = [field for field in attrs.fields(kind.config) if field.init]
    lines += _settings(kind.config) if fields else ["It has none."]
    for inner in inner_classes(kind.config):
        lines += [
            "",
            f"### {inner.__name__}",
            "",
            _markdown(inspect.cleandoc(inner.__doc__ or "")),
            "",
            *_settings(inner),
        ]
    node: dict[str, Any] = {"id": _example_id(kind), "type": kind.name}
    if kind.example:
        node["config"] = dict(kind.example)
    lines += ["", "## Example", "", "```yaml", dump_yaml([node]).rstrip("\n"), "```", ""]
    return "\n".join(lines)


def _facts(kind: NodeType) -> list[str]:
    ports = kind.ports_for(kind.example)
    depends = " (they depend on the settings; here those of the example)" if callable(kind.ports) else ""
    rows = [
        ("type", f"`{kind.name}`, version {kind.version}"),
        ("ports", ("any" if ports is None else ", ".join(f"`{port}`" for port in ports)) + depends),
        ("inputs", "none: it starts executions" if kind.trigger else _named(kind.inputs)),
        ("runs", _runs(kind)),
    ]
    if kind.capabilities:
        rows.append(("capabilities", ", ".join(f"`{name}`" for name in sorted(kind.capabilities))))
    return ["| what | value |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]


def _runs(kind: NodeType) -> str:
    if kind.group is not None:
        return "as a group: it holds no slot, its inner nodes do"
    if kind.pure:
        return "pure: running it again gives the same and changes nothing"
    return "with effects: a start is committed before it, and it may run again after a crash"


def _named(names: Sequence[str] | None) -> str:
    return "any" if names is None else ", ".join(f"`{name}`" for name in names)


def _example_id(kind: NodeType) -> str:
    word = kind.name.rpartition(".")[2].replace("-", "_")
    return f"{word}_1" if word in {"constructor", "prototype"} else word


def _settings(kind: type[Any]) -> list[str]:
    hints = get_type_hints(kind)
    lines = ["| setting | type | default | what it does |", "|---|---|---|---|"]
    for field in attrs.fields(kind):
        if not field.init:
            continue
        text = field.metadata.get("description", "")
        if field.metadata.get("literal"):
            text += " Braces in it are text, not a template."
        if field.metadata.get("secret"):
            text += " May hold `{{ secrets.name }}`."
        examples = field.metadata.get("examples") or ()
        if examples:
            text += " For example " + " or ".join(_code(example) for example in examples) + "."
        row = (f"`{wire_name(field.name)}`", _words(hints[field.name]), _default(field), _cell(text))
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _default(field: attrs.Attribute[Any]) -> str:
    default: Any = field.default
    if default is attrs.NOTHING:
        return "must be given"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types the class Factory as a function
        default = default.factory()
        if attrs.has(type(default)):
            return "its own defaults"
    if default is None or isinstance(default, bool | int | float | str | list | dict | tuple):
        return "" if default is None else _code(default)
    return ""  # a mark for what is left out


def _code(value: Any) -> str:
    text = value if isinstance(value, str) else dump_json(list(value) if isinstance(value, tuple) else value)
    ticks = "``" if "`" in text else "`"
    return _cell(f"{ticks}{text}{ticks}" if text else '`""`')


def _words(hint: Any) -> str:
    """A type in words that people who write documents use."""
    simple = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        NoneType: "null",
        Any: "any value",
    }
    if hint is Duration:
        return "duration"
    if hint is Expression:
        return "expression, asked for each element"
    if attrs.has(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if get_origin(hint) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) in {Union, UnionType}:
        return " or ".join(_words(member) for member in get_args(hint) if member is not NoneType)
    if get_origin(hint) in {list, tuple, Sequence, frozenset}:
        return f"list of {_plural(_words(get_args(hint)[0]))}"
    if get_origin(hint) in {dict, Mapping}:
        inner = get_args(hint)[1]
        return "object" if inner is Any else f"object of {_plural(_words(inner))}"
    return simple.get(hint, getattr(hint, "__name__", str(hint)))


def _plural(words: str) -> str:
    return {"text": "texts", "any value": "any values", "whole number": "whole numbers", "number": "numbers"}.get(
        words, words
    )


def inner_classes(kind: type[Any]) -> Sequence[type[Any]]:
    """The classes inside a config class, each once, in the order in which they are met."""
    found: list[type[Any]] = []
    todo: list[Any] = list(get_type_hints(kind).values())
    while todo:
        hint = todo.pop(0)
        if attrs.has(hint) and hint is not Expression and hint not in found:
            found.append(hint)
            todo += get_type_hints(hint).values()
        todo += [member for member in get_args(hint) if member is not NoneType]
    return found


def needs_settings(kind: NodeType) -> bool:
    """Whether a node of this type cannot do without a config."""
    return any(field.default is attrs.NOTHING for field in attrs.fields(kind.config))


# --- hooks ----------------------------------------------------------------------------------------------------------


def hooks() -> Mapping[str, Any]:
    """Every hook that a plugin may implement, by name."""
    mark = f"{hookspecs.PROJECT}_spec"
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, mark)}


def hook_page() -> str:
    """The page of the hooks: signature and docstring of each."""
    lines = [
        "# Hooks",
        "",
        _markdown(inspect.cleandoc(hookspecs.__doc__ or "")),
        "",
        "A plugin is a module or an object whose functions are marked with `hookimpl` and named like a hook; how to write one",
        "is told in [Write a node plugin](../how-to/plugin.md). A hook may be implemented with fewer parameters than it has.",
        "",
    ]
    for name, hook in hooks().items():
        first = getattr(hook, f"{hookspecs.PROJECT}_spec").get("firstresult")
        lines += [f"## `{name}`", "", f"`{name}{_signature(hook)}`", "", _markdown(inspect.cleandoc(hook.__doc__))]
        lines += [
            "",
            "The first plugin that gives something other than `None` decides."
            if first
            else "Every plugin's is called.",
            "",
        ]
    return "\n".join(lines)


def _signature(function: Any) -> str:
    text = str(inspect.signature(function))
    return re.sub(r"\b(?:collections\.abc|orchestrator_core(?:\.\w+)+|typing)\.", "", text).replace("'", "")


# --- commands -------------------------------------------------------------------------------------------------------


def commands() -> Iterator[click.Context]:
    """Every command of ours, as the context that it is called in; those of groups after their group."""
    cli = make_cli()
    top = click.Context(cli, info_name="orchestrator", **cli.context_settings)
    for name in cli.list_commands(top):
        command = cli.get_command(top, name)
        if isinstance(command, Later):
            yield from _with_inner(click.Context(command.load(), info_name=name, parent=top))
        elif getattr(getattr(command, "callback", None), "__module__", "").startswith("orchestrator_core"):
            yield click.Context(command, info_name=name, parent=top)  # type: ignore[arg-type]  # it is there: it has a callback


def _with_inner(context: click.Context) -> Iterator[click.Context]:
    yield context
    group = context.command
    for name, inner in sorted(group.commands.items()) if isinstance(group, click.Group) else ():
        yield from _with_inner(click.Context(inner, info_name=name, parent=context))


def command_page() -> str:
    """The page of the command line, made from click's own data."""
    cli = make_cli()
    of_server = ", ".join(f"`{name}`" for name in COMMANDS)
    lines = ["# The command line", "", _markdown(cli.help or ""), "", _markdown(cli.epilog or ""), ""]
    lines += ["The command needs the extra `cli` of the core: `pip install 'pluggable-orchestrator-core[cli]'`.", ""]
    lines += [f"{of_server} come with the package `pluggable-orchestrator-server`.", ""]
    for context in commands():
        lines += _command(context)
    return "\n".join(lines)


def _command(context: click.Context) -> list[str]:
    command = context.command
    usage = command.get_usage(context).removeprefix("Usage: ")
    help_text = _markdown(inspect.cleandoc(command.help or ""))
    lines = [f"## `{context.command_path}`", "", f"`{usage}`", "", help_text, ""]
    if isinstance(command, click.Group):
        return lines
    rows = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not getattr(parameter, "hidden", False):
            rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    return [*lines, "| option | what it does |", "|---|---|", *rows, ""]


# --- errors ---------------------------------------------------------------------------------------------------------


def read_codes() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """What is written about the codes: ``errors`` of exceptions, ``failures`` of attempts and nodes, ``answers`` of the API."""
    text = (Path(__file__).parent / "codes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def answers() -> Mapping[str, set[int]]:
    """The codes of the API's answers, each with its statuses: those that it gives itself, and those of errors it passes on."""
    found = {code: {*statuses} for code, statuses in find_answers(sorted(_API.glob("*.py"))).items()}
    # What answers before there is an API, and what `/ready` passes on.
    found |= {"not_running": {503}, server_errors.SchemaVersion.code: {503}}
    for module in (errors, server_errors, auth):
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, OrchestratorError) and kind is not PluginError:
                problem = problem_of(kind([Fault("x")]) if issubclass(kind, DocumentError) else kind("x"))
                if problem is not None:
                    found.setdefault(problem.code, set()).add(int(problem.status))
    return found


def error_page() -> str:
    """The page of the error codes."""
    codes = read_codes()
    lines = [
        "# Errors and their codes",
        "",
        "Codes are stable: programs may rely on them; texts may change.",
        "",
        "## Exceptions",
        "",
        "All of them are `OrchestratorError`. A node function raises `NodeError` instead, whose `code` is free.",
        "",
        "| code | exception | what happened | what to do |",
        "|---|---|---|---|",
    ]
    classes = {
        kind.code: kind
        for module in (errors, server_errors, sealing)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, OrchestratorError)
    }
    for code, entry in codes["errors"].items():
        lines.append(f"| `{code}` | `{classes[code].__name__}` | {_cell(entry['what'])} | {_cell(entry['todo'])} |")
    lines += [
        "",
        f"A `{DocumentError.__name__}` has `faults`, each with `message`, `place` and, where it is known, `line`.",
        "",
        "## Failures",
        "",
        "What `error.code` of a node, an attempt or an execution may be. An error edge delivers",
        "`{code, message, node, attempt, data}`. A plugin's node types add their own codes.",
        "",
        "| code | what happened | tried again by `retry` |",
        "|---|---|---|",
    ]
    for code, entry in codes["failures"].items():
        lines.append(f"| `{code}` | {_cell(entry['what'])} | {_cell(entry['retry'])} |")
    lines += [
        "",
        "## Answers of the API",
        "",
        "What `code` of an answer that is an error may be: `{message, code, request_id}`, and `faults` or `execution_id` where there are such.",
        "",
        "| code | status | what it says |",
        "|---|---|---|",
    ]
    given = answers()
    for code, entry in codes["answers"].items():
        statuses = ", ".join(map(str, sorted(given[code])))
        lines.append(f"| `{code}` | {statuses} | {_cell(entry['what'])} |")
    return "\n".join([*lines, ""])


# --- text -----------------------------------------------------------------------------------------------------------


def _markdown(text: str) -> str:
    """A docstring as Markdown: its roles and double backticks become code."""
    text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    text = text.replace("``", "`")
    return re.sub(r"^(Args|Returns|Raises):\n((?:[ \t]+.*\n?|\n)+)", _section, text, flags=re.MULTILINE).strip()


def _section(match: re.Match[str]) -> str:
    items = re.sub(r"^ {4}(\S[^:\n]*): ", r"- `\1`: ", match[2], flags=re.MULTILINE)
    return f"{match[1]}:\n\n{items}"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!])\s", " ".join(_markdown(text).split()), maxsplit=1)[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
