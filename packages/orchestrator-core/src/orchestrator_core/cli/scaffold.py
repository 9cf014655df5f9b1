"""``orchestrator new-plugin``: a package with one node type, ready to install, which passes its own tests."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import entry_points, version
from pathlib import Path
from string import Template

import click

from orchestrator_core.cli.text import Problem, say
from orchestrator_core.plugins import ENTRY_POINTS

__all__ = ["new_plugin"]

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_RESERVED = frozenset({"core", "std", "engine"})
_CORE = "pluggable-orchestrator-core"

_PYPROJECT = Template("""\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "$distribution"
version = "0.1.0"
description = "Node types for orchestrator"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["attrs>=24.2", "$core>=$core_version"]

[project.optional-dependencies]
test = ["pytest>=8"]

# The name on the left is the prefix of every node type in this package.
[project.entry-points."orchestrator.plugins"]
$plugin = "$module"

[tool.hatch.build.targets.wheel]
packages = ["src/$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]
""")

_INIT = Template('''\
"""Node types for orchestrator."""

from collections.abc import Sequence

from orchestrator_core import NodeType, hookimpl

from $module.slugify import SlugifyConfig, slugify

__all__ = ["SlugifyConfig", "register_node_types", "slugify"]


@hookimpl
def register_node_types() -> Sequence[NodeType]:
    """Every node type of this package."""
    return [slugify]
''')

_NODE = Template('''\
"""`$plugin.slugify`: one node type; write yours like it."""

import attrs
from orchestrator_core import NodeContext, NodeError, node_type, setting


@attrs.frozen
class SlugifyConfig:
    """The settings of `$plugin.slugify`. In a document each may be a template."""

    separator: str = setting(
        default="-", description="What stands between two words.", examples=["-", "_"]
    )
    max_length: int = setting(
        default=64,
        description="The longest slug, in characters.",
        examples=[64],
        validator=attrs.validators.ge(1),
    )


@node_type(
    "$plugin.slugify",
    version=1,
    title="Slugify",
    pure=True,
    example={"separator": "_"},
)
async def slugify(ctx: NodeContext, config: SlugifyConfig, input: str) -> str:
    """Turn a text into a short name of lower-case words.

    What is neither a letter nor a digit separates words. A text without either
    fails with the code `no_words`.
    """
    if not isinstance(input, str):
        raise NodeError(f"the input must be a text: {input!r}", code="bad_input")
    words = "".join(c if c.isalnum() else " " for c in input.lower()).split()
    if not words:
        raise NodeError("there is no word in the input", code="no_words")
    slug = config.separator.join(words)[: config.max_length]
    ctx.log.debug(f"{input!r} became {slug!r}")
    return slug.removesuffix(config.separator)
''')

_TESTS = Template('''\
"""The node type by itself, and as workflows see it: found and run by an engine."""

import asyncio

import pytest
from orchestrator_core import Engine, Workflow
from orchestrator_core.testing import check_node_type, run_node

from $module import slugify


def workflow(**config):
    node = {"id": "slug", "type": "$plugin.slugify", "config": config}
    return Workflow.from_dict({"schema": 1, "id": "test", "nodes": [node]})


def test_it_keeps_the_contract_of_node_types():
    asyncio.run(check_node_type(slugify, input="Hello, World!"))


def test_the_function_by_itself():
    given = asyncio.run(run_node(slugify, {"separator": "+"}, "one two"))
    assert given == {"main": "one+two"}


def test_the_installed_plugin_brings_the_type():
    assert Engine().registry.node_types["$plugin.slugify"].plugin == "$plugin"


@pytest.mark.parametrize(
    ("text", "config", "slug"),
    [
        ("Hello, World!", {}, "hello-world"),
        ("Hello, World!", {"separator": "_"}, "hello_world"),
        ("a b c d", {"max_length": 4}, "a-b"),
        ("{{ 7 * 7 }}", {}, "7-7"),
    ],
)
def test_a_text_becomes_a_slug(text, config, slug):
    result = Engine().run_sync(workflow(**config), text)
    assert result.status == "succeeded", result.error
    assert result.output == slug


@pytest.mark.parametrize(
    ("payload", "code"), [("!?", "no_words"), ({"a": 1}, "bad_input")]
)
def test_what_has_no_words_fails_the_node(payload, code):
    result = Engine().run_sync(workflow(), payload)
    assert result.status == "failed"
    assert (result.error.code, result.error.node) == (code, "slug")


def test_a_wrong_setting_is_refused_before_anything_runs():
    faults = Engine().validate(workflow(seperator="-"))
    assert [fault.place for fault in faults] == ["$$.nodes[0].config.seperator"]
''')

_README = Template("""\
# $distribution

Node types for orchestrator.

| type | what it does |
|---|---|
| `$plugin.slugify` | turns a text into a short name of lower-case words |

```console
$$ pip install -e '.[test]'
$$ pytest
$$ orchestrator nodes $plugin.slugify
```

In a workflow:

```yaml
schema: 1
id: example
nodes:
  - {id: slug, type: $plugin.slugify, config: {separator: _}}
```

```console
$$ orchestrator run example.yaml --input '"Hello, World!"' --quiet
"hello_world"
```

To add a type: write a function like `src/$module/slugify.py`, and name it in `register_node_types` in
`src/$module/__init__.py`.
""")


@click.command("new-plugin", short_help="Write a package with a node type of your own.")
@click.argument("name")
@click.option(
    "--directory", "-d", metavar="DIR", default=".", show_default=True, help="The folder in which the package is made."
)
def new_plugin(name: str, *, directory: str) -> None:
    """Write a package NAME with one node type, NAME.slugify, and its tests.

    NAME becomes the prefix of the package's node types: lower-case letters and digits, and - or _ between words.
    """
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise Problem(
            f"{name!r}: a plugin's name is lower-case letters and digits, with - or _ between words, 40 at most"
        )
    if name in _RESERVED:
        raise Problem(f"{name!r} is the library's own: choose another name")
    taken = next((point for point in entry_points(group=ENTRY_POINTS) if point.name == name), None)
    if taken is not None:
        package = taken.dist.name if taken.dist is not None else taken.value
        raise Problem(f"a plugin {name!r} is installed already, by {package}: choose another name")
    module = name.replace("-", "_")
    if not module.endswith("nodes"):
        module += "_nodes"
    target = Path(directory) / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Problem(f"{target}: exists already: choose another name or --directory")
    words = {
        "plugin": name,
        "module": module,
        "distribution": module.replace("_", "-"),
        "core": _CORE,
        "core_version": ".".join(version(_CORE).split(".")[:2]),
    }
    files = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"src/{module}/__init__.py": _INIT,
        f"src/{module}/slugify.py": _NODE,
        f"src/{module}/py.typed": Template(""),
        "tests/test_slugify.py": _TESTS,
    }
    try:
        for file, content in files.items():
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.substitute(words), encoding="utf-8")
    except OSError as error:
        raise Problem(f"{target}: cannot be written: {error.strerror or error}") from None
    for file in files:
        say(f"{target / file}")
    say()
    say(f"next: cd {shlex.quote(str(target))}, pip install -e '.[test]', pytest")
