"""The gateway's configuration: one TOML file, read once, every mistake named at once with its key.

How it is read, `update.provided` says. The defaults here are the documentation's: `configs/gateway.toml` shows every key at
its default, and a test compares.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationInfo
from pydantic.dataclasses import dataclass

from gateway.sections.assigners import HawkbitSection, WfxSection, checked_hawkbit, checked_wfx
from gateway.sections.attached import AttachedSection, checked_attached
from gateway.sections.calls import CallSection, checked_calls
from gateway.sections.interlocks import InterlockSection, checked_interlocks
from gateway.sections.log import LogSection
from gateway.sections.media import MediaSection
from gateway.sections.probes import ProbeSection, checked_probes
from gateway.sections.pushed import SwuforwardSection, checked_swuforward
from gateway.sections.pushers import PushSection, checked_push
from gateway.sections.routes import RouteSection, checked_routes
from gateway.sections.web import WebSection
from gateway.sections.webhooks import WebhookSection, checked_webhooks
from update.bundle.rauc_reader import RaucPurpose
from update.errors import ConfigurationError
from update.provided import (
    CODE_SIGNING,
    NO_OTHER_KEYS,
    HardwareText,
    Name,
    ProvidedPath,
    Purpose,
    Url,
    check_values,
    named_after,
    parse_toml,
    read_toml,
    refuse_newer,
)
from update.wire.timetable import BytesPerSecond, Span, checked_zone

FORMAT_VERSION = 1
_CONNECTIONS_FOR_EVENTS = 4

_URL = TypeAdapter(Url)
_INTERFACE = re.compile(r"[^\s/:]{1,15}", re.ASCII)  # IFNAMSIZ, less its final zero; an IPv4 address fits too


def _checked_address(text: str) -> str:
    ip_address(text)
    return text


def _checked_interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        raise ValueError("a network interface has 1 to 15 characters, no blank, '/' or ':'")
    return text


def _checked_upstream(text: str, info: ValidationInfo) -> str:
    return _URL.validate_python(text) if "://" in text else str(named_after(Path(text), info))


_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Address = Annotated[str, AfterValidator(_checked_address)]
_Interface = Annotated[str, AfterValidator(_checked_interface)]
_Upstream = Annotated[_Text, AfterValidator(_checked_upstream)]
_Switch = Annotated[bool, Field(strict=True)]
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Seconds = Annotated[int, Field(strict=True, ge=1, le=86399)]  # DDI writes intervals as HH:mm:ss
_Bytes = Annotated[int, Field(strict=True, ge=0)]
_Connections = Annotated[int, Field(strict=True, ge=2, le=1000)]  # one of them is kept for small answers
_Zone = Annotated[str, AfterValidator(checked_zone)]
_Days = Annotated[int, Field(strict=True, ge=0, le=3650)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100)]
_Authority = Annotated[str, Field(pattern=r"^([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?$")]
_Patience = Annotated[int, Field(strict=True, ge=0, le=366 * 86400)]
_Limit = Annotated[int, Field(strict=True, ge=1)]
_PatchMemory = Annotated[int, Field(strict=True, ge=1 << 20, le=256 << 20)]
_MakerMemory = Annotated[int, Field(strict=True, ge=256 << 20)]
_Id = Annotated[int, Field(strict=True, ge=0, le=2**32 - 2)]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class GatewaySection:
    """Who this gateway is and where it keeps everything. `database` empty: SQLite in the state folder."""

    name: Name = "gateway"
    state: ProvidedPath = Path("/var/lib/fieldrelay")
    database: str = Field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class ContentSection:
    """The plain HTTP listener for stock clients: read-only content, no DDI; off by default.

    `peers`: whole repositories too, for gateways that have this one as their upstream.
    """

    enabled: _Switch = False
    peers: _Switch = False
    addresses: tuple[_Address, ...] = ("0.0.0.0", "::")  # noqa: S104 - nodes are on the LAN
    port: _Port = 8080


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PairPatchesSection:
    """Patches from what a node runs to what it wants, made here; off by default: they cost the gateway, not the nodes.

    `memory_bytes` is what a node needs to apply one; making takes about six times as much.
    """

    enabled: _Switch = False
    memory_bytes: _PatchMemory = 64 << 20
    max_image_bytes: _Limit = 2 << 30
    maker_memory_bytes: _MakerMemory = 1 << 30
    maker_time_s: _Seconds = 900


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PollingSection:
    """Nodes whose names fit `nodes` (a shell pattern) ask every `interval_s` seconds; the first section that fits counts."""

    nodes: Annotated[str, Field(min_length=1, max_length=100)]
    interval_s: _Seconds


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class SouthSection:
    """Towards the nodes. `hosts` go into the TLS certificate; `interfaces` empty: nothing is announced by mDNS.

    What nothing came of `stuck_after_s` after its order ends as timed out (0: never); what was installed and could not be
    verified `verify_within_s` later ends as unverified. The rates are of content, by TLS and plain HTTP together.
    """

    addresses: Annotated[tuple[_Address, ...], Field(min_length=1)] = ("0.0.0.0", "::")  # noqa: S104 - nodes are on the LAN
    port: _Port = 8443
    hosts: tuple[_Text, ...] = ()
    interfaces: tuple[_Interface, ...] = ()
    polling_interval_s: _Seconds = 300
    polling: Annotated[tuple[PollingSection, ...], Field(max_length=1000)] = ()
    stuck_after_s: _Patience = 86400
    verify_within_s: _Patience = 3600
    bytes_per_s: BytesPerSecond = 0
    node_bytes_per_s: BytesPerSecond = 0
    content: ContentSection = ContentSection()
    pair_patches: PairPatchesSection = PairPatchesSection()


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class WanSection:
    """Towards the upstreams. `proxy_credentials` is a file with `user:password`, `extra_ca` a PEM file.

    `source_address` and `source_interface` exclude each other.
    """

    proxy: Url | None = None
    proxy_credentials: ProvidedPath | None = None
    extra_ca: ProvidedPath | None = None
    source_address: _Address | None = None
    source_interface: _Interface | None = None
    connections: _Connections = 20
    bytes_per_s: BytesPerSecond = 0
    time_zone: _Zone = ""
    profile: Annotated[tuple[Span, ...], Field(max_length=100)] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class ControlSection:
    """The operator's socket: root and the gateway's own user may always use it."""

    socket: ProvidedPath = Path("/run/fieldrelay/control.sock")
    allowed_uids: tuple[_Id, ...] = ()
    allowed_gids: tuple[_Id, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class StoreSection:
    """How much may be kept; 0: all that fits beside `reserve_bytes` of free space. `scrub_days` 0: nothing is read again."""

    quota_bytes: _Bytes = 0
    reserve_bytes: _Bytes = 256 << 20
    scrub_days: _Days = 30


class PrefetchMode(StrEnum):
    """What of the images of an ordered release is fetched before nodes ask for it."""

    ON_DEMAND = "on-demand"
    UNION = "union"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class RepositorySection:
    """One pinned TUF repository and its upstreams, in the order in which they are tried (URLs or folders).

    `cms_…` is for `.swu` and, but for the purpose, for RAUC bundles too. `rauc_certificate` and `rauc_key` open encrypted ones.
    `hardware` empty: everything is mirrored; otherwise what names one of these, and what names no hardware at all.
    `prefetch` other than `on-demand` needs `cms_roots`: which images a bundle fetches is known from its proved description.
    So does `fetch_signed_urls`: hosts that signed URLs may name, asked for images that the repository does not list.
    """

    name: Name
    root: ProvidedPath
    upstreams: Annotated[tuple[_Upstream, ...], Field(min_length=1)]
    cms_roots: tuple[ProvidedPath, ...] = ()
    cms_purpose: Purpose = CODE_SIGNING
    cms_threshold: _Count = 1
    rauc_purpose: RaucPurpose = RaucPurpose.SMIMESIGN
    rauc_accept_plain: _Switch = False
    rauc_certificate: ProvidedPath | None = None
    rauc_key: ProvidedPath | None = None
    hardware: tuple[HardwareText, ...] = ()
    poll_interval_s: _Seconds = 900
    prefetch: PrefetchMode = PrefetchMode.ON_DEMAND
    fetch_signed_urls: Annotated[tuple[_Authority, ...], Field(max_length=100)] = ()


def _checked_wan(wan: WanSection) -> WanSection:
    if wan.source_address is not None and wan.source_interface is not None:
        raise ValueError("source_address and source_interface exclude each other: name one")
    return wan


def _checked_repositories(repositories: tuple[RepositorySection, ...]) -> tuple[RepositorySection, ...]:
    names = [repository.name for repository in repositories]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each repository has its own name; given twice: {', '.join(doubled)}")
    for repository in repositories:
        if (repository.rauc_certificate is None) != (repository.rauc_key is None):
            raise ValueError(f"{repository.name}: rauc_certificate and rauc_key belong together: name both, or none")
        if repository.prefetch is not PrefetchMode.ON_DEMAND and not repository.cms_roots:
            raise ValueError(
                f'{repository.name}: prefetch = "{repository.prefetch}" needs cms_roots, since only a bundle that is proved '
                "tells which images it fetches"
            )
    return repositories


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class GatewayConfig:
    """The whole file. Sections are named as in TOML."""

    format_version: Annotated[int, Field(strict=True, ge=1)]
    gateway: GatewaySection = GatewaySection()
    south: SouthSection = SouthSection()
    wan: Annotated[WanSection, AfterValidator(_checked_wan)] = WanSection()
    control: ControlSection = ControlSection()
    store: StoreSection = StoreSection()
    log: LogSection = LogSection()
    repository: Annotated[tuple[RepositorySection, ...], AfterValidator(_checked_repositories)] = ()
    hawkbit: Annotated[tuple[HawkbitSection, ...], AfterValidator(checked_hawkbit)] = ()
    wfx: Annotated[tuple[WfxSection, ...], AfterValidator(checked_wfx)] = ()
    swuforward: Annotated[tuple[SwuforwardSection, ...], AfterValidator(checked_swuforward)] = ()
    interlock: Annotated[tuple[InterlockSection, ...], AfterValidator(checked_interlocks)] = ()
    probe: Annotated[tuple[ProbeSection, ...], AfterValidator(checked_probes)] = ()
    route: Annotated[tuple[RouteSection, ...], AfterValidator(checked_routes)] = ()
    webhook: Annotated[tuple[WebhookSection, ...], AfterValidator(checked_webhooks)] = ()
    media: MediaSection = MediaSection()
    push: Annotated[PushSection, AfterValidator(checked_push)] = PushSection()
    call: Annotated[tuple[CallSection, ...], AfterValidator(checked_calls), Field(max_length=10)] = ()
    web: WebSection = WebSection()
    attached: Annotated[tuple[AttachedSection, ...], AfterValidator(checked_attached)] = ()


def _consistent(config: GatewayConfig) -> GatewayConfig:
    known = {repository.name: repository for repository in config.repository}
    named = [(f"hawkbit {each.name}", each.repository) for each in config.hawkbit]
    named += [(f"swuforward {each.name}", each.repository) for each in config.swuforward]
    named += [(f"wfx {each.name}", each.repository) for each in config.wfx]
    named += [(f"push.pusher {each.name}", name) for each in config.push.pusher for name in each.repositories]
    named += [(f"call {each.name}", name) for each in config.call for name in each.repositories]
    proved = [(f"attached {each.id}", each.repository) for each in config.attached]
    proved += [("media.singles", name) for name in config.media.singles]
    proved += [(f"push.pusher {each.name}", name) for each in config.push.pusher if each.singles for name in each.repositories]
    for who, repository in (*named, *proved):
        if repository not in known:
            raise ValueError(f"{who}: there is no [[repository]] named {repository}")
    for who, repository in proved:
        if not known[repository].cms_roots:
            raise ValueError(f"{who}: its repository {repository} needs cms_roots: who signs bundles")
    for wfx in config.wfx:
        if wfx.events and config.wan.connections < _CONNECTIONS_FOR_EVENTS:
            raise ValueError(
                f"wfx {wfx.name}: its events hold one of the connections: wan.connections is at least "
                f"{_CONNECTIONS_FOR_EVENTS} then, not {config.wan.connections}; or events = false"
            )
    if config.call and config.wan.connections < (least := len(config.call) + _CONNECTIONS_FOR_EVENTS):
        raise ValueError(
            f"each call holds one connection: wan.connections is at least {least} then, not {config.wan.connections}"
        )
    return config


_CONFIG = TypeAdapter(Annotated[GatewayConfig, AfterValidator(_consistent)])


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Where everything lies in the folder that the gateway must remember. `keys` is readable by the gateway only."""

    root: Path

    @property
    def keys(self) -> Path:
        """Private keys and their certificates."""
        return self.root / "tls"

    @property
    def authority(self) -> tuple[Path, Path]:
        """The site's CA: certificate and key."""
        return self.keys / "site-ca.pem", self.keys / "site-ca.key"

    @property
    def server(self) -> tuple[Path, Path]:
        """The gateway's own identity: certificate and key."""
        return self.keys / "gateway.pem", self.keys / "gateway.key"

    @property
    def store(self) -> Path:
        """Verified content."""
        return self.root / "store"

    @property
    def mirrored(self) -> Path:
        """Content of other ecosystems, a folder for each route."""
        return self.root / "mirrored"

    @property
    def attached(self) -> Path:
        """What the agents of attached devices remember, a folder for each."""
        return self.root / "attached"

    @property
    def floor(self) -> tuple[Path, Path]:
        """Both copies of what must never go back."""
        return self.root / "floor-1" / "floor.json", self.root / "floor-2" / "floor.json"

    @property
    def pushes(self) -> Path:
        """Pushes that are not finished."""
        return self.root / "pushes"

    @property
    def habits(self) -> Path:
        """How the upstreams answer; may be lost."""
        return self.root / "habits.json"

    @property
    def joined(self) -> Path:
        """Which bundles were found to be one release."""
        return self.root / "joined.json"

    @property
    def scrub(self) -> Path:
        """How far the store was read again; may be lost."""
        return self.root / "scrub.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that runs on this folder."""
        return self.root / "lock"

    @property
    def database(self) -> Path:
        """The embedded database, where no other one is configured."""
        return self.root / "gateway.db"


def load_config(file: Path) -> GatewayConfig:
    """Read and check `file`; `ConfigurationError` names every wrong key, `FormatVersionError` a newer format."""
    if not file.exists():
        raise ConfigurationError(f"there is no configuration {file}; `fieldrelay gateway init` makes one")
    return _checked(read_toml(file), file)


def parse_config(text: str, file: Path) -> GatewayConfig:
    """Check the text of a configuration; `file` names it in messages and is what relative paths are meant from."""
    return _checked(parse_toml(text, file), file)


def _checked(values: Mapping[str, object], file: Path) -> GatewayConfig:
    refuse_newer(values, file, known=FORMAT_VERSION)
    return check_values(_CONFIG, values, file)
