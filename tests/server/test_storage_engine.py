"""The core's engine over this package's storage."""

from __future__ import annotations

import anyio
import attrs
import pytest

from orchestrator_core import Engine, Workflow, node_type
from orchestrator_core.errors import Conflict, OrchestratorError
from orchestrator_core.types import ExecutionStatus
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.records import NewExecution
from orchestrator_server.sql import SqlStorage
from orchestrator_server.testing import Harness
from orchestrator_server.testing.harness import start

pytestmark = pytest.mark.anyio

WORKFLOW = Workflow.from_dict(
    {
        "schema": 1,
        "id": "w",
        "nodes": [{"id": name, "type": "touch"} for name in ("a", "b", "c")],
        "edges": [{"source": "a", "target": "b"}, {"source": "b", "target": "c"}],
    }
)


@attrs.frozen
class NoConfig:
    """Nothing to set."""


class Place:
    """What the nodes touch: an effect outside."""

    def __init__(self) -> None:
        self.touched: list[str] = []
        self.closed: set[str] = set()
        self.reached = anyio.Event()

    def node(self):
        @node_type("touch", version=1)
        async def touch(ctx, config: NoConfig, input: object) -> object:
            self.touched.append(ctx.node_id)
            if ctx.node_id in self.closed:
                self.reached.set()
                await anyio.sleep_forever()
            return [ctx.node_id, input]

        return touch


@pytest.fixture(params=["memory", "sqlite"])
async def storage(request: pytest.FixtureRequest, tmp_path):
    made = MemoryStorage() if request.param == "memory" else await SqlStorage.open(f"sqlite:///{tmp_path}/a.db")
    yield made
    await made.aclose()


async def test_an_execution_goes_on_in_another_engine(storage):
    store = await Harness(storage).tenant()
    event = attrs.evolve(start("exe_a", payload=7), version=None)
    created = await store.executions.create(NewExecution(event, worker="one", lease=0.05))
    place = Place()
    place.closed.add("b")
    options = {"discover": False, "node_types": [place.node()], "journal": store.journal, "tenant": "t"}
    async with Engine(**options) as first:
        execution = await first.resume(WORKFLOW, "exe_a", fence=created.claim.fence)
        await place.reached.wait()
        await anyio.sleep(0.1)
        # The lease is over; somebody else takes it while the first still runs.
        (claim,) = await storage.queue.claim("two", 1, 30.0)
        place.closed.clear()
        async with Engine(**options) as second:
            result = await (await second.resume(WORKFLOW, "exe_a", fence=claim.fence)).result()
        assert result.status is ExecutionStatus.SUCCEEDED
        assert result.output == ["c", ["b", ["a", 7]]]
        await execution.cancel()
        with pytest.raises(Conflict):
            await execution.result()
    assert place.touched == ["a", "b", "b", "c"], "what was finished is not done again, what was going on is"
    row = await store.executions.get("exe_a")
    assert row is not None
    assert (row.status, row.worker, row.fence) == ("succeeded", None, claim.fence)
    outcome = await store.executions.outcome("exe_a")
    assert outcome is not None
    assert outcome.output == ["c", ["b", ["a", 7]]]


async def test_a_deleted_tenant_stops_its_executions(storage):
    store = await Harness(storage).tenant()
    place = Place()
    place.closed.add("b")
    options = {"discover": False, "node_types": [place.node()], "journal": store.journal, "tenant": "t"}
    async with Engine(**options) as engine:
        execution = await engine.start(WORKFLOW, 7)
        await place.reached.wait()
        await storage.tenants.delete("t")
        await execution.cancel()
        with pytest.raises(OrchestratorError):
            await execution.result()
    assert place.touched == ["a", "b"]
