"""A device that follows a built repository: its clock, its disk, its floor, its client."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.builders.repository import START, RepositoryBuilder
from update.durable import Disk
from update.trust.client import Fetcher, Repository
from update.trust.floor import Floor


@dataclass
class Device:
    """Set `time` freely; `repository()` is a client as after a start of the process."""

    folder: Path
    builder: RepositoryBuilder
    disk: Disk = field(default_factory=Disk)
    time: datetime = START
    strict_time: bool = True

    def __post_init__(self) -> None:
        if not self.floor.exists():
            self.floor.create()

    @property
    def copies(self) -> tuple[Path, Path]:
        return self.folder / "floor-a" / "floor", self.folder / "floor-b" / "floor"

    @property
    def trusted(self) -> Path:
        return self.folder / "trusted"

    @property
    def floor(self) -> Floor:
        return Floor(self.disk, self.copies)

    def clock(self) -> datetime:
        return self.time

    def repository(self, fetcher: Fetcher | None = None) -> Repository:
        return Repository(
            "plant",
            trusted=self.trusted,
            root=self.builder.root_bytes,
            fetcher=fetcher or self.builder.fetcher(),
            disk=self.disk,
            floor=self.floor,
            now=self.clock,
            strict_time=self.strict_time,
        )

    def kept(self) -> dict[str, bytes]:
        """The complete set in the trusted folder, and the floor: what a refused refresh must not change."""
        files = [file for file in sorted(self.folder.rglob("*")) if file.is_file() and not file.name.startswith("ahead.")]
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in files}

    def ahead(self) -> list[str]:
        """The roles of which something newer was verified by a refresh that did not come to its end."""
        return [file.name.split(".")[1] for file in sorted(self.trusted.glob("ahead.*.json"))]
