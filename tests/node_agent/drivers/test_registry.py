from pathlib import Path

import pytest

from node_agent.bootloaders.command_line import CommandLine
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.linux import LinuxConfig, LinuxDriver
from node_agent.drivers.registry import (
    BOOTLOADERS,
    DRIVERS,
    Kind,
    check_attached,
    check_pair,
    make_bootloader,
    make_driver,
    resolve,
    settled_bootloader,
    settled_driver,
)
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


@pytest.mark.parametrize("kind", ["linux", "rauc", "swupdate"])
def test_a_driver_of_the_machine_it_runs_on_is_none_for_a_device_of_a_gateway(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the driver {kind} updates the machine that it runs on") as caught:
        check_attached(kind, {})
    assert "mcuboot" in str(caught.value)


def test_every_other_driver_may_be_attached() -> None:
    for kind in DRIVERS.keys() - {"linux", "rauc", "swupdate"}:
        check_attached(kind, {"restarts": True})
    with pytest.raises(ConfigurationError, match=r"driver\.simulated\.restarts must be true"):
        check_attached("simulated", {})


def test_settled_options_are_complete_and_their_paths_absolute(tmp_path: Path) -> None:
    settled = settled_driver("mcuboot", {"host": "mcu.plant.example", "image_key": "keys/mcu.pem"}, tmp_path)
    assert (settled["image_key"], settled["udp_port"]) == (tmp_path / "keys" / "mcu.pem", 1337)
    assert settled_driver("mcuboot", settled, Path("/elsewhere")) == settled
    nested = settled_bootloader("simulated", {"environment": "env", "command_line": {"path": "line"}}, tmp_path)
    assert nested["command_line"] == {"path": tmp_path / "line", "pattern": CommandLine().pattern, "names": {}}


def test_settling_refuses_by_the_key_what_making_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"driver\.mcuboot\.tries"):
        settled_driver("mcuboot", {"host": "mcu", "tries": 0}, tmp_path)
    with pytest.raises(ConfigurationError, match="no driver is called 'mcubot'"):
        settled_driver("mcubot", {}, tmp_path)
