"""What can be judged of a workflow once the node types are known: types, ports, configs, references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from orchestrator_core import document as document_module
from orchestrator_core.configs import prepare_config, structure_config
from orchestrator_core.document import Workflow
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.expressions import (
    ROOTS,
    ExpressionError,
    Template,
    compile_template,
    condition_fault,
    field_fault,
    is_expression,
    references,
)
from orchestrator_core.nodes import LanguageError, NodeType
from orchestrator_core.plugins import Registry
from orchestrator_core.spelling import nearest
from orchestrator_core.types import Json, Node, Settings

__all__ = ["migrate", "validate", "validate_document"]

_MAX_NESTING = 16


def validate(workflow: Workflow, registry: Registry, *, stored: Mapping[str, Workflow] | None = None) -> list[Fault]:
    """Everything that is wrong with a workflow, in document order. Runs nothing.

    Args:
        workflow: What to judge.
        registry: The node types and languages at hand.
        stored: The workflows that ``workflow`` nodes may name; ``None``: not known, their names are not judged.
    """
    if not workflow.checked:
        # Made in Python: its types are judged as if it were read from a document.
        return validate_document(workflow.to_dict(), registry, stored=stored)
    return list(_Check(registry, stored).graph(workflow, "$", depth=0, items=False))


def validate_document(
    document: Any, registry: Registry, *, stored: Mapping[str, Workflow] | None = None
) -> list[Fault]:
    """As :func:`validate`, of a document that may not even be a workflow: all that is wrong with it, at once.

    What has the wrong type is left out when the rest is judged; what follows from that is not reported.
    """
    workflow, faults = document_module.read(document)
    if workflow is None:
        return faults
    return _and_more(faults, _Check(registry, stored).graph(workflow, "$", depth=0, items=False))


def _and_more(faults: list[Fault], found: Iterable[Fault]) -> list[Fault]:
    """The faults, and those found in the rest but for what follows from them."""
    known = {fault.place for fault in faults}
    return [*faults, *(fault for fault in found if not known.intersection(_around(fault.place)))]


def _around(place: str) -> Iterator[str]:
    """A place and every place that it is in."""
    while place:
        yield place
        place = place[: max(place.rfind("."), place.rfind("["), 0)]


@attrs.frozen
class _Check:
    registry: Registry
    stored: Mapping[str, Workflow] | None

    def graph(self, workflow: Workflow, place: str, *, depth: int, items: bool) -> Iterator[Fault]:
        """Args: items: it is a body inside a ``for_each``, where ``item`` and ``index`` exist."""
        if depth > _MAX_NESTING:
            yield Fault(f"groups are nested deeper than {_MAX_NESTING}", place)
            return
        faults = list(document_module.check(workflow, place))
        yield from faults
        places = {fault.place for fault in faults}
        if place in places:  # too large to be judged further
            return
        found = self._types(workflow, place, depth=depth, items=items, sound=not faults)
        yield from (fault for fault in found if fault.place not in places)

    def _types(self, workflow: Workflow, place: str, *, depth: int, items: bool, sound: bool) -> Iterator[Fault]:
        """What is wrong with the nodes and edges of a graph, now that types are known. Args: sound: the graph itself is."""
        if depth and workflow.settings != attrs.evolve(Settings(), timeout=workflow.settings.timeout):
            yield Fault("a body has only `timeout`: it shares the rest with what it stands in", f"{place}.settings")
        upstream = _Upstream(workflow, known=sound)
        types: dict[str, NodeType] = {}
        bare = {
            name for name, kind in self.registry.node_types.items() if kind.group is None and _no_settings_needed(kind)
        }
        for index, node in enumerate(workflow.nodes):
            kind = self.registry.node_types.get(node.type)
            if kind is not None and not node.config and node.when is None and node.for_each is None:
                types[node.id] = kind
                if node.type in bare and node.type_version is None and node.type != "respond":
                    continue  # nothing on it can be wrong
            at = f"{place}.nodes[{index}]"
            if kind is None:
                denied = self.registry.denied.get(node.type)
                missing = f"there is no node type {node.type!r}: {self.registry.hint(node.type)}"
                yield Fault(f"{node.type} needs {denied}, which is denied here" if denied else missing, f"{at}.type")
                continue
            types[node.id] = kind
            yield from self._node(node, kind, at, upstream, depth=depth, items=items)
        if len(upstream.index) < len(workflow.nodes):  # where an id stands twice, its type is not known
            for name, number in Counter(node.id for node in workflow.nodes).items():
                if number > 1:
                    types.pop(name, None)
        yield from _edges(workflow, types, place)
        yield from self._template(workflow.output, f"{place}.output", upstream, None, items=items)

    def _node(
        self, node: Node, kind: NodeType, at: str, upstream: _Upstream, *, depth: int, items: bool
    ) -> Iterator[Fault]:
        if node.type_version is not None and node.type_version > kind.version:
            yield Fault(
                f"{node.type} is installed in version {kind.version}, not {node.type_version}: upgrade the plugin "
                f"{kind.plugin!r}",
                f"{at}.type_version",
            )
            return
        if node.type_version is not None and node.type_version < kind.version and kind.migrate is None:
            yield Fault(
                f"{node.type} {node.type_version} is no longer known, and has no migration", f"{at}.type_version"
            )
            return
        if node.when is not None:
            yield from _condition(node.when, f"{at}.when")
            yield from self._template(node.when, f"{at}.when", upstream, node.id, items=items)
        if node.for_each is not None:
            if isinstance(node.for_each, str) and not is_expression(node.for_each):
                yield Fault("is a text, which is no list: write {{ … }} around the whole expression", f"{at}.for_each")
            elif not isinstance(node.for_each, str | list):
                yield Fault("must be a list, or {{ … }} that gives one", f"{at}.for_each")
            yield from self._template(node.for_each, f"{at}.for_each", upstream, node.id, items=items)
        if kind.group is not None:
            for name in ("retry", "timeout"):
                if getattr(node, name) is not None:
                    yield Fault("a group is not tried again or timed: put it on the inner nodes", f"{at}.{name}")
        if depth and node.type == "respond":
            yield Fault("a respond node cannot stand inside a group: answer from the outer graph", f"{at}.type")
        if not node.config and _no_settings_needed(kind):
            return
        yield from self._config(migrate(node, kind), kind, at, upstream, depth=depth, items=items)

    def _config(
        self, node: Node, kind: NodeType, at: str, upstream: _Upstream, *, depth: int, items: bool
    ) -> Iterator[Fault]:
        place = f"{at}.config"
        if kind.group is not None:
            yield from self._group(node, kind, place, depth=depth, items=items)
            return
        try:
            prepared = prepare_config(kind, node.config, place)
        except DocumentError as error:
            yield from _and_more(list(error.faults), self._code(node, kind, place))
            return
        inside = items or node.for_each is not None
        yield from self._references(prepared.template, upstream, node.id, items=inside)
        for template in prepared.each.values():
            yield from self._references(template, upstream, node.id, items=True)
        yield from self._code(node, kind, place)

    def _code(self, node: Node, kind: NodeType, place: str) -> Iterator[Fault]:
        """User code (a literal field ``source``) is parsed where its language is installed."""
        source = node.config.get("source")
        if "code" not in kind.capabilities or not isinstance(source, str):
            return
        name = node.config.get("language", "javascript")
        language = self.registry.languages.get(name) if isinstance(name, str) else None
        if language is None:
            known = ", ".join(sorted(self.registry.languages)) or "none"
            yield Fault(f"the language {name!r} is not installed (there are {known})", f"{place}.language")
            return
        try:
            language.check(source, expression=False)
        except LanguageError as error:
            line = f" (line {error.line} of the source)" if error.line else ""
            field = "language" if error.code == "not_installed" else "source"
            yield Fault(f"{error.message}{line}", f"{place}.{field}")

    def _group(self, node: Node, kind: NodeType, place: str, *, depth: int, items: bool) -> Iterator[Fault]:
        # What steers a group is fixed when the execution starts: nothing but `until` is a template.
        shape = {key: {} if key == "body" else value for key, value in node.config.items()}
        faults: list[Fault] = []
        try:
            structure_config(shape, kind.config, place)
        except DocumentError as error:
            faults = list(error.faults)
        if any(fault.place == place for fault in faults):  # how its settings go together: all of them are in doubt
            yield from faults
        else:
            yield from _and_more(faults, self._held(node, place, depth=depth, items=items))

    def _held(self, node: Node, place: str, *, depth: int, items: bool) -> Iterator[Fault]:
        """What is wrong with the graph that a group holds, or names."""
        name = node.config.get("workflow")
        if self.stored is not None and isinstance(name, str):
            if name not in self.stored:
                known = ", ".join(sorted(self.stored)) or "none"
                yield Fault(f"there is no workflow {name!r} (there are {known})", f"{place}.workflow")
            elif cycle := self._circle(name):
                yield Fault(f"workflows call each other in a circle: {' -> '.join(cycle)}", f"{place}.workflow")
        if "body" not in node.config:
            return
        body, faults = document_module.read_body(node, f"{place}.body")
        if body is None:
            yield from faults
            return
        inside = items or node.for_each is not None
        yield from _and_more(faults, self.graph(body, f"{place}.body", depth=depth + 1, items=inside))
        until = node.config.get("until")
        if until is not None:
            yield from _condition(until, f"{place}.until")
            yield from self._template(until, f"{place}.until", _Upstream(body), None, items=inside)

    def _circle(self, name: str) -> list[str] | None:
        """A circle among the stored workflows that can be reached from one of them."""
        stored = self.stored or {}
        path: list[str] = []
        done: set[str] = set()

        def visit(called: str) -> list[str] | None:
            if called in path:
                return [*path[path.index(called) :], called]
            workflow = stored.get(called)
            if called in done or workflow is None:
                return None
            path.append(called)
            for other in _called(workflow.nodes):
                if found := visit(other):
                    return found
            done.add(path.pop())
            return None

        return visit(name)

    def _template(
        self, value: Json, place: str, upstream: _Upstream, node: str | None, *, items: bool
    ) -> Iterator[Fault]:
        if value is None:
            return
        try:
            template = compile_template(value, place=place)
        except ExpressionError as error:
            at, _, message = str(error).partition(": ")
            yield Fault(message, at)
            return
        for code in template.codes:
            if "secrets" in code.roots:
                yield Fault("secrets may only stand in fields that are declared secret", code.place)
        yield from self._references(template, upstream, node, items=items)

    def _references(self, template: Template, upstream: _Upstream, node: str | None, *, items: bool) -> Iterator[Fault]:
        for code, root, name in references(template):
            if root in {"item", "index"} and not items and root not in code.own:
                yield Fault(f"`{root}` exists only where there is a for_each", code.place)
            elif root == "nodes" and name is not None:
                if name not in upstream.index:
                    near = document_module.near(name, upstream.index)
                    yield Fault(f"there is no node {name!r} to refer to{near}", code.place)
                elif node is not None and not upstream.reaches(name, node):
                    yield Fault(
                        f"node {name!r} is not upstream of {node!r}: what it gives cannot be known here", code.place
                    )
        for code in template.codes:
            if fault := field_fault(code):
                yield Fault(fault, code.place)
            if code.path is not None or code.literal is not None:
                continue
            language = self.registry.languages.get("javascript")
            if language is None:
                yield Fault(
                    "only plain paths can be evaluated here: for JavaScript install pluggable-orchestrator-nodes-std",
                    code.place,
                )
                continue
            unknown = [name for name in code.unknown if name not in self.registry.functions]
            if unknown:
                near = nearest(unknown[0], ROOTS)
                hint = f"did you mean {near!r}?" if near else f"values are found under {', '.join(ROOTS)}"
                yield Fault(f"{{{{ {code.source} }}}}: {unknown[0]!r} is not known: {hint}", code.place)
                continue
            try:
                language.check(code.source, expression=True)
            except LanguageError as error:
                yield Fault(f"{{{{ {code.source} }}}}: {error.message}", code.place)


def _condition(value: Json, place: str) -> Iterator[Fault]:
    if fault := condition_fault(value):
        yield Fault(fault, place)


def _no_settings_needed(kind: NodeType) -> bool:
    return not any(
        field.default is attrs.NOTHING and field.init for field in attrs.fields(kind.config)
    ) and not hasattr(kind.config, "__attrs_post_init__")


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    """The stored workflows that nodes name, those in the bodies of groups included."""
    for node in nodes:
        config = node.config if isinstance(node, Node) else node.get("config") if isinstance(node, Mapping) else None
        if not isinstance(config, Mapping):
            continue
        kind = node.type if isinstance(node, Node) else node.get("type")
        if kind == "workflow" and isinstance(config.get("workflow"), str):
            yield config["workflow"]
        body = config.get("body")
        if isinstance(body, Mapping) and isinstance(body.get("nodes"), list):
            yield from _called(body["nodes"])


def _edges(workflow: Workflow, types: Mapping[str, NodeType], place: str) -> Iterator[Fault]:
    fixed = {kind.name: None if callable(kind.ports) else tuple(kind.ports or ()) for kind in types.values()}
    configs = {node.id: node.config for node in workflow.nodes} if None in fixed.values() else {}
    edges = workflow.edges
    rows = zip(edges.sources, edges.ports, edges.targets, edges.inputs, strict=True)
    for index, (source_id, port, target_id, input_) in enumerate(rows):
        source, target = types.get(source_id), types.get(target_id)
        if source is not None and port != "error" and source.ports is not None:
            known = fixed[source.name]
            ports = source.ports_for(configs[source_id]) if known is None else known
            if ports is not None and port not in ports:
                listed = ", ".join([*ports, "error"])
                yield Fault(f"{source.name} has no port {port!r}: it has {listed}", f"{place}.edges[{index}].port")
        if target is None:
            continue
        if target.trigger:
            yield Fault(f"{target_id!r} is a trigger: nothing can lead to it", f"{place}.edges[{index}].target")
        elif target.inputs is not None and input_ not in target.inputs:
            listed = ", ".join(target.inputs)
            yield Fault(f"{target.name} has no input {input_!r}: it has {listed}", f"{place}.edges[{index}].input")


class _Upstream:
    """Whether one node is upstream of another.

    Asked about a source, it works out for a block of sources at once what is downstream of each, as bits of one integer
    for every node: one walk over the edges answers some thousand questions.
    """

    BLOCK = 4096

    def __init__(self, workflow: Workflow, *, known: bool = True) -> None:
        """Args: known: the graph is sound. In one that is not, nothing can be said of what is upstream."""
        self._known = known
        self.index = {node.id: number for number, node in enumerate(workflow.nodes)}
        self._edges = workflow.edges
        self._pairs: list[tuple[int, int]] | None = None
        self._direct: set[tuple[str, str]] = set()
        self._blocks: dict[int, list[int]] = {}

    def reaches(self, source: str, target: str) -> bool:
        """Whether a path of edges leads from the source to the target, as far as that can be known."""
        if not self._known:
            return True
        if not self._direct:
            self._direct = set(zip(self._edges.sources, self._edges.targets, strict=True))
        if (source, target) in self._direct:
            return True
        number = self.index[source]
        block, bit = divmod(number, self.BLOCK)
        if block not in self._blocks:
            if len(self._blocks) >= 2:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[block] = self._walk(block)
        return bool(self._blocks[block][self.index[target]] >> bit & 1)

    def _walk(self, block: int) -> list[int]:
        if self._pairs is None:
            self._pairs = self._in_order()
        begin = block * self.BLOCK
        seen = [0] * len(self.index)
        own = [0] * len(self.index)
        for number in range(begin, min(begin + self.BLOCK, len(own))):
            own[number] = 1 << (number - begin)
        for source, target in self._pairs:
            seen[target] |= seen[source] | own[source]
        return seen

    def _in_order(self) -> list[tuple[int, int]]:
        """The edges, those into a node before those out of it."""
        after: list[list[int]] = [[] for _ in self.index]
        count = [0] * len(after)
        for source, target in zip(self._edges.sources, self._edges.targets, strict=True):
            after[self.index[source]].append(self.index[target])
            count[self.index[target]] += 1
        free = [number for number, edges in enumerate(count) if edges == 0]
        pairs: list[tuple[int, int]] = []
        while free:
            number = free.pop()
            for target in after[number]:
                pairs.append((number, target))
                count[target] -= 1
                if count[target] == 0:
                    free.append(target)
        return pairs


def migrate(node: Node, kind: NodeType) -> Node:
    """The node with the config that its type reads now."""
    if node.type_version is None or node.type_version >= kind.version or kind.migrate is None:
        return node
    config: dict[str, Any] = kind.migrate(dict(node.config), node.type_version)
    return attrs.evolve(node, config=config, type_version=kind.version)
