"""What a node author uses: :func:`node_type`, :func:`setting`, :class:`NodeContext`.

A node type is a coroutine function ``(ctx, config, input) -> value`` and a few facts about it. ``config`` is an
instance of an attrs class; templates in the document are evaluated before the function sees it.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NoReturn, Protocol, get_type_hints

import attrs

from orchestrator_core.codec import copy_json
from orchestrator_core.errors import PluginError
from orchestrator_core.types import Json, LogLine, Resumed, Wait, seed_at

__all__ = [
    "ApprovalAnswer",
    "Blobs",
    "Evaluated",
    "HttpClient",
    "HttpPolicy",
    "HttpResponse",
    "Language",
    "LanguageError",
    "NodeContext",
    "NodeFunction",
    "NodeType",
    "Ran",
    "Services",
    "WaitRequested",
    "node_type",
    "setting",
]

NodeFunction = Callable[..., Awaitable[Json]]
ApprovalAnswer = Literal["approve", "reject"]
Ports = Sequence[str] | Callable[[Mapping[str, Json]], Sequence[str] | None] | None

# Some thirty thousand years: no time beyond it is meant.
_FAR = 1e12
_TYPE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}(\.[a-z][a-z0-9_-]{0,63})?")


def setting(
    *,
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    description: str = "",
    examples: Sequence[Json] = (),
    literal: bool = False,
    secret: bool = False,
    condition: bool = False,
    validator: Any = None,
) -> Any:
    """A field of a config class, with what documentation and editors show of it.

    Args:
        default, factory, validator: As in :func:`attrs.field`.
        description: One sentence; it becomes the JSON Schema's description.
        examples: Values that make sense here.
        literal: Braces in this field are text (source code, say), never a template.
        secret: ``{{ secrets.name }}`` may stand here; the value is put in inside the attempt and masked everywhere.
        condition: What stands here counts as true or false: a text that is not exactly one expression is refused.
    """
    metadata = {
        "description": description,
        "examples": tuple(examples),
        "literal": literal,
        "secret": secret,
        "condition": condition,
    }
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata, validator=validator)
    return attrs.field(default=default, metadata=metadata, validator=validator)


@attrs.frozen
class NodeType:
    """A kind of node. Made by :func:`node_type`; a plugin hands it over through ``register_node_types``.

    Attributes:
        name: ``acme.slugify``: the plugin's entry-point name, a dot, a word. Only the standard package leaves out the dot.
        version: Counts up when saved configs change their meaning; ``migrate`` turns older ones into this one's.
        function: The coroutine function, or ``None`` for a group, which the machine runs itself.
        config: The attrs class of the settings.
        ports: The outputs it may emit on (beside ``error``, which every node has); a function of the raw config where
            they depend on it; ``None``: any.
        inputs: The named ways in; ``None``: any.
        trigger: It starts executions and has no incoming edges.
        pure: Its result depends on nothing but input, config, clock and seed, it changes neither its input nor the
            world, so it may be run again freely.
        group: It holds a graph that the machine runs: ``loop`` or ``workflow``.
        capabilities: What a tenant can be denied: ``network``, ``secrets``, ``blobs``, ``code``.
        example: A config that works, as JSON.
        migrate: ``(config, from_version) -> config``.
        plugin: Who registered it; filled in by the engine.
    """

    name: str
    version: int
    function: NodeFunction | None
    config: type[Any]
    ports: Ports = ("main",)
    inputs: Sequence[str] | None = ("main",)
    trigger: bool = False
    pure: bool = False
    group: Literal["loop", "workflow"] | None = None
    title: str = ""
    description: str = ""
    example: Mapping[str, Json] = attrs.field(factory=dict)
    capabilities: frozenset[str] = frozenset()
    migrate: Callable[[dict[str, Json], int], dict[str, Json]] | None = None
    plugin: str = ""

    def ports_for(self, config: Mapping[str, Json]) -> Sequence[str] | None:
        """The ports of a node with this raw config; ``None``: any."""
        return self.ports(config) if callable(self.ports) else self.ports

    async def __call__(self, ctx: NodeContext, config: Any, input: Json = None) -> Json:
        """Run the function itself, which is what a unit test of it wants."""
        if self.function is None:
            raise PluginError(f"node type {self.name!r} is a group: the machine runs it, there is no function to call")
        return await self.function(ctx, config, input)


def node_type(
    name: str,
    *,
    version: int = 1,
    title: str = "",
    description: str = "",
    ports: Ports = ("main",),
    inputs: Sequence[str] | None = ("main",),
    trigger: bool = False,
    pure: bool = False,
    config: type[Any] | None = None,
    example: Mapping[str, Json] | None = None,
    capabilities: Sequence[str] = (),
    migrate: Callable[[dict[str, Json], int], dict[str, Json]] | None = None,
) -> Callable[[NodeFunction], NodeType]:
    """Turn a coroutine function ``(ctx, config, input)`` into a :class:`NodeType`.

    The config class is read from the annotation of the parameter ``config`` unless it is given; the description defaults to the
    function's docstring and the title to the name's last word.

    Raises:
        PluginError: The name is malformed, the function is no coroutine function, or ``config`` is not annotated
            with an attrs class.
    """

    def decorate(function: NodeFunction) -> NodeType:
        if not _TYPE_NAME.fullmatch(name):
            raise PluginError(f"node type {name!r}: a name is a word, or plugin.word, in lower case (acme.slugify)")
        if not inspect.iscoroutinefunction(function):
            raise PluginError(f"node type {name!r}: write it as `async def {function.__name__}(ctx, config, input)`")
        try:
            kind = config if config is not None else get_type_hints(function).get("config")
        except NameError as error:
            raise PluginError(
                f"node type {name!r}: cannot read its annotations: {error}; a class inside a function is given as config="
            ) from error
        if not (inspect.isclass(kind) and attrs.has(kind)):
            raise PluginError(
                f"node type {name!r}: annotate `config` with an attrs class (`@attrs.frozen class …Config`)"
            )
        return NodeType(
            name=name,
            version=version,
            function=function,
            config=kind,
            ports=ports,
            inputs=inputs,
            trigger=trigger,
            pure=pure,
            title=title or name.rpartition(".")[2].replace("_", " ").replace("-", " ").capitalize(),
            description=description or inspect.cleandoc(function.__doc__ or ""),
            example=example or {},
            capabilities=frozenset(capabilities),
            migrate=migrate,
        )

    return decorate


# --- what an engine offers to node functions -------------------------------------------------------------------------


class HttpResponse(Protocol):
    """What node functions may use of a response (a part of httpx's)."""

    status_code: int

    @property
    def headers(self) -> Any:
        """The headers, a mapping that ignores case."""
        ...

    @property
    def content(self) -> bytes:
        """The body, decompressed."""
        ...


class HttpClient(Protocol):
    """What ``ctx.http`` is: an ``httpx.AsyncClient`` that already refuses forbidden addresses."""

    async def request(self, method: str, url: Any, **arguments: Any) -> Any:
        """Send a request and read the whole response; arguments as of ``httpx.AsyncClient.request``.

        Raises:
            NodeError: The address is refused, or the response breaks the policy.
            Exception: What httpx raises where the connection fails.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections; the engine calls it when it is closed."""
        ...


@attrs.frozen
class HttpPolicy:
    """What the operator allows of HTTP out.

    Attributes:
        allow: Hosts or networks that are allowed although they are private (``127.0.0.1``, ``10.1.0.0/16``,
            ``intranet.example``).
        max_body: The largest body that is read, in bytes after decoding.
        timeout: Seconds for a whole request where the node does not say.
    """

    allow: tuple[str, ...] = ()
    max_body: int = 16 * 1024 * 1024
    timeout: float = 30.0


class LanguageError(Exception):
    """Code failed: its own exception, a syntax error, or a limit.

    ``code`` is ``syntax``, ``exception``, ``timeout``, ``memory_limit``, ``output_limit``, ``not_json``, ``input`` or
    ``crashed``; ``line`` is the user's line, from 1; ``logs`` what was written before, as (level, message).
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "exception",
        line: int | None = None,
        snippet: str | None = None,
        logs: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.line = line
        self.snippet = snippet
        self.logs = tuple(logs)


@attrs.frozen
class Ran:
    """What a piece of user code gave: its return value and what it wrote, as (level, message)."""

    value: Json
    logs: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Evaluated:
    """What one expression gave: ``kind`` is ``value``, ``undefined`` or ``error`` (then ``message`` says why)."""

    kind: Literal["value", "undefined", "error"]
    value: Json = None
    message: str = ""


class Language(Protocol):
    """A language for user code, registered through ``register_languages``. Every call starts from a fresh state."""

    @property
    def name(self) -> str:
        """``javascript``. The language of this name evaluates expressions."""
        ...

    def check(self, source: str, *, expression: bool) -> None:
        """Parse without running.

        Raises:
            LanguageError: With code ``syntax``.
        """
        ...

    async def run(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        timeout: float | None,
        memory: int | None,
        seed: int,
        now: float,
        tenant: str = "",
    ) -> Ran:
        """Run the body of a function over ``context``; ``timeout`` in seconds, ``memory`` in bytes.

        Tenants that wait for one another take turns; a realm says whose call it is.

        Raises:
            LanguageError: The code failed or met a limit.
        """
        ...

    async def evaluate(
        self, expressions: Sequence[str], scope: Mapping[str, Json], *, seed: int, now: float, tenant: str = ""
    ) -> Sequence[Evaluated]:
        """Evaluate expressions over the names of ``scope``, each by itself, in one call of the sandbox."""
        ...

    async def aclose(self) -> None:
        """Give back what the language holds."""
        ...


class Blobs(Protocol):
    """Bytes by reference.

    One that cannot be reached for a while raises :class:`~orchestrator_core.Unavailable`: the execution is given up then, and
    goes on from its journal later; anything else it raises fails the attempt.
    """

    async def put(self, data: bytes, *, media_type: str = "application/octet-stream") -> str:
        """Store bytes and return their reference."""
        ...

    async def get(self, reference: str) -> bytes:
        """The bytes of a reference.

        Raises:
            KeyError: There are none.
        """
        ...


class Services(Protocol):
    """What stands behind a :class:`NodeContext`; an engine has one, a test kit another."""

    @property
    def http(self) -> HttpClient:
        """The HTTP client."""
        ...

    @property
    def blobs(self) -> Blobs:
        """The store of bytes."""
        ...

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secrets by name."""
        ...

    @property
    def callables(self) -> Mapping[str, Callable[..., Any]]:
        """The functions that ``call`` nodes may name."""
        ...

    def language(self, name: str) -> Language:
        """A language for user code.

        Raises:
            OrchestratorError: It is not installed.
        """
        ...

    def approval_link(
        self, execution_id: str, path: str, signal: str, *, expires_at: float, answer: ApprovalAnswer | None = None
    ) -> str:
        """See :meth:`NodeContext.approval_link`.

        Raises:
            NodeError: There are no links here, or the execution has no such node.
        """
        ...


class WaitRequested(BaseException):
    """Raised by the ``wait_…`` methods of the context. Let it pass."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait)
        self.wait = wait


def unwrapped(error: BaseException) -> BaseException:
    """What a node function raised. A wait that was asked for inside a task group comes in an exception group."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        inner = unwrapped(error.exceptions[0])
        return inner if isinstance(inner, WaitRequested) else error
    return error


def _seconds(value: Any, where: str) -> float:
    """A time that a timer can be set to.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _FAR:
        raise ValueError(f"{where}: {value!r} is no number of seconds")
    return float(value)


class Log:
    """The logger of an attempt: lines become part of its record."""

    __slots__ = ("_clock", "lines")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.lines: list[LogLine] = []

    def write(self, level: str, message: str) -> None:
        """Add a line; ``level`` is debug, info, warning or error."""
        self.lines.append(LogLine(self._clock(), level, message))

    def debug(self, message: str) -> None:
        """Add a line for those who debug."""
        self.write("debug", message)

    def info(self, message: str) -> None:
        """Add a line."""
        self.write("info", message)

    def warning(self, message: str) -> None:
        """Add a line about something doubtful."""
        self.write("warning", message)

    def error(self, message: str) -> None:
        """Add a line about something that went wrong."""
        self.write("error", message)


@attrs.define(eq=False)
class NodeContext:
    """What a node function can see and do. There is nothing else: no store, no settings, no globals.

    Attributes:
        execution_id: ``exe_…``.
        node_id: The node's id in its document.
        path: Where the attempt stands in the execution: ``price``, ``rows/3``, ``poll/2/fetch``.
        attempt: From 1.
        now: The clock of the attempt in seconds since 1970; for a pure type the time of the event that made it due.
        execution_seed: The seed of the whole execution.
        deadline: When the attempt's time-out strikes, or ``None``.
        resumed: Why the function runs again after a wait, or ``None`` the first time.
        pure: The function's type is declared pure: it gets what others see, not copies of it.
        emitted, saw_secrets: What the function has done so far.
    """

    services: Services
    execution_id: str
    node_id: str
    path: str
    attempt: int
    now: float
    execution_seed: int
    _inputs: Mapping[str, Json] = attrs.field(alias="inputs")
    _payload: Json = attrs.field(default=None, alias="payload")
    deadline: float | None = None
    resumed: Resumed | None = None
    pure: bool = True
    emitted: dict[str, Json] | None = None
    saw_secrets: bool = False
    _log: Log | None = None

    @property
    def inputs(self) -> Mapping[str, Json]:
        """What came in, by input."""
        return self._inputs if self.pure else copy_json(dict(self._inputs))

    @property
    def payload(self) -> Json:
        """What started the execution."""
        return self._payload if self.pure else copy_json(self._payload)

    @property
    def log(self) -> Log:
        """The attempt's logger."""
        if self._log is None:
            self._log = Log(lambda: self.now)
        return self._log

    @property
    def logged(self) -> bool:
        """Whether anything was logged."""
        return self._log is not None

    @property
    def log_lines(self) -> tuple[LogLine, ...]:
        """What was logged so far."""
        return tuple(self._log.lines) if self._log is not None else ()

    @property
    def idempotency_key(self) -> str:
        """A text that is equal for all attempts of this node in this execution; send it along with every effect."""
        return hashlib.sha256(f"{self.execution_id}/{self.path}".encode()).hexdigest()[:32]

    @property
    def seed(self) -> int:
        """A number that depends on the execution's seed and the path only."""
        return seed_at(self.execution_seed, self.path)

    @property
    def random(self) -> random.Random:
        """A generator that starts from :attr:`seed` every time it is asked for."""
        return random.Random(self.seed)  # noqa: S311 - reproducible on purpose; for secrets use the secrets module

    @property
    def http(self) -> HttpClient:
        """The HTTP client, which refuses forbidden addresses."""
        return self.services.http

    @property
    def blobs(self) -> Blobs:
        """The store of bytes."""
        return self.services.blobs

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secrets that this engine or tenant has. Who looks at them has its output and its log masked."""
        self.saw_secrets = True
        return self.services.secrets

    def emit(self, port: str, value: Json) -> None:
        """Deliver a value on a port. Once per port; a function that emits returns nothing.

        Raises:
            ValueError: The port was emitted on before.
        """
        if self.emitted is None:
            self.emitted = {}
        if port in self.emitted:
            raise ValueError(f"port {port!r} has been emitted on already: a port delivers once")
        self.emitted[port] = value

    def wait_until(self, time: float) -> NoReturn:
        """End the attempt without spending it; the function runs again at ``time`` (seconds since 1970)."""
        raise WaitRequested(Wait(until=_seconds(time, "wait_until")))

    def wait_for(self, seconds: float) -> NoReturn:
        """End the attempt without spending it; the function runs again after so many seconds."""
        raise WaitRequested(Wait(until=self.now + _seconds(seconds, "wait_for")))

    def wait_for_signal(self, name: str, *, expires: float | None = None) -> NoReturn:
        """End the attempt without spending it, until a signal of this name comes or ``expires`` seconds are over."""
        if not isinstance(name, str):
            raise TypeError(f"wait_for_signal: a signal's name is a text, not {name!r}")
        due = None if expires is None else self.now + _seconds(expires, "wait_for_signal")
        raise WaitRequested(Wait(signal=name, expires=due))

    def approval_link(self, path: str, signal: str, *, expires: float, answer: ApprovalAnswer | None = None) -> str:
        """The address of a page where a person answers a signal, without a credential. Only a server has such pages.

        Args:
            path: The node that waits for the signal, or will.
            signal: The signal's name. Its payload is ``{approved, comment, at}``; the first answer counts.
            expires: Seconds until the link does not hold any more.
            answer: The only answer that can be given there; both unless said.

        Raises:
            NodeError: There are no links here (code ``no_links``), or the execution has no such node.
        """
        expires_at = self.now + _seconds(expires, "approval_link")
        return self.services.approval_link(self.execution_id, path, signal, expires_at=expires_at, answer=answer)

    async def run_code(
        self,
        source: str,
        context: Mapping[str, Json],
        *,
        language: str = "javascript",
        timeout: float | None = None,
        memory: int | None = None,
    ) -> Json:
        """Run user code in the sandbox over a fresh state; what it writes goes to the attempt's log.

        Raises:
            LanguageError: The code failed or met a limit (a permanent error of the node where it is not caught).
        """
        try:
            ran = await self.services.language(language).run(
                source, context, timeout=timeout, memory=memory, seed=self.seed, now=self.now
            )
        except LanguageError as error:
            for level, message in error.logs:
                self.log.write(level, message)
            raise
        for level, message in ran.logs:
            self.log.write(level, message)
        return ran.value
