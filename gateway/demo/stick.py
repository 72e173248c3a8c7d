"""The demo's stick: a folder that holds the repository with one release more, read as `fieldrelay media watch` reads a stick."""

import asyncio
import shutil
import time
from pathlib import Path

from gateway.demo.images import DemoImage
from gateway.demo.release import Release
from media.folder import FolderMedium
from media.importer import Importer, Visit
from media.intake import Intake
from media.records import MediumState
from media.signals import signal_of
from media.words import Language, big
from update.durable import Disk

LABEL = "RELEASE"
_COUNTER = 100
_PATIENCE_S = 120.0


def write_stick(release: Release, image: DemoImage, folder: Path) -> Path:
    """Publish the release of `image`, and put on the stick what a site needs of the repository: the metadata and this release."""
    built = release.maker.add(image, _COUNTER)
    release.maker.publish("targets")
    shutil.copytree(release.folder / "metadata", folder / "metadata")
    wanted = {built.file.name, *(delta.file.name for delta in built.deltas)}
    for file in sorted((release.folder / "targets").rglob("*")):
        if file.is_file() and file.name.partition(".")[2] in wanted:
            place = folder / "targets" / file.relative_to(release.folder / "targets")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return folder


async def plug_in(stick: Path, intake: Path, disk: Disk) -> MediumState:
    """How the stick stands when it may be pulled out again; bounded."""
    medium = FolderMedium.at(stick)
    visit = Visit(medium, LABEL, writable=False, now=time.time, clock=time.monotonic)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await Importer(visit, Intake(disk, intake, LABEL.lower()), lambda _state: None).run()
    finally:
        medium.close()


def big_words(state: MediumState) -> str:
    """What a technician reads."""
    signal = signal_of(state, None)
    return "" if signal is None else big(signal, Language.ENGLISH)
