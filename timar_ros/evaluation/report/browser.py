"""A headless Chromium, controlled over its debugging pipe (no library, no port): for films and tests of pages."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
        if (found := shutil.which(name))
    ),
    None,
)


class Browser:
    """One page. Collects the page's errors and its network requests.

    :param more: further flags of the browser.
    """

    def __init__(self, width: int = 1200, height: int = 900, scale: float = 1.0, more: Sequence[str] = ()) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self._buffer = b""
        self._number = 0
        self._folder = tempfile.TemporaryDirectory(prefix="timar_browser_", ignore_cleanup_errors=True)
        reading, self._write = os.pipe()
        self._read, writing = os.pipe()
        # High numbers, so that putting them at 3 and 4 below overwrites neither.
        to_read, to_write = (fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (reading, writing))
        flags = [
            "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--enable-unsafe-swiftshader",
            "--autoplay-policy=no-user-gesture-required", "--no-first-run",
            "--disable-background-networking", "--mute-audio", "--disable-dev-shm-usage",
            f"--user-data-dir={self._folder.name}", *more, "about:blank",
        ]  # fmt: skip
        # The pipe's ends must be descriptors 3 and 4 of the browser.
        script = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(CHROMIUM), *flags],
            pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (reading, writing, to_read, to_write):
            os.close(end)
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # A page without focus gets no key events.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Page.bringToFront")
        self.resize(width, height, scale)

    def resize(self, width: int, height: int, scale: float = 1.0, *, mobile: bool = False) -> None:
        """Set the page's size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def call(self, method: str, **parameters: Any) -> Any:
        """Send one command; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        wanted = self._number
        while True:
            answer = self._next(180.0)
            if answer is None:
                raise TimeoutError(f"the browser did not answer {method}")
            if answer.get("id") == wanted:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self, seconds: float) -> dict[str, Any] | None:
        """The next message; also notes events."""
        ends = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                return None
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser is gone")
            self._buffer += data
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent" and parameters["request"]["url"] != "about:blank":
            self.requests.append(parameters["request"]["url"])

    def open(self, page: Path | str, fragment: str = "") -> None:
        """Load a file or an address and wait until the page reports that it is ready."""
        # A change of the fragment alone would not load the page again.
        wanted = page if isinstance(page, str) else f"{page.resolve().as_uri()}{fragment}"
        for url in ("about:blank", wanted):
            self.loaded = False
            self.call("Page.navigate", url=url)
            ends = time.monotonic() + 180.0
            while not self.loaded:
                if self._next(max(0.0, ends - time.monotonic())) is None:
                    raise TimeoutError(f"{url} did not load")
        self.until("document.documentElement?.dataset.ready === 'true'", "the page to be ready")

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression (awaited)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "error"))
        return answer["result"].get("value")

    def until(self, expression: str, what: str, seconds: float = 180.0) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > ends:
                raise TimeoutError(f"waited in vain for {what}; complaints: {self.complaints}")
            time.sleep(0.02)

    def press(self, key: str, code: str | None = None, text: str | None = None) -> None:
        """Press and release a key."""
        common = {"key": key, "code": code or key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self) -> bytes:
        """The page's current picture as JPEG: quicker than a screenshot."""
        shot = {"format": "jpeg", "quality": 93, "optimizeForSpeed": True}
        return base64.b64decode(self.call("Page.captureScreenshot", **shot)["data"])

    def screenshot(self, path: Path | None = None, *, whole: bool = False) -> bytes:
        """The page as PNG."""
        parameters: dict[str, Any] = {"format": "png"}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            parameters |= {"captureBeyondViewport": True, "clip": clip}
        data = base64.b64decode(self.call("Page.captureScreenshot", **parameters)["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.call("Browser.close")
        except (RuntimeError, TimeoutError, OSError):
            self._process.kill()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._folder.cleanup()

    def __enter__(self) -> Browser:  # noqa: PYI034 - no Self in Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
