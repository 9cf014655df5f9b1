"""A workflow written in Python: functions as nodes, standard node types beside them, the same document in the end.

python examples/code_first.py
python examples/code_first.py --save code-first.json && orchestrator graph code-first.json
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from orchestrator_core import NodeContext, NodeError
from orchestrator_core.build import Flow

STOCK = {"chair": 12, "table": 3, "lamp": 0}
PRICES = {"chair": 45, "table": 120, "lamp": 30}


def build() -> Flow:
    """Draw the workflow. Nothing here runs it, and nothing outside of this function knows of it."""
    flow = Flow("shop", name="A small shop", timeout="1m", output="{{ nodes.confirm.output ?? nodes.sorry.output }}")

    start = flow.node("start", "manual")

    @flow.call(for_each="{{ input.lines }}", retry=3, timeout=5)
    async def reserve(line: dict[str, Any], ctx: NodeContext) -> dict[str, Any]:
        """Take one line of the order out of the stock. The first attempt fails, as services do."""
        await asyncio.sleep(0.02)
        if ctx.attempt == 1:
            raise NodeError("the stock does not answer", code="unavailable", retryable=True)
        if STOCK[line["article"]] < line["qty"]:
            raise NodeError(f"no {line['article']} left", code="sold_out", data=line)
        return {**line, "total": PRICES[line["article"]] * line["qty"]}

    total = flow.node("total", "aggregate", fields={"total": {"of": "total", "how": "sum"}})
    large = flow.node("large", "if", condition="{{ input.total > 200 }}")

    @flow.call
    def discount(order: dict[str, Any]) -> dict[str, Any]:
        """A tenth off for large orders."""
        return {"total": round(order["total"] * 0.9, 2)}

    confirm = flow.node("confirm", "set", values={"state": "confirmed", "total": "{{ input.total }}"})
    sorry = flow.node("sorry", "set", values={"state": "refused", "because": "{{ input.message }}"})

    with flow.group("papers", output="{{ nodes.bill.output }}") as papers:
        number = papers.node("number", "crypto", action="uuid")
        bill = papers.node("bill", "set", values={"number": "{{ input }}"})
        number >> bill

    start >> reserve >> total >> large
    large["true"] >> discount
    [discount, large["false"]] >> flow.node("priced", "merge", how="object") >> confirm
    discount >> papers
    reserve["error"] >> sorry
    return flow


def main() -> None:
    """Run it twice, or save it."""
    parser = argparse.ArgumentParser(description="A workflow written in Python.")
    parser.add_argument("--save", type=Path, help="write the document instead of running it")
    given = parser.parse_args()
    flow = build()
    if given.save:
        flow.workflow().dump(given.save)
        print(
            f"{given.save}: the document. It names the functions {', '.join(flow.callables)}, which a program must give."
        )
        return
    for lines in ([{"article": "chair", "qty": 5}, {"article": "table", "qty": 1}], [{"article": "lamp", "qty": 1}]):
        result = flow.run_sync({"lines": lines})
        attempts = [len(record.attempts) for record in result.nodes if record.path.startswith("reserve/")]
        print(f"{result.status}: {result.output}  (attempts of each line: {attempts})")


if __name__ == "__main__":
    main()
