"""Case files: the law by example. ``python -m orchestrator_core.testing.cases FILE…`` runs them.

A case is a YAML file with a workflow of scripted nodes, what happens from outside, and what must come of it, in virtual
time. Each is run on the machine alone and through the engine (on asyncio and trio). One line is printed for each
expectation that is not met, and a count at the end; the exit code is 1 where one fails, 2 where a file is no case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from orchestrator_core.document import Workflow
from orchestrator_core.errors import DocumentError, Fault, IllegalEvent
from orchestrator_core.testing.simulate import simulate
from orchestrator_core.testing.virtual import run_in_engine
from orchestrator_core.types import Json, Result
from orchestrator_core.yaml_text import parse_yaml

__all__ = ["Case", "Ran", "compare", "load_case", "main", "run_on_engine", "run_on_machine"]

_FIELDS = {"title", "law", "workflow", "start", "payload", "pins", "script", "happens", "expect"}


@attrs.frozen
class Case:
    """A case as it stands in its file."""

    title: str
    workflow: Workflow
    expect: Mapping[str, Any]
    payload: Json = None
    start: str | None = None
    pins: Mapping[str, Mapping[str, Json]] = attrs.field(factory=dict)
    script: Mapping[str, Sequence[Mapping[str, Any]]] = attrs.field(factory=dict)
    happens: Sequence[Mapping[str, Any]] = ()
    file: str = ""


@attrs.frozen
class Ran:
    """What came of a case: what :func:`compare` looks at."""

    result: Result
    edges: Mapping[str, str]
    order: Sequence[str]
    max_running: int


def load_case(source: Path | Mapping[str, Any]) -> Case:
    """Read a case from its file, or from the parsed mapping.

    Raises:
        DocumentError: It is no case, or its workflow is no workflow.
    """
    data = parse_yaml(source.read_bytes())[0] if isinstance(source, Path) else source
    if not isinstance(data, Mapping) or "workflow" not in data or not isinstance(data["workflow"], Mapping):
        raise DocumentError([Fault("a case has at least `workflow` and `expect`")])
    unknown = sorted(set(data) - _FIELDS)
    if unknown:
        raise DocumentError([Fault("a case has no such field", f"$.{name}") for name in unknown])
    workflow = Workflow.from_dict({"schema": 1, "id": "case", **data["workflow"]})
    return Case(
        title=str(data.get("title", "")),
        workflow=workflow,
        expect=data.get("expect") or {},
        payload=data.get("payload"),
        start=data.get("start"),
        pins=data.get("pins") or {},
        script=data.get("script") or {},
        happens=data.get("happens") or (),
        file=source.name if isinstance(source, Path) else "",
    )


def run_on_machine(case: Case, *, crashes: bool = False, seed: int = 0) -> Ran:
    """Run a case on the machine alone."""
    run = simulate(
        case.workflow,
        payload=case.payload,
        seed=seed,
        crashes=crashes,
        start=case.start,
        pins=case.pins,
        script=case.script,
        happens=case.happens,
    )
    return Ran(run.result, run.edges, run.order, run.max_running)


def run_on_engine(case: Case, *, backend: str = "asyncio") -> Ran:
    """Run a case through the engine, on ``asyncio`` or ``trio``, in virtual time."""
    result, edges, order, most = run_in_engine(
        case.workflow,
        payload=case.payload,
        start=case.start,
        pins=case.pins,
        script=case.script,
        happens=case.happens,
        backend=backend,
    )
    return Ran(result, edges, order, most)


def compare(case: Case, ran: Ran) -> Iterator[str]:
    """What is not as the case expects, one line each."""
    expect, result = case.expect, ran.result
    unknown = set(expect) - {"status", "output", "error", "nodes", "edges", "finished_at", "max_running", "order"}
    for name in sorted(unknown):
        yield f"expect.{name} is no expectation"
    actual: dict[str, Any] = {
        "status": str(result.status),
        "output": result.output,
        "finished_at": None if result.finished_at is None else round(result.finished_at - result.started_at, 6),
        "max_running": ran.max_running,
        "order": list(ran.order),
    }
    for name, value in actual.items():
        if name in expect and not same(expect[name], value):
            yield f"{name}: expected {expect[name]!r}, got {value!r}"
    if "error" in expect:
        error = None if result.error is None else result.error.to_json()
        yield from _compare_error("error", expect["error"], error)
    nodes = {io.path: io for io in result.nodes}
    for path, fields in (expect.get("nodes") or {}).items():
        if path not in nodes:
            yield f"nodes.{path}: there is no such record"
            continue
        yield from _compare_node(path, fields, nodes[path])
    for edge, state in (expect.get("edges") or {}).items():
        if ran.edges.get(edge) != state:
            yield f"edges[{edge}]: expected {state}, got {ran.edges.get(edge)}"


def _compare_node(path: str, fields: Mapping[str, Any], io: Any) -> Iterator[str]:
    for field, wanted in fields.items():
        if field == "error":
            yield from _compare_error(f"nodes.{path}.error", wanted, None if io.error is None else io.error.to_json())
            continue
        got: Any = len(io.attempts) if field == "attempts" else getattr(io, field, None)
        got = dict(got) if field == "outputs" else str(got) if field == "status" else got
        if not same(wanted, got):
            yield f"nodes.{path}.{field}: expected {wanted!r}, got {got!r}"


def _compare_error(where: str, wanted: Any, got: Any) -> Iterator[str]:
    if wanted is None or got is None:
        if wanted is not got:
            yield f"{where}: expected {wanted!r}, got {got!r}"
        return
    for key, value in wanted.items():
        if not same(value, got.get(key)):
            yield f"{where}.{key}: expected {value!r}, got {got.get(key)!r}"


def same(wanted: Any, got: Any) -> bool:
    """Equal as JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(same(value, got[key]) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    return bool(wanted == got)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run case files and print what fails."""
    files = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    if not files:
        print("usage: python -m orchestrator_core.testing.cases FILE…", file=sys.stderr)
        return 2
    runs: dict[str, Callable[[Case], Ran]] = {
        "machine": run_on_machine,
        "engine on asyncio": run_on_engine,
        "engine on trio": lambda case: run_on_engine(case, backend="trio"),
    }
    passed = failed = broken = 0
    for file in files:
        try:
            case = load_case(file)
        except (DocumentError, OSError) as error:
            print(f"{file}: {str(error).splitlines()[0]}")
            broken += 1
            continue
        for name, run in runs.items():
            try:
                lines = list(compare(case, run(case)))
            except (DocumentError, IllegalEvent, ValueError) as error:
                lines = [f"{type(error).__name__}: {str(error).splitlines()[0]}"]
            failed += bool(lines)
            passed += not lines
            for line in lines:
                print(f"{file} ({name}): {line}")
    print(f"{passed} passed, {failed} failed" + (f", {broken} no cases" if broken else ""))
    return 2 if broken else 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
