"""The deltas of a verified bundle: which whole `.zck` each one fetches from, and the proved index of its chunks.

The header of the `.zck` is a member of the bundle, its hash is signed, and it names the digest of every chunk: so a server
can be nobody's friend and still be asked for chunks. Gateways register URL and header here, nodes plan with the index.
"""

from contextlib import suppress
from dataclasses import dataclass

from update.bundle.entries import Entry
from update.bundle.reader import open_member
from update.bundle.verified import VerifiedBundle
from update.chunks.zchunk import MAX_HEADER_BYTES
from update.errors import LimitError, UnsupportedError
from update.trust.verified import VerifiedChunkIndex, ZckHeader, verify_chunk_index


@dataclass(frozen=True, slots=True)
class Delta:
    """One image that travels as chunks of the `.zck` at `url`; `image` is its name, or the member's without one."""

    image: str
    url: str
    index: VerifiedChunkIndex


def chunk_index(bundle: VerifiedBundle, entry: Entry) -> VerifiedChunkIndex:
    """The index in the member of `entry`; `ChunkError` or `LimitError` if it is no zchunk header and nothing but that."""
    size = bundle.members[entry.filename].size
    if size > MAX_HEADER_BYTES:
        raise LimitError(f"{entry.filename} is {size} bytes long; a zchunk header has at most {MAX_HEADER_BYTES}")
    with open_member(bundle, entry.filename) as stream:
        raw = b"".join(iter(lambda: stream.read(MAX_HEADER_BYTES), b""))
    return verify_chunk_index(raw, sha256=entry.sha256, provenance=bundle.provenance, source=entry.filename)


def deltas(bundle: VerifiedBundle) -> tuple[Delta, ...]:
    """Every delta of any selection, each once; selections that need what this release lacks are passed over."""
    entries: dict[tuple[str, str], Entry] = {}
    for choice in bundle.description.choices:
        with suppress(UnsupportedError):
            for entry in bundle.description.content(choice).images:
                if entry.delta:
                    entries.setdefault((entry.filename, entry.delta.url), entry)
    return tuple(Delta(entry.name or entry.filename, url, chunk_index(bundle, entry)) for (_, url), entry in entries.items())


@dataclass(frozen=True, slots=True)
class Body:
    """The whole `.zck` behind a delta, as its signed header tells of it: `length` is in bytes, header included."""

    header: ZckHeader
    length: int


def bodies(bundle: VerifiedBundle) -> tuple[Body, ...]:
    """What the deltas of a bundle fetch from, each once. Errors: those of `deltas`."""
    found = (each.index for each in deltas(bundle))
    each_once = dict.fromkeys(Body(ZckHeader(index.sha256, len(index.header.raw)), index.header.total_length) for index in found)
    return tuple(each_once)
