from pathlib import Path

import pytest

from node_agent.drivers.driver import Surroundings
from node_agent.drivers.linux import LinuxConfig, LinuxDriver
from node_agent.drivers.registry import BOOTLOADERS, DRIVERS, Kind, check_pair, make_bootloader, make_driver, resolve
from tests.builders.bundles import DEMO
from tests.contract.boards import simulated_board
from update.durable import Disk
from update.errors import ConfigurationError

_SLOTS = [
    {
        "name": slot,
        "selection": f"stable,{mode}",
        "parts": [{"name": "root", "device": f"/dev/root_{slot}", "path": f"{slot}.img"}],
    }
    for slot, mode in (("a", "copy1"), ("b", "copy2"))
]


@pytest.fixture
def surroundings(tmp_path: Path) -> Surroundings:
    return Surroundings(Disk(), tmp_path / "state", DEMO, simulated_board(tmp_path).bootloader)


@pytest.mark.parametrize("kind", [*DRIVERS.values(), *BOOTLOADERS.values()])
def test_every_entry_names_something(kind: Kind) -> None:
    assert isinstance(resolve(kind.config), type)
    assert callable(resolve(kind.maker))


def test_a_driver_is_made_from_a_configuration(surroundings: Surroundings, tmp_path: Path) -> None:
    driver = make_driver("linux", {"slots": _SLOTS, "restart": ["/sbin/reboot"]}, tmp_path, surroundings)
    assert isinstance(driver, LinuxDriver)
    config = driver._config
    assert isinstance(config, LinuxConfig)
    assert config.restart == ("/sbin/reboot",)
    assert config.slots[1].parts[0].path == tmp_path / "b.img"


async def test_a_bootloader_is_made_from_a_configuration(tmp_path: Path) -> None:
    board = simulated_board(tmp_path)
    board.power_on()
    options = {"environment": "environment", "command_line": {"path": "cmdline"}}
    assert make_bootloader("simulated", options, tmp_path, Disk()).booted() == "a"


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("linux", {}, "driver.linux.slots"),
        ("linux", {"slots": _SLOTS, "restrat": []}, "driver.linux.restrat"),
        ("linux", {"slots": [{**_SLOTS[0], "parts": [{"name": "root"}]}, _SLOTS[1]]}, "driver.linux.slots.0.parts.0.device"),
        ("linux", {"slots": [_SLOTS[0]]}, "two slots"),
        ("simulated", {"broken": ["everything"]}, "driver.simulated.broken.0"),
        ("windows", {}, "no driver is called 'windows'"),
    ],
)
def test_a_mistake_is_named_by_its_key(
    surroundings: Surroundings, tmp_path: Path, kind: str, options: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=key.replace(".", r"\.")):
        make_driver(kind, options, tmp_path, surroundings)


@pytest.mark.parametrize("pair", [("linux", "uboot"), ("swupdate", "uboot"), ("simulated", "simulated"), ("rauc", "none")])
def test_drivers_have_the_bootloader_that_they_need(pair: tuple[str, str]) -> None:
    check_pair(*pair)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("linux", "none"), "needs a bootloader"),
        (("swupdate", "none"), "needs a bootloader"),
        (("rauc", "uboot"), 'kind = "none"'),
        (("windows", "uboot"), "no driver is called"),
    ],
)
def test_drivers_without_theirs_or_with_one_too_many_are_refused(pair: tuple[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_pair(*pair)


def test_a_mistake_in_the_bootloader_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"bootloader\.uboot\.command_line\.patern"):
        make_bootloader("uboot", {"command_line": {"patern": "x"}}, tmp_path, Disk())
    with pytest.raises(ConfigurationError, match="exactly one"):
        make_bootloader("uboot", {"command_line": {"pattern": "x"}}, tmp_path, Disk())
