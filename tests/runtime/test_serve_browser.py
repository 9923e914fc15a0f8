"""The page in Chromium. Screenshots go to .cache/screenshots."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any, cast
from unittest import mock
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from salstream.runtime.live.camera import Camera, State
from salstream.runtime.serve import Server, serve
from servers import serving
from watching import Player, moving, playing, show

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

SHOTS = Path(__file__).resolve().parents[2] / ".cache" / "screenshots"
TOKEN = "correct-horse-battery"
AWKWARD = "<b>yard</b> & 100 %/2"
WAIT_S = 10.0
_CARD = (
    "const card = [...document.querySelectorAll('.camera')]"
    ".find((each) => each.querySelector('h2').textContent === arguments[0]);"
)

pytestmark = pytest.mark.slow


class Page:
    """A browser with the page open."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        driver.get("about:blank")  # what the page before has to say is not for this one
        self.console()
        self.emulate()

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.until(lambda: self.state("entrance") == "live")

    def all(self, selector: str) -> list[WebElement]:
        return cast("list[WebElement]", self.driver.find_elements(By.CSS_SELECTOR, selector))

    def one(self, selector: str) -> WebElement:
        return cast("WebElement", self.driver.find_element(By.CSS_SELECTOR, selector))

    def card(self, name: str) -> WebElement:
        return cast("WebElement", self.driver.execute_script(f"{_CARD} return card", name))

    def text(self, card: WebElement, selector: str) -> str:
        script = "return arguments[0].querySelector(arguments[1]).textContent"
        return str(self.driver.execute_script(script, card, selector))

    def state(self, name: str) -> str | None:
        state: str | None = self.driver.execute_script(f"{_CARD} return card?.dataset.state", name)
        return state

    def canvas(self, name: str) -> NDArray[np.uint8]:
        """Return what a camera's canvas holds, BGR."""
        script = f"{_CARD} return card.querySelector('canvas').toDataURL()"
        url = self.driver.execute_script(script, name)
        content = np.frombuffer(b64decode(url.partition(",")[2]), np.uint8)
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)

    def changed(self, name: str, before: NDArray[np.uint8]) -> bool:
        return bool((self.canvas(name) != before).any())

    def screenshot(self, name: str) -> NDArray[np.uint8]:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{name}.png"))
        image = cv2.imread(str(SHOTS / f"{name}.png"))
        assert image is not None
        return np.asarray(image, np.uint8)

    def press(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, what or "it did not come about"
            time.sleep(0.05)

    def options(self) -> tuple[str, str, str]:
        view, opacity, colormap = self.driver.execute_script(
            "const e = document.querySelector('#options').elements;"
            "return [e.view.value, e.opacity.value, e.colormap.value]"
        )
        return view, opacity, colormap

    def emulate(self, scheme: str = "light", width: int = 0, height: int = 0) -> None:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        if width:
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('browser')}"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(chromedriver))
    started.set_window_size(1400, 1000)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def cameras() -> Iterator[dict[str, Camera]]:
    """Two that play, one of them with conspicuity maps, and two that do not."""
    entrance = Camera("entrance", "rtsp://10.0.0.5/1")
    awkward = Camera(AWKWARD, "rtsp://10.0.0.6/1")
    lost, dead = Camera("loading bay", "http://10.0.0.7/video"), Camera("roof", "/dev/video2")
    lost.publish(moving(5), 0.05)
    lost.reconnects = 2
    with mock.patch("time.time", return_value=time.time() - 3725):
        dead.enter(State.FAILED, "/dev/video2 does not exist")
    plain = [moving(index, (360, 640)) for index in range(60)]
    deep = [moving(2 * index, (360, 640), levels=4) for index in range(60)]
    with playing(Player(entrance, plain, 12), Player(awkward, deep, 8)):
        yield {camera.name: camera for camera in (entrance, awkward, lost, dead)}


@pytest.fixture(scope="module")
def server(cameras: dict[str, Camera]) -> Iterator[Server]:
    with closing(show(*cameras.values())) as shown:
        yield shown


@pytest.fixture
def page(
    driver: Any, server: Server, cameras: dict[str, Camera], caplog: pytest.LogCaptureFixture
) -> Iterator[Page]:
    """The page as it is at first, with nothing on the console or in the log at the end."""
    cameras["loading bay"].enter(State.RECONNECTING, "the camera closed the connection; try 3")
    opened = Page(driver)
    forgotten = {"origin": server.url, "storageTypes": "local_storage"}
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", forgotten)
    opened.open(server.url)
    opened.until(lambda: opened.canvas("entrance").shape == (360, 640, 3), "a picture")
    caplog.clear()
    yield opened
    assert opened.console() == []
    assert [record.getMessage() for record in caplog.records] == []


def test_pictures_and_numbers_move(page: Page) -> None:
    """Pixels on the screen, not only in the canvas; and the ball goes where the map's peak is."""
    entrance = page.card("entrance")
    numbers = [page.text(entrance, "[data-of=frames]")]
    seen = [page.canvas("entrance")]
    lines = [page.one("polyline.p50").get_attribute("points")]
    before = page.screenshot("cameras")
    for _ in range(3):
        page.until(lambda: page.changed("entrance", seen[-1]), "another picture")
        seen.append(page.canvas("entrance"))
        page.until(lambda: page.text(entrance, "[data-of=frames]") != numbers[-1])
        numbers.append(page.text(entrance, "[data-of=frames]"))
        lines.append(page.one("polyline.p50").get_attribute("points"))
    counts = [int(number.replace(",", "")) for number in numbers]
    assert counts == sorted(set(counts))
    page.until(lambda: 9 < float(page.text(entrance, "[data-of=fps]")) < 14, "its rate")
    assert 30 <= int(page.text(entrance, "[data-of=p50]")) <= 80
    assert int(page.text(entrance, "[data-of=p99]")) >= int(page.text(entrance, "[data-of=p50]"))
    assert len(set(lines)) > 1
    box = entrance.find_element(By.CSS_SELECTOR, ".picture").rect
    y, x = box["y"], box["x"]
    area = np.s_[int(y) : int(y + box["height"]), int(x) : int(x + box["width"])]
    changed = (before[area].astype(int) - page.screenshot("cameras")[area]).__abs__() > 40
    assert changed.any(axis=2).mean() > 0.01
    assert page.one("#summary").text == "2 of 4 live"


def test_the_chart_can_be_read(page: Page) -> None:
    """Its lines are, on its scale, where the newest latency is."""
    entrance = page.card("entrance")
    page.until(lambda: len(points_of(page, "p50")) > 3, "some seconds of it")
    shown: dict[str, Any] = page.driver.execute_script(
        "const card = arguments[0], text = (s) => [...card.querySelectorAll(s)]"
        ".map((each) => each.textContent);"
        "return {scale: text('.scale span'), extent: text('.extent span'),"
        "  said: card.querySelector('.chart').getAttribute('aria-label'),"
        "  lines: ['p50', 'p95', 'p99'].map((p) => card.querySelector(`polyline.${p}`)"
        "    .getAttribute('points'))}",
        entrance,
    )
    top, half, bottom = shown["scale"]
    assert top.endswith(" ms")
    most = float(top.removesuffix(" ms"))
    assert (float(half), bottom) == (most / 2, "0")
    said = shown["said"].partition("now ")[2].removesuffix(" ms").split(", ")
    assert 30 <= float(said[0]) <= float(said[2]) <= 80
    for line, latency in zip(shown["lines"], said, strict=True):
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        assert all(0 <= y <= 40 for _, y in points)
        assert points[-1][0] == 120
        assert most * (1 - points[-1][1] / 40) == pytest.approx(float(latency), abs=0.6)
    begin, end = shown["extent"]
    seconds = int(begin.removesuffix(" s ago"))
    assert (end, 30 <= seconds <= 120) == ("now", True)
    assert points[-1][0] - points[-2][0] == pytest.approx(120 / seconds, abs=0.02)
    roof = page.card("roof")
    assert [label.text for label in roof.find_elements(By.CSS_SELECTOR, ".scale span")] == [""] * 3


def points_of(page: Page, line: str) -> list[str]:
    return str(page.one(f"polyline.{line}").get_attribute("points")).split()


def test_each_view_and_colour_can_be_chosen(page: Page) -> None:
    def choose(view: str) -> None:
        page.one(f"[value={view}] + span").click()

    def shown(name: str = "entrance") -> NDArray[np.uint8]:
        return page.canvas(name)

    colours = Select(page.one("select"))
    choose("map")
    colours.select_by_visible_text("grey")
    page.until(lambda: np.ptp(shown().astype(int), axis=2).max() < 3, "a map in grey")
    colours.select_by_visible_text("hot")
    page.until(lambda: np.ptp(shown().astype(int), axis=2).max() > 200, "a map in colours")
    page.screenshot("map-hot")

    choose("side")
    page.until(lambda: shown().shape == (360, 1280, 3), "two panels")
    page.screenshot("side-by-side")

    choose("conspicuity")
    page.until(lambda: shown(AWKWARD).shape == (720, 1280, 3), "four panels")
    panels = [
        int(shown(AWKWARD)[y : y + 360, x : x + 640].max(axis=2).astype(int).sum())
        for y in (0, 360)
        for x in (0, 640)
    ]
    assert panels == sorted(panels, reverse=True), "shallow to deep"
    page.until(lambda: shown().shape == (360, 640, 3), "a camera without them shows the overlay")
    page.screenshot("conspicuity")

    def white() -> int:
        """Return how much is as white as the ball is where no map colours it."""
        return int((shown() > 215).all(axis=2).sum())

    choose("overlay")
    colours.select_by_visible_text("turbo")
    slider = page.one("[name=opacity]")
    slider.send_keys(Keys.HOME)
    assert page.one("output").text == "0 %"
    page.until(lambda: white() > 3000, "the ball itself")
    slider.send_keys(Keys.END)
    assert page.one("output").text == "100 %"
    page.until(lambda: white() < 500, "the ball under its map")


def test_what_was_chosen_is_remembered(page: Page, server: Server) -> None:
    page.press("v", "c", "-")
    chosen = page.options()
    assert chosen == ("map", "0.65", "viridis")
    page.open(server.url)
    assert page.options() == chosen


def test_a_camera_fills_the_page_and_goes_back(page: Page) -> None:
    def alone() -> list[str]:
        return [page.text(card, "h2") for card in page.all(".camera") if card.is_displayed()]

    everyone = ["entrance", AWKWARD, "loading bay", "roof"]
    assert alone() == everyone
    narrow = page.card("entrance").rect["width"]
    page.card("entrance").find_element(By.CSS_SELECTOR, ".picture").click()
    assert alone() == ["entrance"]
    assert page.card("entrance").rect["width"] > 2 * narrow
    button = page.card("entrance").find_element(By.CSS_SELECTOR, ".picture")
    assert button.get_attribute("aria-pressed") == "true"
    page.screenshot("enlarged")
    snapshot = page.card("entrance").find_element(By.CSS_SELECTOR, ".snapshot").rect
    seen = page.driver.execute_script("return scrollY + innerHeight")
    assert snapshot["y"] + snapshot["height"] <= seen, "all of it without scrolling"
    page.press(Keys.ARROW_RIGHT)
    assert alone() == [AWKWARD]
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert alone() == ["roof"]
    page.press("3")
    assert alone() == ["loading bay"]
    page.press(Keys.ESCAPE)
    assert alone() == everyone
    page.press(Keys.ENTER)  # the camera that was left has the focus
    assert alone() == ["loading bay"]
    page.press(Keys.ENTER)
    assert alone() == everyone


def test_everything_can_be_done_from_the_keyboard(page: Page) -> None:
    """Each stop of the Tab key has a name, and shows that it has the focus."""
    stops: list[str] = []
    for _ in range(30):
        page.press(Keys.TAB)
        stop = page.driver.switch_to.active_element
        if stop.tag_name == "body":
            break
        stops.append(stop.accessible_name)
        outlined = page.driver.execute_script(
            "const e = arguments[0], o = e.type === 'radio' ? e.nextElementSibling : e;"
            "return getComputedStyle(o).outlineStyle",
            stop,
        )
        assert outlined == "solid", stop.accessible_name
    assert "" not in stops
    assert stops[0] == "Overlay"
    assert stops[1].startswith("Opacity")
    assert stops[2] == "Colours"
    assert stops[3:6] == ["Keys", "Enlarge entrance", "Snapshot of entrance"]
    assert stops[6] == f"Enlarge {AWKWARD}"
    page.one("body").click()
    page.press("?")
    dialog = page.one("#keys")
    assert dialog.is_displayed()
    listed = {key.text for key in page.all("#keys kbd")}
    assert {"1", "9", "←", "→", "Esc", "V", "C", "+", "−", "S", "?"} <= listed
    page.screenshot("keys")
    page.press(Keys.ESCAPE)
    assert not dialog.is_displayed()
    page.one("select").send_keys("v")  # typed into a control, it is no shortcut
    assert page.options()[0] == "overlay"
    assert page.options()[2] == "viridis"


def test_a_snapshot_is_saved(page: Page, tmp_path: Path) -> None:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    page.one("[value=side] + span").click()
    page.card("entrance").find_element(By.CSS_SELECTOR, ".snapshot").click()
    page.until(lambda: list(tmp_path.glob("entrance-*.png")), "a file")
    (saved,) = tmp_path.glob("entrance-*.png")
    image = cv2.imread(str(saved))
    assert image is not None
    assert image.shape == (360, 1280, 3)


def test_a_dead_camera_is_shown_as_such(page: Page, cameras: dict[str, Camera]) -> None:
    roof, bay = page.card("roof"), page.card("loading bay")
    assert page.text(roof, ".state") == "failed"
    assert page.text(roof, ".reason").startswith("failed for 1 h 2 min: /dev/video2 does not exist")
    assert page.text(roof, ".notice") == "Failed"
    assert page.text(bay, ".state") == "reconnecting"
    assert "the camera closed the connection; try 3" in page.text(bay, ".reason")
    assert page.text(bay, "[data-of=reconnects]") == "2"

    def saturation(image: NDArray[np.uint8], card: WebElement) -> int:
        box = card.find_element(By.CSS_SELECTOR, ".picture").rect
        y, x = int(box["y"]), int(box["x"])
        area = image[y + 2 : y + int(box["height"]) - 2, x + 2 : x + int(box["width"]) - 2]
        return int(np.ptp(area.astype(int), axis=2).max())

    page.driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", bay)
    page.until(lambda: page.canvas("loading bay").shape == (180, 320, 3))
    scrolled = page.driver.execute_script("return scrollY")
    assert scrolled == 0
    grey = page.screenshot("dead")
    assert saturation(grey, bay) < 12, "greyed, its last picture still there"
    assert saturation(grey, page.card("entrance")) > 60

    cameras["loading bay"].enter(State.LIVE)
    page.until(lambda: page.state("loading bay") == "live")
    assert page.text(bay, ".reason") == ""
    page.until(lambda: saturation(page.screenshot("alive-again"), bay) > 60)
    cameras["loading bay"].enter(State.STALLED, "no frame for 10 s")
    page.until(lambda: page.state("loading bay") == "stalled")
    assert "no frame for 10 s" in page.text(bay, ".reason")


def test_a_name_is_text(page: Page) -> None:
    assert page.text(page.card(AWKWARD), "h2") == AWKWARD
    assert page.all("#cameras b, #cameras img, #cameras script") == page.all("figcaption b")
    page.until(lambda: page.canvas(AWKWARD).shape == (360, 640, 3), "its picture, too")


def test_nothing_comes_from_elsewhere(page: Page, server: Server) -> None:
    loaded = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert len(loaded) >= 4
    assert {urlsplit(url).netloc for url in loaded} == {urlsplit(server.url).netloc}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(page: Page, scheme: str) -> None:
    page.emulate(scheme, 390, 844)
    page.until(lambda: page.driver.execute_script("return innerWidth") == 390)
    image = page.screenshot(f"phone-{scheme}")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
    corner = image[-4:, :8].mean()
    assert corner > 200 if scheme == "light" else corner < 60
    for control in page.all("button, select, .snapshot, .views span"):
        if control.is_displayed():
            assert control.rect["height"] >= 34, control.text
    labels = page.card("entrance").find_elements(By.CSS_SELECTOR, ".plot span")
    page.until(lambda: all(label.text for label in labels), "a scale")
    for label in labels:
        assert float(label.value_of_css_property("font-size").removesuffix("px")) >= 11
    boxes = [label.rect for label in labels]
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
        above = one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
        assert beside or above, "labels lie on each other"
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'end'})", labels[-1])
    page.screenshot(f"phone-chart-{scheme}")


def test_in_dark_mode(page: Page) -> None:
    page.emulate("dark")
    image = page.screenshot("dark")
    assert image[:4].mean() < 60
    text, ground = page.driver.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    assert contrast(text, ground) > 7
    for selector in (".source", ".state", "dt", "#summary", ".reason", ".scale span", ".begin"):
        shown = page.driver.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0])).color", selector
        )
        assert contrast(shown, "rgb(24, 32, 41)") > 4.5, selector


def contrast(text: str, ground: str) -> float:
    """Return the contrast of two colours as WCAG 2 has it, from 1 to 21."""

    def luminance(colour: str) -> float:
        values = colour.partition("(")[2].rstrip(")").split(",")[:3]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (float(value) / 255 for value in values)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(text), luminance(ground)))
    return (light + 0.05) / (dark + 0.05)


def test_the_page_recovers_when_the_server_comes_back(
    driver: Any, cameras: dict[str, Camera]
) -> None:
    entrance = cameras["entrance"]
    page = Page(driver)
    first = show(entrance, cameras["roof"])
    page.open(first.url)
    page.until(lambda: page.canvas("entrance").shape == (360, 640, 3))
    first.close()
    page.until(lambda: page.state("entrance") == "lost")
    assert page.one("#alarm").is_displayed()
    assert "has not answered for" in page.one("#alarm").text
    page.screenshot("server-gone")
    with closing(serve([entrance], urlsplit(first.url).netloc)):
        page.until(lambda: page.state("entrance") == "live")
        assert not page.one("#alarm").is_displayed()
        assert page.state("roof") is None, "it is no longer shown"
        before = page.canvas("entrance")
        page.until(lambda: page.changed("entrance", before), "it moves again")
    # A browser itself notes what could not be reached; the page adds nothing to that.
    assert [m for m in page.console() if "ERR_CONNECTION_REFUSED" not in m] == []


@contextmanager
def through_a_path(port: int) -> Iterator[tuple[str, threading.Event]]:
    """A proxy in which a WebSocket that is used while the event is set dies without a word."""
    died = threading.Event()

    def pump(source: socket.socket, target: socket.socket, pictures: threading.Event) -> None:
        with source, target, suppress(OSError):
            while data := source.recv(65536):
                if b"/pictures" in data[:200]:
                    pictures.set()
                if pictures.is_set() and died.is_set():
                    over.wait()
                target.sendall(data)

    def talk(client: socket.socket) -> None:
        pictures = threading.Event()
        server = socket.create_connection(("127.0.0.1", port))
        back = threading.Thread(target=pump, args=(server, client, pictures), daemon=True)
        back.start()
        pump(client, server, pictures)
        back.join()

    over = threading.Event()
    with serving(talk) as shown:
        yield f"http://127.0.0.1:{shown}/", died
        over.set()


def test_a_picture_is_not_called_live_when_it_is_old(
    driver: Any, server: Server, cameras: dict[str, Camera]
) -> None:
    """The path of the pictures dies without a word, that of the figures does not."""
    page = Page(driver)
    with through_a_path(urlsplit(server.url).port or 0) as (url, died):
        page.open(url)
        page.until(lambda: page.canvas("entrance").shape == (360, 640, 3))
        died.set()
        time.sleep(1)
        died.clear()  # for connections that are new
        before = page.canvas("entrance")
        time.sleep(1)
        assert not page.changed("entrance", before)
        page.until(lambda: page.state("entrance") == "late", "it is known to be old")
        assert "no answer for" in page.text(page.card("entrance"), ".reason")
        page.screenshot("late")
        page.until(lambda: page.state("entrance") == "live", "it connects again")
        page.until(lambda: page.changed("entrance", before), "it moves again")
        assert not page.one("#alarm").is_displayed()
        driver.get("about:blank")
    assert page.console() == []


def test_the_token_is_asked_for_once(driver: Any, cameras: dict[str, Camera]) -> None:
    page = Page(driver)
    with closing(serve([cameras["entrance"]], "127.0.0.1:0", token=TOKEN)) as closed:
        driver.get(closed.url)
        page.screenshot("token")
        page.one("[name=token]").send_keys("wrong", Keys.ENTER)
        page.until(lambda: "not the right one" in driver.page_source)
        page.one("[name=token]").send_keys(TOKEN, Keys.ENTER)
        page.until(lambda: page.state("entrance") == "live")
        page.until(lambda: page.canvas("entrance").shape == (360, 640, 3), "also the WebSocket")
        page.open(closed.url)
        assert driver.execute_script("return document.cookie") == "", "no script can read it"
        driver.delete_all_cookies()
        page.until(lambda: page.all("[name=token]"), "who loses it is asked again")
    assert [m for m in page.console() if " 401 " not in m] == []
