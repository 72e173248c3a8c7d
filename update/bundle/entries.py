"""One entry of a description: an image, a script or a variable of the bootloader, read strictly.

SWUpdate ignores attributes of the wrong type without a word (a number among the properties, a text for a flag), cuts texts
at 255 characters, and misreads an `offset` written as JSON text. Here each is refused with the reason, so that what is
installed is what was meant. Attributes that this release does not act on are refused as unsupported, never skipped: they
change what is installed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from update.bundle.cpio import check_member_name
from update.bundle.syntax import Syntax, is_sequence
from update.digest import Digest
from update.errors import DescriptionError, UnsupportedError

MAX_TEXT: Final = 255
MAX_PROPERTY_TEXT: Final = 2048
MAX_PROPERTIES: Final = 64
MAX_OFFSET_BYTES: Final = (1 << 63) - 1
MAX_JSON_OFFSET_BYTES: Final = (1 << 31) - 1
VERITY_ROOT_HASH: Final = "verity-root-hash"
"""Property of an image with a dm-verity tree: the root of the tree, 64 hexadecimal digits."""
VERITY_HASH_OFFSET: Final = "verity-hash-offset"
"""Where the tree's superblock begins in the image, in bytes, decimal."""
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)
_OFFSET = re.compile(r"(0[xX][0-9A-Fa-f]{1,15}|0|[1-9][0-9]{0,17})([KMG]?)", re.ASCII)
_VARIABLE = re.compile(r"[!-<>-~]{1,255}", re.ASCII)
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+/[!-~]+", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30}
_LOG_LEVELS = frozenset({"none", "error", "warn", "info", "debug"})


class Handler(StrEnum):
    """What this release can do with a member."""

    RAW = "raw"
    DELTA = "delta"
    RDIFF = "rdiff_image"
    SHELLSCRIPT = "shellscript"


class Compression(StrEnum):
    """How a member is stored. SWUpdate's zlib is the gzip container with one member."""

    NONE = "none"
    ZLIB = "zlib"
    ZSTD = "zstd"


Properties = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class DeltaOrder:
    """What the delta handler is told: the whole `.zck` at `url`, and the device whose chunks are reused."""

    url: str
    source: str
    max_ranges: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An image or script. `sha256` is of the stored member, compressed as it is; `offset` is in bytes of `device`."""

    filename: str
    type: Handler
    sha256: Digest
    device: str = ""
    offset: int = 0
    compressed: Compression = Compression.NONE
    name: str = ""
    version: str = ""
    data: str = ""
    install_if_different: bool = False
    install_if_higher: bool = False
    installed_directly: bool = False
    properties: Properties = field(default_factory=lambda: MappingProxyType({}))
    delta: DeltaOrder | None = None
    base: str = ""
    """The device whose content an rdiff leads from."""


@dataclass(frozen=True, slots=True)
class BootVariable:
    """One line of the bootloader's environment; an empty `value` removes the variable."""

    name: str
    value: str


_IMAGE_KEYS = frozenset(
    {
        "filename",
        "type",
        "device",
        "offset",
        "compressed",
        "sha256",
        "name",
        "version",
        "install-if-different",
        "install-if-higher",
        "installed-directly",
        "properties",
        "encrypted",
    }
)
_SCRIPT_KEYS = frozenset({"filename", "type", "data", "sha256", "name", "version", "properties", "encrypted"})
_VARIABLE_KEYS = frozenset({"name", "value"})


class EntryReader:
    """Reads the attributes of one group. Errors: `DescriptionError`, `UnsupportedError`; messages begin with `where`."""

    def __init__(self, where: str, group: Mapping[str, object], syntax: Syntax) -> None:
        self._where = where
        self._group = group
        self._syntax = syntax

    def image(self) -> Entry:
        """The group as an image: raw, delta or rdiff, always with the device that it is written to."""
        self._refuse_unknown(_IMAGE_KEYS)
        handler = self._handler(Handler.RAW if "device" in self._group else None, {Handler.RAW, Handler.DELTA, Handler.RDIFF})
        properties = self._properties()
        entry = Entry(
            filename=self.filename(),
            type=handler,
            sha256=self.sha256(),
            device=self._text("device"),
            offset=self._offset(),
            compressed=self._compressed(),
            name=self._text("name"),
            version=self._text("version"),
            install_if_different=self._flag("install-if-different"),
            install_if_higher=self._flag("install-if-higher"),
            installed_directly=self._flag("installed-directly"),
            properties=properties,
            delta=self._delta(properties) if handler is Handler.DELTA else None,
            base=self._base(properties) if handler is Handler.RDIFF else "",
        )
        self._check_image(entry)
        return entry

    def script(self) -> Entry:
        """The group as a script; SWUpdate's default type, Lua, is not supported."""
        self._refuse_unknown(_SCRIPT_KEYS)
        return Entry(
            filename=self.filename(),
            type=self._handler(None, {Handler.SHELLSCRIPT}),
            sha256=self.sha256(),
            name=self._text("name"),
            version=self._text("version"),
            data=self._text("data"),
            properties=self._properties(),
        )

    def variable(self) -> BootVariable:
        """The group as a variable of the bootloader."""
        if "filename" in self._group:
            raise UnsupportedError(f"{self._where} in sw-description is a script for the bootloader; list the variables instead")
        self._refuse_unknown(_VARIABLE_KEYS)
        name, value = self._text("name"), self._text("value")
        if not _VARIABLE.fullmatch(name) or "value" not in self._group:
            raise self._error(f"needs a name without spaces or '=' and a value, got {name[:80]!r}")
        return BootVariable(name, value)

    def filename(self) -> str:
        """The member's name, one that an archive may hold."""
        name = self._text("filename")
        if not name:
            raise self._error("names no file")
        return check_member_name(name)

    def sha256(self) -> Digest:
        """The stored member's hash, without which nothing is verified."""
        text = self._text("sha256")
        if not _SHA256.fullmatch(text):
            raise self._error("needs sha256, 64 hexadecimal digits, of the member as it is stored")
        return Digest(text.lower())

    def _error(self, what: str) -> DescriptionError:
        return DescriptionError(f"{self._where} in sw-description {what}")

    def _refuse_unknown(self, known: frozenset[str]) -> None:
        unknown = sorted(self._group.keys() - known)
        if unknown:
            raise UnsupportedError(
                f"{self._where} in sw-description has the attribute {unknown[0][:80]!r}, which is not supported"
            )
        if self._group.get("encrypted", False) is not False:
            raise UnsupportedError(
                f"{self._where} in sw-description is encrypted, which is not supported; deliver it in the clear"
            )

    def _text(self, key: str) -> str:
        value = self._group.get(key, "")
        if not isinstance(value, str):
            raise self._error(f"has {key} = {_shown(value)}, which must be a text; SWUpdate would ignore it silently")
        return check_text(value, f"{self._where} in sw-description: {key}", MAX_TEXT)

    def _flag(self, key: str) -> bool:
        value = self._group.get(key, False)
        if not isinstance(value, bool):
            raise self._error(f"has {key} = {_shown(value)}, which must be true or false; SWUpdate would ignore it silently")
        return value

    def _handler(self, default: Handler | None, allowed: set[Handler]) -> Handler:
        text = self._text("type") or default or ""
        if text not in allowed:
            raise UnsupportedError(
                f"{self._where} in sw-description needs the handler {str(text) or '(SWUpdate default)'!r}; "
                f"supported here: {', '.join(sorted(allowed))}"
            )
        return Handler(text)

    def _offset(self) -> int:
        value = self._group.get("offset", 0)
        if isinstance(value, str):
            return self._offset_text(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._error(f"has offset = {_shown(value)}, which must be a number of bytes from 0")
        maximum = MAX_JSON_OFFSET_BYTES if self._syntax is Syntax.JSON else MAX_OFFSET_BYTES
        if value > maximum:
            raise self._error(f"has offset = {_shown(value)}; SWUpdate reads at most {maximum} from {self._syntax}")
        return value

    def _offset_text(self, text: str) -> int:
        if self._syntax is Syntax.JSON:
            raise self._error(f"has offset = {text[:80]!r} as a JSON text, which SWUpdate misreads; write a number of bytes")
        match = _OFFSET.fullmatch(text)
        offset = int(match[1], 0) << _SHIFT[match[2]] if match else -1
        if not 0 <= offset <= MAX_OFFSET_BYTES:
            raise self._error(f"has offset = {text[:80]!r}, which must be a number of bytes, or one with K, M or G")
        return offset

    def _compressed(self) -> Compression:
        value = self._group.get("compressed", False)
        if value is True or value == "zlib":
            return Compression.ZLIB
        if value is False:
            return Compression.NONE
        if value == "zstd":
            return Compression.ZSTD
        raise self._error(f"has compressed = {_shown(value)}; known are 'zlib', 'zstd' and true (zlib)")

    def _properties(self) -> Properties:
        value = self._group.get("properties", {})
        if not isinstance(value, Mapping) or len(value) > MAX_PROPERTIES:
            raise self._error(f"needs a group of at most {MAX_PROPERTIES} settings as properties")
        return MappingProxyType({key: self._property(key, value[key]) for key in value})

    def _property(self, key: str, value: object) -> str | tuple[str, ...]:
        where = f"{self._where} in sw-description: property {key[:80]!r}"
        if isinstance(value, str):
            return check_text(value, where, MAX_PROPERTY_TEXT)
        if isinstance(value, Sequence) and is_sequence(value) and all(isinstance(each, str) for each in value):
            return tuple(check_text(str(each), where, MAX_PROPERTY_TEXT) for each in value[: MAX_PROPERTIES + 1])
        raise DescriptionError(f"{where} = {_shown(value)} must be a text or a list of texts; SWUpdate would drop it silently")

    def _delta(self, properties: Properties) -> DeltaOrder:
        url, source = self._one(properties, "url"), self._one(properties, "source")
        ranges, chain = self._one(properties, "max-ranges", "150"), self._one(properties, "chain", "raw")
        if not _URL.fullmatch(url):
            raise self._error(f"has the delta url {url[:120]!r}; it must be http:// or https:// with a host and a path")
        if not source:
            raise self._error("names no source device to take chunks from")
        if not _COUNT.fullmatch(ranges) or self._one(properties, "zckloglevel", "none") not in _LOG_LEVELS:
            raise self._error(f"has max-ranges = {ranges[:20]!r} or a zckloglevel that does not exist")
        if chain != Handler.RAW:
            raise UnsupportedError(f"{self._where} in sw-description chains delta to {chain[:20]!r}; only 'raw' is supported")
        return DeltaOrder(url, source, int(ranges))

    def _base(self, properties: Properties) -> str:
        base = self._one(properties, "rdiffbase")
        if not base:
            raise self._error("is an rdiff and names no rdiffbase that it leads from")
        return base

    def _one(self, properties: Properties, key: str, default: str = "") -> str:
        value = properties.get(key, default)
        if isinstance(value, str):
            return value
        if len(value) != 1:
            raise self._error(f"has {len(value)} values for the property {key!r}; one is needed")
        return value[0]

    def _check_image(self, entry: Entry) -> None:
        if not entry.device:
            raise self._error("names no device to be written to")
        if entry.type is Handler.DELTA and (entry.installed_directly or entry.compressed is not Compression.NONE or entry.offset):
            raise self._error("is a delta, which can be neither installed-directly nor compressed nor at an offset")
        if entry.type is Handler.RDIFF and (entry.offset or entry.base == entry.device):
            raise self._error("is an rdiff, which is neither at an offset nor written to the device that it leads from")
        if (entry.install_if_different or entry.install_if_higher) and not (entry.name and entry.version):
            raise self._error("is installed only for a certain version, so it needs a name and a version")


def check_text(text: str, what: str, maximum: int) -> str:
    """Return `text` if it is printable and has at most `maximum` bytes, else `DescriptionError` beginning with `what`."""
    if not text.isprintable():
        raise DescriptionError(f"{what} holds characters that are not printable: {text[:80]!r}")
    if len(text.encode("utf-8")) > maximum:
        raise DescriptionError(f"{what} is longer than {maximum} bytes; SWUpdate would cut it")
    return text


def _shown(value: object) -> str:
    """A value for a message, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:80] if isinstance(value, bool | int | float | str) or value is None else f"a {type(value).__name__}"
