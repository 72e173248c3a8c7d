"""A real Chromium without a window, led by its DevTools protocol over one websocket (https://chromedevtools.github.io/devtools-protocol).

async with chromium(folder) as browser:
    window = await browser.window(PHONE, language="de")
    await window.go("http://127.0.0.1:8444/")
    await window.run("document.title")
    await window.picture(file)
    window.errors        # whatever the console, the network or the page itself complained of
"""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.peers import need_tool

_PATIENCE_S: Final = 60
_FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # tests may run as root, which its sandbox refuses; it visits our own page only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--hide-scrollbars",
    "about:blank",
)


@dataclass(frozen=True)
class Screen:
    """In CSS points."""

    name: str
    width: int
    height: int
    mobile: bool = False


PHONE: Final = Screen("phone", 390, 844, mobile=True)
DESKTOP: Final = Screen("desktop", 1440, 900)


@dataclass
class Window:
    """One page of the browser."""

    browser: "Browser"
    session: str
    screen: Screen
    errors: list[str] = field(default_factory=list)

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:  # Any: the protocol's own forms
        return await self.browser.ask(method, self.session, **parameters)

    async def go(self, url: str) -> None:
        """Until the page and all that it names is loaded."""
        self.browser.loaded[self.session] = asyncio.Event()
        await self.ask("Page.navigate", url=url)
        async with asyncio.timeout(_PATIENCE_S):
            await self.browser.loaded[self.session].wait()

    async def run(self, expression: str) -> Any:  # Any: whatever the expression gives
        found = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not await self.run(expression):  # noqa: ASYNC110 - a page tells nobody
                await asyncio.sleep(0.05)

    async def picture(self, file: Path, *, whole: bool = False) -> None:
        await self.ask("Page.bringToFront")  # what is behind another window is not drawn, and never answers
        shot = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """The browser's end of the websocket."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._windows: dict[str, Window] = {}
        self.loaded: dict[str, asyncio.Event] = {}

    async def ask(self, method: str, session: str = "", **parameters: object) -> dict[str, Any]:
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        await self._line.send_json(message)
        async with asyncio.timeout(_PATIENCE_S):
            found: dict[str, Any] = await answer
        return found

    async def window(self, screen: Screen, *, language: str, dark: bool = False, scripts: bool = True) -> Window:
        target = await self.ask("Target.createTarget", url="about:blank", newWindow=True)
        session = (await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        window = self._windows[session] = Window(self, session, screen)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await window.ask(f"{domain}.enable")
        await window.ask(
            "Emulation.setDeviceMetricsOverride",
            width=screen.width,
            height=screen.height,
            mobile=screen.mobile,
            deviceScaleFactor=2 if screen.mobile else 1,
        )
        agent = (await self.ask("Browser.getVersion"))["userAgent"]
        await window.ask("Network.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        scheme = "dark" if dark else "light"
        await window.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await window.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        await window.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        return window

    async def listen(self) -> None:
        """Until the browser is gone."""
        async for message in self._line:
            self._hear(json.loads(message.data))

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            asked = self._asked.pop(message["id"])
            if "error" in message:
                asked.set_exception(AssertionError(message["error"]))
            else:
                asked.set_result(message["result"])
        elif (window := self._windows.get(message.get("sessionId", ""))) is not None:
            self._told(window, message["method"], message["params"])

    def _told(self, window: Window, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired" if window.session in self.loaded:
                self.loaded[window.session].set()
            case "Runtime.exceptionThrown":
                window.errors.append(f"exception: {told['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if told["type"] in {"error", "warning", "assert"}:
                window.errors.append(f"console: {told['args']}")
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                window.errors.append(f"log: {told['entry']['text']} {told['entry'].get('url', '')}")
            case "Network.loadingFailed" if not told.get("canceled"):
                window.errors.append(f"network: {told['errorText']}")
            case _:
                pass


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """As long as the block lasts; its profile lies in `folder`."""
    tool, profile = need_tool("chromium"), folder / "profile"
    process = await asyncio.create_subprocess_exec(
        tool,
        *_FLAGS[:-1],
        f"--user-data-dir={profile}",
        _FLAGS[-1],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port, place = await _door(profile / "DevToolsActivePort", process)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}{place}", max_msg_size=0) as line,
        ):
            browser = Browser(line)
            listening = asyncio.create_task(browser.listen())
            try:
                yield browser
            finally:
                listening.cancel()
                await asyncio.wait({listening})
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _door(file: Path, process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Where it listens: it writes that once it does."""
    async with asyncio.timeout(_PATIENCE_S):
        while not file.exists() or len(file.read_text().splitlines()) < 2:
            assert process.returncode is None, f"chromium ended with status {process.returncode}"
            await asyncio.sleep(0.05)
    port, place = file.read_text().splitlines()
    return int(port), place
