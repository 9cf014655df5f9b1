"""The stages of a record: drawn from the machine's own data, by watching it run the cases of the law.

``TRANSITIONS`` says which facts mean something in which stage. Where a record goes then is not written down anywhere:
it is seen when the machine replays the journal of every case in ``tests/law``. So a drawing that is not true cannot be made, and a case
that shows a new way through the stages makes the drawing stale.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final
from unittest import mock

from orchestrator_core import commands, events, state
from orchestrator_core.events import Event
from orchestrator_core.graph import make_plan
from orchestrator_core.machine import TRANSITIONS, Machine
from orchestrator_core.state import Record, Stage
from orchestrator_core.testing.cases import load_case
from orchestrator_core.testing.simulate import describe, simulate

__all__ = ["observe", "page", "picture"]

# From and to (None: not due yet), and what is the event's name.
Arrows = Mapping[tuple[Stage | None, Stage], frozenset[str]]

_MEANING: Final[Mapping[Stage, str]] = {
    Stage.ASKING: "it is due; `when` or `for_each` is being evaluated",
    Stage.QUEUED: "it is due and wants a slot",
    Stage.ACTIVE: "an attempt holds a slot",
    Stage.WAITING: "for a time or a signal; nothing is held",
    Stage.DELAYED: "between two attempts; no slot is held",
    Stage.OPEN: "its items, its body or its child execution run; no slot is held",
    Stage.ENDED: "for good",
}
_STATUS: Final[Mapping[Stage, str]] = {
    **{stage: status.value for stage, status in state._STATUS.items()},  # noqa: SLF001 - the table that results use
    Stage.ENDED: "succeeded, failed, skipped, cancelled",
}
_AT: Final[Mapping[Stage, tuple[int, int]]] = {
    Stage.ASKING: (210, 200),
    Stage.QUEUED: (400, 200),
    Stage.ACTIVE: (660, 200),
    Stage.ENDED: (900, 200),
    Stage.WAITING: (530, 80),
    Stage.DELAYED: (530, 320),
    Stage.OPEN: (210, 400),
}
_START: Final = (60, 200)
_SIZE: Final = (104, 44)
# How each arrow runs (an SVG path) and where its label stands. What is seen and not here fails, and the other way round.
_ROUTES: Final[Mapping[tuple[Stage | None, Stage], tuple[str, tuple[int, int]]]] = {
    (None, Stage.ASKING): ("M 70 200 L 154 200", (112, 192)),
    (None, Stage.QUEUED): ("M 68 194 C 120 130 320 130 378 175", (225, 138)),
    (None, Stage.ACTIVE): ("M 67 207 C 130 280 560 280 632 226", (290, 266)),
    (None, Stage.OPEN): ("M 64 209 C 75 330 100 395 154 399", (84, 330)),
    (None, Stage.ENDED): ("M 61 189 C 70 -20 890 -20 903 175", (480, 26)),
    (Stage.ASKING, Stage.QUEUED): ("M 262 200 L 344 200", (303, 192)),
    (Stage.ASKING, Stage.OPEN): ("M 210 222 L 210 374", (210, 320)),
    (Stage.QUEUED, Stage.ACTIVE): ("M 452 200 L 604 200", (530, 192)),
    (Stage.QUEUED, Stage.ENDED): ("M 430 222 C 480 268 800 268 866 226", (764, 270)),
    (Stage.ACTIVE, Stage.WAITING): ("M 650 178 C 640 130 610 100 586 88", (672, 130)),
    (Stage.WAITING, Stage.QUEUED): ("M 478 88 C 440 100 415 130 406 174", (398, 118)),
    (Stage.WAITING, Stage.ENDED): ("M 582 74 C 760 70 840 110 884 174", (770, 84)),
    (Stage.ACTIVE, Stage.DELAYED): ("M 655 222 C 640 270 615 300 586 312", (664, 300)),
    (Stage.DELAYED, Stage.QUEUED): ("M 478 312 C 440 295 415 265 406 226", (398, 302)),
    (Stage.DELAYED, Stage.ENDED): ("M 582 326 C 760 330 850 300 888 226", (770, 336)),
    (Stage.ACTIVE, Stage.ENDED): ("M 712 200 L 844 200", (780, 180)),
    (Stage.OPEN, Stage.ENDED): ("M 262 404 C 600 420 890 400 900 226", (590, 406)),
}


class _Watch:
    """Notes the stages that records go through while a machine replays a journal, event by event."""

    def __init__(self) -> None:
        # By path and number of the event: where the record came from, where it went, and the event.
        self.seen: dict[tuple[str, int], tuple[Stage | None, Stage, Event]] = {}
        self._event: Event | None = None
        self._number = 0
        self._slot: Any = Record.__dict__["stage"]

    def one_by_one(self, journal: Iterable[Event]) -> Iterator[Event]:
        """The events, noting which of them is being applied."""
        for self._number, self._event in enumerate(journal):
            yield self._event
        self._event = None

    def get(self, record: Record) -> Stage:
        return self._slot.__get__(record, Record)  # type: ignore[no-any-return]  # a slot's descriptor

    def set(self, record: Record, stage: Stage) -> None:
        try:
            before: Stage | None = self.get(record)
        except AttributeError:
            before = None
        self._slot.__set__(record, stage)
        if self._event is not None:
            # Within one event only where it came from and where it went counts.
            first = self.seen.get((record.path, self._number), (before,))[0]
            self.seen[record.path, self._number] = (first, stage, self._event)


def observe(cases: Sequence[Path]) -> Arrows:
    """The ways that records take through the stages when a machine replays the journals of these cases."""
    arrows: dict[tuple[Stage | None, Stage], set[str]] = defaultdict(set)
    for file in cases:
        case = load_case(file)
        given = {"payload": case.payload, "start": case.start, "pins": case.pins, "script": case.script}
        journal = simulate(case.workflow, happens=case.happens, **given).events
        watch = _Watch()
        machine = Machine(make_plan(case.workflow, describe, start=case.start))
        with mock.patch.object(Record, "stage", property(watch.get, watch.set)):
            machine.replay(watch.one_by_one(journal))
        for before, after, event in watch.seen.values():
            if before is not after:
                arrows[before, after].add(type(event).__name__)
    return {pair: frozenset(names) for pair, names in arrows.items()}


def check(arrows: Arrows) -> None:
    """Hold what was seen against the table and the drawing.

    Raises:
        ValueError: They disagree; the text says where.
    """
    facts = {fact.__name__: stages for fact, stages in TRANSITIONS.items()}
    for (before, after), names in arrows.items():
        for name in names:
            if name in facts and before not in facts[name]:
                raise ValueError(f"{name} moved a record from {before} to {after}, which TRANSITIONS does not allow")
    undrawn = [pair for pair in arrows if pair not in _ROUTES]
    unseen = [pair for pair in _ROUTES if pair not in arrows]
    if undrawn or unseen or set(_AT) != set(Stage) or set(_MEANING) != set(Stage):
        raise ValueError(f"the drawing lacks {undrawn}, and no case shows {unseen}: mend docs/_tools/machine_page.py")


def picture(arrows: Arrows) -> str:
    """The stages and the arrows between them as SVG.

    Raises:
        ValueError: What was seen cannot be drawn, or is not allowed.
    """
    check(arrows)
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 440" width="980" height="440" role="img">',
        "<title>The stages of a record</title>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">',
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#64748b"/></marker>',
        '<g font-family="system-ui, sans-serif">',
        '<rect width="980" height="440" rx="8" fill="#ffffff"/>',
        f'<circle cx="{_START[0]}" cy="{_START[1]}" r="9" fill="#0f172a"/>',
    ]
    for pair, (path, _) in _ROUTES.items():
        lines.append(
            f'<path d="{path}" fill="none" stroke="{_stroke(pair)}" stroke-width="1.4" marker-end="url(#tip)"/>'
        )
    for stage, (x, y) in _AT.items():
        lines += _box(stage, x, y)
    for pair, (_, at) in _ROUTES.items():
        lines += _label(sorted(arrows[pair]), *at)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _stroke(pair: tuple[Stage | None, Stage]) -> str:
    return "#94a3b8" if pair[1] is Stage.ENDED and pair[0] is not Stage.ACTIVE else "#475569"


def _box(stage: Stage, x: int, y: int) -> list[str]:
    width, height = _SIZE
    fill = {Stage.ACTIVE: "#dbeafe", Stage.ENDED: "#dcfce7", Stage.WAITING: "#fef3c7"}.get(stage, "#f1f5f9")
    colours = f'fill="{fill}" stroke="#64748b"'
    status = "" if stage is Stage.ENDED else _STATUS[stage]
    return [
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="8" {colours}/>',
        f'<text x="{x}" y="{y - 1}" text-anchor="middle" font-size="14" font-weight="600" fill="#0f172a">{stage.name}</text>',
        f'<text x="{x}" y="{y + 15}" text-anchor="middle" font-size="11" fill="#475569">{status}</text>',
    ]


def _label(names: Sequence[str], x: int, y: int) -> list[str]:
    lines = []
    top = y - 12 * (len(names) - 1)
    for number, name in enumerate(names):
        lines.append(
            f'<text x="{x}" y="{top + 12 * number}" text-anchor="middle" font-size="10.5" fill="#334155" '
            f'stroke="#ffffff" stroke-width="3" paint-order="stroke">{escape(name)}</text>'
        )
    return lines


def page() -> str:
    """The page about the machine: the drawing, the table behind it, events and commands."""
    lines = [
        "# The machine's tables",
        "",
        "The machine is a fold over events: `receive(event)` takes one fact and gives the events to write down and the",
        "commands to carry out. This page is made from its data; what it means is told in",
        "[the law of execution](../concepts/law.md).",
        "",
        "## The stages of a record",
        "",
        "A record is one node in one execution, or one item of its `for_each`. The arrows are those that records take when",
        "the machine runs the project's cases of the law; an arrow bears the name of the event that moves the record.",
        "",
        "![The stages of a record and the events between them](machine.svg)",
        "",
        "| stage | status | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{stage.name}` | {_STATUS[stage]} | {_MEANING[stage]} |" for stage in Stage]
    lines += ["", "## Which facts mean something when", ""]
    lines += [
        "A fact about a record in any other stage is stale: it is dropped and leaves no event. What no history can produce",
        "raises `IllegalEvent`, and nothing has changed. (`ExecutionStarted` comes first and once; `SignalReceived` is kept",
        "in every stage.)",
        "",
        "| fact | " + " | ".join(f"`{stage.name}`" for stage in Stage) + " |",
        "|---|" + ":-:|" * len(Stage),
    ]
    for fact, stages in TRANSITIONS.items():
        lines.append(f"| `{fact.__name__}` | " + " | ".join("✓" if stage in stages else "·" for stage in Stage) + " |")
    lines += ["", "## Events", "", "Facts come from outside:", ""]
    lines += [f"- `{kind.__name__}`: {_doc(kind)}" for kind in events.FACTS]
    lines += [
        "",
        "Decisions are the machine's own, written down so that a newer machine reads an old journal as it was:",
        "",
    ]
    lines += [f"- `{kind.__name__}`: {_doc(kind)}" for kind in events.DECISIONS]
    lines += ["", "## Commands", "", "What the machine asks its driver to do:", ""]
    lines += [f"- `{name}`: {_doc(getattr(commands, name))}" for name in commands.__all__ if name != "Command"]
    lines += ["", f"The event schema's number is {events.EVENT_SCHEMA}.", ""]
    return "\n".join(lines)


def _doc(kind: type[Any]) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
