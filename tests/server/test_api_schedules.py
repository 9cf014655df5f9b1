"""Schedules over the API: those made by hand, and what can be done with those of triggers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from api_client import Api, document, make_storage, running, setting

pytestmark = pytest.mark.anyio

MANUAL = {"id": "hand", "type": "manual"}
DAILY = {"id": "daily", "type": "schedule", "config": {"cron": "0 9 * * *"}}
HOURLY = {"workflow": "w", "spec": {"every": "1h"}}


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: Any, tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage(request.param, tmp_path)
    async with running(storage, wait=3.0) as made:
        yield made
    await storage.aclose()


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def fault(api: Api, method: str, path: str, body: Any) -> tuple[int, str]:
    """The status and the place of what is wrong."""
    answer = await api.call(method, path, body)
    return answer.status_code, answer.json().get("faults", [{"place": None}])[0]["place"]


async def test_a_schedule_made_by_hand_starts_its_workflow_with_its_payload(api: Api) -> None:
    await api.post("/workflows", document(MANUAL, DAILY) | {"edges": []})
    spec = {"at": soon(1.0), "payload": {"n": 3}, "start": "hand"}
    answer = await api.call("POST", "/schedules", {"id": "once", "workflow": "w", "spec": spec})
    assert (answer.status_code, answer.headers["location"]) == (201, "/api/v1/schedules/once")
    made = answer.json()
    assert (made["node"], made["spec"], made["enabled"]) == (None, spec, True)
    assert await api.get("/schedules/once") == made
    assert (await api.get("/schedules/once/slots"))["slots"] == []
    with anyio.fail_after(10):
        while not (slots := (await api.get("/schedules/once/slots"))["slots"]):
            await anyio.sleep(0.05)
    (slot,) = slots
    assert slot["at"] == made["next_at"]
    with anyio.fail_after(10):
        while (execution := await api.get(f"/executions/{slot['execution_id']}"))["finished_at"] is None:
            await anyio.sleep(0.02)
    assert execution["output"] == {"n": 3}
    assert (await api.get("/schedules/once"))["next_at"] is None, "it was for one time"


async def test_a_schedule_is_changed_and_deleted(api: Api) -> None:
    await api.post("/workflows", document(setting("a")))
    await api.post("/workflows", document(setting("a"), name="v"))
    made = await api.post("/schedules", HOURLY)
    path = f"/schedules/{made['id']}"
    other = {"workflow": "v", "spec": {"cron": "17 9 * * *", "timezone": "Europe/Berlin", "overlap": "allow"}}
    changed = (await api.call("PUT", path, {**other, "id": made["id"]})).json()
    assert (changed["workflow"], changed["spec"], changed["id"]) == ("v", other["spec"], made["id"])
    assert changed["next_at"] != made["next_at"]
    assert [row["id"] for row in (await api.get("/schedules"))["schedules"]] == [made["id"]]
    off = (await api.call("PUT", path, {**other, "enabled": False})).json()
    assert (off["enabled"], off["next_at"]) == (False, None)
    assert (await api.call("PATCH", path, {"enabled": True})).json() == changed
    assert await fault(api, "PUT", path, {**other, "id": "other"}) == (422, "$.id")
    assert (await api.call("DELETE", path)).status_code == 204
    for method, body in (("GET", None), ("PUT", other), ("PATCH", {"enabled": True}), ("DELETE", None)):
        assert (await api.call(method, path, body)).status_code == 404


async def test_an_id_that_is_taken_is_refused(api: Api) -> None:
    await api.post("/workflows", document(DAILY))
    await api.post("/schedules", {**HOURLY, "id": "mine"})
    for name in ("mine", "w-daily"):
        taken = await api.call("POST", "/schedules", {**HOURLY, "id": name})
        assert (taken.status_code, taken.json()["code"]) == (409, "exists"), name
    assert (await api.call("POST", "/schedules", {**HOURLY, "id": "a b"})).status_code == 400
    clash = await api.call("POST", "/workflows", document(DAILY | {"id": "ine"}, name="m"))
    assert clash.status_code == 201
    await api.post("/schedules", {**HOURLY, "id": "n-daily"})
    clash = await api.call("POST", "/workflows", document(DAILY, name="n"))
    assert (clash.status_code, clash.json()["code"]) == (409, "exists"), "the trigger's id is taken by hand"


async def test_what_would_never_start_anything_is_refused_with_its_place(api: Api) -> None:
    await api.post("/workflows", document(MANUAL, setting("a")))
    both = document(MANUAL, DAILY, name="both")
    await api.post("/workflows", both | {"edges": []})
    for body, place in (
        ({"workflow": "nope", "spec": {"every": 60}}, "$.workflow"),
        ({"workflow": "w", "spec": {}}, "$.spec"),
        ({"workflow": "w", "spec": {"every": 60, "cron": "* * * * *"}}, "$.spec"),
        ({"workflow": "w", "spec": {"every": 0.5}}, "$.spec.every"),
        ({"workflow": "w", "spec": {"every": "soon"}}, "$.spec.every"),
        ({"workflow": "w", "spec": {"cron": "61 * * * *"}}, "$.spec.cron"),
        ({"workflow": "w", "spec": {"cron": "0 0 30 2 *"}}, "$.spec"),
        ({"workflow": "w", "spec": {"cron": "* * * * *", "timezone": "Mars/Base"}}, "$.spec.timezone"),
        ({"workflow": "w", "spec": {"cron": "* * * * *", "catch_up": -1}}, "$.spec.catch_up"),
        ({"workflow": "w", "spec": {"cron": "* * * * *", "overlap": "queue"}}, "$.spec.overlap"),
        ({"workflow": "w", "spec": {"at": "soon"}}, "$.spec.at"),
        ({"workflow": "w", "spec": {"at": "2001-01-01T00:00:00"}}, "$.spec"),
        ({"workflow": "w", "spec": {"every": 60, "start": "a"}}, "$.spec.start"),
        ({"workflow": "both", "spec": {"every": 60}}, "$.spec.start"),
        ({"workflow": "w", "spec": {"every": 60, "path": "x"}}, "$.spec.path"),
    ):
        assert await fault(api, "POST", "/schedules", body) == (422, place), body
    assert [row["id"] for row in (await api.get("/schedules"))["schedules"]] == ["both-daily"]


async def test_a_triggers_schedule_changes_with_its_workflow_only(api: Api) -> None:
    await api.post("/workflows", document(DAILY))
    before = await api.get("/schedules/w-daily")
    for method, body in (("PUT", HOURLY), ("DELETE", None)):
        refused = await api.call(method, "/schedules/w-daily", body)
        assert (refused.status_code, refused.json()["code"]) == (409, "of_a_trigger")
        assert "save a version" in refused.json()["message"]
    assert await api.get("/schedules/w-daily") == before
    assert before["node"] == "daily"


async def test_a_schedule_by_hand_lives_as_long_as_its_workflow(api: Api) -> None:
    await api.post("/workflows", document(DAILY))
    made = await api.post("/schedules", {"workflow": "w", "spec": {"every": "1h", "start": "daily"}})
    await api.call("PUT", "/workflows/w", document(DAILY, setting("a")))
    await api.post("/workflows/w/activate", {"version": None})
    assert [row["id"] for row in (await api.get("/schedules"))["schedules"]] == [made["id"]]
    assert (await api.call("DELETE", "/workflows/w")).status_code == 204
    assert (await api.get("/schedules"))["schedules"] == []


async def test_changing_a_schedule_leaves_it_switched_off(api: Api) -> None:
    await api.post("/workflows", document(setting("a")))
    request = {"workflow": "w", "spec": {"every": 3600}}
    assert (await api.post("/schedules", {"id": "s", **request}))["enabled"] is True
    await api.call("PATCH", "/schedules/s", {"enabled": False})
    for spec in ({"every": 3600}, {"every": 7200}):
        assert (await api.call("PUT", "/schedules/s", {**request, "spec": spec})).json()["enabled"] is False
    assert (await api.call("PUT", "/schedules/s", {**request, "enabled": True})).json()["enabled"] is True


async def test_no_schedule_is_left_of_a_workflow_that_is_deleted_meanwhile(api: Api, monkeypatch: Any) -> None:
    """It would start whatever has the id later."""
    await api.post("/workflows", document(setting("a")))
    schedules: Any = type((await api.storage.store("acme")).schedules)
    real = schedules.replace

    async def late(self: Any, *arguments: Any, **more: Any) -> Any:
        await api.call("DELETE", "/workflows/w")
        return await real(self, *arguments, **more)

    monkeypatch.setattr(schedules, "replace", late)
    answer = await api.call("POST", "/schedules", {"workflow": "w", "spec": {"every": 3600}})
    assert answer.status_code == 404
    assert (await api.get("/schedules"))["schedules"] == []


async def test_saying_the_same_again_moves_nothing(api: Api) -> None:
    await api.post("/workflows", document(setting("a")))
    made = await api.post("/schedules", {"id": "s", "workflow": "w", "spec": {"every": 3600, "overlap": "skip"}})
    store = await api.storage.store("acme")
    known = await store.schedules.get("s")
    assert known is not None
    assert known.next_at is not None
    # As if a scheduler had just dealt with its slot.
    await store.schedules.fire("s", known.next_at, None, next_at=known.next_at + 3600, state={"last": "exe_x"})
    again = (await api.call("PUT", "/schedules/s", {"workflow": "w", "spec": {"every": "1h"}})).json()
    assert again["next_at"] > made["next_at"]
    after = await store.schedules.get("s")
    assert after is not None
    assert after.state == {"last": "exe_x"}
    (slot,) = (await api.get("/schedules/s/slots?limit=1"))["slots"]
    assert slot == {"at": made["next_at"], "execution_id": None}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_change_loses_no_slot_that_is_dealt_with_meanwhile(api: Api, method: str, monkeypatch: Any) -> None:
    await api.post("/workflows", document(setting("a")))
    await api.post("/schedules", {**HOURLY, "id": "s"})
    schedules = (await api.storage.store("acme")).schedules
    get, fire = type(schedules).get, type(schedules).fire
    fired: list[float] = []

    async def slowly(self: Any, name: str) -> Any:
        known = await get(self, name)
        if not fired:
            fired.append(known.next_at)
            await fire(self, name, known.next_at, None, next_at=known.next_at + 3600, state={"last": "exe_x"})
        return known

    monkeypatch.setattr(type(schedules), "get", slowly)
    body = {"enabled": False} if method == "PATCH" else {**HOURLY, "enabled": False}
    assert (await api.call(method, "/schedules/s", body)).status_code == 200
    monkeypatch.undo()
    kept = await schedules.get("s")
    assert kept is not None
    assert (kept.enabled, kept.state, kept.next_at) == (False, {"last": "exe_x"}, fired[0] + 3600)
