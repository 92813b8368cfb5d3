"""Headless Chromium, driven by its DevTools protocol over a pair of pipes: nothing but the browser is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 60.0  # that a page may take; machines that run tests are slow


def program() -> str | None:
    """Return the path of Chromium, None where it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One page in one browser. ``errors`` are what the page wrote on its console as such, and what it threw."""

    def __init__(self, reading: int, writing: int) -> None:
        self._in, self._out = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
        self._number, self._left, self.errors = 0, b"", list[str]()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result. Raises RuntimeError with what the browser says."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def size(self, width: int, height: int, dark: bool = False, density: float = 1, phone: bool = False) -> None:
        """Set the size of the page in CSS pixels, and whether it is dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=density, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def go(self, url: str) -> None:
        """Open an address and wait for its page."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited. Raises RuntimeError with what it throws."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "thrown"))
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = SECONDS) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(condition)):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition}: not so after {seconds:.0f} s; errors {self.errors}")
            time.sleep(0.02)
        return found

    def centre(self, selector: str) -> tuple[float, float]:
        """Scroll an element into view and return its centre."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def drop(self, file: Path, selector: str) -> None:
        """Drop a file from outside on an element, as a person does with the mouse."""
        x, y = self.centre(selector)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def click(self, selector: str) -> None:
        """Click on an element with the mouse."""
        self.drag(selector, 0, 0)

    def drag(self, selector: str, by: float, steps: int = 10) -> None:
        """Press the mouse on an element's centre, move it ``by`` pixels to the right in steps, and let go."""
        x, y = self.centre(selector)
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
        for step in range(1, steps + 1):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + by * step / steps, y=y, **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + by, y=y, **mouse)

    def press(self, key: str) -> None:
        """Press and let go of a key, such as "ArrowRight"."""
        codes = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "End": 35, "Home": 36, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def shot(self, path: Path, whole: bool = False) -> None:
        """Write a screenshot, of the ``whole`` page or of what is in view."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            read = os.read(self._in.fileno(), 1 << 16)
            if not read:
                raise RuntimeError("Chromium has ended")
            self._left += read
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        if event.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(given["entry"]["text"])


@contextmanager
def browser(chromium: str, profile: Path) -> Iterator[Browser]:
    """Start headless Chromium with an empty profile, and end it."""
    to_it, from_here = os.pipe()
    to_here, from_it = os.pipe()

    def at_three_and_four() -> None:
        first, second = os.dup(to_it), os.dup(from_it)  # above 4, whatever numbers the pipes have
        os.dup2(first, 3)
        os.dup2(second, 4)

    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [chromium, *options], preexec_fn=at_three_and_four, close_fds=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(to_it)
    os.close(from_it)
    try:
        page = Browser(to_here, from_here)
        yield page
    finally:
        os.killpg(process.pid, 9)
        process.wait(20)
