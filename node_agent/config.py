"""The node's configuration: one TOML file, read once, every mistake named at once with its key.

How it is read, `update.provided` says. The defaults here are the documentation's: `configs/node.toml` shows every key at
its default, and a test compares.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

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
    parse_toml,
    read_toml,
    refuse_newer,
)
from update.trust.verified import Provenance

FORMAT_VERSION = 1

INTERLOCK_DEADLINE_S: Final = 3600.0
_URL = TypeAdapter(Url)


def _checked_gateway(text: str) -> str:
    if text and urlsplit(_URL.validate_python(text)).scheme != "https":
        raise ValueError("a gateway is reached by https:// only")
    return text.rstrip("/")


_GatewayUrl = Annotated[str, AfterValidator(_checked_gateway)]
_Switch = Annotated[bool, Field(strict=True)]
_Seconds = Annotated[float, Field(gt=0, le=86400)]
_Pause = Annotated[float, Field(ge=0, le=86400)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100)]
_Argument = Annotated[str, Field(max_length=4096)]
_Status = Annotated[int, Field(ge=100, le=599)]
_Command = Annotated[tuple[_Argument, ...], Field(min_length=1, max_length=100)]


class Log(StrEnum):
    """How messages are written: text on a terminal and JSON lines elsewhere, or always one of them."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class NodeSection:
    """Who this node is, and the folder (outside the slots) that keeps journal, keys, floor and staged bundles."""

    id: Name
    hardware: HardwareText
    state: ProvidedPath = Path("/var/lib/fieldrelay-node")


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class GatewaySection:
    """How the gateway is found: at `url`, or by mDNS on `interfaces`. What proves it is the site's CA."""

    url: _GatewayUrl = ""
    interfaces: tuple[str, ...] = ()
    browse_s: _Seconds = 10.0
    site_ca: ProvidedPath = Path("/etc/fieldrelay/site-ca.pem")
    token: ProvidedPath = Path("/etc/fieldrelay/token")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.url and not self.interfaces:
            raise ValueError("name the gateway's url, or the interfaces on which it is looked for by mDNS")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class RepositorySection:
    """One repository whose software may run here, and who must have signed it.

    `cms_…` is for `.swu` and, but for the purpose, for RAUC bundles too. `rauc_certificate` and `rauc_key` open encrypted ones.
    """

    name: Name
    root: ProvidedPath
    cms_roots: Annotated[tuple[ProvidedPath, ...], Field(min_length=1)]
    cms_intermediates: tuple[ProvidedPath, ...] = ()
    cms_purpose: Purpose = CODE_SIGNING
    cms_threshold: _Count = 1
    rauc_purpose: RaucPurpose = RaucPurpose.SMIMESIGN
    rauc_accept_plain: _Switch = False
    rauc_certificate: ProvidedPath | None = None
    rauc_key: ProvidedPath | None = None
    minimum_provenance: Provenance = Provenance.TUF

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.rauc_certificate is None) != (self.rauc_key is None):
            raise ValueError("rauc_certificate and rauc_key belong together: name both, or none")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class HealthSection:
    """When a new version is well. `gateway`: it must also reach the gateway."""

    deadline_s: _Seconds = 300.0
    interval_s: _Pause = 5.0
    passes: _Count = 2
    gateway: _Switch = False


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class CommandCheckSection:
    """A program that ends with status 0 when all is well."""

    kind: Literal["command"]
    command: _Command
    timeout_s: _Seconds = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class HttpCheckSection:
    """A local service that answers a GET with `status`."""

    kind: Literal["http"]
    url: Url
    status: _Status = 200
    timeout_s: _Seconds = 10.0


CheckSection = Annotated[CommandCheckSection | HttpCheckSection, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class HookSection:
    """A program of the integrator at one moment of an update."""

    moment: Literal["before_write", "before_restart", "after_confirm", "after_revert"]
    command: _Command
    timeout_s: _Seconds = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class CommandInterlockSection:
    """A program that opens the interlock by ending with status 0."""

    name: Name
    kind: Literal["command"]
    command: _Command
    timeout_s: _Seconds = 5.0
    deadline_s: _Seconds = INTERLOCK_DEADLINE_S


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class HttpInterlockSection:
    """A service that opens the interlock by answering a GET with `status`."""

    name: Name
    kind: Literal["http"]
    url: Url
    status: _Status = 200
    timeout_s: _Seconds = 5.0
    deadline_s: _Seconds = INTERLOCK_DEADLINE_S


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class InputInterlockSection:
    """A file, such as a digital input of sysfs, that opens the interlock by holding the text `open`, blanks around it aside."""

    name: Name
    kind: Literal["input"]
    input: ProvidedPath
    open: Annotated[str, Field(max_length=256)] = "1"
    timeout_s: _Seconds = 5.0
    deadline_s: _Seconds = INTERLOCK_DEADLINE_S


AnyInterlockSection = CommandInterlockSection | HttpInterlockSection | InputInterlockSection
_Interlock = Annotated[AnyInterlockSection, Field(discriminator="kind")]


def _own_names(sections: tuple[AnyInterlockSection, ...]) -> tuple[AnyInterlockSection, ...]:
    names = [section.name for section in sections]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each interlock has its own name; given twice: {', '.join(doubled)}")
    return sections


InterlockSections = Annotated[tuple[_Interlock, ...], Field(max_length=100), AfterValidator(_own_names)]
"""What must be so before the device may be restarted: all of them, read in this order, each under a name of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PatchesSection:
    """Patches that a gateway offers instead of chunks, where they are smaller; each chunk is verified all the same."""

    enabled: _Switch = True
    memory_bytes: Annotated[int, Field(strict=True, ge=1 << 20, le=256 << 20)] = 64 << 20
    wait_s: _Pause = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PollSection:
    """How often the gateway is asked: what it wishes, within these bounds; `retry_s` when it is away."""

    minimum_s: _Seconds = 5.0
    maximum_s: _Seconds = 3600.0
    retry_s: _Seconds = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class KindSection:
    """A driver or bootloader: `kind = "NAME"` and a table NAME with its own options, which it checks itself."""

    kind: Annotated[str, Field(min_length=1, max_length=64)]
    options: dict[str, object] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class LogSection:
    """What is logged, and how it is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Log = Log.AUTO


def own_table(value: object) -> object:
    """Give the table that is called like the kind the name that it has here; any other key stays, and is refused."""
    if not isinstance(value, Mapping):
        return value
    if "options" in value:
        raise ValueError(f"options: no such key; write them into a table called {str(value.get('kind'))[:64]!r}")
    return {("options" if key == value.get("kind") else key): each for key, each in value.items()}


_Kind = Annotated[KindSection, BeforeValidator(own_table)]


def _different_names(repositories: tuple[RepositorySection, ...]) -> tuple[RepositorySection, ...]:
    names = [repository.name.lower() for repository in repositories]
    if not names:
        raise ValueError("name at least one repository whose software may run here")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each repository has its own name; given twice: {', '.join(doubled)}")
    return repositories


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class NodeConfig:
    """The whole file. Sections are named as in TOML; `folder` is where it lies, which relative paths are meant from."""

    format_version: Annotated[int, Field(strict=True, ge=1)]
    node: NodeSection
    gateway: GatewaySection
    driver: _Kind
    bootloader: _Kind
    repository: Annotated[tuple[RepositorySection, ...], AfterValidator(_different_names)]
    health: HealthSection = HealthSection()
    patches: PatchesSection = PatchesSection()
    poll: PollSection = PollSection()
    log: LogSection = LogSection()
    check: tuple[CheckSection, ...] = ()
    hook: tuple[HookSection, ...] = ()
    interlock: InterlockSections = ()


_CONFIG = TypeAdapter(NodeConfig)


def load_config(file: Path) -> NodeConfig:
    """Read and check `file`; `ConfigurationError` names every wrong key, `FormatVersionError` a newer format."""
    if not file.exists():
        raise ConfigurationError(f"there is no configuration {file}; name another one with --config")
    return _checked(read_toml(file), file)


def parse_config(text: str, file: Path) -> NodeConfig:
    """Check the text of a configuration; `file` names it in messages and is what relative paths are meant from."""
    return _checked(parse_toml(text, file), file)


def _checked(values: Mapping[str, object], file: Path) -> NodeConfig:
    refuse_newer(values, file, known=FORMAT_VERSION)
    return check_values(_CONFIG, values, file)
