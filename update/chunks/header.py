"""Builds zchunk headers: the inverse of `zchunk.parse_header`, in the one form that SWUpdate takes for deltas.

That form is `zck -u --chunk-hash-type sha256`: SHA-256 everywhere, digests of compressed and uncompressed data, no
dictionary, no optional elements, the data digest zeros. Entries are collected as bytes, about 70 for each chunk.
"""

from typing import Final

from update.chunks.fields import Compression, HashType, write_integer
from update.chunks.zchunk import MAGIC

_HASH: Final = HashType.SHA256
_UNCOMPRESSED_DIGESTS: Final = 4
_NO_DICTIONARY: Final = bytes(2 * _HASH.size) + write_integer(0) * 2
_NO_SIGNATURES: Final = write_integer(0)


class HeaderBuilder:
    """Collects the chunks of one file in their order, then gives its header."""

    def __init__(self, compression: Compression = Compression.ZSTD) -> None:
        self._compression = compression
        self._entries = bytearray(_NO_DICTIONARY)
        self._count = 1

    def add(self, *, compressed_digest: bytes, digest: bytes, length: int, size: int) -> None:
        """One chunk: both SHA-256 digests, bytes stored, bytes unpacked."""
        self._entries += compressed_digest + digest + write_integer(length) + write_integer(size)
        self._count += 1

    def build(self) -> bytes:
        """The whole header, from magic to signatures."""
        index = write_integer(_HASH) + write_integer(self._count) + self._entries
        preface = bytes(_HASH.size) + write_integer(_UNCOMPRESSED_DIGESTS) + write_integer(self._compression)
        rest = preface + write_integer(len(index)) + index + _NO_SIGNATURES
        lead = MAGIC + write_integer(_HASH) + write_integer(len(rest))
        return lead + _HASH.digest(lead, rest) + rest
