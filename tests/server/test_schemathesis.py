"""Schemathesis over the published OpenAPI document, with two tenants: no 5xx, no answer that the document does not promise,
nothing of one tenant in the answers to the other, and nothing of it changed.

Every operation is called as each tenant: with Schemathesis' boundary cases, then with valid and invalid requests at random.
Ids among them are replaced by those of things that are there, so that requests get further than to a 404. The requests are the
same in every run. ``ORCHESTRATOR_SOAK`` makes ten times as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import requests
from fuzz_ground import HIDDEN, MARKS, SCHEDULES, SECRETS, SPARE, TENANTS, VARIABLES, Answer, Ground, ground, workflows
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from orchestrator_server.api.openapi import make_document
from orchestrator_server.api.routes import ROUTES
from orchestrator_server.auth import ROLES

with pytest.MonkeyPatch.context() as _kept:
    # Schemathesis swaps parts of Hypothesis for its own when it is imported, under every test of the session: they are put back.
    from hypothesis import core as _core
    from hypothesis.internal import entropy as _entropy
    from hypothesis.internal.conjecture import engine as _engine
    from hypothesis.strategies._internal import collections as _collections
    from hypothesis.strategies._internal import core as _strategies

    for _module, _name in (
        (_core, "RepresentationPrinter"),
        (_core, "BUFFER_SIZE"),
        (_engine, "BUFFER_SIZE"),
        (_collections, "BUFFER_SIZE"),
        (_entropy, "register_random"),
        (_strategies, "is_first_param_referenced_in_function"),
    ):
        _kept.setattr(_module, _name, getattr(_module, _name, None), raising=False)
    import schemathesis
    from schemathesis.core.parameters import ParameterLocation
    from schemathesis.generation.drivers import CoverageGenerator
    from schemathesis.generation.feedback import NO_FEEDBACK
    from schemathesis.generation.overrides import Override
    from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

FACTOR, CASES = (12, 50_000) if os.environ.get("ORCHESTRATOR_SOAK") else (1, 5_000)
# Cases of one operation and tenant: valid and invalid ones at random, at most so many of its boundary cases of each kind.
VALID, INVALID, BOUNDARY = 32 * FACTOR, 20 * FACTOR, 30 * FACTOR
DOCUMENT: Any = make_document(ROUTES, "1")
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
CONFIG = {
    "generation": {"with-security-parameters": False},
    "checks": {
        # What a schema cannot say is refused with 422 (a cycle, a node that is not there) or 412 (an ETag that is none).
        "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "412", "422"]},
        # 409: a trigger's schedule cannot be changed, whatever the body says.
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "412", "415", "422"]
        },
        "ignored_auth": {"enabled": False},  # it asks a server of its own; `Actor` sends such requests here
        "use_after_free": {"enabled": False},  # what is deleted is put back at once
        "ensure_resource_availability": {"enabled": False},  # as above
    },
}
RUN = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TALLY: Counter[tuple[str, str, str]] = Counter()  # (tenant, operation, class of status) -> cases


@attrs.define
class Sent:
    """A case as it was sent: what for, and as whom."""

    case: Any
    credential: str  # "own", "none", "foreign": that of the acting tenant, none, or its own for the other tenant
    system: bool


@pytest.fixture(scope="module", params=TENANTS)
def acting(request: Any, tmp_path_factory: Any) -> Iterator[Ground]:
    """The application, of which one tenant makes use; the other one only has what it was given."""
    with ground(request.param, tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.fixture(scope="module")
def schema() -> Any:
    config = schemathesis.Config.from_dict(CONFIG)
    # The graph inside a group is left open: to make graphs inside of graphs takes minutes, and all but few are refused anyway.
    schemas = {**DOCUMENT["components"]["schemas"], "WorkflowDocumentBody": {"type": "object"}}
    whole = {**DOCUMENT, "servers": [{"url": "http://test/api/v1"}], "components": {"schemas": schemas}}
    return schemathesis.openapi.from_dict(whole, config=config)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part)
def test_every_answer_is_what_the_document_promises(acting: Ground, schema: Any, method: str, path: str) -> None:
    operation = schema[path][method]
    before = acting.everything_of_the_other()
    acting.keep_going()
    actor = Actor(acting, method, path)
    for number, case in enumerate(boundary_cases(schema, operation)):
        actor.act(case, number)
    for mode, most in ((schemathesis.GenerationMode.POSITIVE, VALID), (schemathesis.GenerationMode.NEGATIVE, INVALID)):

        @settings(RUN, max_examples=most)
        @given(operation.as_strategy(generation_mode=mode), st.integers(0, 2**32))
        def cases(case: Any, number: int) -> None:
            actor.act(case, number)

        with contextlib.suppress(Unsatisfiable):  # where nothing can be wrong in a request
            cases()
    assert acting.everything_of_the_other() == before, "the other tenant's data changed"
    assert sum(TALLY[(*actor.label, status)] for status in "12345") >= VALID
    assert TALLY[(*actor.label, "2")] > 0, "no request succeeded"


def test_so_many_cases_ran() -> None:
    ran = {(who, label) for who, label, _ in TALLY}
    if len(ran) < len(TENANTS) * len(OPERATIONS):
        pytest.skip("only some of the operations were called in this run")
    assert TALLY.total() >= CASES
    assert min(share_of(0).values()) >= 0.45 * TALLY.total(), "half of the cases are each tenant's"


def share_of(part: int) -> Counter[str]:
    """The cases by tenant (0), operation (1) or class of status (2)."""
    found: Counter[str] = Counter()
    for key, cases in TALLY.items():
        found[key[part]] += cases
    return found


def boundary_cases(schema: Any, operation: Any) -> list[Any]:
    """Schemathesis' own cases at the bounds of what the document allows, an even share of them."""
    generation = schema.config.generation_for(operation=operation, phase="coverage")
    made = list(
        CoverageGenerator(
            operation=operation,
            generation_modes=list(schemathesis.GenerationMode),
            generation_config=generation,
            auth_storage=None,
            override=Override(),
            feedback=NO_FEEDBACK,
            hooks=None,
        )
    )
    # Of hundreds of bodies that are objects nearly all are wrong somewhere inside: those that are none must be among the share.
    objects = [case for case in made if isinstance(case.body, dict)]
    others = [case for case in made if not isinstance(case.body, dict)]
    return [case for some in (others, objects) for case in some[:: max(1, -(-len(some) // BOUNDARY))]]


# --- sending a case -------------------------------------------------------------------------------------------------------


class Actor:
    """Sends the cases of one operation as the acting tenant, and judges the answers."""

    def __init__(self, acting: Ground, method: str, path: str) -> None:
        self.ground = acting
        self.method, self.path = method, path
        self.route = next(r for r in ROUTES if r.path == path and r.method in {method, "ANY"})
        self.label = (acting.acting, f"{method} {path}")

    def act(self, case: Any, number: int) -> None:
        sent = self.aim(case, random.Random(number))
        request = requests.Request(**case.as_transport_kwargs(base_url="http://test/api/v1")).prepare()
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        headers = [(name, text_of(value)) for name, value in request.headers.items()]
        answer = self.ground.send(request.method or "", request.url or "", headers, body)
        TALLY[(*self.label, str(answer.status // 100))] += 1
        response = schemathesis.Response(
            answer.status, answer.lists(), answer.content, request, 0.0, False, stream_cut_short=answer.cut
        )
        # What a webhook wants of its callers, and which methods it takes, its workflow says and not the document.
        left_out = [positive_data_acceptance, unsupported_method] if self.route.method == "ANY" else []
        case.validate_response(response, excluded_checks=left_out)
        self.judge(sent, request, body, answer)
        if answer.status < 300 and request.method != "GET":
            self.ground.restock(request.method or "", self.path, dict(case.path_parameters or {}))

    # --- making requests hit --------------------------------------------------------------------------------------------

    def aim(self, case: Any, random: random.Random) -> Sent:
        """Put ids of what is there, a credential and a tenant into a case, where it is not these that are wrong in it."""
        made = self.ground
        negative = {place for place in ParameterLocation if case.meta.is_negative_at(place)}
        if ParameterLocation.PATH not in negative and random.random() < 0.9:
            for name in [name for name in case.path_parameters or {} if name != "tenant"]:
                case.path_parameters[name] = self.known(name, random)
            if self.route.scope == "system" and ParameterLocation.HEADER in negative:
                # Without its header the operator means the tenant of the path, whichever it is.
                case.path_parameters = {name: random.choice(SPARE) for name in case.path_parameters or {}}
            if "tenant" in (case.path_parameters or {}) and "path" in case.path_parameters:
                # Anybody may call webhooks of the other tenant: it has none under these paths.
                case.path_parameters["tenant"] = made.acting if random.random() < 0.9 else made.other
                if random.random() < 0.5:
                    case.headers["x-delivery"] = str(random.random())
        if ParameterLocation.QUERY not in negative and case.query:
            self.aim_query(case.query, random)
        if ParameterLocation.BODY not in negative and random.random() < 0.6:
            bodies = self.bodies(case)
            if bodies:
                case.body = random.choice(bodies)
        return self.aim_credential(case, negative, random)

    def aim_query(self, query: Any, random: random.Random) -> None:
        if "cursor" in query:  # only one that was given out leads anywhere
            query["cursor"] = random.choice(self.ground.cursors)
            query["sort"] = "-created_at"
        if "workflow" in query:
            query["workflow"] = self.known("workflow_id", random)

    def aim_credential(self, case: Any, negative: set[Any], random: random.Random) -> Sent:
        acting, other, keys = self.ground.acting, self.ground.other, self.ground.keys
        system = self.route.scope == "system" or self.path == "/metrics"
        whole = ParameterLocation.HEADER not in negative and case.meta.generation.mode.is_positive
        drawn = random.random()
        headers = case.headers
        if system or drawn > 0.93:
            # The operator may act for everybody: here for the acting tenant, which the header says.
            credential, system = keys[None, "admin"], True
        else:
            credential = keys[acting, "admin" if drawn > 0.15 else random.choice(ROLES)]
        if ParameterLocation.HEADER not in negative:
            named = (case.path_parameters or {}).get("tenant_id")
            headers["x-tenant-id"] = named if named in SPARE and self.route.scope == "system" else acting
        if self.route.scope != "public" and whole and 0.15 < drawn < 0.19:
            headers.pop("Authorization", None)
            return Sent(case, "none", system=False)
        headers["Authorization"] = f"Bearer {credential}"
        if self.route.scope == "tenant" and whole and not system and 0.19 < drawn < 0.23:
            headers["x-tenant-id"] = other
            return Sent(case, "foreign", system=False)
        return Sent(case, "own", system=system)

    def known(self, name: str, random: random.Random) -> str:
        """The id of something that is there, mostly of the acting tenant."""
        made = self.ground
        acting = made.acting
        executions = [found for (who, _), found in made.executions.items() if who == acting]
        foreign = [found for (who, _), found in made.executions.items() if who != acting]
        if self.path.endswith(("/cancel", "/signals/{name}")):
            executions.append(made.executions[acting, "waiting"])
        kind = self.path.split("/")[1]
        names: dict[str, list[str]] = {
            "workflow_id": [w for w in workflows(acting, "") if w != "slow"],
            "execution_id": [*executions, *executions, *foreign[:1]],
            "version": ["1", "1", "2", "3"],
            "schedule_id": list(SCHEDULES),
            "tenant_id": [acting, acting, *SPARE, made.other],
            "key_id": made.spare_keys,
            "name": {
                "secrets": [*SECRETS, "fresh"],
                "variables": [*VARIABLES, "fresh"],
                "nodes": ["set", "code", "http", "webhook", "none"],
                "executions": ["go"],
            }.get(kind, [""]),
            "path": [f"of-{acting}-{end}" for end in ("now", "last/1", "node", "key", "auth", "none")],
        }
        if self.path.endswith("/approvals") and name == "execution_id" and random.random() < 0.5:
            return made.held()
        if self.path.endswith("/revive") and random.random() < 0.3:
            return made.quarantined()
        if name == "token":  # a link to a decision that nobody has made yet
            asked = {"path": "held", "signal": f"s{next(made.numbers)}"}
            made_up = made.does(acting, "POST", f"/executions/{made.held()}/approvals", asked)
            return str(made_up["url"].rpartition("/")[2])
        if name == "schedule_id" and self.method in {"PUT", "DELETE"} and random.random() < 0.5:
            # Those of triggers cannot be changed.
            by_hand = {"id": f"hand-{next(made.numbers)}", "workflow": "shape", "spec": {"every": "1h"}}
            return str(made.does(acting, "POST", "/schedules", by_hand)["id"])
        found = names[name]
        if name == "tenant_id" and self.route.scope == "system" and self.method != "GET":
            found = [*SPARE, *SPARE, made.other]
        return random.choice(found)

    def bodies(self, case: Any) -> list[Any]:
        """Bodies that may well succeed."""
        acting = self.ground.acting
        documents = workflows(acting, self.ground.silent)
        fresh = f"fresh-{next(self.ground.numbers)}"
        named = (case.path_parameters or {}).get("workflow_id")
        hooked = {**documents["hook-now"], "id": fresh}
        made: dict[str, list[Any]] = {
            "POST /workflows": [{**documents["shape"], "id": fresh}, {**documents["hold"], "id": fresh}, hooked],
            "PUT /workflows/{workflow_id}": [documents.get(named, documents["shape"])],
            "POST /workflows/{workflow_id}/activate": [{"version": 1}, {"version": None}, {"version": 2}],
            "POST /tenants": [{"id": fresh}, {"id": fresh, "name": "x", "limits": {"running": 3}}, {"id": SPARE[0]}],
            "PATCH /tenants/{tenant_id}": [{"name": "changed"}, {"retention": {"executions": "30d"}}],
            "POST /tenants/{tenant_id}/keys": [{}, {"role": "viewer", "name": "x"}, {"expires_in": "90d"}],
            "POST /executions/{workflow_id}/execute": [
                {"payload": {"x": 1}},
                {},
                {"payload": [MARKS[acting]], "seed": 3},
            ],
            "POST /executions/{execution_id}/cancel": [{}],
            "POST /executions/{execution_id}/approvals": [{"path": "held", "signal": "go"}],
            "POST /schedules": [{"workflow": "shape", "spec": {"every": "1h"}, "id": fresh}],
            "PUT /schedules/{schedule_id}": [{"workflow": "shape", "spec": {"every": "2h"}}],
            "POST /executions/{execution_id}/retry": [{}, {"node": "shape"}, {"node": "each"}],
            "POST /executions/{execution_id}/signals/{name}": [
                {"path": "held", "payload": 1},
                {"path": "held", "id": "x"},
            ],
            "PUT /secrets/{name}": [{"value": f"{HIDDEN} too"}],
            "PATCH /schedules/{schedule_id}": [{"enabled": True}, {"enabled": False}],
        }
        return made.get(f"{self.method} {self.path}", [])

    # --- judging answers ------------------------------------------------------------------------------------------------

    def judge(self, sent: Sent, request: Any, body: bytes, answer: Answer) -> None:
        """What the document does not say: errors have one shape, and nobody sees what is not theirs."""
        told = {name.lower(): value for name, value in answer.headers}
        assert answer.status < 500, answer
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", told["x-request-id"])
        assert told["x-content-type-options"] == "nosniff"
        if answer.status >= 400:
            if request.method != "HEAD":
                error = json.loads(answer.content)
                assert error["message"], error
                assert re.fullmatch(r"[a-z_]+", error["code"]), error
            assert b"Traceback" not in answer.content
        if sent.credential == "none":
            assert answer.status in {401, 404, 405}, answer
        if sent.credential == "foreign":
            assert answer.status in {403, 404, 405}, answer
        self.judge_contents(sent, request, body, answer)

    def judge_contents(self, sent: Sent, request: Any, body: bytes, answer: Answer) -> None:
        asked = f"{request.url} {dict(request.headers)} {body!r}"
        shown = answer.content.decode("utf-8", "replace") + repr(answer.headers)
        assert HIDDEN not in shown or HIDDEN in asked, "the value of a secret is shown"
        if self.route.scope == "system":
            return  # the operator sees the names of all tenants
        assert MARKS[self.ground.other] not in shown, "something of the other tenant is shown"
        for (who, _), execution in self.ground.executions.items():
            if who == self.ground.other:
                assert execution not in shown or execution in asked, "an execution of the other tenant is shown"


def text_of(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
