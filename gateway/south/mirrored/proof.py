"""Compares a fetched file with the digest in its name, before anything is kept.

A casync chunk is named by the digest of its *unpacked* bytes; the index says whether by SHA-512/256 (casync's and desync's
default) or SHA-256, the chunk does not. Both are tried: whoever could forge one of them had broken it. Chunks are packed
with zstd, xz or gzip, known by their first bytes. Everything is unpacked piece by piece, under a limit.
"""

import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, assert_never

import zstandard

from gateway.south.mirrored.ostree import digest_of_filez
from gateway.south.mirrored.rules import Check, Proof
from update.errors import LengthOrHashError

MAX_CHUNK_BYTES: Final = 128 << 20
"""casync refuses larger chunks (`CA_CHUNK_SIZE_LIMIT_MAX`)."""
_BLOCK_BYTES: Final = 256 << 10


def check_file(proof: Proof, file: Path, *, max_bytes: int) -> None:
    """Read all of `file`. `LengthOrHashError` if it is not what `proof` says, or cannot be unpacked."""
    with file.open("rb") as opened:
        found = _digests(proof.check, opened, max_bytes)
    if proof.digest not in found:
        raise LengthOrHashError(
            f"what came has the {proof.check.value} digest {' or '.join(found)}, its name says {proof.digest}: not kept"
        )


def _digests(check: Check, file: BinaryIO, max_bytes: int) -> tuple[str, ...]:
    match check:
        case Check.SHA256 | Check.SHA512:
            return (_plain_digest(check.value, file),)
        case Check.OSTREE_FILE:
            return (digest_of_filez(file, max_bytes=max_bytes),)
        case Check.CASYNC_CHUNK:
            return _chunk_digests(file)
        case _:
            assert_never(check)


def _plain_digest(name: str, file: BinaryIO) -> str:
    state = hashlib.new(name)
    while block := file.read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()


def _chunk_digests(file: BinaryIO) -> tuple[str, ...]:
    states = [hashlib.new("sha512_256"), hashlib.sha256()]
    size = 0
    for piece in _unpacked(file):
        size += len(piece)
        if size > MAX_CHUNK_BYTES:
            raise LengthOrHashError(f"a chunk unpacks to more than {MAX_CHUNK_BYTES} bytes")
        for state in states:
            state.update(piece)
    return tuple(state.hexdigest() for state in states)


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    magic = file.read(6)
    file.seek(0)
    try:
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_CHUNK_BYTES)
            with decompressor.stream_reader(file, closefd=False) as reader:
                while piece := reader.read(_BLOCK_BYTES):
                    yield piece
        elif magic == b"\xfd7zXZ\x00":
            with lzma.LZMAFile(file) as xz:
                while piece := xz.read(_BLOCK_BYTES):
                    yield piece
        elif magic.startswith(b"\x1f\x8b"):
            yield from _gzip(file)
        else:
            raise LengthOrHashError(f"a chunk begins with {magic.hex()}: not zstd, xz or gzip")
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise LengthOrHashError(f"a chunk does not unpack: {error}") from error


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS + 16)
    while block := file.read(_BLOCK_BYTES):
        while block:
            yield unpacker.decompress(block, _BLOCK_BYTES)
            block = unpacker.unconsumed_tail
