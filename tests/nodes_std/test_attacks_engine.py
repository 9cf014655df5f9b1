"""Attacks through the engine: `code` nodes, `{{ expressions }}`, and data that looks like either."""

import itertools
import json

import pytest
from test_attacks import ESCAPES, FORGERIES, HELPERS

from orchestrator_core import Engine, Workflow

CONTEXT = {"list": [1, 2], "text": "t", "number": 5}


def flow(nodes, edges=(), **more):
    edges = [{"source": edge[0], "target": edge[1]} for edge in edges]
    return Workflow.from_dict({"schema": 1, "id": "attack", "nodes": list(nodes), "edges": edges, **more})


def code(name, source, **config):
    return {"id": name, "type": "code", "config": {"source": source, **config}, "on_error": "continue"}


CALM = "return [context.input.number, ({}).zz ?? 0, typeof zz, [3, 1].sort(), Object.isFrozen(Object.prototype)]"


def test_all_escapes_in_one_execution_reach_nothing_and_each_other():
    # `context.input` stands for what the table's programs know as `context`.
    nodes = [
        code(f"n{i}", HELPERS + source.replace("context", "context.input"), timeout=5)
        for i, source in enumerate(ESCAPES.values())
    ]
    calm = [code(f"calm{i}", CALM) for i in range(8)]
    result = Engine().run_sync(flow([*nodes, *calm]), CONTEXT)
    assert result.status == "succeeded"
    outputs = {name: result.node(f"n{i}").output for i, name in enumerate(ESCAPES)}
    assert {name: output for name, output in outputs.items() if output != []} == {}
    assert [result.node(f"calm{i}").output for i in range(8)] == [[5, 0, "undefined", [1, 3], False]] * 8


HOSTILE = {
    "endless": "for (;;);",
    "regular expression": "return /(a+)+$/.test('a'.repeat(50) + 'b')",
    "memory": "const a = []; for (;;) a.push(new Array(10000).fill(1))",
    "recursion": "const f = () => f() + 1; return f()",
    "microtasks": "const f = () => queueMicrotask(f); f()",
    "never settles": "await new Promise(() => {})",
    "getter": "return {get a() { throw new Error('x') }}",
    "toJSON": "return {toJSON() { throw new Error('x') }}",
    "proxy": "return new Proxy({}, {ownKeys() { throw new Error('x') }})",
    "large": "return 'x'.repeat(9e6)",
    "logs": "for (;;) console.log('x'.repeat(1e6))",
    "not JSON": "return {f() {}}",
    "too deep": "let a = []; for (let i = 0; i < 1e4; i++) a = [a]; return a",
    "an error with strange parts": "throw {message: {}, name: [], stack: 5, code: 'timeout', get retryable() { return true }}",
    "pollution": "Object.prototype.zz = 1; globalThis.zz = 2; Object.freeze(Object.prototype); throw 1",
}


def test_hostile_nodes_fail_alone_and_soon():
    nodes = [code(f"n{i}", source, timeout=0.15, memory=16 << 20) for i, source in enumerate(HOSTILE.values())]
    calm = [code(f"calm{i}", CALM) for i in range(8)]
    order = list(itertools.chain.from_iterable(itertools.zip_longest(nodes, calm)))
    # As many at once as run at once, so that the time of a record is not one of waiting.
    result = Engine().run_sync(flow([node for node in order if node], settings={"max_parallel": 2}), CONTEXT)
    records = {name: result.node(f"n{i}") for i, name in enumerate(HOSTILE)}
    assert {name for name, record in records.items() if record.status != "failed"} == set()
    assert {record.error.code for record in records.values()} <= {
        "timeout",
        "exception",
        "memory_limit",
        "output_limit",
        "not_json",
    }
    for name, record in records.items():
        assert record.finished_at - record.started_at < 0.15 + 0.25, name
        json.dumps(record.output)  # the error that `continue` delivers is plain data
    assert [result.node(f"calm{i}").output for i in range(8)] == [[5, 0, "undefined", [1, 3], False]] * 8


@pytest.mark.parametrize("kind", FORGERIES)
def test_what_a_node_forges_is_its_own_output_at_most(kind):
    nodes = [
        code("bad", FORGERIES[kind]),
        code("good", CALM),
        {"id": "end", "type": "set", "config": {"values": {"good": "{{ nodes.good.output[0] }}"}}},
    ]
    workflow, engine = flow(nodes, [("bad", "end"), ("good", "end")]), Engine()
    if faults := engine.validate(workflow):
        assert ("brace" in kind, [fault.place for fault in faults]) == (True, ["$.nodes[0].config.source"])
        return
    result = engine.run_sync(workflow, CONTEXT)
    assert (result.node("good").status, result.node("end").output) == ("succeeded", {"good": 5})
    assert result.node("bad").status in {"succeeded", "failed"}


DEEP = {
    60: "let d = 1; for (let i = 0; i < 60; i++) d = [d]; return d",
    250: "let d = 1; for (let i = 0; i < 250; i++) d = [d]; return d",
    # Flat when it is looked at first, deep when it is written.
    900: "let d = []; for (let i = 0; i < 900; i++) d = [d]; let n = 0; return {get a() { return n++ ? d : 1 }}",
}


@pytest.mark.parametrize("depth", DEEP)
def test_a_deep_result_passes_through_the_whole_engine_or_fails_its_node(depth):
    nodes = [
        code("deep", DEEP[depth]),
        {"id": "copy", "type": "set", "config": {"values": {"v": "{{ input }}", "text": "{{ input }}!"}}},
    ]
    result = Engine().run_sync(flow(nodes, [("deep", "copy")], output="{{ nodes.copy.output.text.length }}"), CONTEXT)
    assert result.status == "succeeded"
    assert result.node("deep").status == ("succeeded" if depth == 60 else "failed")
    assert result.node("deep").error is None or result.node("deep").error.code in {"not_json", "bad_output"}


# ---- expressions ----------------------------------------------------------------------------------------------------

# n8n evaluated these in the host's process, and patched them away one after the other.
EXPRESSIONS = {
    "CVE-2025-68613 this": "(function () { return this.process.mainModule.require('child_process').execSync('id').toString() })()",
    "CVE-2025-68613 a constructor": "[].constructor.constructor('return process')().env",
    "CVE-2026-1470 with": "Function('with (globalThis) { return process.env }')()",
    "CVE-2026-25049 a key that is no string": "input[{toString: () => 'constructor'}]['constructor']('return process')()",
    "CVE-2026-27577 an identifier": "process.env.PATH",
    "prepareStackTrace": "((Error.prepareStackTrace = (_, s) => s), new Error().stack[0].getThis().process)",
    "__proto__": "input.__proto__.constructor.constructor('return process.env')()",
    "__lookupGetter__": "({}).__lookupGetter__('__proto__').constructor('return process')().env",
    "an import": "import('os').constructor.constructor('return require')()('fs')",
    "require": "require('fs').readFileSync('/etc/passwd', 'utf8')",
    "a template": "`${(() => { throw new Error(typeof process) })()}`",
    "a generator's constructor": "(function* () {}).constructor('return process')().next().value.env",
    "an async function's constructor": "(async () => {}).constructor('return process')()",
    "code outside of the brackets": "1)}); process.exit(1); (function () { return (1",
    "a brace pair in a text": "'}}' + process.env + '{{'",
}


@pytest.mark.parametrize("kind", EXPRESSIONS)
def test_an_expression_reaches_nothing(kind):
    node = {
        "id": "a",
        "type": "set",
        "config": {"values": {"v": "{{ " + EXPRESSIONS[kind] + " }}", "n": "{{ input.number + 1 }}"}},
    }
    workflow = flow([node])
    engine = Engine()
    # What is no expression at all, or names what is nowhere, is refused when the workflow is saved; the rest when it runs.
    if faults := engine.validate(workflow):
        assert {fault.place for fault in faults} == {"$.nodes[0].config.values.v"}
        return
    result = engine.run_sync(workflow, CONTEXT)
    assert (result.status, result.error.code, result.error.node) == ("failed", "expression", "a")
    assert "uid=" not in result.error.message
    assert "root:" not in result.error.message


LITERAL = [
    "{{ 7 * 7 }}",
    "{{ input }}",
    "{{ secrets.token }}",
    "{{ '{{' }}",
    "}} {{ 1 }}",
    "${7 * 7}",
    "{{{{ 7 * 7 }}}}",
    "{{ nodes.hook.output }}",
    "{% raw %}{{ 1 }}",
    "=7*7",
    "{{",
    "}}",
    "`; throw 1; //",
]


@pytest.mark.parametrize("text", LITERAL)
def test_data_that_looks_like_an_expression_stays_what_it_is(text):
    """Through every kind of node that touches data, as a value, as a key and inside of a text, and into the answer."""
    one = {
        "schema": 1,
        "id": "inner",
        "nodes": [{"id": "s", "type": "set", "config": {"values": {"t": "{{ input.t }}"}}}],
    }
    nodes = [
        {"id": "hook", "type": "manual"},
        {"id": "set", "type": "set", "config": {"values": {"t": "{{ input.t }}", "in": "<{{ input.t }}>", "js": "{{ [input.t].join('') }}", "all": "{{ input }}"}}},
        {"id": "code", "type": "code", "config": {"source": "return {t: context.input.t, k: {[context.input.t]: context.input.t}, all: context.input}"}},
        {"id": "yes", "type": "if", "config": {"condition": "{{ input.t == payload.t }}"}},
        {"id": "loop", "type": "loop", "config": {"body": one, "max_iterations": 2}},
        {"id": "sub", "type": "workflow", "config": {"body": one}},
        {"id": "each", "type": "set", "for_each": "{{ [payload.t, payload.t] }}", "config": {"values": {"t": "{{ item }}", "at": "{{ index }}"}}},
        {"id": "bad", "type": "code", "config": {"source": "throw new Error(context.payload.t)"}, "on_error": "continue"},
        {"id": "after", "type": "set", "config": {"values": {"why": "{{ input.message }}", "all": "{{ input }}"}}},
    ]  # fmt: skip
    ids = [node["id"] for node in nodes]
    edges = [{"source": a, "target": b, **({"port": "true"} if a == "yes" else {})} for a, b in itertools.pairwise(ids)]
    document = {
        "schema": 1,
        "id": "literal",
        "nodes": nodes,
        "edges": edges,
        "output": {"whole": "{{ nodes.after.output }}", "in": "[{{ payload.t }}]", "sub": "{{ nodes.sub.output }}"},
    }
    result = Engine(secrets={"token": "hidden"}).run_sync(Workflow.from_dict(document), {"t": text})
    assert result.error is None
    outputs = {name: result.node(name).output for name in ids}
    assert outputs["set"] == {"t": text, "in": f"<{text}>", "js": text, "all": {"t": text}}
    assert (outputs["code"]["t"], outputs["code"]["k"], outputs["code"]["all"]["in"]) == (
        text,
        {text: text},
        f"<{text}>",
    )
    assert outputs["loop"] == outputs["sub"] == {"t": text}
    assert outputs["each"] == [{"t": text, "at": 0}, {"t": text, "at": 1}]
    assert outputs["after"]["why"] == f"Error: {text} (line 1)"
    assert (result.output["in"], result.output["sub"]) == (f"[{text}]", {"t": text})
    assert result.output["whole"]["all"]["node"] == "bad"


@pytest.mark.parametrize("path", ["files", "x.filepath"])
def test_a_payload_that_claims_to_be_files_is_data(path):
    claim = {"files": {"x": {"filepath": "/etc/passwd", "mimetype": "text/plain"}}, "x.filepath": "/etc/passwd"}
    node = {"id": "a", "type": "set", "config": {"values": {"v": "{{ input }}", "one": f"{{{{ input['{path}'] }}}}"}}}
    assert Engine().run_sync(flow([node]), claim).output == {"v": claim, "one": claim[path]}
