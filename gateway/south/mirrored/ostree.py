"""The digest of an OSTree file object in the form in which an archive repository serves it (`.filez`).

The digest in the name is that of the *unpacked* object, so the packed file is turned into it piece by piece, without
keeping anything. The formats (ostree, `src/libostree/ostree-core.c` and `man ostree-repo`; GVariant serialisation):

- `.filez`: length of the header (u32, big-endian), 4 zero bytes, header `(tuuuusa(ay))` = content size, uid, gid, mode, 0,
  link target, extended attributes (numbers big-endian); then the content as a raw deflate stream.
- the object: length, 4 zero bytes, header `(uuuusa(ay))` = the same without the size; then the content.

So the header loses its first 8 bytes, and its framing offset (the end of the link target, little-endian, in the last bytes,
as wide as the whole header's size needs) moves down by 8.
"""

import hashlib
import zlib
from collections.abc import Callable
from typing import BinaryIO

from update.errors import LengthOrHashError

_MAX_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 20
_FIXED = 24  # t u u u u


def digest_of_filez(file: BinaryIO, *, max_bytes: int) -> str:
    """SHA-256 of the unpacked object, hexadecimal; `LengthOrHashError` if malformed, or larger than `max_bytes` unpacked."""
    start = file.read(8)
    length = int.from_bytes(start[:4], "big")
    if len(start) != 8 or start[4:] != bytes(4) or not _FIXED < length <= _MAX_HEADER_BYTES:
        raise LengthOrHashError("not an OSTree file: its header has no sensible length")
    header = file.read(length)
    if len(header) != length:
        raise LengthOrHashError(f"an OSTree file ends in its header, after {len(header)} of {length} bytes")
    size = int.from_bytes(header[:8], "big")
    if size > max_bytes:
        raise LengthOrHashError(f"an OSTree file unpacks to {size} bytes, at most {max_bytes} are accepted")
    plain = _without_size(header)
    state = hashlib.sha256(len(plain).to_bytes(4, "big") + bytes(4) + plain)
    count = _unpack(file, state.update, size)
    if count != size:
        raise LengthOrHashError(f"an OSTree file announces {size} bytes and holds {count}")
    return state.hexdigest()


def _without_size(header: bytes) -> bytes:
    """The header of the object; see the module."""
    width = _offset_width(len(header))
    end_of_target = int.from_bytes(header[-width:], "little") - 8
    body = header[8:-width]
    if not 16 < end_of_target <= len(body):
        raise LengthOrHashError("not an OSTree file: its header is not framed as it should be")
    for new in (1, 2, 4):
        if _offset_width(len(body) + new) == new:
            return body + end_of_target.to_bytes(new, "little")
    raise LengthOrHashError("not an OSTree file: its header cannot be framed")


def _offset_width(size: int) -> int:
    """How many bytes a framing offset takes in a container of `size` bytes (GVariant specification, section 2.3.6)."""
    return 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4


def _unpack(file: BinaryIO, take: Callable[[bytes], None], limit: int) -> int:
    """Hand the unpacked content to `take`; how much it was. A little more than `limit` at most, then it stops."""
    unpacker, count = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while count <= limit and (block := file.read(_BLOCK_BYTES)):
            while block and count <= limit:
                piece = unpacker.decompress(block, _BLOCK_BYTES)
                take(piece)
                count += len(piece)
                block = unpacker.unconsumed_tail
            if unpacker.unused_data:
                raise LengthOrHashError("an OSTree file goes on after its end")
    except zlib.error as error:
        raise LengthOrHashError(f"an OSTree file does not unpack: {error}") from error
    return count
