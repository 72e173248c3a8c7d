"""The fields zchunk headers are made of: compressed integers, hash types, compression types (zchunk_format.txt, 1.2.3).

A compressed integer is little-endian base 128 with the stop bit 0x80 on its *last* byte: the opposite of LEB128.
Hash types are those of libzck: 0 sha1, 1 sha256, 2 sha512, 3 the first 16 bytes of sha512.
"""

import hashlib
from enum import IntEnum
from typing import Final

from update.errors import ChunkError, LimitError

MAX_INTEGER_BYTES: Final = 10
_INTEGER_LIMIT: Final = 1 << 63


class HashType(IntEnum):
    """How digests of a header are made."""

    SHA1 = 0
    SHA256 = 1
    SHA512 = 2
    SHA512_128 = 3

    @property
    def size(self) -> int:
        """Length of a digest in bytes."""
        return _DIGEST_BYTES[self]

    def state(self) -> "hashlib._Hash":
        """A running hash; its digest is to be cut to `size`."""
        return hashlib.new(_ALGORITHMS[self], usedforsecurity=self is not HashType.SHA1)

    def digest(self, *parts: bytes | memoryview) -> bytes:
        """Digest of the concatenated parts."""
        state = self.state()
        for part in parts:
            state.update(part)
        return state.digest()[: self.size]


_DIGEST_BYTES: Final = {HashType.SHA1: 20, HashType.SHA256: 32, HashType.SHA512: 64, HashType.SHA512_128: 16}
_ALGORITHMS: Final = {
    HashType.SHA1: "sha1",
    HashType.SHA256: "sha256",
    HashType.SHA512: "sha512",
    HashType.SHA512_128: "sha512",
}


class Compression(IntEnum):
    """How each chunk is stored."""

    NONE = 0
    ZSTD = 2


def write_integer(value: int) -> bytes:
    """The compressed integer of `value` (0 <= value < 2**63)."""
    if not 0 <= value < _INTEGER_LIMIT:
        raise LimitError(f"a zchunk integer is 0 to 2**63 - 1: got {value}")
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F)
        value >>= 7
    encoded.append(value | 0x80)
    return bytes(encoded)


def read_integer(data: bytes | memoryview, position: int, end: int, what: str) -> tuple[int, int]:
    """The integer at `position` and the position after it; `what` names the field in a `ChunkError` or `LimitError`."""
    value = shift = 0
    for at in range(position, min(end, position + MAX_INTEGER_BYTES)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            if value >= _INTEGER_LIMIT:
                raise LimitError(f"zchunk header: {what} is {value}, the limit is 2**63 - 1")
            return value, at + 1
        shift += 7
    if end - position >= MAX_INTEGER_BYTES:
        raise ChunkError(f"zchunk header: {what} at byte {position} is longer than {MAX_INTEGER_BYTES} bytes")
    raise ChunkError(f"zchunk header: {what} at byte {position} runs past the end at byte {end}")


def hash_type(value: int, what: str) -> HashType:
    """The hash type numbered `value`; `ChunkError` for one libzck does not know."""
    try:
        return HashType(value)
    except ValueError as error:
        raise ChunkError(f"zchunk header: {what} is {value}, known are 0 (sha1) to 3 (sha512/128)") from error


def hash_of_length(digest: bytes) -> HashType:
    """The hash type whose digests are as long as `digest`: all four lengths differ."""
    for kind, size in _DIGEST_BYTES.items():
        if size == len(digest):
            return kind
    raise ChunkError(f"no zchunk digest has {len(digest)} bytes")
