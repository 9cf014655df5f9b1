"""The figures of a run as tables: the same for the terminal and for a Markdown document."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graphs import CHAIN, FAN_OUT, LAYERED

DASH = "-"


@dataclass
class Cell:
    """One contestant at one shape and size: a figure for each round, or the reason why there is none."""

    contestant: str
    nodes: int = 0
    plan: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)
    """Seconds, one for each round; so too `plan`."""
    growth: list[float] = field(default_factory=list)
    """Bytes of resident memory, at the peak, beyond the input."""
    reason: str | None = None

    @property
    def total(self) -> list[float]:
        """Seconds for plan and run together, one for each round."""
        return [plan + run for plan, run in zip(self.plan, self.run, strict=True)]


@dataclass
class Section:
    """One shape at one size: what is compared, with what, and the cells."""

    shape: str
    size: int
    cells: list[Cell] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What is measured, as a heading."""
        return {
            CHAIN: f"Chain of {self.size:,} nodes that do nothing",
            FAN_OUT: f"Fan-out 1 → {self.size:,} → 1, each node suspends once",
            LAYERED: f"Layered graph of {self.size:,} nodes, 3 edges each: plan and run",
        }[self.shape]

    @property
    def floor(self) -> str:
        """The contestant that the others are divided by."""
        return {CHAIN: "asyncio.create_task", FAN_OUT: "asyncio.gather", LAYERED: "smallest loop"}[self.shape]

    def clocked(self, cell: Cell) -> list[float]:
        """What is compared: the run alone of a shape that is planned once, else plan and run."""
        return cell.total if self.shape == LAYERED else cell.run

    def ratio(self, cell: Cell) -> float | None:
        """The cell's median over the floor's; `None` where one of them has no figure."""
        floor = next((other for other in self.cells if other.contestant == self.floor), None)
        if floor is None or not floor.run or not cell.run:
            return None
        return statistics.median(self.clocked(cell)) / statistics.median(self.clocked(floor))


@dataclass(frozen=True)
class Target:
    """What ours is meant to reach."""

    shape: str
    size: int
    what: str
    unit: str
    limit: float


TARGETS = (
    Target(CHAIN, 1_000, "run", "x asyncio.create_task", 1.5),
    Target(FAN_OUT, 10_000, "run", "x asyncio.gather", 2.5),
    Target(LAYERED, 100_000, "plan and run", "x the smallest loop", 5.0),
    Target(LAYERED, 100_000, "memory", "KiB a node beyond the document", 3.0),
)


def reached(target: Target, sections: Sequence[Section], ours: str) -> float | None:
    """The figure of ours for a target; `None` where it was not measured."""
    for section in sections:
        for cell in section.cells:
            if (section.shape, section.size, cell.contestant) == (target.shape, target.size, ours) and cell.run:
                return kib(cell) if target.what == "memory" else section.ratio(cell)
    return None


def kib(cell: Cell) -> float:
    """KiB a node beyond the input, at the peak."""
    return statistics.median(cell.growth) / cell.nodes / 1024


def milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def rows(section: Section) -> list[list[str]]:
    """The table of a section, its head first, the quickest contestant on top."""
    head = ["contestant", "plan ms", "run ms"]
    if section.shape == LAYERED:
        head.append("plan + run ms")
    table = [[*head, "least … most", "µs a node", f"x {section.floor}", "KiB a node", "note"]]
    known = sorted(
        (cell for cell in section.cells if cell.run), key=lambda cell: statistics.median(section.clocked(cell))
    )
    for cell in known:
        clocked = section.clocked(cell)
        row = [cell.contestant, milliseconds(statistics.median(cell.plan)), milliseconds(statistics.median(cell.run))]
        if section.shape == LAYERED:
            row.append(milliseconds(statistics.median(clocked)))
        ratio = section.ratio(cell)
        row += [
            f"{milliseconds(min(clocked))} … {milliseconds(max(clocked))}",
            f"{statistics.median(clocked) / cell.nodes * 1e6:.1f}",
            DASH if ratio is None else f"{ratio:.2f}",
            f"{kib(cell):.2f}",
            cell.reason or "",
        ]
        table.append(row)
    for cell in section.cells:
        if not cell.run:
            table.append([cell.contestant, *[DASH] * (len(table[0]) - 2), cell.reason or ""])
    return table


def as_text(table: list[list[str]]) -> str:
    """Columns padded to one width; numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    last = len(widths) - 1

    def line(row: list[str]) -> str:
        parts = [text.ljust(widths[i]) if i in (0, last) else text.rjust(widths[i]) for i, text in enumerate(row)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(table[0]), "  ".join("-" * width for width in widths), *map(line, table[1:])])


def as_markdown(table: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(table[0]) - 2), "---"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [table[0], rule, *table[1:]])


def verdicts(sections: Sequence[Section], ours: str) -> list[tuple[str, bool | None]]:
    """A line for each target, and whether it was met (`None`: not measured)."""
    told: list[tuple[str, bool | None]] = []
    for target in TARGETS:
        figure = reached(target, sections, ours)
        met = None if figure is None else figure <= target.limit
        word = {None: "not measured", True: f"{figure or 0:.2f}, met", False: f"{figure or 0:.2f}, MISSED"}[met]
        told.append(
            (f"{target.shape} {target.size:,}, {target.what}: at most {target.limit} {target.unit}: {word}", met)
        )
    return told


def machine(versions: dict[str, str]) -> list[str]:
    """Processor, cores, memory, system, Python, how busy the machine was, and the versions measured."""
    model, total = platform.processor() or platform.machine(), "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        total = f"{int(Path('/proc/meminfo').read_text().split()[1]) / 2**20:.0f} GiB"
    except OSError:
        pass  # not Linux: what platform knows must do
    return [
        f"processor: {model}, {os.cpu_count()} cores; memory: {total}; system: {platform.system()} {platform.release()}",
        f"Python: {platform.python_implementation()} {platform.python_version()}",
        f"load average when the run began: {os.getloadavg()[0]:.2f}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    ]


@dataclass
class Report:
    """Everything a reader needs to judge the figures and to make them again."""

    command: str
    rounds: int
    clock: str
    ours: str
    facts: list[str]
    how: dict[str, str]
    sections: list[Section] = field(default_factory=list)

    @property
    def method(self) -> list[str]:
        """How the figures came to be, in sentences."""
        return [
            (
                f"Medians of {self.rounds} round(s), by {self.clock} time. A round runs every contestant once, in turn, "
                "each in a new process, after a warm-up with a small graph and a garbage collection."
            ),
            (
                "Every node function of every contestant counts itself: a figure is kept only if each node ran once "
                "and the result speaks for all of them."
            ),
            (
                "Chain and fan-out are planned once in an application's life, so the run is compared; the layered "
                "graphs are compared from plain lists (ours: from the workflow, read and checked) to the results."
            ),
            (
                "Memory is the growth of the resident set at its peak (VmHWM, reset beforehand) beyond imports and "
                "input."
            ),
        ]

    def text(self) -> str:
        """For a terminal."""
        parts = ["\n".join(self.facts), "\n".join(self.method)]
        parts += [f"{section.title}\n\n{as_text(rows(section))}" for section in self.sections]
        parts.append("Targets of ours\n\n" + "\n".join(line for line, _ in verdicts(self.sections, self.ours)))
        parts.append("\n".join(f"{name}: {how}" for name, how in self.how.items()))
        return "\n\n".join(parts).replace("`", "") + "\n"

    def markdown(self) -> str:
        """For the documentation."""
        parts = ["# Engine benchmarks", f"Made by `{self.command}`.", " ".join(self.method)]
        parts.append("\n".join(f"- {fact}" for fact in self.facts))
        parts += [f"## {section.title}\n\n{as_markdown(rows(section))}" for section in self.sections]
        lines = "\n".join(f"- {line}" for line, _ in verdicts(self.sections, self.ours))
        parts.append("## Targets of ours\n\n" + lines)
        parts.append("## How each is used\n\n" + "\n".join(f"- {name}: {how}." for name, how in self.how.items()))
        return "\n\n".join(parts) + "\n"
