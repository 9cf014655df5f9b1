"""Workflows written in Python: the same document, with nodes, ``>>`` and Python functions as nodes.

    >>> from orchestrator_core.build import Flow
    >>> flow = Flow("greeting")
    >>> @flow.call
    ... def greet(input):
    ...     return f"Hello {input['name']}!"
    >>> @flow.call
    ... def shout(input: str) -> str:
    ...     return input.upper()
    >>> _ = greet >> shout
    >>> flow.run_sync({"name": "Ada"}, discover=False).output
    'HELLO ADA!'
    >>> [str(edge) for edge in flow.workflow().edges]
    ['greet->shout']
    >>> shout("and they stay what they were")
    'AND THEY STAY WHAT THEY WERE'

A :class:`Flow` is a pencil, :meth:`Flow.workflow` gives what was drawn: an ordinary, checked
:class:`~orchestrator_core.document.Workflow`, which dumps to JSON and YAML, goes to a server, and comes back equal. The
document holds the *names* of Python functions; ``flow.callables`` holds the functions, for ``Engine(callables=...)``.

How ``>>`` reads, with nodes ``a``, ``b``, ``c``:

==============================  ======================================================================
``a >> b >> c``                 an edge from ``a`` to ``b``, and one from ``b`` to ``c``
``a["true"] >> b``              from the port ``true`` of ``a``
``a >> b["true"] >> c``         from ``a`` to ``b``, and on from the port ``true`` of ``b``
``[a, b] >> c``                 from each of them
``a >> [b, c]``                 to each of them
``a >> c.input("side")``        into the input ``side`` of ``c``
``a >> c.input(key="left")``    under the key ``left``, where several edges come in
==============================  ======================================================================

Groups are nodes and hold nodes; they nest:

    >>> flow = Flow("countdown")
    >>> with flow.loop("down", until="{{ input.n === 0 }}", max_iterations=10) as down:
    ...     step = down.call(lambda input: {"n": input["n"] - 1}, id="step")
    >>> [node.id for node in flow.workflow().nodes]
    ['down']

There is no current flow behind the scenes: what is not called on a flow or a group does not change it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, Self, TypeAlias, TypedDict, TypeVar, Unpack, overload

import attrs

from orchestrator_core import codec, document, picture
from orchestrator_core.document import Workflow
from orchestrator_core.engine import Clock, Engine
from orchestrator_core.errors import DocumentError, Fault
from orchestrator_core.journal import Journal
from orchestrator_core.nodes import Blobs, HttpPolicy, NodeType
from orchestrator_core.policies import CodePolicy
from orchestrator_core.types import Edge, FailureMode, Join, Json, Node, Pins, Result, Retry

__all__ = ["CallRef", "EngineOptions", "Flow", "GroupRef", "InputRef", "NodeRef", "PortRef", "Several"]

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", bound="NodeRef")
W = TypeVar("W", bound="_Wired")

# A time span: seconds, a text as in documents ("15m"), or Python's own.
Span: TypeAlias = float | str | timedelta


class EngineOptions(TypedDict, total=False):
    """What :meth:`Flow.run` passes on to :class:`~orchestrator_core.engine.Engine`; see there."""

    plugins: Iterable[object]
    discover: bool
    node_types: Sequence[NodeType]
    callables: Mapping[str, Callable[..., Any]]
    workflows: Iterable[Workflow]
    secrets: Mapping[str, str]
    variables: Mapping[str, Json]
    http: HttpPolicy
    code: CodePolicy
    deny: Collection[str]
    journal: Journal
    blobs: Blobs
    tenant: str
    clock: Clock


class NodeOptions(TypedDict, total=False):
    """The fields that every node of a document may carry, beside its id, type and config.

    Attributes:
        name: What pictures show instead of the id.
        when: A template; where it is false, the node is skipped.
        for_each: A template that gives a list, or the list: the node runs once for each item.
        max_parallel: How many items at one time.
        join: ``settled``, ``all``, ``first`` or a number: when the node is due.
        cancel_rest: Whether the losers of a join are cancelled.
        on_error: ``continue`` delivers the error on ``main`` instead of failing the execution.
        on_lost: What happens to an attempt that was lost in a crash.
        retry: A :class:`~orchestrator_core.types.Retry`, its fields as a dict (delays may be texts there), or just
            the number of attempts.
        timeout: For one attempt. A group's is its body's, waits included.
        disabled: Pass the input through instead of running.
        type_version: The version of the node type that the config was written for.
        position: Where an editor draws it, as ``(x, y)``.
    """

    name: str
    when: str
    for_each: Json
    max_parallel: int
    join: Join
    cancel_rest: bool
    on_error: Literal["fail", "continue"]
    on_lost: Literal["rerun", "fail"]
    retry: Retry | Mapping[str, Json] | int
    timeout: Span
    disabled: bool
    type_version: int
    position: tuple[float, float]


# --- what stands on either side of >> -------------------------------------------------------------------------------


class _Wired:
    """What ``>>`` leads from and to."""

    @overload
    def __rshift__(self, target: W) -> W: ...
    @overload
    def __rshift__(self, target: Sequence[_Wired]) -> Several: ...

    def __rshift__(self, target: Any) -> Any:
        """Draw edges; gives the target, so that the chain can go on from it."""
        wired = _wired(target)
        if wired is None:
            return NotImplemented
        for node, port in _exits(self):
            for follower, input, key in _entries(wired):
                node.graph.connect(node, follower, port=port, input=input, key=key)
        return wired

    def __rrshift__(self, sources: Sequence[_Wired]) -> Self:
        """``[a, b] >> self``: lists do not know ``>>``."""
        wired = _wired(sources)
        if wired is None:
            return NotImplemented
        return wired >> self


class PortRef(_Wired):
    """A port of a node: ``node["true"]``. As a target it stands for its node, and the chain goes on from the port."""

    def __init__(self, node: NodeRef, port: str) -> None:
        self.node = node
        self.port = port

    def __repr__(self) -> str:
        return f"<port {self.port} of {self.node.path}>"


class InputRef(_Wired):
    """A way into a node: ``node.input("side", key="left")``. The chain goes on from the node's port ``main``."""

    def __init__(self, node: NodeRef, input: str, key: str | None) -> None:
        self.node = node
        self.input = input
        self.key = key

    def __repr__(self) -> str:
        return f"<input {self.input} of {self.node.path}>"


class Several(_Wired):
    """What ``a >> [b, c]`` gives: both, so that ``>> d`` goes on from each."""

    def __init__(self, parts: Iterable[_Wired]) -> None:
        self.parts = tuple(parts)

    def __repr__(self) -> str:
        return f"<several: {', '.join(map(repr, self.parts))}>"


class NodeRef(_Wired):
    """A node that has been drawn: wire it with ``>>``, pick its ports with ``node["true"]``.

    Attributes:
        graph: The flow or group it stands in.
        id: Its id there.
        type: Its node type.
    """

    def __init__(self, graph: _Graph, drawn: Mapping[str, Json]) -> None:
        self.graph = graph
        self.id: str = drawn["id"]
        self.type: str = drawn["type"]
        self._drawn = drawn

    @property
    def path(self) -> str:
        """Where it stands, which is its id, or ``poll/fetch`` inside a group."""
        return f"{self.graph.prefix}{self.id}"

    def __repr__(self) -> str:
        return f"<node {self.path} ({self.type})>"

    def __getitem__(self, port: str) -> PortRef:
        """One of its ports, to lead edges from."""
        if not isinstance(port, str):
            raise TypeError(f'{self!r}: a port is picked by its name, as node["true"], not by {port!r}')
        return PortRef(self, port)

    def __iter__(self) -> Iterator[PortRef]:
        # Without this, Python would iterate by calling node[0], node[1], ...
        raise TypeError(f"{self!r} cannot be iterated over")

    def input(self, name: str = "main", *, key: str | None = None) -> InputRef:
        """One of its inputs, to lead edges to; ``key`` names the value where several edges come in."""
        return InputRef(self, name, key)

    def to_dict(self) -> dict[str, Json]:
        """The node as it stands in the document."""
        return dict(self._drawn)


def _wired(value: Any) -> _Wired | None:
    if isinstance(value, _Wired):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(part, _Wired) for part in value):
        return Several(value)
    return None


def _exits(source: _Wired) -> Iterator[tuple[NodeRef, str]]:
    """The ports that edges lead from: (node, port)."""
    if isinstance(source, NodeRef):
        yield source, "main"
    elif isinstance(source, PortRef):
        yield source.node, source.port
    elif isinstance(source, InputRef):
        yield source.node, "main"
    elif isinstance(source, Several):
        for part in source.parts:
            yield from _exits(part)


def _entries(target: _Wired) -> Iterator[tuple[NodeRef, str, str | None]]:
    """The inputs that edges lead to: (node, input, key)."""
    if isinstance(target, NodeRef):
        yield target, "main", None
    elif isinstance(target, PortRef):
        yield target.node, "main", None
    elif isinstance(target, InputRef):
        yield target.node, target.input, target.key
    elif isinstance(target, Several):
        for part in target.parts:
            yield from _entries(part)


# --- graphs -------------------------------------------------------------------------------------------------------------


class _Graph:
    """Nodes and edges: those of a flow, or those of a group's body.

    Attributes:
        flow: The flow it belongs to in the end.
        prefix: What stands before the ids of its nodes in their paths.
        output: The template of what it gives; without one it is what the terminal nodes give. May be set at any time.
    """

    flow: Flow
    output: Json

    def _open(self, flow: Flow, prefix: str, output: Json) -> None:
        self.flow = flow
        self.prefix = prefix
        self.output = output
        self._nodes: dict[str, NodeRef] = {}
        self._edges: list[Edge] = []

    def node(
        self,
        id: str,
        type: str,
        /,
        *,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
        when: str | None = None,
        for_each: Json = None,
        max_parallel: int | None = None,
        join: Join | None = None,
        cancel_rest: bool | None = None,
        on_error: Literal["fail", "continue"] | None = None,
        on_lost: Literal["rerun", "fail"] | None = None,
        retry: Retry | Mapping[str, Json] | int | None = None,
        timeout: Span | None = None,
        disabled: bool | None = None,
        type_version: int | None = None,
        position: tuple[float, float] | None = None,
        **settings: Any,
    ) -> NodeRef:
        """Add a node.

        Args:
            id: Its id.
            type: Its node type, such as ``http``.
            config: The type's settings, where a keyword cannot name them.
            name, when, for_each, max_parallel, join, cancel_rest, on_error, on_lost, retry, timeout, disabled, type_version, position:
                The node's own fields, see :class:`NodeOptions`.
            settings: The type's settings. A trailing underscore is dropped, so that every one can be named:
                ``for_="1m"``, ``timeout_=5`` (``timeout=5`` is the node's own).

        Raises:
            DocumentError: The id is taken, or a value is not JSON.
        """
        options = {
            "name": name,
            "when": when,
            "for_each": for_each,
            "max_parallel": max_parallel,
            "join": join,
            "cancel_rest": cancel_rest,
            "on_error": on_error,
            "on_lost": on_lost,
            "retry": retry,
            "timeout": timeout,
            "disabled": disabled,
            "type_version": type_version,
            "position": position,
        }
        named = {codec.wire_name(name): value for name, value in settings.items()}
        return self._add(NodeRef(self, self._draw(id, type, {**(config or {}), **named}, options)))

    @overload
    def call(
        self,
        function: Callable[P, R],
        /,
        *,
        id: str | None = ...,
        function_name: str | None = ...,
        arguments: Mapping[str, Any] | None = ...,
        **options: Unpack[NodeOptions],
    ) -> CallRef[P, R]: ...
    @overload
    def call(
        self,
        /,
        *,
        id: str | None = ...,
        function_name: str | None = ...,
        arguments: Mapping[str, Any] | None = ...,
        **options: Unpack[NodeOptions],
    ) -> Callable[[Callable[P, R]], CallRef[P, R]]: ...

    def call(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        id: str | None = None,
        function_name: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **options: Unpack[NodeOptions],
    ) -> Any:
        """Add a Python function as a node of type ``call``; also as a decorator, with or without parentheses.

        The function gets the node's input, ``arguments`` as keywords (templates in them are evaluated), and the
        :class:`~orchestrator_core.nodes.NodeContext` where it has a parameter ``ctx``. A plain function runs in a
        worker thread, a coroutine function in the event loop.

        Args:
            function: What to call. It stays callable through what is returned.
            id: The node's id; the function's name unless said.
            function_name: The name in the document; the function's name unless said, or the id where it has none.
            arguments: Keyword arguments.
            options: The node's own fields.

        Raises:
            DocumentError: The id is taken, or another function has this name already.
        """
        if function is None:
            return lambda function: self.call(
                function, id=id, function_name=function_name, arguments=arguments, **options
            )
        own = getattr(function, "__name__", "")
        own = own if own.isidentifier() else ""  # a lambda's is not
        node_id = id or own
        if not node_id:
            raise DocumentError([Fault(f"{function!r} has no name to make an id of: say call(..., id=...)", "$.nodes")])
        config: dict[str, Any] = {"function": function_name or own or node_id}
        if arguments:
            config["arguments"] = arguments
        node = CallRef(self, self._draw(node_id, "call", config, options), function)
        self._check_free(node)
        self.flow.add_callable(config["function"], function)
        return self._add(node)

    def loop(
        self,
        id: str,
        /,
        *,
        max_iterations: int,
        until: str | None = None,
        delay: Span | None = None,
        output: Json = None,
        **options: Unpack[NodeOptions],
    ) -> GroupRef:
        """Add a group that repeats: iteration *n* gets what *n* - 1 gave.

        Args:
            id: Its id.
            max_iterations: How often at most; with ``until``, getting there is a failure.
            until: A template, asked after each iteration, that ends the loop when true.
            delay: The time between two iterations.
            output: The template of what an iteration gives.
            options: The node's own fields.
        """
        config = {"max_iterations": max_iterations, "until": until, "delay": delay}
        said = {name: value for name, value in config.items() if value is not None}
        return self._add(GroupRef(self, self._draw(id, "loop", said, options), output))

    def group(self, id: str, /, *, output: Json = None, **options: Unpack[NodeOptions]) -> GroupRef:
        """Add a group that runs once, as one node: an inline ``workflow``. See :meth:`loop`."""
        return self._add(GroupRef(self, self._draw(id, "workflow", {}, options), output))

    def connect(
        self, source: NodeRef, target: NodeRef, *, port: str = "main", input: str = "main", key: str | None = None
    ) -> None:
        """Add an edge: what ``>>`` does, in words.

        Raises:
            DocumentError: One of the nodes stands in another graph; edges do not cross the borders of groups.
        """
        for node in (source, target):
            if node.graph is not self:
                why = f"{node.path!r} stands in {_title(node.graph)}, not in {_title(self)}"
                raise DocumentError([Fault(f"there can be no edge {source.path} >> {target.path}: {why}", "$.edges")])
        self._edges.append(Edge(source.id, target.id, port, input, key))

    def _add(self, node: N) -> N:
        self._check_free(node)
        self._nodes[node.id] = node
        return node

    def _check_free(self, node: NodeRef) -> None:
        if node.id in self._nodes:
            place = f"$.nodes[{len(self._nodes)}].id"
            raise DocumentError([Fault(f"there is a node {node.path!r} already: ids are unique in a graph", place)])

    def _draw(self, id: str, type: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Json]:
        """A node as it stands in the document."""
        drawn: dict[str, Json] = {"id": id, "type": type}
        drawn |= {name: _field(name, value) for name, value in options.items() if value is not None}
        if config:
            drawn["config"] = _plain(config)
        if fault := codec.check_json(drawn, f"$.nodes[{len(self._nodes)}]"):
            raise DocumentError([attrs.evolve(fault, message=f"{fault.message} ({self.prefix}{id})")])
        return drawn

    def _graph_dict(self) -> dict[str, Json]:
        edges = [attrs.asdict(edge, filter=_said) for edge in self._edges]
        graph: dict[str, Json] = {"nodes": [node.to_dict() for node in self._nodes.values()], "edges": edges}
        if self.output is not None:
            graph["output"] = _plain(self.output)
        return graph


def _title(graph: _Graph) -> str:
    return f"the group {graph.prefix[:-1]!r}" if graph.prefix else f"the flow {graph.flow.id!r}"


def _said(attribute: attrs.Attribute[Any], value: Any) -> bool:
    return bool(value != attribute.default)


def _plain(value: Any) -> Any:
    """A copy in JSON's own types; what is no JSON stays as it is, and is refused by who looks at it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _field(name: str, value: Any) -> Json:
    if name == "retry" and isinstance(value, int):
        return {"attempts": value}
    if isinstance(value, Retry):
        return attrs.asdict(value, filter=_said)
    if name == "position" and isinstance(value, tuple):
        return dict(zip(("x", "y"), value, strict=True))
    return _plain(value)


class CallRef(NodeRef, Generic[P, R]):
    """A node that runs a Python function; calling it calls the function, outside of any execution."""

    def __init__(self, graph: _Graph, drawn: Mapping[str, Json], function: Callable[P, R]) -> None:
        super().__init__(graph, drawn)
        self.function = function
        self.__wrapped__ = function  # so that `help` and `inspect.signature` show the function's own
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, which is what a unit test of it wants."""
        return self.function(*args, **kwargs)


class GroupRef(NodeRef, _Graph):
    """A node that holds a graph: wire it like a node, add nodes to it like to a flow.

    It can be used in a ``with`` statement, which only shows to the reader what belongs together.
    """

    def __init__(self, graph: _Graph, drawn: dict[str, Json], output: Json) -> None:
        self._timeout = drawn.pop("timeout", None)
        super().__init__(graph, drawn)
        self._open(graph.flow, f"{self.path}/", output)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Does nothing: the group may be added to later, too."""

    def to_dict(self) -> dict[str, Json]:
        """The node as it stands in the document, with its body."""
        body = self._graph_dict()
        if self._timeout is not None:
            body["settings"] = {"timeout": self._timeout}
        drawn = super().to_dict()
        return {**drawn, "config": {**drawn.get("config", {}), "body": body}}


class Flow(_Graph):
    """A workflow under construction.

    Args:
        id: The workflow's id.
        name: What people call it.
        timeout: For a whole execution, waits included.
        max_parallel: How many attempts at one time; ``None``: no limit.
        failure: ``stop`` or ``drain``: what happens to the rest when a node fails.
        output: The template of the answer; without one it is what the terminal nodes give. May be set later.
    """

    def __init__(
        self,
        id: str,
        *,
        name: str | None = None,
        timeout: Span | None = None,
        max_parallel: int | None = 32,
        failure: FailureMode = "stop",
        output: Json = None,
    ) -> None:
        self.id = id
        self.name = name
        self._settings = {"timeout": _plain(timeout), "max_parallel": max_parallel, "failure": failure}
        self._callables: dict[str, Callable[..., Any]] = {}
        self._open(self, "", output)

    def __repr__(self) -> str:
        return f"<flow {self.id}: {len(self._nodes)} nodes, {len(self._edges)} edges>"

    @property
    def callables(self) -> Mapping[str, Callable[..., Any]]:
        """The Python functions by the names that the document gives them, for ``Engine(callables=...)``."""
        return dict(self._callables)

    def add_callable(self, name: str, function: Callable[..., Any]) -> None:
        """Give a function a name for ``call`` nodes; :meth:`Flow.call` does it by itself.

        Raises:
            DocumentError: Another function has this name.
        """
        # Equal, not the same: a bound method is a new object every time it is looked up.
        if self._callables.setdefault(name, function) != function:
            why = f"another function is called {name!r} in this flow: say call(..., function_name=...)"
            raise DocumentError([Fault(why, "$.nodes")])

    def workflow(self) -> Workflow:
        """What was drawn, as an immutable workflow.

        Raises:
            DocumentError: With every fault that can be seen without knowing node types, groups included, its place, and
                the name of the node. ``Engine.validate`` finds the rest.
        """
        drawn = self._document()
        try:
            workflow = Workflow.from_dict(drawn)
        except DocumentError as error:
            raise DocumentError(_named(fault, drawn) for fault in error.faults) from None
        faults = [fault for node, at in _nodes_at(workflow, "$") for fault in _body_faults(node, at)]
        if faults:
            raise DocumentError(_named(fault, drawn) for fault in faults)
        return workflow

    def _document(self) -> dict[str, Json]:
        name = {} if self.name is None else {"name": self.name}
        return {"schema": 1, "id": self.id, **name, "settings": self._settings, **self._graph_dict()}

    def _ready(self, engine: Engine) -> Workflow:
        """The workflow, checked with the engine's node types, so that those faults have names, too."""
        workflow = self.workflow()
        if faults := engine.validate(workflow):
            drawn = self._document()
            raise DocumentError(_named(fault, drawn) for fault in faults)
        return workflow

    def engine(self, **options: Unpack[EngineOptions]) -> Engine:
        """A new engine that has the flow's functions. The options are the engine's."""
        options["callables"] = {**self._callables, **options.get("callables", {})}
        return Engine(**options)

    async def run(
        self,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        **options: Unpack[EngineOptions],
    ) -> Result:
        """Run it once in an engine of its own: for scripts and notebooks. See ``Engine.run``.

        Raises:
            DocumentError: It cannot run here; all faults, with their places.
        """
        async with self.engine(**options) as engine:
            return await engine.run(self._ready(engine), payload, start=start, pins=pins, seed=seed)

    def run_sync(
        self,
        payload: Json = None,
        *,
        start: str | None = None,
        pins: Pins | None = None,
        seed: int | None = None,
        **options: Unpack[EngineOptions],
    ) -> Result:
        """As :meth:`run`, for programs without an event loop; in a notebook, which has one, ``await flow.run(...)``."""
        engine = self.engine(**options)
        return engine.run_sync(self._ready(engine), payload, start=start, pins=pins, seed=seed)

    def _repr_svg_(self) -> str | None:
        """Notebooks show what has been drawn so far as a picture, finished or not."""
        drawn = [node.to_dict() for node in self._nodes.values()]
        nodes = [Node(n["id"], n["type"], n.get("config", {}), name=n.get("name")) for n in drawn]
        try:
            return picture.svg(nodes, self._edges, title=self.name or self.id)
        except ValueError:
            return None  # a cycle: `workflow` says so


# --- faults ---------------------------------------------------------------------------------------------------------------


def _nodes_at(workflow: Workflow, place: str) -> Iterator[tuple[Node, str]]:
    for index, node in enumerate(workflow.nodes):
        yield node, f"{place}.nodes[{index}]"


def _body_faults(node: Node, at: str) -> Iterator[Fault]:
    if node.type not in {"loop", "workflow"} or "body" not in node.config:
        return
    place = f"{at}.config.body"
    try:
        body = document.body_of(node, place)
    except DocumentError as error:
        yield from error.faults
        return
    yield from document.check(body, place)
    for inner, inner_at in _nodes_at(body, place):
        yield from _body_faults(inner, inner_at)


_STEP = re.compile(r"\.(?:config\.body\.)?(nodes|edges)\[(\d+)\]")


def _named(fault: Fault, drawn: Mapping[str, Json]) -> Fault:
    """The fault with the name of its node or edge: whoever draws in Python has no numbers to count by."""
    graph: Json = drawn
    names: list[str] = []
    position = 1  # behind the $
    while step := _STEP.match(fault.place, position):
        graph = graph["config"]["body"] if names else graph
        graph = graph[step[1]][int(step[2])]
        names.append(graph["id"] if step[1] == "nodes" else f"{graph['source']} >> {graph['target']}")
        position = step.end()
    return attrs.evolve(fault, message=f"{fault.message} ({'/'.join(names)})") if names else fault
