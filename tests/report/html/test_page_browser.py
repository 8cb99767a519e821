"""The report page in a browser: two tabs that the tests share, each of which undoes what it changed."""

from __future__ import annotations

import base64
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from analyses import HOSTILE, make_analysis, make_comparison

from nls_tune.report.html.page import page_bytes
from nls_tune.report.html.plots.theme import PALETTES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]
LEVELS = ("symmetric:0.2", "symmetric:0.4")


class Tab:
    """A page in a context of its own, with everything that it complained of or asked for."""

    def __init__(self, browser, path: Path) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.path = path
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def plain(browser, tmp_path_factory) -> Tab:
    path = tmp_path_factory.mktemp("plain") / "report.html"
    path.write_bytes(page_bytes(make_analysis(LEVELS)))
    return Tab(browser, path)


@pytest.fixture(scope="module")
def hostile(browser, tmp_path_factory) -> Tab:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_bytes(page_bytes(make_comparison((HOSTILE, "<b>x</b>"), (HOSTILE,), HOSTILE)))
    return Tab(browser, path)


def until(page, expression: str) -> None:
    """Wait for something to be true; Playwright's own way is what the page's policy forbids."""
    ends = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"still not: {expression}"
        page.wait_for_timeout(30)


def reload(page) -> None:
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")


def column(page, table: str, index: int) -> list[str]:
    script = """([id, i]) => [...document.querySelectorAll(`#${id} tbody tr`)].filter((r) => !r.hidden)
        .map((r) => r.cells[i].textContent.trim())"""
    return page.evaluate(script, [table, index])


def test_it_draws_every_plot_in_silence_and_asks_for_nothing(plain):
    tab = plain
    assert tab.page.locator(".panel:not([hidden]) .chart").count() > 0
    assert tab.page.locator(".panel:not([hidden]) .chart:not(:has(.main-svg))").count() == 0
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [tab.path.as_uri()]


TEXTS = {
    "none": "",
    "short": "é",
    "runs": "ab" * 70_000 + "c" * 300,  # the longest matches, and those that overlap themselves
    "far": (far := "".join(chr(33 + i * i * 7 % 89) for i in range(32_000))) + "x" * 600 + far,
    "many": "".join(f"{i * 2654435761 % 2**32:x},é" for i in range(30_000)),  # many blocks
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_unpacks_all_that_deflate_can_do(plain, text):
    script = """([packed, size]) => {
        const element = Object.assign(document.createElement("script"), { type: "x", id: "test", textContent: packed });
        element.dataset.bytes = size;
        document.body.append(element);
        try { return unpack("test"); } finally { element.remove(); }
    }"""
    content = text.encode()
    for level, strategy in ((0, zlib.Z_DEFAULT_STRATEGY), (1, zlib.Z_DEFAULT_STRATEGY), (6, zlib.Z_FIXED), (9, 0)):
        deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
        packed = base64.b64encode(deflate.compress(content) + deflate.flush()).decode()
        assert plain.page.evaluate(script, [packed, len(content)]) == text


def test_tables_sort_by_click_and_key_and_filter(plain):
    page = plain.page
    header = page.locator("#trials th", has_text="Rate")
    header.locator("button").click()
    rates = [float(text.replace("−", "-")) for text in column(page, "trials", 1)]
    assert header.get_attribute("aria-sort") == "ascending"
    assert rates == sorted(rates)
    header.locator("button").press("Enter")
    rates = [float(text.replace("−", "-")) for text in column(page, "trials", 1)]
    assert header.get_attribute("aria-sort") == "descending"
    assert rates == sorted(rates, reverse=True)
    page.locator("#trials th", has_text="Status").locator("button").press("Space")
    assert header.get_attribute("aria-sort") == "none"
    assert column(page, "trials", 8) == ["completed"] * 10 + ["diverged"] * 4
    page.get_by_label("Filter").and_(page.locator("#trials-filter")).fill("diverged symmetric:0.4")
    assert column(page, "trials", 0) == ["symmetric:0.4"] * 2
    assert page.locator("#trials output").text_content() == "2 of 14 rows"
    page.locator("#trials-filter").fill("")
    # What is not a number sorts last both ways.
    button = page.locator("#confirmed th", has_text="Against CE").locator("button")
    for _ in range(2):
        button.click()
        assert column(page, "confirmed", 7)[-2:] == ["strongest"] * 2


def test_a_legend_click_hides_a_curve_and_so_does_the_keyboard(plain):
    page = plain.page
    visible = (
        "() => document.getElementById('rate-0').data.filter((t) => t.legendgroup === 'negative').map((t) => t.visible)"
    )
    page.locator("#rate-0 .legend .traces", has_text="negative").locator(".legendtoggle").click()
    until(page, f"({visible})().every((v) => v === 'legendonly')")
    tools = page.locator('.tools[data-for="rate-0"]')
    tools.locator(".curves summary").press("Enter")
    box = tools.get_by_label("negative")
    assert not box.is_checked()
    box.press("Space")
    until(page, f"({visible})().every((v) => v === true)")
    box.press("Space")
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate(visible) == ["legendonly"] * 2  # another theme shows no hidden curve
    page.get_by_role("button", name="Switch to the light theme").click()
    tools.get_by_role("button", name="Reset view").click()
    assert set(page.evaluate(visible)) <= {True, None}


def test_levels_are_chosen_with_the_arrow_keys(plain):
    page = plain.page
    radios = page.locator("#curves input[type=radio]")
    assert page.locator("#curves .panel:visible").count() == 1
    radios.nth(1).press("ArrowLeft")
    assert radios.nth(0).is_checked()
    page.wait_for_selector("#curves-0 .main-svg")
    assert page.locator("#curves .panel:visible").get_attribute("id") == "curves-panel-0"


@pytest.mark.parametrize(("name", "scheme"), [("plain", "light"), ("plain", "dark"), ("hostile", "light")])
def test_axe_finds_nothing_serious(request, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = request.getfixturevalue(name).page
    page.emulate_media(color_scheme=scheme)
    # The plots of both are alike, and looking at all of them takes long.
    context = {"exclude": [[".chart"]]} if name == "hostile" else None
    found = axe.Axe().run(page, context=context, options={"resultTypes": ["violations"]}).response
    assert len(found["passes"]) > 20
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [node["target"] for node in v["nodes"]][:3]) for v in serious] == []


def test_hostile_names_are_text_everywhere(hostile):
    page = hostile.page
    assert HOSTILE in page.locator("h1").inner_text()
    assert page.title().startswith(HOSTILE)
    assert HOSTILE in page.locator("#compare-accuracy .legend").text_content()
    assert HOSTILE in page.locator("#compare-accuracy .yaxislayer-above").text_content()
    assert "<b>x</b>" in page.locator("#compare-accuracy .legend").text_content()
    page.locator("#r1-rate-0").scroll_into_view_if_needed()
    page.locator("#r1-rate-0 .scatterlayer .points path").nth(2).hover(force=True)
    page.wait_for_selector("#r1-rate-0 .hoverlayer .hovertext")
    assert HOSTILE in page.locator("#r1-rate-0 .hoverlayer").text_content()
    assert page.locator("b, main script").count() == 0
    assert hostile.complaints == []


@pytest.mark.parametrize(("name", "table"), [("plain", "trials"), ("hostile", "r1-trials")])
def test_a_phone_scrolls_the_page_in_one_direction_only(request, name, table):
    page = request.getfixturevalue(name).page
    page.set_viewport_size({"width": 390, "height": 844})
    until(page, "Math.max(...[...document.querySelectorAll('.chart svg')].map((svg) => svg.clientWidth)) <= 390")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    scroll = page.locator(f"#{table} .scroll")
    assert scroll.evaluate("(e) => e.scrollWidth > e.clientWidth")
    assert (scroll.get_attribute("role"), scroll.get_attribute("tabindex")) == ("region", "0")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_paper_is_light_and_has_every_level_and_no_controls(plain):
    page = plain.page
    page.emulate_media(media="print", color_scheme="dark")
    until(page, "[...document.querySelectorAll('.chart')].every((chart) => chart._fullLayout?.width === 680)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("button.theme:visible, .tools:visible, .filter:visible, nav:visible").count() == 0
    assert page.locator(".chart:visible").count() == page.locator(".chart").count()
    paper = page.evaluate("[...document.querySelectorAll('.chart')].map((chart) => chart._fullLayout.paper_bgcolor)")
    assert set(paper) == {"#ffffff"}
    heights = "[...document.querySelectorAll('.chart')].map((c) => [c._fullLayout.height, parseInt(c.style.height)])"
    assert all(drawn == wanted for drawn, wanted in page.evaluate(heights))
    page.emulate_media(media="screen", color_scheme="dark")
    until(page, "document.querySelector('#rate-0')._fullLayout.width !== 680")
    assert page.locator("#curves .panel:visible").count() == 1
    page.emulate_media(color_scheme="light")


def test_a_configuration_is_copied(plain):
    plain.context.grant_permissions(["clipboard-read", "clipboard-write"])
    plain.page.locator("details.why summary").first.click()
    plain.page.locator("[data-copy=snippet-0]").click()
    plain.page.get_by_role("button", name="Copied").wait_for()
    copied = plain.page.evaluate("navigator.clipboard.readText()")
    assert copied == plain.page.locator("#snippet-0").text_content()
    assert "GLSLoss(smooth_rate=" in copied


def test_the_policy_lets_no_other_script_run(plain):
    tab = plain
    tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:x onerror=\"window.ran = 1\">')")
    tab.page.evaluate("fetch('https://example.org/').catch(() => { window.refused = true; })")
    until(tab.page, "window.refused === true")
    assert tab.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in tab.complaints)
    tab.complaints.clear()


def test_dark_follows_the_system_and_the_button_and_is_remembered(plain):
    page = plain.page

    def colours() -> tuple[str, str]:
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return body, page.evaluate("document.querySelector('#rate-0')._fullLayout.paper_bgcolor")

    def expected(theme: str) -> tuple[str, str]:
        colour = PALETTES[theme]["page"]
        return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})", colour

    page.evaluate("localStorage.clear(); delete document.documentElement.dataset.theme")
    page.emulate_media(color_scheme="dark")
    until(page, "document.querySelector('#rate-0')._fullLayout.paper_bgcolor === '#14171c'")
    assert colours() == expected("dark")
    page.get_by_role("button", name="Switch to the light theme").press("Enter")
    assert colours() == expected("light")
    # The browser stores it some time after the script did: on a busy machine a reload may come first.
    until(page, "localStorage.getItem('nls-tune-theme') === 'light'")
    reload(page)
    until(page, "localStorage.getItem('nls-tune-theme') === 'light'")
    reload(page)
    assert colours() == expected("light")
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert colours() == expected("dark")
    assert plain.complaints == []
