"""Whether a delta bundle and a whole one bring the same release: told from what is signed in both, never from a name.

1. Both say the same version, and the same selections for the same hardware; in each, scripts and variables of the bootloader are
   equal, and images follow each other alike: same device, same conditions, same name and version.
2. An image that is no delta has the same stored bytes in both.
3. An image that is a delta in one is a plain image in the other. The delta's signed header names the digest of every chunk of
   what it makes; the other's content, unpacked and cut at the same places, must have exactly these, and nothing behind them.
   A header without such digests (zchunk flag 4) proves nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from update.bundle.deltas import chunk_index
from update.bundle.description import Choice, Description, Selection
from update.bundle.entries import Entry, Handler
from update.bundle.reader import open_payload
from update.bundle.verified import VerifiedBundle
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest
from update.errors import CompressionError, UnsupportedError

_BLOCK_BYTES = 1 << 20
_SHOWN = 80


def check_alike(delta: VerifiedBundle, whole: VerifiedBundle) -> None:
    """Refuse unless `whole` installs what `delta` does; reads `whole`.

    Errors: `UnsupportedError` with the first difference; `ChunkError`, `LimitError` for a header that is none.
    """
    ours, theirs = delta.description, whole.description
    if not ours.version or ours.version != theirs.version:
        raise UnsupportedError(f"one bundle is version {ours.version[:_SHOWN]!r}, the other {theirs.version[:_SHOWN]!r}")
    if set(ours.choices) != set(theirs.choices):
        raise UnsupportedError("the selections of both bundles differ")
    proved: set[tuple[Digest, Digest]] = set()
    for choice in ours.choices:
        for one, other in _pairs(choice, ours, theirs):
            if one.delta is None:
                continue
            pair = one.sha256, other.sha256
            if pair not in proved:
                _check_content(chunk_index(delta, one).header, whole, other)
                proved.add(pair)


def _pairs(choice: Choice, ours: Description, theirs: Description) -> Iterator[tuple[Entry, Entry]]:
    """The images of one selection, each with its like."""
    one, other = ours.content(choice), theirs.content(choice)
    if set(ours.hardware_of(choice)) != set(theirs.hardware_of(choice)):
        raise UnsupportedError(f"selection {choice}: both bundles are for other hardware revisions")
    if _besides(one) != _besides(other) or len(one.images) != len(other.images):
        raise UnsupportedError(f"selection {choice}: scripts, variables or the number of images differ")
    for ours_each, theirs_each in zip(one.images, other.images, strict=True):
        if not _is_like(ours_each, theirs_each):
            raise UnsupportedError(f"selection {choice}: {ours_each.filename[:_SHOWN]} has no like in the other bundle")
        yield ours_each, theirs_each


def _besides(selection: Selection) -> tuple[object, ...]:
    return selection.version, [replace(each, filename="") for each in selection.scripts], selection.bootenv


def _is_like(ours: Entry, theirs: Entry) -> bool:
    if ours.delta is None:
        return replace(ours, filename="") == replace(theirs, filename="")
    conditions = (ours.device, ours.name, ours.version, ours.install_if_different, ours.install_if_higher)
    others = (theirs.device, theirs.name, theirs.version, theirs.install_if_different, theirs.install_if_higher)
    return theirs.type is Handler.RAW and not theirs.offset and conditions == others


def _check_content(index: HeaderIndex, whole: VerifiedBundle, entry: Entry) -> None:
    what = f"{entry.filename[:_SHOWN]} of the whole bundle"
    if not index.has_digests:
        raise UnsupportedError(f"the delta's header has no digests of its content, so {what} cannot be compared with it")
    try:
        with open_payload(whole, entry, max_bytes=index.image_size) as payload:
            for number in range(len(index)):
                if _digest(index, payload.read, index.size_of(number)) != index.digest_of(number):
                    raise UnsupportedError(f"{what} is not what the delta makes: chunk {number} differs")
            payload.read(1)  # what goes on behind it is above its limit
    except CompressionError as error:
        raise UnsupportedError(f"{what} is not what the delta makes: {error}") from error


def _digest(index: HeaderIndex, read: Callable[[int], bytes], size: int) -> bytes:
    state, left = index.chunk_hash.state(), size
    while left and (piece := read(min(left, _BLOCK_BYTES))):
        state.update(piece)
        left -= len(piece)
    return b"" if left else state.digest()[: index.chunk_hash.size]
