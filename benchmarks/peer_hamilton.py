"""Hamilton: a generated module of `async def` functions, run by its asynchronous driver."""

import sys
from typing import Any

from hamilton import ad_hoc_utils, async_driver, base  # type: ignore[import-untyped]  # it ships no types

from graphs import CHAIN, Trial, predecessors

HEAD = "import asyncio\nfrom graphs import tick\n\n"


class _Hamilton(Trial):
    name = "Hamilton"
    how = (
        "`module_from_source` of an `async def` per node, the asynchronous driver, a dict of all results; the chain "
        "needs a higher recursion limit"
    )
    packages = ("sf-hamilton",)

    async def open(self) -> None:
        if self.graph.shape == CHAIN:
            # Its executor visits a node's predecessors recursively, a few frames for each node.
            sys.setrecursionlimit(max(sys.getrecursionlimit(), 20 * len(self.graph.ids)))

    async def plan(self) -> None:
        body = "    tick()\n    await asyncio.sleep(0)\n" if self.graph.suspends else "    tick()\n"
        functions = [
            f"async def {node}({', '.join(f'{source}: int' for source in before)}) -> int:\n{body}    return 1\n"
            for node, before in predecessors(self.graph).items()
        ]
        module = ad_hoc_utils.module_from_source(HEAD + "\n".join(functions))
        builder = async_driver.Builder().with_modules(module).with_adapters(base.DictResult())
        self.driver: Any = await builder.build()

    async def run(self) -> None:
        self.kept: dict[str, int] = await self.driver.execute(self.graph.ids)

    def results(self) -> int:
        return sum(self.kept.values())


CONTESTANTS: tuple[type[Trial], ...] = (_Hamilton,)
