"""dm-verity: the proof that an image and the hash tree appended to it fit the root hash that was signed.

An image whose entry carries the properties `verity-root-hash` (64 hexadecimal digits) and `verity-hash-offset` (bytes,
decimal: where the tree's superblock begins in the part) is checked by `veritysetup verify`, which works in user space and
reads every block. Status 2 of the tool means that a block differs.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from node_agent.programs import run_program
from update.bundle.entries import VERITY_HASH_OFFSET, VERITY_ROOT_HASH, Entry
from update.errors import HandlerError, ReadBackError

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OFFSET = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verity:
    """What the signed description says of an image's tree; `hash_offset` in bytes."""

    root_hash: str
    hash_offset: int


def read_verity(entry: Entry, tool: str) -> Verity | None:
    """What `entry` promises, None for nothing. `HandlerError` where it is malformed, or `tool` is not installed."""
    root_hash, offset = entry.properties.get(VERITY_ROOT_HASH), entry.properties.get(VERITY_HASH_OFFSET)
    if root_hash is None and offset is None:
        return None
    well_formed = (
        isinstance(root_hash, str) and _HASH.fullmatch(root_hash) and isinstance(offset, str) and _OFFSET.fullmatch(offset)
    )
    if not well_formed:
        raise HandlerError(
            f"{entry.filename} needs {VERITY_ROOT_HASH} (64 hexadecimal digits) and {VERITY_HASH_OFFSET} (bytes); build it again"
        )
    if shutil.which(tool) is None:
        raise HandlerError(f"{entry.filename} carries a dm-verity tree, and {tool} is not installed; install cryptsetup's tools")
    return Verity(str(root_hash), int(str(offset)))


async def verify_tree(path: Path, verity: Verity, *, tool: str, timeout_s: float) -> None:
    """Read the whole part at `path` through the tree. Errors: `ReadBackError`."""
    arguments = [tool, "verify", str(path), str(path), verity.root_hash, f"--hash-offset={verity.hash_offset}"]
    ended = await run_program(arguments, timeout_s=timeout_s, environment={})
    if not ended.succeeded:
        raise ReadBackError(f"{path} does not fit the signed dm-verity root hash {verity.root_hash}: {tool} {ended.describe()}")
