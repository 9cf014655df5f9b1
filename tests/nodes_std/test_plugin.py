from __future__ import annotations

import inspect
import typing

import anyio
import attrs
import pytest

import orchestrator_nodes_std
from orchestrator_core import Expression, HttpPolicy
from orchestrator_core.codec import make_converter, schema_of

TYPES = {kind.name: kind for kind in orchestrator_nodes_std.register_node_types()}


def classes(config):
    """A config class and those of its parts."""
    found = {config: None}
    todo = [config]
    while todo:
        for hint in typing.get_type_hints(todo.pop()).values():
            for part in [hint, *typing.get_args(hint)]:
                if inspect.isclass(part) and attrs.has(part) and part not in found and part is not Expression:
                    found[part] = None
                    todo.append(part)
    return found


def test_the_standard_node_types_are_registered_without_a_prefix():
    assert sorted(TYPES) == [
        "aggregate", "approval-link", "code", "crypto", "datetime", "dedupe", "fail", "filter", "http", "if", "limit", "log", "manual",
        "map", "merge", "respond", "schedule", "set", "sort", "split", "summarize", "switch", "wait", "webhook",
    ]  # fmt: skip


def test_only_what_reaches_out_or_draws_lots_is_not_pure():
    assert {name for name, kind in TYPES.items() if not kind.pure} == {"http", "crypto", "approval-link"}
    assert {name for name, kind in TYPES.items() if kind.trigger} == {"manual", "webhook", "schedule"}
    assert {name: set(kind.capabilities) for name, kind in TYPES.items() if kind.capabilities} == {
        "code": {"code"},
        "http": {"network"},
    }


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_a_node_type_explains_itself(kind):
    assert kind.title
    assert kind.description.endswith((".", ")"))
    for part in classes(kind.config):
        for field in attrs.fields(part):
            assert field.metadata.get("description"), f"{part.__name__}.{field.name} has no description"


@pytest.mark.parametrize("kind", TYPES.values(), ids=TYPES)
def test_its_example_fits_its_schema(kind):
    schema = schema_of(kind.config)
    assert set(kind.example) <= set(schema["properties"])
    assert set(schema.get("required", ())) <= set(kind.example)
    if not any(Expression in (hint, *typing.get_args(hint)) for hint in typing.get_type_hints(kind.config).values()):
        make_converter().structure(dict(kind.example), kind.config)


def test_each_engine_gets_a_language_of_its_own():
    first, second = orchestrator_nodes_std.register_languages(), orchestrator_nodes_std.register_languages()
    assert [language.name for language in first] == ["javascript", "python"]
    assert not {id(language) for language in first} & {id(language) for language in second}
    for language in (*first, *second):
        anyio.run(language.aclose)


def test_the_http_client_keeps_to_the_policy():
    async def use():
        client = orchestrator_nodes_std.make_http_client(HttpPolicy())
        try:
            with pytest.raises(Exception, match=r"127\.0\.0\.1"):
                await client.request("GET", "http://127.0.0.1:9/")
        finally:
            await client.aclose()

    anyio.run(use)
