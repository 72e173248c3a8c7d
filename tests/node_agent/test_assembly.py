"""Two agents on one machine: each with its own configuration, folder, lock and socket."""

from pathlib import Path

import pytest

from node_agent.assembly import Node, assemble
from node_agent.config import parse_config
from node_agent.control import ask_to_look, is_running, listening, only_one
from update.durable import Disk
from update.errors import BusyError

CONFIG = """format_version = 1
[node]
id = "{name}"
hardware = "demo:1"
state = "{name}"
[gateway]
url = "https://192.0.2.1:8443"
[driver]
kind = "simulated"
simulated = {{ restarts = true }}
[bootloader]
kind = "simulated"
simulated = {{ environment = "{name}.env", command_line = {{ path = "{name}.line" }}, fresh = true }}
[[repository]]
name = "plant"
root = "root.json"
cms_roots = ["cms.pem"]
"""


def agent(folder: Path, name: str) -> Node:
    file = folder / f"{name}.toml"
    return assemble(parse_config(CONFIG.format(name=name), file), file, Disk())


async def test_two_agents_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    nodes = [agent(tmp_path, name) for name in ("node-1", "motor-1")]
    states = [node.config.node.state for node in nodes]
    with only_one(states[0]), only_one(states[1]):
        asked: list[str] = []
        async with listening(states[0], lambda: asked.append("node-1")), listening(states[1], lambda: asked.append("motor-1")):
            assert await ask_to_look(states[1])
            assert await ask_to_look(states[0])
        assert asked == ["motor-1", "node-1"]
        for node, state in zip(nodes, states, strict=True):
            assert node.journal.path.parent == node.reports.path.parent == state
            assert is_running(state)
            assert [slot.name for slot in await node.driver.slots() if slot.booted] == ["a"]


async def test_two_agents_on_one_folder_are_refused(tmp_path: Path) -> None:
    state = agent(tmp_path, "node-1").config.node.state
    with only_one(state), pytest.raises(BusyError), only_one(state):
        pytest.fail("both run")


def test_the_configured_interlocks_reach_the_device_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    section = '[[interlock]]\nname = "{}"\nkind = "input"\ninput = "value"\n'
    text = CONFIG.format(name="node-1") + section.format("stopped") + section.format("empty")
    equipment = assemble(parse_config(text, file), file, Disk()).device.equipment
    assert [each.name for each in equipment.interlock] == ["stopped", "empty"]
