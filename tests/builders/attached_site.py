"""A gateway, as a real process, with devices attached to it: microcontrollers on UDP, and such as exist only in their records.

site = AttachedSite(folder)                       # folder: with a short name
site.release("motor:1.0", "2.0", mcu=mcu_image(2))  # as often as wanted, before `make`
await site.make(motor_section(...), dry_section("dry-1"))
async with site.running(): await site.ordered("2.0", "motor-1")
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli.output import show_status
from gateway.control.client import ControlClient
from gateway.control.messages import AssignRequest
from gateway.status import GatewayState, NodeState
from node_agent.record import Entry, entry_from_mapping
from tests.builders.appliance import Appliance
from tests.builders.bundles import describe, image, signed
from tests.builders.keys import make_pki
from tests.builders.repository import RepositoryBuilder
from update.durable import Disk
from update.store.journal import Journal

_TRIES = 2400


class AttachedSite(Appliance):
    """Releases in a folder, and a gateway that mirrors it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.operator = ControlClient(folder / "s")
        self._builder = RepositoryBuilder(now=datetime.now(UTC))

    def release(self, hardware: str, version: str, content: bytes, *, device: str = "mcu", counter: int = 1) -> None:
        """A bundle with one image."""
        name = f"{hardware.partition(':')[0]}-{version}.swu"
        described = describe(version=version, images=[image("image.bin", content, device=device, type="raw")])
        file = signed(self.folder, described, {"image.bin": content}, name=name)
        custom = {"version": version, "hwIds": [hardware], "releaseCounter": counter}
        self._builder.add_target(f"devices/{name}", file.read_bytes(), custom)

    def publish_plan(self, name: str, version: str, content: bytes) -> None:
        """A release plan."""
        self._builder.add_target(f"plans/{name}-{version}.plan.json", content, {"version": version})

    async def make(self, *sections: str) -> None:
        """Publish, and set the gateway up."""
        self._builder.publish()
        self._builder.write_to(self.folder / "upstream")
        (self.folder / "root.json").write_bytes(self._builder.root_bytes)
        (self.folder / "anchors.pem").write_bytes(make_pki().anchors_pem)
        await self.set_up(str(self.folder / "upstream"), repository='cms_roots = ["anchors.pem"]', more="\n".join(sections))

    async def ordered(self, version: str, *nodes: str) -> None:
        """Order a release, once the gateway has it."""
        await self.operator.refresh("plant")
        await self.operator.assign(AssignRequest(release=version, nodes=nodes))

    async def until(self, condition: Callable[[dict[str, NodeState]], bool]) -> dict[str, NodeState]:
        """The nodes, once they are as they should be."""
        for _ in range(_TRIES):
            nodes = {node.id: node for node in await self.operator.nodes()}
            if condition(nodes):
                return nodes
            await asyncio.sleep(0.05)
        state: GatewayState = await self.operator.status()
        pytest.fail(f"{show_status(state)}\n{self.log[-6000:]}")

    def entry(self, node: str) -> Entry:
        """What the agent of a device has written down."""
        return entry_from_mapping(Journal(Disk(), self.state.attached / node / "journal.json").read())


def outcome(node: NodeState) -> str:
    """How what was wanted ended."""
    return "" if node.wanted is None else node.wanted.outcome


def section(node: str, hardware: str, kind: str, options: dict[str, object], more: str = "", *, deadline_s: float = 60.0) -> str:
    """One device in the configuration, with checks that follow each other closely."""
    return (
        f'[[attached]]\nid = "{node}"\nhardware = "{hardware}"\nrepository = "plant"\n'
        f'driver = {{ kind = "{kind}", {kind} = {inline(options)} }}\n'
        f"health = {{ deadline_s = {deadline_s}, interval_s = 0.05, passes = 1 }}\n{more}\n"
    )


def motor(place: dict[str, object], node: str = "motor-1", **options: object) -> str:
    """A microcontroller that is served at `place`."""
    quick: dict[str, object] = {"settle_s": 0.0, "answer_timeout_s": 0.5, "erase_timeout_s": 2.0, "tries": 3}
    return section(node, "motor:1.0", "mcuboot", {**quick, **place, **options})


def dry(node: str = "dry-1", more: str = "", **options: object) -> str:
    """A device that exists only in its records."""
    board = {"environment": f"{node}/env", "command_line": {"path": f"{node}/line"}, "fresh": True}
    bootloader = f'bootloader = {{ kind = "simulated", simulated = {inline(board)} }}\n'
    return section(node, "dry:1.0", "simulated", {"restarts": True, **options}, bootloader + more)


def inline(values: dict[str, object]) -> str:
    """An inline table of TOML."""
    return "{ " + ", ".join(f"{key} = {_value(value)}" for key, value in values.items()) + " }"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return inline(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)
