"""Programs made at random: whatever they are, the host lives, comes back in time, and holds no more than before.

They run in a process of their own (this file, as a program), so that a death is a finding: the script that was running
is printed, with the seed that makes it again. `SANDBOX_FUZZ_SCRIPTS` and `SANDBOX_FUZZ_SEED` say how many, and which;
`nox -s soak` runs many.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from test_attacks import ESCAPES, FORGERIES, HELPERS
from test_attacks_limits import BOMBS

from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError

HERE = Path(__file__).resolve()
CORPUS = HERE.parent / "corpus"
NOW = 1_700_000_000.0
TIME = 0.05  # seconds for a script
KNOWN = {"value", "syntax", "exception", "timeout", "memory_limit", "output_limit", "not_json", "crashed", "input"}
SCRIPTS = int(os.environ.get("SANDBOX_FUZZ_SCRIPTS", "2000"))
SEED = int(os.environ.get("SANDBOX_FUZZ_SEED", "1"))

# ---- the grammar ----------------------------------------------------------------------------------------------------

ATOMS = [
    "0", "-0", "1", "-1", "3", "255", "2**31", "2**32-1", "2**53", "NaN", "Infinity", "5e-324", "1n", "-(2n**64n)", "''", "'abc'", "'\\ud800'", "'\\0é漢😀'",
    "'x'.repeat(1000)", "`a${v0}b`", "/a(b)?/g", "/(?<n>x*)*$/u", "/[^]/y", "[]", "[1,2,3]", "[,1,,]", "({})", "({a:1,b:[2]})", "null", "undefined", "true", "Symbol.iterator", "Symbol('s')",
    "context", "this", "globalThis", "v0", "v1", "v2", "v3", "v4", "arguments", "new.target", "new Uint8Array(9)", "new Float64Array([1,NaN,3])", "new ArrayBuffer(16,{maxByteLength:64})",
    "new Map([[1,2],['k',{}]])", "new Set([1,'a'])", "new WeakMap()", "new Date(0)", "new Date(NaN)", "new Error('e')", "new Proxy({},{})", "new Proxy([1,2],{get(t,k){return t[k]}})",
    "Promise.resolve(1)", "Object.create(null)", "[].values()", "(function*(){yield 1;yield 2})()", "(async function*(){yield 1})()", "console", "console.log",
    "({valueOf(){v0=[];return 1}})", "({toString(){v1.length=0;return 'x'}})", "({[Symbol.toPrimitive]:()=>2**31})", "({length:1e3,0:1})", "({get length(){v0=null;return 3}})",
    "({then(r){r(1)}})", "({[Symbol.iterator]:()=>({next:()=>({done:v4>9,value:v4++})})})", "[[[[[[[[]]]]]]]]", "String(v0)", "JSON", "Reflect", "Math", "eval", "1e9", "-1e9", "0.1",
]  # fmt: skip
ASSIGNED = [
    "v0",
    "v1",
    "v2",
    "v3",
    "v0.a",
    "v1[0]",
    "v2.length",
    "v0[v1]",
    "v3.__proto__",
    "globalThis.zz",
    "[v0,v1]",
    "{a:v2,...v3}",
]
BINARY = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "**",
    "<<",
    ">>>",
    "&",
    "|",
    "^",
    "<",
    ">=",
    "==",
    "===",
    "!=",
    "&&",
    "||",
    "??",
    ",",
    "in",
    "instanceof",
]
UNARY = ["!", "~", "+", "-", "typeof ", "void ", "new "]


def fill(pattern, *parts):
    """A strategy of `pattern` with each `%` replaced by what the parts give, in order."""
    pieces = pattern.split("%")
    return st.tuples(*parts).map(lambda given: "".join(a + b for a, b in zip(pieces, (*given, ""), strict=True)))


def expressions(vocabulary):
    """Expressions over the names that the guest really has."""
    statics = st.sampled_from(vocabulary["statics"])
    methods = st.sampled_from(vocabulary["methods"])
    types = st.sampled_from(vocabulary["types"])
    members = st.sampled_from(vocabulary["members"])

    def deeper(e):
        arguments = st.lists(e, max_size=3).map(",".join)
        return st.one_of(
            fill("t(()=>%.call(%,%))", methods, e, arguments),
            fill("t(()=>%.call(%,%))", methods, e, arguments),
            fill("t(()=>%(%))", statics, arguments),
            fill("t(()=>new %(%))", types, arguments),
            fill("t(()=>(%).%(%))", e, members, arguments),
            fill("t(()=>(%).%)", e, members),
            fill("t(()=>(%)[%])", e, e),
            fill("t(()=>(%) % (%))", e, st.sampled_from(BINARY), e),
            fill("t(()=>%(%))", st.sampled_from(UNARY), e),
            fill("t(()=>{%=%})", st.sampled_from(ASSIGNED), e),
            fill("[%,%,...t(()=>[...%])]", e, e, e),
            fill("({a:%,get b(){return %},[t(()=>String(%))]:1})", e, e, e),
            fill("((x,...y)=>%)", e),
            fill("(function(x=%){return %})", e, e),
            fill("(function*(){yield %;yield* [%]})", e, e),
            fill("t(()=>delete (%)[%])", e, e),
            fill("t(()=>(%)`${%}`)", e, e),
            fill("(async()=>{await %;return %})().catch(()=>0)", e, e),
            fill("t(()=>Reflect.construct(%,[%],%))", types, arguments, types),
            fill("t(()=>class extends (%){static x=%;#p=%;get y(){return this.#p}})", types, e, e),
            fill("t(()=>new Proxy(%,{get:(a,b,c)=>%,has:()=>%,ownKeys:()=>[%]}))", e, e, e, e),
            fill("t(()=>Object.defineProperty(%,'length',{get:()=>%}))", e, e),
            fill("t(()=>Object.setPrototypeOf(%,%))", e, e),
            fill("t(()=>((%)?.%??%))", e, members, e),
            fill("`${t(()=>String(%))}`", e),
            fill("t(()=>JSON.stringify(%,(k,v)=>%))", e, e),
            fill("t(()=>Array.from(%,()=>%))", e, e),
            fill("t(()=>eval(String(%)))", e),
        )

    return st.recursive(st.sampled_from(ATOMS), deeper, max_leaves=12)


def statements(e):
    """Statements over the expressions of `e`."""
    return st.one_of(
        fill("v0=%;", e),
        fill("v1=%;", e),
        fill("v2=%;", e),
        fill("v3=%;", e),
        fill("v2=await %;", e),
        fill("for await(const x of t(()=>[...%])){if(n++>99)break;v3=x}", e),
        fill("console.log(%);", e),
        fill("t(()=>{for(const x of %){if(n++>99)break;v3=%}});", e, e),
        fill("t(()=>{for(const k in %){if(n++>99)break;v0=%}});", e, e),
        fill("while(n++<50&&t(()=>%)){v1=%}", e, e),
        fill("t(()=>{try{throw %}catch({message:m,...r}){v2=m}finally{v0=%}});", e, e),
        fill("t(()=>{const {a=%,...b}=%;v1=[a,b]});", e, e),
        fill("t(()=>{switch(%){case %:v0=1;default:v3=2}});", e, e),
        fill("queueMicrotask(()=>t(()=>%));", e),
        fill("t(()=>Promise.resolve(%).then(()=>%).catch(()=>0));", e, e),
        fill("new FinalizationRegistry(()=>t(()=>%)).register({},1);", e),
        fill("t(()=>{Error.prepareStackTrace=(a,b)=>%});", e),
        fill("for(let i=0;i<40;i++)t(()=>(v4=i,%));", e),
        fill("if(t(()=>%)){return %}", e, e),
    )


TOKENS = [
    "",
    ";",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "=>",
    "...",
    "`",
    "${",
    "'",
    "/",
    "\\",
    "\n",
    "async ",
    "function*",
    "class ",
    "yield ",
    "return ",
    "?.",
    "#x",
    "0n",
    "\u2028",
    "<!--",
    "\0",
]


def mutated(snippets, e):
    """A snippet that broke something once, changed in a few places."""

    @st.composite
    def draw_one(draw):
        text = draw(st.sampled_from(snippets))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(text)))
            size = draw(st.sampled_from([0, 0, 1, 2, 5, 20, 200]))
            piece = draw(st.one_of(st.sampled_from(TOKENS), e, st.sampled_from(snippets).map(lambda other: other[:60])))
            text = text[:at] + piece + text[at + size :]
        return text

    return draw_one()


HEAD = "let v0=[],v1={a:1},v2=new Uint8Array(8),v3='s',v4=0,n=0;const t=(f)=>{try{return f()}catch(e){return e}};\n"


def scripts(vocabulary):
    """Whole scripts."""
    e = expressions(vocabulary)
    made = st.lists(statements(e), min_size=1, max_size=6).map(
        lambda lines: HEAD + "\n".join(lines) + "\nreturn [v0,v1,v3];"
    )
    snippets = (
        [HELPERS + text for text in ESCAPES.values()]
        + list(FORGERIES.values())
        + [file.read_text("utf-8") for file in sorted(CORPUS.glob("*.js"))]
    )
    endless = list(BOMBS.values())
    kinds = [made] * 14 + [mutated(snippets, e)] * 5 + [mutated(endless, e)]
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


# What the guest itself says it has: a name that is added is tried without being listed here.
VOCABULARY = """
const statics = [], methods = [], types = [], members = new Set(['length', 'a', '0', 'constructor', '__proto__', 'prototype', 'x']);
const text = (key) => typeof key === 'symbol' ? `[Symbol.${key.description.replace('Symbol.', '')}]` : /^[A-Za-z_$][\\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
for (const name of Object.getOwnPropertyNames(globalThis).sort()) {
  const it = globalThis[name];
  if (typeof it === 'function') statics.push(name);
  if (Object(it) !== it || it === globalThis) continue;
  if (typeof it === 'function' && it.prototype) types.push(name);
  for (const key of Reflect.ownKeys(it)) try { if (typeof it[key] === 'function' && key !== 'prototype') statics.push(name + text(key)) } catch {}
  for (let holder = it.prototype, path = name + '.prototype'; holder && holder !== Object.prototype; holder = Object.getPrototypeOf(holder), path = `Object.getPrototypeOf(${path})`) {
    for (const key of Reflect.ownKeys(holder)) {
      const {value, get} = Object.getOwnPropertyDescriptor(holder, key);
      if (typeof value === 'function') methods.push(path + text(key));
      if (typeof key === 'string' && (typeof value === 'function' || get)) members.add(text(key).startsWith('.') ? key : 'x');
    }
  }
}
return {statics, methods, types, members: [...members]};
"""

# ---- the process that runs them -------------------------------------------------------------------------------------


def held():
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resident, len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def end_of(call):
    """How a call ends, and how many seconds it took."""
    begin = time.perf_counter()
    try:
        call()
    except SandboxError as error:
        return error.code, time.perf_counter() - begin
    return "value", time.perf_counter() - begin


BATCH = 250  # Hypothesis remembers all that it has drawn, for as long as one test runs


class Fuzzer:
    """Runs scripts, and raises AssertionError for what is wrong with how one ends."""

    def __init__(self, record):
        self.runtime = JavaScript(instances=2)
        self.limits = Limits(time=TIME, memory=32 << 20, output=1 << 20)
        self.record = record.open("w+", encoding="utf-8")
        self.ends, self.slowest, self.done = Counter(), 0.0, 0
        # What is loaded when it is first needed is not what is looked for.
        self.runtime.run("return (1).toLocaleString()", {}, seed=1, now=NOW)
        self.runtime.evaluate(["(1).toLocaleString()"], {}, seed=1, now=NOW)
        self.scripts = scripts(self.runtime.run(VOCABULARY, {}, seed=1, now=NOW).value)

    def batch(self, count, number):
        """Run `count` scripts of the seed `number`."""
        settle = settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seed(number)(settle(given(self.scripts)(self.one)))()

    def one(self, script):
        """Run it as a program, and now and then check and evaluate it."""
        self.record.seek(0)
        self.record.truncate()
        self.record.write(script)
        self.record.flush()
        code, spent = end_of(lambda: self.runtime.run(script, {"a": [1]}, limits=self.limits, seed=self.done, now=NOW))
        assert code in KNOWN, code
        assert spent < TIME + 2, f"{spent:.3f} s"  # on a busy machine: that it comes back is what is asked here
        self.ends[code] += 1
        self.slowest = max(self.slowest, spent)
        self.done += 1
        if self.done % 5 == 0:
            code, _ = end_of(lambda: self.runtime.check(script))
            assert code in {"value", "syntax"}, f"checking: {code}"
        if self.done % 3 == 0:
            line = script.rpartition("\n")[2]
            code, _ = end_of(
                lambda: self.runtime.evaluate(
                    [line, script[:200], "1"], {"v0": {"a": 1}}, limits=self.limits, seed=1, now=NOW
                )
            )
            assert code in KNOWN, code
        if self.done % 20 == 0:
            calm = self.runtime.run("return [({}).zz ?? 0, typeof zz, [2, 1].sort()]", {}, seed=1, now=NOW)
            assert calm.value == [0, "undefined", [1, 2]]


def fuzz(count, number, record):
    """Run at least `count` scripts, made by the seed `number`. Answers with what happened."""
    fuzzer = Fuzzer(record)
    before = None
    while fuzzer.done < count:
        fuzzer.batch(BATCH, number * 1_000_000 + fuzzer.done)
        before = before or held()
    after = held()
    fuzzer.runtime.close()
    return {
        "scripts": fuzzer.done,
        "ends": dict(fuzzer.ends),
        "slowest": fuzzer.slowest,
        "before": before,
        "after": after,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scripts", type=int, default=SCRIPTS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--record", type=Path, required=True)
    given_ = parser.parse_args()
    json.dump(fuzz(given_.scripts, given_.seed, given_.record), sys.stdout)


# ---- the test -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what is held is read from /proc")
def test_no_script_kills_hangs_or_fattens_the_host(tmp_path):
    record = tmp_path / "script.js"
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        str(HERE),
        "--scripts",
        str(SCRIPTS),
        "--seed",
        str(SEED),
        "--record",
        str(record),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + SCRIPTS * 0.1, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"seed {SEED}: the host hangs at\n{record.read_text('utf-8')}")
    if done.returncode:
        pytest.fail(
            f"seed {SEED}: the host ended with {done.returncode} at\n{record.read_text('utf-8')}\n{done.stderr[-3000:]}"
        )
    found = json.loads(done.stdout)
    assert found["scripts"] >= SCRIPTS
    # That the scripts are any good: most run, and each way of ending is met.
    assert found["ends"]["value"] > SCRIPTS / 4
    assert {"value", "syntax", "exception", "timeout", "not_json"} <= set(found["ends"])
    (resident, files, threads), (resident_after, files_after, threads_after) = found["before"], found["after"]
    assert (files_after, threads_after) == (files, threads)
    assert resident_after < resident * 1.05 + (16 << 20)


if __name__ == "__main__":
    main()
