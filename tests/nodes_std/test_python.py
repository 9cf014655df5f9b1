"""Python in the sandbox: what programs give, how they fail, what they meet, and that no call sees another."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_core import Engine, Workflow
from orchestrator_nodes_std.sandbox import Limits, LogLine, Python, SandboxError

NOW = 1_767_225_600.0  # 2026-01-01
FEATURES = tomllib.loads((Path(__file__).parent / "python_features.toml").read_text("utf-8"))["feature"]

# A deep stack of lists is not what is tried here.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def python():
    with Python() as runtime:
        yield runtime


@pytest.fixture
def run(python):
    def run(source, value=None, **limits):
        return python.run(source, {"input": value}, limits=Limits(**limits), seed=1, now=NOW)

    return run


@pytest.fixture
def fail(run):
    def fail(source, value=None, **limits):
        with pytest.raises(SandboxError) as caught:
            run(source, value, **limits)
        return caught.value

    return fail


@pytest.mark.parametrize("feature", FEATURES, ids=[entry["name"] for entry in FEATURES])
def test_a_feature_works_or_says_why_not(run, fail, feature):
    if "error" in feature:
        assert feature["error"] in fail(feature["source"]).message
    else:
        assert run(feature["source"]).value == json.loads(feature["result"])


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_json_passes_through_unchanged(python, value):
    given_back = python.run("return context.input", {"input": value}, seed=1, now=NOW).value
    assert json.dumps(given_back) == json.dumps(value)


def test_large_values_go_in_and_out(run):
    rows = [{"name": "x" * 90, "index": index} for index in range(10_000)]  # more than 1 MB
    assert run("return context.input", rows).value == rows


@pytest.mark.parametrize(
    ("source", "code", "message", "line"),
    [
        ("x = 1\nraise ValueError(f'bad {x}')", "exception", "ValueError: bad 1", 2),
        ("def g():\n    return 1 / 0\n\nreturn g()", "exception", "ZeroDivisionError: division by zero", 2),
        ("import json\njson.loads('{')", "exception", "JSONDecodeError", 2),
        ("x = 1\nreturn (", "syntax", "'(' was never closed", 2),
        ("return context.inptu", "exception", "context has no 'inptu': it has input", 1),
        ("class E(Exception):\n    def __str__(self):\n        raise self\nraise E", "exception", "E (its text", 4),
        ("import sys\nsys.exit(3)", "exception", "SystemExit: 3", 2),
        ("raise KeyboardInterrupt", "exception", "KeyboardInterrupt", 1),
    ],
)
def test_an_error_says_what_and_where(fail, source, code, message, line):
    error = fail(source)
    assert (error.code, error.line) == (code, line)
    assert message in error.message
    assert error.snippet == source.split("\n")[line - 1].strip()


def test_check_parses_and_runs_nothing(python):
    python.check("while True: pass")
    with pytest.raises(SandboxError) as caught:
        python.check("x = 1\nfor in y: pass")
    assert (caught.value.code, caught.value.line) == ("syntax", 2)


def test_what_is_printed_goes_to_the_log(run):
    ran = run(
        "import sys\nprint('a\\nb', end='')\nprint('c', {1: 2})\nprint('oh', file=sys.stderr)\nprint('tail', end='')"
    )
    assert ran.logs == (
        LogLine("info", "a"),
        LogLine("info", "bc {1: 2}"),
        LogLine("warning", "oh"),
        LogLine("info", "tail"),
    )


@pytest.mark.parametrize(("source", "code"), [("raise ValueError", "exception"), ("while True: pass", "timeout")])
def test_what_was_printed_until_a_failure_is_kept(fail, source, code):
    error = fail(f"print('before')\n{source}", time=0.2 if code == "timeout" else 30.0)
    assert error.code == code
    assert error.logs == (LogLine("info", "before"),)


def test_logs_end_at_their_limit_and_say_so(run):
    ran = run("for i in range(1000): print('x' * 100)", logs=1000)
    assert sum(len(line.message) for line in ran.logs[:-1]) <= 1000
    assert "dropped" in ran.logs[-1].message


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "return 10 ** 10 ** 9",
        "sum(range(10 ** 15))",
        "[1] * 10 ** 7 == [2] * 10 ** 7 or sorted(range(10 ** 9))",
        "import itertools\nfor _ in itertools.count(): pass",
        "import time\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass",
    ],
)
def test_what_does_not_end_is_stopped_near_its_limit(run, fail, source):
    run("return 1")

    def stopped_near_it():
        started = time.monotonic()
        assert fail(source, time=0.3).code in {"timeout", "memory_limit"}
        return time.monotonic() - started < 0.3 + 0.25

    assert any(stopped_near_it() for _ in range(5)), "a busy machine may be late, but not each time"
    assert run("return 1").value == 1


@pytest.mark.parametrize(
    "source",
    [
        "x = []\nwhile True: x.append('a' * 10 ** 6)",
        "return 'x' * 2 ** 30",
        "return bytearray(2 ** 31 - 1)",
        "x = 'a'\nwhile True: x += x",
    ],
)
def test_memory_ends_at_its_limit(run, fail, source):
    assert fail(source, time=10).code == "memory_limit"
    assert run("return 1").value == 1


def test_memory_that_is_too_little_to_begin_with_is_refused(fail):
    error = fail("return 1", memory=8 * 2**20)
    assert error.code == "memory_limit"
    assert "at least" in error.message


def test_more_memory_is_there_when_it_is_allowed(run):
    assert run("return len(bytearray(200 * 2 ** 20))", memory=300 * 2**20).value == 200 * 2**20


def test_input_that_does_not_fit_is_refused(fail):
    assert fail("return 1", "x" * (40 * 2**20), memory=48 * 2**20).code == "memory_limit"


def test_output_ends_at_its_limit(fail):
    assert fail("return 'x' * 2000", output=1000).code == "output_limit"


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return f()\nreturn f()",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return f(n + 1)\nreturn f(0)",
        "x = []\nfor _ in range(200_000): x = [x]\nreturn repr(x)",
        "import json\nreturn json.loads('[' * 100_000)",
        "x = '(' * 5000 + ')' * 5000\nreturn eval(x)",
        "import ast\nreturn ast.parse('-' * 100_000 + '1')",
        "class A:\n    def __getattr__(self, n): return getattr(self, n + 'x')\nreturn A().x",
    ],
)
def test_recursion_ends_as_an_error(run, fail, source):
    assert fail(source, time=10).code in {"exception", "memory_limit"}
    assert run("return 1").value == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos._exit(3)",
        "import os\nos.abort()",
        "import faulthandler\nfaulthandler._sigsegv()",
        "(lambda: 0).__code__.__class__\nexec((lambda: 0).__code__.replace(co_code=b'\\x64\\xff' * 200, co_stacksize=1))",
    ],
)
def test_a_guest_that_breaks_is_an_error_and_no_more(run, fail, source):
    assert fail(source).code in {"crashed", "exception"}
    assert run("return 1").value == 1


@pytest.mark.parametrize(
    "source",
    [
        "import builtins\nbuiltins.len = lambda x: 42",
        "import json\njson.dumps = None\njson.loads = None",
        "import sys\nsys.modules.clear()",
        "import sys\nsys.modules['json'] = None",
        "import random\nrandom.seed = lambda *a: None",
        "import collections\ncollections.leak = 'secret'",
        "import __main__\n__main__.answer = lambda: b'v1'",
        "import gc\nfor thing in gc.get_objects():\n    try: thing.clear()\n    except Exception: pass",
        "import sys\nsys.setrecursionlimit(5)",
        "import sys\nsys.settrace(lambda *a: None)",
        "import os\nos.environ['LEAK'] = 'secret'",
        "import time\ntime.sleep(1)",
        "x = bytearray(b'secret' * 2 ** 20)\nreturn len(x)",
    ],
)
def test_what_one_call_changes_the_next_does_not_see(run, source):
    probe = """
import builtins, collections, json, os, random, sys, time
return [len("ab"), json.dumps([1]), random.random(), hasattr(collections, "leak"), sys.getrecursionlimit(),
        sys.gettrace() is None, dict(os.environ), time.time(), sorted(sys.modules)]
"""
    before = run(probe).value
    with contextlib.suppress(SandboxError):
        run(source)
    assert run(probe).value == before


def test_the_same_seed_time_and_input_give_the_same(python):
    source = """
import random, time, uuid
return [random.random(), uuid.uuid4(), time.time_ns(), hash("text"), list({"b", "a", "c"}), id(object()), context.input]
"""
    seen = {json.dumps(python.run(source, {"input": [1]}, seed=7, now=NOW).value) for _ in range(100)}
    assert len(seen) == 1
    assert json.dumps(python.run(source, {"input": [1]}, seed=8, now=NOW).value) not in seen


def test_threads_never_see_each_other(python):
    def call(number):
        ran = python.run("print(context.input)\nreturn [context.input] * 3", {"input": number}, seed=number, now=NOW)
        return ran.value == [number] * 3 and ran.logs == (LogLine("info", str(number)),)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(300)))


def test_what_is_interrupted_is_not_met_by_others(python):
    def endless():
        with pytest.raises(SandboxError, match="stopped after"):
            python.run("while True: pass", {"input": None}, limits=Limits(time=0.4), seed=1, now=NOW)

    thread = threading.Thread(target=endless)
    thread.start()
    for _ in range(20):
        assert python.run("return 6 * 7", {"input": None}, seed=1, now=NOW).value == 42
    thread.join()


def test_a_closed_runtime_says_so():
    runtime = Python()
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime.run("return 1", {"input": None}, seed=1, now=NOW)


# --- in a workflow --------------------------------------------------------------------------------------------------


def workflow(source, **config):
    nodes = [{"id": "py", "type": "code", "config": {"language": "python", "source": source, **config}}]
    return Workflow.from_dict({"schema": 1, "id": "w", "nodes": nodes})


def test_python_in_a_workflow():
    source = "print('adding', context.node.id)\nreturn {**context.input, 'total': context.input['qty'] * 3}"
    result = Engine().run_sync(workflow(source), {"qty": 5})
    assert result.output == {"qty": 5, "total": 15}
    assert [line.message for line in result.node("py").logs] == ["adding py"]


def test_python_that_cannot_be_read_is_refused_on_saving():
    faults = Engine().validate(workflow("return ("))
    assert [fault.place for fault in faults] == ["$.nodes[0].config.source"]
    assert "was never closed" in faults[0].message


def test_python_that_fails_fails_its_node_with_its_line():
    result = Engine().run_sync(workflow("x = 1\nreturn context.input['nope']"), {"qty": 5})
    assert result.error is not None
    assert (result.error.code, result.error.data) == (
        "exception",
        {"line": 2, "snippet": "return context.input['nope']"},
    )


def test_without_its_runtime_python_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with Python(cache_dir=tmp_path) as runtime, pytest.raises(SandboxError, match="pip install") as caught:
        runtime.run("return 1", {"input": None}, seed=1, now=NOW)
    assert caught.value.code == "not_installed"
    [fault] = Engine().validate(workflow("return 1"))
    assert fault.place == "$.nodes[0].config.language"
    assert "pip install" in fault.message
