"""What another program wrote into a slot, compared with the bundle: for installers whose word alone is not enough.

Raw images are compared byte for byte with what their members unpack to, deltas chunk by chunk with the digests of their
signed header. Nothing is written. Memory is bounded: images are read in blocks.
"""

import hashlib

from node_agent.drivers.slots.plan import PlannedImage, SlotPlan
from node_agent.drivers.slots.records import PartRecord
from node_agent.handlers.part import BLOCK_BYTES, Part, Piece
from update.bundle.reader import open_payload
from update.bundle.verified import VerifiedBundle
from update.digest import Digest
from update.durable import Disk
from update.errors import ReadBackError
from update.trust.verified import VerifiedChunkIndex


def read_back(bundle: VerifiedBundle, plan: SlotPlan, disk: Disk) -> dict[str, PartRecord]:
    """Every part of `plan` as it is now, by name. Errors: `ReadBackError`, `SlotError`, `StoreError`, any `BundleError`."""
    parts: dict[str, PartRecord] = {}
    for image in plan.images:
        with disk.open_device(image.part.path) as file:
            part = Part(image.part.name, file)
            part.require(image.size)
            part.settle()  # what the page cache holds proves nothing
            parts[part.name] = _raw(bundle, image, part) if image.remote is None else _delta(image.remote.index, part)
    return parts


def _raw(bundle: VerifiedBundle, image: PlannedImage, part: Part) -> PartRecord:
    state, position = hashlib.sha256(), image.entry.offset
    with open_payload(bundle, image.entry, max_bytes=part.capacity - position) as payload:
        while block := payload.read(BLOCK_BYTES):
            if part.read(position, len(block)) != block:
                raise ReadBackError(
                    f"part {part.name} differs from {image.entry.filename} between {position} and {position + len(block)}; "
                    "the installer did not write it, or the medium is failing"
                )
            state.update(block)
            position += len(block)
    return PartRecord(position - image.entry.offset, Digest(state.hexdigest()))


def _delta(index: VerifiedChunkIndex, part: Part) -> PartRecord:
    header = index.header
    chunks = map(header.__getitem__, range(len(header)))
    for _ in part.read_back(Piece(chunk.index, chunk.offset, chunk.size, chunk.digest, chunk.offset) for chunk in chunks):
        pass
    return PartRecord(header.image_size, index.sha256)
