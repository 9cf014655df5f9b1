from __future__ import annotations

import threading
import time

import anyio
import attrs
import pytest
import wasmtime
from helpers import NOW, refused, run

from orchestrator_core import LanguageError, NodeError
from orchestrator_core.testing import FakeServices, make_context
from orchestrator_nodes_std.code import CodeConfig, JavaScriptLanguage, code

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def language():
    language = JavaScriptLanguage()
    yield language
    anyio.run(language.aclose)


def context(language, *, path="node", deadline=None, seed=1):
    services = FakeServices(languages={"javascript": language})
    inputs, payload = {"main": {"qty": 3}}, {"start": True}
    made = make_context(services, inputs=inputs, payload=payload, attempt=2, now=NOW, seed=seed)
    return attrs.evolve(made, path=path, deadline=deadline)


# --- the node --------------------------------------------------------------------------------------------------------


async def test_code_makes_its_output_of_what_it_sees(language):
    source = """
        const {input, inputs, payload, execution, node} = context;
        return {total: input.qty * 3, inputs, payload, execution, node, names: Object.keys(context).sort()};
    """
    assert await code(context(language), CodeConfig(source), {"qty": 3}) == {
        "total": 9,
        "inputs": {"main": {"qty": 3}},
        "payload": {"start": True},
        "execution": {"id": "exe_test"},
        "node": {"id": "node", "attempt": 2},
        "names": ["execution", "input", "inputs", "node", "payload"],
    }


async def test_code_in_a_for_each_knows_its_item(language):
    ctx = context(language, path="sync/17/price/4")
    assert await code(ctx, CodeConfig("return [context.item, context.index]"), "row") == ["row", 4]
    # inside a loop's body the node itself has no item
    ctx = context(language, path="sync/17/price")
    assert await code(ctx, CodeConfig("return 'item' in context"), "row") is False


async def test_what_code_writes_goes_to_the_nodes_logs_also_when_it_fails(language):
    ctx = context(language)
    with pytest.raises(NodeError):
        await code(ctx, CodeConfig("console.log('one'); console.error({two: 2}); throw new Error('three')"), None)
    assert [(line.level, line.message) for line in ctx.log_lines] == [("info", "one"), ("error", '{"two":2}')]


async def test_code_that_throws_fails_the_node_for_good_with_its_line(language):
    with pytest.raises(NodeError) as failure:
        await code(context(language), CodeConfig("const a = 1;\nthrow new TypeError('no ' + a);"), None)
    error = failure.value
    assert (error.code, error.retryable) == ("exception", False)
    assert error.message == "TypeError: no 1 (line 2)"
    assert error.data == {"line": 2, "snippet": "throw new TypeError('no ' + a);"}


@pytest.mark.parametrize(
    ("source", "code_", "settings"),
    [
        ("return {", "syntax", {}),
        ("for (;;) {}", "timeout", {"timeout": 0.1}),
        ("const a = []; for (;;) a.push(new Array(100000).fill(1))", "memory_limit", {"memory": 16 * 1024 * 1024}),
        ("return () => 1", "not_json", {}),
        ("return 'x'.repeat(9 * 1024 * 1024)", "output_limit", {}),
        ("await new Promise(() => {})", "exception", {}),
    ],
)
async def test_what_goes_wrong_has_a_code_of_its_own_and_the_next_run_is_right(language, source, code_, settings):
    with pytest.raises(NodeError) as failure:
        await code(context(language), CodeConfig(source, **settings), None)
    assert (failure.value.code, failure.value.retryable) == (code_, False)
    assert await code(context(language), CodeConfig("return 1"), None) == 1


async def test_an_integer_that_javascript_would_change_fails_loudly(language):
    with pytest.raises(NodeError, match=r"\$\.input\.id is an integer beyond 2\^53 - 1") as failure:
        await code(context(language), CodeConfig("return 1"), {"id": 2**53})
    assert failure.value.code == "input"


async def test_running_again_gives_the_same(language):
    config = CodeConfig("return [Math.random(), Date.now(), new Date().toISOString()]")
    first = await code(context(language), config, None)
    assert first == await code(context(language), config, None)
    assert first[1:] == [1_800_000_000_000, "2027-01-15T08:00:00.000Z"]
    assert first[0] != (await code(context(language, seed=8), config, None))[0]


async def test_data_that_looks_like_code_stays_data(language):
    nasty = {"__proto__": {"polluted": True}, "text": "{{ 7 * 7 }} `${7 * 7}`"}
    assert await code(context(language), CodeConfig("return context.input"), nasty) == nasty


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"source": " \n"}, "`source` must not be empty"),
        ({"source": "1", "timeout": 0.0}, "`timeout` must be"),
        ({"source": "1", "memory": 64}, "`memory` must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        CodeConfig(**settings)


def test_source_is_no_template():
    assert CodeConfig.__attrs_attrs__[0].metadata["literal"] is True
    assert CodeConfig("return `{{ }}`").source == "return `{{ }}`"


# --- the language ----------------------------------------------------------------------------------------------------


async def test_expressions_are_evaluated_each_by_itself(language):
    scope = {"input": {"qty": 3}, "item": None}
    found = await language.evaluate(
        ["input.qty * 2", "input.none", "input.none.more", "nobody"], scope, seed=1, now=0.0
    )
    assert [one.kind for one in found] == ["value", "undefined", "error", "error"]
    assert found[0].value == 6
    assert "more" in found[2].message


def test_checking_parses_and_runs_nothing(language):
    language.check("for (;;) {}", expression=False)
    language.check("(() => { for (;;) {} })()", expression=True)
    with pytest.raises(LanguageError) as failure:
        language.check("a +", expression=True)
    assert failure.value.code == "syntax"
    with pytest.raises(LanguageError):
        language.check("return 1", expression=True)


async def test_the_event_loop_goes_on_while_code_runs(language):
    await code(context(language), CodeConfig("return 1"), None)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        with pytest.raises(NodeError):
            await code(context(language), CodeConfig("for (;;) {}", timeout=0.3), None)
        group.cancel_scope.cancel()
    assert ticks >= 5


async def test_many_runs_at_once_take_few_threads_and_do_not_mix(language):
    results = {}

    async def one(number):
        source = "globalThis.mark ??= context.input; return globalThis.mark"
        results[number] = await code(context(language), CodeConfig(source), number)

    before = threading.active_count()
    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(one, number)
    assert results == {number: number for number in range(60)}
    assert threading.active_count() - before <= 60 // 2


async def test_cancelling_waits_for_the_time_limit_at_most(language):
    await code(context(language), CodeConfig("return 1"), None)
    started = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await code(context(language), CodeConfig("for (;;) {}", timeout=0.5), None)
    assert scope.cancelled_caught
    assert time.monotonic() - started < 5
    assert await code(context(language), CodeConfig("return 1"), None) == 1


async def test_code_does_not_outlive_the_attempts_deadline(language):
    await code(context(language), CodeConfig("return 1"), None)
    started = time.monotonic()
    with pytest.raises(NodeError) as failure:
        await code(context(language, deadline=NOW + 0.2), CodeConfig("for (;;) {}", timeout=60.0), None)
    assert failure.value.code == "timeout"
    assert 0.2 < time.monotonic() - started < 10


def test_one_language_serves_one_event_loop_after_another_and_then_closes():
    language = JavaScriptLanguage()

    async def use():
        return (await language.run("return 1 + 1", {}, timeout=None, memory=None, seed=1, now=0.0)).value

    assert [anyio.run(use), anyio.run(use), anyio.run(use, backend="trio")] == [2, 2, 2]
    anyio.run(language.aclose)
    with pytest.raises(RuntimeError, match="closed"):
        anyio.run(use)


def test_a_language_that_was_never_used_costs_nothing_to_close(monkeypatch):
    made = []
    make_engine, start = wasmtime.Engine, threading.Thread.start

    def engine(*arguments):  # without one, no module can be compiled or loaded
        made.append("engine")
        return make_engine(*arguments)

    def noted(thread):
        made.append(thread.name)
        start(thread)

    monkeypatch.setattr(wasmtime, "Engine", engine)
    monkeypatch.setattr(threading.Thread, "start", noted)

    async def use(language):
        await language.run("return 1", {}, timeout=None, memory=None, seed=1, now=0.0)

    anyio.run(JavaScriptLanguage().aclose)
    # closing can block, so the event loop lends it a thread of its own
    assert [name for name in made if name != "AnyIO worker thread"] == []
    language = JavaScriptLanguage()
    anyio.run(use, language)
    anyio.run(language.aclose)
    # what would have been seen: whoever is used does cost something
    assert {"engine", "sandbox-clock"} <= set(made)


# --- through the engine ----------------------------------------------------------------------------------------------


async def test_code_in_a_workflow():
    nodes = [
        {
            "id": "price",
            "type": "code",
            "config": {"source": "return {...context.input, total: context.input.qty * 3}"},
        },
        {
            "id": "lines",
            "type": "code",
            "for_each": "{{ input.lines }}",
            "config": {
                "source": "console.log(`line ${context.index}`); return context.item + context.payload.lines.length"
            },
        },
    ]
    result = await run(nodes, {"qty": 2, "lines": [10, 20]})
    assert result.node("price").output == {"qty": 2, "lines": [10, 20], "total": 6}
    assert result.output == [12, 22]


async def test_braces_in_code_are_code():
    nodes = [{"id": "c", "type": "code", "config": {"source": "const a = {b: {c: 1}}; return `{{ ${a.b.c} }}`"}}]
    assert (await run(nodes)).output == "{{ 1 }}"


async def test_the_error_of_code_says_where():
    nodes = [{"id": "c", "type": "code", "config": {"source": "let a;\nreturn a.b"}, "retry": {"attempts": 3}}]
    error = (await run(nodes)).error
    assert (error.code, error.attempt, error.data) == ("exception", 1, {"line": 2, "snippet": "return a.b"})


async def test_the_attempts_time_out_ends_endless_code():
    nodes = [{"id": "c", "type": "code", "config": {"source": "for (;;) {}", "timeout": 60}, "timeout": 0.2}]
    started = time.monotonic()
    error = (await run(nodes)).error
    assert (error.code, error.node) == ("timeout", "c")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("source", ["return (", "a b"])
def test_code_that_cannot_be_read_is_refused_on_saving(source):
    (message,) = refused([{"id": "c", "type": "code", "config": {"source": source}}]).values()
    assert "SyntaxError" in message


def test_a_language_that_nobody_brings_is_refused_on_saving():
    nodes = [{"id": "c", "type": "code", "config": {"source": "return 1", "language": "cobol"}}]
    assert "cobol" in refused(nodes)["$.nodes[0].config.language"]
