"""The log: one record a line, tagged, and nothing in it that nobody may see."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_client import Api, document, make_storage, running, setting
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_server import logs
from orchestrator_server.errors import Unavailable
from orchestrator_server.settings import Settings
from orchestrator_server.sql import SqlStorage
from orchestrator_server.sql.database import SYSTEM

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def out(logging_as_before: None) -> io.StringIO:
    """Everything that is logged at debug level, as JSON."""
    stream = io.StringIO()
    logs.configure(Settings(log_level="debug"), stream)
    return stream


def records(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def hook(**config: Any) -> dict[str, Any]:
    return {"id": "hook", "type": "webhook", "config": {"path": "in/{part}", "respond": "last", **config}}


@pytest.mark.anyio
async def test_a_request_is_one_line_that_says_who_what_and_how_long(out: io.StringIO, tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage) as api:
        token = await api.key("acme", "editor")
        await api.call("POST", "/workflows", document({"id": "m", "type": "manual"}), token=token)
        body = await api.post("/executions/w/execute", {}, token=token, headers={"X-Request-Id": "r-1"})
        await api.call("GET", "/workflows/none", token=token)
        await api.call("GET", "/health", token="", tenant=None)
    await storage.aclose()
    lines = [record for record in records(out) if record["logger"] == "orchestrator.api"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/workflows", 201),
        ("POST", "/executions/{workflow_id}/execute", 200),
        ("GET", "/workflows/{workflow_id}", 404),
        ("GET", "/health", 200),
    ]
    execute = lines[1]
    assert (execute["level"], execute["request"], execute["tenant"]) == ("info", "r-1", "acme")
    assert (execute["execution"], execute["principal"]) == (body["execution_id"], token.partition(".")[0])
    assert 0 < execute["seconds"] < 60
    assert lines[3]["level"] == "debug", "probes come all the time"
    assert len({line["request"] for line in lines}) == 4


class Written(io.StringIO):
    """Counts writes."""

    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        if not text.isascii():
            text.encode("ascii")  # as a terminal that knows nothing else
        return super().write(text)


def test_a_pass_of_the_event_loop_is_one_write_and_a_warning_waits_for_nobody(out: io.StringIO) -> None:
    stream = Written()
    handler = logs.GatheringHandler(stream)
    log = logging.getLogger("orchestrator.test")
    log.addHandler(handler)
    log.propagate = False
    try:
        log.info("before any loop")
        assert stream.getvalue() == "before any loop\n"

        async def passes() -> None:
            log.info("one")
            log.info("two")
            assert stream.writes == 1
            await asyncio.sleep(0)
            assert (stream.writes, stream.getvalue()[-8:]) == (2, "one\ntwo\n")
            log.info("three")
            log.warning("four")
            assert stream.getvalue().endswith("two\nthree\nfour\n")
            log.info("é")
            log.info("five")
            await asyncio.sleep(0)
            log.info("the last of this loop")

        asyncio.run(passes())
        assert stream.getvalue().endswith("four\n\\xe9\nfive\nthe last of this loop\n")

        async def left() -> None:
            log.info("left by a loop that is stopped")
            asyncio.get_running_loop().stop()

        loop = asyncio.new_event_loop()
        task = loop.create_task(left())
        loop.run_forever()
        loop.run_until_complete(task)
        loop.close()
        handler.flush()
        assert stream.getvalue().endswith("left by a loop that is stopped\n")
    finally:
        log.removeHandler(handler)
        log.propagate = True


@pytest.mark.anyio
async def test_nothing_secret_is_logged_whatever_the_level(out: io.StringIO, tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage, wait=5.0, allow_addresses=("127.0.0.1",)) as api:
        await send_secrets(api)
        keys = [*api.keys.values()]
    await storage.aclose()
    shown = out.getvalue()
    assert [record["status"] for record in records(out) if record.get("route", "").startswith("/hooks")] == [
        500,
        401,
        401,
    ]
    for hidden in ("s3cret", "b0dy", "qu3ry", "p4th", "tok3n", *(key.partition(".")[2] for key in keys)):
        assert hidden not in shown


async def send_secrets(api: Api) -> None:
    """Everything that holds a secret, on ways that succeed and on ways that fail."""
    await api.call("PUT", "/secrets/key", {"value": "s3cret-value"})
    get = {
        "id": "get",
        "type": "http",
        "config": {"url": "http://127.0.0.1:9/{{ secrets.key }}", "headers": {"X-Key": "{{ secrets.key }}"}},
    }
    auth = {"type": "bearer", "secret": "{{ secrets.key }}"}
    nodes = (hook(auth=auth), setting("a", body="{{ input }}"), get)
    await api.post("/workflows", document(*nodes), status=201)
    for credential, body in (("s3cret-value", '{"b0dy": 1}'), ("tok3n-wrong", '{"b0dy": 2}'), (None, "b0dy")):
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        where = "/hooks/acme/in/p4th?q=qu3ry"
        await api.call("POST", where, token="", tenant=None, headers=headers, content=body)
    assert (await api.call("GET", "/workflows", token="key_tok3n.tok3n")).status_code == 401
    assert (await api.call("GET", "/workflows?cursor=qu3ry")).status_code == 400
    assert (await api.call("PUT", "/secrets/key", {"value": 7, "s3cret": 1})).status_code == 422


@pytest.mark.anyio
async def test_what_nobody_foresaw_is_logged_with_its_traceback_and_answered_without(
    out: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = await make_storage("memory", tmp_path)
    async with running(storage) as api:

        async def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("it broke")

        store = await api.parts.realms.store("acme")
        monkeypatch.setattr(type(store.workflows), "list", broken)
        answer = await api.call("GET", "/workflows")
    assert answer.status_code == 500
    (line,) = [record for record in records(out) if record["level"] == "error"]
    assert line["request"] == answer.json()["request_id"]
    assert line["tenant"] == "acme"
    assert "RuntimeError: it broke" in line["exception"]


@pytest.mark.anyio
async def test_errors_of_the_database_do_not_show_what_was_to_be_stored(tmp_path: Path) -> None:
    storage = await SqlStorage.open(f"sqlite:///{tmp_path}/data.db")

    def work(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO executions (id, tenant) VALUES (?, ?)", ("b0dy", "b0dy"))

    with pytest.raises(Exception, match="NOT NULL") as caught:
        await storage._system.write(SYSTEM, work)
    assert "b0dy" not in str(caught.value)
    await storage.aclose()


def format_with(formatter: logging.Formatter, message: str, *, error: bool = False, **tags: Any) -> str:
    raised = Unavailable(message)
    info = (Unavailable, raised, None) if error else None
    record = logging.LogRecord("orchestrator.api", logging.INFO, __file__, 1, "%s", (message,), info)
    for name, value in tags.items():
        setattr(record, name, value)
    return formatter.format(record)


@given(st.text(), st.text(), st.booleans())
def test_nothing_that_is_logged_makes_a_second_line(message: str, tag: str, error: bool) -> None:
    line = format_with(logs.JsonFormatter(), message, error=error, tenant=tag)
    assert len(line.splitlines()) == 1
    assert (json.loads(line)["message"], json.loads(line)["tenant"]) == (message, tag)
    first, *rest = format_with(logs.TextFormatter(), message, error=error, tenant=tag).splitlines()
    assert "INFO" in first
    assert all(line.startswith("    ") for line in rest)
    assert not rest or error


def test_lines_for_people_show_the_tags() -> None:
    line = format_with(logs.TextFormatter(), "GET /x 200\n\x1b[31m", tenant="acme", request="r-1", status=200)
    assert line.endswith("INFO    orchestrator.api GET /x 200\\n\\x1b[31m tenant=acme request=r-1 status=200")


@pytest.mark.parametrize(
    ("terminal", "chosen", "is_json"),
    [(True, "auto", False), (False, "auto", True), (False, "text", False), (True, "json", True)],
)
def test_people_get_text_and_programs_json_unless_said_otherwise(
    out: io.StringIO, terminal: bool, chosen: Any, is_json: bool
) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    logs.configure(Settings(log_format=chosen), stream)
    logging.getLogger("orchestrator.api").info("hello")
    logging.getLogger("orchestrator.api").debug("more")
    logging.getLogger("httpx").info("a library says where it sends what")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("{") is is_json
    assert "hello" in line
