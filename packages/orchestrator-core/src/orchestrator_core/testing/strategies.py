"""Hypothesis strategies: random workflows, and random cases of the law of execution.

Two strategies, both of plain dicts that could be written to JSON:

* `workflows()`: documents that stand alone. Their nodes are of type `script`, and a node's script (what each of its
  attempts does) stands in its own `config`, under `script`. For property tests of what runs workflows.
* `cases()`: a document together with a payload, pins, a script by path and what happens outside (signals, cancels), in
  the format of the law's examples, without what to expect. For comparing two implementations of the law.

A script is a list of entries, one for each attempt, of which the last repeats: `{"emit": {port: value}}`,
`{"fail": {"code", "message", "retryable", "data"}}`, `{"wait": {"for": seconds}}` or `{"wait": {"signal": name,
"expires": seconds}}`, each with `after`: the seconds the attempt takes first. The entry after a wait is what the attempt
does when woken; without a script a node emits its input at once. All times are small whole numbers, so that ties happen.

Every document is valid: acyclic, without identical edges, a join of *k* has at least *k* edges, triggers have no incoming
edges, `retry` and `timeout` stand on leaves only, loops have `max_iterations`, and expressions read only what is
upstream. Expressions are plain paths, literals, `===`, `>` and `!`; an error in one is a failure of its node, so without
`failures` none is drawn that could be one.

Keywords switch features off, for instance to stay where any order of completions gives the same outcome (rule 12 of the
law), which `reorder` then tests: `cases(**ORDER_INDEPENDENT)`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import attrs
from hypothesis import strategies as st

__all__ = ["ORDER_INDEPENDENT", "cases", "reorder", "workflows"]

T = TypeVar("T")
Document = dict[str, Any]
Entry = dict[str, Any]

ORDER_INDEPENDENT: Mapping[str, bool] = MappingProxyType(
    {"first": False, "signals": False, "timeouts": False, "cancels": False, "failing_items": False, "stop": False}
)
"""The keywords of the fragment in which the order of completions does not matter."""

IDS = "abcdefghijkl"
PORTS = ("main", "left", "right")
# `{{ … }}` in data stays data, and empty is not absent: both are among the values.
VALUES: tuple[Any, ...] = (1, 0, 2, None, True, False, "", "x", "{{ payload.n }}", [], [1, 2], {}, {"n": 1})
LISTS: tuple[Any, ...] = ([1, 2], [], [0], [None, 1, "x"])
MAX_COPIES = 4  # of one inner node, that get a script of their own


@attrs.frozen(kw_only=True)
class _Features:
    """What may be drawn; the words are the keywords of `cases`."""

    max_nodes: int = 12
    nesting: int = 2
    failures: bool = True
    stop: bool = True
    drain: bool = True
    first: bool = True
    when: bool = True
    disabled: bool = True
    for_each: bool = True
    failing_items: bool = True
    error_ports: bool = True
    on_error: bool = True
    retries: bool = True
    timeouts: bool = True
    loops: bool = True
    groups: bool = True
    waits: bool = True
    signals: bool = True
    cancels: bool = True
    pins: bool = True
    triggers: bool = True
    slots: bool = True
    outputs: bool = True
    keys: bool = True
    inputs: bool = True
    alone: bool = False  # a document that stands alone: no payload, no happenings, scripts inside


@attrs.define
class _Graph:
    """A graph while it is drawn: how deep it stands, under which concrete path prefixes, and what is there so far."""

    depth: int = 0
    prefixes: Sequence[str] = ("",)
    many: bool = False  # inside a `for_each`: there are `item` and `index`
    nodes: dict[str, Document] = attrs.field(factory=dict)
    edges: list[Document] = attrs.field(factory=list)
    upstream: dict[str, list[str]] = attrs.field(factory=dict)


class _Builder:
    """Draws one case.

    Examples shrink to few plain nodes: small and absent come first in every choice; all that is drawn for a node stands
    together, as one element of a list; and what is upstream is named by its distance, so that a node can be left out.
    """

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], features: _Features) -> None:
        self.draw = draw
        self.features = features
        self.script: dict[str, list[Entry]] = {}
        self.paths: list[str] = []  # of nodes and items, as far as they can be foreseen
        self.group_paths: list[str] = []
        self.signals: list[tuple[str, str]] = []  # (path, name) of waits
        self.endless = False  # a wait without expiry was drawn
        self.rows: list[Any] = []

    # --- choices

    def often(self, feature: bool) -> bool:
        return feature and bool(self.draw(st.booleans()))

    def seldom(self, feature: bool, *, one_in: int = 6) -> bool:
        # An end of the range would come up far more often: Hypothesis tries ends on purpose.
        return feature and bool(self.draw(st.integers(0, one_in - 1)) == one_in // 2)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, a copy; the first is the simplest."""
        picked: T = copy.deepcopy(self.draw(st.sampled_from(options)))
        return picked

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    # --- graphs

    def graph(self, graph: _Graph) -> Document:
        """A document's nodes, edges and output; the scripts of its leaves go to `self.script` or into their configs."""
        most = self.features.max_nodes if graph.depth == 0 else 3
        least = min(most, self.pick((1, 4, 8)))
        self.draw(st.lists(st.builds(self.node, st.just(graph)), min_size=least, max_size=most))
        nodes, edges = list(graph.nodes.values()), graph.edges
        if self.seldom(len(nodes) > 1):
            nodes = list(self.draw(st.permutations(nodes)))
        if self.seldom(len(edges) > 1):
            edges = list(self.draw(st.permutations(edges)))
        document: Document = {"nodes": nodes, "edges": edges}
        if self.seldom(self.features.outputs):
            document["output"] = self.output(list(graph.nodes))
        return document

    def node(self, graph: _Graph) -> None:
        """One more node, with its edges from those before it, its settings, and its script or body."""
        name = IDS[len(graph.nodes)]
        before = list(reversed(graph.nodes))
        node: Document = {"id": name, "type": self.type_of(graph)}
        edges = self.edges_into(graph, node, before)
        near = {edge["source"] for edge in edges}
        upstream = [i for i in graph.nodes if i in near or any(i in graph.upstream[source] for source in near)]
        graph.nodes[name] = node
        graph.edges += edges
        graph.upstream[name] = upstream
        self.settings_of(node, graph, edges)
        here = [prefix + name for prefix in graph.prefixes]
        self.paths += here
        if "for_each" in node:
            self.paths += [f"{path}/{index}" for path in here for index in (0, 1)]
        if node["type"] == "script":
            self.leaf(node, graph)
        else:
            self.body(node, graph)

    def type_of(self, graph: _Graph) -> str:
        kinds = ["workflow"] * self.features.groups + ["loop"] * self.features.loops
        deeper = kinds and graph.depth < self.features.nesting
        return self.pick(kinds) if deeper and self.seldom(True) else "script"

    def edges_into(self, graph: _Graph, node: Document, before: Sequence[str]) -> list[Document]:
        edges: list[Document] = []
        taken = set()
        distances = st.lists(st.integers(0, len(IDS) - 1), min_size=1, max_size=3)
        for distance in self.draw(distances) if before and self.number(0, 4) else []:
            source = graph.nodes[str(before[distance % len(before)])]
            edge: Document = {"source": source["id"], "target": node["id"]}
            ports = (*(PORTS if source["type"] == "script" else PORTS[:1]), *self.error_port())
            if len(ports) > 1 and (self.seldom(True) or self.seldom(True)):
                edge["port"] = self.pick(ports)
            if node["type"] == "script" and self.seldom(self.features.inputs):
                edge["input"] = "side"
            identity = (source["id"], edge.get("port", "main"), edge.get("input", "main"))
            if identity in taken:
                continue
            taken.add(identity)
            if self.seldom(self.features.keys):
                edge["key"] = f"k{len(edges)}"
            edges.append(edge)
            if source["type"] == "script" and "port" in edge and self.often(True):
                self.feed(source, graph, edge["port"])
        return edges

    def error_port(self) -> tuple[str, ...]:
        return ("error",) if self.features.error_ports else ()

    # --- nodes

    def settings_of(self, node: Document, graph: _Graph, edges: Sequence[Document]) -> None:
        """Everything of a node but its script or body: join, when, for_each, on_error, disabled, retry, timeout."""
        features = self.features
        upstream = graph.upstream[node["id"]]
        if edges:
            self.join(node, len(edges))
        if self.seldom(features.when):
            node["when"] = self.condition(upstream, graph)
        if self.seldom(features.for_each):
            self.many(node, graph)
        if self.seldom(features.on_error):
            node["on_error"] = "continue"
        if self.seldom(features.disabled, one_in=16):
            node["disabled"] = True
        if node["type"] == "script":
            if self.seldom(features.retries):
                node["retry"] = self.retry()
            if self.seldom(features.timeouts, one_in=12):
                node["timeout"] = self.number(2, 5)

    def join(self, node: Document, edges: int) -> None:
        kinds: list[Any] = ["settled", "all"]
        if self.features.first:
            kinds += ["first", *range(1, edges + 1)]
        join = self.pick(kinds)
        if join != "settled":
            node["join"] = join
        if join not in ("settled", "all") and self.often(True):
            node["cancel_rest"] = True

    def retry(self) -> Document:
        retry: Document = {"attempts": self.pick((2, 3, 1))}
        if self.often(True):
            retry |= {"delay": self.number(0, 3), "factor": self.number(1, 3)}
        if self.often(True):
            retry["max_delay"] = self.number(1, 4)
        return retry

    def many(self, node: Document, graph: _Graph) -> None:
        """A `for_each` over the payload's rows, over what an upstream leaf gives, or over what may be no list at all."""
        features = self.features
        upstream = [graph.nodes[name] for name in graph.upstream[node["id"]]]
        givers = [n for n in upstream if n["type"] == "script" and "for_each" not in n]
        ways = ["payload"] * (0 if features.alone else 4)
        if features.failures:
            ways += ["node", "node"] * bool(givers) + ["input"]
        if not ways:
            return
        way = self.pick(ways)
        if way == "payload":
            node["for_each"] = "{{ payload.rows }}"
        elif way == "node":
            giver = graph.nodes[self.pick([n["id"] for n in givers])]
            self.rewrite(giver, graph, [self.after({"emit": {"main": self.pick(LISTS)}})])
            node["for_each"] = f"{{{{ nodes.{giver['id']}.output }}}}"
        else:
            node["for_each"] = "{{ input }}"
        if self.often(True):
            node["max_parallel"] = self.number(1, 3)
        if not features.failing_items:
            node["on_error"] = "continue"

    def body(self, node: Document, graph: _Graph) -> None:
        """A group's body, drawn like any graph, under the prefixes of the iterations and items that are likely."""
        prefixes = [f"{prefix}{node['id']}" for prefix in graph.prefixes]
        self.group_paths += prefixes
        if "for_each" in node:
            prefixes = [f"{prefix}/{index}" for prefix in prefixes for index in range(max(1, len(self.rows)))]
            self.group_paths += prefixes
        config: Document = {}
        if node["type"] == "loop":
            config["max_iterations"] = self.number(1, 3)
            prefixes = [f"{prefix}/{index}" for prefix in prefixes for index in range(config["max_iterations"])]
            if self.often(True):
                config["delay"] = self.number(0, 2)
        prefixes = [f"{prefix}/" for prefix in prefixes][:MAX_COPIES]
        inside = _Graph(graph.depth + 1, prefixes, graph.many or "for_each" in node)
        config["body"] = self.graph(inside)
        # Without `until` a loop ends well; with it, it may be exhausted, which is a failure.
        if node["type"] == "loop" and self.often(self.features.failures):
            config["until"] = self.condition(list(inside.nodes), inside)
        if self.seldom(self.features.timeouts):
            config["body"]["settings"] = {"timeout": self.number(1, 8)}
        node["config"] = config

    # --- scripts

    def leaf_paths(self, node: Document, graph: _Graph) -> list[str]:
        paths = [prefix + node["id"] for prefix in graph.prefixes]
        if "for_each" in node:
            paths = [f"{path}/{index}" for path in paths for index in range(max(1, len(self.rows)))]
        return paths[:MAX_COPIES]

    def leaf(self, node: Document, graph: _Graph) -> None:
        """The scripts of a leaf: one for each concrete path, or one inside its config for all of them."""
        paths = self.leaf_paths(node, graph)
        if self.features.alone:
            self.rewrite(node, graph, self.entries(paths, node))
            return
        for path in paths:
            if entries := self.entries([path], node):
                self.script[path] = entries

    def rewrite(self, node: Document, graph: _Graph, entries: list[Entry]) -> None:
        """The same script for all of a leaf's paths, instead of what was drawn; an empty one is left out."""
        for path in self.leaf_paths(node, graph):
            self.script.pop(path, None)
            if entries and not self.features.alone:
                self.script[path] = copy.deepcopy(entries)
        if self.features.alone:
            node.pop("config", None)
            if entries:
                node["config"] = {"script": entries}

    def feed(self, node: Document, graph: _Graph, port: str) -> None:
        """Sees to it that something comes out of a leaf's port: there is an edge from it now."""
        if port == "error":
            if self.features.failures:
                self.rewrite(node, graph, [self.fail()])
            return
        value = self.pick(VALUES)
        for path in self.leaf_paths(node, graph):
            here = node.setdefault("config", {}) if self.features.alone else self.script
            key = "script" if self.features.alone else path
            for entry in here.setdefault(key, [self.after({"emit": {"main": value}})]):
                if "emit" in entry:
                    entry["emit"][port] = copy.deepcopy(value)

    def entries(self, paths: Sequence[str], node: Document) -> list[Entry]:
        """What the attempts of a leaf do; an empty list means: emits its input at once."""
        features = self.features
        entries: list[Entry] = []
        handled = not {"retry", "on_error"}.isdisjoint(node)
        if not handled and self.number(0, 5) == 0:
            return entries
        if self.seldom(features.waits or features.signals):
            entries.append(self.wait(paths))
        if self.seldom(features.failures, one_in=12) or (handled and self.often(features.failures)):
            # More often where there is an answer to it.
            entries += [self.fail(retryable="retry" in node) for _ in range(self.number(1, 2))]
        if self.seldom(features.waits):
            entries.append(self.wait(paths))
        if not entries or "wait" not in entries[-1] or self.often(True):
            entries.append(self.fail() if self.seldom(features.failures, one_in=12) else self.emit())
        return entries

    def after(self, entry: Entry) -> Entry:
        seconds = self.number(0, 5)
        return {**entry, "after": seconds} if seconds else entry

    def emit(self) -> Entry:
        ports = ["main"]
        if self.seldom(True) or self.seldom(True):
            chosen = [port for port in (*PORTS, *self.error_port()) if self.often(True)]
            ports = chosen  # it may be none at all
        return self.after({"emit": {port: self.pick(VALUES) for port in ports}})

    def fail(self, *, retryable: bool = False) -> Entry:
        error: Document = {"code": self.pick(("boom", "busy")), "message": "drawn"}
        if retryable != self.seldom(True):
            error["retryable"] = True
        if self.seldom(True):
            error["data"] = self.pick(VALUES)
        return self.after({"fail": error})

    def wait(self, paths: Sequence[str]) -> Entry:
        features = self.features
        if not features.waits or self.often(features.signals):
            return self.wait_for_signal(paths)
        return self.after({"wait": {"for": self.number(0, 6)}})

    def wait_for_signal(self, paths: Sequence[str]) -> Entry:
        name = self.pick(("go", "ok"))
        self.signals += [(path, name) for path in paths]
        entry = self.after({"wait": {"signal": name}})
        endless = self.seldom(self.features.timeouts and not self.features.alone)
        self.endless |= endless
        if not endless:
            entry["wait"]["expires"] = self.number(1, 8)
            if not self.features.failures or self.often(True):
                entry["expired"] = self.after({"emit": {"main": "expired"}})
        return entry

    # --- expressions

    def condition(self, upstream: Sequence[str], graph: _Graph) -> str:
        """A `when` or `until` over what its node can see."""
        risky = self.seldom(self.features.failures, one_in=12)  # a property of what may be undefined
        paths = ["input", "payload"] if self.features.alone else ["payload.n", "input", "payload"]
        paths += ["inputs.main", *(["index", "item"] if graph.many else [])]
        for name in upstream:
            paths += [f"nodes.{name}.output", f"nodes.{name}.outputs.left", f"nodes.{name}.error"]
            paths += [f"nodes.{name}.output.n"] if risky else []
        if risky:
            paths += ["input.n", "inputs.side.n"]
        ways = ["true", "not", "truth", "equal", *(["status"] if upstream else []), "true", "true"]
        ways += ["more"] if graph.many or not self.features.alone else []
        way = self.pick(ways)
        if way == "true":
            return "{{ true }}"
        if way == "status":
            return f'{{{{ nodes.{self.pick(upstream)}.status === "{self.pick(("succeeded", "skipped", "failed"))}" }}}}'
        if way == "more":  # only where a number is sure: what JavaScript makes of other comparisons is no law of ours
            numbers = ["index"] * graph.many + ["payload.n"] * (not self.features.alone)
            return f"{{{{ {self.pick(numbers)} > {self.number(0, 2)} }}}}"
        path = self.pick(paths)
        if way == "equal":
            return f"{{{{ {path} === {self.pick(('1', '0', 'null', 'true', chr(34) + 'x' + chr(34)))} }}}}"
        return f"{{{{ {path} }}}}" if way == "truth" else f"{{{{ !{path} }}}}"

    def output(self, ids: Sequence[str]) -> str:
        fields = ["output", "outputs", "outputs.left", "status", "error"]
        if self.features.failures:
            fields.append("output.n")
        return f"{{{{ nodes.{self.pick(ids)}.{self.pick(fields)} }}}}"

    # --- the whole

    def triggers(self, document: Document) -> str | None:
        """Makes some roots triggers; the start, where there are several of them."""
        targets = {edge["target"] for edge in document["edges"]}
        roots = [node for node in document["nodes"] if node["id"] not in targets and node["type"] == "script"]
        if not roots or not self.seldom(self.features.triggers):
            return None
        count = 1 if self.features.alone else self.number(1, len(roots))
        for node in roots[:count]:
            node["type"] = "script-trigger"
            node.pop("for_each", None)
            node.pop("max_parallel", None)
            self.paths = [path for path in self.paths if not path.startswith(f"{node['id']}/")]
        return str(self.pick([node["id"] for node in roots[:count]])) if count > 1 else None

    def settings(self) -> Document:
        features = self.features
        settings: Document = {}
        if self.often(features.slots):
            settings["max_parallel"] = self.number(1, 4)
        if not features.stop or self.often(features.drain):
            settings["failure"] = "drain"
        if self.endless or self.seldom(features.timeouts, one_in=12):
            settings["timeout"] = 40 if self.endless else self.number(1, 20)
        return settings

    def pinned(self) -> Document:
        pins: Document = {}
        for _ in range(self.number(1, 2)):
            ports = ("main", "left", *(("error",) if self.features.error_ports else ()))
            chosen = [port for port in ports if self.often(True)]
            pins[self.pick(self.paths)] = {port: self.pick(VALUES) for port in chosen}
        return pins

    def happens(self) -> list[Document]:
        happens: list[Document] = []
        if self.signals:
            times = st.tuples(st.integers(0, 12), st.integers(0, 5), st.sampled_from(self.signals))
            for at, number, (path, name) in self.draw(st.lists(times, max_size=6)):
                signal = {"path": path, "name": name, "id": f"s{number}", "payload": number}
                happens.append({"at": at, "signal": signal})
        if self.seldom(self.features.cancels):
            cancel: Document = {"at": self.number(0, 10), "cancel": True}
            if self.group_paths and self.often(True):
                cancel["path"] = self.pick(self.group_paths)
            happens.append(cancel)
        elif self.group_paths and self.seldom(self.features.cancels):
            happens.append({"at": self.number(0, 6), "cancel": True, "path": self.pick(self.group_paths)})
        return happens

    def case(self) -> Document:
        self.rows = self.pick(LISTS)
        document = self.graph(_Graph())
        start = self.triggers(document)
        if settings := self.settings():
            document["settings"] = settings
        case: Document = {"workflow": document, "payload": {"n": self.number(0, 3), "rows": self.rows}}
        if start is not None:
            case["start"] = start
        if self.seldom(self.features.pins):
            case["pins"] = self.pinned()
        case["script"] = self.script
        if happens := self.happens():
            case["happens"] = happens
        return case

    def workflow(self) -> Document:
        self.rows = [1, 2]
        document = self.graph(_Graph())
        self.triggers(document)
        if settings := self.settings():
            document["settings"] = settings
        return {"schema": 1, "id": "drawn", **document}


@st.composite
def _cases(draw: st.DrawFn, features: _Features) -> Document:
    return _Builder(draw, features).case()


@st.composite
def _workflows(draw: st.DrawFn, features: _Features) -> Document:
    return _Builder(draw, features).workflow()


def cases(*, max_nodes: int = 12, nesting: int = 2, **features: bool) -> st.SearchStrategy[Document]:
    """Random valid cases of the law: `{workflow, payload, script}` and, where drawn, `start`, `pins`, `happens`.

    `max_nodes` (1 to 12) bounds the outermost graph, `nesting` how deep groups stand in groups. The other keywords are
    switches, all on: `failures` (and evaluation errors), `stop` and `drain` (the failure modes; without `stop` every
    case drains), `first` (*k* and `cancel_rest` too), `when`, `disabled`, `for_each`, `failing_items` (off: every
    `for_each` continues on error), `error_ports`, `on_error`, `retries`, `timeouts`, `loops`, `groups`, `waits` (for a
    time), `signals` (waits for them, with expiry), `cancels`, `pins`, `triggers`, `slots` (a small `max_parallel`),
    `outputs`, `keys`, `inputs` (named ones).

    Raises TypeError for a keyword that is none of these, ValueError for a size out of range.
    """
    return _cases(_features(max_nodes, nesting, features))


def workflows(*, max_nodes: int = 12, nesting: int = 2, **features: bool) -> st.SearchStrategy[Document]:
    """Random valid workflow documents that need nothing beside them: scripts stand in `config.script`.

    They have at most one trigger and read no property of the payload, so any payload will do; a wait for a signal always
    expires. The keywords are those of `cases`; `pins` and `cancels` mean nothing here.
    """
    return _workflows(_features(max_nodes, nesting, {**features, "alone": True}))


def _features(max_nodes: int, nesting: int, switches: Mapping[str, bool]) -> _Features:
    if not 1 <= max_nodes <= len(IDS):
        raise ValueError(f"max_nodes must be from 1 to {len(IDS)}, not {max_nodes}")
    if nesting < 0:
        raise ValueError(f"nesting must not be negative: {nesting}")
    return _Features(max_nodes=max_nodes, nesting=nesting, **switches)


def reorder(case: Document, seed: int) -> Document:
    """The same case, or workflow document, with other completion times: each attempt takes other seconds, each wait too.

    What attempts do stays as it is. Equal seeds give equal times.
    """
    changed = copy.deepcopy(case)
    chance = random.Random(seed)  # noqa: S311 - times of a test, not secrets
    for entry in _entries(changed):
        entry["after"] = chance.randint(0, 9)
        if "for" in entry.get("wait", {}):
            entry["wait"]["for"] = chance.randint(0, 9)
    return changed


def _entries(case: Document) -> Iterator[Entry]:
    """The entries of every script of a case or of a document, those of an expiry included."""
    for script in case.get("script", {}).values():
        for entry in script:
            yield entry
            if "expired" in entry:
                yield entry["expired"]
    for node in case.get("workflow", case).get("nodes", []):
        config = node.get("config", {})
        yield from _entries(
            {"script": {"": config.get("script", [])}, "nodes": config.get("body", {}).get("nodes", [])}
        )
