"""The node's systemd unit starts what is there, with its state where the configuration says, and under its limits."""

import configparser
import shlex
from pathlib import Path

from node_agent.cli import DEFAULT_CONFIG, main
from node_agent.config import NodeSection

UNITS = Path(__file__).parents[2] / "configs" / "systemd"
UNIT = UNITS / "fieldrelay-node.service"
DEVICE_UNIT = UNITS / "fieldrelay-agent@.service"
MAX_AGENT_MIB = 128


def service(unit: Path = UNIT) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have case
    parser.read(unit)
    return parser["Service"]


def test_it_starts_the_agent_with_the_default_configuration() -> None:
    program, *arguments = shlex.split(service()["ExecStart"])
    assert Path(program).name == "update"
    assert arguments == ["--config", str(DEFAULT_CONFIG), "agent"]
    assert main(["--config", "/nonexistent/node.toml", *arguments[2:]]) == 11


def test_its_state_is_where_the_configuration_says_and_nobody_elses() -> None:
    assert f"/var/lib/{service()['StateDirectory']}" == str(NodeSection(id="n", hardware="b:1").state)
    assert service()["StateDirectoryMode"] == "0700"


def test_the_agent_has_the_memory_that_it_needs() -> None:
    assert int(service()["MemoryMax"].removesuffix("M")) >= MAX_AGENT_MIB


def test_a_folder_of_the_working_directory_cannot_shadow_our_packages() -> None:
    assert "PYTHONSAFEPATH=1" in service()["Environment"].split()


def test_an_agent_of_a_device_beside_it_shares_neither_configuration_nor_state() -> None:
    own, beside = service(), service(DEVICE_UNIT)
    program, option, file, verb = shlex.split(beside["ExecStart"])
    assert (Path(program).name, option, verb) == ("update", "--config", "agent")
    assert file == "/etc/fieldrelay/devices/%i.toml"
    assert beside["StateDirectory"] == "fieldrelay-device/%i"
    assert own["StateDirectory"] not in Path(beside["StateDirectory"]).parts
    assert "PYTHONSAFEPATH=1" in beside["Environment"].split()
    assert beside["Restart"] == "on-failure"
