"""What the agent of any device is built from, wherever it runs: on the node itself, or in a gateway on a device's behalf.

A folder of its own holds what an agent must remember: journal, reports, floor, staged bundles, the driver's records. What
differs is how orders and bytes arrive: whoever builds the agent hands in a `Source` and a `Transport`.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from node_agent.agent import Agent, Pace, Watch
from node_agent.config import (
    AnyInterlockSection,
    CheckSection,
    CommandCheckSection,
    CommandInterlockSection,
    HealthSection,
    HookSection,
    HttpCheckSection,
    HttpInterlockSection,
    InputInterlockSection,
    KindSection,
    PatchesSection,
    RepositorySection,
)
from node_agent.content import Content, Pinned, Place, Transport
from node_agent.drivers.driver import Capabilities, Driver, Surroundings
from node_agent.drivers.registry import check_pair, make_bootloader, make_driver
from node_agent.health import Check, CommandCheck, Health, HttpCheck, Patience
from node_agent.hooks import Hook, Hooks, Moment
from node_agent.interlocks import InputCheck, Interlock, Interlocks
from node_agent.reports import Reports
from node_agent.source import Source
from node_agent.steps import Steps
from update.bundle.cms import CmsPolicy
from update.bundle.rauc_crypt import Recipient
from update.bundle.rauc_reader import RaucPolicy, rauc_policy
from update.durable import Disk
from update.identity import Hardware
from update.provided import read_provided
from update.store.journal import Journal
from update.trust.chain import split_anchors
from update.trust.floor import Floor
from update.wire.attributes import Ability, NodeFacts

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What is configured of one device. Relative paths in the options of `driver` and `bootloader` are meant from `folder`."""

    id: str
    hardware: str
    state: Path
    folder: Path
    driver: KindSection
    bootloader: KindSection
    repository: tuple[RepositorySection, ...]
    health: HealthSection
    patches: PatchesSection
    check: tuple[CheckSection, ...]
    hook: tuple[HookSection, ...]
    interlock: tuple[AnyInterlockSection, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """What lives as long as the agent's process, or as long as the driver is well."""

    equipment: Equipment
    disk: Disk
    journal: Journal
    reports: Journal
    driver: Driver
    floor: Floor
    trial: Journal

    def agent(self, source: Source, transport: Transport, pace: Pace, watch: Watch, *, also: Sequence[Check] = ()) -> Agent:
        """The agent, taking orders from `source`; `also` are checks beside the configured ones.

        Errors: `ConfigurationError` for keys and roots that cannot be read.
        """
        own = self.equipment
        place = Place(own.state, Hardware.parse(own.hardware), lambda: datetime.now(UTC), own.patches)
        content = Content([_pinned(section) for section in own.repository], transport, place, disk=self.disk, floor=self.floor)
        health, hooks, interlocks = _health(own, also), _hooks(own.hook), _interlocks(own.interlock)
        return Agent(
            node=own.id,
            journal=self.journal,
            steps=Steps(self.driver, content, health, hooks, self.floor, self.trial, interlocks),
            source=source,
            reports=Reports(self.reports, now_ms=lambda: time.time_ns() // 1_000_000),
            pace=pace,
            watch=watch,
        )

    async def facts(self) -> NodeFacts:
        """What the device is and runs. Errors: those of `Driver.slots`."""
        hardware = Hardware.parse(self.equipment.hardware)
        running = next((slot for slot in await self.driver.slots() if slot.booted), None)
        can = _abilities(self.driver.capabilities)
        if running is None:
            return NodeFacts(hardware, can=can)
        return NodeFacts(hardware, running.version or "", running.bundle, running.name, can)


def _abilities(said: Capabilities) -> frozenset[Ability]:
    pairs = ((Ability.HOLD, said.hold), (Ability.REVERT, said.revert), (Ability.REFLASH, said.reflash))
    return frozenset(ability for ability, can in pairs if can)


def make_device(equipment: Equipment, disk: Disk) -> Device:
    """Build the parts that need no network.

    Makes the state folder, and at the very first start the floor: a device that lost only its floor is refused later.
    Errors: `ConfigurationError`, `MissingExtraError` and others of the driver's constructor, `StoreError`.
    """
    state, folder = equipment.state, equipment.folder
    disk.make_folder(state, mode=0o700)
    journal = Journal(disk, state / "journal.json", mode=0o600)
    floor = Floor(disk, (state / "floor-1" / "floor", state / "floor-2" / "floor"))
    if not floor.exists() and not journal.path.exists():
        _LOG.info("first start in %s: nothing was confirmed yet", state)
        floor.create()
    check_pair(equipment.driver.kind, equipment.bootloader.kind)
    bootloader = make_bootloader(equipment.bootloader.kind, equipment.bootloader.options, folder, disk)
    surroundings = Surroundings(disk, state, Hardware.parse(equipment.hardware), bootloader)
    return Device(
        equipment=equipment,
        disk=disk,
        journal=journal,
        reports=Journal(disk, state / "reports.json", mode=0o600),
        driver=make_driver(equipment.driver.kind, equipment.driver.options, folder, surroundings),
        floor=floor,
        trial=Journal(disk, state / "trial.json", mode=0o600),
    )


def _health(own: Equipment, also: Sequence[Check]) -> Health:
    checks = [*(_check(section) for section in own.check), *also]
    return Health(checks, Patience(own.health.deadline_s, own.health.interval_s, own.health.passes))


def _check(section: CheckSection | AnyInterlockSection) -> Check:
    match section:
        case CommandCheckSection() | CommandInterlockSection():
            return CommandCheck(section.command, section.timeout_s)
        case HttpCheckSection() | HttpInterlockSection():
            return HttpCheck(section.url, section.status, section.timeout_s)
        case InputInterlockSection():
            return InputCheck(section.input, section.open, section.timeout_s)


def _interlocks(sections: Sequence[AnyInterlockSection]) -> Interlocks:
    return Interlocks([Interlock(section.name, _check(section), section.deadline_s) for section in sections])


def _hooks(sections: Sequence[HookSection]) -> Hooks:
    return Hooks([Hook(Moment(section.moment), section.command, section.timeout_s) for section in sections])


def _pinned(section: RepositorySection) -> Pinned:
    """What the files of one repository say; the time of judgement is put in at each use."""
    roots: list[x509.Certificate] = []
    intermediates: list[x509.Certificate] = []
    for file in (*section.cms_roots, *section.cms_intermediates):
        found = split_anchors(read_provided(file))
        roots += found[0]
        intermediates += found[1]
    purpose = x509.ObjectIdentifier(section.cms_purpose) if section.cms_purpose else None
    now, trusted, between = datetime.now(UTC), tuple(roots), tuple(intermediates)
    policy = CmsPolicy(trusted, now, between, purpose=purpose, threshold=section.cms_threshold)
    rauc = _rauc(section, trusted, between, now)
    return Pinned(section.name, read_provided(section.root), policy, section.minimum_provenance, rauc)


def _rauc(
    section: RepositorySection, roots: tuple[x509.Certificate, ...], intermediates: tuple[x509.Certificate, ...], now: datetime
) -> RaucPolicy:
    """The same authorities, for RAUC bundles."""
    recipient = None
    if section.rauc_certificate is not None and section.rauc_key is not None:
        recipient = Recipient.from_pem(read_provided(section.rauc_certificate), read_provided(section.rauc_key))
    return rauc_policy(
        roots,
        now,
        intermediates=intermediates,
        purpose=section.rauc_purpose,
        threshold=section.cms_threshold,
        accept_plain=section.rauc_accept_plain,
        recipient=recipient,
    )
