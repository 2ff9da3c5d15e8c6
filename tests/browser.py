"""A demo page in headless Chromium, driven over plain HTTP by its chromedriver: does everything play, in silence?

`python tests/browser.py PAGE_FOLDER [SCREENSHOT_FOLDER]` checks a page and takes pictures of it.
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
KEYS = {"right": "\ue014", "down": "\ue015", "left": "\ue012", "up": "\ue013", "space": " "}
PLAY_ALL = """
const done = arguments[0], pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const within = async (seconds, fact) => {
  for (const end = performance.now() + 1000 * seconds; !fact() && performance.now() < end; ) await pause(10);
  return Boolean(fact());
};
(async () => {
  const all = [...document.querySelectorAll("audio")], report = [];
  for (const audio of all) {
    const player = audio.closest(".player");
    const image = player.querySelector("img"), button = player.querySelector("button");
    image.loading = "eager";
    button.click();
    const ready = await within(20, () => audio.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA || audio.ended);
    const from = audio.currentTime;
    report.push({
      name: audio.getAttribute("aria-label"), seconds: audio.duration, ready,
      drawn: await within(20, () => image.complete && image.naturalWidth > 0),
      plays: await within(20, () => audio.currentTime > from + 0.02 || audio.ended),
      alone: all.every((other) => other === audio || other.paused), error: audio.error && audio.error.message,
    });
    if (!audio.paused) button.click();
  }
  done(report);
})();
"""
DRAW_ALL = """
const images = [...document.images], done = arguments[0];
images.forEach((image) => (image.loading = "eager"));
Promise.all(images.map((image) => image.decode())).then(() => done(), (error) => done(String(error)));
"""


class Browser:
    """One window of Chromium."""

    def __init__(self, driver: str, profile: str, options: tuple[str, ...] = ()):
        self.driver = driver
        chrome = {"binary": CHROMIUM, "args": [*OPTIONS, *options, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = "/session/" + self._call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.post("timeouts", script=600_000)

    def post(self, command: str, **body):
        """A command of the WebDriver protocol, and what it answers."""
        return self._call(f"{self.session}/{command}", body)

    def devtools(self, command: str, **body):
        return self.post("goog/cdp/execute", cmd=command, params=body)

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input of the page, as a person does."""
        (element,) = self.post("element", using="css selector", value=selector).values()
        self.post(f"element/{element}/value", text=str(path))

    def wait(self, fact: str, seconds: float = 300.0):
        """The value of an expression of the page as soon as it is true. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(f"return {fact}"):
                return value
            time.sleep(0.05)
        raise TimeoutError(f"{fact} is not so after {seconds} s; the page says: {self.console()}")

    def run(self, script: str, *arguments):
        """What a script returns."""
        return self.post("execute/sync", script=script, args=arguments)

    def press(self, *keys: str) -> None:
        strokes = [{"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self.post("actions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])

    def console(self) -> list[str]:
        """All that the page has said so far."""
        return [entry["message"] for entry in self.post("se/log", type="browser")]

    def picture(self, path: Path, width: int, scheme: str, height: int = 0) -> None:
        """Of the page at a width of so many pixels, "light" or "dark"; all of it unless it is as high as given."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        size = {"width": width, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size, height=height or 1000)
        self.post("execute/async", script=DRAW_ALL, args=[])
        if not height:
            whole = self.run("return document.documentElement.scrollHeight")
            self.devtools("Emulation.setDeviceMetricsOverride", **size, height=whole)
        path.write_bytes(base64.b64decode(self.devtools("Page.captureScreenshot")["data"]))

    def _call(self, path: str, body: dict | None = None):
        method = "DELETE" if body is None else "POST"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.driver + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def close(self) -> None:
        self._call(self.session)


@contextlib.contextmanager
def opened(*options: str) -> Iterator[Browser]:
    """A browser with further options and a profile of its own, both gone afterwards."""
    with tempfile.TemporaryDirectory() as profile, tempfile.TemporaryFile("w+") as log:
        program = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            ports = (re.search(r"on port (\d+)", line) for line in program.stdout)
            port = next(found[1] for found in ports if found and found[1] != "0")
            with contextlib.closing(Browser(f"http://localhost:{port}", profile, options)) as browser:
                yield browser
        finally:
            program.terminate()
            program.wait()
            program.stdout.close()


def most_memory() -> int:
    """The most bytes that a page has held so far, of all pages in browsers that this process opened (Linux)."""
    parents, held = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            status = (process / "status").read_text()
            parents[int(process.name)] = int(re.search(r"PPid:\s*(\d+)", status)[1])
            if b"--type=renderer" in (process / "cmdline").read_bytes():
                held[int(process.name)] = 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])

    def is_ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_ours(parents[process]))

    return max(size for process, size in held.items() if is_ours(process))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served by what `python -m http.server` serves it with."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()


def faults(browser: Browser, url: str) -> list[str]:
    """Load a page and play each player for a moment: whatever is wrong with it, a line each."""
    browser.post("url", url=url)
    players = browser.post("execute/async", script=PLAY_ALL, args=[])
    must = ("ready", "drawn", "plays", "alone", "seconds")
    wrong = [str(each) for each in players if each["error"] or not all(each[fact] for fact in must)]
    sideways = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if sideways:
        wrong.append(f"the page is {sideways} px too wide")
    if not players:
        wrong.append("there is nothing to play")
    return wrong + browser.console()


def main(folder: Path, pictures: Path | None = None) -> int:
    with served(folder) as url, opened() as browser:
        found = faults(browser, url)
        print("\n".join(found) or "every player plays, and the console is empty")
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            for name, width, scheme in (("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")):
                browser.picture(pictures / f"{name}.png", width, scheme)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
