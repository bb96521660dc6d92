"""What a browser shows of a run: the report and TensorBoard, opened in headless Chromium."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Render
from refresh import ROOT
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="there is no chromium with its driver: see make chromium"
    ),
]

PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT, SCALE = 1280, 860, 1.4  # of the window, in CSS pixels; device pixels in one of them
FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars"""
HOSTILE = "<img src=gone onerror=alert(1)>"
# How many of the plots hold a line that has a length.
DRAWN = """return [...document.querySelectorAll('.js-plotly-plot')].filter(plot =>
    [...plot.querySelectorAll('path.js-line')].some(line => line.getTotalLength() > 20)).length"""
CARDS = "return document.querySelectorAll('line-chart path, line-chart canvas').length > 3"
LOADED = "return [...document.querySelectorAll('image-card img')].some(img => img.naturalWidth)"


@pytest.fixture(scope="module")
def project(render: Render, pytestconfig: pytest.Config) -> Path:
    """A project with two runs on the digits, short ones unless pictures are to be taken."""
    folder = render(project_name="Digit Reader")
    length = [] if pytestconfig.getoption("pictures") else ["--max_steps=60", "--picture_every=20"]
    python(folder, "prepare_data.py")
    for name, flags in {"first": [], "low-rate": ["--lr=3e-4"]}.items():
        every = ["--epochs=20", "--log_every=10", "--num_workers=0", *length]
        python(folder, "train.py", f"--run_dir=runs/{name}", *every, *flags)
    return folder


def python(project: Path, *arguments: str) -> None:
    """Runs Python in the project; fails if it failed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """A browser that has never been used, and notes what pages log and ask for."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path / 'user'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with Chrome(options, ChromeService(str(DRIVER))) as chrome:
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": SCALE, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield chrome


def wait_for(browser: Chrome, script: str, wanted: object = True) -> None:
    """Waits until a script on the page returns what is wanted."""
    WebDriverWait(browser, 200).until(lambda chrome: chrome.execute_script(script) == wanted)


def log(browser: Chrome, kind: str) -> list[dict[str, str]]:
    """Returns the browser's log of a kind, as far as it is new."""
    lines: list[dict[str, str]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return lines


def errors(browser: Chrome) -> list[str]:
    """Returns what pages have logged as errors."""
    return [each["message"] for each in log(browser, "browser") if each["level"] == "SEVERE"]


def requests(browser: Chrome) -> list[str]:
    """Returns the addresses that pages in files have asked for."""
    events = [json.loads(each["message"])["message"] for each in log(browser, "performance")]
    sent = [each for each in events if each["method"] == "Network.requestWillBeSent"]
    ours = [each["params"] for each in sent if each["params"]["documentURL"].startswith("file:")]
    return [each["request"]["url"] for each in ours]


def photograph(browser: Chrome, path: Path, height: int) -> None:
    """Writes the top of the page to a PNG file."""
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    settings = {"clip": clip, "captureBeyondViewport": True}
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", settings)
    path.write_bytes(base64.b64decode(picture["data"]))


def test_report_is_drawn_and_asks_for_nothing(
    project: Path, browser: Chrome, pytestconfig: pytest.Config
) -> None:
    shutil.copytree(project / "runs/low-rate", project / HOSTILE, dirs_exist_ok=True)
    pages = {
        "hostile": ["runs/first", HOSTILE],
        "one": ["runs/first"],
        "two": ["runs/first", "runs/low-rate"],
    }
    for name, folders in pages.items():
        output = project / f"{name}.html"
        python(project, "report.py", "--run_dir", *folders, f"--output={output}")
        browser.get(output.as_uri())
        wait_for(browser, DRAWN, 6)  # accuracy, two losses, the rate, two speeds
        assert browser.find_elements(By.TAG_NAME, "img")
        wait_for(browser, "return [...document.images].every(each => each.naturalWidth > 100)")
    assert errors(browser) == []
    asked = [each for each in requests(browser) if not each.startswith(("file:", "data:"))]
    assert asked == []
    if pytestconfig.getoption("pictures"):
        photograph(browser, PICTURES / "report.png", 1180)


@pytest.fixture
def tensorboard(project: Path) -> Iterator[str]:
    """TensorBoard on the project's runs, and its address."""
    flags = ["--logdir", str(project / "runs"), "--host", "localhost", "--port", "0"]
    command = [sys.executable, "-m", "tensorboard.main", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        found = (re.search(r"http://\S+", line) for line in process.stderr if "Press" in line)
        yield next(match[0] for match in found if match)
    finally:
        process.terminate()
        process.communicate()


def test_tensorboard_shows_curves_and_pictures(
    tensorboard: str, browser: Chrome, pytestconfig: pytest.Config
) -> None:
    browser.get(f"{tensorboard}?tagFilter=%5E(test%7Ctrain)#timeseries")
    wait_for(browser, CARDS)
    wait_for(browser, LOADED)
    titled = browser.find_elements(By.XPATH, "//*[@title]")
    titles = {each.get_attribute("title") for each in titled}
    assert titles >= {"first", "low-rate", "test/accuracy", "test/images"}
    assert errors(browser) == []
    if pytestconfig.getoption("pictures"):
        for words in ("Enable step selection and data table", "Settings"):  # switched off
            browser.find_element(By.XPATH, f"//*[contains(text(), '{words}')]").click()
        wait_for(browser, "return document.querySelectorAll('line-chart').length > 2")
        wait_for(browser, "return document.querySelector('settings-view') === null")
        photograph(browser, PICTURES / "tensorboard.png", HEIGHT)
