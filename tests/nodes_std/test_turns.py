"""The sandbox is shared out: a tenant that fills it does not keep out the next one."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import Engine, Workflow
from orchestrator_nodes_std.turns import Turns

ENDLESS = "for (;;) {}"
TENANTS = st.sampled_from("abc")
STEPS = st.lists(
    st.tuples(st.just("ask"), TENANTS) | st.tuples(st.sampled_from(["leave", "cancel"]), st.integers(0, 20)),
    max_size=60,
)


class Crowd:
    """Tasks that ask for turns and hold them until they are told to leave."""

    def __init__(self, slots: int, group: anyio.abc.TaskGroup) -> None:
        self.slots = slots
        self.turns = Turns(slots)
        self.group = group
        self.waiting: list[tuple[str, int, anyio.CancelScope]] = []
        self.holding: list[tuple[str, int, anyio.Event]] = []
        self.overtaken: dict[int, Counter[str]] = {}  # by the number of who waits: who got its slot
        self.number = 0

    async def ask(self, tenant: str) -> None:
        self.number += 1
        self.group.start_soon(self._hold, tenant, self.number)
        await settle()

    async def _hold(self, tenant: str, number: int) -> None:
        with anyio.CancelScope() as scope:
            asked = (tenant, number, scope)
            self.waiting.append(asked)
            self.overtaken[number] = Counter()
            try:
                async with self.turns.turn(tenant):
                    self._took(asked)
                    held = (tenant, number, anyio.Event())
                    self.holding.append(held)
                    try:
                        await held[2].wait()
                    finally:
                        self.holding.remove(held)
            finally:
                if asked in self.waiting:
                    self.waiting.remove(asked)

    def _took(self, asked: tuple[str, int, anyio.CancelScope]) -> None:
        tenant, number, _ = asked
        first: dict[str, int] = {}
        for one, other, _ in self.waiting:
            first.setdefault(one, other)
        assert number == first.pop(tenant), "the calls of one are in order"
        self.waiting.remove(asked)
        held = Counter(one for one, _, _ in self.holding)
        free = self.slots - held.total()
        for one, other in first.items():
            if free > 1 or not held[one]:  # it might have had this slot
                self.overtaken[other][tenant] += 1
                assert self.overtaken[other][tenant] <= 1, "nobody is overtaken twice by the same"

    def check(self) -> None:
        held = Counter(one for one, _, _ in self.holding)
        free = self.slots - held.total()
        assert free >= 0
        for tenant, _, _ in self.waiting:
            assert free <= 1, "whoever may have a slot has it"
            assert free == 0 or held[tenant], "the last one is for who has none"
        assert all(count < self.slots for count in held.values()), "nobody has all"


async def settle() -> None:
    for _ in range(4):
        await anyio.lowlevel.checkpoint()


@given(st.integers(2, 4), STEPS)
def test_turns_go_round(slots: int, steps: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as group:
            crowd = Crowd(slots, group)
            for verb, what in steps:
                if verb == "ask":
                    await crowd.ask(what)
                elif verb == "leave" and crowd.holding:
                    crowd.holding[what % len(crowd.holding)][2].set()
                elif verb == "cancel" and crowd.waiting:
                    crowd.waiting[what % len(crowd.waiting)][2].cancel()
                await settle()
                crowd.check()
            while crowd.holding:
                crowd.holding[0][2].set()
                await settle()
            assert not crowd.waiting

    anyio.run(main)


def test_a_slot_that_is_given_to_a_task_cancelled_in_the_same_moment_is_not_lost() -> None:
    """As asyncio's own time-outs cancel: AnyIO would let the task have it first."""
    turns = Turns(2)

    async def ask() -> None:
        async with turns.turn("a"):
            pass

    async def main() -> None:
        async with turns.turn("a"):
            task = asyncio.ensure_future(ask())
            await settle()
        task.cancel()  # it has been given the slot, and does not know it yet
        await settle()
        assert task.cancelled()
        with anyio.fail_after(1):
            await ask()

    anyio.run(main)


def test_one_slot_is_too_few() -> None:
    with pytest.raises(ValueError, match="two slots"):
        Turns(1)


@pytest.mark.anyio
async def test_endless_programs_of_one_tenant_do_not_keep_out_another() -> None:
    loops = Workflow.from_dict(flow({"source": ENDLESS, "timeout": 4}))
    answers = Workflow.from_dict(flow({"source": "return 6 * context.input"}))
    async with Engine() as engine:
        rude, other = engine.realm(tenant="rude"), engine.realm(tenant="other")
        assert (await other.run(answers, 7)).output == 42  # the sandbox is loaded
        count = 3 * (os.cpu_count() or 1) + 3
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(rude.run, loops)
            await anyio.sleep(0.2)
            began = time.monotonic()
            assert (await other.run(answers, 8)).output == 48
            assert time.monotonic() - began < 3, "it would wait for twice as long behind the others"
            group.cancel_scope.cancel()


def flow(config: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "id": "w", "nodes": [{"id": "a", "type": "code", "config": config}]}
