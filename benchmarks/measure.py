"""One contestant, one graph, in a process of its own: `python benchmarks/measure.py '{"contestant": …}'`.

The process answers with one line of JSON behind `ANSWER`: seconds by the wall clock and of processor time for plan
and run (one figure for each repeat), and the growth of the resident memory at its peak, in bytes.
"""

import asyncio
import gc
import importlib
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from graphs import SHAPES, Trial, tick

ANSWER = "benchmark-answer: "
MODULES = ("floors", "ours", "peer_langgraph", "peer_pydantic_graph", "peer_hamilton", "peer_dask")
WARM_UP = 30


def memory(field: str) -> int | None:
    """`VmRSS` (resident now) or `VmHWM` (its peak) in bytes; `None` where the system has no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def forget_peak() -> bool:
    """Make the present memory the peak, so that what imports and the input once took does not hide the growth."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak() -> int:
    """The highest resident memory so far, in bytes."""
    seen = memory("VmHWM")
    if seen is not None:
        return seen
    # Second best, as it cannot be reset and outlives exec; its unit is the byte on macOS, else the KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def once(trial: Trial) -> dict[str, float]:
    """Plan and run; raises unless every node ran exactly once and the result speaks for every node."""
    await trial.open()
    try:
        gc.collect()
        forget_peak()
        baseline = memory("VmRSS") or peak()
        before = tick()
        wall, cpu = time.perf_counter(), time.process_time()
        await trial.plan()
        wall_planned, cpu_planned = time.perf_counter(), time.process_time()
        await trial.run()
        wall_done, cpu_done = time.perf_counter(), time.process_time()
        grown = peak() - baseline
        ran, kept, expected = tick() - before - 1, trial.results(), len(trial.graph.ids)
        if (ran, kept) != (expected, expected):
            raise RuntimeError(f"{expected:,} nodes: {ran:,} runs, {kept:,} results")
    finally:
        await trial.close()
    return {
        "plan_wall": wall_planned - wall,
        "run_wall": wall_done - wall_planned,
        "plan_cpu": cpu_planned - cpu,
        "run_cpu": cpu_done - cpu_planned,
        "bytes": float(grown),
    }


def contestants(module: str) -> tuple[type[Trial], ...]:
    """The contestants of one module of `MODULES`; raises `ImportError` where their packages are missing."""
    found: tuple[type[Trial], ...] = importlib.import_module(module).CONTESTANTS
    return found


def find(name: str, module: str) -> type[Trial]:
    """The contestant of that name."""
    return next(kind for kind in contestants(module) if kind.name == name)


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order: `module`, `contestant`, `shape`, `size`, `repeats`, `memory` (the limit in bytes)."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (order["memory"], resource.RLIM_INFINITY))
    kind, shape = find(order["contestant"], order["module"]), SHAPES[order["shape"]]
    asyncio.run(once(kind(shape(WARM_UP))))
    graph = shape(order["size"])
    repeats = [asyncio.run(once(kind(graph))) for _ in range(order["repeats"])]
    return {"repeats": repeats, "nodes": len(graph.ids)}


def describe() -> dict[str, Any]:
    """Every contestant: its module, how it is used, the shapes it cannot do, its versions; or why it is missing."""
    found: list[dict[str, Any]] = []
    for module in MODULES:
        try:
            kinds = contestants(module)
        except ImportError as error:
            # The message itself names places of this machine.
            found.append({"module": module, "missing": f"{error.name or module} is not installed or lacks a name"})
            continue
        found.extend(
            {
                "module": module,
                "name": kind.name,
                "how": kind.how,
                "cannot": {shape: reason for shape in SHAPES if (reason := kind.cannot(shape))},
                "versions": {package: importlib.metadata.version(package) for package in kind.packages},
            }
            for kind in kinds
        )
    return {"contestants": found}


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(ANSWER + json.dumps(measure(wanted) if wanted else describe()), flush=True)
