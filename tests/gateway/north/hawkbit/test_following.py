"""What a hawkBit says is not believed further than it can be proved, and trouble with it leaves everything as it was."""

import pytest

from gateway.database.records import ActionState
from gateway.simulators.hawkbit import Faults, HawkbitSimulator
from gateway.simulators.hawkbit_actions import SimulatedAction
from tests.builders.north_site import NorthSite

FOREIGN = "http://127.0.0.2:9"


@pytest.fixture
def deployed(simulator: HawkbitSimulator, site: NorthSite, bundle: bytes) -> SimulatedAction:
    """What hawkBit wants of n1; the gateway has not asked yet."""
    del site
    number = simulator.holdings.assign("n1", simulator.holdings.publish("os", "1.2", "os.swu", bundle))
    return simulator.holdings.actions[number]


async def is_untouched(site: NorthSite) -> bool:
    """Nothing is wanted of the node, and nothing is stored."""
    return await site.action("n1") is None and not list(site.store.layout.repositories.rglob("*.swu"))


@pytest.mark.parametrize("faults", [Faults(falsified=True), Faults(sized_off_by=-1), Faults(sized_off_by=1)])
async def test_bytes_that_are_not_those_announced_are_fetched_again_but_not_for_ever(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction, faults: Faults
) -> None:
    simulator.faults = faults
    for _ in range(6):
        await site.poll()
        await site.deliver()
        assert await is_untouched(site)
    fetched = [path for _, path in simulator.asked if path.endswith("os.swu")]
    assert len(fetched) <= 18
    if faults.falsified:
        assert deployed.stage == "error"


async def test_bytes_that_were_damaged_once_are_no_reason_to_refuse(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction
) -> None:
    simulator.faults = Faults(falsified=True)
    await site.poll()
    simulator.faults = Faults()
    await site.poll()
    assert await site.action("n1") is not None
    assert deployed.active


async def test_an_artifact_that_breaks_off_is_fetched_on_from_there(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction, bundle: bytes
) -> None:
    simulator.faults = Faults(cut_after=len(bundle) // 2 + 1)
    await site.poll()
    assert next(site.store.layout.repositories.rglob("*.swu")).read_bytes() == bundle
    assert deployed.active


async def test_what_lies_at_a_host_that_nobody_named_is_not_fetched(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction
) -> None:
    simulator.faults = Faults(elsewhere=FOREIGN)
    await site.poll()
    assert await is_untouched(site)
    problem = (await site.upstream.state()).problem
    assert "artifact_hosts" in problem
    assert deployed.active


@pytest.mark.parametrize(
    "faults",
    [
        Faults(garbage=True),
        Faults(linked="x"),
        Faults(linked="99999999999999999999"),
        Faults(linked="7"),
        Faults(refusing=True),
        Faults(absent=True),
        Faults(failing=1),
        Faults(flooded=1),
    ],
)
async def test_trouble_with_the_server_is_named_and_passes(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction, faults: Faults
) -> None:
    simulator.faults = faults
    await site.poll()
    state = await site.upstream.state()
    assert state.code.startswith("wire.")
    assert await is_untouched(site)
    simulator.faults = Faults()
    await site.poll()
    assert (await site.upstream.state()).code == ""
    action = await site.action("n1")
    assert action is not None
    assert (action.state, action.source) == (ActionState.OPEN, str(deployed.id))


async def test_a_server_that_forgets_an_action_has_it_withdrawn_and_one_that_cannot_be_asked_has_not(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction
) -> None:
    await site.poll()
    simulator.faults = Faults(absent=True)
    await site.poll()
    assert await site.action("n1") is not None
    simulator.faults = Faults()
    del simulator.holdings.actions[deployed.id]
    await site.poll()
    assert await site.action("n1") is None


async def test_another_target_gets_the_same_bytes_without_a_second_fetch(
    site: NorthSite, simulator: HawkbitSimulator, deployed: SimulatedAction
) -> None:
    for number in range(2, 22):
        await site.add_node(f"n{number}")
        simulator.holdings.assign(f"n{number}", deployed.wanted.id)
    for _ in range(2):
        await site.poll()
    assert [await site.action(f"n{number}") is not None for number in range(1, 22)] == [True] * 21
    assert len([path for _, path in simulator.asked if path.endswith("os.swu")]) == 1
