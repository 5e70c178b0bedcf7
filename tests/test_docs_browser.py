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

import numpy as np
import pytest

from docs.book import scripts
from tests.conftest import ROOT, SCRIPTS

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
        assert len(ids) == len(set(ids)), (name, [one for one in ids if ids.count(one) > 1])
        assert tab.locator("img:not([alt]), img[alt='']").count() == 0, name
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


PANELS = "JSON.parse(document.querySelector('.curves script').textContent)"


def check_summary(traces, panel, unit):
    """Check the mean over seeds, and that the band contains it and is about 4 standard errors wide."""
    band, *_, mean = traces
    curves = panel["scripts"][0]["seeds"].values()
    at = [np.interp(mean["x"], curve[unit], curve["returns"]) for curve in curves]
    np.testing.assert_allclose(mean["y"], np.mean(at, axis=0))
    high, low = np.array(band["y"][: len(mean["x"])]), np.array(band["y"][len(mean["x"]) :][::-1])
    assert (low <= mean["y"]).all() and (mean["y"] <= high).all()
    errors = np.std(at, axis=0) / len(at) ** 0.5
    np.testing.assert_allclose((high - low).sum(), 3.92 * errors.sum(), rtol=0.15)


def test_curves_of_many_scripts_are_means(site, tab):
    tab.goto(urljoin(site, "curves.html"))
    tab.wait_for_selector(".curves .scatterlayer")
    names = tab.evaluate("() => document.querySelector('.curves .plot').data.map(one => one.name)")
    shown = [script["name"] for script in tab.evaluate(f"() => {PANELS}[0].scripts")]
    assert len(names) == 2 * len(shown) == 16  # a band and a mean each
    assert [name for name in names if name] == shown


def test_curves_can_be_explored(site, tab):
    tab.goto(urljoin(site, "ppo/index.html"))
    tab.locator(".curves").scroll_into_view_if_needed()
    tab.wait_for_selector(".curves .scatterlayer")
    traces = "() => document.querySelector('.curves .plot').data"
    title = "() => document.querySelector('.curves .plot').layout.xaxis.title.text"
    assert len(tab.evaluate(traces)) == 32  # 30 seeds, their mean, and its band
    check_summary(*tab.evaluate(f"() => [({traces})(), {PANELS}[0], 'steps']"))
    assert tab.evaluate("() => document.querySelector('.curves .plot').layout.shapes[0].y0") == 475
    assert not tab.locator("img[src*='ppo.png']").is_visible()
    tab.get_by_label("seconds", exact=True).check()
    tab.wait_for_function(f"() => ({title})() === 'seconds from the command'")
    check_summary(*tab.evaluate(f"() => [({traces})(), {PANELS}[0], 'seconds']"))
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


def test_the_options_of_a_page_are_those_of_the_script(site, tab):
    tab.goto(urljoin(site, "ppo/index.html"))
    rows = tab.locator("table.options tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    flags = [cells[0] for cells in rows if cells[0] != "option"]
    declared = {option.flag for option in [*scripts.options("ppo"), *scripts.shared_options()]}
    assert sorted(flags) == sorted(declared)
    clip_range = ["--clip-range", "0.2", "number > 0", "Clip range ε of the probability ratio."]
    assert [*clip_range, "paper: 0.2 for MuJoCo"] in rows


def test_an_animation_can_be_paused_and_starts_still_for_reduced_motion(site, tab):
    source = "image => image.src"
    for motion, first, then in (("no-preference", "pause", "play"), ("reduce", "play", "pause")):
        tab.emulate_media(reduced_motion=motion)
        tab.goto(urljoin(site, "policies/index.html"))
        image, button = (tab.locator(f"#gallery {kind}").first for kind in ("img", "button"))
        tab.wait_for_selector(f".pause:text('{first}')")
        for label in (first, then, first):
            assert button.inner_text() == label
            still = image.evaluate(source).startswith("data:image/png")
            assert still == (label == "play")
            button.click()
    assert tab.locator("#gallery button").count() == len(SCRIPTS)


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("a2c/diff.html", [".diff .new", ".diff .old", ".diff ins", ".diff del"]),
        ("ppo/ppo.py.html", [".marked"]),
        ("ppo/index.html", [".highlight-diff .gi", ".highlight-diff .gd"]),
    ],
)
def test_marks_are_bright_in_light_and_dark_in_dark(site, tab, name, marks):
    colors = (
        "marks => marks.map(one => getComputedStyle(document.querySelector(one)).backgroundColor)"
        ".map(one => one.match(/\\d+/g).map(Number))"
    )
    tab.emulate_media(color_scheme="dark")
    tab.goto(urljoin(site, name))
    by_system = tab.evaluate(colors, marks)
    tab.emulate_media(color_scheme="light")
    bright = tab.evaluate(colors, marks)
    tab.evaluate("() => { document.body.dataset.theme = 'dark' }")
    assert tab.evaluate(colors, marks) == by_system
    assert all(len(color) == 3 for color in [*bright, *by_system])  # none is transparent
    assert all(sum(color) / 3 > 150 for color in bright)
    assert all(sum(color) / 3 < 100 for color in by_system)
    assert len(set(map(tuple, bright))) == len(marks)


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


@pytest.mark.parametrize(
    "name", ["index.html", "sac/index.html", "ppo/ppo.py.html", "a2c/diff.html", "policies/index.html"]
)
def test_a_phone_does_not_scroll_sideways(site, tab, name):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.goto(urljoin(site, name))
    assert tab.evaluate("() => document.scrollingElement.scrollWidth") <= 390
    for region in tab.locator(".source").all():  # code scrolls within its region, not with the page
        assert region.evaluate("one => getComputedStyle(one).overflowX") == "auto"
        assert region.evaluate("one => one.clientWidth") <= 390


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
        "policies/index.html",
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
