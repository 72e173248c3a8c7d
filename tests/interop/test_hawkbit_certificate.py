"""A gateway that shows nothing but its certificate: a real nginx ends TLS and judges it, and a real hawkBit believes nginx."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.control.client import ControlClient
from gateway.fleet.catalogue import AssignerState
from tests.builders.appliance import free_port
from tests.builders.keys import Identity, issue
from tests.interop.hawkbit_management import Management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer
from tests.interop.plant import WRITTEN, Plant, hurried, plant, until
from tests.interop.stock_node import INSTALLED, TRIAL
from tests.interop.tls_front import AUTHORITY, GATEWAY, TlsFront

pytestmark = MARKS

IMAGE = b"the root file system of release 1.2 " * 1000
SHOWN = 'certificate = "shown.pem"\nkey = "shown.key"'
UNAUTHORIZED = "wire.unauthorized"
FIRST_PAUSE_S, SECOND_PAUSE_S = 2.4, 4.9


@pytest.fixture
def front(tmp_path: Path, hawkbit: HawkbitServer) -> TlsFront:
    return TlsFront(tmp_path / "front", free_port(), hawkbit.url)


@asynccontextmanager
async def site_behind(folder: Path, front: TlsFront, operator: Management, *, credential: str = SHOWN) -> AsyncIterator[Plant]:
    """A plant that shows a certificate of the devices' CA, and no token."""
    await operator.configure("authentication.header.enabled", value=True)
    await operator.configure("authentication.header.authority", AUTHORITY)
    show(folder, issue(GATEWAY, front.devices))
    wan = f'[wan]\nextra_ca = "{front.server_ca}"\n'
    async with hurried(operator), plant(folder, front.url, ["n1"], credential=credential, more=wan) as site:
        yield site


def show(folder: Path, identity: Identity) -> None:
    """Have the gateway show this from its next start."""
    (folder / "shown.pem").write_bytes(identity.certificate_pem)
    (folder / "shown.key").write_bytes(identity.key_pem)
    (folder / "shown.key").chmod(0o600)


async def assigner(site: Plant) -> AssignerState:
    (found,) = (await ControlClient(site.folder / "s").status()).assigners
    return found


async def is_refused(site: Plant) -> None:
    """Wait until the operator is shown that the certificate is refused."""

    async def holds() -> bool:
        return (await assigner(site)).code == UNAUTHORIZED

    await until("the gateway says that its certificate is refused", holds)


async def test_polling_download_and_feedback_work_by_the_certificate_alone(
    tmp_path: Path, front: TlsFront, operator: Management
) -> None:
    async with site_behind(tmp_path, front, operator) as site:
        node = site.nodes["n1"]
        with front.running(front.devices):
            async with site.running():
                async with node.running():
                    deployed = await site.deploy(operator, "n1", site.bundle(IMAGE))
                    await deployed.says(WRITTEN)
                assert node.slot.read_bytes().startswith(IMAGE)
                node.restart(TRIAL)
                async with node.running():
                    assert await deployed.end() == ["finished"]
                assert (await assigner(site)).code == ""
    assert {each.status for each in front.asked} == {200}
    paths = [each.path for each in front.asked]
    assert any("/artifacts/os.swu" in path for path in paths)
    assert any(path.endswith("/feedback") for path in paths)


async def test_a_certificate_that_is_no_longer_trusted_loses_no_result(
    tmp_path: Path, front: TlsFront, operator: Management
) -> None:
    async with site_behind(tmp_path, front, operator) as site:
        node = site.nodes["n1"]
        async with site.running():
            with front.running(front.devices):
                async with node.running():
                    deployed = await site.deploy(operator, "n1", site.bundle(IMAGE))
                    await deployed.says(WRITTEN)
            assert node.ustate == INSTALLED
            node.restart(TRIAL)
            with front.running(issue("another-ca", None, authority=True)):
                async with node.running():
                    await is_refused(site)

                    async def waits() -> bool:
                        return node.ustate == "0" and (await assigner(site)).waiting > 0

                    await until("the last word waits", waits)
        assert await deployed.ends() == []
        with front.running(front.devices):
            async with site.running():
                assert await deployed.end() == ["finished"]
        assert [entry.type for entry in await deployed.history()].count("finished") == 1


@pytest.mark.parametrize("which", ["none", "of a stranger", "of another device"])
async def test_who_shows_the_wrong_certificate_is_refused_by_name_and_asks_ever_more_rarely(
    tmp_path: Path, front: TlsFront, operator: Management, which: str
) -> None:
    async with site_behind(tmp_path, front, operator, credential="" if which == "none" else SHOWN) as site:
        if which != "none":
            stranger = which == "of a stranger"
            show(tmp_path, issue(GATEWAY, None) if stranger else issue("another-device", front.devices))
        with front.running(front.devices):
            async with site.running():
                await is_refused(site)

                async def asked_thrice() -> bool:
                    return len(front.asked) >= 3

                await until("it has asked three times", asked_thrice)
        first, second, third = front.asked[:3]
    assert {each.status for each in front.asked} == {401 if which == "of another device" else 400}
    assert (second.at_s - first.at_s > FIRST_PAUSE_S, third.at_s - second.at_s > SECOND_PAUSE_S) == (True, True)
