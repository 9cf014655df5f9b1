"""YAML 1.2 with JSON's types only, in and out.

PyYAML cuts the text into nodes; what plain scalars mean is decided here, by YAML 1.2's core schema. Tags, duplicate
keys, aliases that repeat too much and whatever JSON does not have are refused (docs/decisions/0002-yaml.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from orchestrator_core.codec import MAX_DEPTH, check_json, child_place, copy_json
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.types import Json

yaml: Any
try:
    import yaml as _yaml

    yaml = _yaml
except ImportError:  # the extra [yaml] is not installed: YAML documents are refused with a hint
    yaml = None

__all__ = ["Lines", "dump_yaml", "parse_yaml"]

# The line (from 1) on which the value of a place begins.
Lines = Mapping[str, int]

# Longer numbers cannot be written as text again.
_MAX_DIGITS = 1000
# Aliases may repeat this many values in all before the document is taken for a bomb.
_MAX_ALIASED = 10_000

_YAML_WORDS: Mapping[str, Json] = {
    **dict.fromkeys(("", "null", "Null", "NULL", "~")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_YAML_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_YAML_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_YAML_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _yaml_scalar(text: str) -> Json:
    """The value of a plain scalar in YAML 1.2's core schema."""
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    if _YAML_INT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number of {len(text)} digits is too long")
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:], base) if base != 10 else int(text)
    if _YAML_FLOAT.fullmatch(text):
        number = float(text)
        if number - number != 0:
            raise ValueError(f"{text} is too large for a number")
        return number
    if _YAML_NOT_JSON.fullmatch(text):
        raise ValueError(f"{text} is not JSON: use null or a text")
    return text


# Characters that YAML takes for line breaks or does not take at all, and texts that a block would change.
_NOT_PLAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r")
_NOT_BLOCK = re.compile(r"[ \t]\n|^\s|\n\Z.")


class _YamlReader:
    """Makes JSON values of composed YAML nodes, remembering lines and refusing what JSON does not have."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.faults: list[Fault] = []
        self._seen: set[int] = set()
        self._aliased = 0

    def value(self, node: Any, place: str, depth: int = 0, *, in_alias: bool = False) -> Json:
        line = node.start_mark.line + 1
        self.lines[place] = line
        if id(node) in self._seen or in_alias:
            in_alias = True
            self._aliased += 1
            if self._aliased > _MAX_ALIASED:
                raise DocumentError([Fault("aliases repeat too much: write the values out", place, line)])
        else:
            self._seen.add(id(node))
        if depth > MAX_DEPTH:
            raise DocumentError([Fault(f"nested deeper than {MAX_DEPTH}", place, line)])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place, line)
        if node.tag not in {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self.faults.append(Fault(f"tag {node.tag} is not allowed: documents hold JSON's types only", place, line))
            return None
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, child_place(place, index), depth + 1, in_alias=in_alias)
                for index, item in enumerate(node.value)
            ]
        result: dict[str, Json] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                message = _UNQUOTED if _is_bare_template(node, key_node) else "a key must be a text"
                self.faults.append(Fault(message, place, key_line))
                continue
            if key in result:
                self.faults.append(Fault(f"key {key!r} stands twice: remove one", child_place(place, key), key_line))
                continue
            result[key] = self.value(value_node, child_place(place, key), depth + 1, in_alias=in_alias)
        return result

    def _scalar(self, node: Any, place: str, line: int) -> Json:
        if node.tag not in _YAML_PLAIN_TAGS:
            self.faults.append(Fault(f"tag {node.tag} is not allowed: documents hold JSON's types only", place, line))
            return None
        if node.style:
            return str(node.value)
        try:
            return _yaml_scalar(node.value)
        except ValueError as error:
            self.faults.append(Fault(str(error), place, line))
            return None


# Two braces without quotes are an object in an object to YAML, or no YAML at all.
_UNQUOTED = 'a template needs quotes: write "{{ … }}"'
_BARE_TEMPLATE = re.compile(r"(?:^|[:,\-\[{?])\s*\{\{")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
_KEY = re.compile(r":\s")


def _is_bare_template(node: Any, key: Any) -> bool:
    """Whether an object with an object for a key was meant to be ``{{ … }}``."""
    outer, inner = node.start_mark, key.start_mark
    adjacent = (outer.line, outer.column + 1) == (inner.line, inner.column)
    return bool(isinstance(key, yaml.MappingNode) and node.flow_style and key.flow_style and adjacent)


def _what_to_do(error: Any, text: bytes) -> tuple[str, int | None]:
    """What is wrong with a text that is no YAML, as far as can be told with what to do, and its line (from 1)."""
    mark, context = error.problem_mark or error.context_mark, error.context_mark
    said = " ".join(part for part in (error.context, error.problem) if part)
    if mark is None:
        return said, None
    rows = text.decode("utf-8", "replace").split("\n")
    row = rows[mark.line] if mark.line < len(rows) else ""
    before, here = row[: mark.column], row[mark.column : mark.column + 1]
    line = mark.line + 1
    if here == "\t" or "\t" in row[: len(row) - len(row.lstrip())]:
        return "a tab cannot indent a line: use spaces", line
    if "escape character" in said:
        return r'a \ inside of "…" begins an escape: write \\, or use single quotes', line
    if "quoted" in said:
        return "a quote is opened here and never closed", context.line + 1 if context is not None else line
    for number in {line - 1, context.line if context is not None else line - 1}:
        if number < len(rows) and _BARE_TEMPLATE.search(_QUOTED.sub("", rows[number])):
            return _UNQUOTED, number + 1
    if "scanning an alias" in said or "undefined alias" in said:
        return "a text that begins with * needs quotes", line
    if here in {"@", "`", "%", "&", "|", ">"} and "any token" in said:
        return f"a text that begins with {here} needs quotes", line
    if "mapping values are not allowed" in said or (here == ":" and "flow mapping" in said):
        if _KEY.search(_QUOTED.sub("", before)):
            return "a text with `: ` in it needs quotes", line
        return "a key cannot stand this far in: indent it as far as the keys that belong beside it", line
    if "sequence entries are not allowed" in said:
        return "a list begins on a line of its own, after its key", line
    return _of_structure(said, before, line, context)


def _of_structure(said: str, before: str, line: int, context: Any) -> tuple[str, int]:
    """As :func:`_what_to_do`, of brackets, quotes and indentation."""
    if before.rstrip().endswith(("'", '"')) and "expected" in said:
        return "a text goes on after its closing quote: put all of it in quotes (inside of '…', '' is one ')", line
    for kind, bracket in (("flow mapping", "{"), ("flow sequence", "[")):
        if kind in said and context is not None:
            return f"the {bracket} of line {context.line + 1} is not closed before this, or a comma is missing", line
    if "parsing a block" in said:
        return "this continues nothing that stands above: indent it as far as what belongs beside it", line
    return said, line


# PyYAML resolves plain scalars by YAML 1.1; its verdict is only used to tell them from tagged ones.
_YAML_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
}


def parse_yaml(text: str | bytes) -> tuple[Json, Lines]:
    """Read YAML 1.2 with JSON's types only, and the line of every place.

    Raises:
        DocumentError: It is not YAML, or it has tags, duplicate keys, an alias bomb, or what JSON cannot hold.
        DocumentError: The extra ``[yaml]`` is not installed.
    """
    if yaml is None:
        raise DocumentError([Fault("reading YAML needs the extra: pip install 'pluggable-orchestrator-core[yaml]'")])
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _YamlReader()
    try:
        if isinstance(text, str):
            text = text.encode()
        fault = _judge_events(text, loader_class)
        if fault is not None:
            raise DocumentError([fault])
        loader = loader_class(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        value = reader.value(node, "$") if node is not None else None
    except yaml.MarkedYAMLError as error:
        what, line = _what_to_do(error, text.encode() if isinstance(text, str) else text)
        raise DocumentError([Fault(f"not YAML: {what}", line=line)]) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise DocumentError([Fault(f"not YAML: {str(error).splitlines()[0]}")]) from None
    except RecursionError:
        raise DocumentError([Fault(f"nested deeper than {MAX_DEPTH}")]) from None
    if reader.faults:
        raise DocumentError(reader.faults)
    if fault := check_json(value):
        raise DocumentError([attrs.evolve(fault, line=reader.lines.get(fault.place))])
    return value, reader.lines


def _judge_events(text: str | bytes, loader_class: Any) -> Fault | None:
    """What can be told from the events alone, before anything recurses: deep nesting, explicit tags.

    An explicit tag (``!!str 5``) may resolve to a plain one and cannot be told from a plain value afterwards.
    """
    depth = 0
    for event in yaml.parse(text, Loader=loader_class):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return Fault(f"nested deeper than {MAX_DEPTH}", line=_line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None:
            return Fault(f"tag {tag} is not allowed: documents hold JSON's types only", line=_line(event))
    return None


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def dump_yaml(value: Json) -> str:
    """Write YAML that :func:`parse_yaml` reads back to the same value."""
    if yaml is None:
        raise DocumentError([Fault("writing YAML needs the extra: pip install 'pluggable-orchestrator-core[yaml]'")])

    # Quotes what YAML 1.2 would not read as text; writes no aliases.
    dumper_class: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})

    def text(dumper: Any, data: str) -> Any:
        try:
            plain = isinstance(_yaml_scalar(data), str)
        except ValueError:
            plain = False
        if _NOT_PLAIN.search(data):
            style: str | None = '"'
        else:
            style = "|" if "\n" in data and not _NOT_BLOCK.search(data) else None if plain else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    dumper_class.add_representer(str, text)
    written = yaml.dump(copy_json(value), Dumper=dumper_class, sort_keys=False, allow_unicode=True, width=110)
    return str(written)
