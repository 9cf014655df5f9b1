"""Which known word was meant by one that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known word that was probably meant: one letter in three may be wrong, capitals do not count. Empty: none."""
    most = max(1, (len(name) + 1) // 3)
    best = min(known, key=lambda other: _distance(other.lower(), name.lower()), default="")
    return best if best and _distance(best.lower(), name.lower()) <= most else ""


def _distance(a: str, b: str) -> int:
    """Levenshtein's distance between two short words."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
