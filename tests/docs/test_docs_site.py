"""The site builds without a warning and without the network, and nothing on it leads to nowhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from docs_examples import PAGES, ROOT

pytest.importorskip("sphinx", reason="the documentation's own requirements (docs/requirements.txt) are not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "-d", str(out / "trees")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(out / "html")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return out / "html"


def test_every_page_is_built(site):
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).exists()


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["'](https?:)?//""")
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text(encoding="utf-8")), f"{page.name} loads something from elsewhere"


def test_the_state_diagram_and_the_pictures_are_on_their_pages(site):
    assert "machine.svg" in (site / "reference" / "machine.html").read_text(encoding="utf-8")
    assert (site / "concepts" / "law.html").read_text(encoding="utf-8").count(".svg") >= 10


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: there is no {target}"


def test_the_figures_of_the_server_in_the_readme_are_those_of_its_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "benchmarks-server.md").read_text(encoding="utf-8")
    block = readme.partition("<!-- figures: server -->")[2].partition("<!-- /figures: server -->")[0]
    rows = [line.split("|") for line in block.splitlines() if line.startswith("| ")][1:]
    told = [figure for row in rows for figure in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)", row[2])]
    assert len(told) >= 10
    for figure in told:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d.,]*\d)", page), f"{figure} is not on the page"


def test_the_first_commands_of_the_readme():
    blocks = re.findall(
        r"^```(?:console|sh)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [block.strip().removeprefix("$ ") for block in blocks[:2]] == ["python3 go.py demo", "python3 go.py test"]


def test_no_page_names_a_place_of_one_machine():
    for page in PAGES:
        found = re.findall(r"(?<![\w.:/}-])/(?:home|root|opt|tmp|usr|var|srv)/\w+", page.read_text(encoding="utf-8"))
        assert not found, f"{page}: {found}"
