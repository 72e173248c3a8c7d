"""The page in a real Chromium, while a stick is read and its devices are updated: the words follow, and nothing complains.

Pictures are left in `build/page`, for people to look at.
"""

import asyncio
import json
import random
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, Self, cast

import aiohttp
import pytest

from gateway.sections.media import MediaSection
from gateway.sections.web import WebSection
from media.folder import FolderMedium
from media.importer import Importer, Visit
from media.intake import Intake
from media.medium import Entry
from media.records import MediumState, Stage
from tests.builders.bundles import describe, image, signed
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import Site, free_port, links, now, set_up_site
from tests.gateway.web.served import NODE, STICK, Shown
from tests.interop.chromium import DESKTOP, PHONE, Browser, Screen, Window, chromium
from update.durable import Disk
from update.errors import FieldrelayError
from update.identity import Hardware
from update.wire.attributes import NodeFacts
from update.wire.tls import GATEWAY_IDENTITY

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400)]

PICTURES: Final = Path(__file__).parents[2] / "build" / "page"
WORDS: Final = "document.querySelector('.stick .big')?.textContent ?? ''"
RECORD: Final = f"""
window.seen = [];
const note = () => {{
  const words = ({WORDS}).replace(/[0-9]+/g, "#");
  if (words && words !== window.seen.at(-1)) window.seen.push(words);
}};
note();
new MutationObserver(note).observe(document.body, {{childList: true, subtree: true, characterData: true}});
"""
NODES: Final = ("press-1", "press-2", "oven-1")
_READ_S: Final = 0.05
"""What reading a piece of a slow stick takes."""
_HELD_S: Final = 100.0


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as found:
        yield found


class SlowFile:
    """As slow as a stick is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        time.sleep(_READ_S)
        return self._file.read(size)


@dataclass
class SlowStick:
    """A folder as a stick, whose every state is held until it was seen."""

    folder: FolderMedium
    intake: Intake
    seen: dict[Stage, threading.Event] = field(default_factory=lambda: {stage: threading.Event() for stage in Stage})
    last: MediumState | None = None

    def walk(self) -> Iterator[Entry]:
        return self.folder.walk()

    def open(self, parts: Sequence[str]) -> BinaryIO:
        return cast("BinaryIO", SlowFile(self.folder.open(parts)))

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        return self.folder.trouble(error, parts)

    def close(self) -> None:
        self.folder.close()

    def plug_in(self) -> None:
        """Read it, in a thread of its own as a process would."""
        visit = Visit(self, "UPDATE", writable=False, now=time.time, clock=time.monotonic)
        self.last = asyncio.run(Importer(visit, self.intake, self._hold).run())

    def pull_out(self) -> None:
        assert self.last is not None
        self.intake.write_state(replace(self.last, stage=Stage.GONE))

    def _hold(self, state: MediumState) -> None:
        assert self.seen[state.stage].wait(_HELD_S), f"nobody saw {state.stage}"


async def set_up(short: Path) -> Site:
    """A gateway with a page, and a stick with a release of two wants' size."""
    builder = RepositoryBuilder(now=now())
    site = await set_up_site(short, builder)
    content = random.Random(1).randbytes(20 << 20)
    description = describe(images=[image("a.img", content, type="raw")]).replace(b'version = "1"', b'version = "2"')
    for number in (1, 2):
        bundle = signed(short, description, {"a.img": content}, name=f"whole-{number}.swu")
        custom = {"hwIds": ["board:1"], "version": "2", "releaseCounter": number + 1}
        builder.add_target(f"os/whole-{number}.swu", bundle.read_bytes() + bytes(number - 1), custom)
    builder.publish()
    builder.write_to(short / "stick")
    media = MediaSection(enabled=True, intake=short / "intake")
    web = WebSection(enabled=True, addresses=("127.0.0.1",), port=free_port(), tls=False)
    return replace(site, config=replace(site.config, media=media, web=web))


async def succeed(session: aiohttp.ClientSession, name: str) -> None:
    """As a stock node that has installed what it was told, and restarted."""
    async with asyncio.timeout(60):
        while (link := (await links(session, name)).get("deploymentBase")) is None:  # noqa: ASYNC110 - it polls
            await asyncio.sleep(0.05)
    async with session.get(link["href"], server_hostname=GATEWAY_IDENTITY) as response:
        action = (await response.json())["id"]
    base = f"/DEFAULT/controller/v1/{name}"
    told = {"id": action, "status": {"execution": "closed", "result": {"finished": "success"}, "details": []}}
    async with session.post(f"{base}/deploymentBase/{action}/feedback", json=told, server_hostname=GATEWAY_IDENTITY) as response:
        assert response.status == 200, await response.text()
    facts = NodeFacts(Hardware.parse("board:1"), "2", None, "b").attributes()
    async with session.put(
        f"{base}/configData", json={"mode": "replace", "data": facts}, server_hostname=GATEWAY_IDENTITY
    ) as response:
        assert response.status == 200, await response.text()


async def see(windows: Sequence[Window], words: Sequence[str], name: str) -> None:
    """Each window says its words; a picture of each."""
    for window, each in zip(windows, words, strict=True):
        await window.until(f"({WORDS}).startsWith({each!r})")
        await window.picture(PICTURES / f"{name}-{window.screen.name}.png")


async def test_the_words_follow_the_stick_at_phone_and_desktop_width(short: Path, browser: Browser) -> None:
    site = await set_up(short)
    stick = SlowStick(FolderMedium.at(short / "stick"), Intake(Disk(), short / "intake", "update-1"))
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(site.running())
        nodes = {name: await site.node(listening, stack, name) for name in NODES}
        windows = [await browser.window(PHONE, language="de"), await browser.window(DESKTOP, language="en")]
        for window in windows:
            await window.go(f"http://127.0.0.1:{site.config.web.port}/")
            await window.run(RECORD)
            await window.picture(PICTURES / f"0-nothing-{window.screen.name}.png")
        reading = asyncio.create_task(asyncio.to_thread(stick.plug_in))
        await see(windows, ("Stick gefunden", "Stick found"), "1-found")
        stick.seen[Stage.FOUND].set()
        await see(windows, ("Wird geprüft", "Checking"), "2-checking")
        stick.seen[Stage.CHECKING].set()
        await see(windows, ("Kopiert", "Copying"), "3-copying")
        stick.seen[Stage.COPYING].set()
        await see(windows, ("Kann entfernt", "Safe to"), "4-safe")
        stick.seen[Stage.SAFE].set()
        await reading
        stick.pull_out()
        await see(windows, ("Aktualisiert 0/3", "Updating 0/3"), "5-updating")
        await succeed(nodes["press-1"], "press-1")
        await see(windows, ("Aktualisiert 1/3", "Updating 1/3"), "6-updating")
        for name in NODES[1:]:
            await succeed(nodes[name], name)
        await see(windows, ("Fertig", "Done"), "7-done")

        ways = [await window.run("window.seen") for window in windows]
        wide = [await window.run("document.documentElement.scrollWidth > innerWidth") for window in windows]
    german = ["Stick gefunden", "Wird geprüft", "Kopiert # %", "Kann entfernt werden", "Aktualisiert #/#", "Fertig"]
    english = ["Stick found", "Checking", "Copying # %", "Safe to remove", "Updating #/#", "Done"]
    assert ways == [german, english]
    assert wide == [False, False], "nothing is wider than the screen"
    assert [window.errors for window in windows] == [[], []]


NASTY: Final = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=lambda screen: screen.name)
async def test_names_from_outside_run_nothing(browser: Browser, screen: Screen) -> None:
    shown = Shown()
    async with shown.served() as session:
        window = await browser.window(screen, language="en", dark=True)
        await window.go(str(session._base_url))
        shown.change(nodes=(replace(NODE, id=NASTY, runs=NASTY),), sticks=(replace(STICK, label=NASTY, message=NASTY),))
        await window.until(f"document.querySelector('.label').textContent === {json.dumps(NASTY)}")
        assert "owned" not in await window.run("document.title")
        assert await window.run("document.querySelectorAll('.label img, .node img, main script').length") == 0
        assert await window.run("document.documentElement.scrollWidth <= innerWidth")
        await window.picture(PICTURES / f"nasty-{screen.name}.png")
    assert window.errors == []


async def test_without_javascript_the_page_follows_too(browser: Browser) -> None:
    shown = Shown()
    async with shown.served() as session:
        window = await browser.window(PHONE, language="en", scripts=False)
        await window.go(str(session._base_url))
        assert await window.run(WORDS) == "Copying 42 %"
        shown.change(sticks=(replace(STICK, label="ANOTHER", done=43, percent=43),))
        await window.until(f"({WORDS}) === 'Copying 43 %'")
    assert window.errors == []


async def test_a_gateway_that_is_away_is_said_to_be(browser: Browser) -> None:
    async with Shown().served() as session:
        window = await browser.window(PHONE, language="de")
        await window.go(str(session._base_url))
        assert await window.run("document.getElementById('lost').hidden")
    await window.until("!document.getElementById('lost').hidden")
    await window.picture(PICTURES / "lost-phone.png")
