"""Chromium without a window and without a network: one look at a page, or a tab that is driven."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
SECONDS = 120
# Chromium reads commands from descriptor 3 and writes to 4, whatever numbers the pipes have here.
_PIPES = """
import os, sys
read, write = (os.dup(int(n)) for n in sys.argv[1:3])
while read < 5 or write < 5:
    read, write = os.dup(read), os.dup(write)
os.dup2(read, 3)
os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def program() -> str:
    """The path of Chromium; skips the test where there is none, and fails it in CI."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        message = f"no browser: none of {', '.join(names)} is on the path"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class Tab:
    """A tab under Chromium's DevTools protocol; `events` holds what it reported, in order."""

    def __init__(self, send):
        self._send = send

    def __call__(self, method, **parameters):
        """Runs a command of the protocol; returns its result."""
        return self._send(method, parameters)

    @property
    def events(self):
        return self._send.events

    def open(self, path):
        """Loads a file, up to its load event."""
        self("Page.navigate", url=path.as_uri())
        self._send.wait("Page.loadEventFired")

    def evaluate(self, expression):
        """The value of an expression in the page, as JSON; promises are awaited."""
        answer = self(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self):
        """Waits until what was asked for has been drawn."""
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def press(self, key, code):
        """A key, down and up, as a keyboard gives it."""
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def drag(self, start, end):
        """The left button of the mouse: down at one point, up at another, in pixels."""
        for kind, (x, y) in (
            ("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end),
            ("mouseReleased", end),
        ):  # fmt: skip
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width, height, *, dark=False):
        """The size of the window, and the colours that the reader prefers."""
        self(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.settle()

    def picture(self):
        """The window as the bytes of a PNG."""
        return base64.b64decode(self("Page.captureScreenshot")["data"])


class _Connection:
    """Commands to one tab, and what comes back."""

    def __init__(self, read, write):
        self._read, self._write, self._buffer = read, write, b""
        self._numbers, self._session, self.events = itertools.count(1), {}, []
        target = self("Target.createTarget", {"url": "about:blank"})
        answer = self("Target.attachToTarget", {**target, "flatten": True})
        self._session = {"sessionId": answer["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable", {})

    def __call__(self, method, parameters):
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != number:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self):
        while b"\0" not in self._buffer:
            more = os.read(self._read, 2**16)
            assert more, "the browser ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)


@contextlib.contextmanager
def tab(profile):
    """A tab of a browser of its own, with its profile in a folder."""
    to_browser, from_browser = os.pipe(), os.pipe()
    ours = (from_browser[0], to_browser[1])
    theirs = (to_browser[0], from_browser[1])
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-S", "-c", _PIPES, *map(str, theirs), program(), *FLAGS,
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ],
        pass_fds=theirs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for descriptor in theirs:
        os.close(descriptor)
    # A browser that no longer answers would be waited for without end.
    watch = threading.Timer(SECONDS, process.kill)
    watch.start()
    try:
        yield Tab(_Connection(*ours))
    finally:
        watch.cancel()
        for descriptor in ours:
            os.close(descriptor)
        process.kill()
        process.wait()
