"""One plugin manager for each engine: discovery through entry points, and the registry of what plugins bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from orchestrator_core import hookspecs
from orchestrator_core.errors import PluginError
from orchestrator_core.graph import Traits
from orchestrator_core.groups import CorePlugin
from orchestrator_core.nodes import Language, NodeType
from orchestrator_core.spelling import nearest

__all__ = ["ENTRY_POINTS", "Registry", "make_manager", "make_registry"]

ENTRY_POINTS = "orchestrator.plugins"
# These may register types without a prefix: the standard package and the library itself.
_UNPREFIXED = frozenset({"core", "std", "engine"})


def make_manager(plugins: Iterable[object] = (), *, discover: bool = True) -> pluggy.PluginManager:
    """A plugin manager that knows the library's hooks, with the given plugins and the installed ones.

    Raises:
        PluginError: A plugin cannot be imported, or implements a hook wrongly.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _register(manager, CorePlugin(), "core")
    if discover:
        for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
            _load(manager, point)
    for plugin in plugins:
        if not manager.is_registered(plugin):
            # The program's own: it may name its types as it likes.
            own = getattr(plugin, "__name__", type(plugin).__name__)
            _register(manager, plugin, f"engine:{own}")
    return manager


def _load(manager: pluggy.PluginManager, point: EntryPoint) -> None:
    if manager.has_plugin(point.name):
        raise PluginError(
            f"two installed packages name their plugin {point.name!r} ({_package(point)} is the second): uninstall one"
        )
    try:
        plugin = point.load()
    except Exception as error:
        raise PluginError(
            f"plugin {point.name!r} of {_package(point)} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    _register(manager, plugin, point.name)


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name!r}" if point.dist is not None else repr(point.value)


def _register(manager: pluggy.PluginManager, plugin: object, name: str | None) -> None:
    try:
        manager.register(plugin, name=name)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(f"plugin {name or plugin!r} cannot be registered: {error}") from error


@attrs.frozen(eq=False)
class Registry:
    """What the plugins of an engine bring.

    ``denied`` holds node types that are not among ``node_types``, for they need what the operator denies: name -> what.
    """

    node_types: Mapping[str, NodeType]
    languages: Mapping[str, Language]
    functions: Mapping[str, str]
    denied: Mapping[str, str] = attrs.field(factory=dict)

    def without(self, capabilities: frozenset[str]) -> Registry:
        """The same without the node types that need one of these."""
        denied = {
            name: ", ".join(sorted(needed))
            for name, kind in self.node_types.items()
            if (needed := kind.capabilities & capabilities)
        }
        allowed = {name: kind for name, kind in self.node_types.items() if name not in denied}
        return attrs.evolve(self, node_types=allowed, denied=denied)

    def describe(self, name: str) -> Traits:
        """The traits of a node type, for the plan.

        Raises:
            KeyError: No plugin has registered it.
        """
        kind = self.node_types[name]
        return Traits(trigger=kind.trigger, pure=kind.pure, group=kind.group)

    def hint(self, name: str) -> str:
        """What to do about an unknown type."""
        near = nearest(name, [known for known in self.node_types if ("." in known) == ("." in name)])
        if near:
            return f"did you mean {near!r}?"
        prefix, dot, _ = name.partition(".")
        if dot:
            return f"install the package whose plugin is called {prefix!r}, and see `orchestrator nodes`"
        if "set" not in self.node_types:
            return "the standard types are in the package pluggable-orchestrator-nodes-std: pip install it"
        return "see `orchestrator nodes` for those that are installed"


def make_registry(manager: pluggy.PluginManager, extra: Sequence[NodeType] = ()) -> Registry:
    """Collect what the plugins register.

    Raises:
        PluginError: Two plugins register the same name, or one registers under a name that is not its own.
    """
    node_types: dict[str, NodeType] = {}
    for plugin, found in _results(manager, "register_node_types"):
        for kind in found:
            _add_type(node_types, kind, plugin)
    for kind in extra:
        _add_type(node_types, kind, "engine")
    languages: dict[str, Language] = {}
    owners: dict[str, str] = {}
    for plugin, found in _results(manager, "register_languages"):
        for language in found:
            if language.name in languages:
                raise PluginError(
                    f"language {language.name!r} is registered by {owners[language.name]!r} and {plugin!r}"
                )
            languages[language.name] = language
            owners[language.name] = plugin
    functions: dict[str, str] = {}
    for plugin, found in _results(manager, "register_expression_functions"):
        for name, source in found.items():
            if name in functions:
                raise PluginError(f"expression function {name!r} is registered by {owners[name]!r} and {plugin!r}")
            functions[name] = source
            owners[name] = plugin
    return Registry(node_types, languages, functions)


def _results(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, Any]]:
    """Each plugin's own result of a hook: pluggy's merged list does not say whose is whose."""
    results = []
    for plugin in manager.get_plugins():
        name = manager.get_name(plugin) or repr(plugin)
        others = [other for other in manager.get_plugins() if other is not plugin]
        results += [(name, found) for found in manager.subset_hook_caller(hook, others)()]
    return sorted(results, key=lambda result: (result[0] not in _UNPREFIXED, result[0]))


def _add_type(node_types: dict[str, NodeType], kind: Any, plugin: str) -> None:
    if not isinstance(kind, NodeType):
        raise PluginError(
            f"plugin {plugin!r} registers {kind!r}, which is no node type: decorate it with @node_type(...)"
        )
    taken = node_types.get(kind.name)
    if taken is not None:
        raise PluginError(f"node type {kind.name!r} is registered by the plugins {taken.plugin!r} and {plugin!r}")
    if "." not in kind.name and plugin not in _UNPREFIXED and not plugin.startswith("engine:"):
        raise PluginError(
            f"plugin {plugin!r} registers {kind.name!r}: only the standard package leaves out the prefix, "
            f"call it {plugin}.{kind.name}"
        )
    node_types[kind.name] = attrs.evolve(kind, plugin=plugin)
