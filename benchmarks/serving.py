"""What benchmarks/server.py asks over HTTP: this project's server, and the floors. Each is a real process on a port of its own.

A request's body is `{"item": "item 7", "qty": 7}`. On its way it is given names (set), asked whether there are more than two
(if), priced by a function (code) and given a status (set); the answer is `{"item": "item 7", "status": "priced", "total": 21}`.
"""

import contextlib
import http.client
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
BODIES = [{"item": f"item {number}", "qty": number} for number in range(3, 103)]
ANSWERS = [{"item": body["item"], "status": "priced", "total": body["qty"] * 3} for body in BODIES]
TICKS = os.sysconf("SC_CLK_TCK")
PATH = "orders"


class Missing(Exception):  # noqa: N818 - no error: it is what the table says
    """Why there is no figure."""


def ask(port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """One request with JSON; the answer's JSON. Raises `OSError` or `RuntimeError` where there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{answer.status} {text[:200]}")
        return json.loads(text) if text else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def tree(pid: int) -> list[int]:
    """A process and those that it has started, and they."""
    found = [pid]
    for parent in found:  # it grows meanwhile
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


class Served:
    """A process that answers on a port.

    Args:
        folder: Where it keeps what it keeps.
    """

    name: ClassVar[str]
    how: ClassVar[str]
    path: str = f"/{PATH}"
    bodies: Sequence[Any] = BODIES
    answers: Sequence[Any] = ANSWERS
    patience = 30.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / type(self).__name__.lower()
        self.folder.mkdir()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, and return when it answers the benchmark's request. Raises `Missing`."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        return {}

    def run(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start the process; what it prints goes to a file."""
        with (self.folder / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, method: str, path: str, body: Any = None, wanted: Any = None) -> None:
        """Ask until it answers, and with what is wanted."""
        assert self.process is not None
        until = time.monotonic() + self.patience
        told = "no answer"
        while time.monotonic() < until and self.process.poll() is None:
            try:
                answer = ask(self.port, method, path, body)
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                told = str(error)
            else:
                if wanted is None or answer == wanted:
                    return
                told = f"a wrong answer: {answer}"
            time.sleep(0.01)
        code = self.process.poll()
        ended = f"it ended with code {code}" if code is not None else f"not up within {self.patience:g} s"
        raise Missing(f"{ended}: {told}"[:160])

    def until_right(self) -> None:
        """Ask until it answers the benchmark's first request as it has to."""
        self.until("POST", self.path, self.bodies[0], self.answers[0])

    def processor(self) -> float:
        """Seconds of processor time so far, of all threads and children."""
        assert self.process is not None
        total = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self) -> float:
        """Bytes that it holds, pages shared with others by their share."""
        assert self.process is not None
        total = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total * 1024.0

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# ---- ours -----------------------------------------------------------------------------------------------------------

WORKFLOW = {
    "schema": 1,
    "id": PATH,
    "nodes": [
        {"id": "hook", "type": "webhook", "config": {"path": PATH, "respond": "node"}},
        {"id": "order", "type": "set", "config": {"values": {"item": "{{ input.item }}", "qty": "{{ input.qty }}"}}},
        {"id": "many", "type": "if", "config": {"condition": "{{ input.qty > 2 }}"}},
        {
            "id": "price",
            "type": "code",
            "config": {"source": "return {item: context.input.item, total: context.input.qty * 3}"},
        },
        {"id": "status", "type": "set", "config": {"keep": True, "values": {"status": "priced"}}},
        {"id": "answer", "type": "respond"},
    ],
    "edges": [
        {"source": "hook", "target": "order"},
        {"source": "order", "target": "many"},
        {"source": "many", "port": "true", "target": "price"},
        {"source": "price", "target": "status"},
        {"source": "status", "target": "answer"},
    ],
}
TENANT = "bench"


class Ours(Served):
    """This project's server."""

    name = "ours"
    how = (
        "`orchestrator serve` on a new SQLite file, as it is installed (httptools on uvloop): executions saved with a full sync "
        "before the answer, the function in the sandbox, from a fresh state"
    )
    path = f"/hooks/{TENANT}/{PATH}"

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", "import sys; from orchestrator_core.cli import main; sys.exit(main())", *words]

    def serve(self) -> None:
        self.run(self.command("serve", "--port", str(self.port)))

    def prepare(self) -> None:
        """A tenant with the workflow, made over the API of the running server."""
        self.until("GET", "/api/v1/ready")
        made = subprocess.run(
            self.command("key", "create", "--operator", "--role", "admin"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        key = {"Authorization": f"Bearer {made.stdout.strip()}"}
        ask(self.port, "POST", "/api/v1/tenants", {"id": TENANT}, key)
        ask(self.port, "POST", "/api/v1/workflows", WORKFLOW, {**key, "x-tenant-id": TENANT})

    def start(self) -> None:
        self.serve()
        self.prepare()
        self.until_right()

    def versions(self) -> dict[str, str]:
        names = ("pluggable-orchestrator-server", "uvicorn", "starlette", "sqlalchemy", "wasmtime")
        return {name: importlib.metadata.version(name) for name in names}


# ---- floors ---------------------------------------------------------------------------------------------------------


class Hello(Served):
    """The least that an ASGI server does."""

    name = "uvicorn hello"
    how = "a bare ASGI application that answers `{}`, on uvicorn as `pip install uvicorn` gives it (h11 on asyncio)"
    application = "hello"
    extras: ClassVar[tuple[str, str]] = ("h11", "asyncio")
    path = "/"
    answers: ClassVar[Sequence[Any]] = [{}] * len(BODIES)

    def start(self) -> None:
        http, loop = self.extras
        words = ["--host", HOST, "--port", str(self.port), "--no-access-log", "--log-level", "warning"]
        words += ["--http", http, "--loop", loop]
        application = f"serving_floors:{self.application}"
        self.run([sys.executable, "-m", "uvicorn", "--app-dir", HERE, "--lifespan", "off", *words, application])
        self.until_right()


class Inline(Hello):
    """The work itself, and nothing else."""

    name = "uvicorn, four inline functions"
    how = (
        "the same, with the body read and the four steps done by four Python functions; nothing is saved or kept apart"
    )
    application = "inline"
    answers: ClassVar[Sequence[Any]] = ANSWERS


class HelloFast(Hello):
    """The same with the extras of uvicorn."""

    name = "uvicorn hello, with httptools and uvloop"
    how = "the same on what our server installs"
    extras = ("httptools", "uvloop")


@contextlib.contextmanager
def running(served: Served) -> Iterator[Served]:
    """Start it, and stop it in the end."""
    try:
        served.start()
        yield served
    finally:
        served.stop()
