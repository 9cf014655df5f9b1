"""What programs and expressions give: values, errors with their places, logs, determinism."""

import json
import math
from decimal import Decimal
from types import MappingProxyType

import pytest

from orchestrator_nodes_std.sandbox import Completed, Evaluated, JavaScript, Limits, LogLine, SandboxError

NOW = 1_700_000_000.25


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    with JavaScript(cache_dir=tmp_path_factory.getbasetemp() / "sandbox") as runtime:
        yield runtime


# ---- programs -------------------------------------------------------------------------------------------------------


def test_a_program_returns_what_it_makes_of_its_context(javascript):
    source = "return {...context.input, total: context.input.qty * 3}"
    done = javascript.run(source, {"input": {"qty": 4, "sku": "a"}}, seed=1, now=NOW)
    assert done == Completed({"qty": 4, "sku": "a", "total": 12}, ())


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("", None),
        ("return", None),
        ("return null", None),
        ("return undefined", None),
        ("return await Promise.all([1, Promise.resolve(2)])", [1, 2]),
        ("const f = async () => { await null; return 5 }; return f()", 5),
        ("return {then(done) { done(6) }}", 6),
        ("// only a comment", None),
        ("return 1 // and a comment", 1),
        ("return typeof this", "undefined"),
        ("class A { #x = 1; get x() { return this.#x } } return new A().x ?? 0", 1),
    ],
)
def test_a_program_is_the_body_of_an_async_function(run, source, value):
    assert run(source) == value


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**53 - 1, -(2**53) + 1, 0.1, 1e300, 5e-324, "", 'a\0b\n"\\/é漢😀\u2028', [], {}, [[], {}],
        {"": 1, "a b": [1, {"é": None}]}, {"__proto__": {"polluted": 1}, "constructor": 2, "toJSON": 3, "then": 4},
        {"hasOwnProperty": "x", "length": 3, "0": 1}, "{{ 7 * 7 }}", {"files": {"x": {"filepath": "/etc/passwd"}}},
    ],
)  # fmt: skip
def test_json_passes_through_unchanged(run, value):
    assert run("return context.value", {"value": value}) == value
    assert run("return new Map(Object.entries(context))", {"value": value}) == {"value": value}  # the careful writer


def test_names_of_the_language_in_data_stay_data(run):
    data = json.loads('{"__proto__": {"admin": true}, "constructor": {"prototype": {"admin": true}}}')
    source = (
        "return [Object.keys(context.d), context.d.admin ?? 'no', ({}).admin ?? 'no', {...context.d}.admin ?? 'no']"
    )
    assert run(source, {"d": data}) == [["__proto__", "constructor"], "no", "no", "no"]


def test_what_is_no_dict_or_list_but_like_one_goes_in(run):
    assert run("return context", MappingProxyType({"a": (1, 2), "b": MappingProxyType({})})) == {"a": [1, 2], "b": {}}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("[new Date(1e12)]", ["2001-09-09T01:46:40.000Z"]),
        ("new Map([['a', 1], ['__proto__', [2]]])", {"a": 1, "__proto__": [2]}),
        ("new Set([1, 'a', [2]])", [1, "a", [2]]),
        ("new Uint8Array([1, 2])", [1, 2]),
        ("{a: undefined, b: 1}", {"b": 1}),
        ("[undefined, , 1]", [None, None, 1]),
        ("new Map([['a', undefined]])", {}),
        ("[new Set([undefined])]", [[None]]),
        ("[new Number(3), new String('s'), new Boolean(false)]", [3, "s", False]),
        ("{toJSON() { return {made: 1} }}", {"made": 1}),
        ("Object.create(null, {a: {value: 1, enumerable: true}, b: {value: 2}})", {"a": 1}),
        ("new (class A { x = 1; get y() { return 2 } })", {"x": 1}),
        ("{get a() { return 1 }}", {"a": 1}),
        ("new Proxy({a: 1}, {get: () => 5})", {"a": 5}),
        ("-0", 0),
        ("/x/", {}),
        ("[1e21, 1e-7]", [1e21, 1e-7]),
    ],
)
def test_values_of_the_language_become_json(run, source, value):
    assert run(f"return ({source})") == value


def test_an_integer_that_was_a_double_stays_one(run):
    value = run("return [2 ** 60, 9007199254740993, 2 ** 53 - 1, '12345678901234567890']")
    assert value == [float(2**60), float(2**53), 2**53 - 1, "12345678901234567890"]
    assert [type(item) for item in value] == [float, float, int, str]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("NaN", "NaN at $"),
        ("[1 / 0]", "Infinity at $[0]"),
        ("{a: [1, {b: () => 1}]}", "a function at $.a[1].b"),
        ("{'a b': Symbol()}", 'a symbol at $["a b"]'),
        ("[[1n]]", "a BigInt at $[0][0]"),
        ("{a: Promise.resolve(1)}", "a promise (is an `await` missing?) at $.a"),
        ("new Map([[1, 2]])", "a Map whose keys are not all strings at $"),
        ("{m: new Map([['k', NaN]])}", "NaN at $.m.k"),
        ("[new Set([0, NaN])]", "NaN at $[0][1]"),
        ("new Float64Array([0, NaN])", "NaN at $[1]"),
        ("{d: new Date(NaN)}", "an invalid date at $.d"),
        (
            "(() => { const a = {}; a.b = {a}; return a })()",
            "a reference to an object that holds it (a cycle) at $.b.a",
        ),
        ("(() => { const a = []; a.push(new Set([a])); return a })()", "(a cycle) at $[0][0]"),
        ("{s: ['a\\ud800']}", "$.s[0] holds half a surrogate pair"),
        ("{'\\udc00': 1}", "$ has a key that holds half a surrogate pair"),
        ("(() => { let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a })()", "nested more than 256 deep"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(fail, source, place):
    error = fail(f"return ({source})")
    assert (error.code, place in error.message) == ("not_json", True), error.message


def test_text_that_only_speaks_of_surrogates_is_text(run):
    assert run(r"return 'a \\ud800 b'") == r"a \ud800 b"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [2**53]}, "$.a[0] is an integer beyond 2^53 - 1"),
        ({"a": {"b": -(2**53)}}, "$.a.b is an integer beyond 2^53 - 1"),
        ({"a": 10**5000}, "$.a is an integer beyond 2^53 - 1"),
        ({"a": math.nan}, "$.a is nan"),
        ({"a b": [1, -math.inf]}, '$["a b"][1] is -inf'),
        ({"a": ["x", "\ud800"]}, "$.a[1] holds half a surrogate pair"),
        ({"a": {"\udc00": 1}}, "$.a has a key that holds half a surrogate pair"),
        ({"a": b"bytes"}, "$.a is of type bytes"),
        ({"a": Decimal(1)}, "$.a is of type Decimal"),
    ],
)
def test_what_javascript_cannot_hold_fails_before_it_is_entered(fail, javascript, value, message):
    error = fail("console.log('entered')", value)
    assert (error.code, message in error.message, error.logs) == ("input", True, ()), error.message
    with pytest.raises(SandboxError) as caught:
        javascript.evaluate(["input"], {"input": value}, seed=1, now=NOW)
    assert (caught.value.code, "$.input" in caught.value.message) == ("input", True)


def test_input_that_is_too_deep_or_holds_itself_is_refused(fail):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    endless = {}
    endless["self"] = endless
    for value in (deep, endless):
        assert fail("return 1", {"value": value}).code == "input"


def test_many_digits_that_are_no_integer_go_in(run):
    values = ["12345678901234567890", 1e20, 0.12345678901234567890]
    assert run("return context.values", {"values": values}) == values


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("throw new Error('bad')", "Error: bad", 1),
        ("\n\n  throw new TypeError('bad')\n", "TypeError: bad", 3),
        ("const a = 1;\nmissing();\nreturn a", "ReferenceError: missing is not defined", 2),
        (
            "const a = {};\nconst b = 2;\nreturn a.first.second;",
            "TypeError: cannot read property 'second' of undefined",
            3,
        ),
        ("const a = {};\n\nconst c = 1 + missing;", "ReferenceError: missing is not defined", 3),
        ("const f = () => {\n  JSON.parse('{');\n};\nf()", "SyntaxError: Expected property name", 2),
        ("await null;\nnull.x();", "TypeError: cannot read property 'x' of null", 2),
        ("return [1].map(x => {\n  throw new RangeError('r')\n})", "RangeError: r", 2),
        ("throw 'text'", "text was thrown", None),
        ("throw {code: 5}", '{"code":5} was thrown', None),
        ("throw null", "null was thrown", None),
        ("throw {get message() { throw 1 }}", "an error that cannot be read was thrown", None),
        ("throw new Proxy(new Error('x'), {get() { throw 1 }})", "an error that cannot be read was thrown", None),
        ("return Promise.reject(new Error('later'))", "Error: later", 1),
        ("return new Promise(() => {})", "the promise that was returned never settles", None),
        ("await new Promise(() => {})", "the promise that was returned never settles", None),
        ("queueMicrotask(() => { throw new Error('job') }); return 1", "Error: job", 1),
        ("return {get a() { throw new Error('getter') }}", "Error: getter", 1),
        ("return {toJSON() { throw new Error('json') }}", "Error: json", 1),
        ("return new Proxy({}, {ownKeys() { throw new Error('trap') }})", "Error: trap", 1),
        ("return {get then() { throw new Error('then') }}", "Error: then", 1),
        ("x = 5", "ReferenceError: x is not defined", 1),
        ("Object.freeze(context).a = 1", "TypeError: object is not extensible", 1),
    ],
)
def test_an_error_says_what_and_where_in_the_users_source(fail, source, message, line):
    error = fail(source)
    assert (error.code, error.line) == ("exception", line), error.message
    assert error.message.startswith(message)
    assert error.snippet == (source.split("\n")[line - 1].strip() if line else None)
    assert str(error) == error.message + (f" (line {line})" if line else "")


@pytest.mark.parametrize(
    "name", ["fetch", "require", "process", "std", "os", "window", "WebAssembly", "XMLHttpRequest", "Deno"]
)
def test_what_is_not_there_is_a_reference_error_and_undefined_for_typeof(run, fail, name):
    assert run(f"return [typeof {name}, '{name}' in globalThis]") == ["undefined", False]
    assert fail(f"return {name}('x')").message.startswith(f"ReferenceError: {name} is not defined")


@pytest.mark.parametrize(
    ("source", "line"),
    [("return (;", 1), ("\n\nlet x = ;", 3), ("if (true) {\n  let a = 1\n", 3), ("}", 1), ("import x from 'std'", 1),
     ("let a; let a", 1), ("return 1\n}, x() {", 2), ("return 'open", 1), ("with (context) {}", 1)],
)  # fmt: skip
def test_a_syntax_error_is_found_by_check_and_by_run(fail, javascript, source, line):
    assert (fail(source).code, fail(source).line) == ("syntax", line)
    with pytest.raises(SandboxError) as caught:
        javascript.check(source)
    assert (caught.value.code, caught.value.line) == ("syntax", line)


def test_check_executes_nothing_and_takes_what_run_takes(javascript):
    javascript.check("for (;;) {}")
    javascript.check("throw new Error('x')")
    javascript.check("await null; return 1 // end")
    javascript.check("input.qty * 3", expression=True)
    javascript.check("{a: 1}", expression=True)
    javascript.check("(() => { for (;;); })()", expression=True)


def test_check_finds_what_closes_the_function_around_it(javascript):
    for source in ("return 1 } + function () {", "return 1 }, async m2() {", "}, {", "})({"):
        with pytest.raises(SandboxError, match="SyntaxError"):
            javascript.check(source)


# What is no expression, though it would be one between the right brackets.
NOT_EXPRESSIONS = [
    "",
    ")",
    "1)+(2",
    "1)+(f(2)",
    "1; 2",
    "return 1",
    "let a = 1",
    "input.",
    "1,",
    "...input",
    "/* open",
    "a b",
]


@pytest.mark.parametrize("source", NOT_EXPRESSIONS)
def test_what_is_not_one_expression_is_refused(javascript, evaluate, source):
    with pytest.raises(SandboxError) as caught:
        javascript.check(source, expression=True)
    assert caught.value.code == "syntax"
    [result] = evaluate(source, input=1)
    assert (result.kind, result.message[:12]) == ("error", "SyntaxError:")


# ---- console --------------------------------------------------------------------------------------------------------


def test_console_goes_to_the_logs_in_order(javascript):
    source = """
      console.log('plain', 1, {a: [1, 'x', null]}, undefined, NaN, 10n);
      console.info(new Map([['k', 1]]), new Set([1]), new Date(0), () => 1, Symbol('s'));
      console.warn('careful'); console.error(new TypeError('bad')); console.debug('é漢😀');
      const o = {}; o.o = o; console.log(o, {get x() { throw 1 }}, new Proxy({}, {get() { throw 2 }}));
      console.log(); console.log('\\ud800');
      return 1;
    """
    assert javascript.run(source, {}, seed=1, now=NOW).logs == (
        LogLine("info", 'plain 1 {"a":[1,"x",null]} undefined NaN 10n'),
        LogLine("info", '{"k":1} [1] "1970-01-01T00:00:00.000Z" [Function] Symbol(s)'),
        LogLine("warning", "careful"),
        LogLine("error", "TypeError: bad"),
        LogLine("debug", "é漢😀"),
        LogLine("info", '{"o":[Circular]} [unreadable] [unreadable]'),
        LogLine("info", ""),
        LogLine("info", "\ufffd"),
    )


def test_the_rest_of_console_goes_there_too(javascript):
    source = """
      console.dir({a: 1}); console.table([[1]]); console.group('g'); console.groupEnd();
      console.assert(true, 'no'); console.assert(false, 'yes'); console.count(); console.count(); console.count('x');
      console.time('t'); await new Promise((done) => setTimeout(done, 20)); console.timeEnd('t'); console.timeEnd('t');
    """
    assert [(line.level, line.message) for line in javascript.run(source, {}, seed=1, now=NOW).logs] == [
        ("info", '{"a":1}'), ("info", "[[1]]"), ("info", "g"), ("error", "Assertion failed yes"),
        ("info", "default: 1"), ("info", "default: 2"), ("info", "x: 1"), ("info", "t: 20 ms"), ("info", "there is no timer t"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "code"),
    [("throw new Error('x')", "exception"), ("for (;;);", "timeout"), ("return NaN", "not_json"), ("return '\\ud800'", "not_json"),
     ("const a = []; for (;;) a.push('x'.repeat(1e6) + a.length)", "memory_limit"), ("return 'x'.repeat(1e4)", "output_limit")],
)  # fmt: skip
def test_logs_until_a_failure_are_kept(fail, source, code):
    seconds = 0.3 if code == "timeout" else 30.0
    error = fail(f"console.log('before'); {source}", time=seconds, memory=16 << 20, output=1000)
    assert (error.code, error.logs) == (code, (LogLine("info", "before"),))


def test_logs_end_at_their_limit_and_say_so(javascript):
    limits = Limits(logs=1000)
    dropped = LogLine("warning", "console output beyond 1000 bytes was dropped")
    many = javascript.run(
        "for (let i = 0; i < 1e4; i++) console.log('line', i)", {}, limits=limits, seed=1, now=NOW
    ).logs
    assert many[:2] == (LogLine("info", "line 0"), LogLine("info", "line 1"))
    assert many[-1] == dropped
    assert sum(len(line.message) for line in many[:-1]) <= 1000
    one = javascript.run("console.log('é'.repeat(1e6))", {}, limits=limits, seed=1, now=NOW).logs
    assert (one[0].message, one[1:]) == ("é" * (995 // 2), (dropped,))
    assert javascript.run("console.log('x')", {}, limits=Limits(logs=0), seed=1, now=NOW).logs[0].level == "warning"


# ---- determinism ----------------------------------------------------------------------------------------------------


def test_the_same_seed_time_and_input_give_the_same_bytes(javascript):
    source = """
      const ids = Array.from({length: 5}, () => Math.random());
      return JSON.stringify([ids, Date.now(), new Date(), new Date().getTimezoneOffset(), context, [3, 1, 2].sort(() => Math.random() - 0.5)])
    """
    first, again = (javascript.run(source, {"a": [1, 2]}, seed=42, now=NOW).value for _ in range(2))
    assert first == again
    assert javascript.run(source, {"a": [1, 2]}, seed=43, now=NOW).value != first
    assert javascript.run(source, {"a": [1, 2]}, seed=42, now=NOW + 1).value != first


def test_time_stands_still_at_now(run):
    source = "const a = Date.now(); for (let i = 0; i < 1e5; i++); return [a, Date.now(), new Date().toISOString(), Date().slice(0, 15)]"
    assert run(source) == [1_700_000_000_250, 1_700_000_000_250, "2023-11-14T22:13:20.250Z", "Tue Nov 14 2023"]


@pytest.mark.parametrize("seed", [0, -1, 2**200, 7])
def test_any_integer_is_a_seed_of_evenly_spread_numbers(javascript, seed):
    source = "const n = Array.from({length: 2000}, Math.random); return [n.filter(x => x < 0 || x >= 1).length, n.reduce((a, b) => a + b) / 2000, new Set(n).size]"
    outside, mean, distinct = javascript.run(source, {}, seed=seed, now=NOW).value
    assert (outside, distinct) == (0, 2000)
    assert 0.46 < mean < 0.54


# ---- expressions ----------------------------------------------------------------------------------------------------


def test_expressions_see_the_names_of_their_scope(evaluate):
    results = evaluate(
        "input.qty * 3", "nodes.price.output?.total ?? 0", "input.missing", "{a: input.qty}", "`${input.qty}!`",
        "[...input.tags, 'z'].join()", "input.tags.map((t) => t.length)", "null", "item", "Date.now()",
        input={"qty": 4, "tags": ["x", "yy"]}, nodes={"price": {"output": None}}, item=None,
    )  # fmt: skip
    assert results == [
        Evaluated("value", 12), Evaluated("value", 0), Evaluated("undefined"), Evaluated("value", {"a": 4}),
        Evaluated("value", "4!"), Evaluated("value", "x,yy,z"), Evaluated("value", [1, 2]), Evaluated("value", None),
        Evaluated("value", None), Evaluated("value", 1_700_000_000_250),
    ]  # fmt: skip


def test_each_expression_fails_on_its_own(evaluate):
    results = evaluate(
        "input.a.b", "vars.x", "1 +", "() => 1", "0 / 0", "'\\ud800'", "Promise.resolve(1)", "input", input={}
    )
    assert [result.kind for result in results] == ["error"] * 7 + ["value"]
    assert [result.message for result in results[:7]] == [
        "TypeError: cannot read property 'b' of undefined",
        "ReferenceError: vars is not defined",
        "SyntaxError: unexpected end of the source",
        "a function at $ is not a JSON value",
        "NaN at $ is not a JSON value",
        "$ holds half a surrogate pair",
        "a promise (is an `await` missing?) at $ is not a JSON value",
    ]


CHANGES = [
    "input.list.push(9)",
    "input.list.sort((a, b) => b - a)",
    "input.a = 5",
    "input.list.length--",
    "delete input.a",
    "Object.assign(input, {a: 7})",
    "globalThis.leak = 1",
    "leak = 1",
    "(() => { Object.prototype.leak = 1 })()",
    "Array.prototype.join = () => 'leak'",
    "[].constructor.prototype.leak = 1",
    "Reflect.set(Math, 'leak', 1)",
    "Object.defineProperty(globalThis, 'leak', {value: 1})",
    "(() => 0).constructor('leak = 1; this.leak = 1')()",
    "(function* () {}).constructor.prototype.leak = 1",
    "Object.getPrototypeOf(async function () {}).leak = 1",
    "Object.getPrototypeOf(new Map().entries()).leak = 1",
    "Object.setPrototypeOf(Object.prototype, {leak: 1})",
    "Math.random.constructor('return this')().leak = 1",
    "Math.random.leak = 1",
    "Date.leak = 1",
    "(0, eval)('let leak = 1')",
    "input.a >>= 1",
    "input.a <<= 1",
    "input.b ??= 1",
    "input.list[0]++",
    "[input.a] = [3]",
    "input.list.push`x`",
    "class { static { delete input.a } }",
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_an_expression_changes_no_other_sees(evaluate, change):
    probe = "[input, typeof leak, ({}).leak ?? 0, Math.leak ?? 0, Math.random.leak ?? 0, Date.leak ?? 0, [1, 2].join(), (function* () {}).leak ?? 0]"
    value = {"a": 1, "list": [1, 2]}
    clean = Evaluated("value", [value, "undefined", 0, 0, 0, 0, "1,2", 0])
    results = evaluate(change, probe, change, probe, input=value)
    assert [results[1], results[3]] == [clean, clean]
    assert evaluate(probe, input=value) == [clean]


def test_random_numbers_of_an_expression_do_not_depend_on_the_others(evaluate):
    one = evaluate("0", "Math.random()")[1]
    assert evaluate("[Math.random(), Math.random()].length", "Math.random()")[1] == one
    assert evaluate("Math.random()", "Math.random()")[0] != one


def test_names_that_are_spelled_with_escapes_are_found(evaluate):
    assert evaluate(r"inp\u0075t.a", input={"a": 1}) == [Evaluated("value", 1)]


def test_scope_that_no_expression_names_costs_nothing(javascript):
    # It would be refused, if it were sent.
    assert javascript.evaluate(["1 + 1"], {"nodes": {"big": 2**60}}, seed=1, now=NOW) == [Evaluated("value", 2)]


def test_a_scope_name_must_be_one(javascript):
    for name in ("a b", "a, b = evil()", "1a", ""):
        with pytest.raises(ValueError, match="cannot be a name"):
            javascript.evaluate(["1"], {name: 1}, seed=1, now=NOW)


def test_no_expressions_give_no_results(evaluate):
    assert evaluate(input=1) == []


def test_data_that_looks_like_code_is_not_run(run, evaluate):
    text = "{{ 7 * 7 }} ${7 * 7} `); throw 1; //"
    assert run("return context.text", {"text": text}) == text
    assert evaluate("input", "`${input}`", input=text) == [Evaluated("value", text), Evaluated("value", text)]
