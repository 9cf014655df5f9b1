"""The server's commands: what they print, and a server that is really there."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_client import document, setting

from orchestrator_core.cli import main
from orchestrator_server.cli import COMMANDS

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, logging_as_before: None
) -> Run:
    """Runs a command in an empty folder; gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ORCHESTRATOR_")]:
        monkeypatch.delenv(name)

    def call(*words: str) -> tuple[int, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out + err

    return call


@pytest.fixture(params=["sqlite", "shared", "schema", "database"])
def database(
    request: pytest.FixtureRequest, postgresql_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """Where the commands of a test find their data: a file as it comes, or PostgreSQL in each isolation."""
    if request.param != "sqlite":
        name = f"cli_{request.param}_{request.function.__name__}"[:60]
        monkeypatch.setenv("ORCHESTRATOR_DATABASE", postgresql_url(name))
        monkeypatch.setenv("ORCHESTRATOR_ISOLATION", request.param)


@pytest.mark.usefixtures("database")
def test_tenants_are_made_listed_and_deleted(run: Run) -> None:
    code, out = run("tenant", "create", "acme", "--name", "Acme", "--running", "3", "--json")
    assert (code, json.loads(out.partition("orchestrator: ")[0])["id"]) == (0, "acme")
    assert run("tenant", "create", "acme") == (2, "orchestrator: there is a tenant 'acme' already\n")
    assert run("tenant", "create", "a b")[0] == 2
    assert [row["id"] for row in json.loads(run("tenant", "list", "--json")[1])] == ["acme"]
    assert run("tenant", "delete", "acme", "--yes") == (0, "tenant acme is gone\n")
    assert run("tenant", "list") == (0, "there are no tenants\n")


def test_a_tenant_is_not_deleted_where_nobody_can_be_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("tenant", "create", "acme")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    told = "orchestrator tenant delete: there is nobody to ask: say --yes to delete acme\n"
    assert run("tenant", "delete", "acme") == (2, told)
    assert run("tenant", "delete", "acme", "--yes")[0] == 0


def test_a_new_database_is_told_once(run: Run, tmp_path: Path) -> None:
    new = f"orchestrator: there was no database orchestrator.db in {tmp_path}: a new one was made\n"
    there = "tenant {0} is there now; its first key: orchestrator key create --tenant {0} --role admin\n"
    assert run("tenant", "create", "acme") == (0, there.format("acme") + new)
    assert run("tenant", "create", "other") == (0, there.format("other"))


# What is set in the environment, the settings file, options, and the words that a hint needs.
HINTS: list[tuple[dict[str, str], str, tuple[str, ...], str]] = [
    ({}, "", (), ""),
    ({}, "port = 8081\n", (), ""),
    ({}, 'database = "sqlite:///a b.db"\n', (), " --settings 's 1.toml'"),
    ({"ORCHESTRATOR_DATABASE": "sqlite:///a.db"}, "", (), " --database sqlite:///a.db"),
    ({"ORCHESTRATOR_DATABASE": "sqlite:///orchestrator.db"}, "", (), ""),
    ({"ORCHESTRATOR_ISOLATION": "schema"}, "", (), " --isolation schema"),
    (
        {"ORCHESTRATOR_DATABASE": "sqlite:///b.db"},
        'isolation = "schema"\n',
        (),
        " --settings 's 1.toml' --database sqlite:///b.db",
    ),
    (
        {},
        "",
        ("--database", "sqlite:///c.db", "--isolation", "database"),
        " --database sqlite:///c.db --isolation database",
    ),
]


@pytest.mark.parametrize("case", HINTS)
@pytest.mark.parametrize("by_option", [True, False])
def test_what_is_to_be_typed_next_means_the_same_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Any, by_option: bool
) -> None:
    environment, file, words, meant = case
    (tmp_path / "s 1.toml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if by_option:
        words = (*words, "--settings", "s 1.toml")
    else:
        monkeypatch.setenv("ORCHESTRATOR_SETTINGS", "s 1.toml")
    code, told = run("tenant", "create", "acme", *words)
    assert (code, f"orchestrator key create --tenant acme --role admin{meant}\n" in told) == (0, True), told
    hinted = run("key", "create", "--tenant", "no", *words)[1].strip().partition("database: orchestrator ")[2]
    assert hinted == f"tenant create no{meant}"
    # In another terminal nothing of this is set.
    for name in (*environment, "ORCHESTRATOR_SETTINGS"):
        monkeypatch.delenv(name, raising=False)
    assert run(*shlex.split(f"key create --tenant acme{meant}"))[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("tenant", "list"),
        ("tenant", "delete", "acme", "--yes"),
        ("key", "list", "--operator"),
        ("key", "create", "--tenant", "acme"),
        ("secret", "list", "--tenant", "acme"),
        ("db", "backup", "copy.db"),
        ("worker",),
        ("scheduler",),
    ],
)
def test_a_wrong_folder_is_told_and_gets_no_database(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, told = run(*words)
    assert (code, told.count("\n")) == (2, 1)
    assert f"there is no database orchestrator.db in {tmp_path}: go to the server's folder, or say --database" in told
    assert not [*tmp_path.iterdir()]


def test_what_is_no_database_is_not_taken_for_a_fault_of_the_program(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orchestrator.db").write_bytes(b"no database" * 1000)
    none = "orchestrator: database: this file is none of SQLite's: say which one is meant\n"
    assert run("tenant", "list") == (2, none)
    unknown = (2, "orchestrator: database: 'mysql' is not supported: use sqlite or postgresql\n")
    assert run("tenant", "list", "--database", "mysql://x/y") == unknown
    assert run("serve", "--database", "mysql://x/y", "--port", "0") == unknown, "before it asks for anything else"
    missing = f"orchestrator: database: there is no folder {tmp_path}/no: make it first\n"
    assert run("serve", "--database", f"sqlite:///{tmp_path}/no/a.db", "--port", "0") == (2, missing)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    code, told = run("tenant", "list", "--database", "postgresql://x/y")
    assert (code, told.count("\n")) == (2, 1)
    assert "PostgreSQL needs psycopg: pip install 'pluggable-orchestrator-server[postgresql]'" in told


def test_a_key_for_nobody_says_whom(run: Run) -> None:
    run("tenant", "create", "acme")
    told = "orchestrator: there is no tenant 'amce' in this database: orchestrator tenant create amce\n"
    assert run("key", "create", "--tenant", "amce") == (2, told)


@pytest.mark.usefixtures("database")
def test_keys_are_made_shown_without_secret_and_revoked(run: Run) -> None:
    run("tenant", "create", "acme")
    code, out = run("key", "create", "--tenant", "acme", "--role", "editor", "--expires", "90d")
    assert (code, out.count("\n")) == (0, 1)
    key_id, _, secret = out.strip().partition(".")
    listed = run("key", "list", "--tenant", "acme", "--json")[1]
    assert secret not in listed
    (row,) = json.loads(listed)
    assert (row["id"], row["role"], row["revoked_at"]) == (key_id, "editor", None)
    assert run("key", "revoke", key_id)[0] == 0
    assert json.loads(run("key", "list", "--tenant", "acme", "--json")[1])[0]["revoked_at"] is not None
    assert run("key", "create")[0] == 2
    assert run("key", "create", "--tenant", "acme", "--operator")[0] == 2
    assert run("key", "create", "--tenant", "nobody")[0] == 2
    assert run("key", "create", "--operator", "--expires", "soon")[0] == 2
    assert run("key", "create", "--operator", "--expires", "9999999d")[1].endswith("for 36525 days at most\n")


def test_a_key_of_the_operator_may_do_everything_unless_said_otherwise(run: Run) -> None:
    run("tenant", "create", "acme")
    roles = [
        json.loads(run("key", "create", *words, "--json")[1])["role"]
        for words in (("--operator",), ("--operator", "--role", "viewer"), ("--tenant", "acme"))
    ]
    assert roles == ["admin", "viewer", "viewer"]


@pytest.mark.usefixtures("database")
def test_keys_are_for_the_tenant_of_the_environment_unless_said_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("tenant", "create", "acme")
    run("tenant", "create", "other")
    monkeypatch.setenv("ORCHESTRATOR_TENANT", "acme")
    assert (
        run("key", "create")[0]
        == run("key", "create", "--operator")[0]
        == run("key", "create", "--tenant", "other")[0]
        == 0
    )
    listed = ([], ["--tenant", "other"], ["--operator"])
    assert [len(json.loads(run("key", "list", "--json", *whose)[1])) for whose in listed] == [1, 1, 1]


def test_secrets_are_set_listed_and_never_shown(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("tenant", "create", "acme")
    monkeypatch.setenv("VALUE", "s3cret-value")
    assert run("secret", "set", "token", "--tenant", "acme", "--from", "@env:VALUE")[0] == 0
    assert json.loads(run("secret", "set", "token", "--tenant", "acme", "--from", "@env:VALUE", "--json")[1]) == {
        "name": "token",
        "version": 2,
    }
    listed = run("secret", "list", "--tenant", "acme")[1]
    assert "token" in listed
    assert "s3cret" not in listed
    assert b"s3cret-value" not in (tmp_path / "orchestrator.db").read_bytes()
    assert run("secret", "set", "token", "--tenant", "acme", "--from", "@env:MISSING") == (
        2,
        "orchestrator secret set: --from @env:MISSING: the variable MISSING is not set\n",
    )
    key = run("secret", "new-key", "--id", "k2")[1].strip()
    old = (tmp_path / "orchestrator.db.key").read_text().strip()
    monkeypatch.setenv("ORCHESTRATOR_SECRET_KEYS", f"{key},{old}")
    assert json.loads(run("secret", "rotate", "--json")[1]) == {"changed": 1}
    assert json.loads(run("secret", "list", "--tenant", "acme", "--json")[1])[0]["key"] == "k2"
    assert run("secret", "delete", "token", "--tenant", "acme")[0] == 0
    assert run("secret", "delete", "token", "--tenant", "acme")[0] == 2


def test_no_key_is_made_where_secrets_wait_for_another(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", "s3cret-value")
    words = ("secret", "set", "token", "--tenant", "acme", "--from", "@env:VALUE")
    run("tenant", "create", "empty")
    run("tenant", "create", "acme")
    assert run(*words)[0] == 0, "a database without secrets gets its key"
    key = tmp_path / "orchestrator.db.key"
    first = key.read_text()
    key.rename(tmp_path / "elsewhere")
    for command in (("serve", "--port", "0"), ("worker",), ("scheduler",), words):
        code, told = run(*command)
        assert (code, told.count("\n")) == (2, 1), command
        assert "the key file orchestrator.db.key is missing, and the database holds secrets" in told
        assert not key.exists(), command
    # It is lost: what it tells leads on.
    key.write_text(run("secret", "new-key")[1])
    assert key.read_text().partition(":")[0] != first.partition(":")[0], "each has an id of its own"
    code, told = run("secret", "rotate")
    assert (code, "was sealed with the key" in told) == (2, True)
    assert json.loads(run(*words, "--json")[1])["version"] == 2
    assert run("secret", "rotate")[1] == "0 secrets were encrypted anew\n"


def test_the_schema_is_shown_and_upgraded(run: Run, tmp_path: Path) -> None:
    before = json.loads(run("db", "current", "--json")[1])
    assert before["schema"] is None
    assert not [*tmp_path.iterdir()], "looking makes nothing"
    after = json.loads(run("db", "upgrade", "--json")[1])
    assert after == {"before": None, "schema": before["needed"]}
    assert "already" in run("db", "upgrade")[1]


def test_settings_that_are_wrong_are_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("ports = 1\n")
    assert run("tenant", "list", "--settings", "s.toml") == (
        2,
        "orchestrator: s.toml: ports: is not known here: did you mean 'port'?\n",
    )
    assert run("tenant", "list", "--database", "mysql://x/y")[0] == 2


@pytest.mark.parametrize(
    "words", [("serve", "--port", "0"), ("worker",), ("tenant", "list"), ("tenant", "create", "b")]
)
def test_what_cannot_be_written_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    run("tenant", "create", "acme")
    file, folder = Path("orchestrator.db"), tmp_path
    for locked, told in (
        (file, f"the database, orchestrator.db in {tmp_path}, cannot be written by this user"),
        (folder, f"the folder of the database, {tmp_path}, cannot be written by this user"),
    ):
        # Whoever runs the tests may be allowed everything.
        monkeypatch.setattr(os, "access", lambda path, mode, locked=locked: Path(path) != locked)
        rest = "see to its permissions, or say --database"
        assert run(*words) == (2, f"orchestrator: {told}: {rest}\n")


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_a_port_for_watching_that_cannot_be_had_is_one_line_before_anything_begins(run: Run, command: str) -> None:
    run("tenant", "create", "acme")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, told = run(command, "--metrics-port", port)
    taken = f"orchestrator: 127.0.0.1:{port} is taken: choose another port with --metrics-port\n"
    assert (code, told) == (2, taken)
    too_high = "orchestrator: settings: metrics_port: must be 65535 or less\n"
    assert run(command, "--metrics-port", "65536") == (2, too_high)


# --- a process --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """`orchestrator serve` in a folder."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.port = free_port()
        program = "import sys; from orchestrator_core.cli import main; sys.exit(main())"
        words = [sys.executable, "-c", program, "serve", "--port", str(self.port), *more]
        environment = {**os.environ, "ORCHESTRATOR_HEADER_TIMEOUT": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.url = f"http://127.0.0.1:{self.port}/api/v1"

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/ready", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server did not begin")

    def end(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=20)
        return out


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*more: str) -> Server:
        made = Server(tmp_path, *more)
        started.append(made)
        made.wait()
        return made

    yield start
    for made in started:
        if made.process.poll() is None:
            made.process.kill()
            made.process.communicate()


def test_a_server_prints_its_first_key_once_and_keeps_its_data(server: Callable[[], Server]) -> None:
    first = server()
    slow = socket.create_connection(("127.0.0.1", first.port))
    slow.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n")
    # The key is printed before it listens.
    assert first.process.stdout is not None
    lines: list[str] = []
    while not any(line.startswith("  key_") for line in lines):
        lines.append(first.process.stdout.readline())
    credential = lines[-1].strip()
    headers = {"Authorization": f"Bearer {credential}", "x-tenant-id": "acme"}
    with httpx.Client(base_url=first.url, headers=headers, timeout=10) as http:
        own = {"Authorization": headers["Authorization"]}
        assert http.post("/tenants", json={"id": "acme"}, headers={**own}).status_code == 201
        code: dict[str, Any] = {"id": "b", "type": "code", "config": {"source": "return context.input.n + 1"}}
        assert http.post("/workflows", json=document(setting("a", n=1), code)).status_code == 201
        assert http.post("/executions/w/execute").json()["output"] == 2
        assert http.get("/nope").json()["code"] == "not_found"
        assert "server" not in http.get("/health").headers
    slow.settimeout(5)
    assert slow.recv(100) == b"", "a head that does not come is not waited for"
    slow.close()
    first.end()
    second = server()
    with httpx.Client(base_url=second.url, headers=headers, timeout=10) as http:
        assert len(http.get("/executions/w/logs").json()["executions"]) == 1
    told = second.end()
    assert "first key" not in told
    assert credential.partition(".")[2] not in told


def test_a_server_says_how_others_mean_its_database(server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('database = "sqlite:///other.db"\n')
    told = server("--settings", "s.toml", "--isolation", "schema").end()
    assert "  orchestrator tenant create acme --settings s.toml --isolation schema\n" in told
    assert "  orchestrator key create --tenant acme --role admin --settings s.toml --isolation schema\n" in told


def test_naming_the_commands_loads_no_server() -> None:
    """Every engine that looks for plugins loads this one."""
    heavy = ("sqlalchemy", "alembic", "starlette", "uvicorn", "httpx", "cryptography")
    program = f"import orchestrator_server.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_command_is_listed_and_explains_itself(run: Run) -> None:
    listed = run("--help")[1]
    for name, (_, short_help) in COMMANDS.items():
        assert f"  {name} " in listed
        assert short_help.split(",")[0] in listed
        code, out = run(name, "--help")
        assert (code, out.startswith(f"Usage: orchestrator {name} ")) == (0, True)
