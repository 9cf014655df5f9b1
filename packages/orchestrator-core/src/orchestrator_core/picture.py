"""Pictures of a workflow's graph: Mermaid and Graphviz text, and SVG with a layout of its own.

Everything is a pure function of plain data: the same nodes, edges, statuses and details give the same text, byte
for byte. Labels are somebody else's text; each format escapes them so that they stay text.

A *place* says where a node stands in the picture: its id, or for a node in a group's body ``poll/fetch``. A
``status`` or ``details`` mapping may be keyed by places or by the paths of an execution's records
(``poll/3/fetch``, ``sync/17``): of several records of one place the node's own wins, else the last iteration's.

Where everything stands in the SVG is worked out in :mod:`orchestrator_core.layout`.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from orchestrator_core.layout import (
    ARROW,
    BRANCHES,
    CUT,
    DETAIL_H,
    DISABLED,
    ERROR_LINE,
    FONTS,
    FRAME_HEAD,
    FRAME_ROOM,
    GREY,
    INK,
    LABEL_SIZE,
    LABEL_W,
    LINE,
    LOOKS,
    MARGIN,
    NAME_H,
    NAME_SIZE,
    STUB,
    TITLE_SIZE,
    TRIGGERS,
    TYPE_SIZE,
    Box,
    Graph,
    clean,
    entry_of,
    exit_of,
    fit,
    lay_out,
    padding,
    topological,
    width,
)
from orchestrator_core.types import Edge, Json, Node, NodeStatus

__all__ = ["dot", "mermaid", "svg"]

_T = TypeVar("_T")
# Of edges that were skipped; those of an error are told from others even so.
_PALE, _PALE_ERROR = "#cbd5e1", "#fca5a5"

# --- reading -----------------------------------------------------------------------------------------------------


def _read(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    status: Mapping[str, NodeStatus] | None,
    details: Mapping[str, str] | None = None,
    ports: Mapping[str, Collection[str]] | None = None,
) -> list[Graph]:
    """The document and all bodies in it, outer ones before their inner ones.

    A list and not a recursion: how deep bodies are nested is the document's choice, not that of Python's stack.
    """
    states = _by_place(status or {})
    notes = _by_place(details or {})
    emitted = _by_place(ports or {})
    root = Graph()
    graphs = [root]
    contents = [(list(nodes), list(edges))]
    for n, graph in enumerate(graphs):  # grows while it is read
        its_nodes, its_edges = contents[n]
        for node in its_nodes:
            place = graph.prefix + node.id
            state = states.get(place)
            box = Box(
                place=place,
                label=clean(node.name or node.id),
                type=clean(node.type),
                disabled=node.disabled,
                status=None if state is None else NodeStatus(state),
                detail=clean(str(notes.get(place, ""))),
                ports=frozenset(emitted[place]) if place in emitted else None,
            )
            graph.boxes.append(box)
            body = _read_body(node.config.get("body"))
            if body:
                box.inner = Graph(prefix=place + "/")
                graphs.append(box.inner)
                contents.append(body)
        _connect(graph, [node.id for node in its_nodes], its_edges)
    return graphs


def _read_body(body: Json) -> tuple[list[Node], list[Edge]] | None:
    """The graph in ``config.body``, or None where it is something else, like the body of an HTTP call."""
    if not isinstance(body, Mapping):
        return None
    nodes, edges = body.get("nodes"), body.get("edges", [])
    if not isinstance(nodes, list) or not nodes or not isinstance(edges, list):
        return None
    if not all(isinstance(n, Mapping) and isinstance(n.get("id"), str) for n in nodes):
        return None
    if not all(isinstance(e, Mapping) and "source" in e and "target" in e for e in edges):
        return None
    return (
        [
            Node(
                id=n["id"],
                type=str(n.get("type", "")),
                name=None if n.get("name") is None else str(n["name"]),
                config=n["config"] if isinstance(n.get("config"), Mapping) else {},
                disabled=n.get("disabled") is True,
            )
            for n in nodes
        ],
        [
            Edge(
                source=str(e["source"]),
                target=str(e["target"]),
                port=str(e.get("port", "main")),
                input=str(e.get("input", "main")),
                key=None if e.get("key") is None else str(e["key"]),
            )
            for e in edges
        ],
    )


def _connect(graph: Graph, ids: list[str], edges: list[Edge]) -> None:
    """Put the edges into a graph whose boxes stand; a graph that cannot be drawn is refused here, for every format."""
    where = f" in {graph.prefix[:-1]!r}" if graph.prefix else ""
    index = {id_: i for i, id_ in enumerate(ids)}
    if len(index) < len(ids):
        twice = next(id_ for id_, n in Counter(ids).items() if n > 1)
        raise ValueError(f"two nodes have the id {twice!r}{where}; give one of them another")
    for edge in edges:
        for end in (edge.source, edge.target):
            if end not in index:
                raise ValueError(f"the edge {edge} names {end!r}, which is no node{where}")
        graph.edges.append(edge)
        graph.links.append((index[edge.source], index[edge.target]))
    done = set(topological(len(ids), graph.links))
    if len(done) < len(ids):
        rest = ", ".join(id_ for i, id_ in enumerate(ids) if i not in done)
        raise ValueError(f"the graph has a cycle{where}, on the way to or among: {rest}")


def _by_place(given: Mapping[str, _T]) -> dict[str, _T]:
    """Records by place: node ids never begin with a digit, so numbers in a path are items and iterations."""
    best: dict[str, tuple[tuple[bool, tuple[int, ...]], _T]] = {}
    for path, value in given.items():
        parts = path.split("/")
        numeric = [p.isascii() and p.isdigit() for p in parts]
        place = "/".join(p for p, number in zip(parts, numeric, strict=True) if not number)
        rank = (not numeric[-1], tuple(int(p) for p, number in zip(parts, numeric, strict=True) if number))
        if place not in best or rank > best[place][0]:
            best[place] = (rank, value)
    return {place: value for place, (_, value) in best.items()}


def _walk(graph: Graph) -> Iterator[tuple[str, Box, int]]:
    """Every box as ("node", box, depth), a group as ("open", …), its inner boxes, and ("close", …)."""
    path: list[tuple[Iterator[Box], Box | None]] = [(iter(graph.boxes), None)]
    while path:
        boxes, group = path[-1]
        box = next(boxes, None)
        if box is None:
            path.pop()
            if group:
                yield "close", group, len(path)
        elif box.inner:
            yield "open", box, len(path)
            path.append((iter(box.inner.boxes), box))
        else:
            yield "node", box, len(path)


def _edge_label(edge: Edge) -> str:
    entry = entry_of(edge)
    return clean(" ".join(part for part in (exit_of(edge), f"→ {entry}" if entry else "") if part))


# --- Mermaid -----------------------------------------------------------------------------------------------------

# Mermaid's lexer reads these as its own even where an id is due, some of them also at the beginning of a longer
# word; the last row are properties that every JavaScript object has.
_MERMAID_WORDS = (
    *("end", "graph", "flowchart", "subgraph", "direction", "class", "style", "linkstyle", "click", "default"),
    *("interpolate", "href", "call", "acctitle", "accdescr", "title", "_"),
    *("constructor", "prototype", "tostring", "valueof", "hasownproperty"),
)
# A dot, dash or underline within a word is harmless; at other places it may be Markdown (`1. one`, `- two`).
_MERMAID_ESCAPE = re.compile(r"(?<=[A-Za-z])[._-](?=[A-Za-z])|([\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])")
# Mermaid takes a line with this in it for a statement, within quotes too.
_MERMAID_DIRECTION = re.compile(r"d(?=irection\s)")


def mermaid(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    title: str | None = None,
    status: Mapping[str, NodeStatus] | None = None,
) -> str:
    """The graph as a Mermaid flowchart, for Markdown pages.

    Args:
        nodes: The document's nodes; one whose ``config.body`` is a document is drawn around its body's graph.
        edges: The document's edges.
        title: A line above the picture.
        status: What to show at a node, by place or by path (see the module's text).

    Returns:
        The text, ending with a line break.

    Raises:
        ValueError: Two nodes share an id, an edge names an unknown node, or there is a cycle.
    """
    graphs = _read(nodes, edges, status)
    names = _names(graphs, _mermaid_id)
    lines = ["---", f"title: {json.dumps(clean(title), ensure_ascii=False)}", "---"] if title else []
    lines.append("flowchart LR")
    classes: dict[str, list[str]] = defaultdict(list)
    for kind, box, depth in _walk(graphs[0]):
        name, indent = names[box], "    " * depth
        if kind == "close":
            lines.append(f"{indent}end")
            continue
        label = f'"{_mermaid_text(box.heading)}<br/>{_mermaid_text(box.type)}"'
        if kind == "open":
            lines += [f"{indent}subgraph {name}[{label}]", f"{indent}    direction LR"]
        elif box.type in TRIGGERS:
            lines.append(f"{indent}{name}([{label}])")
        elif box.type in BRANCHES:
            lines.append(f"{indent}{name}{{{label}}}")
        else:
            lines.append(f"{indent}{name}[{label}]")
        if box.disabled:
            classes["disabled"].append(name)
        if box.status is not None:
            classes[box.status.value].append(name)
    for graph in graphs:
        for edge, (source, target) in zip(graph.edges, graph.links, strict=True):
            label = _edge_label(edge)
            arrow = f'-->|"{_mermaid_text(label)}"|' if label else "-->"
            lines.append(f"    {names[graph.boxes[source]]} {arrow} {names[graph.boxes[target]]}")
    for name, look in (("disabled", DISABLED), *((s.value, look) for s, look in LOOKS.items())):
        if classes[name]:
            colour = f"color:{GREY},stroke-dasharray:4 3" if name == "disabled" else f"color:{INK}"
            lines.append(f"    classDef {name} fill:{look.fill},stroke:{look.stroke},{colour}")
            lines.append(f"    class {','.join(classes[name])} {name}")
    return "\n".join(lines) + "\n"


def _mermaid_id(place: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", place.replace("/", "__")) or "n"
    if name.endswith("direction"):  # with a next line that begins with LR this would be a statement
        name += "_"
    return f"n_{name}" if name.lower().startswith(_MERMAID_WORDS) or name[0].isdigit() else name


def _mermaid_text(text: str) -> str:
    """A label between quotes: everything that is a sign to Mermaid, Markdown or HTML becomes ``#34;``."""
    text = _MERMAID_ESCAPE.sub(lambda m: f"#{ord(m[0])};" if m[1] else m[0], text)
    return _MERMAID_DIRECTION.sub("#100;", text).replace("\n", "<br/>")


def _names(graphs: list[Graph], make: Callable[[str], str]) -> dict[Box, str]:
    """A name of its own for every box, made from its place."""
    names: dict[Box, str] = {}
    taken: dict[str, int] = {}
    for box in (box for graph in graphs for box in graph.boxes):
        wanted = name = make(box.place)
        while name in taken:
            taken[wanted] += 1
            name = f"{wanted}_{taken[wanted]}"
        taken[name] = 1
        names[box] = name
    return names


# --- Graphviz ----------------------------------------------------------------------------------------------------


def dot(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    title: str | None = None,
    status: Mapping[str, NodeStatus] | None = None,
) -> str:
    """The graph in Graphviz's DOT language.

    Args:
        nodes: The document's nodes; one whose ``config.body`` is a document becomes a cluster with its body's graph.
        edges: The document's edges; those of a group end at its cluster's border (``lhead``, ``ltail``).
        title: A line above the picture.
        status: What to show at a node, by place or by path (see the module's text).

    Returns:
        The text, ending with a line break.

    Raises:
        ValueError: Two nodes share an id, an edge names an unknown node, or there is a cycle.
    """
    graphs = _read(nodes, edges, status)
    names = {box: _dot_quote(name) for box, name in _names(graphs, str).items()}
    clusters = {box: _dot_quote(f"cluster_{n}") for n, box in enumerate(b for g in graphs for b in g.boxes if b.inner)}
    font = 'fontname="Helvetica,Arial,sans-serif"'
    lines = [
        "digraph workflow {",
        f"    graph [rankdir=LR, compound=true, {font}, fontsize=12, nodesep=0.3, ranksep=0.6];",
        f'    node [shape=box, {font}, fontsize=11, fontcolor="{INK}"];',
        f'    edge [{font}, fontsize=10, color="{GREY}", fontcolor="{GREY}", arrowsize=0.7];',
    ]
    if title:
        lines.append(f"    graph [label={_dot_quote(clean(title), label=True)}, labelloc=t];")
    for kind, box, depth in _walk(graphs[0]):
        indent = "    " * depth
        if kind == "open":
            lines += [f"{indent}subgraph {clusters[box]} {{", f"{indent}    graph [{_dot_look(box)}];"]
        elif kind == "close":
            lines.append(f"{indent}}}")
        else:
            lines.append(f"{indent}{names[box]} [{_dot_look(box)}];")
    for graph in graphs:
        for edge, (i, j) in zip(graph.edges, graph.links, strict=True):
            source, target = graph.boxes[i], graph.boxes[j]
            tail, head = _anchor(source, first=False), _anchor(target, first=True)
            attributes = [f"label={_dot_quote(_edge_label(edge), label=True)}"] if _edge_label(edge) else []
            attributes += [f"ltail={clusters[source]}"] if source.inner else []
            attributes += [f"lhead={clusters[target]}"] if target.inner else []
            attributes += [f'color="{ERROR_LINE}"'] if edge.port == "error" else []
            suffix = f" [{', '.join(attributes)}]" if attributes else ""
            lines.append(f"    {names[tail]} -> {names[head]}{suffix};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_look(box: Box) -> str:
    text = f"{box.heading}\n{box.type}"
    attributes = [f"label={_dot_quote(text, label=True)}"]
    shape = "diamond" if box.type in BRANCHES else ""
    style = "filled" if shape else "rounded,filled"
    if box.disabled:
        style += ",dashed"
    if box.inner:
        attributes += [f'style="{style}"', 'labeljust="l"', "labelloc=t"]
    else:
        attributes += [f"shape={shape}"] if shape else []
        # Graphviz has no stadium; an ellipse is what its readers know as a start.
        attributes += ["shape=ellipse"] if box.type in TRIGGERS else []
        attributes.append(f'style="{style}"')
    attributes += [f'fillcolor="{box.look.fill}"', f'color="{box.look.stroke}"']
    if box.disabled:
        attributes.append(f'fontcolor="{GREY}"')
    return ", ".join(attributes)


def _dot_quote(text: str, *, label: bool = False) -> str:
    r"""A quoted string; in labels Graphviz also reads entities (``&lt;``) and escapes (``\N``, ``\l``)."""
    text = clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text.replace("&", "&amp;") if label else text}"'


def _anchor(box: Box, *, first: bool) -> Box:
    """The node that stands for a group at an edge's end: Graphviz's edges cannot end at clusters themselves."""
    while box.inner:
        order = topological(len(box.inner.boxes), box.inner.links)
        box = box.inner.boxes[order[0 if first else -1]]
    return box


# --- SVG: drawing ------------------------------------------------------------------------------------------------


def svg(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    *,
    title: str | None = None,
    status: Mapping[str, NodeStatus] | None = None,
    details: Mapping[str, str] | None = None,
    ports: Mapping[str, Collection[str]] | None = None,
) -> str:
    """The graph as an SVG image that stands alone: no scripts, no styles, nothing from elsewhere.

    It has a light background of its own, so it can be put on light and dark pages. Boxes carry ``data-node`` (the
    place), edges ``data-edge``.

    Args:
        nodes: The document's nodes; one whose ``config.body`` is a document is drawn around its body's graph.
        edges: The document's edges.
        title: A line above the picture.
        status: What to show at a node, by place or by path (see the module's text).
        details: A short text under a node's type, such as a duration, by place or by path.
        ports: The ports on which a node emitted (a record's ``outputs``), by place or by path. Edges that were skipped are
            drawn pale and dashed; without ``ports`` those alone that the statuses tell of.

    Returns:
        The text of one ``svg`` element, ending with a line break.

    Raises:
        ValueError: Two nodes share an id, an edge names an unknown node, or there is a cycle.
    """
    graphs = _read(nodes, edges, status, details, ports)
    root = graphs[0]
    for graph in reversed(graphs):
        lay_out(graph)
    heading = clean(title or "")
    top = MARGIN + (TITLE_SIZE + 18 if heading else 0)
    origins = {id(root): (MARGIN, top)}
    frames, lines, labels, boxes = [], [], [], []
    for graph in graphs:  # outer ones first: their boxes' places are known when the inner ones come
        dx, dy = origins[id(graph)]
        for box in graph.boxes:
            box.x, box.y = box.x + dx, box.y + dy
            if box.inner:
                origins[id(box.inner)] = (box.x + (box.w - box.inner.w) / 2, box.y + FRAME_HEAD)
                frames.append(_svg_frame(box))
            else:
                boxes.append(_svg_box(box))
        for edge, link, route in zip(graph.edges, graph.links, graph.routes, strict=True):
            points = [(x + dx, y + dy) for x, y in route]
            lines.append(_svg_edge(graph, edge, link, points))
            labels += _svg_labels(edge, points, skipped=_is_skipped(graph, edge, link))
    w = max(root.w, width(fit(heading, 600, TITLE_SIZE, bold=True), TITLE_SIZE, bold=True), 120) + 2 * MARGIN
    h = root.h + top + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_xml(_summary(heading, graphs))}" '
        f'width="{_n(w)}" height="{_n(h)}" viewBox="0 0 {_n(w)} {_n(h)}" font-family="{FONTS}">'
        f'<rect x="0.5" y="0.5" width="{_n(w - 1)}" height="{_n(h - 1)}" rx="12" fill="#ffffff" stroke="#e2e8f0"/>'
    )
    if heading:
        head += _svg_text(fit(heading, 600, TITLE_SIZE, bold=True), MARGIN, MARGIN + 14, TITLE_SIZE, bold=True)
    lines = ['<g fill="none" stroke-width="1.5">', *lines, "</g>"]
    return "\n".join([head, *frames, *lines, *labels, *boxes, "</svg>"]) + "\n"


def _summary(heading: str, graphs: list[Graph]) -> str:
    """The picture in a sentence, for those who hear it."""
    boxes = [box for graph in graphs for box in graph.boxes]
    counts = Counter(box.status for box in boxes)
    states = [f"{counts[state]} {state.value}" for state in NodeStatus if counts[state]]
    size = f"{len(boxes)} nodes, {sum(len(graph.edges) for graph in graphs)} edges"
    return f"{heading or 'Workflow'}: {size}" + (f"; {', '.join(states)}" if states else "")


def _xml(text: str) -> str:
    return html.escape(clean(text), quote=True)


def _n(value: float) -> str:
    """A number with at most one decimal; a minus zero would make equal pictures differ."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _svg_text(
    text: str, x: float, y: float, size: float, *, fill: str = INK, bold: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"{weight}{place}>{_xml(text)}</text>'


def _tooltip(box: Box) -> str:
    state = box.status.value if box.status else ""
    parts = [box.label, box.place if box.place.rsplit("/", 1)[-1] != box.label else "", box.type, state, box.detail]
    text = " · ".join(part[:500] for part in [*parts, "disabled" if box.disabled else ""] if part)
    return f"<title>{_xml(text)}</title>"


def _svg_badge(box: Box) -> str:
    if box.status is None:
        return ""
    x, y = box.x + box.w - 18, box.y
    return (
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="8.5" fill="{box.look.badge}" stroke="#ffffff" stroke-width="1.5"/>'
        + _svg_text(box.look.icon, x, y + 4, 11, fill="#ffffff", bold=True, anchor="middle")
    )


def _outline(box: Box) -> str:
    dashed = ' stroke-dasharray="5 4"' if box.disabled else ""
    return f'fill="{box.look.fill}" stroke="{box.look.stroke}" stroke-width="1.25"{dashed}'


def _svg_box(box: Box) -> str:
    x, y, w, h, middle = box.x, box.y, box.w, box.h, box.x + box.w / 2
    if box.type in BRANCHES:
        cut = CUT
        shape = (
            f'<path d="M{_n(x + cut)} {_n(y)}H{_n(x + w - cut)}L{_n(x + w)} {_n(y + h / 2)}L{_n(x + w - cut)} {_n(y + h)}'
            f'H{_n(x + cut)}L{_n(x)} {_n(y + h / 2)}Z" stroke-linejoin="round" {_outline(box)}/>'
        )
    else:
        radius = h / 2 if box.type in TRIGGERS else 8
        size = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
        shape = f'<rect {size} rx="{_n(min(radius, 30))}" {_outline(box)}/>'
    room = w - padding(box) + 8
    line = y + h / 2 - (DETAIL_H / 2 if box.detail else 0) + NAME_H / 2 * (len(box.names) - 1)
    ink = GREY if box.disabled else INK
    above = [line - 2.5 - NAME_H * number for number in range(len(box.names))][::-1]
    texts = [
        *(
            _svg_text(name, middle, at, NAME_SIZE, fill=ink, bold=True, anchor="middle")
            for name, at in zip(box.names, above, strict=True)
        ),
        _svg_text(fit(box.type, room, TYPE_SIZE), middle, line + 13, TYPE_SIZE, fill=GREY, anchor="middle"),
    ]
    if box.detail:
        detail = fit(box.detail, room, TYPE_SIZE)
        texts.append(_svg_text(detail, middle, line + 13 + DETAIL_H, TYPE_SIZE, fill=ink, anchor="middle"))
    return f'<g data-node="{_xml(box.place)}">{_tooltip(box)}{shape}{"".join(texts)}{_svg_badge(box)}</g>'


def _svg_frame(box: Box) -> str:
    size = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}"'
    room = box.w - FRAME_ROOM + 1
    name = fit(box.label, max(room * 0.6, room - width(box.kind[:1000], TYPE_SIZE)), NAME_SIZE, bold=True)
    rest = fit(box.kind, room - width(name, NAME_SIZE, bold=True), TYPE_SIZE)
    ink = GREY if box.disabled else INK
    return (
        f'<g data-node="{_xml(box.place)}">{_tooltip(box)}<rect {size} rx="12" {_outline(box)}/>'
        f'<text x="{_n(box.x + 16)}" y="{_n(box.y + 20)}" font-size="{_n(NAME_SIZE)}" fill="{ink}">'
        f'<tspan font-weight="600">{_xml(name)}</tspan>'
        f'<tspan dx="8" font-size="{_n(TYPE_SIZE)}" fill="{GREY}">{_xml(rest)}</tspan></text>{_svg_badge(box)}</g>'
    )


def _svg_edge(graph: Graph, edge: Edge, link: tuple[int, int], points: list[tuple[float, float]]) -> str:
    """The line and its arrow; it begins and ends at the outline, which for some shapes lies within the rectangle."""
    source, target = graph.boxes[link[0]], graph.boxes[link[1]]
    points = points.copy()
    (x, y), (end, at) = points[0], points[-1]
    points[0] = (x - _inset(source, y), y)
    tip = end + _inset(target, at)
    path = [f"M{_n(points[0][0])} {_n(y)}"]
    for (ax, ay), (bx, by) in zip(points[1:-1:2], points[2:-1:2], strict=True):
        if abs(ay - by) < 0.05:
            continue
        middle = _n((ax + bx) / 2)
        path.append(f"H{_n(ax)}C{middle} {_n(ay)} {middle} {_n(by)} {_n(bx)} {_n(by)}")
    path.append(f"H{_n(tip - ARROW + 1)}")
    skipped = _is_skipped(graph, edge, link)
    colours = (ERROR_LINE, _PALE_ERROR) if edge.port == "error" else (LINE, _PALE)
    colour = colours[skipped]
    dashes = ' stroke-dasharray="5 4"' if skipped else ""
    head = f"M{_n(tip - 1)} {_n(at)}l-{_n(ARROW)} -4.5v9z"
    name = f"{graph.prefix}{edge}" + ("" if edge.key is None else f"[{edge.key}]")
    return (
        f'<g data-edge="{_xml(name)}"><path d="{"".join(path)}" stroke="{colour}"{dashes}/>'
        f'<path d="{head}" fill="{colour}"/></g>'
    )


def _is_skipped(graph: Graph, edge: Edge, link: tuple[int, int]) -> bool:
    """Whether an edge is known to have been skipped: rule 2 of the law, as far as records tell."""
    source, target = graph.boxes[link[0]], graph.boxes[link[1]]
    if source.status in {NodeStatus.SKIPPED, NodeStatus.CANCELLED}:
        return True
    if source.status not in {NodeStatus.SUCCEEDED, NodeStatus.FAILED}:
        return False
    return target.status is NodeStatus.SKIPPED if source.ports is None else edge.port not in source.ports


def _inset(box: Box, y: float) -> float:
    """How far within the box's rectangle its left and right outline runs at a height."""
    off = min(abs(y - (box.y + box.h / 2)), box.h / 2)
    if box.inner:
        return 0.0
    if box.type in BRANCHES:
        return CUT * off / (box.h / 2)
    if box.type in TRIGGERS:
        radius = min(box.h / 2, 30.0)
        off -= box.h / 2 - radius
        return radius - (radius * radius - off * off) ** 0.5 if off > 0 else 0.0
    return 0.0


def _svg_labels(edge: Edge, points: list[tuple[float, float]], *, skipped: bool) -> list[str]:
    """The port beside the source and the input beside the target, on the level parts of the line."""
    pills = []
    for text, (x, y), forward in ((exit_of(edge), points[0], True), (entry_of(edge), points[-1], False)):
        if not text:
            continue
        shown = fit(clean(text), LABEL_W, LABEL_SIZE)
        w = width(shown, LABEL_SIZE) + 10
        left = x + STUB if forward else x - STUB - ARROW - w
        colours = (ERROR_LINE, _PALE_ERROR) if edge.port == "error" and forward else ("#475569", LINE)
        colour = colours[skipped]
        pills.append(
            f"<g><title>{_xml(text[:500])}</title>"
            f'<rect x="{_n(left)}" y="{_n(y - 8)}" width="{_n(w)}" height="16" rx="8" fill="#ffffff" stroke="#e2e8f0"/>'
            + _svg_text(shown, left + w / 2, y + 3.7, LABEL_SIZE, fill=colour, anchor="middle")
            + "</g>"
        )
    return pills
