"""One tenant's flood, and how long another's executions then take to begin."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from engine_room import LONG, Room, document, node, room, save, storages, tenant

from orchestrator_core import NodeContext, node_type
from orchestrator_server.records import NewExecution

pytestmark = pytest.mark.anyio

# `nox -s soak` asks for the long flood.
LONG_RUN = os.environ.get("ORCHESTRATOR_SOAK") == "1"
FLOOD = 10_000 if LONG_RUN else 600
ASKED = 200 if LONG_RUN else 20
BUSY = 20  # executions of the other tenant at one time, in any case
FLOW = document(node("go", "manual"), node("n", "notes"))


@attrs.frozen
class Empty:
    pass


@attrs.define
class Stage:
    """Two tenants on one worker: ``few`` asks for one execution after the other, ``many`` for many at once."""

    room: Room
    began: list[tuple[int, float]]  # every execution that began: its number, 0 for those of ``many``; and when
    number: int = 0
    overtook: list[int] = attrs.field(factory=list)

    async def ask(self) -> list[float]:
        """How long executions of ``few`` took to begin, in seconds, the quickest first."""
        times = []
        self.overtook.clear()
        for _ in range(ASKED):
            self.number += 1
            known, asked = len(self.began), time.perf_counter()
            handle = await self.room.worker.execute("few", "w", self.number)
            await handle.wait(LONG)
            later = self.began[known:]
            place = [number for number, _ in later].index(self.number)
            self.overtook.append(place)
            times.append(later[place][1] - asked)
        return sorted(times)

    async def keep_busy(self) -> None:
        """``many`` has one execution after the other, each waited for: nothing piles up."""
        while True:
            handle = await self.room.worker.execute("many", "w", 0)
            await handle.wait()


async def pile(here: Room) -> None:
    """Put a pile of executions of ``many`` into the queue."""
    store = await here.realms.store("many")
    workflow = await here.realms.workflow("many", "w")
    realm = await here.realms.for_execution("many", workflow)

    async def some() -> None:
        for _ in range(FLOOD // 50):
            await store.executions.create(NewExecution(realm.accept(workflow, 0)))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(some)


def part(times: list[float], share: float) -> float:
    """Milliseconds within which this share of them had begun."""
    return times[int((len(times) - 1) * share)] * 1000


async def test_a_pile_of_one_tenant_hardly_delays_another(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    began: list[tuple[int, float]] = []

    @node_type("notes")
    async def notes(ctx: NodeContext, config: Empty, input: Any) -> Any:
        """Notes when it began."""
        began.append((input, time.perf_counter()))
        await anyio.sleep(0.01)
        return input

    # As many at one time in either case: what is compared is the pile behind them.
    options: dict[str, Any] = {"nodes": [notes], "concurrency": BUSY}
    async with storages("sqlite", tmp_path) as storage:
        for name in ("few", "many"):
            await save(await tenant(storage, name), FLOW)
        async with room(storage, **options) as here:
            stage = Stage(here, began)
            alone = await stage.ask()
            async with anyio.create_task_group() as group:
                for _ in range(BUSY):
                    group.start_soon(stage.keep_busy)
                busy = await stage.ask()
                group.cancel_scope.cancel()
        async with room(storage, name="w2", work=False, **options) as here:
            await pile(here)
        async with room(storage, name="w3", **options) as here:
            stage = Stage(here, began, number=10_000)
            behind = await stage.ask()
            left = await (await storage.store("many")).executions.unfinished(FLOOD)
    assert left > 0, "the pile was there until the end"
    assert max(stage.overtook) <= 3 * BUSY, "who comes last begins after those that run, not after the pile"
    told = ", ".join(
        f"{name}: p50 {part(times, 0.5):.0f} ms, p99 {part(times, 0.99):.0f} ms"
        for name, times in (("alone", alone), (f"beside {BUSY} that run", busy), (f"before a pile of {FLOOD}", behind))
    )
    record_property("figures", told)
    print(told)  # noqa: T201 - `pytest -s` shows it
    # Medians: the ends of the scale are those of a machine that does something else, too.
    assert part(behind, 0.5) <= 2 * part(busy, 0.5) + 50, told
