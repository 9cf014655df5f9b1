"""The engine against its peers and against bare asyncio: `python benchmarks/engine.py` prints the tables.

Run it from the repository's root, in an environment that holds the packages and `benchmarks/requirements.txt`. What is
not installed is reported as not available, and the rest runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphs import CHAIN, FAN_OUT, LAYERED, SHAPES
from measure import ANSWER
from report import Cell, Report, Section, machine, verdicts

HERE = Path(__file__).resolve().parent
OURS = "ours"
NOT_TRIED = "not tried"
NAMES = {
    "ours": OURS,
    "peer_langgraph": "LangGraph",
    "peer_pydantic_graph": "pydantic-graph",
    "peer_hamilton": "Hamilton",
    "peer_dask": "Dask",
}
SIZES = {CHAIN: (1_000,), FAN_OUT: (10_000,), LAYERED: (1_000, 10_000, 100_000)}
QUICK_SIZES = {CHAIN: (50,), FAN_OUT: (200,), LAYERED: (100, 400)}


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The engine against its peers and against bare asyncio.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds whose medians are told (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small graphs, one round: does everything still run?")
    parser.add_argument("--markdown", "--write", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine with other work")
    parser.add_argument("--shapes", default=",".join(SHAPES), help=f"some of {','.join(SHAPES)}")
    parser.add_argument("--only", default="", help="names of contestants, with commas; floors are always measured")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one process before it is given up")
    parser.add_argument("--memory", type=float, default=8, help="GiB of address space for one process")
    parser.add_argument("--check", action="store_true", help="exit with 1 if ours misses a target that was measured")
    chosen = parser.parse_args(arguments)
    chosen.rounds = 1 if chosen.quick else max(chosen.rounds, 1)
    chosen.shapes = [shape for shape in SHAPES if shape in chosen.shapes.split(",")]
    chosen.only = {name.strip().lower() for name in chosen.only.split(",") if name.strip()}
    return chosen


def ask(order: dict[str, Any], limit: float) -> dict[str, Any]:
    """Have a process of its own carry out an order; its answer, or `reason` with why there is none."""
    command = [sys.executable, str(HERE / "measure.py"), json.dumps(order)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"reason": f"more than {limit:g} s"}
    for line in done.stdout.splitlines():
        if line.startswith(ANSWER):
            answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            return answer
    told = [line for line in done.stderr.splitlines() if line.strip()]
    if told and told[-1].startswith("MemoryError"):
        return {"reason": f"more than {order['memory'] / 2**30:g} GiB"}
    return {"reason": told[-1].strip()[:120] if told else f"ended with code {done.returncode}"}


def add_round(cell: Cell, answer: dict[str, Any], clock: str) -> None:
    """Put the answer of one process into the cell: the median of its repeats is the round's figure."""
    if "reason" in answer:
        cell.reason = answer["reason"]
        return
    cell.nodes = answer["nodes"]
    cell.plan.append(statistics.median(repeat[f"plan_{clock}"] for repeat in answer["repeats"]))
    cell.run.append(statistics.median(repeat[f"run_{clock}"] for repeat in answer["repeats"]))
    # A second repeat finds the memory of the first already claimed.
    cell.growth.append(answer["repeats"][0]["bytes"])


def cells(section: Section, before: Section | None, field: list[dict[str, Any]]) -> list[Cell]:
    """A cell for each contestant; with a reason where it need not be tried (`before`: the same shape, smaller)."""
    made = []
    for place, entry in enumerate(field):
        reason = f"not available ({entry['missing']})" if "missing" in entry else entry["cannot"].get(section.shape)
        failed = before.cells[place].reason if before else None
        if before and failed and not reason:
            reason = failed if failed.startswith(NOT_TRIED) else f"{NOT_TRIED}; {before.size:,}: {failed}"
        made.append(Cell(entry["name"], reason=reason))
    return made


def compare(section: Section, field: list[dict[str, Any]], chosen: argparse.Namespace) -> None:
    """All rounds of one shape and size; a contestant that fails or takes too long once is not tried again."""
    repeats = 1 if chosen.quick or section.size > 1_000 else 5
    for number in range(1, chosen.rounds + 1):
        for entry, cell in zip(field, section.cells, strict=True):
            if cell.reason is not None:
                continue
            told = f"{section.shape} {section.size:,}, round {number} of {chosen.rounds}: {cell.contestant}"
            print(told, file=sys.stderr, flush=True)
            order = {
                "module": entry["module"],
                "contestant": cell.contestant,
                "shape": section.shape,
                "size": section.size,
                "repeats": repeats,
                "memory": int(chosen.memory * 2**30),
            }
            add_round(cell, ask(order, chosen.limit), chosen.clock)


def command_line(chosen: argparse.Namespace) -> str:
    """The command that makes the figures again, without the places of this machine."""
    parts = ["python benchmarks/engine.py"]
    parts.append("--quick" if chosen.quick else f"--rounds {chosen.rounds}")
    if chosen.clock != "wall":
        parts.append(f"--clock {chosen.clock}")
    if len(chosen.shapes) < len(SHAPES):
        parts.append(f"--shapes {','.join(chosen.shapes)}")
    if chosen.only:
        parts.append(f"--only {','.join(sorted(chosen.only))}")
    return " ".join(parts)


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    described = ask({}, chosen.limit)
    if "reason" in described:
        print(f"the contestants could not be listed: {described['reason']}", file=sys.stderr)
        return 2
    field = [{"name": NAMES.get(entry["module"], ""), **entry} for entry in described["contestants"]]
    if chosen.only:
        field = [entry for entry in field if entry["module"] == "floors" or entry["name"].lower() in chosen.only]
    versions = {name: version for entry in field for name, version in entry.get("versions", {}).items()}
    report = Report(
        command=command_line(chosen),
        rounds=chosen.rounds,
        clock=chosen.clock,
        ours=OURS,
        facts=machine(versions),
        how={entry["name"]: entry["how"] for entry in field if "how" in entry},
    )
    sizes = QUICK_SIZES if chosen.quick else SIZES
    for shape in chosen.shapes:
        before = None
        for size in sizes[shape]:
            section = Section(shape, size)
            section.cells = cells(section, before, field)
            before = section
            compare(section, field, chosen)
            report.sections.append(section)
    print(report.text())
    if chosen.markdown:
        chosen.markdown.parent.mkdir(parents=True, exist_ok=True)
        chosen.markdown.write_text(report.markdown(), encoding="utf-8")
    missed = any(met is False for _, met in verdicts(report.sections, report.ours))
    return 1 if chosen.check and missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
