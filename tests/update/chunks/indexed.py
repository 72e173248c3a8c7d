"""Images in memory with the index that zchunk would give them."""

import hashlib

from tests.update.chunks.edits import read_of
from update.chunks.chunker import cut_image
from update.chunks.fields import Compression
from update.chunks.header import HeaderBuilder
from update.chunks.patch_build import Image
from update.chunks.zchunk import parse_header


def indexed(data: bytes, *, piece: int = 0) -> Image:
    """Cut as zchunk cuts, or every `piece` bytes, and stored as it is."""
    parts = [data[at : at + piece] for at in range(0, len(data), piece)] if piece else []
    if not piece:
        parts = [bytes(part) for _, part in cut_image(read_of(data), len(data), workers=1)]
    builder = HeaderBuilder(Compression.NONE)
    for part in parts:
        digest = hashlib.sha256(part).digest()
        builder.add(compressed_digest=digest, digest=digest, length=len(part), size=len(part))
    return Image(parse_header(builder.build()), read_of(data))
