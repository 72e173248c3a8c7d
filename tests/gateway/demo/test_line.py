"""The demo's line of four devices, by the commands of an operator: a good release, and one whose motor never comes up."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.demo.appliance import Appliance
from gateway.demo.images import build_images
from gateway.demo.line import Ground, Line
from gateway.demo.line_figures import LineDevice
from gateway.demo.line_release import BAD, CONTROLLER, FPGA, GOOD, MOTOR, RADIO
from gateway.demo.nodes import Factory, bootloader_here
from gateway.demo.release import publish_releases
from gateway.demo.screen import Screen
from gateway.simulators.upstream import UpstreamServer
from update.durable import Disk

_PATIENCE_S = 240.0


@asynccontextmanager
async def site(work: Path) -> AsyncIterator[tuple[Line, list[str]]]:
    """A gateway with a line that runs its first version, and the command line's way to it."""
    screen, disk = Screen(), Disk()
    images = build_images(work, seed=1, cap_bytes=1 << 20, progress=screen.step)
    release = publish_releases(images, work, disk, screen.step)
    gateway = Appliance(work / "gateway", interface="lo", address="127.0.0.1")
    async with AsyncExitStack() as stack:
        upstream = UpstreamServer(release.folder)
        stack.push_async_callback(upstream.stop)
        stack.push_async_callback(gateway.kill)
        await upstream.start()
        await gateway.set_up(disk, release, [upstream.url])
        await upstream.stop()
        await gateway.start()
        factory = Factory(
            work=work,
            disk=disk,
            images={image.version: image for image in images},
            release=release,
            site_ca=gateway.site_ca,
            interface="lo",
            bootloader=bootloader_here(),
        )
        line = Line(Ground(factory, gateway, upstream, screen), stack)
        await line.set_up()
        yield line, ["gateway", "--config", str(work / "gateway" / "gateway.toml")]


async def ended(command: list[str], capsys: pytest.CaptureFixture[str], number: int) -> dict[str, object]:
    """What `release status` says once the release is over."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            capsys.readouterr()
            assert await asyncio.to_thread(main, [*command, "release", "status", str(number), "--json"]) == 0
            said: dict[str, object] = json.loads(capsys.readouterr().out)["release"]
            if said["ending"]:
                return said
            await asyncio.sleep(0.2)


def expected(line: Line, version: str) -> dict[str, str]:
    return {device: digest for (device, each), digest in line.digests.items() if each == version}


def held(devices: tuple[LineDevice, ...]) -> dict[str, str]:
    return {device.id: device.sha256 for device in devices}


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("mdns")
async def test_four_devices_take_a_release_together_and_leave_a_bad_one_together(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's name has 107 bytes
        async with site(Path(folder)) as (line, command):
            assert await asyncio.to_thread(main, [*command, "plan", f"line-{GOOD}", "--explain"]) == 0
            text = capsys.readouterr().out
            assert f"because {CONTROLLER} before {MOTOR}: press >= {GOOD} while motor >= {GOOD} (requirement)" in text
            assert await asyncio.to_thread(main, [*command, "release", "start", f"line-{GOOD}"]) == 0
            good = await ended(command, capsys, 1)
            assert (good["ending"], good["why"], good["decision"]) == ("complete", "", "commit"), good
            assert held(await line.read()) == expected(line, GOOD)
            assert await asyncio.to_thread(main, [*command, "release", "start", f"line-{BAD}"]) == 0
            bad = await ended(command, capsys, 2)
            assert (bad["ending"], bad["decision"]) == ("reverted", "revert"), bad
            assert str(bad["why"]).startswith(f"{MOTOR} does not run the new version: ")
            assert "did not come up" in str(bad["why"])
            devices = await line.read()
    assert held(devices) == expected(line, GOOD)
    assert [(each.id, each.says) for each in devices] == [
        (CONTROLLER, GOOD),
        (MOTOR, f"{GOOD}.0"),
        (FPGA, GOOD),
        (RADIO, GOOD),
    ]
