"""The configuration of whoever reads media: one TOML file, read once, every mistake named at once with its key.

How it is read, `update.provided` says. The defaults here are the documentation's: `configs/media.toml` shows every key at its
default, and a test compares.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from media.sinks.section import SignalsSection
from media.words import Language
from update.errors import ConfigurationError
from update.provided import NO_OTHER_KEYS, ProvidedPath, check_values, read_toml, refuse_newer

FORMAT_VERSION = 1

_Switch = Annotated[bool, Field(strict=True)]
_Seconds = Annotated[float, Field(gt=0, le=86400)]
_Pattern = Annotated[str, Field(min_length=1, max_length=128)]
_Bytes = Annotated[int, Field(strict=True, ge=1)]


class Unknown(StrEnum):
    """What to do with a medium that the policy does not name: nothing, show it, or take it like one that is named."""

    IGNORE = "ignore"
    SHOW = "show"
    IMPORT = "import"


class Reader(StrEnum):
    """How file systems are read: mounted by the mounter, in our own process, or the one where the other cannot."""

    AUTO = "auto"
    MOUNT = "mount"
    OWN = "own"


class Events(StrEnum):
    """Whose events of devices are heard: udevd's, or the kernel's where none runs."""

    UDEV = "udev"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class MediaSection:
    """Where the reader meets the gateway (`intake`, the same in its file) and the mounter (`socket`); that serves only `user`."""

    intake: ProvidedPath = Path("/run/fieldrelay-intake")
    socket: ProvidedPath = Path("/run/fieldrelay-mounter/socket")
    user: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")] = "fieldrelay-media"
    events: Events = Events.UDEV
    reader: Reader = Reader.AUTO
    language: Language = Language.ENGLISH
    settle_s: _Seconds = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class AllowSection:
    """Media that are taken: all patterns given must fit (shell patterns); one that is not given fits everything."""

    bus: _Pattern = "usb"
    vendor: _Pattern = "*"
    serial: _Pattern = "*"
    label: _Pattern = "*"
    port: _Pattern = "*"
    write_reports: _Switch = False
    key_file: ProvidedPath | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class PolicySection:
    """What becomes of media that no `[[allow]]` fits. `only_storage`: what is also something else is refused (BadUSB)."""

    unknown: Unknown = Unknown.SHOW
    only_storage: _Switch = True
    filesystems: tuple[_Pattern, ...] = ("vfat", "exfat", "ext4")
    max_bytes: _Bytes = 4 << 40


@dataclass(frozen=True, slots=True, kw_only=True, config=NO_OTHER_KEYS)
class MediaConfig:
    """The whole file."""

    format_version: Annotated[int, Field(strict=True, ge=1)]
    media: MediaSection = MediaSection()
    policy: PolicySection = PolicySection()
    allow: Annotated[tuple[AllowSection, ...], Field(max_length=100)] = (AllowSection(),)
    signals: SignalsSection = SignalsSection()


_CONFIG = TypeAdapter(MediaConfig)


def load_config(file: Path) -> MediaConfig:
    """Read and check `file`; `ConfigurationError` names every wrong key, `FormatVersionError` a newer format."""
    if not file.exists():
        raise ConfigurationError(f"there is no configuration {file}; name another one with --config")
    values = read_toml(file)
    refuse_newer(values, file, known=FORMAT_VERSION)
    return check_values(_CONFIG, values, file)
