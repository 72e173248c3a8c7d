"""The node's objects, built from its configuration: the only place that knows all of them."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from node_agent.agent import Agent, Pace, Watch
from node_agent.config import CommandCheckSection, HttpCheckSection, NodeConfig, RepositorySection
from node_agent.content import Content, Pinned, Place
from node_agent.discovery import Discovery, Search
from node_agent.drivers.driver import Driver, Surroundings
from node_agent.drivers.registry import check_pair, make_bootloader, make_driver
from node_agent.health import Check, CommandCheck, GatewayCheck, Health, HttpCheck, Patience
from node_agent.hooks import Hook, Hooks, Moment
from node_agent.link import Credentials, Link
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

_LOG = logging.getLogger(__name__)

_GATEWAY_CHECK_S = 30.0
_LOOK_S = 15.0


@dataclass(frozen=True, slots=True)
class Node:
    """What every sub-command needs, and what lives as long as the process."""

    config: NodeConfig
    disk: Disk
    journal: Journal
    reports: Journal
    driver: Driver
    floor: Floor
    link: Link

    def agent(self, source: Source, watch: Watch) -> Agent:
        """The agent, taking orders from `source`. `ConfigurationError` for keys and roots that cannot be read."""
        config = self.config
        hardware = Hardware.parse(config.node.hardware)
        place = Place(config.node.state, hardware, lambda: datetime.now(UTC), config.patches)
        content = Content([_pinned(section) for section in config.repository], self.link, place, disk=self.disk, floor=self.floor)
        return Agent(
            node=config.node.id,
            journal=self.journal,
            steps=Steps(self.driver, content, _health(config, self.link), _hooks(config), self.floor),
            source=source,
            reports=Reports(self.reports, now_ms=lambda: time.time_ns() // 1_000_000),
            pace=Pace(look_s=min(config.poll.maximum_s, max(config.poll.minimum_s, _LOOK_S)), retry_s=config.poll.retry_s),
            watch=watch,
        )


def assemble(config: NodeConfig, file: Path, disk: Disk) -> Node:
    """Build the node; `file` is the configuration's, which the driver's relative paths are meant from.

    Makes the state folder, and at the very first start the floor: a device that lost only its floor is refused later.
    """
    state = config.node.state
    disk.make_folder(state, mode=0o700)
    journal = Journal(disk, state / "journal.json", mode=0o600)
    floor = Floor(disk, (state / "floor-1" / "floor", state / "floor-2" / "floor"))
    if not floor.exists() and not journal.path.exists():
        _LOG.info("first start in %s: nothing was confirmed yet", state)
        floor.create()
    folder = file.absolute().parent
    check_pair(config.driver.kind, config.bootloader.kind)
    bootloader = make_bootloader(config.bootloader.kind, config.bootloader.options, folder, disk)
    surroundings = Surroundings(disk, state, Hardware.parse(config.node.hardware), bootloader)
    return Node(
        config=config,
        disk=disk,
        journal=journal,
        reports=Journal(disk, state / "reports.json", mode=0o600),
        driver=make_driver(config.driver.kind, config.driver.options, folder, surroundings),
        floor=floor,
        link=_link(config, disk),
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


def _health(config: NodeConfig, link: Link) -> Health:
    checks: list[Check] = [_check(section) for section in config.check]
    if config.health.gateway:
        checks.append(GatewayCheck(link.reach, _GATEWAY_CHECK_S))
    return Health(checks, Patience(config.health.deadline_s, config.health.interval_s, config.health.passes))


def _check(section: CommandCheckSection | HttpCheckSection) -> Check:
    match section:
        case CommandCheckSection():
            return CommandCheck(section.command, section.timeout_s)
        case HttpCheckSection():
            return HttpCheck(section.url, section.status, section.timeout_s)


def _hooks(config: NodeConfig) -> Hooks:
    return Hooks([Hook(Moment(section.moment), section.command, section.timeout_s) for section in config.hook])


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
