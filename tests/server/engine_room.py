"""What the tests of worker, realms and scheduler share: node types, documents, and an engine room around a storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import attrs

from orchestrator_core import Engine, NodeContext, Workflow, node_type
from orchestrator_server.memory import MemoryStorage
from orchestrator_server.realms import Realms
from orchestrator_server.records import Limits, Tenant, Triggers
from orchestrator_server.sealing import Sealer
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import Storage, TenantStore
from orchestrator_server.worker import Worker

KEYS = {"k1": b"1" * 32}
LONG = 30


@attrs.frozen
class NapConfig:
    seconds: float = 0.0


@node_type("nap")
async def nap(ctx: NodeContext, config: NapConfig, input: Any) -> Any:
    """Works for a while; an effect, so its start is committed first."""
    await anyio.sleep(config.seconds)
    return input


@attrs.frozen
class Empty:
    pass


@node_type("shows")
async def shows(ctx: NodeContext, config: Empty, input: Any) -> Any:
    return {"secrets": sorted(ctx.secrets), "key": ctx.idempotency_key}


@node_type("leaks")
async def leaks(ctx: NodeContext, config: Empty, input: Any) -> Any:
    ctx.log.info(f"the token is {ctx.secrets['token']}")
    return dict(ctx.secrets)


NODES = [nap, shows, leaks]


def document(*nodes: dict[str, Any], name: str = "w", **more: Any) -> dict[str, Any]:
    edges = [{"source": a["id"], "target": b["id"]} for a, b in pairwise(nodes)]
    return {"schema": 1, "id": name, "nodes": list(nodes), "edges": edges, **more}


def node(name: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "config": config}


async def save(store: TenantStore, content: dict[str, Any], *, draft: bool = False) -> Workflow:
    Workflow.from_dict(content)
    version = await store.workflows.save(content["id"], content, triggers=None if draft else Triggers())
    return attrs.evolve(Workflow.from_dict(content), version=version.number)


async def tenant(storage: Storage, name: str = "ann", *, running: int | None = None, **settings: Any) -> TenantStore:
    await storage.tenants.create(Tenant(name, limits=Limits(running), settings=settings))
    return await storage.store(name)


@attrs.define
class Room:
    """An engine with its realms and one worker that works."""

    storage: Storage
    engine: Engine
    realms: Realms
    worker: Worker


@asynccontextmanager
async def room(
    storage: Storage, *, name: str = "w1", work: bool = True, nodes: Sequence[Any] = (), **options: Any
) -> AsyncIterator[Room]:
    async with Engine(node_types=[*NODES, *nodes]) as engine, anyio.create_task_group() as group:
        realms = Realms(engine, storage, Sealer(KEYS, "k1"))
        worker = Worker(engine, realms, storage, name=name, **{"poll": 0.2, "grace": 1.0, **options})
        if work:
            group.start_soon(worker.run)
            await until(lambda: worker.running)
        yield Room(storage, engine, realms, worker)
        worker.stop()


async def until(true: Callable[[], Any], *, seconds: float = LONG) -> None:
    with anyio.fail_after(seconds):
        while True:
            found = true()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return
            await anyio.sleep(0.01)


async def ended(store: TenantStore, execution_id: str, *, seconds: float = LONG) -> str:
    """Wait until an execution has ended, by the store, and say how."""

    async def finished() -> bool:
        row = await store.executions.get(execution_id)
        return row is not None and row.finished_at is not None

    await until(finished, seconds=seconds)
    row = await store.executions.get(execution_id)
    assert row is not None
    return row.status


@asynccontextmanager
async def storages(kind: str, folder: Path) -> AsyncIterator[Storage]:
    if kind == "memory":
        yield MemoryStorage()
        return
    storage = await SqlStorage.open(f"sqlite:///{folder}/test.db")
    try:
        yield storage
    finally:
        await storage.aclose()
