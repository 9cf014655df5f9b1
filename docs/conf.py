"""How Sphinx builds the documentation: ``sphinx-build -W --keep-going -n docs docs/_build/html``, without the network."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "orchestrator"
author = "the maintainers"
version = release = installed("pluggable-orchestrator-core")
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_tools", "requirements.txt"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# `output` blocks show what the block above prints; the tests compare it.
highlight_language = "none"
suppress_warnings: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Single backticks in docstrings are code, as in the Markdown pages that are made of them.
default_role = "code"

nitpicky = True
# Names of other projects, and what appears in signatures without being public: it has no entry of its own.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|typing|pathlib|datetime|random|types|asyncio)\..*"),
    (r"py:.*", r"(anyio|attrs|click|httpx|hypothesis|pluggy|strategies|st)\..*"),
    (r"py:.*", r"orchestrator_core\.(configs|driver|expressions|fold|graph|plugins|realm|state)\.\w+"),
    (r"py:.*", r"(orchestrator_core\.build\.)?(P|R|N|W|_Wired|_Graph)"),
    (r"py:class", r"floating point number"),  # Python's own docstring of `time.time`
    (r"py:.*", r"orchestrator_core\.types\.(Duration|Json|Pins|Join|FailureMode)"),
]

html_theme = "furo"
html_title = "orchestrator"
html_static_path: list[str] = []
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
