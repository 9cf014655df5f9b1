from __future__ import annotations

import attrs
import pytest
from helpers import NOW, run

from orchestrator_core.testing import check_node_type, make_context
from orchestrator_nodes_std.approval import ApprovalLinkConfig, approval_link

pytestmark = pytest.mark.anyio

CONFIG = ApprovalLinkConfig(node="ask", signal="decision", expires=60.0)


async def test_it_keeps_the_contract():
    await check_node_type(approval_link)


async def test_it_gives_a_link_for_both_answers_and_one_for_each():
    links = await approval_link(make_context(now=NOW), CONFIG, {"amount": 900})
    start, end = "https://server.test/exe_test/ask/decision/", f"/{NOW + 60:.0f}"
    assert links == {
        "url": f"{start}any{end}",
        "approve_url": f"{start}approve{end}",
        "reject_url": f"{start}reject{end}",
        "expires_at": "2027-01-15T08:01:00Z",
    }


@pytest.mark.parametrize(
    ("path", "node", "beside"),
    [
        ("link", "ask", "ask"),
        ("link/3", "ask/3", "ask/3"),
        ("poll/2/link", "ask", "poll/2/ask"),
        ("rows/7/poll/2/link/0", "ask", "rows/7/poll/2/ask"),
    ],
)
async def test_the_node_is_looked_for_in_the_same_graph(path, node, beside):
    ctx = attrs.evolve(make_context(), path=path, node_id="link")
    links = await approval_link(ctx, attrs.evolve(CONFIG, node=node), None)
    assert links["url"].startswith(f"https://server.test/exe_test/{beside}/decision/any/")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"node": "", "signal": "x"}, "`node` must not be empty"),
        ({"node": "x", "signal": ""}, "`signal` must not be empty"),
        ({"node": "x", "signal": "y", "expires": 0.0}, "`expires`"),
        ({"node": "x", "signal": "y", "expires": 1e9}, "`expires`"),
    ],
)
def test_links_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ApprovalLinkConfig(**settings)


async def test_without_a_server_there_are_no_links():
    result = await run([{"id": "link", "type": "approval-link", "config": {"node": "link", "signal": "x"}}], None)
    assert (result.error.code, "execution.signal(" in result.error.message) == ("no_links", True)
