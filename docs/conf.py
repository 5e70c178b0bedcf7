"""Configuration of the documentation site: `make docs` builds it, `make docs-serve` shows it."""

from importlib.util import find_spec
from pathlib import Path
import sys

from sphinx.util.fileutil import copy_asset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `benchmarks` and `docs`

from docs.book import directives, pages

project = "Deep RL in Keras"
author = copyright = "the deep-rl-keras founders"  # Sphinx's names
extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["attrs_block", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
root_doc = "index"
PLOTLY, MATHJAX = (Path(find_spec(name).origin).parent for name in ("plotly", "sphinx-mathjax-offline"))
html_theme = "furo"
html_title = project
html_static_path = ["static", str(PLOTLY / "package_data" / "plotly.min.js")]
html_favicon = "static/icon.svg"
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
mathjax_path = "mathjax/tex-chtml.js"


def copy_mathjax(app, exception) -> None:
    """Copy MathJax and its fonts from the installed package, so that the site needs no CDN."""
    source, target = MATHJAX / "static" / "mathjax", Path(app.outdir, "_static", "mathjax")
    for part in ("tex-chtml.js", "output/chtml/fonts/woff-v2"):
        copy_asset(source / part, target / part if (source / part).is_dir() else target)


def setup(app) -> None:
    """Prepare the pages, register the directives, and copy MathJax at the end."""
    pages.prepare(Path(app.srcdir))
    for name, directive in directives.DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("build-finished", copy_mathjax)
