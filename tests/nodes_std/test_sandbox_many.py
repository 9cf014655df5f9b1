"""Many calls: nothing grows, nothing crosses from one to another, and the same gives the same.

With `SANDBOX_SOAK` in the environment the long versions run (`nox -s soak`).
"""

import gc
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError

NOW = 1_700_000_000.0
SOAK = bool(os.environ.get("SANDBOX_SOAK"))
PROC = Path("/proc/self")


@pytest.fixture(scope="module")
def javascript():
    with JavaScript() as runtime:
        yield runtime


def held():
    """Resident bytes, and which files and threads this process has."""
    gc.collect()
    resident = int((PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resident, {*os.listdir(PROC / "fd")}, {*os.listdir(PROC / "task")}  # noqa: PTH208 - names are enough


# Every way in which a call can end, in the proportions of a bad day.
ENDS = [
    "console.log('x', context); return {x: context.input.x * 2, y: 'y'.repeat(100)}",
    "return context",
    "console.error({a: [1, 2, 3]}); throw new Error('x'.repeat(1000))",
    "return await Promise.all(Array.from({length: 50}, async (_, i) => i))",
    "Object.prototype.zz = 1; globalThis.zz = new Array(1000).fill({}); return new Map([['k', [1]]])",
    "return {get a() { throw new TypeError('a') }}",
    "return 'x'.repeat(200000)",
    "return NaN",
    "return (",
]
ENDLESS = "for (;;);"
# The first needs an instance of its own, which is thrown away as those that are stopped.
RARE = [
    "return new Uint8Array(2 << 20).length",
    ENDLESS,
    "const a = []; for (;;) a.push(new Array(10000).fill(1))",
    "const f = () => f(); f()",
]


def call(javascript, number):
    source = RARE[number // 250 % len(RARE)] if number % 250 == 0 else ENDS[number % len(ENDS)]
    limits = Limits(memory=16 << 20, time=0.02 if source == ENDLESS else 5.0)
    try:
        javascript.run(source, {"input": {"x": number}}, limits=limits, seed=number, now=NOW)
    except SandboxError as error:
        return error.code
    return "value"


@pytest.mark.skipif(not PROC.exists(), reason="what is held is read from /proc")
def test_ten_thousand_calls_leave_nothing_behind(javascript):
    for number in range(1_500):
        call(javascript, number)
    resident, files, threads = held()
    ends = {call(javascript, number) for number in range(10_000)}
    resident_after, files_after, threads_after = held()
    assert ends == {"value", "exception", "not_json", "syntax", "timeout", "memory_limit"}
    assert not files_after - files
    assert not threads_after - threads, "those of other tests may end meanwhile, none may come"
    assert resident_after < resident * 1.05


@pytest.mark.skipif(not PROC.exists(), reason="what is held is read from /proc")
def test_runtimes_that_were_closed_leave_nothing_behind():
    def use():
        with JavaScript() as runtime:
            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(lambda n: runtime.run("return 1", {}, seed=n, now=NOW).value, range(8))) == [1] * 8
            call(runtime, 0)

    for _ in range(5):
        use()
    resident, files, threads = held()
    for _ in range(40):
        use()
    resident_after, files_after, threads_after = held()
    assert not files_after - files
    assert not threads_after - threads, "those of other tests may end meanwhile, none may come"
    # A compiled module takes 5 MB, an instance 2: keeping those of 40 runtimes would show.
    assert resident_after < resident + (64 << 20)


TENANT = """
const seen = [globalThis.marker, ({}).marker, Array.prototype.marker, JSON.marker, console.marker, Promise.prototype.marker].filter((it) => it !== undefined);
for (const holder of [globalThis, Object.prototype, Array.prototype, JSON, console, Promise.prototype]) holder.marker = context.marker;
console.log(context.marker);
await null;
if (context.fail) throw new Error(`of ${context.marker}`);
return {seen, marker: context.marker, text: JSON.stringify({...context})};
"""


def test_tenants_on_many_threads_never_cross(javascript):
    threads, calls = 64, 1_000 if SOAK else 60
    wrong = []
    barrier = threading.Barrier(threads)

    def work(tenant):
        barrier.wait()
        for number in range(calls):
            marker, fail = f"tenant-{tenant}-{number}", number % 4 == 3
            try:
                done = javascript.run(TENANT, {"marker": marker, "fail": fail}, seed=tenant, now=NOW)
                given = done.value
                expected = {
                    "seen": [],
                    "marker": marker,
                    "text": json.dumps({"marker": marker, "fail": fail}, separators=(",", ":")),
                }
                logs = done.logs
            except SandboxError as error:
                given, expected, logs = (error.code, error.message), ("exception", f"Error: of {marker}"), error.logs
            if given != expected or [line.message for line in logs] != [marker]:
                wrong.append((marker, given, logs))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert wrong == []


def test_expressions_on_many_threads_never_cross(javascript):
    def work(tenant):
        for number in range(300 if SOAK else 40):
            marker = f"{tenant}-{number}"
            found = javascript.evaluate(["m", "`${m}!`", "m.x.y", "[...m].length"], {"m": marker}, seed=tenant, now=NOW)
            assert [(it.kind, it.value) for it in found] == [
                ("value", marker),
                ("value", f"{marker}!"),
                ("error", None),
                ("value", len(marker)),
            ]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))


SAME = """
const out = [];
for (let i = 0; i < 20; i++) out.push(Math.random());
out.push(Date.now(), new Date().toString(), new Date().getTimezoneOffset(), Object.keys(context), [5, 3, 9, 1].sort(() => Math.random() - 0.5));
out.push([...'zażółć'].sort(), 0.1 + 0.2, 1e21, (123.456).toFixed(1), String(Symbol('x')), Object.keys({b: 1, 2: 1, a: 1, 1: 1}));
out.push(await Promise.race([Promise.resolve('first'), Promise.resolve('second')]), new Error('x').stack, (() => {}).toString());
const weak = new WeakRef({}); out.push(typeof weak.deref());
const other = console.log.constructor('return this')();
out.push(other?.Math.random(), other?.performance?.now?.(), typeof performance === 'undefined' ? 0 : performance.now());
console.log(out);
return JSON.stringify(out);
"""


def test_the_same_seed_clock_and_input_give_the_same_bytes_a_thousand_times(javascript, tmp_path):
    context = {"a": [1, {"b": None}], "z": "text", "m": 0.1}

    def work(_):
        done = javascript.run(SAME, context, seed=42, now=NOW + 0.125)
        return done.value, done.logs

    with ThreadPoolExecutor(4) as pool:
        outcomes = set(pool.map(work, range(1_000)))
    assert len(outcomes) == 1
    with JavaScript(cache_dir=tmp_path) as another:  # an image that is made anew
        assert {(done := another.run(SAME, context, seed=42, now=NOW + 0.125)) and (done.value, done.logs)} == outcomes
    assert javascript.run(SAME, context, seed=43, now=NOW + 0.125).value != outcomes.pop()[0]
