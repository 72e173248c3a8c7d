import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from gateway.config import GatewayConfig, parse_config
from gateway.sections.attached import AttachedSection
from node_agent.config import (
    CommandCheckSection,
    CommandInterlockSection,
    HealthSection,
    HookSection,
    HttpCheckSection,
    HttpInterlockSection,
    InputInterlockSection,
)
from node_agent.drivers.driver import Surroundings
from node_agent.drivers.mcuboot import McubootDriver
from node_agent.drivers.registry import make_bootloader, make_driver
from update.durable import Disk
from update.errors import ConfigurationError
from update.identity import Hardware

SAMPLE = Path(__file__).parents[3] / "configs" / "gateway.toml"
FILE = Path("/etc/fieldrelay/gateway.toml")
BEFORE = """format_version = 1
[[repository]]
name = "v"
root = "root.json"
upstreams = ["https://u.example/v"]
cms_roots = ["cms.pem"]
"""
MOTOR = """[[attached]]
id = "motor-1"
hardware = "motor:1"
repository = "v"
driver = { kind = "mcuboot", mcuboot = { host = "192.0.2.7", image_key = "motor.pem" } }
"""
CPU = """[[attached]]
id = "cpu-1"
hardware = "cpu:1"
repository = "v"
driver = { kind = "remoteproc", remoteproc = { boot_firmware = "boot.elf", processor = "remoteproc0" } }
"""
DRIVE = """[[attached]]
id = "drive-1"
hardware = "drive:1"
repository = "v"
driver = { kind = "command", command = { program = ["flash"], address = "can0:7e0", settings = { level = "1" } } }
"""
DRY = """[[attached]]
id = "dry-1"
hardware = "demo:1"
repository = "v"
driver = { kind = "simulated", simulated = { restarts = true } }
bootloader = { kind = "simulated", simulated = { environment = "dry/env", command_line = { path = "dry/line" }, fresh = true } }
"""


STANDS = """[[attached.interlock]]
name = "motor-stands"
kind = "command"
command = ["/bin/true"]
"""


def parsed(text: str) -> GatewayConfig:
    return parse_config(BEFORE + text, FILE)


def fields(section: type) -> set[str]:
    return {each.name for each in dataclasses.fields(section)}


def test_the_sample_shows_every_key_at_its_default() -> None:
    values = tomllib.loads(re.sub(r"^#(?=[a-z_\[])", "", SAMPLE.read_text(), flags=re.MULTILINE))
    (shown,) = values["attached"]
    (default,) = parsed(MOTOR).attached
    assert set(shown) == fields(AttachedSection)
    assert set(shown["health"]) == fields(HealthSection)
    assert [set(each) for each in shown["check"]] == [fields(CommandCheckSection), fields(HttpCheckSection)]
    assert [set(each) for each in shown["hook"]] == [fields(HookSection)]
    kinds = (CommandInterlockSection, HttpInterlockSection, InputInterlockSection)
    assert [set(each) for each in shown["interlock"]] == [fields(kind) for kind in kinds]
    for each, kind in zip(shown["interlock"], kinds, strict=True):
        least = {key: value for key, value in each.items() if key in {"name", "kind", "command", "url", "input"}}
        assert kind(**each) == kind(**least), "every default is shown"
    assert shown["bootloader"] == {"kind": default.bootloader.kind}
    for key in ("minimum_provenance", "stalled_after_s"):
        assert shown[key] == getattr(default, key)
    assert HealthSection(**shown["health"]) == default.health


def test_paths_in_the_options_are_meant_from_the_file_whatever_the_working_directory_is(tmp_path: Path) -> None:
    motor, dry = parsed(MOTOR + DRY).attached
    assert motor.driver.options["image_key"] == Path("/etc/fieldrelay/motor.pem")
    (dry,) = parse_config(BEFORE + DRY, tmp_path / "gateway.toml").attached
    board = make_bootloader(dry.bootloader.kind, dry.bootloader.options, Path("/elsewhere"), Disk())
    assert board.booted() == "a"
    assert (tmp_path / "dry" / "line").exists()


def test_the_settled_options_make_the_driver(tmp_path: Path) -> None:
    (motor,) = parsed(MOTOR.replace(', image_key = "motor.pem"', "")).attached
    surroundings = Surroundings(Disk(), tmp_path, Hardware("motor", "1"), make_bootloader("none", {}, tmp_path, Disk()))
    assert isinstance(make_driver("mcuboot", motor.driver.options, Path("/elsewhere"), surroundings), McubootDriver)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MOTOR.replace('kind = "mcuboot"', 'kind = "mcubot"'), r"attached\[0\]\.driver"),
        (MOTOR.replace("mcuboot", "mcubot"), r"attached\[0\]\.driver: no driver is called 'mcubot'; there are .*mcuboot"),
        (MOTOR.replace("host", "hots"), r"attached\[0\]\.driver: driver\.mcuboot\.hots"),
        (MOTOR.replace('host = "192.0.2.7"', "tries = 0"), r"attached\[0\]\.driver: driver\.mcuboot\.tries"),
        (DRY.replace("fresh = true", "frsh = true"), r"attached\[0\]\.bootloader: bootloader\.simulated\.frsh"),
        (DRY.replace("restarts = true", ""), r"driver\.simulated\.restarts must be true"),
        (MOTOR.replace("mcuboot", "linux"), r"the driver linux updates the machine that it runs on"),
        (MOTOR + MOTOR.replace("motor-1", "motor-2"), r"motor-1 and motor-2 are both at host = 192\.0\.2\.7, udp_port = 1337"),
        (
            CPU + CPU.replace("cpu-1", "cpu-2").replace("remoteproc0", "remoteproc1"),
            r"both at firmware_folder = .*, prefix = fieldrelay-",
        ),
        (DRIVE + DRIVE.replace("drive-1", "drive-2"), r"drive-1 and drive-2 are both at address = can0:7e0"),
        (MOTOR + MOTOR, r"attached: each attached device has its own id; given twice: motor-1"),
        (MOTOR.replace('repository = "v"', 'repository = "w"'), r"attached motor-1: there is no \[\[repository\]\] named w"),
        (MOTOR + "health = { gateway = true }\n", r"health\.gateway"),
        (MOTOR + "folder = '/'\n", r"attached\[0\]\.folder: no such key"),
        (MOTOR.replace('hardware = "motor:1"', 'hardware = "motor"'), r"attached\[0\]\.hardware"),
        (MOTOR + 'bootloader = { kind = "uboot" }\n', "switches slots itself"),
        (MOTOR + STANDS + STANDS, r"attached\[0\]\.interlock: each interlock has its own name; given twice: motor-stands"),
        (MOTOR + STANDS.replace("command", "commnd"), r"attached\[0\]\.interlock\[0\]"),
    ],
)
def test_a_mistake_is_refused_by_its_key(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parsed(text)


def test_devices_at_places_of_their_own_stand_side_by_side() -> None:
    second = MOTOR.replace("motor-1", "motor-2").replace('host = "192.0.2.7"', 'host = "192.0.2.8"')
    cpu = CPU.replace("cpu-1", "cpu-2").replace('"remoteproc0"', '"remoteproc1", prefix = "second-"')
    drive = DRIVE.replace("drive-1", "drive-2").replace("7e0", "7e1")
    assert len(parsed(MOTOR + second + CPU + cpu + DRIVE + drive).attached) == 6


def test_a_repository_that_names_no_signers_is_none_for_a_device() -> None:
    with pytest.raises(ConfigurationError, match="attached motor-1: its repository v needs cms_roots"):
        parse_config(BEFORE.replace('cms_roots = ["cms.pem"]\n', "") + MOTOR, FILE)
