"""The real gateway updates devices that have no agent, beside each other, through whatever happens to one of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.simulators.mcu import Mcu
from tests.builders.attached_site import AttachedSite, dry, motor, outcome
from tests.builders.microcontroller import served
from tests.contract.mcu_devices import mcu_image


@pytest.fixture
def site() -> Iterator[AttachedSite]:
    with tempfile.TemporaryDirectory() as folder:
        made = AttachedSite(Path(folder))
        made.release("motor:1.0", "2.0", mcu_image(2))
        made.release("dry:1.0", "2.0", b"image of nothing", device="/dev/slot")
        yield made


async def test_two_devices_of_different_kinds_are_updated_by_one_order(site: AttachedSite) -> None:
    mcu = Mcu([mcu_image(1), b""])
    with served(mcu) as place:
        await site.make(motor(place), dry())
        async with site.running():
            before = await site.until(lambda nodes: all(node.running.slot for node in nodes.values()))
            assert {name: (node.hardware, node.attached) for name, node in before.items()} == {
                "motor-1": ("motor:1.0", "driver mcuboot"),
                "dry-1": ("dry:1.0", "driver simulated"),
            }
            await site.ordered("2.0", "motor-1", "dry-1")
            nodes = await site.until(lambda nodes: all(map(outcome, nodes.values())))
    assert {name: (outcome(node), node.running.version, node.running.slot) for name, node in nodes.items()} == {
        "motor-1": ("success", "2.0", "b"),
        "dry-1": ("success", "2.0", "b"),
    }
    assert (mcu.version(), mcu.image_ok) == ("2.0.0", True)
