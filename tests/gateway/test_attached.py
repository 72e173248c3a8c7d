"""The real gateway updates devices that have no agent, beside each other, through whatever happens to one of them."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.database.engine import Database, sqlite_url
from gateway.simulators.mcu import Mcu, McuFaults
from node_agent.states import State
from tests.builders.attached_site import AttachedSite, dry, motor, outcome
from tests.builders.fleet import reports_about
from tests.builders.microcontroller import served
from tests.contract.mcu_devices import mcu_image

SILENT = {"host": "127.0.0.1", "udp_port": 9}


@pytest.fixture
def site() -> Iterator[AttachedSite]:
    with tempfile.TemporaryDirectory() as folder:
        made = AttachedSite(Path(folder))
        made.release("motor:1.0", "2.0", mcu_image(2))
        made.release("dry:1.0", "2.0", b"image of nothing", device="/dev/slot")
        yield made


async def said_about(site: AttachedSite, action: int) -> list[str]:
    """What the device's agent reported, oldest first."""
    database = await Database.open(sqlite_url(site.state.database))
    try:
        async with database.reading() as transaction:
            return [json.dumps(report.body) for report in await reports_about(transaction, action)]
    finally:
        await database.close()


@asynccontextmanager
async def power_switch(mcu: Mcu, marker: Path) -> AsyncIterator[tuple[str, ...]]:
    """The command that cuts a device's power and gives it again, from another process."""

    async def watch() -> None:
        while True:
            if marker.exists():
                marker.unlink()
                mcu.start()
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield ("/bin/touch", str(marker))
    finally:
        watching.cancel()


async def test_two_devices_of_different_kinds_are_updated_by_one_order(
    site: AttachedSite, capsys: pytest.CaptureFixture[str]
) -> None:
    mcu = Mcu([mcu_image(1), b""])
    with served(mcu) as place:
        await site.make(motor(place), dry())
        async with site.running():
            before = await site.until(lambda nodes: all(node.running.slot for node in nodes.values()))
            assert {name: (node.hardware, node.attached) for name, node in before.items()} == {
                "motor-1": ("motor:1.0", "driver mcuboot"),
                "dry-1": ("dry:1.0", "driver simulated"),
            }
            await site.operator.refresh("plant")
            command = ["gateway", "--config", str(site.folder / "gateway.toml")]
            assert await asyncio.to_thread(main, [*command, "assign", "2.0", "--all"]) == 0
            nodes = await site.until(lambda nodes: all(map(outcome, nodes.values())))
            assert await asyncio.to_thread(main, [*command, "nodes"]) == 0
    assert {name: (outcome(node), node.running.version, node.running.slot) for name, node in nodes.items()} == {
        "motor-1": ("success", "2.0", "b"),
        "dry-1": ("success", "2.0", "b"),
    }
    assert (mcu.version(), mcu.image_ok) == ("2.0.0", True)
    assert "motor-1: attached: driver mcuboot" in capsys.readouterr().out


async def test_an_image_that_never_comes_up_is_taken_back_and_the_report_says_why(site: AttachedSite) -> None:
    mcu = Mcu([mcu_image(1), b""], faults=McuFaults(silent_versions=("2.0.0",)))
    marker = site.folder / "cycle"
    async with power_switch(mcu, marker) as power_cycle:
        with served(mcu) as place:
            await site.make(motor(place, power_cycle=power_cycle, start_timeout_s=1.0))
            async with site.running():
                await site.ordered("2.0", "motor-1")
                nodes = await site.until(lambda nodes: outcome(nodes["motor-1"]) != "")
                wanted = nodes["motor-1"].wanted
                assert wanted is not None
                assert (wanted.outcome, wanted.code) == ("rolled-back", "device.rolled-back")
                assert "did not come up" in wanted.message
                after = await site.until(lambda nodes: nodes["motor-1"].running.slot == "a")
            reports = await said_about(site, wanted.action)
    assert after["motor-1"].attached == "driver mcuboot"
    assert (mcu.version(), mcu.image_ok) == ("1.0.0", True)
    assert "did not come up" in reports[-1]
    assert any('"state": "restarting"' in report for report in reports)


async def test_a_device_that_fails_again_and_again_harms_no_other(site: AttachedSite) -> None:
    """One is mute, one has a damaged journal; the third is updated meanwhile."""
    await site.make(motor(SILENT, tries=1), dry("damaged-1"), dry())
    journal = site.state.attached / "damaged-1" / "journal.json"
    journal.parent.mkdir(parents=True)
    journal.write_text("not one")
    async with site.running() as process:
        failed = await site.until(lambda nodes: "failed" in nodes["motor-1"].attached and "failed" in nodes["damaged-1"].attached)
        assert "driver mcuboot failed:" in failed["motor-1"].attached
        assert "device.silent" in failed["motor-1"].attached
        assert "driver simulated failed:" in failed["damaged-1"].attached
        await site.ordered("2.0", "dry-1")
        nodes = await site.until(lambda nodes: outcome(nodes["dry-1"]) != "")
        assert outcome(nodes["dry-1"]) == "success"
        assert process.returncode is None


async def test_a_device_that_was_away_is_updated_when_it_is_back(site: AttachedSite) -> None:
    mcu = Mcu([mcu_image(1), b""], faults=McuFaults(silent=True))
    with served(mcu) as place:
        await site.make(motor(place, tries=1))
        async with site.running():
            await site.until(lambda nodes: "failed" in nodes["motor-1"].attached)
            await site.ordered("2.0", "motor-1")
            mcu.faults = McuFaults()
            nodes = await site.until(lambda nodes: outcome(nodes["motor-1"]) != "")
    assert (outcome(nodes["motor-1"]), mcu.version()) == ("success", "2.0.0")


async def test_a_gateway_that_is_killed_in_the_middle_of_an_upload_goes_on_with_it(site: AttachedSite) -> None:
    mcu = Mcu([mcu_image(1), b""], buffer_bytes=256, faults=McuFaults(answer_after_s=0.02))
    size = len(mcu_image(2))
    with served(mcu) as place:
        await site.make(motor(place))
        async with site.running() as process:
            await site.ordered("2.0", "motor-1")
            while len(mcu.places[1]) < size // 2:
                assert process.returncode is None
                await asyncio.sleep(0.01)
        arrived = len(mcu.places[1])
        assert arrived < size, "the kill came too late to show anything"
        assert site.entry("motor-1").state is State.WRITING
        before = mcu.requests
        mcu.faults = McuFaults()
        async with site.running():
            nodes = await site.until(lambda nodes: outcome(nodes["motor-1"]) != "")
    assert (outcome(nodes["motor-1"]), mcu.version(), mcu.image_ok) == ("success", "2.0.0", True)
    assert mcu.requests - before < (size - arrived) / 100 + 60, "it did not begin anew"


async def test_an_order_that_is_cancelled_in_the_middle_of_an_upload_ends_it(site: AttachedSite) -> None:
    mcu = Mcu([mcu_image(1), b""], buffer_bytes=256, faults=McuFaults(answer_after_s=0.1))
    with served(mcu) as place:
        await site.make(motor(place))
        async with site.running():
            await site.ordered("2.0", "motor-1")
            await site.until(lambda _nodes: bool(mcu.places[1]))
            command = ["gateway", "--config", str(site.folder / "gateway.toml"), "cancel", "motor-1"]
            assert await asyncio.to_thread(main, command) == 0
            nodes = await site.until(lambda nodes: outcome(nodes["motor-1"]) != "")
    assert (outcome(nodes["motor-1"]), mcu.version()) == ("cancelled", "1.0.0")


async def test_a_device_is_restarted_only_when_its_own_interlock_is_open(site: AttachedSite) -> None:
    """A file is an input here; the wait is told, and ends by itself."""
    door = site.folder / "door"
    door.write_text("0\n")
    lines = ["[[attached.interlock]]", 'name = "door-shut"', 'kind = "input"', 'input = "door"', "timeout_s = 60.0"]
    await site.make(dry(more="\n".join(lines)))
    async with site.running():
        await site.ordered("2.0", "dry-1")
        nodes = await site.until(lambda nodes: nodes["dry-1"].wanted is not None)
        wanted = nodes["dry-1"].wanted
        assert wanted is not None
        await site.until(lambda _nodes: site.entry("dry-1").state is State.ACTIVATING)
        reports: list[str] = []
        while not any("waiting for interlock door-shut" in report for report in reports):
            await asyncio.sleep(0.05)
            reports = await said_about(site, wanted.action)
        assert (site.entry("dry-1").state, outcome(nodes["dry-1"])) == (State.ACTIVATING, "")
        door.write_text("1\n")
        nodes = await site.until(lambda nodes: outcome(nodes["dry-1"]) != "")
    assert (outcome(nodes["dry-1"]), nodes["dry-1"].running.version) == ("success", "2.0")
