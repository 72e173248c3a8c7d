"""Where the header of a relayed file comes from: believed only if its SHA-256 is the one in verified metadata.

The front of an earlier run's sparse file is as good as an upstream's answer, since both are compared.
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from gateway.south.origins import UPSTREAM_FAULTS, RangeSource, unavailable
from update.chunks.ranges import Range
from update.chunks.zchunk import MAX_HEADER_BYTES
from update.errors import FieldrelayError, LimitError, NotFoundError, ProtocolError, WireError
from update.trust.verified import Provenance, TargetInfo, VerifiedChunkIndex, ZckHeader, verify_chunk_index

_log = logging.getLogger(__name__)


def pinned_header(info: TargetInfo) -> ZckHeader:
    """What metadata pins of a target; `NotFoundError` if it pins none, `LimitError` for one that is too large."""
    pinned = info.custom.zck_header
    if pinned is None:
        raise NotFoundError(f"{info.path} is not stored, and its metadata pins no zchunk header to relay it by")
    if pinned.length > min(MAX_HEADER_BYTES, info.length):
        raise LimitError(
            f"{info.path} of {info.length} bytes: its metadata pins a zchunk header of {pinned.length} bytes, the limit is "
            f"{MAX_HEADER_BYTES}"
        )
    return pinned


def kept_index(path: Path, info: TargetInfo, pinned: ZckHeader) -> VerifiedChunkIndex | None:
    """The header at the front of an earlier run's sparse file, if it is still the signed one."""
    try:
        with path.open("rb") as file:
            raw = file.read(pinned.length)
        return verify_chunk_index(raw, sha256=pinned.sha256, provenance=Provenance.TUF, source=info.path)
    except (OSError, FieldrelayError):  # absent or damaged: it is fetched
        return None


async def fetched_index(sources: Sequence[RangeSource], info: TargetInfo, pinned: ZckHeader) -> VerifiedChunkIndex:
    """The header from the first source that has the signed one."""
    trouble: FieldrelayError = WireError("none is configured")
    for source in sources:
        try:
            return await _index_from(source, info, pinned)
        except UPSTREAM_FAULTS as error:
            _log.warning("relay: upstream %s: %s (%s)", source.name, error, error.code)
            source.failed()
            trouble = error
    raise unavailable(f"the zchunk header of {info.path}", trouble) from trouble


async def _index_from(source: RangeSource, info: TargetInfo, pinned: ZckHeader) -> VerifiedChunkIndex:
    raw = bytearray()
    async with aclosing(source.read_ranges((Range(0, pinned.length),))) as pieces:
        async for offset, piece in pieces:
            if offset != len(raw):
                raise ProtocolError(f"upstream sent byte {offset} of the header of {info.path}, expected byte {len(raw)}")
            raw += piece
    return verify_chunk_index(bytes(raw), sha256=pinned.sha256, provenance=Provenance.TUF, source=info.path)
