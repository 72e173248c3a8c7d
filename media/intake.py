"""Where the reader of media and the gateway meet: the folder `intake`, and what is written to it by whom (`media.records`).

Every record is small and replaced as a whole. A record that cannot be read counts as not there, and is told in the log: whoever
writes it will write it again. The bytes of wants are no records: they are shown under their name once they are complete, are read
once, and are worth nothing after a power cut.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from media.records import Answer, MediumState, Offer, Refusal, Wants, from_mapping, to_mapping
from update.durable import Disk
from update.errors import CorruptError, FormatVersionError, StateError
from update.store.journal import Journal

_LOG = logging.getLogger(__name__)
_MEDIUM = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_Record = TypeVar("_Record", MediumState, Offer, Wants, Refusal, Answer)


def medium_id(*parts: str) -> str:
    """A name for a medium from what is known of it (serial number, file system's id): plain, and never empty."""
    plain = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower(), flags=re.ASCII).strip("-")
    return plain[:63].strip("-") or "medium"


@dataclass(frozen=True, slots=True)
class Intake:
    """One medium's files below the folder `root`; `StateError` for a name that `medium_id` would not give."""

    disk: Disk
    root: Path
    medium: str

    def __post_init__(self) -> None:
        if not _MEDIUM.fullmatch(self.medium):
            raise StateError(f"{self.medium[:80]!r} is no name of a medium")

    @property
    def folder(self) -> Path:
        """What the reader of the medium writes."""
        return self.root / self.medium

    def content(self, want: int) -> Path:
        """The bytes of one want."""
        return self.folder / "content" / str(want)

    def state(self) -> MediumState | None:
        """What people see of the medium."""
        return self._read(MediumState, self.folder / "state.json")

    def offer(self) -> Offer | None:
        """What was recognised."""
        return self._read(Offer, self.folder / "offer.json")

    def wants(self) -> Wants | None:
        """What the gateway asks for."""
        return self._read(Wants, self.root / f"{self.medium}.wants.json")

    def answer(self) -> Answer | None:
        """What the gateway says."""
        return self._read(Answer, self.root / f"{self.medium}.answer.json")

    def refusal(self, want: int) -> Refusal | None:
        """Why the bytes of a want cannot be had."""
        return self._read(Refusal, self._refused(want))

    def begin(self) -> None:
        """Make the reader's folders, empty of what an earlier visit left there."""
        self.disk.make_folder(self.folder / "content", mode=0o770)
        for rest in (self.folder / "content").iterdir():
            self.disk.remove(rest)
        self.disk.remove(self.folder / "offer.json")

    def write_state(self, state: MediumState) -> None:
        """By the reader. This and all others: `StoreError`."""
        self._write(self.folder / "state.json", state)

    def write_offer(self, offer: Offer) -> None:
        """By the reader."""
        self._write(self.folder / "offer.json", offer)

    def write_wants(self, wants: Wants) -> None:
        """By the gateway."""
        self._write(self.root / f"{self.medium}.wants.json", wants)

    def write_answer(self, answer: Answer) -> None:
        """By the gateway."""
        self._write(self.root / f"{self.medium}.answer.json", answer)

    def refuse(self, want: int, refusal: Refusal) -> None:
        """By the reader."""
        self._write(self._refused(want), refusal)

    def forget(self, want: int) -> None:
        """By the gateway, once it has taken the bytes, or has read why not."""
        for file in (self.content(want), self._refused(want)):
            if file.exists():
                file.unlink(missing_ok=True)

    def _refused(self, want: int) -> Path:
        return self.folder / "content" / f"{want}.refused"

    def _write(self, path: Path, record: MediumState | Offer | Wants | Refusal | Answer) -> None:
        Journal(self.disk, path, mode=0o660).write(to_mapping(record))

    def _read(self, kind: type[_Record], path: Path) -> _Record | None:
        try:
            mapping = Journal(self.disk, path).read()
            return None if mapping is None else from_mapping(kind, mapping)
        except (CorruptError, FormatVersionError) as error:
            _LOG.warning("%s (%s)", error, error.code)
            return None


def media_in(disk: Disk, root: Path) -> Iterator[Intake]:
    """Every medium that was ever here and is not forgotten, by name."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir() and _MEDIUM.fullmatch(folder.name) and folder.name != OUTBOX:
            yield Intake(disk, root, folder.name)


OUTBOX = "outbox"
"""The folder of reports that wait for a medium; written by the gateway."""
