"""The driver `swupdate-web` and the real webserver of SWUpdate: installed, restarted, refused, and taken back."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.bootloaders.none import NoBootloader
from node_agent.drivers.driver import Restart, Surroundings
from node_agent.drivers.registry import make_driver
from node_agent.drivers.swupdate_web.device import SwupdateWebDriver
from tests.builders.bundles import DEMO, describe, image, signed, verified
from tests.builders.keys import make_pki
from tests.contract.devices import FileChunks, quiet
from tests.interop.swupdate_peer import group, namespaces
from tests.peers import need_tool
from update.bundle.verified import VerifiedBundle
from update.durable import Disk
from update.errors import HandlerError

pytestmark = pytest.mark.interop

_LAUNCHER = Path(__file__).with_name("swupdate_web_launch.py")
_PORT = 8080
_READY_S = 60.0
_CHUNKS = FileChunks({})


@dataclass(frozen=True, slots=True)
class RealDevice:
    """A device: SWUpdate writes `slot`, and its post-update command starts what is there: `running`."""

    folder: Path
    driver: SwupdateWebDriver
    restarts_itself: bool

    @property
    def slot(self) -> Path:
        return self.folder / "slot.img"

    @property
    def running(self) -> str:
        return (self.folder / "running").read_text().strip()

    def bundle(self, version: str, place: str = "") -> VerifiedBundle:
        content = f"{version}\n".encode().ljust(512)
        entry = image("rootfs.img", content, device=place or str(self.slot), type="raw")
        text = describe(images=[entry], version=version, hardware=[DEMO.revision])
        return verified(signed(self.folder, text, {"rootfs.img": content}, name=f"release-{version}.swu"))

    async def states(self) -> tuple[tuple[str, str, bool], ...]:
        return tuple((slot.name, slot.state.value, slot.booted) for slot in await self.driver.slots())


@pytest.fixture(params=[False, True], ids=["told to restart", "restarts itself"])
async def device(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RealDevice]:
    """A device with the real swupdate in namespaces of its own, and the driver that reaches it.

    By default the webserver runs the post-update command after every upload; its configuration can leave it to `/restart`.
    """
    tool = need_tool("swupdate")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "www").mkdir()
    (tmp_path / "slot.img").write_bytes(b"1.0\n".ljust(512))
    (tmp_path / "running").write_text("1.0\n")
    post = tmp_path / "post.sh"
    post.write_text(f"#!/bin/sh\nhead -n 1 {tmp_path}/slot.img > {tmp_path}/running\necho x >> {tmp_path}/boots\n")
    post.chmod(0o755)
    command = [tool, "-v", "-B", "none", "-k", str(make_pki().write(tmp_path / "pki").anchors), "--cert-purpose", "codeSigning"]
    command += ["-H", str(DEMO), "-p", str(post), "-w", f"-p {_PORT} -r {tmp_path / 'www'}"]
    if not request.param:
        (tmp_path / "swupdate.cfg").write_text("globals : {};\nwebserver : { run-postupdate = false; };\n")
        command += ["-f", str(tmp_path / "swupdate.cfg")]
    async with _running(tmp_path, command) as url:
        options = {
            "url": url,
            "probe_command": ["cat", str(tmp_path / "running")],
            "restart_timeout_s": 20.0,
            "install_timeout_s": 60.0,
            "silence_timeout_s": 30.0,
            "probe_interval_s": 0.1,
            "restarts_itself": request.param,
        }
        made = make_driver("swupdate-web", options, tmp_path, Surroundings(Disk(), tmp_path / "state", DEMO, NoBootloader()))
        assert isinstance(made, SwupdateWebDriver)
        yield RealDevice(tmp_path, made, request.param)


@asynccontextmanager
async def _running(folder: Path, command: list[str]) -> AsyncIterator[str]:
    """The tool, and the URL under which it is reached."""
    ours, theirs = socket.socketpair()
    path = folder / "relay"
    order = {"control": theirs.fileno(), "path": str(path), "port": _PORT, "command": command}
    launch = [*namespaces(), sys.executable, str(_LAUNCHER), json.dumps(order)]
    with (folder / "log").open("wb") as log, ours, group(launch, log.fileno(), theirs, folder / "tmp"):
        theirs.close()
        ours.settimeout(_READY_S)
        assert await asyncio.to_thread(ours.recv, 1) == b"r", (folder / "log").read_text()

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_unix_connection(path)
            await asyncio.gather(_pour(reader, inner_writer), _pour(inner_reader, writer))

        server = await asyncio.start_server(meet, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_a_real_swupdate_installs_restarts_and_is_taken_back(device: RealDevice) -> None:
    driver = device.driver
    assert await device.states() == (("a", "active", True), ("b", "empty", False))
    for version in ("2.0", "3.0"):
        before = device.running
        await driver.write(device.bundle(version), _CHUNKS, quiet)
        await driver.activate()
        assert device.slot.read_text().split()[0] == version
        assert device.restarts_itself or device.running == before
        assert await driver.restart() is Restart.DONE
        assert device.running == version
        await driver.confirm()
    assert await device.states() == (("a", "active", True), ("b", "confirmed", False))
    await driver.revert()
    assert await driver.restart() is Restart.DONE
    assert device.running == "2.0"
    assert await device.states() == (("a", "bad", False), ("b", "active", True))


async def test_a_real_swupdate_says_why_it_does_not_install(device: RealDevice) -> None:
    await device.driver.write(device.bundle("2.0", str(device.folder / "missing" / "slot")), _CHUNKS, quiet)
    with pytest.raises(HandlerError, match="did not install the bundle"):
        await device.driver.activate()
    assert await device.states() == (("a", "active", True), ("b", "pending", False))
    await device.driver.write(device.bundle("2.1"), _CHUNKS, quiet)
    await device.driver.activate()
    assert await device.driver.restart() is Restart.DONE
    assert device.running == "2.1"
