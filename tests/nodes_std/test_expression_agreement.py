"""Plain paths are read natively, all else in the sandbox: that both give the same, and what a workflow costs."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_expressions import JSON, KEYS, STEPS

import orchestrator_nodes_std
from orchestrator_core import Engine, Workflow, hookimpl
from orchestrator_core.expressions import ABSENT, Names, NotNative, compile_template, read
from orchestrator_core.graph import make_plan
from orchestrator_core.state import Frame, Scope
from orchestrator_core.testing.simulate import describe
from orchestrator_nodes_std.code import JavaScriptLanguage
from orchestrator_nodes_std.sandbox import JavaScript

SOAK = bool(os.environ.get("SANDBOX_SOAK"))
TOGETHER = 25  # expressions of one value: 200 values make 5,000
EXAMPLES = 2_000 if SOAK else 200


@pytest.fixture(scope="module")
def sandbox() -> Any:
    with JavaScript() as runtime:
        yield runtime


# Deeper than what one draws at random meets, so that most paths lead somewhere.
ROWS = st.dictionaries(
    KEYS, st.lists(st.dictionaries(KEYS, JSON, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3
)


def paths_into(value: Any) -> Any:
    """Strategies of paths that `value` has, each perhaps with a few steps more."""

    def walk(item: Any, path: str) -> list[str]:
        found = [path]
        if isinstance(item, dict):
            for key, inner in item.items():
                step = f".{key}" if key.isascii() and key.isidentifier() else f"[{key!r}]"
                found += walk(inner, path + step)
        elif isinstance(item, list):
            for at, inner in enumerate(item):
                found += walk(inner, f"{path}[{at}]")
        return found

    return st.tuples(st.sampled_from(walk(value, "input")), st.just("") | STEPS).map("".join)


SIGNS = st.sampled_from(["===", "!==", "<", "<=", ">", ">="])
LITERALS = st.sampled_from(
    ["0", "1", "2.5", "1e3", "9007199254740991", "true", "false", "null", "''", "'a'", "'10'", '"é"']
)


def comparisons_with(value: Any) -> Any:
    """Strategies of comparisons of what `value` has with literals."""
    return st.tuples(paths_into(value), SIGNS, LITERALS).map(" ".join)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    (JSON | ROWS).flatmap(
        lambda value: st.tuples(
            st.just(value),
            st.lists(paths_into(value) | comparisons_with(value), min_size=TOGETHER, max_size=TOGETHER),
        )
    )
)
def test_paths_comparisons_and_the_sandbox_agree(sandbox: Any, drawn: tuple[Any, list[str]]) -> None:
    value, sources = drawn
    plan = make_plan(Workflow.from_dict({"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "script"}]}), describe)
    names = Names(Scope(Frame(plan, "", None, value), 0, value, {"main": value}), value, {}, {})
    answers = sandbox.evaluate(sources, {"input": value}, seed=1, now=1.0)
    for source, answer in zip(sources, answers, strict=True):
        code = compile_template(f"{{{{ {source} }}}}").codes[0]
        try:
            native: Any = read(code, names)
        except NotNative:
            continue
        except Exception:  # noqa: BLE001 - whatever is raised natively has to be an error there, too
            assert answer.kind == "error", source
            continue
        if native is ABSENT:
            assert answer.kind == "undefined", source
        else:
            assert (answer.kind, answer.value) == ("value", native), source
            # 1 == True and 1 == 1.0 in Python, and neither is the same JSON.
            assert isinstance(answer.value, bool) == isinstance(native, bool), source


def test_most_of_these_paths_are_read_natively_and_lead_somewhere() -> None:
    """Else the test above would compare errors with errors."""
    kinds: Counter[str] = Counter()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given((JSON | ROWS).flatmap(lambda value: st.tuples(st.just(value), paths_into(value))))
    def count(drawn: tuple[Any, str]) -> None:
        value, source = drawn
        plan = make_plan(
            Workflow.from_dict({"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "script"}]}), describe
        )
        names = Names(Scope(Frame(plan, "", None, value), 0, value, {"main": value}), value, {}, {})
        try:
            found = read(compile_template(f"{{{{ {source} }}}}").codes[0], names)
        except NotNative:
            kinds["not native"] += 1
        except Exception:  # noqa: BLE001 - only counted
            kinds["error"] += 1
        else:
            kinds["absent" if found is ABSENT else "value"] += 1

    count()
    assert kinds["value"] > 40
    assert kinds["not native"] < 30


class Counting(JavaScriptLanguage):
    """Counts how often the guest is entered, but for checks, which belong to planning."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = self.checked = 0
        runner: Any = self._sandbox
        enter, check = runner._on_guest, runner.check

        def entering(*arguments: Any) -> Any:
            self.entered += 1
            return enter(*arguments)

        def checking(*arguments: Any, **named: Any) -> Any:
            self.checked += 1
            return check(*arguments, **named)

        runner._on_guest, runner.check = entering, checking


def test_a_hundred_nodes_with_expressions_cost_at_most_one_crossing_each() -> None:
    languages: list[Counting] = []

    class Plugin:
        @hookimpl
        def register_languages(self) -> Any:
            languages.append(Counting())
            return [languages[-1]]

    class Nodes:
        """The standard nodes without the language that they would bring."""

        @hookimpl
        def register_node_types(self) -> Any:
            return orchestrator_nodes_std.register_node_types()

    def values(i: int) -> dict[str, str]:
        return {
            "n": f"{{{{ input.n + {i} }}}}",
            "text": f"{{{{ payload.n * {i} }}}} of {{{{ [1, 2].length }}}} and {{{{ input.n }}}}",
            "deep": "{{ ({a: [input.n ** 2]}).a }}",
        }

    nodes = [{"id": f"n{i}", "type": "set", "config": {"values": values(i)}} for i in range(100)]
    edges = [{"source": f"n{i}", "target": f"n{i + 1}"} for i in range(99)]
    workflow = Workflow.from_dict({"schema": 1, "id": "w", "nodes": nodes, "edges": edges})
    engine = Engine(plugins=[Plugin(), Nodes()], discover=False)
    assert engine.validate(workflow) == []
    [language] = languages
    language.entered = language.checked = 0
    result = engine.run_sync(workflow, {"n": 1})
    assert (result.status, result.output["n"]) == ("succeeded", 1 + sum(range(100)))
    assert 0 < language.entered - language.checked <= 100
