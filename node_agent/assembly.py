"""The node's objects, built from its configuration: a device (`node_agent.device`), and the link to its gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.agent import Agent, Pace, Watch
from node_agent.config import NodeConfig
from node_agent.device import Device, Equipment, make_device
from node_agent.discovery import Discovery, Search
from node_agent.drivers.driver import Driver
from node_agent.health import Check, GatewayCheck
from node_agent.link import Credentials, Link
from node_agent.source import Source
from update.durable import Disk
from update.store.journal import Journal

_GATEWAY_CHECK_S = 30.0
_LOOK_S = 15.0


@dataclass(frozen=True, slots=True)
class Node:
    """What every sub-command needs, and what lives as long as the process."""

    config: NodeConfig
    device: Device
    link: Link

    @property
    def journal(self) -> Journal:
        """Where the agent's record is kept."""
        return self.device.journal

    @property
    def reports(self) -> Journal:
        """Where reports wait."""
        return self.device.reports

    @property
    def driver(self) -> Driver:
        """The device's."""
        return self.device.driver

    def agent(self, source: Source, watch: Watch) -> Agent:
        """The agent, taking orders from `source`. `ConfigurationError` for keys and roots that cannot be read."""
        pace = Pace(look_s=self.look_s, retry_s=self.config.poll.retry_s)
        return self.device.agent(source, self.link, pace, watch, also=self._reach())

    @property
    def look_s(self) -> float:
        """How often to ask while an update is under way, in seconds: a decision shall be heard soon."""
        return min(self.config.poll.maximum_s, max(self.config.poll.minimum_s, _LOOK_S))

    def _reach(self) -> Sequence[Check]:
        return [GatewayCheck(self.link.reach, _GATEWAY_CHECK_S)] if self.config.health.gateway else []


def assemble(config: NodeConfig, file: Path, disk: Disk) -> Node:
    """Build the node; `file` is the configuration, which relative paths in it are meant from. Errors: as `make_device`."""
    return Node(config, make_device(_equipment(config, file.absolute().parent), disk), _link(config, disk))


def _equipment(config: NodeConfig, folder: Path) -> Equipment:
    return Equipment(
        id=config.node.id,
        hardware=config.node.hardware,
        state=config.node.state,
        folder=folder,
        driver=config.driver,
        bootloader=config.bootloader,
        repository=config.repository,
        health=config.health,
        patches=config.patches,
        check=config.check,
        hook=config.hook,
        interlock=config.interlock,
    )


def _link(config: NodeConfig, disk: Disk) -> Link:
    gateway, state = config.gateway, config.node.state
    search = Search(gateway.url, gateway.interfaces, gateway.browse_s)
    credentials = Credentials(
        node=config.node.id,
        site_ca=gateway.site_ca,
        key=state / "keys" / "node.key",
        certificate=state / "keys" / "node.pem",
        token=gateway.token,
    )
    return Link(Discovery(search, Journal(disk, state / "gateway.json")), credentials, disk)
