"""The HTML page in Chromium: what it loads, what it shows, and who can read it."""

import itertools
import json
import os
import re
import shutil
from urllib.parse import urlsplit

import numpy as np
import pytest
from support.studies import NAMES, SCRIPT, draw_study, with_history

from brainfeat.report import to_html, to_map

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MUST_RUN = bool(os.environ.get("CI") or os.environ.get("BRAINFEAT_REAL_DATA"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER) and not MUST_RUN,
        reason="chromium and chromedriver are missing: apt-get install chromium chromium-driver",
    ),
]

PHONE, DESK = 375, 1280

# The least contrast of any text, and where it is; alpha does not occur.
CONTRASTS = r"""
const parse = text => {
  const numbers = text.match(/[\d.]+(e-?\d+)?/g).map(Number);
  const scale = text.startsWith('color(') ? 1 : 255;
  return {rgb: numbers.slice(0, 3).map(n => n / scale), alpha: numbers.length > 3 ? numbers[3] : 1};
};
const light = ({rgb}) => rgb
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = parse(getComputedStyle(e).backgroundColor);
    if (colour.alpha > 0) return colour;
  }
  return {rgb: [1, 1, 1], alpha: 1};
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.data.trim() || element.closest('title, desc')) continue;
  const style = getComputedStyle(element);
  const ink = parse(element.closest('svg') ? style.fill : style.color);
  const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), node.data.trim().slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0]);
"""


@pytest.fixture(scope="module")
def driver():
    if not (BROWSER and DRIVER):
        pytest.fail("chromium and chromedriver must be installed here; see .ci/run")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from support.caches import write_vectors

    folder = tmp_path_factory.mktemp("browser")
    study = with_history(draw_study(lambda *args, **rest: write_vectors(folder, *args, **rest)))
    text = to_html(
        study.evaluation,
        bundle=study.bundle,
        cache=study.cache,
        audit=study.audit,
        command=f"brainfeat evaluate '{SCRIPT}'",
        images=lambda path: np.full((20, 20, 3), 0.5),
        checklist="claim2024",
    )
    study.cache.close()
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def show(driver, page):
    """Give a function that opens the page at a width and in a colour scheme."""

    def call(width=DESK, *, scheme="light", media=""):
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(page)
        return driver

    return call


def list_requests(driver):
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def test_the_page_loads_nothing_but_itself(show, page):
    driver = show()
    driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    urls = list_requests(driver)
    assert page in urls
    assert {url for url in urls if urlsplit(url).scheme != "data"} == {page}


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_console_stays_empty(show, width):
    assert show(width).get_log("browser") == []


def test_the_policy_of_the_page_blocks_what_would_be_loaded(show):
    driver = show()
    driver.execute_script(
        "document.body.appendChild(new Image()).src = 'http://127.0.0.1:9/pixel.png'"
    )
    messages = [entry["message"] for entry in driver.get_log("browser")]
    assert len(messages) == 1
    assert "Content Security Policy" in messages[0]


def test_a_hostile_class_name_is_text(show):
    from selenium.webdriver.support.expected_conditions import alert_is_present

    driver = show()
    assert not alert_is_present()(driver)
    text = driver.execute_script("return document.body.innerText")
    for name in NAMES:
        assert name in text
    assert f"brainfeat evaluate '{SCRIPT}'" in text
    assert driver.execute_script("return document.scripts.length") == 0


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_is_visible(show, width, scheme):
    driver = show(width, scheme=scheme)
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('svg, img')].map(e => {"
        " const box = e.getBoundingClientRect(), style = getComputedStyle(e);"
        " return [box.width, box.height, style.visibility, style.display, box.right]; })"
    )
    assert len(sizes) > 20
    for wide, high, visibility, display, right in sizes:
        assert wide > 0
        assert high > 0
        assert (visibility, display != "none") == ("visible", True)
        assert right <= width


def test_every_chart_has_marks_in_a_colour_of_the_page(show):
    strokes = show().execute_script(
        "return [...document.querySelectorAll('svg[role=img]')].map(svg =>"
        " [...svg.querySelectorAll('path, use')].map(e => getComputedStyle(e).stroke)"
        " .filter(c => c !== 'none').length)"
    )
    assert len(strokes) == 15
    assert min(strokes) > 0


@pytest.mark.parametrize("width", [320, PHONE, 768, DESK])
def test_nothing_is_wider_than_the_window(show, width):
    driver = show(width)
    found = driver.execute_script(
        "const root = document.documentElement;"
        "return [root.scrollWidth - root.clientWidth,"
        " [...document.querySelectorAll('main p, h1, h2, figcaption, li, dl')]"
        "  .filter(e => e.getBoundingClientRect().right > root.clientWidth + 0.5)"
        "  .map(e => e.outerHTML)]"
    )
    assert found == [0, []]


def test_tab_reaches_everything_that_takes_the_focus(show):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver = show(PHONE)
    wanted = driver.execute_script(
        "const all = [...document.querySelectorAll('a[href], [tabindex=\"0\"]')];"
        "all.forEach((e, i) => e.dataset.place = i); return all.length"
    )
    reached = []
    for _ in range(wanted):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(driver.execute_script("return document.activeElement.dataset.place"))
    assert reached == [str(place) for place in range(wanted)]
    assert len(driver.find_elements(By.CSS_SELECTOR, "[role=region]")) > 10
    assert not driver.find_elements(By.CSS_SELECTOR, "[role=region]:not([tabindex='0'])")
    assert not driver.find_elements(By.CSS_SELECTOR, "table:not([role=region] table)")


def test_the_focus_is_seen(show):
    from selenium.webdriver.common.keys import Keys

    driver = show()
    driver.switch_to.active_element.send_keys(Keys.TAB)
    style = driver.execute_script(
        "const e = document.activeElement, box = e.getBoundingClientRect();"
        "return [e.className, box.left >= 0, getComputedStyle(e).outlineStyle]"
    )
    assert style == ["skip", True, "solid"]


def test_a_wide_table_scrolls_by_the_keyboard(show):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    driver = show(PHONE)
    wide = driver.execute_script(
        "return [...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth)"
    )
    wide.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(driver, 10).until(lambda _: wide.get_property("scrollLeft") > 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(show, scheme):
    contrasts = show(scheme=scheme).execute_script(CONTRASTS)
    assert len(contrasts) > 300
    assert contrasts[0][0] >= 4.5, contrasts[:5]


def test_the_colours_follow_the_scheme_of_the_reader(show):
    pages = {}
    for scheme in ("light", "dark"):
        pages[scheme] = show(scheme=scheme).execute_script(
            "const of = (e, name) => getComputedStyle(document.querySelector(e))[name];"
            "return [of('body', 'backgroundColor'), of('svg text', 'fill')]"
        )
    (light, ink), (dark, chalk) = pages["light"], pages["dark"]
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark))) < 40
    assert ink != chalk


def test_headings_regions_and_tables_are_named(show):
    found = show().execute_script(
        "const all = q => [...document.querySelectorAll(q)];"
        "return {"
        " lang: document.documentElement.lang,"
        " levels: all('h1, h2, h3, h4').map(e => Number(e.tagName[1])),"
        " images: all('img').filter(e => !e.alt).length,"
        " charts: all('svg').filter(e => e.getAttribute('aria-hidden') !== 'true'"
        "   && !(e.querySelector('title')?.textContent && e.querySelector('desc')?.textContent))"
        "   .length,"
        " tables: all('table').filter(t => !t.querySelector('thead th[scope=col]')"
        "   || [...t.tBodies[0].rows].some(r => r.cells[0].tagName !== 'TH'"
        "     || r.cells[0].scope !== 'row')).length,"
        " regions: all('[role=region], section, nav, svg[role=img], table').filter(e =>"
        "   !e.ariaLabel && !document.getElementById(e.getAttribute('aria-labelledby'))"
        "   ?.textContent.trim()).length,"
        "}"
    )
    levels = found.pop("levels")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(next_ <= level + 1 for level, next_ in itertools.pairwise(levels))
    assert found == {"lang": "en", "images": 0, "charts": 0, "tables": 0, "regions": 0}


def test_a_screen_reader_finds_the_names_of_the_charts(show):
    nodes = show().execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    charts = [
        (node["name"]["value"], node.get("description", {}).get("value", ""))
        for node in nodes
        if node.get("role", {}).get("value") == "image" and not node["ignored"]
    ]
    titles = [title for title, _ in charts]
    for words in ("without copies", "all images"):
        assert f"ROC curves, {words}" in titles
        assert f"Reliability diagram, {words}" in titles
        assert "AUC 0." in dict(charts)[f"ROC curves, {words}"]


def test_it_prints_on_paper_without_loss(show):
    driver = show(680, scheme="dark", media="print")
    found = driver.execute_script(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('nav')).display,"
        " document.documentElement.scrollWidth - document.documentElement.clientWidth,"
        " [...document.querySelectorAll('table, svg, img')]"
        "  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).length]"
    )
    assert found == ["rgb(255, 255, 255)", "none", 0, 0]
    document = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert document["data"].startswith("JVBERi0")


def test_the_colours_of_a_map_are_chosen_by_keyboard(driver, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from support.caches import write_vectors

    X = np.random.default_rng(0).standard_normal((40, 8))
    splits = ["train", "test"] * 20
    path = tmp_path / "map.html"
    path.write_text(to_map(write_vectors(tmp_path, X, np.arange(40) % 2, splits=splits)))
    driver.get(path.as_uri())
    shown = "return [...document.querySelectorAll('ul.view')].map(e => e.checkVisibility())"
    assert driver.execute_script(shown) == [True, False]
    driver.find_element("id", "by-class").send_keys(Keys.ARROW_RIGHT)
    assert driver.execute_script(shown) == [False, True]
    assert driver.execute_script(CONTRASTS)[0][0] >= 4.5
