"""The page in a real browser: no complaint, no request, readable in both themes and on a phone."""

import os
from itertools import combinations

import pytest
from invented import overfitting
from plans import a_plan, a_step, evaluated, started
from test_page import compared, of, strange_run

from autotrain.report import page
from autotrain.report.diagnosis import Place
from autotrain.report.document import report

pytestmark = [
    pytest.mark.browser,
    # playwright leaves its pipes to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        found = driver.chromium.launch(executable_path=chromium, args=sandbox)
        yield found
        found.close()


class Opened:
    """A page, and all that it complained of and asked for."""

    def __init__(self, browser, path, **more):
        self.context = browser.new_context(**more)
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"file://{path}")

    def colour(self, what):
        script = "e => getComputedStyle(e).backgroundColor"
        return self.page.locator(what).first.evaluate(script)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    result, plan = overfitting(3, epochs=30, per_epoch=40, log_every=2).result()
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write_html(
        report(result, plan, Place("runs/x/plan.toml", "plan.toml")), result, plan, path
    )
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_opens_without_a_word_and_without_a_request(browser, written, scheme, width):
    """And fits the width of a phone: nothing but tables may be wider, and those scroll."""
    opened = Opened(browser, written, color_scheme=scheme, viewport={"width": width, "height": 700})
    assert opened.said == []
    assert opened.asked == [f"file://{written}"]
    root = "document.documentElement"
    assert opened.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    light = sum(map(int, opened.colour("body")[4:-1].split(","))) > 380
    assert light == (scheme == "light")
    size = opened.page.locator("svg.chart text").first.bounding_box()["height"]
    assert size >= 9


TEXTS = """() => [...document.querySelectorAll("svg.chart text")].map(text => {
  const [box, chart] = [text.getBBox(), text.ownerSVGElement.viewBox.baseVal];
  return {chart: text.closest("figure").dataset.key, said: text.textContent, left: box.x,
    right: box.x + box.width, top: box.y, bottom: box.y + box.height, width: chart.width};
})"""


@pytest.mark.parametrize("best_at", [0.03, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("norm", [0.5, 123456.0])
def test_no_text_of_a_chart_is_cut_off_or_lies_on_another(browser, tmp_path, best_at, norm):
    """A round number of steps, so that the last one is marked; the best is reached by then."""
    count, path = 100, tmp_path / "report.html"
    best = round(count * best_at)
    steps = [
        a_step(1000 * n, per_epoch=1000, loss=1 / n, grad_norm=n * norm)
        for n in range(1, count + 1)
    ]
    evaluations = [
        evaluated(1000 * n, 1 / min(n, best), best=n <= best, per_epoch=1000)
        for n in range(1, count + 1)
    ]
    path.write_text(of([started(epochs=count, per_epoch=1000), *steps, *evaluations]))
    texts = Opened(browser, path).page.evaluate(TEXTS)
    assert {"100 k", "100 %"} <= {text["said"] for text in texts}
    assert any(text["said"].startswith("90 % of the gain") for text in texts)
    assert [t["said"] for t in texts if t["left"] < 0 or t["right"] > t["width"]] == []
    assert [
        (one["said"], other["said"])
        for one, other in combinations(texts, 2)
        if one["chart"] == other["chart"] and _overlap(one, other)
    ] == []


def _overlap(one, other):
    """By more than the room that fonts leave around letters."""
    across = min(one["right"], other["right"]) - max(one["left"], other["left"])
    return across > 1 and min(one["bottom"], other["bottom"]) - max(one["top"], other["top"]) > 2


@pytest.mark.parametrize("width", [360, 1280])
def test_runs_that_are_compared_have_such_a_page_too(browser, tmp_path, width):
    path = tmp_path / "compared.html"
    path.write_text(compared("a", "<script>alert(1)</script>", *"bcdef"))
    opened = Opened(browser, path, viewport={"width": width, "height": 900})
    root = "document.documentElement"
    assert opened.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    chart = opened.page.locator("svg.chart").first
    chart.focus()
    chart.press("PageUp")
    assert "alert(1)" in opened.page.locator(".readout").first.inner_text()
    assert opened.page.get_by_text("of the first 5 runs").is_visible()
    assert opened.said == []
    assert opened.asked == [f"file://{path}"]


def test_a_pointer_over_one_chart_shows_the_figures_of_that_step_in_all(browser, written):
    opened = Opened(browser, written, viewport={"width": 1280, "height": 900})
    chart = opened.page.locator("svg.chart").first
    box = chart.bounding_box()
    opened.page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 0.5 * box["height"])
    told = opened.page.locator(".readout").all_inner_texts()
    assert len(told) == 6
    assert all(text.startswith("step 600, epoch 15 · ") for text in told)
    assert "training" in told[0]
    assert "validation" in told[0]
    opened.page.mouse.move(1, 1)
    assert opened.page.locator(".readout").first.inner_text() == ""


def test_arrow_keys_and_a_finger_do_the_same(browser, written):
    opened = Opened(
        browser, written, viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True
    )
    chart = opened.page.locator("svg.chart").first
    chart.focus()
    chart.press("PageUp")
    chart.press("ArrowLeft")
    assert opened.page.locator(".readout").first.inner_text().startswith("step 108, epoch 3")
    chart.tap()
    assert opened.page.locator(".readout").first.inner_text().startswith("step 5")
    assert opened.said == []


def test_a_legend_hides_its_curve(browser, written):
    opened = Opened(browser, written)
    line = opened.page.locator('figure[data-key="loss"] g[data-line="1"]')
    assert line.is_visible()
    opened.page.locator('figure[data-key="loss"] .legend button').nth(1).click()
    assert not line.is_visible()


def test_without_a_script_everything_can_still_be_read(browser, written):
    opened = Opened(browser, written, java_script_enabled=False)
    assert opened.page.locator("svg.chart path.bold").count() >= 8
    assert opened.page.get_by_text("overfitting, since epoch").is_visible()


def test_names_that_hold_a_script_run_none(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(of(strange_run(), a_plan(made_by="<script>alert(3)</script>")))
    opened = Opened(browser, path)
    assert opened.said == []
    assert opened.asked == [f"file://{path}"]
