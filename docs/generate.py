"""Writes what is made from the code: the reference, the drawing of the machine's stages, the pictures on the pages.

``python -m docs.generate`` from the root of the repository writes the files; with ``--check`` it names those that are
stale and ends with 1. The files are kept in the repository, so that they can be read without building anything.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from docs._tools import document_page, features_page, machine_page, pictures, reference

__all__ = ["files", "main", "stale"]

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_NOTE = "<!-- Made by `python -m docs.generate`; do not edit. -->\n\n"
_SANDBOX = "[The sandbox](../concepts/sandbox.md) says how it works, and which of this expressions have."
_PYTHON = "[Code nodes in Python](../how-to/python-code.md) says how to use it."


def files() -> Mapping[Path, str]:
    """Every generated file and what belongs into it."""
    kinds = reference.node_types()
    arrows = machine_page.observe(sorted((ROOT / "tests" / "law").glob("*.yaml")))
    tables = ROOT / "tests" / "nodes_std"
    made = {
        "reference/nodes/index.md": _NOTE + reference.node_index(kinds),
        **{f"reference/nodes/{kind.name}.md": _NOTE + reference.node_page(kind) for kind in kinds},
        "reference/hooks.md": _NOTE + reference.hook_page(),
        "reference/commands.md": _NOTE + reference.command_page(),
        "reference/errors.md": _NOTE + reference.error_page(),
        "reference/document.md": _NOTE + document_page.page(),
        "reference/javascript.md": _NOTE
        + features_page.page(tables / "javascript_features.toml", "JavaScript", _SANDBOX),
        "reference/python.md": _NOTE + features_page.page(tables / "python_features.toml", "Python", _PYTHON),
        "reference/workflow.schema.json": document_page.schema_text(),
        "reference/machine.md": _NOTE + machine_page.page(),
        "reference/machine.svg": machine_page.picture(arrows),
    }
    drawn = {DOCS / name: text for name, text in made.items()}
    for page in sorted([*DOCS.rglob("*.md"), ROOT / "README.md"]):
        if "_build" not in page.parts and page not in drawn:
            drawn.update(pictures.pictures(page))
    return drawn


def _kept() -> set[Path]:
    """Generated files that are there."""
    return {*DOCS.glob("reference/nodes/*.md"), *DOCS.glob("**/pictures/*.svg")}


def stale(made: Mapping[Path, str]) -> Sequence[str]:
    """What is not as it would be made now: files that differ, are missing, or are left over."""
    wrong = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return sorted(str(path.relative_to(ROOT)) for path in {*wrong, *(_kept() - made.keys())})


def main(arguments: Sequence[str]) -> int:
    """Write the files, or check them."""
    made = files()
    wrong = stale(made)
    for name in wrong:
        sys.stdout.write(f"{'stale' if '--check' in arguments else 'written'}: {name}\n")
    if "--check" in arguments:
        return 1 if wrong else 0
    for path in _kept() - made.keys():
        path.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
