"""Pictures of a workflow's graph: Mermaid and Graphviz text, and SVG with a layout of its own.

Everything is a pure function of plain data: the same nodes, edges, statuses and details give the same text, byte
for byte. Labels are somebody else's text; each format escapes them so that they stay text.

A *place* says where a node stands in the picture: its id, or for a node in a group's body ``poll/fetch``. A
``status`` or ``details`` mapping may be keyed by places or by the paths of an execution's records
(``poll/3/fetch``, ``sync/17``): of several records of one place the node's own wins, else the last iteration's.

The layout of the SVG is the layered one: ranks by longest path, a passage through every rank an edge crosses,
barycentre sweeps for the order within ranks, and for the heights a least-squares fit to the neighbours under
minimal distances. Lines bend only between ranks, never beside a box, so that none runs through one.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import TypeVar

from orchestrator_core.types import Edge, Json, Node, NodeStatus

__all__ = ["dot", "mermaid", "svg"]

_T = TypeVar("_T")

_TRIGGERS = frozenset({"manual", "schedule", "webhook"})
_BRANCHES = frozenset({"if", "switch"})


@dataclass(frozen=True)
class _Look:
    """How a status is drawn: colours, and a character for those who do not see them."""

    icon: str
    stroke: str
    fill: str
    badge: str


# Icons from blocks that common fonts have and that no platform turns into emoji.
_LOOKS: Mapping[NodeStatus, _Look] = {
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
_DISABLED = _Look("", "#94a3b8", "#f1f5f9", "#64748b")
_INK, _GREY, _LINE, _ERROR_LINE = "#0f172a", "#64748b", "#94a3b8", "#dc2626"


@dataclass(eq=False)
class _Box:
    """One node in the picture; the numbers are the SVG's, in pixels, ``x`` and ``y`` the upper left corner."""

    place: str
    label: str
    type: str
    disabled: bool = False
    status: NodeStatus | None = None
    detail: str = ""
    inner: _Graph | None = None
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0

    @property
    def look(self) -> _Look:
        if self.status is not None:
            return _LOOKS[self.status]
        return _DISABLED if self.disabled else _GROUP if self.inner else _PLAIN

    @property
    def heading(self) -> str:
        """The label behind its status icon, for the formats that have no badges."""
        return f"{self.look.icon} {self.label}" if self.look.icon else self.label


@dataclass(eq=False)
class _Graph:
    """The nodes and edges of a document or of a body: ``links`` holds indices into ``boxes``."""

    boxes: list[_Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    links: list[tuple[int, int]] = field(default_factory=list)
    prefix: str = ""
    routes: list[list[tuple[float, float]]] = field(default_factory=list)
    w: float = 0.0
    h: float = 0.0


def _entry(edge: Edge) -> str:
    """What stands at an edge's arrow: the input unless it is main, and the key."""
    return " ".join(([] if edge.input == "main" else [edge.input]) + ([] if edge.key is None else [f"[{edge.key}]"]))


def _exit(edge: Edge) -> str:
    return "" if edge.port == "main" else edge.port


def _topological(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
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


def _clean(text: str) -> str:
    text = re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text).replace("\t", " ")
    return _UNPRINTABLE.sub("\ufffd", text)


# --- SVG: measures -----------------------------------------------------------------------------------------------

_NAME_SIZE, _TYPE_SIZE, _LABEL_SIZE, _TITLE_SIZE = 13.0, 11.0, 10.5, 16.0
_MIN_W, _MAX_W, _BASE_H, _DETAIL_H = 104.0, 230.0, 46.0, 14.0
_LABEL_W = 110.0
_ROW_GAP, _LINE_GAP, _LANE = 24.0, 14.0, 9.0
_PORT_STEP, _PORT_STEP_LABELLED = 12.0, 18.0
_STUB, _ARROW = 8.0, 8.0
_FRAME_PAD, _FRAME_HEAD = 18.0, 30.0
_MARGIN = 24.0
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_CUT = 16.0  # of the corners of `if` and `switch`

_WIDTHS = {
    **dict.fromkeys("ijl.,:;'|!`", 0.3),
    **dict.fromkeys('frtI()[]{}-/\\" ', 0.4),
    **dict.fromkeys("mwMW@%", 0.95),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&+=<>~_#", 0.72),
    "…": 0.95,
}


def _width(text: str, size: float, *, bold: bool = False) -> float:
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


def _fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text on one line, shortened with an ellipsis where it needs more than ``room`` pixels."""
    text = " ".join(text.split())
    if len(text) <= room and _width(text, size, bold=bold) <= room:
        return text
    room -= _width("…", size, bold=bold)
    text = text[: max(int(room), 0)]  # nothing drawn is narrower than a pixel; hostile labels may be megabytes
    # Widths only add up, so the longest prefix that fits can be searched for.
    keep = bisect_right(range(len(text) + 1), room, key=lambda n: _width(text[:n], size, bold=bold)) - 1
    return text[: max(keep, 0)].rstrip().rstrip("\u200d") + "…"


def _measure(box: _Box, exits: list[Edge], entries: list[Edge]) -> None:
    """The size of a box: of its text or its inner graph, and of its labelled edges."""
    widths = [
        _width(_fit(box.label, _MAX_W, _NAME_SIZE, bold=True), _NAME_SIZE, bold=True),
        _width(_fit(box.type, _MAX_W, _TYPE_SIZE), _TYPE_SIZE),
        _width(_fit(box.detail, _MAX_W, _TYPE_SIZE), _TYPE_SIZE),
    ]
    if box.inner:
        box.w = max(box.inner.w + 2 * _FRAME_PAD, min(sum(widths), 2 * _MAX_W) + 4 * _FRAME_PAD)
        box.h = box.inner.h + _FRAME_HEAD + _FRAME_PAD
    else:
        box.w = min(max(max(widths) + _padding(box), _MIN_W), _MAX_W)
        box.h = _BASE_H + (_DETAIL_H if box.detail else 0.0)
    for edges, labelled in ((exits, any(map(_exit, exits))), (entries, any(map(_entry, entries)))):
        if labelled:
            box.h = max(box.h, _PORT_STEP_LABELLED * len(edges) + 10)


def _padding(box: _Box) -> float:
    return 44.0 if box.type in _TRIGGERS or box.type in _BRANCHES else 28.0


# --- SVG: layout -------------------------------------------------------------------------------------------------


def _lay_out(graph: _Graph) -> None:
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

    def __init__(self, graph: _Graph, part: list[int]) -> None:
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
        order = _topological(n, self.links)
        for v in order:
            rank[v] = max((rank[u] + 1 for u in before[v]), default=0)
        for v in reversed(order):
            # Moving right shortens what goes out by what it lengthens coming in. Triggers stay where people look first.
            if len(after[v]) > len(before[v]) and self.boxes[v].type not in _TRIGGERS:
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
        for side, ends, label in ((0, leaves, _exit), (1, reaches, _entry)):
            fans: list[list[int]] = [[] for _ in self.boxes]
            for e, link in enumerate(self.links):
                fans[link[side]].append(e)
            for v, fan in enumerate(fans):
                labelled = any(label(self.graph.edges[self.edges[e]]) for e in fan)
                room = min((self.boxes[v].h - 16) / max(len(fan) - 1, 1), _PORT_STEP)
                # Where arrow heads would overlap, one place for all of them is clearer.
                step = _PORT_STEP_LABELLED if labelled else room if room > _ARROW else 0.0
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
            exits[r] = max(exits[r], _pill_width(_exit(edge)))
            entries[s] = max(entries[s], _pill_width(_entry(edge)))
            for i, (a, b) in enumerate(pairwise(heights[e])):
                climb[r + i] = max(climb[r + i], abs(a - b))
        for v, box in enumerate(self.boxes):
            wide[self.rank[v]] = max(wide[self.rank[v]], box.w)
        left, bends = [0.0] * columns, [(0.0, 0.0)] * columns  # where columns begin; where the curves behind them run
        for r in range(columns):
            start = left[r] + wide[r] + _STUB + exits[r]
            end = start + min(max(44.0, 0.16 * climb[r]), 200.0)
            bends[r] = (start, end)
            if r + 1 < columns:
                left[r + 1] = end + entries[r + 1] + _STUB + _ARROW
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
    return _width(_fit(_clean(text), _LABEL_W, _LABEL_SIZE), _LABEL_SIZE) + 10 + _STUB if text else 0.0


# --- reading -----------------------------------------------------------------------------------------------------


def _read(
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    status: Mapping[str, NodeStatus] | None,
    details: Mapping[str, str] | None = None,
) -> list[_Graph]:
    """The document and all bodies in it, outer ones before their inner ones.

    A list and not a recursion: how deep bodies are nested is the document's choice, not that of Python's stack.
    """
    states = _by_place(status or {})
    notes = _by_place(details or {})
    root = _Graph()
    graphs = [root]
    contents = [(list(nodes), list(edges))]
    for n, graph in enumerate(graphs):  # grows while it is read
        its_nodes, its_edges = contents[n]
        for node in its_nodes:
            place = graph.prefix + node.id
            state = states.get(place)
            box = _Box(
                place=place,
                label=_clean(node.name or node.id),
                type=_clean(node.type),
                disabled=node.disabled,
                status=None if state is None else NodeStatus(state),
                detail=_clean(str(notes.get(place, ""))),
            )
            graph.boxes.append(box)
            body = _read_body(node.config.get("body"))
            if body:
                box.inner = _Graph(prefix=place + "/")
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


def _connect(graph: _Graph, ids: list[str], edges: list[Edge]) -> None:
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
    done = set(_topological(len(ids), graph.links))
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


def _walk(graph: _Graph) -> Iterator[tuple[str, _Box, int]]:
    """Every box as ("node", box, depth), a group as ("open", …), its inner boxes, and ("close", …)."""
    path: list[tuple[Iterator[_Box], _Box | None]] = [(iter(graph.boxes), None)]
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
    entry = _entry(edge)
    return _clean(" ".join(part for part in (_exit(edge), f"→ {entry}" if entry else "") if part))


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
    lines = ["---", f"title: {json.dumps(_clean(title), ensure_ascii=False)}", "---"] if title else []
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
        elif box.type in _TRIGGERS:
            lines.append(f"{indent}{name}([{label}])")
        elif box.type in _BRANCHES:
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
    for name, look in (("disabled", _DISABLED), *((s.value, look) for s, look in _LOOKS.items())):
        if classes[name]:
            colour = f"color:{_GREY},stroke-dasharray:4 3" if name == "disabled" else f"color:{_INK}"
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


def _names(graphs: list[_Graph], make: Callable[[str], str]) -> dict[_Box, str]:
    """A name of its own for every box, made from its place."""
    names: dict[_Box, str] = {}
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
        f'    node [shape=box, {font}, fontsize=11, fontcolor="{_INK}"];',
        f'    edge [{font}, fontsize=10, color="{_GREY}", fontcolor="{_GREY}", arrowsize=0.7];',
    ]
    if title:
        lines.append(f"    graph [label={_dot_quote(_clean(title), label=True)}, labelloc=t];")
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
            attributes += [f'color="{_ERROR_LINE}"'] if edge.port == "error" else []
            suffix = f" [{', '.join(attributes)}]" if attributes else ""
            lines.append(f"    {names[tail]} -> {names[head]}{suffix};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_look(box: _Box) -> str:
    text = f"{box.heading}\n{box.type}"
    attributes = [f"label={_dot_quote(text, label=True)}"]
    shape = "diamond" if box.type in _BRANCHES else ""
    style = "filled" if shape else "rounded,filled"
    if box.disabled:
        style += ",dashed"
    if box.inner:
        attributes += [f'style="{style}"', 'labeljust="l"', "labelloc=t"]
    else:
        attributes += [f"shape={shape}"] if shape else []
        # Graphviz has no stadium; an ellipse is what its readers know as a start.
        attributes += ["shape=ellipse"] if box.type in _TRIGGERS else []
        attributes.append(f'style="{style}"')
    attributes += [f'fillcolor="{box.look.fill}"', f'color="{box.look.stroke}"']
    if box.disabled:
        attributes.append(f'fontcolor="{_GREY}"')
    return ", ".join(attributes)


def _dot_quote(text: str, *, label: bool = False) -> str:
    r"""A quoted string; in labels Graphviz also reads entities (``&lt;``) and escapes (``\N``, ``\l``)."""
    text = _clean(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text.replace("&", "&amp;") if label else text}"'


def _anchor(box: _Box, *, first: bool) -> _Box:
    """The node that stands for a group at an edge's end: Graphviz's edges cannot end at clusters themselves."""
    while box.inner:
        order = _topological(len(box.inner.boxes), box.inner.links)
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

    Returns:
        The text of one ``svg`` element, ending with a line break.

    Raises:
        ValueError: Two nodes share an id, an edge names an unknown node, or there is a cycle.
    """
    graphs = _read(nodes, edges, status, details)
    root = graphs[0]
    for graph in reversed(graphs):
        _lay_out(graph)
    heading = _clean(title or "")
    top = _MARGIN + (_TITLE_SIZE + 18 if heading else 0)
    origins = {id(root): (_MARGIN, top)}
    frames, lines, labels, boxes = [], [], [], []
    for graph in graphs:  # outer ones first: their boxes' places are known when the inner ones come
        dx, dy = origins[id(graph)]
        for box in graph.boxes:
            box.x, box.y = box.x + dx, box.y + dy
            if box.inner:
                origins[id(box.inner)] = (box.x + (box.w - box.inner.w) / 2, box.y + _FRAME_HEAD)
                frames.append(_svg_frame(box))
            else:
                boxes.append(_svg_box(box))
        for edge, link, route in zip(graph.edges, graph.links, graph.routes, strict=True):
            points = [(x + dx, y + dy) for x, y in route]
            lines.append(_svg_edge(graph, edge, link, points))
            labels += _svg_labels(edge, points)
    w = max(root.w, _width(_fit(heading, 600, _TITLE_SIZE, bold=True), _TITLE_SIZE, bold=True), 120) + 2 * _MARGIN
    h = root.h + top + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{_xml(_summary(heading, graphs))}" '
        f'width="{_n(w)}" height="{_n(h)}" viewBox="0 0 {_n(w)} {_n(h)}" font-family="{_FONTS}">'
        f'<rect x="0.5" y="0.5" width="{_n(w - 1)}" height="{_n(h - 1)}" rx="12" fill="#ffffff" stroke="#e2e8f0"/>'
    )
    if heading:
        head += _svg_text(_fit(heading, 600, _TITLE_SIZE, bold=True), _MARGIN, _MARGIN + 14, _TITLE_SIZE, bold=True)
    lines = ['<g fill="none" stroke-width="1.5">', *lines, "</g>"]
    return "\n".join([head, *frames, *lines, *labels, *boxes, "</svg>"]) + "\n"


def _summary(heading: str, graphs: list[_Graph]) -> str:
    """The picture in a sentence, for those who hear it."""
    boxes = [box for graph in graphs for box in graph.boxes]
    counts = Counter(box.status for box in boxes)
    states = [f"{counts[state]} {state.value}" for state in NodeStatus if counts[state]]
    size = f"{len(boxes)} nodes, {sum(len(graph.edges) for graph in graphs)} edges"
    return f"{heading or 'Workflow'}: {size}" + (f"; {', '.join(states)}" if states else "")


def _xml(text: str) -> str:
    return html.escape(_clean(text), quote=True)


def _n(value: float) -> str:
    """A number with at most one decimal; a minus zero would make equal pictures differ."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


def _svg_text(
    text: str, x: float, y: float, size: float, *, fill: str = _INK, bold: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{fill}"{weight}{place}>{_xml(text)}</text>'


def _tooltip(box: _Box) -> str:
    state = box.status.value if box.status else ""
    parts = [box.label, box.place if box.place.rsplit("/", 1)[-1] != box.label else "", box.type, state, box.detail]
    text = " · ".join(part[:500] for part in [*parts, "disabled" if box.disabled else ""] if part)
    return f"<title>{_xml(text)}</title>"


def _svg_badge(box: _Box) -> str:
    if box.status is None:
        return ""
    x, y = box.x + box.w - 18, box.y
    return (
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="8.5" fill="{box.look.badge}" stroke="#ffffff" stroke-width="1.5"/>'
        + _svg_text(box.look.icon, x, y + 4, 11, fill="#ffffff", bold=True, anchor="middle")
    )


def _outline(box: _Box) -> str:
    dashed = ' stroke-dasharray="5 4"' if box.disabled else ""
    return f'fill="{box.look.fill}" stroke="{box.look.stroke}" stroke-width="1.25"{dashed}'


def _svg_box(box: _Box) -> str:
    x, y, w, h, middle = box.x, box.y, box.w, box.h, box.x + box.w / 2
    if box.type in _BRANCHES:
        cut = _CUT
        shape = (
            f'<path d="M{_n(x + cut)} {_n(y)}H{_n(x + w - cut)}L{_n(x + w)} {_n(y + h / 2)}L{_n(x + w - cut)} {_n(y + h)}'
            f'H{_n(x + cut)}L{_n(x)} {_n(y + h / 2)}Z" stroke-linejoin="round" {_outline(box)}/>'
        )
    else:
        radius = h / 2 if box.type in _TRIGGERS else 8
        size = f'x="{_n(x)}" y="{_n(y)}" width="{_n(w)}" height="{_n(h)}"'
        shape = f'<rect {size} rx="{_n(min(radius, 30))}" {_outline(box)}/>'
    room = w - _padding(box) + 8
    line = y + h / 2 - (_DETAIL_H / 2 if box.detail else 0)
    ink = _GREY if box.disabled else _INK
    name = _fit(box.label, room, _NAME_SIZE, bold=True)
    texts = [
        _svg_text(name, middle, line - 2.5, _NAME_SIZE, fill=ink, bold=True, anchor="middle"),
        _svg_text(_fit(box.type, room, _TYPE_SIZE), middle, line + 13, _TYPE_SIZE, fill=_GREY, anchor="middle"),
    ]
    if box.detail:
        detail = _fit(box.detail, room, _TYPE_SIZE)
        texts.append(_svg_text(detail, middle, line + 13 + _DETAIL_H, _TYPE_SIZE, fill=ink, anchor="middle"))
    return f'<g data-node="{_xml(box.place)}">{_tooltip(box)}{shape}{"".join(texts)}{_svg_badge(box)}</g>'


def _svg_frame(box: _Box) -> str:
    size = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.w)}" height="{_n(box.h)}"'
    room = box.w - 64
    name = _fit(box.label, room * 0.6, _NAME_SIZE, bold=True)
    after = _width(name, _NAME_SIZE, bold=True)
    rest = _fit(" · ".join(part for part in (box.type, box.detail) if part), room - after, _TYPE_SIZE)
    ink = _GREY if box.disabled else _INK
    return (
        f'<g data-node="{_xml(box.place)}">{_tooltip(box)}<rect {size} rx="12" {_outline(box)}/>'
        f'<text x="{_n(box.x + 16)}" y="{_n(box.y + 20)}" font-size="{_n(_NAME_SIZE)}" fill="{ink}">'
        f'<tspan font-weight="600">{_xml(name)}</tspan>'
        f'<tspan dx="8" font-size="{_n(_TYPE_SIZE)}" fill="{_GREY}">{_xml(rest)}</tspan></text>{_svg_badge(box)}</g>'
    )


def _svg_edge(graph: _Graph, edge: Edge, link: tuple[int, int], points: list[tuple[float, float]]) -> str:
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
    path.append(f"H{_n(tip - _ARROW + 1)}")
    colour = _ERROR_LINE if edge.port == "error" else _LINE
    head = f"M{_n(tip - 1)} {_n(at)}l-{_n(_ARROW)} -4.5v9z"
    name = f"{graph.prefix}{edge}" + ("" if edge.key is None else f"[{edge.key}]")
    return (
        f'<g data-edge="{_xml(name)}"><path d="{"".join(path)}" stroke="{colour}"/>'
        f'<path d="{head}" fill="{colour}"/></g>'
    )


def _inset(box: _Box, y: float) -> float:
    """How far within the box's rectangle its left and right outline runs at a height."""
    off = min(abs(y - (box.y + box.h / 2)), box.h / 2)
    if box.inner:
        return 0.0
    if box.type in _BRANCHES:
        return _CUT * off / (box.h / 2)
    if box.type in _TRIGGERS:
        radius = min(box.h / 2, 30.0)
        off -= box.h / 2 - radius
        return radius - (radius * radius - off * off) ** 0.5 if off > 0 else 0.0
    return 0.0


def _svg_labels(edge: Edge, points: list[tuple[float, float]]) -> list[str]:
    """The port beside the source and the input beside the target, on the level parts of the line."""
    pills = []
    for text, (x, y), forward in ((_exit(edge), points[0], True), (_entry(edge), points[-1], False)):
        if not text:
            continue
        shown = _fit(_clean(text), _LABEL_W, _LABEL_SIZE)
        w = _width(shown, _LABEL_SIZE) + 10
        left = x + _STUB if forward else x - _STUB - _ARROW - w
        colour = _ERROR_LINE if edge.port == "error" and forward else "#475569"
        pills.append(
            f"<g><title>{_xml(text[:500])}</title>"
            f'<rect x="{_n(left)}" y="{_n(y - 8)}" width="{_n(w)}" height="16" rx="8" fill="#ffffff" stroke="#e2e8f0"/>'
            + _svg_text(shown, left + w / 2, y + 3.7, _LABEL_SIZE, fill=colour, anchor="middle")
            + "</g>"
        )
    return pills
