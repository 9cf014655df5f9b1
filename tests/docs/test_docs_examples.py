"""Every example in README.md, CHANGELOG.md, docs/ and the packages' docstrings does what it says."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from docs_examples import (
    EXECUTED,
    MODULES,
    PAGES,
    PATIENCE,
    ROOT,
    SHOWN,
    Wrong,
    check_shown,
    fences,
    run_module,
    run_page,
)


@pytest.fixture(autouse=True)
def _in_time():
    """An example that hangs fails, and says where."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(number, frame):
        raise Wrong(f"nothing came of it in {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_examples_of_a_page(page, tmp_path):
    found = list(fences(page.read_text(encoding="utf-8")))
    for fence in found:
        assert fence.language in {*EXECUTED, *SHOWN}, (
            f"{page}:{fence.line}: what is {fence.language!r}? see docs_examples"
        )
        check_shown(fence)
    state = run_page(page, tmp_path)
    # Sybil must find what a simple look at the page finds, and execute it.
    assert state.found == sum(fence.language in EXECUTED for fence in found)
    # What a page of features shows is executed entry by entry, by the tests that make sure of the features.
    elsewhere = page.parent.name == "reference" and page.name == "python.md"
    assert not found or elsewhere or state.found > state.left_out, f"{page} shows examples and executes none"


@pytest.mark.parametrize(("name", "program"), [("server.md", "shop.py"), ("approvals.md", "decide.py")])
def test_programs_of_a_server_begin_in_an_empty_folder_and_again(name, program, tmp_path):
    found = {
        fence.body.partition("\n")[0]: fence.body for fence in fences((ROOT / "docs/how-to" / name).read_text("utf-8"))
    }
    (shown,) = [body for line, body in found.items() if line == f"$ python {program}"]
    page = tmp_path / "page.md"
    block = f"```console\n{shown}```\n\n"
    page.write_text(f"```python\n{found[f'# {program}']}```\n\n{block}{block}", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    run_page(page, tmp_path / "empty")


DOCTESTED = [module for module in MODULES if ">>> " in module.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", DOCTESTED, ids=_name)
def test_the_examples_in_docstrings(module, tmp_path):
    assert run_module(module, tmp_path) > 0


def test_there_are_examples_everywhere():
    executed = {page: [f for f in fences(page.read_text(encoding="utf-8")) if f.language in EXECUTED] for page in PAGES}
    pages = [_name(page) for page, found in executed.items() if found]
    assert len(pages) >= 20, pages
    assert sum(map(len, executed.values())) >= 100
    assert DOCTESTED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "the page shows"),
        ("```python\nprint(1)\n```\n", "no `output` block"),
        ("```python\nraise ValueError('x')\n```\n", "ValueError: x"),
        ("```yaml\nnodes: [{id: a, type: nonsense}]\n```\n", "there is no node type 'nonsense'"),
        ("```yaml\n- {id: a, type: if, config: {condition: 1, colour: red}}\n```\n", "is not known here"),
        ("```yaml\nhello: world\n```\n", "a yaml block is"),
        ("```yaml\nworkflow: {nodes: [{id: a, type: script}]}\nexpect: {status: failed}\n```\n", "expected 'failed'"),
        ("```console\n$ orchestrator version\nnothing like it\n```\n", "the page shows"),
        ("```console\n$ orchestrator run missing.yaml\n```\n", "exit code 2"),
        ("```console\n$ rm -rf nothing\n```\n", "may not run 'rm'"),
        ("```python\n# unused.py\nx = 1\n```\n", "nothing uses the file unused.py"),
        ("```javascript\nreturn 1 +;\n```\n", "SyntaxError"),
        ("```toml\na = \n```\n", "TOMLDecodeError"),
    ],
)
def test_a_wrong_example_is_found(tmp_path, text, complaint):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(Wrong, match=complaint):
        run_page(page, tmp_path)
