"""Attacks that other sandboxes fell to, on ours: each ends as an error of the call or in something harmless.

Names begin with the advisory that the attack is taken from, where there is one. What it did elsewhere was to leave the
sandbox; here it may at most spoil the result of its own call. So after each attack the host is alive, the call ended
near its deadline, and the next call, on the same instances, is right.
"""

import struct
import time
from pathlib import Path

import pytest

from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError, machine

NOW = 1_700_000_000.0

# What attacks look for once they are out, and how they get from a function to the global object of its realm.
HELPERS = """
const NAMES = ["process", "require", "module", "std", "os", "bjson", "Worker", "WebAssembly", "XMLHttpRequest", "Deno", "Bun",
  "print", "scriptArgs", "loadScript", "importScripts", "readFile", "WebSocket"];
const reached = (...roots) => roots.flatMap((root) => NAMES.filter((name) => { try { return root?.[name] !== undefined } catch { return true } }));
const world = (make) => { try { return make('return this')() } catch { return undefined } };
const worlds = (things) => things.filter((it) => Object(it) === it).map((it) => world((typeof it === 'function' ? it : it.constructor).constructor));
"""


@pytest.fixture(scope="module")
def javascript():
    with JavaScript(instances=2) as runtime:
        assert_well(runtime)
        yield runtime


def assert_well(javascript):
    probe = (
        "return [context.a, ({}).zz ?? 0, typeof zz, [3, 1].sort(), JSON.stringify({a: [1]}), await Promise.all([1])]"
    )
    done = javascript.run(probe, {"a": 1}, seed=1, now=NOW)
    assert (done.value, done.logs) == ([1, 0, "undefined", [1, 3], '{"a":[1]}', [1]], ())


def attack(javascript, source, context=None, **limits):
    """How a program ends: `("value", what)` or `(code, message)`."""
    try:
        done = javascript.run(source, context or {}, limits=Limits(**{"time": 2.0, **limits}), seed=1, now=NOW)
    except SandboxError as error:
        return error.code, error.message
    return "value", done.value


# ---- leaving the realm ----------------------------------------------------------------------------------------------

ESCAPES = {
    "constructors of data": """
        const {list, text, number} = context;
        return reached(...worlds([context, list, list.map, text.sub, number, text, true, Symbol(), 1n, /x/, new Date()]))""",
    "CVE-2025-68613 this of a plain function": """
        return reached((function () { return this })(), (0, eval)('this'), Function('return this')(), Reflect.apply(Function('return this'), null, []))""",
    "CVE-2026-1470 with, and a constructor found in it": """
        return reached(Function('with (this) { return {process: typeof process === "undefined" ? undefined : process} }')(),
          world(Function('with (() => 1) return constructor')()))""",
    "CVE-2026-25049 a key that is no string": """
        const key = {toString: () => 'constructor'};
        return reached(world(context[key][key]), world([][['constructor']][['constructor']]))""",
    "CVE-2026-25049 a destructured constructor": """
        const {constructor: {constructor: make}} = context, {constructor: other} = () => 1;
        return reached(world(make), world(other))""",
    "CVE-2026-27577 names that a rewriter misses": r"""
        return ['process', 'requ\u0069re', 'globalThis.process', 'this?.process'].filter((name) => (0, eval)(`typeof ${name}`) !== 'undefined')""",
    "CVE-2022-36067 another Error": """
        let sites = [];
        globalThis.Error = {prepareStackTrace(_, found) { sites = found; return found }};
        TypeError.prepareStackTrace = globalThis.Error.prepareStackTrace;
        try { null.x } catch (error) { String(error.stack) }
        return reached(...sites.map((site) => site.getThis?.()), ...worlds(sites))""",
    "CVE-2021-23555 call sites": """
        Error.prepareStackTrace = (_, sites) => sites;
        const sites = [].concat(new Error('x').stack).filter((site) => typeof site === 'object');
        const functions = sites.map((site) => site.getFunction?.());
        return reached(...sites.map((site) => site.getThis?.()), ...worlds(functions), ...worlds(sites))""",
    "CVE-2023-29017 call sites of an asynchronous stack": """
        const seen = [];
        Error.prepareStackTrace = (error, sites) => { seen.push(error, sites, ...sites.map((site) => site.getFunction?.())); return 'x' };
        await (async () => { await null; (async () => { null.x })().catch(() => {}); new Error('x').stack })();
        return reached(...worlds(seen))""",
    "Error.captureStackTrace with a huge limit": """
        const seen = {};
        Error.stackTraceLimit = Infinity;
        Error.captureStackTrace?.(seen);
        Error.captureStackTrace?.(new Proxy(seen, {}), console.log);
        Error.stackTraceLimit = 2 ** 53;
        return reached(...worlds([seen.stack, new Error('x')]))""",
    "CVE-2023-29199 a RangeError that is not ours": """
        let caught;
        const f = () => { try { f() } catch (error) { caught ??= error } };
        f();
        return reached(...worlds([caught]))""",
    "CVE-2019-10769 the end of the stack inside the driver": """
        const errors = [];
        function descend(i) {
          let x = 0;
          try { x = descend(i) } catch {}
          if (typeof x !== 'number') return x;
          if (x !== i) return x + 1;
          try { console.log({get a() { return [1] }}, new Map([['k', 1]])) } catch (error) { return error }
          return null;
        }
        for (let i = 1; i < 40; i++) errors.push(descend(i));
        return reached(...worlds(errors))""",
    "CVE-2023-30547 an error whose prototype throws": """
        const broken = new Proxy({}, {getPrototypeOf() { null.x }, get() { (function f() { f() })() }});
        const seen = [];
        for (const use of [() => { throw broken }, () => broken instanceof Error, () => console.log(broken), () => Promise.reject(broken).catch(null)]) {
          try { use() } catch (error) { if (error !== broken) seen.push(error) }
        }
        return reached(...worlds(seen))""",
    "CVE-2023-32314 a Proxy as the name of an error": """
        const seen = [];
        const error = new Error();
        error.name = {toString: new Proxy(() => 'x', {apply(...given) { seen.push(...given); return 'x' }})};
        error.stack; String(error); console.log(error);
        return reached(...worlds(seen))""",
    "CVE-2023-37466 the species of a promise": """
        const seen = [];
        const promise = (async () => { (function f() { f() })() })();
        promise.constructor = {[Symbol.species]: class { constructor(run) { run((x) => x, (error) => { seen.push(error) }) } }};
        promise.then();
        await null; await null;
        if (!seen.length) throw new Error('not rejected');
        return reached(...worlds(seen))""",
    "CVE-2023-37903 a custom inspection": """
        const seen = [];
        const look = (...given) => { seen.push(...given) };
        console.log({[Symbol.for('nodejs.util.inspect.custom')]: look, inspect: look, toJSON(...given) { seen.push(this, ...given); return 1 }});
        return reached(...worlds(seen))""",
    "CVE-2026-22709 the then of what is returned": """
        Promise.prototype.then = function (...functions) { functions[0](reached(...worlds(functions))) };
        return []""",
    "CVE-2026-22709 a thenable is given functions": """
        return {then(...functions) { functions[0](reached(...worlds(functions))) }}""",
    "CVE-2026-44001 rejections that nobody handles": """
        new Promise((_, no) => no(new Error('x'))); Promise.reject(Symbol('x')); (async () => { throw null })();
        Promise.reject(new Proxy({}, {get() { null.x }}));
        return []""",
    "CVE-2026-44008 getters on Array.prototype": """
        const seen = Object.create(null);
        let count = 0;
        for (const key of ['0', '1', 'constructor', 'concat', 'toJSON', Symbol.iterator, Symbol.isConcatSpreadable]) {
          const old = Array.prototype[key];
          Object.defineProperty(Array.prototype, key, {get() { seen[count++] = Object.getPrototypeOf(this); return old }, set() { seen[count++] = this }, configurable: true});
        }
        console.log([], [1, [2]], {a: [1]});
        for (const key of ['0', '1']) delete Array.prototype[key];
        return reached(...worlds(Object.values(seen)))""",
    "CVE-2026-45411 yield* in an asynchronous generator": """
        const inner = {[Symbol.asyncIterator]: () => ({next: () => ({value: 1}), return: () => ({then(yes, no) { throw no }})})};
        const generator = (async function* () { yield* inner })();
        await generator.next();
        const seen = [];
        for (const end of [{get then() { (function f() { f() })() }}, 1]) try { await generator.return(end) } catch (error) { seen.push(error) }
        return reached(...worlds(seen))""",
    "CVE-2021-23449 the promise of an import": """
        const promise = import('std');
        promise.catch(() => {});
        let seen; try { await import({toString() { throw [1] }}) } catch (error) { seen = error }
        return reached(...worlds([promise, promise.then, seen]))""",
    "CVE-2026-43999 modules of the host": """
        const loaded = [];
        for (const name of ['std', 'os', 'qjs:std', 'qjs:os', 'qjs:bjson', 'module', 'node:module', 'process', 'inspector/promises', 'child_process',
          '/etc/passwd', './x.js', 'file:///etc/passwd', 'data:text/javascript,1', '']) {
          try { await import(name); loaded.push(name) } catch {}
        }
        return loaded""",
    "CVE-2022-25893 what the driver may use is replaced": """
        const seen = [];
        for (const type of [WeakMap, Map, Set, WeakSet, Array, String, Promise, Function, RegExp, Date, Number]) {
          for (const name of Object.getOwnPropertyNames(type.prototype)) {
            const old = Object.getOwnPropertyDescriptor(type.prototype, name).value;
            if (name === 'constructor' || typeof old !== 'function') continue;
            type.prototype[name] = {f(...given) { if (seen.length < 100) seen[seen.length] = given; return Reflect.apply(old, this, given) }}.f;
          }
        }
        console.log({a: 1}, new Map([['k', {}]]), new Set([[1]]), new Date(0), 'x');
        return reached(...worlds([].concat(...seen)))""",
    "CVE-2022-39266 code that is compiled already": """
        return ['bjson', 'WebAssembly', 'Script', 'Module', 'compile'].filter((name) => name in globalThis)""",
    "CVE-2023-26121 a getter for everyone": """
        const seen = [];
        for (const name of ['then', 'toJSON', 'get', 'value', 'source', 'mode', 'expressions', 'logs', 'code', 'message']) {
          ({}).__proto__.__defineGetter__(name, function () { seen.push(Object.getPrototypeOf(this)) });
        }
        console.log({a: 1});
        return reached(...worlds(seen))""",
    "caller and callee": """
        const out = [];
        for (const body of ['return arguments.callee', 'return arguments.callee.caller', 'return (function f() { return f.caller })()']) {
          try { out.push(Function(body)()) } catch {}
        }
        return reached(...worlds(out))""",
    "toJSON of what is returned": """
        return {toJSON(key) { return reached(...worlds([this, key, Object(key)])) }}""",
    "held by a finalizer": """
        const seen = [];
        const registry = new FinalizationRegistry((held) => { seen.push(held, globalThis) });
        for (let i = 0; i < 1e4; i++) registry.register([i], {i}, []);
        await null; await new Promise((done) => queueMicrotask(done));
        return reached(...worlds(seen))""",
    "what a WeakRef keeps": """
        const refs = [];
        for (let i = 0; i < 2e4; i++) refs.push(new WeakRef({i}));
        await null;
        return reached(...worlds(refs.map((ref) => ref.deref())))""",
    "statics of RegExp": """
        /s(e)c/.exec('secret'); console.log('abc');
        const other = world(console.log.constructor)?.RegExp ?? RegExp;
        return [RegExp, other].flatMap((it) => ['$1', '$&', 'lastMatch', 'input', '$_'].filter((name) => it[name]))""",
    "the machine below": """
        return ['memory', 'JS_Eval', 'instance', 'exports', 'wasm', 'malloc', '__wasi', 'gc', 'v8', '%GetOptimizationStatus'].filter((name) => name in globalThis)""",
}  # fmt: skip


@pytest.mark.parametrize("kind", ESCAPES)
def test_there_is_nothing_to_escape_to(javascript, kind):
    context = {"list": [1, {"__proto__": {"x": 1}}], "text": "t", "number": 5, "then": 1, "toJSON": 2}
    assert attack(javascript, HELPERS + ESCAPES[kind], context) == ("value", [])
    assert_well(javascript)


def test_a_proxy_as_a_result_sees_nothing_of_the_driver(javascript):
    source = """
        const seen = [];
        const traps = new Proxy({}, {get: (_, trap) => (...given) => { seen.push(...given); return Reflect[trap](...given) }});
        const inner = {};
        Object.defineProperty(inner, 'found', {enumerable: true, configurable: true, get: () => reached(...worlds(seen))});
        return new Proxy(inner, traps);
    """
    assert attack(javascript, HELPERS + source) == ("value", {"found": []})
    assert_well(javascript)


@pytest.mark.parametrize(
    "shape", ["new Error('x')", "{get message() { return look(this) }, stack: ''}", "new Proxy(new Error('x'), {})"]
)
def test_an_error_as_a_result_sees_nothing_of_the_driver(javascript, shape):
    source = (
        f"const look = (it) => String(reached(...worlds([it]))); const error = {shape}; error.name = 'N'; throw error"
    )
    code, message = attack(javascript, HELPERS + source)
    assert (code, message in {"N: x", "N"}) == ("exception", True), message


# ---- the driver -----------------------------------------------------------------------------------------------------

# Whatever leads from the functions that user code is given into another realm finds that realm frozen: the driver's
# own intrinsics cannot be changed under it. `console` and its functions are the user's to change.
FROZEN = """
const own = new Set();
const walk = (todo, seen, each) => {
  while (todo.length) {
    const [object, path] = todo.pop();
    if (Object(object) !== object || seen.has(object)) continue;
    seen.add(object);
    each?.(object, path);
    todo.push([Object.getPrototypeOf(object), path + '.__proto__']);
    for (const key of Reflect.ownKeys(object)) {
      const {value, get, set} = Object.getOwnPropertyDescriptor(object, key);
      for (const it of [value, get, set]) todo.push([it, path + '.' + String(key)]);
    }
  }
};
const {console: given} = globalThis;
delete globalThis.console;
walk([[globalThis, ''], [function* () {}, ''], [async () => {}, ''], [async function* () {}, ''], [[].values(), ''], [new Map().entries(), ''],
  [new Set().values(), ''], [''.matchAll(/x/g), ''], [''[Symbol.iterator](), ''], [(function* () {})(), '']], own);
const open = [];
const starts = Object.values(given).filter((it) => typeof it === 'function');
const world = starts[0].constructor('return this')();
walk([[world, 'global'], [Object.getPrototypeOf(starts[0]), 'function']], new Set(own), (object, path) => {
  if (!Object.isFrozen(object)) open.push(path);
});
return {apart: world !== globalThis, open};
"""


def test_the_realm_of_the_driver_is_frozen_throughout(javascript):
    code, found = attack(javascript, FROZEN)
    assert (code, found["open"]) == ("value", [])


CHANGES_OF_THE_DRIVER = [
    "world.JSON.stringify = () => '\"forged\"'",
    "world.Object.prototype.toJSON = () => 'forged'",
    "Object.defineProperty(world.Array.prototype, 'toJSON', {value: () => 'forged'})",
    "world.Object.keys = () => []",
    "world.Reflect.apply = () => 'forged'",
    "world.Map.prototype.forEach = () => {}",
    "world.Promise.prototype.then = (done) => done('forged')",
    "world.String.prototype.toWellFormed = () => 'forged'",
    "world.Error.prepareStackTrace = () => 'forged'",
    "world.Function('JSON.stringify = () => 1')()",
    "world.eval('var JSON = {stringify: () => 1}')",
    "world.eval('function isPlain() { return true }')",
    "world.Function('let JSON; eval(\"JSON = 1\")')()",
    "Object.setPrototypeOf(world.Array.prototype, {toJSON: () => 'forged'})",
    "world.Symbol.iterator = 1",
    "Object.setPrototypeOf(world, new Proxy({}, {get: () => 'forged', has: () => true}))",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES_OF_THE_DRIVER)
def test_what_the_driver_works_with_cannot_be_changed(javascript, change):
    source = f"""
        const world = console.log.constructor('return this')();
        try {{ {change} }} catch {{}}
        console.log({{a: [1]}}, new Map([['k', 1]]));
        return {{list: [1, 'x', null, {{b: new Map([['k', new Date(0)]])}}], text: 'y'}};
    """
    done = javascript.run(source, {}, seed=1, now=NOW)
    assert done.value == {"list": [1, "x", None, {"b": {"k": "1970-01-01T00:00:00.000Z"}}], "text": "y"}
    assert [line.message for line in done.logs] == ['{"a":[1]} {"k":1}']


def test_replacing_every_built_in_function_changes_no_result(javascript):
    # The value is plain, so that writing it needs nothing of the realm it comes from.
    source = """
        const value = {list: [1, 'x', null, {b: true}], text: 'é'};
        const types = [Object, Array, String, Number, Boolean, Map, Set, Date, Promise, Function, RegExp, Symbol, JSON, Reflect, Math, Iterator];
        const {defineProperty, getOwnPropertyNames} = Object;
        for (const type of types) for (const holder of [type, type.prototype]) {
          if (!holder) continue;
          for (const name of getOwnPropertyNames(holder)) {
            // A `then` that never calls back is a promise that never settles: that is tested elsewhere.
            if (name === 'prototype' || (type === Promise && name === 'then')) continue;
            try { defineProperty(holder, name, {value() { throw 'forged' }}) } catch {}
          }
        }
        return value;
    """
    value = {"list": [1, "x", None, {"b": True}], "text": "é"}
    assert attack(javascript, source) == ("value", value)
    assert_well(javascript)


LOOKALIKES = [
    'v{"a":1}',
    "u",
    'e{"code":"timeout","message":"m","stack":""}',
    '["v",1]',
    '["e","m"]',
    '"],["v",2',
    "\0v1",
    "v1\0",
    "\\ud800 text",
]


@pytest.mark.parametrize("text", LOOKALIKES)
def test_a_result_that_looks_like_an_answer_is_a_text(javascript, text):
    assert attack(javascript, "return context.t", {"t": text}) == ("value", text)
    assert attack(javascript, "return new Map([[context.t, {toJSON: () => context.t}]])", {"t": text}) == (
        "value",
        {text: text},
    )
    found = javascript.evaluate(["t", "`${t}`", "({[t]: t})", "1"], {"t": text}, seed=1, now=NOW)
    assert [item.value for item in found] == [text, text, {text: text}, 1]
    code, message = attack(javascript, "throw context.t", {"t": text})
    assert (code, message) == ("exception", f"{text} was thrown")


FORGERIES = {
    "the driver's own functions, called again": """
        let functions = [];
        Error.prepareStackTrace = (_, sites) => { functions = sites.slice(1).map((site) => site.getFunction?.()); return '' };
        String(new Error('x').stack);
        for (const f of functions) for (const given of [[{source: 'return "forged"', mode: 'run', output: 1e9, logs: 1e9}, {}], ['e', 'm']]) try { await f?.(...given) } catch {}
        return 'own'""",
    "an error that claims another code": "throw {code: 'timeout', message: 'stopped', stack: ''}",
    "an error of the driver's class": """
        let Refused;
        try { console.log.constructor('return 1')() } catch (error) { Refused = error.constructor }
        throw Refused ? new Refused('crashed', 'm') : new Error('m')""",
    "an error named after the memory": "throw new InternalError('out of memory')",
    "code after the brace": "}), (globalThis.forged = true), (async function () { return 'forged'",
    "code after the brace, as a program": "}); globalThis.forged = true; (async function () { return 'forged'",
    "a result that changes while it is read": "let n = 0; return {get a() { return n++ ? () => 1 : 1 }, b: 2}",
    "a result that grows while it is read": "let n = 0; const big = 'x'.repeat(1e6); return {get a() { return n++ ? big : 1 }}",
    "keys that change while they are read": "let n = 0; return new Proxy({}, {ownKeys: () => ['a' + n++], getOwnPropertyDescriptor: () => ({value: n, enumerable: true, configurable: true}), get: () => n})",
    "a list that is none": "return new Proxy([], {get: (t, k) => k === 'length' ? {valueOf: () => 2} : k === 'toJSON' ? undefined : 7})",
    "a promise that settles twice": "return {then(yes, no) { yes(1); no(2); yes(3) }}",
    "a job after the result": "queueMicrotask(() => Promise.resolve().then(() => { throw new Error('late') })); return 1",
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_spoils_its_own_result_at_most(javascript, kind):
    code, value = attack(javascript, FORGERIES[kind], output=100_000)
    assert code in {"value", "exception", "not_json", "output_limit", "syntax", "memory_limit"}, value
    assert_well(javascript)


def test_a_result_is_never_nested_deeper_than_its_limit(javascript):
    # What is read twice may be flat the first time. The host's own code recurses over values.
    source = "let deep = []; for (let i = 0; i < 900; i++) deep = [deep]; let n = 0; return {get a() { return n++ ? deep : 1 }}"
    code, value = attack(javascript, source)
    assert code in {"value", "not_json"}
    depth = 0
    while isinstance(value, (dict, list)) and value:
        value = value["a"] if isinstance(value, dict) else value[0]
        depth += 1
    assert depth <= 256


# ---- checking executes nothing --------------------------------------------------------------------------------------

# Text that closes the function it is put into, so that what follows stands outside of it.
BREAKOUTS = [
    "}); for (;;); (async function () {",
    "}); for (;;); (function () {",
    "}, (() => { for (;;); })(), async function () {",
    "}); for (;;); ({async m() {",
    "}}); for (;;); ({async m() {",
    "}}}); for (;;); ({a: {async m() {",
    "})(); (() => { for (;;); })(); (async function () {",
    "} + (() => { for (;;); })() + function () {",
    "}); label: for (;;) continue label; (async function () { /*",
    "}); throw 1; (async function () {",
    "});\n<!-- html\nfor (;;);\n(async function () {",
    "}, [(() => { for (;;); })()]() {",
    "}, get x() { for (;;); }, y() {",
    "}`${(() => { for (;;); })()}` + function () {",
]
EXPRESSION_BREAKOUTS = [
    "1)}); for (;;); (function () { return (1",
    "1); for (;;); (1",
    "1)}, (() => { for (;;); })(), function () { return (1",
    "1]}); for (;;); (function () { return [1",
    "1)}; for (;;); {(1",
    "1)})((() => { for (;;); })()); (function () { return (1",
    "1); } catch {} for (;;); (() => { return (1",
    "(1)); for (;;); ((1)",
]


@pytest.mark.parametrize("source", BREAKOUTS)
def test_checking_a_program_executes_nothing_of_it(javascript, source):
    begin = time.perf_counter()
    with pytest.raises(SandboxError) as caught:
        javascript.check(source)
    assert caught.value.code == "syntax"
    assert time.perf_counter() - begin < 1
    assert attack(javascript, source, time=0.2)[0] in {"syntax", "timeout", "exception"}


@pytest.mark.parametrize("source", EXPRESSION_BREAKOUTS)
def test_checking_an_expression_executes_nothing_of_it(javascript, source):
    begin = time.perf_counter()
    with pytest.raises(SandboxError) as caught:
        javascript.check(source, expression=True)
    assert caught.value.code == "syntax"
    assert time.perf_counter() - begin < 1
    [found] = javascript.evaluate([source], {}, limits=Limits(time=0.5), seed=1, now=NOW)
    assert (found.kind, found.message[:11]) == ("error", "SyntaxError")


# ---- expressions of one node ----------------------------------------------------------------------------------------

# Each changes something, in one expression or several, that an expression after it could see.
INFLUENCES = {
    "stack traces": ["(Error.prepareStackTrace = (error) => { error.message = 'forged'; return '' }, 1)"],
    "the number of frames": ["(Error.stackTraceLimit = 0, 1)"],
    "a call without brackets": ["input instanceof {[Symbol.hasInstance]: Object.freeze}"],
    "a call of one's own without brackets": [
        "(Error.prepareStackTrace = (it) => { it.a = 666; it.list.length = 0 }, 1)",
        "input instanceof {[Symbol.hasInstance]: Error.prepareStackTrace}",
    ],
    "a call by a class": ["new class extends Array { static { Object.prototype.zz = 1 } }"],
    "a call by spreading": ["[...{[Symbol.iterator]: input.list.values}]", "{...input.list.reverse}"],
    "a call by a template": ["input.list.push`9`", "`${{toString: input.list.pop}}`"],
    "a call by an operator": ["+{valueOf: Object.freeze}", "input in {}", "{__proto__: input.list, toString: [].reverse} + ''"],
    "prototypes of call sites": [
        ("(() => { let found; Error.prepareStackTrace = (_, s) => { found = s; return '' }; String(new Error('x').stack);"
        " if (found?.[0]) { Object.getPrototypeOf(found[0]).zz = Object.getPrototypeOf(Object.getPrototypeOf(found[0])).zz = 1 } return 1 })()"),
    ],
    "the callbacks of the driver": [
        ("(() => { let found = []; Error.prepareStackTrace = (_, s) => { found = s.slice(2).map((x) => x.getFunction?.()); return '' }; String(new Error('x').stack);"
        " for (const f of found) try { f('input.a = 666', 0); f('input', 0); f({mode: 'evaluate', expressions: ['666'], scope: {}}) } catch {} return 1 })()"),
    ],
    "jobs": ["Promise.resolve().then(() => { input.a = 666 }) && 1", "(async () => { await null; input.a = 666 })() && 1"],
    "symbols, weak references, finalizers": ["new FinalizationRegistry(() => { input.a = 666 }).register({}, 1)", "Symbol.for('zz').description"],
    "chance": ["Math.random() + Math.random()", "typeof crypto === 'undefined' ? 1 : crypto.getRandomValues(new Uint8Array(9)).length"],
    "memory that was used": ["typeof Buffer === 'undefined' ? 1 : Buffer.from('secret'.repeat(99)).length", "new Uint8Array(5000).fill(115).length"],
    "what web interfaces keep": [
        "typeof URL === 'undefined' ? 1 : (URL.zz = URL.prototype.zz = 1)",
        "typeof URLSearchParams === 'undefined' ? 1 : [...new URLSearchParams('a=1')].length",
        "typeof TextDecoder === 'undefined' ? 1 : new TextDecoder().decode(new Uint8Array([195]), {stream: true})",
        "typeof structuredClone === 'undefined' ? 1 : structuredClone(input).list.push(9)",
    ],
    "eval": ["(0, eval)('var zz = 1')", "(0, eval)('let zz = 1')", "Function('zz = 1')()", "eval('var zz = input.a = 5')"],
    "code outside of the brackets": ["1)}); Object.prototype.zz = 1; globalThis.zz = 1; (function () { return (1"],
    "the prototype of data": ["input.__proto__.zz = 1", "(input.__proto__ = {zz: 1}).zz", "input.list.constructor.prototype.zz = 1"],
}  # fmt: skip


@pytest.mark.parametrize("kind", INFLUENCES)
def test_no_expression_has_influence_on_another(javascript, kind):
    value = {"a": 1, "list": [3, 1, 2], "deep": {"x": {}}}
    probes = [
        "input", "input.a", "input.list.length", "(input.b = 2, input.b)", "input.deep.x.y.z", "typeof zz", "({}).zz ?? 0",
        "[...input.list].sort()", "(() => { try { null.x } catch (error) { return [error.name, error.message, typeof error.stack] } })()",
        "Math.random()", "new Error('x').stack.length > 0",
    ]  # fmt: skip
    before = INFLUENCES[kind]
    clean = javascript.evaluate([*["0"] * len(before), *probes], {"input": value}, seed=1, now=NOW)
    found = javascript.evaluate([*before, *probes], {"input": value}, seed=1, now=NOW)
    assert found[len(before) :] == clean[len(before) :]
    assert javascript.evaluate([*["0"] * len(before), *probes], {"input": value}, seed=1, now=NOW) == clean


# Everything that an expression can come to, and what of it can be changed. A setter that belongs to the realm, and not to
# the object that it is called on, would be a memory that freezing does not take away.
REALM = """(() => {
  const seen = new Set(), open = [], setters = [];
  const made = [(function* () {})(), (async function* () {})(), [].values(), new Map().entries(), new Set().values(), ''[Symbol.iterator](), 'x'.matchAll(/x/g),
    [].values().map((x) => x), Iterator.from({next() {}}), (function () { return arguments })()];
  const todo = [[globalThis, ''], ...[function* () {}, async () => {}, async function* () {}, ...made.map(Object.getPrototypeOf)].map((it) => [Object.getPrototypeOf(it), '%'])];
  while (todo.length) {
    const [it, path] = todo.pop();
    if (Object(it) !== it || seen.has(it)) continue;
    seen.add(it);
    if (!Object.isFrozen(it)) open.push(path);
    todo.push([Object.getPrototypeOf(it), path + '.__proto__']);
    for (const key of Reflect.ownKeys(it)) {
      const {value, get, set} = Object.getOwnPropertyDescriptor(it, key);
      if (set && !path.endsWith('.prototype') && !['caller', 'arguments', '__proto__', 'constructor', Symbol.toStringTag].includes(key)) setters.push(path + '.' + String(key));
      for (const inner of [value, get, set]) todo.push([inner, path + '.' + String(key)]);
    }
  }
  return {open, setters, enough: seen.size > 500};
})()"""


def test_the_realm_of_expressions_is_frozen_throughout(javascript):
    [found] = javascript.evaluate([REALM], {}, seed=1, now=NOW)
    assert found.value == {"open": [], "setters": [], "enough": True}, found


# ---- bugs of the engine itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted((Path(__file__).parent / "corpus").glob("*.js")), ids=lambda file: file.stem)
def test_an_engine_that_breaks_breaks_alone(javascript, file):
    """Known ways to make engines of this family read and write where they must not: inside of the guest's memory, that is."""
    code, value = attack(javascript, file.read_text("utf-8"), time=2.0)
    assert code in {"value", "exception", "memory_limit", "timeout", "not_json", "crashed"}, value
    assert_well(javascript)


class BrokenGuest:
    """A guest whose memory holds what an attacker likes: what the host is told by it is made up."""

    def __init__(self, guest, answer, length, logs):
        self._guest, self._answer, self._length, self._logs = guest, answer, length, logs
        self.size = guest.size
        self.write = guest.write
        self.call = guest.call

    def call_void(self, name):
        assert name == "run"

    def read(self, at, size):
        if at == 4096:
            return self._answer[:size]
        if size == 16:  # the cells: how long the answer is, what else was needed (nothing), where the answer is
            return struct.pack("<IIII", self._length, 0, 4096, 0)
        return self._logs[:size]


MADE_UP = {
    "nothing": (b"", 0),
    "a length beyond the memory": (b"v1", 2**32 - 1),
    "a length of nothing": (b"v1", 0),
    "a letter that is none": (b"x1", 2),
    "no JSON": (b"v{", 2),
    "no UTF-8": (b'v"\xff\xfe"', 5),
    "NaN": (b"v[NaN,Infinity]", 15),
    "far too many digits": (b"v" + b"9" * 10_000, 10_001),
    "far too deep": (b"v" + b"[" * 100_000, 100_001),
    "an error far too deep": (b"e" + b"[" * 60_000, 60_001),
    "an error of a strange form": (b'e{"code":["x"],"message":{},"stack":7}', 39),
    "an error that is a list": (b"e[1,2,3]", 8),
    "an error without its parts": (b"e{}", 3),
    "an error with a code of the host": (b'e{"code":"input","message":"m","stack":""}', 43),
    "answers that are none": (b'v[["z",1],["v"],[],7,null,"v",{"0":"v"}]', 42),
    "too few answers": (b"v[]", 3),
    "too many answers": (b'v[["v",1],["v",2],["v",3]]', 26),
}
MADE_UP_LOGS = [
    bytes(8),
    b"\xff" * 65536,
    bytes(range(256)) * 32,
    b"\x00\x10\x00\x00\x01\x00\x00\x00" + b"\x09\xff\xff\xff\xff\xc3\x28\x00",
]


@pytest.mark.parametrize("kind", MADE_UP)
def test_whatever_a_broken_guest_says_is_taken_for_an_error(javascript, kind, monkeypatch):
    answer, length = MADE_UP[kind]
    whole = machine.Machine.use

    for logs in MADE_UP_LOGS:

        def broken(self, limits, work, *, waits=True, logs=logs):
            return whole(self, limits, lambda guest: work(BrokenGuest(guest, answer, length, logs)), waits=waits)

        monkeypatch.setattr(machine.Machine, "use", broken)
        code, _ = attack(javascript, "return 1")
        # What is JSON may be the value: a guest may always say what it likes of its own call.
        assert code in {"crashed", "not_json", "exception", "output_limit"} or answer[:2] == b"v["
        with pytest.raises(SandboxError) as caught:
            javascript.evaluate(["1", "2"], {}, seed=1, now=NOW)
        assert caught.value.code in {"crashed", "not_json", "exception", "output_limit"}
        assert sum(len(line.message) for line in caught.value.logs) <= Limits().logs + 100
        monkeypatch.undo()
    assert_well(javascript)


# ---- logs -----------------------------------------------------------------------------------------------------------

LOGS = {
    "another line": ("console.log('one\\n[error] two\\r\\nthree')", [("info", "one\n[error] two\r\nthree")]),
    "another level": ("console.log.call({level: 3}, 'x'); console.debug.apply('error', ['y'])", [("info", "x"), ("debug", "y")]),
    "bytes that are no text": ("console.log('\\ud800\\udc00\\udfff\\0')", [("info", "\U00010000\ufffd\0")]),
    "text of a terminal": ("console.warn('\\x1b[2J\\x1b]0;x\\x07')", [("warning", "\x1b[2J\x1b]0;x\x07")]),
    "a log inside of a log": (
        "console.log({get a() { console.error('inner'); return 1 }}, 'outer')",
        [("error", "inner"), ("info", '{"a":1} outer')],
    ),
    "an argument that throws": (
        "console.log({get a() { throw 1 }}, new Proxy([], {get() { throw 2 }}), {toJSON() { throw 3 }})",
        [("info", "[unreadable] [unreadable] [unreadable]")],
    ),
    "arguments that are none": ("Reflect.apply(console.log, null, {length: 2})", [("info", "undefined undefined")]),
    "a changed Array": ("Array.prototype.map = Array.prototype.join = () => 'x'; Array.prototype[Symbol.iterator] = null; console.log([1], 2)", [("info", "[1] 2")]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOGS)
def test_a_line_of_the_logs_is_what_one_call_wrote(javascript, kind):
    source, lines = LOGS[kind]
    done = javascript.run(source, {}, seed=1, now=NOW)
    assert [(line.level, line.message) for line in done.logs] == lines


@pytest.mark.parametrize("limit", [0, 1, 5, 6, 100, 262_144])
def test_logs_never_exceed_their_limit(javascript, limit):
    source = """
        const o = {toJSON() { console.log('x'.repeat(50)); return 'y'.repeat(1000) }};
        for (let i = 0; i < 2000; i++) console.log(o, 'é'.repeat(i), o);
    """
    done = javascript.run(source, {}, limits=Limits(logs=limit), seed=1, now=NOW)
    assert sum(len(line.message.encode()) + 5 for line in done.logs[:-1]) <= limit
    assert (done.logs[-1].level, "dropped" in done.logs[-1].message) == ("warning", True)


# ---- what goes in ---------------------------------------------------------------------------------------------------


def nested(depth, kind):
    value = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("depth", [200, 400, 900, 5_000, 100_000])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_nested_input_goes_in_or_is_refused(javascript, depth, kind):
    code, value = attack(javascript, "return typeof context.deep", {"deep": nested(depth, kind)})
    assert (code, value) in {("value", "object"), ("input", value)}
    assert code == ("value" if depth <= 400 else code if depth <= 900 else "input")
    assert_well(javascript)


@pytest.mark.parametrize(
    "key",
    ["__proto__", "constructor", "prototype", "toString", "toJSON", "then", "length", "__defineGetter__", "valueOf", "\0", "", "hasOwnProperty", "eval", "arguments"],
)  # fmt: skip
def test_names_of_the_language_are_names_like_others_in_data(javascript, key):
    value = {key: {key: ["forged", {key: 1}]}}
    source = "const copy = {...context.d}; return {same: context.d, copy, keys: Object.keys(context.d), clean: ({}).forged ?? 0, list: [1].length}"
    code, found = attack(javascript, source, {"d": value})
    if key == "then":
        assert code == "value"
        return
    assert (code, found["same"], found["keys"], found["clean"], found["list"]) == ("value", value, [key], 0, 1)
