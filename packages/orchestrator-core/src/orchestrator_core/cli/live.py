"""The live picture of an execution in a terminal: a frame of lines for every state, whatever the terminal's size.

A graph that fits has a line for each node; of a larger one a summary is shown with what runs, waits or failed. No
line is longer than the terminal is wide, and no frame higher than it: the picture never scrolls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from itertools import islice

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.text import Text

from orchestrator_core.cli.progress import Progress, Row, ports_text
from orchestrator_core.cli.text import json_text, one_line, plural
from orchestrator_core.codec import format_duration
from orchestrator_core.types import ExecutionStatus, NodeStatus, Wait

__all__ = ["ASCII_ICONS", "ICONS", "STYLES", "frame", "icons_for"]

ICONS = {
    NodeStatus.PENDING: "○",
    NodeStatus.RUNNING: "►",
    NodeStatus.WAITING: "…",
    NodeStatus.SUCCEEDED: "✓",
    NodeStatus.FAILED: "✕",
    NodeStatus.SKIPPED: "»",
    NodeStatus.CANCELLED: "⊘",
}
ASCII_ICONS = {
    NodeStatus.PENDING: ".",
    NodeStatus.RUNNING: ">",
    NodeStatus.WAITING: "~",
    NodeStatus.SUCCEEDED: "+",
    NodeStatus.FAILED: "x",
    NodeStatus.SKIPPED: "-",
    NodeStatus.CANCELLED: "/",
}
STYLES = {
    NodeStatus.PENDING: "bright_black",
    NodeStatus.RUNNING: "bold blue",
    NodeStatus.WAITING: "yellow",
    NodeStatus.SUCCEEDED: "green",
    NodeStatus.FAILED: "bold red",
    NodeStatus.SKIPPED: "bright_black",
    NodeStatus.CANCELLED: "magenta",
}
_ORDER = (
    NodeStatus.SUCCEEDED,
    NodeStatus.RUNNING,
    NodeStatus.WAITING,
    NodeStatus.FAILED,
    NodeStatus.SKIPPED,
    NodeStatus.CANCELLED,
    NodeStatus.PENDING,
)
_EXECUTION = {
    ExecutionStatus.RUNNING: NodeStatus.RUNNING,
    ExecutionStatus.WAITING: NodeStatus.WAITING,
    ExecutionStatus.SUCCEEDED: NodeStatus.SUCCEEDED,
    ExecutionStatus.FAILED: NodeStatus.FAILED,
    ExecutionStatus.CANCELLED: NodeStatus.CANCELLED,
}
Icons = dict[NodeStatus, str]


def icons_for(encoding: str) -> Icons:
    """The icons that an encoding can write."""
    try:
        "".join([*ICONS.values(), "█░…"]).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII_ICONS
    return ICONS


def frame(progress: Progress, *, now: float, width: int, height: int, icons: Icons | None = None) -> Group:
    """What the terminal shows now: at most ``height - 1`` lines of at most ``width`` cells.

    Args:
        progress: The state.
        now: Seconds since 1970.
        width: The terminal's columns.
        height: The terminal's lines; one stays free for the cursor.
        icons: One for each status.
    """
    icons = icons or ICONS
    room = max(height - 1, 4)
    lines = [_heading(progress, now, width, icons)]
    if progress.note:
        lines.append(_fit(Text(f"  {one_line(progress.note)}", style="yellow"), width))
    logs = min(len(progress.logs), _lines_of_log(progress, room, len(lines)))
    space = room - len(lines) - (logs + 1 if logs else 0)
    if len(progress.rows) <= space:
        lines += _table(progress.rows, now, width, icons)
    else:
        lines += _summary(progress, now, width, space, icons)
    if logs:
        del lines[room - logs - 1 :]
        earlier = progress.logged - logs
        dots = "…" if icons is ICONS else "..."
        title = f"log, {dots} {plural(earlier, 'earlier line')}" if earlier else "log"
        lines.append(Text(_rule(title, width, icons), style="bright_black"))
        for path, line in progress.logs[-logs:]:
            style = {"error": "red", "warning": "yellow"}.get(line.level, "")
            lines.append(_fit(Text(f"{path}  {line.level}: {one_line(line.message, width)}", style=style), width))
    return Group(*(lines[:room] if icons is ICONS else map(_ascii, lines[:room])))


def _lines_of_log(progress: Progress, room: int, heading: int) -> int:
    """How many lines the log may take: a fifth of them, and at the end all that are free."""
    usual = max(min(room // 5, 8), 1)
    return usual if progress.finished_at is None else max(usual, room - heading - len(progress.rows) - 1)


def _ascii(text: Text) -> Text:
    """The same text for terminals that cannot write more; one character for one, so that styles stay in place."""
    text.plain = text.plain.encode("ascii", "replace").decode()
    return text


def _heading(progress: Progress, now: float, width: int, icons: Icons) -> Text:
    state = _EXECUTION[progress.status]
    if state is NodeStatus.RUNNING and progress.counts[NodeStatus.WAITING] and not progress.counts[NodeStatus.RUNNING]:
        state = NodeStatus.WAITING
    # What was cancelled may take its time to end: until then it is not over for those who look on.
    end = now if progress.finished_at is None or progress.note else progress.finished_at
    word = "cancelling" if progress.cancelling and end is now else state.value
    text = Text()
    text.append(f"{icons[state]} {word}", style=STYLES[state])
    text.append(f"  {one_line(progress.name or progress.workflow, max(width // 2, 12))}", style="bold")
    text.append(f"  {progress.ended:,}/{progress.size:,}", style="")
    text.append(f"  {format_duration(max(end - progress.started_at, 0.0))}", style="")
    if progress.finished_at is None and not progress.cancelling and width - text.cell_len > 20:
        text.append(f"  (Ctrl-C {progress.on_interrupt})", style="bright_black")
    return _fit(text, width)


def _rule(title: str, width: int, icons: Icons) -> str:
    dash = "─" if icons is ICONS else "-"
    return f"{dash * 2} {title} {dash * max(width - len(title) - 4, 0)}"[:width]


# --- a line for each node -------------------------------------------------------------------------------------------


def _table(rows: list[Row], now: float, width: int, icons: Icons) -> Iterator[Text]:
    names = min(max((2 * row.depth + cell_len(row.id) for row in rows), default=0), max(width * 2 // 5, 8))
    types = min(max((cell_len(row.type) for row in rows), default=0), 18) if width >= 60 else 0
    for row in rows:
        yield _line(row, now, width=width, names=names, types=types, icons=icons)


def _line(row: Row, now: float, *, width: int, names: int, types: int, icons: Icons) -> Text:
    text = Text()
    text.append(f"{icons[row.status]} ", style=STYLES[row.status])
    text.append(set_cell_size(_cut("  " * row.depth + row.id, names), names))
    if types:
        text.append(f"  {set_cell_size(_cut(row.type, types), types)}", style="bright_black")
    text.append(f"  {row.status.value:<9}", style=STYLES[row.status])
    elapsed = row.elapsed(now)
    text.append(f" {'' if elapsed is None else format_duration(elapsed):>12}  ")
    left = width - text.cell_len
    for number, (part, style) in enumerate(_detail(row, now, icons)):
        before = "" if number == 0 else " · " if icons is ICONS else ", "
        if left < len(before) + 4:
            break
        shown = _cut(part, left - len(before))
        text.append(before, style="bright_black").append(shown, style=style)
        left -= cell_len(shown) + len(before)
    text.rstrip()
    return _fit(text, width)


def _detail(row: Row, now: float, icons: Icons) -> Iterator[tuple[str, str]]:
    """The parts of what else there is to say of a node, each with its style."""
    if row.items is not None:
        bar = f"{_bar(row.done, row.items, 10, icons)} " if row.status is NodeStatus.RUNNING else ""
        yield f"{bar}{row.done:,}/{plural(row.items, 'item')}", "blue" if bar else ""
        if row.failed:
            yield f"{row.failed:,} failed", "red"
        if row.waiting:
            yield f"{row.waiting:,} waiting", "yellow"
    if row.depth and row.times > 1:
        yield f"{row.times:,} ended", "bright_black"
    if row.iteration is not None:
        most = f" ({row.iterations:,} at most)" if row.iterations else ""
        ended = row.finished_at is not None
        yield plural(row.iteration + 1, "iteration") if ended else f"iteration {row.iteration}{most}", ""
    if row.attempt > 1:
        yield f"attempt {row.attempt}/{row.tries}", "yellow"
    if row.due is not None:
        yield f"again in {format_duration(max(row.due - now, 0.0))}", "yellow"
    if row.status is NodeStatus.WAITING and row.wait is not None:
        yield _wait(row.wait, now), "yellow"
    if row.error is not None:
        if row.handled and row.status is NodeStatus.FAILED:
            yield "handled", ""
        yield one_line(f"{row.error.code}: {row.error.message}", 300), "red"
    elif row.reason:
        yield row.reason, "bright_black"
    elif row.ports:
        yield ports_text(row.ports), "bright_black"
    elif row.status is NodeStatus.SUCCEEDED and row.output is not None:
        yield one_line(json_text(row.output, 160), 160), "bright_black"


def _wait(wait: Wait, now: float) -> str:
    if wait.signal is not None:
        expiry = "" if wait.expires is None else f" ({format_duration(max(wait.expires - now, 0.0))} left)"
        return f"signal {one_line(wait.signal)}{expiry}"
    return "" if wait.until is None else f"{format_duration(max(wait.until - now, 0.0))} left"


# --- a summary of many ----------------------------------------------------------------------------------------------


def _summary(progress: Progress, now: float, width: int, space: int, icons: Icons) -> Iterator[Text]:
    """The counts, then as many of the nodes that run, wait or failed as there is room for."""
    total = max(progress.size, 1)
    yield _fit(
        Text(_bar(progress.ended, total, max(width - 8, 10), icons) + f" {100 * progress.ended // total:3d} %"), width
    )
    counts = Text()
    for status in _ORDER:
        if progress.counts[status]:
            counts.append(f"{icons[status]} {progress.counts[status]:,} {status.value}   ", style=STYLES[status])
    counted = _broken(counts, width)
    yield from counted[: max(space - 1, 1)]
    left = space - 1 - len(counted)
    half = max(left // 2, 0)
    shown = list(islice(reversed(progress.troubled.values()), half))[::-1]
    rest = left - len(shown)
    more = len(progress.active) - rest
    for number, row in enumerate(progress.active.values()):
        if number >= rest - (1 if more > 0 else 0):
            break
        shown.append(row)
    if shown:
        yield from _table([_flat(row) for row in shown], now, width, icons)
    if more > 0 and rest > 0:
        yield _fit(Text(f"  and {more + 1:,} more that run or wait", style="bright_black"), width)


def _flat(row: Row) -> Row:
    """A row as it stands outside its tree: with its whole path for a name."""
    if row.depth == 0:
        return row
    flat = copy(row)
    flat.id, flat.depth = row.path, 0
    return flat


def _broken(text: Text, width: int) -> list[Text]:
    """Counts on as many lines as they need."""
    lines: list[Text] = [Text()]
    for part in text.split("   "):
        if part.cell_len and lines[-1].cell_len + part.cell_len + 3 > width and lines[-1].cell_len:
            lines.append(Text())
        if lines[-1].cell_len:
            lines[-1].append("   ")
        lines[-1].append_text(part)
    return [_fit(line, width) for line in lines if line.cell_len]


# --- measures -------------------------------------------------------------------------------------------------------


def _bar(done: int, total: int, width: int, icons: Icons) -> str:
    full, empty = ("█", "░") if icons is ICONS else ("#", ".")
    filled = width if total <= 0 else math.floor(width * min(done / total, 1.0))
    return full * filled + empty * (width - filled)


def _cut(text: str, width: int) -> str:
    """At most so many cells; what is cut off leaves a sign."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…"


def _fit(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text
