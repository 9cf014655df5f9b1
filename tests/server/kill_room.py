"""What the tests share that kill, stop and starve real processes: the processes, clients that never give up, and the audit.

The processes are ``orchestrator serve`` and ``orchestrator worker`` as an operator starts them, over a real database; the clients
speak HTTP to them. What a client was told (every 2xx) is kept, and :func:`audit` holds it against what the database has.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
from api_client import KEY
from engine_room import document, node

from orchestrator_core.events import AttemptSucceeded, ExecutionEnded, ExecutionStarted
from orchestrator_server.auth import new_key
from orchestrator_server.records import ExecutionQuery, ExecutionRow, Tenant
from orchestrator_server.sql import SqlStorage
from orchestrator_server.storage import TenantStore

HERE = Path(__file__).parent
BUSY = 8.0  # seconds by which a busy machine may be late
_ITEMS = 5

# --- processes --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def install_nodes(folder: Path) -> str:
    """What ``pip install`` would leave of the plugin; the import path with it."""
    info = folder / "site" / "kill_nodes-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kill-nodes\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nkills = kill_nodes\n")
    return os.pathsep.join([str(info.parent), str(HERE)])


@attrs.define(eq=False)
class House:
    """A database, and the processes over it."""

    folder: Path
    database: str
    storage: SqlStorage
    store: TenantStore
    credential: str
    lease: float
    port: int = attrs.field(factory=free_port)
    started: list[subprocess.Popen[bytes]] = attrs.field(factory=list)

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(
        self, *words: str, point: str = "none", count: int = 1, database: str = "", **environment: str
    ) -> subprocess.Popen[bytes]:
        """The command in a process of its own. What it prints is in the house's log."""
        command = [sys.executable, str(HERE / "run_orchestrator.py"), point, str(count), *words]
        told = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
        told |= {
            "PYTHONPATH": install_nodes(self.folder),
            "ORCHESTRATOR_DATABASE": database or self.database,
            "ORCHESTRATOR_SECRET_KEYS": KEY,
            "ORCHESTRATOR_LEASE": str(self.lease),
            "ORCHESTRATOR_LOG_LEVEL": "warning",
            **environment,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=told, stdout=log, stderr=log)
        self.started.append(process)
        return process

    async def serve(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """`orchestrator serve` that answers."""
        process = self.start("serve", "--port", str(self.port), *words, **more)
        async with self.client() as http:
            while process.poll() is None and not await _ready(http):
                await anyio.sleep(0.05)
        return process

    async def work(self, **more: Any) -> subprocess.Popen[bytes]:
        """`orchestrator worker` that is at work."""
        before = self.log.read_bytes().count(b"at work")
        process = self.start("worker", **more)
        while process.poll() is None and self.log.read_bytes().count(b"at work") == before:
            await anyio.sleep(0.05)
        return process

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.credential}", "x-tenant-id": "acme"}
        address = f"http://127.0.0.1:{self.port}/api/v1"
        return httpx.AsyncClient(base_url=address, headers=headers, timeout=10, trust_env=False)

    async def rows(self, *statuses: Any) -> list[ExecutionRow]:
        found: list[ExecutionRow] = []
        cursor: str | None = None
        while True:
            query = ExecutionQuery(statuses=statuses, sort="created_at", limit=200, after=cursor)
            page = await self.store.executions.list(query)
            found += page.executions
            cursor = page.next
            if cursor is None:
                return found

    async def held_by(self, process: subprocess.Popen[bytes]) -> list[ExecutionRow]:
        """What the database says that a process holds."""
        return [row for row in await self.rows("running") if row.worker and f"-{process.pid}-" in row.worker]

    async def all_ended(self, *, seconds: float = 60.0) -> None:
        """Return when nothing is left to do."""
        with anyio.move_on_after(seconds):
            while await self.rows("running", "waiting"):
                await anyio.sleep(0.1)
        left = await self.rows("running", "waiting")
        assert not left, f"{len(left)} executions do not end, such as {left[0]}; {self.said()}"

    def said(self) -> str:
        """The end of what the processes have printed."""
        return self.log.read_text(errors="replace")[-4000:]


async def _ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/ready")).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def house(folder: Path, database: str = "", *, lease: float = 1.0) -> AsyncIterator[House]:
    """A database with a tenant and its key. What was started is ended."""
    url = database or f"sqlite:///{folder}/data.db"
    storage = await SqlStorage.open(url, patience=5.0)
    made: House | None = None
    try:
        await storage.tenants.create(Tenant("acme"))
        key, credential = new_key("acme", "admin", now=time.time())
        await storage.keys.create(key)
        made = House(folder, url, storage, await storage.store("acme"), credential, lease)
        made.log.touch()
        yield made
    finally:
        for process in made.started if made is not None else ():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        await storage.aclose()


# --- what is executed ---------------------------------------------------------------------------------------------------


def noting(name: str, notes: Path, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    return {**node(name, "kills.note", file=str(notes), seconds=seconds), **more}


def _code(name: str, source: str) -> dict[str, Any]:
    return node(name, "code", source=source)


def documents(notes: Path) -> list[dict[str, Any]]:
    """Workflows of every kind: effects and pure nodes, branches, items, waits for a time and a signal, all triggers."""
    total = _code("total", "return {n: context.input.n, total: context.input.n * 3}")
    hook = node("hook", "webhook", path="orders", respond="immediately", idempotency={"header": "X-Delivery"})
    orders = document(
        hook, total, noting("note_a", notes, 0.05), name="orders", output="{{ nodes.note_b.output.total }}"
    )
    orders["nodes"] += [
        node("even", "if", condition="{{ input.n % 2 == 0 }}"),
        node("pause", "wait", **{"for": 0.2}),
        node("odd", "set", values={"total": "{{ input.total }}"}),
        noting("note_b", notes),
    ]
    orders["edges"] += [
        {"source": "note_a", "target": "even"},
        {"source": "even", "port": "true", "target": "pause"},
        {"source": "even", "port": "false", "target": "odd"},
        {"source": "pause", "target": "note_b", "key": "either"},
        {"source": "odd", "target": "note_b", "key": "either"},
    ]
    orders["output"] = "{{ nodes.total.output.total }}"
    each = noting("each_note", notes, 0.02, for_each="{{ nodes.items.output }}")
    items = _code("items", f"return Array.from({{length: {_ITEMS}}}, (_, i) => context.input.n + i)")
    total_of = _code("total", "return context.input.reduce((a, b) => a + b, 0)")
    return [
        orders,
        document(node("go", "manual"), items, each, total_of, name="fans"),
        document(
            node("go", "manual"),
            noting("note_a", notes),
            node("ask", "wait", signal="yes"),
            noting("note_b", notes),
            name="asks",
        ),
        document(node("go", "manual"), node("ask", "wait", signal="yes"), noting("note_b", notes), name="asked"),
        document(
            node("go", "manual"), noting("note_a", notes), node("inner", "workflow", workflow="asked"), name="nests"
        ),
        document(
            node("go", "manual"),
            noting("note_a", notes, 0.1),
            node("s", "set", values={"n": "{{ input.n }}"}),
            name="calls",
        ),
        document(node("tick", "schedule", every=1, overlap="allow"), noting("note_a", notes, 0.1), name="ticks"),
    ]


def expected_output(workflow: str, payload: Any) -> Any:
    if workflow == "orders":
        return payload["n"] * 3
    if workflow == "fans":
        return sum(payload["n"] + number for number in range(_ITEMS))
    if workflow in {"asks", "asked", "nests"}:
        return {"by": payload["n"]}
    return {"n": payload["n"]} if workflow == "calls" else payload


def noted_paths(workflow: str) -> set[str]:
    if workflow == "fans":
        return {f"each_note/{number}" for number in range(_ITEMS)}
    if workflow == "asked":
        return {"note_b"}
    return {"note_a", "note_b"} if workflow in {"orders", "asks"} else {"note_a"}


# --- clients ------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Clients:
    """Clients that ask again, with the same key, until they are answered; and what they were told."""

    house: House
    told: dict[str, str] = attrs.field(factory=dict)  # workflow and number -> execution, for every 2xx
    outputs: dict[str, Any] = attrs.field(factory=dict)  # execution -> the output that was answered
    statuses: Counter[int] = attrs.field(factory=Counter)
    pace: float = 0.03
    kinds: Sequence[str] = ("_order", "_order", "_fan", "_ask", "_nest", "_call", "_call")
    _stopping: bool = False
    _asking: dict[str, str] = attrs.field(factory=dict)  # what is asked for -> what was said last
    _answered: anyio.Event = attrs.field(factory=anyio.Event)
    _http: httpx.AsyncClient | None = None

    @property
    def count(self) -> int:
        return len(self.told)

    async def run(self) -> None:
        """Until :meth:`rest`; what has begun is asked for until it is answered."""
        async with self.house.client() as self._http:
            await self._save()
            async with anyio.create_task_group() as group:
                for number, kind in enumerate(self.kinds):
                    group.start_soon(self._repeat, getattr(self, kind), number * 1_000_000)
            await self._ask_until("POST", "/workflows/ticks/activate", {"version": None})
        self._answered.set()

    async def rest(self) -> None:
        """Return when nothing more happens: all who asked were answered, no slot comes any more, and all executions have ended."""
        self._stopping = True
        with anyio.move_on_after(60):
            await self._answered.wait()
        assert self._answered.is_set(), f"these are not answered: {self._asking}; {self.house.said()}"
        await self.house.all_ended()

    async def _save(self) -> None:
        for content in documents(self.house.notes):
            response = await self._ask_until("POST", "/workflows", content)
            assert response.status_code in {201, 409}, response.text  # its answer may have been lost

    async def _repeat(self, kind: Callable[[int], Any], number: int) -> None:
        while not self._stopping:
            await kind(number)
            number += 1
            await anyio.sleep(self.pace)

    async def _order(self, number: int) -> None:
        headers = {"X-Delivery": str(number)}
        for _ in range(1 + (number % 5 == 0)):  # some are delivered twice
            response = await self._ask_until("POST", "/hooks/acme/orders", {"n": number}, headers=headers)
            self._note("orders", number, response)

    async def _fan(self, number: int) -> None:
        self._note("fans", number, await self._execute("fans", number, {"Prefer": "respond-async"}))

    async def _ask(self, number: int) -> None:
        response = await self._execute("asks", number, {"Prefer": "respond-async"})
        execution = self._note("asks", number, response)
        if number % 2:
            await anyio.sleep(0.1)
        response = await self._signal(execution, number)
        # It may have come before, and its answer may have been lost.
        assert response.status_code in {202, 409}, response.text

    async def _nest(self, number: int) -> None:
        response = await self._execute("nests", number, {"Prefer": "respond-async"})
        execution = self._note("nests", number, response)
        child = f"exe_{hashlib.sha256(f'{execution}/inner'.encode()).hexdigest()[:24]}"
        while (response := await self._signal(child, number)).status_code == 404:
            await anyio.sleep(0.05)  # it has not begun yet
        assert response.status_code in {202, 409}, response.text

    async def _signal(self, execution: str, number: int) -> httpx.Response:
        signal_ = {"path": "ask", "payload": {"by": number}, "id": "one"}
        return await self._ask_until("POST", f"/executions/{execution}/signals/yes", signal_)

    async def _call(self, number: int) -> None:
        response = await self._execute("calls", number, {"Prefer": "wait=5"})
        execution = self._note("calls", number, response)
        if response.status_code == 200:
            self.outputs[execution] = response.json()["output"]

    async def _execute(self, workflow: str, number: int, headers: dict[str, str]) -> httpx.Response:
        headers = {**headers, "Idempotency-Key": str(number)}
        return await self._ask_until(
            "POST", f"/executions/{workflow}/execute", {"payload": {"n": number}}, headers=headers
        )

    async def _ask_until(self, method: str, path: str, body: Any, **more: Any) -> httpx.Response:
        assert self._http is not None
        asked = f"{method} {path} {json.dumps(body)}"
        while True:
            try:
                response = await self._http.request(method, path, json=body, **more)
            except httpx.TransportError as error:
                self._asking[asked] = repr(error)
                await anyio.sleep(0.05)
                continue
            self.statuses[response.status_code] += 1
            self._asking[asked] = response.text
            if response.status_code != 503:
                del self._asking[asked]
                return response
            assert response.json()["code"] in {"unavailable", "not_running"}, response.text
            await anyio.sleep(0.1)

    def _note(self, workflow: str, number: int, response: httpx.Response) -> str:
        assert response.status_code in {200, 202}, response.text
        execution: str = response.json()["execution_id"]
        before = self.told.setdefault(f"{workflow} {number}", execution)
        assert before == execution, "the same key is the same execution, also after a kill"
        return execution


# --- the audit ----------------------------------------------------------------------------------------------------------


async def audit(place: House, clients: Clients, *, status: str = "succeeded") -> None:
    """Nothing that was acknowledged is lost, nothing is recorded twice, and all of it came out right."""
    await clients.rest()
    rows = {row.id: row for row in await place.rows()}
    assert set(clients.told.values()) <= rows.keys(), "what was acknowledged is there"
    noted = read_notes(place.notes)
    made: dict[str, list[str]] = defaultdict(list)
    for row in rows.values():
        events = await place.store.journal.read("acme", row.id)
        start = events[0]
        assert isinstance(start, ExecutionStarted)
        made[f"{row.workflow} {json.dumps(start.payload)}"].append(row.id)
        assert row.status == status, f"{row}: {events[-1]}"
        outcome = await place.store.executions.outcome(row.id)
        assert outcome is not None
        assert outcome.output == expected_output(row.workflow, start.payload)
        assert clients.outputs.get(row.id, outcome.output) == outcome.output, "what was answered is what is kept"
        _check_events(row, events)
        for path in noted_paths(row.workflow):
            assert noted[row.id, path], f"the effect {path} of {row.id} is recorded, and did not happen"
    doubled = {what: ids for what, ids in made.items() if len(ids) > 1}
    assert not doubled, "one execution for each key and each slot"
    keys = [key for keys in noted.values() for key in keys]
    assert all(len(keys) == 1 for keys in noted.values()), "an effect that is repeated has the same key"
    assert len(set(keys)) == len(noted), "and no other effect has it"


def _check_events(row: ExecutionRow, events: Sequence[Any]) -> None:
    """The journal is whole: counted right, begun once, ended once, and each attempt in it once."""
    assert row.seq == len(events)
    assert [type(event) for event in events].count(ExecutionStarted) == 1
    assert [n for n, event in enumerate(events) if isinstance(event, ExecutionEnded)] == [len(events) - 1]
    results = Counter((event.path, event.number) for event in events if isinstance(event, AttemptSucceeded))
    assert set(results.values()) == {1}, f"{row.id}: {results}"
    assert {path for path, _ in results} >= noted_paths(row.workflow)


def read_notes(notes: Path) -> dict[tuple[str, str], set[str]]:
    """Execution and path -> the keys of what was noted."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in notes.read_text().splitlines():
        execution, path, key = json.loads(line)
        found[execution, path].add(key)
    return found
