"""The north side against a hawkBit, real and simulated: what it wants reaches the node, and what becomes of it is true there."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from gateway.database.records import ActionState, ClientKind, Handling
from gateway.simulators.hawkbit import HawkbitSimulator
from gateway.simulators.hawkbit_actions import Kind
from tests.builders.hawkbit_operators import Operator, RealOperator, SimulatedOperator
from tests.builders.north_site import NorthSite, bundle_bytes, north_site
from tests.interop.hawkbit_management import GATEWAY_TOKEN, management
from tests.interop.hawkbit_peer import MARKS, HawkbitServer, hawkbit_server

pytestmark = pytest.mark.parametrize("server", ["simulator", pytest.param("real", marks=MARKS)], indirect=True)


@dataclass(frozen=True, slots=True)
class Server:
    """A server at `url`, and its operator."""

    url: str
    operator: Operator


@pytest.fixture(scope="module")
def real_hawkbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HawkbitServer]:
    with hawkbit_server(tmp_path_factory.mktemp("hawkbit")) as found:
        yield found


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """The server that the test is parametrized with; a simulator belongs to the test alone."""
    if request.param == "real":
        found: HawkbitServer = request.getfixturevalue("real_hawkbit")
        async with management(found) as real:
            await real.admit_devices()
            yield Server(found.url, RealOperator(real))
        return
    async with HawkbitSimulator(GATEWAY_TOKEN) as simulator:
        yield Server(simulator.url, SimulatedOperator(simulator))


@pytest.fixture
async def operator(server: Server) -> Operator:
    return server.operator


@pytest.fixture
async def site(tmp_path: Path, server: Server) -> AsyncIterator[NorthSite]:
    """Node n1 is target `<prefix>n1`; the prefix is this test's own, since a real server is shared."""
    async with north_site(tmp_path, server.url, GATEWAY_TOKEN, prefix=f"p{uuid4().hex[:12]}-") as made:
        await made.add_node("n1")
        await made.poll()
        yield made


async def publish(operator: Operator, content: bytes) -> int:
    return await operator.publish({"os.swu": content})


async def entries(operator: Operator, site: NorthSite, action: int) -> tuple[str, ...]:
    return (await operator.seen(f"{site.prefix}n1", action)).kinds


async def words(operator: Operator, site: NorthSite, action: int) -> str:
    return (await operator.seen(f"{site.prefix}n1", action)).words


async def test_a_node_is_a_target_with_its_attributes(site: NorthSite, operator: Operator) -> None:
    found = await operator.attributes(f"{site.prefix}n1")
    assert (found["fieldrelay.gateway"], found["fieldrelay.client"]) == ("gw", "swupdate")


async def test_a_deployment_reaches_the_node_proved_and_its_end_the_server(
    site: NorthSite, operator: Operator, tmp_path: Path
) -> None:
    content = bundle_bytes(tmp_path)
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, content))
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    assert (action.source, action.state, action.release.path) == (str(number), ActionState.OPEN, "os.swu")
    assert next(site.store.layout.repositories.rglob("*.swu")).read_bytes() == content
    await site.fleet.progress.offer("n1", action.id)
    for line in ("downloading", "installing", "installed"):
        await site.say("n1", "proceeding", "none", line)
    await site.say("n1", "closed", "success", "Update Installed.")
    await site.poll()
    delivered = await site.deliver()
    assert (delivered.left, delivered.trouble) == (0, None)
    await site.poll()
    assert (await site.deliver()).sent == 0
    assert (await operator.seen(f"{site.prefix}n1", number)).status == "finished"
    assert (await entries(operator, site, number)).count("finished") == 1
    said = await words(operator, site, number)
    assert said.index("downloading") < said.index("installing") < said.index("Update Installed.")


async def test_a_failure_is_told_with_its_reason(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, bundle_bytes(tmp_path)))
    await site.poll()
    await site.say("n1", "closed", "failure", "the slot is too small")
    await site.deliver()
    assert await operator.update_status(f"{site.prefix}n1") == "error"
    assert "the slot is too small" in await words(operator, site, number)


async def test_a_bundle_that_nobody_vouches_for_is_refused_before_a_node_hears_of_it(
    site: NorthSite, operator: Operator, tmp_path: Path
) -> None:
    content = bytearray(bundle_bytes(tmp_path))
    content[content.index(b"root file system")] ^= 1
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, bytes(content)))
    await site.poll()
    assert await site.action("n1") is None
    await site.deliver()
    assert await operator.update_status(f"{site.prefix}n1") == "error"
    assert "bundle.hash" in await words(operator, site, number)
    assert not list(site.store.layout.repositories.rglob("*.swu"))


async def test_several_bundles_in_one_deployment_are_refused(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    both = {"os.swu": bundle_bytes(tmp_path), "application.raucb": b"another"}
    number = await operator.assign(f"{site.prefix}n1", await operator.publish(both))
    await site.poll()
    await site.deliver()
    assert "exactly one bundle" in await words(operator, site, number)


async def test_a_cancellation_before_the_node_was_told_is_done_at_once(
    site: NorthSite, operator: Operator, tmp_path: Path
) -> None:
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, bundle_bytes(tmp_path)))
    await site.poll()
    await operator.cancel(f"{site.prefix}n1", number)
    await site.poll()
    await site.deliver()
    assert await site.action("n1") is None
    assert "canceled" in await entries(operator, site, number)
    assert (await operator.seen(f"{site.prefix}n1", number)).status == "finished"


async def test_a_cancellation_waits_for_the_nodes_word(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, bundle_bytes(tmp_path)))
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    await site.fleet.progress.offer("n1", action.id)
    await site.say("n1", "proceeding", "none", "Installing Update Chunk Artifacts.")
    assert (await site.deliver()).sent == 1
    await operator.cancel(f"{site.prefix}n1", number)
    await site.poll()
    assert (await site.deliver()).sent == 0
    found = await site.action("n1")
    assert found is not None
    assert found.state is ActionState.CANCELLING
    await site.say("n1", "closed", "success", "Update Installed.")  # too late to let go of it
    await site.poll()
    await site.deliver()
    assert (await operator.seen(f"{site.prefix}n1", number)).status == "finished"


async def test_what_was_never_taken_over_is_let_go_of_at_once(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    number = await operator.assign(f"{site.prefix}n1", await publish(operator, bundle_bytes(tmp_path)))
    await operator.cancel(f"{site.prefix}n1", number)
    await site.poll()
    await site.deliver()
    assert (await operator.seen(f"{site.prefix}n1", number)).status == "finished"


async def test_terms_are_taken_over(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    target, content = f"{site.prefix}n1", bundle_bytes(tmp_path)
    for kind, handling in ((Kind.SOFT, Handling.SOFT), (Kind.DOWNLOAD_ONLY, Handling.DOWNLOAD_ONLY)):
        await operator.assign(target, await publish(operator, content), kind)
        await site.poll()
        await site.deliver()
        await site.poll()
        action = await site.action("n1")
        assert action is not None
        assert action.terms.handling is handling
    await operator.assign(target, await publish(operator, content), closed_window=True)
    await site.poll()
    await site.deliver()
    await site.poll()
    action = await site.action("n1")
    assert action is not None
    assert action.terms.opens is not None
    assert action.terms.opens.year == 9999


async def test_twenty_nodes_fetch_one_artifact_once(site: NorthSite, operator: Operator, tmp_path: Path) -> None:
    number = await publish(operator, bundle_bytes(tmp_path))
    names = [f"m{index}" for index in range(20)]
    for name in names:
        await site.add_node(name, ClientKind.RAUC)
    await site.poll()
    for name in names:
        await operator.assign(f"{site.prefix}{name}", number)
    await site.poll()
    found = [await site.action(name) for name in names]
    assert all(each is not None and each.state is ActionState.OPEN for each in found)
    assert len({each.release.sha256 for each in found if each is not None}) == 1
