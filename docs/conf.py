"""Configuration of the documentation site: `make docs` builds it, `make docs-serve` shows it."""

from importlib.metadata import files
from pathlib import Path
import shutil
import sys

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `benchmarks` and `docs`

from docs.book import directives, pages

project = "Deep RL in Keras"
author = copyright = "the deep-rl-keras founders"  # Sphinx's names
extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["attrs_block", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 3
root_doc = "index"
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_favicon = "static/icon.svg"
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
mathjax_path = "mathjax/tex-chtml.js"
ASSETS = {  # distribution: files of it that the browser needs, and the folder below _static for them
    "sphinx-mathjax-offline": (("tex-chtml.js", "chtml/fonts/woff-v2/"), "mathjax"),
    "plotly": (("package_data/plotly.min.js",), ""),
}


def copy_assets(app, exception) -> None:
    """Copy MathJax, its fonts, and Plotly from the installed packages, so that the site needs no CDN."""
    for distribution, (wanted, folder) in ASSETS.items():
        for file in files(distribution):
            if any(part in str(file) for part in wanted):
                inner = str(file).partition(f"{folder}/")[2] if folder else file.name
                target = Path(app.outdir, "_static", folder, inner.rpartition("static/mathjax/")[2] or inner)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)


def setup(app) -> None:
    """Prepare the pages, register the directives, and copy the assets at the end."""
    pages.prepare(Path(app.srcdir))
    for name, directive in directives.DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("build-finished", copy_assets)
