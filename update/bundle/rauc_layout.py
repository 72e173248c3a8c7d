"""Where the parts of a RAUC bundle are in its file (RAUC manual, "Bundle Formats"); nothing is trusted here.

    payload    a squashfs; of a `crypt` bundle its ciphertext
    tree       dm-verity's hash tree; not in a `plain` bundle
    signature  CMS, DER
    size       of the signature, 8 bytes, big endian

The signature is from 1 byte to 64 KiB long, as RAUC demands, and that is known before it is read; what is before it is a
multiple of 4096 bytes. Where the payload ends and the tree begins, only the signed manifest says.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from update.errors import ContainerError, LimitError

RAUC_SUFFIX: Final = ".raucb"
BLOCK_BYTES: Final = 4096
MAX_SIGNATURE_BYTES: Final = 64 << 10
SQUASHFS_MAGIC: Final = b"hsqs"
_TRAILER_BYTES = 8


class RaucFormat(StrEnum):
    """How a bundle is proved: by a signature over all of it, or over a manifest that pins a hash tree."""

    PLAIN = "plain"
    VERITY = "verity"
    CRYPT = "crypt"


@dataclass(frozen=True, slots=True)
class RaucLayout:
    """The file as cut by its trailer: `content_bytes` (payload and tree), then `signature`."""

    content_bytes: int
    signature: bytes
    magic: bytes

    @property
    def is_squashfs(self) -> bool:
        """Whether the payload begins as a squashfs does; a `crypt` bundle's does not."""
        return self.magic == SQUASHFS_MAGIC


def is_rauc_bundle(name: str) -> bool:
    """Whether a file or target of this name is taken for a RAUC bundle: not macOS's `._` companions on sticks."""
    base = name.rpartition("/")[2]
    return base.endswith(RAUC_SUFFIX) and not base.startswith("._")


def read_layout(stream: BinaryIO, file: Path) -> RaucLayout:
    """Cut the file that is open as `stream`. Errors: `ContainerError`, `LimitError`; messages name `file`."""
    total = stream.seek(0, 2)
    if total <= _TRAILER_BYTES + BLOCK_BYTES:
        raise ContainerError(f"{file} has {total} bytes, too few for a RAUC bundle; fetch it again")
    stream.seek(total - _TRAILER_BYTES)
    size = int.from_bytes(stream.read(_TRAILER_BYTES), "big")
    if size > MAX_SIGNATURE_BYTES:
        raise LimitError(f"{file} ends with a signature of {size} bytes; at most {MAX_SIGNATURE_BYTES} are read")
    content_bytes = total - _TRAILER_BYTES - size
    if size == 0 or content_bytes <= 0:
        raise ContainerError(f"{file} has {total} bytes and a signature of {size}: it is no RAUC bundle, or cut")
    if content_bytes % BLOCK_BYTES:
        raise ContainerError(
            f"{file} has {content_bytes} bytes before its signature, no multiple of {BLOCK_BYTES}; build it again"
        )
    stream.seek(content_bytes)
    signature = stream.read(size)
    stream.seek(0)
    return RaucLayout(content_bytes, signature, stream.read(len(SQUASHFS_MAGIC)))
