"""The page in a headless Chromium: what a person sees, clicks and types."""

import numpy as np
import pytest

from data_loaders.skeleton import HUMANML
from sample.viewer.page import Motion, Run, write_page, write_pages
from tests.sample.browser import Tab, open_browser, open_tab
from tests.sample.colors import SIGHTS, contrast, distance, luminance
from tests.sample.viewer_pages import CAPTIONS, HOSTILE, example_page, example_runs, walking

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    return example_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def tab(browser, address):
    with open_tab(browser, address) as opened:
        yield opened


def near(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 60) -> int:
    """How many pixels ``[H, W, 3]`` have about this colour."""
    return int((np.abs(pixels - np.array(color)).sum(axis=-1) < tolerance).sum())


def color(tab: Tab, name: str) -> tuple[int, int, int]:
    """A colour of the page's style, as RGB."""
    text = tab.value(
        f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
    )
    return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))


def test_both_figures_are_drawn_and_the_sides_have_their_colours(tab: Tab) -> None:
    tab.press("Home")
    tab.draw()
    for panel in ("#panels > :nth-child(1)", "#panels > :nth-child(2)"):
        pixels = tab.pixels(panel)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, "the canvas is not blank"
        assert near(pixels, color(tab, "left")) > 100
        assert near(pixels, color(tab, "right")) > 100


def test_play_advances_pause_stops_and_the_bar_seeks(tab: Tab) -> None:
    assert tab.text("#play") == "play", "whoever wants less motion is not shown any unasked"
    tab.press(" ")
    tab.wait("viewer.time > 0.2")
    assert tab.text("#play") == "pause"
    tab.page.click("#play")
    held = tab.value("viewer.time")
    tab.page.wait_for_timeout(200)
    assert tab.value("viewer.time") == held
    before = tab.pixels("#stage")
    tab.page.locator("#scrub").fill("30")
    tab.draw()
    assert tab.value("viewer.time * viewer.page.fps") == pytest.approx(30)
    assert tab.text("#clock") == "1.5 of 1.9 s · frame 30 of 39"
    assert np.abs(tab.pixels("#stage") - before).max() > 50, "another frame is shown"


def test_speed_changes_how_fast_time_passes(tab: Tab) -> None:
    ratio = """async (speed) => {
        byId("speed").value = speed; viewer.time = 0; viewer.playing = true;
        let real = 0, last = performance.now();
        while (viewer.time < 0.4) {
            await new Promise(requestAnimationFrame);
            const now = performance.now();
            real += Math.min((now - last) / 1000, 0.25);
            last = now;
        }
        return viewer.time / real;
    }"""
    slow, fast = (tab.page.evaluate(ratio, speed) for speed in ("0.25", "2"))
    assert slow == pytest.approx(0.25, rel=0.25)
    assert fast == pytest.approx(2, rel=0.25)


def test_compared_runs_play_in_step_and_can_be_hidden(tab: Tab) -> None:
    assert tab.texts(".panel header b") == ["base", "SoPo"]
    tab.press("Home", "Shift+ArrowRight")
    tab.draw()
    roots = tab.value("viewer.stage.panels.map((p) => p.motion.way[p.motion.frameAt(viewer.time)])")
    assert roots[0] == pytest.approx(roots[1])
    assert roots[0] == pytest.approx([0.0, 1.2 * 0.5], abs=1e-3), "ten frames of 1.2 m/s"
    tab.press("1")
    assert tab.texts(".panel header b") == ["SoPo"]
    tab.press("2")
    assert tab.texts(".panel header b") == ["SoPo"], "the last one stays"
    tab.page.click("#runs >> text=base")
    assert tab.texts(".panel header b") == ["base", "SoPo"]


def test_what_is_known_of_a_motion_stands_at_it(tab: Tab) -> None:
    assert tab.texts(".panel header div")[1] == "reward 0.900 · seed 7 · 2.0 s"
    assert tab.texts(".panel:nth-child(1) li") == ["✓ travel forward", "✗ jump count 2"]
    assert tab.texts("#legend li") == ["left", "right", "foot on the ground"]


def test_captions_are_searched_and_sorted(tab: Tab) -> None:
    tab.press("/")
    tab.page.keyboard.type("JUMPS person")
    assert tab.text("#count") == "1 of 4 captions, 2 motions"
    assert tab.text("#caption") == CAPTIONS[1]
    tab.page.fill("#search", "nobody says this")
    assert tab.texts("#list li") == []
    assert tab.text("#caption") == ""
    tab.page.fill("#search", "")
    names = "#list button"
    tab.page.select_option("#sort", "reward, lowest first")
    rewards = [float(text.rsplit(" ", 1)[1]) for text in tab.texts(names)]
    assert rewards == sorted(rewards)
    tab.page.select_option("#sort", "caption, A to Z")
    assert [text.split("\n")[0] for text in tab.texts(names)][1:3] == list(CAPTIONS[:2])[::-1]
    tab.page.select_option("#sort", "as given")
    tab.page.click("#list li:nth-child(4) button")
    assert tab.text("#caption") == CAPTIONS[3]


def test_markup_in_a_caption_is_shown_as_text(tab: Tab) -> None:
    tab.press("ArrowDown", "ArrowDown")
    assert tab.text("#caption") == HOSTILE
    assert tab.page.title() == "before <&> after"
    assert tab.page.locator("#captions b, #caption b, #list script").count() == 0


def test_every_key_does_what_the_help_says(tab: Tab) -> None:
    tab.press("?")
    assert tab.page.locator("#help").is_visible()
    tab.press("Escape")
    assert not tab.page.locator("#help").is_visible()
    tab.press("Home", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert tab.value("Math.round(viewer.time * viewer.page.fps)") == 1
    tab.press("End")
    assert tab.value("viewer.time") == pytest.approx(39 / 20)
    tab.press(".")
    assert tab.value("byId('speed').value") == "2"
    tab.press(",", ",")
    assert tab.value("byId('speed').value") == "0.5"
    tab.press("ArrowDown")
    assert tab.text("#caption") == CAPTIONS[1]
    tab.press("ArrowUp", "ArrowUp")
    assert tab.text("#caption") == CAPTIONS[0]
    for key, button in (("b", "#body"), ("f", "#follow"), ("t", "#path")):
        tab.press(key)
        assert tab.page.get_attribute(button, "aria-pressed") == "false"
    assert tab.value("[viewer.stage.figure.thick, viewer.stage.follow, viewer.stage.showPath]") == (
        [False, False, False]
    )
    tab.press("/")
    tab.page.keyboard.type("b ?")
    assert not tab.page.locator("#help").is_visible(), "letters of a search are no commands"


def test_the_view_turns_zooms_moves_and_comes_back(tab: Tab) -> None:
    place = "viewer.stage.camera.position.toArray().concat(viewer.stage.controls.target.toArray())"

    def settled() -> list[float]:
        tab.page.wait_for_timeout(100)
        tab.wait("!viewer.stage.stale")
        return tab.value(place)

    first = settled()
    mouse = tab.page.mouse
    x, y = 600, 250
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 120, y + 20, steps=4)
    mouse.up()
    turned = settled()
    assert np.linalg.norm(np.subtract(turned, first)) > 0.5
    tab.press("r")
    assert settled() == pytest.approx(first, abs=0.05)
    mouse.wheel(0, -400)
    near_by = settled()
    assert np.linalg.norm(near_by[:3]) < np.linalg.norm(first[:3])
    mouse.down(button="right")
    mouse.move(x + 80, y, steps=4)
    mouse.up(button="right")
    assert np.linalg.norm(np.subtract(settled()[3:], first[3:])) > 0.05


def test_fingers_turn_the_view(browser, address) -> None:
    with open_tab(browser, address, 390, 844, has_touch=True, is_mobile=True) as tab:
        before = tab.value("viewer.stage.controls.getAzimuthalAngle()")
        session = tab.page.context.new_cdp_session(tab.page)
        for kind, x in (
            ("touchStart", 150),
            ("touchMove", 190),
            ("touchMove", 260),
            ("touchEnd", None),
        ):
            points = [] if x is None else [{"x": x, "y": 200}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        tab.wait(f"Math.abs(viewer.stage.controls.getAzimuthalAngle() - {before}) > 0.1")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_everything_fits_and_can_be_read(browser, address, width: int, height: int) -> None:
    with open_tab(browser, address, width, height) as tab:
        assert tab.value("document.documentElement.scrollWidth") <= width
        shown = [
            "#caption",
            "#stage",
            "#play",
            "#scrub",
            "#clock",
            "#legend",
            "#search",
            "#list button",
        ]
        for selector in shown:
            box = tab.page.locator(selector).first.bounding_box()
            assert box["width"] > 20, selector
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width, selector
            assert 0 <= box["y"] <= box["y"] + 20 <= height, selector
        sizes = tab.value(
            "[...document.querySelectorAll('body *')].filter((e) => e.offsetParent && "
            "e.childNodes.length && e.firstChild.nodeType === 3 && e.textContent.trim())"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_and_colours_can_be_told_apart(
    browser, address, scheme: str
) -> None:
    with open_tab(browser, address, color_scheme=scheme) as tab:
        page, sky = color(tab, "page"), color(tab, "sky")
        assert (luminance(page) < 0.1) == (scheme == "dark")
        assert near(tab.pixels("#stage"), sky, 12) > 1000, "the scene follows"
        inks = {"ink": page, "soft": color(tab, "surface"), "holds": sky, "fails": sky}
        for ink, ground in inks.items():
            assert contrast(color(tab, ink), ground) >= 4.5, ink
        left, right, contact = (color(tab, name) for name in ("left", "right", "contact"))
        for sight in SIGHTS:
            assert distance(left, right, sight) > 40, sight
            assert min(distance(left, contact, sight), distance(right, contact, sight)) > 25, sight
        tab.press("d")
        assert color(tab, "page") != page


def test_planted_feet_have_a_ring_and_lifted_ones_none(browser, tmp_path) -> None:
    joints = np.repeat(walking(1), 20, axis=0)
    joints[10:, :, 1] += 0.5  # in the air
    page = write_page(tmp_path / "p.html", [Run("jump", [Motion("a", joints)])], HUMANML, "feet")
    with open_tab(browser, page.as_uri()) as tab:
        rings = "viewer.stage.figure.rings.map((ring) => ring.visible)"
        tab.press("Home")
        tab.draw()
        assert tab.value(rings) == [True, True]
        on_ground = near(tab.pixels("#stage"), color(tab, "contact"))
        tab.press("End")
        tab.draw()
        assert tab.value(rings) == [False, False]
        in_the_air = near(
            tab.pixels("#stage"), color(tab, "contact")
        )  # texts have about that colour
        assert on_ground > in_the_air + 40


def test_a_motion_of_one_frame_is_shown(browser, tmp_path) -> None:
    page = write_page(tmp_path / "p.html", [Run("a", [Motion("a", walking(1))])], HUMANML, "one")
    with open_tab(browser, page.as_uri()) as tab:
        assert tab.text("#clock") == "0.0 of 0.0 s · frame 0 of 0"
        assert near(tab.pixels("#stage"), color(tab, "left")) > 100


def test_pages_are_turned(browser, tmp_path) -> None:
    first, second = write_pages(tmp_path, example_runs(rows=4), HUMANML, "two", limit=4)
    with open_tab(browser, first.as_uri()) as tab:
        assert tab.text("#count") == "2 of 2 captions, 4 motions"
        tab.page.click("#pages a")
        assert tab.page.url == second.as_uri()
        assert tab.text("#caption") == HOSTILE


def test_without_webgl_the_page_says_so(browser, address) -> None:
    with browser.new_context() as window:
        tab = Tab(window.new_page())
        tab.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        tab.page.goto(address)
        assert "cannot draw in 3-D" in tab.text("#panels")
        assert len(tab.texts("#list li")) == 4


def test_three_hundred_motions_are_small_and_open_at_once(browser, tmp_path) -> None:
    """The time is that of the page's own work: its data unpacked and the first frame drawn."""
    motions = [Motion(f"caption {row:03d}", walking(120)) for row in range(300)]
    (page,) = write_pages(tmp_path, [Run("a", motions)], HUMANML, "many")
    assert page.stat().st_size < 12e6
    with open_tab(browser, page.as_uri()) as tab:
        assert len(tab.texts("#list li")) == 300
        milliseconds = """() => {
            const start = performance.now();
            viewer.show(JSON.parse(byId("page-data").textContent), byId("motion-data").textContent);
            return performance.now() - start;
        }"""
        assert tab.value(milliseconds) < 2000
