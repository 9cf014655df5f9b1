"""Approvals through signed links: who holds one may answer, once, and nobody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import attrs
import httpx
import pytest
from api_client import KEY, Api, document, make_storage, running
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_server.approvals import Approval, ApprovalLinks, hide_links
from orchestrator_server.errors import Invalid
from orchestrator_server.realms import Realms
from orchestrator_server.sealing import KeyRing, Sealer, load_keys
from orchestrator_server.settings import load_settings

pytestmark = pytest.mark.anyio

ASK = {"id": "ask", "type": "wait", "name": "Pay <b>900</b> €?", "config": {"signal": "decision", "expires": "7d"}}
LINK = {"id": "link", "type": "approval-link", "config": {"node": "ask", "signal": "decision"}}
FLOW = document(LINK, ASK, name="pay") | {"name": "Payments & more"}
PUBLIC = "https://flows.example.com/base"
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(params=["memory", "sqlite"])
async def api(request: Any, tmp_path: Path) -> AsyncIterator[Api]:
    storage = await make_storage(request.param, tmp_path)
    async with running(storage, wait=0.2, public_url=PUBLIC + "/") as made:
        yield made
    await storage.aclose()


async def asked(api: Api, flow: Any = FLOW) -> tuple[str, Any]:
    """An execution that waits for its answer, and what its node `link` gave."""
    await api.call("POST", "/workflows", flow)
    started = await api.post(f"/executions/{flow['id']}/execute", headers={"Prefer": "respond-async"})
    with anyio.fail_after(10):
        while True:
            body = await api.get(f"/executions/{started['execution_id']}")
            if body["status"] == "waiting" or body["finished_at"]:
                return body["execution_id"], body["nodes"][0]["output"]
            await anyio.sleep(0.02)


async def ended(api: Api, execution_id: str) -> Any:
    with anyio.fail_after(10):
        while (body := await api.get(f"/executions/{execution_id}"))["finished_at"] is None:
            await anyio.sleep(0.02)
    return body


def path_of(url: str) -> str:
    assert url.startswith(PUBLIC + "/api/v1/approvals/")
    return url.removeprefix(PUBLIC + "/api/v1")


async def opened(api: Api, url: str) -> httpx.Response:
    """What a browser sees that opens a link."""
    return await api.http.get(path_of(url), headers=BROWSER)


async def sent(api: Api, url: str, answer: str, comment: str = "", *, headers: Any = BROWSER) -> httpx.Response:
    """What a browser sees that sends the form."""
    return await api.http.post(path_of(url), data={"answer": answer, "comment": comment}, headers=headers)


# --- answering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "approved"), [("approve", True), ("reject", False)])
async def test_a_person_answers_and_the_execution_goes_on(api: Api, answer: str, approved: bool) -> None:
    execution_id, links = await asked(api)
    for _ in range(2):
        shown = await opened(api, links["url"])
        assert shown.status_code == 200
        assert {"Approve", "Reject"} <= set(re.findall(r"<button [^>]*>(\w+)<", shown.text))
    assert (await api.get(f"/executions/{execution_id}"))["status"] == "waiting", "opening it answers nothing"
    done = await sent(api, links["url"], answer, " fine\r\nby me ")
    assert (done.status_code, "Your answer was passed on" in done.text) == (200, True)
    output = (await ended(api, execution_id))["output"]
    assert (output["approved"], output["comment"]) == (approved, "fine\nby me")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", output["at"])


async def test_the_first_answer_counts_whichever_link_it_came_through(api: Api) -> None:
    execution_id, links = await asked(api)
    answers: list[httpx.Response] = []

    async def send(name: str) -> None:
        answers.append(await sent(api, links[f"{name}_url"], name, f"by {name}"))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(send, "approve")
            group.start_soon(send, "reject")
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    (good,) = [answer for answer in answers if answer.status_code == 200]
    output = (await ended(api, execution_id))["output"]
    assert output["approved"] == ("Approved" in good.text)
    done = "approved" if output["approved"] else "rejected"
    for again in (await sent(api, links["url"], "reject"), await opened(api, links["url"])):
        assert (again.status_code, f"answered already: it was {done}" in again.text) == (409, True)
    plain = await api.call("POST", path_of(links["url"]), data={"answer": "approve"}, token="", tenant=None)
    assert (plain.status_code, plain.json()["code"]) == (409, "answered")


async def test_the_same_answer_twice_in_one_millisecond_counts_once(api: Api, monkeypatch: Any) -> None:
    now = await api.storage.now()

    async def stands_still(*_: Any) -> float:
        return now

    execution_id, links = await asked(api)
    monkeypatch.setattr(type(api.storage), "now", stands_still)
    answers: list[int] = []

    async def send() -> None:
        answers.append((await sent(api, links["url"], "approve", "yes")).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(send)
    assert sorted(answers) == [200] + [409] * 4
    assert (await ended(api, execution_id))["output"]["approved"] is True


async def test_who_is_overtaken_between_looking_and_answering_is_told(api: Api, monkeypatch: Any) -> None:
    later = {"id": "later", "type": "wait", "config": {"signal": "never"}}
    execution_id, links = await asked(api, document(LINK, ASK, later, name="pay"))
    inbox = type((await api.storage.store("acme")).inbox)
    post = inbox.post

    async def slowly(self: Any, name: str, message: Any) -> bool:
        if message.payload["comment"] == "slow":
            assert (await sent(api, links["url"], "approve", "quick")).status_code == 200
            while (await api.get(f"/executions/{execution_id}"))["nodes"][1]["status"] != "succeeded":
                await anyio.sleep(0.02)
        return await post(self, name, message)

    monkeypatch.setattr(inbox, "post", slowly)
    with anyio.fail_after(10):
        overtaken = await sent(api, links["url"], "reject", "slow")
    assert (overtaken.status_code, "it was approved" in overtaken.text) == (409, True)


async def test_a_link_for_one_answer_gives_no_other(api: Api) -> None:
    execution_id, links = await asked(api)
    shown = await opened(api, links["approve_url"])
    assert re.findall(r"<button [^>]*>(\w+)<", shown.text) == ["Approve"]
    refused = await sent(api, links["approve_url"], "reject")
    assert refused.status_code == 403
    assert (await api.get(f"/executions/{execution_id}"))["status"] == "waiting"
    assert (await sent(api, links["reject_url"], "reject")).status_code == 200
    assert (await ended(api, execution_id))["output"]["approved"] is False


async def test_what_is_no_answer_is_refused(api: Api) -> None:
    execution_id, links = await asked(api)
    path = path_of(links["url"])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for content, headers, status in (
        (b"", form, 422),
        (b"answer=maybe", form, 422),
        (b"answer=approve&extra=1", form, 422),
        (b"answer=approve&answer=reject", form, 400),
        (b"answer=approve&comment=%ff", form, 400),
        ("answer=approve&comment=é".encode(), form, 400),
        (b"answer=approve&comment=" + b"x" * 2001, form, 422),
        (b'{"answer": "approve"}', {"Content-Type": "application/json"}, 415),
        (b"answer=approve", {"Content-Type": "text/plain"}, 415),
    ):
        answer = await api.call("POST", path, content=content, headers=headers, token="", tenant=None)
        assert answer.status_code == status, content
    assert (await api.get(f"/executions/{execution_id}"))["status"] == "waiting"


# --- links that do not count ------------------------------------------------------------------------------------------


async def test_what_was_not_signed_here_is_not_there(api: Api) -> None:
    execution_id, links = await asked(api)
    text, _, signature = links["url"].rpartition("/")[2].partition(".")
    inner = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    other = ApprovalLinks(KeyRing({"k1": b"x" * 32}, "k1"), PUBLIC)
    forged = other.url(Approval("acme", execution_id, "ask", "decision", time.time() + 60)).rpartition("/")[2]
    own = load_keys(KEY).keys["k1"]
    direct = encoded(hmac.new(own, text.encode(), hashlib.sha256).digest())
    for token in (
        "x",
        f"{text}.",
        f".{signature}",
        f"{text}.{signature}x",
        f"{text}.{signature[:-1]}",
        f"{text}=.{signature}",
        f"{encoded(inner.replace(b'acme', b'Acme'))}.{signature}",
        encoded(inner.replace(b"null", b'"approve"')) + f".{signature}",
        f"{text}.{direct}",
        forged,
        "x" * 10_000,
        "%00.%ff",
    ):
        for method, body in (("GET", None), ("POST", {"answer": "approve"})):
            answer = await api.call(method, f"/approvals/{token}", data=body, token="", tenant=None)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), token
    assert (await api.http.get(f"/approvals/{text}.", headers=BROWSER)).headers["content-type"].startswith("text/html")
    assert (await api.get(f"/executions/{execution_id}"))["status"] == "waiting"


async def test_what_is_over_is_gone(api: Api) -> None:
    execution_id, links = await asked(api)
    make = api.parts.links.url
    late = Approval("acme", execution_id, "ask", "decision", time.time() - 1)
    gone = {
        "expired": [late],
        "over": [
            attrs.evolve(late, expires_at=time.time() + 60, tenant="nobody"),
            attrs.evolve(late, expires_at=time.time() + 60, tenant="Acme"),
            attrs.evolve(late, expires_at=time.time() + 60, execution_id="exe_nobody"),
            attrs.evolve(late, expires_at=time.time() + 60, path="link"),
        ],
    }
    for code, approvals in gone.items():
        for approval in approvals:
            for method, body in (("GET", None), ("POST", {"answer": "approve"})):
                answer = await api.call(method, path_of(make(approval)), data=body, token="", tenant=None)
                assert (answer.status_code, answer.json()["code"]) == (410, code), approval
    await api.post(f"/executions/{execution_id}/cancel")
    await ended(api, execution_id)
    assert (await opened(api, links["url"])).status_code == 410
    assert (await sent(api, links["url"], "approve")).status_code == 410


async def test_an_answer_after_the_wait_is_told_that_nobody_waits(api: Api) -> None:
    short = {**ASK, "config": {"signal": "decision", "expires": 0.3, "on_expiry": "port"}}
    later = {"id": "later", "type": "wait", "config": {"signal": "never"}}
    flow = document(LINK, short, later, name="short")
    flow["edges"][1]["port"] = "expired"
    _, links = await asked(api, flow)
    with anyio.fail_after(10):
        while (answer := await opened(api, links["url"])).status_code == 200:
            await anyio.sleep(0.05)
    assert answer.status_code == 410
    assert (await sent(api, links["url"], "approve")).status_code == 410


# --- the page ---------------------------------------------------------------------------------------------------------


async def test_the_page_is_plain_and_safe(api: Api) -> None:
    _, links = await asked(api)
    shown = await opened(api, links["url"])
    assert "Payments &amp; more asks for a decision" in shown.text
    assert "Pay &lt;b&gt;900&lt;/b&gt; €?" in shown.text
    assert "<script" not in shown.text
    assert "http" not in shown.text.replace("http-equiv", ""), "nothing is loaded from elsewhere"
    for page in (shown, await sent(api, links["url"], "approve"), await opened(api, links["url"])):
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert "script-src" not in policy
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in page.headers
    head = await api.http.head(path_of(links["url"]), headers=BROWSER)
    assert head.status_code == 409


# --- making links -----------------------------------------------------------------------------------------------------


async def test_links_are_made_over_the_api_too(api: Api) -> None:
    execution_id, _ = await asked(api)
    path = f"/executions/{execution_id}/approvals"
    made = await api.post(path, {"path": "ask", "signal": "decision", "expires": "1h"}, status=201)
    assert (await opened(api, made["url"])).status_code == 200
    for body, status in (
        ({"path": "nope", "signal": "decision"}, 422),
        ({"path": "ask", "signal": ""}, 400),
        ({"path": "ask", "signal": "decision", "expires": 0}, 422),
        ({"path": "ask", "signal": "decision", "expires": "9000w"}, 422),
        ({"path": "ask"}, 422),
    ):
        assert (await api.call("POST", path, body)).status_code == status, body
    assert (await sent(api, made["reject_url"], "reject")).status_code == 200
    await ended(api, execution_id)
    late = await api.call("POST", path, {"path": "ask", "signal": "decision"})
    assert (late.status_code, late.json()["code"]) == (409, "ended")


async def test_a_link_leads_to_the_wait_beside_it_in_a_loop_and_in_a_list(api: Api) -> None:
    body = document(LINK, ASK, name="body")
    loop = {"id": "poll", "type": "loop", "config": {"body": body, "max_iterations": 1}}
    flow = document(loop, name="looped")
    await api.post("/workflows", flow)
    started = await api.post("/executions/looped/execute", headers={"Prefer": "respond-async"})
    links = await output_of(api, started["execution_id"], "poll/0/link")
    assert (await sent(api, links["url"], "approve", "in the loop")).status_code == 200
    assert (await ended(api, started["execution_id"]))["output"]["comment"] == "in the loop"

    each = "{{ [1, 2] }}"
    item = {**LINK, "for_each": each, "config": {"node": "ask/{{ index }}", "signal": "decision"}}
    await api.post("/workflows", document(item, {**ASK, "for_each": each}, name="list"))
    started = await api.post("/executions/list/execute", headers={"Prefer": "respond-async"})
    for index, answer in ((1, "reject"), (0, "approve")):
        links = await output_of(api, started["execution_id"], f"link/{index}")
        assert (await sent(api, links["url"], answer)).status_code == 200
    output = (await ended(api, started["execution_id"]))["output"]
    assert [item["approved"] for item in output] == [True, False]


async def test_a_link_leads_into_a_stored_workflow_that_was_called(api: Api) -> None:
    await api.post("/workflows", document(LINK, ASK, name="inner"))
    call = {"id": "call", "type": "workflow", "config": {"workflow": "inner"}}
    await api.post("/workflows", document(call, name="outer"))
    started = await api.post("/executions/outer/execute", headers={"Prefer": "respond-async"})
    with anyio.fail_after(10):
        while not (rows := (await api.get("/executions?workflow=inner"))["executions"]):
            await anyio.sleep(0.02)
    links = await output_of(api, rows[0]["execution_id"], "link")
    assert (await opened(api, links["url"])).status_code == 200
    assert (await sent(api, links["url"], "approve", "inside")).status_code == 200
    assert (await ended(api, started["execution_id"]))["output"]["comment"] == "inside"


async def output_of(api: Api, execution_id: str, path: str) -> Any:
    with anyio.fail_after(10):
        while True:
            body = await api.get(f"/executions/{execution_id}")
            for record in body["nodes"]:
                if record["path"] == path and record["status"] == "succeeded":
                    return record["output"]
            await anyio.sleep(0.02)


async def test_a_link_to_a_node_that_is_not_there_fails_the_node(api: Api) -> None:
    wrong = {**LINK, "config": {"node": "nope", "signal": "decision"}}
    await api.post("/workflows", document(wrong, ASK, name="wrong"))
    started = await api.post("/executions/wrong/execute", headers={"Prefer": "respond-async"})
    error = (await ended(api, started["execution_id"]))["error"]
    assert (error["code"], "no node 'nope'" in error["message"]) == ("bad_config", True)


async def test_who_may_only_read_sees_no_link_that_works(api: Api) -> None:
    execution_id, links = await asked(api)
    viewer, operator = await api.key("acme", "viewer"), await api.key("acme", "operator")
    token = links["url"].rpartition("/")[2]
    for path in (f"/executions/{execution_id}", "/executions/pay/logs", f"/executions/{execution_id}/events"):
        if path.endswith("events"):
            await api.post(f"/executions/{execution_id}/cancel")
        for key, visible in ((viewer, False), (operator, True)):
            text = (await api.call("GET", path, token=key)).text
            assert "/api/v1/approvals/" in text
            assert (token in text) == visible, path


def test_a_hidden_text_keeps_the_rest() -> None:
    links = ApprovalLinks(load_keys(KEY), "http://x")
    url = links.url(Approval("t", "exe_1", "a", "s", 1e9))
    assert hide_links(f"see <{url}>, or {url}.") == (
        "see <http://x/api/v1/approvals/***>, or http://x/api/v1/approvals/***."
    )
    assert hide_links("nothing here") == "nothing here"
    token = url.rpartition("/")[2]
    for shown in (token, quote(url, safe=""), json.dumps({"part": [token]}), f"xWyJ{token}"):
        assert token not in hide_links(shown)
        assert "***" in hide_links(shown)


# --- keys and settings ------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(tenant=names, path=names, signal=names, expires=st.floats(0, 1e11), answer=st.sampled_from([None, "approve"]))
def test_a_link_says_what_it_was_made_for(tenant: str, path: str, signal: str, expires: float, answer: Any) -> None:
    links = ApprovalLinks(load_keys(KEY), "http://x")
    approval = Approval(tenant, "exe_1", path, signal, expires, answer)
    url = links.url(approval)
    assert re.fullmatch(r"http://x/api/v1/approvals/[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}", url)
    assert links.read(url.rpartition("/")[2]) == approval


def test_links_hold_while_their_key_is_known() -> None:
    first, second = b"1" * 32, b"2" * 32
    approval = Approval("t", "exe_1", "a", "s", 1e9)
    token = ApprovalLinks(KeyRing({"k1": first}, "k1"), "").url(approval).rpartition("/")[2]
    rotated = ApprovalLinks(KeyRing({"k2": second, "k1": first}, "k2"), "")
    assert rotated.read(token) == approval
    assert rotated.url(approval).rpartition("/")[2] != token
    assert ApprovalLinks(KeyRing({"k2": second}, "k2"), "").read(token) is None


def test_the_address_is_the_public_one_or_the_servers_own() -> None:
    assert load_settings({}).address == "http://127.0.0.1:8080"
    assert load_settings({"ORCHESTRATOR_HOST": "::1", "ORCHESTRATOR_PORT": "80"}).address == "http://[::1]:80"
    assert load_settings({"ORCHESTRATOR_PUBLIC_URL": "https://a.example/x/"}).address == "https://a.example/x"
    for bad in ("a.example", "ftp://a.example", "https://a.example/?q", "https://a.example/#x", "https://u@a.example"):
        with pytest.raises(Invalid, match="ORCHESTRATOR_PUBLIC_URL"):
            load_settings({"ORCHESTRATOR_PUBLIC_URL": bad})


async def test_without_links_the_node_says_so(api: Api) -> None:
    realm = await Realms(api.parts.engine, api.storage, Sealer({"k1": b"1" * 32}, "k1")).get("acme")
    with pytest.raises(Exception, match="approval links lead to a server"):
        realm.approval_link("exe_1", "ask", "decision", expires_at=0.0)
