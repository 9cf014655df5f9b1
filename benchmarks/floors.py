"""The bare floors: what the same graphs cost with nothing but asyncio and dictionaries."""

import asyncio
from collections import deque
from typing import Any

from graphs import FAN_OUT, Graph, Trial, predecessors, tick


async def noop(inputs: dict[str, Any]) -> int:
    tick()
    return 1


async def suspending(inputs: dict[str, Any]) -> int:
    tick()
    await asyncio.sleep(0)
    return 1


class _CreateTask(Trial):
    name = "asyncio.create_task"
    how = "a task per node, made when its predecessors' tasks are done, with the dict of their results"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.function = suspending if graph.suspends else noop

    async def plan(self) -> None:
        self.sources = predecessors(self.graph)
        self.missing = {node: len(sources) for node, sources in self.sources.items()}
        self.targets: dict[str, list[str]] = {node: [] for node in self.graph.ids}
        for source, target in self.graph.edges:
            self.targets[source].append(target)

    async def run(self) -> None:
        function, sources, targets, missing = self.function, self.sources, self.targets, self.missing
        kept: dict[str, int] = {}
        running: set[asyncio.Task[int]] = set()
        over = asyncio.Event()

        def start(node: str) -> None:
            task = asyncio.create_task(function({source: kept[source] for source in sources[node]}), name=node)
            running.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[int]) -> None:
            node = task.get_name()
            kept[node] = task.result()
            running.discard(task)
            for target in targets[node]:
                missing[target] -= 1
                if not missing[target]:
                    start(target)
            if not running:
                over.set()

        for node in [node for node, count in missing.items() if not count]:
            start(node)
        await over.wait()
        self.kept = kept

    def results(self) -> int:
        return sum(self.kept.values())


class _AllTasks(Trial):
    name = "create_task, all at once"
    how = "a task per node, all made beforehand in topological order; each awaits its predecessors' tasks"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.function = suspending if graph.suspends else noop

    async def plan(self) -> None:
        self.sources = predecessors(self.graph)

    async def run(self) -> None:
        function = self.function
        tasks: dict[str, asyncio.Task[int]] = {}

        async def node(sources: list[str]) -> int:
            return await function({source: await tasks[source] for source in sources})

        for name, sources in self.sources.items():
            tasks[name] = asyncio.create_task(node(sources))
        self.kept = {name: await task for name, task in tasks.items()}

    def results(self) -> int:
        return sum(self.kept.values())


class _Gather(Trial):
    name = "asyncio.gather"
    how = "the first node, then one `gather` of those in the middle, then the last; no graph is looked at"

    @classmethod
    def cannot(cls, shape: str) -> str | None:
        return None if shape == FAN_OUT else "knows no order"

    async def plan(self) -> None:
        self.middle = self.graph.ids[1:-1]

    async def run(self) -> None:
        first = await suspending({})
        given = await asyncio.gather(*[suspending({"first": first}) for _ in self.middle])
        last = await suspending(dict(zip(self.middle, given, strict=True)))
        self.kept = [first, *given, last]

    def results(self) -> int:
        return sum(self.kept)


class _Loop(Trial):
    name = "smallest loop"
    how = (
        "counts of predecessors, successor lists, a deque; each node is awaited in place, with the dict of its "
        "predecessors' results, and its result is kept"
    )

    @classmethod
    def cannot(cls, shape: str) -> str | None:
        return "one node at a time" if shape == FAN_OUT else None

    async def plan(self) -> None:
        self.missing = dict.fromkeys(self.graph.ids, 0)
        self.sources: dict[str, list[str]] = {node: [] for node in self.graph.ids}
        self.targets: dict[str, list[str]] = {node: [] for node in self.graph.ids}
        for source, target in self.graph.edges:
            self.missing[target] += 1
            self.sources[target].append(source)
            self.targets[source].append(target)

    async def run(self) -> None:
        missing, sources, targets = self.missing, self.sources, self.targets
        kept: dict[str, int] = {}
        due = deque(node for node, count in missing.items() if not count)
        while due:
            node = due.popleft()
            kept[node] = await noop({source: kept[source] for source in sources[node]})
            for target in targets[node]:
                missing[target] -= 1
                if not missing[target]:
                    due.append(target)
        self.kept = kept

    def results(self) -> int:
        return sum(self.kept.values())


CONTESTANTS: tuple[type[Trial], ...] = (_CreateTask, _AllTasks, _Gather, _Loop)
