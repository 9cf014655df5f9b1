"""Metrics: what is counted, in a text that Prometheus reads, and in the table of the documentation."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from api_client import Api, document, make_storage, running, setting
from engine_room import until
from prometheus_client.parser import text_string_to_metric_families

from orchestrator_core import Engine
from orchestrator_server.app import open_parts
from orchestrator_server.errors import Unavailable
from orchestrator_server.metrics import FAMILIES, Metrics
from orchestrator_server.realms import Realms
from orchestrator_server.records import Backlog, Schedule, Tenant, Variable
from orchestrator_server.scheduler import Scheduler
from orchestrator_server.settings import Settings

pytestmark = pytest.mark.anyio
DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "server.md"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage, wait=5.0) as made:
        yield made
    await storage.aclose()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels, as Prometheus' own parser has it."""
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "a sample stands there once"
            found[key] = sample.value
    return found


async def shown(api: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return samples((await api.call("GET", "/metrics")).text)


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found.get((f"orchestrator_{name}", tuple(sorted(labels.items()))), 0.0)


async def test_executions_attempts_and_events_are_counted(api: Api) -> None:
    flaky: dict[str, Any] = {
        "id": "bad",
        "type": "http",
        "config": {"url": "http://127.0.0.1:9/"},
        "retry": {"attempts": 2},
        "on_error": "continue",
    }
    later: dict[str, Any] = {"id": "wait", "type": "wait", "config": {"signal": "go"}}
    await api.post("/workflows", document({"id": "m", "type": "manual"}, setting("a", n=1), flaky, name="w"))
    await api.post("/workflows", document({"id": "m", "type": "manual"}, later, name="waits"))
    await api.post("/executions/w/execute", {})
    started = await api.post("/executions/waits/execute", {}, headers={"Prefer": "respond-async"})
    await until(lambda: api.parts.worker.holds == 0)
    found = await shown(api)
    assert value(found, "executions_accepted_total", source="api") == 2
    assert value(found, "executions_finished_total", status="succeeded") == 1
    assert value(found, "executions_held") == 0
    assert value(found, "attempt_seconds_count", type="set", outcome="succeeded") == 1
    assert value(found, "attempt_seconds_count", type="http", outcome="failed") == 1, "a refused address is for good"
    assert value(found, "attempt_seconds_count", type="wait", outcome="waited") == 1
    events = value(found, "events_appended_total")
    await api.post(f"/executions/{started['execution_id']}/cancel", {})
    # Counted when the database has answered: whoever asks it may know a moment earlier.
    await until(lambda: _cancelled(api))
    found = await shown(api)
    assert value(found, "events_appended_total") > events


async def _cancelled(api: Api) -> bool:
    return value(await shown(api), "executions_finished_total", status="cancelled") == 1


@pytest.mark.parametrize("isolation", ["shared", "database"])
async def test_commits_of_the_writers_are_measured(isolation: Any, tmp_path: Path) -> None:
    async with open_parts(Settings(database=f"sqlite:///{tmp_path}/data.db", isolation=isolation)) as parts:
        await parts.storage.tenants.create(Tenant("acme"))
        before = samples(parts.realms.metrics.render())
        store = await parts.storage.store("acme")
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(store.variables.put, Variable(f"v{number}", number))
        jobs = value(before, "commit_jobs_sum") + 20
        # A writer notes a commit when it has answered.
        await until(lambda: value(samples(parts.realms.metrics.render()), "commit_jobs_sum") >= jobs)
        found = samples(parts.realms.metrics.render())
    commits = value(found, "commit_jobs_count") - value(before, "commit_jobs_count")
    assert 0 < commits < 20, "they share commits"
    assert value(found, "commit_seconds_count") == value(found, "commit_jobs_count")


async def test_a_running_attempt_that_is_cancelled_or_takes_too_long_is_counted(api: Api) -> None:
    slow: dict[str, Any] = {"id": "slow", "type": "code", "config": {"source": "while (true) {}"}}
    await api.post("/workflows", document({"id": "m", "type": "manual"}, {**slow, "timeout": 0.2}))
    await api.post("/executions/w/execute", {})
    found = await shown(api)
    assert value(found, "attempt_seconds_count", type="code", outcome="timeout") == 1
    assert value(found, "attempt_seconds_sum", type="code", outcome="timeout") >= 0.2


async def test_children_and_retries_are_accepted_too(api: Api) -> None:
    await api.post("/workflows", document({"id": "m", "type": "manual"}, setting("a", n=1), name="child"))
    call = {"id": "call", "type": "workflow", "config": {"workflow": "child"}}
    await api.post("/workflows", document({"id": "m", "type": "manual"}, call))
    body = await api.post("/executions/w/execute", {})
    await api.post(f"/executions/{body['execution_id']}/retry", {})
    found = await shown(api)
    assert value(found, "executions_accepted_total", source="workflow") == 2
    assert value(found, "executions_accepted_total", source="retry") == 1
    assert value(found, "executions_finished_total", status="succeeded") == 4


async def test_refused_webhooks_are_counted_and_answered_alike(api: Api) -> None:
    await api.call("PUT", "/secrets/key", {"value": "right"})
    auth = {"type": "bearer", "secret": "{{ secrets.key }}"}
    await api.post("/workflows", document({"id": "h", "type": "webhook", "config": {"path": "in", "auth": auth}}))
    refused = await api.call("POST", "/hooks/acme/in", {}, token="", headers={"Authorization": "Bearer wrong"})
    taken = await api.call("POST", "/hooks/acme/in", {}, token="", headers={"Authorization": "Bearer right"})
    assert (refused.status_code, taken.status_code) == (401, 202)
    found = await shown(api)
    assert value(found, "webhooks_refused_total", reason="credential") == 1
    assert value(found, "executions_accepted_total", source="webhook") == 1


async def test_slots_are_counted_by_what_became_of_them(api: Api) -> None:
    storage, metrics = api.storage, Metrics()
    await api.post("/workflows", document({"id": "m", "type": "manual"}))
    store = await storage.store("acme")
    now = await storage.now()
    every = {"every": 10**9, "catch_up": 600}  # so long that no further slot is within the window, whenever this runs
    for name, workflow, at in (("fires", "w", now - 5), ("late", "w", now - 9000), ("fails", "gone", now - 5)):
        await store.schedules.put(Schedule(name, workflow, "", every, enabled=True, next_at=at))
    async with Engine() as engine:
        realms = Realms(engine, storage, api.parts.sealer, metrics=metrics)
        await Scheduler(storage, realms).step()
    found = samples(metrics.render())
    assert value(found, "schedule_slots_total", outcome="fired") == 1
    assert value(found, "schedule_slots_total", outcome="missed") == 1
    assert value(found, "schedule_slots_total", outcome="failed") == 1
    assert 5 <= value(found, "schedule_delay_seconds_sum") < 60
    assert value(found, "executions_accepted_total", source="schedule") == 1


async def test_the_backlog_is_read_seldom_and_a_database_that_is_away_hides_nothing() -> None:
    metrics, asked = Metrics(), 0

    async def backlog() -> Backlog:
        nonlocal asked
        asked += 1
        return Backlog(3, 1.5)

    async def away() -> Backlog:
        raise Unavailable("gone")

    await metrics.look(backlog)
    await metrics.look(backlog)
    assert asked == 1
    found = samples(metrics.render())
    assert (value(found, "queue_due"), value(found, "queue_oldest_seconds")) == (3, 1.5)
    with pytest.raises(Unavailable):
        await metrics.look(away, fresh=0.0)
    assert value(samples(metrics.render()), "queue_due") == 3


async def test_what_waits_in_the_queue_is_shown(tmp_path: Path) -> None:
    storage = await make_storage("sqlite", tmp_path)
    async with running(storage, concurrency=1) as api:
        api.parts.worker.stop()
        await api.post("/workflows", document({"id": "m", "type": "manual"}))
        for _ in range(3):
            await api.post("/executions/w/execute", {}, headers={"Prefer": "respond-async"})
        found = await shown(api)
        assert value(found, "queue_due") == 3
        assert 0 <= value(found, "queue_oldest_seconds") < 60
    await storage.aclose()


async def test_the_text_is_what_prometheus_reads_and_holds_nothing_from_outside(api: Api) -> None:
    await api.call("GET", "/workflows/n0where", headers={"X-Request-Id": "n0where"})
    await api.http.request('FO"O', "/n0where/x", headers={"x-tenant-id": "n0where"})
    text = (await api.call("GET", "/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert [*families] == [family.name.removesuffix("_total") for family in FAMILIES]
    for told in FAMILIES:
        family = families[told.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (told.kind, told.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(told.labels)
    assert "n0where" not in text
    assert "acme" not in text
    histograms = [family for family in families.values() if family.type == "histogram"]
    for family in histograms:
        buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
        for before, after in itertools.pairwise(buckets):
            if after.labels["le"] != buckets[0].labels["le"]:
                assert float(before.labels["le"]) < float(after.labels["le"])
                assert before.value <= after.value, "buckets hold all that is smaller, too"


def test_what_a_label_may_hold_is_written_so_that_it_comes_back() -> None:
    metrics = Metrics()
    metrics.request("GET", 'a"b\\c\nd', 200, 0.005)
    found = samples(metrics.render())
    assert value(found, "http_requests_total", method="GET", route='a"b\\c\nd', status="200") == 1
    assert value(found, "http_request_seconds_bucket", method="GET", route='a"b\\c\nd', le="0.005") == 1


def test_the_documentation_lists_what_is_shown() -> None:
    rows = re.findall(r"^\| `(orchestrator_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", DOCS.read_text(), re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text.strip()) for name, kind, labels, text in rows]
    assert told == [(family.name, family.kind, family.labels, family.help) for family in FAMILIES]


def test_a_bucket_holds_what_is_not_larger_than_its_bound() -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.02, 0.025, 100.0):
        metrics.request("GET", "/x", 200, seconds)
    found = samples(metrics.render())
    counts = {
        bound: value(found, "http_request_seconds_bucket", method="GET", route="/x", le=bound)
        for bound in ("0.005", "0.01", "0.025", "30.0", "+Inf")
    }
    assert counts == {"0.005": 1, "0.01": 1, "0.025": 3, "30.0": 3, "+Inf": 4}
    assert value(found, "http_request_seconds_count", method="GET", route="/x") == 4
    assert value(found, "http_request_seconds_sum", method="GET", route="/x") == pytest.approx(100.05)
