"""A store with an old and a new image of a small update, complete as `.zck`, and what makes patches between them."""

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.south.pairs.bases import Bases
from gateway.south.pairs.maker import Job
from gateway.south.pairs.shelf import Pair, Shelf
from gateway.south.pairs.workshop import COMMAND, Bounds, Order, Workshop
from tests.builders.relayed import info_of
from update.chunks.pair import PatchForm
from update.durable import Disk
from update.errors import NoSpaceError, StoreError
from update.publish.images import write_zchunk
from update.store.store import Store
from update.trust.verified import TargetInfo, ZckHeader, verify_target

SIZE = 3 << 20
MEMORY = 4 << 20
BOUNDS = Bounds(max_image_bytes=SIZE, maker_memory_bytes=1 << 30, maker_time_s=120)


def small_update(seed: int = 1) -> tuple[bytes, bytes]:
    """Two images: twelve places of the second differ by a few bytes, so that chunks are many times what has changed."""
    dice = random.Random(seed)
    old = dice.randbytes(SIZE - (64 << 10)) + bytes(64 << 10)
    new = bytearray(old)
    for _ in range(12):
        at = dice.randrange(len(new) - (128 << 10))
        new[at : at + 40] = dice.randbytes(40)
    return old, bytes(new)


def make_images(folder: Path) -> None:
    """`old`, `old.zck`, `new`, `new.zck` and `other.zck` in `folder`."""
    folder.mkdir()
    for name, content in zip(("old", "new", "other"), (*small_update(), random.Random(9).randbytes(200_000)), strict=True):
        (folder / name).write_bytes(content)
        write_zchunk(folder / name, folder / f"{name}.zck", Disk(), workers=1)


class PairSite:
    """`keep` puts an image into the store; `full`: there is no room."""

    def __init__(self, folder: Path, images: Path, *, kept: Sequence[str] = ("old", "new")) -> None:
        self.images = images
        self.disk = Disk()
        self.store = Store(self.disk, folder / "store")
        self.infos = {name: info_of(images / f"{name}.zck", path=f"os/{name}.zck") for name in ("old", "new", "other")}
        self.listed = dict(self.infos)
        self.full = False
        self.grown: list[int] = []
        self.shelf = Shelf(self.disk, self.store.layout.pairs)
        self.bases = Bases(self, self.store, self.stored)
        for name in kept:
            self.keep(name)

    def keep(self, name: str) -> None:
        info = self.infos[name]
        with self.store.stage(info) as staged:
            staged.write_at(0, (self.images / f"{name}.zck").read_bytes())
            staged.sync()
        self.store.publish(verify_target(info, staged.path))

    def repositories(self) -> Sequence[str]:
        return ("plant",)

    def targets(self, repository: str) -> Sequence[TargetInfo]:
        return tuple(info for info in self.listed.values() if info.repository == repository)

    def find(self, repository: str, wire_path: str) -> TargetInfo | None:
        return next((info for info in self.targets(repository) if info.wire_path == wire_path), None)

    def stored(self, info: TargetInfo) -> Path | None:
        with suppress(StoreError):
            return self.store.open_verified(info).file
        return None

    async def grow(self, _info: TargetInfo, needed_bytes: int) -> None:
        if self.full:
            raise NoSpaceError("the quota is used")
        self.grown.append(needed_bytes)

    def workshop(self, *, bounds: Bounds = BOUNDS, command: tuple[str, ...] = COMMAND) -> Workshop:
        return Workshop(self.shelf, self.grow, bounds, command=command)

    def header(self, name: str) -> ZckHeader:
        pinned = self.infos[name].custom.zck_header
        assert pinned is not None
        return pinned

    def pair(self, old: str = "old", new: str = "new", form: PatchForm = PatchForm.WINDOWS) -> Pair:
        memory = MEMORY if form is PatchForm.WINDOWS else 0
        return Pair(self.header(old).sha256, self.header(new).sha256, form, memory)

    def order(self, pair: Pair | None = None) -> Order:
        return Order(pair or self.pair(), self.images / "old.zck", self.images / "new.zck", self.infos["new"])

    def job(self, form: PatchForm = PatchForm.WINDOWS, *, max_bytes: int = SIZE) -> Job:
        pair = self.pair(form=form)
        part, limits = self.shelf.part(pair), (MEMORY, max_bytes, BOUNDS.maker_memory_bytes, BOUNDS.maker_time_s)
        return Job(self.images / "old.zck", pair.old, self.images / "new.zck", pair.new, part, form, *limits)

    @property
    def on_shelf(self) -> list[str]:
        """Names in the folder of patches."""
        return sorted(path.name for path in self.store.layout.pairs.iterdir())
