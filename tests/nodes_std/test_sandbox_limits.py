"""Hostile programs, many threads, and what one call may leave for the next: nothing."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    with JavaScript(cache_dir=tmp_path_factory.getbasetemp() / "sandbox", instances=4) as runtime:
        yield runtime


def run(javascript, source, context=None, **limits):
    return javascript.run(source, context or {}, limits=Limits(**limits), seed=1, now=NOW).value


def fail(javascript, source, context=None, **limits):
    with pytest.raises(SandboxError) as caught:
        run(javascript, source, context, **limits)
    return caught.value


def machine_of(javascript):
    assert_well(javascript)
    return next(iter(javascript._images._loaded[os.getpid()].machines.values()))[0]


def assert_well(javascript):
    assert run(javascript, "return [context.a, ({}).zz ?? 0, typeof zz, [3, 1].sort()]", {"a": 1}) == [
        1,
        0,
        "undefined",
        [1, 3],
    ]


ENDLESS = {
    "loop": "for (;;);",
    "regular expression": "/(a+)+$/.test('a'.repeat(40) + 'b')",
    "microtasks": "const f = () => queueMicrotask(f); f(); return 1",
    "awaits": "for (;;) await null",
    "caught": "for (;;) try { for (;;); } catch {}",
    "getter": "return {get a() { for (;;); }}",
    "toJSON": "return {toJSON() { for (;;); }}",
    "proxy": "return new Proxy([], {get: (t, k) => k === 'length' ? 4e9 : 1})",
    "thenable": "return {then() { for (;;); }}",
    "finally": "try { return 1 } finally { for (;;); }",
    "sparse array": "const a = []; a.length = 4e9; return a",
    "sort": "[1, 2, 3].sort(() => { for (;;); })",
    "generator": "return [...(function* () { for (;;) yield* []; })()]",
    "log of endless": "console.log({get a() { for (;;); }})",
    "logs": "for (;;) console.log('x'.repeat(1 << 20))",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_does_not_end_is_stopped_near_its_limit(javascript, kind):
    assert_well(javascript)  # loading is not what is measured
    begin = time.perf_counter()
    error = fail(javascript, ENDLESS[kind], time=0.2)
    spent = time.perf_counter() - begin
    assert (error.code, error.message) == ("timeout", "stopped after 0.2 seconds")
    assert 0.2 <= spent < 0.2 + 0.25
    assert_well(javascript)


def test_a_limit_of_time_is_not_reached_early(javascript):
    source = "let n = 0; for (let i = 0; i < 3e5; i++) n += i; return n"
    assert [run(javascript, source, time=5) for _ in range(3)] == [44999850000] * 3


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("const a = []; for (;;) a.push('x'.repeat(1e6) + a.length)", "memory_limit"),
        ("const a = []; for (;;) a.push({})", "memory_limit"),
        ("const a = []; for (;;) a.push(a.slice())", "memory_limit"),
        ("return new ArrayBuffer(1 << 30)", "memory_limit"),
        ("return new Array(1e9).fill(1)", "memory_limit"),
        ("let s = 'x'; for (;;) s = s + s + '!'", "exception"),  # ropes: it is the length that ends it
        ("return 'x'.repeat(1 << 30)", "exception"),
    ],
)
def test_memory_ends_at_its_limit(javascript, source, code):
    error = fail(javascript, source, memory=24 << 20, time=5)
    assert error.code == code, error.message
    assert_well(javascript)


def test_a_flood_of_promises_that_fills_the_memory_ends_as_an_error(javascript):
    source = "const f = () => Promise.resolve().then(f); f(); await new Promise(() => {})"
    assert fail(javascript, source, memory=24 << 20, time=5).code in {"memory_limit", "exception"}
    assert_well(javascript)


def test_more_memory_is_there_when_it_is_allowed(javascript):
    source = "const a = new Uint8Array(context.size); a.fill(1); return a.length"
    assert fail(javascript, source, {"size": 48 << 20}, memory=32 << 20).code == "memory_limit"
    assert run(javascript, source, {"size": 48 << 20}, memory=64 << 20) == 48 << 20
    assert fail(javascript, source, {"size": 48 << 20}, memory=32 << 20).code == "memory_limit"


def test_input_that_does_not_fit_is_refused(javascript):
    assert fail(javascript, "return 1", {"text": "x" * (20 << 20)}, memory=16 << 20).code == "memory_limit"
    assert run(javascript, "return context.text.length", {"text": "x" * (4 << 20)}, memory=64 << 20) == 4 << 20
    assert_well(javascript)


@pytest.mark.parametrize(
    "source",
    [
        "return 'x'.repeat(2000)",
        "return 'é'.repeat(999)",
        "return Array(600).fill(1)",
        "return [new Set(Array(999).keys())]",
    ],
)
def test_output_ends_at_its_limit(javascript, source):
    assert fail(javascript, source, output=1000).code == "output_limit"
    assert run(javascript, "return 'x'.repeat(998)", output=1000) == "x" * 998


def test_output_of_expressions_ends_at_its_limit(javascript):
    with pytest.raises(SandboxError) as caught:
        javascript.evaluate(["'x'.repeat(400)"] * 3, {}, limits=Limits(output=1000), seed=1, now=NOW)
    assert caught.value.code == "output_limit"


RECURSIONS = {
    "function": "let d = 0; const f = () => { d++; f() }; try { f() } catch (e) { return [d, String(e)] }",
    "callback": "let d = 0; const f = () => { d++; [1].map(f) }; try { f() } catch (e) { return [d, String(e)] }",
    "reviver": "let d = 0; const f = () => { d++; JSON.parse('[1]', f) }; try { f() } catch (e) { return [d, String(e)] }",
    "replace": "let d = 0; const f = () => { d++; 'a'.replace(/a/, f) }; try { f() } catch (e) { return [d, String(e)] }",
    "sort": "let d = 0; const f = () => { d++; [1, 2].sort(f) }; try { f() } catch (e) { return [d, String(e)] }",
    "proxy": "let d = 0; const p = new Proxy({}, {get: (t, k, q) => { d++; return q[k] }}); try { p.x } catch (e) { return [d, String(e)] }",
    "toString": "let d = 0; const o = {toString() { d++; return `${o}` }}; try { `${o}` } catch (e) { return [d, String(e)] }",
    "toJSON": "let d = 0; const o = {toJSON() { d++; return JSON.stringify(o) }}; try { JSON.stringify(o) } catch (e) { return [d, String(e)] }",
    "construct": "let d = 0; class A { constructor() { d++; new A() } } try { new A() } catch (e) { return [d, String(e)] }",
    "spread": "let d = 0; const f = (...a) => { d++; f(...a, 1) }; try { f() } catch (e) { return [d, String(e)] }",
    "generator": "let d = 0; function* f() { d++; yield* f() } try { [...f()] } catch (e) { return [d, String(e)] }",
    "async": "let d = 0; const f = async () => { d++; await f() }; try { await f() } catch (e) { return [d, String(e)] }",
    "bind": "let d = 0; let f = () => { d++; g() }; const g = f.bind(null).bind(null); try { f() } catch (e) { return [d, String(e)] }",
    "eval": "let d = 0; globalThis.f = () => { d++; (0, eval)('f()') }; try { f() } catch (e) { return [d, String(e)] }",
    "many variables": "let d = 0; const f = () => { d++; let " + ",".join(f"v{i} = {i}" for i in range(3000)) + "; f() }; try { f() } catch (e) { return [d, String(e)] }",
}  # fmt: skip


@pytest.mark.parametrize("kind", RECURSIONS)
def test_deep_recursion_is_a_range_error_that_can_be_caught(javascript, kind):
    depth, error = run(javascript, RECURSIONS[kind])
    assert error == "RangeError: Maximum call stack size exceeded"
    assert depth > (10 if kind == "many variables" else 100)
    assert_well(javascript)


def test_the_limit_of_the_stack_is_where_it_was_set(javascript):
    depths = [run(javascript, RECURSIONS["function"], stack=kib << 10)[0] for kib in (64, 128, 512)]
    assert depths == sorted(set(depths))
    assert depths[2] > 1000
    error = fail(javascript, "const f = (n) => 1 + f(n + 1); return f(0)")
    assert (error.code, error.message) == ("exception", "RangeError: Maximum call stack size exceeded")


@pytest.mark.parametrize(
    "source",
    ["return JSON.parse('['.repeat(1e5) + ']'.repeat(1e5))", "return eval('('.repeat(1e5) + ')'.repeat(1e5))",
     "return new RegExp('(?:'.repeat(1e5) + ')'.repeat(1e5))", "return JSON.stringify([...Array(1e5)].reduce((a) => [a], []))"],
)  # fmt: skip
def test_what_nests_too_deeply_ends_as_an_error(javascript, source):
    assert fail(javascript, source).code == "exception"
    assert_well(javascript)


@pytest.mark.parametrize("kind", ["function", "callback", "sort", "eval"])
def test_recursion_on_a_thread_with_a_small_stack_harms_no_one(tmp_path_factory, kind):
    # On such a thread a guest would run over the end of the stack, and end the process: hence a process of its own.
    program = """
import sys, threading
from pathlib import Path
from orchestrator_nodes_std.sandbox import JavaScript
runtime = JavaScript(cache_dir=Path(sys.argv[1]))
threading.stack_size(256 * 1024)
def work():
    print(runtime.run(sys.argv[2], {}, seed=1, now=1).value[1])
thread = threading.Thread(target=work)
thread.start(); thread.join()
runtime.close()
"""
    cache = tmp_path_factory.getbasetemp() / "sandbox"
    command = [sys.executable, "-c", program, str(cache), RECURSIONS[kind]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "RangeError: Maximum call stack size exceeded\n"), done.stderr


POLLUTION = [
    "Object.prototype.zz = 1; Array.prototype.sort = () => 'zz'",
    "globalThis.zz = 1",
    "(0, eval)('var zz = 1; let yy = 2')",
    "JSON.parse = JSON.stringify = () => 'zz'; Promise.prototype.then = () => {}; Object.keys = () => []",
    "Object.prototype.toJSON = () => 'zz'",
    "Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze(globalThis)",
    "Object.defineProperty(Object.prototype, 'zz', {get: () => 1})",
    "Symbol.for('zz'); console.log = console.constructor.prototype.zz = 1",
    "Date.now = () => 0; Math.random = () => 0",
    "console.log.constructor('return this')().zz = 1",
    "delete globalThis.JSON; delete globalThis.Promise",
]


@pytest.mark.parametrize("source", POLLUTION)
def test_what_one_call_changes_the_next_does_not_see(javascript, source):
    probe = "return [({}).zz ?? 0, typeof zz, typeof yy, [3, 1].sort(), JSON.stringify({a: 1}), Date.now(), Math.random() > 0, Object.isFrozen(Object.prototype), typeof console.log]"
    clean = [0, "undefined", "undefined", [1, 3], '{"a":1}', int(NOW * 1000), True, False, "function"]
    for _ in range(5):  # as many as there are instances, and one more
        with contextlib.suppress(SandboxError):
            run(javascript, source)
        assert run(javascript, probe) == clean
    assert [item.value for item in javascript.evaluate(["({}).zz ?? 0", "typeof zz"], {}, seed=1, now=NOW)] == [
        0,
        "undefined",
    ]


def test_memory_of_one_call_is_not_found_by_the_next(javascript):
    secret = "SECRET-" + "0123456789" * 20
    find = "const a = new Uint8Array(1 << 20); let n = 0; for (let i = 0; i < a.length; i++) n += a[i]; return n"
    for _ in range(3):
        run(
            javascript,
            "globalThis.keep = context.s.repeat(1000); console.log(keep); return keep.length",
            {"s": secret},
            logs=1 << 17,
        )
        assert run(javascript, find) == 0
    machine = machine_of(javascript)
    for guest in machine._idle:
        assert bytes(guest.read(0, guest.size())) == machine._first_state.memory
        assert secret[:20].encode() not in guest.read(0, guest.size())


def test_a_guest_that_was_used_is_as_it_was(javascript):
    machine = machine_of(javascript)
    fresh = machine._new(Limits())
    used = machine._idle[-1]
    assert used.global_value("stack_pointer") == fresh.global_value("stack_pointer")
    assert used.read(0, used.size()) == fresh.read(0, fresh.size())
    fresh.close()


def test_an_instance_that_was_stopped_or_has_grown_is_thrown_away(javascript):
    machine = machine_of(javascript)
    for source in ("for (;;);", "return new Uint8Array(4 << 20).length"):
        before = machine._idle[-1]
        with contextlib.suppress(SandboxError):
            run(javascript, source, time=0.05)
        assert before not in machine._idle
        assert_well(javascript)


def test_the_guest_imports_nothing(javascript):
    assert machine_of(javascript)._linked.module.imports == []


def test_threads_never_see_each_other(javascript):
    source = """
      const seen = globalThis.marker; globalThis.marker = context.marker; Object.prototype.marker = context.marker;
      console.log(context.marker); await null;
      return [seen ?? null, context.marker, Math.random()];
    """

    def work(thread):
        for number in range(200):
            marker = f"{thread}-{number}"
            done = javascript.run(source, {"marker": marker}, seed=thread, now=NOW)
            assert done.value[:2] == [None, marker]
            assert [line.message for line in done.logs] == [marker]
            if number % 50 == 0:
                error = fail(javascript, "throw new Error(context.marker)", {"marker": marker})
                assert error.message == f"Error: {marker}"
        return done.value[2]

    with ThreadPoolExecutor(8) as pool:
        randoms = list(pool.map(work, range(8)))
    assert len(set(randoms)) == 8


def test_time_limits_of_parallel_calls_are_their_own(javascript):
    def work(seconds):
        begin = time.perf_counter()
        assert fail(javascript, "for (;;);", time=seconds).code == "timeout"
        return time.perf_counter() - begin

    def near_their_limits():
        with ThreadPoolExecutor(3) as pool:
            spent = list(pool.map(work, (0.1, 0.3, 0.5)))
        for limit, took in zip((0.1, 0.3, 0.5), spent, strict=True):
            assert took >= limit
        return all(took < limit + 0.3 for limit, took in zip((0.1, 0.3, 0.5), spent, strict=True))

    assert any(near_their_limits() for _ in range(5)), "a busy machine may be late, but not each time"


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else True, reason="one processor"
)
def test_guests_run_in_parallel(javascript):
    # Two that each run until their limit take as long as one: neither waits for the other, nor holds Python's lock.
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda _: fail(javascript, "for (;;);", time=2.0).code, range(2)))
    assert codes == ["timeout"] * 2
    assert time.perf_counter() - begin < 3.5


def test_no_more_instances_than_allowed_run_at_once(tmp_path_factory):
    with JavaScript(cache_dir=tmp_path_factory.getbasetemp() / "sandbox", instances=1) as runtime:
        assert_well(runtime)
        begin = time.perf_counter()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: fail(runtime, "for (;;);", time=0.1), range(3)))
        assert time.perf_counter() - begin > 0.3
        assert len(machine_of(runtime)._idle) <= 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_over_many_calls(javascript):
    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def some(count):
        for number in range(count):
            run(
                javascript,
                "console.log('x'); return {x: context.input.x * 2, y: 'y'.repeat(100)}",
                {"input": {"x": number}},
            )
            if number % 100 == 0:
                fail(javascript, "throw new Error('x')")
                run(javascript, "return new Uint8Array(2 << 20).length")  # a new instance each

    some(500)
    before = resident()
    some(5000)
    assert resident() - before < 4 << 20


def test_closing_waits_and_stops_the_clock(tmp_path_factory):
    runtime = JavaScript(cache_dir=tmp_path_factory.getbasetemp() / "sandbox")
    clock = machine_of(runtime)._clock
    codes = []
    caller = threading.Thread(target=lambda: codes.append(fail(runtime, "for (;;);", time=0.3).code))
    caller.start()
    time.sleep(0.1)
    runtime.close()
    caller.join()
    assert codes == ["timeout"]
    assert not clock._thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        run(runtime, "return 1")
    runtime.close()


def test_a_runtime_that_was_never_used_costs_nothing_to_close(tmp_path):
    before = threading.active_count()
    JavaScript(cache_dir=tmp_path / "none").close()
    assert threading.active_count() == before
    assert not (tmp_path / "none").exists()


def test_the_clock_sleeps_when_no_one_calls(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("orchestrator_nodes_std.sandbox.machine._LINGER", 0.05)
    with JavaScript(cache_dir=tmp_path_factory.getbasetemp() / "sandbox") as runtime:
        clock = machine_of(runtime)._clock
        deadline = time.monotonic() + 5
        while not clock._asleep and time.monotonic() < deadline:
            time.sleep(0.01)
        steps = clock._steps
        time.sleep(0.1)
        assert (clock._asleep, clock._steps) == (True, steps)
        assert fail(runtime, "for (;;);", time=0.1).code == "timeout"  # and wakes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_limits_hold_after_a_fork(tmp_path_factory):
    program = """
import os, sys
from pathlib import Path
from orchestrator_nodes_std.sandbox import JavaScript, Limits, SandboxError
runtime = JavaScript(cache_dir=Path(sys.argv[1]))
runtime.run("return 1", {}, seed=1, now=1)
child = os.fork()
if not child:
    try:
        runtime.run("for (;;);", {}, limits=Limits(time=0.1), seed=1, now=1)
    except SandboxError as error:
        os._exit(42 if error.code == "timeout" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", program, str(tmp_path_factory.getbasetemp() / "sandbox")]
    assert subprocess.run(command, timeout=60, check=False).returncode == 42


@pytest.mark.parametrize(
    "limits",
    [
        {"time": 0},
        {"time": float("nan")},
        {"memory": 1000},
        {"output": 0},
        {"logs": -1},
        {"logs": 1 << 30},
        {"stack": 1 << 30},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)
