"""The page in a real browser: it is used as a reader uses it, and loads nothing from anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selfcfg.report.page.outline import sections_of
from selfcfg.report.page.render import page as rendered
from tests.report.pages import facts, system

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = facts([system("one", 0.05, 0), system("a second system with a very long name", 0, 1)])
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    path.write_text(rendered(made, sections_of(made)), encoding="utf-8")
    return path


class Opened:
    """The page in a window of its own, with what it asked for and what it complained of."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", **options)
        self.page = self.context.new_page()
        self.page.route("**/*", self._asked)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        self.viewer = self.page.locator(".viewer").first

    def _asked(self, route: Any) -> None:
        address = route.request.url
        if address.startswith(("file:", "data:")):
            route.continue_()
        else:
            self.asked.append(address)
            route.abort()

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits; the policy of the page allows no function that playwright would wait for."""
        for _ in range(200):
            if holds():
                return
            self.page.wait_for_timeout(25)
        pytest.fail("it did not happen within five seconds")

    @property
    def where(self) -> str:
        return str(self.viewer.locator("output").inner_text())

    @property
    def outline(self) -> str:
        return str(self.viewer.locator("g.map-1 path").first.get_attribute("d"))

    def color(self, selector: str = "body") -> str:
        script = "one => getComputedStyle(one).backgroundColor"
        return str(self.page.locator(selector).first.evaluate(script))


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    made = Opened(browser, file)
    yield made
    assert not made.asked, "something was asked for that is not in the file"
    assert not made.complaints
    made.context.close()


def test_the_viewer_moves_by_slider_keys_and_wheel(opened: Opened) -> None:
    assert opened.where == "axial slice 4 of 9"
    first = opened.outline
    stage, slider = opened.viewer.locator(".stage"), opened.viewer.locator("input[type=range]")
    slider.focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.where == "axial slice 5 of 9" and slider.get_attribute("aria-valuetext") == "axial slice 5 of 9"
    stage.focus()
    opened.page.keyboard.press("ArrowDown")
    assert opened.where == "axial slice 4 of 9" and opened.outline == first
    opened.page.keyboard.press("End")
    assert opened.where == "axial slice 9 of 9" and opened.outline == ""
    assert slider.input_value() == "8"
    opened.page.keyboard.press("Home")
    opened.page.keyboard.press("ArrowLeft")
    assert opened.where == "axial slice 1 of 9"
    stage.scroll_into_view_if_needed()
    stage.hover()
    opened.page.mouse.wheel(0, -100)
    opened.until(lambda: opened.where == "axial slice 2 of 9")
    opened.page.mouse.wheel(0, 100)
    opened.until(lambda: opened.where == "axial slice 1 of 9")
    label = opened.viewer.locator(".stage svg").get_attribute("aria-label")
    assert "axial slice 1 of 9" in str(label)


def test_the_wheel_moves_the_page_again_at_the_last_slice(opened: Opened) -> None:
    stage = opened.viewer.locator(".stage")
    stage.scroll_into_view_if_needed()
    stage.focus()
    opened.page.keyboard.press("Home")
    stage.hover()
    before = opened.page.evaluate("scrollY")
    opened.page.mouse.wheel(0, 400)
    opened.until(lambda: opened.page.evaluate("scrollY") > before)


def test_image_and_outlines_are_shown_and_hidden_one_by_one(opened: Opened) -> None:
    for box, part in (("image", "image"), ("0", "g.map-0"), ("1", "g.map-1")):
        target = opened.viewer.locator(f".stage {part}").first
        assert target.is_visible()
        opened.viewer.locator(f"input[data-shows='{box}']").uncheck()
        assert target.get_attribute("visibility") == "hidden"
        opened.viewer.locator(f"input[data-shows='{box}']").check()
        assert target.get_attribute("visibility") == "visible"


def test_what_is_outlined_can_be_enlarged(opened: Opened) -> None:
    drawing = opened.viewer.locator(".stage svg")
    whole, size = drawing.get_attribute("viewBox"), drawing.bounding_box()
    opened.viewer.locator("input[data-shows='focus']").check()
    left, top, width, height = map(int, str(drawing.get_attribute("viewBox")).split())
    assert left >= 0 and top >= 0 and width < 2000 and height < 1600
    enlarged = drawing.bounding_box()
    assert size and enlarged and enlarged["height"] == pytest.approx(size["height"], abs=1)
    opened.viewer.locator("input[data-shows='focus']").uncheck()
    assert drawing.get_attribute("viewBox") == whole


def test_another_channel_is_another_picture(opened: Opened) -> None:
    picture = opened.viewer.locator(".stage image")
    first = picture.get_attribute("href")
    opened.viewer.locator("select").select_option("1")
    assert picture.get_attribute("href") not in (first, None)
    natural = (
        "async one => { const made = new Image(); made.src = one; await made.decode(); return made.naturalWidth; }"
    )
    assert opened.page.evaluate(natural, first) == 60


def test_the_theme_follows_the_reader_and_the_switch(browser: Any, file: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        made = Opened(browser, file, color_scheme=scheme)
        grounds[scheme] = made.color()
        pressed = made.page.locator("#theme").get_attribute("aria-pressed")
        assert pressed == str(scheme == "dark").lower()
        made.page.locator("#theme").click()
        grounds[f"from {scheme}"] = made.color()
        assert not made.complaints
        made.context.close()
    assert grounds["light"] != grounds["dark"]
    assert grounds["from light"] == grounds["dark"] and grounds["from dark"] == grounds["light"]


def test_a_mark_names_its_case_by_pointer_and_by_key(opened: Opened) -> None:
    figure = opened.page.locator(".plotted").first
    marks, told = figure.locator(".mark"), figure.locator(".told")
    marks.last.hover()
    assert told.inner_text() == marks.last.locator("title").text_content()
    marks.first.focus()
    opened.page.keyboard.press("ArrowRight")
    assert told.inner_text() == marks.nth(1).locator("title").text_content()
    assert "case_" in told.inner_text() and figure.locator(".mark[tabindex='0']").count() == 1


def test_keys_reach_everything_in_the_order_of_the_page(opened: Opened) -> None:
    seen: list[list[str]] = []
    script = """() => {
        const one = document.activeElement;
        return [one.className.baseVal ?? one.className, one.id, one.tagName, one.type ?? ""];
    }"""
    while len(seen) < 200 and (not seen or seen[-1][2] != "BODY"):
        opened.page.keyboard.press("Tab")
        seen.append(opened.page.evaluate(script))
        if len(seen) > 1 and seen[-1] == seen[0]:
            break
    assert seen[0][0] == "skip" and seen[1][1] == "theme"
    kinds = [" ".join(map(str, one)) for one in seen]
    first = [
        next(place for place, kind in enumerate(kinds) if word in kind)
        for word in ("scroll", "mark", "SUMMARY", "stage", "range", "checkbox")
    ]
    assert first == sorted(first)
    assert sum("mark" in kind for kind in kinds) == opened.page.locator(".plotted .told").count()
    opened.page.keyboard.press("Shift+Tab")
    outlined = "getComputedStyle(document.activeElement).outlineStyle"
    assert opened.page.evaluate(outlined) == "solid"


def test_a_narrow_window_needs_no_scrolling_to_the_side(opened: Opened) -> None:
    for width in (360, 768, 1280):
        opened.page.set_viewport_size({"width": width, "height": 800})
        wide = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide[0] <= wide[1], width
        right = (
            "() => Math.max(...[...document.querySelectorAll('section')].map(one => one.getBoundingClientRect().right))"
        )
        assert opened.page.evaluate(right) <= width


def test_without_its_program_the_central_slice_is_there(browser: Any, file: Path) -> None:
    made = Opened(browser, file, java_script_enabled=False)
    assert made.where == "axial slice 4 of 9"
    assert made.viewer.locator(".stage image").is_visible() and made.outline.startswith("M")
    assert not made.viewer.locator("input[type=range]").is_visible() and not made.page.locator("#theme").is_visible()
    made.context.close()


def test_printed_it_is_black_on_white_and_everything_is_unfolded(opened: Opened) -> None:
    opened.page.locator("#theme").click()
    opened.page.emulate_media(media="print")
    opened.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator("details:not([open])").count() == 0
    assert opened.color() == "rgb(255, 255, 255)" and not opened.page.locator("nav").is_visible()
    assert len(opened.page.pdf()) > 10_000


def test_a_hostile_name_starts_nothing(browser: Any, tmp_path: Path) -> None:
    name = "</title></script><script>document.title='taken'</script><img src=http://example.org/x onerror=alert(1)>\"'"
    made = facts([system(name, 0, 0, (name, "b"), prefix=name)], title=name, classes=(name, "b"))
    (tmp_path / "page.html").write_text(rendered(made, sections_of(made)), encoding="utf-8")
    opened = Opened(browser, tmp_path / "page.html")
    assert opened.page.title().startswith(name) and not opened.asked and not opened.complaints
    assert opened.page.locator("h1").inner_text() == name
    assert opened.page.locator("img").count() == 0
    opened.context.close()
