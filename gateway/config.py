"""The gateway's configuration: one TOML file, read once, every mistake named at once with its key.

A key that is not known is a mistake: a misspelt `cms_threshhold` must not silently mean the default. `format_version` is
refused when it is newer than this release knows. Relative paths are meant from the file's own folder. The defaults here
are the documentation's: `configs/gateway.toml` shows every key at its default, and a test compares.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from update.errors import ConfigurationError, FormatVersionError, HardwareError
from update.identity import Hardware, check_name

FORMAT_VERSION = 1
MAX_FILE_BYTES = 1 << 20
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"  # id-kp-codeSigning, RFC 5280 section 4.2.1.12

_NO_OTHER_KEYS = ConfigDict(extra="forbid")
_OBJECT_IDENTIFIER = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+", re.ASCII)
_INTERFACE = re.compile(r"[^\s/:]{1,15}", re.ASCII)  # IFNAMSIZ, less its final zero; an IPv4 address fits too


def _checked_name(text: str) -> str:
    try:
        return check_name(text, "a name")
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_hardware(text: str) -> str:
    try:
        Hardware.parse(text)
    except (ConfigurationError, HardwareError) as error:
        raise ValueError(str(error)) from error
    return text


def _checked_address(text: str) -> str:
    ip_address(text)
    return text


def _checked_interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        raise ValueError("a network interface has 1 to 15 characters, no blank, '/' or ':'")
    return text


def _checked_purpose(text: str) -> str:
    if text and not _OBJECT_IDENTIFIER.fullmatch(text):
        raise ValueError("an extended key usage is an object identifier such as 1.3.6.1.5.5.7.3.3, or empty for any")
    return text


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://HOST... or https://HOST...")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password: put credentials into their own file, readable by the gateway only")
    return text


def _checked_upstream(text: str) -> str:
    return _checked_url(text) if "://" in text else text


_Name = Annotated[str, AfterValidator(_checked_name)]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_HardwareText = Annotated[_Text, AfterValidator(_checked_hardware)]
_Address = Annotated[str, AfterValidator(_checked_address)]
_Interface = Annotated[str, AfterValidator(_checked_interface)]
_Purpose = Annotated[str, AfterValidator(_checked_purpose)]
_Url = Annotated[str, AfterValidator(_checked_url)]
_Upstream = Annotated[_Text, AfterValidator(_checked_upstream)]
_Switch = Annotated[bool, Field(strict=True)]
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Seconds = Annotated[int, Field(strict=True, ge=1, le=86399)]  # DDI writes intervals as HH:mm:ss
_Bytes = Annotated[int, Field(strict=True, ge=0)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100)]
_Id = Annotated[int, Field(strict=True, ge=0, le=2**32 - 2)]


class LogFormat(StrEnum):
    """`auto`: text on a terminal, JSON lines elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least serious message that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class GatewaySection:
    """Who this gateway is and where it keeps everything. `database` empty: SQLite in the state folder."""

    name: _Name = "gateway"
    state: Path = Path("/var/lib/fieldrelay")
    database: str = Field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class ContentSection:
    """The plain HTTP listener for stock clients: read-only content, no DDI; off by default."""

    enabled: _Switch = False
    addresses: tuple[_Address, ...] = ("0.0.0.0", "::")  # noqa: S104 - nodes are on the LAN
    port: _Port = 8080


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class SouthSection:
    """Towards the nodes. `hosts` go into the TLS certificate; `interfaces` empty: nothing is announced by mDNS."""

    addresses: Annotated[tuple[_Address, ...], Field(min_length=1)] = ("0.0.0.0", "::")  # noqa: S104 - nodes are on the LAN
    port: _Port = 8443
    hosts: tuple[_Text, ...] = ()
    interfaces: tuple[_Interface, ...] = ()
    polling_interval_s: _Seconds = 300
    content: ContentSection = ContentSection()


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class WanSection:
    """Towards the upstreams. `proxy_credentials` is a file with `user:password`, `extra_ca` a PEM file.

    `source_address` and `source_interface` exclude each other.
    """

    proxy: _Url | None = None
    proxy_credentials: Path | None = None
    extra_ca: Path | None = None
    source_address: _Address | None = None
    source_interface: _Interface | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class ControlSection:
    """The operator's socket: root and the gateway's own user may always use it."""

    socket: Path = Path("/run/fieldrelay/control.sock")
    allowed_uids: tuple[_Id, ...] = ()
    allowed_gids: tuple[_Id, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class StoreSection:
    """How much may be kept; 0: all that fits beside `reserve_bytes` of free space."""

    quota_bytes: _Bytes = 0
    reserve_bytes: _Bytes = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class LogSection:
    """What is logged, and how it is written."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.AUTO


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class RepositorySection:
    """One pinned TUF repository and its upstreams, in the order in which they are tried (URLs or folders).

    `hardware` empty: everything is mirrored; otherwise what names one of these, and what names no hardware at all.
    """

    name: _Name
    root: Path
    upstreams: Annotated[tuple[_Upstream, ...], Field(min_length=1)]
    cms_roots: tuple[Path, ...] = ()
    cms_purpose: _Purpose = CODE_SIGNING
    cms_threshold: _Count = 1
    hardware: tuple[_HardwareText, ...] = ()
    poll_interval_s: _Seconds = 900


def _checked_wan(wan: WanSection) -> WanSection:
    if wan.source_address is not None and wan.source_interface is not None:
        raise ValueError("source_address and source_interface exclude each other: name one")
    return wan


def _checked_repositories(repositories: tuple[RepositorySection, ...]) -> tuple[RepositorySection, ...]:
    names = [repository.name for repository in repositories]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each repository has its own name; given twice: {', '.join(doubled)}")
    return repositories


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
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


_CONFIG = TypeAdapter(GatewayConfig)


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
    def floor(self) -> tuple[Path, Path]:
        """Both copies of what must never go back."""
        return self.root / "floor-1" / "floor.json", self.root / "floor-2" / "floor.json"

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
    try:
        return parse_config(read_small_file(file).decode(), file)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration {file} is not UTF-8 at byte {error.start}") from error


def parse_config(text: str, file: Path) -> GatewayConfig:
    """Check the text of a configuration; `file` names it in messages and is what relative paths are meant from."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    _check_version(values, file)
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        raise ConfigurationError(_all_mistakes(error, file)) from error
    return _with_absolute_paths(config, file.absolute().parent)


def read_small_file(file: Path) -> bytes:
    """A file that the configuration is or names; `ConfigurationError` if it cannot be read or is larger than 1 MiB."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"{file} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _check_version(values: Mapping[str, object], file: Path) -> None:
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{file} has format_version {version}, this release knows up to {FORMAT_VERSION}; use the release it was written for"
        )


def _all_mistakes(error: ValidationError, file: Path) -> str:
    mistakes = [_mistake(detail["loc"], detail["msg"]) for detail in error.errors(include_url=False, include_input=False)]
    return f"{file}: " + "; ".join(mistakes)


def _mistake(location: tuple[int | str, ...], message: str) -> str:
    """`repository[0].cms_threshold: …`, in the words of TOML and not of the validator."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    text = message.removeprefix("Value error, ")
    return f"{key}: {'no such key' if text == 'Unexpected keyword argument' else text}"


def _with_absolute_paths(config: GatewayConfig, folder: Path) -> GatewayConfig:
    wan = config.wan
    return replace(
        config,
        gateway=replace(config.gateway, state=folder / config.gateway.state),
        control=replace(config.control, socket=folder / config.control.socket),
        wan=replace(
            wan,
            proxy_credentials=wan.proxy_credentials and folder / wan.proxy_credentials,
            extra_ca=wan.extra_ca and folder / wan.extra_ca,
        ),
        repository=tuple(
            replace(
                repository,
                root=folder / repository.root,
                cms_roots=tuple(folder / root for root in repository.cms_roots),
                upstreams=tuple(url if "://" in url else str(folder / url) for url in repository.upstreams),
            )
            for repository in config.repository
        ),
    )
