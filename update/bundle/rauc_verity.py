"""dm-verity's hash tree of a RAUC bundle, built again from the payload and compared with what was signed and what is stored.

The tree is that of dm-verity version 1 (Linux, admin-guide/device-mapper/verity): SHA-256, blocks of 4096 bytes for data and
hashes, the salt before each block, no superblock, 128 digests in a block, the last one of a level filled with zeros, the
levels stored from the top. RAUC gives the tree to the kernel, which checks only what it reads, while it writes; here all of
it is read before anybody is told of the bundle.

Memory: one block for each level of the tree and 512 KiB of payload, whatever the size. A bundle of one block has no tree,
and RAUC makes none.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from update.bundle.rauc_layout import BLOCK_BYTES
from update.bundle.rauc_manifest import VerityPin
from update.digest import Digest
from update.errors import ContainerError, HashMismatchError

_DIGEST_BYTES = 32
_PER_BLOCK = BLOCK_BYTES // _DIGEST_BYTES
_RUN_BYTES = _PER_BLOCK * BLOCK_BYTES


def tree_bytes(payload_bytes: int) -> int:
    """The size of the tree of a payload of whole blocks, at least two."""
    return sum(count * BLOCK_BYTES for count in _level_blocks(payload_bytes))


def verify_tree(stream: BinaryIO, content_bytes: int, pin: VerityPin) -> int:
    """Read payload and tree, the first `content_bytes` of `stream`; the size of the payload, in bytes.

    Errors: `ContainerError` where the signed size of the tree fits no payload, `HashMismatchError` for any changed byte.
    """
    payload_bytes = content_bytes - pin.tree_bytes
    if payload_bytes <= BLOCK_BYTES or payload_bytes % BLOCK_BYTES:
        raise ContainerError(f"of {content_bytes} bytes, {pin.tree_bytes} are said to be the hash tree: no payload is left")
    if tree_bytes(payload_bytes) != pin.tree_bytes:
        raise ContainerError(
            f"the hash tree of {payload_bytes} bytes has {tree_bytes(payload_bytes)}, the signed manifest says {pin.tree_bytes}; "
            "the bundle is cut, or was signed again by a RAUC that kept the old tree inside"
        )
    stream.seek(0)
    tree = _Tree(stream, payload_bytes, pin.salt)
    root = tree.build()
    _compare(root, pin, tree)
    return payload_bytes


def _compare(root: Digest, pin: VerityPin, tree: "_Tree") -> None:
    where = ""
    if tree.first_difference is not None:
        begin = tree.first_difference * _RUN_BYTES
        where = f"; what is stored and what is computed first differ for bytes {begin} to {begin + _RUN_BYTES - 1}"
    if root != pin.root:
        raise HashMismatchError(
            f"the payload has the dm-verity root {root}, the signed manifest says {pin.root}{where}; fetch it again"
        )
    if tree.differs:
        raise HashMismatchError(f"the payload is as signed, the hash tree behind it is not{where}; fetch it again")


def _level_blocks(payload_bytes: int) -> Iterator[int]:
    """How many blocks each level has, from the lowest."""
    count = payload_bytes // BLOCK_BYTES
    while count > 1:
        count = -(-count // _PER_BLOCK)
        yield count


class _Tree:
    """One pass over the payload, in which every level's block is compared with the stored one as soon as it is full."""

    def __init__(self, stream: BinaryIO, payload_bytes: int, salt: bytes) -> None:
        self._stream = stream
        self._payload_bytes = payload_bytes
        self._salted = hashlib.sha256(salt)
        counts = tuple(_level_blocks(payload_bytes))
        self._pending: list[bytearray] = [bytearray() for _ in counts]
        self._written = [0] * len(counts)
        self._offsets = [payload_bytes + sum(counts[level + 1 :]) * BLOCK_BYTES for level in range(len(counts))]
        self.differs = False
        self.first_difference: int | None = None

    def build(self) -> Digest:
        """The root of the payload."""
        for run in self._runs():
            self._pending[0] += b"".join([self._hash(run[at : at + BLOCK_BYTES]) for at in range(0, len(run), BLOCK_BYTES)])
            self._carry(0)
        root = b""
        for level, pending in enumerate(self._pending):
            if pending:
                root = self._close(level)
        return Digest(root.hex())

    def _runs(self) -> Iterator[memoryview]:
        """The payload, as much at a time as one block of the lowest level covers."""
        done = 0
        while done < self._payload_bytes:
            self._stream.seek(done)
            run = self._stream.read(min(_RUN_BYTES, self._payload_bytes - done))
            if len(run) % BLOCK_BYTES or not run:
                raise ContainerError("the bundle became shorter while it was verified; fetch it again")
            yield memoryview(run)
            done += len(run)

    def _hash(self, block: bytes | memoryview) -> bytes:
        state = self._salted.copy()
        state.update(block)
        return state.digest()

    def _carry(self, level: int) -> None:
        """Close full blocks, from `level` upwards; the top one is closed at the end."""
        while level + 1 < len(self._pending) and len(self._pending[level]) == BLOCK_BYTES:
            self._close(level)
            level += 1

    def _close(self, level: int) -> bytes:
        """Compare a block with the stored one and hand its digest to the level above."""
        block = bytes(self._pending[level]).ljust(BLOCK_BYTES, b"\0")
        number = self._written[level]
        self._stream.seek(self._offsets[level] + number * BLOCK_BYTES)
        if self._stream.read(BLOCK_BYTES) != block:
            self.differs = True
            if level == 0 and self.first_difference is None:
                self.first_difference = number
        self._written[level] += 1
        self._pending[level].clear()
        digest = self._hash(block)
        if level + 1 < len(self._pending):
            self._pending[level + 1] += digest
        return digest
