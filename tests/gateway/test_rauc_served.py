"""A device with a polling RAUC behind a real gateway process, by its certificate; the gateway is killed in the middle.

The device is a client written from RAUC's documentation (`tests.builders.rauc_poller`): no packaged rauc polls or streams.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest
from gateway.control.node_messages import AccountRequest
from gateway.database.records import ClientKind
from tests.builders.appliance import Appliance
from tests.builders.rauc import COMPATIBLE, PKI, bundle, payload
from tests.builders.rauc_poller import PollingRauc
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk
from update.errors import HardwareError, RollbackError
from update.wire.authority import SiteAuthority, make_csr

NODE = "press-7"
VERSION = "1.2.0"
CONTENT = bundle(payload(100))


@dataclass(slots=True)
class Site:
    """A gateway with one bundle, and a device's identity."""

    folder: Path
    appliance: Appliance
    operator: ControlClient

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.appliance.south_port}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Connections that show the device's certificate."""
        context = ssl.create_default_context(cafile=self.appliance.state.authority[0])
        context.load_cert_chain(self.folder / "node.pem", self.folder / "node.key")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield session

    def enrol(self) -> None:
        """Have the site's CA issue the device its certificate."""
        csr = make_csr(Disk(), self.folder / "node.key", NODE)
        authority = SiteAuthority.load(*self.appliance.state.authority)
        issued = authority.issue_node(csr, node=NODE, now=datetime.now(UTC))
        (self.folder / "node.pem").write_bytes(issued.public_bytes(Encoding.PEM))

    async def describe(self, session: aiohttp.ClientSession, **attributes: str) -> None:
        """Say once what the device is, as the guide has it."""
        data = {f"rauc.{name.replace('_', '-')}": value for name, value in attributes.items()}
        path = f"{self.url}/DEFAULT/controller/v1/{NODE}/configData"
        async with session.put(path, json={"mode": "merge", "data": data}) as response:
            assert response.status == 200

    async def order(self) -> None:
        assert (await self.operator.refresh("plant")).problem == ""
        (made,) = await self.operator.assign(AssignRequest(release=VERSION, nodes=(NODE,)))
        assert made.action

    async def standing(self) -> tuple[str, str]:
        """How the newest action stands, and what runs."""
        (node,) = await self.operator.nodes()
        return ("" if node.wanted is None else node.wanted.standing), node.running.version


@pytest.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("r")
    builder = RepositoryBuilder(now=datetime.now(UTC))
    builder.add_target("os/press.raucb", CONTENT, {"hwIds": [f"{COMPATIBLE}:#RE:"], "version": VERSION})
    builder.publish()
    builder.write_to(folder / "repository")
    (folder / "root.json").write_bytes(builder.root_bytes)
    (folder / "anchors.pem").write_bytes(PKI.anchors_pem)
    appliance = Appliance(folder)
    await appliance.set_up(str(folder / "repository"), repository='cms_roots = ["anchors.pem"]')
    made = Site(folder, appliance, ControlClient(folder / "s"))
    made.enrol()
    return made


async def test_a_release_is_streamed_and_proved_by_the_next_boot_though_the_gateway_was_killed(site: Site) -> None:
    async with site.session() as session:
        device = PollingRauc(session, f"{site.url}/rauc", {}, "1.1.0", variant="big")
        async with site.appliance.running():
            await site.operator.give_token(NODE, AccountRequest(client=ClientKind.RAUC))
            assert await device.poll() == 204
            await site.describe(session, compatible=COMPATIBLE)
            await site.order()
            assert await device.poll() == 206
            assert device.written == CONTENT
            assert all(url.startswith(f"{site.url}/rauc") for url in device.asked), "it was sent on once, and to this gateway"
            assert (await site.standing()) == ("open", "1.1.0")
    async with site.session() as session:
        device.session = session
        async with site.appliance.running():
            assert await device.poll() == 204
            device.restart(VERSION)
            assert await device.poll() == 204
            assert (await site.standing()) == ("success", VERSION)


async def test_what_the_device_would_refuse_is_refused_to_the_operator(site: Site) -> None:
    async with site.session() as session, site.appliance.running():
        await site.operator.give_token(NODE, AccountRequest(client=ClientKind.RAUC))
        await site.describe(session, compatible=COMPATIBLE, min_bundle_version="2.0.0")
        with pytest.raises(RollbackError, match=NODE):
            await site.order()
        await site.describe(session, compatible="another press", min_bundle_version="1.0.0")
        with pytest.raises(HardwareError, match=NODE):
            await site.order()
        assert (await site.standing())[0] == ""
