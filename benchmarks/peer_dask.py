"""Dask: a task graph run by its local schedulers. It has no asynchronous nodes; what is nearest stands in."""

import time

import dask.local
import dask.threaded
from dask._task_spec import Task, TaskRef

from graphs import Trial, predecessors, tick


def noop(*inputs: int) -> int:
    tick()
    return 1


def suspending(*inputs: int) -> int:
    tick()
    time.sleep(0)
    return 1


class _Dask(Trial):
    name = "Dask"
    how = (
        "`Task` objects and all keys asked for; nodes are plain functions; `dask.get` (synchronous, its fastest), "
        "for the fan-out the threaded scheduler with `time.sleep(0)`"
    )
    packages = ("dask",)

    async def plan(self) -> None:
        function = suspending if self.graph.suspends else noop
        self.tasks = {
            node: Task(node, function, *[TaskRef(source) for source in before])
            for node, before in predecessors(self.graph).items()
        }

    async def run(self) -> None:
        get = dask.threaded.get if self.graph.suspends else dask.local.get_sync
        self.kept: tuple[int, ...] = get(self.tasks, self.graph.ids)

    def results(self) -> int:
        return sum(self.kept)


CONTESTANTS: tuple[type[Trial], ...] = (_Dask,)
