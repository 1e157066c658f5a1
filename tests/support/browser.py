"""Headless Chromium, driven by chromedriver's HTTP interface."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER = "\ue007"
TAB = "\ue004"


def programs() -> tuple[str | None, str | None]:
    """Chromium and chromedriver; None for what is not installed."""
    return shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A browser's only tab."""

    def __init__(self, session: str) -> None:
        self._session = session

    def call(self, path: str, **body: Any) -> Any:
        """A command of WebDriver."""
        return _sent(f"{self._session}/{path}", body)

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self.call("execute/sync", script=script, args=[])

    def type(self, ident: str, text: str) -> None:
        """Type into the element of this id; a file's path, into one that chooses files."""
        element = self.call("element", using="css selector", value=f"#{ident}")[_ELEMENT]
        self.call(f"element/{element}/value", text=text)

    def keys(self, text: str) -> None:
        """Type into whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.call("actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def wait(self, script: str) -> Any:
        """What a script returns, once it is true."""
        end = time.monotonic() + 30
        while not (found := self.run(script)):
            assert time.monotonic() < end, script
            time.sleep(0.05)
        return found

    def width(self, pixels: int) -> None:
        """Set the width of what is shown."""
        settings = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.call("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=settings)

    def dark(self, dark: bool) -> None:
        """Set the colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("goog/cdp/execute", cmd="Emulation.setEmulatedMedia", params={"features": features})

    def shot(self, path: Path) -> None:
        """Save what is shown."""
        with urllib.request.urlopen(f"{self._session}/screenshot") as reply:
            path.write_bytes(base64.b64decode(json.load(reply)["value"]))


@contextmanager
def browser(directory: Path) -> Generator[Browser]:
    """A new browser whose files are in a directory."""
    chromium, driver = programs()
    assert chromium is not None and driver is not None
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "successfully on port" in line)
            address = f"http://127.0.0.1:{line.rstrip().rstrip('.').rsplit(' ', 1)[1]}/session"
            options = {"binary": chromium, "args": [*_FLAGS.split(), f"--user-data-dir={directory}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            found = _sent(address, {"capabilities": {"alwaysMatch": wanted}})
            session = f"{address}/{found['sessionId']}"
            yield Browser(session)
            urllib.request.urlopen(urllib.request.Request(session, method="DELETE")).close()
        finally:
            process.terminate()


def _sent(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
