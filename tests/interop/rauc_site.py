"""A site with RAUC's own hawkBit client and the real rauc service on one device, behind a real gateway process.

async with rauc_site(folder) as site:
    with site.updater(**{"rauc.compatible": COMPATIBLE}):
        ...  # order VERSION
    site.restart(VERSION)

- The client is `rauc-hawkbit` of PyPI: it closes an action right after the installation, and shows no version. What runs is
  therefore asked of the device by a probe, which answers `runs`.
- Where the kernel has no device mapper, rauc can install plain bundles only.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.control.client import ControlClient
from gateway.control.node_messages import AccountRequest
from gateway.database.records import ClientKind
from gateway.status import NodeState
from tests.builders.appliance import Appliance
from tests.builders.repository import RepositoryBuilder
from tests.interop.plant import until
from tests.interop.rauc_device import RaucDevice, has_device_mapper, need_loop_devices
from tests.interop.rauc_tool import COMPATIBLE, RaucTool
from tests.interop.servers import rauc_hawkbit_parts
from tests.interop.servers.running import running
from tests.peers import need

VERSION = "2026.11.0"
"""What the bundle says that it is."""
OLDER = "2026.10.0"
NODE = "press-1"
FORMAT = "verity" if has_device_mapper() else "plain"
"""What this machine's rauc can install."""


@dataclass(slots=True)
class RaucSite:
    """`runs` is what the device's probe answers; `bundle` holds `image` for the slot that does not run."""

    folder: Path
    appliance: Appliance
    tool: RaucTool
    device: RaucDevice
    operator: ControlClient
    token: str = ""
    runs: dict[str, str] = field(default_factory=lambda: {"version": OLDER, "boot_id": "boot-1"})
    service: ExitStack = field(default_factory=ExitStack)

    @property
    def origin(self) -> str:
        """Where nodes ask."""
        return f"https://127.0.0.1:{self.appliance.south_port}"

    @property
    def image(self) -> bytes:
        """What the bundle writes."""
        return (self.tool.folder / f"content-{FORMAT}" / "rootfs.img").read_bytes()

    @property
    def bundle(self) -> Path:
        """What this device can install."""
        return self.folder / f"{FORMAT}.raucb"

    @property
    def said(self) -> str:
        """What the client said in its last run."""
        return (self.folder / "client" / "log").read_text()

    @contextmanager
    def updater(self, **attributes: str) -> Iterator[None]:
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

    def restart(self, runs: str) -> None:
        """Go through the bootloader, which starts what was installed, or has fallen back: `runs` is what runs then."""
        self.service.close()
        self.start("B" if runs == VERSION else "A")
        self.runs |= {"version": runs, "boot_id": self.runs["boot_id"] + "+"}

    def start(self, slot: str) -> None:
        """The device's service, started from a slot."""
        self.service.enter_context(self.device.service(slot))

    async def node(self) -> NodeState:
        """What the gateway's operator is shown."""
        (found,) = await self.operator.nodes()
        return found

    async def stands(self, words: str) -> None:
        """Wait until the operator is shown that."""

        async def holds() -> bool:
            wanted = (await self.node()).wanted
            return wanted is not None and wanted.standing == words

        await until(f"{NODE} stands as {words!r}", holds)

    async def is_described(self) -> None:
        """Wait until the client has said what the device is."""

        async def holds() -> bool:
            return bool((await self.node()).hardware)

        await until(f"{NODE} has said what it is", holds)

    async def is_seen(self) -> None:
        """Wait until the gateway knows which boot it is in."""

        async def holds() -> bool:
            return (await self.node()).running.version == self.runs["version"]

        await until(f"{NODE} was probed before its restart", holds)

    def trust(self) -> ssl.SSLContext:
        """What proves the gateway."""
        return ssl.create_default_context(cafile=self.appliance.state.authority[0])


@asynccontextmanager
async def rauc_site(folder: Path, *, more: str = "", listed: bool = True) -> AsyncIterator[RaucSite]:
    """A gateway that runs, and its device. `listed`: its repository lists the bundle; `more`: further sections of the gateway."""
    need_loop_devices()
    need(present=rauc_hawkbit_parts.is_installed(), reason="rauc-hawkbit is not there; `make interop-tools` gets it")
    tool, builder = RaucTool(folder), RepositoryBuilder(now=datetime.now(UTC))
    bundle = tool.bundle(FORMAT).read_bytes()
    if listed:
        builder.add_target("os/press.raucb", bundle, {"hwIds": [f"{COMPATIBLE}:#RE:"], "version": VERSION})
        builder.publish()
    builder.write_to(folder / "repository")
    (folder / "root.json").write_bytes(builder.root_bytes)
    (folder / "dev").mkdir()
    device = RaucDevice(folder / "dev", tool.files.anchors, compatible=COMPATIBLE)
    site = RaucSite(folder, Appliance(folder), tool, device, ControlClient(folder / "s"))
    async with _probed(site) as url:
        await site.appliance.set_up(
            str(folder / "repository"),
            south="polling_interval_s = 1",
            repository=f'cms_roots = ["{tool.files.anchors}"]\nrauc_accept_plain = true',
            more=f'[[probe]]\nname = "presses"\nnodes = ["press-*"]\nurl = "{url}"\nevery_s = 1\n{more}',
        )
        async with site.appliance.running():
            site.token = (await site.operator.give_token(NODE, AccountRequest(client=ClientKind.RAUC))).token
            with device.bus(), site.service:
                site.start("A")
                yield site


@asynccontextmanager
async def _probed(site: RaucSite) -> AsyncIterator[str]:
    """Answer the gateway's probe; the pattern of its URL."""

    async def answer(request: web.Request) -> web.Response:
        assert request.match_info["node"] == NODE
        return web.json_response(site.runs)

    application = web.Application()
    application.add_routes([web.get("/{node}", answer)])
    async with TestServer(application) as server:
        yield str(server.make_url("/")) + "{node}"
