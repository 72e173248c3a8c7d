"""All attached devices of a gateway, built from its configuration."""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway.config import GatewayConfig, RepositorySection, StateFolder
from gateway.database.engine import Database
from gateway.database.queries import nodes
from gateway.database.records import ClientKind
from gateway.fleet.attached.agent import Attached
from gateway.fleet.attached.crossing import Crossing
from gateway.fleet.attached.keeper import Keeper
from gateway.fleet.attached.life import Life
from gateway.fleet.attached.orders import ATTACHED, Desk
from gateway.fleet.attached.transport import NO_PATCHES, Shelf, ShelfTransport
from gateway.fleet.build import Fleet
from gateway.fleet.fitness import OfferedIfFit, Offering
from gateway.fleet.progress import Progress
from gateway.sections.attached import AttachedSection
from node_agent.config import RepositorySection as NodeRepository
from node_agent.device import Equipment
from update.durable import Disk
from update.errors import ConfigurationError
from update.identity import Hardware
from update.store.layout import Layout
from update.wire.attributes import NodeFacts

Begin = Callable[[Coroutine[object, object, object], str], None]


class Redeeming(Protocol):
    """Where one-time tokens are kept."""

    async def redeem(self, node: str, token: str) -> bool:
        """Consume the token of `node`; False if it is no good."""
        ...


class ReservedNames:
    """Tokens, except for `names`, which are those of attached devices: nobody may enrol as one."""

    def __init__(self, tokens: Redeeming, names: Collection[str]) -> None:
        self._tokens = tokens
        self._names = names

    async def redeem(self, node: str, token: str) -> bool:
        """Consume the token of `node`; False if it is no good."""
        return node not in self._names and await self._tokens.redeem(node, token)


class AttachedDevices:
    """The agents of one gateway's attached devices."""

    def __init__(self, devices: Sequence[tuple[AttachedSection, Attached]]) -> None:
        self._devices = tuple(devices)
        self._keepers = {section.id: _keeper(section, device) for section, device in devices}

    def begin(self, background: Begin) -> None:
        """Begin what lasts as long as the gateway."""
        for node, keeper in self._keepers.items():
            background(keeper.run(), f"attached {node}")

    def states(self) -> Mapping[str, str]:
        """How the agent of each is, by node."""
        return {node: keeper.state for node, keeper in self._keepers.items()}

    def spare(self, tokens: Redeeming) -> ReservedNames:
        """`tokens`, of which none lets anybody enrol as an attached device."""
        return ReservedNames(tokens, self._keepers.keys())


async def make_attached(
    config: GatewayConfig,
    disk: Disk,
    database: Database,
    fleet: Fleet,
    shelf: Shelf,
    *,
    layout: Layout,
    offering: Offering,
    now: Callable[[], datetime],
) -> AttachedDevices:
    """Register every device as a node, and build its agent; nothing is asked of a device yet.

    Errors: `ConfigurationError` for the name of a node that has enrolled itself, `StoreError`.
    """
    repositories = {section.name: section for section in config.repository}
    offered, folder = OfferedIfFit(offering, fleet.fitness, fleet.progress), StateFolder(config.gateway.state).attached
    crossing = Crossing()
    transport = ShelfTransport(crossing, shelf, layout.repository)
    devices = []
    for section in config.attached:
        desk = Desk(section.id, fleet.progress, offered, now)
        await _register(database, fleet.progress, desk, section)
        database.watch(desk.news.set)
        equipment = _equipment(section, repositories[section.repository], folder)
        devices.append((section, Attached(equipment, section.stalled_after_s, desk, crossing, transport, disk)))
    return AttachedDevices(devices)


async def _register(database: Database, progress: Progress, desk: Desk, section: AttachedSection) -> None:
    """A device is a node from the start, so that it can be given orders before it has answered for the first time."""
    async with database.reading() as transaction:
        known = await nodes.find(transaction, section.id)
    if known is not None and known.fingerprint != ATTACHED:
        raise ConfigurationError(
            f"attached {section.id}: a node of this name has enrolled itself here; give the device another id"
        )
    await progress.contact(section.id, ATTACHED, ClientKind.AGENT)
    hardware = Hardware.parse(section.hardware)
    if known is None or known.hardware != hardware:
        await desk.describe(NodeFacts(hardware))


def _keeper(section: AttachedSection, device: Attached) -> Keeper:
    return Keeper(section.id, section.driver.kind, partial(Life, f"attached-{section.id}", device.live))


def _equipment(section: AttachedSection, repository: RepositorySection, folder: Path) -> Equipment:
    return Equipment(
        id=section.id,
        hardware=section.hardware,
        state=folder / section.id,
        folder=folder,
        driver=section.driver,
        bootloader=section.bootloader,
        repository=(_trusted(section, repository),),
        health=section.health,
        patches=NO_PATCHES,
        check=section.check,
        hook=section.hook,
        interlock=section.interlock,
    )


def _trusted(section: AttachedSection, repository: RepositorySection) -> NodeRepository:
    """The repository as the device's agent pins it."""
    return NodeRepository(
        name=repository.name,
        root=repository.root,
        cms_roots=repository.cms_roots,
        cms_purpose=repository.cms_purpose,
        cms_threshold=repository.cms_threshold,
        rauc_purpose=repository.rauc_purpose,
        rauc_accept_plain=repository.rauc_accept_plain,
        rauc_certificate=repository.rauc_certificate,
        rauc_key=repository.rauc_key,
        minimum_provenance=section.minimum_provenance,
    )
