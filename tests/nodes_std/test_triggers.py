from __future__ import annotations

import pytest
from helpers import refused, run
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_core import NodeError
from orchestrator_core.testing import make_context
from orchestrator_nodes_std.cron import CronError, parse_cron
from orchestrator_nodes_std.triggers import (
    Idempotency,
    ManualConfig,
    RespondConfig,
    ScheduleConfig,
    Signature,
    WebhookAuth,
    WebhookConfig,
    WebhookResponse,
    manual,
    respond,
    schedule,
    webhook,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("trigger", "config"),
    [(manual, ManualConfig()), (webhook, WebhookConfig("orders")), (schedule, ScheduleConfig(every=60.0))],
)
async def test_a_trigger_delivers_what_started_the_execution(trigger, config):
    assert trigger.trigger
    assert await trigger(make_context(), config, {"{{ not }}": "evaluated"}) == {"{{ not }}": "evaluated"}


# --- webhook ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["orders", "orders/{id}/paid", "v1.2/a_b~c-d", "{a}/{b}"])
def test_a_webhook_path_may_have_parameters(path):
    assert WebhookConfig(path).path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/orders",
        "orders/",
        "a//b",
        "a/../b",
        ".",
        "a b",
        "a%2Fb",
        "ä",
        "{id",
        "{1}",
        "{a}/{a}",
        "{{ vars.p }}",
        "a" * 257,
    ],
)
def test_a_webhook_path_with_more_than_one_meaning_is_refused(path):
    with pytest.raises(ValueError, match="`path`"):
        WebhookConfig(path)


def test_a_secret_that_is_empty_would_let_everybody_in_and_is_refused():
    with pytest.raises(ValueError, match="`secret` is empty"):
        Signature("X-Signature", "")
    with pytest.raises(ValueError, match="`secret` is empty"):
        WebhookAuth("bearer", "")
    assert Signature("X-Signature", "{{ secrets.k }}").tolerance == 300


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WebhookAuth("basic", "s"), "needs `user`"),
        (lambda: WebhookAuth("header", "s"), "needs `header`"),
        (lambda: WebhookAuth("header", "s", header="X Y"), "no header name"),
        (Idempotency, "either `header` or `key`"),
        (lambda: Idempotency("X-Id", "{{ payload.id }}"), "either `header` or `key`"),
        (lambda: WebhookResponse(99), "`status` must be 200 to 599"),
        (lambda: WebhookResponse(200, {"X-A": "a\r\nSet-Cookie: b"}), "no header may hold"),
        (lambda: WebhookConfig("a", []), "`methods` must name at least one"),
    ],
)
def test_webhook_settings_that_make_no_sense_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_secrets_of_a_webhook_stand_in_fields_declared_secret():
    for config in (Signature, WebhookAuth):
        assert [field.name for field in config.__attrs_attrs__ if field.metadata.get("secret")] == ["secret"]


# --- schedule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("*/15 * * * *", 0, {0, 15, 30, 45}),
        ("5/20 * * * *", 0, {5, 25, 45}),
        ("0 9-17/4 * * *", 1, {9, 13, 17}),
        ("0 0 1,15,31 * *", 2, {1, 15, 31}),
        ("0 0 * jan,DEC *", 3, {1, 12}),
        ("0 0 * * MON-FRI", 4, {1, 2, 3, 4, 5}),
        ("0 0 * * 5-7", 4, {5, 6, 7}),
        ("0 0 * * *", 4, set(range(7))),
        ("0 0 29 2 *", 2, {29}),
        ("0 0 31 2 MON", 2, {31}),  # or on Mondays
    ],
)
def test_cron_fields_are_read(text, field, values):
    assert parse_cron(text)[field] == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "has 4"),
        ("@daily", "has 1"),
        ("0 0 0 * * *", "has 6"),
        ("60 * * * *", "minute: 60 is outside of 0 to 59"),
        ("0 24 * * *", "hour: 24"),
        ("0 0 0 * *", "day of month: 0"),
        ("0 0 * 13 *", "month: 13"),
        ("0 0 * * 8", "day of week: 8"),
        ("0 0 * FOO *", "'FOO' is neither"),
        ("0 0 * * JAN", "'JAN' is neither"),
        ("*/0 * * * *", "at least 1"),
        ("30-10 * * * *", "goes backwards"),
        ("*-5 * * * *", r"cannot read '\*-5'"),
        ("1,,2 * * * *", "cannot read ''"),
        ("-1 * * * *", "cannot read '-1'"),
        ("0 0 L * *", "'L' is neither"),
        ("0 0 * * 5#2", "cannot read '5#2'"),
        ("\u0661 * * * *", "cannot read"),
        ("99999999999999999999 * * * *", "outside"),
        ("0 0 31 2,4,6 *", "would never start"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_its_field(text, says):
    with pytest.raises(CronError, match=says):
        parse_cron(text)
    with pytest.raises(ValueError, match="`cron` is no cron expression"):
        ScheduleConfig(cron=text)


@given(st.text(alphabet="0123456789*/-, ABCFMNORSUTW#LJ", max_size=30))
def test_no_text_does_more_harm_to_cron_than_being_refused(text):
    try:
        fields = parse_cron(text)
    except CronError:
        return
    assert len(fields) == 5
    assert all(fields)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "there is none"),
        ({"cron": "* * * * *", "every": 60.0}, "these are cron, every"),
        ({"every": 0.5}, "`every` must be at least 1 second"),
        ({"at": "tomorrow"}, "`at` must be an ISO 8601 time"),
        ({"cron": "* * * * *", "timezone": "Europe/Atlantis"}, "`timezone` names no time zone"),
        ({"cron": "* * * * *", "timezone": "../../etc/passwd"}, "`timezone` names no time zone"),
        ({"cron": "* * * * *", "timezone": "America"}, "`timezone` names no time zone"),
        ({"cron": "* * * * *", "timezone": ""}, "`timezone` names no time zone"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ScheduleConfig(**settings)


def test_templates_in_a_schedule_wait_for_their_values():
    assert ScheduleConfig(cron="{{ vars.cron }}", timezone="{{ vars.zone }}").overlap == "skip"
    assert ScheduleConfig(at="2027-01-01T00:00:00", timezone="Europe/Berlin").cron is None


# --- respond ---------------------------------------------------------------------------------------------------------


async def test_respond_answers_with_what_it_is_given_or_with_its_input():
    assert await respond(make_context(), RespondConfig(), {"id": 7}) == {
        "status": 200,
        "headers": {},
        "body": {"id": 7},
    }
    config = RespondConfig(404, {"X-Count": 5, "X-Known": True}, None)
    assert await respond(make_context(), config, {"id": 7}) == {
        "status": 404,
        "headers": {"X-Count": "5", "X-Known": "true"},
        "body": None,
    }


@pytest.mark.parametrize("value", ["{{\r\nSet-Cookie: a=b", "{{ \x00", "{{ \u20ac", None, ["a"]])
async def test_no_data_can_break_out_of_a_header(value):
    with pytest.raises((NodeError, ValueError), match="headers"):
        await respond(make_context(), RespondConfig(headers={"X-A": value}), None)


# --- through the engine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trigger",
    [
        {"type": "manual"},
        {"type": "webhook", "config": {"path": "orders/{id}", "respond": "node"}},
        {"type": "schedule", "config": {"every": "15m"}},
    ],
)
async def test_a_program_can_start_at_any_trigger(trigger):
    nodes = [
        {"id": "start", **trigger},
        {"id": "answer", "type": "respond", "config": {"status": 201, "headers": {"X-Id": "{{ input.id }}"}}},
    ]
    result = await run(nodes, {"id": 7})
    assert result.output == {"status": 201, "headers": {"X-Id": "7"}, "body": {"id": 7}}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"cron": "0 9 * * 8"}, "day of week: 8"),
        ({"cron": "0 9 * * *", "every": "1h"}, "exactly one"),
        ({"every": "often"}, "no duration"),
        ({"cron": "0 9 * * *", "overlap": "pile_up"}, "must be one of skip"),
    ],
)
def test_a_schedule_that_could_not_run_is_refused_on_saving(config, says):
    (message,) = refused([{"id": "s", "type": "schedule", "config": config}]).values()
    assert says in message


async def test_a_signature_takes_its_key_from_the_secrets_and_nothing_else_may():
    signature = {"header": "X-Signature", "secret": "{{ secrets.k }}"}
    node = {"id": "hook", "type": "webhook", "config": {"path": "a", "signature": signature}}
    assert (await run([node], 1, secrets={"k": "s"})).output == 1
    node["config"]["signature"] = {"header": "{{ secrets.k }}", "secret": "s"}
    assert "declared secret" in refused([node])["$.nodes[0].config.signature.header"]


async def test_no_answer_carries_a_header_that_data_has_broken():
    nodes = [{"id": "r", "type": "respond", "config": {"headers": {"X-A": "{{ input }}"}}}]
    result = await run(nodes, "{{\r\nSet-Cookie: a=b")
    assert (result.status, result.error.code) == ("failed", "bad_config")
