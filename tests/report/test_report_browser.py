"""The report of a sweep in a real browser."""

from __future__ import annotations

import io
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from nnopt.cli.main import run_verb

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

pytestmark = pytest.mark.browser

Open = Callable[..., None]


@pytest.fixture(scope="module")
def page(sweep: Path) -> Path:
    assert run_verb(["report", str(sweep)]) == 3
    return sweep / "report.html"


@pytest.fixture
def open_page(browser: WebDriver, page: Path) -> Open:
    """Return a function that opens a page and waits until it is painted.

    A call is ``open_page(path, width=400, scheme="dark")``. The default path is the report of
    ``sweep``.
    """

    def open_it(path: Path = page, width: int = 1400, scheme: str = "light") -> None:
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(path.as_uri())
        ask(browser, "return document.documentElement.dataset.painted")

    return open_it


def ask(browser: WebDriver, script: str, *arguments: Any) -> Any:
    """Repeat a script for at most 20 s until its value is true, and return the value."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        return WebDriverWait(browser, 20, 0.02).until(
            lambda _: browser.execute_script(script, *arguments)
        )
    except TimeoutException:
        return browser.execute_script(script, *arguments)


def texts(browser: WebDriver, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def click(browser: WebDriver, selector: str, text: str = "") -> None:
    """Click the first matching element whose text begins with ``text``; it must not be covered."""
    script = """
        const node = [...document.querySelectorAll(arguments[0])]
          .find((node) => node.textContent.startsWith(arguments[1]));
        node.scrollIntoView({block: "center", behavior: "instant"});
        return node;
    """
    browser.execute_script(script, selector, text).click()


def choose(browser: WebDriver, label: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    script = """
        return [...document.querySelectorAll("label")]
          .find((node) => node.textContent.startsWith(arguments[0])).querySelector("select");
    """
    Select(browser.execute_script(script, label)).select_by_visible_text(text)


def column(browser: WebDriver, name: str) -> list[str]:
    """Return the cells of a column of the table of points."""
    titles = texts(browser, "#points thead tr:first-child th")
    place = titles.index(name) + 1
    return texts(browser, f"#points tbody tr > td:nth-child({place})")


def drag(browser: WebDriver, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the chart from ``start`` to ``end``, in fractions of its width and height."""
    from selenium.webdriver.common.action_chains import ActionChains

    chart = browser.find_element("css selector", "#curves .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    width, height = chart.size["width"], chart.size["height"]

    def offset(place: tuple[float, float]) -> tuple[int, int]:  # from the centre of the chart
        return round((place[0] - 0.5) * width), round((place[1] - 0.5) * height)

    actions = ActionChains(browser, duration=0).move_to_element_with_offset(chart, *offset(start))
    actions.click_and_hold().move_to_element_with_offset(chart, *offset(end)).release().perform()


def ticks(browser: WebDriver, axis: str) -> list[float]:
    labels = texts(browser, f"#curves .tick.{axis}")
    return [float(word.replace("−", "-").replace(",", "")) for word in labels]


def test_page_opens_without_errors_or_requests(
    browser: WebDriver, open_page: Open, page: Path
) -> None:
    browser.get_log("performance")  # type: ignore[no-untyped-call]
    open_page()
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    events = browser.get_log("performance")  # type: ignore[no-untyped-call]
    messages = [json.loads(event["message"])["message"] for event in events]
    requests = [x["params"] for x in messages if x["method"] == "Network.requestWillBeSent"]
    # A browser that has just started may still load its own start page.
    asked = [x["request"]["url"] for x in requests if x["documentURL"] == page.as_uri()]
    assert asked.count(page.as_uri()) == 1
    assert {url.partition(",")[0] for url in asked} <= {page.as_uri()}
    assert browser.title == "a <b> & sweep – nnopt report"
    assert texts(browser, "h1") == ["a <b> & sweep"]
    assert texts(browser, ".chips button") == [
        "done 6",
        "running 1",
        "pending 1",
        "failed 1",
        "timeout 1",
        "damaged 1",
    ]
    assert len(column(browser, "seed")) == 11


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
def test_screenshot_of_page_is_not_blank(
    browser: WebDriver, open_page: Open, width: int, scheme: str
) -> None:
    """The chart shows the lines of both settings in the colours of the light or dark scheme."""
    open_page(width=width, scheme=scheme)
    overflow = "return document.documentElement.scrollWidth - window.innerWidth"
    assert browser.execute_script(overflow) <= 0
    chart = browser.find_element("css selector", "#curves .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    picture = Image.open(io.BytesIO(chart.screenshot_as_png)).convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(2**24) or ()}
    ground = max(colours, key=lambda colour: colours[colour])
    assert (sum(ground) > 600) == (scheme == "light")
    lines = {"light": [(0, 114, 178), (213, 94, 0)], "dark": [(74, 168, 224), (255, 138, 76)]}
    assert all(colours.get(line, 0) > 30 for line in lines[scheme])


def test_table_sorts_by_column(browser: WebDriver, open_page: Open) -> None:
    open_page()
    assert column(browser, "#") == [str(number) for number in range(1, 12)]
    head = "#points th:has(button[title='sort by test_accuracy'])"
    click(browser, f"{head} button")
    best_first = ["0.9900", "0.9300", "0.9000", "0.8400", "0.8200", "0.8000"] + ["–"] * 5
    assert column(browser, "test_accuracy") == best_first
    assert [node.get_attribute("aria-sort") for node in sorted_heads(browser)] == ["descending"]
    # The second activation sorts in ascending order; missing values stay last.
    browser.switch_to.active_element.send_keys("\n")
    assert column(browser, "test_accuracy") == [*best_first[5::-1], *best_first[6:]]
    assert [node.get_attribute("aria-sort") for node in sorted_heads(browser)] == ["ascending"]
    click(browser, "#comparison th button", "test_accuracy")
    assert texts(browser, "#comparison tbody td:first-child") == ["adam", "sgd"]
    click(browser, "#comparison th button", "test_accuracy")
    assert texts(browser, "#comparison tbody td:first-child") == ["sgd", "adam"]


def sorted_heads(browser: WebDriver) -> list[Any]:
    return browser.find_elements("css selector", "#points th:not([aria-sort='none'])")


def test_points_are_filtered_by_text_and_condition(browser: WebDriver, open_page: Open) -> None:
    open_page()
    search = browser.find_element("css selector", "#points input[type=search]")
    search.send_keys("ADAM seed=1")
    assert column(browser, "optimizer") == ["adam"]
    assert texts(browser, ".count") == ["1 of 11 points, in the curves too"]
    assert len(texts(browser, "#curves path.line")) == 1
    click(browser, "#points button", "show all")
    assert len(column(browser, "optimizer")) == 11
    field = browser.find_element("css selector", "[aria-label='condition on test_accuracy']")
    field.send_keys(">= .9")
    assert column(browser, "test_accuracy") == ["0.9000", "0.9300", "0.9900"]
    field.clear()
    field.send_keys("< 0.82")
    assert column(browser, "test_accuracy") == ["0.8000"]
    click(browser, "#points button", "show all")
    click(browser, ".chips button", "damaged")
    assert column(browser, "status") == ["damaged"]
    assert texts(browser, "#curves path.line") == [""]


def test_chart_legend_toggles_lines(browser: WebDriver, open_page: Open) -> None:
    open_page()
    assert texts(browser, ".entries button") == ["adam", "sgd"]
    assert len(texts(browser, "#curves path.line")) == 2
    assert len(texts(browser, "#curves path.band")) == 2
    click(browser, ".entries button", "adam")
    assert len(texts(browser, "#curves path.line")) == 1
    pressed = [
        node.get_attribute("aria-pressed")
        for node in browser.find_elements("css selector", ".entries button")
    ]
    assert pressed == ["false", "true"]
    browser.switch_to.active_element.send_keys(" ")
    assert len(texts(browser, "#curves path.line")) == 2
    click(browser, ".legend-head button", "none")
    assert texts(browser, "#curves path.line") == []
    click(browser, ".legend-head button", "all")
    choose(browser, "Lines", "every run")
    assert len(texts(browser, "#curves path.line")) == 9
    assert texts(browser, "#curves path.band") == []


def test_chart_zooms_pans_and_resets(browser: WebDriver, open_page: Open) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page()
    whole = ticks(browser, "x")
    assert (whole[0], whole[-1]) == (5, 30)
    drag(browser, (0.5, 0.5), (0.8, 0.5))  # a horizontal drag keeps the vertical axis
    zoomed = ticks(browser, "x")
    assert 12 < zoomed[0] < zoomed[-1] < 26
    drag(browser, (0.3, 0.3), (0.7, 0.7))
    assert ticks(browser, "x")[-1] < zoomed[-1]
    click(browser, ".buttons button", "reset")
    assert ticks(browser, "x") == whole
    drag(browser, (0.5, 0.5), (0.8, 0.5))
    click(browser, ".buttons button", "pan")
    drag(browser, (0.8, 0.5), (0.5, 0.5))
    assert ticks(browser, "x")[-1] > zoomed[-1]
    chart = browser.find_element("css selector", "#curves .plot")
    chart.send_keys("0")
    assert ticks(browser, "x") == whole
    chart.send_keys("+")
    assert 5 < ticks(browser, "x")[0] < ticks(browser, "x")[-1] < 30
    near = ticks(browser, "x")
    chart.send_keys(Keys.SHIFT + 4 * Keys.ARROW_RIGHT)
    assert ticks(browser, "x")[-1] > near[-1]


def test_chart_changes_metric_and_scales(browser: WebDriver, open_page: Open) -> None:
    open_page()
    assert texts(browser, "#curves .label") == ["epochs", "validation accuracy"]
    choose(browser, "Metric", "validation loss")
    choose(browser, "Against", "optimizer steps")
    assert texts(browser, "#curves .label") == [
        "optimizer steps",
        "validation loss (mean per sample)",
    ]
    assert ticks(browser, "x")[-1] == 300
    even = ticks(browser, "y")
    assert max(even) - even[-2] == pytest.approx(even[1] - even[0])
    click(browser, ".tick", "log y")
    assert {0.05, 0.1, 0.2, 0.5, 1} <= set(ticks(browser, "y"))
    choose(browser, "Metric", "loss, also of training")
    assert len(texts(browser, "#curves path.line")) == 4


def test_chart_shows_values_under_the_cursor(browser: WebDriver, open_page: Open) -> None:
    """The values are mean and standard deviation over the runs that reached the epoch."""
    from selenium.webdriver.common.keys import Keys

    open_page()
    choose(browser, "Metric", "validation loss")
    chart = browser.find_element("css selector", "#curves .plot")
    chart.send_keys(Keys.ARROW_RIGHT)
    assert texts(browser, ".tip strong") == ["epochs: 1"]
    rows = [texts(browser, f".tip tr:nth-child({row}) td") for row in (1, 2)]
    for (_, label, value), (name, level, seeds) in zip(
        rows, [("adam", 2.0, 5), ("sgd", 1.0, 4)], strict=True
    ):
        losses = [level * (1 + seed / 10) for seed in range(seeds)]
        mean, std = statistics.mean(losses), statistics.stdev(losses)
        assert (label, value) == (name, f"{mean:.4g} ± {std:.2g} (n = {seeds})")
    assert texts(browser, "#curves [aria-live]") == [
        "epochs: 1; adam: 2.4; sgd: 1.15",
    ]
    chart.send_keys(Keys.ARROW_RIGHT)
    assert texts(browser, ".tip strong") == ["epochs: 2"]


def test_points_show_details_when_opened(browser: WebDriver, open_page: Open) -> None:
    open_page()
    assert texts(browser, ".details") == []
    opener = browser.find_element("css selector", "[aria-label='details of sgd-3']")
    opener.click()
    assert opener.get_attribute("aria-expanded") == "true"
    (error,) = texts(browser, ".details .error")
    assert error.startswith('ValueError: </script><script>document.title="taken"</script><!--<b>&')
    config, log = texts(browser, ".details pre")
    assert config.startswith("name: test\nseed: 3\n")
    assert "\noptimizer:\n  name: sgd\n" in config
    assert texts(browser, ".details mark") == ["seed: 3\n", "  name: sgd\n", "  lr: 0.1\n"]
    assert "Traceback </script>" in log
    assert len(texts(browser, ".details .own path.line")) == 4
    opener.click()
    assert texts(browser, ".details") == []
    click(browser, "[aria-label='details of adam-1']")
    loaded = "return document.querySelector('.details img')?.naturalWidth"
    assert ask(browser, loaded) == 64
    click(browser, ".plot-button")
    assert ask(browser, "return document.querySelector('dialog img')?.naturalWidth") == 64
    assert browser.find_element("css selector", "dialog img").is_displayed()
    click(browser, "dialog button")
    # The browser removes the dialog in a later event, after the click.
    assert ask(browser, "return !document.querySelector('dialog')")
    click(browser, "[aria-label='details of lion-0']")
    assert "This point has not started" in texts(browser, ".details")[-1]
    assert browser.title == "a <b> & sweep – nnopt report"
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_linked_plots_are_shown_from_their_files(
    browser: WebDriver,
    open_page: Open,
    sweep: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nnopt.report.gather.MAX_PAGE_BYTES", 0)
    folder = shutil.copytree(sweep, tmp_path / "moved #1")
    run_verb(["report", str(folder)])
    open_page(folder / "report.html")
    assert "6 plots would make the page too large" in texts(browser, "footer")[0]
    click(browser, "[aria-label='details of adam-1']")
    assert ask(browser, "return document.querySelector('.details img')?.naturalWidth") == 64
    (folder / "adam-2" / "plots" / "confusion.png").unlink()
    click(browser, "[aria-label='details of adam-2']")
    (gone,) = ask(browser, "return [...document.querySelectorAll('.gone')]")
    assert gone.text.startswith("confusion.png is missing")


def test_scope_selects_one_sweep_of_many(
    browser: WebDriver, open_page: Open, sweep: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        shutil.copytree(sweep, tmp_path / name, ignore=shutil.ignore_patterns("*.html"))
    (tmp_path / "two" / "plots").mkdir()
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="9"/></svg>'
    )
    (tmp_path / "two" / "plots" / "bars.svg").write_text(picture)
    run_verb(["report", str(tmp_path)])
    open_page(tmp_path / "report.html")
    assert len(column(browser, "sweep")) == 22
    choose(browser, "Show", "two (11 points)")
    assert len(column(browser, "seed")) == 11
    assert texts(browser, "#plots figcaption") == ["bars"]
    loaded = "return document.querySelector('#plots img')?.naturalWidth"
    assert ask(browser, loaded) == 40
