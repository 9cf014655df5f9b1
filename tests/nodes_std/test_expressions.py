"""Expressions where the sandbox is installed: plain paths read natively agree with it, and all others are JavaScript."""

from __future__ import annotations

import json
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator_core import (
    DocumentError,
    Engine,
    Expression,
    MemoryJournal,
    NodeContext,
    PluginError,
    Workflow,
    hookimpl,
    node_type,
)
from orchestrator_core.expressions import ABSENT, Names, NotNative, compile_template, read
from orchestrator_core.graph import make_plan
from orchestrator_core.state import Frame, Scope
from orchestrator_core.testing.simulate import describe
from orchestrator_nodes_std.code import JavaScriptLanguage

pytestmark = pytest.mark.anyio


@attrs.frozen
class Loose:
    value: Any = None


@attrs.frozen
class Each:
    value: Expression


@node_type("loose", ports=None, inputs=None)
async def loose(ctx: NodeContext, config: Loose, input: Any) -> Any:
    return config.value


@node_type("each")
async def each(ctx: NodeContext, config: Each, input: Any) -> Any:
    return await config.value.each(input)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(node_types=[loose, each], variables={"rate": 2})


def give(value: Any, payload: Any = None, **node: Any) -> Workflow:
    return Workflow.from_dict(
        {
            "schema": 1,
            "id": "w",
            "nodes": [{"id": "a", "type": "loose", "config": {"value": value}, **node}],
            "edges": [],
        }
    )


def outcome(value: Any, payload: Any = None, **node: Any) -> Any:
    engine = Engine(node_types=[loose, each], variables={"rate": 2})
    result = engine.run_sync(give(value, **node), payload)
    return result.output if result.error is None else result.error


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ input.qty * vars.rate }}", 6),
        ("{{ {...input, total: input.qty * 3} }}", {"qty": 3, "names": ["a", "b"], "total": 9}),
        ("{{ input.names.map(item => item.toUpperCase()) }}", ["A", "B"]),
        ("{{ input.names.length }} names, first {{ input.names[0] }}", "2 names, first a"),
        ("all: {{ input.names }}", 'all: ["a","b"]'),
        ("{{ input.nothing }}", None),
        ("{{ input.nothing ?? 'default' }}", "default"),
        ("{{ input.nothing?.deeper }}", None),
        ('{{ "{{" }} braces }}', "{{ braces }}"),
        ("{{ payload === input }}", False),
        (["{{ input.qty }}", {"k": "{{ index }}"}], [3, {"k": None}]),
        ("{{ 2 ** 10 }}", 1024),
        ("{{ `${input.qty} of ${input.names.length}` }}", "3 of 2"),
        ("{{ execution.workflow }}", "w"),
    ],
)
def test_what_expressions_give(template: Any, value: Any) -> None:
    if isinstance(template, list):
        template = ["{{ input.qty }}", {"k": "{{ input.none }}"}]
    assert outcome(template, {"qty": 3, "names": ["a", "b"]}) == value


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ input.nothing.deeper }}", "undefined"),
        ("x {{ input.nothing }}", "undefined inside a text"),
        ("{{ input.qty.map(x => x) }}", "not a function"),
        ("{{ (() => { throw new Error('mine') })() }}", "mine"),
        ("{{ (() => { while (true) {} })() }}", "stopped after"),
        ("{{ x => x }}", "function"),
    ],
)
def test_errors_are_those_of_the_node(template: str, why: str) -> None:
    error = outcome(template, {"qty": 3})
    assert (error.code, error.node) == ("expression", "a")
    assert why in error.message


def test_data_is_never_evaluated_again() -> None:
    evil = "{{ 7 * 7 }}"
    assert outcome("{{ input.text }}", {"text": evil}) == evil
    assert outcome("<{{ input.text }}>", {"text": evil}) == f"<{evil}>"
    assert outcome("{{ [input.text].join('') }}", {"text": evil}) == evil


def test_a_large_integer_passes_natively_and_fails_loudly_in_javascript() -> None:
    big = 2**53 + 1
    assert outcome("{{ input.n }}", {"n": big}) == big
    assert outcome("n={{ input.n }}", {"n": big}) == f"n={big}"
    error = outcome("{{ input.n + 1 }}", {"n": big})
    assert error.code == "expression"
    assert "2^53" in error.message or "9007199254740991" in error.message


def test_syntax_errors_are_found_on_saving(engine: Engine) -> None:
    faults = [str(fault) for fault in engine.validate(give("{{ input. }}"))]
    assert len(faults) == 1
    assert faults[0].startswith("$.nodes[0].config.value: ")


def test_functions_of_plugins_can_be_called() -> None:
    class Plugin:
        @hookimpl
        def register_expression_functions(self) -> dict[str, str]:
            return {"shout": "text => text.toUpperCase() + '!'"}

    run = Engine(node_types=[loose, each], plugins=[Plugin()])
    assert run.run_sync(give("{{ shout(input) }}"), "hey").output == "HEY!"

    class Other(Plugin):
        pass

    with pytest.raises(PluginError, match="'shout' is registered by"):
        Engine(plugins=[Plugin(), Other()])


class Counting(JavaScriptLanguage):
    """Counts its calls."""

    calls = 0

    async def evaluate(self, *arguments: Any, **named: Any) -> Any:
        Counting.calls += 1
        return await super().evaluate(*arguments, **named)


async def test_all_expressions_of_a_node_cost_one_call() -> None:
    class Plugin:
        @hookimpl
        def register_languages(self) -> Any:
            return [Counting()]

    Counting.calls = 0
    value = {f"k{i}": f"{{{{ input.n + {i} }}}} and {{{{ input.n * {i} }}}}" for i in range(20)}
    async with Engine(node_types=[loose, each], plugins=[Plugin()], discover=False) as engine:
        assert (await engine.run(give(value), {"n": 1})).output["k3"] == "4 and 3"
        assert Counting.calls == 1
        await engine.run(give("{{ input.n }}"), {"n": 1})
        assert Counting.calls == 1, "a plain path costs none"
        node = {"id": "a", "type": "each", "config": {"value": "{{ item * 2 + index }}"}}
        w = Workflow.from_dict({"schema": 1, "id": "w", "nodes": [node], "edges": []})
        assert (await engine.run(w, [1, 2, 3])).output == [2, 5, 8]
        assert Counting.calls == 2, "a list costs one"


async def test_without_a_sandbox_plain_paths_still_work() -> None:
    async with Engine(node_types=[loose], discover=False) as engine:
        assert (await engine.run(give("{{ input.n }}"), {"n": 1})).output == 1
        with pytest.raises(DocumentError, match="install pluggable-orchestrator-nodes-std"):
            await engine.run(give("{{ input.n + 1 }}"), {"n": 1})


KEYS = st.sampled_from(["a", "b", "length", "0", "1", "constructor", "__proto__", "toString", "map", "é"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(
    st.tuples(st.booleans(), KEYS | st.integers(0, 3)).map(
        lambda s: (
            ("?." if s[0] else "") + f"[{json.dumps(s[1], ensure_ascii=False)}]"
            if isinstance(s[1], int) or not s[1].isidentifier()
            else ("?." if s[0] else ".") + s[1]
        )
    ),
    max_size=4,
).map("".join)


@pytest.fixture(scope="module")
def language() -> Any:
    return JavaScriptLanguage()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON, STEPS)
def test_plain_paths_give_what_javascript_gives(language: Any, value: Any, steps: str) -> None:
    source = f"input{steps}"
    code = compile_template(f"{{{{ {source} }}}}").codes[0]
    plan = make_plan(Workflow.from_dict({"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "script"}]}), describe)
    names = Names(Scope(Frame(plan, "", None, value), 0, value, {"main": value}), value, {}, {})
    try:
        native: Any = read(code, names)
    except NotNative:
        return
    except Exception:  # noqa: BLE001 - whatever is raised natively has to be an error there, too
        native = Exception

    async def there() -> Any:
        return (await language.evaluate([source], {"input": value}, seed=1, now=1.0))[0]

    answer = anyio.run(there)
    if native is Exception:
        assert answer.kind == "error"
    elif native is ABSENT:
        assert answer.kind == "undefined"
    else:
        assert (answer.kind, answer.value) == ("value", native)


# --- chance and time --------------------------------------------------------------------------------------------------

CHANCE = "{{ crypto.randomUUID() }}"


def drawing() -> Workflow:
    """A workflow that draws at every kind of place; its output is the last of them."""
    child = {"nodes": [{"id": "in", "type": "loose", "config": {"value": CHANCE}}], "edges": []}
    nodes = [
        {"id": "a", "type": "loose", "config": {"value": CHANCE}},
        {"id": "b", "type": "loose", "config": {"value": [CHANCE, CHANCE]}},
        {"id": "items", "type": "loose", "for_each": [1, 2, 3], "config": {"value": CHANCE}},
        {
            "id": "list",
            "type": "loose",
            "for_each": "{{ [crypto.randomUUID()] }}",
            "config": {"value": "{{ item }}"},
        },
        {"id": "per", "type": "each", "config": {"value": "{{ crypto.randomUUID() + item }}"}},
        {"id": "round", "type": "loop", "config": {"max_iterations": 2, "body": child}},
        {"id": "inline", "type": "workflow", "for_each": [1, 2], "config": {"body": child}},
        {"id": "stored", "type": "workflow", "for_each": [1, 2], "config": {"workflow": "child"}},
    ]
    edges = [{"source": "items", "target": "per"}]
    return Workflow.from_dict({"schema": 1, "id": "w", "nodes": nodes, "edges": edges, "output": CHANCE})


async def drawn(seed: int) -> list[str]:
    child = {"schema": 1, "id": "child", "nodes": [{"id": "in", "type": "loose", "config": {"value": CHANCE}}]}
    async with Engine(node_types=[loose, each], workflows=[Workflow.from_dict(child)]) as opened:
        result = await opened.run(drawing(), seed=seed)
        assert result.status == "succeeded", result.error
        found = [result.output]
        for record in result.nodes:
            if record.path in {"a", "round/0/in", "round/1/in"}:
                found.append(record.output)
            elif record.path in {"b", "items", "list", "per", "inline", "stored"}:
                found += record.output
    return [str(value)[:36] for value in found]


async def test_what_is_random_depends_on_the_place_and_the_seed_alone() -> None:
    first = await drawn(7)
    assert len(first) == 1 + 3 + 2 + 3 + 1 + 3 + 2 + 2
    assert len({*first}) == len(first), "nowhere the same"
    assert await drawn(7) == first
    assert not {*first} & {*(await drawn(8))}


async def test_a_question_of_a_loop_draws_anew_in_every_iteration() -> None:
    body = {"nodes": [{"id": "in", "type": "loose"}], "edges": []}
    config = {"max_iterations": 200, "until": "{{ Math.random() < 0.1 }}", "body": body}
    flow = Workflow.from_dict({"schema": 1, "id": "w", "nodes": [{"id": "round", "type": "loop", "config": config}]})
    async with Engine(node_types=[loose]) as opened:
        result = await opened.run(flow, seed=1)
    assert result.status == "succeeded", result.error
    assert any(record.path == "round/1/in" for record in result.nodes), "the first draw was not the last"


@node_type("slow", pure=True)
async def slow(ctx: NodeContext, config: Loose, input: Any) -> Any:
    SEEN.append((ctx.now, config.value))
    await anyio.sleep(0.2)


SEEN: list[tuple[float, Any]] = []


async def test_an_attempt_that_is_made_again_sees_the_same_time() -> None:
    """Whatever has happened beside it meanwhile."""
    nodes = [
        {"id": "slow", "type": "slow", "config": {"value": "{{ Date.now() }}"}},
        *({"id": name, "type": "loose", "config": {"value": 1}} for name in "ab"),
        {"id": "c", "type": "wait", "config": {"for": 0.05}},
    ]
    flow = Workflow.from_dict(
        {
            "schema": 1,
            "id": "w",
            "nodes": nodes,
            "edges": [{"source": "a", "target": "c"}, {"source": "c", "target": "b"}],
        }
    )
    SEEN.clear()
    journal = MemoryJournal()
    async with Engine(journal=journal, node_types=[loose, slow]) as opened:
        execution = await opened.start(flow)
        await anyio.sleep(0.1)
        execution.park()
    async with Engine(journal=journal, node_types=[loose, slow]) as opened:
        await (await opened.resume(flow, execution.id)).result()
    assert len(SEEN) == 2
    assert SEEN[0] == SEEN[1]
    assert int(SEEN[0][0] * 1000) == SEEN[0][1]
