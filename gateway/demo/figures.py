"""What the demo measured, and what must be true of it. All sizes in bytes.

Upstream's bytes are counted at its socket. `metadata_bytes` are the answers with TUF metadata and bundles (which hold the
zchunk headers that nodes get), `repeated_bytes` the parts of images that were sent more than once, which only the kill may
cause, and `union_bytes` is what had to be sent: the header of the new `.zck` and every chunk that any node lacked, once.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.demo.line_figures import LineRun
from gateway.simulators.upstream import Traffic
from media.records import Stage
from update.chunks.plan import Source, plan_delta
from update.chunks.zchunk import HeaderIndex

OVERHEAD = 1.01
CONFIRMED, ROLLED_BACK = "confirmed", "rolled-back"


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """One node's update; `slot` is the one that runs afterwards."""

    id: str
    start: str
    wanted: str
    result: str
    downloaded_bytes: int
    reused_bytes: int
    slot: str
    slot_sha256: str


@dataclass(frozen=True, slots=True)
class StickFigures:
    """What a stick brought: `bytes` were read of it until it was `safe` to remove; every node's slot afterwards."""

    version: str
    stage: str
    bytes: int
    safe_seconds: float
    nodes: tuple[str, ...]
    slots_sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The whole run."""

    image_bytes: int
    zck_bytes: int
    upstream_bytes: int
    metadata_bytes: int
    repeated_bytes: int
    union_bytes: int
    late_bytes: int
    bootloader: str
    nodes: tuple[NodeFigures, ...]
    seconds: float
    stick: StickFigures | None = None
    line: tuple[LineRun, ...] = ()

    @property
    def chunk_bytes(self) -> int:
        """What upstream sent for images, each byte counted once."""
        return self.upstream_bytes - self.metadata_bytes - self.repeated_bytes

    def as_json(self) -> str:
        """The published form."""
        values = asdict(self)
        del values["late_bytes"]
        values["nodes"] = [_published(node) for node in self.nodes]
        return json.dumps(values, indent=2)


def _published(node: NodeFigures) -> dict[str, object]:
    values = asdict(node)
    return {"id": values.pop("id"), "from": values.pop("start"), "to": values.pop("wanted"), **values}


def union_bytes(new: HeaderIndex, old: Iterable[HeaderIndex]) -> int:
    """Header and every chunk of `new` that at least one of `old` lacks, once."""
    needed: set[int] = set()
    for index in old:
        for span in plan_delta(new, Source.of_index(index)).ranges:
            needed.update(new.covering(span.start, span.length))
    return new.header_size + sum(new[number].length for number in needed)


def metadata_bytes(traffic: Traffic) -> int:
    """Answers for everything but images."""
    return sum(count for path, count in traffic.per_path_bytes.items() if not path.endswith(".zck"))


def repeated_bytes(traffic: Traffic) -> int:
    """Parts of images that were sent more than once."""
    return traffic.repeated_bytes(".zck")


def problems(figures: Figures, expected: Sequence[NodeFigures], images: dict[str, str]) -> list[str]:
    """What is not as promised; empty when all is. `images` maps versions to the digests of their images."""
    found = []
    if figures.chunk_bytes > OVERHEAD * figures.union_bytes:
        found.append(f"upstream sent {figures.chunk_bytes} bytes of images, {figures.union_bytes} were needed")
    if figures.late_bytes:
        found.append(f"the last node cost upstream {figures.late_bytes} bytes, though it needed nothing new")
    for node, wish in zip(figures.nodes, expected, strict=True):
        if (node.id, node.result, node.slot) != (wish.id, wish.result, wish.slot):
            found.append(f"{node.id} is {node.result} in slot {node.slot}, expected {wish.result} in slot {wish.slot}")
        runs = node.wanted if node.result == CONFIRMED else node.start
        if node.slot_sha256 != images[runs]:
            found.append(
                f"{node.id}: slot {node.slot} hashes to {node.slot_sha256[:16]}…, version {runs} to {images[runs][:16]}…"
            )
    return found


def stick_problems(stick: StickFigures, image: str) -> list[str]:
    """What is not as promised of the release that came by hand; `image` is the digest of its image."""
    found = [] if stick.stage == Stage.SAFE else [f"the stick ended as {stick.stage}, expected {Stage.SAFE}"]
    for node, digest in zip(stick.nodes, stick.slots_sha256, strict=True):
        if digest != image:
            found.append(f"{node}: its slot hashes to {digest[:16]}…, version {stick.version} to {image[:16]}…")
    return found


def write_json(figures: Figures, file: Path) -> None:
    """Write the published form, making the folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(figures.as_json() + "\n")
