"""The workflow document: :class:`Workflow`, and everything about it that can be judged without knowing node types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from orchestrator_core import codec, picture, yaml_text
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.spelling import nearest
from orchestrator_core.types import Edge, Edges, Json, Node, Position, Retry, Settings

__all__ = [
    "MAX_EDGES",
    "MAX_NODES",
    "Workflow",
    "body_of",
    "called_workflows",
    "check",
    "find_cycle",
    "near",
    "read",
    "read_body",
    "with_lines",
]

MAX_NODES = 200_000
MAX_EDGES = 1_000_000

_WORKFLOW_ID = re.compile(r"(?!exe_)[A-Za-z0-9_-]{1,64}")
_NODE_ID = re.compile(r"(?!(?:__proto__|constructor|prototype)$)[A-Za-z_][A-Za-z0-9_]{0,63}")
_PORT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_ID_RULE = "a letter or _, then letters, digits and _, 64 at most; not __proto__, constructor or prototype"

_converter = codec.make_converter()
_EDGE_KEYS = frozenset(field.name for field in attrs.fields(Edge))


def _structure_edges(value: Any, _: Any) -> Edges:
    """Edges in columns. What is not plainly right goes the long way, which says what is wrong."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    sources, targets, ports, inputs, keys = columns
    for item in value if isinstance(value, list | tuple) else ():
        if type(item) is not dict or not item.keys() <= _EDGE_KEYS:
            break
        sources.append(item.get("source"))
        targets.append(item.get("target"))
        ports.append(item.get("port", "main"))
        inputs.append(item.get("input", "main"))
        keys.append(item.get("key"))
    whole = isinstance(value, list | tuple) and len(sources) == len(value)
    texts = whole and all(type(text) is str for column in columns[:4] for text in column)
    if texts and all(key is None or type(key) is str for key in keys):
        return Edges.from_columns(*columns)
    return Edges(_converter.structure(value, tuple[Edge, ...]))


_converter.register_structure_hook(Edges, _structure_edges)


def _in_columns(edges: Iterable[Edge]) -> Edges:
    return Edges.of(edges)


@attrs.frozen
class Document:
    """What stands in a file; :class:`Workflow` is what is made of it."""

    nodes: tuple[Node, ...]
    edges: Edges = attrs.field(factory=Edges)
    schema: int = 1
    id: str = "workflow"
    name: str | None = None
    settings: Settings = Settings()
    output: Json = None


@attrs.frozen
class Workflow:
    """A workflow: a graph of nodes as data. Immutable; saving a change makes a new version.

    ``output`` is the template of the answer; without one it is what the terminal nodes give. ``version`` is set
    by a store and is no part of the document.
    """

    id: str
    nodes: tuple[Node, ...]
    edges: Edges = attrs.field(factory=Edges, converter=_in_columns)
    name: str | None = None
    settings: Settings = Settings()
    output: Json = None
    version: int | None = None
    # Its graph has been checked: what is immutable need not be checked twice.
    # Not an argument: what is made from it by `attrs.evolve` is checked anew.
    _checked: bool = attrs.field(default=False, init=False, eq=False, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Workflow:
        """Read a ``.json``, ``.yaml`` or ``.yml`` file.

        Raises:
            DocumentError: With every fault, its place and line.
            OSError: The file cannot be read.
        """
        file = Path(path)
        text = file.read_bytes()
        return cls.from_yaml(text) if file.suffix.lower() in {".yaml", ".yml"} else cls.from_json(text)

    @classmethod
    def from_json(cls, text: str | bytes) -> Workflow:
        """Read a JSON document.

        Raises:
            DocumentError: With every fault and its place.
        """
        document = codec.parse_json(text)
        try:
            return cls.from_dict(document)
        except DocumentError as error:
            raise DocumentError(with_lines(error.faults, _lines_of(text))) from None

    @classmethod
    def from_yaml(cls, text: str | bytes) -> Workflow:
        """Read a YAML document.

        Raises:
            DocumentError: With every fault, its place and line.
        """
        document, lines = yaml_text.parse_yaml(text)
        try:
            return cls.from_dict(document)
        except DocumentError as error:
            raise DocumentError(with_lines(error.faults, lines)) from None

    @classmethod
    def from_dict(cls, document: Any) -> Workflow:
        """Read a document that has been parsed already.

        Raises:
            DocumentError: With every fault and its place.
        """
        workflow, faults = read(document)
        if workflow is not None and not faults:
            faults = list(check(workflow))
        if workflow is None or faults:
            raise DocumentError(faults)
        object.__setattr__(workflow, "_checked", True)
        return workflow

    @property
    def checked(self) -> bool:
        """Whether it was read from a document, and so is known to be well-formed."""
        return self._checked

    def to_dict(self) -> dict[str, Json]:
        """The document as JSON values; what stands at its default is left out."""
        document: dict[str, Json] = {"schema": 1, "id": self.id}
        if self.name is not None:
            document["name"] = self.name
        if settings := _without_defaults(self.settings):
            document["settings"] = settings
        document["nodes"] = [_without_defaults(node) for node in self.nodes]
        document["edges"] = [_without_defaults(edge) for edge in self.edges]
        if self.output is not None:
            document["output"] = codec.copy_json(self.output)
        return document

    def to_json(self, *, indent: int | None = 2) -> str:
        """The document as JSON text."""
        return codec.dump_json(self.to_dict(), indent=indent)

    def to_yaml(self) -> str:
        """The document as YAML text."""
        return yaml_text.dump_yaml(self.to_dict())

    def dump(self, path: str | Path) -> None:
        """Write the document to a ``.json``, ``.yaml`` or ``.yml`` file."""
        file = Path(path)
        text = self.to_yaml() if file.suffix.lower() in {".yaml", ".yml"} else self.to_json() + "\n"
        file.write_text(text, encoding="utf-8")

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flow chart."""
        return picture.mermaid(self.nodes, self.edges, title=self.name or self.id)

    def to_dot(self) -> str:
        """The graph for Graphviz."""
        return picture.dot(self.nodes, self.edges, title=self.name or self.id)

    def to_svg(self) -> str:
        """The graph as a picture."""
        return picture.svg(self.nodes, self.edges, title=self.name or self.id)

    def _repr_svg_(self) -> str:
        """Notebooks show the workflow as its picture."""
        return self.to_svg()


_REQUIRED = {"schema": "write `schema: 1`", "id": "name the workflow", "nodes": "list the nodes"}
# A field that can be left out: of the document, of a node or of an edge.
_OPTIONAL = re.compile(r"\.(name|settings|output)\b.*|\.(nodes|edges)\[(\d+)\]\.(\w+).*")


def read(document: Any) -> tuple[Workflow | None, list[Fault]]:
    """The workflow that a document describes, and what is wrong with its types; its graph is not judged yet.

    With faults, the workflow is what the document would be without the fields that have them: enough to find what else
    is wrong, and no more. ``None``: what is wrong is not in fields that can be left out.
    """
    if fault := codec.check_json(document):
        return None, [fault]
    missing = [
        Fault(f"is missing: {hint}", f"$.{key}")
        for key, hint in _REQUIRED.items()
        if isinstance(document, Mapping) and key not in document
    ]
    workflow, faults = _read(document, "$")
    return workflow, [*missing, *(fault for fault in faults if fault.place not in {one.place for one in missing})]


def read_body(node: Node, place: str) -> tuple[Workflow | None, list[Fault]]:
    """As :func:`read`, for the graph that a group holds under ``config.body``."""
    return _read(node.config.get("body"), place)


def _read(document: Any, place: str) -> tuple[Workflow | None, list[Fault]]:
    try:
        return _structure(document, place), []
    except DocumentError as error:
        faults = list(error.faults)
    try:
        return _structure(_without(document, [fault.place.removeprefix(place) for fault in faults]), place), faults
    except DocumentError:
        return None, faults


def _without(document: Any, places: Iterable[str]) -> Any:
    """The document without the fields at these places, as far as they can be left out."""
    if not isinstance(document, Mapping):
        return document
    rest: dict[str, Any] = dict(document)
    copied: dict[tuple[str, int], dict[str, Any]] = {}
    for match in filter(None, map(_OPTIONAL.fullmatch, places)):
        field, rows, number, inner = match.groups()
        if field is not None:
            rest.pop(field, None)
            continue
        at = int(number)
        if (rows, at) not in copied:
            if not any(rows == name for name, _ in copied):
                rest[rows] = list(rest[rows])
            copied[rows, at] = rest[rows][at] = dict(rest[rows][at])
        copied[rows, at].pop(inner, None)
    return rest


def _structure(document: Any, place: str) -> Workflow:
    try:
        found = _converter.structure(document, Document)
    except Exception as error:  # noqa: BLE001 - every kind of fault is gathered here
        raise DocumentError(codec.faults_of(error, place)) from None
    if found.schema != 1:
        raise DocumentError(
            [Fault(f"schema {found.schema} is not known: this version reads schema 1", f"{place}.schema")]
        )
    return Workflow(
        id=found.id, nodes=found.nodes, edges=found.edges, name=found.name, settings=found.settings, output=found.output
    )


def body_of(node: Node, place: str = "$.config.body") -> Workflow:
    """The graph that a group holds under ``config.body``.

    Raises:
        DocumentError: It is no document.
    """
    return _structure(node.config.get("body"), place)


def _without_defaults(value: Any) -> dict[str, Json]:
    result: dict[str, Json] = {}
    for field in attrs.fields(type(value)):
        item = getattr(value, field.name)
        default: Any = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types the class Factory as a function
            default = default.factory()
        if item == default and type(item) is type(default):
            continue
        if isinstance(item, Retry | Position):
            result[field.name] = _without_defaults(item)
        else:
            result[field.name] = codec.copy_json(dict(item) if isinstance(item, Mapping) else item)
    return result


def _lines_of(text: str | bytes) -> yaml_text.Lines:
    """JSON is YAML: where the extra is there, faults of a JSON document get their lines too."""
    try:
        return yaml_text.parse_yaml(text)[1]
    except DocumentError:
        return {}


def with_lines(faults: Sequence[Fault], lines: yaml_text.Lines) -> list[Fault]:
    """The same faults with the line of their place, or of the nearest place around it."""
    return [attrs.evolve(fault, line=fault.line or _line_at(fault.place, lines)) for fault in faults]


def _line_at(place: str, lines: yaml_text.Lines) -> int | None:
    while place not in lines and place not in {"", "$"}:
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return lines.get(place)


# --- what can be judged of the graph itself -------------------------------------------------------------------------


def check(workflow: Workflow, place: str = "$") -> Iterator[Fault]:
    """What is wrong with a graph, whatever its node types are."""
    if workflow._checked:  # noqa: SLF001 - its own module
        return
    if not _WORKFLOW_ID.fullmatch(workflow.id):
        yield Fault("an id is letters, digits, _ and -, 64 at most, and does not begin with exe_", f"{place}.id")
    if len(workflow.nodes) > MAX_NODES or len(workflow.edges) > MAX_EDGES:
        yield Fault(f"too large: at most {MAX_NODES} nodes and {MAX_EDGES} edges", place)
        return
    if not workflow.nodes:
        yield Fault("has no nodes: add one", f"{place}.nodes")
    yield from _check_settings(workflow.settings, f"{place}.settings")
    seen: dict[str, int] = {}
    for index, node in enumerate(workflow.nodes):
        at = f"{place}.nodes[{index}]"
        if node.id in seen:
            yield Fault(f"id {node.id!r} is taken by nodes[{seen[node.id]}]: ids are unique in a graph", f"{at}.id")
        elif not _NODE_ID.fullmatch(node.id):
            yield Fault(f"{node.id!r} is no node id: {_ID_RULE}", f"{at}.id")
        seen.setdefault(node.id, index)
        yield from _check_node(node, at)
    yield from _check_edges(workflow, seen, place)


def _check_settings(settings: Settings, place: str) -> Iterator[Fault]:
    if settings.max_parallel is not None and settings.max_parallel < 1:
        yield Fault("must be 1 or more, or null for no limit", f"{place}.max_parallel")
    if settings.timeout is not None and settings.timeout <= 0:
        yield Fault("must be more than 0 seconds", f"{place}.timeout")


def _check_node(node: Node, place: str) -> Iterator[Fault]:
    if node.max_parallel is not None and node.max_parallel < 1:
        yield Fault("must be 1 or more", f"{place}.max_parallel")
    if node.max_parallel is not None and node.for_each is None:
        yield Fault("only counts items: add for_each, or remove it", f"{place}.max_parallel")
    if node.timeout is not None and node.timeout <= 0:
        yield Fault("must be more than 0 seconds", f"{place}.timeout")
    if isinstance(node.join, int) and node.join < 1:
        yield Fault("a join by number needs 1 or more deliveries", f"{place}.join")
    if node.cancel_rest and node.join in {"settled", "all"}:
        yield Fault(
            f"a join of {node.join!r} has no losers: use join first or a number, or remove it", f"{place}.cancel_rest"
        )
    if node.retry is not None:
        if node.retry.attempts < 1:
            yield Fault("must be 1 or more, the first attempt counts", f"{place}.retry.attempts")
        if node.retry.factor < 1:
            yield Fault("must be 1 or more", f"{place}.retry.factor")
        if not 0 <= node.retry.jitter <= 1:
            yield Fault("must be between 0 and 1", f"{place}.retry.jitter")


def _check_edges(workflow: Workflow, seen: Mapping[str, int], place: str) -> Iterator[Fault]:
    incoming: dict[str, int] = {}
    identical: dict[tuple[str, str, str, str], int] = {}
    dangling = False
    edges = workflow.edges
    rows = zip(edges.sources, edges.ports, edges.targets, edges.inputs, strict=True)
    for index, same in enumerate(rows):
        source, port, target, input_ = same
        for end, name in (("source", source), ("target", target)):
            if name not in seen:
                dangling = True
                yield Fault(f"there is no node {name!r}{near(name, seen)}", f"{place}.edges[{index}].{end}")
        if port != "main" and not _PORT.fullmatch(port):
            yield Fault(f"{port!r} is no port name", f"{place}.edges[{index}].port")
        if input_ != "main" and not _PORT.fullmatch(input_):
            yield Fault(f"{input_!r} is no input name", f"{place}.edges[{index}].input")
        if same in identical:
            first = f"edges[{identical[same]}] ({edges[index]})"
            yield Fault(f"is the same edge as {first}: remove one", f"{place}.edges[{index}]")
        identical.setdefault(same, index)
        incoming[target] = incoming.get(target, 0) + 1
    for index, node in enumerate(workflow.nodes):
        if isinstance(node.join, int) and node.join > incoming.get(node.id, 0):
            yield Fault(
                f"waits for {node.join} deliveries, but has {incoming.get(node.id, 0)} edges",
                f"{place}.nodes[{index}].join",
            )
    if not dangling and (cycle := find_cycle(workflow.nodes, workflow.edges)):
        yield Fault(f"the graph has a cycle: {' -> '.join(cycle)}; use a loop node to repeat", f"{place}.edges")


def near(name: str, known: Mapping[str, int]) -> str:
    """A hint at a name that is nearly this one, or nothing."""
    if len(known) > 1000:
        return ""
    found = next((other for other in known if other.lower() == name.lower()), "") or nearest(name, known)
    return f": did you mean {found!r}?" if found else ""


def called_workflows(nodes: Iterable[Any]) -> Iterator[str]:
    """The ids of the stored workflows that nodes call, those in the bodies of groups included (which are raw, as written)."""
    for node in nodes:
        kind, config = (node.type, node.config) if isinstance(node, Node) else (node.get("type"), node.get("config"))
        if not isinstance(config, Mapping):
            continue
        if kind == "workflow" and isinstance(config.get("workflow"), str):
            yield config["workflow"]
        body = config.get("body")
        if isinstance(body, Mapping) and isinstance(body.get("nodes"), list):
            yield from called_workflows(inner for inner in body["nodes"] if isinstance(inner, Mapping))


def find_cycle(nodes: Sequence[Node], edges: Edges) -> list[str] | None:
    """A cycle as node ids, the first repeated at the end, or ``None``. Linear (Kahn 1962, then a walk in what is left)."""
    follow: dict[str, list[str]] = {}
    count = {node.id: 0 for node in nodes}
    for source, target in zip(edges.sources, edges.targets, strict=True):
        follow.setdefault(source, []).append(target)
        count[target] += 1
    free = [name for name, number in count.items() if number == 0]
    while free:
        for target in follow.get(free.pop(), ()):
            count[target] -= 1
            if count[target] == 0:
                free.append(target)
    pairs = zip(edges.sources, edges.targets, strict=True)
    before = {target: source for source, target in pairs if count[target] > 0 and count[source] > 0}
    if not before:
        return None
    # Every node left has a predecessor left: walking back must come round.
    walk: dict[str, int] = {}
    name = next(iter(before))
    while name not in walk:
        walk[name] = len(walk)
        name = before[name]
    cycle = [*list(walk)[walk[name] :], name]
    return cycle[::-1]
