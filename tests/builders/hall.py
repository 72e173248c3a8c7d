"""A hall without any line: a gateway in this process, and a folder that stands for a stick."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.sections.media import MediaSection
from media.folder import FolderMedium
from media.importer import Importer, Visit
from media.intake import Intake
from media.medium import Medium
from media.records import Answer, MediumState
from tests.builders.bundles import describe, image, signed
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import Site, now, set_up_site
from update.durable import Disk

BOARD = {"hwIds": ["board:1"], "version": "2", "releaseCounter": 2}


def whole(folder: Path, version: str = "2") -> Path:
    content = f"the whole image {version}".encode() * 1000
    description = describe(images=[image("a.img", content, type="raw")]).replace(
        b'version = "1"', f'version = "{version}"'.encode()
    )
    return signed(folder, description, {"a.img": content}, name=f"whole-{version}.swu")


@dataclass
class Hall:
    """A gateway without any line, and a stick."""

    site: Site
    builder: RepositoryBuilder
    folder: Path

    @property
    def intake(self) -> Intake:
        return Intake(Disk(), self.folder / "intake", "update-1")

    @property
    def store(self) -> Path:
        return self.folder / "state" / "store"

    def with_media(self, **keys: object) -> Site:
        """The site that takes sticks; `keys` are those of the section."""
        media = MediaSection(enabled=True, intake=self.folder / "intake", **keys)  # type: ignore[arg-type]  # keys by name
        return replace(self.site, config=replace(self.site.config, media=media))

    def write_stick(self, *singles: Path) -> None:
        self.builder.publish()
        self.builder.write_to(self.folder / "stick")
        for single in singles:
            (self.folder / "stick" / single.name).write_bytes(single.read_bytes())

    async def plug_in(
        self, *, left_in: bool = False, writable: bool = False, through: Callable[[Medium], Medium] = lambda medium: medium
    ) -> MediumState:
        """The stick, read once; `through` stands between it and its reader."""
        medium = through(FolderMedium.at(self.folder / "stick"))
        visit = Visit(medium, "UPDATE", writable=writable, now=time.time, clock=time.monotonic, left_in=left_in)
        try:
            async with asyncio.timeout(100):
                return await Importer(visit, self.intake, lambda _state: None).run()
        finally:
            medium.close()

    async def answer(self, holds: Callable[[Answer], bool]) -> Answer:
        async with asyncio.timeout(100):
            while (found := self.intake.answer()) is None or not holds(found):  # noqa: ASYNC110 - by another task
                await asyncio.sleep(0.02)
        return found

    def kept(self) -> set[str]:
        return {file.name.partition(".")[2] for file in self.store.rglob("targets/**/*") if file.is_file()}


async def make_hall(short: Path) -> Hall:
    builder = RepositoryBuilder(now=now())
    site = await set_up_site(short, builder)
    (short / "upstream").rename(short / "nowhere")
    return Hall(site, builder, short)
