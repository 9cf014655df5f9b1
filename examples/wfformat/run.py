"""Replays recorded scientific workflows: every task becomes a node that takes as long as the task once took.

The files are WfFormat, the format in which the WfCommons project (wfcommons.org) publishes traces of workflows that
really ran. Versions 1.4 and 1.5 are read, and the task lists of older ones:

    python examples/wfformat/run.py FILE...                       # the critical path of each takes 3 seconds
    python examples/wfformat/run.py FILE --scale 0.01             # a hundred times faster than it was
    python examples/wfformat/run.py FILE --parallel 8             # as if there were eight processors
    python examples/wfformat/run.py FILE --save replay.json       # the workflow as a file, too

It checks that every task ran once and began after all its parents had ended, and prints how long the whole took (the
makespan) beside the critical path: the sum of run times along the slowest chain, which nothing can be faster than.

Exit codes: 0 all well, 1 a run failed or broke the order, 2 a file that cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from orchestrator_core import DocumentError, Engine, NodeContext, Workflow
from orchestrator_core.build import Flow

CRITICAL_PATH = 3.0


class NotUsable(Exception):  # noqa: N818 - it is about the file
    """A file cannot be replayed; the text says what is wrong with it."""


@attrs.frozen
class Task:
    """One recorded task: its run time in seconds, and the tasks it waited for."""

    id: str
    seconds: float
    parents: tuple[str, ...]


@attrs.define
class Diary:
    """What the nodes themselves say: when each began and ended, in seconds of a monotonic clock."""

    began: dict[str, list[float]] = attrs.field(factory=dict)
    ended: dict[str, list[float]] = attrs.field(factory=dict)

    async def work(self, _input: Any, ctx: NodeContext, seconds: float) -> None:
        """Take as long as the task."""
        self.began.setdefault(ctx.node_id, []).append(time.perf_counter())
        await anyio.sleep(seconds)
        self.ended.setdefault(ctx.node_id, []).append(time.perf_counter())


async def work(_input: Any, seconds: float) -> None:
    """What a saved workflow calls: ``orchestrator run replay.json --callable work=run:work``, in this folder."""
    await anyio.sleep(seconds)


# --- reading ------------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Task]:
    """The tasks of a WfFormat file, in the file's order.

    Raises:
        NotUsable: It is no such file, or something in it does not fit together.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise NotUsable(f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotUsable(f"is not JSON: {error}") from error
    workflow = document.get("workflow") if isinstance(document, dict) else None
    if not isinstance(workflow, dict):
        raise NotUsable("is not WfFormat: there is no object `workflow` at its top")
    listed, times = _parts(workflow)
    ids = [_id_of(task, index) for index, task in enumerate(listed)]
    if repeated := [id for index, id in enumerate(ids) if id in ids[:index]] if len(set(ids)) < len(ids) else []:
        raise NotUsable(f"has the task {repeated[0]!r} twice")
    parents: dict[str, dict[str, None]] = {id: {} for id in ids}
    for id, task in zip(ids, listed, strict=True):
        for name, of, to in (("parents", None, id), ("children", id, None)):
            for other in _ids_in(task, name, id):
                if other not in parents:
                    raise NotUsable(f"has no task {other!r}, which task {id!r} names among its {name}")
                parents[to or other][of or other] = None
    return [Task(id, _seconds(times.get(id), id), tuple(parents[id])) for id in ids]


def _parts(workflow: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The tasks as they are specified, and the run time of each."""
    specification, execution = workflow.get("specification"), workflow.get("execution")
    if isinstance(specification, dict):
        listed = _objects(specification.get("tasks"), "workflow.specification.tasks")
        if not isinstance(execution, dict):
            raise NotUsable("has no `workflow.execution`: without run times it cannot be replayed")
        ran = _objects(execution.get("tasks"), "workflow.execution.tasks")
        return listed, {str(task.get("id")): task.get("runtimeInSeconds") for task in ran}
    # Before 1.5 there was one list, and before 1.4 other words.
    place = "tasks" if "tasks" in workflow else "jobs"
    if place not in workflow:
        raise NotUsable(
            "is not WfFormat: there is neither `workflow.specification.tasks` (1.5) nor `workflow.tasks` (1.4)"
        )
    listed = _objects(workflow[place], f"workflow.{place}")
    return listed, {_id_of(t, n): t.get("runtimeInSeconds", t.get("runtime")) for n, t in enumerate(listed)}


def _objects(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise NotUsable(f"is not WfFormat: `{place}` must be a list of tasks")
    return value


def _id_of(task: Mapping[str, Any], index: int) -> str:
    # Parents and children have always been named by what identifies a task: its id, or its name where there is none.
    id = task.get("id", task.get("name"))
    if not isinstance(id, str) or not id:
        raise NotUsable(f"has a task without an `id`, number {index}")
    return id


def _ids_in(task: Mapping[str, Any], name: str, id: str) -> list[str]:
    value = task.get(name, [])
    if not isinstance(value, list) or not all(isinstance(other, str) for other in value):
        raise NotUsable(f"has `{name}` of task {id!r} that are no list of ids")
    return value


def _seconds(value: Any, id: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        why = "no run time" if value is None else f"the run time {value!r}"
        raise NotUsable(f"has {why} for task {id!r}: `runtimeInSeconds` must be 0 or more")
    return float(value)


# --- the workflow ----------------------------------------------------------------------------------------------------------


def critical_path(tasks: Sequence[Task]) -> float:
    """The seconds of the slowest chain.

    Raises:
        NotUsable: The tasks wait for each other in a circle.
    """
    times = {task.id: task for task in tasks}
    waiting = {task.id: len(task.parents) for task in tasks}
    children: dict[str, list[str]] = {task.id: [] for task in tasks}
    for task in tasks:
        for parent in task.parents:
            children[parent].append(task.id)
    end: dict[str, float] = {}
    ready = [id for id, count in waiting.items() if count == 0]
    while ready:
        id = ready.pop()
        end[id] = times[id].seconds + max((end[parent] for parent in times[id].parents), default=0.0)
        for child in children[id]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if len(end) < len(tasks):
        stuck = next(id for id in waiting if id not in end)
        raise NotUsable(f"has tasks that wait for each other in a circle, at or before {stuck!r}")
    return max(end.values())


def node_ids(tasks: Sequence[Task]) -> dict[str, str]:
    """A node id for each task: what of its id may stand in one, made unique."""
    taken: dict[str, str] = {}
    for task in tasks:
        stem = "t_" + re.sub(r"[^A-Za-z0-9_]+", "_", task.id)[:50]
        id, number = stem, 1
        while id in taken:
            number += 1
            id = f"{stem}_{number}"
        taken[id] = task.id
    return {original: id for id, original in taken.items()}


def build(tasks: Sequence[Task], *, name: str, scale: float, parallel: int | None, diary: Diary) -> Flow:
    """The workflow that does what was recorded."""
    ids = node_ids(tasks)
    flow = Flow(re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:60] or "replay", name=name, max_parallel=parallel)
    nodes = {
        task.id: flow.call(
            diary.work,
            id=ids[task.id],
            name=task.id,
            function_name="work",
            arguments={"seconds": task.seconds * scale},
        )
        for task in tasks
    }
    for task in tasks:
        for parent in task.parents:
            nodes[parent] >> nodes[task.id]
    flow.output = len(tasks)
    return flow


def broken_rules(tasks: Sequence[Task], diary: Diary) -> list[str]:
    """What a run did wrong, in words."""
    ids = node_ids(tasks)
    wrong = []
    for task in tasks:
        began, ended = diary.began.get(ids[task.id], []), diary.ended.get(ids[task.id], [])
        if len(began) != 1 or len(ended) != 1:
            wrong.append(f"{task.id} began {len(began)} times and ended {len(ended)} times")
            continue
        wrong += [
            f"{task.id} began before {parent} had ended"
            for parent in task.parents
            if not any(moment <= began[0] for moment in diary.ended.get(ids[parent], []))
        ]
    return wrong


# --- running --------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Replay:
    """What a run gave: seconds, and what it did wrong."""

    tasks: int
    edges: int
    critical_path: float
    makespan: float
    wrong: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How much longer than the critical path it took."""
        return self.makespan / self.critical_path if self.critical_path else math.nan


async def replay(workflow: Workflow, tasks: Sequence[Task], *, scale: float, diary: Diary) -> Replay:
    """Run it, and look at what happened."""
    async with Engine(discover=False, callables={"work": diary.work}) as engine:
        engine.plan(workflow)  # checked before the clock runs, as a server does when a workflow is saved
        began = time.perf_counter()
        result = await engine.run(workflow)
        makespan = time.perf_counter() - began
    wrong = broken_rules(tasks, diary)
    if result.status != "succeeded":
        wrong.insert(0, f"the execution {result.status}: {result.error.message if result.error else 'no error'}")
    path = critical_path(tasks) * scale
    return Replay(len(tasks), len(workflow.edges), path, makespan, tuple(wrong))


def _replay_file(path: Path, given: argparse.Namespace) -> Replay:
    tasks = read(path)
    path_seconds = critical_path(tasks)
    scale = given.scale if given.scale is not None else given.critical_path / path_seconds if path_seconds else 1.0
    diary = Diary()
    try:
        workflow = build(tasks, name=path.stem, scale=scale, parallel=given.parallel, diary=diary).workflow()
    except DocumentError as error:
        raise NotUsable(f"makes no workflow: {error.faults[0]}") from error
    if given.save:
        workflow.dump(given.save)
        print(
            f"saved {given.save} (to run it, in the folder of this script: orchestrator run FILE --callable work=run:work)"
        )
    return anyio.run(lambda: replay(workflow, tasks, scale=scale, diary=diary))


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay files and print a line for each; returns the exit code."""
    parser = argparse.ArgumentParser(description="Replay recorded scientific workflows (WfFormat).")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--scale", type=_positive, help="what each run time is multiplied with")
    speed.add_argument(
        "--critical-path",
        type=_positive,
        default=CRITICAL_PATH,
        help=f"how many seconds the slowest chain shall take (default {CRITICAL_PATH})",
    )
    parser.add_argument("--parallel", type=_count, help="how many tasks at one time (default: no limit)")
    parser.add_argument("--save", type=Path, help="write the workflow here (.json or .yaml); with one FILE only")
    given = parser.parse_args(arguments)
    if given.save and len(given.files) > 1:
        parser.error("--save takes one FILE")
    code = 0
    heading = f"{'workflow':<44} {'tasks':>6} {'edges':>6} {'critical path':>14} {'makespan':>10} {'ratio':>7}\n"
    for path in given.files:
        try:
            done = _replay_file(path, given)
        except NotUsable as error:
            print(f"{path}: {error}", file=sys.stderr)
            code = 2
            continue
        print(
            f"{heading}{path.stem[:44]:<44} {done.tasks:>6} {done.edges:>6} {done.critical_path:>12.3f} s "
            f"{done.makespan:>8.3f} s {done.ratio:>7.3f}"
        )
        heading = ""  # it stands above the first line only: where there is none, the errors stand alone
        for line in done.wrong[:10]:
            print(f"  wrong: {line}", file=sys.stderr)
        code = max(code, 1) if done.wrong else code
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
