"""`orchestrator deploy`, `execute` and `logs`, typed beside a server."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator_core.cli import main
from serving import PROGRAM, Served, surroundings

ORDERS = (Path(__file__).resolve().parents[2] / "examples" / "order-desk.yaml").read_text(encoding="utf-8")
SLOW = (
    ORDERS.replace("id: order-desk", "id: slow-desk").replace("path: orders", "path: slow").replace("for: 2", "for: 4")
)
LARGE = '{"item": "gear", "qty": 12}'

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("remote")) as made:
        assert made.command("tenant", "create", "acme").returncode == 0
        (made.folder / "orders.yaml").write_text(ORDERS)
        (made.folder / "slow.yaml").write_text(SLOW)
        (made.folder / "patient.yaml").write_text(SLOW.replace("slow", "patient").replace("for: 4", "for: 60"))
        yield made


@pytest.fixture(scope="module")
def credential(served: Served) -> str:
    return served.command("key", "create", "--tenant", "acme", "--role", "editor").stdout.strip()


@pytest.fixture(scope="module")
def run(served: Served, credential: str) -> Run:
    """Types a command as an editor of acme, and sees that nobody is shown a traceback or the key."""

    def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"ORCHESTRATOR_KEY": credential, "ORCHESTRATOR_TENANT": "acme", **environment}
        done = served.command(*words, **own)
        assert "Traceback" not in done.stderr
        assert "fault of the program" not in done.stderr
        assert credential not in done.stdout + done.stderr
        return done

    assert call("deploy", "orders.yaml").returncode == 0
    assert call("deploy", "slow.yaml").returncode == 0
    assert call("deploy", "patient.yaml").returncode == 0
    return call


def test_a_workflow_is_saved_version_by_version(run: Run) -> None:
    saved = json.loads(run("deploy", "orders.yaml", "--json").stdout)
    assert saved["active"] == saved["version"] == saved["latest"] > 1
    draft = run("deploy", "orders.yaml", "--draft").stdout
    assert draft == f"order-desk: version {saved['version'] + 1} is saved as a draft\n"
    version = str(saved["version"] + 1)
    done = run("execute", "order-desk", "--version", version, "-i", '{"item": "bolt", "qty": 2}', "--json")
    assert json.loads(done.stdout)["version"] == int(version)


def test_what_is_wrong_with_a_file_is_told_with_its_line(run: Run, served: Served) -> None:
    (served.folder / "bad.yaml").write_text(ORDERS.replace("type: if", "type: iff"))
    done = run("deploy", "bad.yaml")
    assert done.returncode == 2
    line = ORDERS[: ORDERS.index("type: if")].count("\n") + 1
    assert done.stderr.startswith(f"bad.yaml:{line}: $.nodes[2].type: there is no node type 'iff'")
    assert run("deploy", "nowhere.yaml").stderr == "nowhere.yaml: there is no such file\n"


def test_everything_that_is_wrong_is_told_at_once_as_by_validate(run: Run, served: Served) -> None:
    wrong = (
        ORDERS.replace("type: if", "type: iff").replace("target: price}", "target: prize}").replace("for: 2", "fro: 2")
    )
    (served.folder / "wrong.yaml").write_text(wrong)
    wanted = run("validate", "wrong.yaml").stdout
    assert wanted.count("\n") == 3
    assert run("deploy", "wrong.yaml").stderr == wanted
    away = run("deploy", "wrong.yaml", "--url", "http://127.0.0.1:9").stderr
    assert away, "what is seen without a server is told without one"
    assert set(away.splitlines()) < set(wanted.splitlines())
    assert json.loads(run("deploy", "orders.yaml", "--json").stdout)["version"] > 0


def test_executing_shows_lines_and_says_by_its_exit_code_how_it_ended(run: Run) -> None:
    done = run("execute", "order-desk", "--input", '{"item": "bolt", "qty": 40}')
    assert done.returncode == 0, done.stderr
    assert "✓ price    succeeded in" in done.stdout
    assert "price    info: 40 of bolt at 0.5" in done.stdout
    assert "review   skipped" in done.stdout
    assert done.stdout.endswith('output: {"item": "bolt", "total": 20, "reviewed": false}\n')
    failed = run("execute", "order-desk", "--input", '{"item": "nut"}')
    assert failed.returncode == 1
    assert "✕ price    failed in" in failed.stdout
    assert "error: node 'price' failed: exception: Error: we do not sell nut" in failed.stdout
    quiet = run("execute", "order-desk", "--input", '{"item": "bolt", "qty": 2}', "--quiet")
    assert json.loads(quiet.stdout) == {"item": "bolt", "total": 1, "reviewed": False}


def test_json_is_the_execution_and_nothing_else(run: Run) -> None:
    done = run("execute", "order-desk", "--start", "order", "--input", '{"item": "nut"}', "--json")
    body = json.loads(done.stdout)
    assert (done.returncode, body["status"], body["error"]["node"]) == (1, "failed", "price")
    assert json.loads(run("logs", body["execution_id"], "--json").stdout) == body
    (row, *_) = json.loads(run("logs", "order-desk", "--json", "--limit", "1", "--status", "failed").stdout)
    assert row == body


def test_an_execution_is_started_left_and_followed(run: Run) -> None:
    started = json.loads(run("execute", "slow-desk", "-i", LARGE, "--no-wait", "--json").stdout)
    followed = run("logs", "slow-desk", "--follow")
    assert followed.returncode == 0
    assert followed.stdout.startswith(f"    0.000 s  ► slow-desk  start ({started['execution_id']})\n")
    assert followed.stdout.endswith('output: {"item": "gear", "total": 144, "reviewed": true}\n')
    events = [json.loads(line) for line in run("logs", started["execution_id"], "-f", "--json").stdout.splitlines()]
    assert (events[0]["type"], events[-1]["type"]) == ("ExecutionStarted", "ExecutionEnded")
    shown = run("logs", started["execution_id"]).stdout
    assert "  review   wait     succeeded  " in shown
    assert "price  info: 12 of gear at 12" in shown


def test_one_key_is_one_execution(run: Run) -> None:
    words = ("execute", "order-desk", "-i", '{"item": "bolt", "qty": 2}', "--idempotency-key", "once", "--json")
    first, second = (json.loads(run(*words).stdout) for _ in range(2))
    assert first == second
    assert run(*words[:3], '{"item": "bolt", "qty": 3}', *words[4:]).stderr == (
        "orchestrator execute: this idempotency key was used for another request: take a new one\n"
    )


def test_an_execution_is_cancelled(run: Run) -> None:
    (first, second) = (
        json.loads(run("execute", "patient-desk", "-i", LARGE, "--no-wait", "--json").stdout)["execution_id"]
        for _ in "ab"
    )
    done = run("cancel", first)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{first} was cancelled\n", "")
    assert json.loads(run("logs", first, "--json").stdout)["status"] == "cancelled"
    assert json.loads(run("cancel", second, "--json").stdout)["status"] == "cancelled"
    again = run("cancel", first)
    assert (again.returncode, again.stderr) == (1, f"orchestrator cancel: {first} was cancelled before\n")
    ended = json.loads(run("execute", "order-desk", "-i", '{"item": "bolt", "qty": 1}', "--json").stdout)[
        "execution_id"
    ]
    for more in ((), ("--no-wait",), ("--path", "price")):
        late = run("cancel", ended, *more)
        assert (late.returncode, late.stderr) == (1, f"orchestrator cancel: {ended} had succeeded before\n")
    told = run("cancel", ended, "--json")
    assert (told.returncode, json.loads(told.stdout)["status"]) == (1, "succeeded")
    third = json.loads(run("execute", "patient-desk", "-i", LARGE, "--no-wait", "--json").stdout)["execution_id"]
    assert "the execution has no node with this path" in run("cancel", third, "--path", "nowhere").stderr
    fourth = run("execute", "patient-desk", "-i", LARGE, "--no-wait", "--quiet").stdout.strip()
    assert run("cancel", fourth).stdout == f"{fourth} was cancelled\n"
    assert run("cancel", third, "--no-wait").stdout == (
        f"{third} is asked to cancel everything: orchestrator logs {third} --follow\n"
    )


def test_an_execution_is_taken_out_of_quarantine(run: Run, served: Served) -> None:
    execution = run("execute", "patient-desk", "-i", LARGE, "--no-wait", "--quiet").stdout.strip()
    refused = run("revive", execution)
    assert (refused.returncode, refused.stderr) == (2, "orchestrator revive: the execution is not in quarantine\n")
    # As if five workers had come to grief with it.
    with contextlib.closing(sqlite3.connect(served.folder / "orchestrator.db")) as database, database:
        held = "UPDATE executions SET claims = 5, wake_at = 0, worker = NULL, fence = fence + 1 WHERE id = ?"
        assert database.execute(held, [execution]).rowcount == 1
    assert _status(run, execution, "failed")["error"]["code"] == "poisoned"
    assert "in quarantine until it is revived (`orchestrator revive`)" in run("logs", execution).stdout
    done = run("revive", execution)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{execution} goes on: orchestrator logs {execution} --follow\n"
    body = _status(run, execution, "waiting")
    (price,) = (record for record in body["nodes"] if record["path"] == "price")
    assert len(price["attempts"]) == 1, "what was done is not done again"
    assert run("cancel", execution).stdout == f"{execution} was cancelled\n"


def _status(run: Run, execution: str, wanted: str) -> Any:
    """The execution, when its status is that."""
    for _ in range(100):
        body = json.loads(run("logs", execution, "--json").stdout)
        if body["status"] == wanted:
            return body
        time.sleep(0.1)
    raise AssertionError(body)


def test_an_interrupt_leaves_the_execution_running(run: Run, served: Served, credential: str) -> None:
    environment = {**surroundings(served.port), "ORCHESTRATOR_KEY": credential, "ORCHESTRATOR_TENANT": "acme"}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, "execute", "slow-desk", "-i", LARGE],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        execution = process.stdout.readline().partition("(")[2].partition(")")[0]
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == f"orchestrator execute: {execution} goes on: orchestrator logs {execution} --follow\n"
    assert "slow-desk succeeded" in run("logs", execution, "--follow").stdout


def test_a_key_that_is_withdrawn_meanwhile_does_not_hide_the_execution(run: Run, served: Served) -> None:
    key = served.command("key", "create", "--tenant", "acme", "--role", "editor").stdout.strip()
    environment = {**surroundings(served.port), "ORCHESTRATOR_KEY": key, "ORCHESTRATOR_TENANT": "acme"}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PROGRAM, "execute", "patient-desk", "-i", LARGE],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        execution = process.stdout.readline().partition("(")[2].partition(")")[0]
        assert served.command("key", "revoke", key.partition(".")[0]).returncode == 0
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1, "with 2 nothing would have been started"
    assert "the credential is missing or not valid" in error
    assert f"how it ends is not known here: orchestrator logs {execution} --follow\n" in error
    assert run("logs", execution).stdout.startswith(f"{execution} of patient-desk, version ")


@pytest.mark.parametrize(
    ("words", "environment", "complaint"),
    [
        (("logs", "nope"), {}, "orchestrator logs: there is no workflow 'nope'"),
        (("logs", "exe_nobody"), {}, "orchestrator logs: there is no execution 'exe_nobody'"),
        (("logs", "--follow"), {}, "orchestrator logs: --follow: say which execution"),
        (("cancel", "exe_nobody"), {}, "orchestrator cancel: there is no execution 'exe_nobody'"),
        (("revive", "exe_nobody"), {}, "orchestrator revive: there is no execution 'exe_nobody'"),
        (("revive", "order-desk"), {}, "'order-desk' is no execution: orchestrator logs order-desk lists those of"),
        (("cancel", "order-desk"), {}, "'order-desk' is no execution: orchestrator logs order-desk lists those of"),
        (("execute", "nope"), {}, "orchestrator execute: there is no workflow 'nope'"),
        (("execute", "orders.yaml"), {}, "is no id (letters, digits, _ and -, 64 at most): a file is saved first"),
        (("execute", "order-desk", "-i", "{"), {}, "--input: not JSON: the text ends too soon"),
        (("execute", "order-desk", "--start", "x"), {}, "'x' is no trigger of this workflow"),
        (("execute", "order-desk", "--version", "99"), {}, "has no version 99"),
        (("logs",), {"ORCHESTRATOR_KEY": ""}, "orchestrator logs: no key: set ORCHESTRATOR_KEY"),
        (("logs",), {"ORCHESTRATOR_KEY": "key_0.wrong"}, "the credential is missing or not valid"),
        (("logs",), {"ORCHESTRATOR_KEY": "käse"}, "holds characters that no key has"),
        (("logs",), {"ORCHESTRATOR_TENANT": ""}, "orchestrator logs: no tenant: say --tenant ID"),
        (("logs",), {"ORCHESTRATOR_TENANT": "other"}, "this credential does not allow that tenant"),
        (("logs",), {"ORCHESTRATOR_TENANT": "a b"}, "'a b' is no id"),
        (("logs", "--url", "http://127.0.0.1:1"), {}, "no server answers at http://127.0.0.1:1: start one"),
        (("logs", "--url", "nonsense"), {}, "write it as http://HOST:PORT"),
        (("logs", "--url", "http://[::1"), {}, "orchestrator logs: --url http://[::1: "),
    ],
)
@pytest.mark.usefixtures("run")
def test_what_is_wrong_is_said_in_a_line(
    *,
    served: Served,
    credential: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    environment: dict[str, str],
    complaint: str,
) -> None:
    own = {"ORCHESTRATOR_KEY": credential, "ORCHESTRATOR_TENANT": "acme"}
    for name, value in {**surroundings(served.port), **own, **environment}.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert complaint in error


def test_what_is_no_orchestrator_is_not_taken_for_one(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}"
        done = run("logs", "--url", url)
        followed = run("logs", "exe_1", "--follow", "--url", url)
        other.shutdown()
    for each in (done, followed):
        assert (each.returncode, each.stdout) == (2, "")
        assert f"what answers at {url} is no orchestrator (404 File not found): see --url" in each.stderr


def test_a_follower_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    with Served(tmp_path) as first:
        first.command("tenant", "create", "acme")
        key = first.command("key", "create", "--tenant", "acme", "--role", "admin").stdout.strip()
        own = {"ORCHESTRATOR_KEY": key, "ORCHESTRATOR_TENANT": "acme"}
        (tmp_path / "slow.yaml").write_text(SLOW)
        assert first.command("deploy", "slow.yaml", **own).returncode == 0
        environment = {**surroundings(first.port), **own}
        with subprocess.Popen(
            [sys.executable, "-u", "-c", PROGRAM, "execute", "slow-desk", "-i", LARGE],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as follower:
            assert follower.stdout is not None
            lines = [follower.stdout.readline()]
            while "waits until" not in lines[-1]:
                lines.append(follower.stdout.readline())
            began = time.monotonic()
            assert first.interrupt().endswith("orchestrator: stopped\n")
            assert time.monotonic() - began < 7, "a server does not wait for those who follow"
            second = Served(tmp_path)
            second.port = first.port
            with second:
                out, error = follower.communicate(timeout=60)
        assert follower.returncode == 0, error
        assert error == "orchestrator execute: the server is away: waiting for it\n"
        whole = "".join(lines) + out
        assert whole.count("✓ price") == 1, "nothing is told twice"
        assert whole.endswith('output: {"item": "gear", "total": 144, "reviewed": true}\n')


def test_a_second_server_on_the_same_port_makes_nothing(served: Served, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "serve"],
        cwd=tmp_path,
        env=surroundings(served.port),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    taken = (
        f"orchestrator: 127.0.0.1:{served.port} is taken: end what listens there, or choose another port with --port\n"
    )
    assert done.stderr == taken
    assert list(tmp_path.iterdir()) == []
