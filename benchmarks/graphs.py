"""The graphs that every contestant is given, and the tally that shows that each node really ran."""

import itertools
import math
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

tick = itertools.count().__next__
"""Called once by every node function of every contestant; atomic, so threads may call it too."""

CHAIN = "chain"
FAN_OUT = "fan-out"
LAYERED = "layered"

SEED = 20_261_122
EDGES_PER_NODE = 3


@dataclass(frozen=True)
class Graph:
    """The input of a benchmark: plain lists, nothing that a contestant could have prepared.

    `ids` is in a topological order; `edges` are pairs (source, target), grouped by target.
    """

    shape: str
    ids: list[str]
    edges: list[tuple[str, str]]

    @property
    def suspends(self) -> bool:
        """Whether each node gives up control once (`sleep(0)`), as one that waits for a network does."""
        return self.shape == FAN_OUT


def chain(size: int) -> Graph:
    """`size` nodes, one after the other."""
    ids = [f"n{i}" for i in range(size)]
    return Graph(CHAIN, ids, list(itertools.pairwise(ids)))


def fan_out(size: int) -> Graph:
    """One node, then `size` nodes side by side, then one that takes what they gave."""
    middle = [f"n{i}" for i in range(size)]
    edges = [("first", node) for node in middle] + [(node, "last") for node in middle]
    return Graph(FAN_OUT, ["first", *middle, "last"], edges)


def layered(size: int) -> Graph:
    """About `sqrt(size)` layers of as many nodes; each takes from three drawn nodes of the layer before."""
    width = max(math.isqrt(size), EDGES_PER_NODE)
    draw = random.Random(SEED)
    ids = [f"n{i}" for i in range(size)]
    edges: list[tuple[str, str]] = []
    for i in range(width, size):
        start = (i // width - 1) * width
        edges.extend((ids[j], ids[i]) for j in sorted(draw.sample(range(start, start + width), EDGES_PER_NODE)))
    return Graph(LAYERED, ids, edges)


SHAPES = {CHAIN: chain, FAN_OUT: fan_out, LAYERED: layered}


def predecessors(graph: Graph) -> dict[str, list[str]]:
    """Each node's sources, in the order of the edges: the first step of most contestants' plans."""
    sources: dict[str, list[str]] = {node: [] for node in graph.ids}
    for source, target in graph.edges:
        sources[target].append(source)
    return sources


class Trial(ABC):
    """One contestant with one graph: `open`, then `plan` and `run` under the clock, then `results`, `close`.

    The class is made with the input it would have in life (ours: the document) and prepares nothing else before
    `plan`. An instance is planned and run once.
    """

    name: ClassVar[str]
    how: ClassVar[str]
    """How it is used: one line below the tables."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The distributions whose versions are printed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @classmethod
    def cannot(cls, shape: str) -> str | None:
        """Why it cannot do the shape at all, or `None`."""
        return None

    async def open(self) -> None:  # noqa: B027 - most have nothing to set up
        """Set up what an application sets up once in its life; not under the clock."""

    async def close(self) -> None:  # noqa: B027 - as above
        """Undo `open`."""

    @abstractmethod
    async def plan(self) -> None:
        """From the plain lists to something that can be run."""

    @abstractmethod
    async def run(self) -> None:
        """Run every node once and keep what a caller would look at."""

    @abstractmethod
    def results(self) -> int:
        """How many nodes the kept result speaks for; raises if the result itself says that something failed."""
