"""The page in a browser: what people see and do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from pytest_madengine import cli
from pytest_madengine.reporting import html
from pytest_madengine.reporting.htmlstory import Past, Point
from pytest_madengine.results.history import Key
from pytest_madengine.results.metric import Direction, Metric
from pytest_madengine.results.perf import FAILURE
from pytest_madengine.results.result import Result, Usage
from tests.engines.browsers import PHONE, Browser
from tests.reporting.told import EVIL, of_a_run, result, row
from tests.store.made import MODELS, REGRESSED, RUNS, year

pytestmark = pytest.mark.requires_browser
NAMES = ["quick", "slow", "flaky", "multi_a", "multi_b", "bad", EVIL, "elsewhere"]
"""Of `of_a_run`, in the order of the table."""
SLOW, BAD = 1, 5
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""In which a browser tells a page of what has changed, and draws it anew."""
HOSTILE = [
    EVIL,
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"&amp;&lt;\\u003c",
    "line one\nline two\r\n\u2028\u2029\x00",
    "名前 \U0001f600 \ud83d عربى",
    "javascript:document.title='owned'",
    "{{ 7 * 7 }} {% raw %}",
    "__proto__",
    "a" * 5000,
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run that has everything to tell of."""
    folder = tmp_path_factory.mktemp("report")
    power = folder / "power.csv"
    power.write_text("seconds,GPU 0,GPU 1\n" + "".join(f"{at},{200 + at},{190 + at}\n" for at in range(60)))
    results = [_detailed(each, folder) if each.model == "slow" else each for each in of_a_run()]
    slow = next(each for each in results if each.model == "slow")
    before = replace(slow, run="20260313", digest="sha256:old", started="2026-03-13T15:09:00.000+00:00")
    key = Key.of(slow.rows[0].columns)
    points = [Point(f"2026-02-{day:02}T09:00:00+00:00", f"run-{day}", 13 + day % 3 / 10) for day in range(1, 21)]
    past = Past({(key, "performance"): points}, {slow.nodeid: before})
    path = folder / "report.html"
    html.write(path, results, {"run": "20260314", "target": "host"}, past)
    return path


def _detailed(given: Result, folder: Path) -> Result:
    samples = (12.4, 12.5, 12.6, 12.45, 12.52)
    metrics = (Metric("slow", "performance", 12.5, "tokens/s", Direction.HIGHER, samples), *given.metrics[1:])
    usage = {"power": Usage("W", 200.0, 230.0, 259.0, str(folder / "power.csv")), "vram": Usage("GiB", 1.0, 2.0, 3.0)}
    kept = (str(folder / "jobs" / "slow" / "trace of slow#1.json"),)
    return replace(given, metrics=metrics, usage=usage, artifacts=kept, log=str(folder / "jobs" / "slow" / "run.log"))


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    with browser.page(report) as opened:
        yield opened


def names(page: Page) -> list[str]:
    return page.locator("tbody .opener").all_inner_texts()


def open_line(page: Page, number: int) -> None:
    page.locator(f"#r{number} .opener").click()
    page.locator(f"#d{number}").wait_for()


def painted(page: Page, scope: str) -> list[bool]:
    """Whether anything is drawn on each canvas within; charts are drawn when the browser has laid them out."""
    expect(page.locator(f"{scope} canvas")).to_have_count(page.locator(f"{scope} .chart").count())
    drawn: list[bool] = page.evaluate(
        """scope => [...document.querySelectorAll(`${scope} canvas`)].map((canvas) => {
             const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
             return pixels.some((value) => value !== 0); })""",
        scope,
    )
    return drawn


def test_the_page_opens_without_network_and_shows_every_row(page: Page) -> None:
    assert names(page) == NAMES
    assert "2 failed (1 build, 1 model)" in page.title()
    assert page.locator("[role=status]").inner_text() == "Showing 8 rows"


def test_text_filters_by_every_word(page: Page) -> None:
    page.locator("#filter").fill("multi B")
    assert names(page) == ["multi_b"]
    assert page.locator("[role=status]").inner_text() == "Showing 1 of 8 rows that match"
    page.locator("#filter").fill("no such thing")
    assert names(page) == []
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("tbody .opener")).to_have_count(8)


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [("status", "FAILURE", ["bad", EVIL]), ("verdict", "regression", ["slow"]), ("status", "SKIPPED", ["elsewhere"])],
)
def test_a_choice_filters(page: Page, name: str, value: str, left: list[str]) -> None:
    page.locator(f"select[name={name}]").select_option(value)
    assert names(page) == left


def test_a_filter_without_a_choice_is_not_shown(page: Page) -> None:
    assert page.locator("select[name=architecture]").count() == 0


def test_a_column_without_content_is_not_shown(browser: Browser, tmp_path: Path, page: Page) -> None:
    html.write(tmp_path / "report.html", [result("m", "SUCCESS", row("m", n_gpus=""))], {})
    with browser.page(tmp_path / "report.html") as small:
        assert small.get_by_role("columnheader").all_inner_texts() == [
            "Model",
            "Status",
            "Performance",
            "Duration",
            "GPU",
        ]
    expected = ["Model", "Status", "Performance", "Change", "Trend", "Duration", "GPU", "Count"]
    assert page.get_by_role("columnheader").all_inner_texts() == expected


def test_headers_sort_one_way_then_the_other_then_not(page: Page) -> None:
    header = page.locator("th[data-column=value]")
    button = header.get_by_role("button")
    button.click()
    assert header.get_attribute("aria-sort") == "descending"
    assert names(page)[:3] == ["quick", "slow", "flaky"]
    assert names(page)[3:5] == ["multi_b", "multi_a"]
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert names(page)[:2] == ["multi_a", "multi_b"]
    button.click()
    assert header.get_attribute("aria-sort") is None
    assert names(page) == NAMES


def test_names_sort_as_people_count(browser: Browser, tmp_path: Path) -> None:
    html.write(tmp_path / "report.html", [result(name) for name in ("m10", "m9", "M1")], {})
    with browser.page(tmp_path / "report.html") as page:
        page.get_by_role("button", name="Model").click()
        assert names(page) == ["M1", "m9", "m10"]


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("slow")
    assert names(page) == ["slow"]
    button = page.locator(f"#r{SLOW} .opener")
    for _ in range(30):
        page.keyboard.press("Tab")
        if button.evaluate("each => each === document.activeElement"):
            break
    outline = button.evaluate("each => getComputedStyle(each).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator(f"#d{SLOW}").is_visible()
    page.keyboard.press("Enter")
    assert page.locator(f"#d{SLOW}").count() == 0


def test_what_needs_attention_leads_to_its_line_whatever_is_filtered(page: Page) -> None:
    page.locator("#filter").fill("quick")
    page.locator(".problems").get_by_role("link", name="bad").click()
    page.locator(f"#d{BAD}").wait_for()
    assert "exit code 1" in page.locator(f"#d{BAD}").inner_text()
    assert "RuntimeError: @all" in page.locator(f"#d{BAD} pre").inner_text()


def test_a_url_may_name_a_line(browser: Browser, report: Path) -> None:
    with browser.page(report, f"r{SLOW}") as page:
        assert page.locator(f"#d{SLOW}").is_visible()
    with browser.page(report, "r99") as page:
        assert names(page) == NAMES


def test_charts_are_drawn(page: Page) -> None:
    open_line(page, SLOW)
    captions = page.locator(f"#d{SLOW} figcaption b").all_inner_texts()
    assert captions == ["Trend of performance", "Repeats of performance", "power"]
    assert painted(page, f"#d{SLOW}") == [True, True, True]
    assert page.locator(".chart").first.get_attribute("aria-label") == (
        "Trend of performance: 21 runs, from 12.5 to 13.2 tokens/s, median 13.1"
    )


def test_a_lines_section_tells_all_of_it(page: Page) -> None:
    open_line(page, SLOW)
    text = page.locator(f"#d{SLOW}").inner_text()
    for told in (
        "\u22126.1 %",
        "regression",
        "because",
        "ttft",
        "3.25 ms",
        "sha256:old",
        "mean 2 GiB, from 1 to 3 GiB",
    ):
        assert told in text
    links = page.locator(f"#d{SLOW} .files a").evaluate_all("all => all.map((each) => each.getAttribute('href'))")
    assert links == ["jobs/slow/run.log", "jobs/slow/trace%20of%20slow%231.json", "power.csv"]


def test_tries_are_told(page: Page) -> None:
    open_line(page, NAMES.index("flaky"))
    told = page.locator(f"#d{NAMES.index('flaky')} ol li").all_inner_texts()
    assert len(told) == 2
    assert "failure (infrastructure) node died" in told[0]


def test_the_dark_page_is_dark_and_its_charts_follow(browser: Browser, report: Path) -> None:
    with browser.page(report, f"r{SLOW}", color_scheme="light") as page:
        assert painted(page, f"#d{SLOW}")[0]
        light, canvas = background(page), page.locator(f"#d{SLOW} canvas").first
        before = canvas.evaluate("each => each.toDataURL()")
        page.emulate_media(color_scheme="dark")
        page.evaluate(TWO_FRAMES)
        dark = background(page)
        assert painted(page, f"#d{SLOW}")[0]
        assert canvas.evaluate("each => each.toDataURL()") != before
    assert light > 600
    assert dark < 150


def background(page: Page) -> int:
    """How light the page is: 0 is black, 765 white."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize("fragment", ["", f"r{SLOW}", f"r{BAD}"])
def test_a_phone_needs_no_scrolling_sideways(browser: Browser, report: Path, fragment: str) -> None:
    with browser.page(report, fragment, viewport=PHONE, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.locator("th[data-column=status]").is_visible()
        assert not page.locator("th[data-column=duration]").is_visible()


def test_paper_has_no_controls_and_the_sections_of_what_failed(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator(".filters").is_visible()
    assert page.locator(f"#d{BAD} pre").is_visible()
    assert page.locator(f"#d{SLOW}").is_visible()
    assert background(page) == 3 * 255
    assert len(page.pdf()) > 10_000


def test_a_screen_reader_meets_names_for_all(page: Page) -> None:
    assert page.get_by_role("table", name="Results of all models").count() == 1
    assert page.get_by_role("search").count() == 1
    assert page.get_by_label("Find").count() == 1
    assert page.get_by_role("img", name="failed").count() == 1
    assert page.get_by_role("rowheader", name="slow").count() == 1


def test_without_scripts_there_is_a_plain_table(browser: Browser, report: Path) -> None:
    with browser.page(report, java_script_enabled=False) as page:
        assert page.locator("noscript").count() == 1
        rows = page.locator("tbody tr").all_inner_texts()
    assert len(rows) == len(NAMES)
    assert "regression" in rows[0]


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    results = [
        result(
            name,
            FAILURE,
            row(name, FAILURE, metric=name, launcher=name, tags=name),
            id=str(number),
            nodeid=f"models.json::{number}",
            reason=name,
            tail=(name,),
            log=f"/run/{name}",
            artifacts=(name,),
            versions={name: name},
            notes=(name,),
        )
        for number, name in enumerate(HOSTILE)
    ]
    html.write(tmp_path / "report.html", results, {"run": EVIL, EVIL: EVIL})
    with browser.page(tmp_path / "report.html", viewport=PHONE) as page:
        for number in range(len(HOSTILE)):
            open_line(page, number)
        shown = page.evaluate("[...document.querySelectorAll('tbody .opener')].map((each) => each.textContent)")
        assert shown == HOSTILE
        assert "owned" not in page.title()
        assert page.locator("main img, main script, main iframe").count() == 0
        schemes = page.evaluate("[...document.querySelectorAll('a')].map((each) => each.protocol)")
        assert set(schemes) == {"file:"}
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_policy_forbids_scripts_that_are_not_ours(report: Path, browser: Browser, tmp_path: Path) -> None:
    tampered = tmp_path / "report.html"
    text = report.read_text(encoding="utf-8")
    tampered.write_text(text.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8")
    with pytest.raises(AssertionError, match="Content Security Policy"), browser.page(tampered) as page:
        assert "owned" not in page.title()


def test_a_year_of_nights_has_its_trends(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    year(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "to-html", "-o", "year.html"]) == 0
    with browser.page(tmp_path / "year.html") as page:
        assert page.locator("tbody .spark").count() == MODELS
        page.locator("#filter").fill(REGRESSED)
        assert names(page) == [REGRESSED]
        number = int(REGRESSED.rpartition("-")[2])
        open_line(page, number)
        assert painted(page, f"#d{number}") == [True, True]
        label = page.locator(f"#d{number} .chart").first.get_attribute("aria-label")
        assert f"Trend of performance: {RUNS} runs" in str(label)


def test_ten_thousand_results_are_small_and_come_piece_by_piece(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    html.write(path, [many(number) for number in range(10_000)], {"run": "20260314"})
    assert path.stat().st_size < 5_000_000
    with browser.page(path) as page:
        assert len(names(page)) < 1000
        page.locator("#filter").fill("model-9999")
        assert names(page) == ["model-9999"]
        page.locator("#filter").fill("")
        page.get_by_role("button", name="Duration").click()
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("tbody .opener").nth(150)).to_be_attached()


def many(number: int) -> Result:
    """One of very many results, with all that a real one has."""
    name = f"model-{number}"
    failed = number % 20 == 0
    columns = {"args": f"--batch {number}", "docker_image": f"ci-{name}:{number:016x}", "launcher": "torchrun"}
    tail = tuple(f"  File 'train.py', line {line}, in step {number}" for line in range(20))
    given = result(
        name,
        FAILURE if failed else "SUCCESS",
        row(name, FAILURE if failed else "SUCCESS", f"{number}.5", "tokens/s", **columns),
    )
    metric = Metric(
        name, "performance", number + 0.5, "tokens/s", Direction.HIGHER, tuple(number + at / 7 for at in range(5))
    )
    more: dict[str, Any] = {"metrics": (metric,), "tail": tail if failed else ()}
    return replace(given, versions={"docker": "27.1", "python": "3.11"}, machine={"driver": "6.8"}, **more)
