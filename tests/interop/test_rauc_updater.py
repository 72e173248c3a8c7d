"""The updater protocol end to end: RAUC's own hawkBit client and the real rauc service behind a real gateway process.

The client (`rauc-hawkbit` of PyPI) closes an action right after the installation, as rauc-hawkbit-updater does; it has neither
its resuming nor its streaming, so these are shown by requests like the ones that ddi clients were seen to send. Where the kernel
has no device mapper, rauc can install plain bundles only.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest
from gateway.control.node_messages import AccountRequest
from gateway.database.records import ClientKind
from gateway.status import NodeState
from tests.builders.appliance import Appliance
from tests.builders.repository import RepositoryBuilder
from tests.interop.plant import until
from tests.interop.rauc_device import RaucDevice, need_loop_devices
from tests.interop.rauc_tool import COMPATIBLE, RaucTool
from tests.interop.servers import rauc_hawkbit_parts
from tests.interop.servers.running import running
from tests.peers import need
from update.errors import HardwareError

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("loop-devices"), pytest.mark.timeout(300)]

VERSION = "2026.11.0"
NODE = "press-1"


@dataclass(slots=True)
class Site:
    """A gateway with one bundle, a device with rauc, and what a probe of the device is answered."""

    folder: Path
    appliance: Appliance
    bundle: bytes
    image: bytes
    device: RaucDevice
    operator: ControlClient
    token: str = ""
    runs: dict[str, str] = field(default_factory=lambda: {"version": "2026.10.0", "boot_id": "boot-1"})

    @property
    def origin(self) -> str:
        return f"https://127.0.0.1:{self.appliance.south_port}"

    @contextmanager
    def client(self, **attributes: str) -> Iterator[None]:
        """RAUC's hawkBit client, for as long as the context lasts."""
        folder = self.folder / "client"
        folder.mkdir(exist_ok=True)
        told = {"host": self.origin.removeprefix("https://"), "node": NODE, "token": self.token, "attributes": attributes}
        (folder / "told.json").write_text(json.dumps({**told, "place": str(folder / "bundle.raucb")}))
        known = {
            **rauc_hawkbit_parts.environment(),
            "SSL_CERT_FILE": str(self.appliance.state.authority[0]),
            "DBUS_SYSTEM_BUS_ADDRESS": self.device.address,
        }
        launcher = Path(__file__).with_name("rauc_hawkbit_launch.py")
        command = [rauc_hawkbit_parts.PYTHON, launcher, folder / "told.json"]
        assignments = [f"{name}={value}" for name, value in known.items()]
        with running(["env", *assignments, *command], folder, lambda said: "polls" in said or None):
            yield

    async def node(self) -> NodeState:
        (found,) = await self.operator.nodes()
        return found

    async def stands(self, words: str) -> None:
        """Wait until the operator is shown that."""

        async def holds() -> bool:
            wanted = (await self.node()).wanted
            return wanted is not None and wanted.standing == words

        await until(f"{NODE} stands as {words!r}", holds)

    async def is_described(self) -> None:
        async def holds() -> bool:
            return bool((await self.node()).hardware)

        await until(f"{NODE} has said what it is", holds)

    async def is_seen(self) -> None:
        """Wait until the gateway knows which boot it is in."""

        async def holds() -> bool:
            return (await self.node()).running.version == self.runs["version"]

        await until(f"{NODE} was probed before its restart", holds)

    async def order(self) -> int:
        assert (await self.operator.refresh("plant")).problem == ""
        (made,) = await self.operator.assign(AssignRequest(release=VERSION, nodes=(NODE,)))
        return made.action

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.appliance.state.authority[0])


@pytest.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    need_loop_devices()
    need(present=rauc_hawkbit_parts.is_installed(), reason="rauc-hawkbit is not there; `make interop-tools` gets it")
    folder = tmp_path_factory.mktemp("upd")
    tool = RaucTool(folder)
    format_ = "verity" if Path("/dev/mapper/control").exists() else "plain"
    bundle = tool.bundle(format_).read_bytes()
    builder = RepositoryBuilder(now=datetime.now(UTC))
    builder.add_target("os/press.raucb", bundle, {"hwIds": [f"{COMPATIBLE}:#RE:"], "version": VERSION})
    builder.publish()
    builder.write_to(folder / "repository")
    (folder / "root.json").write_bytes(builder.root_bytes)
    appliance, device = Appliance(folder), RaucDevice(_made(folder / "dev"), tool.files.anchors, compatible=COMPATIBLE)
    image = (tool.folder / f"content-{format_}" / "rootfs.img").read_bytes()
    found = Site(folder, appliance, bundle, image, device, ControlClient(folder / "s"))

    async def answer(request: web.Request) -> web.Response:
        assert request.match_info["node"] == NODE
        return web.json_response(found.runs)

    application = web.Application()
    application.add_routes([web.get("/{node}", answer)])
    async with TestServer(application) as probed:
        url = str(probed.make_url("/")) + "{node}"
        await appliance.set_up(
            str(folder / "repository"),
            south="polling_interval_s = 1",
            repository=f'cms_roots = ["{tool.files.anchors}"]\nrauc_accept_plain = true',
            more=f'[[probe]]\nname = "presses"\nnodes = ["press-*"]\nurl = "{url}"\nevery_s = 1\n',
        )
        async with appliance.running():
            made = await found.operator.give_token(NODE, AccountRequest(client=ClientKind.RAUC))
            found.token = made.token
            with device.running():
                yield found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("runs", "end"), [(VERSION, "success"), ("2026.10.0", "rolled-back")])
async def test_a_release_is_installed_shown_as_not_verified_and_judged_by_what_runs_after_the_restart(
    site: Site, runs: str, end: str
) -> None:
    with site.client(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await site.order()
        await site.stands("installed, not yet verified")
    assert site.device.primary == "B"
    assert site.device.slot("B")[: len(site.image)] == site.image
    await site.is_seen()
    site.runs |= {"version": runs, "boot_id": "boot-2"}
    await site.stands(end)
    node = await site.node()
    assert node.wanted is not None
    assert (node.wanted.provenance, node.running.version) == ("tuf", runs)


async def test_it_is_not_installed_twice_while_it_waits_for_its_proof(site: Site) -> None:
    with site.client(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await site.order()
        await site.stands("installed, not yet verified")
        seen = (await site.node()).last_seen

        async def has_polled() -> bool:
            return (await site.node()).last_seen > seen

        await until("the client has polled again", has_polled)
    said = (site.folder / "client" / "log").read_text()
    assert (said.count("Deployment found"), said.count("result 0")) == (1, 1)


async def test_an_installation_that_fails_is_a_failure_with_raucs_reason(site: Site) -> None:
    (site.device.folder / "backend").write_text("#!/bin/sh\nexit 1\n")
    with site.client(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        await site.order()
        await site.stands("failure")
    assert site.device.primary == "A"
    assert "completed with result: 1" in str((await site.node()).wanted)


async def test_what_the_node_would_refuse_is_refused_at_the_order(site: Site) -> None:
    with site.client(**{"rauc.compatible": "another thing"}):
        await site.is_described()
        with pytest.raises(HardwareError):
            await site.order()


async def test_an_updater_that_comes_back_for_the_rest_is_told_that_there_is_none(site: Site) -> None:
    """rauc-hawkbit-updater's `resume_downloads`: it takes 416 for the end of its download."""
    with site.client(**{"rauc.compatible": COMPATIBLE}):
        await site.is_described()
        action = await site.order()
        await site.stands("installed, not yet verified")
    size = len(site.bundle)
    headers = {"Authorization": f"TargetToken {site.token}", "User-Agent": "rauc-hawkbit-c-agent/1.0"}
    url = f"{site.origin}/DEFAULT/controller/v1/{NODE}/softwaremodules/{action}/artifacts/press.raucb"
    async with aiohttp.ClientSession(headers=headers) as session:
        for span, status, body in (
            (f"bytes={size}-", 416, b""),
            (f"bytes={size - 8}-", 206, site.bundle[-8:]),
            ("bytes=0-3", 206, b"hsqs"),
        ):
            async with session.get(url, headers={"Range": span}, ssl=site.trust()) as response:
                assert (response.status, await response.read()) == (status, body)
