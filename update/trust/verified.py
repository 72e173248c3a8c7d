"""The proofs: values that exist only after something was verified, and the signed description of a target.

Store, servers and drivers accept these types and nothing else, so that holding one is the proof. `TargetInfo` is made by
`update.trust.client` from metadata whose signatures, versions and hashes were checked; `verify_target` turns it into a
`VerifiedTarget` once every byte of a file was read; `verify_chunk_index` proves a zchunk header against its signed digest,
which lets single chunks of an incomplete `.zck` be served and written.

The `custom` object of a target is free for the application (TUF 1.0, section 4.5); Fieldrelay's holds:

    {"hwIds": ["imx8:1", "imx8:#RE:^2[.]"], "version": "1.2.0", "releaseCounter": 12, "securityCounter": 3,
     "class": "security" | "function", "requires": {"bootloader": ">=2.0"}, "zckHeader": {"sha256": "…", "length": 4711},
     "deltaOf": "os/plant-1.2.0.swu", "deltaFrom": "…", "plan": "press-line"}

`deltaOf` is the path of the bundle that brings the same release whole: whoever may offer one may offer the other.
`deltaFrom` is the SHA-256 of a bundle: only on a device that runs what it brought may this one be installed, because it
leads from there and cannot tell (SWUpdate's `rdiff_image`).
`plan` is the name of a release plan: the target is one (`update.plans`), and no bundle.
Every key may be absent; a key that is present must be of its type; unknown keys are ignored, so that an older release reads
what a newer one publishes.
"""

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from update.chunks.zchunk import HeaderIndex, parse_header
from update.digest import Digest, digest_file, digest_of, parse_digest
from update.errors import LengthOrHashError, MetadataError

MAX_COUNTER = 2**31 - 1
"""Counters fit the 32 bits of a microcontroller's security counter, sign excluded."""
MAX_HARDWARE_IDS = 256
MAX_REQUIREMENTS = 64
MAX_TEXT_CHARACTERS = 300
MAX_LENGTH_BYTES = 2**53 - 1
"""Lengths stay exact in every JSON reader."""

_PRINTABLE = re.compile(r"[\x20-\x7e]+", re.ASCII)
_PATH_COMPONENT = re.compile(r"[A-Za-z0-9_+=@,~-][A-Za-z0-9._+=@,~-]{0,199}", re.ASCII)


class Provenance(StrEnum):
    """The stronger proof first: TUF adds freshness, thresholds and rotation to a bundle's own CMS signature."""

    TUF = "tuf"
    CMS = "cms"


class UpdateClass(StrEnum):
    """Why a release exists: policy may install security updates sooner than new functions."""

    SECURITY = "security"
    FUNCTION = "function"


@dataclass(frozen=True, slots=True)
class ZckHeader:
    """What pins a zchunk header: SHA-256 and length in bytes of the whole header (lead included) at the front of the `.zck`."""

    sha256: Digest
    length: int


@dataclass(frozen=True, slots=True)
class Requirement:
    """A version requirement on another device or part, e.g. `bootloader`, `>=2.0`; whoever plans a release evaluates it."""

    name: str
    constraint: str


@dataclass(frozen=True, slots=True)
class TargetCustom:
    """The signed properties of a target; the defaults stand for absent keys and admit the target to no device."""

    hw_ids: tuple[str, ...] = ()
    version: str = ""
    release_counter: int = 0
    security_counter: int = 0
    update_class: UpdateClass = UpdateClass.FUNCTION
    requires: tuple[Requirement, ...] = ()
    zck_header: ZckHeader | None = None
    delta_of: str = ""
    delta_from: Digest | None = None
    plan: str = ""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the `custom` object (None: absent); `MetadataError` names the key that is not of its type."""
        fields = {} if value is None else _mapping(value, "custom")
        return cls(
            hw_ids=_hardware_ids(fields.get("hwIds", [])),
            version=_text(fields["version"], "version") if "version" in fields else "",
            release_counter=_number(fields.get("releaseCounter", 0), "releaseCounter", MAX_COUNTER),
            security_counter=_number(fields.get("securityCounter", 0), "securityCounter", MAX_COUNTER),
            update_class=_update_class(fields.get("class", UpdateClass.FUNCTION)),
            requires=_requirements(fields.get("requires", {})),
            zck_header=_zck_header(fields["zckHeader"]) if "zckHeader" in fields else None,
            delta_of=_delta_of(fields["deltaOf"]) if "deltaOf" in fields else "",
            delta_from=_delta_from(fields["deltaFrom"]) if "deltaFrom" in fields else None,
            plan=_text(fields["plan"], "plan") if "plan" in fields else "",
        )

    def as_json(self) -> dict[str, object]:
        """The `custom` object for a publisher; `parse` is its inverse."""
        fields: dict[str, object] = {
            "hwIds": list(self.hw_ids),
            "version": self.version,
            "releaseCounter": self.release_counter,
            "securityCounter": self.security_counter,
            "class": self.update_class.value,
            "requires": {each.name: each.constraint for each in self.requires},
        }
        if not self.version:
            del fields["version"]
        if self.zck_header is not None:
            fields["zckHeader"] = {"sha256": self.zck_header.sha256, "length": self.zck_header.length}
        if self.delta_of:
            fields["deltaOf"] = self.delta_of
        if self.delta_from is not None:
            fields["deltaFrom"] = self.delta_from
        if self.plan:
            fields["plan"] = self.plan
        return fields


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What verified metadata says of one target; `path` is the name in the metadata, `length` in bytes."""

    repository: str
    path: str
    length: int
    sha256: Digest
    custom: TargetCustom
    role: str
    prefixed: bool = True

    @property
    def base_name(self) -> str:
        """The last component of `path`."""
        return self.path.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """`<sha256>.<basename>`: the file's name in a repository with consistent snapshots (TUF 1.0, section 6.2)."""
        return f"{self.sha256}.{self.base_name}"

    @property
    def wire_path(self) -> str:
        """`targets/<folder>/<sha256>.<basename>`, relative to the repository; needs no quoting (`check_target_path`).

        Only a foreign repository without consistent snapshots (`prefixed` false) serves the plain path.
        """
        folder, slash, _ = self.path.rpartition("/")
        if not self.prefixed:
            return f"targets/{self.path}"
        return f"targets/{folder}{slash}{self.file_name}"


@dataclass(frozen=True, slots=True)
class VerifiedTarget:
    """A file whose complete content is what `info` promises."""

    info: TargetInfo
    file: Path


@dataclass(frozen=True, slots=True)
class VerifiedChunkIndex:
    """A zchunk header proved against the digest that was signed; `sha256` is of the header bytes, `source` is for messages."""

    header: HeaderIndex
    sha256: Digest
    provenance: Provenance
    source: str = ""


def check_target_path(path: str) -> str:
    """Return `path` if every component is a plain file name.

    At most 16 components of 200 characters of `A-Za-z0-9._+=@,~-`, none beginning with a dot: such a path means the same in
    a URL, on any file system and in TUF's patterns. `MetadataError` otherwise.
    """
    parts = path.split("/")
    if len(parts) > 16 or not all(_PATH_COMPONENT.fullmatch(part) for part in parts):
        raise MetadataError(
            f"target path {path[:120]!r} is refused: up to 16 components of letters, digits and '._+=@,~-', none beginning with "
            "a dot; publish the target under a plain name"
        )
    return path


def verify_target(info: TargetInfo, file: Path) -> VerifiedTarget:
    """Read `file` completely and compare it with the signed length (bytes) and SHA-256; `LengthOrHashError` otherwise.

    The length is compared before anything is read; a symbolic link or device is refused.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise LengthOrHashError(f"{file} is not a regular file; cannot verify {info.path} from it")
        _compare(info, "length", info.length, status.st_size)
        sha256, length = digest_file(file)
    except OSError as error:
        raise LengthOrHashError(f"cannot read {file} to verify {info.path}: {error.strerror or error}") from error
    _compare(info, "length", info.length, length)
    _compare(info, "SHA-256", info.sha256, sha256)
    return VerifiedTarget(info, file)


def verify_chunk_index(raw: bytes, *, sha256: Digest, provenance: Provenance, source: str = "") -> VerifiedChunkIndex:
    """Prove header bytes against the signed digest, then parse them; `LengthOrHashError`, `ChunkError`, `LimitError`.

    `sha256` comes from verified metadata (`ZckHeader.sha256`) or from a verified bundle description.
    """
    found = digest_of(raw)
    if found != sha256:
        raise LengthOrHashError(
            f"zchunk header of {source or 'a target'}: signed SHA-256 {sha256}, found {found}; fetch it again"
        )
    return VerifiedChunkIndex(parse_header(raw), sha256, provenance, source)


def _compare(info: TargetInfo, what: str, signed: object, found: object) -> None:
    if signed != found:
        raise LengthOrHashError(
            f"{info.path} of repository {info.repository}: signed {what} {signed}, found {found}; fetch it again"
        )


def _mapping(value: object, key: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise MetadataError(f"custom metadata: {key} must be an object, is {type(value).__name__}")
    return value


def _number(value: object, key: str, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        shown = value if isinstance(value, int) and abs(value) <= 2**64 else type(value).__name__
        raise MetadataError(f"custom metadata: {key} must be an integer from 0 to {maximum}, is {shown}")
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or not _PRINTABLE.fullmatch(value):
        raise MetadataError(f"custom metadata: {key} must be 1 to {MAX_TEXT_CHARACTERS} printable ASCII characters")
    return value


def _hardware_ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_HARDWARE_IDS:
        raise MetadataError(f"custom metadata: hwIds must be a list of at most {MAX_HARDWARE_IDS} texts")
    identifiers = tuple(_text(each, "hwIds") for each in value)
    for identifier in identifiers:
        board, _, revision = identifier.partition(":")
        if not board or not revision:
            raise MetadataError(f"custom metadata: hwIds are written 'board:revision', got {identifier!r}")
    return identifiers


def _update_class(value: object) -> UpdateClass:
    if value not in list(UpdateClass):
        raise MetadataError(f"custom metadata: class must be 'security' or 'function', is {str(value)[:40]!r}")
    return UpdateClass(str(value))


def _requirements(value: object) -> tuple[Requirement, ...]:
    fields = _mapping(value, "requires")
    if len(fields) > MAX_REQUIREMENTS:
        raise MetadataError(f"custom metadata: requires has {len(fields)} entries, at most {MAX_REQUIREMENTS} are read")
    return tuple(Requirement(_text(name, "requires"), _text(fields[name], f"requires.{name[:40]}")) for name in sorted(fields))


def _delta_of(value: object) -> str:
    try:
        return check_target_path(_text(value, "deltaOf"))
    except MetadataError as error:
        raise MetadataError(f"custom metadata: deltaOf must be the path of a target: {error}") from error


def _delta_from(value: object) -> Digest:
    if not isinstance(value, str):
        raise MetadataError("custom metadata: deltaFrom must be a text of 64 hexadecimal digits")
    return parse_digest(value)


def _zck_header(value: object) -> ZckHeader:
    fields = _mapping(value, "zckHeader")
    sha256, length = fields.get("sha256"), fields.get("length")
    if not isinstance(sha256, str):
        raise MetadataError("custom metadata: zckHeader.sha256 must be a text of 64 hexadecimal digits")
    return ZckHeader(parse_digest(sha256), _number(length, "zckHeader.length", MAX_LENGTH_BYTES))
