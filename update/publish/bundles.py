"""From a SPEC to a signed `.swu`, and to the `.zck` files that its deltas fetch from.

The same input gives the same bytes, up to the signature and the version of libzstd.

A delta's URL is `http://<repository>/targets/<sha256 of the .zck>.<image>-<version>.zck`: the name under which a repository
with consistent snapshots serves the target `<image>-<version>.zck` (TUF 1.0, section 6.2). The bundle holds the header of
the `.zck`, and the custom metadata of the target repeats the header's hash.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from update.bundle.cms_build import sign
from update.bundle.entries import Compression, Handler
from update.bundle.writer import Piece, write_bundle
from update.digest import Digest, digest_file, digest_of
from update.durable import Disk
from update.errors import StoreError, UsageError
from update.publish.describe import Stored, describe
from update.publish.images import encoder_name, write_zchunk
from update.publish.rdiffs import write_rdiff
from update.publish.spec import BundleSpec, ImageSpec
from update.trust.signers import ReleaseSigner
from update.trust.verified import ZckHeader, check_target_path

_ZSTD_LEVEL: Final = 9
_GZIP_LEVEL: Final = 6
_GZIP: Final = 31
_READ_BYTES: Final = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called with (name of the file being made, bytes done, bytes in all)."""


def _ignore(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class BuiltDelta:
    """A `.zck` beside the bundle, to be published as the target `file.name` with `header` in its custom metadata.

    `encoder` made its compressed bytes: whoever must make the very same file again needs that one.
    """

    image: str
    version: str
    file: Path
    sha256: Digest
    length: int
    header: ZckHeader
    encoder: str


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on disk; `deltas` must be published with it, or nobody can install it."""

    file: Path
    sha256: Digest
    length: int
    description: bytes
    deltas: tuple[BuiltDelta, ...]


def build_bundle(
    spec: BundleSpec, out: Path, signers: Sequence[ReleaseSigner], disk: Disk, *, progress: Progress = _ignore
) -> BuiltBundle:
    """Write the `.zck` files of `spec`, then `<name>-<version>.swu`, into the folder `out`.

    Errors: `UsageError` without a signer; `StoreError` for files that cannot be read or written, `CorruptError` or
    `HashMismatchError` for images that change meanwhile, `LimitError` for an image beyond the format.
    """
    if not signers:
        raise UsageError("a bundle without a signature is installed by nobody: name at least one signer")
    disk.make_folder(out)
    with tempfile.TemporaryDirectory(dir=out, prefix=".build-") as scratch:
        builder = _Builder(spec, out, Path(scratch), disk, progress)
        stored = builder.members()
        description = describe(spec, stored)
        builder.write(description, sign(description, signers), stored)
    file = out / spec.bundle.file_name
    sha256, length = digest_file(file)
    return BuiltBundle(file, sha256, length, description, tuple(builder.deltas))


def delta_url(repository: str, sha256: Digest, file_name: str) -> str:
    """Where stock clients fetch the chunks of a `.zck` from; the host is the stable name of the repository."""
    return f"http://{repository}/targets/{sha256}.{check_target_path(file_name)}"


class _Builder:
    """The state of one build."""

    def __init__(self, spec: BundleSpec, out: Path, scratch: Path, disk: Disk, progress: Progress) -> None:
        self._spec = spec
        self._out = out
        self._scratch = scratch
        self._disk = disk
        self._progress = progress
        self.deltas: list[BuiltDelta] = []

    def members(self) -> dict[str, Stored]:
        """Every member under its name, in the order of the archive: scripts first, since they are small."""
        stored = {script.member: _whole(script.file) for script in self._spec.scripts}
        for image in self._spec.images:
            stored[image.member] = self._stored(image)
        return stored

    def write(self, description: bytes, signature: bytes, stored: dict[str, Stored]) -> None:
        """Write the archive."""
        pieces = {name: each.piece for name, each in stored.items()}
        total = sum(piece.size or 0 for piece in pieces.values())
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done = min(done + size, total)
            self._progress(self._spec.bundle.file_name, done, total)

        write_bundle(self._out / self._spec.bundle.file_name, description, signature, pieces, self._disk, progress=count)

    def _stored(self, image: ImageSpec) -> Stored:
        if image.type is Handler.DELTA:
            return self._delta(image)
        return self._raw(image) if image.base is None else self._rdiff(image, image.base)

    def _rdiff(self, image: ImageSpec, base: Path) -> Stored:
        """A librsync delta from `base`, in one zstd frame: it is not compressed by itself."""
        packed = self._scratch / image.member
        unpacked = write_rdiff(base, image.file, packed)
        stored = _whole(packed)
        return Stored(stored.piece, stored.sha256, unpacked)

    def _delta(self, image: ImageSpec) -> Stored:
        version = image.version or self._spec.bundle.version
        file = self._out / check_target_path(f"{image.name}-{version}.zck")
        index = write_zchunk(image.file, file, self._disk, progress=lambda done, total: self._progress(file.name, done, total))
        header = ZckHeader(digest_of(index.raw), len(index.raw))
        sha256, length = digest_file(file)
        self.deltas.append(BuiltDelta(image.name, version, file, sha256, length, header, encoder_name()))
        url = delta_url(self._spec.bundle.repository, sha256, file.name)
        return Stored(Piece(file, 0, header.length), header.sha256, index.image_size, url)

    def _raw(self, image: ImageSpec) -> Stored:
        if image.compressed is Compression.NONE:
            return _whole(image.file)
        packed = self._scratch / image.member
        try:
            unpacked = image.file.stat().st_size
            with packed.open("wb") as target:
                for block in _packed(self._read(image.file, unpacked), image.compressed, unpacked):
                    target.write(block)
        except OSError as error:
            raise StoreError(f"cannot compress {image.file} into {packed}: {error.strerror or error}") from error
        except zstandard.ZstdError as error:
            raise StoreError(f"{image.file} changed while it was compressed: {error}; build again") from error
        stored = _whole(packed)
        return Stored(stored.piece, stored.sha256, unpacked)

    def _read(self, file: Path, total: int) -> Iterator[bytes]:
        done = 0
        with file.open("rb") as source:
            while block := source.read(_READ_BYTES):
                done += len(block)
                self._progress(file.name, done, total)
                yield block


def _packed(blocks: Iterator[bytes], compression: Compression, size: int) -> Iterator[bytes]:
    """One gzip member without a time or name, or one zstd frame with its content size."""
    if compression is Compression.ZSTD:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj(size=size)
        yield from (compressor.compress(block) for block in blocks)
        yield compressor.flush()
        return
    gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    yield from (gzip.compress(block) for block in blocks)
    yield gzip.flush()


def _whole(file: Path) -> Stored:
    try:
        sha256, length = digest_file(file)
    except OSError as error:
        raise StoreError(f"cannot read {file} for the bundle: {error.strerror or error}") from error
    return Stored(Piece(file, 0, length), sha256, length)
