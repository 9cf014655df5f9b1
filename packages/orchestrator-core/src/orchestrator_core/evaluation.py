"""Evaluates expressions: plain paths at once, all others in the JavaScript sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from orchestrator_core.errors import OrchestratorError
from orchestrator_core.expressions import ABSENT, Code, ExpressionError, Names, NotNative, read
from orchestrator_core.nodes import Language, LanguageError
from orchestrator_core.plugins import Registry
from orchestrator_core.state import Scope
from orchestrator_core.types import Json, seed_at

__all__ = ["Expressions", "Languages"]


class Languages(Protocol):
    """What evaluating needs of the realm."""

    @property
    def registry(self) -> Registry:
        """The functions that plugins bring."""
        ...

    def language(self, name: str) -> Language:
        """A language, as its policy allows it."""
        ...


@attrs.frozen
class Expressions:
    """The expressions of a realm's executions. See :class:`~orchestrator_core.configs.Evaluator`."""

    realm: Languages

    async def values(self, codes: Sequence[Code], names: Names) -> list[Any]:
        """The value of each expression: plain paths at once, all others in one call of the sandbox.

        Raises:
            ExpressionError: One failed.
        """
        results: list[Any] = []
        rest: list[int] = []
        for number, code in enumerate(codes):
            try:
                value = read(code, names)
            except NotNative:
                rest.append(number)
                value = None
            results.append(value)
        if rest:
            wanted = [codes[number] for number in rest]
            data, undefined = names.data(wanted)
            sources = [self._around(code.source, undefined) for code in wanted]
            for number, answer in zip(rest, await self._evaluate(sources, data, names), strict=True):
                if answer.kind == "error":
                    raise ExpressionError(f"{{{{ {codes[number].source} }}}}: {answer.message}")
                results[number] = answer.value if answer.kind == "value" else ABSENT
        return results

    async def values_each(self, codes: Sequence[Code], names: Names, items: Sequence[Json]) -> list[list[Any]]:
        """The values of the expressions for each item, in at most one call of the sandbox.

        Raises:
            ExpressionError: One failed.
        """
        try:
            return [
                [read(code, attrs.evolve(names, scope=_with_item(names.scope, item, index))) for code in codes]
                for index, item in enumerate(items)
            ]
        except NotNative:
            pass  # not all are plain paths: one call of the sandbox evaluates them all
        data, undefined = names.data(codes)
        undefined = [name for name in undefined if name not in {"item", "index"}]
        inner = ", ".join(f"() => ({self._around(code.source, undefined)})" for code in codes)
        source = (
            "$items.map((item, index) => "
            f"[{inner}].map(f => {{ const v = f(); return v === undefined ? {{}} : {{v}}; }}))"
        )
        data.pop("item", None)
        data.pop("index", None)
        answer = (await self._evaluate([source], {**data, "$items": list(items)}, names))[0]
        if answer.kind != "value":
            raise ExpressionError(answer.message)
        return [[cell.get("v", ABSENT) for cell in row] for row in answer.value]

    async def _evaluate(self, sources: Sequence[str], data: Mapping[str, Json], names: Names) -> Sequence[Any]:
        try:
            language = self.realm.language("javascript")
            return await language.evaluate(sources, data, seed=seed_at(names.seed, names.place), now=names.now)
        except LanguageError as error:
            raise ExpressionError(error.message) from None
        except OrchestratorError as error:
            raise ExpressionError(f"only plain paths can be evaluated: {error}") from None

    def _around(self, source: str, undefined: Sequence[str]) -> str:
        """Give an expression the plugins' functions that it names, and the names that are undefined here."""
        functions = {name: text for name, text in self.realm.registry.functions.items() if name in source}
        if not functions and not undefined:
            return source
        names = ", ".join([*functions, *undefined])
        return f"(({names}) => ({source}))({', '.join(f'({text})' for text in functions.values())})"


def _with_item(scope: Scope, item: Json, index: int) -> Scope:
    return attrs.evolve(scope, item=item, index=index)
