"""The layered layout of a graph's picture: measures of texts, ranks, order, heights.

Ranks by longest path, a passage through every rank an edge crosses, barycentre sweeps for the order within ranks, and
for the heights a least-squares fit to the neighbours under minimal distances (the scheme of Sugiyama, Tagawa and Toda,
1981). Lines bend only between ranks, never beside a box, so that none runs through one.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

from orchestrator_core.types import Edge, NodeStatus

__all__ = [
    "ARROW",
    "BRANCHES",
    "CUT",
    "DETAIL_H",
    "DISABLED",
    "ERROR_LINE",
    "FONTS",
    "FRAME_HEAD",
    "FRAME_ROOM",
    "GREY",
    "INK",
    "LABEL_SIZE",
    "LABEL_W",
    "LINE",
    "LOOKS",
    "MARGIN",
    "NAME_H",
    "NAME_SIZE",
    "STUB",
    "TITLE_SIZE",
    "TRIGGERS",
    "TYPE_SIZE",
    "Box",
    "Graph",
    "clean",
    "entry_of",
    "exit_of",
    "fit",
    "lay_out",
    "padding",
    "topological",
    "width",
]

TRIGGERS = frozenset({"manual", "schedule", "webhook"})
BRANCHES = frozenset({"if", "switch"})


@dataclass(frozen=True)
class _Look:
    """How a status is drawn: colours, and a character for those who do not see them."""

    icon: str
    stroke: str
    fill: str
    badge: str


# Icons from blocks that common fonts have and that no platform turns into emoji.
LOOKS: Mapping[NodeStatus, _Look] = {
    NodeStatus.PENDING: _Look("○", "#94a3b8", "#ffffff", "#64748b"),
    NodeStatus.RUNNING: _Look("►", "#2563eb", "#eff6ff", "#2563eb"),
    NodeStatus.WAITING: _Look("…", "#b45309", "#fffbeb", "#b45309"),
    NodeStatus.SUCCEEDED: _Look("✓", "#15803d", "#f0fdf4", "#15803d"),
    NodeStatus.FAILED: _Look("✕", "#dc2626", "#fef2f2", "#dc2626"),
    NodeStatus.SKIPPED: _Look("»", "#94a3b8", "#f1f5f9", "#64748b"),
    NodeStatus.CANCELLED: _Look("⊘", "#7e22ce", "#faf5ff", "#7e22ce"),
}
_PLAIN = _Look("", "#94a3b8", "#ffffff", "#64748b")
_GROUP = _Look("", "#94a3b8", "#f8fafc", "#64748b")
DISABLED = _Look("", "#94a3b8", "#f1f5f9", "#64748b")
INK, GREY, LINE, ERROR_LINE = "#0f172a", "#64748b", "#94a3b8", "#dc2626"


@dataclass(eq=False)
class Box:
    """One node in the picture; the numbers are the SVG's, in pixels, ``x`` and ``y`` the upper left corner."""

    place: str
    label: str
    type: str
    disabled: bool = False
    status: NodeStatus | None = None
    detail: str = ""
    # What it emitted on, where that is known.
    ports: frozenset[str] | None = None
    inner: Graph | None = None
    # The label as it is drawn: on one line or on two.
    names: tuple[str, ...] = ()
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0

    @property
    def look(self) -> _Look:
        if self.status is not None:
            return LOOKS[self.status]
        return DISABLED if self.disabled else _GROUP if self.inner else _PLAIN

    @property
    def kind(self) -> str:
        """What stands behind a group's name: its type and the detail."""
        return " · ".join(part for part in (self.type, self.detail) if part)

    @property
    def heading(self) -> str:
        """The label behind its status icon, for the formats that have no badges."""
        return f"{self.look.icon} {self.label}" if self.look.icon else self.label


@dataclass(eq=False)
class Graph:
    """The nodes and edges of a document or of a body: ``links`` holds indices into ``boxes``."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)
    prefix: str = ""
    routes: list[list[tuple[float, float]]] = field(default_factory=list)
    w: float = 0.0
    h: float = 0.0


def entry_of(edge: Edge) -> str:
    """What stands at an edge's arrow: the input unless it is main, and the key."""
    return " ".join(([] if edge.input == "main" else [edge.input]) + ([] if edge.key is None else [f"[{edge.key}]"]))


def exit_of(edge: Edge) -> str:
    """What is written where an edge leaves a box: its port."""
    return "" if edge.port == "main" else edge.port


def topological(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """The indices with every link forward; those on and behind a cycle are missing."""
    after: list[list[int]] = [[] for _ in range(n)]
    missing = [0] * n
    for source, target in links:
        after[source].append(target)
        missing[target] += 1
    order = [v for v in range(n) if not missing[v]]
    for v in order:  # grows while it is read
        for w in after[v]:
            missing[w] -= 1
            if not missing[w]:
                order.append(w)
    return order


# Controls but for line breaks, lone surrogates, what XML forbids, and marks that turn the direction of later text.
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean(text: str) -> str:
    """A text of somebody else with nothing in it that is not printed."""
    text = re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text).replace("\t", " ")
    return _UNPRINTABLE.sub("\ufffd", text)


# --- SVG: measures -----------------------------------------------------------------------------------------------

NAME_SIZE, TYPE_SIZE, LABEL_SIZE, TITLE_SIZE = 13.0, 11.0, 10.5, 16.0
_MIN_W, _MAX_W, _BASE_H, DETAIL_H, NAME_H = 104.0, 230.0, 46.0, 14.0, 16.0
LABEL_W = 110.0
_ROW_GAP, _LINE_GAP, _LANE = 24.0, 14.0, 9.0
_PORT_STEP, _PORT_STEP_LABELLED = 12.0, 18.0
STUB, ARROW = 8.0, 8.0
_FRAME_PAD, FRAME_HEAD = 18.0, 34.0
FRAME_ROOM = 62.0  # of a group's header, beside its texts: margins, the gap between them, the badge
MARGIN = 24.0
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
CUT = 16.0  # of the corners of `if` and `switch`

_WIDTHS = {
    **dict.fromkeys("ijl.,:;'|!`", 0.3),
    **dict.fromkeys('frtI()[]{}-/\\" ', 0.4),
    **dict.fromkeys("mwMW@%", 0.95),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&+=<>~_#", 0.72),
    "…": 0.95,
}


def width(text: str, size: float, *, bold: bool = False) -> float:
    """About how wide a text is in the usual sans-serif faces, rather too wide than too narrow."""
    total = 0.0
    for char in text:
        known = _WIDTHS.get(char)
        if known is not None:
            total += known
        elif char.isascii():
            total += 0.6
        elif unicodedata.combining(char) or unicodedata.category(char) in {"Cf", "Mn", "Me"}:
            continue
        else:
            total += 1.3 if char > "\uffff" else 1.05 if unicodedata.east_asian_width(char) in "WF" else 0.7
    return total * size * (1.07 if bold else 1.0)


def fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text on one line, shortened with an ellipsis where it needs more than ``room`` pixels."""
    text = " ".join(text.split())
    if len(text) <= room and width(text, size, bold=bold) <= room:
        return text
    room -= width("…", size, bold=bold)
    text = text[: max(int(room), 0)]  # nothing drawn is narrower than a pixel; hostile labels may be megabytes
    # Widths only add up, so the longest prefix that fits can be searched for.
    keep = bisect_right(range(len(text) + 1), room, key=lambda n: width(text[:n], size, bold=bold)) - 1
    return text[: max(keep, 0)].rstrip().rstrip("\u200d") + "…"


_BREAK = re.compile(r"(?<=[ _./:-])(?=[^ _./:-])|(?<=[a-z0-9])(?=[A-Z])")


def _on_lines(text: str, room: float) -> tuple[str, ...]:
    """A name on one line, or where it is too long on two, as equal as its words allow; what is left over is cut off."""
    text = " ".join(text[:2000].split())
    if len(text) <= room and width(text, NAME_SIZE, bold=True) <= room:
        return (text,)
    beginning = text[: int(room)]
    places = [match.start() for match in _BREAK.finditer(beginning)]
    fitting = [n for n in places if width(beginning[:n].rstrip(), NAME_SIZE, bold=True) <= room]
    if not fitting:
        # One long word: as much of it as a line holds.
        fitting = [bisect_right(range(len(beginning)), room, key=lambda n: width(text[:n], NAME_SIZE, bold=True)) - 1]
    at = min(
        fitting,
        key=lambda n: max(width(part, NAME_SIZE, bold=True) for part in (text[:n], text[n : 2 * len(beginning)])),
    )
    return text[:at].rstrip(), fit(text[at:], room, NAME_SIZE, bold=True)


def _measure(box: Box, exits: list[Edge], entries: list[Edge]) -> None:
    """The size of a box: of its text or its inner graph, and of its labelled edges."""
    if box.inner:
        name = width(fit(box.label, 1.5 * _MAX_W, NAME_SIZE, bold=True), NAME_SIZE, bold=True)
        kind = width(fit(box.kind, _MAX_W, TYPE_SIZE), TYPE_SIZE)
        box.w = max(box.inner.w + 2 * _FRAME_PAD, name + kind + FRAME_ROOM)
        box.h = box.inner.h + FRAME_HEAD + _FRAME_PAD
    else:
        box.names = _on_lines(box.label, _MAX_W - padding(box))
        names = (width(line, NAME_SIZE, bold=True) for line in box.names)
        types = (width(fit(text, _MAX_W, TYPE_SIZE), TYPE_SIZE) for text in (box.type, box.detail))
        box.w = min(max(*names, *types, _MIN_W - padding(box)) + padding(box), _MAX_W)
        box.h = _BASE_H + NAME_H * (len(box.names) - 1) + (DETAIL_H if box.detail else 0.0)
    for edges, labelled in ((exits, any(map(exit_of, exits))), (entries, any(map(entry_of, entries)))):
        if labelled:
            box.h = max(box.h, _PORT_STEP_LABELLED * len(edges) + 10)


def padding(box: Box) -> float:
    """The room beside the texts of a box, in pixels."""
    return 44.0 if box.type in TRIGGERS or box.type in BRANCHES else 28.0


# --- SVG: layout -------------------------------------------------------------------------------------------------


def lay_out(graph: Graph) -> None:
    """Place a graph's boxes and routes from (0, 0) on; the graphs in its groups have their sizes already.

    Parts that do not hang together are stacked; single nodes share rows, or a thousand of them made a tower.
    """
    exits: list[list[Edge]] = [[] for _ in graph.boxes]
    entries: list[list[Edge]] = [[] for _ in graph.boxes]
    for edge, (source, target) in zip(graph.edges, graph.links, strict=True):
        exits[source].append(edge)
        entries[target].append(edge)
    for i, box in enumerate(graph.boxes):
        _measure(box, exits[i], entries[i])
    graph.routes = [[] for _ in graph.edges]
    x = y = row_h = 0.0
    for part in _parts(len(graph.boxes), graph.links):
        layered = _Layered(graph, part)
        layered.place()
        if row_h and (len(part) > 1 or x + layered.w > 1000):
            x, y, row_h = 0.0, y + row_h + _ROW_GAP, 0.0
        for i in part:
            graph.boxes[i].x += x
            graph.boxes[i].y += y
        for e in layered.edges:
            graph.routes[e] = [(px + x, py + y) for px, py in graph.routes[e]]
        graph.w, graph.h = max(graph.w, x + layered.w), y + max(row_h, layered.h)
        x, row_h = x + layered.w + 2 * _ROW_GAP, max(row_h, layered.h)
        if len(part) > 1:
            x, y, row_h = 0.0, y + row_h + 1.5 * _ROW_GAP, 0.0


def _parts(n: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected parts, in document order of their first nodes."""
    near: list[list[int]] = [[] for _ in range(n)]
    for source, target in links:
        near[source].append(target)
        near[target].append(source)
    seen = [False] * n
    parts = []
    for root in range(n):
        if not seen[root]:
            seen[root] = True
            part = [root]
            for v in part:  # grows while it is read
                for w in near[v]:
                    if not seen[w]:
                        seen[w] = True
                        part.append(w)
            parts.append(sorted(part))
    return parts


class _Layered:
    """The layered layout of one connected part.

    Vertices are the part's boxes (0 up to their number) and then the passages of long edges; ``chains`` holds the
    vertices of each edge from source to target. Passages are bounded, or a chain of a thousand nodes with long
    edges would need a million: beyond that the longest edges run in lanes beneath everything.
    """

    def __init__(self, graph: Graph, part: list[int]) -> None:
        self.graph = graph
        self.boxes = [graph.boxes[i] for i in part]
        index = {v: i for i, v in enumerate(part)}
        self.edges = [e for e, (source, _) in enumerate(graph.links) if source in index]
        self.links = [(index[graph.links[e][0]], index[graph.links[e][1]]) for e in self.edges]
        self.rank = self._ranks()
        self.chains: list[list[int]] = [[] for _ in self.links]
        self.lanes: dict[int, int] = {}
        self._pass_ranks()
        self.layers: list[list[int]] = []
        self.y: list[float] = []
        self.w = self.h = 0.0

    def place(self) -> None:
        """Set the boxes' places, the edges' routes, and the size."""
        self._order()
        self._heights()
        self._route()

    def _ranks(self) -> list[int]:
        """The column of each box: behind all it depends on, but not further from what depends on it than needed."""
        n = len(self.boxes)
        before: list[list[int]] = [[] for _ in range(n)]
        after: list[list[int]] = [[] for _ in range(n)]
        for source, target in self.links:
            before[target].append(source)
            after[source].append(target)
        rank = [0] * n
        order = topological(n, self.links)
        for v in order:
            rank[v] = max((rank[u] + 1 for u in before[v]), default=0)
        for v in reversed(order):
            # Moving right shortens what goes out by what it lengthens coming in. Triggers stay where people look first.
            if len(after[v]) > len(before[v]) and self.boxes[v].type not in TRIGGERS:
                rank[v] = min(rank[w] for w in after[v]) - 1
        dense = {r: i for i, r in enumerate(sorted(set(rank)))}
        return [dense[r] for r in rank]

    def _pass_ranks(self) -> None:
        """Give every edge its chain, the short ones first while passages last; the others get lanes."""
        left = 2000 + 5 * len(self.boxes)
        spans = [self.rank[target] - self.rank[source] - 1 for source, target in self.links]
        busy: list[tuple[int, int]] = []  # (first rank where it is free again, lane)
        lanes: list[int] = []
        for e in sorted(range(len(spans)), key=lambda e: (spans[e], self.rank[self.links[e][0]], e)):
            source, target = self.links[e]
            if spans[e] > left:
                lanes.append(e)
                continue
            left -= spans[e]
            passages = list(range(len(self.rank), len(self.rank) + spans[e]))
            self.rank.extend(range(self.rank[source] + 1, self.rank[target]))
            self.chains[e] = [source, *passages, target]
        count = 0
        for e in sorted(lanes, key=lambda e: (self.rank[self.links[e][0]], e)):
            source, target = self.links[e]
            if busy and busy[0][0] <= self.rank[source]:
                lane = heappop(busy)[1]
            else:
                lane, count = count, count + 1
            heappush(busy, (self.rank[target], lane))
            self.lanes[e] = lane
            self.chains[e] = [source, target]

    # Order within ranks.

    def _order(self) -> None:
        """Fill ``layers`` from top to bottom: the best of some barycentre sweeps, counted in crossings."""
        n = len(self.rank)
        self.ups: list[list[int]] = [[] for _ in range(n)]
        self.downs: list[list[int]] = [[] for _ in range(n)]
        for e, chain in enumerate(self.chains):
            if e not in self.lanes:
                for u, v in pairwise(chain):
                    self.downs[u].append(v)
                    self.ups[v].append(u)
        layers = self._first_order()
        position = [0] * n
        for layer in layers:
            for i, v in enumerate(layer):
                position[v] = i
        best, fewest = [list(layer) for layer in layers], self._crossings(layers, position)
        stale = 0
        for sweep in range(24):
            if not fewest or stale > (4 if n < 3000 else 1):
                break
            forward = sweep % 2 == 0
            near = self.ups if forward else self.downs
            for layer in layers if forward else reversed(layers):
                middle = {
                    v: sum(position[u] for u in near[v]) / len(near[v]) if near[v] else position[v] for v in layer
                }
                layer.sort(key=middle.__getitem__)
                for i, v in enumerate(layer):
                    position[v] = i
            crossings = self._crossings(layers, position)
            stale += 1
            if crossings < fewest:
                best, fewest, stale = [list(layer) for layer in layers], crossings, 0
        self.layers = best

    def _first_order(self) -> list[list[int]]:
        """Depth first from the roots: what hangs together stands together."""
        layers: list[list[int]] = [[] for _ in range(max(self.rank) + 1)]
        seen = [False] * len(self.rank)
        for root in range(len(self.boxes)):
            todo = [] if self.ups[root] else [root]
            while todo:
                v = todo.pop()
                if not seen[v]:
                    seen[v] = True
                    layers[self.rank[v]].append(v)
                    todo.extend(reversed(self.downs[v]))
        return layers

    def _crossings(self, layers: list[list[int]], position: list[int]) -> int:
        total = 0
        for layer in layers:
            passed: list[int] = []
            for u in layer:
                ends = sorted(position[v] for v in self.downs[u])
                total += sum(len(passed) - bisect_right(passed, end) for end in ends)
                for end in ends:
                    insort(passed, end)
        return total

    # Heights.

    def _half(self, v: int) -> float:
        return self.boxes[v].h / 2 if v < len(self.boxes) else 0.0

    def _heights(self) -> None:
        """Set ``y``, the middle of every vertex: near its neighbours, passages in line, nothing too close."""
        real = len(self.boxes)
        self.y = [0.0] * len(self.rank)
        offsets: list[list[float]] = []
        for layer in self.layers:
            at, column = 0.0, []
            for above, v in zip([None, *layer], layer, strict=False):
                if above is not None:
                    gap = _ROW_GAP if above < real and v < real else _LINE_GAP
                    at += self._half(above) + self._half(v) + gap
                column.append(at)
                self.y[v] = at
            offsets.append(column)
        rounds = 16 if len(self.rank) < 3000 else 6
        for turn in range(rounds):
            last = turn >= rounds - 2
            forward = turn % 2 == 0
            for r in range(len(self.layers)) if forward else reversed(range(len(self.layers))):
                wishes = []
                for v in self.layers[r]:
                    near = [*self.ups[v], *self.downs[v]] if last else self.ups[v] if forward else self.downs[v]
                    weights = [1.0 if u < real and v < real else 8.0 if u >= real and v >= real else 2.0 for u in near]
                    weight = sum(weights)
                    wish = (
                        sum(w * self.y[u] for w, u in zip(weights, near, strict=True)) / weight if near else self.y[v]
                    )
                    wishes.append((wish, weight or 0.3))
                for v, y in zip(self.layers[r], _settle(wishes, offsets[r]), strict=True):
                    self.y[v] = y
        top = min(self.y[v] - self._half(v) for v in range(len(self.rank)))
        self.y = [y - top for y in self.y]
        self.h = max(self.y[v] + self._half(v) for v in range(len(self.rank)))
        for box, y in zip(self.boxes, self.y, strict=False):
            box.y = y - box.h / 2

    # Lines.

    def _ports(self) -> tuple[list[float], list[float]]:
        """For each edge the heights where it leaves its source and reaches its target, ordered by where it goes."""
        leaves, reaches = [0.0] * len(self.links), [0.0] * len(self.links)
        for side, ends, label in ((0, leaves, exit_of), (1, reaches, entry_of)):
            fans: list[list[int]] = [[] for _ in self.boxes]
            for e, link in enumerate(self.links):
                fans[link[side]].append(e)
            for v, fan in enumerate(fans):
                labelled = any(label(self.graph.edges[self.edges[e]]) for e in fan)
                room = min((self.boxes[v].h - 16) / max(len(fan) - 1, 1), _PORT_STEP)
                # Where arrow heads would overlap, one place for all of them is clearer.
                step = _PORT_STEP_LABELLED if labelled else room if room > ARROW else 0.0
                beneath = self.h + 1  # lanes are under everything
                fan.sort(key=lambda e: beneath if e in self.lanes else self.y[self.chains[e][-2 if side else 1]])
                for i, e in enumerate(fan):
                    ends[e] = self.y[v] + (i - (len(fan) - 1) / 2) * step
        return leaves, reaches

    def _level(self, leaves: list[float], reaches: list[float]) -> None:
        """Make long edges run level as far as the room between their neighbours allows, the longest first."""
        low, high = [float("-inf")] * len(self.y), [float("inf")] * len(self.y)
        before: dict[int, int] = {}
        after: dict[int, int] = {}
        for layer in self.layers:
            for above, below in pairwise(layer):
                before[below], after[above] = above, below
                low[below] = self.y[above] + self._half(above) + _LINE_GAP
                high[above] = self.y[below] - self._half(below) - _LINE_GAP
        for e in sorted(range(len(self.chains)), key=lambda e: (-len(self.chains[e]), e)):
            passages, at = self.chains[e][1:-1], leaves[e]
            while passages:
                floor, ceiling, run = low[passages[0]], high[passages[0]], 1
                for v in passages[1:]:
                    if max(floor, low[v]) > min(ceiling, high[v]):
                        break
                    floor, ceiling, run = max(floor, low[v]), min(ceiling, high[v]), run + 1
                if not floor <= at <= ceiling:
                    at = reaches[e] if run == len(passages) else sum(self.y[v] for v in passages[:run]) / run
                    at = max(min(at, ceiling), floor)
                for v in passages[:run]:
                    self.y[v] = at
                    if v in before:
                        high[before[v]] = at - _LINE_GAP
                    if v in after:
                        low[after[v]] = at + _LINE_GAP
                passages = passages[run:]

    def _route(self) -> None:
        """Set the columns' places and the routes: level runs through ranks, joined by curves between them."""
        leaves, reaches = self._ports()
        self._level(leaves, reaches)
        columns = len(self.layers)
        leaving, entering = (Counter(link[side] for link in self.links) for side in (0, 1))
        heights: list[list[float]] = []  # by edge: at its source, in every rank it crosses, at its target
        for e, chain in enumerate(self.chains):
            lane = self.lanes.get(e)
            inner = [self.y[v] for v in chain[1:-1]]
            if lane is not None:
                inner = [self.h + _ROW_GAP + lane * _LANE] * (
                    self.rank[self.links[e][1]] - self.rank[self.links[e][0]] - 1
                )
            line = _straighten([leaves[e], *inner, reaches[e]])
            # The only edge of a side may meet it off the middle, if that makes it straight.
            if entering[self.links[e][1]] == 1 and abs(line[-1] - line[-2]) <= _PORT_STEP:
                line[-1] = line[-2]
            elif leaving[self.links[e][0]] == 1 and abs(line[0] - line[1]) <= _PORT_STEP:
                line[0] = line[1]
            heights.append(line)
        if self.lanes:
            self.h += _ROW_GAP + max(self.lanes.values()) * _LANE
        exits, entries, climb, wide = ([0.0] * columns for _ in range(4))
        for e, (source, target) in enumerate(self.links):
            edge = self.graph.edges[self.edges[e]]
            r, s = self.rank[source], self.rank[target]
            exits[r] = max(exits[r], _pill_width(exit_of(edge)))
            entries[s] = max(entries[s], _pill_width(entry_of(edge)))
            for i, (a, b) in enumerate(pairwise(heights[e])):
                climb[r + i] = max(climb[r + i], abs(a - b))
        for v, box in enumerate(self.boxes):
            wide[self.rank[v]] = max(wide[self.rank[v]], box.w)
        left, bends = [0.0] * columns, [(0.0, 0.0)] * columns  # where columns begin; where the curves behind them run
        for r in range(columns):
            start = left[r] + wide[r] + STUB + exits[r]
            end = start + min(max(44.0, 0.16 * climb[r]), 200.0)
            bends[r] = (start, end)
            if r + 1 < columns:
                left[r + 1] = end + entries[r + 1] + STUB + ARROW
        self._finish(left, wide, bends, heights)

    def _finish(
        self, left: list[float], wide: list[float], bends: list[tuple[float, float]], heights: list[list[float]]
    ) -> None:
        # Boxes of one column are equally wide, but for groups and for what would have to grow to a group's width.
        plain = [0.0] * len(left)
        for v, box in enumerate(self.boxes):
            if not box.inner:
                plain[self.rank[v]] = max(plain[self.rank[v]], box.w)
        for v, box in enumerate(self.boxes):
            box.w = box.w if box.inner else plain[self.rank[v]]
            box.x = left[self.rank[v]] + (wide[self.rank[v]] - box.w) / 2
        self.w = left[-1] + wide[-1]
        for e, (source, target) in enumerate(self.links):
            first, last = self.boxes[source], self.boxes[target]
            points = [(first.x + first.w, heights[e][0])]
            for i, (a, b) in enumerate(pairwise(heights[e])):
                start, end = bends[self.rank[source] + i]
                points += [(start, a), (end, b)]
            points.append((last.x, heights[e][-1]))
            self.graph.routes[self.edges[e]] = points


def _settle(wishes: list[tuple[float, float]], offsets: list[float]) -> list[float]:
    """The heights nearest to the wishes (height, weight) that keep the distances in ``offsets``.

    Nearest by weighted squares; solved exactly by pooling neighbours that push each other, in linear time.
    """
    pools: list[tuple[float, float, int]] = []  # sum of weight * height, sum of weights, members
    for (wish, weight), offset in zip(wishes, offsets, strict=True):
        pool = (weight * (wish - offset), weight, 1)
        while pools and pools[-1][0] * pool[1] > pool[0] * pools[-1][1]:
            above = pools.pop()
            pool = (pool[0] + above[0], pool[1] + above[1], pool[2] + above[2])
        pools.append(pool)
    flat = [moment / weights for moment, weights, members in pools for _ in range(members)]
    return [height + offset for height, offset in zip(flat, offsets, strict=True)]


def _straighten(heights: list[float]) -> list[float]:
    """Take out steps too small to look meant; no height moves by more than 4 pixels."""
    result = [heights[0]]
    for height in heights[1:]:
        result.append(result[-1] if abs(height - result[-1]) <= 4 else height)
    return result


def _pill_width(text: str) -> float:
    return width(fit(clean(text), LABEL_W, LABEL_SIZE), LABEL_SIZE) + 10 + STUB if text else 0.0
