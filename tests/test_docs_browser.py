"""The built site in a browser: run `make docs` first. Needs Chromium and the package playwright.

Pages come from a local server: no file may be missing, and none may come from elsewhere.
"""

import functools
import http.server
import os
from pathlib import Path
import shutil
import threading
from urllib.parse import urldefrag, urljoin, urlparse

import pytest

from tests.conftest import ROOT

SITE = Path(os.environ.get("DOCS_SITE", ROOT / "build" / "docs" / "html"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = os.environ.get("AXE")  # path of axe.min.js, of the npm package axe-core
PAGES = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not PAGES, reason="the site is not built: make docs"),
    pytest.mark.xdist_group("browser"),
]


class Handler(http.server.SimpleHTTPRequestHandler):
    """A server without a log."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """The address of the site."""
    handler = functools.partial(Handler, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="no package playwright")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def tab(browser):
    """An empty tab that fails the test on an error in the console or a file that is missing."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda one: one.failure != "net::ERR_ABORTED" and faults.append(one.url))
    page.on(
        "request", lambda one: faults.append(one.url) if urlparse(one.url).hostname != "127.0.0.1" else None
    )
    yield page
    page.close()
    assert faults == []


def links(page):
    """Return the addresses and the anchors of a loaded page."""
    return page.evaluate(
        "() => [[...document.querySelectorAll('a[href]')].map(a => a.href ?? '').map(h => h.baseVal ?? h),"
        " [...document.querySelectorAll('[id]')].map(one => one.id)]"
    )


def test_all_pages_load_and_all_links_lead_somewhere(site, tab):
    anchors, targets, equations = {}, {}, 0
    for name in PAGES:
        tab.goto(urljoin(site, name), wait_until="load")
        found, ids = links(tab)
        anchors[urljoin(site, name)] = set(ids)
        for target in found:
            resolved = urljoin(urljoin(site, name), target)
            if resolved.startswith(site):
                targets.setdefault(resolved, name)
        if tab.locator(".math").count():
            tab.wait_for_function(
                "() => document.querySelectorAll('.math:not(:has(mjx-container))').length === 0"
            )
            assert tab.locator("mjx-merror").count() == 0, name
            equations += tab.locator("mjx-container").count()
    broken = []
    for target, name in targets.items():
        page, anchor = urldefrag(target)
        page += "index.html" if page.endswith("/") else ""
        known = page in anchors or (SITE / page.removeprefix(site)).exists()
        if not known or (anchor and page in anchors and anchor not in anchors[page]):
            broken.append((name, target))
    print(f"{len(PAGES)} pages, {len(targets)} internal links, {equations} equations")
    assert broken == []
    assert equations > 100


def test_search_finds_terminated(site, tab):
    tab.goto(urljoin(site, "search.html?q=terminated"))
    tab.wait_for_selector("#search-results li a")
    tab.wait_for_function("() => /found \\d+ page/.test(document.body.innerText)")
    found = tab.locator("#search-results li a").all_inner_texts()
    print(f"search finds {len(found)} pages")
    assert len(found) > 10 and any("dqn.py" in title for title in found)


def test_curves_can_be_explored(site, tab):
    tab.goto(urljoin(site, "ppo/index.html"))
    tab.locator(".curves").scroll_into_view_if_needed()
    tab.wait_for_selector(".curves .scatterlayer")
    traces = "() => document.querySelector('.curves .plot').data"
    title = "() => document.querySelector('.curves .plot').layout.xaxis.title.text"
    assert len(tab.evaluate(traces)) == 32  # 30 seeds, their mean, and its band
    assert not tab.locator("img[src*='ppo.png']").is_visible()
    tab.get_by_label("seconds", exact=True).check()
    tab.wait_for_function(f"() => ({title})() === 'seconds from the command'")
    tab.get_by_text("choose seeds").click()
    tab.get_by_label("29", exact=True).uncheck()
    tab.wait_for_function(f"() => ({traces})().length === 31")
    tab.locator("select[name=env]").select_option("Acrobot-v1")
    tab.wait_for_function(f"() => ({traces})().length === 5")


def test_without_scripts_the_static_picture_stays(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(urljoin(site, "ppo/index.html"))
    assert page.locator("img[src*='ppo.png']").is_visible()
    context.close()


def test_an_equation_stands_beside_its_line_and_links_both_ways(site, tab):
    tab.goto(urljoin(site, "ppo/index.html"))
    tab.locator("#eq-4").click()
    tab.wait_for_url("**/ppo/ppo.py.html#equation-4")
    line = tab.locator("#equation-4")
    assert "policy_loss = -tf.reduce_mean(" in line.inner_text()
    tab.wait_for_selector("#equation-4 mjx-container")
    line.get_by_text("(4)", exact=True).click()
    tab.wait_for_url("**/ppo/index.html#eq-4")


def test_an_import_links_to_the_module(site, tab):
    tab.goto(urljoin(site, "ppo/ppo.py.html"))
    tab.locator(".source").get_by_role("link", name="rollout", exact=True).click()
    tab.wait_for_url("**/common/rollout.py.html")


@pytest.mark.parametrize("name", ["index.html", "ppo/index.html", "ppo/ppo.py.html", "a2c/diff.html"])
def test_a_phone_does_not_scroll_sideways(site, tab, name):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto(urljoin(site, name))
    assert tab.evaluate("() => document.scrollingElement.scrollWidth") <= 390


@pytest.mark.skipif(AXE is None, reason="AXE is not the path of axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "ppo/index.html",
        "ppo/ppo.py.html",
        "a2c/diff.html",
        "curves.html",
        "own_problem.html",
        "search.html",
    ],
)
def test_axe_has_no_serious_findings(site, tab, name, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto(urljoin(site, name), wait_until="networkidle")
    tab.add_script_tag(path=AXE)
    found = tab.evaluate("async () => (await axe.run()).violations")
    serious = {
        f"{one['id']}: {len(one['nodes'])} × {one['help']}: {[node['target'] for node in one['nodes'][:4]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    }
    assert not serious, "\n".join(serious)
