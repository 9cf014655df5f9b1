"""The live picture: the frames that a terminal shows, for every size of terminal and of graph."""

import re
from io import StringIO

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from orchestrator_core import Engine, Workflow
from orchestrator_core.cli import live
from orchestrator_core.cli.progress import Progress, place_of
from orchestrator_core.graph import make_plan
from orchestrator_core.testing.cases import load_case
from orchestrator_core.testing.simulate import describe, simulate
from orchestrator_core.testing.strategies import cases
from orchestrator_core.types import NodeStatus

pytest.importorskip("orchestrator_nodes_std")


def follow(document, payload=None, **options):
    """The progress after every event, with the time of the event; and the result."""
    workflow = Workflow.from_dict({"schema": 1, "id": "shown", **document})
    seen = []

    async def main():
        async with Engine(**options) as engine:
            progress = Progress(engine.plan(workflow))
            execution = await engine.start(workflow, payload)
            async for event in execution.events():
                progress.apply(event)
                seen.append((event, text(progress, event.at)))
            return progress, await execution.result()

    progress, result = anyio.run(main)
    return progress, result, seen


def text(progress, now, *, width=100, height=40, icons=None):
    console = Console(width=width, height=height, record=True, file=StringIO(), color_system="truecolor")
    console.print(live.frame(progress, now=now, width=width, height=height, icons=icons))
    return console.export_text().rstrip("\n").splitlines()


def line_of(lines, name):
    (line,) = [line for line in lines if re.match(rf"\S +{name} ", line)]
    return line


def test_a_line_for_each_node_in_the_order_of_the_graph():
    document = {
        "nodes": [{"id": name, "type": "set"} for name in ("last", "first", "middle")],
        "edges": [{"source": "first", "target": "middle"}, {"source": "middle", "target": "last"}],
    }
    progress, _, seen = follow(document)
    lines = seen[-1][1]
    assert [line.split()[1] for line in lines[1:]] == ["first", "middle", "last"]
    assert all("✓" in line and "succeeded" in line for line in lines[1:])
    assert lines[0].startswith("✓ succeeded  shown  3/3")
    first = seen[1][1]
    assert "► running" in first[0]
    assert "pending" in line_of(first, "last")
    assert progress.ended == 3


def test_items_iterations_and_attempts_are_counted():
    tries = []

    def flaky(value):
        tries.append(value)
        if len(tries) < 2:
            raise OSError("down")
        return "up"

    document = {
        "nodes": [
            {"id": "rows", "type": "set", "for_each": [{}, {}, {}, {}], "max_parallel": 1},
            {
                "id": "poll",
                "type": "loop",
                "config": {"max_iterations": 3, "body": {"nodes": [{"id": "x", "type": "set"}]}},
            },
            {"id": "flaky", "type": "call", "config": {"function": "flaky"}, "retry": {"attempts": 2, "delay": 0.01}},
        ]
    }
    _, _, seen = follow(document, callables={"flaky": flaky})
    frames = [lines for _, lines in seen]
    rows = [line_of(lines, "rows") for lines in frames]
    assert any("█████░░░░░ 2/4 items" in line for line in rows)
    assert "4/4 items" in rows[-1]
    poll = [line_of(lines, "poll") for lines in frames]
    assert any("iteration 1 (3 at most)" in line for line in poll)
    assert "3 iterations" in poll[-1]
    assert "3 ended" in line_of(frames[-1], "x")
    tried = [line_of(lines, "flaky") for lines in frames]
    assert any("again in 10 ms" in line and "down" in line for line in tried)
    assert "attempt 2/2" in tried[-1]


def test_bodies_that_run_side_by_side_share_a_line_until_the_last_has_ended():
    inner = {"nodes": [{"id": "nap", "type": "wait", "config": {"for": "{{ input }}"}}]}
    document = {
        "nodes": [{"id": "each", "type": "workflow", "for_each": [0.02, 0.2, 0.4], "config": {"body": inner}}],
    }
    _, _, seen = follow(document)
    lines = [line_of(lines, "nap") for _, lines in seen]
    ended = [line for line in lines if re.search(r"[12] ended", line)]
    assert ended
    assert all("waiting" in line or "running" in line for line in ended)
    assert "succeeded" in lines[-1]
    assert "3 ended" in lines[-1]


def test_cancelled_items_are_not_counted_as_done():
    document = {
        "settings": {"timeout": 0.1},
        "nodes": [{"id": "rows", "type": "wait", "for_each": [0.02, 30, 30], "config": {"for": "{{ item }}"}}],
    }
    _, result, seen = follow(document)
    assert result.status == "failed"
    last = line_of(seen[-1][1], "rows")
    assert "cancelled" in last
    assert "1/3 items" in last
    assert "waiting" not in last


def test_of_a_long_log_it_is_said_how_much_is_not_shown():
    document = {
        "nodes": [{"id": "note", "type": "log", "for_each": list(range(30)), "config": {"message": "n{{ item }}"}}]
    }
    progress, _, _ = follow(document)
    end = progress.finished_at
    high = text(progress, end, height=60)
    assert [line.split()[-1] for line in high[-30:]] == [f"n{number}" for number in range(30)]
    assert "earlier" not in "".join(high)
    low = text(progress, end, height=20)
    assert len(low) == 19
    (rule,) = [line for line in low if "earlier" in line]
    shown = low[low.index(rule) + 1 :]
    assert f"… {30 - len(shown)} earlier lines" in rule
    assert shown[-1].endswith("n29")
    progress.finished_at = None  # as it looked while it ran: most of the room is the graph's
    assert "… 22 earlier lines" in "".join(text(progress, end, height=60))


def test_waits_skips_failures_and_logs_are_told_in_words():
    document = {
        "settings": {"failure": "drain"},
        "nodes": [
            {"id": "nap", "type": "wait", "config": {"for": 0.05}},
            {"id": "ask", "type": "wait", "config": {"signal": "go", "expires": 0.05, "on_expiry": "port"}},
            {"id": "never", "type": "set", "when": "{{ false }}"},
            {"id": "bad", "type": "fail", "config": {"message": "out\x1b[31m of order"}, "on_error": "continue"},
            {"id": "note", "type": "log", "config": {"message": "see\x1b[2J here"}},
        ],
    }
    _, _, seen = follow(document)
    frames = [lines for _, lines in seen]
    assert any("signal go (" in line_of(lines, "ask") for lines in frames)
    assert any(re.search(r"waiting .* left", line_of(lines, "nap")) for lines in frames)
    last = frames[-1]
    assert "its `when` is false" in line_of(last, "never")
    assert "handled" in line_of(last, "bad")
    assert "on port expired" in line_of(last, "ask")
    assert any("note" in line and "see\\x1b[2J here" in line for line in last)
    assert "\x1b" not in "".join(last)


def test_five_thousand_nodes_fit_on_a_small_terminal():
    nodes = [{"id": "start", "type": "set"}]
    nodes += [{"id": f"n{i}", "type": "set"} for i in range(4979)]
    nodes += [{"id": f"bad{i}", "type": "fail", "config": {"message": "no"}, "on_error": "continue"} for i in range(10)]
    nodes += [{"id": f"slow{i}", "type": "wait", "config": {"for": 0.3}} for i in range(20)]
    edges = [{"source": "start", "target": node["id"]} for node in nodes[1:]]
    workflow = Workflow.from_dict({"schema": 1, "id": "large", "nodes": nodes, "edges": edges})
    sizes = [(80, 24), (40, 12), (200, 50), (20, 6)]
    frames = []

    async def main():
        async with Engine() as engine:
            progress = Progress(engine.plan(workflow))
            execution = await engine.start(workflow)
            async for event in execution.events():
                progress.apply(event)
                if progress.serial % 2000 == 0 or progress.counts[NodeStatus.WAITING] == 20:
                    frames.extend(
                        (width, height, text(progress, event.at, width=width, height=height)) for width, height in sizes
                    )
            return progress

    progress = anyio.run(main)
    assert progress.counts[NodeStatus.SUCCEEDED] == 5000
    assert progress.counts[NodeStatus.FAILED] == 10
    for width, height, lines in frames:
        assert len(lines) < height
        assert max(map(cell_len, lines)) <= width
    waiting = [
        lines
        for width, height, lines in frames
        if (width, height) == (80, 24) and any("20 waiting" in line for line in lines)
    ]
    assert waiting
    assert any(re.search(r"… +slow\d+ +wait +waiting", line) for line in waiting[-1])
    assert any(re.search(r"and \d+ more", line) for line in waiting[-1])
    assert any(re.search(r"✕ +bad\d", line) for line in waiting[-1])


def test_a_terminal_without_those_characters_gets_others():
    document = {"nodes": [{"id": "rows", "type": "set", "for_each": [{"a": "ä"}] * 3, "max_parallel": 1}]}
    progress, _, _ = follow(document)
    assert live.icons_for("ascii") is live.ASCII_ICONS
    assert live.icons_for("utf-8") is live.ICONS
    lines = text(progress, progress.finished_at, icons=live.ASCII_ICONS)
    assert "".join(lines).isascii()
    assert lines[1].startswith("+ rows")


def test_every_status_differs_by_more_than_its_colour():
    assert len(set(live.ICONS.values())) == len(set(live.ASCII_ICONS.values())) == len(NodeStatus)


# --- whatever happens -----------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(), width=st.integers(15, 130), height=st.integers(5, 50))
def test_the_picture_agrees_with_the_result_whatever_happens(case, width, height):
    read = load_case(case)
    simulated = simulate(
        read.workflow, payload=read.payload, start=read.start, pins=read.pins, script=read.script, happens=read.happens
    )
    progress = Progress(make_plan(read.workflow, describe, start=read.start))
    for event in simulated.events:
        progress.apply(event)
        lines = text(progress, event.at, width=width, height=height)
        assert len(lines) < height
        assert max(map(cell_len, lines), default=0) <= width
    result = simulated.result
    assert progress.status is result.status
    for record in result.nodes:
        if "/" not in record.path:
            row = progress.row(record.path)
            assert row.status is record.status, record.path
    counted = {status: number for status, number in progress.counts.items() if number}
    statuses = [record.status for record in result.nodes if "/" not in record.path]
    assert counted == {status: statuses.count(status) for status in set(statuses)}
    assert not progress.active


@pytest.mark.parametrize(
    ("path", "place"), [("a", "a"), ("a/3", "a"), ("a/3/b", "a/b"), ("a/3/1/b/7", "a/b"), ("", "")]
)
def test_a_path_without_items_and_iterations(path, place):
    assert place_of(path) == place
