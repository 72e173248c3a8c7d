"""The node's configuration: one TOML file, read once, every mistake named at once with its key.

A key that is not known is a mistake: a misspelt `treshold` must not silently mean the default. `format_version` is
refused when it is newer than this release knows. Relative paths are meant from the file's own folder. The defaults here
are the documentation's: `configs/node.toml` shows every key at its default, and a test compares.
"""

import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.dataclasses import dataclass

from update.errors import ConfigurationError, FormatVersionError
from update.identity import Hardware, check_name
from update.trust.verified import Provenance

FORMAT_VERSION = 1
MAX_FILE_BYTES = 1 << 20
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"  # id-kp-codeSigning, RFC 5280 section 4.2.1.12

_NO_OTHER_KEYS = ConfigDict(extra="forbid")
_OBJECT_IDENTIFIER = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+", re.ASCII)


def _checked_name(text: str) -> str:
    try:
        return check_name(text, "a name")
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_hardware(text: str) -> str:
    try:
        return str(Hardware.parse(text))
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _checked_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be http://HOST... or https://HOST...")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user name or password, which do not belong into a URL")
    return text


def _checked_gateway(text: str) -> str:
    if text and urlsplit(_checked_url(text)).scheme != "https":
        raise ValueError("a gateway is reached by https:// only")
    return text.rstrip("/")


def _checked_purpose(text: str) -> str:
    if text and not _OBJECT_IDENTIFIER.fullmatch(text):
        raise ValueError("an extended key usage is an object identifier such as 1.3.6.1.5.5.7.3.3, or empty for any")
    return text


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder = info.context.get("folder") if isinstance(info.context, dict) else None
    return folder / path if isinstance(folder, Path) else path


_Name = Annotated[str, AfterValidator(_checked_name)]
_HardwareText = Annotated[str, AfterValidator(_checked_hardware)]
_Path = Annotated[Path, AfterValidator(_from_folder)]
_Url = Annotated[str, AfterValidator(_checked_url)]
_GatewayUrl = Annotated[str, AfterValidator(_checked_gateway)]
_Purpose = Annotated[str, AfterValidator(_checked_purpose)]
_Switch = Annotated[bool, Field(strict=True)]
_Seconds = Annotated[float, Field(gt=0, le=86400)]
_Pause = Annotated[float, Field(ge=0, le=86400)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100)]
_Argument = Annotated[str, Field(max_length=4096)]
_Command = Annotated[tuple[_Argument, ...], Field(min_length=1, max_length=100)]


class Log(StrEnum):
    """How messages are written: text on a terminal and JSON lines elsewhere, or always one of them."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class NodeSection:
    """Who this node is, and the folder (outside the slots) that keeps journal, keys, floor and staged bundles."""

    id: _Name
    hardware: _HardwareText
    state: _Path = Path("/var/lib/fieldrelay-node")


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class GatewaySection:
    """How the gateway is found: at `url`, or by mDNS on `interfaces`. What proves it is the site's CA."""

    url: _GatewayUrl = ""
    interfaces: tuple[str, ...] = ()
    browse_s: _Seconds = 10.0
    site_ca: _Path = Path("/etc/fieldrelay/site-ca.pem")
    token: _Path = Path("/etc/fieldrelay/token")

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.url and not self.interfaces:
            raise ValueError("name the gateway's url, or the interfaces on which it is looked for by mDNS")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class RepositorySection:
    """One repository whose software may run here, and who must have signed it."""

    name: _Name
    root: _Path
    cms_roots: Annotated[tuple[_Path, ...], Field(min_length=1)]
    cms_intermediates: tuple[_Path, ...] = ()
    cms_purpose: _Purpose = CODE_SIGNING
    cms_threshold: _Count = 1
    minimum_provenance: Provenance = Provenance.TUF


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class HealthSection:
    """When a new version is well. `gateway`: it must also reach the gateway."""

    deadline_s: _Seconds = 300.0
    interval_s: _Pause = 5.0
    passes: _Count = 2
    gateway: _Switch = False


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class CommandCheckSection:
    """A program that ends with status 0 when all is well."""

    kind: Literal["command"]
    command: _Command
    timeout_s: _Seconds = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class HttpCheckSection:
    """A local service that answers a GET with `status`."""

    kind: Literal["http"]
    url: _Url
    status: Annotated[int, Field(ge=100, le=599)] = 200
    timeout_s: _Seconds = 10.0


CheckSection = Annotated[CommandCheckSection | HttpCheckSection, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class HookSection:
    """A program of the integrator at one moment of an update."""

    moment: Literal["before_write", "before_restart", "after_confirm", "after_revert"]
    command: _Command
    timeout_s: _Seconds = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class PollSection:
    """How often the gateway is asked: what it wishes, within these bounds; `retry_s` when it is away."""

    minimum_s: _Seconds = 5.0
    maximum_s: _Seconds = 3600.0
    retry_s: _Seconds = 10.0


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class KindSection:
    """A driver or bootloader: `kind = "NAME"` and a table NAME with its own options, which it checks itself."""

    kind: Annotated[str, Field(min_length=1, max_length=64)]
    options: dict[str, object] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class LogSection:
    """What is logged, and how it is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Log = Log.AUTO


def _own_table(value: object) -> object:
    """Give the table that is called like the kind the name that it has here; any other key stays, and is refused."""
    if not isinstance(value, Mapping):
        return value
    if "options" in value:
        raise ValueError(f"options: no such key; write them into a table called {str(value.get('kind'))[:64]!r}")
    return {("options" if key == value.get("kind") else key): each for key, each in value.items()}


_Kind = Annotated[KindSection, BeforeValidator(_own_table)]


def _different_names(repositories: tuple[RepositorySection, ...]) -> tuple[RepositorySection, ...]:
    names = [repository.name.lower() for repository in repositories]
    if not names:
        raise ValueError("name at least one repository whose software may run here")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each repository has its own name; given twice: {', '.join(doubled)}")
    return repositories


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_OTHER_KEYS)
class NodeConfig:
    """The whole file. Sections are named as in TOML; `folder` is where it lies, which relative paths are meant from."""

    format_version: Annotated[int, Field(strict=True, ge=1)]
    node: NodeSection
    gateway: GatewaySection
    driver: _Kind
    bootloader: _Kind
    repository: Annotated[tuple[RepositorySection, ...], AfterValidator(_different_names)]
    health: HealthSection = HealthSection()
    poll: PollSection = PollSection()
    log: LogSection = LogSection()
    check: tuple[CheckSection, ...] = ()
    hook: tuple[HookSection, ...] = ()


_CONFIG = TypeAdapter(NodeConfig)


def load_config(file: Path) -> NodeConfig:
    """Read and check `file`; `ConfigurationError` names every wrong key, `FormatVersionError` a newer format."""
    return parse_config(_read(file), file)


def parse_config(text: str, file: Path) -> NodeConfig:
    """Check the text of a configuration; `file` names it in messages and is what relative paths are meant from."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{file} has format_version {version}, this release knows up to {FORMAT_VERSION}; use the release it was written for"
        )
    try:
        return _CONFIG.validate_python(values, context={"folder": file.absolute().parent})
    except ValidationError as error:
        raise ConfigurationError(_all_mistakes(error, file)) from error


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration {file}: {error.strerror or error}; name another one with --config"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"the configuration {file} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration {file} is not UTF-8 at byte {error.start}") from error


def _all_mistakes(error: ValidationError, file: Path) -> str:
    details = error.errors(include_url=False, include_input=False)
    return f"{file}: " + "; ".join(_mistake(detail["loc"], detail["msg"]) for detail in details)


def _mistake(location: tuple[int | str, ...], message: str) -> str:
    """`repository[0].cms_threshold: ...`, in the words of TOML and not of the validator."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    text = message.removeprefix("Value error, ")
    return f"{key}: {'no such key' if text == 'Unexpected keyword argument' else text}"
