"""A `code` node through the engine, with a fresh sandbox state for every call: medians of several runs."""

import argparse
import statistics
import time
from pathlib import Path

import anyio

from orchestrator_core import Engine, Workflow

SOURCE = "return {x: context.input.x * 2}"
TITLE = "A `code` node, a fresh state for every call"


async def measure(calls: int) -> tuple[float, float]:
    """Median milliseconds of one attempt (as its record has it), and of a whole execution of one node."""
    node = {"id": "double", "type": "code", "config": {"source": SOURCE}}
    workflow = Workflow.from_dict({"schema": 1, "id": "code", "nodes": [node], "edges": []})
    attempts, executions = [], []
    async with Engine() as engine:
        await engine.run(workflow, {"x": 1})  # loads the sandbox
        for number in range(calls):
            begin = time.perf_counter()
            result = await engine.run(workflow, {"x": number})
            executions.append(time.perf_counter() - begin)
            if result.output != {"x": number * 2}:
                raise RuntimeError(f"wrong result: {result}")
            record = result.node("double")
            attempts.append((record.finished_at or 0.0) - (record.started_at or 0.0))
    return statistics.median(attempts) * 1000, statistics.median(executions) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--append", type=Path, help="add the table to this Markdown file")
    arguments = parser.parse_args()
    rounds = [anyio.run(measure, arguments.calls) for _ in range(arguments.rounds)]
    attempt = statistics.median(attempt for attempt, _ in rounds)
    execution = statistics.median(execution for _, execution in rounds)
    lines = [
        f"## {TITLE}",
        "",
        f"`{SOURCE}`, {arguments.calls} calls, medians of {arguments.rounds} rounds. Target: under 1 ms an attempt.",
        "",
        "| what | ms |",
        "|---|---|",
        f"| one attempt, from its start to its recorded end | {attempt:.2f} |",
        f"| a whole execution of this one node | {execution:.2f} |",
        "",
        "Again: `python benchmarks/code_node.py`.",
        "",
    ]
    print("\n".join(lines))
    if arguments.append:
        with arguments.append.open("a", encoding="utf-8") as file:
            file.write("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
