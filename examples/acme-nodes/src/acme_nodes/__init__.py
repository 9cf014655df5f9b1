"""Node types of the Acme company: a plugin, in one file.

Found through the entry point ``acme`` of the group ``orchestrator.plugins`` as soon as the package is installed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from orchestrator_core import NodeContext, NodeError, NodeType, hookimpl, node_type, setting

__all__ = ["redact", "register_node_types", "slugify"]


# --- acme.slugify ------------------------------------------------------------------------------------------------------


def _separator(_config: Any, _attribute: Any, value: str) -> None:
    if not re.fullmatch(r"[-_.~]", value):
        raise ValueError("`separator` must be one of - _ . ~: other characters have a meaning in addresses")


@attrs.frozen
class SlugifyConfig:
    """The settings of `acme.slugify`."""

    separator: str = setting(default="-", description="What stands between two words.", validator=_separator)
    max_length: int = setting(
        default=80, description="The longest slug; words are never cut.", validator=attrs.validators.ge(1)
    )


@node_type("acme.slugify", version=1, title="Slugify", pure=True, example={"separator": "-", "max_length": 60})
async def slugify(ctx: NodeContext, config: SlugifyConfig, input: str) -> str:
    """Turn a title into the part of an address that names it: `Crème brûlée!` becomes `creme-brulee`."""
    if not isinstance(input, str):
        raise NodeError(
            f"acme.slugify needs a text, but its input is {type(input).__name__}: pick the text with a `set` node before",
            code="bad_input",
        )
    plain = unicodedata.normalize("NFKD", input).encode("ascii", "ignore").decode()
    slug = ""
    for word in re.findall(r"[a-z0-9]+", plain.lower()):
        longer = f"{slug}{config.separator}{word}" if slug else word
        if len(longer) > config.max_length:
            break
        slug = longer
    if not slug:
        raise NodeError(f"nothing of {input[:40]!r} can stand in an address", code="empty_slug")
    if len(slug) < len(plain.strip()) // 2:
        ctx.log.warning(f"much was left out of {input[:80]!r}: {slug!r}")
    return slug


# --- acme.redact -------------------------------------------------------------------------------------------------------

Kind = Literal["email", "card", "phone"]

_PATTERNS: Mapping[Kind, re.Pattern[str]] = {
    "email": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    "card": re.compile(r"\b\d(?:[ -]?\d){12,18}\b"),
    "phone": re.compile(r"\+\d{1,3}[ -]?\d(?:[ -]?\d){5,12}\b"),
}


@attrs.frozen
class RedactConfig:
    """The settings of `acme.redact`."""

    kinds: list[Kind] = setting(
        factory=lambda: list(_PATTERNS),
        description="What to look for: e-mail addresses, card numbers (with a right check digit), phone numbers.",
        examples=[["email"]],
        validator=attrs.validators.min_len(1),
    )
    replacement: str = setting(default="[removed]", description="What stands there instead.")


@node_type(
    "acme.redact",
    version=1,
    title="Redact",
    ports=("main", "found"),
    pure=True,
    example={"kinds": ["email", "card"], "replacement": "***"},
)
async def redact(ctx: NodeContext, config: RedactConfig, input: Any) -> None:
    """Take personal data out of every text of the input, however deep it lies.

    `main` delivers the same value without it. `found` delivers a list of `{place, kind}`, and only where there was
    something: an edge from it is a branch for those cases.
    """
    found: list[dict[str, str]] = []
    ctx.emit("main", _cleaned(input, "$", config, found))
    if found:
        ctx.emit("found", found)
        ctx.log.info(f"removed {len(found)} {'piece' if len(found) == 1 else 'pieces'} of personal data")


def _cleaned(value: Any, place: str, config: RedactConfig, found: list[dict[str, str]]) -> Any:
    """A copy; the input belongs to others, too."""
    if isinstance(value, dict):
        return {key: _cleaned(item, f"{place}.{key}", config, found) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, f"{place}[{index}]", config, found) for index, item in enumerate(value)]
    if isinstance(value, str):
        for kind in config.kinds:
            value = _without(value, kind, place, config, found)
    return value


def _without(text: str, kind: Kind, place: str, config: RedactConfig, found: list[dict[str, str]]) -> str:
    def replaced(match: re.Match[str]) -> str:
        if kind == "card" and not _check_digit_is_right(match.group()):
            return match.group()
        found.append({"place": place, "kind": kind})
        return config.replacement

    return _PATTERNS[kind].sub(replaced, text)


def _check_digit_is_right(text: str) -> bool:
    """Luhn's check (ISO/IEC 7812): it tells card numbers from order numbers."""
    digits = [int(digit) for digit in text if digit.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


@hookimpl
def register_node_types() -> list[NodeType]:
    """The node types of this plugin."""
    return [slugify, redact]
