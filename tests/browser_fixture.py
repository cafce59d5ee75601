"""A headless Chromium, driven through its DevTools pipe: no package and no port is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60  # of one call, on a busy machine
WATCHED = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")


def browser_path() -> str | None:
    """The first of `NAMES` on PATH that runs; a stub that only says how to install one does not."""
    for path in filter(None, map(shutil.which, NAMES)):
        try:
            if subprocess.run([path, "--version"], capture_output=True, timeout=SECONDS).returncode == 0:
                return path
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None


class Browser:
    """One page of a browser. `events` are what it reported since the page was opened."""

    def __init__(self, path: str, home: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'  # the browser reads from 3 and writes to 4
        self.process = subprocess.Popen(
            ["bash", "-c", command, path, *flags, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read), os.close(to_write)
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(SECONDS)
        os.close(self._to), os.close(self._from)

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._from, 1 << 16) if ready else b""
            assert part, "the browser says nothing more"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Load a file into a window of `width` CSS pixels; below 600 as a phone does, with its meta viewport."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message())

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """What stands in the console."""
        return [e for e in self.events if e.get("method") in WATCHED]

    def loaded(self) -> list[str]:
        """Addresses that the page asked for."""
        return [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]

    def picture(self, width: int, height: int) -> bytes:
        """The corner of the window, as PNG."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip)["data"])

    def differing(self, one: bytes, other: bytes) -> int:
        """Pixels in which two pictures of one size differ by more than a quarter of the way from black to white."""
        code = """(async () => {
          const pixels = async (data) => {
            const image = new Image(); image.src = 'data:image/png;base64,' + data; await image.decode();
            const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height});
            const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
            return context.getImageData(0, 0, image.width, image.height).data;
          };
          const [a, b] = [await pixels('ONE'), await pixels('OTHER')];
          return a.filter((x, i) => i % 4 === 0 && Math.abs(x - b[i]) > 64).length;
        })()"""
        for name, picture in (("ONE", one), ("OTHER", other)):
            code = code.replace(f"'{name}'", f"'{base64.b64encode(picture).decode()}'")
        return int(self.js(code))

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF")["data"])
