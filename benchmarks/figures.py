"""Figures measured in rounds, the tables of them, and what of them the README shows."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from report import DASH


def number(value: float) -> str:
    """With as many digits as say something."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


@dataclass
class Series:
    """One contestant at one task: figures by name, one for each round, or the reason why there are none."""

    name: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    reason: str | None = None
    goals: list[str] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        """Over the rounds; `None` where there are none."""
        values = self.rounds.get(name)
        return statistics.median(values) if values else None

    def shown(self, name: str) -> str:
        median = self.median(name)
        return DASH if median is None else number(median)

    def span(self, name: str) -> str:
        values = self.rounds.get(name)
        return f"{number(min(values))} … {number(max(values))}" if values else DASH

    def ratio(self, name: str, other: "Series | None") -> float | None:
        """The median as a share of another's."""
        mine, its = self.median(name), other.median(name) if other is not None else None
        return None if mine is None or its is None else mine / its

    def judge(self, words: str, value: float | None, met: Callable[[float], bool]) -> bool | None:
        """Note whether a goal was reached. Returns whether; `None`: it was not measured."""
        if value is None:
            return None
        reached = met(value)
        self.goals.append(f"{words}: {number(value)}, {'met' if reached else 'MISSED'}")
        return reached

    @property
    def note(self) -> str:
        """The goals, or why there are no figures."""
        if self.reason:
            return f"not available ({self.reason})"
        closed = sum(self.rounds.get("again", []))
        return "; ".join([*self.goals, *([f"closed {closed:,.0f} connections in use"] if closed else [])])


@dataclass
class Part:
    """A table with a heading and, where it needs one, a text."""

    title: str
    text: str
    table: list[list[str]]
