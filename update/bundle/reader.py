"""Verify a `.swu` before anything in it is believed, and read verified members.

The order of SWUpdate is demanded: `sw-description`, then `sw-description.sig`, then the members. The signature is checked
before the description is parsed, the description names every member's hash, and each member is hashed as it is read: a
member that is missing, changed or named nowhere refuses the whole. Verification writes nothing.

A member is hashed a second time when it is read for a device, so that a file that changed since is noticed before its
last bytes are handed out.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from update.bundle.cms import CmsPolicy, verify
from update.bundle.cms_structure import MAX_SIGNATURE_BYTES
from update.bundle.cpio import ArchiveReader, Header, Readable
from update.bundle.description import Description, parse
from update.bundle.entries import Compression, Entry
from update.bundle.payload import BoundedPayload, unpack
from update.bundle.syntax import MAX_BYTES
from update.bundle.verified import Member, VerifiedBundle
from update.digest import Digest, digest_of
from update.errors import (
    CompressionError,
    ContainerError,
    HashMismatchError,
    LengthOrHashError,
    LimitError,
    MissingMemberError,
    ProvenanceError,
    StoreError,
)
from update.trust.verified import Provenance, TargetInfo

DESCRIPTION: Final = "sw-description"
SIGNATURE: Final = "sw-description.sig"
SIZE_PROPERTY: Final = "decompressed-size"
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Front:
    """The first two members of a bundle. Nothing of it is verified: fit to be shown, or signed once more."""

    description: bytes
    signature: bytes


def verify_bundle(
    file: Path, cms: CmsPolicy, *, provenance: Provenance = Provenance.CMS, target: TargetInfo | None = None
) -> VerifiedBundle:
    """Read `file` completely and prove it. `target`: what TUF metadata said of this very file, which its caller verified.

    Errors: `ContainerError`, `LimitError`, `MissingMemberError`, `HashMismatchError`, `DescriptionError` for the file;
    `SignatureError`, `CertificateError`, `ThresholdError` for the signature; `ProvenanceError` for a claim without proof.
    """
    _check_claim(file, provenance, target)
    with _opened(file) as stream:
        archive = ArchiveReader(stream)
        headers = iter(archive)
        front = _read_front(archive, headers)
        signers = verify(front.description, front.signature, cms)
        description = parse(front.description)
        members = _read_members(archive, headers, description)
    return VerifiedBundle(
        file=file,
        description=description,
        digest=digest_of(front.description),
        signers=signers,
        provenance=provenance,
        members=MappingProxyType(members),
        target=target,
    )


def read_front(file: Path) -> Front:
    """The description and its signature as they stand in `file`, unverified."""
    with _opened(file) as stream:
        archive = ArchiveReader(stream)
        return _read_front(archive, iter(archive))


def locate_members(file: Path) -> dict[str, Header]:
    """Where every member of `file` is, unverified."""
    with _opened(file) as stream:
        return {header.name: header for header in ArchiveReader(stream)}


class MemberStream:
    """The stored bytes of one member, once, front to back; `HashMismatchError` or `ContainerError` instead of a wrong end."""

    def __init__(self, stream: Readable, member: Member) -> None:
        """`stream` stands at the member's first byte."""
        self._stream = stream
        self._member = member
        self._left = member.size
        self._state = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end. The last bytes are handed out only if all together were right."""
        data = self._stream.read(min(size, self._left))
        if self._left and size and not data:
            raise ContainerError(
                f"the bundle became shorter since it was verified: {self._member.name!r} is cut; verify it again"
            )
        self._left -= len(data)
        self._state.update(data)
        if self._left == 0:
            _compare(self._member.name, self._member.sha256, Digest(self._state.hexdigest()))
        return data


@contextmanager
def open_member(bundle: VerifiedBundle, name: str) -> Iterator[MemberStream]:
    """The stored bytes of the member `name`, hashed again as they are read; `MissingMemberError` if there is none."""
    member = bundle.members.get(name)
    if member is None:
        raise MissingMemberError(f"the bundle {bundle.file} holds no member {name!r}")
    with _opened(bundle.file) as stream:
        stream.seek(member.offset)
        yield MemberStream(stream, member)


@contextmanager
def open_payload(bundle: VerifiedBundle, entry: Entry, *, max_bytes: int) -> Iterator[BoundedPayload]:
    """The unpacked content of `entry`, at most `max_bytes` (the room on its device) and what the entry announces.

    Errors besides those of `open_member`: `CompressionError`.
    """
    announced = announced_bytes(entry)
    with open_member(bundle, entry.filename) as stream:
        yield unpack(stream, entry.compressed, name=entry.filename, max_bytes=max_bytes, announced=announced)


def announced_bytes(entry: Entry) -> int | None:
    """How many bytes `entry` unpacks to, where its signed description says so (property `decompressed-size`)."""
    text = entry.properties.get(SIZE_PROPERTY, "")
    if entry.compressed is Compression.NONE or not text:
        return None
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 15:
        raise CompressionError(f"{entry.filename} announces {str(text)[:40]!r} bytes; it must be one decimal number")
    return int(text)


def _check_claim(file: Path, provenance: Provenance, target: TargetInfo | None) -> None:
    if (provenance is Provenance.TUF) != (target is not None):
        raise ProvenanceError(f"provenance {provenance} of {file} and the presence of TUF metadata do not fit together")
    if target is not None and file.is_file() and file.stat().st_size != target.length:
        raise LengthOrHashError(f"{file} has {file.stat().st_size} bytes, the metadata of {target.path} says {target.length}")


@contextmanager
def _opened(file: Path) -> Iterator["_File"]:
    try:
        stream = file.open("rb", buffering=_READ_BYTES)
    except OSError as error:
        raise StoreError(f"cannot open the bundle {file}: {error.strerror or error}") from error
    with stream:
        yield _File(file, stream)


class _File:
    """The bundle's file, whose failures to read have a name."""

    def __init__(self, file: Path, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream

    def seek(self, offset: int) -> None:
        self._stream.seek(offset)

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise StoreError(f"cannot read the bundle {self._file}: {error.strerror or error}") from error


def _read_front(archive: ArchiveReader, headers: Iterator[Header]) -> Front:
    description = _read_small(archive, headers, DESCRIPTION, MAX_BYTES)
    return Front(description, _read_small(archive, headers, SIGNATURE, MAX_SIGNATURE_BYTES))


def _read_small(archive: ArchiveReader, headers: Iterator[Header], name: str, maximum: int) -> bytes:
    header = next(headers, None)
    if header is None or header.name != name:
        found = header.name if header else "the end"
        raise ContainerError(f"a bundle begins with {DESCRIPTION} and {SIGNATURE}; found {found!r} instead of {name}")
    if header.size > maximum:
        raise LimitError(f"{name} is {header.size} bytes long; at most {maximum} are read")
    return b"".join(iter(archive.read, b""))


def _read_members(archive: ArchiveReader, headers: Iterator[Header], description: Description) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for header in headers:
        listed = description.members.get(header.name)
        if listed is None:
            raise MissingMemberError(f"the bundle holds {header.name!r}, which its description does not name; build it again")
        _compare(header.name, listed, _hash(archive))
        members[header.name] = Member(header.name, header.offset, header.size, listed)
    missing = sorted(description.members.keys() - members.keys())
    if missing:
        raise MissingMemberError(f"the bundle lacks {missing[0]!r}, which its description names; build it again")
    return members


def _hash(source: Readable) -> Digest:
    state = hashlib.sha256()
    while block := source.read(_READ_BYTES):
        state.update(block)
    return Digest(state.hexdigest())


def _compare(name: str, signed: Digest, found: Digest) -> None:
    if signed != found:
        raise HashMismatchError(f"member {name!r} has the SHA-256 {found}, its signed description says {signed}; fetch it again")
