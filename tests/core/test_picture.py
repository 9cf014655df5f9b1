"""Pictures of graphs: nothing is missing, nothing overlaps, and somebody else's text stays text."""

import re
import time
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator_core.picture import dot, mermaid, svg
from orchestrator_core.types import Edge, Node, NodeStatus

SVG = "{http://www.w3.org/2000/svg}"
FORMATS = pytest.mark.parametrize("draw", [mermaid, dot, svg])


# Reading an SVG back.


def rectangle(group):
    """(x, y, width, height) of a node's box or frame."""
    rect = group.find(f"{SVG}rect")
    if rect is not None:
        return tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
    # if and switch: M left+cut top H … L right middle L … bottom H … L left middle Z
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", group.find(f"{SVG}path").get("d"))]
    (_, top, _, right, _, _, bottom, _, left, _) = numbers
    return left, top, right - left, bottom - top


def points(path):
    """Points along a line of M, H and C: straight between two of them, or nearly so."""
    result, x, y = [], 0.0, 0.0
    for letter, arguments in re.findall(r"([MHC])([^MHC]*)", path):
        numbers = [float(n) for n in arguments.split()]
        if letter == "M":
            x, y = numbers
            result.append((x, y))
        elif letter == "H":
            x = numbers[0]
            result.append((x, y))
        else:
            x1, y1, x2, y2, x3, y3 = numbers
            for i in range(1, 21):
                t, s = i / 20, 1 - i / 20
                result.append(
                    (
                        s**3 * x + 3 * s * s * t * x1 + 3 * s * t * t * x2 + t**3 * x3,
                        s**3 * y + 3 * s * s * t * y1 + 3 * s * t * t * y2 + t**3 * y3,
                    )
                )
            x, y = x3, y3
    return result


class Drawing:
    def __init__(self, text):
        self.root = ET.fromstring(text)
        self.groups = [g for g in self.root.iter(f"{SVG}g") if g.get("data-node") is not None]
        self.boxes = {g.get("data-node"): rectangle(g) for g in self.groups}
        self.lines = [(g.get("data-edge"), g) for g in self.root.iter(f"{SVG}g") if g.get("data-edge") is not None]
        self.width, self.height = float(self.root.get("width")), float(self.root.get("height"))

    def group(self, place):
        return next(g for g in self.groups if g.get("data-node") == place)

    def texts(self, place):
        return ["".join(t.itertext()) for t in self.group(place).iter(f"{SVG}text")]

    def line(self, name):
        return points(next(g for n, g in self.lines if n == name).find(f"{SVG}path").get("d"))


def apart(a, b):
    return a[0] + a[2] < b[0] or b[0] + b[2] < a[0] or a[1] + a[3] < b[1] or b[1] + b[3] < a[1]


def within(inner, outer):
    return (
        outer[0] < inner[0]
        and outer[1] < inner[1]
        and inner[0] + inner[2] < outer[0] + outer[2]
        and inner[1] + inner[3] < outer[1] + outer[3]
    )


def check_geometry(text, expected):
    """What makes a picture readable; ``expected``: (name, source place, target place) of every edge."""
    drawing = Drawing(text)
    page = (0.0, 0.0, drawing.width, drawing.height)
    assert len(drawing.groups) == len(drawing.boxes)
    assert Counter(name for name, _ in drawing.lines) == Counter(name for name, _, _ in expected)
    for box in drawing.boxes.values():
        assert within(box, page)
    for (a, box_a), (b, box_b) in combinations(drawing.boxes.items(), 2):
        if a.startswith(f"{b}/"):
            assert within(box_a, box_b), (a, b)
        elif b.startswith(f"{a}/"):
            assert within(box_b, box_a), (a, b)
        else:
            assert apart(box_a, box_b), (a, b)
    ends = {name: (source, target) for name, source, target in expected}
    for name, group in drawing.lines:
        source, target = ends[name]
        line = points(group.find(f"{SVG}path").get("d"))
        left, right = drawing.boxes[source], drawing.boxes[target]
        assert left[0] + left[2] < right[0], name
        xs = [x for x, _ in line]
        assert all(a <= b for a, b in pairwise(xs)), name
        # An end lies on its outline; of a pointed shape that may be within the rectangle.
        assert left[0] + left[2] / 2 < xs[0] <= left[0] + left[2] + 0.2, name
        assert right[0] - 10 < xs[-1] < right[0] + right[2] / 2, name
        assert left[1] <= line[0][1] <= left[1] + left[3], name
        assert right[1] <= line[-1][1] <= right[1] + right[3], name
        for x, y in line:
            assert 0 < x < drawing.width, name
            assert 0 < y < drawing.height, name
        parents = tuple(place for place in drawing.boxes if source.startswith(f"{place}/"))
        for place, (bx, by, bw, bh) in drawing.boxes.items():
            if place not in (source, target, *parents):
                for (x0, y0), (x1, y1) in pairwise(line):
                    beside = x1 <= bx or bx + bw <= x0 or max(y0, y1) <= by or by + bh <= min(y0, y1)
                    assert beside, (name, place)
    return drawing


def named(nodes, edges, prefix=""):
    """What check_geometry expects of the edges, bodies included."""
    result = []
    for edge in edges:
        key = "" if edge.key is None else f"[{edge.key}]"
        result.append((f"{prefix}{edge}{key}", prefix + edge.source, prefix + edge.target))
    for node in nodes:
        body = node.config.get("body")
        if body:
            inner = [Node(**n) for n in body["nodes"]]
            result += named(inner, [Edge(**e) for e in body["edges"]], f"{prefix}{node.id}/")
    return result


# Graphs.

ORDERS = (
    [
        Node("hook", "webhook"),
        Node("price", "code", name="Compute price"),
        Node("big", "if"),
        Node("notify", "http"),
        Node("small", "set", disabled=True),
        Node("done", "merge"),
    ],
    [
        Edge("hook", "price"),
        Edge("price", "big"),
        Edge("big", "notify", port="true"),
        Edge("big", "small", port="false"),
        Edge("notify", "done", input="left"),
        Edge("small", "done", input="right", key="k"),
        Edge("hook", "done", port="error"),
    ],
)
BODY = {
    "nodes": [
        {"id": "fetch", "type": "http", "name": "Fetch page"},
        {
            "id": "rows",
            "type": "loop",
            "config": {
                "body": {
                    "nodes": [{"id": "row", "type": "set"}, {"id": "out", "type": "set"}],
                    "edges": [{"source": "row", "target": "out"}],
                }
            },
        },
    ],
    "edges": [{"source": "fetch", "target": "rows", "port": "error"}],
}
POLL = (
    [Node("tick", "schedule"), Node("poll", "loop", name="Poll", config={"body": BODY}), Node("mail", "http")],
    [Edge("tick", "poll"), Edge("poll", "mail"), Edge("tick", "mail")],
)
NASTY = "\"'`<script>alert(1)</script>[]{}()|#59;&lt;\\N%%{init: {}}%%\nend\u2028--> direction LR\t\0\u202e\ud800漢字😀"

words = st.sampled_from(
    [
        "end",
        "class",
        "subgraph",
        "direction",
        "LR",
        "style",
        "x",
        "constructor",
        "a b",
        'q"',
        "\\",
        "\n",
        "<b>",
        "]]>",
        "&amp;",
        "%%",
        "é漢",
        "m" * 60,
    ]
)
labels = st.lists(words | st.text(max_size=4), min_size=1, max_size=4).map("".join)
ids = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True) | st.sampled_from(
    ["end", "graph", "direction", "LR"]
)
types = st.sampled_from(["http", "if", "switch", "webhook", "acme.slugify"]) | labels


@st.composite
def graphs(draw, depth=0):
    names = draw(st.lists(ids, max_size=12 if depth == 0 else 4, min_size=0 if depth == 0 else 1, unique=True))
    nodes = []
    for name in names:
        config = {}
        if depth < 2 and draw(st.integers(0, 5)) == 0:
            inner_nodes, inner_edges = draw(graphs(depth + 1))
            config["body"] = {
                "nodes": [
                    {"id": n.id, "type": n.type, "name": n.name, "config": n.config, "disabled": n.disabled}
                    for n in inner_nodes
                ],
                "edges": [
                    {"source": e.source, "target": e.target, "port": e.port, "input": e.input, "key": e.key}
                    for e in inner_edges
                ],
            }
        nodes.append(
            Node(name, draw(types), name=draw(st.none() | labels), config=config, disabled=draw(st.booleans()))
        )
    edges = []
    if len(names) > 1:
        # Names of ports are plain, so that an edge's name says which it is; labels have tests of their own.
        pair = st.tuples(st.integers(0, len(names) - 1), st.integers(0, len(names) - 1)).filter(lambda p: p[0] < p[1])
        port = st.sampled_from(["main", "main", "true", "error"])
        key = st.none() | st.sampled_from(["k", "longer than there is room for it"])
        found = draw(st.lists(st.tuples(pair, port, st.sampled_from(["main", "in"]), key), max_size=24, unique=True))
        edges = [Edge(names[a], names[b], port=p, input=i, key=k) for (a, b), p, i, k in found]
    return nodes, edges


def places(nodes, prefix=""):
    for node in nodes:
        yield prefix + node.id
        yield from places([Node(**n) for n in node.config.get("body", {}).get("nodes", [])], f"{prefix}{node.id}/")


# Every format.


@FORMATS
@given(graph=graphs())
@settings(max_examples=25, deadline=None)
def test_the_same_graph_gives_the_same_text(draw, graph):
    assert draw(*graph, title="t") == draw(*graph, title="t")


@FORMATS
def test_what_cannot_be_drawn_is_refused_and_named(draw):
    a, b = Node("a", "set"), Node("b", "set")
    with pytest.raises(ValueError, match="two nodes have the id 'a'"):
        draw([a, b, a], [])
    with pytest.raises(ValueError, match="names 'c', which is no node"):
        draw([a, b], [Edge("a", "c")])
    with pytest.raises(ValueError, match=r"cycle.*: a, b"):
        draw([a, b], [Edge("a", "b"), Edge("b", "a")])
    body = {"nodes": [{"id": "x", "type": "set"}], "edges": [{"source": "x", "target": "y"}]}
    with pytest.raises(ValueError, match="'y', which is no node in 'g'"):
        draw([Node("g", "loop", config={"body": body})], [])


@FORMATS
@pytest.mark.parametrize(
    "body",
    ["text", 7, {"nodes": {}}, {"nodes": []}, {"nodes": [1]}, {"nodes": [{}]}, {"nodes": [{"id": "a"}], "edges": [7]}],
)
def test_a_body_that_is_no_graph_is_a_plain_node(draw, body):
    assert draw([Node("call", "http", config={"body": body})], []) == draw([Node("call", "http")], [])


@FORMATS
def test_deep_nesting_does_not_hang_on_the_stack(draw):
    body = {"nodes": [{"id": "leaf", "type": "set"}], "edges": []}
    for _ in range(1500):
        body = {"nodes": [{"id": "g", "type": "loop", "config": {"body": body}}], "edges": []}
    assert "leaf" in draw([Node("top", "loop", config={"body": body})], [])


@FORMATS
def test_an_empty_graph_has_a_picture(draw):
    assert draw([], [], title="Nothing yet")


# SVG.


@given(graphs(), st.none() | labels)
@settings(max_examples=60, deadline=None)
def test_any_graph_is_drawn_whole_and_readable(graph, title):
    drawing = check_geometry(svg(*graph, title=title), named(*graph))
    assert sorted(drawing.boxes) == sorted(places(graph[0]))


@pytest.mark.parametrize("graph", [ORDERS, POLL])
def test_known_graphs_are_drawn_whole_and_readable(graph):
    drawing = check_geometry(svg(*graph), named(*graph))
    assert sorted(drawing.boxes) == sorted(places(graph[0]))


def test_a_chain_is_one_straight_line():
    nodes = [Node(f"n{i}", "set") for i in range(4)]
    drawing = Drawing(svg(nodes, [Edge(f"n{i}", f"n{i + 1}") for i in range(3)]))
    assert len({box[1] for box in drawing.boxes.values()}) == 1
    assert len({y for name, _ in drawing.lines for _, y in drawing.line(name)}) == 1


def test_nodes_are_ordered_so_that_lines_do_not_cross():
    # In document order the lines r1-t2 and r2-t1 would cross; with r1 in the middle none do.
    nodes = [Node(n, "set") for n in ("r1", "r2", "r3", "t1", "t2")]
    edges = [Edge("r1", "t1"), Edge("r1", "t2"), Edge("r2", "t1"), Edge("r3", "t2")]
    boxes = Drawing(svg(nodes, edges)).boxes
    assert sorted(("r1", "r2", "r3"), key=lambda n: boxes[n][1])[1] == "r1"


def test_a_box_shows_name_and_type_or_else_the_id():
    drawing = Drawing(svg(*ORDERS, details={"price": "12 ms"}))
    assert drawing.texts("price") == ["Compute price", "code", "12 ms"]
    assert drawing.texts("hook") == ["hook", "webhook"]


def test_edges_show_port_input_and_key_but_not_main():
    root = Drawing(svg(*ORDERS)).root
    shown = {"".join(t.itertext()) for t in root.iter(f"{SVG}text")}
    assert {"true", "false", "error", "left", "right [k]"} <= shown
    assert "main" not in shown


def test_every_status_has_a_colour_and_an_icon_of_its_own():
    nodes = [Node(s.value, "set") for s in NodeStatus]
    drawing = Drawing(svg(nodes, [], status={s.value: s for s in NodeStatus}))
    icons = {drawing.texts(s.value)[-1] for s in NodeStatus}
    assert len(icons) == len(NodeStatus)
    assert all(len(icon) == 1 for icon in icons)
    assert {s.value for s in NodeStatus} <= set(re.findall(r"\w+", drawing.root.get("aria-label")))
    for s in NodeStatus:
        assert s.value in drawing.group(s.value).find(f"{SVG}title").text
    strokes = [drawing.group(s.value).find(f"{SVG}rect").get("stroke") for s in NodeStatus]
    assert len(set(strokes)) == len(NodeStatus) - 1  # skipped and pending differ by fill and icon


def test_records_of_an_execution_may_be_given_by_path():
    status = {
        "poll/2/fetch": NodeStatus.RUNNING,
        "poll/10/fetch": NodeStatus.FAILED,
        "poll/9/fetch": NodeStatus.SUCCEEDED,
        "mail/3": NodeStatus.FAILED,
        "mail": NodeStatus.WAITING,
        "mail/4": NodeStatus.FAILED,
        "nowhere": NodeStatus.FAILED,
    }
    drawing = Drawing(svg(*POLL, status=status))
    titles = {place: drawing.group(place).find(f"{SVG}title").text for place in drawing.boxes}
    assert "failed" in titles["poll/fetch"]
    assert "waiting" in titles["mail"]
    assert all(s.value not in titles["tick"] for s in NodeStatus)


def test_disabled_nodes_are_dashed():
    drawing = Drawing(svg(*ORDERS))
    assert drawing.group("small").find(f"{SVG}rect").get("stroke-dasharray")
    assert not drawing.group("price").find(f"{SVG}rect").get("stroke-dasharray")
    assert "disabled" in drawing.group("small").find(f"{SVG}title").text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Notify sales", ["Notify sales"]),
        ("Notify the sales team about every order", ["Notify the sales team", "about every order"]),
        ("notify_the_sales_department_of_orders", ["notify_the_sales_", "department_of_orders"]),
        ("notifyTheSalesDepartmentOfOrders", ["notifyTheSales", "DepartmentOfOrders"]),
    ],
)
def test_a_name_too_long_for_one_line_takes_two(name, lines):
    drawing = Drawing(svg([Node("n", "http", name=name)], [], details={"n": "1 s"}))
    assert drawing.texts("n") == [*lines, "http", "1 s"]
    heights = [float(text.get("y")) for text in drawing.group("n").iter(f"{SVG}text")]
    _, top, width, height = drawing.boxes["n"]
    assert width <= 230
    assert all(b - a >= 12 for a, b in pairwise([top, *heights, top + height + 4]))


def test_a_name_too_long_for_two_lines_is_shortened_and_whole_in_the_tooltip():
    name = "Notify the sales team about every single order of the year and of the year before"
    drawing = Drawing(svg([Node("n", "http", name=name)], []))
    first, second, *_ = drawing.texts("n")
    assert name.startswith(f"{first} {second[:-1]}")
    assert second.endswith("…")
    assert drawing.group("n").find(f"{SVG}title").text == f"{name} · n · http"
    assert drawing.boxes["n"][2] <= 230


def test_one_long_word_is_broken_anywhere():
    first, second, kind = Drawing(svg([Node("n", "http", name="x" * 40)], [])).texts("n")
    assert (first + second, kind) == ("x" * 40, "http")


@pytest.mark.parametrize("id_", ["poll", "poll_until_the_job_is_done_or_given_up"])
def test_a_group_is_wide_enough_for_its_header(id_):
    node = Node(id_, "loop", config={"body": {"nodes": [{"id": "x", "type": "set"}]}})
    drawing = Drawing(svg([node], [], status={id_: NodeStatus.SUCCEEDED}, details={id_: "2.3 s"}))
    assert drawing.texts(id_)[0] == f"{id_}loop · 2.3 s"


def edges_of(drawing):
    """The edges, and whether each is drawn as skipped."""
    return {name: group.find(f"{SVG}path").get("stroke-dasharray") is not None for name, group in drawing.lines}


def test_edges_that_were_skipped_are_dashed():
    nodes = [Node("big", "if"), Node("note", "set"), Node("small", "set"), Node("end", "set")]
    edges = [
        Edge("big", "note", port="true"),
        Edge("big", "small", port="false"),
        Edge("note", "end"),
        Edge("small", "end"),
        Edge("note", "end", port="error", key="e"),
    ]
    ended = dict.fromkeys(("big", "note", "end"), NodeStatus.SUCCEEDED) | {"small": NodeStatus.SKIPPED}
    ports = {"big": ["true"], "note": ["main"], "small": [], "end": ["main"]}
    expected = {"big.true->note": False, "big.false->small": True, "note->end": False, "small->end": True}
    told = svg(nodes, edges, status=ended, ports=ports)
    assert edges_of(Drawing(told)) == {**expected, "note.error->end[e]": True}
    assert edges_of(Drawing(svg(nodes, edges, status=ended))) == {**expected, "note.error->end[e]": False}
    assert not any(edges_of(Drawing(svg(nodes, edges))).values()), "nothing has run"
    begun = {"big": NodeStatus.RUNNING, "note": NodeStatus.PENDING, "small": NodeStatus.PENDING}
    assert not any(edges_of(Drawing(svg(nodes, edges, status=begun, ports={"big": []}))).values())


def test_an_edge_into_a_node_that_skips_itself_was_delivered():
    status = {"a": NodeStatus.SUCCEEDED, "b": NodeStatus.SKIPPED}
    drawing = Drawing(svg([Node("a", "set"), Node("b", "set")], [Edge("a", "b")], status=status, ports={"a": ["main"]}))
    assert edges_of(drawing) == {"a->b": False}


def test_edges_of_a_body_are_those_of_its_last_iteration():
    body = {"nodes": [{"id": "x", "type": "if"}, {"id": "y", "type": "set"}], "edges": [{"source": "x", "target": "y"}]}
    nodes = [Node("poll", "loop", config={"body": body})]
    status = {"poll": NodeStatus.SUCCEEDED, "poll/0/x": NodeStatus.SUCCEEDED, "poll/1/x": NodeStatus.SUCCEEDED}
    for last, skipped in (("main", False), ("other", True)):
        ports = {"poll": ["main"], "poll/0/x": ["main"], "poll/1/x": [last]}
        assert edges_of(Drawing(svg(nodes, [], status=status, ports=ports))) == {"poll/x->y": skipped}


def test_hostile_text_stays_text_in_svg():
    node, other = Node("a", NASTY, name=NASTY), Node("b", "set")
    edge = Edge("a", "b", port=NASTY, input=NASTY, key=NASTY)
    text = svg([node, other], [edge], title=NASTY, details={"a": NASTY})
    root = ET.fromstring(text)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "g",
        "rect",
        "path",
        "circle",
        "text",
        "tspan",
        "title",
    }
    allowed = {
        *(
            "role",
            "aria-label",
            "width",
            "height",
            "viewBox",
            "font-family",
            "x",
            "y",
            "rx",
            "fill",
            "stroke",
            "d",
            "cx",
            "cy",
            "r",
            "dx",
        ),
        *(
            "stroke-width",
            "stroke-dasharray",
            "stroke-linejoin",
            "font-size",
            "font-weight",
            "text-anchor",
            "data-node",
            "data-edge",
        ),
    }
    assert {name for element in root.iter() for name in element.attrib} <= allowed
    assert "url(" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>" in "".join(root.find(f".//{SVG}g[@data-node='a']/{SVG}title").itertext())


def test_a_huge_label_costs_little():
    start = time.process_time()
    text = svg([Node("a", "set" * 10**6, name="\u0301" * 10**6)], [])
    assert time.process_time() - start < 1
    assert len(text) < 10_000


def test_the_picture_says_what_it_is():
    root = Drawing(svg(*ORDERS, title="Order intake", status={"hook": NodeStatus.SUCCEEDED})).root
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Order intake: 6 nodes, 7 edges; 1 succeeded"


def layered(columns, rows, span=3):
    nodes = [Node(f"n{c}_{r}", "http") for c in range(columns) for r in range(rows)]
    edges = [
        Edge(f"n{c}_{r}", f"n{c + 1 + (r * c) % span}_{(r * (7 + c) + k * 5) % rows}")
        for c in range(columns - span)
        for r in range(rows)
        for k in range(2)
    ]
    return nodes, edges


def long_edges(count):
    """A chain with edges across it: passages for all of them would be a sixth of the cube of the count."""
    nodes = [Node(f"n{i}", "set") for i in range(count)]
    edges = [Edge(f"n{i}", f"n{i + 1}") for i in range(count - 1)]
    return nodes, edges + [Edge(f"n{i}", f"n{i + (count - i) // 2}") for i in range(count - 4)]


@pytest.mark.parametrize(
    "graph", [layered(50, 20), long_edges(1000), ([Node(f"n{i}", "set") for i in range(1000)], [])]
)
def test_a_thousand_nodes_take_less_than_two_seconds(graph):
    start = time.process_time()
    text = svg(*graph)
    assert time.process_time() - start < 2
    drawing = Drawing(text)
    assert len(drawing.boxes) == 1000
    assert len(drawing.lines) == len(graph[1])


@pytest.mark.parametrize("graph", [layered(8, 6), layered(14, 7, span=7), long_edges(150)])
def test_large_graphs_are_readable_too(graph):
    check_geometry(svg(*graph), named(*graph))


# Mermaid.

NAME = r"[A-Za-z][A-Za-z0-9_]*"
# Between quotes: no sign that means anything to Mermaid, but for its own escapes and breaks.
LABEL = r'"(?:[^\x00-\x1f\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]|#\d+;|<br/>|(?<=[A-Za-z])[._-](?=[A-Za-z]))*"'
MERMAID = {
    "node": re.compile(rf"({NAME})(?:\[{LABEL}\]|\(\[{LABEL}\]\)|\{{{LABEL}\}})"),
    "group": re.compile(rf"subgraph ({NAME})\[{LABEL}\]"),
    "edge": re.compile(rf"({NAME}) -->(?:\|{LABEL}\|)? ({NAME})"),
    "end": re.compile("end"),
    "direction": re.compile("direction LR"),
    "class": re.compile(r"class(?:Def)? \S+ \S+(?: 3)?"),
}


def read_mermaid(text):
    """The kinds of its lines, with what they say; fails where a line is none of them."""
    lines = text.split("\n")
    assert lines.pop() == ""
    if lines[0] == "---":
        assert lines[1].startswith('title: "')
        assert lines[2] == "---"
        lines = lines[3:]
    assert lines[0] == "flowchart LR"
    found = []
    for line in lines[1:]:
        matches = [(kind, m.groups()) for kind, pattern in MERMAID.items() if (m := pattern.fullmatch(line.strip()))]
        assert matches, line
        found.append(matches[0])
    return found


@given(graphs(), st.none() | labels)
@settings(max_examples=50, deadline=None)
def test_any_graph_is_whole_in_mermaid(graph, title):
    found = read_mermaid(mermaid(*graph, title=title))
    names = [groups[0] for kind, groups in found if kind in {"node", "group"}]
    assert len(names) == len(set(names)) == len(list(places(graph[0])))
    edges = [groups for kind, groups in found if kind == "edge"]
    assert len(edges) == len(named(*graph))
    assert {name for edge in edges for name in edge} <= set(names)
    kinds = Counter(kind for kind, _ in found)
    assert kinds["group"] == kinds["end"] == kinds["direction"]


def test_mermaid_shows_shapes_ports_groups_and_statuses():
    text = mermaid(*ORDERS, title="Orders", status={"hook": NodeStatus.SUCCEEDED, "big": NodeStatus.SUCCEEDED})
    assert text.startswith('---\ntitle: "Orders"\n---\nflowchart LR\n')
    assert '    hook(["✓ hook<br/>webhook"])\n' in text
    assert '    big{"✓ big<br/>if"}\n' in text
    assert '    price["Compute price<br/>code"]\n' in text
    assert '    big -->|"true"| notify\n' in text
    assert '    hook -->|"error"| done\n' in text
    assert '    small -->|"→ right #91;k#93;"| done\n' in text
    assert "    class hook,big succeeded\n" in text
    assert "    class small disabled\n" in text
    nested = mermaid(*POLL)
    assert (
        '    subgraph poll["Poll<br/>loop"]\n        direction LR\n        poll__fetch["Fetch page<br/>http"]\n'
        in nested
    )
    assert "    tick --> poll\n" in nested
    assert '    poll__fetch -->|"error"| poll__rows\n' in nested


@pytest.mark.parametrize(
    "word", ["end", "End", "endpoint", "graph", "subgraph", "class", "style", "default", "click", "_x", "constructor"]
)
def test_ids_that_mermaid_reads_as_its_own_words_are_changed(word):
    text = mermaid([Node(word, "set"), Node(f"n_{word}", "set")], [Edge(word, f"n_{word}")])
    assert f"    n_{word} --> n_{word}_2\n" in text


def test_an_id_and_the_next_line_do_not_make_a_direction():
    text = mermaid(
        [Node("a", "x"), Node("in_direction", "x"), Node("LR", "x")], [Edge("a", "in_direction"), Edge("LR", "a")]
    )
    assert not re.search(r"direction\s+LR", text)


def test_hostile_text_stays_text_in_mermaid():
    text = mermaid([Node("a", NASTY, name=NASTY), Node("b", "1. - x")], [Edge("a", "b", port=NASTY)], title=NASTY)
    read_mermaid(text)
    body = text.split("---\n", 2)[2]
    assert not re.search(r"direction\s+LR", body.removeprefix("flowchart LR"))
    assert "%%" not in body
    assert "#34;#39;#96;#60;script#62;alert#40;1#41;" in body
    assert "#35;59#59;#38;lt#59;#92;N#37;#37;#123;init#58; #123;#125;#125;#37;#37;<br/>end<br/>#45;#45;#62;" in body
    assert "漢字😀" in body
    text.encode()


# DOT.

DOT_STRING = r'"(?:[^"\\\n]|\\["\\n])*"'
DOT_ATTRIBUTES = rf"\[(?:\w+=(?:{DOT_STRING}|\w+|[\d.]+)(?:, )?)+\]"


def read_dot(text):
    """Names of nodes, clusters, and the ends of edges; fails where a line is none of DOT's."""
    first, *lines, last, empty = text.split("\n")
    assert (first, last, empty) == ("digraph workflow {", "}", "")
    nodes, clusters, edges = [], [], []
    for line in (line.strip() for line in lines):
        if m := re.fullmatch(rf"({DOT_STRING}) {DOT_ATTRIBUTES};", line):
            nodes.append(m[1])
        elif m := re.fullmatch(rf"({DOT_STRING}) -> ({DOT_STRING})(?: {DOT_ATTRIBUTES})?;", line):
            edges.append((m[1], m[2]))
        elif m := re.fullmatch(rf"subgraph ({DOT_STRING}) {{", line):
            clusters.append(m[1])
        else:
            assert line == "}" or re.fullmatch(rf"(?:graph|node|edge) {DOT_ATTRIBUTES};", line), line
    return nodes, clusters, edges


@given(graphs(), st.none() | labels)
@settings(max_examples=50, deadline=None)
def test_any_graph_is_whole_in_dot(graph, title):
    nodes, clusters, edges = read_dot(dot(*graph, title=title))
    assert len(set(nodes)) == len(nodes)
    assert len(set(clusters)) == len(clusters)
    assert len(nodes) + len(clusters) == len(list(places(graph[0])))
    assert len(edges) == len(named(*graph))
    assert {name for edge in edges for name in edge} <= set(nodes)


def test_dot_shows_shapes_ports_groups_and_statuses():
    text = dot(*ORDERS, title="Orders", status={"hook": NodeStatus.FAILED})
    assert '"hook" [label="✕ hook\\nwebhook", shape=ellipse' in text
    assert '"big" [label="big\\nif", shape=diamond' in text
    assert '"big" -> "notify" [label="true"];' in text
    assert re.search(r'"small" \[[^\n]*dashed', text)
    nested = dot(*POLL)
    assert '    "tick" -> "poll/fetch" [lhead="cluster_0"];\n' in nested
    assert '    "poll/rows/out" -> "mail" [ltail="cluster_0"];\n' in nested


def test_hostile_text_stays_text_in_dot():
    text = dot([Node('a"\\', NASTY, name=NASTY), Node("b", "set")], [Edge('a"\\', "b", port=NASTY)], title=NASTY)
    nodes, _, edges = read_dot(text)
    assert nodes == [r'"a\"\\"', '"b"']
    assert edges == [(r'"a\"\\"', '"b"')]
    assert "&amp;lt;" in text
    assert r"\\N" in text
    text.encode()
